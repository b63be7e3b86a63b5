//! A phone that registers.

use super::{ATTEMPTS_MAX, Answer, Cause, EXPIRES_MAX, Op, Reaction, Transaction};
use crate::clock::Nanos;
use crate::ident::{Ident, Kind};
use crate::message::{self, Request, Style};

/// A phone that registers.
#[derive(Debug)]
pub struct Registrant {
    /// The request that runs.
    pub running: Option<Transaction>,
    cseq: u32,
    expires: u32,
    bound: bool,
}

impl Registrant {
    /// A phone that will ask for `expires` seconds.
    pub fn new(expires: u32) -> Self {
        Self { running: None, cseq: 19, expires, bound: false }
    }

    /// Begins `op`. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unregister && !self.bound {
            return false;
        }
        self.begin(op, intended, 0);
        true
    }

    /// Begins the running operation again.
    pub fn start_again(&mut self) {
        if let Some(Transaction { op, intended, attempts, .. }) = self.running {
            self.begin(op, intended, attempts + 1);
        }
    }

    fn begin(&mut self, op: Op, intended: Nanos, attempts: u8) {
        self.cseq += 1;
        self.running = Some(Transaction {
            cseq: self.cseq,
            op,
            intended,
            in_dialog: false,
            answered: false,
            notified: false,
            attempts,
        });
    }

    /// Writes the running request.
    pub fn write(&self, out: &mut Vec<u8>, style: &Style, index: u32, local: &str) {
        let Some(transaction) = self.running else { return };
        let from = Ident { kind: Kind::Registrant, index, generation: 0 };
        let expires = if transaction.op == Op::Unregister { 0 } else { self.expires };
        message::register(out, style, Request { from, name: index, local, cseq: transaction.cseq, expires });
    }

    /// Takes an answer to a REGISTER.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(transaction) = self.running.filter(|running| running.cseq == answer.cseq) else {
            return Reaction::Stray;
        };
        match answer.status {
            ..200 => Reaction::Provisional,
            200..300 => {
                self.running = None;
                self.bound = transaction.op == Op::Register;
                Reaction::Accepted
            }
            423 if transaction.attempts < ATTEMPTS_MAX
                && answer.min_expires.is_some_and(|least| least > self.expires && least <= EXPIRES_MAX) =>
            {
                self.expires = answer.min_expires.unwrap_or(self.expires);
                Reaction::Again(Cause::TooBrief)
            }
            status => {
                self.running = None;
                Reaction::Refused(status)
            }
        }
    }

    /// The phone starts anew.
    pub fn forget(&mut self) {
        self.bound = false;
    }

    /// Timer F.
    pub fn give_up(&mut self) {
        self.running = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::support::answer;

    #[test]
    fn a_registration_is_refreshed_with_the_next_cseq() {
        let mut registrant = Registrant::new(600);
        for cseq in [20, 21] {
            assert!(registrant.start(Op::Register, 0));
            assert_eq!(registrant.on_answer(&answer(100, cseq)), Reaction::Provisional);
            assert_eq!(registrant.on_answer(&answer(200, cseq)), Reaction::Accepted);
            assert_eq!(registrant.on_answer(&answer(200, cseq)), Reaction::Stray);
        }
        assert!(registrant.start(Op::Unregister, 0));
    }
}

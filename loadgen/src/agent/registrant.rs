//! A phone that registers.

use super::{Answer, Cause, Op, Reaction, Requests};
use crate::clock::Nanos;
use crate::ident::{Ident, Kind};
use crate::message::{self, Request, Style};

/// A phone that registers.
#[derive(Debug)]
pub struct Registrant {
    /// Its requests.
    pub requests: Requests,
    bound: bool,
}

impl Registrant {
    /// A phone that will ask for `expires` seconds.
    pub fn new(expires: u32) -> Self {
        Self { requests: Requests::new(expires), bound: false }
    }

    /// Begins `op`. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unregister && !self.bound {
            return false;
        }
        self.requests.begin(op, intended, false);
        true
    }

    /// Begins the running operation again.
    pub fn start_again(&mut self) {
        self.requests.begin_again(false);
    }

    /// Writes the running request.
    pub fn write(&self, out: &mut Vec<u8>, style: &Style, index: u32, local: &str) {
        let Some(running) = self.requests.running else { return };
        let from = Ident { kind: Kind::Registrant, index, generation: 0 };
        let expires = self.requests.expires();
        message::register(out, style, Request { from, name: index, local, cseq: running.cseq, expires });
    }

    /// Takes an answer to a REGISTER.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(running) = self.requests.answered_by(answer) else { return Reaction::Stray };
        if answer.status < 200 {
            return Reaction::Provisional;
        }
        if self.requests.lengthen(answer) {
            return Reaction::Again(Cause::TooBrief);
        }
        if let Some(seconds) = self.requests.defer(answer) {
            return Reaction::Later(seconds);
        }
        self.requests.running = None;
        match answer.status {
            ..300 => {
                self.bound = running.op == Op::Register;
                Reaction::Accepted
            }
            status => Reaction::Refused(status),
        }
    }

    /// Whether the server has its binding, as far as it knows.
    pub fn is_bound(&self) -> bool {
        self.bound
    }

    /// The phone starts anew.
    pub fn forget(&mut self) {
        self.bound = false;
    }

    /// Timer F.
    pub fn give_up(&mut self) {
        self.requests.running = None;
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

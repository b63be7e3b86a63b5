//! A phone that publishes.

use super::{ATTEMPTS_MAX, Answer, Cause, EXPIRES_MAX, Op, Reaction, Transaction};
use crate::clock::Nanos;
use crate::ident::{Ident, Kind};
use crate::message::{self, Request, State, Style};

/// A phone that publishes its state.
#[derive(Debug)]
pub struct Presentity {
    /// The request that runs.
    pub running: Option<Transaction>,
    cseq: u32,
    expires: u32,
    entity_tag: Vec<u8>,
    state: u32,
    accepted: u32,
    unsure: Option<u32>,
}

impl Presentity {
    /// A phone that will ask for `expires` seconds.
    pub fn new(expires: u32) -> Self {
        Self { running: None, cseq: 19, expires, entity_tag: Vec::new(), state: 0, accepted: 0, unsure: None }
    }

    /// Begins `op`: a new state with [`Op::Publish`]. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unpublish && self.entity_tag.is_empty() {
            return false;
        }
        self.state += u32::from(op == Op::Publish);
        self.begin(op, intended, 0);
        true
    }

    /// Begins the running operation again, with the same state.
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
    pub fn write(&self, out: &mut Vec<u8>, scratch: &mut Vec<u8>, style: &Style, index: u32, local: &str) {
        let Some(transaction) = self.running else { return };
        let removes = transaction.op == Op::Unpublish;
        let from = Ident { kind: Kind::Presentity, index, generation: 0 };
        let expires = if removes { 0 } else { self.expires };
        let request = Request { from, name: index, local, cseq: transaction.cseq, expires };
        let tag = (!self.entity_tag.is_empty()).then_some(&self.entity_tag[..]);
        let state = State { presentity: index, number: self.state, intended: transaction.intended };
        message::publish(out, scratch, style, request, tag, (!removes).then_some(state));
    }

    /// Takes an answer to a PUBLISH.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(transaction) = self.running.filter(|running| running.cseq == answer.cseq) else {
            return Reaction::Stray;
        };
        match answer.status {
            ..200 => Reaction::Provisional,
            200..300 => {
                self.running = None;
                self.entity_tag.clear();
                if transaction.op == Op::Publish {
                    self.entity_tag.extend_from_slice(answer.entity_tag.unwrap_or_default());
                    self.accepted = self.state;
                    self.unsure = None;
                }
                Reaction::Accepted
            }
            412 if transaction.op == Op::Unpublish => {
                self.running = None;
                self.entity_tag.clear();
                Reaction::Accepted
            }
            412 if transaction.attempts < ATTEMPTS_MAX => {
                self.entity_tag.clear();
                Reaction::Again(Cause::TagUnknown)
            }
            423 if transaction.attempts < ATTEMPTS_MAX
                && answer.min_expires.is_some_and(|least| least > self.expires && least <= EXPIRES_MAX) =>
            {
                self.expires = answer.min_expires.unwrap_or(self.expires);
                Reaction::Again(Cause::TooBrief)
            }
            status => {
                self.running = None;
                if status >= 500 && transaction.op == Op::Publish {
                    self.unsure = Some(self.state);
                }
                Reaction::Refused(status)
            }
        }
    }

    /// The phone starts anew: its next PUBLISH is an initial one.
    pub fn forget(&mut self) {
        self.entity_tag.clear();
    }

    /// Timer F: nobody knows whether the server has the state.
    pub fn give_up(&mut self) {
        if self.running.take().is_some_and(|running| running.op == Op::Publish) {
            self.unsure = Some(self.state);
        }
    }

    /// Number of the state that was published last, answered or not.
    pub fn state(&self) -> u32 {
        self.state
    }

    /// Number of the last state that the server accepted, and of a newer one that it may have.
    pub fn settled(&self) -> (u32, Option<u32>) {
        (self.accepted, self.unsure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::support::{answer, style};

    fn published(presentity: &Presentity) -> String {
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        presentity.write(&mut out, &mut scratch, &style(), 0, "127.0.0.1:9");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_entity_tag_is_kept_and_forgotten_after_a_412() {
        let mut presentity = Presentity::new(600);
        presentity.start(Op::Publish, 0);
        assert!(!published(&presentity).contains("SIP-If-Match"));
        presentity.on_answer(&Answer { entity_tag: Some(b"e1"), ..answer(200, 20) });
        presentity.start(Op::Publish, 0);
        assert!(published(&presentity).contains("SIP-If-Match: e1\r\n"));
        assert_eq!(presentity.on_answer(&answer(412, 21)), Reaction::Again(Cause::TagUnknown));
        presentity.start_again();
        assert!(!published(&presentity).contains("SIP-If-Match"));
        assert_eq!(presentity.state(), 2, "it is still the same state");
        presentity.on_answer(&Answer { entity_tag: Some(b"e2"), ..answer(200, 22) });
        assert_eq!(presentity.settled(), (2, None));
    }

    #[test]
    fn a_state_without_an_answer_is_unsure() {
        let mut presentity = Presentity::new(600);
        presentity.start(Op::Publish, 0);
        presentity.on_answer(&answer(200, 20));
        presentity.start(Op::Publish, 0);
        presentity.give_up();
        assert_eq!(presentity.settled(), (1, Some(2)));
        presentity.start(Op::Publish, 0);
        assert_eq!(presentity.on_answer(&answer(403, 22)), Reaction::Refused(403));
        assert_eq!(presentity.settled(), (1, Some(2)));
    }
}

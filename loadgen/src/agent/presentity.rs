//! A phone that publishes.

use super::request::ATTEMPTS_MAX;
use super::{Answer, Cause, Op, Reaction, Requests};
use crate::clock::Nanos;
use crate::ident::{Ident, Kind};
use crate::message::{self, Request, State, Style};

/// A phone that publishes its state.
#[derive(Debug)]
pub struct Presentity {
    /// Its requests.
    pub requests: Requests,
    entity_tag: Vec<u8>,
    state: u32,
    /// When that state was meant to be published first.
    since: Nanos,
    accepted: u32,
    unsure: Option<u32>,
    /// Two PUBLISHes under way at once, of which the running request is the first.
    race: Option<Box<Pair>>,
}

/// Two PUBLISHes that were sent at once, of the last two states.
#[derive(Debug)]
struct Pair {
    /// Their sequence numbers.
    cseqs: [u32; 2],
    /// The entity tag of both.
    tag: Box<[u8]>,
    /// Which of them are answered.
    answered: [bool; 2],
    /// Which of them are taken.
    taken: [bool; 2],
}

impl Presentity {
    /// A phone that will ask for `expires` seconds.
    pub fn new(expires: u32) -> Self {
        Self {
            requests: Requests::new(expires),
            entity_tag: Vec::new(),
            state: 0,
            since: 0,
            accepted: 0,
            unsure: None,
            race: None,
        }
    }

    /// Begins `op`: a new state with [`Op::Publish`]. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unpublish && self.entity_tag.is_empty() {
            return false;
        }
        // Without a publication there is nothing to refresh.
        if op != Op::Unpublish && (op != Op::Refresh || self.entity_tag.is_empty()) {
            self.state += 1;
            self.since = intended;
        }
        self.requests.begin(op, intended, false);
        // Without a tag there is nothing to race for.
        if op == Op::Race && !self.entity_tag.is_empty() {
            self.state += 1;
            let second = self.requests.next_cseq();
            self.race = Some(Box::new(Pair {
                cseqs: [second - 1, second],
                tag: self.entity_tag.as_slice().into(),
                answered: [false; 2],
                taken: [false; 2],
            }));
        }
        true
    }

    /// Begins the running operation again, with the same state.
    pub fn start_again(&mut self) {
        self.requests.begin_again(false);
    }

    /// Sequence numbers of the requests that are not answered.
    pub fn unanswered(&self) -> impl Iterator<Item = u32> {
        let (cseqs, answered) = match (&self.race, self.requests.running) {
            (Some(pair), _) => (pair.cseqs, pair.answered),
            (None, Some(running)) => ([running.cseq; 2], [running.rests, true]),
            (None, None) => ([0; 2], [true; 2]),
        };
        cseqs.into_iter().zip(answered).filter(|(_, answered)| !answered).map(|(cseq, _)| cseq)
    }

    /// Writes the running request `cseq`.
    pub fn write(
        &self,
        cseq: u32,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        style: &Style,
        index: u32,
        local: &str,
    ) {
        let Some(transaction) = self.requests.running else { return };
        let (tag, number) = match &self.race {
            Some(pair) => (&*pair.tag, self.state - u32::from(cseq == pair.cseqs[0])),
            None => (&*self.entity_tag, self.state),
        };
        let removes = transaction.op == Op::Unpublish;
        let from = Ident { kind: Kind::Presentity, index, generation: 0 };
        let expires = self.requests.expires();
        let request = Request { from, name: index, local, cseq, expires };
        let tag = (!tag.is_empty()).then_some(tag);
        let state = State { presentity: index, number, intended: self.since };
        let at = transaction.intended;
        message::publish(out, scratch, style, request, tag, (!removes).then_some((state, at)));
    }

    /// Takes an answer to a PUBLISH.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        if self.race.is_some() {
            return self.on_race(answer);
        }
        let Some(transaction) = self.requests.answered_by(answer) else { return Reaction::Stray };
        if answer.status < 200 {
            return Reaction::Provisional;
        }
        if self.requests.lengthen(answer) {
            return Reaction::Again(Cause::TooBrief);
        }
        if let Some(seconds) = self.requests.defer(answer) {
            return Reaction::Later(seconds);
        }
        let publishes = transaction.op != Op::Unpublish;
        if answer.status == 412 && publishes && transaction.attempts < ATTEMPTS_MAX {
            self.entity_tag.clear();
            return Reaction::Again(Cause::TagUnknown);
        }
        self.requests.running = None;
        match answer.status {
            ..300 => {
                self.entity_tag.clear();
                if publishes {
                    self.entity_tag.extend_from_slice(answer.entity_tag.unwrap_or_default());
                    self.accepted = self.state;
                    self.unsure = None;
                }
                Reaction::Accepted
            }
            412 if !publishes => {
                self.entity_tag.clear();
                Reaction::Accepted
            }
            status => {
                if status >= 500 && publishes {
                    self.unsure = Some(self.state);
                }
                Reaction::Refused(status)
            }
        }
    }

    /// Takes an answer to one of two PUBLISHes that race.
    fn on_race(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(pair) = &mut self.race else { return Reaction::Stray };
        let Some(which) = pair.cseqs.iter().position(|&cseq| cseq == answer.cseq) else {
            return Reaction::Stray;
        };
        if pair.answered[which] {
            return Reaction::Stray;
        }
        if answer.status < 200 {
            return Reaction::Provisional;
        }
        pair.answered[which] = true;
        let mut reaction = match answer.status {
            200..300 => {
                pair.taken[which] = true;
                self.entity_tag.clear();
                self.entity_tag.extend_from_slice(answer.entity_tag.unwrap_or_default());
                self.accepted = self.accepted.max(self.state - u32::from(which == 0));
                Reaction::Accepted
            }
            412 => Reaction::Outrun,
            status => Reaction::Refused(status),
        };
        let (answered, taken) = (pair.answered, pair.taken);
        if let Reaction::Refused(_) = reaction {
            self.give_up();
        } else if taken == [true; 2] {
            // Two requests for one tag cannot both have found it.
            self.race = None;
            self.requests.running = None;
            reaction = Reaction::Refused(answer.status);
        } else if answered == [true; 2] {
            self.race = None;
            match taken {
                [_, true] => self.requests.running = None,
                [true, false] => reaction = Reaction::Again(Cause::TagUnknown),
                [false, false] => {
                    self.entity_tag.clear();
                    reaction = Reaction::Again(Cause::TagUnknown);
                }
            }
        }
        reaction
    }

    /// The phone starts anew: its next PUBLISH is an initial one.
    pub fn forget(&mut self) {
        self.entity_tag.clear();
    }

    /// Timer F: nobody knows whether the server has the state.
    pub fn give_up(&mut self) {
        self.race = None;
        if self.requests.running.take().is_some_and(|running| running.op != Op::Unpublish) {
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
    use crate::agent::support::answer;
    use crate::message::support::style;

    fn published(presentity: &Presentity) -> String {
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        presentity.write(
            presentity.unanswered().next().unwrap_or(0),
            &mut out,
            &mut scratch,
            &style(),
            0,
            "127.0.0.1:9",
        );
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
    fn a_refresh_has_the_same_state_with_another_time_stamp() {
        let mut presentity = Presentity::new(600);
        presentity.start(Op::Publish, 5);
        let first = published(&presentity);
        presentity.on_answer(&Answer { entity_tag: Some(b"e1"), ..answer(200, 20) });
        presentity.start(Op::Refresh, 3_600 * crate::clock::SECOND);
        let again = published(&presentity);
        assert!(again.contains("SIP-If-Match: e1\r\n") && again.contains("Expires: 600\r\n"), "{again}");
        let line = |text: &str, with: &str| text.lines().find(|line| line.contains(with)).map(str::to_string);
        assert_eq!(line(&again, "<note>"), line(&first, "<note>"));
        assert_ne!(line(&again, "<timestamp>"), line(&first, "<timestamp>"));
        assert_eq!(presentity.state(), 1);
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

    /// A phone that races with the tag `e1`: its first state has number 20, those that race 21 and 22.
    fn racing() -> Presentity {
        let mut presentity = Presentity::new(600);
        presentity.start(Op::Publish, 0);
        presentity.on_answer(&Answer { entity_tag: Some(b"e1"), ..answer(200, 20) });
        presentity.start(Op::Race, 0);
        assert_eq!(presentity.unanswered().collect::<Vec<_>>(), [21, 22]);
        presentity
    }

    fn text(presentity: &Presentity, cseq: u32) -> String {
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        presentity.write(cseq, &mut out, &mut scratch, &style(), 0, "127.0.0.1:9");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_loser_of_a_race_is_published_again_for_the_winners_tag() {
        let mut presentity = racing();
        let (first, second) = (text(&presentity, 21), text(&presentity, 22));
        assert!(first.contains("SIP-If-Match: e1\r\n") && second.contains("SIP-If-Match: e1\r\n"));
        assert!(first.contains("-00000002-") && second.contains("-00000003-"), "{first}{second}");
        let taken = Answer { entity_tag: Some(b"e2"), ..answer(200, 21) };
        assert_eq!(presentity.on_answer(&taken), Reaction::Accepted);
        assert_eq!(presentity.settled(), (2, None));
        assert_eq!(text(&presentity, 22), second, "a retransmission is the same request");
        assert_eq!(presentity.on_answer(&taken), Reaction::Stray);
        assert_eq!(presentity.on_answer(&answer(412, 22)), Reaction::Again(Cause::TagUnknown));
        presentity.start_again();
        let again = text(&presentity, 23);
        assert!(again.contains("SIP-If-Match: e2\r\n") && again.contains("-00000003-"), "{again}");
        presentity.on_answer(&Answer { entity_tag: Some(b"e3"), ..answer(200, 23) });
        assert_eq!((presentity.settled(), presentity.requests.running.is_none()), ((3, None), true));
    }

    #[test]
    fn the_newer_state_may_win_the_race() {
        let mut presentity = racing();
        assert_eq!(presentity.on_answer(&answer(412, 21)), Reaction::Outrun);
        assert!(presentity.requests.running.is_some());
        let taken = Answer { entity_tag: Some(b"e2"), ..answer(200, 22) };
        assert_eq!(presentity.on_answer(&taken), Reaction::Accepted);
        assert_eq!((presentity.settled(), presentity.requests.running.is_none()), ((3, None), true));
    }

    #[test]
    fn one_tag_is_not_found_twice() {
        let mut presentity = racing();
        presentity.on_answer(&answer(200, 21));
        assert_eq!(presentity.on_answer(&answer(200, 22)), Reaction::Refused(200));
        assert!(presentity.requests.running.is_none());
    }
}

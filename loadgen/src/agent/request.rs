//! What all phones have in common: they send one request at a time and recover from some refusals.

use super::{Answer, Op};
use crate::class::Class;
use crate::clock::Nanos;

/// A request that is not finished.
#[derive(Clone, Copy, Debug)]
pub struct Transaction {
    /// Its sequence number.
    pub cseq: u32,
    /// What it is for.
    pub op: Op,
    /// When it was meant to be sent first.
    pub intended: Nanos,
    /// When it was sent first.
    pub sent: Nanos,
    /// What it is worth.
    pub class: Class,
    /// Whether it is sent in a dialog.
    pub in_dialog: bool,
    /// Whether its final answer has come.
    pub answered: bool,
    /// Whether the NOTIFY that it asks for has come.
    pub notified: bool,
    /// Whether it was refused for a while, and waits until it may be sent anew.
    pub rests: bool,
    /// How often the operation was begun again after a recoverable refusal.
    pub attempts: u8,
    /// How often it was refused for a while.
    pub deferrals: u8,
}

/// The requests of a phone.
#[derive(Debug)]
pub struct Requests {
    /// The one that runs.
    pub running: Option<Transaction>,
    cseq: u32,
    expires: u32,
}

impl Requests {
    /// None yet; they will ask for `expires` seconds.
    pub fn new(expires: u32) -> Self {
        Self { running: None, cseq: 19, expires }
    }

    /// Begins `op`.
    pub fn begin(&mut self, op: Op, intended: Nanos, in_dialog: bool) {
        let cseq = self.next_cseq();
        self.running = Some(Transaction {
            cseq,
            op,
            intended,
            sent: intended,
            class: Class::default(),
            in_dialog,
            answered: false,
            notified: false,
            rests: false,
            attempts: 0,
            deferrals: 0,
        });
    }

    /// Begins the running operation again; false if there is none.
    pub fn begin_again(&mut self, in_dialog: bool) -> bool {
        let Some(Transaction { op, intended, attempts, deferrals, rests, .. }) = self.running else {
            return false;
        };
        self.begin(op, intended, in_dialog);
        if let Some(running) = &mut self.running {
            running.attempts = attempts + u8::from(!rests);
            running.deferrals = deferrals + u8::from(rests);
        }
        true
    }

    /// The next sequence number.
    pub fn next_cseq(&mut self) -> u32 {
        self.cseq += 1;
        self.cseq
    }

    /// The running request that an answer may belong to.
    pub fn answered_by(&self, answer: &Answer<'_>) -> Option<Transaction> {
        self.running.filter(|running| running.cseq == answer.cseq && !running.answered && !running.rests)
    }

    /// Whether the answer is a 423 that says how long the interval has to be; it is longer from now on.
    pub fn lengthen(&mut self, answer: &Answer<'_>) -> bool {
        let attempts = self.running.map_or(0, |running| running.attempts);
        let longer = answer.min_expires.filter(|&least| least > self.expires && least <= EXPIRES_MAX);
        let (423, Some(longer), ..ATTEMPTS_MAX) = (answer.status, longer, attempts) else { return false };
        self.expires = longer;
        true
    }

    /// For how many seconds the answer refuses the running request, if it does so for a while: a 500 or 503 with
    /// Retry-After (RFC 3261 §21.5.1, §21.5.4). The request rests then.
    pub fn defer(&mut self, answer: &Answer<'_>) -> Option<u32> {
        let seconds = answer.retry_after.filter(|_| matches!(answer.status, 500 | 503))?;
        self.put_off().then_some(seconds.min(RETRY_AFTER_MAX))
    }

    /// Lets the running request rest; false if it may not, or does already.
    pub fn put_off(&mut self) -> bool {
        let may = |running: &&mut Transaction| running.deferrals < DEFERRALS_MAX && !running.rests;
        let Some(running) = self.running.as_mut().filter(may) else { return false };
        running.rests = true;
        true
    }

    /// Seconds to ask for in the running request.
    pub fn expires(&self) -> u32 {
        let ends = |running: Transaction| {
            matches!(running.op, Op::Unregister | Op::Unsubscribe | Op::Unpublish | Op::Poll)
        };
        if self.running.is_none_or(ends) { 0 } else { self.expires }
    }
}

/// How often an operation is begun again before it counts as refused.
pub const ATTEMPTS_MAX: u8 = 3;
/// Longest interval that we accept to ask for after a 423, in seconds.
const EXPIRES_MAX: u32 = 7 * 86_400;
/// How often a phone lets itself be put off before it gives up.
const DEFERRALS_MAX: u8 = 100;
/// Longest time that a phone stays away at a server's word, in seconds.
const RETRY_AFTER_MAX: u32 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::support::answer;

    #[test]
    fn who_is_put_off_rests_and_comes_again() {
        let mut requests = Requests::new(600);
        assert!(!requests.put_off(), "there is nothing that could rest");
        requests.begin(Op::Register, 5, false);
        assert_eq!(requests.defer(&answer(503, 20)), None, "without Retry-After it is refused");
        let put_off = Answer { retry_after: Some(7), ..answer(503, 20) };
        assert_eq!(requests.defer(&put_off), Some(7));
        assert!(requests.answered_by(&put_off).is_none(), "the answer comes again while it rests");
        assert!(requests.begin_again(false));
        let running = requests.running.unwrap();
        assert_eq!((running.cseq, running.intended), (21, 5), "its time counts from the first");
        assert_eq!((running.attempts, running.deferrals, running.rests), (0, 1, false));
        assert_eq!(requests.defer(&Answer { retry_after: Some(7), ..answer(486, 21) }), None);
    }

    #[test]
    fn nobody_is_put_off_for_ever() {
        let mut requests = Requests::new(600);
        requests.begin(Op::Register, 0, false);
        let put_off = Answer { retry_after: Some(u32::MAX), ..answer(500, 20) };
        for _ in 0..DEFERRALS_MAX {
            assert_eq!(requests.defer(&put_off), Some(RETRY_AFTER_MAX));
            requests.begin_again(false);
        }
        assert_eq!(requests.defer(&put_off), None);
    }
}

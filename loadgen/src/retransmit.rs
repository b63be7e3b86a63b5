//! Timers of our own requests: E and F of the non-INVITE client transaction (RFC 3261 §17.1.2.2). Over a reliable transport
//! Timer E is not set, and a request is sent once.
//!
//! Timer E fires after T1, then after twice as long each time up to T2; Timer F ends the transaction after 64*T1. All
//! waits are of four lengths, and a queue of entries that wait equally long is sorted by itself, so arming costs one
//! append and cancelling nothing: who is due asks whether the transaction still runs.

use crate::clock::{Nanos, SECOND};
use std::collections::VecDeque;

/// T1, the estimate of the round trip (RFC 3261 §17.1.1.1).
pub const T1: Nanos = SECOND / 2;
/// T2, the longest wait between two retransmissions of a non-INVITE request.
pub const T2: Nanos = 4 * SECOND;

/// The waits between the events of one transaction as powers of two of T1: E1 … E10 and then F, together 64*T1.
const WAITS: [u8; 11] = [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 0];
const _: () = {
    let mut sum = 0;
    let mut i = 0;
    while i < WAITS.len() {
        sum += T1 << WAITS[i];
        i += 1;
    }
    assert!(sum == 64 * T1 && T1 << 3 == T2);
};

/// How long after the first sending of a request that was answered after `waited` it was sent the last time before that.
pub fn last_sending(waited: Nanos) -> Nanos {
    let mut sent = 0;
    for wait in WAITS {
        let next = sent + (T1 << wait);
        if next > waited {
            break;
        }
        sent = next;
    }
    sent
}

/// All running timers of one thread. `K` names a transaction.
pub struct Retransmit<K> {
    /// By wait; the last for Timer F alone.
    queues: [VecDeque<Entry<K>>; 5],
    /// Whether requests are sent again.
    repeats: bool,
}

/// One armed timer.
struct Entry<K> {
    due: Nanos,
    transaction: K,
    /// Which of [`WAITS`] is running.
    step: u8,
}

/// What a timer that fired asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Due<K> {
    /// Timer E: send the request again, if it is still unanswered; for how manieth time.
    Again(K, u8),
    /// Timer F: give up, if it is still unanswered.
    TimedOut(K),
}

impl<K: Copy> Retransmit<K> {
    /// No timers. `repeats` if requests are to be sent again, over an unreliable transport.
    pub fn new(repeats: bool) -> Self {
        Self { queues: std::array::from_fn(|_| VecDeque::new()), repeats }
    }

    /// Arms the timers of a request that is sent now.
    pub fn arm(&mut self, now: Nanos, transaction: K) {
        if self.repeats {
            self.push(now, transaction, 0);
        } else {
            let step = WAITS.len() as u8 - 1;
            self.queues[4].push_back(Entry { due: now + 64 * T1, transaction, step });
        }
    }

    /// The next timer that fired and whose transaction still runs according to `runs`. Timer E is armed anew.
    pub fn take(&mut self, now: Nanos, mut runs: impl FnMut(K) -> bool) -> Option<Due<K>> {
        for queue in 0..self.queues.len() {
            while self.queues[queue].front().is_some_and(|entry| entry.due <= now) {
                let Some(Entry { transaction, step, .. }) = self.queues[queue].pop_front() else { break };
                if !runs(transaction) {
                    continue;
                }
                if usize::from(step) + 1 == WAITS.len() {
                    return Some(Due::TimedOut(transaction));
                }
                self.push(now, transaction, step + 1);
                return Some(Due::Again(transaction, step + 1));
            }
        }
        None
    }

    /// When the next timer fires, whether its transaction still runs or not.
    pub fn next_at(&self) -> Nanos {
        self.queues
            .iter()
            .filter_map(|queue| queue.front())
            .map(|entry| entry.due)
            .min()
            .unwrap_or(Nanos::MAX)
    }

    fn push(&mut self, now: Nanos, transaction: K, step: u8) {
        let wait = WAITS[usize::from(step)];
        let entry = Entry { due: now + (T1 << wait), transaction, step };
        self.queues[usize::from(wait)].push_back(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unanswered_request_goes_out_eleven_times_in_32_seconds() {
        let mut timers = Retransmit::new(true);
        timers.arm(7, 'a');
        let mut events = Vec::new();
        loop {
            let at = timers.next_at();
            match timers.take(at, |_| true) {
                Some(Due::Again('a', time)) => {
                    events.push((at - 7) * 10 / SECOND);
                    assert_eq!(usize::from(time), events.len());
                }
                Some(Due::TimedOut('a')) => break assert_eq!(at - 7, 64 * T1),
                other => panic!("{other:?} at {at}"),
            }
        }
        assert_eq!(events, [5, 15, 35, 75, 115, 155, 195, 235, 275, 315]);
        assert_eq!(timers.next_at(), Nanos::MAX);
    }

    #[test]
    fn the_last_sending_is_known_by_the_time() {
        let tenths = |tenths: Nanos| last_sending(tenths * SECOND / 10) * 10 / SECOND;
        assert_eq!([0, 4, 5, 14, 15, 36, 75, 300, 318].map(tenths), [0, 0, 5, 5, 15, 35, 75, 275, 315]);
    }

    #[test]
    fn over_a_reliable_transport_there_is_timer_f_alone() {
        let mut timers = Retransmit::new(false);
        timers.arm(7, 'a');
        timers.arm(8, 'b');
        assert_eq!(timers.next_at(), 7 + 64 * T1);
        assert_eq!(timers.take(6 + 64 * T1, |_| true), None);
        assert_eq!(timers.take(8 + 64 * T1, |k| k == 'b'), Some(Due::TimedOut('b')));
        assert_eq!(timers.next_at(), Nanos::MAX);
    }

    #[test]
    fn an_answered_request_is_not_sent_again() {
        let mut timers = Retransmit::new(true);
        timers.arm(0, 1);
        timers.arm(1, 2);
        assert_eq!(timers.take(T1 - 1, |_| true), None);
        assert_eq!(timers.take(T1 + 1, |k| k == 2), Some(Due::Again(2, 1)));
        assert_eq!(timers.take(T1 + 1, |k| k == 2), None);
        assert_eq!(timers.next_at(), T1 + 1 + 2 * T1);
    }
}

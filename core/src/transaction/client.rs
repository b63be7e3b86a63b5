//! The client transaction of a NOTIFY (RFC 3261 §17.1.2.2, figure 6).
//!
//! | state | input | output | next |
//! |---|---|---|---|
//! | trying | Timer E | send again; E = min(2*E, T2) | trying |
//! | trying | 1xx | E = T2 | proceeding |
//! | proceeding | Timer E | send again; E = T2 | proceeding |
//! | trying, proceeding | Timer F (64*T1) | time-out to the notifier | ended |
//! | trying, proceeding | 2xx–6xx | answer to the notifier | ended |
//!
//! Over a connection there is no Timer E, only F: "If an unreliable transport is in use, the client transaction MUST set timer
//! E to fire in T1 seconds."
//!
//! Timer K (absorb late answers for T4) needs no state here: an answer that meets no transaction is dropped and counted.

use std::time::Duration;

use super::{T1, T2, TIMER_F};
use crate::time::Mono;

/// What the notifier must do when the transaction's timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerStep {
    /// Timer E: send the same bytes again, and come back at the given time.
    Retransmit {
        /// When the timer fires next.
        next: Mono,
    },
    /// Timer F: nobody answered.
    TimedOut,
}

/// Timers of one NOTIFY that is not answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyTransaction {
    started: Mono,
    /// Sendings so far, the first one included.
    sent: u8,
    proceeding: bool,
}

impl NotifyTransaction {
    /// The NOTIFY is sent for the first time at `now`, over a connection or not; the second value is when its timer fires.
    #[must_use]
    pub fn start(now: Mono, over_connection: bool) -> (Self, Mono) {
        let first = if over_connection { TIMER_F } else { T1 };
        (Self { started: now, sent: 1, proceeding: false }, now + first)
    }

    /// A provisional answer came: from here on Timer E runs with T2.
    pub const fn on_provisional(&mut self) {
        self.proceeding = true;
    }

    /// Whether there was a provisional answer.
    #[must_use]
    pub const fn has_been_heard(&self) -> bool {
        self.proceeding
    }

    /// How long ago it began.
    #[must_use]
    pub fn lasted(&self, now: Mono) -> Duration {
        now.since(self.started)
    }

    /// The timer fired.
    pub fn on_timer(&mut self, now: Mono) -> TimerStep {
        let end = self.started + TIMER_F;
        if now >= end {
            return TimerStep::TimedOut;
        }
        let doublings = u32::from(self.sent).min(3);
        self.sent = self.sent.saturating_add(1);
        let interval = if self.proceeding { T2 } else { (T1 * (1 << doublings)).min(T2) };
        TimerStep::Retransmit { next: (now + interval).min(end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sending times in milliseconds after the first, and the time of the time-out.
    fn run(provisional_at: Option<usize>) -> (Vec<u64>, u64) {
        let (mut transaction, mut at) = NotifyTransaction::start(Mono(0), false);
        let mut times = Vec::new();
        loop {
            if provisional_at == Some(times.len()) {
                transaction.on_provisional();
            }
            match transaction.on_timer(at) {
                TimerStep::Retransmit { next } => {
                    times.push(at.0 / 1000);
                    at = next;
                }
                TimerStep::TimedOut => return (times, at.0 / 1000),
            }
        }
    }

    #[test]
    fn timer_e_doubles_to_t2_and_timer_f_ends_it() {
        // RFC 3261 §17.1.2.2: "this results in intervals of 500 ms, 1 s, 2 s, 4 s, 4 s, 4 s, etc."
        let (times, end) = run(None);
        assert_eq!(times, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
        assert_eq!(end, 32_000);
    }

    #[test]
    fn over_a_connection_nothing_is_sent_again_and_timer_f_stays() {
        let (mut transaction, timer) = NotifyTransaction::start(Mono(0), true);
        assert_eq!(timer, Mono(0) + TIMER_F);
        transaction.on_provisional();
        assert_eq!(transaction.on_timer(timer), TimerStep::TimedOut);
    }

    #[test]
    fn a_provisional_answer_slows_timer_e_down_to_t2() {
        let (times, end) = run(Some(1));
        assert_eq!(times, [500, 1500, 5500, 9500, 13500, 17500, 21500, 25500, 29500]);
        assert_eq!(end, 32_000);
    }
}

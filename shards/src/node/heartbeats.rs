//! When a process may say in the files that it is alive.
//!
//! The next start takes it that watchers were told what changed longer than [`TOLD_WITHIN`] before the last heartbeat. That does
//! not hold for what a process found owed when it began, until it has been at it for so long; nor for what changed before the clock
//! was set forward. For such a time the heartbeat stays as it is.

use comsipl_core::{Mono, Now};

use crate::recover::TOLD_WITHIN;
use crate::wall;

/// The heartbeats of a process.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeats {
    /// When they were looked at last.
    last: Now,
    /// None is stored before.
    from: Mono,
}

impl Heartbeats {
    /// A process begins. `is_first`: on new files, in which nothing can be owed.
    #[must_use]
    pub fn new(now: Now, is_first: bool) -> Self {
        Self { last: now, from: if is_first { now.mono } else { now.mono + TOLD_WITHIN } }
    }

    /// Whether one is to be stored.
    pub fn is_due(&mut self, now: Now) -> bool {
        if wall::was_set_forward(self.last, now) {
            self.from = now.mono + TOLD_WITHIN;
        }
        self.last = now;
        now.mono >= self.from
    }
}

#[cfg(test)]
mod tests {
    use comsipl_core::UnixMillis;

    use super::*;

    const SPAN: u64 = TOLD_WITHIN.as_secs();

    /// Whether a heartbeat is due at so many seconds of the process while the wall clock shows `wall`.
    fn is_due(beats: &mut Heartbeats, mono: u64, wall: u64) -> bool {
        beats.is_due(at(mono, wall))
    }

    fn at(mono: u64, wall: u64) -> Now {
        Now { mono: Mono(mono * 1_000_000), wall: UnixMillis(wall * 1000) }
    }

    #[test]
    fn what_a_process_found_owed_stays_owed_until_it_can_have_been_told() {
        let mut beats = Heartbeats::new(at(0, 1000), false);
        assert!((1..SPAN).all(|second| !is_due(&mut beats, second, 1000 + second)));
        assert!((SPAN..2 * SPAN).all(|second| is_due(&mut beats, second, 1000 + second)));
        assert!(is_due(&mut Heartbeats::new(at(0, 1000), true), 1, 1001), "on new files nothing is owed");
    }

    #[test]
    fn what_changed_before_the_clock_was_set_forward_stays_owed_as_long() {
        let mut beats = Heartbeats::new(at(0, 1000), true);
        assert!(is_due(&mut beats, 1, 1001));
        assert!((2..2 + SPAN).all(|second| !is_due(&mut beats, second, 5000 + second)));
        assert!(is_due(&mut beats, 2 + SPAN, 5002 + SPAN));
        assert!(is_due(&mut beats, 3 + SPAN, 6), "set back, more is owed and not less");
        assert!(is_due(&mut beats, 4 + SPAN, 8), "two seconds are within the margin");
    }
}

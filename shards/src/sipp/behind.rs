//! How far the fan-out is behind, as the files are to say it.
//!
//! A start owes again what changed within [`TOLD_WITHIN`] before the last heartbeat: for so long a NOTIFY may have been on its way.
//! Where a NOTIFY left long after the change, the time of the change must stay in the files until that NOTIFY, too, has been
//! answered or given up.

use comsipl_core::{Mono, Now, UnixMillis};

use crate::recover::{LATE, TOLD_WITHIN};

/// How often the files are brought up to date.
const NOTED_EVERY_MS: u128 = 1000;

/// Since when watchers of this shard may lack what changed.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    noted_at: Mono,
    /// What the files say; `None`: not known yet.
    noted: Option<u64>,
    /// The oldest of the changes that were told late, and when all about them has been answered or given up.
    told_late: Option<(UnixMillis, Mono)>,
}

impl Behind {
    /// The NOTIFYs to all watchers who were due since `due_since` have left now.
    #[inline]
    pub(crate) fn told(&mut self, now: Now, due_since: UnixMillis) {
        // Where the clock was set meanwhile nobody knows how late it is.
        if now.wall.0.abs_diff(due_since.0) > LATE.as_millis() as u64 {
            self.told_late(now, due_since);
        }
    }

    #[cold]
    fn told_late(&mut self, now: Now, due_since: UnixMillis) {
        let oldest = self.told_late.map_or(due_since, |(oldest, _)| oldest.min(due_since));
        self.told_late = Some((oldest, now.mono + TOLD_WITHIN));
    }

    /// Whether the files are to be brought up to date.
    pub(crate) fn is_due(&self, now: Mono) -> bool {
        now.since(self.noted_at).as_millis() >= NOTED_EVERY_MS
    }

    /// What the files are to say from now on, if it is something else than before: Unix milliseconds, 0 where nobody lacks
    /// anything. `due_since` is when the first of those became due who are due now.
    pub(crate) fn note(&mut self, now: Mono, due_since: Option<UnixMillis>) -> Option<u64> {
        self.noted_at = now;
        self.told_late = self.told_late.filter(|&(_, until)| now < until);
        let late = self.told_late.map(|(oldest, _)| oldest);
        let since = due_since.into_iter().chain(late).min().map_or(0, |since| since.0);
        (self.noted.replace(since) != Some(since)).then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now { mono: Mono(second * 1_000_000), wall: UnixMillis((1000 + second) * 1000) }
    }

    fn wall(second: u64) -> UnixMillis {
        at(second).wall
    }

    #[test]
    fn what_is_told_at_once_is_forgotten_at_once() {
        let mut behind = Behind::default();
        assert_eq!(behind.note(at(1).mono, None), Some(0), "the first one is written whatever it is");
        assert_eq!(behind.note(at(2).mono, Some(wall(2))), Some(wall(2).0));
        behind.told(at(3), wall(2));
        assert_eq!(behind.note(at(3).mono, None), Some(0));
        assert_eq!(behind.note(at(4).mono, None), None, "nothing new");
    }

    #[test]
    fn what_is_told_late_stays_owed_while_its_notify_may_be_on_its_way() {
        let mut behind = Behind::default();
        assert_eq!(behind.note(at(1).mono, Some(wall(1))), Some(wall(1).0));
        behind.told(at(30), wall(1));
        behind.told(at(31), wall(20));
        let over = 31 + TOLD_WITHIN.as_secs();
        for second in 31..over {
            assert_eq!(behind.note(at(second).mono, Some(wall(second))), None, "{second}");
        }
        assert_eq!(behind.note(at(over).mono, None), Some(0));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_it_late() {
        let mut behind = Behind::default();
        behind.told(at(3), wall(500));
        assert_eq!(behind.note(at(3).mono, None), Some(wall(500).0));
    }

    #[test]
    fn once_a_second_is_enough() {
        let mut behind = Behind::default();
        assert!(behind.is_due(at(1).mono));
        behind.note(at(1).mono, None);
        assert!(!behind.is_due(Mono(1_999_000)) && behind.is_due(at(2).mono));
    }
}

//! Whether the wall clock can be believed.
//!
//! What is granted ends by the monotonic clock, which nobody sets; its end is stored by the wall clock, which is set when
//! somebody corrects it. As long as both have gone at the same pace since the start, what is stored tells how much is left, at no
//! cost. From then on the timers tell.

use comsipl_core::{Mono, Now, UnixMillis};

/// What is known of the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    /// How far it was ahead of the monotonic clock at the start, in milliseconds.
    ahead_ms: i64,
    /// When the node was alive before its start, by the clock of then.
    last_alive: UnixMillis,
    was_set: bool,
}

impl Wall {
    /// Begins at the start of a node that was alive before at `last_alive`.
    pub(crate) fn new(now: Now, last_alive: UnixMillis) -> Self {
        // Set back between two processes: what is stored was counted from a later time than now.
        let was_set = last_alive.0 > now.wall.0.saturating_add(TOLERANCE_MS);
        Self { ahead_ms: ahead_ms(now), last_alive, was_set }
    }

    /// Whether it was set since the start, or back just before it.
    #[inline]
    pub(crate) fn was_set(&mut self, now: Now) -> bool {
        if ahead_ms(now).abs_diff(self.ahead_ms) > TOLERANCE_MS {
            // For good, because records of both times stay until they are refreshed.
            self.was_set = true;
        }
        self.was_set
    }

    /// When what was stored with this end runs out, for the start: time has not gone back since the node was alive.
    pub(crate) fn end_of(&self, now: Now, expires_at: UnixMillis) -> Mono {
        let left = expires_at.0.saturating_sub(now.wall.0.max(self.last_alive.0));
        now.mono + std::time::Duration::from_millis(left)
    }
}

/// Whether the wall clock was set forward between two moments.
pub(crate) fn was_set_forward(before: Now, now: Now) -> bool {
    ahead_ms(now) > ahead_ms(before).saturating_add(TOLERANCE_MS.cast_signed())
}

fn ahead_ms(now: Now) -> i64 {
    now.wall.0.cast_signed().wrapping_sub((now.mono.0 / 1000).cast_signed())
}

/// How much the two clocks may differ: more than reading one after the other takes, and than a leap second.
const TOLERANCE_MS: u64 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64, wall_ms: u64) -> Now {
        Now { mono: Mono(mono_ms * 1000), wall: UnixMillis(wall_ms) }
    }

    #[test]
    fn a_clock_that_keeps_pace_is_believed_and_one_that_was_set_is_not() {
        for set in [-3_600_000, -2_001, 2_001, 3_600_000_i64] {
            let mut wall = Wall::new(at(5, 1_000_000_000), UnixMillis(0));
            assert!(!wall.was_set(at(1_000_005, 1_001_000_000)));
            assert!(!wall.was_set(at(2_000_005, 1_001_998_001)), "a leap second, and slow reading");
            let after = 1_002_000_000_u64.saturating_add_signed(set);
            assert!(wall.was_set(at(2_000_005, after)), "{set}");
            assert!(wall.was_set(at(3_000_005, 1_003_000_000)), "and back again, {set}");
        }
    }

    #[test]
    fn time_has_not_gone_back_since_the_node_was_alive() {
        let ended = |wall: u64, last_alive| {
            let now = at(0, wall);
            let mut clock = Wall::new(now, UnixMillis(last_alive));
            (clock.end_of(now, UnixMillis(700_000)).0 / 1000, clock.was_set(now))
        };
        assert_eq!(ended(400_000, 300_000), (300_000, false), "100 s down");
        assert_eq!(ended(400_000, 0), (300_000, false), "never alive before");
        assert_eq!(
            ended(100_000, 300_000),
            (400_000, true),
            "set back: no more is left than when it was alive"
        );
        assert_eq!(ended(900_000, 300_000), (0, false), "set forward, or down for as long: the same to us");
    }
}

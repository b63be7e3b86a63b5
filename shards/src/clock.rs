//! The two clocks of the process; the engine gets one reading of both a turn.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use comsipl_core::{Mono, Now, UnixMillis};

/// Reads both clocks. Copies count from the same moment, so all shards of a node share one time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time is zero now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: Self::wall() }
    }

    /// Time since the start.
    #[must_use]
    pub fn mono(&self) -> Mono {
        Mono(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Wall-clock time; zero if the system's clock stands before 1970.
    #[must_use]
    pub fn wall() -> UnixMillis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_is_shared_by_copies_and_never_goes_back() {
        let clock = Clock::start();
        let copy = clock;
        let mut last = clock.mono();
        for _ in 0..1000 {
            let now = copy.mono();
            assert!(now >= last);
            last = now;
        }
        assert!(Clock::wall() > UnixMillis(1_700_000_000_000), "milliseconds since 1970");
    }
}

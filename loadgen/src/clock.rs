//! The one time line of a run: nanoseconds since its start, and the kernel's receive stamps brought onto it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the start of the run, on the monotonic clock.
pub type Nanos = u64;

/// Nanoseconds of one second.
pub const SECOND: Nanos = 1_000_000_000;

/// Nanoseconds of `duration`, saturating after 584 years.
pub fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Where the run's time line begins; the same for all threads.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    /// A time line that begins now.
    pub fn start() -> Self {
        Self { base: Instant::now() }
    }

    /// The time on the monotonic clock.
    pub fn now(&self) -> Nanos {
        nanos(self.base.elapsed())
    }

    /// How far the wall clock is ahead of this time line, in nanoseconds. Read it again every turn: the wall clock may
    /// be slewed or set during a run.
    pub fn wall_ahead(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        nanos(wall).saturating_sub(self.now())
    }
}

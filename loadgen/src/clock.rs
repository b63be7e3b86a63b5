//! The one time line of a run: nanoseconds since its start, and the kernel's receive stamps brought onto it.

use rustix::time::ClockId;
use std::time::Duration;

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
    base: u64,
}

impl Clock {
    /// A time line that begins now.
    pub fn start() -> Self {
        Self { base: read(ClockId::Monotonic) }
    }

    /// The time on the monotonic clock.
    pub fn now(&self) -> Nanos {
        read(ClockId::Monotonic) - self.base
    }

    /// How far the wall clock is ahead of this time line, in nanoseconds. Read it again every now and then: the wall
    /// clock may be slewed or set during a run.
    pub fn wall_ahead(&self) -> u64 {
        read(ClockId::Realtime).saturating_sub(self.now())
    }
}

/// A clock of the system, in nanoseconds.
fn read(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

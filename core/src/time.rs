//! The two clocks. Both are read once per turn of the event loop and handed down; core never reads one.

use std::ops::Add;
use std::time::Duration;

/// Monotonic time for timers: microseconds since the process (or the simulation) began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub u64);

impl Mono {
    /// Time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Wall-clock time for what is stored: milliseconds since 1970-01-01T00:00:00Z.
///
/// Stored expiries are absolute, so that a restart neither lengthens nor shortens them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds from `now` to `self`, rounded up so that a grant of 600 s reads 600 at once; zero when past.
    #[must_use]
    pub const fn secs_after(self, now: Self) -> u32 {
        let millis = self.0.saturating_sub(now.0);
        let secs = millis.div_ceil(1000);
        if secs > u32::MAX as u64 { u32::MAX } else { secs as u32 }
    }

    /// The moment `secs` seconds later.
    #[must_use]
    pub const fn plus_secs(self, secs: u32) -> Self {
        Self(self.0.saturating_add(secs as u64 * 1000))
    }
}

/// Both clocks as they stood when the turn began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers.
    pub mono: Mono,
    /// For what is stored and sent.
    pub wall: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_left_are_rounded_up_and_never_negative() {
        let now = UnixMillis(1_000_500);
        assert_eq!(now.plus_secs(600).secs_after(now), 600);
        assert_eq!(UnixMillis(1_000_501).secs_after(now), 1);
        assert_eq!(UnixMillis(0).secs_after(now), 0);
    }
}

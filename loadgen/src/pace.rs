//! When requests are due.
//!
//! The open loop knows the intended time of every request from its number alone, whatever the server does: a slow
//! answer never delays the next request, and a late request still counts from the time it was meant for. The closed
//! loop keeps a window of unfinished operations full and so finds the most that the server sustains.

use crate::clock::{Nanos, SECOND};

/// How fast operations are started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many in a second, whatever happens.
    PerSecond(f64),
    /// As many as finish.
    Max,
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
            _ => Err(format!("`{text}` is neither `max` nor a positive number per second")),
        }
    }
}

impl serde::Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::PerSecond(rate) => serializer.serialize_f64(*rate),
            Self::Max => serializer.serialize_str("max"),
        }
    }
}

/// How many operations a schedule starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many.
    Count(u64),
    /// As many as fit into this long.
    Time(Nanos),
}

/// The operations that one thread starts in one phase.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Nanos,
    /// Nanoseconds between two operations of this thread; none in the closed loop.
    step: Option<f64>,
    /// Most unfinished operations in the closed loop.
    window: u64,
    amount: Amount,
    started: u64,
}

impl Schedule {
    /// The share of thread `thread` of `threads`. Together the threads start `rate`, evenly interleaved.
    pub fn new(
        start: Nanos,
        rate: Rate,
        window: u64,
        amount: Amount,
        (thread, threads): (usize, usize),
    ) -> Self {
        let (start, step) = match rate {
            Rate::Max => (start, None),
            Rate::PerSecond(rate) => {
                let all = SECOND as f64 / rate;
                (start + (all * thread as f64) as Nanos, Some(all * threads as f64))
            }
        };
        let window = (window / threads as u64).max(1);
        Self { start, step, window, amount, started: 0 }
    }

    /// Starts the next operation if it is due: its number and the time it was meant for. `unfinished` counts the
    /// operations of this schedule that have begun and not ended.
    pub fn take(&mut self, now: Nanos, unfinished: u64) -> Option<(u64, Nanos)> {
        if self.is_over(now) {
            return None;
        }
        let intended = match self.step {
            Some(_) => self.intended(self.started),
            None if unfinished < self.window => now,
            None => return None,
        };
        if intended > now {
            return None;
        }
        let number = self.started;
        self.started += 1;
        Some((number, intended))
    }

    /// Whether no operation is left to start.
    pub fn is_over(&self, now: Nanos) -> bool {
        match (self.amount, self.step) {
            (Amount::Count(count), _) => self.started >= count,
            // In the open loop every operation whose time lies in the phase is owed, also when it is late.
            (Amount::Time(_), Some(_)) => self.intended(self.started) >= self.end(),
            (Amount::Time(_), None) => now >= self.end(),
        }
    }

    /// Whether it does not matter which agent comes next: in the timed closed loop.
    pub fn may_skip(&self) -> bool {
        self.step.is_none() && matches!(self.amount, Amount::Time(_))
    }

    /// When to look again if nothing is due now: the next intended time, or the end of a timed closed loop.
    pub fn next_at(&self, now: Nanos) -> Nanos {
        match self.step {
            _ if self.is_over(now) => Nanos::MAX,
            Some(_) => self.intended(self.started),
            None => self.end(),
        }
    }

    /// The time that operation `number` of the open loop is meant for.
    fn intended(&self, number: u64) -> Nanos {
        self.start + (self.step.unwrap_or(0.0) * number as f64) as Nanos
    }

    /// When a timed schedule ends.
    fn end(&self) -> Nanos {
        match self.amount {
            Amount::Count(_) => Nanos::MAX,
            Amount::Time(time) => self.start + time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_loop_keeps_intended_times_when_it_is_late() {
        let mut schedule = Schedule::new(100, Rate::PerSecond(1e6), 1, Amount::Count(5), (0, 1));
        assert_eq!(schedule.take(99, 0), None);
        assert_eq!(schedule.next_at(99), 100);
        assert_eq!(schedule.take(100, 0), Some((0, 100)));
        assert_eq!(schedule.take(100, 0), None);
        // 3,400 ns late; unfinished operations do not matter.
        assert_eq!(schedule.take(4_500, 99), Some((1, 1_100)));
        assert_eq!(schedule.take(4_500, 99), Some((2, 2_100)));
        assert_eq!(schedule.take(4_500, 99), Some((3, 3_100)));
        assert_eq!(schedule.take(4_500, 99), Some((4, 4_100)));
        assert_eq!(schedule.take(9_999_999, 0), None);
        assert!(schedule.is_over(4_500));
        assert_eq!(schedule.next_at(4_500), Nanos::MAX);
    }

    #[test]
    fn threads_interleave_to_the_whole_rate() {
        let mut times = Vec::new();
        for thread in 0..3 {
            let mut schedule = Schedule::new(0, Rate::PerSecond(1e6), 1, Amount::Time(9_000), (thread, 3));
            while let Some((_, at)) = schedule.take(Nanos::MAX, 0) {
                times.push(at);
            }
        }
        times.sort_unstable();
        // Each thread's share ends a whole phase after its own first operation.
        assert_eq!(times, (0..9).map(|i| i * 1_000).collect::<Vec<_>>());
    }

    #[test]
    fn the_closed_loop_keeps_the_window_full_and_no_more() {
        let mut schedule = Schedule::new(0, Rate::Max, 2, Amount::Time(1_000), (0, 1));
        assert_eq!(schedule.take(10, 0), Some((0, 10)));
        assert_eq!(schedule.take(10, 1), Some((1, 10)));
        assert_eq!(schedule.take(10, 2), None);
        assert_eq!(schedule.take(500, 1), Some((2, 500)));
        assert_eq!(schedule.next_at(500), 1_000);
        assert_eq!(schedule.take(1_000, 0), None);
        assert!(schedule.is_over(1_000));
    }

    #[test]
    fn a_rate_is_positive_or_max() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("2.5".parse(), Ok(Rate::PerSecond(2.5)));
        for bad in ["0", "-1", "inf", "NaN", "fast"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}

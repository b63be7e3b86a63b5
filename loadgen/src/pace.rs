//! When requests are due.
//!
//! The open loop knows the intended time of every request in advance, whatever the server does: a slow
//! answer never delays the next request, and a late request still counts from the time it was meant for. The closed
//! loop keeps a window of unfinished operations full and so finds the most that the server sustains.

use crate::chance::Chance;
use crate::clock::{Nanos, SECOND};
use crate::ident::mix;

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

/// How the operations of the open loop lie in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At even distances: what the server does with a burst is not measured.
    #[default]
    Even,
    /// At random, as of phones that know nothing of each other (a Poisson process)
    Poisson,
}

/// How many operations a schedule starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many.
    Count(u64),
    /// As many as fit into this long.
    Time(Nanos),
}

/// How operations are paced, by all threads together but for the amount.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How fast.
    pub rate: Rate,
    /// How they lie in time in the open loop.
    pub arrivals: Arrivals,
    /// Most unfinished operations in the closed loop.
    pub window: u64,
    /// How many this thread starts.
    pub amount: Amount,
}

/// The operations that one thread starts in one phase.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Nanos,
    /// When the first operation of the open loop is due.
    first: Nanos,
    /// Nanoseconds between two operations of this thread, on average; none in the closed loop.
    step: Option<f64>,
    /// For random distances.
    chance: Option<Chance>,
    /// When the next operation of the open loop is due.
    next: Nanos,
    window: u64,
    amount: Amount,
    started: u64,
}

impl Schedule {
    /// The share of thread `thread` of `threads`. Together the threads start operations at the rate; evenly, they are
    /// interleaved. `seed` makes the same random times again.
    pub fn new(start: Nanos, pace: Pace, (thread, threads): (usize, usize), seed: u64) -> Self {
        let step = match pace.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(SECOND as f64 / rate * threads as f64),
        };
        let first = start + (step.unwrap_or(0.0) / threads as f64 * thread as f64) as Nanos;
        let is_random = pace.arrivals == Arrivals::Poisson && step.is_some();
        let chance = is_random.then(|| Chance::new(mix(start ^ mix(seed ^ mix(thread as u64)))));
        let window = (pace.window / threads as u64).max(1);
        let mut schedule =
            Self { start, first, step, chance, next: first, window, amount: pace.amount, started: 0 };
        if is_random {
            schedule.next = start + schedule.distance();
        }
        schedule
    }

    /// Starts the next operation if it is due: its number and the time it was meant for. `unfinished` counts the
    /// operations of this schedule that have begun and not ended.
    pub fn take(&mut self, now: Nanos, unfinished: u64) -> Option<(u64, Nanos)> {
        if self.is_over(now) {
            return None;
        }
        let intended = match self.step {
            Some(_) => self.next,
            // What leaves before the start would be measured by no phase.
            None if unfinished < self.window => now.max(self.start),
            None => return None,
        };
        if intended > now {
            return None;
        }
        let number = self.started;
        self.started += 1;
        self.next = match (self.step, &self.chance) {
            (Some(_), Some(_)) => self.next + self.distance(),
            // From the number, not from the one before, so that no error adds up.
            (Some(step), None) => self.first + (step * self.started as f64) as Nanos,
            (None, _) => self.next,
        };
        Some((number, intended))
    }

    /// Whether no operation is left to start.
    pub fn is_over(&self, now: Nanos) -> bool {
        match (self.amount, self.step) {
            (Amount::Count(count), _) => self.started >= count,
            // In the open loop every operation whose time lies in the phase is owed, also when it is late.
            (Amount::Time(time), Some(_)) => self.next >= self.first + time,
            (Amount::Time(_), None) => now >= self.end(),
        }
    }

    /// Whether it does not matter which agent comes next: in the timed closed loop.
    pub fn may_skip(&self) -> bool {
        self.step.is_none() && matches!(self.amount, Amount::Time(_))
    }

    /// When to look again if nothing is due now: the next intended time, or the start or the end of a closed loop.
    pub fn next_at(&self, now: Nanos) -> Nanos {
        match self.step {
            _ if self.is_over(now) => Nanos::MAX,
            Some(_) => self.next,
            None if now < self.start => self.start,
            None => self.end(),
        }
    }

    /// A random distance of two operations of a Poisson process.
    fn distance(&mut self) -> Nanos {
        let part = self.chance.as_mut().map_or(1.0, Chance::part_above_zero);
        (-part.ln() * self.step.unwrap_or(0.0)) as Nanos
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

    fn even(rate: f64, amount: Amount) -> Pace {
        Pace { rate: Rate::PerSecond(rate), arrivals: Arrivals::Even, window: 1, amount }
    }

    #[test]
    fn a_closed_loop_begins_at_its_start() {
        let pace = Pace { rate: Rate::Max, ..even(1.0, Amount::Count(2)) };
        let mut schedule = Schedule::new(100, pace, (0, 1), 0);
        assert_eq!((schedule.take(99, 0), schedule.next_at(99)), (None, 100));
        assert_eq!((schedule.take(101, 0), schedule.next_at(101)), (Some((0, 101)), Nanos::MAX));
    }

    #[test]
    fn random_arrivals_keep_the_rate_and_scatter_as_of_independent_phones() {
        let mut times = Vec::new();
        for thread in 0..2 {
            let pace = Pace { arrivals: Arrivals::Poisson, ..even(1e4, Amount::Time(10 * SECOND)) };
            let mut schedule = Schedule::new(7, pace, (thread, 2), 5);
            while let Some((_, at)) = schedule.take(Nanos::MAX / 2, 0) {
                times.push(at);
            }
        }
        times.sort_unstable();
        let count = times.len() as f64;
        assert!((count - 1e5).abs() < 1_600.0, "five times the square root of the mean: {count}");
        // Distances scatter as much as their mean.
        let distances: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = distances.iter().sum::<f64>() / count;
        let scatter = (distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / count).sqrt();
        assert!((0.97..1.03).contains(&(scatter / mean)), "{scatter} around {mean}");
    }

    #[test]
    fn the_open_loop_keeps_intended_times_when_it_is_late() {
        let mut schedule = Schedule::new(100, even(1e6, Amount::Count(5)), (0, 1), 0);
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
            let mut schedule = Schedule::new(0, even(1e6, Amount::Time(9_000)), (thread, 3), 0);
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
        let pace = Pace { rate: Rate::Max, window: 2, ..even(1.0, Amount::Time(1_000)) };
        let mut schedule = Schedule::new(0, pace, (0, 1), 0);
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

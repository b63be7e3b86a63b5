//! How long something takes, counted by powers of two: what a mean hides, at the cost of one addition.

use std::time::Duration;

use crate::counters::Counter;

/// Counts spans of time by their length. Written by one thread alone, read by anyone at any time.
#[derive(Debug, Default)]
pub struct Spans([Counter; CLASSES]);

impl Spans {
    /// Counts one.
    pub fn count(&self, span: Duration) {
        self.0[class(span)].add(1);
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> SpanFigures {
        SpanFigures(std::array::from_fn(|class| self.0[class].get()))
    }
}

/// [`Spans`] at one moment, or their growth between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanFigures([u64; CLASSES]);

impl SpanFigures {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|class| self.0[class].wrapping_add(other.0[class])))
    }

    /// The growth since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self(std::array::from_fn(|class| self.0[class].wrapping_sub(earlier.0[class])))
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u64 {
        self.0.iter().sum()
    }

    /// A bound, a power of two in microseconds, below which `share` of them lie, 1 being all; none if there are none. What is
    /// longer than the last class counts as its bound.
    #[must_use]
    pub fn below(self, share: f64) -> Option<Duration> {
        let wanted = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut sum = 0;
        let class = self.0.iter().position(|&count| {
            sum += count;
            sum >= wanted
        })?;
        Some(Duration::from_micros(1 << class))
    }
}

/// Class n holds what takes less than 2^n microseconds and not less than half of that; the last also what is longer.
fn class(span: Duration) -> usize {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    ((u64::BITS - micros.leading_zeros()) as usize).min(CLASSES - 1)
}

/// The last class begins at half a second: a shard that is held up so long has other troubles.
const CLASSES: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_ends_at_a_power_of_two() {
        for (micros, bound) in [(0, 1), (1, 2), (2, 4), (3, 4), (4, 8), (1023, 1024), (1024, 2048)] {
            let spans = Spans::default();
            spans.count(Duration::from_micros(micros));
            assert_eq!(spans.snapshot().below(1.0), Some(Duration::from_micros(bound)), "{micros}");
        }
        let spans = Spans::default();
        spans.count(Duration::MAX);
        assert_eq!(spans.snapshot().below(0.5), Some(Duration::from_micros(1 << 20)));
    }

    #[test]
    fn shares_are_of_what_was_counted_in_between() {
        let spans = Spans::default();
        assert_eq!(spans.snapshot().below(0.5), None);
        spans.count(Duration::from_secs(1));
        let before = spans.snapshot();
        for number in 0..100 {
            spans.count(Duration::from_micros(if number < 99 { 20 } else { 3000 }));
        }
        let growth = spans.snapshot().since(before);
        assert_eq!(growth.count(), 100);
        assert_eq!(growth.below(0.5), Some(Duration::from_micros(32)));
        assert_eq!(growth.below(0.99), Some(Duration::from_micros(32)));
        assert_eq!(growth.below(1.0), Some(Duration::from_micros(4096)));
        assert_eq!(growth.plus(growth).count(), 200);
    }
}

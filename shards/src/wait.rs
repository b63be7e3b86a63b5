//! How long a shard looks for work before it sleeps.
//!
//! Sleeping costs: whoever brings the next datagram must wake a halted core, and the datagram waits for that (tens of
//! microseconds on a virtual machine). Looking costs too: a core that looks does nothing else. So a shard looks for a bounded
//! time, and only while that pays: while most of its recent waits ended within that time. An idle shard sleeps.

use std::time::Duration;

/// Remembers how recent waits went and says how long to look in the next.
#[derive(Debug)]
pub struct Patience {
    span_micros: u64,
    /// How many of the recent waits ended within the span, as a moving average: 0 (none) to [`ALL`].
    short: u32,
}

impl Patience {
    /// Looks for at most `span` at a time; zero: never.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self { span_micros: u64::try_from(span.as_micros()).unwrap_or(u64::MAX), short: 0 }
    }

    /// How long to look for work before sleeping, in microseconds.
    #[must_use]
    pub const fn micros(&self) -> u64 {
        if self.short >= ALL / 2 { self.span_micros } else { 0 }
    }

    /// A wait is over after so many microseconds, asleep or not.
    pub const fn waited(&mut self, micros: u64) {
        // What was slept lasted longer by the waking itself, so a span's worth of sleep counts as short.
        let short = if micros <= self.span_micros { ALL } else { 0 };
        self.short = self.short - self.short / WEIGHT + short / WEIGHT;
    }
}

/// [`Patience::short`] when all recent waits were short.
const ALL: u32 = 1 << 16;
/// One wait counts for so much of the average.
const WEIGHT: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_shard_does_not_look() {
        let mut patience = Patience::new(Duration::from_micros(50));
        assert_eq!(patience.micros(), 0, "at first nothing is known");
        for _ in 0..100 {
            patience.waited(3);
        }
        assert_eq!(patience.micros(), 50);
        let mut looked = 0;
        for _ in 0..1000 {
            looked += patience.micros();
            patience.waited(1_000_000);
        }
        assert!(looked <= 8 * 50, "looked for {looked} µs in a thousand idle seconds");
    }

    #[test]
    fn waits_that_are_short_half_the_time_are_worth_it_and_rarer_ones_are_not() {
        for (of_ten, looks) in [(8, true), (2, false)] {
            let mut patience = Patience::new(Duration::from_micros(50));
            let looked = (0..1000)
                .filter(|number| {
                    let looked = patience.micros() > 0;
                    patience.waited(if number % 10 < of_ten { 10 } else { 500 });
                    looked
                })
                .count();
            assert_eq!(looked > 500, looks, "{looked} of 1000");
        }
    }

    #[test]
    fn without_a_span_a_shard_never_looks() {
        let mut patience = Patience::new(Duration::ZERO);
        for _ in 0..100 {
            patience.waited(0);
        }
        assert_eq!(patience.micros(), 0);
    }
}

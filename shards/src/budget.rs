//! What a source may do within a time: requests, and failures to authenticate.
//!
//! A table of fixed size, made when it is first needed. A source has a place in a group of [`WAYS`] that its hash names; who has
//! been quiet for longest makes room. Whoever sends from very many addresses therefore displaces others of his like, and what is
//! forgotten of them is only how much they had done.
//!
//! Each shard has its own: users are divided among the shards, so who tries one user's password meets one table.

use std::time::Duration;

use comsipl_core::auth::Source;
use comsipl_core::{HashKey, Mono};

/// Sources that a shard remembers.
pub const SOURCES_MAX: usize = 1 << 14;

/// How long a source that failed too often is not heard.
pub const BLOCKED_FOR: Duration = Duration::from_secs(60);

/// What sources may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a second, and as many at once as in two seconds; zero: any number.
    pub requests_per_s: u32,
    /// Failures to authenticate a minute, all of them at once if need be; zero: any number.
    pub failures_per_min: u32,
}

/// What sources have done.
#[derive(Debug)]
pub struct Budgets {
    allowance: Allowance,
    key: HashKey,
    places: Vec<Place>,
}

/// What came of something that a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// It is within its budget.
    Within,
    /// It has gone beyond its budget by this.
    Last,
    /// It is beyond its budget.
    Beyond,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// `None`: the place is free.
    source: Option<Source>,
    seen: Mono,
    requests: Debt,
    failures: Debt,
    blocked_until: Mono,
    /// Whether requests were beyond the budget when it was looked at last.
    flooding: bool,
}

/// A leaky bucket: what was done and has not run out yet, in millionths.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    level: u64,
    at: Mono,
}

impl Debt {
    /// Lets run out what has run out, and adds one if it fits below `most`.
    fn add(&mut self, now: Mono, per: Duration, rate: u32, most: u32) -> bool {
        let elapsed = now.since(self.at).as_micros().min(u128::from(u32::MAX) * 1000);
        let leaked = elapsed * u128::from(rate) * ONE / per.as_micros();
        self.level = self.level.saturating_sub(u64::try_from(leaked).unwrap_or(u64::MAX));
        self.at = now;
        let fits = u128::from(self.level) + ONE <= u128::from(most) * ONE;
        if fits {
            self.level += ONE as u64;
        }
        fits
    }
}

impl Budgets {
    /// Budgets of sources that have done nothing yet. `key` keeps senders from aiming at one place.
    #[must_use]
    pub const fn new(allowance: Allowance, key: HashKey) -> Self {
        Self { allowance, key, places: Vec::new() }
    }

    /// Whether requests are counted.
    #[inline]
    #[must_use]
    pub const fn counts_requests(&self) -> bool {
        self.allowance.requests_per_s != 0
    }

    /// Counts a request.
    pub fn request(&mut self, now: Mono, source: Source) -> Spending {
        let rate = self.allowance.requests_per_s;
        if rate == 0 {
            return Spending::Within;
        }
        let place = self.place(now, source);
        let fits = place.requests.add(now, Duration::from_secs(1), rate, rate.saturating_mul(2));
        let was_flooding = std::mem::replace(&mut place.flooding, !fits);
        match (fits, was_flooding) {
            (true, _) => Spending::Within,
            (false, false) => Spending::Last,
            (false, true) => Spending::Beyond,
        }
    }

    /// Counts a failure to authenticate. After [`Spending::Last`] the source is [blocked](Self::is_blocked).
    pub fn failure(&mut self, now: Mono, source: Source) -> Spending {
        let rate = self.allowance.failures_per_min;
        if rate == 0 {
            return Spending::Within;
        }
        let place = self.place(now, source);
        if place.failures.add(now, Duration::from_secs(60), rate, rate) {
            return Spending::Within;
        }
        if place.blocked_until > now {
            return Spending::Beyond;
        }
        place.blocked_until = now + BLOCKED_FOR;
        Spending::Last
    }

    /// Whether a source has failed too often.
    #[must_use]
    pub fn is_blocked(&self, now: Mono, source: Source) -> bool {
        !self.places.is_empty()
            && self.places[self.group(source)]
                .iter()
                .any(|place| place.source == Some(source) && place.blocked_until > now)
    }

    fn place(&mut self, now: Mono, source: Source) -> &mut Place {
        if self.places.is_empty() {
            self.places = vec![Place::default(); SOURCES_MAX];
        }
        let group = self.group(source);
        let places = &mut self.places[group];
        let known = places.iter().position(|place| place.source == Some(source));
        // A free place was seen last at the beginning of time; a blocked source stays while others can go.
        let quietest = || {
            let quiet = |place: &Place| (place.source.is_some() && place.blocked_until > now, place.seen);
            (0..WAYS).min_by_key(|&at| quiet(&places[at])).unwrap_or(0)
        };
        let at = known.unwrap_or_else(quietest);
        let place = &mut places[at];
        if known.is_none() {
            *place = Place { source: Some(source), ..Place::default() };
        }
        place.seen = now;
        place
    }

    /// The places that a source may have.
    fn group(&self, source: Source) -> std::ops::Range<usize> {
        let hash = self.key.of(&[b"source", &source.number().to_le_bytes()]);
        let first = hash as usize % (SOURCES_MAX / WAYS) * WAYS;
        first..first + WAYS
    }
}

/// Places of a group.
const WAYS: usize = 8;
/// One request, or one failure, in millionths.
const ONE: u128 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { requests_per_s: 10, failures_per_min: 3 };

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from(n).into())
    }

    fn at(millis: u64) -> Mono {
        Mono(1_000_000 + millis * 1000)
    }

    #[test]
    fn requests_are_let_by_at_their_rate_and_two_seconds_at_once() {
        let mut budgets = Budgets::new(ALLOWANCE, HashKey([1, 2]));
        let mut within = |millis, count| {
            (0..count).filter(|_| budgets.request(at(millis), source(1)) == Spending::Within).count()
        };
        assert_eq!(within(0, 30), 20);
        assert_eq!(within(100, 5), 1);
        assert_eq!(within(1100, 50), 10);
        assert_eq!(within(100_000, 50), 20);
        assert_eq!(budgets.request(at(100_000), source(2)), Spending::Within, "others do not mind");
    }

    #[test]
    fn going_beyond_is_told_once() {
        let mut budgets = Budgets::new(ALLOWANCE, HashKey([1, 2]));
        for _ in 0..20 {
            budgets.request(at(0), source(1));
        }
        assert_eq!(budgets.request(at(0), source(1)), Spending::Last);
        assert_eq!(budgets.request(at(0), source(1)), Spending::Beyond);
        assert_eq!(budgets.request(at(150), source(1)), Spending::Within);
        assert_eq!(budgets.request(at(150), source(1)), Spending::Last);
    }

    #[test]
    fn who_fails_too_often_is_blocked_for_a_while() {
        let mut budgets = Budgets::new(ALLOWANCE, HashKey([1, 2]));
        assert!(!budgets.is_blocked(at(0), source(1)));
        for _ in 0..3 {
            assert_eq!(budgets.failure(at(0), source(1)), Spending::Within);
        }
        assert!(!budgets.is_blocked(at(0), source(1)));
        assert_eq!(budgets.failure(at(0), source(1)), Spending::Last);
        assert_eq!(budgets.failure(at(1), source(1)), Spending::Beyond);
        assert!(budgets.is_blocked(at(59_999), source(1)) && !budgets.is_blocked(at(0), source(2)));
        assert!(!budgets.is_blocked(at(60_000), source(1)));
        assert_eq!(budgets.failure(at(60_000), source(1)), Spending::Within);
    }

    #[test]
    fn nothing_is_counted_where_nothing_is_bounded() {
        let none = Allowance { requests_per_s: 0, failures_per_min: 0 };
        let mut budgets = Budgets::new(none, HashKey([1, 2]));
        for _ in 0..1000 {
            assert_eq!(budgets.request(at(0), source(1)), Spending::Within);
            assert_eq!(budgets.failure(at(0), source(1)), Spending::Within);
        }
        assert!(budgets.places.is_empty() && !budgets.counts_requests());
    }

    #[test]
    fn very_many_sources_take_no_more_memory_and_blocked_ones_stay_longest() {
        let mut budgets = Budgets::new(ALLOWANCE, HashKey([1, 2]));
        for _ in 0..4 {
            budgets.failure(at(0), source(0));
        }
        for n in 1..4 * SOURCES_MAX as u32 {
            assert_eq!(budgets.request(at(10), source(n)), Spending::Within);
        }
        assert_eq!(budgets.places.len(), SOURCES_MAX);
        assert!(budgets.is_blocked(at(20), source(0)));
    }
}

//! What a source may do within a time: requests, and failures to authenticate.
//!
//! Failures count twice: for the source and the user whom it claims to be, so that whoever tries one user's passwords loses that
//! user and nobody else behind the same address does; and, within a much wider budget, for the source alone, for whoever
//! tries one password on many users.
//!
//! The counts stand in two tables of fixed size that all shards share ([`Meters`]): as many shards as there are, the budget is
//! one. Whoever sends from very many addresses displaces others of his like, and what is forgotten of them is only how much
//! they had done; who is blocked stays longest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use comsipl_core::auth::{Meter, Meters, Source};
use comsipl_core::{AorKey, HashKey, Mono};

/// Sources, and users that sources claim to be, that are remembered: 8 bytes each in each of the two tables.
pub const REMEMBERED_MAX: usize = 1 << 16;

/// How long who failed too often is not heard.
pub const BLOCKED_FOR: Duration = Duration::from_secs(60);

/// What sources may do; zero: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a second, and as many at once as in two seconds.
    pub requests_per_s: u32,
    /// Failures to authenticate as one user a minute, all of them at once if need be.
    pub failures_per_min: u32,
    /// Failures to authenticate as anybody a minute, likewise.
    pub source_failures_per_min: u32,
}

/// What sources have done.
#[derive(Debug)]
pub struct Budgets {
    allowance: Allowance,
    key: HashKey,
    requests: Meters,
    failures: Meters,
    /// Until when anybody is blocked, so that nobody is looked for while nobody is.
    blocked_until: AtomicU64,
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

impl Budgets {
    /// Budgets of sources that have done nothing yet. `key` keeps senders from aiming at one place.
    #[must_use]
    pub fn new(allowance: Allowance, key: HashKey) -> Self {
        let table = |wanted| Meters::new(if wanted { REMEMBERED_MAX } else { 0 });
        Self {
            requests: table(allowance.requests_per_s != 0),
            failures: table(allowance.failures_per_min != 0 || allowance.source_failures_per_min != 0),
            allowance,
            key,
            blocked_until: AtomicU64::new(0),
        }
    }

    /// Whether requests are counted.
    #[inline]
    #[must_use]
    pub const fn counts_requests(&self) -> bool {
        self.allowance.requests_per_s != 0
    }

    /// Counts a request.
    pub fn request(&self, now: Mono, source: Source) -> Spending {
        let rate = u64::from(self.allowance.requests_per_s);
        if rate == 0 {
            return Spending::Within;
        }
        let (each, most) = (SECOND / rate, 2 * SECOND);
        self.requests.change(self.source(source), now.0, |meter| {
            if meter.level + each <= most {
                return (Meter { level: meter.level + each, marked: false }, Spending::Within);
            }
            let spending = if meter.marked { Spending::Beyond } else { Spending::Last };
            (Meter { marked: true, ..meter }, spending)
        })
    }

    /// Counts a failure to authenticate as `user`. After [`Spending::Last`] the source is blocked, [for that
    /// user](Self::is_blocked_for) or [altogether](Self::is_blocked).
    pub fn failure(&self, now: Mono, source: Source, user: AorKey) -> Spending {
        let of_user = self.fail(now, self.user(source, user), self.allowance.failures_per_min);
        let of_source = self.fail(now, self.source(source), self.allowance.source_failures_per_min);
        match (of_user, of_source) {
            (Spending::Within, Spending::Within) => Spending::Within,
            (Spending::Last, _) | (_, Spending::Last) => Spending::Last,
            _ => Spending::Beyond,
        }
    }

    /// Whether a source has failed too often, whoever it claimed to be.
    #[inline]
    #[must_use]
    pub fn is_blocked(&self, now: Mono, source: Source) -> bool {
        self.anybody_is_blocked(now) && self.failures.read(self.source(source), now.0).marked
    }

    /// Whether a source has failed too often as `user`.
    #[inline]
    #[must_use]
    pub fn is_blocked_for(&self, now: Mono, source: Source, user: AorKey) -> bool {
        self.anybody_is_blocked(now) && self.failures.read(self.user(source, user), now.0).marked
    }

    fn anybody_is_blocked(&self, now: Mono) -> bool {
        // Relaxed: a block that another shard has set at this very moment holds a moment later.
        self.blocked_until.load(Ordering::Relaxed) > now.0
    }

    fn fail(&self, now: Mono, whose: u64, rate: u32) -> Spending {
        if rate == 0 {
            return Spending::Within;
        }
        let (each, most) = (MINUTE / u64::from(rate), MINUTE);
        let spending = self.failures.change(whose, now.0, |meter| {
            if meter.marked {
                (meter, Spending::Beyond)
            } else if meter.level + each <= most {
                (Meter { level: meter.level + each, marked: false }, Spending::Within)
            } else {
                (Meter { level: BLOCKED_FOR.as_micros() as u64, marked: true }, Spending::Last)
            }
        });
        if spending == Spending::Last {
            self.blocked_until.fetch_max((now + BLOCKED_FOR).0, Ordering::Relaxed);
        }
        spending
    }

    fn source(&self, source: Source) -> u64 {
        self.key.of(&[b"source", &source.number().to_le_bytes()])
    }

    fn user(&self, source: Source, user: AorKey) -> u64 {
        self.key.of(&[b"source and user", &source.number().to_le_bytes(), &user.0.to_le_bytes()])
    }
}

/// In microseconds.
const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance =
        Allowance { requests_per_s: 10, failures_per_min: 3, source_failures_per_min: 30 };
    const ALICE: AorKey = AorKey(1);
    const BOB: AorKey = AorKey(2);

    fn budgets() -> Budgets {
        Budgets::new(ALLOWANCE, HashKey([1, 2]))
    }

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from(n).into())
    }

    fn at(millis: u64) -> Mono {
        Mono(1_000_000 + millis * 1000)
    }

    #[test]
    fn requests_are_let_by_at_their_rate_and_two_seconds_at_once() {
        let budgets = budgets();
        let within = |millis, count| {
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
        let budgets = budgets();
        for _ in 0..20 {
            budgets.request(at(0), source(1));
        }
        assert_eq!(budgets.request(at(0), source(1)), Spending::Last);
        assert_eq!(budgets.request(at(0), source(1)), Spending::Beyond);
        assert_eq!(budgets.request(at(150), source(1)), Spending::Within);
        assert_eq!(budgets.request(at(150), source(1)), Spending::Last);
    }

    #[test]
    fn who_fails_too_often_is_blocked_for_a_while_and_for_that_user_alone() {
        let budgets = budgets();
        assert!(!budgets.is_blocked_for(at(0), source(1), ALICE));
        for _ in 0..3 {
            assert_eq!(budgets.failure(at(0), source(1), ALICE), Spending::Within);
        }
        assert!(!budgets.is_blocked_for(at(0), source(1), ALICE));
        assert_eq!(budgets.failure(at(0), source(1), ALICE), Spending::Last);
        assert_eq!(budgets.failure(at(1), source(1), ALICE), Spending::Beyond);
        assert!(budgets.is_blocked_for(at(59_999), source(1), ALICE));
        assert!(!budgets.is_blocked_for(at(1), source(1), BOB), "others behind the same address");
        assert!(!budgets.is_blocked_for(at(1), source(2), ALICE), "the user himself, elsewhere");
        assert!(!budgets.is_blocked(at(1), source(1)));
        assert_eq!(budgets.failure(at(2), source(1), BOB), Spending::Within);
        assert!(!budgets.is_blocked_for(at(60_000), source(1), ALICE));
        assert_eq!(budgets.failure(at(60_000), source(1), ALICE), Spending::Within);
    }

    #[test]
    fn who_fails_as_very_many_is_blocked_altogether() {
        let budgets = budgets();
        for n in 0..30 {
            assert_eq!(budgets.failure(at(0), source(1), AorKey(n)), Spending::Within);
        }
        assert!(!budgets.is_blocked(at(0), source(1)));
        assert_eq!(budgets.failure(at(0), source(1), AorKey(30)), Spending::Last);
        assert_eq!(budgets.failure(at(0), source(1), AorKey(31)), Spending::Beyond);
        assert!(budgets.is_blocked(at(59_999), source(1)) && !budgets.is_blocked(at(60_000), source(1)));
        assert!(!budgets.is_blocked(at(0), source(2)));
    }

    /// Once every shard counted by itself, so there were as many budgets as shards.
    #[test]
    fn all_threads_count_for_one_budget() {
        let budgets = budgets();
        let within = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| {
                scope.spawn(|| {
                    let outcomes = [(); 3].map(|()| budgets.failure(at(0), source(1), ALICE));
                    outcomes.iter().filter(|it| **it == Spending::Within).count()
                })
            });
            threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>()
        });
        assert_eq!(within, 3);
        assert!(budgets.is_blocked_for(at(0), source(1), ALICE));
    }

    #[test]
    fn nothing_is_counted_where_nothing_is_bounded() {
        let none = Allowance { requests_per_s: 0, failures_per_min: 0, source_failures_per_min: 0 };
        let budgets = Budgets::new(none, HashKey([1, 2]));
        for _ in 0..1000 {
            assert_eq!(budgets.request(at(0), source(1)), Spending::Within);
            assert_eq!(budgets.failure(at(0), source(1), ALICE), Spending::Within);
        }
        assert!(!budgets.is_blocked(at(0), source(1)) && !budgets.counts_requests());
    }

    #[test]
    fn blocked_ones_stay_although_very_many_come() {
        let budgets = budgets();
        for _ in 0..4 {
            budgets.failure(at(0), source(0), ALICE);
        }
        for n in 1..4 * REMEMBERED_MAX as u32 {
            budgets.failure(at(10), source(n), BOB);
        }
        assert!(budgets.is_blocked_for(at(20), source(0), ALICE));
    }
}

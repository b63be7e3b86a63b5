//! How much very many have done lately: leaky buckets in a table of fixed size that all threads share without locks.
//!
//! The level of a meter is the time that it takes to run dry, so its word says only when that will be, and nothing has to be
//! done for it to run out (the virtual scheduling of ITU-T I.371's generic cell rate algorithm):
//!
//! ```text
//! bits 51..64  tag: bits of the hash of whose meter it is
//! bit  50      marked, for what the caller means by it
//! bits  0..50  when it is dry, in microseconds from the start: 35 years
//! ```
//!
//! The hash chooses a group of [`WAYS`] words, one cache line, and a meter may be any of them. A dry one is as good as none.
//! Where none is dry, who is new takes the place of the one that runs dry first, and only then of a marked one: what is
//! forgotten is who had done least.
//!
//! Two whose hashes agree in group and tag share a meter. The hash must be keyed, so that nobody chooses with whom. Two threads
//! that meet somebody new at the same moment, while others of the group change, may give him two meters, of which the first
//! counts from then on.

use super::sync::{AtomicU64, Ordering};

/// Meters of a group.
pub const WAYS: usize = 8;

/// A table of meters.
#[derive(Debug)]
pub struct Meters {
    groups: Box<[Group]>,
}

/// The meters of those whose hashes choose this group.
#[derive(Debug)]
#[repr(align(64))]
struct Group([AtomicU64; WAYS]);

/// What a meter shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Microseconds until it is dry.
    pub level: u64,
    /// Whether it is marked; a dry one is not.
    pub marked: bool,
}

impl Meters {
    /// A table of `meters`, all dry, rounded up to whole groups.
    #[must_use]
    pub fn new(meters: usize) -> Self {
        let group = |_| Group(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { groups: (0..meters.div_ceil(WAYS)).map(group).collect() }
    }

    /// What the meter of `whose` shows at `now`, in microseconds from the start.
    #[must_use]
    pub fn read(&self, whose: u64, now: u64) -> Meter {
        self.group(whose).map_or_else(Meter::default, |group| {
            let (_, word) = find(group, tag_of(whose), now);
            shown(word, tag_of(whose), now)
        })
    }

    /// Changes the meter of `whose`: `step` is given what it shows, and says what it is to show and what came of it. It may be
    /// asked again if others change the meter meanwhile. A table without meters shows a dry one, and keeps nothing.
    pub fn change<T>(&self, whose: u64, now: u64, step: impl Fn(Meter) -> (Meter, T)) -> T {
        let Some(group) = self.group(whose) else { return step(Meter::default()).1 };
        let tag = tag_of(whose);
        loop {
            let (at, word) = find(group, tag, now);
            let before = shown(word, tag, now);
            let (after, outcome) = step(before);
            if after == before {
                return outcome;
            }
            let dry_at = now.saturating_add(after.level).min(TIME_MAX);
            let next = tag | u64::from(after.marked) << MARK_AT | dry_at;
            // Relaxed: nothing but this word is decided by it.
            if group.0[at].compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return outcome;
            }
        }
    }

    fn group(&self, whose: u64) -> Option<&Group> {
        self.groups.get((whose as usize).checked_rem(self.groups.len())?)
    }
}

/// The meter with that tag, or the one whose place it may take.
fn find(group: &Group, tag: u64, now: u64) -> (usize, u64) {
    let mut best = (0, u64::MAX, u64::MAX);
    for (at, meter) in group.0.iter().enumerate() {
        let word = meter.load(Ordering::Relaxed);
        if word & TAG == tag && word != 0 {
            return (at, word);
        }
        // By mark and time; what is dry comes first.
        let worth = if word & TIME_MAX <= now { 0 } else { word & !TAG };
        if worth < best.2 {
            best = (at, word, worth);
        }
    }
    (best.0, best.1)
}

/// What a word shows to the one with that tag.
fn shown(word: u64, tag: u64, now: u64) -> Meter {
    let level = (word & TIME_MAX).saturating_sub(now);
    if word & TAG != tag || level == 0 {
        return Meter::default();
    }
    Meter { level, marked: word >> MARK_AT & 1 == 1 }
}

/// The group is chosen by the low bits of the hash.
const fn tag_of(whose: u64) -> u64 {
    whose & TAG
}

const MARK_AT: u32 = 50;
/// The last moment that a word can say.
const TIME_MAX: u64 = (1 << MARK_AT) - 1;
const TAG: u64 = !0 << (MARK_AT + 1);

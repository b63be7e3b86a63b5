//! Which nonce counts were used, so that no credentials count twice (RFC 7616 §3.4: "to allow the server to
//! detect request replays").
//!
//! The table is shared by all threads and has a fixed size. A nonce has one slot, chosen by the random number in it; a slot is
//! one word, so each use is one compare-and-exchange:
//!
//! ```text
//! bits 28..64  when the nonce was made, in units of 16 ms, from 1
//! bits 16..28  the highest nonce count used
//! bits  0..16  which of the 16 highest counts were used, bit 0 for the highest
//! ```
//!
//! Nonces that share a slot are told apart by their time. The newer one takes the slot, and the older one counts as stale from
//! then on; so a count is never taken for unused because what was known of it is gone. Two nonces of the same 16 ms in one slot
//! are taken for one, which can only refuse what would have been right. Whoever is refused gets a fresh nonce.

use super::sync::{AtomicU64, Ordering};

/// Highest count of a nonce that is taken; whoever comes further gets another nonce.
pub const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;

/// The counts that were used with each nonce.
#[derive(Debug)]
pub struct SpentCounts {
    slots: Box<[AtomicU64]>,
}

impl SpentCounts {
    /// A table of `slots` nonces.
    ///
    /// # Panics
    /// If `slots` is zero.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        assert!(slots > 0, "a table without slots refuses everything");
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect() }
    }

    /// For how many nonces there is room.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slots that were used, and their words.
    pub fn used(&self) -> impl Iterator<Item = (u32, u64)> {
        // Relaxed: who reads all has waited for those who write.
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        (0..).zip(words).filter(|(_, word)| *word != 0)
    }

    /// Puts back a slot of [`Self::used`]. `None`: there is no such slot.
    #[must_use]
    pub fn restore(&mut self, slot: u32, word: u64) -> Option<()> {
        self.slots.get(slot as usize).map(|it| it.store(word, Ordering::Relaxed))
    }

    /// Uses `count` with the nonce that has `random` in it and was made `made_ms` milliseconds after the start. `false`: it was
    /// used before, or that is not known any more.
    #[must_use]
    pub fn spend(&self, random: u32, made_ms: u64, count: u32) -> bool {
        let slot = &self.slots[random as usize % self.slots.len()];
        // Relaxed: nothing but this word is decided by it.
        let mut word = slot.load(Ordering::Relaxed);
        while let Some(next) = spent(word, made_ms / UNIT_MS + 1, count) {
            match slot.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => word = changed,
            }
        }
        false
    }
}

/// The word of a slot after a use; `None`: the use is refused.
fn spent(word: u64, made: u64, count: u32) -> Option<u64> {
    if count == 0 || count > COUNT_MAX || made > MADE_MAX {
        return None;
    }
    let (slot_made, highest) = (word >> MADE_AT, (word >> WINDOW_BITS) as u32 & COUNT_MAX);
    let window = word & ((1 << WINDOW_BITS) - 1);
    let (highest, window) = match made.cmp(&slot_made) {
        std::cmp::Ordering::Less => return None,
        std::cmp::Ordering::Greater => (count, 1),
        std::cmp::Ordering::Equal if count > highest => {
            let shifted = window.checked_shl(count - highest).unwrap_or(0);
            (count, shifted & ((1 << WINDOW_BITS) - 1) | 1)
        }
        std::cmp::Ordering::Equal => {
            let behind = highest - count;
            if behind >= WINDOW_BITS || window >> behind & 1 == 1 {
                return None;
            }
            (highest, window | 1 << behind)
        }
    };
    Some(made << MADE_AT | u64::from(highest) << WINDOW_BITS | window)
}

/// Milliseconds of a unit of time.
pub(super) const UNIT_MS: u64 = 16;
/// How far requests may overtake one another.
const WINDOW_BITS: u32 = 16;
const COUNT_BITS: u32 = 12;
const MADE_AT: u32 = WINDOW_BITS + COUNT_BITS;
/// Units that fit: 34 years of uptime.
pub(super) const MADE_MAX: u64 = (1 << (64 - MADE_AT)) - 1;

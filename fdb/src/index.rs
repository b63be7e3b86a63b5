//! Finding a record by its 128-bit key: one writer, readers without locks, 8 bytes an entry, in RAM.
//!
//! Open addressing with linear probing. An entry is 32 bits of the key's hash beside `slot + 1`; where it lies follows
//! from those 32 bits, so the table grows without reading a record. Keys are not stored: a reader gets candidates, reads
//! the record of each and compares. Deleting shifts the run back, so that there are no tombstones and no rebuilding
//! under steady load; a reader that finds nothing while entries move looks again.
//!
//! Invariants:
//!   * `load <= 3/4`, so that every probe ends at an empty entry.
//!   * An entry lies at or after its home, with no empty entry in between.
//!   * `moves` is odd while entries move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;

/// Entries of the smallest table.
const SMALLEST: usize = 64;
/// How often a reader that found nothing looks again while the writer moves entries.
const LOOKS_MAX: usize = 64;

/// A map from key to slot, many readers, one writer.
#[derive(Debug)]
pub struct Index {
    table: ArcSwap<Table>,
    moves: AtomicU64,
    entries: AtomicU32,
}

#[derive(Debug)]
struct Table {
    /// `hash << 32 | slot + 1`; 0: empty. A power of two many.
    cells: Box<[AtomicU64]>,
    /// By how much to shift a hash for the home of its entry.
    shift: u32,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::new(SMALLEST)),
            moves: AtomicU64::new(0),
            entries: AtomicU32::new(0),
        }
    }

    /// The first slot among the candidates for `key` for which `verify` says that its record has this key.
    ///
    /// `verify` may be asked about slots of other keys, or about slots whose record has just gone. A key that is there all
    /// the time is found, unless the writer moves entries in every one of the 64 looks.
    pub fn find(&self, key: u128, mut verify: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = hash(key);
        for _ in 0..LOOKS_MAX {
            let before = self.moves.load(Ordering::Acquire); // pairs with `settle`
            if let Some(slot) = self.table.load().probe(hash, &mut verify) {
                return Some(slot);
            }
            fence(Ordering::Acquire); // pairs with the release fence in `remove`
            if before.is_multiple_of(2) && self.moves.load(Ordering::Relaxed) == before {
                return None;
            }
            std::hint::spin_loop();
        }
        None
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed) as usize
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an entry. Only the partition's writer calls it.
    pub(crate) fn insert(&self, key: u128, slot: u32) {
        let entries = self.entries.load(Ordering::Relaxed) + 1;
        let table = self.table.load();
        let entry = entry(hash(key), slot);
        if entries as usize * 4 > table.cells.len() * 3 {
            let larger = Table::new(table.cells.len() * 2);
            for cell in &table.cells {
                match cell.load(Ordering::Relaxed) {
                    0 => {}
                    old => larger.add(old),
                }
            }
            larger.add(entry);
            drop(table);
            // Readers in the old table still find what was there before.
            self.table.store(Arc::new(larger));
        } else {
            table.add(entry);
        }
        self.entries.store(entries, Ordering::Relaxed);
    }

    /// Takes an entry out; `false` if it was not there. Only the partition's writer calls it.
    pub(crate) fn remove(&self, key: u128, slot: u32) -> bool {
        let table = self.table.load();
        let entry = entry(hash(key), slot);
        let Some(mut hole) = table.position(entry) else { return false };
        let moves = self.moves.load(Ordering::Relaxed);
        self.moves.store(moves + 1, Ordering::Relaxed);
        fence(Ordering::Release); // pairs with the acquire fence in `find`
        let mask = table.cells.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = table.cells[at].load(Ordering::Relaxed);
            if next == 0 {
                break;
            }
            // An entry moves into the hole unless its home lies between hole and entry.
            let distance = at.wrapping_sub(table.home(next)) & mask;
            if distance >= at.wrapping_sub(hole) & mask {
                table.cells[hole].store(next, Ordering::Release);
                hole = at;
            }
        }
        table.cells[hole].store(0, Ordering::Release);
        self.moves.store(moves + 2, Ordering::Release); // settle: pairs with the acquire load in `find`
        self.entries.store(self.entries.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        true
    }
}

impl Table {
    fn new(entries: usize) -> Self {
        debug_assert!(entries.is_power_of_two());
        Self {
            cells: (0..entries).map(|_| AtomicU64::new(0)).collect(),
            shift: u32::BITS - entries.trailing_zeros().min(u32::BITS),
        }
    }

    /// Where an entry belongs: the upper bits of its hash.
    fn home(&self, entry: u64) -> usize {
        ((entry >> 32) >> self.shift) as usize & (self.cells.len() - 1)
    }

    fn probe(&self, hash: u32, verify: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.cells.len() - 1;
        let mut at = self.home(u64::from(hash) << 32);
        for _ in 0..self.cells.len() {
            // Pairs with the release stores of `add` and `remove`: the record was written before its entry.
            let entry = self.cells[at].load(Ordering::Acquire);
            if entry == 0 {
                return None;
            }
            let slot = (entry as u32).wrapping_sub(1);
            if (entry >> 32) as u32 == hash && verify(slot) {
                return Some(slot);
            }
            at = (at + 1) & mask;
        }
        None
    }

    fn position(&self, entry: u64) -> Option<usize> {
        let mask = self.cells.len() - 1;
        let mut at = self.home(entry);
        loop {
            match self.cells[at].load(Ordering::Relaxed) {
                0 => return None,
                found if found == entry => return Some(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn add(&self, entry: u64) {
        let mask = self.cells.len() - 1;
        let mut at = self.home(entry);
        while self.cells[at].load(Ordering::Relaxed) != 0 {
            at = (at + 1) & mask;
        }
        self.cells[at].store(entry, Ordering::Release);
    }
}

/// 32 bits that spread: keys are keyed hashes whose low bits name the partition, but tests use small numbers.
fn hash(key: u128) -> u32 {
    let folded = (key as u64).rotate_left(29) ^ (key >> 64) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

fn entry(hash: u32, slot: u32) -> u64 {
    debug_assert!(slot < u32::MAX);
    u64::from(hash) << 32 | (u64::from(slot) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn found(index: &Index, key: u128) -> Option<u32> {
        index.find(key, |slot| u128::from(slot) == key)
    }

    #[test]
    fn what_was_added_is_found_until_it_is_removed() {
        let index = Index::new();
        for key in 0..10_000u32 {
            index.insert(key.into(), key);
        }
        assert_eq!(index.len(), 10_000);
        for key in (0..10_000u32).step_by(3) {
            assert!(index.remove(key.into(), key));
            assert!(!index.remove(key.into(), key));
        }
        for key in 0..10_000u32 {
            let expected = (key % 3 != 0).then_some(key);
            assert_eq!(found(&index, key.into()), expected);
        }
        for key in 0..10_000u32 {
            assert_eq!(index.remove(key.into(), key), key % 3 != 0);
        }
        assert!(index.is_empty());
        assert!(index.table.load().cells.iter().all(|cell| cell.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn keys_of_one_hash_are_told_apart_by_the_reader() {
        let index = Index::new();
        for slot in 0..40 {
            index.insert(7, slot);
        }
        for slot in 0..40 {
            assert_eq!(index.find(7, |candidate| candidate == slot), Some(slot));
        }
        assert!(index.remove(7, 11));
        assert_eq!(index.find(7, |candidate| candidate == 11), None);
        assert_eq!(index.find(7, |candidate| candidate == 39), Some(39));
    }

    #[test]
    fn a_run_that_wraps_around_the_end_is_shifted_back() {
        let index = Index::new();
        let last_home: Vec<u128> = (0..1_000_000u128).filter(|&key| hash(key) >> 26 == 63).take(8).collect();
        for (slot, &key) in last_home.iter().enumerate() {
            index.insert(key, slot as u32);
        }
        for (slot, &key) in last_home.iter().enumerate() {
            assert!(index.remove(key, slot as u32));
            for (later, &key) in last_home.iter().enumerate().skip(slot + 1) {
                assert_eq!(index.find(key, |slot| slot as usize == later), Some(later as u32));
            }
        }
    }

    #[test]
    fn a_key_that_stays_is_found_while_others_come_and_go() {
        let rounds = if cfg!(miri) { 3 } else { 300 };
        let index = Index::new();
        for key in 0..40u32 {
            index.insert(key.into(), key);
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        for key in 0..40 {
                            assert_eq!(found(&index, key), Some(key as u32));
                        }
                    }
                });
            }
            for round in 0..rounds {
                for key in 40..(100 + round) {
                    index.insert(key.into(), key);
                }
                for key in 40..(100 + round) {
                    assert!(index.remove(key.into(), key));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

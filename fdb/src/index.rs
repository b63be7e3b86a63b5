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
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::seqlock::{Load, Word};

/// Entries of the smallest table.
const SMALLEST: usize = 64;
/// How often a reader that found nothing looks again while the writer moves entries.
const LOOKS_MAX: usize = 64;

/// A map from key to slot, many readers, one writer.
#[derive(Debug)]
pub struct Index {
    table: ArcSwap<Table<AtomicU64>>,
    moves: AtomicU64,
    entries: AtomicU32,
}

/// A table of one size. A power of two many cells: `hash << 32 | slot + 1`, or 0 where empty.
#[derive(Debug)]
struct Table<W> {
    cells: Box<[W]>,
    /// By how much to shift a hash for the home of its entry.
    shift: u32,
}

/// Outcome of looking through a table once.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Found(u32),
    Absent,
    /// Not found, but entries moved meanwhile.
    Moved,
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
            // The number of moves is read before the table is chosen: a table that was replaced meanwhile is complete as
            // of then, and moves in its successor show in the number.
            let before = self.moves.get();
            AtomicU64::acquire();
            match self.table.load().look(&self.moves, before, hash, &mut verify) {
                Look::Found(slot) => return Some(slot),
                Look::Absent => return None,
                Look::Moved => std::hint::spin_loop(),
            }
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
            let larger: Table<AtomicU64> = Table::new(table.cells.len() * 2);
            for cell in &table.cells {
                match cell.own() {
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
        let known = self.table.load().remove(&self.moves, entry(hash(key), slot));
        if known {
            self.entries.store(self.entries.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
        known
    }
}

impl Table<AtomicU64> {
    fn new(entries: usize) -> Self {
        Self::of((0..entries).map(|_| AtomicU64::new(0)).collect())
    }
}

impl<W: Word> Table<W> {
    fn of(cells: Box<[W]>) -> Self {
        debug_assert!(cells.len().is_power_of_two());
        let shift = u32::BITS - cells.len().trailing_zeros().min(u32::BITS);
        Self { cells, shift }
    }

    /// Where an entry belongs: the upper bits of its hash.
    fn home(&self, entry: u64) -> usize {
        ((entry >> 32) >> self.shift) as usize & (self.cells.len() - 1)
    }

    /// Looks for a hash. `before` is what `moves` was, loaded and followed by an acquire fence.
    fn look(&self, moves: &W, before: u64, hash: u32, verify: &mut impl FnMut(u32) -> bool) -> Look {
        let mask = self.cells.len() - 1;
        let mut at = self.home(u64::from(hash) << 32);
        for _ in 0..self.cells.len() {
            let entry = self.cells[at].get();
            if entry == 0 {
                break;
            }
            if (entry >> 32) as u32 == hash {
                W::acquire(); // pairs with the release fence of `add`: the record was written before its entry
                let slot = (entry as u32).wrapping_sub(1);
                if verify(slot) {
                    return Look::Found(slot);
                }
            }
            at = (at + 1) & mask;
        }
        W::acquire(); // pairs with the release fence in `remove` after `moves` became odd
        if before.is_multiple_of(2) && moves.get() == before { Look::Absent } else { Look::Moved }
    }

    fn add(&self, entry: u64) {
        let mask = self.cells.len() - 1;
        let mut at = self.home(entry);
        while self.cells[at].own() != 0 {
            at = (at + 1) & mask;
        }
        W::release();
        self.cells[at].set(entry);
    }

    fn remove(&self, moves: &W, entry: u64) -> bool {
        let Some(mut hole) = self.position(entry) else { return false };
        let before = moves.own();
        moves.set(before + 1);
        W::release(); // pairs with the acquire fence at the end of `look`
        let mask = self.cells.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.cells[at].own();
            if next == 0 {
                break;
            }
            // An entry moves into the hole unless its home lies between hole and entry.
            let distance = at.wrapping_sub(self.home(next)) & mask;
            if distance >= at.wrapping_sub(hole) & mask {
                self.cells[hole].set(next);
                hole = at;
            }
        }
        self.cells[hole].set(0);
        W::release(); // pairs with the acquire fence before `look`
        moves.set(before + 2);
        true
    }

    fn position(&self, entry: u64) -> Option<usize> {
        let mask = self.cells.len() - 1;
        let mut at = self.home(entry);
        loop {
            match self.cells[at].own() {
                0 => return None,
                found if found == entry => return Some(at),
                _ => at = (at + 1) & mask,
            }
        }
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
        assert!(index.table.load().cells.iter().all(|cell| cell.get() == 0));
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

/// The moving of entries under every interleaving and every value that the memory model allows:
/// `cargo test -p comsipl-fdb --release --features loom loom`.
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use crate::seqlock::modelled::{Both, Fences, Modelled, NoAcquire, NoRelease};

    /// Three entries of one home in a table of four cells. The writer removes the first, so that the others move, while
    /// a reader looks for the last: it finds it, or is told to look again.
    fn model<F: Fences>() {
        loom::model(|| {
            let full = |slot: u32| Modelled::holding(if slot < 3 { entry(7, slot) } else { 0 });
            let cells: Box<[Modelled<F>]> = (0..4).map(full).collect();
            let shared = loom::sync::Arc::new((Table::of(cells), Modelled::<F>::new()));
            let writer = {
                let shared = loom::sync::Arc::clone(&shared);
                loom::thread::spawn(move || assert!(shared.0.remove(&shared.1, entry(7, 0))))
            };
            let (table, moves) = &*shared;
            let before = moves.get();
            Modelled::<F>::acquire();
            let looked = table.look(moves, before, 7, &mut |slot| slot == 2);
            assert!(looked == Look::Found(2) || looked == Look::Moved, "a key that stays was missed");
            writer.join().expect("the writer does not panic");
            let before = moves.get();
            assert_eq!(table.look(moves, before, 7, &mut |slot| slot == 2), Look::Found(2));
            assert_eq!(table.look(moves, before, 7, &mut |slot| slot == 0), Look::Absent);
        });
    }

    #[test]
    fn loom_misses_no_key_that_stays() {
        model::<Both>();
    }

    #[test]
    #[should_panic(expected = "a key that stays was missed")]
    fn loom_catches_moves_without_release_fences() {
        model::<NoRelease>();
    }

    #[test]
    #[should_panic(expected = "a key that stays was missed")]
    fn loom_catches_moves_without_acquire_fences() {
        model::<NoAcquire>();
    }
}

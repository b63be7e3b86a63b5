//! Hash tables from keyed hashes to slab numbers, one a partition.
//!
//! One table for a whole shard would be rehashed in one long step when it grows; sixty-four small ones grow one at a time.

use comsipl_core::{AorKey, PARTITIONS};
use hashbrown::HashTable;

/// The hash of an AoR key in these tables; the key is a keyed hash already, so half of it serves.
pub const fn hash_of(key: AorKey) -> u64 {
    (key.0 >> 64) as u64
}

/// Slab numbers by keyed hash.
#[derive(Debug)]
pub struct PartitionedIndex {
    tables: Vec<HashTable<u32>>,
}

impl Default for PartitionedIndex {
    fn default() -> Self {
        Self { tables: (0..PARTITIONS).map(|_| HashTable::new()).collect() }
    }
}

impl PartitionedIndex {
    /// The entry of `hash` for which `is_it` holds.
    #[inline]
    pub fn find(&self, partition: u8, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables[usize::from(partition)].find(hash, |&id| is_it(id)).copied()
    }

    /// Every entry of `hash` (and, seldom, of a hash that shares its bucket: the caller compares).
    #[inline]
    pub fn candidates(&self, partition: u8, hash: u64) -> impl Iterator<Item = u32> + '_ {
        self.tables[usize::from(partition)].iter_hash(hash).copied()
    }

    /// Adds an entry; `rehash` gives the hash of any entry present.
    pub fn insert(&mut self, partition: u8, hash: u64, id: u32, rehash: impl Fn(u32) -> u64) {
        self.tables[usize::from(partition)].insert_unique(hash, id, |&id| rehash(id));
    }

    /// Removes the entry `id` of `hash`.
    pub fn remove(&mut self, partition: u8, hash: u64, id: u32) {
        if let Ok(entry) = self.tables[usize::from(partition)].find_entry(hash, |&other| other == id) {
            entry.remove();
        } else {
            debug_assert!(false, "removed from the index twice");
        }
    }
}

//! Hash tables from keyed hashes to slab numbers, some for each partition.
//!
//! One table for a whole shard would be rehashed in one long step when it grows; many small ones grow one at a time. With a
//! million entries in the sixteen partitions of one of four shards, a step moves 8,000.

use comsipl_core::{AorKey, PARTITIONS};
use hashbrown::HashTable;

/// The hash of an AoR key in these tables; the key is a keyed hash already, so half of it serves.
pub const fn hash_of(key: AorKey) -> u64 {
    (key.0 >> 64) as u64
}

/// Tables of a partition.
const TABLES_EACH: usize = 8;

/// The table of a hash. Its lowest and its highest bits choose the place within the table, so others choose the table.
const fn table(partition: u8, hash: u64) -> usize {
    partition as usize * TABLES_EACH + (hash >> 40) as usize % TABLES_EACH
}

/// Slab numbers by keyed hash.
#[derive(Debug)]
pub struct PartitionedIndex {
    tables: Vec<HashTable<u32>>,
}

impl Default for PartitionedIndex {
    fn default() -> Self {
        Self { tables: (0..PARTITIONS * TABLES_EACH).map(|_| HashTable::new()).collect() }
    }
}

impl PartitionedIndex {
    /// The entry of `hash` for which `is_it` holds.
    #[inline]
    pub fn find(&self, partition: u8, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables[table(partition, hash)].find(hash, |&id| is_it(id)).copied()
    }

    /// Every entry of `hash` (and, seldom, of a hash that shares its bucket: the caller compares).
    #[inline]
    pub fn candidates(&self, partition: u8, hash: u64) -> impl Iterator<Item = u32> + '_ {
        self.tables[table(partition, hash)].iter_hash(hash).copied()
    }

    /// Adds an entry; `rehash` gives the hash of any entry present.
    pub fn insert(&mut self, partition: u8, hash: u64, id: u32, rehash: impl Fn(u32) -> u64) {
        self.tables[table(partition, hash)].insert_unique(hash, id, |&id| rehash(id));
    }

    /// Removes the entry `id` of `hash`.
    pub fn remove(&mut self, partition: u8, hash: u64, id: u32) {
        if let Ok(entry) = self.tables[table(partition, hash)].find_entry(hash, |&other| other == id) {
            entry.remove();
        } else {
            debug_assert!(false, "removed from the index twice");
        }
    }
}

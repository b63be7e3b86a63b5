//! The one writer of a partition.
//!
//! Invariants:
//!   * A slot is free (its commit word is 0) and listed in `free`, or used and not listed.
//!   * A chain is whole before a head names it, and freed only after no head names it.
//!   * An update in place is preceded by its redo image.
//!   * An indexed record is in the index from after its insertion until before its removal.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::buf::RecordBuf;
use crate::error::{Full, ReadError};
use crate::file::{Fdb, RecordId, key_of};
use crate::gather::Gather;
use crate::grow;
use crate::kind::Kind;
use crate::layout::{
    CHAIN_BYTES, EXTENT_RECORDS, FIXED_WORDS, INLINE_BYTES, INLINE_START, PAYLOAD_MAX, RECORD_HEADER_WORDS,
    RECORD_WORDS, chain_records, checked_count, header,
};
use crate::record::{
    COMMIT, Commit, Head, HeadWords, Link, NO_SLOT, copy_header, is_free, stamp_of, store_payload, unpair,
};
use crate::redo;
use crate::schema::Schema;
use crate::seqlock::{Load, Word, write};

/// The only writer of a partition. [`Fdb::open`] makes all 64; each may be moved to the thread that is to write it.
///
/// Writing allocates nothing, except when the partition grows or when a chain is longer than any before.
#[derive(Debug)]
pub struct Partition {
    file: Arc<Fdb>,
    number: u8,
    /// Free slots in the extents in use; the last one is taken first.
    free: Vec<u32>,
    records: u32,
    extents: u32,
    /// The chain that is being written, and the one it replaces: kept for their memory only.
    links: Vec<u32>,
    links_before: Vec<u32>,
}

impl Partition {
    pub(crate) fn new(file: Arc<Fdb>, number: u8, free: Vec<u32>, records: u32) -> Self {
        let extents = file.extents(number);
        let partition =
            Self { file, number, free, records, extents, links: Vec::new(), links_before: Vec::new() };
        partition.store_counts();
        partition
    }

    /// Its number, below [`PARTITIONS`](crate::PARTITIONS).
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// The file it is a part of.
    #[must_use]
    pub const fn file(&self) -> &Arc<Fdb> {
        &self.file
    }

    /// Stores a new record and gives its slot.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    pub fn insert(&mut self, kind: Kind, fixed: &[u64; FIXED_WORDS], payload: &[u8]) -> Result<u32, Full> {
        self.insert_parts(kind, fixed, &[payload])
    }

    /// Stores a new record, whose payload is the parts one after the other, and gives its slot.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    pub fn insert_parts(
        &mut self,
        kind: Kind,
        fixed: &[u64; FIXED_WORDS],
        parts: &[&[u8]],
    ) -> Result<u32, Full> {
        debug_assert_eq!(kind.file(), self.file.kind, "a {kind} does not belong into this file");
        let length = payload_length(parts)?;
        let chain = chain_records(length);
        self.reserve(chain + 1)?;
        let slot = self.free.pop().expect("reserved above");
        let sequence = self.cells(slot)[0].get().wrapping_add(2);
        let mut inline = [0; INLINE_BYTES];
        let mut gather = Gather::new(parts);
        let inline = gather.fill(&mut inline);
        let next = self.write_chain(slot, stamp_of(sequence), chain, &mut gather);
        let head = Head {
            kind,
            chain: chain as u16,
            length: length as u32,
            next,
            stamp: stamp_of(sequence),
            payload_crc: crc32c::crc32c(inline),
            fixed: *fixed,
        };
        let words = head.pack(self.number, slot);
        let record = self.cells(slot);
        write(&record[0], || {
            store(&record[COMMIT + 1..], words[1..].iter().copied());
            store_payload(&record[INLINE_START..], inline);
            // Killed before this store, the slot is still free; after it, the record is whole.
            AtomicU64::release();
            Word::set(&record[COMMIT], words[0]);
        });
        self.records += 1;
        self.store_counts();
        if kind.indexed() {
            self.file.index(self.number).insert(key_of(fixed), slot);
        }
        Ok(slot)
    }

    /// Stores a new record of one of the [schema](crate::schema)'s types and gives its slot.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    pub fn put<'a>(&mut self, record: &impl Schema<'a>) -> Result<u32, Full> {
        let encoded = record.encode()?;
        encoded.with_parts(|parts| self.insert_parts(encoded.kind(), encoded.fixed(), parts))
    }

    /// Replaces what a record holds; its kind stays.
    ///
    /// # Errors
    /// [`Full`]; the record is as it was then.
    ///
    /// # Panics
    /// If `slot` holds no record.
    pub fn update(&mut self, slot: u32, fixed: &[u64; FIXED_WORDS], payload: &[u8]) -> Result<(), Full> {
        self.update_parts(slot, fixed, &[payload])
    }

    /// Replaces what a record holds; its kind stays. The payload is the parts one after the other.
    ///
    /// # Errors
    /// [`Full`]; the record is as it was then. (A payload with a chain needs free slots for the new chain while the old
    /// one is still there.)
    ///
    /// # Panics
    /// If `slot` holds no record.
    pub fn update_parts(
        &mut self,
        slot: u32,
        fixed: &[u64; FIXED_WORDS],
        parts: &[&[u8]],
    ) -> Result<(), Full> {
        let before = self.head(slot);
        let length = payload_length(parts)?;
        let chain = chain_records(length);
        self.reserve(chain)?;
        self.collect_chain(&before);
        let sequence = self.cells(slot)[0].get().wrapping_add(2);
        let mut inline = [0; INLINE_BYTES];
        let mut gather = Gather::new(parts);
        let inline = gather.fill(&mut inline);
        let next = self.write_chain(slot, stamp_of(sequence), chain, &mut gather);
        let head = Head {
            kind: before.kind,
            chain: chain as u16,
            length: length as u32,
            next,
            stamp: stamp_of(sequence),
            payload_crc: crc32c::crc32c(inline),
            fixed: *fixed,
        };
        self.overwrite(slot, sequence, &head, inline);
        self.free_chain();
        self.reindex(slot, &before, fixed);
        self.store_counts();
        Ok(())
    }

    /// Replaces a record by one of the [schema](crate::schema)'s types, of the same kind.
    ///
    /// # Errors
    /// [`Full`]; the record is as it was then.
    ///
    /// # Panics
    /// If `slot` holds no record.
    pub fn replace<'a>(&mut self, slot: u32, record: &impl Schema<'a>) -> Result<(), Full> {
        let encoded = record.encode()?;
        debug_assert_eq!(Some(encoded.kind()), self.fixed(slot).map(|(kind, _)| kind), "the kind stays");
        encoded.with_parts(|parts| self.update_parts(slot, encoded.fixed(), parts))
    }

    /// Replaces the fixed words of a record; its payload is not touched. Cannot fail.
    ///
    /// # Panics
    /// If `slot` holds no record.
    pub fn update_fixed(&mut self, slot: u32, fixed: &[u64; FIXED_WORDS]) {
        let before = self.head(slot);
        let sequence = self.cells(slot)[0].get().wrapping_add(2);
        self.overwrite(slot, sequence, &Head { fixed: *fixed, ..before }, &[]);
        self.reindex(slot, &before, fixed);
    }

    /// Removes a record; its slot may hold another at once.
    ///
    /// # Panics
    /// If `slot` holds no record.
    pub fn remove(&mut self, slot: u32) {
        let before = self.head(slot);
        if before.kind.indexed() {
            let known = self.file.index(self.number).remove(key_of(&before.fixed), slot);
            debug_assert!(known, "the index knows every indexed record");
        }
        self.collect_chain(&before);
        self.free_slot(slot);
        self.free_chain();
        self.records -= 1;
        self.store_counts();
    }

    /// Copies a record into `buf`, like [`Fdb::read`]; never [`ReadError::Busy`] in the writer's own thread.
    ///
    /// # Errors
    /// [`ReadError::Missing`] and [`ReadError::Torn`].
    pub fn read(&self, slot: u32, buf: &mut RecordBuf) -> Result<(), ReadError> {
        self.file.read(RecordId { partition: self.number, slot }, buf)
    }

    /// Kind and fixed words of a record, without its payload and without a checksum: cheap. `None`: `slot` holds no
    /// record.
    #[must_use]
    pub fn fixed(&self, slot: u32) -> Option<(Kind, [u64; FIXED_WORDS])> {
        if slot / EXTENT_RECORDS >= self.extents {
            return None;
        }
        let record = self.cells(slot);
        let kind = Kind::of(Commit::unpack(record[COMMIT].get()).kind)?;
        Some((kind, std::array::from_fn(|i| record[RECORD_HEADER_WORDS + i].get())))
    }

    /// All records: slot and kind, in the order of their slots. For rebuilding what the caller keeps in memory.
    pub fn heads(&self) -> impl Iterator<Item = (u32, Kind)> {
        (0..self.extents * EXTENT_RECORDS).filter_map(|slot| {
            let kind = Kind::of(Commit::unpack(self.cells(slot)[COMMIT].get()).kind)?;
            Some((slot, kind))
        })
    }

    /// The slot of the record with this key, of an [indexed](Kind::indexed) kind.
    #[must_use]
    pub fn find(&self, key: u128) -> Option<u32> {
        self.file.index(self.number).find(key, |slot| {
            self.fixed(slot).is_some_and(|(kind, fixed)| kind.indexed() && key_of(&fixed) == key)
        })
    }

    /// How many records there are, chains not counted.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// How many more records (heads and chain records) the configuration has room for; the disk may have less.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.free.len() as u32 + (self.file.extents_max - self.extents) * EXTENT_RECORDS
    }

    /// Stores since when (Unix milliseconds) changes may be undelivered; 0: none are. One store, safe against a kill at
    /// any instruction; readable by all through [`Fdb::undelivered_since`].
    pub fn set_undelivered_since(&mut self, unix_ms: u64) {
        Word::set(&self.file.header_cells(self.number)[header::UNDELIVERED], unix_ms);
    }

    #[inline]
    fn cells(&self, slot: u32) -> &[AtomicU64; RECORD_WORDS] {
        debug_assert!(slot / EXTENT_RECORDS < self.extents);
        self.file.record_cells(self.number, slot)
    }

    /// The head in `slot`, trusted: this thread wrote it, or recovery checked it.
    fn head(&self, slot: u32) -> Head {
        let in_use = slot / EXTENT_RECORDS < self.extents;
        assert!(in_use, "slot {slot} of partition {} is not in use", self.number);
        let words: HeadWords = copy_header(self.cells(slot));
        let commit = Commit::unpack(words[0]);
        let Some(kind) = Kind::of(commit.kind) else {
            panic!("slot {slot} of partition {} holds no record", self.number)
        };
        let (length, next) = unpair(words[1]);
        let (stamp, payload_crc) = unpair(words[2]);
        let fixed = std::array::from_fn(|i| words[3 + i]);
        Head { kind, chain: commit.count, length, next, stamp, payload_crc, fixed }
    }

    /// Makes sure that `free` has `slots` slots.
    fn reserve(&mut self, slots: usize) -> Result<(), Full> {
        while self.free.len() < slots {
            // Not growing for what cannot be had in the end.
            if (self.available() as usize) < slots {
                return Err(Full::Records);
            }
            self.grow()?;
        }
        Ok(())
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Full> {
        debug_assert!(self.extents < self.file.extents_max);
        grow::extent(&self.file, self.number, self.extents)?;
        let first = self.extents * EXTENT_RECORDS;
        self.extents += 1;
        AtomicU64::release(); // pairs with the acquire fence in `Fdb::extents`
        Word::set(
            &self.file.header_cells(self.number)[header::EXTENTS],
            checked_count(self.extents, u32::from(self.number)),
        );
        // Room for every slot there is, so that freeing allocates nothing.
        self.free.reserve((first + EXTENT_RECORDS) as usize - self.free.len());
        self.free.extend((first..first + EXTENT_RECORDS).rev());
        Ok(())
    }

    /// Writes `chain` chain records from what `gather` still has, and gives the first one's slot.
    fn write_chain(&mut self, owner: u32, stamp: u32, chain: usize, gather: &mut Gather<'_>) -> u32 {
        if chain == 0 {
            return NO_SLOT;
        }
        self.links.clear();
        for _ in 0..chain {
            self.links.push(self.free.pop().expect("reserved by the caller"));
        }
        for (position, &slot) in self.links.iter().enumerate() {
            let mut bytes = [0; CHAIN_BYTES];
            let payload = gather.fill(&mut bytes);
            let link = Link {
                position: position as u16,
                length: payload.len() as u32,
                next: self.links.get(position + 1).copied().unwrap_or(NO_SLOT),
                owner,
                stamp,
            };
            let words = link.pack(self.number, slot, payload);
            let record = self.file.record_cells(self.number, slot);
            write(&record[0], || {
                store(&record[COMMIT + 1..], words[1..].iter().copied());
                store_payload(&record[RECORD_HEADER_WORDS..], payload);
                AtomicU64::release();
                Word::set(&record[COMMIT], words[0]);
            });
        }
        self.links[0]
    }

    /// Writes a head in place, its redo image first. An empty `inline` leaves the payload as it is.
    #[inline]
    fn overwrite(&mut self, slot: u32, sequence: u64, head: &Head, inline: &[u8]) {
        let words = head.pack(self.number, slot);
        redo::arm(self.file.header_cells(self.number), slot, sequence, &words, inline);
        let record = self.cells(slot);
        write(&record[0], || {
            store(&record[COMMIT..], words.iter().copied());
            store_payload(&record[INLINE_START..], inline);
        });
        debug_assert_eq!(record[0].get(), sequence);
    }

    /// Notes the chain of `head` in `links_before`.
    fn collect_chain(&mut self, head: &Head) {
        self.links_before.clear();
        let mut slot = head.next;
        for _ in 0..head.chain {
            self.links_before.push(slot);
            slot = unpair(self.file.record_cells(self.number, slot)[2].get()).1;
        }
    }

    /// Frees the chain in `links_before`, last record first so that it is taken again in order.
    fn free_chain(&mut self) {
        while let Some(slot) = self.links_before.pop() {
            self.free_slot(slot);
        }
    }

    fn free_slot(&mut self, slot: u32) {
        let record = self.cells(slot);
        debug_assert!(!is_free(record[COMMIT].get()), "a slot is freed once");
        write(&record[0], || Word::set(&record[COMMIT], 0));
        self.free.push(slot);
    }

    fn reindex(&mut self, slot: u32, before: &Head, fixed: &[u64; FIXED_WORDS]) {
        if before.kind.indexed() && key_of(&before.fixed) != key_of(fixed) {
            let index = self.file.index(self.number);
            index.insert(key_of(fixed), slot);
            index.remove(key_of(&before.fixed), slot);
        }
    }

    fn store_counts(&self) {
        let cells = self.file.header_cells(self.number);
        let used = self.extents * EXTENT_RECORDS - self.free.len() as u32;
        Word::set(&cells[header::RECORDS], u64::from(self.records));
        Word::set(&cells[header::SLOTS_USED], u64::from(used));
    }
}

fn payload_length(parts: &[&[u8]]) -> Result<usize, Full> {
    let length = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
    if length > PAYLOAD_MAX { Err(Full::TooLong) } else { Ok(length) }
}

#[inline]
fn store(cells: &[AtomicU64], words: impl Iterator<Item = u64>) {
    for (cell, word) in cells.iter().zip(words) {
        Word::set(cell, word);
    }
}

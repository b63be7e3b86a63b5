//! The one writer of a partition.
//!
//! Invariants:
//!   * A slot is free (its commit word is 0) and listed in `free`, or used and not listed.
//!   * A chain is whole before a head names it, and freed only after no head names it.
//!   * An update in place is preceded by its redo image.
//!   * An indexed record is in the index from after its insertion until before its removal.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::buf::{Record, RecordBuf};
use crate::error::{Full, ReadError};
use crate::file::{Fdb, key_of};
use crate::gather::Gather;
use crate::grow;
use crate::kind::{CHAIN, Kind};
use crate::layout::{
    CHAIN_BYTES, EXTENT_RECORDS, FIXED_WORDS, INLINE_BYTES, INLINE_START, PAYLOAD_MAX, RECORD_HEADER_WORDS,
    RECORD_WORDS, chain_records, checked_count, checked_mark, header,
};
use crate::map::{Pen, bytes_from, inline_bytes};
use crate::record::{COMMIT, Commit, Head, Link, NO_SLOT, is_free, stamp_of, store_payload, unpair};
use crate::redo;
use crate::schema::Schema;
use crate::seqlock::{Load, Word, write};

/// The only writer of a partition. [`Fdb::open`] makes all 64; each may be moved to the thread that is to write it.
///
/// Writing allocates nothing, except when the partition grows or when a chain is longer than any before.
#[derive(Debug)]
pub struct Partition {
    file: Arc<Fdb>,
    pen: Pen,
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
    pub(crate) fn new(file: Arc<Fdb>, pen: Pen, free: Vec<u32>, records: u32) -> Self {
        let number = pen.partition();
        let extents = file.extents(number);
        let partition =
            Self { file, pen, number, free, records, extents, links: Vec::new(), links_before: Vec::new() };
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
        let sequence = self.pen.words(slot)[0].wrapping_add(2);
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
        let record = self.pen.cells(slot);
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
        self.collect_chain(slot, &before);
        let sequence = self.pen.words(slot)[0].wrapping_add(2);
        let mut inline = [0; INLINE_BYTES];
        let mut gather = Gather::new(parts);
        let inline = gather.fill(&mut inline);
        if chain == 0 && before.chain == 0 && inline == self.inline(slot, before.length) {
            // The texts are the same, as they are when a phone refreshes what it said: a third of the stores, and no checksum
            // over the payload.
            self.overwrite(slot, sequence, &Head { fixed: *fixed, ..before }, &[]);
            self.reindex(slot, &before, fixed);
            return Ok(());
        }
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
        let sequence = self.pen.words(slot)[0].wrapping_add(2);
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
        self.collect_chain(slot, &before);
        self.free_slot(slot);
        self.free_chain();
        self.records -= 1;
        self.store_counts();
    }

    /// A record in place, for as long as nothing of this partition is written: without a copy, a lock and a checksum. Only
    /// a payload with a chain is put together in `buf`.
    ///
    /// What this process wrote, or recovery checked, is not checked again; lengths and places are, so that whatever the
    /// disk may do to a page, the view stays inside its records. To look at a record's checksum there is [`Fdb::read`].
    ///
    /// # Errors
    /// [`ReadError::Missing`], and [`ReadError::Torn`] where the record's lengths or its chain are impossible.
    #[inline]
    pub fn view<'r>(&'r self, slot: u32, buf: &'r mut RecordBuf) -> Result<Record<'r>, ReadError> {
        let words = self.words(slot).ok_or(ReadError::Missing)?;
        let commit = Commit::unpack(words[COMMIT]);
        let kind = Kind::of(commit.kind).ok_or(ReadError::Missing)?;
        let (length, next) = unpair(words[2]);
        if commit.count > 0 {
            self.gather_chain(slot, length as usize, next, commit.count, buf)?;
        }
        let fixed =
            words[RECORD_HEADER_WORDS..INLINE_START].try_into().expect("there are so many typed words");
        let payload = if commit.count > 0 { buf.payload() } else { &inline_bytes(words)[..] };
        let payload = payload.get(..length as usize).ok_or(ReadError::Torn)?;
        Ok(Record { kind, version: words[0], fixed, payload })
    }

    /// Copies a record into `buf`, for a caller that writes while it still needs it; else [`view`](Self::view) is
    /// cheaper. After `Err`, `buf` holds nothing.
    ///
    /// # Errors
    /// As for [`view`](Self::view).
    pub fn read(&self, slot: u32, buf: &mut RecordBuf) -> Result<(), ReadError> {
        buf.length = 0;
        buf.reserve(0);
        let words = self.words(slot).ok_or(ReadError::Missing)?;
        let commit = Commit::unpack(words[COMMIT]);
        let kind = Kind::of(commit.kind).ok_or(ReadError::Missing)?;
        let (length, next) = unpair(words[2]);
        if commit.count > 0 {
            self.gather_chain(slot, length as usize, next, commit.count, buf)?;
        } else {
            let payload = inline_bytes(words).get(..length as usize).ok_or(ReadError::Torn)?;
            buf.bytes[..payload.len()].copy_from_slice(payload);
            buf.length = payload.len();
        }
        buf.kind = kind;
        buf.version = words[0];
        buf.fixed.copy_from_slice(&words[RECORD_HEADER_WORDS..INLINE_START]);
        Ok(())
    }

    /// Asks the processor to have a record in its cache soon, if there may be one in `slot`: for a caller that will need a
    /// record after the one it works on.
    #[inline]
    pub fn prefetch(&self, slot: u32) {
        self.pen.prefetch(slot);
    }

    /// Kind and fixed words of a record, without its payload: cheap. `None`: `slot` holds no record.
    #[must_use]
    #[inline]
    pub fn fixed(&self, slot: u32) -> Option<(Kind, [u64; FIXED_WORDS])> {
        let words = self.words(slot)?;
        let kind = Kind::of(Commit::unpack(words[COMMIT]).kind)?;
        Some((kind, std::array::from_fn(|i| words[RECORD_HEADER_WORDS + i])))
    }

    /// All records: slot and kind, in the order of their slots. For rebuilding what the caller keeps in memory.
    pub fn heads(&self) -> impl Iterator<Item = (u32, Kind)> {
        (0..self.extents * EXTENT_RECORDS).filter_map(|slot| {
            let kind = Kind::of(Commit::unpack(self.words(slot)?[COMMIT]).kind)?;
            Some((slot, kind))
        })
    }

    /// The slot of the record with this key, of an [indexed](Kind::indexed) kind.
    #[must_use]
    pub fn find(&self, key: u128) -> Option<u32> {
        self.file.index(self.number).find(key, |slot| {
            self.words(slot).is_some_and(|words| {
                Kind::of(Commit::unpack(words[COMMIT]).kind).is_some_and(Kind::indexed)
                    && key_of(&words[RECORD_HEADER_WORDS..]) == key
            })
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
        let word = checked_mark(unix_ms, self.number.into());
        Word::set(&self.file.header_cells(self.number)[header::UNDELIVERED], word);
    }

    /// A slot in place, if its extent is in use.
    #[inline]
    fn words(&self, slot: u32) -> Option<&[u64; RECORD_WORDS]> {
        (slot / EXTENT_RECORDS < self.extents).then(|| self.pen.words(slot))
    }

    /// The first `length` bytes of a slot's inline payload, as far as there are so many.
    #[inline]
    fn inline(&self, slot: u32, length: u32) -> &[u8] {
        let bytes = inline_bytes(self.pen.words(slot));
        &bytes[..(length as usize).min(bytes.len())]
    }

    /// Puts a payload of `length` bytes with `chain` chain records, the first of them in `next`, together in `buf`.
    fn gather_chain(
        &self,
        slot: u32,
        length: usize,
        next: u32,
        chain: u16,
        buf: &mut RecordBuf,
    ) -> Result<(), ReadError> {
        buf.length = 0;
        if length > PAYLOAD_MAX || chain_records(length) != usize::from(chain) {
            return Err(ReadError::Torn);
        }
        let head = self.words(slot).ok_or(ReadError::Missing)?;
        buf.reserve(usize::from(chain));
        let (inline, mut rest) = buf.bytes[..length].split_at_mut(INLINE_BYTES);
        inline.copy_from_slice(inline_bytes(head));
        let mut next = next;
        for position in 0..chain {
            let link =
                Self::own_link(&self.pen, self.extents, next, slot, position).ok_or(ReadError::Torn)?;
            let part;
            (part, rest) = rest.split_at_mut(rest.len().min(CHAIN_BYTES));
            part.copy_from_slice(&bytes_from::<RECORD_HEADER_WORDS, CHAIN_BYTES>(link)[..part.len()]);
            next = unpair(link[2]).1;
        }
        buf.length = length;
        Ok(())
    }

    /// The head in `slot`, trusted: this thread wrote it, or recovery checked it.
    fn head(&self, slot: u32) -> Head {
        let Some(words) = self.words(slot) else {
            panic!("slot {slot} of partition {} is not in use", self.number)
        };
        let commit = Commit::unpack(words[COMMIT]);
        let Some(kind) = Kind::of(commit.kind) else {
            panic!("slot {slot} of partition {} holds no record", self.number)
        };
        let (length, next) = unpair(words[2]);
        let (stamp, payload_crc) = unpair(words[3]);
        let fixed = std::array::from_fn(|i| words[RECORD_HEADER_WORDS + i]);
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
        grow::extent(&self.file, &mut self.pen, self.extents)?;
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
            let record = self.pen.cells(slot);
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
        let record = self.pen.cells(slot);
        write(&record[0], || {
            store(&record[COMMIT..], words.iter().copied());
            store_payload(&record[INLINE_START..], inline);
        });
        debug_assert_eq!(record[0].get(), sequence);
    }

    /// Notes the chain of `head`, which is in `owner`, in `links_before`. What is not its own, on a page that the disk
    /// spoiled, is left for the next recovery.
    fn collect_chain(&mut self, owner: u32, head: &Head) {
        self.links_before.clear();
        let mut slot = head.next;
        for position in 0..head.chain {
            let Some(link) = Self::own_link(&self.pen, self.extents, slot, owner, position) else { return };
            self.links_before.push(slot);
            slot = unpair(link[2]).1;
        }
    }

    /// The chain record in `slot`, if it is the one at `position` of the head in `owner`. The position is what keeps a chain
    /// that the disk spoiled from leading back to itself.
    #[inline]
    fn own_link(
        pen: &Pen,
        extents: u32,
        slot: u32,
        owner: u32,
        position: u16,
    ) -> Option<&[u64; RECORD_WORDS]> {
        let link = (slot / EXTENT_RECORDS < extents).then(|| pen.words(slot))?;
        let commit = Commit::unpack(link[COMMIT]);
        (commit.kind == CHAIN && commit.count == position && unpair(link[3]).0 == owner).then_some(link)
    }

    /// Frees the chain in `links_before`, last record first so that it is taken again in order.
    fn free_chain(&mut self) {
        while let Some(slot) = self.links_before.pop() {
            self.free_slot(slot);
        }
    }

    fn free_slot(&mut self, slot: u32) {
        let record = self.pen.cells(slot);
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

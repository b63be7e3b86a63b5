//! An open file: what all threads share.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buf::RecordBuf;
use crate::error::ReadError;
use crate::index::Index;
use crate::kind::FileKind;
use crate::layout::{
    EXTENT_RECORDS, HEADER_BYTES, HEADER_WORDS, PARTITIONS, RECORD_WORDS, SUPERBLOCK_SALT, checked_count,
    checked_mark, header, header_offset, map_length, mark_of, record_offset, superblock, unchecked_mark,
};
use crate::map::{Map, ReadWord};
use crate::seqlock::{Load, Word};

/// Place of a record in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Partition, below [`PARTITIONS`].
    pub partition: u8,
    /// Slot in the partition; it stays the record's own as long as the record lives.
    pub slot: u32,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.slot)
    }
}

/// An open file, shared by all threads of the process. Reading takes no lock and never makes a writer wait.
pub struct Fdb {
    pub(crate) map: Arc<Map>,
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) kind: FileKind,
    pub(crate) hash_key: [u64; 2],
    /// Most extents of a partition; the mapping has room for them.
    pub(crate) extents_max: u32,
    /// Whether this process is the writer.
    pub(crate) writer: bool,
    /// Identity of this boot of the machine; 0: not known.
    pub(crate) machine_boot: u64,
    pub(crate) indexes: Box<[Index]>,
}

impl Fdb {
    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which of the two files it is.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    /// The secret key of the node's hashes, drawn when the file was created. It decides which partition a record lies
    /// in, so it lives and dies with the records.
    #[must_use]
    pub const fn hash_key(&self) -> [u64; 2] {
        self.hash_key
    }

    /// The index of a partition: key to slot, for the kinds that are [indexed](crate::Kind::indexed). The partition's
    /// writer keeps it. In a process that only reads ([`open_reader`](Self::open_reader)) it is empty.
    ///
    /// # Panics
    /// If `partition` is not below [`PARTITIONS`].
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "`file[n]` would not say what it gives")]
    pub fn index(&self, partition: u8) -> &Index {
        &self.indexes[usize::from(partition)]
    }

    /// Finds by key the record of a partition and copies it. Without a lock; from any thread of the writing process.
    ///
    /// # Errors
    /// [`ReadError::Missing`] if no record has the key; [`ReadError::Busy`] and [`ReadError::Torn`] as for
    /// [`read`](Self::read).
    pub fn read_by_key(&self, partition: u8, key: u128, buf: &mut RecordBuf) -> Result<RecordId, ReadError> {
        let mut last = ReadError::Missing;
        let slot =
            self.index(partition).find(key, |slot| match self.read(RecordId { partition, slot }, buf) {
                Ok(()) => buf.kind().indexed() && key_of(buf.fixed()) == key,
                Err(error) => {
                    if error != ReadError::Missing {
                        last = error;
                    }
                    false
                }
            });
        match slot {
            Some(slot) => Ok(RecordId { partition, slot }),
            None => Err(last),
        }
    }

    /// Unix milliseconds since when changes of the partition's presentities may be undelivered; 0: none are.
    /// Its meaning is the caller's; see [`Partition::set_undelivered_since`](crate::Partition::set_undelivered_since). Where
    /// the disk damaged it, it is 1: since ever.
    #[must_use]
    pub fn undelivered_since(&self, partition: u8) -> u64 {
        mark_of(self.header(partition)[header::UNDELIVERED].get(), partition.into()).unwrap_or(1)
    }

    /// Stores the wall clock (Unix milliseconds); the next open gives it back as
    /// [`Recovery::last_heartbeat_ms`](crate::Recovery::last_heartbeat_ms). Does nothing in a process that only reads.
    pub fn heartbeat(&self, unix_ms: u64) {
        if self.writer {
            let cells = self.map.cells::<{ superblock::WORDS }>(0);
            Word::set(&cells[superblock::HEARTBEAT], checked_mark(unix_ms, SUPERBLOCK_SALT));
            Word::set(&cells[superblock::MACHINE_BOOT], self.machine_boot);
        }
    }

    /// Puts the [`heartbeat`](Self::heartbeat) back to `unix_ms` if it is later, which a clock that was set back makes it: the
    /// file then never says that it was written later than the clock does by which it is written. From any thread, and cheap where
    /// there is nothing to do. Does nothing in a process that only reads.
    #[inline]
    pub fn put_heartbeat_back(&self, unix_ms: u64) {
        let stored = &self.map.words::<{ superblock::WORDS }>(0)[superblock::HEARTBEAT];
        if unchecked_mark(stored.get()) > unix_ms {
            self.replace_heartbeat(unix_ms);
        }
    }

    /// Another thread may store one of the same time meanwhile; either will do. What the opening found missing is not less missing
    /// for this, so the machine's boot stays as it is.
    #[cold]
    fn replace_heartbeat(&self, unix_ms: u64) {
        if self.writer {
            let cell = &self.map.cells::<{ superblock::WORDS }>(0)[superblock::HEARTBEAT];
            // 0 would say that there was none.
            Word::set(cell, checked_mark(unix_ms.max(1), SUPERBLOCK_SALT));
        }
    }

    /// Wall clock of the last [`heartbeat`](Self::heartbeat), Unix milliseconds; 0: there was none, or the disk damaged it.
    #[must_use]
    pub fn last_heartbeat_ms(&self) -> u64 {
        let word = self.map.words::<{ superblock::WORDS }>(0)[superblock::HEARTBEAT].get();
        mark_of(word, SUPERBLOCK_SALT).unwrap_or(0)
    }

    /// Up to where, as the caller counts, names of connections may have been given, below 2^48; 0: none were, or the disk
    /// damaged it.
    #[must_use]
    pub fn names_given(&self) -> u64 {
        let word = self.map.words::<{ superblock::WORDS }>(0)[superblock::NAMES_GIVEN].get();
        mark_of(word, SUPERBLOCK_SALT).unwrap_or(0)
    }

    /// Raises [`Self::names_given`], from any thread. Does nothing in a process that only reads.
    pub fn raise_names_given(&self, to: u64) {
        if self.writer {
            let cell = &self.map.cells::<{ superblock::WORDS }>(0)[superblock::NAMES_GIVEN];
            // Several threads may be at it. Relaxed: the number is meaningful alone.
            let raised = |word| {
                let given = mark_of(word, SUPERBLOCK_SALT).unwrap_or(0);
                (given < to).then(|| checked_mark(to, SUPERBLOCK_SALT))
            };
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised);
        }
    }

    /// Waits until all that was written before the call is on disk: what comes later may be lost by a power cut, but not
    /// by the death of the process. For a background thread; writers and readers go on meanwhile.
    ///
    /// # Errors
    /// What `fdatasync` says: the disk failed or is full. The records are still in memory; what reached the disk is
    /// unknown until a later sync succeeds.
    pub fn sync(&self) -> io::Result<()> {
        if !self.writer {
            return self.file.sync_data();
        }
        let counted: [u32; PARTITIONS] = std::array::from_fn(|partition| self.extents(partition as u8));
        // On Linux this writes back the pages that were dirtied through shared mappings, and the file's length.
        self.map.sync_in_pieces(map_length(counted.into_iter().fold(0, u32::max)))?;
        for (partition, &extents) in counted.iter().enumerate() {
            let cells = self.header_cells(partition as u8);
            Word::set(&cells[header::SYNCED], checked_count(extents, partition as u32));
        }
        Ok(())
    }

    /// Waits until the superblock is on disk as it was before the call, and no more: how often the file was opened, the last
    /// heartbeat, the names of connections. It costs the same however much of the file waits for the disk.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn sync_superblock(&self) -> io::Result<()> {
        self.map.sync(0, HEADER_BYTES)
    }

    /// Syncs the file and marks it as cleanly shut down. To be called when no partition is written any more; what is
    /// written later is safe, too, but the mark then says otherwise. Does nothing in a process that only reads.
    ///
    /// # Errors
    /// As [`sync`](Self::sync); then the mark is not set.
    pub fn close(&self) -> io::Result<()> {
        if !self.writer {
            return Ok(());
        }
        self.sync()?;
        Word::set(&self.map.cells::<{ superblock::WORDS }>(0)[superblock::CLEAN], 1);
        self.file.sync_data()
    }

    /// How full the partitions are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            partitions: std::array::from_fn(|partition| {
                let words = self.header(partition as u8);
                PartitionUsage {
                    records: words[header::RECORDS].get() as u32,
                    slots_used: words[header::SLOTS_USED].get() as u32,
                    slots_reserved: self.extents(partition as u8) * EXTENT_RECORDS,
                    slots_max: self.extents_max * EXTENT_RECORDS,
                }
            }),
        }
    }

    /// Extents of a partition that may be touched.
    #[inline]
    pub(crate) fn extents(&self, partition: u8) -> u32 {
        let word = self.header(partition)[header::EXTENTS].get();
        ReadWord::acquire(); // pairs with the release fence before the count grows
        (word as u32).min(self.extents_max)
    }

    /// A partition's header, to load.
    #[inline]
    pub(crate) fn header(&self, partition: u8) -> &[ReadWord; HEADER_WORDS] {
        assert!(usize::from(partition) < PARTITIONS, "no such partition");
        self.map.words(header_offset(partition))
    }

    /// A partition's header, to load and store.
    #[inline]
    pub(crate) fn header_cells(&self, partition: u8) -> &[AtomicU64; HEADER_WORDS] {
        assert!(usize::from(partition) < PARTITIONS, "no such partition");
        self.map.cells(header_offset(partition))
    }

    /// A record to load, if its extent is in use.
    #[inline]
    pub(crate) fn record(&self, partition: u8, slot: u32) -> Option<&[ReadWord; RECORD_WORDS]> {
        (slot / EXTENT_RECORDS < self.extents(partition))
            .then(|| self.map.words(record_offset(partition, slot)))
    }
}

impl fmt::Debug for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fdb").field("path", &self.path).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// How full a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Each partition.
    pub partitions: [PartitionUsage; PARTITIONS],
}

/// How full a partition is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionUsage {
    /// Head records.
    pub records: u32,
    /// Head and chain records.
    pub slots_used: u32,
    /// Slots that have room on disk.
    pub slots_reserved: u32,
    /// Slots that the configuration allows.
    pub slots_max: u32,
}

impl Usage {
    /// Head records of all partitions.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.partitions.iter().map(|partition| u64::from(partition.records)).sum()
    }

    /// Head and chain records of all partitions.
    #[must_use]
    pub fn slots_used(&self) -> u64 {
        self.partitions.iter().map(|partition| u64::from(partition.slots_used)).sum()
    }

    /// Bytes reserved on disk for records.
    #[must_use]
    pub fn bytes_reserved(&self) -> u64 {
        let slots: u64 = self.partitions.iter().map(|partition| u64::from(partition.slots_reserved)).sum();
        slots * crate::layout::RECORD_BYTES as u64
    }
}

/// The key in the first two fixed words of an indexed record.
pub(crate) fn key_of(fixed: &[u64]) -> u128 {
    u128::from(fixed[0]) | u128::from(fixed[1]) << 64
}

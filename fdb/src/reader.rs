//! Reading a record without a lock, chain included.
//!
//! A reader copies the head, then each chain record that it names, and at last looks whether the head's sequence is
//! still the same. The writer frees a chain only after it turned the head to another, so an unchanged head means that
//! every chain record copied meanwhile was this head's. Anything else is read again, a bounded number of times.

use crate::buf::RecordBuf;
use crate::error::ReadError;
use crate::file::{Fdb, RecordId};
use crate::kind::{CHAIN, FREE};
use crate::layout::{CHAIN_BYTES, INLINE_BYTES, INLINE_START, RECORD_HEADER_WORDS, RECORD_WORDS};
use crate::map::ReadWord;
use crate::record::{COMMIT, Commit, Head, HeadWords, Link, LinkWords, copy_header, copy_payload, unpair};
use crate::seqlock::{Load, read, unchanged};

/// How often a record is read again while its writer disturbs. A write takes about 0.1 µs; a writer that is descheduled
/// in the middle of one is not waited for.
const ATTEMPTS_MAX: u32 = 512;

/// Outcome of one attempt that did not end well.
pub(crate) enum Attempt {
    /// A writer was at it.
    Disturbed,
    /// Trying again does not help.
    Failed(ReadError),
}

impl Fdb {
    /// Copies a record into `buf`. Without a lock, from any thread and from any process that has the file open. After
    /// `Err`, `buf` holds nothing.
    ///
    /// # Errors
    /// [`ReadError::Missing`]: there is no record at `id`. [`ReadError::Busy`]: its writer disturbed every attempt.
    /// [`ReadError::Torn`]: its checksum fails.
    ///
    /// # Panics
    /// If `id.partition` is not below [`PARTITIONS`](crate::PARTITIONS).
    pub fn read(&self, id: RecordId, buf: &mut RecordBuf) -> Result<(), ReadError> {
        buf.length = 0;
        buf.reserve(0);
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(id, buf) {
                Ok(()) => return Ok(()),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Disturbed) => std::hint::spin_loop(),
            }
        }
        Err(ReadError::Busy)
    }

    fn attempt(&self, id: RecordId, buf: &mut RecordBuf) -> Result<(), Attempt> {
        let record = self.record(id.partition, id.slot).ok_or(Attempt::Failed(ReadError::Missing))?;
        let (version, words) = read(&record[0], || -> HeadWords {
            let words: HeadWords = copy_header(record);
            let inline = (unpair(words[1]).0 as usize).min(INLINE_BYTES);
            if Commit::unpack(words[0]).kind != FREE {
                copy_payload(record, INLINE_START, &mut buf.bytes[..inline]);
            }
            words
        })
        .ok_or(Attempt::Disturbed)?;
        if matches!(Commit::unpack(words[0]).kind, FREE | CHAIN) {
            return Err(Attempt::Failed(ReadError::Missing));
        }
        let head = Head::unpack(id.partition, id.slot, &words).ok_or(Attempt::Failed(ReadError::Torn))?;
        if crc32c::crc32c(&buf.bytes[..head.inline()]) != head.payload_crc {
            return Err(Attempt::Failed(ReadError::Torn));
        }
        if head.chain > 0 {
            self.follow(id, &head, record, version, buf)?;
        }
        buf.kind = head.kind;
        buf.version = version;
        buf.fixed = head.fixed;
        buf.length = head.length as usize;
        Ok(())
    }

    /// Copies the chain of `head`, which was read with sequence `version`.
    fn follow(
        &self,
        id: RecordId,
        head: &Head,
        record: &[ReadWord; RECORD_WORDS],
        version: u64,
        buf: &mut RecordBuf,
    ) -> Result<(), Attempt> {
        buf.reserve(usize::from(head.chain));
        let mut slot = head.next;
        for position in 0..head.chain {
            let start = INLINE_BYTES + usize::from(position) * CHAIN_BYTES;
            let link = self.link(id.partition, slot, &mut buf.bytes[start..start + CHAIN_BYTES])?;
            let Some(link) = link.filter(|link| link.continues(head, id.slot, position)) else {
                // Not ours: either the head moved on, or the chain is damaged.
                return Err(if unchanged(&record[0], version) {
                    Attempt::Failed(ReadError::Torn)
                } else {
                    Attempt::Disturbed
                });
            };
            slot = link.next;
        }
        if unchanged(&record[0], version) { Ok(()) } else { Err(Attempt::Disturbed) }
    }

    /// Copies a chain record; `None`: there is no whole one.
    pub(crate) fn link(&self, partition: u8, slot: u32, payload: &mut [u8]) -> Result<Option<Link>, Attempt> {
        let Some(record) = self.record(partition, slot) else { return Ok(None) };
        let (_, words) = read(&record[0], || -> LinkWords {
            let words: LinkWords = copy_header(record);
            let length = (unpair(words[1]).0 as usize).min(CHAIN_BYTES);
            copy_payload(record, RECORD_HEADER_WORDS, &mut payload[..length]);
            words
        })
        .ok_or(Attempt::Disturbed)?;
        Ok(Link::unpack(partition, slot, &words, payload))
    }

    /// The kind code in a slot's commit word, whether the record is whole or not.
    pub(crate) fn kind_code(&self, partition: u8, slot: u32) -> u8 {
        self.record(partition, slot).map_or(FREE, |record| Commit::unpack(record[COMMIT].get()).kind)
    }
}

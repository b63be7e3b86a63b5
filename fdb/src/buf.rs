//! A record, in place or copied.

use crate::kind::Kind;
use crate::layout::{CHAIN_BYTES, FIXED_WORDS, INLINE_BYTES};

/// A record: where it lies in the file ([`Partition::view`](crate::Partition::view)), or a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'r> {
    pub(crate) kind: Kind,
    pub(crate) version: u64,
    pub(crate) fixed: &'r [u64; FIXED_WORDS],
    pub(crate) payload: &'r [u8],
}

impl<'r> Record<'r> {
    /// What the record holds.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The record's sequence number; see [`RecordBuf::version`].
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The fixed words.
    #[must_use]
    pub const fn fixed(&self) -> &'r [u64; FIXED_WORDS] {
        self.fixed
    }

    /// The payload.
    #[must_use]
    pub const fn payload(&self) -> &'r [u8] {
        self.payload
    }
}

impl<'r> From<&'r RecordBuf> for Record<'r> {
    #[inline]
    fn from(buf: &'r RecordBuf) -> Self {
        buf.record()
    }
}

/// A copied record. Reuse it between reads: once it has held the longest record it allocates no more.
///
/// What it says is meaningful after a read into it returned `Ok`.
#[derive(Clone, Debug)]
pub struct RecordBuf {
    pub(crate) kind: Kind,
    pub(crate) version: u64,
    pub(crate) fixed: [u64; FIXED_WORDS],
    /// At least as long as the record's payload; whole records of bytes.
    pub(crate) bytes: Vec<u8>,
    pub(crate) length: usize,
}

impl RecordBuf {
    /// An empty one, with room for a record without a chain.
    #[must_use]
    pub fn new() -> Self {
        let mut buf = Self::default();
        buf.reserve(0);
        buf
    }

    /// The record.
    #[must_use]
    #[inline]
    pub fn record(&self) -> Record<'_> {
        Record { kind: self.kind, version: self.version, fixed: &self.fixed, payload: self.payload() }
    }

    /// What the record holds.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The record's sequence number: it differs between any two contents of one slot, over restarts too.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The fixed words.
    #[must_use]
    pub const fn fixed(&self) -> &[u64; FIXED_WORDS] {
        &self.fixed
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Makes room for a payload with `chain` chain records.
    pub(crate) fn reserve(&mut self, chain: usize) {
        let needed = INLINE_BYTES + chain * CHAIN_BYTES;
        if self.bytes.len() < needed {
            self.bytes.resize(needed, 0);
        }
    }
}

impl Default for RecordBuf {
    /// One without room, which costs nothing: what [`std::mem::take`] leaves behind. The first read gives it room.
    fn default() -> Self {
        Self { kind: Kind::User, version: 0, fixed: [0; FIXED_WORDS], bytes: Vec::new(), length: 0 }
    }
}

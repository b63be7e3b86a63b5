//! Looking into a file from outside, also while a server writes it.

use std::fmt;
use std::path::Path;

use crate::buf::RecordBuf;
use crate::error::{OpenError, ReadError};
use crate::file::{Fdb, RecordId, Usage};
use crate::kind::{CHAIN, FREE, FileKind, Kind};
use crate::layout::{CHAIN_BYTES, EXTENT_RECORDS, PARTITIONS};
use crate::record::{Head, HeadWords, copy_header};
use crate::schema::{AnyRecord, DecodeError};
use crate::seqlock::{Load, read};

/// How often something that looks wrong is looked at again before it is reported: a server may be at it.
const LOOKS_MAX: u32 = 1000;
/// Most problems listed one by one; the counts are complete.
pub const PROBLEMS_MAX: usize = 1000;

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Which of the two files it is.
    pub kind: FileKind,
    /// Records that are whole, by kind, in the order of [`Kind::ALL`].
    pub records: [u64; Kind::ALL.len()],
    /// Chain records that belong to a head.
    pub chain_records: u64,
    /// Head records whose checksum fails.
    pub torn: u64,
    /// Head records that are whole, but whose chain is not.
    pub bad_chains: u64,
    /// Whole records whose payload does not decode.
    pub undecodable: u64,
    /// Records that could not be read because their writer was always at it, or died in the middle of it. The next
    /// open for writing finishes these.
    pub busy: u64,
    /// Chain records that no head names. Harmless: the next open for writing frees them.
    pub orphan_chains: u64,
    /// How full the partitions are.
    pub usage: Usage,
    /// What is wrong, the first [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.torn == 0 && self.bad_chains == 0 && self.undecodable == 0
    }

    /// Records that are whole, of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.records.iter().sum()
    }
}

/// Something wrong with one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub id: RecordId,
    /// What.
    pub what: ProblemKind,
}

/// What is wrong with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The checksum of the record fails.
    Torn,
    /// The head is whole, its chain is not.
    BadChain,
    /// The record is whole, its payload means nothing.
    Undecodable(DecodeError),
    /// The record was being written at every look.
    Busy,
    /// No head names this chain record.
    OrphanChain,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} slot {}: ", self.id.partition, self.id.slot)?;
        match self.what {
            ProblemKind::Torn => f.write_str("the record's checksum fails"),
            ProblemKind::BadChain => f.write_str("the record is whole, its continuation is not"),
            ProblemKind::Undecodable(error) => write!(f, "the record does not decode: {error}"),
            ProblemKind::Busy => f.write_str("the record is being written, or its writer died"),
            ProblemKind::OrphanChain => f.write_str("a continuation that no record names"),
        }
    }
}

/// Reads every record of a file and checks it. Works while a server writes the file; it is not disturbed.
///
/// # Errors
/// [`OpenError`]: the file is not one that could be opened.
pub fn verify(path: &Path) -> Result<VerifyReport, OpenError> {
    let file = Fdb::open_reader(path)?;
    let mut report = VerifyReport {
        kind: file.kind(),
        records: [0; Kind::ALL.len()],
        chain_records: 0,
        torn: 0,
        bad_chains: 0,
        undecodable: 0,
        busy: 0,
        orphan_chains: 0,
        usage: file.usage(),
        problems: Vec::new(),
    };
    let mut buf = RecordBuf::new();
    for partition in 0..PARTITIONS as u8 {
        for slot in 0..file.extents(partition) * EXTENT_RECORDS {
            report.look(&file, RecordId { partition, slot }, &mut buf);
        }
    }
    Ok(report)
}

/// Calls `each` with every record, unpacked, in the order of partitions and slots. Records that come or go meanwhile may
/// be seen or not; a record that is damaged, or is being written at every look, is passed over.
pub fn for_each_record(file: &Fdb, mut each: impl FnMut(RecordId, AnyRecord<'_>)) {
    let mut buf = RecordBuf::new();
    for partition in 0..PARTITIONS as u8 {
        for slot in 0..file.extents(partition) * EXTENT_RECORDS {
            let id = RecordId { partition, slot };
            if file.kind_code(partition, slot) != FREE
                && read_patiently(file, id, &mut buf).is_ok()
                && let Ok(record) = AnyRecord::decode(&buf)
            {
                each(id, record);
            }
        }
    }
}

impl VerifyReport {
    fn look(&mut self, file: &Fdb, id: RecordId, buf: &mut RecordBuf) {
        match file.kind_code(id.partition, id.slot) {
            FREE => {}
            CHAIN => match chain_state(file, id) {
                ChainState::Gone => {}
                ChainState::Owned => self.chain_records += 1,
                ChainState::Torn => {
                    self.torn += 1;
                    self.problem(id, ProblemKind::Torn);
                }
                ChainState::Orphan => {
                    self.orphan_chains += 1;
                    self.problem(id, ProblemKind::OrphanChain);
                }
            },
            _ => match read_patiently(file, id, buf) {
                Ok(()) => {
                    let kind = buf.kind();
                    self.records[usize::from(kind.code() - Kind::ALL[0].code())] += 1;
                    if let Err(error) = AnyRecord::decode(buf.record()) {
                        self.undecodable += 1;
                        self.problem(id, ProblemKind::Undecodable(error));
                    }
                }
                Err(ReadError::Missing) => {}
                Err(ReadError::Busy) => {
                    self.busy += 1;
                    self.problem(id, ProblemKind::Busy);
                }
                Err(ReadError::Torn) => {
                    if head_of(file, id).is_some_and(|head| head.chain > 0) {
                        self.bad_chains += 1;
                        self.problem(id, ProblemKind::BadChain);
                    } else {
                        self.torn += 1;
                        self.problem(id, ProblemKind::Torn);
                    }
                }
            },
        }
    }

    fn problem(&mut self, id: RecordId, what: ProblemKind) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { id, what });
        }
    }
}

enum ChainState {
    /// It was freed or reused while we looked.
    Gone,
    Owned,
    /// It is not whole.
    Torn,
    Orphan,
}

/// Whether some head names this chain record. A writer makes a chain before its head and frees it after, so what looks
/// like an orphan is looked at again.
fn chain_state(file: &Fdb, id: RecordId) -> ChainState {
    let mut payload = [0; CHAIN_BYTES];
    let sequence = |id: RecordId| file.record(id.partition, id.slot).map(|record| record[0].get());
    let before = sequence(id);
    let mut is_whole = false;
    for _ in 0..LOOKS_MAX {
        if sequence(id) != before {
            return ChainState::Gone;
        }
        let link = file.link(id.partition, id.slot, &mut payload).ok().flatten();
        is_whole = link.is_some();
        if let Some(link) = link
            && let Some(head) = head_of(file, RecordId { slot: link.owner, ..id })
            && head.stamp == link.stamp
            && link.continues(&head, link.owner, link.position)
        {
            return ChainState::Owned;
        }
        std::thread::yield_now();
    }
    if sequence(id) != before {
        ChainState::Gone
    } else if is_whole {
        ChainState::Orphan
    } else {
        ChainState::Torn
    }
}

/// The head at `id`, if it is whole and nobody writes it just now.
fn head_of(file: &Fdb, id: RecordId) -> Option<Head> {
    let record = file.record(id.partition, id.slot)?;
    let (_, words) = read(&record[0], || -> HeadWords { copy_header(record) })?;
    Head::unpack(id.partition, id.slot, &words)
}

/// Reads a record; a busy one many times.
fn read_patiently(file: &Fdb, id: RecordId, buf: &mut RecordBuf) -> Result<(), ReadError> {
    for _ in 0..LOOKS_MAX {
        match file.read(id, buf) {
            Err(ReadError::Busy) => std::thread::yield_now(),
            outcome => return outcome,
        }
    }
    Err(ReadError::Busy)
}

//! What can go wrong, each with its evidence.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::kind::FileKind;
use crate::layout::RECORDS_MAX_LIMIT;

/// Why a file was not opened. No record of it was changed.
#[derive(Debug)]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: OpenFault,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenFault {
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The refusal.
        source: io::Error,
    },
    /// Another process writes the file.
    Locked,
    /// The file does not begin like one of ours.
    NotFdb {
        /// Its first eight bytes.
        found: [u8; 8],
    },
    /// The file was written by another version of the format.
    Version {
        /// Version in the file.
        found: u32,
        /// Version of this program.
        expected: u32,
    },
    /// The file is of the other kind.
    Kind {
        /// Kind in the file; `None`: a kind unknown to this version.
        found: Option<FileKind>,
        /// Kind that was asked for.
        expected: FileKind,
    },
    /// A size in the superblock is not the one of this format version.
    Geometry {
        /// Which.
        what: &'static str,
        /// Its value in the file.
        found: u64,
        /// Its value in this format version (or the largest legal one).
        expected: u64,
    },
    /// The superblock's words and its checksum do not agree.
    SuperblockChecksum,
    /// The extent count of a partition and its checksum do not agree.
    PartitionChecksum {
        /// The partition.
        partition: u8,
    },
    /// The file is shorter than the extents that its headers count.
    Truncated {
        /// Bytes the file has.
        found: u64,
        /// Bytes it should have at least.
        expected: u64,
    },
    /// The file belongs to another set of files: its hash key is not the one of
    /// [`OpenOptions::hash_key`](crate::OpenOptions::hash_key).
    HashKey,
    /// [`OpenOptions::records_max`](crate::OpenOptions::records_max) is 0 or beyond [`RECORDS_MAX_LIMIT`].
    RecordsMax {
        /// The value given.
        found: u32,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            OpenFault::Io { doing, source } => write!(
                f,
                "{path}: {doing} failed: {source}; check the path, its permissions and the free space of its disk"
            ),
            OpenFault::Locked => write!(
                f,
                "{path}: another process has the file open for writing; stop the other server, or give this one another \
                 data directory"
            ),
            OpenFault::NotFdb { found } => write!(
                f,
                "{path}: expected a file that begins with \"COMSIPLF\", found \"{}\"; this is no fdb file: move it away \
                 (a new one is made) or restore it from a backup",
                found.escape_ascii()
            ),
            OpenFault::Version { found, expected } => write!(
                f,
                "{path}: expected format version {expected}, found {found}; {} program wrote the file: start that one again \
                 (`comsipl --version` tells which one is which), or begin with an empty file after \
                 `mv {path} {path}.format-{found}`",
                if found > expected { "a newer" } else { "an older" }
            ),
            OpenFault::Kind { found: Some(found), expected } => write!(
                f,
                "{path}: expected a {expected} file, found a {found} file; the two files seem to be swapped: put each \
                 back under its own name"
            ),
            OpenFault::Kind { found: None, expected } => write!(
                f,
                "{path}: expected a {expected} file, found an unknown kind; restore the file from a backup, or move it \
                 away to begin with an empty one"
            ),
            OpenFault::Geometry { what, found, expected } => write!(
                f,
                "{path}: {what}: expected {expected}, found {found}; the superblock is damaged: restore the file from a \
                 backup, or move it away to begin with an empty one"
            ),
            OpenFault::SuperblockChecksum => write!(
                f,
                "{path}: expected a superblock with a matching checksum, found another; the superblock is damaged: \
                 restore the file from a backup, or move it away to begin with an empty one"
            ),
            OpenFault::PartitionChecksum { partition } => write!(
                f,
                "{path}: header of partition {partition}: expected an extent count with a matching checksum, found \
                 another; the header is damaged: restore the file from a backup, or move it away to begin with an empty \
                 one"
            ),
            OpenFault::Truncated { found, expected } => write!(
                f,
                "{path}: expected at least {expected} bytes, found {found}: the file was cut short; restore it from a \
                 backup, or move it away to begin with an empty one"
            ),
            OpenFault::HashKey => write!(
                f,
                "{path}: expected the hash key of the other file in this directory, found another; the two files come from \
                 different servers: put the one back that belongs here, or move this one away to begin with an empty one"
            ),
            OpenFault::RecordsMax { found } => write!(
                f,
                "{path}: expected at most {RECORDS_MAX_LIMIT} and at least 1 records per partition, found {found}; \
                 correct the configuration"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            OpenFault::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// There is no record at this place (any more).
    Missing,
    /// A writer was at it in every try. Ask again later: the record is whole before and after.
    Busy,
    /// The record is damaged: its checksum fails though nobody writes it.
    Torn,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no such record",
            Self::Busy => "the record is being written",
            Self::Torn => "the record is damaged",
        })
    }
}

impl std::error::Error for ReadError {}

/// Why a record could not be stored. The file is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The partition has the most records it may have.
    Records,
    /// The disk gave no room for another extent.
    Disk(
        /// `errno`: `ENOSPC`, `EDQUOT`, `EFBIG`, or what else kept the file from growing.
        i32,
    ),
    /// The payload is longer than [`PAYLOAD_MAX`](crate::PAYLOAD_MAX), or one text longer than 65,535 bytes.
    TooLong,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records => f.write_str("the partition has the most records it may have"),
            Self::Disk(errno) => {
                write!(f, "the file cannot grow: {}", io::Error::from_raw_os_error(*errno))
            }
            Self::TooLong => f.write_str("the record is too long"),
        }
    }
}

impl std::error::Error for Full {}

//! Memory-mapped files of fixed-size records: one writing thread per partition, any number of readers without locks.
//!
//! `FORMAT.md` beside this crate draws every byte and argues every instant at which a writer can be interrupted. What
//! a caller has to know:
//!
//! * A file has 64 partitions. [`Fdb::open`] gives the 64 [`Partition`]s, which may be moved to different threads; each
//!   is the only one that can write its part. Everyone reads through [`Fdb`].
//! * A record is 12 typed words and a payload of up to half a MiB. What they mean is in [`schema`].
//! * What was written survives the death of the process at any instruction, and a power cut once [`Fdb::sync`] came
//!   after it.
//! * A full disk is an error value.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use comsipl_fdb::{Fdb, FileKind, Kind, OpenOptions, RecordBuf, RecordId};
//!
//! let path = folder.path().join(FileKind::Presence.file_name());
//! let mut opened = Fdb::open(&path, FileKind::Presence, &OpenOptions { records_max: 1024, threads: 1, hash_key: None })?;
//! let partition = &mut opened.partitions[7];
//! let slot = partition.insert(Kind::Publication, &[1; 12], b"<presence/>")?;
//!
//! let mut buf = RecordBuf::new();
//! opened.file.read(RecordId { partition: 7, slot }, &mut buf)?;
//! assert_eq!((buf.kind(), buf.payload()), (Kind::Publication, &b"<presence/>"[..]));
//! opened.file.close()?;
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod buf;
#[cfg(test)]
mod crash_tests;
mod error;
mod file;
mod forgotten;
mod gather;
mod grow;
mod index;
pub mod inspect;
#[cfg(test)]
mod kill;
mod kind;
mod layout;
mod map;
mod open;
mod partition;
mod reader;
mod record;
mod recover;
mod redo;
pub mod schema;
mod seqlock;
mod superblock;

pub use buf::{Record, RecordBuf};
pub use error::{Full, OpenError, OpenFault, ReadError};
pub use file::{Fdb, PartitionUsage, RecordId, Usage};
pub use index::Index;
pub use kind::{FileKind, Kind};
pub use layout::{
    CHAIN_BYTES, FIXED_WORDS, INLINE_BYTES, PARTITIONS, PAYLOAD_MAX, RECORD_BYTES, RECORDS_MAX_LIMIT,
};
pub use open::{OpenOptions, Opened, Recovery};
pub use partition::Partition;

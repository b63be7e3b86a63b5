//! A record file with something in it, for the benches of `fdb`.

use std::sync::Arc;

use comsipl_fdb::{Fdb, FileKind, Kind, OpenOptions, Partition};
use tempfile::TempDir;

/// One partition of a new file, filled, with its only writer.
pub struct RecordFile {
    /// The file, for readers.
    pub file: Arc<Fdb>,
    /// The writer.
    pub partition: Partition,
    /// Its number.
    pub number: u8,
    /// The records that are there.
    pub slots: Vec<u32>,
    _dir: TempDir,
}

impl RecordFile {
    /// A file with 2,000 records of `len` bytes.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn filled(len: usize) -> Self {
        let dir =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for files");
        let options = OpenOptions { records_max: 1 << 14, threads: 1, hash_key: None };
        let path = dir.path().join(FileKind::Presence.file_name());
        let mut opened = Fdb::open(&path, FileKind::Presence, &options).expect("a new file");
        let number = 5;
        let mut partition = opened.partitions.swap_remove(usize::from(number));
        let payload = vec![b'x'; len];
        let slots = (0..2000).map(|_| partition.insert(Kind::Publication, &[0; 12], &payload).expect("room"));
        let slots = slots.collect();
        Self { file: opened.file, partition, number, slots, _dir: dir }
    }
}

/// Payloads: a Linphone's dialog (one record), and a document of two devices (with a chain).
pub const PAYLOADS: [(&str, usize); 2] = [("dialog 300 B", 300), ("document 1200 B", 1200)];

//! A file is damaged and opened (`fdb/FORMAT.md`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use comsipl_fdb::{Fdb, FileKind, INLINE_BYTES, Kind, OpenOptions, RecordBuf, RecordId, inspect};
use tempfile::TempDir;

/// Checks the changes that the bytes describe: five bytes each, a place and what is laid over the byte there.
pub fn hold(bytes: &[u8]) {
    thread_local!(static SAMPLE: Sample = Sample::new());
    SAMPLE.with(|sample| sample.check(bytes));
}

const OPTIONS: OpenOptions = OpenOptions { records_max: 512, threads: 1, hash_key: Some([3, 4]) };

/// Records that a partition has at first.
const RECORDS: u32 = 12;

/// Words of a record that its owner writes without the payload, and the payload.
type Written = (u8, [u64; 12], Vec<u8>);

/// A valid file, and where it is tried.
struct Sample {
    /// The file up to its last byte that is not zero.
    image: Vec<u8>,
    len: u64,
    /// All that was ever written into it.
    written: BTreeSet<Written>,
    path: PathBuf,
    _dir: TempDir,
}

impl Sample {
    fn new() -> Self {
        let dir = if Path::new("/dev/shm").is_dir() { TempDir::new_in("/dev/shm") } else { TempDir::new() };
        let dir = dir.expect("a place for files");
        let path = dir.path().join("presence_w.fdb");
        let mut written = BTreeSet::new();
        let mut opened = Fdb::open(&path, FileKind::Presence, &OPTIONS).expect("a new file");
        for number in [0_usize, 5] {
            let partition = &mut opened.partitions[number];
            let mut slots = Vec::new();
            for record in 0..RECORDS {
                // From none to four chain records.
                let payload = vec![record as u8 + 1; 7 + record as usize % 5 * INLINE_BYTES];
                let fixed = [u64::from(record) << 8 | number as u64; 12];
                slots.push(partition.insert(Kind::Publication, &fixed, &payload).expect("room"));
                written.insert((Kind::Publication as u8, fixed, payload));
            }
            // Freed and changed ones, whose old bytes still lie there.
            partition.remove(slots[3]);
            let (fixed, payload) = ([77; 12], vec![99; 2 * INLINE_BYTES]);
            partition.update(slots[4], &fixed, &payload).expect("room");
            written.insert((Kind::Publication as u8, fixed, payload));
        }
        opened.file.heartbeat(1_700_000_000_000);
        drop(opened);
        let mut image = fs::read(&path).expect("the file");
        let len = image.len() as u64;
        let used = image.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        image.truncate(used);
        Self { image, len, written, path, _dir: dir }
    }

    fn check(&self, bytes: &[u8]) {
        self.damage(bytes);
        // A third of the inputs are looked at by a reader only, as another process would.
        if bytes.len().is_multiple_of(3) {
            if let Ok(file) = Fdb::open_reader(&self.path) {
                self.served(&file);
                inspect::verify(&self.path).expect("it opened before");
            }
            return;
        }
        if let Ok(opened) = Fdb::open(&self.path, FileKind::Presence, &OPTIONS) {
            let records = self.served(&opened.file);
            opened.file.close().expect("synced");
            drop(opened);
            // What recovery has mended stays mended, and what it let pass is served again.
            let again = Fdb::open(&self.path, FileKind::Presence, &OPTIONS).expect("it opened before");
            assert!(again.recovery.clean);
            assert_eq!(
                (again.recovery.torn_dropped, again.recovery.redone, again.recovery.orphans_freed),
                (0, 0, 0)
            );
            assert_eq!(self.served(&again.file), records);
        }
    }

    /// Lays the changes over a fresh copy of the file.
    fn damage(&self, changes: &[u8]) {
        let mut image = self.image.clone();
        for change in changes.chunks_exact(5) {
            let place = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize;
            let at = place % image.len();
            image[at] ^= change[4];
        }
        let file = fs::OpenOptions::new().create(true).truncate(true).write(true).open(&self.path);
        let file = file.expect("the file");
        file.write_all_at(&image, 0).expect("room");
        file.set_len(self.len).expect("room");
    }

    /// All records that are served, each of which somebody has written.
    fn served(&self, file: &Fdb) -> usize {
        let mut buf = RecordBuf::new();
        let mut served = 0;
        for partition in [0, 5] {
            for slot in 0..OPTIONS.records_max {
                if file.read(RecordId { partition, slot }, &mut buf).is_ok() {
                    let found = (buf.kind() as u8, *buf.fixed(), buf.payload().to_vec());
                    assert!(self.written.contains(&found), "{partition}/{slot}: nobody wrote {found:?}");
                    served += 1;
                }
            }
        }
        served
    }
}

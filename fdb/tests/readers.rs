//! Readers in other threads, and with a mapping of their own, while a writer changes what they read.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use comsipl_fdb::{
    CHAIN_BYTES, Fdb, FileKind, INLINE_BYTES, Kind, OpenOptions, ReadError, RecordBuf, RecordId, inspect,
};

const RECORDS: u64 = 8;
const ROUNDS: u64 = 400_000;

/// Every word and byte of a record follows from its number and its version.
fn fixed(record: u64, version: u64) -> [u64; 12] {
    let mut fixed = [version; 12];
    fixed[0] = record;
    fixed[1] = 0;
    fixed
}

fn payload(version: u64, bytes: &mut Vec<u8>) {
    // From no chain to five records of it.
    let length = (version * 211 % (INLINE_BYTES + 5 * CHAIN_BYTES) as u64) as usize;
    bytes.clear();
    bytes.resize(length, version as u8);
}

fn check(buf: &RecordBuf, record: u64, seen: &mut u64, scratch: &mut Vec<u8>) {
    let version = buf.fixed()[2];
    assert_eq!(*buf.fixed(), fixed(record, version));
    payload(version, scratch);
    assert!(buf.payload() == &scratch[..], "record {record} version {version}: a mixture");
    assert!(version >= *seen, "record {record}: version {version} after {seen}");
    *seen = version;
}

#[test]
fn no_reader_ever_gets_a_mixture() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let options = OpenOptions { records_max: 1024, threads: 1, hash_key: None };
    let mut opened = Fdb::open(&path, FileKind::Presence, &options).expect("created");
    let mut writer = opened.partitions.swap_remove(0);
    let mut bytes = Vec::new();
    for record in 0..RECORDS {
        payload(0, &mut bytes);
        writer.insert(Kind::Presentity, &fixed(record, 0), &bytes).expect("room");
    }
    let done = AtomicBool::new(false);
    let (reads, busy) = (AtomicU64::new(0), AtomicU64::new(0));
    let file = &*opened.file;
    std::thread::scope(|scope| {
        let (done, reads, busy, path) = (&done, &reads, &busy, &path);
        // By slot, in this process; and through a read-only mapping, as another process has it.
        for reader in 0..2 {
            scope.spawn(move || {
                let other = (reader == 1).then(|| Fdb::open_reader(path).expect("opens"));
                let file = other.as_deref().unwrap_or(file);
                let (mut buf, mut scratch, mut seen) = (RecordBuf::new(), Vec::new(), [0; RECORDS as usize]);
                while !done.load(Ordering::Relaxed) {
                    for record in 0..RECORDS {
                        let id = RecordId { partition: 0, slot: slot_of(record) };
                        match file.read(id, &mut buf) {
                            Ok(()) => {
                                check(&buf, record, &mut seen[record as usize], &mut scratch);
                                reads.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(ReadError::Busy) => {
                                busy.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => panic!("record {record}: {error}"),
                        }
                    }
                }
            });
        }
        // By key, while records of other keys come and go.
        scope.spawn(move || {
            let (mut buf, mut scratch, mut seen) = (RecordBuf::new(), Vec::new(), [0; RECORDS as usize]);
            while !done.load(Ordering::Relaxed) {
                for record in 0..RECORDS {
                    match file.read_by_key(0, record.into(), &mut buf) {
                        Ok(_) => check(&buf, record, &mut seen[record as usize], &mut scratch),
                        Err(ReadError::Busy) => {
                            busy.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => panic!("key {record}: {error}"),
                    }
                }
            }
        });
        for round in 1..=ROUNDS {
            let record = round % RECORDS;
            payload(round, &mut bytes);
            writer.update(slot_of(record), &fixed(record, round), &bytes).expect("room");
            let guest = writer.insert(Kind::Presentity, &fixed(1_000_000 + round, 0), b"").expect("room");
            writer.remove(guest);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    drop(writer);
    let report = inspect::verify(&path).expect("opens");
    assert_eq!((report.torn, report.bad_chains, report.busy, report.orphan_chains), (0, 0, 0, 0));
    assert_eq!(report.total(), RECORDS);
}

const CHILD: &str = "COMSIPL_FDB_READER";

/// The same from a process of its own, which shares nothing with the writer but the file.
#[test]
fn no_other_process_ever_gets_a_mixture() {
    if let Some(path) = std::env::var_os(CHILD) {
        return read_elsewhere(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let options = OpenOptions { records_max: 1024, threads: 1, hash_key: None };
    let mut opened = Fdb::open(&path, FileKind::Presence, &options).expect("created");
    let writer = &mut opened.partitions[0];
    let mut bytes = Vec::new();
    for record in 0..RECORDS {
        payload(0, &mut bytes);
        writer.insert(Kind::Presentity, &fixed(record, 0), &bytes).expect("room");
    }
    let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
        .args(["--exact", "no_other_process_ever_gets_a_mixture", "--nocapture"])
        .env(CHILD, &path)
        .spawn()
        .expect("started");
    let mut round = 0;
    let status = loop {
        for _ in 0..1_000 {
            round += 1;
            payload(round, &mut bytes);
            let record = round % RECORDS;
            writer.update(slot_of(record), &fixed(record, round), &bytes).expect("room");
        }
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
    };
    assert!(status.success(), "{status}");
}

/// Reads until every record has been seen in many versions.
fn read_elsewhere(path: &Path) {
    let file = Fdb::open_reader(path).expect("opens");
    let (mut buf, mut scratch, mut seen) = (RecordBuf::new(), Vec::new(), [0; RECORDS as usize]);
    let mut versions = [0; RECORDS as usize];
    while versions.iter().any(|&count| count < 1_000) {
        for record in 0..RECORDS {
            let before = seen[record as usize];
            match file.read(RecordId { partition: 0, slot: slot_of(record) }, &mut buf) {
                Ok(()) => check(&buf, record, &mut seen[record as usize], &mut scratch),
                Err(ReadError::Busy) => {}
                Err(error) => panic!("record {record}: {error}"),
            }
            versions[record as usize] += u64::from(seen[record as usize] > before);
        }
    }
}

/// Inserted one after the other into an empty partition: a head without a chain each.
fn slot_of(record: u64) -> u32 {
    record as u32
}

#[test]
fn a_file_can_be_verified_while_it_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let options = OpenOptions { records_max: 4096, threads: 1, hash_key: None };
    let mut opened = Fdb::open(&path, FileKind::Presence, &options).expect("created");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let partition = &mut opened.partitions[9];
        let done = &done;
        scope.spawn(move || {
            let mut bytes = Vec::new();
            let mut slots = Vec::new();
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                payload(round, &mut bytes);
                if slots.len() < 100 {
                    slots.push(partition.insert(Kind::Publication, &fixed(round, 1), &bytes).expect("room"));
                } else {
                    let at = (round * 7 % 100) as usize;
                    partition.update(slots[at], &fixed(round, 1), &bytes).expect("room");
                    partition.remove(slots.swap_remove((round * 13 % 100) as usize));
                }
            }
        });
        for _ in 0..30 {
            let report = inspect::verify(&path).expect("opens");
            assert_eq!((report.torn, report.bad_chains), (0, 0), "{:?}", report.problems);
        }
        done.store(true, Ordering::Relaxed);
    });
}

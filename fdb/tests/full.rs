//! A full table and a full disk are errors that leave everything as it was.

use std::path::Path;
use std::process::Command;

use comsipl_fdb::{
    CHAIN_BYTES, Fdb, FileKind, Full, INLINE_BYTES, Kind, OpenOptions, PAYLOAD_MAX, RecordBuf,
};
use rustix::process::{Resource, Rlimit, setrlimit};

const OPTIONS: OpenOptions = OpenOptions { records_max: 512, threads: 1, hash_key: None };

#[test]
fn a_full_table_refuses_and_goes_on_after_a_removal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut opened =
        Fdb::open(&folder.path().join("full.fdb"), FileKind::Presence, &OPTIONS).expect("created");
    let partition = &mut opened.partitions[3];
    assert_eq!(partition.available(), 512);
    for record in 0..511u64 {
        partition.insert(Kind::Subscription, &[record; 12], b"text").expect("room");
    }
    assert_eq!(partition.available(), 1);
    // Two slots are wanted, one is left: nothing is taken.
    let chained = [7; INLINE_BYTES + 1];
    assert_eq!(partition.insert(Kind::Subscription, &[0; 12], &chained), Err(Full::Records));
    assert_eq!((partition.available(), partition.records()), (1, 511));
    partition.update(4, &[99; 12], &chained).expect("one slot is left");
    assert_eq!(partition.available(), 0);
    // The new chain must be there before the old one goes.
    assert_eq!(partition.update(4, &[100; 12], &chained), Err(Full::Records));
    assert_eq!(partition.insert(Kind::Subscription, &[0; 12], b""), Err(Full::Records));
    let mut buf = RecordBuf::new();
    partition.read(4, &mut buf).expect("as it was");
    assert_eq!((buf.fixed(), buf.payload()), (&[99; 12], &chained[..]));
    partition.update_fixed(4, &[101; 12]);
    partition.remove(4);
    assert_eq!(partition.available(), 2);
    assert!(partition.insert(Kind::Subscription, &[1; 12], &chained).is_ok());
    // The others have their own room.
    assert!(opened.partitions[4].insert(Kind::Subscription, &[0; 12], b"").is_ok());
}

#[test]
fn the_longest_payload_fits_and_one_byte_more_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = OpenOptions { records_max: 2048, threads: 1, hash_key: None };
    let mut opened =
        Fdb::open(&folder.path().join("long.fdb"), FileKind::Presence, &options).expect("created");
    let partition = &mut opened.partitions[0];
    let longest: Vec<u8> = (0..PAYLOAD_MAX).map(|i| (i / CHAIN_BYTES) as u8).collect();
    let too_long = vec![0; PAYLOAD_MAX + 1];
    assert_eq!(partition.insert(Kind::Presentity, &[1; 12], &too_long), Err(Full::TooLong));
    let slot = partition.insert(Kind::Presentity, &[1; 12], &longest).expect("room");
    assert_eq!(partition.update(slot, &[1; 12], &too_long), Err(Full::TooLong));
    let mut buf = RecordBuf::new();
    partition.read(slot, &mut buf).expect("whole");
    assert!(buf.payload() == longest);
}

#[test]
fn a_smaller_configuration_takes_nothing_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("shrunk.fdb");
    let large = OpenOptions { records_max: 2048, threads: 1, hash_key: None };
    let mut opened = Fdb::open(&path, FileKind::Presence, &large).expect("created");
    for record in 0..1000u64 {
        opened.partitions[0].insert(Kind::Subscription, &[record; 12], b"").expect("room");
    }
    drop(opened);
    let mut opened = Fdb::open(&path, FileKind::Presence, &OPTIONS).expect("opens");
    assert_eq!(opened.recovery.records, 1000);
    assert_eq!(opened.partitions[0].available(), 24);
    let last = (0..25u64).map(|_| opened.partitions[0].insert(Kind::Subscription, &[0; 12], b"")).last();
    assert_eq!(last, Some(Err(Full::Records)));
}

const CHILD: &str = "COMSIPL_FDB_FULL_DISK";

/// The disk is emulated by a limit on the length of files, in a process of its own because a limit holds for a whole
/// process: `fallocate` then fails with EFBIG.
#[test]
fn a_full_disk_is_an_error_value() {
    if let Some(path) = std::env::var_os(CHILD) {
        return fill_the_disk(Path::new(&path));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let this = std::env::current_exe().expect("a test has a program");
    // The shell makes the process ignore the signal that comes with the error.
    let status = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(this)
        .args(["--exact", "a_full_disk_is_an_error_value", "--nocapture"])
        .env(CHILD, folder.path().join("disk.fdb"))
        .status()
        .expect("a shell");
    assert!(status.success(), "the process that met the full disk: {status}");
}

fn fill_the_disk(path: &Path) {
    const EFBIG: i32 = 27;
    let options = OpenOptions { records_max: 4096, threads: 1, hash_key: None };
    let mut opened = Fdb::open(path, FileKind::Presence, &options).expect("created");
    // Room for the first extent of partition 0 and of partition 1, not for that of partition 2.
    let limit = 512 * 1024 + 2 * 256 * 1024;
    setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: Some(limit) }).expect("lowered");
    let [first, second, third, ..] = &mut opened.partitions[..] else { panic!("64 partitions") };
    let mut stored = 0u64;
    let error = loop {
        match first.insert(Kind::Subscription, &[stored; 12], b"text") {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((stored, error), (512, Full::Disk(EFBIG)));
    assert_eq!(third.insert(Kind::Subscription, &[0; 12], b""), Err(Full::Disk(EFBIG)));
    assert!(second.insert(Kind::Subscription, &[0; 12], b"").is_ok());
    // What is there can be changed, removed and added again.
    first.update(7, &[7000; 12], b"other").expect("in place");
    first.remove(8);
    assert_eq!(first.insert(Kind::Subscription, &[8000; 12], b"again"), Ok(8));
    assert!(!error.to_string().is_empty());
    drop(opened);
    let opened = Fdb::open(path, FileKind::Presence, &options).expect("opens");
    assert_eq!((opened.recovery.records, opened.recovery.torn_dropped), (513, 0));
}

//! What opening says of how the file was left: closed in order, by a process that died, or by a machine that went down.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use comsipl_fdb::{Fdb, FileKind, Kind, OpenOptions, Opened};

const OPTIONS: OpenOptions = OpenOptions { records_max: 1024, threads: 1, hash_key: None };
/// Word 20 of the superblock (`FORMAT.md`).
const MACHINE_BOOT: u64 = 20 * 8;

fn open(path: &Path) -> Opened {
    Fdb::open(path, FileKind::Presence, &OPTIONS).expect("opens")
}

/// As if what the file says of the machine had been written before its last boot.
fn boot_the_machine(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("there");
    let mut boot = [0; 8];
    file.read_exact_at(&mut boot, MACHINE_BOOT).expect("read");
    file.write_all_at(&(u64::from_le_bytes(boot) ^ 2).to_le_bytes(), MACHINE_BOOT).expect("written");
}

#[test]
fn a_process_that_died_took_nothing_with_it_and_a_machine_may_have() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    open(&path).partitions[0].insert(Kind::Publication, &[7; 12], b"").expect("room");
    let opened = open(&path);
    assert!(!opened.recovery.clean && opened.recovery.is_complete(), "{:?}", opened.recovery);
    drop(opened);

    boot_the_machine(&path);
    let opened = open(&path);
    assert!(opened.recovery.machine_died && !opened.recovery.is_complete());
    drop(opened);
    // It died before it could do anything about that.
    let opened = open(&path);
    assert!(opened.recovery.machine_died);
    opened.file.heartbeat(1_800_000_000_000);
    drop(opened);
    assert!(open(&path).recovery.is_complete());

    let opened = open(&path);
    opened.file.close().expect("closed");
    drop(opened);
    boot_the_machine(&path);
    let opened = open(&path);
    assert!(opened.recovery.clean && opened.recovery.is_complete(), "{:?}", opened.recovery);
}

#[test]
fn a_damaged_time_is_noticed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let mut opened = open(&path);
    opened.partitions[3].set_undelivered_since(1_800_000_000_000);
    assert_eq!(opened.file.undelivered_since(3), 1_800_000_000_000);
    drop(opened);
    assert!(!open(&path).recovery.marks_damaged);

    let file = File::options().read(true).write(true).open(&path).expect("there");
    let word = 256 * 1024 + 3 * 4096 + 16 * 8;
    let mut byte = [0];
    file.read_exact_at(&mut byte, word).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], word).expect("written");
    let opened = open(&path);
    assert!(opened.recovery.marks_damaged && !opened.recovery.is_complete());
    assert_eq!(opened.file.undelivered_since(3), 1, "since ever");
}

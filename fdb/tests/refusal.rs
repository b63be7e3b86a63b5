//! Files that are not what they should be are refused, with a reason; whatever their bytes are, nothing panics.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use comsipl_fdb::{
    Fdb, FileKind, INLINE_BYTES, Kind, OpenError, OpenFault, OpenOptions, Opened, RecordBuf, RecordId,
    inspect,
};
use proptest::prelude::*;

const OPTIONS: OpenOptions = OpenOptions { records_max: 1024, threads: 1, hash_key: None };
/// Offset of the first extent.
const DATA_START: u64 = 512 * 1024;

struct Sample {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// A presence file with records, chains among them, in partitions 0 and 5.
fn sample(close: bool) -> Sample {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let mut opened = open(&path).expect("created");
    for number in [0usize, 5] {
        for record in 0..40u64 {
            let bytes = payload(record);
            opened.partitions[number].insert(Kind::Publication, &[record; 12], &bytes).expect("room");
        }
    }
    if close {
        opened.file.close().expect("synced");
    }
    Sample { _folder: folder, path }
}

fn payload(record: u64) -> Vec<u8> {
    vec![record as u8; 10 + record as usize % 5 * INLINE_BYTES]
}

fn open(path: &Path) -> Result<Opened, OpenError> {
    Fdb::open(path, FileKind::Presence, &OPTIONS)
}

fn change(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(bytes, offset).expect("written");
}

fn message(error: &OpenError) -> String {
    error.to_string()
}

#[test]
fn a_new_file_is_made_and_its_key_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("registered.fdb");
    let first = Fdb::open(&path, FileKind::Registered, &OPTIONS).expect("created");
    assert!(first.recovery.created && first.recovery.clean);
    assert_eq!(first.recovery.boots, 1);
    let key = first.file.hash_key();
    assert_ne!(key, [0, 0]);
    first.file.heartbeat(1_700_000_000_000);
    drop(first);
    let second = Fdb::open(&path, FileKind::Registered, &OPTIONS).expect("opens");
    assert!(!second.recovery.created && !second.recovery.clean);
    assert_eq!(second.recovery.last_heartbeat_ms, 1_700_000_000_000);
    assert_eq!((second.recovery.boots, second.file.hash_key()), (2, key));
    second.file.close().expect("synced");
    drop(second);
    let third = Fdb::open(&path, FileKind::Registered, &OPTIONS).expect("opens");
    assert!(third.recovery.clean);
    let other = folder.path().join("other.fdb");
    let other = Fdb::open(&other, FileKind::Registered, &OPTIONS).expect("created");
    assert_ne!(other.file.hash_key(), key);
}

#[test]
fn a_heartbeat_is_put_back_and_never_forward() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    let found_after = |leave: &dyn Fn(&Fdb)| {
        let opened = Fdb::open(&path, FileKind::Presence, &OPTIONS).expect("opens");
        leave(&opened.file);
        drop(opened);
        let file = Fdb::open_reader(&path).expect("opens");
        file.put_heartbeat_back(1);
        file.last_heartbeat_ms()
    };
    assert_eq!(found_after(&|file| file.put_heartbeat_back(1000)), 0, "there was none");
    assert_eq!(found_after(&|file| file.heartbeat(2000)), 2000, "whoever only reads changes nothing");
    assert_eq!(found_after(&|file| file.put_heartbeat_back(2001)), 2000);
    assert_eq!(found_after(&|file| file.put_heartbeat_back(500)), 500);
    assert_eq!(found_after(&|file| file.put_heartbeat_back(600)), 500);
    assert_eq!(found_after(&|file| file.put_heartbeat_back(0)), 1, "there was one");
    assert_eq!(found_after(&|file| file.heartbeat(700)), 700);
}

#[test]
fn the_secret_key_is_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let sample = sample(true);
    let mode = fs::metadata(&sample.path).expect("there").permissions().mode();
    assert_eq!(mode & 0o077, 0);
    let opened = open(&sample.path).expect("opens");
    let key = opened.file.hash_key()[0].to_string();
    assert!(!format!("{opened:?}").contains(&key));
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let sample = sample(true);
    let first = open(&sample.path).expect("opens");
    let error = open(&sample.path).expect_err("locked");
    assert!(matches!(error.fault, OpenFault::Locked));
    assert!(message(&error).contains("another process") && message(&error).contains("presence_w.fdb"));
    assert!(Fdb::open_reader(&sample.path).is_ok());
    drop(first);
    assert!(open(&sample.path).is_ok());
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("letter.txt");
    for letter in [&b"Dear Sir"[..], b"x", &[0; 100_000], &[7; 700_000]] {
        let letter = [letter, b"or Madam"].concat();
        fs::write(&path, &letter).expect("written");
        let error = open(&path).expect_err("not ours");
        assert!(matches!(error.fault, OpenFault::NotFdb { .. }), "{error}");
        assert!(message(&error).contains("COMSIPLF") && message(&error).contains("letter.txt"));
        assert!(Fdb::open_reader(&path).is_err());
        assert_eq!(fs::read(&path).expect("there"), letter);
    }
}

#[test]
fn the_other_kind_and_other_versions_are_refused() {
    let sample = sample(true);
    let error = Fdb::open(&sample.path, FileKind::Registered, &OPTIONS).expect_err("swapped");
    assert!(matches!(error.fault, OpenFault::Kind { found: Some(FileKind::Presence), .. }));
    assert!(message(&error).contains("swapped"));
    change(&sample.path, 8, &2u32.to_le_bytes());
    let error = open(&sample.path).expect_err("newer");
    assert!(matches!(error.fault, OpenFault::Version { found: 2, expected: 1 }), "{error}");
    assert!(message(&error).contains("a newer program wrote the file: start that one again"));
}

#[test]
fn impossible_sizes_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("presence_w.fdb");
    for records_max in [0, u32::MAX] {
        let options = OpenOptions { records_max, threads: 1, hash_key: None };
        let error = Fdb::open(&path, FileKind::Presence, &options).expect_err("impossible");
        assert!(matches!(error.fault, OpenFault::RecordsMax { .. }));
        assert!(!path.exists());
    }
}

#[test]
fn a_count_whose_check_fails_is_refused() {
    let sample = sample(true);
    let header = 256 * 1024 + 5 * 4096;
    change(&sample.path, header, &[9]);
    let error = open(&sample.path).expect_err("damaged");
    assert!(matches!(error.fault, OpenFault::PartitionChecksum { partition: 5 }));
    assert!(message(&error).contains("partition 5"));
}

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    for close in [true, false] {
        let sample = sample(close);
        if !close {
            // Not closed, but synced once.
            open(&sample.path).expect("opens").file.sync().expect("synced");
        }
        let whole = fs::read(&sample.path).expect("there");
        let lengths = (1..600).chain((600..whole.len()).step_by(4093)).chain([whole.len() - 1]);
        for length in lengths {
            fs::write(&sample.path, &whole[..length]).expect("written");
            let error = open(&sample.path).expect_err("cut short");
            let told = matches!(error.fault, OpenFault::Truncated { found, expected }
                if found == length as u64 && expected > found);
            assert!(told || length < 8, "{length}: {error}");
            assert!(Fdb::open_reader(&sample.path).is_err(), "{length}");
            assert_eq!(fs::metadata(&sample.path).expect("there").len(), length as u64, "left alone");
        }
    }
}

/// The file system may forget, in a power cut, the room of an extent that was never synced.
#[test]
fn extents_that_were_never_synced_may_be_missing() {
    let sample = sample(false);
    let before = Fdb::open_reader(&sample.path).expect("opens").usage();
    assert!(before.partitions[5].slots_reserved > 0);
    let file = fs::OpenOptions::new().write(true).open(&sample.path).expect("opens");
    file.set_len(DATA_START + 256 * 1024 + 100).expect("shortened");
    assert!(Fdb::open_reader(&sample.path).is_err(), "a reader waits for the writer's recovery");
    let opened = open(&sample.path).expect("opens");
    assert_eq!((opened.recovery.extents_lost, opened.recovery.records), (1, 40));
    assert_eq!(opened.file.usage().partitions[5].slots_reserved, 0);
}

#[test]
fn making_a_file_can_be_interrupted() {
    let sample = sample(true);
    let mut bytes = fs::read(&sample.path).expect("there");
    bytes.truncate(DATA_START as usize);
    bytes[..4096].fill(0);
    // As after the headers were written, before the superblock was.
    for partition in 0..64 {
        let header = 256 * 1024 + partition * 4096;
        bytes[header..header + 4096].fill(0);
    }
    for written in [0, 1, DATA_START as usize] {
        fs::write(&sample.path, &bytes[..written]).expect("written");
        assert!(Fdb::open_reader(&sample.path).is_err());
        assert!(open(&sample.path).expect("made anew").recovery.created);
    }
}

#[test]
fn verify_names_the_damaged_record() {
    let sample = sample(true);
    // Slot 0 of partition 5, a fixed word; slot 1 (a chain record of the next head) its payload.
    let extent = DATA_START + 5 * 256 * 1024;
    change(&sample.path, extent + 40, &[0xff]);
    let report = inspect::verify(&sample.path).expect("opens");
    assert_eq!(report.torn, 1);
    assert!(!report.is_sound());
    let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(lines.iter().any(|line| line == "partition 5 slot 0: the record's checksum fails"), "{lines:?}");
}

#[test]
fn no_bit_of_a_commit_word_makes_a_record_disappear_unseen() {
    // Of a head with a flipped bit in its kind recovery made a free slot, or a part of another record that nobody missed.
    let sample = sample(true);
    let mut opened = open(&sample.path).expect("opens");
    let documents = (0..2).map(|n| {
        opened.partitions[5].insert(Kind::Presentity, &[n; 12], &payload(n)).expect("room") as usize
    });
    let documents: Vec<usize> = documents.collect();
    opened.file.close().expect("synced");
    drop(opened);
    let whole = fs::read(&sample.path).expect("there");
    let records = open(&sample.path).expect("opens").recovery.records;
    let extent = DATA_START as usize + 5 * 256 * 1024;
    let commit_of = |slot: usize| extent + slot * 512 + 8;
    for (slot, bit) in (0..4).chain(documents).flat_map(|slot| (0..64).map(move |bit| (slot, bit))) {
        let mut flipped = whole.clone();
        flipped[commit_of(slot) + bit / 8] ^= 1 << (bit % 8);
        fs::write(&sample.path, &flipped).expect("written");
        let report = inspect::verify(&sample.path).expect("opens");
        assert!(!report.is_sound(), "slot {slot} bit {bit}: {report:?}");
        let recovery = open(&sample.path).expect("opens").recovery;
        let missing = records - recovery.records;
        assert!(
            (missing..=missing + 1).contains(&recovery.torn_dropped),
            "slot {slot} bit {bit}: {recovery:?}"
        );
        assert!(!recovery.is_complete(), "slot {slot} bit {bit}");
    }
}

fn every_readable_record_is_one_that_was_written(file: &Fdb) {
    let mut buf = RecordBuf::new();
    for partition in 0..64 {
        for slot in 0..file.usage().partitions[usize::from(partition)].slots_reserved {
            if file.read(RecordId { partition, slot }, &mut buf).is_ok() {
                let record = buf.fixed()[0];
                assert!(record < 40);
                assert_eq!((buf.fixed(), buf.payload()), (&[record; 12], &payload(record)[..]));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bits flip anywhere: the file is refused, or every record that can be read is one that was written.
    #[test]
    fn flipped_bits_are_noticed(flips in prop::collection::vec((0u64..2_200_000, 0u8..8), 1..40), dense in any::<bool>()) {
        let sample = sample(true);
        let length = fs::metadata(&sample.path).expect("there").len();
        for (at, bit) in flips {
            // Half the time only where records are.
            let offset = if dense { DATA_START + at % 60_000 } else { at % length };
            let file = File::options().read(true).write(true).open(&sample.path).expect("opens");
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).expect("read");
            file.write_all_at(&[byte[0] ^ 1 << bit], offset).expect("written");
        }
        if let Ok(reader) = Fdb::open_reader(&sample.path) {
            every_readable_record_is_one_that_was_written(&reader);
            inspect::verify(&sample.path).expect("opens");
            inspect::for_each_record(&reader, |_, _| ());
        }
        if let Ok(opened) = open(&sample.path) {
            prop_assert!(opened.recovery.records <= 80);
            every_readable_record_is_one_that_was_written(&opened.file);
            let report = inspect::verify(&sample.path).expect("opens");
            prop_assert_eq!((report.torn, report.bad_chains, report.busy, report.orphan_chains), (0, 0, 0, 0));
            prop_assert_eq!(report.total(), opened.recovery.records);
        }
    }

    /// Any bytes at all where the file's description is.
    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 1..64), at in 0u64..520_000) {
        let sample = sample(true);
        change(&sample.path, at, &garbage);
        let _ = Fdb::open_reader(&sample.path);
        let _ = open(&sample.path);
    }
}

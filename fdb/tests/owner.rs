//! What the owner reads in place is not checked by its checksum; whatever a page holds, the view stays inside its records.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use comsipl_fdb::{
    CHAIN_BYTES, Fdb, FileKind, INLINE_BYTES, Kind, OpenOptions, Opened, PAYLOAD_MAX, ReadError, RecordBuf,
    RecordId,
};

fn open(path: &Path) -> Opened {
    let options = OpenOptions { records_max: 512, threads: 1, hash_key: None };
    Fdb::open(path, FileKind::Presence, &options).expect("opens")
}

/// Where the record in a slot of partition 0 lies, as FORMAT.md says.
fn offset(slot: u32) -> u64 {
    512 * 1024 + u64::from(slot) * 512
}

#[test]
fn whatever_a_page_holds_a_view_stays_inside() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("owner.fdb");
    let mut opened = open(&path);
    let file = File::options().read(true).write(true).open(&path).expect("opens");
    let partition = &mut opened.partitions[0];
    let payload = vec![7; INLINE_BYTES + 2 * CHAIN_BYTES - 5];
    let long = partition.insert(Kind::Publication, &[1; 12], &payload).expect("room");
    let short = partition.insert(Kind::Subscription, &[2; 12], b"short").expect("room");
    let mut buf = RecordBuf::new();
    let mut views = 0;
    // Words 1 to 3 of the head and of its chain records, every bit, and all bits.
    for slot in [short, long, long + 1, long + 2] {
        for word in 1..4 {
            let at = offset(slot) + word * 8;
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).expect("read");
            let before = u64::from_le_bytes(bytes);
            for mask in (0..64).map(|bit| 1 << bit).chain([u64::MAX, u64::MAX << 32, u64::from(u32::MAX)]) {
                file.write_all_at(&(before ^ mask).to_le_bytes(), at).expect("written");
                for head in [short, long] {
                    if let Ok(record) = partition.view(head, &mut buf) {
                        assert!(record.payload().len() <= PAYLOAD_MAX);
                        views += 1;
                    }
                    let _ = partition.read(head, &mut buf);
                    let _ = partition.fixed(head);
                    partition.prefetch(head);
                }
                file.write_all_at(&bytes, at).expect("written");
            }
        }
    }
    assert!(views > 0);
    assert_eq!(partition.view(long, &mut buf).expect("whole again").payload(), payload);
    assert_eq!(partition.view(u32::MAX, &mut buf), Err(ReadError::Missing));
}

/// The difference between the two ways to read: the checksum.
#[test]
fn a_payload_spoiled_after_the_opening_is_seen_by_readers_and_by_the_next_opening() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("owner.fdb");
    let mut opened = open(&path);
    let slot = opened.partitions[0].insert(Kind::Subscription, &[1; 12], b"watcher").expect("room");
    let file = File::options().write(true).open(&path).expect("opens");
    file.write_all_at(b"W", offset(slot) + 128).expect("written");
    let mut buf = RecordBuf::new();
    let view = opened.partitions[0].view(slot, &mut buf).expect("in place");
    assert_eq!(view.payload(), b"Watcher");
    let id = RecordId { partition: 0, slot };
    assert_eq!(opened.file.read(id, &mut buf), Err(ReadError::Torn));
    drop(opened);
    assert_eq!(open(&path).recovery.torn_dropped, 1);
}

#[test]
fn a_spoiled_chain_frees_nobody_elses_records() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("owner.fdb");
    let mut opened = open(&path);
    let partition = &mut opened.partitions[0];
    let long = partition.insert(Kind::Publication, &[1; 12], &[7; INLINE_BYTES + 1]).expect("room");
    let other = partition.insert(Kind::Publication, &[2; 12], &[8; INLINE_BYTES + 1]).expect("room");
    // The head's next slot (word 2, high half) becomes the other's chain record, then one beyond all.
    let file = File::options().write(true).open(&path).expect("opens");
    for next in [other + 1, u32::MAX] {
        file.write_all_at(&next.to_le_bytes(), offset(long) + 20).expect("written");
        let mut buf = RecordBuf::new();
        assert_eq!(partition.view(long, &mut buf), Err(ReadError::Torn));
        partition.update(long, &[1; 12], &[9; INLINE_BYTES + 1]).expect("room");
        assert_eq!(partition.view(long, &mut buf).expect("new").payload(), [9; INLINE_BYTES + 1]);
        assert_eq!(partition.view(other, &mut buf).expect("untouched").payload(), [8; INLINE_BYTES + 1]);
    }
}

#[test]
fn a_chain_that_leads_back_to_itself_frees_no_slot_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("owner.fdb");
    let mut opened = open(&path);
    let partition = &mut opened.partitions[0];
    let payload = vec![7; INLINE_BYTES + 2 * CHAIN_BYTES - 5];
    let long = partition.insert(Kind::Publication, &[1; 12], &payload).expect("room");
    // The first link's next slot (word 2, high half) becomes its own.
    let file = File::options().write(true).open(&path).expect("opens");
    file.write_all_at(&(long + 1).to_le_bytes(), offset(long + 1) + 20).expect("written");
    let mut buf = RecordBuf::new();
    assert_eq!(partition.view(long, &mut buf), Err(ReadError::Torn));
    partition.remove(long);
    let slots = [2, 3, 4].map(|n| partition.insert(Kind::Publication, &[n; 12], b"new").expect("room"));
    assert!(slots[0] != slots[1] && slots[1] != slots[2] && slots[0] != slots[2], "{slots:?}");
}

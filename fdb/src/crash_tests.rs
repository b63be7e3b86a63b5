//! Every store of every operation as the last one before death: what was whole stays whole, what was being written is old
//! or new, nothing leaks, and recovery can itself be killed.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::kill;
use crate::layout::{
    CHAIN_BYTES, EXTENT_BYTES, EXTENT_RECORDS, FIXED_WORDS, INLINE_BYTES, chain_records, checked_count,
    extent_offset, header_offset,
};
use crate::{Fdb, FileKind, Full, Kind, OpenOptions, Opened, Partition, ReadError, RecordBuf, RecordId};

const OPTIONS: OpenOptions = OpenOptions { records_max: 4 * EXTENT_RECORDS, threads: 1, hash_key: None };

/// A record whose every word and byte follows from three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    words: u64,
    seed: u64,
    length: usize,
}

const SHORT: usize = 100;
const ONE_LINK: usize = INLINE_BYTES + 5;
const TWO_LINKS: usize = INLINE_BYTES + CHAIN_BYTES + 1;

const fn content(seed: u64, length: usize) -> Content {
    Content { words: seed, seed, length }
}

impl Content {
    fn fixed(self) -> [u64; FIXED_WORDS] {
        std::array::from_fn(|i| self.words.wrapping_mul(1000).wrapping_add(i as u64))
    }

    fn payload(self) -> Vec<u8> {
        (0..self.length).map(|i| (i as u64 ^ self.seed.wrapping_mul(31)) as u8).collect()
    }

    fn insert(self, partition: &mut Partition) -> Result<u32, Full> {
        partition.insert(Kind::Presentity, &self.fixed(), &self.payload())
    }

    fn is_in(self, buf: &RecordBuf) -> bool {
        *buf.fixed() == self.fixed() && buf.payload() == self.payload()
    }

    fn slots(self) -> u32 {
        1 + chain_records(self.length) as u32
    }
}

/// The record that operations change, and those that they must leave alone.
const TARGET: Content = content(1, SHORT);
const BYSTANDERS: [Content; 3] = [content(100, 0), content(101, TWO_LINKS), content(102, INLINE_BYTES)];
const TARGET_SLOT: u32 = 0;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Insert(Content),
    Update(Content),
    UpdateFixed(u64),
    Remove,
}

impl Operation {
    fn run(self, partition: &mut Partition, before: Content) {
        match self {
            Self::Insert(content) => {
                content.insert(partition).expect("room");
            }
            Self::Update(content) => {
                partition.update(TARGET_SLOT, &content.fixed(), &content.payload()).expect("room");
            }
            Self::UpdateFixed(words) => {
                partition.update_fixed(TARGET_SLOT, &Content { words, ..before }.fixed());
            }
            Self::Remove => partition.remove(TARGET_SLOT),
        }
    }
}

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with the target and the bystanders, left as by a kill; `fill` records more.
    fn prepare(&self, target: Content, fill: u32) -> PathBuf {
        let path = self.path("template.fdb");
        let mut opened = open(&path);
        let partition = &mut opened.partitions[0];
        assert_eq!(target.insert(partition), Ok(TARGET_SLOT));
        for bystander in BYSTANDERS {
            bystander.insert(partition).expect("room");
        }
        for seed in 0..u64::from(fill) {
            content(1_000 + seed, 8).insert(partition).expect("room");
        }
        path
    }
}

fn open(path: &Path) -> Opened {
    Fdb::open(path, FileKind::Presence, &OPTIONS).expect("opens")
}

/// What is in the file, each record whole.
fn contents(partition: &Partition) -> Vec<(u32, [u64; FIXED_WORDS], Vec<u8>)> {
    let mut buf = RecordBuf::new();
    let slots: Vec<u32> = partition.heads().map(|(slot, _)| slot).collect();
    slots
        .into_iter()
        .map(|slot| {
            partition.read(slot, &mut buf).expect("whole");
            assert_eq!(partition.find(key(buf.fixed())), Some(slot), "indexed");
            (slot, *buf.fixed(), buf.payload().to_vec())
        })
        .collect()
}

fn key(fixed: &[u64; FIXED_WORDS]) -> u128 {
    u128::from(fixed[0]) | u128::from(fixed[1]) << 64
}

/// Kills `operation` before every one of its stores.
fn kill_everywhere(target: Content, operation: Operation, fill: u32) {
    let folder = Folder::new();
    let template = folder.prepare(target, fill);
    let path = folder.path("copy.fdb");
    let mut stores = 0;
    loop {
        std::fs::copy(&template, &path).expect("copied");
        let killed = {
            let mut opened = open(&path);
            let partition = &mut opened.partitions[0];
            let killed = kill::after(stores, || operation.run(partition, target));
            // A reader beside the dead writer sees old, new, or that someone is at it.
            let reader = Fdb::open_reader(&path).expect("opens");
            let mut buf = RecordBuf::new();
            let id = RecordId { partition: 0, slot: TARGET_SLOT };
            match reader.read(id, &mut buf) {
                Ok(()) => assert!(
                    outcomes(target, operation).iter().flatten().any(|content| content.is_in(&buf)),
                    "{operation:?} after {stores} stores: a reader saw a mixture"
                ),
                Err(error) => assert_ne!(error, ReadError::Torn, "{operation:?} after {stores} stores"),
            }
            killed
        };
        // Recovery dies as well, at another place each time.
        kill::after(stores * 7 % 90, || open(&path));
        let mut opened = open(&path);
        check(&mut opened, target, operation, fill, stores);
        // What the next process does is not undone by what this one was about to do.
        let partition = &mut opened.partitions[0];
        if partition.fixed(TARGET_SLOT).is_some() {
            partition.remove(TARGET_SLOT);
        }
        let left = contents(partition);
        drop(opened);
        let mut opened = open(&path);
        let partition = &mut opened.partitions[0];
        assert!(contents(partition) == left, "{operation:?} after {stores} stores: the target rises again");
        // Life goes on.
        assert_eq!(target.insert(partition), Ok(TARGET_SLOT));
        if !matches!(operation, Operation::Insert(_)) {
            operation.run(partition, target);
        }
        contents(partition);
        if !killed {
            break;
        }
        stores += 1;
    }
    assert!(stores > 2, "the operation was killed {stores} times");
}

/// What the target may hold afterwards; `None`: nothing.
fn outcomes(target: Content, operation: Operation) -> Vec<Option<Content>> {
    match operation {
        Operation::Insert(_) => vec![Some(target)],
        Operation::Update(content) => vec![Some(target), Some(content)],
        Operation::UpdateFixed(words) => vec![Some(target), Some(Content { words, ..target })],
        Operation::Remove => vec![Some(target), None],
    }
}

fn check(opened: &mut Opened, target: Content, operation: Operation, fill: u32, stores: u64) {
    let place = format!("{operation:?} after {stores} stores");
    let recovery = opened.recovery;
    assert_eq!(recovery.torn_dropped, 0, "{place}: a kill tears nothing");
    assert!(!recovery.clean);
    let partition = &mut opened.partitions[0];
    let found = contents(partition);
    for bystander in BYSTANDERS {
        let same = |(_, fixed, payload): &&(u32, _, Vec<u8>)| {
            *fixed == bystander.fixed() && *payload == bystander.payload()
        };
        assert_eq!(found.iter().filter(same).count(), 1, "{place}: bystander");
    }
    // The target: old, new or (by what is asked) gone.
    let now = found.iter().find(|(slot, ..)| *slot == TARGET_SLOT);
    let content = match (now, operation) {
        (None, Operation::Remove) => None,
        (None, _) => panic!("{place}: the target is lost"),
        (Some((_, fixed, payload)), _) => {
            let possible = outcomes(target, operation);
            let is = |content: &&Content| *fixed == content.fixed() && *payload == content.payload();
            Some(*possible.iter().flatten().find(is).unwrap_or_else(|| panic!("{place}: a mixture")))
        }
    };
    let inserted = match operation {
        Operation::Insert(content) => {
            let same = |(_, fixed, payload): &&(u32, _, Vec<u8>)| {
                *fixed == content.fixed() && *payload == content.payload()
            };
            (found.iter().filter(same).count() == 1).then_some(content)
        }
        _ => None,
    };
    // Nothing leaks and nothing is there twice.
    let all: Vec<Content> = BYSTANDERS.into_iter().chain(content).chain(inserted).collect();
    assert_eq!(found.len(), all.len() + fill as usize, "{place}");
    let slots: u32 = all.iter().map(|content| content.slots()).sum::<u32>() + fill;
    let usage = opened.file.usage().partitions[0];
    assert_eq!((usage.records, usage.slots_used), (found.len() as u32, slots), "{place}");
}

#[test]
fn an_insertion_is_there_or_not() {
    kill_everywhere(TARGET, Operation::Insert(content(9, SHORT)), 0);
}

#[test]
fn an_insertion_with_a_chain_is_there_or_not() {
    kill_everywhere(TARGET, Operation::Insert(content(9, TWO_LINKS)), 0);
}

#[test]
fn an_insertion_that_grows_the_partition_is_there_or_not() {
    let slots = BYSTANDERS.iter().map(|content| content.slots()).sum::<u32>() + TARGET.slots();
    kill_everywhere(TARGET, Operation::Insert(content(9, 8)), EXTENT_RECORDS - slots);
}

#[test]
fn an_update_is_old_or_new() {
    kill_everywhere(TARGET, Operation::Update(content(2, INLINE_BYTES - 3)), 0);
    kill_everywhere(TARGET, Operation::Update(content(2, 0)), 0);
}

#[test]
fn an_update_that_adds_a_chain_is_old_or_new() {
    kill_everywhere(TARGET, Operation::Update(content(2, ONE_LINK)), 0);
}

#[test]
fn an_update_that_replaces_a_chain_is_old_or_new() {
    let target = Content { length: TWO_LINKS, ..TARGET };
    kill_everywhere(target, Operation::Update(content(2, ONE_LINK)), 0);
}

#[test]
fn an_update_that_drops_a_chain_is_old_or_new() {
    let target = Content { length: ONE_LINK, ..TARGET };
    kill_everywhere(target, Operation::Update(content(2, SHORT)), 0);
}

#[test]
fn an_update_of_the_fixed_words_is_old_or_new() {
    kill_everywhere(TARGET, Operation::UpdateFixed(2), 0);
    kill_everywhere(Content { length: ONE_LINK, ..TARGET }, Operation::UpdateFixed(2), 0);
}

#[test]
fn a_removal_is_done_or_not() {
    kill_everywhere(TARGET, Operation::Remove, 0);
    kill_everywhere(Content { length: TWO_LINKS, ..TARGET }, Operation::Remove, 0);
}

/// A kill right after the sequence became odd leaves the old content; one in the middle needs the image.
#[test]
fn an_interrupted_update_is_counted_as_redone() {
    let folder = Folder::new();
    let template = folder.prepare(TARGET, 0);
    let path = folder.path("copy.fdb");
    let content = content(2, SHORT);
    let redone: Vec<u64> = (0..80)
        .map(|stores| {
            std::fs::copy(&template, &path).expect("copied");
            let mut opened = open(&path);
            kill::after(stores, || Operation::Update(content).run(&mut opened.partitions[0], TARGET));
            drop(opened);
            open(&path).recovery.redone
        })
        .collect();
    // Redo word, sequence, 15 head words, 13 payload words, redo word; then the sequence, 28 words, the sequence.
    let expected = |stores: usize| u64::from((32..61).contains(&stores));
    assert_eq!(redone, (0..80).map(expected).collect::<Vec<_>>());
}

/// The disk returns a sector of the newest version that does not match its checksum: the image still has it.
#[test]
fn the_newest_version_is_restored_from_its_image_when_the_disk_spoiled_it() {
    let folder = Folder::new();
    let path = folder.prepare(TARGET, 0);
    let content = content(2, SHORT);
    {
        let mut opened = open(&path);
        Operation::Update(content).run(&mut opened.partitions[0], TARGET);
    }
    flip(&path, crate::layout::record_offset(0, TARGET_SLOT) + 130);
    let opened = open(&path);
    assert_eq!((opened.recovery.redone, opened.recovery.torn_dropped), (1, 0));
    let mut buf = RecordBuf::new();
    opened.partitions[0].read(TARGET_SLOT, &mut buf).expect("whole");
    assert!(content.is_in(&buf));
}

/// An image never brings back what was replaced after it.
#[test]
fn an_old_image_is_not_replayed_over_a_later_record() {
    let folder = Folder::new();
    let path = folder.prepare(TARGET, 0);
    {
        let mut opened = open(&path);
        let partition = &mut opened.partitions[0];
        Operation::UpdateFixed(2).run(partition, TARGET);
        partition.remove(TARGET_SLOT);
        assert_eq!(content(3, SHORT).insert(partition), Ok(TARGET_SLOT));
    }
    flip(&path, crate::layout::record_offset(0, TARGET_SLOT) + 130);
    let opened = open(&path);
    assert_eq!((opened.recovery.redone, opened.recovery.torn_dropped), (0, 1));
    assert_eq!(opened.partitions[0].fixed(TARGET_SLOT), None);
}

/// A power cut may leave records in an extent whose count it takes. They do not rise when the extent is used anew, nor when the
/// next power cut leaves the count and takes what was written into the extent meanwhile.
#[test]
fn stale_records_of_a_forgotten_extent_stay_dead() {
    let folder = Folder::new();
    let path = folder.prepare(TARGET, EXTENT_RECORDS);
    let (count_offset, extent_offset) = (header_offset(0), extent_offset(0, 1));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opens");
    file.write_all_at(&checked_count(1, 0).to_le_bytes(), count_offset).expect("written");

    let mut opened = open(&path);
    assert_eq!((opened.recovery.extents_lost, opened.recovery.is_complete()), (1, false));
    let mut on_disk = vec![0; EXTENT_BYTES as usize];
    file.read_exact_at(&mut on_disk, extent_offset).expect("read");
    let partition = &mut opened.partitions[0];
    let before = partition.records();
    assert!(before < EXTENT_RECORDS, "the first extent alone");
    while opened.file.extents(0) < 2 {
        content(5_000 + u64::from(partition.records()), 0).insert(partition).expect("room");
    }
    let grown = partition.records();
    assert!(grown > before);
    drop(opened);

    let opened = open(&path);
    assert_eq!((opened.partitions[0].records(), opened.recovery.torn_dropped), (grown, 0));
    assert_eq!(opened.recovery.extents_lost, 0);
    drop(opened);

    file.write_all_at(&on_disk, extent_offset).expect("written");
    let opened = open(&path);
    assert_eq!(opened.file.extents(0), 2);
    assert_eq!(opened.partitions[0].records(), grown - 1, "all but the one that was in the new extent");
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("written");
}

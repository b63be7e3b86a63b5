//! A power cut leaves each page of the file as it was at some moment since the last sync. Whatever mixture that is, the
//! file opens, and every record in it is one that was once written there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use comsipl_fdb::{
    CHAIN_BYTES, Fdb, FileKind, INLINE_BYTES, Kind, OpenOptions, Opened, RecordBuf, RecordId, inspect,
};
use proptest::prelude::*;

const OPTIONS: OpenOptions = OpenOptions { records_max: 1024, threads: 1, hash_key: None };
const PAGE: usize = 4096;

/// Each content ever written has a number of its own.
fn fixed(content: u64) -> [u64; 12] {
    std::array::from_fn(|i| content.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32))
}

fn payload(content: u64) -> Vec<u8> {
    let length = (content * 131 % (INLINE_BYTES + 2 * CHAIN_BYTES) as u64) as usize;
    (0..length).map(|i| content as u8 ^ i as u8).collect()
}

fn open(path: &Path) -> Opened {
    Fdb::open(path, FileKind::Presence, &OPTIONS).expect("opens")
}

/// Does `count` random changes in partition 0, and gives all that a slot has ever held.
fn work(
    opened: &mut Opened,
    count: u64,
    seed: &mut u64,
    written: &mut BTreeSet<(u32, u64)>,
    content: &mut u64,
) {
    let partition = &mut opened.partitions[0];
    for _ in 0..count {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = *seed >> 33;
        let slots: Vec<u32> = partition.heads().map(|(slot, _)| slot).collect();
        *content += 1;
        let slot = match (pick % 5, slots.get((pick / 5) as usize % slots.len().max(1))) {
            (0, Some(&slot)) => {
                partition.remove(slot);
                continue;
            }
            (1 | 2, Some(&slot)) => {
                partition.update(slot, &fixed(*content), &payload(*content)).expect("room");
                slot
            }
            _ => partition.insert(Kind::Publication, &fixed(*content), &payload(*content)).expect("room"),
        };
        written.insert((slot, *content));
    }
}

fn contents(opened: &Opened, last: u64) -> BTreeSet<(u32, u64)> {
    let mut buf = RecordBuf::new();
    let partition = &opened.partitions[0];
    partition
        .heads()
        .map(|(slot, _)| {
            opened.file.read(RecordId { partition: 0, slot }, &mut buf).expect("recovered, so whole");
            let content = (1..=last).find(|&content| fixed(content) == *buf.fixed()).expect("once written");
            assert!(buf.payload() == payload(content), "slot {slot}: a mixture");
            (slot, content)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_of_pages_opens_and_holds_only_what_was_written(
        seed in any::<u64>(),
        synced in 0u64..120,
        moments in prop::collection::vec(1u64..60, 1..4),
        choice in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("presence_w.fdb");
        let (mut seed, mut content, mut written) = (seed, 0, BTreeSet::new());
        let mut opened = open(&path);
        work(&mut opened, synced, &mut seed, &mut written, &mut content);
        opened.file.sync().expect("synced");
        let at_sync = contents(&opened, content);
        let mut images = vec![fs::read(&path).expect("there")];
        for count in moments {
            work(&mut opened, count, &mut seed, &mut written, &mut content);
            images.push(fs::read(&path).expect("there"));
        }
        drop(opened);
        // The longest image has every page; an older one may lack some, which are then zeros.
        let mut disk = images.last().expect("one").clone();
        for (page, bytes) in disk.chunks_mut(PAGE).enumerate() {
            let image = &images[usize::from(choice[page % choice.len()]) % images.len()];
            match image.get(page * PAGE..page * PAGE + bytes.len()) {
                Some(old) => bytes.copy_from_slice(old),
                None => bytes.fill(0),
            }
        }
        fs::write(&path, &disk).expect("written");
        let mut opened = open(&path);
        let found = contents(&opened, content);
        prop_assert!(found.is_subset(&written), "a record that was never written there");
        // What was synced and not changed since is there; with a chain, its chain records are of other slots.
        for &(slot, content) in &at_sync {
            let steady = images.iter().all(|image| record(image, slot) == record(&images[0], slot));
            if steady && payload(content).len() <= INLINE_BYTES {
                prop_assert!(found.contains(&(slot, content)), "slot {} was synced and is lost", slot);
            }
        }
        let report = inspect::verify(&path).expect("opens");
        prop_assert_eq!((report.torn, report.bad_chains, report.busy, report.orphan_chains), (0, 0, 0, 0));
        // Life goes on, step by step, and what was lost is not taken up again by a process that finds what the one before left.
        for _ in 0..25 {
            work(&mut opened, 2, &mut seed, &mut written, &mut content);
            let left = contents(&opened, content);
            drop(opened);
            opened = open(&path);
            prop_assert_eq!(contents(&opened, content), left);
        }
    }
}

/// The bytes of a slot of partition 0.
fn record(image: &[u8], slot: u32) -> Option<&[u8]> {
    let at = 512 * 1024 + slot as usize * 512;
    image.get(at..at + 512)
}

//! A partition against a map: whatever is asked in whatever order, and however often the process dies in between.

use std::collections::BTreeMap;
use std::path::Path;

use comsipl_fdb::{
    CHAIN_BYTES, Fdb, FileKind, Full, INLINE_BYTES, Kind, OpenOptions, Opened, ReadError, RecordBuf,
    RecordId, inspect,
};
use proptest::prelude::*;

const RECORDS_MAX: u32 = 1024;
const PARTITION: usize = 63;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        kind: Kind,
        words: u64,
        length: usize,
    },
    Update {
        which: usize,
        words: u64,
        length: usize,
    },
    UpdateFixed {
        which: usize,
        words: u64,
    },
    Remove {
        which: usize,
    },
    /// The process dies, or closes the file, and another one opens it.
    Reopen {
        close: bool,
    },
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..=INLINE_BYTES,
        2 => INLINE_BYTES - 1..INLINE_BYTES + 3 * CHAIN_BYTES,
        1 => (0usize..40).prop_map(|chain| INLINE_BYTES + chain * CHAIN_BYTES),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Kind::Subscription), Just(Kind::Presentity), Just(Kind::Publication)];
    prop_oneof![
        6 => (kind, any::<u64>(), length()).prop_map(|(kind, words, length)| Step::Insert { kind, words, length }),
        4 => (any::<usize>(), any::<u64>(), length())
            .prop_map(|(which, words, length)| Step::Update { which, words, length }),
        3 => (any::<usize>(), any::<u64>()).prop_map(|(which, words)| Step::UpdateFixed { which, words }),
        3 => any::<usize>().prop_map(|which| Step::Remove { which }),
        1 => any::<bool>().prop_map(|close| Step::Reopen { close }),
    ]
}

fn fixed(words: u64) -> [u64; 12] {
    std::array::from_fn(|i| words.rotate_left(i as u32 * 5))
}

fn payload(words: u64, length: usize) -> Vec<u8> {
    (0..length).map(|i| (words.rotate_right(i as u32 % 64) as u8) ^ (i as u8)).collect()
}

fn key(fixed: &[u64; 12]) -> u128 {
    u128::from(fixed[0]) | u128::from(fixed[1]) << 64
}

fn open(path: &Path) -> Opened {
    let options = OpenOptions { records_max: RECORDS_MAX, threads: 1, hash_key: None };
    Fdb::open(path, FileKind::Presence, &options).expect("opens")
}

type Model = BTreeMap<u32, (Kind, [u64; 12], Vec<u8>)>;

fn slots(model: &Model) -> u32 {
    let chains =
        model.values().map(|(.., bytes)| bytes.len().saturating_sub(INLINE_BYTES).div_ceil(CHAIN_BYTES));
    (model.len() + chains.sum::<usize>()) as u32
}

fn compare(opened: &Opened, model: &Model) {
    let partition = &opened.partitions[PARTITION];
    let heads: Vec<_> = partition.heads().collect();
    let expected: Vec<_> = model.iter().map(|(slot, (kind, ..))| (*slot, *kind)).collect();
    assert_eq!(heads, expected);
    let mut buf = RecordBuf::new();
    for (&slot, (kind, fixed, payload)) in model {
        let id = RecordId { partition: PARTITION as u8, slot };
        assert_eq!(opened.file.read(id, &mut buf), Ok(()));
        assert_eq!((buf.kind(), buf.fixed(), buf.payload()), (*kind, fixed, &payload[..]));
        // The owner sees the same in place, and copies the same.
        let version = buf.version();
        let mut pieces = RecordBuf::default();
        let view = partition.view(slot, &mut pieces).expect("there");
        assert_eq!(view, buf.record());
        let in_place = buf.payload().len() <= INLINE_BYTES;
        assert_eq!(in_place, pieces.payload().is_empty() || buf.payload().is_empty());
        partition.read(slot, &mut buf).expect("there");
        assert_eq!((buf.version(), buf.fixed(), buf.payload()), (version, fixed, &payload[..]));
        assert_eq!(partition.fixed(slot), Some((*kind, *fixed)));
        if kind.indexed() {
            let slot = partition.find(key(fixed)).expect("indexed");
            assert_eq!(model[&slot].1[..2], fixed[..2]);
            assert!(opened.file.read_by_key(PARTITION as u8, key(fixed), &mut buf).is_ok());
        }
    }
    let indexed = model.values().filter(|(kind, ..)| kind.indexed()).count();
    assert_eq!(opened.file.index(PARTITION as u8).len(), indexed);
    let usage = opened.file.usage().partitions[PARTITION];
    assert_eq!((usage.records, usage.slots_used), (model.len() as u32, slots(model)));
    assert_eq!(partition.available(), RECORDS_MAX - slots(model));
    assert_eq!(partition.records(), model.len() as u32);
}

fn run(steps: Vec<Step>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.fdb");
    let mut model = Model::new();
    let mut opened = open(&path);
    let mut buf = RecordBuf::new();
    for step in steps {
        let partition = &mut opened.partitions[PARTITION];
        let pick = |which: usize, model: &Model| model.keys().nth(which % model.len().max(1)).copied();
        match step {
            Step::Insert { kind, words, length } => {
                let payload = payload(words, length);
                // In three parts, one of them empty.
                let (left, right) = payload.split_at(length / 3);
                match partition.insert_parts(kind, &fixed(words), &[left, &[], right]) {
                    Ok(slot) => {
                        let before = model.insert(slot, (kind, fixed(words), payload));
                        assert!(before.is_none(), "slot {slot} was in use");
                    }
                    Err(error) => {
                        assert_eq!(error, Full::Records);
                        let needed = 1 + length.saturating_sub(INLINE_BYTES).div_ceil(CHAIN_BYTES) as u32;
                        assert!(slots(&model) + needed > RECORDS_MAX);
                    }
                }
            }
            Step::Update { which, words, length } => {
                let Some(slot) = pick(which, &model) else { continue };
                let payload = payload(words, length);
                match partition.update(slot, &fixed(words), &payload) {
                    Ok(()) => {
                        let record = model.get_mut(&slot).expect("picked");
                        *record = (record.0, fixed(words), payload);
                    }
                    Err(error) => assert_eq!(error, Full::Records),
                }
            }
            Step::UpdateFixed { which, words } => {
                let Some(slot) = pick(which, &model) else { continue };
                partition.update_fixed(slot, &fixed(words));
                model.get_mut(&slot).expect("picked").1 = fixed(words);
            }
            Step::Remove { which } => {
                let Some(slot) = pick(which, &model) else { continue };
                partition.remove(slot);
                model.remove(&slot);
                assert_eq!(partition.read(slot, &mut buf), Err(ReadError::Missing));
            }
            Step::Reopen { close } => {
                if close {
                    opened.file.close().expect("synced");
                }
                drop(opened);
                opened = open(&path);
                let recovery = opened.recovery;
                assert_eq!((recovery.created, recovery.clean), (false, close));
                assert_eq!(recovery.records, model.len() as u64);
                assert_eq!((recovery.torn_dropped, recovery.redone, recovery.orphans_freed), (0, 0, 0));
            }
        }
    }
    compare(&opened, &model);
    drop(opened);
    compare(&open(&path), &model);
    let report = inspect::verify(&path).expect("opens");
    // The payloads here are not encoded texts; all else must be sound.
    assert_eq!((report.torn, report.bad_chains, report.busy, report.orphan_chains), (0, 0, 0, 0));
    assert_eq!(report.total(), model.len() as u64);
    assert_eq!(report.chain_records, u64::from(slots(&model)) - model.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_partition_is_a_map_that_survives(steps in prop::collection::vec(step(), 1..150)) {
        run(steps);
    }
}

//! Syncs while much is stored: what they let go of for the time being is there for whoever writes or reads next, and in the file.

use std::sync::atomic::{AtomicBool, Ordering};

use comsipl_fdb::{Fdb, FileKind, Kind, OpenOptions, PARTITIONS, RecordBuf, RecordId};

/// Enough for more than one piece of a sync, most of whose pages are stored into in each round.
const RECORDS: u32 = 300;
const ROUNDS: u64 = 20;

fn fixed(partition: u8, record: u32, round: u64) -> [u64; 12] {
    let mut fixed = [round; 12];
    fixed[0] = u64::from(partition) << 32 | u64::from(record);
    fixed
}

#[test]
fn nothing_is_missing_where_syncs_and_stores_go_on_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("registered.fdb");
    let options = OpenOptions { records_max: 1024, threads: 1, hash_key: None };
    let mut opened = Fdb::open(&path, FileKind::Registered, &options).expect("created");
    let payload = [7; 100];
    for partition in &mut opened.partitions {
        for record in 0..RECORDS {
            let number = partition.number();
            let slot = partition.insert(Kind::Binding, &fixed(number, record, 0), &payload).expect("room");
            assert_eq!(slot, record);
        }
    }
    let done = AtomicBool::new(false);
    let file = &*opened.file;
    std::thread::scope(|scope| {
        let (done, path) = (&done, &path);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                file.sync().expect("synced");
            }
        });
        // Another mapping, as of another process, and ours.
        scope.spawn(move || {
            let other = Fdb::open_reader(path).expect("opens");
            let mut buf = RecordBuf::new();
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                for (file, partition) in [file, &*other].into_iter().zip([3, 60]) {
                    let id = RecordId { partition, slot: seen % RECORDS };
                    if file.read(id, &mut buf).is_ok() {
                        let round = buf.fixed()[1];
                        assert_eq!(*buf.fixed(), fixed(partition, id.slot, round));
                        assert_eq!(buf.payload(), payload);
                    }
                }
                seen += 1;
            }
        });
        for round in 1..=ROUNDS {
            for partition in &mut opened.partitions {
                let number = partition.number();
                for slot in 0..RECORDS {
                    let mut buf = RecordBuf::new();
                    let before = partition.view(slot, &mut buf).expect("there");
                    assert_eq!(before.fixed(), &fixed(number, slot, round - 1));
                    partition.update_fixed(slot, &fixed(number, slot, round));
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    file.sync().expect("synced");
    drop(opened);
    let again = Fdb::open(&path, FileKind::Registered, &options).expect("opens");
    assert_eq!(again.recovery.torn_dropped, 0);
    for partition in &again.partitions {
        assert_eq!(partition.records(), RECORDS);
        for slot in 0..RECORDS {
            let (_, found) = partition.fixed(slot).expect("there");
            assert_eq!(found, fixed(partition.number(), slot, ROUNDS));
        }
    }
    assert_eq!(again.partitions.len(), PARTITIONS);
}

//! What does a record cost: written, read, and read while its writer is at work?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use comsipl_fdb::{Fdb, FileKind, Kind, OpenOptions, Opened, RecordBuf, RecordId};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Payloads: a Linphone's dialog (one record), and a document of two devices (with a chain).
const PAYLOADS: [(&str, usize); 2] = [("dialog 300 B", 300), ("document 1200 B", 1200)];

fn open() -> (tempfile::TempDir, Opened) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for files");
    let options = OpenOptions { records_max: 1 << 14, threads: 1, hash_key: None };
    let path = dir.path().join(FileKind::Presence.file_name());
    let opened = Fdb::open(&path, FileKind::Presence, &options).expect("a new file");
    (dir, opened)
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb");
    group.throughput(Throughput::Elements(1));
    for (name, len) in PAYLOADS {
        let payload = vec![b'x'; len];
        let (_dir, mut opened) = open();
        let partition = &mut opened.partitions[5];
        let slots: Vec<u32> = (0..2000)
            .map(|n| partition.insert(Kind::Publication, &[n; 12], &payload).expect("room"))
            .collect();
        let mut at = 0;
        let mut next = move || {
            at = (at + 797) % 2000;
            at
        };
        group.bench_function(BenchmarkId::new("insert and remove", name), |b| {
            b.iter(|| {
                let slot = partition.insert(Kind::Publication, &[1; 12], &payload).expect("room");
                partition.remove(slot);
            });
        });
        group.bench_function(BenchmarkId::new("update", name), |b| {
            b.iter(|| partition.update(slots[next()], &[2; 12], &payload).expect("room"));
        });
        group.bench_function(BenchmarkId::new("update numbers", name), |b| {
            b.iter(|| partition.update_fixed(slots[next()], &[3; 12]));
        });
        let file = Arc::clone(&opened.file);
        let mut buf = RecordBuf::new();
        group.bench_function(BenchmarkId::new("read, writer idle", name), |b| {
            b.iter(|| file.read(RecordId { partition: 5, slot: slots[next()] }, &mut buf).expect("there"));
        });
        let stop = Arc::new(AtomicBool::new(false));
        let mut partition = opened.partitions.swap_remove(5);
        let (asked, writer_slots) = (Arc::clone(&stop), slots.clone());
        let writer = std::thread::spawn(move || {
            let mut n = 0;
            while !asked.load(Ordering::Relaxed) {
                n = (n + 1) % writer_slots.len();
                partition.update_fixed(writer_slots[n], &[4; 12]);
            }
        });
        group.bench_function(BenchmarkId::new("read, writer busy", name), |b| {
            b.iter(|| file.read(RecordId { partition: 5, slot: slots[next()] }, &mut buf).is_ok());
        });
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer ends");
    }
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);

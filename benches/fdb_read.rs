//! What does it cost to read a record without a lock: while its writer rests, and while it is at work?

use std::sync::atomic::{AtomicBool, Ordering};

use comsipl_benches::record_file::{PAYLOADS, RecordFile};
use comsipl_fdb::{RecordBuf, RecordId};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, read);
criterion_main!(benches);

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/read");
    group.throughput(Throughput::Elements(1));
    for (name, len) in PAYLOADS {
        let RecordFile { file, mut partition, number, slots, .. } = RecordFile::filled(len);
        let mut at = 0;
        let mut next = || {
            at = (at + 797) % slots.len();
            RecordId { partition: number, slot: slots[at] }
        };
        let mut buf = RecordBuf::new();
        group.bench_function(BenchmarkId::new("writer idle", name), |b| {
            b.iter(|| file.read(next(), &mut buf).expect("there"));
        });
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for &slot in slots.iter().cycle() {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    partition.update_fixed(slot, &[4; 12]);
                }
            });
            group.bench_function(BenchmarkId::new("writer busy", name), |b| {
                b.iter(|| file.read(next(), &mut buf).is_ok());
            });
            is_over.store(true, Ordering::Relaxed);
        });
    }
    group.finish();
}

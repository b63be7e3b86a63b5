//! What does it cost to write a record: a new one, another payload, other numbers only?

use comsipl_benches::record_file::{PAYLOADS, RecordFile};
use comsipl_fdb::Kind;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, write);
criterion_main!(benches);

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("fdb/write");
    group.throughput(Throughput::Elements(1));
    for (name, len) in PAYLOADS {
        let payload = vec![b'x'; len];
        let RecordFile { mut partition, slots, .. } = RecordFile::filled(len);
        let mut at = 0;
        let mut next = move || {
            at = (at + 797) % slots.len();
            slots[at]
        };
        group.bench_function(BenchmarkId::new("insert and remove", name), |b| {
            b.iter(|| {
                let slot = partition.insert(Kind::Publication, &[1; 12], &payload).expect("room");
                partition.remove(slot);
            });
        });
        group.bench_function(BenchmarkId::new("update", name), |b| {
            b.iter(|| partition.update(next(), &[2; 12], &payload).expect("room"));
        });
        group.bench_function(BenchmarkId::new("update numbers", name), |b| {
            b.iter(|| partition.update_fixed(next(), &[3; 12]));
        });
    }
    group.finish();
}

//! What does it cost to remember an answer, and to find it again, among those of the last 32 seconds?

use comsipl_benches::{flow, phone};
use comsipl_core::Mono;
use comsipl_core::transaction::{Kept, ServerTransactions, TransactionKey};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ANSWER: Kept<'_> = Kept { start: &[b'x'; 16], has_vias: false, to_tag: b"", rest: &[b'x'; 180] };
const REMEMBERED: u128 = 100_000;

/// Spreads small numbers over all bits, as the keyed hash does.
const fn key(n: u128) -> TransactionKey {
    TransactionKey(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn server(c: &mut Criterion) {
    let mut group = c.benchmark_group("transaction");
    group.throughput(Throughput::Elements(1));
    let mut transactions = ServerTransactions::new(64 << 20);
    for n in 0..REMEMBERED {
        transactions.remember(key(n), flow(phone(1)), &ANSWER, Mono(n as u64));
    }
    let mut n = 0;
    group.bench_function("match, 100k remembered", |b| {
        b.iter(|| {
            n = (n + 7919) % REMEMBERED;
            assert!(transactions.find(key(n)).is_some());
        });
    });
    group.bench_function("no match, 100k remembered", |b| {
        b.iter(|| {
            n += 1;
            assert!(transactions.find(key(n + (1 << 80))).is_none());
        });
    });
    let mut at = REMEMBERED;
    group.bench_function("remember 196 bytes", |b| {
        b.iter(|| {
            at += 1;
            transactions.remember(key(at), flow(phone(1)), &ANSWER, Mono(at as u64 * 320));
        });
    });
    group.finish();
}

criterion_group!(benches, server);
criterion_main!(benches);

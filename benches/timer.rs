//! What does a timer cost when a million are armed?

use comsipl_core::Mono;
use comsipl_core::timer::Wheel;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const TIMERS: u32 = 1_000_000;

fn wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(1));
    let mut wheel = Wheel::new(Mono(0));
    for id in 0..TIMERS {
        wheel.arm(id, Mono(u64::from(id) * 3_600));
    }
    let mut id = 0u32;
    group.bench_function("arm again, 1M armed", |b| {
        b.iter(|| {
            // A multiplicative step visits the timers in no order that the cache could guess.
            id = (id.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)) % TIMERS;
            wheel.arm(id, Mono(3_600_000_000 + u64::from(id)));
        });
    });
    let mut now = 3_600_000_000;
    group.bench_function("fire and arm again, 1M armed", |b| {
        b.iter(|| {
            let fired = loop {
                if let Some(id) = wheel.pop_due(Mono(now)) {
                    break id;
                }
                now += 8_192;
            };
            wheel.arm(fired, Mono(now + 3_600_000_000));
        });
    });
    group.finish();
}

criterion_group!(benches, wheel);
criterion_main!(benches);

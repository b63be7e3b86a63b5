//! What does a whole turn take: a request in, the engine's work, its answer (and NOTIFY) out, the 200 to that in?
//!
//! Sockets are replaced by memory. A turn of one request is what an idle server takes for it; in one of 64 the turn's own
//! cost is shared.

use comsipl_benches::crowd::{Crowd, News};
use comsipl_benches::{OneShard, options, phone, register};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, turns);
criterion_main!(benches);

fn turns(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    for requests in [1usize, 64] {
        group.throughput(Throughput::Elements(requests as u64));
        let mut next = 0;
        let mut numbers = move || {
            next += requests;
            next - requests..next
        };

        let mut world = OneShard::new(RECORDS);
        group.bench_function(format!("{requests} register refresh"), |b| {
            b.iter(|| {
                for n in numbers() {
                    world.deliver(phone(n % USERS), &register(n % USERS, 1 + (n / USERS) as u32));
                }
                world.pass(1);
                world.settle();
            });
        });

        let mut crowd = Crowd::watched(USERS / 10, 10, false);
        group.bench_function(format!("{requests} subscribe refresh, notify"), |b| {
            b.iter(|| {
                numbers().for_each(|n| crowd.refresh(n % USERS));
                crowd.world.pass(1);
                crowd.world.settle();
            });
        });

        for (name, news) in [("publish changed", News::Changed), ("publish refresh", News::Refreshed)] {
            let mut crowd = Crowd::new(USERS, false);
            group.bench_function(format!("{requests} {name}, nobody watches"), |b| {
                b.iter(|| {
                    numbers().for_each(|n| crowd.publish(n % USERS, news));
                    crowd.world.pass(1);
                    crowd.world.settle();
                });
            });
        }

        let mut world = OneShard::new(RECORDS);
        group.bench_function(format!("{requests} options"), |b| {
            b.iter(|| {
                for n in numbers() {
                    world.deliver(phone(n % USERS), &options(n % USERS, n as u32));
                }
                world.pass(1);
                world.settle();
            });
        });
    }
}

/// Phones that take turns.
const USERS: usize = 1000;
/// Records of a partition of each file.
const RECORDS: u32 = 1 << 16;

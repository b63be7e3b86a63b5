//! What does one shard cost per message, its sockets replaced by memory?
//!
//! `notify` is the fan-out: per NOTIFY the stored dialog read, head written, transaction kept, and the watcher's 200 parsed
//! and matched. The others are whole turns: a request in, its answer and NOTIFY out, the 200 of the NOTIFY in.

use comsipl_benches::{OneShard, phone, publish, register, subscribe};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const RECORDS: u32 = 1 << 16;

fn notify(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard/notify");
    for watchers in [1_000usize, 100_000] {
        let mut world = OneShard::new(RECORDS);
        for n in 0..watchers {
            world.deliver(phone(n), &subscribe(n, 0, 1, None));
            if n % 64 == 63 {
                world.settle();
            }
        }
        world.settle();
        world.deliver(phone(0), &publish(0, 1, None, Some("state 0")));
        let mut tag = world.newest_entity_tag().expect("accepted");
        world.settle();
        let mut cseq = 1;
        group.throughput(Throughput::Elements(watchers as u64));
        group.sample_size(20);
        group.bench_function(format!("1x{watchers}"), |b| {
            b.iter(|| {
                cseq += 1;
                world.pass(10);
                world.deliver(phone(0), &publish(0, cseq, Some(&tag), Some(&format!("state {cseq}"))));
                tag = world.newest_entity_tag().expect("accepted");
                world.settle();
            });
        });
        let rounds = u64::from(cseq);
        assert_eq!(world.notifies, watchers as u64 * (rounds + 1), "every watcher is told of every change");
    }
}

fn turns(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard/turn");
    group.throughput(Throughput::Elements(1));

    let mut world = OneShard::new(RECORDS);
    let mut n = 0;
    group.bench_function("subscribe new, notify, answer", |b| {
        b.iter_batched(
            || {
                n += 1;
                (n, subscribe(n, n % 1000, 1, None))
            },
            |(n, message)| {
                world.pass(1);
                world.deliver(phone(n), &message);
                world.end_turn();
                world.answer();
            },
            BatchSize::PerIteration,
        );
    });

    let mut world = OneShard::new(RECORDS);
    world.deliver(phone(0), &subscribe(0, 0, 1, None));
    let tag = world.first_to_tag().expect("accepted");
    world.settle();
    let mut cseq = 1;
    group.bench_function("subscribe refresh, notify, answer", |b| {
        b.iter_batched(
            || {
                cseq += 1;
                subscribe(0, 0, cseq, Some(&tag))
            },
            |message| {
                world.pass(1);
                world.deliver(phone(0), &message);
                world.end_turn();
                world.answer();
            },
            BatchSize::PerIteration,
        );
    });

    let mut world = OneShard::new(RECORDS);
    let mut cseq = 0;
    group.bench_function("register refresh", |b| {
        b.iter_batched(
            || {
                cseq += 1;
                register(0, cseq)
            },
            |message| {
                world.pass(1);
                world.deliver(phone(0), &message);
                world.end_turn();
            },
            BatchSize::PerIteration,
        );
    });

    let mut world = OneShard::new(RECORDS);
    world.deliver(phone(0), &publish(0, 1, None, Some("state 0")));
    let mut tag = world.newest_entity_tag().expect("accepted");
    world.settle();
    let mut cseq = 1;
    group.bench_function("publish modify, no watchers", |b| {
        b.iter(|| {
            cseq += 1;
            world.pass(1);
            world.deliver(phone(0), &publish(0, cseq, Some(&tag), Some(&format!("state {cseq}"))));
            tag = world.newest_entity_tag().expect("accepted");
            world.end_turn();
        });
    });
}

criterion_group!(benches, notify, turns);
criterion_main!(benches);

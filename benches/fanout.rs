//! What does one shard take to tell all watchers of a change, its sockets replaced by memory?
//!
//! For each NOTIFY the stored dialog is read, the head written, a transaction kept, and the watcher's 200 parsed and
//! matched; the PUBLISH is in the time, too. One presentity with few and with very many watchers; many with a few each;
//! all behind one proxy.

use comsipl_benches::crowd::Crowd;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, fanout);
criterion_main!(benches);

fn fanout(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout");
    group.sample_size(20);
    for (presentities, watchers, by_proxy) in
        [(1, 1_000, false), (1, 100_000, false), (100, 100, false), (1_000, 10, false), (100, 100, true)]
    {
        let mut crowd = Crowd::watched(presentities, watchers, by_proxy);
        let before = crowd.world.notifies;
        let mut rounds = 0;
        let way = if by_proxy { ", one proxy" } else { "" };
        group.throughput(Throughput::Elements((presentities * watchers) as u64));
        group.bench_function(format!("{presentities}x{watchers}{way}"), |b| {
            b.iter(|| {
                rounds += 1;
                crowd.world.pass(10);
                crowd.change(0..presentities);
            });
        });
        let told = crowd.world.notifies - before;
        assert_eq!(told, rounds * (presentities * watchers) as u64, "every watcher is told of every change");
    }
}

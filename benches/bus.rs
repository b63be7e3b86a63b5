//! What does it cost to hand a datagram over to the shard that owns it: while that shard is busy, and while it sleeps?
//!
//! `own cost` is the giver's alone, a batch of a turn at a time, with the taker in the same thread. The others are the time
//! until another thread has taken everything: one that looks all the time, and one that sleeps in `poll(2)` and is woken.

use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use comsipl_benches::{flow, phone, subscribe};
use comsipl_shards::bus::{BusEnd, Delivery, Wake, join};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

criterion_group!(benches, own_cost, busy, sleeping);
criterion_main!(benches);

fn own_cost(c: &mut Criterion) {
    let datagram = subscribe(1, 1, 1, None);
    let (mut giver, mut taker, _) = two_ends();
    let mut group = c.benchmark_group("bus");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("own cost, 64 datagrams", |b| {
        b.iter(|| {
            hand_over(&mut giver, BATCH, &datagram);
            assert_eq!(taker.take(usize::MAX, look_at), BATCH);
        });
    });
}

fn busy(c: &mut Criterion) {
    let mut group = c.benchmark_group("bus");
    for count in [1, BATCH] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("busy peer, {count} datagrams until taken"), |b| {
            b.iter_custom(|rounds| rounds_until_taken(rounds, count, false));
        });
    }
}

fn sleeping(c: &mut Criterion) {
    let mut group = c.benchmark_group("bus");
    group.sample_size(20);
    for count in [1, BATCH] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("sleeping peer, {count} datagrams until taken"), |b| {
            b.iter_custom(|rounds| rounds_until_taken(rounds, count, true));
        });
    }
}

/// Hands `count` datagrams over as often as `rounds` says, and waits each time until the other thread has taken them.
fn rounds_until_taken(rounds: u64, count: usize, sleeps: bool) -> Duration {
    let datagram = subscribe(1, 1, 1, None);
    let (mut giver, taker, bell) = two_ends();
    let peer = Peer::default();
    std::thread::scope(|scope| {
        scope.spawn(|| peer.run(taker, &bell, sleeps));
        let mut elapsed = Duration::ZERO;
        for round in 1..=rounds {
            if sleeps {
                peer.await_sleep();
            }
            let began = Instant::now();
            hand_over(&mut giver, count, &datagram);
            while peer.taken.load(Ordering::Acquire) < round * count as u64 {
                std::hint::spin_loop();
            }
            elapsed += began.elapsed();
        }
        peer.is_over.store(true, Ordering::Release);
        bell.wake().expect("the peer can be woken");
        elapsed
    })
}

/// The shard that is handed something.
#[derive(Default)]
struct Peer {
    taken: AtomicU64,
    is_asleep: AtomicBool,
    is_over: AtomicBool,
}

impl Peer {
    fn run(&self, mut end: BusEnd, bell: &Bell, sleeps: bool) {
        while !self.is_over.load(Ordering::Acquire) {
            let taken = end.take(usize::MAX, look_at);
            if taken > 0 {
                self.taken.fetch_add(taken as u64, Ordering::Release);
            } else if sleeps && end.prepare_sleep() {
                self.is_asleep.store(true, Ordering::Release);
                bell.sleep();
                self.is_asleep.store(false, Ordering::Release);
                end.wake_up();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Returns when the peer sleeps, which it says a moment before it does.
    fn await_sleep(&self) {
        while !self.is_asleep.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let said = Instant::now();
        while said.elapsed() < FALLING_ASLEEP {
            std::hint::spin_loop();
        }
    }
}

/// What wakes the peer: an event counter, as the server's event loop has it.
struct Bell(OwnedFd);

impl Bell {
    fn sleep(&self) {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None).expect("poll");
        rustix::io::read(&self.0, &mut [0; 8]).expect("what was rung");
    }
}

impl Wake for Bell {
    fn wake(&self) -> io::Result<()> {
        rustix::io::write(self.0.as_fd(), &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// The ends of two shards, and what wakes the second.
fn two_ends() -> (BusEnd, BusEnd, Arc<Bell>) {
    let bell = || Arc::new(Bell(eventfd(0, EventfdFlags::CLOEXEC).expect("an event counter")));
    let (first, second) = (bell(), bell());
    let wakers: [Arc<dyn Wake>; 2] = [first, Arc::clone(&second) as Arc<dyn Wake>];
    let mut ends = join(&wakers).into_iter();
    let (Some(giver), Some(taker)) = (ends.next(), ends.next()) else { panic!("two were joined") };
    (giver, taker, second)
}

fn hand_over(giver: &mut BusEnd, count: usize, datagram: &[u8]) {
    for _ in 0..count {
        assert!(giver.hand_over(1, flow(phone(1)), datagram), "the lane has room");
    }
    giver.flush().expect("the peer can be woken");
}

fn look_at(item: Delivery<'_>) {
    black_box(item);
}

/// Datagrams of one receive batch.
const BATCH: usize = 64;
/// How long falling asleep takes at most.
const FALLING_ASLEEP: Duration = Duration::from_micros(30);

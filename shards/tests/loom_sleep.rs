//! A model check of the flag by which shards are woken: over all interleavings and all effects of weak memory, an item is
//! never left to a shard that sleeps for ever.

/// What `sleep.rs` takes from the crate, with loom's atomics in its place.
mod sync {
    pub use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

#[path = "../src/sleep.rs"]
mod sleep;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use sleep::SleepFlag;
use sync::Ordering;

/// What the threads share. The queues and the descriptor are relaxed numbers, so that nothing but the flag orders them.
struct Shared {
    flag: SleepFlag,
    /// Items put in.
    items: [AtomicUsize; 2],
    /// Whether the descriptor behind the waker is readable.
    woken: AtomicUsize,
}

impl Shared {
    fn new() -> Arc<Self> {
        let items = [AtomicUsize::new(0), AtomicUsize::new(0)];
        Arc::new(Self { flag: SleepFlag::new(), items, woken: AtomicUsize::new(0) })
    }

    fn put(&self, writer: usize) {
        self.items[writer].store(1, Ordering::Relaxed);
        if self.flag.take_sleeper() {
            self.woken.store(1, Ordering::Relaxed);
        }
    }

    fn holds_items(&self) -> bool {
        self.items.iter().any(|items| items.load(Ordering::Relaxed) != 0)
    }
}

#[test]
fn an_item_is_seen_or_wakes() {
    loom::model(|| {
        let shared = Shared::new();
        let writer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.put(0)
        });
        shared.flag.prepare_sleep();
        let sleeps = !shared.holds_items();
        writer.join().unwrap();
        // The writer is done, so what it did not do by now it never does.
        let woken = shared.woken.load(Ordering::Relaxed) != 0;
        assert!(!sleeps || woken, "the shard sleeps for ever and an item waits");
    });
}

#[test]
fn of_two_writers_at_least_one_wakes() {
    loom::model(|| {
        let shared = Shared::new();
        let writers = [0, 1].map(|number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.put(number))
        });
        shared.flag.prepare_sleep();
        let sleeps = !shared.holds_items();
        for writer in writers {
            writer.join().unwrap();
        }
        let woken = shared.woken.load(Ordering::Relaxed) != 0;
        assert!(!sleeps || woken, "the shard sleeps for ever and an item waits");
    });
}

#[test]
fn the_next_sleep_is_ended_as_well() {
    loom::model(|| {
        let shared = Shared::new();
        let writer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.put(0)
        });
        // A sleep that something else ended.
        shared.flag.prepare_sleep();
        shared.flag.stay_awake();
        // And another.
        shared.flag.prepare_sleep();
        let sleeps = !shared.holds_items();
        writer.join().unwrap();
        let woken = shared.woken.load(Ordering::Relaxed) != 0;
        assert!(!sleeps || woken, "the shard sleeps for ever and an item waits");
    });
}

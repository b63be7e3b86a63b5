//! A model check of the table of meters: over all interleavings, nothing that is added to a meter is lost.

/// What `meters.rs` takes from the crate, with loom's atomics in its place.
mod sync {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(dead_code, reason = "its unit tests and bounds belong to the crate")]
#[path = "../src/auth/meters.rs"]
mod meters;

use loom::sync::Arc;
use loom::thread;

use meters::{Meter, Meters};

/// Somebody of the only group.
const fn whose(n: u64) -> u64 {
    n << 51
}

fn add(meters: &Meters, whose: u64) {
    meters.change(whose, 0, |meter| (Meter { level: meter.level + 10, ..meter }, ()));
}

#[test]
fn two_shards_that_count_for_one_source_count_both() {
    loom::model(|| {
        let meters = Arc::new(Meters::new(1));
        let other = Arc::clone(&meters);
        let thread = thread::spawn(move || add(&other, whose(1)));
        add(&meters, whose(1));
        thread.join().unwrap();
        assert_eq!(meters.read(whose(1), 0).level, 20);
    });
}

#[test]
fn two_sources_that_come_at_once_both_have_a_place() {
    loom::model(|| {
        let meters = Arc::new(Meters::new(1));
        let other = Arc::clone(&meters);
        let thread = thread::spawn(move || add(&other, whose(1)));
        add(&meters, whose(2));
        thread.join().unwrap();
        assert_eq!((meters.read(whose(1), 0).level, meters.read(whose(2), 0).level), (10, 10));
    });
}

#[test]
fn going_beyond_a_bound_is_seen_by_one_alone() {
    loom::model(|| {
        let meters = Arc::new(Meters::new(1));
        let mark = |meters: &Meters| {
            meters.change(whose(1), 0, |meter| (Meter { level: 10, marked: true }, !meter.marked))
        };
        let other = Arc::clone(&meters);
        let thread = thread::spawn(move || mark(&other));
        let here = mark(&meters);
        assert!(here != thread.join().unwrap());
    });
}

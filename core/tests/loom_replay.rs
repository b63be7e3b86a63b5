//! A model check of the table of nonce counts: over all interleavings, a count of a nonce is taken once at most.

/// What `replay.rs` takes from the crate, with loom's atomics in its place.
mod sync {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(dead_code, reason = "its unit tests and bounds belong to the crate")]
#[path = "../src/auth/replay.rs"]
mod replay;

use loom::sync::Arc;
use loom::thread;

use replay::SpentCounts;

#[test]
fn a_count_that_two_shards_see_at_once_is_taken_by_one() {
    loom::model(|| {
        let table = Arc::new(SpentCounts::new(1));
        let other = Arc::clone(&table);
        let thread = thread::spawn(move || other.spend(0, 100, 1));
        let here = table.spend(0, 100, 1);
        let there = thread.join().unwrap();
        assert!(here != there, "exactly one of them");
        assert!(!table.spend(0, 100, 1));
    });
}

#[test]
fn different_counts_do_not_hinder_one_another() {
    loom::model(|| {
        let table = Arc::new(SpentCounts::new(1));
        let other = Arc::clone(&table);
        let thread = thread::spawn(move || other.spend(0, 100, 2));
        assert!(table.spend(0, 100, 1));
        assert!(thread.join().unwrap());
        assert!(!table.spend(0, 100, 1) && !table.spend(0, 100, 2));
    });
}

#[test]
fn a_displaced_nonce_never_comes_back() {
    loom::model(|| {
        let table = Arc::new(SpentCounts::new(1));
        assert!(table.spend(0, 100, 1));
        let other = Arc::clone(&table);
        let thread = thread::spawn(move || other.spend(1, 5000, 1));
        assert!(!table.spend(0, 100, 1), "used before, whether or not it has been displaced");
        assert!(thread.join().unwrap());
        assert!(!table.spend(0, 100, 2) && !table.spend(1, 5000, 1));
    });
}

//! The table of nonce counts, without threads. (Its model check compiles the table alone: `core/tests/loom_replay.rs`.)

use super::replay::{COUNT_MAX, MADE_MAX, SpentCounts, UNIT_MS};

#[test]
fn a_count_is_taken_once() {
    let table = SpentCounts::new(8);
    assert!(table.spend(3, 1000, 1));
    assert!(!table.spend(3, 1000, 1));
    assert!(table.spend(3, 1000, 2));
    assert!(!table.spend(3, 1000, 2) && !table.spend(3, 1000, 1));
    assert!(!table.spend(3, 1000, 0), "counts begin at one");
}

#[test]
fn counts_may_overtake_one_another_within_the_window() {
    let table = SpentCounts::new(8);
    assert!(table.spend(3, 1000, 20));
    for count in (5..20).rev() {
        assert!(table.spend(3, 1000, count), "{count}");
        assert!(!table.spend(3, 1000, count), "{count} again");
    }
    assert!(!table.spend(3, 1000, 4), "behind the window nothing is known");
    assert!(table.spend(3, 1000, 22));
    assert!(!table.spend(3, 1000, 20) && table.spend(3, 1000, 21) && !table.spend(3, 1000, 7));
    assert!(table.spend(3, 1000, 4000));
    assert!(!table.spend(3, 1000, 22) && table.spend(3, 1000, 3985) && !table.spend(3, 1000, 3984));
    assert!(table.spend(3, 1000, COUNT_MAX) && !table.spend(3, 1000, COUNT_MAX + 1));
    assert!(!table.spend(3, 1000, u32::MAX));
}

#[test]
fn the_newer_nonce_takes_the_slot_and_the_older_is_stale() {
    let table = SpentCounts::new(8);
    assert!(table.spend(3, 1000, 1));
    assert!(table.spend(11, 2000, 1), "another nonce of the same slot");
    assert!(!table.spend(3, 1000, 1) && !table.spend(3, 1000, 2));
    assert!(!table.spend(11, 2000, 1) && table.spend(11, 2000, 2));
    assert!(table.spend(4, 0, 1), "its neighbour does not mind, nor does the first moment");
    assert!(!table.spend(4, 0, 1));
}

#[test]
fn nonces_of_one_moment_and_slot_are_taken_for_one() {
    let table = SpentCounts::new(8);
    assert!(table.spend(3, 1600, 1));
    assert!(!table.spend(11, 1601, 1));
    assert!(table.spend(11, 1616, 1));
}

#[test]
fn the_end_of_time_is_refused_and_not_taken_for_its_beginning() {
    let table = SpentCounts::new(1);
    assert!(table.spend(0, (MADE_MAX - 1) * UNIT_MS, 1));
    assert!(!table.spend(0, MADE_MAX * UNIT_MS, 1) && !table.spend(0, u64::MAX, 1));
}

//! The table of meters, without threads. (Its model check compiles the table alone: `core/tests/loom_meters.rs`.)

use super::meters::{Meter, Meters, WAYS};

/// Somebody of the first group of a small table.
const fn whose(n: u64) -> u64 {
    n << 51
}

fn add(meters: &Meters, whose: u64, now: u64, level: u64) -> u64 {
    meters.change(whose, now, |meter| {
        let after = Meter { level: meter.level + level, ..meter };
        (after, after.level)
    })
}

#[test]
fn a_meter_runs_dry_by_itself() {
    let meters = Meters::new(WAYS);
    assert_eq!(add(&meters, whose(1), 1000, 500), 500);
    assert_eq!(add(&meters, whose(1), 1100, 500), 900);
    assert_eq!(meters.read(whose(1), 1200).level, 800);
    assert_eq!(meters.read(whose(2), 1200).level, 0, "others do not mind");
    assert_eq!(meters.read(whose(1), 2000), Meter::default());
    assert_eq!(add(&meters, whose(1), 9000, 7), 7);
}

#[test]
fn a_mark_lasts_as_long_as_the_meter() {
    let meters = Meters::new(WAYS);
    meters.change(whose(1), 0, |_| (Meter { level: 50, marked: true }, ()));
    assert_eq!(meters.read(whose(1), 49), Meter { level: 1, marked: true });
    assert_eq!(meters.read(whose(1), 50), Meter::default());
    assert_eq!(add(&meters, whose(1), 60, 1), 1);
    assert!(!meters.read(whose(1), 60).marked);
}

#[test]
fn who_is_new_takes_the_place_of_who_has_done_least_and_is_not_marked() {
    let meters = Meters::new(1);
    meters.change(whose(0), 0, |_| (Meter { level: 1, marked: true }, ()));
    for n in 1..WAYS as u64 {
        add(&meters, whose(n), 0, 100 + n);
    }
    add(&meters, whose(100), 0, 1000);
    assert_eq!(meters.read(whose(1), 0).level, 0, "had done least");
    for n in 2..WAYS as u64 {
        assert_eq!(meters.read(whose(n), 0).level, 100 + n);
    }
    assert!(meters.read(whose(0), 0).marked);
    add(&meters, whose(101), 1, 1000);
    assert_eq!(meters.read(whose(2), 1).level, 101, "the marked one has run dry meanwhile");
    assert_eq!(meters.read(whose(101), 1).level, 1000);
}

#[test]
fn the_first_moment_and_the_hash_zero_are_like_others() {
    let meters = Meters::new(WAYS);
    assert_eq!(meters.read(0, 0), Meter::default());
    assert_eq!(add(&meters, 0, 0, 10), 10);
    assert_eq!(add(&meters, 0, 0, 10), 20);
    assert_eq!(add(&meters, u64::MAX, u64::MAX, u64::MAX >> 1), u64::MAX >> 1);
    assert_eq!(meters.read(u64::MAX, u64::MAX), Meter::default(), "there is no time behind the last moment");
}

#[test]
fn a_table_without_meters_counts_nothing() {
    let meters = Meters::new(0);
    assert_eq!(add(&meters, 7, 0, 5), 5);
    assert_eq!(add(&meters, 7, 0, 5), 5);
    assert_eq!(meters.read(7, 0), Meter::default());
}

//! What the bus promises: order, bounds, and that nothing noted is lost.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::lane::{BATCH_BYTES, BATCH_BYTES_MAX};
use super::*;

#[test]
fn items_of_a_pair_arrive_in_order() {
    let (mut ends, _) = bus(3, 16);
    ends[0].tell(2, changed(1, 1));
    assert!(ends[0].hand_over(2, flow(7), b"REGISTER"));
    assert!(ends[0].report(2, &Report { key: AorKey(5), shard: 0, bytes: b"bob".to_vec() }));
    ends[0].tell(2, changed(2, 1));
    ends[1].tell(2, changed(3, 1));
    assert!(ends[2].is_empty(), "nothing is published yet");
    flush(&mut ends);
    let taken = take_all(&mut ends[2], 100);
    assert_eq!(taken.len(), 5);
    let of_first: Vec<_> = taken.iter().filter(|it| **it != "changed 3 v1").collect();
    assert_eq!(of_first, ["changed 1 v1", "7 REGISTER", "report 5 of 0 bob", "changed 2 v1"]);
    assert!(take_all(&mut ends[1], 100).is_empty());
}

#[test]
fn what_datagrams_will_look_at_is_told_before_the_first_of_a_batch() {
    let (mut ends, _) = bus(2, 16);
    for user in 1..=3 {
        assert!(ends[0].hand_over_ahead(1, flow(5), Some(Ahead::Bindings(AorKey(user))), b"REGISTER"));
    }
    assert!(ends[0].hand_over(1, flow(5), b"SUBSCRIBE"));
    flush(&mut ends);
    let mut taken = Vec::new();
    while !ends[1].is_empty() {
        taken.extend(take_all(&mut ends[1], 2));
    }
    // They do not count for the bound, or a turn would take less.
    assert_eq!(
        taken,
        ["ahead 1", "ahead 2", "ahead 3", "5 REGISTER", "5 REGISTER", "5 REGISTER", "5 SUBSCRIBE"]
    );
    assert_eq!(take_all(&mut ends[1], 2), [""; 0]);
}

#[test]
fn a_turn_takes_no_more_than_its_bound_and_is_fair() {
    let (mut ends, _) = bus(3, 16);
    for version in 0..10 {
        ends[1].tell(0, changed(1, version));
        ends[2].tell(0, changed(2, version));
    }
    flush(&mut ends);
    let mut seen = Vec::new();
    for _ in 0..4 {
        assert_eq!(take_all(&mut ends[0], 4).len(), 4);
        seen.push(ends[0].is_empty());
    }
    assert_eq!(seen, [false; 4]);
    assert_eq!(take_all(&mut ends[0], 100).len(), 4);
    assert!(ends[0].is_empty());
}

#[test]
fn a_batch_is_published_when_it_is_full() {
    let (mut ends, _) = bus(2, 1024);
    for number in 0..BATCH_ITEMS {
        assert!(ends[1].is_empty(), "{number} items do not fill a batch");
        assert!(ends[0].hand_over(1, flow(1), b"a"));
    }
    assert!(!ends[1].is_empty());
    assert_eq!(take_all(&mut ends[1], 1000).len(), BATCH_ITEMS);
    assert!(ends[0].hand_over(1, flow(1), &vec![b'x'; BATCH_BYTES]));
    assert_eq!(take_all(&mut ends[1], 1000).len(), 1);
}

#[test]
fn a_full_lane_drops_datagrams_but_no_note() {
    let (mut ends, _) = bus(2, 2);
    for round in 0..2 {
        // The first round fills the one batch that the lane queues, the second the batch behind it.
        assert!(ends[0].hand_over(1, flow(1), b"a"), "{round}");
        assert!(ends[0].hand_over(1, flow(2), b"b"), "{round}");
        ends[0].flush().unwrap();
    }
    assert!(!ends[0].hand_over(1, flow(3), b"c"));
    ends[0].tell(1, Note::Watch { key: AorKey(9), shard: 0, package: 1 });
    for version in 1..=50 {
        ends[0].tell(1, changed(1, version));
        ends[0].tell(1, changed(2, 100 - version));
    }
    ends[0].tell(1, Note::Unwatch { key: AorKey(9), shard: 0 });
    assert_eq!(ends[0].to[1].backlog_len(), 3, "one for each subject");
    assert!(ends[0].flush().unwrap(), "still full");
    assert!(ends[0].waits_for_room());

    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.extend(take_all(&mut ends[1], 100));
        ends[0].flush().unwrap();
    }
    assert_eq!(taken, ["1 a", "2 b", "1 a", "2 b", "unwatch 9", "changed 1 v50", "changed 2 v99"]);
    assert!(!ends[0].flush().unwrap());
    assert!(!ends[0].waits_for_room());
}

#[test]
fn what_is_to_be_sent_finds_room_where_datagrams_do_not() {
    let (mut ends, _) = bus(2, 2);
    let mut handed_over = 0;
    while ends[0].hand_over(1, flow(1), b"a") {
        ends[0].flush().unwrap();
        handed_over += 1;
    }
    let mut sent = 0;
    while ends[0].send(1, flow(2), &[b"b", b"", b"c"]) {
        sent += 1;
    }
    assert_eq!((handed_over, sent), (3, 6), "the open batch takes two datagrams, and eight items in all");
    let mut taken = Vec::new();
    while ends[0].waits_for_room() || !ends[1].is_empty() {
        taken.extend(take_all(&mut ends[1], 100));
        ends[0].flush().unwrap();
    }
    assert_eq!(taken[3..], ["send 2 bc"; 6]);
}

#[test]
fn a_note_never_overtakes_one_that_waits() {
    let (mut ends, _) = bus(2, 1);
    for user in 1..=3 {
        ends[0].tell(1, changed(user, 1));
        ends[0].flush().unwrap();
    }
    assert_eq!(ends[0].to[1].backlog_len(), 1, "one is queued, one is in the open batch");
    assert_eq!(take_all(&mut ends[1], 100), ["changed 1 v1"]);
    ends[0].tell(1, changed(4, 1)); // there is room, but it is not its turn
    let mut taken = Vec::new();
    for _ in 0..3 {
        ends[0].flush().unwrap();
        taken.extend(take_all(&mut ends[1], 100));
    }
    assert_eq!(taken, ["changed 2 v1", "changed 3 v1", "changed 4 v1"]);
}

#[test]
fn a_batch_that_finds_its_lane_full_is_bounded_in_bytes() {
    let (mut ends, _) = bus(2, 4096);
    let huge = vec![b'x'; BATCH_BYTES];
    let mut taken_over = 0;
    while ends[0].hand_over(1, flow(1), &huge) {
        taken_over += 1;
    }
    assert_eq!(taken_over, 4096 / BATCH_ITEMS + BATCH_BYTES_MAX / BATCH_BYTES);
    assert_eq!(take_all(&mut ends[1], 10_000).len(), 4096 / BATCH_ITEMS);
    ends[0].flush().unwrap();
    assert_eq!(take_all(&mut ends[1], 10_000).len(), BATCH_BYTES_MAX / BATCH_BYTES);
}

#[test]
fn batches_come_back_and_huge_ones_shrink() {
    let (mut ends, _) = bus(2, 4 * BATCH_ITEMS);
    let huge = vec![b'x'; 60_000];
    for round in 0..20 {
        let fill = |to: &mut BusEnd| {
            let mut count = 0;
            while to.hand_over(1, flow(1), if round == 0 { &huge } else { b"small" }) {
                count += 1;
            }
            count
        };
        let count = fill(&mut ends[0]);
        assert!(round == 0 || count == 2 * 4 * BATCH_ITEMS, "{count}");
        let mut taken = 0;
        while ends[0].waits_for_room() || !ends[1].is_empty() {
            taken += take_all(&mut ends[1], 1000).len();
            ends[0].flush().unwrap();
        }
        assert_eq!(taken, count);
    }
    assert!(take_all(&mut ends[1], 1).is_empty());
    let lane = &ends[0].to[1];
    let (pool_len, returned) = lane.pool();
    assert!(pool_len <= 4 + 2);
    assert_eq!(returned.len(), pool_len);
    for (bytes, items) in returned {
        assert!(bytes <= 2 * BATCH_BYTES && items <= 2 * BATCH_ITEMS);
    }
}

#[test]
fn a_sleeper_is_woken_once_and_only_when_it_sleeps() {
    let (mut ends, woken) = bus(2, 16);
    ends[0].tell(1, changed(1, 1));
    ends[0].flush().unwrap();
    assert_eq!(woken[1].load(Ordering::Relaxed), 0, "awake");
    assert!(!ends[1].prepare_sleep(), "there is something to take");
    take_all(&mut ends[1], 100);
    assert!(ends[1].prepare_sleep());
    ends[0].tell(1, changed(1, 2));
    ends[0].tell(1, changed(1, 3));
    ends[0].flush().unwrap();
    ends[0].tell(1, changed(1, 4));
    ends[0].flush().unwrap();
    assert_eq!(woken[1].load(Ordering::Relaxed), 1);
    ends[1].wake_up();
    assert_eq!(woken[0].load(Ordering::Relaxed), 0);
    ends[0].flush().unwrap();
    assert_eq!(woken[1].load(Ordering::Relaxed), 1, "nothing new");
}

#[test]
fn no_wake_up_is_lost_under_load() {
    // Two shards throw a note to and fro, and each sleeps without a limit between throws: a lost wake-up would
    // leave both asleep, which the limit on the whole turns into a failure.
    const THROWS: u64 = 50_000;
    let polls: Vec<_> = (0..2).map(|_| mio::Poll::new().unwrap()).collect();
    let wakers: Vec<Arc<dyn Wake>> = polls
        .iter()
        .map(|poll| Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap()) as Arc<dyn Wake>)
        .collect();
    let ends = join_with_lane_len(&wakers, 4);
    let (done, wait) = std::sync::mpsc::channel();
    for (index, (mut end, mut poll)) in ends.into_iter().zip(polls).enumerate() {
        let done = done.clone();
        std::thread::spawn(move || {
            let mut events = mio::Events::with_capacity(4);
            let mut newest = 0;
            if index == 0 {
                end.tell(1, changed(1, 1));
                end.flush().unwrap();
            }
            while newest < THROWS {
                if end.prepare_sleep() {
                    poll.poll(&mut events, None).unwrap();
                    end.wake_up();
                }
                let before = newest;
                end.take(100, |delivery| {
                    if let Delivery::Note(Note::Changed { version, .. }) = delivery {
                        newest = version;
                    }
                });
                if newest > before {
                    end.tell(1 - index, changed(1, newest + 1));
                    end.flush().unwrap();
                }
            }
            done.send(index).unwrap();
        });
    }
    for _ in 0..2 {
        wait.recv_timeout(std::time::Duration::from_secs(60)).expect("somebody sleeps on");
    }
}

struct Counter(Arc<AtomicUsize>);

impl Wake for Counter {
    fn wake(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn bus(shards: usize, lane_len: usize) -> (Vec<BusEnd>, Vec<Arc<AtomicUsize>>) {
    let woken: Vec<_> = (0..shards).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let wakers: Vec<Arc<dyn Wake>> =
        woken.iter().map(|count| Arc::new(Counter(Arc::clone(count))) as Arc<dyn Wake>).collect();
    (join_with_lane_len(&wakers, lane_len), woken)
}

fn flush(ends: &mut [BusEnd]) {
    for end in ends {
        end.flush().unwrap();
    }
}

fn take_all(end: &mut BusEnd, bound: usize) -> Vec<String> {
    let mut taken = Vec::new();
    end.take(bound, |delivery| {
        taken.push(match delivery {
            Delivery::Ahead(Ahead::Bindings(key) | Ahead::Publications(key)) => {
                format!("ahead {}", key.0)
            }
            Delivery::Note(Note::Watch { key, .. }) => format!("watch {}", key.0),
            Delivery::Note(Note::Unwatch { key, .. }) => format!("unwatch {}", key.0),
            Delivery::Note(Note::Changed { key, version }) => format!("changed {} v{version}", key.0),
            Delivery::Note(
                note @ (Note::Unsent { .. }
                | Note::FlowRenewed { .. }
                | Note::FlowWanted { .. }
                | Note::FlowFound { .. }
                | Note::WinfoWanted { .. }),
            ) => format!("{note:?}"),
            Delivery::Report { key, shard, bytes } => {
                format!("report {} of {shard} {}", key.0, String::from_utf8_lossy(bytes))
            }
            Delivery::Send { flow, bytes } => {
                format!("send {} {}", flow.peer.port(), String::from_utf8_lossy(bytes))
            }
            Delivery::Packet { flow, bytes } => {
                format!("{} {}", flow.peer.port(), String::from_utf8_lossy(bytes))
            }
        });
    });
    taken
}

fn changed(key: u128, version: u64) -> Note {
    Note::Changed { key: AorKey(key), version }
}

fn flow(port: u16) -> Flow {
    Flow::udp(0, None, (std::net::Ipv4Addr::LOCALHOST, port).into())
}

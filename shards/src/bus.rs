//! What shards hand to one another: datagrams that another shard owns, and notes.
//!
//! For each pair of shards there is one queue, written by one and read by the other, so items of a pair arrive in order.
//! Nobody waits for anybody:
//!   * a datagram that finds the queue full is dropped and counted; SIP over UDP retransmits;
//!   * a note is never lost: it waits in a backlog of the writer, and everything noted later waits behind it. The
//!     backlog keeps one entry for each subject (the newest tells all), so it is bounded by the users there are.
//!
//! Buffers of datagrams go back by a second queue, so that handing over allocates nothing once the pool is warm. A pool
//! holds no more buffers than its queue, which is why giving back never finds the way full.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use comsipl_core::{AorKey, Flow};
use crossbeam::queue::ArrayQueue;

use crate::note::Note;
use crate::sleep::SleepFlag;

/// A datagram on its way to its owner.
#[derive(Debug)]
pub struct Packet {
    /// Where it came from.
    pub flow: Flow,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// What travels from shard to shard.
#[derive(Debug)]
pub enum Item {
    /// Something to know.
    Note(Note),
    /// Something to handle.
    Packet(Box<Packet>),
}

/// What a shard takes from the bus.
#[derive(Clone, Copy, Debug)]
pub enum Delivery<'a> {
    /// Something to know.
    Note(Note),
    /// Something to handle.
    Packet(&'a Packet),
}

/// How the bus wakes a shard that sleeps.
pub trait Wake: Send + Sync {
    /// Ends the shard's sleep, or its next one.
    ///
    /// # Errors
    /// What the system says.
    fn wake(&self) -> io::Result<()>;
}

impl Wake for mio::Waker {
    fn wake(&self) -> io::Result<()> {
        Self::wake(self)
    }
}

/// The queue of one pair of shards.
struct Lane {
    items: ArrayQueue<Item>,
    returned: ArrayQueue<Box<Packet>>,
}

/// One shard's end of the bus.
pub struct BusEnd {
    /// To each shard, in the order of the shards; the lane to itself is never used.
    to: Vec<LaneTo>,
    /// From each shard.
    from: Vec<Arc<Lane>>,
    /// Ours.
    sleep: Arc<SleepFlag>,
    /// Whose items are looked at first in the next turn.
    first: usize,
}

/// The writing side of a lane.
struct LaneTo {
    lane: Arc<Lane>,
    sleep: Arc<SleepFlag>,
    waker: Arc<dyn Wake>,
    /// Whether something was put in since the last wake-up.
    touched: bool,
    backlog: Backlog,
    /// Packets made for this lane so far.
    pool_len: usize,
}

/// Joins as many shards as there are `wakers`.
#[must_use]
pub fn join(wakers: &[Arc<dyn Wake>]) -> Vec<BusEnd> {
    join_with_lane_len(wakers, (TOTAL_LEN / wakers.len().max(1)).clamp(LANE_LEN_MIN, LANE_LEN_MAX))
}

/// Joins as many shards as there are `wakers`, by lanes of `lane_len` items.
#[must_use]
pub fn join_with_lane_len(wakers: &[Arc<dyn Wake>], lane_len: usize) -> Vec<BusEnd> {
    let shards = wakers.len();
    let sleeps: Vec<_> = (0..shards).map(|_| Arc::new(SleepFlag::new())).collect();
    let lane = |from: usize, to: usize| {
        let lane_len = if from == to { 1 } else { lane_len };
        Arc::new(Lane { items: ArrayQueue::new(lane_len), returned: ArrayQueue::new(lane_len) })
    };
    let lanes: Vec<Vec<_>> = (0..shards).map(|from| (0..shards).map(|to| lane(from, to)).collect()).collect();
    (0..shards)
        .map(|index| BusEnd {
            to: (0..shards)
                .map(|to| LaneTo {
                    lane: Arc::clone(&lanes[index][to]),
                    sleep: Arc::clone(&sleeps[to]),
                    waker: Arc::clone(&wakers[to]),
                    touched: false,
                    backlog: Backlog::default(),
                    pool_len: 0,
                })
                .collect(),
            from: (0..shards).map(|from| Arc::clone(&lanes[from][index])).collect(),
            sleep: Arc::clone(&sleeps[index]),
            first: 0,
        })
        .collect()
}

impl BusEnd {
    /// Hands a datagram to shard `to`; `false`: its queue is full and the datagram is lost.
    #[must_use]
    pub fn hand_over(&mut self, to: usize, flow: Flow, bytes: &[u8]) -> bool {
        let lane = &mut self.to[to];
        let mut packet = match lane.lane.returned.pop() {
            Some(packet) => packet,
            None if lane.pool_len < lane.lane.items.capacity() => {
                lane.pool_len += 1;
                Box::new(Packet { flow, bytes: Vec::with_capacity(PACKET_LEN_USUAL) })
            }
            None => return false,
        };
        packet.flow = flow;
        packet.bytes.clear();
        packet.bytes.extend_from_slice(bytes);
        match lane.lane.items.push(Item::Packet(packet)) {
            Ok(()) => {
                lane.touched = true;
                true
            }
            Err(item) => {
                lane.touched = true;
                if let Item::Packet(packet) = item {
                    give_back(&lane.lane, packet);
                }
                false
            }
        }
    }

    /// Tells shard `to` something. It may wait here until [`Self::flush`] finds room.
    pub fn tell(&mut self, to: usize, note: Note) {
        let lane = &mut self.to[to];
        lane.touched = true;
        if !lane.backlog.is_empty() || lane.lane.items.push(Item::Note(note)).is_err() {
            lane.backlog.add(note);
        }
    }

    /// Puts waiting notes into queues that have room, and wakes every shard that was given something since the last
    /// call and sleeps. Called once a turn. Returns whether notes still wait.
    ///
    /// # Errors
    /// What the system says of a wake-up; the shard would sleep on, so this is fatal.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut waiting = false;
        for lane in &mut self.to {
            while let Some(note) = lane.backlog.first() {
                lane.touched = true;
                if lane.lane.items.push(Item::Note(note)).is_err() {
                    waiting = true;
                    break;
                }
                lane.backlog.remove_first();
            }
            if std::mem::take(&mut lane.touched) && lane.sleep.take_sleeper() {
                lane.waker.wake()?;
            }
        }
        Ok(waiting)
    }

    /// Takes at most `bound` items that others put in, those of one shard in their order, and returns how many.
    pub fn take(&mut self, bound: usize, mut deliver: impl FnMut(Delivery<'_>)) -> usize {
        let shards = self.from.len();
        let mut taken = 0;
        for step in 0..shards {
            let from = &self.from[(self.first + step) % shards];
            while taken < bound {
                let Some(item) = from.items.pop() else { break };
                taken += 1;
                match item {
                    Item::Note(note) => deliver(Delivery::Note(note)),
                    Item::Packet(packet) => {
                        deliver(Delivery::Packet(&packet));
                        give_back(from, packet);
                    }
                }
            }
        }
        self.first = (self.first + 1) % shards.max(1);
        taken
    }

    /// Whether nobody put in anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from.iter().all(|lane| lane.items.is_empty())
    }

    /// How many notes wait for room.
    #[must_use]
    pub fn notes_waiting(&self) -> usize {
        self.to.iter().map(|lane| lane.backlog.notes.len()).sum()
    }

    /// Prepares to sleep; `false`: there is something to take, so do not.
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
        self.sleep.prepare_sleep();
        let may_sleep = self.is_empty();
        if !may_sleep {
            self.sleep.stay_awake();
        }
        may_sleep
    }

    /// To be called after a sleep.
    pub fn wake_up(&self) {
        self.sleep.stay_awake();
    }
}

/// Gives a buffer back to the shard that filled it.
fn give_back(lane: &Lane, mut packet: Box<Packet>) {
    if packet.bytes.capacity() > PACKET_LEN_KEPT_MAX {
        packet.bytes = Vec::with_capacity(PACKET_LEN_USUAL);
    }
    let given_back = lane.returned.push(packet);
    debug_assert!(given_back.is_ok(), "a pool is no larger than its return queue");
}

/// Notes that wait for room in a queue: the first subject first, and of each subject only the newest note.
#[derive(Debug, Default)]
struct Backlog {
    order: VecDeque<Subject>,
    notes: BTreeMap<Subject, Note>,
}

/// What a note is about. Of two notes with one subject the newer makes the older needless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Whether a shard has watchers of a presentity.
    Watched(AorKey, u8),
    /// The version of a presentity's document.
    Version(AorKey),
}

impl Backlog {
    fn add(&mut self, note: Note) {
        let subject = match note {
            Note::Watch { key, shard } | Note::Unwatch { key, shard } => Subject::Watched(key, shard),
            Note::Changed { key, .. } => Subject::Version(key),
        };
        match self.notes.get_mut(&subject) {
            None => {
                self.notes.insert(subject, note);
                self.order.push_back(subject);
            }
            Some(waiting) => match (*waiting, note) {
                (Note::Changed { version: old, .. }, Note::Changed { version: new, .. }) if new < old => {}
                _ => *waiting = note,
            },
        }
    }

    fn first(&self) -> Option<Note> {
        self.order.front().map(|subject| self.notes[subject])
    }

    fn remove_first(&mut self) {
        if let Some(subject) = self.order.pop_front() {
            self.notes.remove(&subject);
        }
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Items that may wait for one shard, over all lanes to it: at 200,000 a second, 80 ms.
const TOTAL_LEN: usize = 16 * 1024;
/// A lane must hold at least a few receive batches.
const LANE_LEN_MIN: usize = 256;
/// More would only make old items older.
const LANE_LEN_MAX: usize = 4096;

/// First capacity of a packet: most SIP messages fit.
const PACKET_LEN_USUAL: usize = 2048;
/// Larger buffers are not kept, so that a burst of huge datagrams is not paid for ever.
const PACKET_LEN_KEPT_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use comsipl_core::Transport;

    use super::*;

    #[test]
    fn items_of_a_pair_arrive_in_order() {
        let (mut ends, _) = bus(3, 16);
        ends[0].tell(2, changed(1, 1));
        assert!(ends[0].hand_over(2, flow(7), b"REGISTER"));
        ends[0].tell(2, changed(2, 1));
        ends[1].tell(2, changed(3, 1));
        let taken = take_all(&mut ends[2], 100);
        assert_eq!(taken.len(), 4);
        let of_first: Vec<_> = taken.iter().filter(|it| **it != "changed 3 v1").collect();
        assert_eq!(of_first, ["changed 1 v1", "7 REGISTER", "changed 2 v1"]);
        assert!(take_all(&mut ends[1], 100).is_empty());
    }

    #[test]
    fn a_turn_takes_no_more_than_its_bound_and_is_fair() {
        let (mut ends, _) = bus(3, 16);
        for version in 0..10 {
            ends[1].tell(0, changed(1, version));
            ends[2].tell(0, changed(2, version));
        }
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
    fn a_full_queue_drops_datagrams_but_no_note() {
        let (mut ends, _) = bus(2, 2);
        assert!(ends[0].hand_over(1, flow(1), b"a"));
        assert!(ends[0].hand_over(1, flow(2), b"b"));
        assert!(!ends[0].hand_over(1, flow(3), b"c"));
        ends[0].tell(1, Note::Watch { key: AorKey(9), shard: 0 });
        for version in 1..=50 {
            ends[0].tell(1, changed(1, version));
            ends[0].tell(1, changed(2, 100 - version));
        }
        ends[0].tell(1, Note::Unwatch { key: AorKey(9), shard: 0 });
        assert_eq!(ends[0].notes_waiting(), 3, "one for each subject");
        assert!(ends[0].flush().unwrap(), "still full");

        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.extend(take_all(&mut ends[1], 100));
            ends[0].flush().unwrap();
        }
        assert_eq!(taken, ["1 a", "2 b", "unwatch 9", "changed 1 v50", "changed 2 v99"]);
        assert!(!ends[0].flush().unwrap());
        assert_eq!(ends[0].notes_waiting(), 0);
    }

    #[test]
    fn a_note_never_overtakes_one_that_waits() {
        let (mut ends, _) = bus(2, 1);
        ends[0].tell(1, changed(1, 1));
        ends[0].tell(1, changed(2, 1));
        assert_eq!(take_all(&mut ends[1], 100), ["changed 1 v1"]);
        ends[0].tell(1, changed(3, 1)); // there is room, but it is not its turn
        ends[0].flush().unwrap();
        assert_eq!(take_all(&mut ends[1], 100), ["changed 2 v1"]);
        ends[0].flush().unwrap();
        assert_eq!(take_all(&mut ends[1], 100), ["changed 3 v1"]);
    }

    #[test]
    fn buffers_come_back_and_huge_ones_shrink() {
        let (mut ends, _) = bus(2, 4);
        let huge = vec![b'x'; 60_000];
        for round in 0..20 {
            for _ in 0..4 {
                assert!(ends[0].hand_over(1, flow(1), if round == 0 { &huge } else { b"small" }));
            }
            assert!(!ends[0].hand_over(1, flow(1), b"one too many"));
            assert_eq!(take_all(&mut ends[1], 100).len(), 4);
        }
        assert_eq!(ends[0].to[1].pool_len, 4);
        while let Some(packet) = ends[0].to[1].lane.returned.pop() {
            assert!(packet.bytes.capacity() <= PACKET_LEN_KEPT_MAX);
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

    fn take_all(end: &mut BusEnd, bound: usize) -> Vec<String> {
        let mut taken = Vec::new();
        end.take(bound, |delivery| {
            taken.push(match delivery {
                Delivery::Note(Note::Watch { key, .. }) => format!("watch {}", key.0),
                Delivery::Note(Note::Unwatch { key, .. }) => format!("unwatch {}", key.0),
                Delivery::Note(Note::Changed { key, version }) => format!("changed {} v{version}", key.0),
                Delivery::Packet(packet) => {
                    format!("{} {}", packet.flow.peer.port(), String::from_utf8_lossy(&packet.bytes))
                }
            });
        });
        taken
    }

    fn changed(key: u128, version: u64) -> Note {
        Note::Changed { key: AorKey(key), version }
    }

    fn flow(port: u16) -> Flow {
        Flow {
            transport: Transport::Udp,
            listener: 0,
            local_ip: None,
            peer: (std::net::Ipv4Addr::LOCALHOST, port).into(),
        }
    }
}

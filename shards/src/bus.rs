//! What shards hand to one another: datagrams that another shard owns, and notes.
//!
//! For each pair of shards there is one lane, written by one and read by the other, so items of a pair arrive in order. What
//! is written together travels together: the writer fills a batch, bytes behind bytes, and publishes it whole, so that two
//! cores meet once for dozens of items and the reader's memory is read in one stream.
//!
//! Nobody waits for anybody. What a batch may hold and how many batches a lane takes is bounded, and beyond that
//!   * a datagram is dropped and counted; SIP over UDP retransmits;
//!   * a note is never lost: it waits in a backlog of the writer, and everything noted later waits behind it. The
//!     backlog keeps one entry for each subject (the newest tells all), so it is bounded by the users there are.
//!
//! Batches go back by a second queue, so that handing over allocates nothing once the pool is warm. A pool holds no more
//! batches than that queue, which is why giving back never finds the way full.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use comsipl_core::{AorKey, Flow};
use crossbeam::queue::ArrayQueue;

use crate::ahead::Ahead;
use crate::note::{DeviceKey, Note};
use crate::sipl::Report;
use crate::sleep::SleepFlag;

/// What a shard takes from the bus.
#[derive(Clone, Copy, Debug)]
pub enum Delivery<'a> {
    /// What a datagram will look at that follows soon; it counts for nothing.
    Ahead(Ahead),
    /// Something to know.
    Note(Note),
    /// A datagram to handle.
    Packet {
        /// Where it came from.
        flow: Flow,
        /// Its payload.
        bytes: &'a [u8],
    },
    /// A message to send by a connection that the receiving shard holds.
    Send {
        /// Names the connection.
        flow: Flow,
        /// The whole message.
        bytes: &'a [u8],
    },
    /// Another shard's watchers of a presentity of ours.
    Report {
        /// The presentity.
        key: AorKey,
        /// The shard that reports.
        shard: u8,
        /// The report.
        bytes: &'a [u8],
    },
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

/// Items that travel together.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<Item>,
    /// Payloads of its packets behind one another.
    bytes: Vec<u8>,
}

/// One item of a batch.
#[derive(Clone, Copy, Debug)]
enum Item {
    /// Something to know.
    Note(Note),
    /// A datagram whose payload ends at `end` of the batch's bytes, and begins where the one before ends.
    Packet { flow: Flow, ahead: Option<Ahead>, end: usize },
    /// A message to send, with its bytes as those of a packet.
    Send { flow: Flow, end: usize },
    /// A report, whose bytes lie like a datagram's.
    Report { key: AorKey, shard: u8, end: usize },
}

/// What lies between the two shards of a pair.
struct Lane {
    batches: ArrayQueue<Box<Batch>>,
    returned: ArrayQueue<Box<Batch>>,
}

/// One shard's end of the bus.
pub struct BusEnd {
    /// To each shard, in the order of the shards; the lane to itself is never used.
    to: Vec<LaneTo>,
    /// From each shard.
    from: Vec<LaneFrom>,
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
    /// The batch being filled.
    open: Option<Box<Batch>>,
    /// Most items the open batch takes.
    items_max: usize,
    /// Whether something was published since the last wake-up.
    touched: bool,
    backlog: Backlog,
    /// Batches made for this lane so far.
    pool_len: usize,
}

/// The reading side of a lane.
struct LaneFrom {
    lane: Arc<Lane>,
    /// The batch being read.
    open: Option<Box<Batch>>,
    /// How many of its items are taken.
    taken: usize,
    /// Where the next packet of the open batch begins.
    at: usize,
}

/// Joins as many shards as there are `wakers`.
#[must_use]
pub fn join(wakers: &[Arc<dyn Wake>]) -> Vec<BusEnd> {
    join_with_lane_len(wakers, (TOTAL_LEN / wakers.len().max(1)).clamp(LANE_LEN_MIN, LANE_LEN_MAX))
}

/// Joins as many shards as there are `wakers`, by lanes that hold at least `lane_len` items and at most twice as many.
#[must_use]
pub fn join_with_lane_len(wakers: &[Arc<dyn Wake>], lane_len: usize) -> Vec<BusEnd> {
    let shards = wakers.len();
    let sleeps: Vec<_> = (0..shards).map(|_| Arc::new(SleepFlag::new())).collect();
    let batches = lane_len.div_ceil(BATCH_ITEMS);
    let lane = |from: usize, to: usize| {
        let batches = if from == to { 1 } else { batches };
        // Beside those in the queue the writer fills one and the reader empties one.
        Arc::new(Lane { batches: ArrayQueue::new(batches), returned: ArrayQueue::new(batches + 2) })
    };
    let lanes: Vec<Vec<_>> = (0..shards).map(|from| (0..shards).map(|to| lane(from, to)).collect()).collect();
    (0..shards)
        .map(|index| BusEnd {
            to: (0..shards)
                .map(|to| LaneTo {
                    lane: Arc::clone(&lanes[index][to]),
                    sleep: Arc::clone(&sleeps[to]),
                    waker: Arc::clone(&wakers[to]),
                    open: None,
                    items_max: lane_len,
                    touched: false,
                    backlog: Backlog::default(),
                    pool_len: 0,
                })
                .collect(),
            from: (0..shards)
                .map(|from| LaneFrom { lane: Arc::clone(&lanes[from][index]), open: None, taken: 0, at: 0 })
                .collect(),
            sleep: Arc::clone(&sleeps[index]),
            first: 0,
        })
        .collect()
}

impl BusEnd {
    /// Hands a datagram to shard `to`, which sees it after [`Self::flush`] at the latest; `false`: too much waits there and
    /// the datagram is lost.
    #[must_use]
    pub fn hand_over(&mut self, to: usize, flow: Flow, bytes: &[u8]) -> bool {
        self.hand_over_ahead(to, flow, None, bytes)
    }

    /// The same, and tells what the datagram will look at.
    #[must_use]
    pub fn hand_over_ahead(&mut self, to: usize, flow: Flow, ahead: Option<Ahead>, bytes: &[u8]) -> bool {
        let lane = &mut self.to[to];
        let Some(batch) = lane.open_batch() else { return false };
        if !batch.items.is_empty() && batch.bytes.len() + bytes.len() > BATCH_BYTES_MAX {
            return false;
        }
        batch.bytes.extend_from_slice(bytes);
        batch.items.push(Item::Packet { flow, ahead, end: batch.bytes.len() });
        lane.publish_if_full();
        true
    }

    /// Gives a message, in parts, to shard `to`, which sends it by a connection that it holds; `false`: too much waits there, and
    /// it is not sent.
    ///
    /// Four times as much may wait as for [`Self::hand_over`]: under load, what is finished goes before what is begun.
    #[must_use]
    pub fn send(&mut self, to: usize, flow: Flow, parts: &[&[u8]]) -> bool {
        let lane = &mut self.to[to];
        let items_max = 4 * lane.items_max;
        let Some(batch) = lane.open_batch_within(items_max) else { return false };
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if !batch.items.is_empty() && batch.bytes.len() + len > 4 * BATCH_BYTES_MAX {
            return false;
        }
        for part in parts {
            batch.bytes.extend_from_slice(part);
        }
        batch.items.push(Item::Send { flow, end: batch.bytes.len() });
        lane.publish_if_full();
        true
    }

    /// Gives a report to shard `to`, which sees it after [`Self::flush`] at the latest; `false`: too much waits there, and it is
    /// to be given again later.
    #[must_use]
    pub fn report(&mut self, to: usize, report: &Report) -> bool {
        let lane = &mut self.to[to];
        let Some(batch) = lane.open_batch() else { return false };
        if !batch.items.is_empty() && batch.bytes.len() + report.bytes.len() > BATCH_BYTES_MAX {
            return false;
        }
        batch.bytes.extend_from_slice(&report.bytes);
        batch.items.push(Item::Report { key: report.key, shard: report.shard, end: batch.bytes.len() });
        lane.publish_if_full();
        true
    }

    /// Tells shard `to` something, which it sees after [`Self::flush`] at the latest unless its lane is full.
    pub fn tell(&mut self, to: usize, note: Note) {
        let lane = &mut self.to[to];
        if !lane.backlog.is_empty() || !lane.put_note(note) {
            lane.backlog.add(note);
        }
    }

    /// Publishes what was written, waiting notes included where there is room, and wakes every shard that was given
    /// something since the last call and sleeps. Returns whether something could not be published.
    ///
    /// # Errors
    /// What the system says of a wake-up; the shard would sleep on, so this is fatal.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut waiting = false;
        for lane in &mut self.to {
            lane.publish();
            while let Some(note) = lane.backlog.first() {
                if !lane.put_note(note) {
                    break;
                }
                lane.backlog.remove_first();
            }
            lane.publish();
            waiting |= lane.waits();
            if std::mem::take(&mut lane.touched) && lane.sleep.take_sleeper() {
                lane.waker.wake()?;
            }
        }
        Ok(waiting)
    }

    /// Takes at most `bound` items that others published, those of one shard in their order, and returns how many.
    pub fn take(&mut self, bound: usize, mut deliver: impl FnMut(Delivery<'_>)) -> usize {
        let shards = self.from.len();
        let mut taken = 0;
        for step in 0..shards {
            let from = &mut self.from[(self.first + step) % shards];
            while taken < bound {
                from.open_next(|ahead| deliver(Delivery::Ahead(ahead)));
                let Some(delivery) = from.next() else { break };
                taken += 1;
                deliver(delivery);
            }
        }
        self.first = (self.first + 1) % shards.max(1);
        taken
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from.iter().all(LaneFrom::is_empty)
    }

    /// Whether a full lane keeps us from publishing something.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.to.iter().any(LaneTo::waits)
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

impl LaneTo {
    /// The batch to write to; `None`: it is full and so is the lane.
    fn open_batch(&mut self) -> Option<&mut Batch> {
        self.open_batch_within(self.items_max)
    }

    /// The batch to write to; `None`: it holds `items_max` items or more, and the lane is full.
    fn open_batch_within(&mut self, items_max: usize) -> Option<&mut Batch> {
        if self.open.is_none() {
            self.open = Some(self.lane.returned.pop().unwrap_or_else(|| {
                debug_assert!(
                    self.pool_len < self.lane.returned.capacity(),
                    "all are in the queue or being read"
                );
                self.pool_len += 1;
                Box::default()
            }));
        }
        self.open.as_deref_mut().filter(|batch| batch.items.len() < items_max)
    }

    /// Puts a note into the open batch; `false`: there is no room.
    fn put_note(&mut self, note: Note) -> bool {
        let Some(batch) = self.open_batch() else { return false };
        batch.items.push(Item::Note(note));
        self.publish_if_full();
        true
    }

    fn publish_if_full(&mut self) {
        let full = |batch: &Batch| batch.items.len() >= BATCH_ITEMS || batch.bytes.len() >= BATCH_BYTES;
        if self.open.as_deref().is_some_and(full) {
            self.publish();
        }
    }

    /// Publishes the open batch if the lane has room; otherwise it goes on being filled.
    fn publish(&mut self) {
        let Some(batch) = self.open.take_if(|batch| !batch.items.is_empty()) else { return };
        match self.lane.batches.push(batch) {
            Ok(()) => self.touched = true,
            Err(batch) => self.open = Some(batch),
        }
    }

    /// Whether something could not be published.
    fn waits(&self) -> bool {
        !self.backlog.is_empty() || self.open.as_deref().is_some_and(|batch| !batch.items.is_empty())
    }
}

impl LaneFrom {
    /// Opens the next batch when one is read, if there is one, and tells what all its datagrams will look at.
    fn open_next(&mut self, tell: impl FnMut(Ahead)) {
        if self.open.as_deref().is_some_and(|batch| self.taken < batch.items.len()) {
            return;
        }
        self.close();
        self.open = self.lane.batches.pop();
        let items = self.open.as_deref().map_or(&[][..], |batch| &batch.items);
        let of = |item: &Item| if let Item::Packet { ahead, .. } = *item { ahead } else { None };
        items.iter().filter_map(of).for_each(tell);
    }

    /// The next item of the open batch.
    fn next(&mut self) -> Option<Delivery<'_>> {
        let batch = self.open.as_deref()?;
        let item = batch.items[self.taken];
        self.taken += 1;
        Some(match item {
            Item::Note(note) => Delivery::Note(note),
            Item::Packet { flow, end, .. } => {
                let start = std::mem::replace(&mut self.at, end);
                Delivery::Packet { flow, bytes: &batch.bytes[start..end] }
            }
            Item::Send { flow, end } => {
                let start = std::mem::replace(&mut self.at, end);
                Delivery::Send { flow, bytes: &batch.bytes[start..end] }
            }
            Item::Report { key, shard, end } => {
                let start = std::mem::replace(&mut self.at, end);
                Delivery::Report { key, shard, bytes: &batch.bytes[start..end] }
            }
        })
    }

    /// Gives the batch that was read back to the shard that filled it.
    fn close(&mut self) {
        let Some(mut batch) = self.open.take() else { return };
        (self.taken, self.at) = (0, 0);
        batch.items.clear();
        batch.bytes.clear();
        batch.items.shrink_to(2 * BATCH_ITEMS);
        batch.bytes.shrink_to(2 * BATCH_BYTES);
        let given_back = self.lane.returned.push(batch);
        debug_assert!(given_back.is_ok(), "a pool is no larger than its return queue");
    }

    fn is_empty(&self) -> bool {
        self.open.as_deref().is_none_or(|batch| self.taken == batch.items.len())
            && self.lane.batches.is_empty()
    }
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
    /// Whether the owner of a presentity wants its watchers reported.
    WinfoWanted(AorKey),
    /// A NOTIFY of a subscription (partition and number); an older one was given up.
    Unsent(u8, u32),
    /// The flow of a device.
    Flow(AorKey, DeviceKey),
}

impl Backlog {
    fn add(&mut self, note: Note) {
        let subject = match note {
            Note::Watch { key, shard, .. } | Note::Unwatch { key, shard } => Subject::Watched(key, shard),
            Note::Changed { key, .. } => Subject::Version(key),
            Note::WinfoWanted { key, .. } => Subject::WinfoWanted(key),
            Note::Unsent { partition, id, .. } => Subject::Unsent(partition, id),
            Note::FlowRenewed { watcher, device, .. } => Subject::Flow(watcher, device),
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

/// A batch with so many items is published at once.
const BATCH_ITEMS: usize = 64;
/// A batch with so many bytes is published at once.
const BATCH_BYTES: usize = 64 * 1024;
/// A batch that finds its lane full takes no more bytes than these.
const BATCH_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        assert_eq!(ends[0].to[1].backlog.notes.len(), 3, "one for each subject");
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
        assert_eq!(ends[0].to[1].backlog.notes.len(), 1, "one is queued, one is in the open batch");
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
        let lane = &mut ends[0].to[1];
        assert!(lane.pool_len <= 4 + 2);
        let mut returned = 0;
        while let Some(batch) = lane.lane.returned.pop() {
            returned += 1;
            assert!(batch.bytes.capacity() <= 2 * BATCH_BYTES && batch.items.capacity() <= 2 * BATCH_ITEMS);
        }
        assert_eq!(returned, lane.pool_len);
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
                    note @ (Note::Unsent { .. } | Note::FlowRenewed { .. } | Note::WinfoWanted { .. }),
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
}

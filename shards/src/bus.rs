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

use std::io;
use std::sync::Arc;

use comsipl_core::{AorKey, Flow};

use crate::ahead::Ahead;
use crate::note::Note;
use crate::sipl::Report;
use crate::sleep::SleepFlag;

mod backlog;
mod lane;
use lane::{BATCH_ITEMS, Item, Lane, LaneFrom, LaneTo};
#[cfg(test)]
mod tests;

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
    let lane = |from, to| Arc::new(Lane::new(if from == to { 1 } else { batches }));
    let lanes: Vec<Vec<_>> = (0..shards).map(|from| (0..shards).map(|to| lane(from, to)).collect()).collect();
    (0..shards)
        .map(|index| BusEnd {
            to: (0..shards)
                .map(|to| {
                    let (sleep, waker) = (Arc::clone(&sleeps[to]), Arc::clone(&wakers[to]));
                    LaneTo::new(Arc::clone(&lanes[index][to]), sleep, waker, lane_len)
                })
                .collect(),
            from: (0..shards).map(|from| LaneFrom::new(Arc::clone(&lanes[from][index]))).collect(),
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
        self.to[to].put(1, &[bytes], |end| Item::Packet { flow, ahead, end })
    }

    /// Gives a message, in parts, to shard `to`, which sends it by a connection that it holds; `false`: too much waits there, and
    /// it is not sent.
    ///
    /// Four times as much may wait as for [`Self::hand_over`]: under load, what is finished goes before what is begun.
    #[must_use]
    pub fn send(&mut self, to: usize, flow: Flow, parts: &[&[u8]]) -> bool {
        self.to[to].put(4, parts, |end| Item::Send { flow, end })
    }

    /// Gives a report to shard `to`, which sees it after [`Self::flush`] at the latest; `false`: too much waits there, and it is
    /// to be given again later.
    #[must_use]
    pub fn report(&mut self, to: usize, report: &Report) -> bool {
        let Report { key, shard, ref bytes } = *report;
        self.to[to].put(1, &[bytes], |end| Item::Report { key, shard, end })
    }

    /// Tells shard `to` something, which it sees after [`Self::flush`] at the latest unless its lane is full.
    pub fn tell(&mut self, to: usize, note: Note) {
        self.to[to].tell(note);
    }

    /// Publishes what was written, waiting notes included where there is room, and wakes every shard that was given
    /// something since the last call and sleeps. Returns whether something could not be published.
    ///
    /// # Errors
    /// What the system says of a wake-up; the shard would sleep on, so this is fatal.
    pub fn flush(&mut self) -> io::Result<bool> {
        let mut waiting = false;
        for lane in &mut self.to {
            lane.publish_all();
            waiting |= lane.waits();
            lane.wake_reader()?;
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

    /// How many batches wait to be taken, and how many can.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let lanes = self.from.iter().map(LaneFrom::waiting);
        lanes.fold((0, 0), |(waiting, room), lane| (waiting + lane.0, room + lane.1))
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

/// Items that may wait for one shard, over all lanes to it: at 200,000 a second, 80 ms.
const TOTAL_LEN: usize = 16 * 1024;
/// A lane must hold at least a few receive batches.
const LANE_LEN_MIN: usize = 256;
/// More would only make old items older.
const LANE_LEN_MAX: usize = 4096;

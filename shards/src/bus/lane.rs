//! What lies between two shards: batches of items, written by one and read by the other, and going back when they are read.

use std::io;
use std::sync::Arc;

use comsipl_core::{AorKey, Flow};
use crossbeam::queue::ArrayQueue;

use super::backlog::Backlog;
use super::{Delivery, Wake};
use crate::ahead::Ahead;
use crate::note::Note;
use crate::sleep::SleepFlag;

/// Items that travel together.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<Item>,
    /// Payloads of its packets behind one another.
    bytes: Vec<u8>,
}

/// One item of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
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
pub(super) struct Lane {
    batches: ArrayQueue<Box<Batch>>,
    returned: ArrayQueue<Box<Batch>>,
}

impl Lane {
    /// A lane whose queue holds `batches`.
    pub(super) fn new(batches: usize) -> Self {
        // Beside those in the queue the writer fills one and the reader empties one.
        Self { batches: ArrayQueue::new(batches), returned: ArrayQueue::new(batches + 2) }
    }
}

/// The writing side of a lane.
pub(super) struct LaneTo {
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
pub(super) struct LaneFrom {
    lane: Arc<Lane>,
    /// The batch being read.
    open: Option<Box<Batch>>,
    /// How many of its items are taken.
    taken: usize,
    /// Where the next packet of the open batch begins.
    at: usize,
}

impl LaneTo {
    /// The writing side of `lane`, whose open batch takes `items_max` items while the lane is full.
    pub(super) fn new(
        lane: Arc<Lane>,
        sleep: Arc<SleepFlag>,
        waker: Arc<dyn Wake>,
        items_max: usize,
    ) -> Self {
        let (open, touched, backlog, pool_len) = (None, false, Backlog::default(), 0);
        Self { lane, sleep, waker, open, items_max, touched, backlog, pool_len }
    }

    /// Puts an item with its bytes into the open batch, which holds `times` as many items and bytes as it does of datagrams
    /// while the lane is full; `false`: there is no room. `item` makes the item from where its bytes end.
    pub(super) fn put(&mut self, times: usize, parts: &[&[u8]], item: impl FnOnce(usize) -> Item) -> bool {
        let Some(batch) = self.open_batch_within(times * self.items_max) else { return false };
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if !batch.items.is_empty() && batch.bytes.len() + len > times * BATCH_BYTES_MAX {
            return false;
        }
        for part in parts {
            batch.bytes.extend_from_slice(part);
        }
        batch.items.push(item(batch.bytes.len()));
        self.publish_if_full();
        true
    }

    /// Puts a note into the open batch, or into the backlog where there is no room or others wait already.
    pub(super) fn tell(&mut self, note: Note) {
        if !self.backlog.is_empty() || !self.put_note(note) {
            self.backlog.add(note);
        }
    }

    /// Publishes the open batch and the notes that wait, as far as there is room.
    pub(super) fn publish_all(&mut self) {
        self.publish();
        while let Some(note) = self.backlog.first() {
            if !self.put_note(note) {
                break;
            }
            self.backlog.remove_first();
        }
        self.publish();
    }

    /// Wakes the reader if something was published since the last call and it sleeps.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn wake_reader(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.touched) && self.sleep.take_sleeper() {
            self.waker.wake()?;
        }
        Ok(())
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
        let Some(batch) = self.open_batch_within(self.items_max) else { return false };
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
    pub(super) fn waits(&self) -> bool {
        !self.backlog.is_empty() || self.open.as_deref().is_some_and(|batch| !batch.items.is_empty())
    }
}

impl LaneFrom {
    /// The reading side of `lane`.
    pub(super) const fn new(lane: Arc<Lane>) -> Self {
        Self { lane, open: None, taken: 0, at: 0 }
    }

    /// Opens the next batch when one is read, if there is one, and tells what all its datagrams will look at.
    pub(super) fn open_next(&mut self, tell: impl FnMut(Ahead)) {
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
    pub(super) fn next(&mut self) -> Option<Delivery<'_>> {
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

    /// How many batches wait to be read, and how many can.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.lane.batches.len(), self.lane.batches.capacity())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.as_deref().is_none_or(|batch| self.taken == batch.items.len())
            && self.lane.batches.is_empty()
    }
}

#[cfg(test)]
impl LaneTo {
    /// How many notes wait in the backlog.
    pub(super) fn backlog_len(&self) -> usize {
        self.backlog.len()
    }

    /// How many batches the lane has, and the bytes and items that each of those which came back has room for.
    pub(super) fn pool(&self) -> (usize, Vec<(usize, usize)>) {
        let returned = std::iter::from_fn(|| self.lane.returned.pop());
        (self.pool_len, returned.map(|it| (it.bytes.capacity(), it.items.capacity())).collect())
    }
}

/// A batch with so many items is published at once.
pub(super) const BATCH_ITEMS: usize = 64;
/// A batch with so many bytes is published at once.
pub(super) const BATCH_BYTES: usize = 64 * 1024;
/// A batch that finds its lane full takes no more bytes than these.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;

//! The subscriptions that this shard owns: what is kept in memory beside each stored record.
//!
//! The record holds the dialog; here is only what every NOTIFY touches, so that memory stays below 100 bytes each.
//!
//! Invariants:
//!   * `cseq` is in the block that the record reserves, or below; always written before a NOTIFY with a higher number leaves;
//!   * `version` only grows, over restarts too: a subscription has no more documents than sequence numbers;
//!   * at most one NOTIFY of a subscription is unanswered (`attempt`);
//!   * a subscription stands in its presentity's list, in the dialog index and in the expiry wheel, or nowhere.

use std::collections::BTreeSet;

use comsipl_core::chunked::Slab;
use comsipl_core::timer::Wheel;
use comsipl_core::{AorKey, Mono};

use crate::index::{PartitionedIndex, hash_of};
use crate::sipp::Bound;
use crate::watched::{BodyKind, NONE, WatchedTable};

/// CSeq numbers are reserved in the record by blocks of this size, so that one NOTIFY in 64 writes it.
pub const CSEQ_BLOCK: u32 = 64;

/// CSeq numbers skipped for each start since a block was reserved: more than a dialog can use between two syncs of the files,
/// which is what a power cut may take from the reservation. Where a process is killed before its first sync the next one goes on from
/// what it wrote, and a power cut may take what both wrote. A start that was not handed the files counts twice, so that makes no
/// number come again where six in a row are killed so early and the dialog uses a thousand numbers in each.
const CSEQ_SKIP: u32 = 4096;

/// What the record says while `cseq` is used: its block, and in the bits within a block the number of the server's start
/// ([`Recovered::start`](crate::node::Recovered::start)), as far as it goes into them.
pub const fn reservation(cseq: u32, start: u64) -> u32 {
    cseq & !(CSEQ_BLOCK - 1) | start as u32 & (CSEQ_BLOCK - 1)
}

/// Whether a record that says `reservation` keeps the next start from giving `cseq` again. A number that was taken and not sent, for
/// want of a connection, leaves the record a block ahead.
pub const fn is_reserved(reservation: u32, cseq: u32, start: u64) -> bool {
    let is_of_this_start = (start as u32 ^ reservation).is_multiple_of(CSEQ_BLOCK);
    is_of_this_start && reservation | (CSEQ_BLOCK - 1) >= cseq
}

/// The number above which a dialog goes on at a start. The processes between that reservation and this one went on from the same
/// record, if a power cut took what they wrote into it, so each start skips as many again.
pub const fn go_on_above(reservation: u32, start: u64) -> u32 {
    let starts = match (start as u32).wrapping_sub(reservation) % CSEQ_BLOCK {
        0 => CSEQ_BLOCK,
        starts => starts,
    };
    (reservation | (CSEQ_BLOCK - 1)).saturating_add(starts * CSEQ_SKIP)
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Keyed hash of Call-ID and remote tag.
    pub dialog: u64,
    /// Its presentity in the table of watched ones.
    pub watched: u32,
    /// Next in the presentity's list.
    pub next: u32,
    /// Previous in the presentity's list.
    pub prev: u32,
    /// Its record's slot in `partition`.
    pub slot: u32,
    /// Its NOTIFY in flight or waiting to be tried again, or [`NONE`].
    pub attempt: u32,
    /// Last CSeq used.
    pub cseq: u32,
    /// Version of the next document, where the event package has versions.
    pub version: u32,
    /// The presentity's epoch that the watcher was told of last.
    pub epoch: u32,
    /// Part of our branches that only we can make.
    pub secret: u32,
    /// Partition of its record.
    pub partition: u8,
    /// Failed NOTIFYs in a row.
    pub failures: u8,
    /// A NOTIFY is owed whatever the epoch (an accepted SUBSCRIBE asked for it).
    pub owed: bool,
    /// It ends: the next NOTIFY says `terminated` and is the last.
    pub ending: bool,
    /// A NOTIFY was never answered; the next time-out removes it.
    pub suspect: bool,
    /// Its record says that a NOTIFY failed and is to be tried again.
    pub marked_undelivered: bool,
    /// Others share its dialog, and with it the CSeq.
    pub shared_dialog: bool,
    /// Which body it gets.
    pub body: BodyKind,
    /// Longest message that its watcher takes, in bytes; zero: any.
    pub message_len_max: u16,
    /// Its connection is gone and nothing leads to the watcher; see [`Subscriptions::set_unreachable`].
    pub unreachable: bool,
    /// It is reached by a connection that its watcher opened, and so stands among those [of its watcher](
    /// Subscriptions::of_watcher).
    pub connected: bool,
    /// By which flow its NOTIFYs go is being looked up, by a name or among bindings; they are owed until that is known.
    pub awaits_flow: bool,
    /// Its NOTIFYs go by UDP to an address that has not answered any yet; see [`Reach`](crate::reach::Reach).
    pub unproved: bool,
    /// What is known of the flow that its watcher's device has registered.
    pub bound: Bound,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            dialog: 0,
            watched: NONE,
            next: NONE,
            prev: NONE,
            slot: NONE,
            attempt: NONE,
            cseq: 0,
            version: 0,
            epoch: 0,
            secret: 0,
            partition: 0,
            failures: 0,
            owed: false,
            ending: false,
            suspect: false,
            marked_undelivered: false,
            shared_dialog: false,
            body: BodyKind::All,
            message_len_max: 0,
            unreachable: false,
            connected: false,
            awaits_flow: false,
            unproved: false,
            bound: Bound::NotAsked,
        }
    }
}

const _: () = assert!(size_of::<Subscription>() <= 64, "700 bytes a subscription leave no room for more");

/// All subscriptions of a shard.
#[derive(Debug)]
pub struct Subscriptions {
    slab: Slab<Subscription>,
    dialogs: PartitionedIndex,
    /// Expiry timers by subscription number.
    pub expiry: Wheel,
    /// How many are unreachable.
    unreachable: usize,
    /// Those that are reached by a connection, by [hash](crate::index::hash_of) of the watcher's key.
    by_watcher: BTreeSet<(u64, u32)>,
}

impl Subscriptions {
    /// An empty table whose timers begin at `now`.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            slab: Slab::default(),
            dialogs: PartitionedIndex::default(),
            expiry: Wheel::new(now),
            unreachable: 0,
            by_watcher: BTreeSet::new(),
        }
    }

    /// Adds a subscription to the dialog index and to its presentity's list.
    pub fn insert(&mut self, subscription: Subscription, watched: &mut WatchedTable) -> u32 {
        let (partition, dialog, presentity) =
            (subscription.partition, subscription.dialog, subscription.watched);
        let id = self.slab.insert(subscription);
        let slab = &self.slab;
        self.dialogs.insert(partition, dialog, id, |id| slab[id].dialog);
        let list = &mut watched[presentity];
        let old_first = std::mem::replace(&mut list.first, id);
        list.count += 1;
        self.slab[id].next = old_first;
        self.slab[id].prev = NONE;
        if old_first != NONE {
            self.slab[old_first].prev = id;
        }
        id
    }

    /// Takes a subscription out of every list but its presentity's body cache; the record is the caller's.
    pub fn remove(&mut self, id: u32, watched: &mut WatchedTable) -> Subscription {
        debug_assert_eq!(self.slab[id].attempt, NONE, "its NOTIFY is ended first");
        self.set_unreachable(id, false);
        self.expiry.cancel(id);
        self.dialogs.remove(self.slab[id].partition, self.slab[id].dialog, id);
        let subscription = self.slab.remove(id);
        let list = &mut watched[subscription.watched];
        list.count -= 1;
        if list.cursor == id {
            list.cursor = subscription.next;
        }
        if subscription.prev == NONE {
            list.first = subscription.next;
        } else {
            self.slab[subscription.prev].next = subscription.next;
        }
        if subscription.next != NONE {
            self.slab[subscription.next].prev = subscription.prev;
        }
        subscription
    }

    /// Subscriptions whose dialog may be the one of this hash.
    pub fn of_dialog(&self, partition: u8, dialog: u64) -> impl Iterator<Item = u32> + '_ {
        self.dialogs.candidates(partition, dialog).filter(move |&id| self.slab[id].dialog == dialog)
    }

    /// Whether `id` may be indexed: it was handed out at some time.
    #[must_use]
    pub fn knows(&self, id: u32) -> bool {
        (id as usize) < self.slab.high_water() && self.slab[id].slot != NONE
    }

    /// Notes whether a subscription is unreachable. As long as it is, nothing is sent and no timer but its expiry runs.
    pub fn set_unreachable(&mut self, id: u32, unreachable: bool) {
        match (std::mem::replace(&mut self.slab[id].unreachable, unreachable), unreachable) {
            (false, true) => self.unreachable += 1,
            (true, false) => self.unreachable -= 1,
            _ => {}
        }
    }

    /// Notes whether a subscription of `watcher` is reached by a connection.
    pub fn set_connected(&mut self, id: u32, watcher: AorKey, connected: bool) {
        self.slab[id].connected = connected;
        if connected {
            self.by_watcher.insert((hash_of(watcher), id));
        } else {
            self.by_watcher.remove(&(hash_of(watcher), id));
        }
    }

    /// The same where the watcher is not known any more, because the record cannot be read. Seldom, and slow.
    pub fn forget_connected(&mut self, id: u32) {
        self.slab[id].connected = false;
        self.by_watcher.retain(|&(_, other)| other != id);
    }

    /// The subscriptions of a watcher that are reached by connections, unreachable ones included. The caller compares the
    /// keys.
    pub fn of_watcher(&self, watcher: AorKey) -> impl Iterator<Item = u32> + '_ {
        let hash = hash_of(watcher);
        self.by_watcher.range((hash, 0)..=(hash, u32::MAX)).map(|&(_, id)| id)
    }

    /// How many are unreachable.
    #[must_use]
    pub const fn unreachable(&self) -> usize {
        self.unreachable
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.in_use()
    }

    /// One more than the highest number handed out so far.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.slab.high_water()
    }
}

impl std::ops::Index<u32> for Subscriptions {
    type Output = Subscription;

    fn index(&self, id: u32) -> &Subscription {
        &self.slab[id]
    }
}

impl std::ops::IndexMut<u32> for Subscriptions {
    fn index_mut(&mut self, id: u32) -> &mut Subscription {
        &mut self.slab[id]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_may_take_what_several_killed_processes_wrote() {
        let (first, in_each) = (10, 1000);
        for cseq in [1, 63, 64, 5000] {
            let reserved = reservation(cseq, first);
            let mut used = cseq + in_each;
            for killed in 1..=6 {
                // Each is a start of its own, which counts twice.
                let start = first + 2 * killed;
                assert!(go_on_above(reserved, start) >= used, "after {killed}");
                let by_the_one_before = reservation(used, start - 2);
                used = go_on_above(by_the_one_before, start) + in_each;
            }
        }
    }

    #[test]
    fn a_number_is_reserved_by_this_start_up_to_the_end_of_the_block() {
        let reserved = reservation(130, 70);
        for (cseq, start, expected) in
            [(130, 70, true), (191, 70, true), (127, 70, true), (192, 70, false), (130, 71, false)]
        {
            assert_eq!(is_reserved(reserved, cseq, start), expected, "{cseq} by start {start}");
        }
    }

    #[test]
    fn no_start_goes_on_where_one_before_it_did() {
        for start in [0, 1, 62, 63, 64, 1000] {
            for cseq in [1, 63, 64, 5000] {
                let reserved = reservation(cseq, start);
                // Whatever these processes wrote is lost, with the block that each began.
                let mut used = cseq | (CSEQ_BLOCK - 1);
                for later in 1..=u64::from(CSEQ_BLOCK) {
                    let above = go_on_above(reserved, start + later);
                    assert!(above >= used, "{later} starts after {start}: {above}");
                    assert_eq!(
                        above % CSEQ_BLOCK,
                        CSEQ_BLOCK - 1,
                        "the next number begins a block, which is written"
                    );
                    used = above + CSEQ_SKIP - 1;
                }
            }
        }
    }
}

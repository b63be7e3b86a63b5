//! The fan-out: a presentity changed, so its watchers on this shard become due and are told turn by turn.
//!
//! A turn starts a bounded number of NOTIFYs, and no presentity takes more than a quantum of it while others wait: one
//! celebrity with a million watchers does not hold up everybody else. Several changes coalesce, because a watcher that is
//! reached gets the newest document.

use comsipl_core::{AorKey, Now};
use smallvec::SmallVec;

use crate::note::Note;
use crate::shard::Shard;
use crate::sipp::attempt::Phase;
use crate::sipp::due::Queued;
use crate::watched::NONE;

/// NOTIFYs that one presentity may start before the next one has its go.
const QUANTUM: usize = 64;
/// The part of a turn's NOTIFYs that is started while input waits. It is not nothing, so that a flood of requests does not
/// silence the fan-out.
const INPUT_WAITS_SHARE: usize = 16;
/// Watchers whose records are asked for ahead: as many as the misses that a core can have under way.
const AHEAD: usize = 8;
/// Watchers looked at (due or not) in one go.
const STEPS_MAX: usize = 1024;

impl Shard {
    /// The owner of a presentity says that it has a new document.
    pub(crate) fn on_changed(&mut self, now: Now, key: AorKey, version: u64) {
        let Some(id) = self.watched.find(key) else { return };
        let watched = &mut self.watched[id];
        let was_awaited = std::mem::take(&mut watched.awaited);
        if version > watched.version {
            watched.version = version;
            if self.watched[id].count > 0 {
                self.mark_due(now, id);
            } else {
                // Nobody is left to tell, but whoever comes next must not get the old document.
                self.release_bodies(id);
            }
        } else if was_awaited && self.watched[id].count > 0 {
            // Nothing is new, but whoever has just come was not told yet.
            self.queue(now, id);
        }
    }

    /// Makes all watchers of a presentity due.
    pub(crate) fn mark_due(&mut self, now: Now, id: u32) {
        self.release_bodies(id);
        self.watched[id].epoch = self.watched[id].epoch.wrapping_add(1);
        self.queue(now, id);
    }

    /// Puts a presentity into the fan-out's queue. A walk under way goes on to its end and is then done once more: begun
    /// anew at each change it would never reach the last watchers of somebody who changes all the time.
    pub(crate) fn queue(&mut self, now: Now, id: u32) {
        let watched = &mut self.watched[id];
        match watched.queued {
            Queued::No => {
                watched.cursor = watched.first;
                watched.due_since = now.wall;
            }
            Queued::Changed => {
                watched.again = true;
                return;
            }
            Queued::LeftOver => watched.again = watched.cursor != watched.first,
        }
        self.queue_changed(id, now.mono);
    }

    /// Goes on telling watchers, within the bounds of a turn.
    pub(crate) fn fan_out(&mut self, now: Now) {
        if self.due.is_empty() {
            return;
        }
        let share = if self.input_waits { INPUT_WAITS_SHARE } else { 1 };
        let budget = self.due.budget((self.settings.notifies_per_turn / share).max(1));
        let mut left = budget.changed;
        while left > 0
            && let Some((id, since)) = self.pop_changed()
        {
            self.walk(now, id, &mut left);
            let watched = &mut self.watched[id];
            if watched.cursor != NONE {
                self.queue_changed(id, since);
            } else if std::mem::take(&mut watched.again) {
                watched.cursor = watched.first;
                watched.due_since = now.wall;
                self.queue_changed(id, now.mono);
            } else {
                self.end_walk(now, id);
            }
        }
        left += budget.left_over;
        while left > 0
            && let Some(id) = self.pop_left_over()
        {
            self.walk(now, id, &mut left);
            let watched = &self.watched[id];
            if watched.queued != Queued::LeftOver {
                // Meanwhile it has something new to tell, and stands with the others.
            } else if watched.cursor != NONE {
                self.put_back_left_over(id);
            } else {
                self.end_walk(now, id);
            }
        }
    }

    /// Tells the next watchers of a presentity.
    fn walk(&mut self, now: Now, id: u32, budget: &mut usize) {
        let mut quantum = QUANTUM.min(*budget);
        let mut steps = STEPS_MAX;
        while quantum > 0 && steps > 0 && self.watched[id].cursor != NONE {
            for &subscription in &self.next_owed(id, quantum, &mut steps) {
                if self.notify_if_free(now, subscription) {
                    quantum -= 1;
                    *budget -= 1;
                }
            }
        }
        // A walk over watchers that are all in flight costs too.
        *budget = budget.saturating_sub((STEPS_MAX - steps) / QUANTUM);
        let watched = &self.watched[id];
        if watched.cursor == NONE {
            self.behind.told(now, watched.due_since);
        }
    }

    /// All watchers of a presentity have been told.
    fn end_walk(&mut self, now: Now, id: u32) {
        self.leave_queue(id);
        self.remember_cached(id);
        self.forget_if_unwatched(now, id);
    }

    /// Goes on in the walk over a presentity's watchers: the next few who are owed a NOTIFY, at most `most`. Their records are
    /// asked for ahead, because each lies somewhere else in the file, and the processor fetches several at a time.
    fn next_owed(&mut self, id: u32, most: usize, steps: &mut usize) -> SmallVec<[u32; AHEAD]> {
        let mut owed = SmallVec::new();
        let mut cursor = self.watched[id].cursor;
        while cursor != NONE && *steps > 0 && owed.len() < AHEAD.min(most) {
            *steps -= 1;
            let entry = &self.subscriptions[cursor];
            if self.is_owed(cursor) && !entry.unreachable && !entry.awaits_flow {
                self.files.presence_partition(entry.partition).prefetch(entry.slot);
                owed.push(cursor);
            }
            cursor = entry.next;
        }
        self.watched[id].cursor = cursor;
        owed
    }

    /// Whether a subscription's watcher does not have the newest state, or waits for the answer to its SUBSCRIBE.
    pub(crate) fn is_owed(&self, subscription: u32) -> bool {
        let entry = &self.subscriptions[subscription];
        entry.owed || entry.epoch != self.watched[entry.watched].epoch
    }

    /// Sends a NOTIFY unless one is in flight or the watcher asked for quiet; says whether one left.
    pub(crate) fn notify_if_free(&mut self, now: Now, subscription: u32) -> bool {
        let entry = &self.subscriptions[subscription];
        let attempt = entry.attempt;
        if entry.unreachable || entry.awaits_flow {
            return false;
        }
        if attempt != NONE {
            match self.attempts[attempt].phase {
                Phase::InFlight | Phase::Paused { wait_for_it: true } => return false,
                Phase::Paused { wait_for_it: false } => self.end_attempt(subscription),
            }
        }
        self.send_notify(now, subscription)
    }

    /// Forgets a presentity that nobody on this shard watches any more, and tells its owner.
    pub(crate) fn forget_if_unwatched(&mut self, now: Now, id: u32) {
        let watched = &self.watched[id];
        if watched.count > 0 || watched.queued != Queued::No {
            return;
        }
        let (key, is_reported) = (watched.key, watched.is_reported);
        self.release_bodies(id);
        self.watched.remove(id);
        if is_reported {
            self.end_reporting(now, key);
        }
        self.post_to(now, self.shard_of(key.partition()), Note::Unwatch { key, shard: self.number() });
    }
}

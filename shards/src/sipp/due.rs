//! The presentities whose watchers are to be told, in two queues.
//!
//! What has just changed is told first. What a start owes because a crash may have come before it was told can be a NOTIFY to
//! every watcher there is, which takes seconds; most of it was told and is only told again. So it goes behind, with a part of
//! each turn that it has in any case, and it is no reason to refuse anything: no client made it, and it does not grow.

use std::collections::VecDeque;
use std::time::Duration;

use comsipl_core::{Mono, Now, UnixMillis};

use crate::shard::Shard;

/// So few presentities that are due are nothing: one with a million watchers takes long and holds nobody up.
const FEW: usize = 64;

/// The part of a turn's NOTIFYs that what is left over from before the start has in any case.
const LEFT_OVER_SHARE: usize = 8;

/// The queues. A presentity stands in one of them at most, as its entry says: [`Watched::queued`](crate::watched::Watched::queued).
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Those that changed, and when they were put in.
    changed: VecDeque<(u32, Mono)>,
    /// Those that a start owes. An entry does not count whose presentity is no longer [`LeftOver`](Queued::LeftOver).
    left_over: VecDeque<u32>,
    /// How many presentities are [`LeftOver`](Queued::LeftOver).
    left_over_count: usize,
}

/// Where a presentity waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queued {
    /// Nowhere: nobody is to be told.
    #[default]
    No,
    /// With those that changed, or being walked through as one of them.
    Changed,
    /// The same with those that a start owes.
    LeftOver,
}

/// How many NOTIFYs of a turn go to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) changed: usize,
    /// At least; and what the others leave.
    pub(crate) left_over: usize,
}

impl Due {
    /// Whether nobody is to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left_over_count == 0
    }

    /// How many presentities there are in both queues.
    pub(crate) fn len(&self) -> usize {
        self.changed.len() + self.left_over_count
    }

    /// How many are left over from before the start.
    pub(crate) fn left_over(&self) -> usize {
        self.left_over_count
    }

    /// How `most` NOTIFYs are shared out.
    pub(crate) fn budget(&self, most: usize) -> Budget {
        if self.left_over_count == 0 {
            return Budget { changed: most, left_over: 0 };
        }
        let left_over = (most / LEFT_OVER_SHARE).max(1);
        Budget { changed: (most - left_over).max(1), left_over }
    }
}

impl Shard {
    /// Puts a presentity behind those that changed. One that is left over from before the start has something new to tell, so it
    /// goes over to them.
    pub(crate) fn queue_changed(&mut self, id: u32, since: Mono) {
        let was = std::mem::replace(&mut self.watched[id].queued, Queued::Changed);
        self.due.left_over_count -= usize::from(was == Queued::LeftOver);
        self.due.changed.push_back((id, since));
    }

    /// All that is due when a start has read the files is left over from before it, and has been due `since` then at least.
    pub(crate) fn leave_over(&mut self, since: UnixMillis) {
        let Due { changed, left_over, left_over_count } = &mut self.due;
        for (id, _) in std::mem::take(changed) {
            let watched = &mut self.watched[id];
            watched.queued = Queued::LeftOver;
            watched.again = false;
            watched.due_since = watched.due_since.min(since);
            left_over.push_back(id);
        }
        *left_over_count = left_over.len();
    }

    /// Takes the first of those that changed, and since when it stood there.
    pub(crate) fn pop_changed(&mut self) -> Option<(u32, Mono)> {
        self.due.changed.pop_front()
    }

    /// Takes the first of those that are left over.
    pub(crate) fn pop_left_over(&mut self) -> Option<u32> {
        // One that went over to the others may be gone by now, and its number be another's.
        while let Some(id) = self.due.left_over.pop_front() {
            if self.watched[id].queued == Queued::LeftOver {
                return Some(id);
            }
        }
        // It is not needed again.
        self.due.left_over = VecDeque::new();
        None
    }

    /// Puts one back that was taken and whose walk goes on.
    pub(crate) fn put_back_left_over(&mut self, id: u32) {
        self.due.left_over.push_back(id);
    }

    /// The watchers of a presentity that was taken have been told.
    pub(crate) fn leave_queue(&mut self, id: u32) {
        let was = std::mem::replace(&mut self.watched[id].queued, Queued::No);
        self.due.left_over_count -= usize::from(was == Queued::LeftOver);
    }

    /// How many presentities that changed have watchers to be told, and if they are many, how long the one whose turn is next has
    /// waited.
    #[must_use]
    pub fn fan_out_stands(&self, now: Now) -> (usize, Duration) {
        let changed = &self.due.changed;
        let first = changed.front().filter(|_| changed.len() > FEW);
        (changed.len(), first.map_or(Duration::ZERO, |&(_, since)| now.mono.since(since)))
    }

    /// When the watchers became due who have waited longest.
    pub(crate) fn due_since(&self) -> Option<UnixMillis> {
        let Due { changed, left_over, .. } = &self.due;
        let ids = changed.iter().map(|&(id, _)| id).chain(left_over.iter().copied());
        ids.map(|id| &self.watched[id]).filter(|it| it.queued != Queued::No).map(|it| it.due_since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_has_its_part_of_every_turn() {
        let due = Due { left_over_count: 1, ..Due::default() };
        assert_eq!(due.budget(256), Budget { changed: 224, left_over: 32 });
        assert_eq!(due.budget(2), Budget { changed: 1, left_over: 1 });
        assert_eq!(due.budget(1), Budget { changed: 1, left_over: 1 }, "none of them waits for ever");
        assert_eq!(Due::default().budget(256), Budget { changed: 256, left_over: 0 });
    }
}

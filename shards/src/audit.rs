//! What must never be: things that nothing will ever end, and watchers whom nobody will tell.
//!
//! Everything that a shard keeps for a time has a timer, and every watcher who lacks the newest state has a NOTIFY under way, a place
//! in the fan-out's queue, or a question out whose answer brings one of these. A mistake in that would show as memory that grows
//! over weeks, so the shard looks at its own tables as it works, a few entries a second, and tells what a whole pass has found by
//! gauges that stand at zero. The simulator looks at all of them after every step.

use std::time::Duration;

use comsipl_core::{AorKey, Mono, Now};

use crate::records;
use crate::shard::Shard;
use crate::sipp::Queued;
use crate::subscriptions::{Subscriptions, go_on_above, is_reserved};
use crate::watched::NONE;

/// Entries looked at in one go: some tens of microseconds.
const PER_LOOK: u32 = 512;

/// How long nothing is looked at after that. A shard with a million subscriptions is through in half an hour.
const PAUSE: Duration = Duration::from_secs(1);

/// What a pass has found: how many of each, all zero unless there is a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Subscriptions that have neither a timer nor a NOTIFY under way: expired and not freed.
    pub subscriptions_never_freed: u64,
    /// Watchers who lack the newest state, and nothing is under way for them.
    pub watchers_never_told: u64,
    /// Dialogs whose record does not say which numbers they use, so that a start would give them again.
    pub numbers_never_reserved: u64,
    /// NOTIFYs under way without a timer.
    pub notifies_never_ended: u64,
    /// Publications that never expire.
    pub publications_never_freed: u64,
    /// Bindings that never expire.
    pub bindings_never_freed: u64,
    /// Users of whom nothing is known, and who are kept.
    pub presentities_never_freed: u64,
}

/// The tables, in the order in which they are looked at.
const TABLES: [Table; 5] = [
    (|shard| shard.subscriptions.high_water(), |shard, id, found| shard.look_at_subscription(id, found)),
    (|shard| shard.attempts.high_water(), |shard, id, found| shard.look_at_attempt(id, found)),
    (
        |shard| shard.presentities.publications.high_water(),
        |shard, id, found| {
            let users = &shard.presentities;
            let lives = users.publications[id].presentity != NONE;
            found.publications_never_freed += u64::from(lives && !users.publication_expiry.is_armed(id));
        },
    ),
    (
        |shard| shard.presentities.bindings.high_water(),
        |shard, id, found| {
            let users = &shard.presentities;
            let lives = users.bindings[id].presentity != NONE;
            found.bindings_never_freed += u64::from(lives && !users.binding_expiry.is_armed(id));
        },
    ),
    (
        |shard| shard.presentities.high_water(),
        |shard, id, found| {
            let users = &shard.presentities;
            // Keys are hashes; that of an entry not in use is zero.
            let lives = users[id].key != AorKey(0);
            found.presentities_never_freed += u64::from(lives && users.is_empty(id));
        },
    ),
];

/// How many numbers a table has handed out, and the look at one of them.
type Table = (fn(&Shard) -> usize, fn(&Shard, u32, &mut Findings));

/// How far the shard's look at its own tables has come.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    table: usize,
    next: u32,
    found: Findings,
    again_at: Mono,
}

impl Shard {
    /// Goes on with the look at the tables, if it is time for that, and tells what was found when all were seen. Called at the end of
    /// a turn; a shard that sleeps has nothing to look at that it did not see before.
    pub(crate) fn audit_some(&mut self, now: Now) {
        if now.mono < self.audit.again_at {
            return;
        }
        let mut audit = std::mem::take(&mut self.audit);
        audit.again_at = now.mono + PAUSE;
        let mut left = PER_LOOK;
        while left > 0 && audit.table < TABLES.len() {
            let (high_water, look) = TABLES[audit.table];
            let end = high_water(self).min((audit.next + left) as usize) as u32;
            (audit.next..end).for_each(|id| look(self, id, &mut audit.found));
            // An empty table takes a look, too, so that this ends.
            left -= end.saturating_sub(audit.next).clamp(1, left);
            audit.next = end;
            if end as usize >= high_water(self) {
                audit.table += 1;
                audit.next = 0;
            }
        }
        if audit.table == TABLES.len() {
            self.tell_findings(&audit.found);
            audit = Audit { again_at: audit.again_at, ..Audit::default() };
        }
        self.audit = audit;
    }

    /// Looks at everything at once.
    #[must_use]
    pub fn audit_all(&self) -> Findings {
        let mut found = Findings::default();
        for (high_water, look) in TABLES {
            (0..high_water(self) as u32).for_each(|id| look(self, id, &mut found));
        }
        found
    }

    fn tell_findings(&self, found: &Findings) {
        let counters = &self.counters;
        counters.subscriptions_never_freed.set(found.subscriptions_never_freed);
        counters.watchers_never_told.set(found.watchers_never_told);
        counters.numbers_never_reserved.set(found.numbers_never_reserved);
        counters.notifies_never_ended.set(found.notifies_never_ended);
        counters.publications_never_freed.set(found.publications_never_freed);
        counters.bindings_never_freed.set(found.bindings_never_freed);
        counters.presentities_never_freed.set(found.presentities_never_freed);
    }

    fn look_at_subscription(&self, id: u32, found: &mut Findings) {
        let all: &Subscriptions = &self.subscriptions;
        if !all.knows(id) {
            return;
        }
        let entry = &all[id];
        let watched = &self.watched[entry.watched];
        let is_under_way = entry.attempt != NONE || watched.queued != Queued::No || entry.awaits_flow;
        if !all.expiry.is_armed(id) && !is_under_way {
            found.subscriptions_never_freed += 1;
        }
        let lacks_something = entry.owed || entry.epoch != watched.epoch;
        if lacks_something && !is_under_way && !entry.unreachable && !watched.awaited {
            found.watchers_never_told += 1;
        }
        if let Some(reserved) =
            records::reserved_cseq(self.files.presence_partition(entry.partition), entry.slot)
        {
            // Since the start it has used none, or the record is of this start.
            let is_unused = entry.cseq == go_on_above(reserved, self.start);
            found.numbers_never_reserved +=
                u64::from(!is_unused && !is_reserved(reserved, entry.cseq, self.start));
        }
    }

    fn look_at_attempt(&self, id: u32, found: &mut Findings) {
        let lives = self.attempts[id].subscription != NONE;
        found.notifies_never_ended += u64::from(lives && !self.attempt_timers.is_armed(id));
    }
}

/// Whether a counter of the engine tells what was found, and so stands at zero where all is well.
#[must_use]
pub fn is_finding(counter: &str) -> bool {
    counter.contains("_never_")
}

#[cfg(test)]
mod tests;

//! Taking up what the files hold.
//!
//! Memory keeps only what can be made from the records again. Three things need care:
//!   * CSeq goes on above the block that was reserved, so it may skip and never repeats;
//!   * a crash may have come between a publication and the document made of it: what changed shortly before is composed
//!     again, and so is what is marked because its document found no room;
//!   * a crash may have come before watchers were told: subscriptions of presentities that changed shortly before, and
//!     those that were accepted shortly before, are owed a NOTIFY. *Shortly* is as long as a NOTIFY may have been on its
//!     way, 64*T1, and longer where the files say that the fan-out was behind.

use std::time::Duration;

use comsipl_core::event::EventPackage;
use comsipl_core::limits::SUBSCRIPTIONS_PER_DIALOG_MAX;
use comsipl_core::quirks::Quirks;
use comsipl_core::transaction::TIMER_F;
use comsipl_core::{AorKey, ConnectionId, Now, UnixMillis};
use comsipl_fdb::{Kind, RecordBuf};

use crate::note::Note;
use crate::presentities::{Binding, OFFLINE, Publication};
use crate::records;
use crate::settings::RegisteredState;
use crate::shard::Shard;
use crate::sipp::{Queued, dialog_hash};
use crate::subscriptions::{self, Subscription};
use crate::watched::{BodyKind, NONE};

/// What changed so long before a heartbeat has been told or is marked: 64*T1, and more because the heartbeat comes once a sync
/// interval, a NOTIFY may be [`LATE`], and clocks are not exact.
pub(crate) const TOLD_WITHIN: Duration = TIMER_F.saturating_add(Duration::from_secs(10));

/// A NOTIFY that leaves longer than this after it was owed is marked in the files until it is answered.
pub(crate) const LATE: Duration = Duration::from_secs(4);

/// Subscriptions whose presentities are looked for together: as many as the misses that a core can have under way.
const TOGETHER: usize = 8;

/// What is gone by when records are taken up, and what is noted meanwhile.
struct TakeUp<'c> {
    now: Now,
    /// Watchers may not know what changed since then (Unix milliseconds).
    since: u64,
    /// Connections that the process before has handed over, sorted.
    connections: &'c [ConnectionId],
    /// Whose documents are composed again.
    recent: Vec<AorKey>,
    /// Dialogs that may have several subscriptions: partition and hash.
    met_again: Vec<(u8, u64)>,
}

impl Shard {
    /// Rebuilds the memory of this shard from its partitions. Watchers were told what changed long enough before `told_until`
    /// (Unix milliseconds).
    pub(crate) fn recover(&mut self, now: Now, told_until: u64, connections: &[ConnectionId]) {
        self.heed_wall_clock(now);
        let mut record = RecordBuf::default();
        let own: Vec<u8> = self.files.own_numbers().collect();
        let behind_since = own
            .iter()
            .map(|&p| self.files.presence.undelivered_since(p))
            .filter(|&since| since != 0)
            .fold(told_until, u64::min);
        let since = behind_since.saturating_sub(TOLD_WITHIN.as_millis() as u64);
        let mut taking = TakeUp { now, since, connections, recent: Vec::new(), met_again: Vec::new() };
        for &number in &own {
            let heads: Vec<(u32, Kind)> = self.files.presence_partition(number).heads().collect();
            for together in heads.chunks(TOGETHER) {
                let watched = self.find_watched(number, together);
                for (&(slot, kind), watched) in together.iter().zip(watched) {
                    if self.files.presence_partition(number).read(slot, &mut record).is_err() {
                        self.counters.unreadable_records.up();
                        continue;
                    }
                    let taken = match kind {
                        Kind::Presentity => self.take_document(&mut taking, slot, &record),
                        Kind::Publication => self.take_publication(&mut taking, slot, &record),
                        Kind::Subscription => {
                            self.take_subscription(&mut taking, number, slot, &record, watched)
                        }
                        _ => Some(()),
                    };
                    if taken.is_none() {
                        self.counters.unreadable_records.up();
                    }
                }
            }
            let heads: Vec<(u32, Kind)> = self.files.registered_partition(number).heads().collect();
            for (slot, kind) in heads {
                if kind != Kind::Binding {
                    continue;
                }
                let readable = self.files.registered_partition(number).read(slot, &mut record).is_ok();
                if !readable || self.take_binding(&mut taking, slot, &record).is_none() {
                    self.counters.unreadable_records.up();
                }
            }
        }
        let TakeUp { mut recent, met_again, .. } = taking;
        if let Some(settling) = &mut self.settling {
            let presentities = &self.presentities;
            settling.bare.retain(|&key| {
                presentities.find(key).is_some_and(|user| presentities[user].first_publication == NONE)
            });
        }
        // A first document that found no room before.
        recent.extend(self.presentities.published_without_document());
        recent.sort_unstable();
        recent.dedup();
        for key in recent {
            self.state_changed(now, key);
        }
        self.watch_again(now, since);
        self.set_shared_dialogs(met_again);
        // Another crash, before all have been told, owes the same again.
        self.leave_over(UnixMillis(behind_since.max(1)));
    }

    fn take_document(&mut self, taking: &mut TakeUp<'_>, slot: u32, record: &RecordBuf) -> Option<()> {
        let TakeUp { now, since, .. } = *taking;
        let document = records::document(record).filter(|it| is_known(it.event))?;
        let user = self.presentities.find_or_insert(document.key, document.event);
        let other = &self.presentities[user];
        if other.document != NONE {
            // A power cut may take the removal of one and keep the next, which was written after it. Readers would find either.
            let is_older = document.version < other.version;
            let older = if is_older { slot } else { other.document };
            self.files.presence_partition_mut(document.key.partition()).remove(older);
            taking.recent.push(document.key);
            if is_older {
                return Some(());
            }
        }
        let entry = &mut self.presentities[user];
        entry.document = slot;
        entry.version = document.version;
        entry.fingerprint = document.fingerprint;
        self.last_version = self.last_version.max(document.version);
        entry.behind = document.fingerprint == records::BEHIND;
        let is_behind = entry.behind;
        self.take_hold_down(now, user, document.unregistered_at);
        let is_offline = self.presentities[user].marks & OFFLINE != 0;
        if document.changed_at.0 >= since || is_behind || is_offline {
            taking.recent.push(document.key);
        } else if let Some(settling) = &mut self.settling {
            // Whether it is bare shows when all publications are read.
            settling.bare.push(document.key);
        }
        Some(())
    }

    fn take_publication(&mut self, taking: &mut TakeUp<'_>, slot: u32, record: &RecordBuf) -> Option<()> {
        let TakeUp { now, since, .. } = *taking;
        let stored = records::publication(record).filter(|it| is_known(it.event))?;
        let presentity = self.presentities.find_or_insert(stored.key, stored.event);
        let number = self.presentities.insert_publication(Publication {
            presentity,
            next: NONE,
            slot,
            entity_tag: stored.entity_tag,
            previous_tag: stored.previous_tag,
            request: stored.request,
            expires_at: stored.expires_at,
            published_at: stored.published_at,
            meaning: None,
            len: stored.body.len() as u32,
            number: stored.number,
            event: stored.event,
        });
        self.presentities.publication_expiry.arm(number, self.wall.end_of(now, stored.expires_at));
        if stored.published_at.0 >= since {
            taking.recent.push(stored.key);
        }
        Some(())
    }

    fn take_binding(&mut self, taking: &mut TakeUp<'_>, slot: u32, record: &RecordBuf) -> Option<()> {
        let now = taking.now;
        let stored = records::binding(record)?;
        let presentity = self.presentities.find_or_insert(stored.key, EventPackage::PRESENCE);
        let binding = Binding { presentity, next: NONE, slot, expires_at: stored.expires_at };
        let number = self.presentities.insert_binding(binding);
        self.presentities.binding_expiry.arm(number, self.wall.end_of(now, stored.expires_at));
        // A crash came between this binding and the word that the one before was the last.
        if self.is_back(presentity) {
            taking.recent.push(stored.key);
        }
        // The operator may have changed what a registration alone says.
        let entry = &self.presentities[presentity];
        let is_open = self.settings.registered_state == RegisteredState::Open;
        if entry.first_publication == NONE && is_open != (entry.document != NONE) {
            taking.recent.push(stored.key);
        }
        Some(())
    }

    /// Looks for the presentities of those of `heads` that are subscriptions. Each look-up waits for memory several times, and
    /// several look-ups wait at once.
    fn find_watched(&self, number: u8, heads: &[(u32, Kind)]) -> [Option<u32>; TOGETHER] {
        let mut found = [None; TOGETHER];
        let partition = self.files.presence_partition(number);
        for (found, &(slot, _)) in found.iter_mut().zip(heads).filter(|(_, it)| it.1 == Kind::Subscription) {
            *found = records::watched_by(partition, slot).and_then(|key| self.watched.find(key));
        }
        found
    }

    /// Takes up a subscription to the presentity numbered `watched`, if that is known already.
    fn take_subscription(
        &mut self,
        taking: &mut TakeUp<'_>,
        partition: u8,
        slot: u32,
        record: &RecordBuf,
        watched: Option<u32>,
    ) -> Option<()> {
        let TakeUp { now, since, connections, .. } = *taking;
        let stored = records::subscription(record)?;
        let package = stored.package.number;
        // It may have been met since it was looked for.
        let watched = watched
            .or_else(|| self.watched.find(stored.key))
            .unwrap_or_else(|| self.watched.insert(stored.key, package));
        let dialog = dialog_hash(&self.keys, stored.call_id, stored.remote_tag);
        if self.subscriptions.of_dialog(partition, dialog).next().is_some() {
            taking.met_again.push((partition, dialog));
        }
        let quirks = Quirks::of(stored.user_agent);
        let ending = stored.expires_at <= stored.accepted_at;
        // What failed before is marked in the record; what ends is owed its last NOTIFY.
        // With the process before ended the connections that it did not hand over, and what was on its way by them.
        let connection = stored.flow.connection;
        let cut_off = connection.is_some_and(|it| connections.binary_search(&it).is_err());
        let owed = stored.accepted_at.0 >= since || stored.undelivered || ending || cut_off;
        let cseq = subscriptions::go_on_above(stored.cseq_reserved, self.start);
        let id = self.subscriptions.insert(
            Subscription {
                dialog,
                watched,
                slot,
                secret: self.chance.next_u64() as u32,
                partition,
                cseq,
                // A document for each sequence number at most, so this is above every version that was used.
                version: cseq,
                epoch: self.watched[watched].epoch,
                owed,
                ending,
                marked_undelivered: stored.undelivered,
                body: BodyKind::of(stored.package, stored.info, quirks),
                message_len_max: quirks.message_len_max.unwrap_or(0),
                ..Subscription::default()
            },
            &mut self.watched,
        );
        self.subscriptions.expiry.arm(id, self.wall.end_of(now, stored.expires_at));
        if connection.is_some() {
            self.follow_connection(id, &stored.flow, stored.remote_uri);
        }
        if cut_off && !self.find_other_way(now, id, &stored) {
            // A proxy with a name that wants to stay is looked up and dialled.
            if let Some(query) = self.query_of(&stored) {
                self.await_name(now, id, query);
            }
            let is_lost = !self.subscriptions[id].awaits_flow;
            self.subscriptions.set_unreachable(id, is_lost);
        }
        if owed && self.watched[watched].queued == Queued::No {
            self.queue(now, watched);
        }
        Some(())
    }

    /// Tells the owners of all watched presentities that this shard has watchers, and owes what changed shortly before.
    fn watch_again(&mut self, now: Now, since: u64) {
        let mut record = std::mem::take(&mut self.scratch.document);
        for id in self.watched.ids() {
            let key = self.watched[id].key;
            // Subscriptions have joined the list since; a walk begins at its present head.
            self.watched[id].cursor = self.watched[id].first;
            if self.files.presence.read_by_key(key.partition(), key.0, &mut record).is_ok()
                && let Some(document) = records::document(&record)
            {
                self.watched[id].version = document.version;
                if document.changed_at.0 >= since {
                    self.mark_due(now, id);
                }
            }
            let package = self.watched[id].package;
            let note = Note::Watch { key, shard: self.number(), package };
            self.post_to(now, self.shard_of(key.partition()), note);
        }
        self.scratch.document = record;
    }

    /// Our tag of a subscription's dialog.
    fn local_tag(&self, id: u32) -> Option<u64> {
        let entry = &self.subscriptions[id];
        records::local_tag(self.files.presence_partition(entry.partition), entry.slot)
    }

    /// Marks the subscriptions that share one of `dialogs`, and has them go on above the highest number that any of them may have
    /// used.
    fn set_shared_dialogs(&mut self, mut dialogs: Vec<(u8, u64)>) {
        dialogs.sort_unstable();
        dialogs.dedup();
        for (partition, dialog) in dialogs {
            let ids: Vec<u32> = self.subscriptions.of_dialog(partition, dialog).collect();
            let mut is_shared = false;
            for &id in &ids {
                let mine = self.local_tag(id);
                let others = ids.iter().take(SUBSCRIPTIONS_PER_DIALOG_MAX + 1).filter(|&&other| other != id);
                let shared = others.copied().any(|other| self.local_tag(other) == mine);
                self.subscriptions[id].shared_dialog = shared;
                is_shared |= shared;
            }
            let highest = ids.iter().map(|&id| self.subscriptions[id].cseq).max().filter(|_| is_shared);
            if let Some(highest) = highest {
                self.raise_dialog_cseq(ids[0], highest);
            }
        }
    }
}

/// Whether we serve the event package of that number. A newer version may have stored others; its records are left alone.
fn is_known(package: u8) -> bool {
    EventPackage::by_number(package).is_some()
}

#[cfg(test)]
mod tests;

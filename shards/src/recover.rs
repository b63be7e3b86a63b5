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
use crate::sipp::dialog_hash;
use crate::subscriptions::{self, Subscription};
use crate::watched::{BodyKind, NONE};

/// What changed so long before a heartbeat has been told or is marked: 64*T1, and more because the heartbeat comes once a sync
/// interval, a NOTIFY may be [`LATE`], and clocks are not exact.
pub(crate) const TOLD_WITHIN: Duration = TIMER_F.saturating_add(Duration::from_secs(10));

/// A NOTIFY that leaves longer than this after it was owed is marked in the files until it is answered.
pub(crate) const LATE: Duration = Duration::from_secs(4);

impl Shard {
    /// Rebuilds the memory of this shard from its partitions. Watchers were told what changed long enough before `told_until`
    /// (Unix milliseconds).
    pub(crate) fn recover(&mut self, now: Now, told_until: u64, connections: &[ConnectionId]) {
        self.heed_wall_clock(now);
        let mut record = RecordBuf::default();
        let mut recent: Vec<AorKey> = Vec::new();
        let own: Vec<u8> = self.files.own_numbers().collect();
        let behind_since = own
            .iter()
            .map(|&p| self.files.presence.undelivered_since(p))
            .filter(|&since| since != 0)
            .fold(told_until, u64::min);
        let since = behind_since.saturating_sub(TOLD_WITHIN.as_millis() as u64);
        for &number in &own {
            let heads: Vec<(u32, Kind)> = self.files.presence_partition(number).heads().collect();
            for (slot, kind) in heads {
                if self.files.presence_partition(number).read(slot, &mut record).is_err() {
                    self.counters.unreadable_records.up();
                    continue;
                }
                let taken = match kind {
                    Kind::Presentity => self.take_document(now, slot, &record, since, &mut recent),
                    Kind::Publication => self.take_publication(now, slot, &record, since, &mut recent),
                    Kind::Subscription => {
                        self.take_subscription(now, number, slot, &record, since, connections)
                    }
                    _ => Some(()),
                };
                if taken.is_none() {
                    self.counters.unreadable_records.up();
                }
            }
            let heads: Vec<(u32, Kind)> = self.files.registered_partition(number).heads().collect();
            for (slot, kind) in heads {
                if kind != Kind::Binding {
                    continue;
                }
                let readable = self.files.registered_partition(number).read(slot, &mut record).is_ok();
                if !readable || self.take_binding(now, slot, &record, &mut recent).is_none() {
                    self.counters.unreadable_records.up();
                }
            }
        }
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
        self.set_shared_dialogs();
        // Another crash, before all have been told, owes the same again.
        for index in 0..self.due.len() {
            let entry = &mut self.watched[self.due[index]];
            entry.due_since = entry.due_since.min(UnixMillis(behind_since.max(1)));
        }
    }

    fn take_document(
        &mut self,
        now: Now,
        slot: u32,
        record: &RecordBuf,
        since: u64,
        recent: &mut Vec<AorKey>,
    ) -> Option<()> {
        let document = records::document(record).filter(|it| is_known(it.event))?;
        let user = self.presentities.find_or_insert(document.key, document.event);
        let other = &self.presentities[user];
        if other.document != NONE {
            // A power cut may take the removal of one and keep the next, which was written after it. Readers would find either.
            let is_older = document.version < other.version;
            let older = if is_older { slot } else { other.document };
            self.files.presence_partition_mut(document.key.partition()).remove(older);
            recent.push(document.key);
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
            recent.push(document.key);
        } else if let Some(settling) = &mut self.settling {
            // Whether it is bare shows when all publications are read.
            settling.bare.push(document.key);
        }
        Some(())
    }

    fn take_publication(
        &mut self,
        now: Now,
        slot: u32,
        record: &RecordBuf,
        since: u64,
        recent: &mut Vec<AorKey>,
    ) -> Option<()> {
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
            recent.push(stored.key);
        }
        Some(())
    }

    fn take_binding(
        &mut self,
        now: Now,
        slot: u32,
        record: &RecordBuf,
        recent: &mut Vec<AorKey>,
    ) -> Option<()> {
        let stored = records::binding(record)?;
        let presentity = self.presentities.find_or_insert(stored.key, EventPackage::PRESENCE);
        let binding = Binding { presentity, next: NONE, slot, expires_at: stored.expires_at };
        let number = self.presentities.insert_binding(binding);
        self.presentities.binding_expiry.arm(number, self.wall.end_of(now, stored.expires_at));
        // A crash came between this binding and the word that the one before was the last.
        if self.is_back(presentity) {
            recent.push(stored.key);
        }
        // The operator may have changed what a registration alone says.
        let entry = &self.presentities[presentity];
        let is_open = self.settings.registered_state == RegisteredState::Open;
        if entry.first_publication == NONE && is_open != (entry.document != NONE) {
            recent.push(stored.key);
        }
        Some(())
    }

    fn take_subscription(
        &mut self,
        now: Now,
        partition: u8,
        slot: u32,
        record: &RecordBuf,
        since: u64,
        connections: &[ConnectionId],
    ) -> Option<()> {
        let stored = records::subscription(record)?;
        let package = stored.package.number;
        let watched =
            self.watched.find(stored.key).unwrap_or_else(|| self.watched.insert(stored.key, package));
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
                dialog: dialog_hash(&self.keys, stored.call_id, stored.remote_tag),
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
        if owed && !self.watched[watched].queued {
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

    /// Marks the subscriptions that share a dialog, and has them go on above the highest number that any of them may have used.
    fn set_shared_dialogs(&mut self) {
        for id in self.subscriptions.ids() {
            if !self.subscriptions.knows(id) {
                continue;
            }
            let entry = &self.subscriptions[id];
            let mine = self.local_tag(id);
            let others = self
                .subscriptions
                .of_dialog(entry.partition, entry.dialog)
                .take(SUBSCRIPTIONS_PER_DIALOG_MAX + 1);
            let shared = others.filter(|&other| other != id).any(|other| self.local_tag(other) == mine);
            if shared {
                let of_dialog = self.subscriptions.of_dialog(entry.partition, entry.dialog);
                let highest = of_dialog.map(|other| self.subscriptions[other].cseq).max().unwrap_or(0);
                self.raise_dialog_cseq(id, highest);
            }
            self.subscriptions[id].shared_dialog = shared;
        }
    }
}

/// Whether we serve the event package of that number. A newer version may have stored others; its records are left alone.
fn is_known(package: u8) -> bool {
    EventPackage::by_number(package).is_some()
}

#[cfg(test)]
mod tests;

//! Who watches whom (RFC 3857): the shards that have watchers of a presentity report them to its owner, and the owner composes
//! the document. Both do so only while somebody watches the watchers.
//!
//! ```text
//! owner                                   shard with watchers of the presentity
//! the first one watches `….winfo`
//!            WinfoWanted { wanted: true } ->
//!                                         <- report: all its watchers
//! all have reported: composed, told
//!                                            a watcher comes, ends, refreshes
//!                                         <- report: all its watchers, at most once in REPORT_INTERVAL
//! composed, told as the package allows
//! nobody watches `….winfo` any more
//!            WinfoWanted { wanted: false } ->
//! ```
//!
//! A report is whole and takes the place of the one before, so nothing has to be kept in step. It names at most
//! [`WATCHERS_REPORTED_MAX`] watchers, those who came last first; a document lists at most [`WATCHERS_LISTED_MAX`] of them, and no
//! more than a datagram holds. Whoever is not named is counted (`watchers_unlisted`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comsipl_core::event::winfo::{self, Watcher, WatcherEvent};
use comsipl_core::event::{Composed, EventPackage, TOLD_FOR};
use comsipl_core::limits::{PRESENTITY_LEN_MAX, WATCHERS_LISTED_MAX, WATCHERS_REPORTED_MAX};
use comsipl_core::{AorKey, HashKey, Mono, Now, UnixMillis};

use crate::note::Note;
use crate::presentities::WATCHERS_WATCHED;
use crate::records::{self, StoredSubscription};
use crate::shard::Shard;
use crate::watched::NONE;

/// Least time between two reports of a presentity's watchers from one shard.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A refresh changes nothing but when a subscription ends, so it may wait for other news, but not until that time is over.
const REFRESH_REPORTED_AFTER: Duration = Duration::from_secs(30);
/// Reports written in one turn; the rest waits for the next.
const REPORTS_PER_TURN: usize = 16;
/// Longest report in bytes: half of a batch of the bus.
const REPORT_LEN_MAX: usize = 32 * 1024;
/// Watchers who ended and are told of, for each presentity; of more the oldest is forgotten.
const ENDED_MAX: usize = 64;

/// What a shard owes the owner of a presentity whose winfo is watched.
#[derive(Default)]
struct Reporting {
    /// When the next report is due; `None`: nothing is new.
    due: Option<Mono>,
    /// Before this there is no other report.
    not_before: Mono,
    /// Canonical AoR of the presentity, as soon as a subscription has said it.
    aor: Vec<u8>,
    /// Watchers who ended, for as long as that is told.
    ended: Vec<EndedWatcher>,
}

/// A watcher who is one no more.
struct EndedWatcher {
    id: u64,
    event: WatcherEvent,
    until: UnixMillis,
    uri: Box<[u8]>,
}

/// Presentities whose watchers this shard reports.
#[derive(Default)]
pub(crate) struct Reports {
    of: BTreeMap<AorKey, Reporting>,
    due: BTreeSet<(Mono, AorKey)>,
}

impl Reports {
    /// When the next report is due.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Something is to be reported of `key`, by `at` if it may be.
    fn due_by(&mut self, key: AorKey, at: Mono) {
        let Some(reporting) = self.of.get_mut(&key) else { return };
        let at = at.max(reporting.not_before);
        if reporting.due.is_none_or(|due| at < due) {
            if let Some(due) = reporting.due.replace(at) {
                self.due.remove(&(due, key));
            }
            self.due.insert((at, key));
        }
    }
}

/// What the owner of a presentity knows of its watchers, while somebody wants to know.
#[derive(Default)]
pub(crate) struct ReportedWatchers {
    /// The newest report of each shard that sent one.
    by_shard: BTreeMap<u8, Vec<u8>>,
    /// Shards whose first report is awaited: until all have come nothing is told.
    awaited: u64,
    /// Whether they have been told since.
    is_told: bool,
}

/// A report on its way to the owner of a presentity.
#[derive(Debug)]
pub struct Report {
    /// The presentity.
    pub key: AorKey,
    /// The shard that reports.
    pub shard: u8,
    /// Length of the presentity's AoR in two bytes, the AoR, and the watchers ([`winfo::push_watcher`]).
    pub bytes: Vec<u8>,
}

impl Shard {
    /// Somebody watches the watchers of the user `key` from now on, or nobody does any more. Only the owner calls this.
    pub(super) fn watch_watchers(&mut self, now: Now, key: AorKey, wanted: bool) {
        let user = if wanted {
            self.presentities.find_or_insert(key, EventPackage::PRESENCE)
        } else {
            let Some(user) = self.presentities.find(key) else { return };
            user
        };
        let entry = &mut self.presentities[user];
        let mut shards = entry.watching_shards;
        if wanted {
            entry.marks |= WATCHERS_WATCHED;
            // After a start not every shard has said yet whom it watches, so all are asked.
            shards = u64::MAX >> (64 - self.shards);
            let reported = ReportedWatchers { awaited: shards, ..ReportedWatchers::default() };
            self.reported_watchers.insert(key, reported);
        } else {
            entry.marks &= !WATCHERS_WATCHED;
            self.reported_watchers.remove(&key);
            self.presentities.forget_if_empty(user);
        }
        while shards != 0 {
            let shard = shards.trailing_zeros() as usize;
            shards &= shards - 1;
            self.post_to(now, shard, Note::WinfoWanted { key, wanted });
        }
    }

    /// Whether the document about the watchers of a resource waits for the first reports.
    pub(super) fn awaits_reports(&self, resource: AorKey) -> bool {
        let key = self.keys.user_of(resource, EventPackage::presence_winfo());
        self.reported_watchers.get(&key).is_some_and(|reported| reported.awaited != 0)
    }

    /// Takes a shard's report of its watchers of a presentity.
    pub fn on_report(&mut self, now: Now, report: Report) {
        let Report { key, shard, bytes } = report;
        // Nobody may want to know any more.
        let Some(reported) = self.reported_watchers.get_mut(&key) else { return };
        reported.awaited &= !(1 << shard);
        reported.by_shard.insert(shard, bytes);
        self.report_complete(now, key);
    }

    /// Composes the document about the watchers of `key`, if every shard that has any has reported.
    pub(super) fn report_complete(&mut self, now: Now, key: AorKey) {
        let Some(reported) = self.reported_watchers.get_mut(&key) else { return };
        if reported.awaited != 0 {
            return;
        }
        let is_first = !std::mem::replace(&mut reported.is_told, true);
        let resource = self.keys.resource(key, EventPackage::presence_winfo());
        let Some(number) = self.presentities.find(resource) else { return };
        if is_first {
            self.compose_first(now, number);
        } else {
            self.state_of_user_changed(now, number, None);
        }
    }

    /// Writes the document about the watchers of `resource` into the scratch buffers; `None` while nobody wants to know, and while
    /// there are none.
    pub(super) fn compose_watchers(&mut self, now: Now, resource: AorKey) -> Option<Composed> {
        let key = self.keys.user_of(resource, EventPackage::presence_winfo());
        let reported = self.reported_watchers.get(&key).filter(|reported| reported.awaited == 0)?;
        let scratch = &mut self.scratch;
        scratch.user.clear();
        let mut watchers: Vec<Watcher<'_>> = Vec::new();
        for report in reported.by_shard.values() {
            let Some((len, rest)) = report.split_first_chunk::<2>() else { continue };
            let Some((aor, rest)) = rest.split_at_checked(u16::from_le_bytes(*len).into()) else { continue };
            // A shard on which nobody watches any more does not know the user's name.
            if !aor.is_empty() {
                scratch.user.clear();
                scratch.user.extend_from_slice(aor);
            }
            let told = |watcher: &Watcher<'_>| watcher.event.is_active() || watcher.until > now.wall;
            watchers.extend(winfo::watchers(rest).filter(told));
        }
        if scratch.user.is_empty() {
            return None;
        }
        let unlisted = watchers.len().saturating_sub(WATCHERS_LISTED_MAX);
        watchers.truncate(WATCHERS_LISTED_MAX);
        scratch.composed.clear();
        let package = EventPackage::presence().name;
        let listed = watchers.iter().copied();
        let left_out =
            winfo::write(&scratch.user, package, listed, PRESENTITY_LEN_MAX, &mut scratch.composed);
        self.counters.watchers_unlisted.add((unlisted + left_out) as u64);
        Some(self.compositor.with_moments(&scratch.composed))
    }

    /// The owner of a presentity wants to know its watchers, or does not any more.
    pub(crate) fn on_winfo_wanted(&mut self, now: Now, key: AorKey, wanted: bool) {
        let watched = self.watched.find(key);
        if let Some(id) = watched {
            self.watched[id].is_reported = wanted;
        }
        if let Some(due) = self.reports_due.of.remove(&key).and_then(|reporting| reporting.due) {
            self.reports_due.due.remove(&(due, key));
        }
        if !wanted {
            return;
        }
        match watched {
            Some(_) => {
                self.reports_due.of.insert(key, Reporting::default());
                self.reports_due.due_by(key, now.mono);
                self.report(now, key);
            }
            // The last one has just gone; the owner waits for an answer all the same.
            None => self.send_report(now, key, Vec::new()),
        }
    }

    /// A watcher came: a subscription was made that is no poll.
    pub(super) fn watcher_came(&mut self, now: Now, id: u32) {
        if let Some(key) = self.reported(id) {
            self.reports_due.due_by(key, now.mono);
        }
    }

    /// A watcher refreshed.
    pub(super) fn watcher_refreshed(&mut self, now: Now, id: u32) {
        if let Some(key) = self.reported(id) {
            self.reports_due.due_by(key, now.mono + REFRESH_REPORTED_AFTER);
        }
    }

    /// A subscription that was no poll ends.
    pub(crate) fn watcher_ended(&mut self, now: Now, id: u32, event: WatcherEvent) {
        let Some(key) = self.reported(id) else { return };
        let entry = &self.subscriptions[id];
        let files = self.files.presence_partition(entry.partition);
        let Some(stored) = records::view_subscription(files, entry.slot, &mut self.scratch.document) else {
            return;
        };
        let aor = stored.aor;
        let ended = EndedWatcher {
            id: watcher_id(&self.keys, &stored),
            event,
            until: UnixMillis(now.wall.0 + TOLD_FOR.as_millis() as u64),
            uri: stored.remote_uri.into(),
        };
        if let Some(reporting) = self.reports_due.of.get_mut(&key) {
            reporting.aor.clear();
            reporting.aor.extend_from_slice(aor);
            reporting.ended.retain(|ended| ended.until > now.wall);
            if reporting.ended.len() >= ENDED_MAX {
                reporting.ended.remove(0);
            }
            reporting.ended.push(ended);
        }
        self.reports_due.due_by(key, now.mono);
    }

    /// The presentity that a subscription watches, if its watchers are reported.
    fn reported(&self, id: u32) -> Option<AorKey> {
        let watched = &self.watched[self.subscriptions[id].watched];
        watched.is_reported.then_some(watched.key)
    }

    /// Writes the reports that are due; says whether more are.
    pub(crate) fn write_reports(&mut self, now: Now) -> bool {
        for _ in 0..REPORTS_PER_TURN {
            match self.reports_due.due.first() {
                Some(&(at, key)) if at <= now.mono => self.report(now, key),
                _ => return false,
            }
        }
        true
    }

    /// Nobody on this shard watches the presentity any more: what is left to say of its watchers is said now.
    pub(crate) fn end_reporting(&mut self, now: Now, key: AorKey) {
        self.report(now, key);
        self.reports_due.of.remove(&key);
    }

    /// Reports the watchers of a presentity.
    fn report(&mut self, now: Now, key: AorKey) {
        let Some(reporting) = self.reports_due.of.get_mut(&key) else { return };
        if let Some(due) = reporting.due.take() {
            self.reports_due.due.remove(&(due, key));
        }
        reporting.not_before = now.mono + REPORT_INTERVAL;
        reporting.ended.retain(|ended| ended.until > now.wall);
        let mut unlisted = 0;
        let mut listed = Vec::new();
        let mut steps = 0;
        if let Some(watched) = self.watched.find(key) {
            let mut next = self.watched[watched].first;
            while next != NONE && steps < WATCHERS_REPORTED_MAX {
                let entry = &self.subscriptions[next];
                next = entry.next;
                steps += 1;
                // Polls are transient (RFC 3857 §4.7.2), and whoever ends has been noted as such.
                if entry.ending {
                    continue;
                }
                let files = self.files.presence_partition(entry.partition);
                let stored = records::view_subscription(files, entry.slot, &mut self.scratch.document);
                let Some(stored) = stored else { continue };
                if listed.len() > REPORT_LEN_MAX {
                    unlisted += 1;
                    continue;
                }
                reporting.aor.clear();
                reporting.aor.extend_from_slice(stored.aor);
                let watcher = Watcher {
                    id: watcher_id(&self.keys, &stored),
                    event: WatcherEvent::Subscribe,
                    subscribed_at: records::began_at(stored.local_tag, stored.accepted_at),
                    until: stored.expires_at,
                    uri: stored.remote_uri,
                };
                winfo::push_watcher(&watcher, &mut listed);
            }
            unlisted += (self.watched[watched].count as usize).saturating_sub(steps);
        }
        self.counters.watchers_unlisted.add(unlisted as u64);
        let mut bytes = (reporting.aor.len() as u16).to_le_bytes().to_vec();
        bytes.extend_from_slice(&reporting.aor);
        bytes.append(&mut listed);
        for &EndedWatcher { id, event, until, ref uri } in &reporting.ended {
            let subscribed_at = UnixMillis(0);
            winfo::push_watcher(&Watcher { id, event, subscribed_at, until, uri }, &mut bytes);
        }
        self.send_report(now, key, bytes);
    }

    fn send_report(&mut self, now: Now, key: AorKey, bytes: Vec<u8>) {
        let report = Report { key, shard: self.number(), bytes };
        let owner = self.shard_of(key.partition());
        if owner == self.index {
            self.on_report(now, report);
        } else {
            self.reports.push((owner, report));
        }
    }
}

/// Names a subscription among all there are, the same after a restart; nobody can foresee it or make the dialog of it.
fn watcher_id(keys: &HashKey, stored: &StoredSubscription<'_>) -> u64 {
    keys.of(&[b"watcher", stored.call_id, &stored.local_tag.to_le_bytes(), stored.event_id])
}

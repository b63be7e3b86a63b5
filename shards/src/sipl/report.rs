//! What a shard says of its watchers of a presentity to the presentity's owner, while somebody watches the watchers
//! ([`super::winfo`]).
//!
//! Invariants:
//!   * there is at most one report of a user in [`REPORT_INTERVAL`], whatever brings it about, as long as the shard has anything to
//!     say of him: what is remembered of him lasts at least as long as that interval;
//!   * a watcher who ended is named in all reports for [`TOLD_FOR`], also when he was the last one;
//!   * a report is no longer than [`REPORT_LEN_MAX`], so that it always fits the bus.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use comsipl_core::event::TOLD_FOR;
use comsipl_core::event::winfo::{self, Watcher, WatcherEvent};
use comsipl_core::limits::{WATCHER_URI_LEN_MAX, WATCHERS_REPORTED_MAX};
use comsipl_core::{AorKey, HashKey, Mono, Now, UnixMillis};

use crate::records::{self, StoredSubscription};
use crate::shard::Shard;
use crate::watched::NONE;

/// Least time between two reports of a presentity's watchers from one shard.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A refresh changes nothing but when a subscription ends, so it may wait for other news, but not until that time is over.
const REFRESH_REPORTED_AFTER: Duration = Duration::from_secs(30);
/// Reports written in one turn; the rest waits for the next.
const REPORTS_PER_TURN: usize = 16;
/// Longest report in bytes: half of a batch of the bus. Beyond it watchers are not named, first those who ended.
const REPORT_LEN_MAX: usize = 32 * 1024;
/// Watchers who ended and are told of, for each presentity; of more the oldest is forgotten.
const ENDED_MAX: usize = 64;

/// What a shard owes the owner of a presentity whose winfo is watched.
#[derive(Default)]
struct Reporting {
    /// When this is looked at next; `None`: when something is new.
    due: Option<Mono>,
    /// Whether something is to be reported then.
    is_news: bool,
    /// Before this there is no other report.
    not_before: Mono,
    /// Canonical AoR of the presentity, as soon as a subscription has said it.
    aor: Vec<u8>,
    /// Watchers who ended, for as long as that is told, the oldest first.
    ended: VecDeque<EndedWatcher>,
}

/// A watcher who is one no more.
struct EndedWatcher {
    id: u64,
    event: WatcherEvent,
    until: UnixMillis,
    uri: Box<[u8]>,
}

impl EndedWatcher {
    fn as_watcher(&self) -> Watcher<'_> {
        let &Self { id, event, until, ref uri } = self;
        Watcher { id, event, subscribed_at: UnixMillis(0), until, uri }
    }
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
        if let Some(reporting) = self.of.get_mut(&key) {
            reporting.is_news = true;
            let at = at.max(reporting.not_before);
            self.look_by(key, at);
        }
    }

    /// `key` is to be looked at, at `at` at the latest.
    fn look_by(&mut self, key: AorKey, at: Mono) {
        let Some(reporting) = self.of.get_mut(&key) else { return };
        if reporting.due.is_none_or(|due| at < due) {
            if let Some(due) = reporting.due.replace(at) {
                self.due.remove(&(due, key));
            }
            self.due.insert((at, key));
        }
    }

    /// The next one that is due.
    fn take_due(&mut self, now: Mono) -> Option<AorKey> {
        let &(at, key) = self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, key));
        if let Some(reporting) = self.of.get_mut(&key) {
            reporting.due = None;
        }
        Some(key)
    }

    fn forget(&mut self, key: AorKey) {
        if let Some(due) = self.of.remove(&key).and_then(|reporting| reporting.due) {
            self.due.remove(&(due, key));
        }
    }
}

/// A report on its way to the owner of a presentity.
#[derive(Debug)]
pub struct Report {
    /// The presentity.
    pub key: AorKey,
    /// The shard that reports.
    pub shard: u8,
    /// The watchers ([`winfo::begin_report`]); empty: there are none.
    pub bytes: Vec<u8>,
}

impl Shard {
    /// The owner of a presentity wants to know its watchers, or does not any more.
    pub(crate) fn on_winfo_wanted(&mut self, now: Now, key: AorKey, wanted: bool) {
        let watched = self.watched.find(key);
        if let Some(id) = watched {
            self.watched[id].is_reported = wanted;
        }
        if !wanted {
            self.reports_due.forget(key);
        } else if watched.is_some() || self.reports_due.of.contains_key(&key) {
            self.reports_due.of.entry(key).or_default();
            // Not at once: the watcher by whom this came may not stand in the list yet.
            self.reports_due.due_by(key, now.mono);
        } else {
            // Nobody is here; the owner waits for an answer all the same.
            self.send_report(now, key, Vec::new());
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
    pub(super) fn watcher_ended(&mut self, now: Now, id: u32, event: WatcherEvent) {
        let Some(key) = self.reported(id) else { return };
        let entry = &self.subscriptions[id];
        let files = self.files.presence_partition(entry.partition);
        let Some(stored) = records::view_subscription(files, entry.slot, &mut self.scratch.document) else {
            return;
        };
        if let Some(reporting) = self.reports_due.of.get_mut(&key) {
            reporting.aor.clear();
            reporting.aor.extend_from_slice(stored.aor);
            if stored.remote_uri.len() <= WATCHER_URI_LEN_MAX {
                if reporting.ended.len() >= ENDED_MAX {
                    reporting.ended.pop_front();
                }
                reporting.ended.push_back(EndedWatcher {
                    id: watcher_id(&self.keys, &stored),
                    event,
                    until: UnixMillis(now.wall.0 + TOLD_FOR.as_millis() as u64),
                    uri: stored.remote_uri.into(),
                });
            }
        }
        self.reports_due.due_by(key, now.mono);
    }

    /// The presentity that a subscription watches, if its watchers are reported.
    fn reported(&self, id: u32) -> Option<AorKey> {
        let watched = &self.watched[self.subscriptions[id].watched];
        watched.is_reported.then_some(watched.key)
    }

    /// Nobody on this shard watches the presentity any more, which is said like everything else.
    pub(crate) fn end_reporting(&mut self, now: Now, key: AorKey) {
        self.reports_due.due_by(key, now.mono);
    }

    /// Writes the reports that are due; says whether more are.
    pub(crate) fn write_reports(&mut self, now: Now) -> bool {
        for _ in 0..REPORTS_PER_TURN {
            let Some(key) = self.reports_due.take_due(now.mono) else { return false };
            self.report(now, key);
        }
        true
    }

    /// Reports the watchers of a presentity if there is news, and forgets it when there will be none.
    fn report(&mut self, now: Now, key: AorKey) {
        let Some(reporting) = self.reports_due.of.get_mut(&key) else { return };
        reporting.ended.retain(|ended| ended.until > now.wall);
        let is_news = std::mem::take(&mut reporting.is_news);
        if is_news {
            reporting.not_before = now.mono + REPORT_INTERVAL;
        }
        let not_before = reporting.not_before;
        let last_told = reporting.ended.back().map(|ended| ended.until.0.saturating_sub(now.wall.0));
        if is_news {
            let report = self.write_report(key);
            self.send_report(now, key, report);
        }
        if self.watched.find(key).is_some_and(|id| self.watched[id].is_reported) {
            return;
        }
        // The wall clock may be set back meanwhile.
        let last_told = last_told.map(|left| now.mono + Duration::from_millis(left).min(TOLD_FOR));
        match last_told.max(Some(not_before)).filter(|&at| at > now.mono) {
            Some(at) => self.reports_due.look_by(key, at),
            None => self.reports_due.forget(key),
        }
    }

    /// The watchers of a presentity, those who came last first, then those who ended, the last first.
    fn write_report(&mut self, key: AorKey) -> Vec<u8> {
        let Some(reporting) = self.reports_due.of.get_mut(&key) else { return Vec::new() };
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
                reporting.aor.clear();
                reporting.aor.extend_from_slice(stored.aor);
                let watcher = Watcher {
                    id: watcher_id(&self.keys, &stored),
                    event: WatcherEvent::Subscribe,
                    subscribed_at: records::began_at(stored.local_tag, stored.accepted_at),
                    until: stored.expires_at,
                    uri: stored.remote_uri,
                };
                if !winfo::push_watcher(&watcher, REPORT_LEN_MAX, &mut listed) {
                    unlisted += 1;
                }
            }
            unlisted += (self.watched[watched].count as usize).saturating_sub(steps);
        }
        for ended in reporting.ended.iter().rev() {
            if !winfo::push_watcher(&ended.as_watcher(), REPORT_LEN_MAX, &mut listed) {
                unlisted += 1;
            }
        }
        self.counters.watchers_unlisted.add(unlisted as u64);
        let mut report = winfo::begin_report(&reporting.aor);
        report.append(&mut listed);
        report
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

//! Who watches whom (RFC 3857): the shards that have watchers of a presentity report them to its owner ([`super::report`]), and the
//! owner composes the document. Both do so only while somebody watches the watchers.
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
//! nobody watches `….winfo` any more, and nobody has come again for LINGER
//!            WinfoWanted { wanted: false } ->
//! ```
//!
//! A report is whole and takes the place of the one before, so nothing has to be kept in step. It names at most
//! `WATCHERS_REPORTED_MAX` watchers, those who came last first; a document lists at most [`WATCHERS_LISTED_MAX`] of them, and no
//! more than a datagram holds. Whoever is not named is counted (`watchers_unlisted`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comsipl_core::event::winfo::{self, Watcher};
use comsipl_core::event::{Composed, EventPackage};
use comsipl_core::limits::{PRESENTITY_LEN_MAX, WATCHERS_LISTED_MAX};
use comsipl_core::{AorKey, Mono, Now};

use super::report::{REPORT_INTERVAL, Report};
use crate::note::Note;
use crate::presentities::WATCHERS_WATCHED;
use crate::shard::Shard;

/// How long the shards go on reporting when nobody watches a user's watchers any more. Whoever polls `….winfo` again and again
/// (RFC 3857 §4.7.2: a fetch shows full state) has all shards report no more often than a watcher does.
const LINGER: Duration = REPORT_INTERVAL;
/// Users of whom the shards are told in one turn that nobody wants to know any more; the rest waits for the next.
const LINGERING_PER_TURN: usize = 64;

/// Our users whose watchers somebody watches, or did a moment ago.
#[derive(Default)]
pub(crate) struct WatchedWatchers {
    of: BTreeMap<AorKey, ReportedWatchers>,
    lingering: BTreeSet<(Mono, AorKey)>,
}

impl WatchedWatchers {
    /// When the next user is to be forgotten.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.lingering.first().map(|&(until, _)| until)
    }
}

/// What the owner of a presentity knows of its watchers, while somebody wants to know.
#[derive(Default)]
struct ReportedWatchers {
    /// The newest report of each shard that sent one.
    by_shard: BTreeMap<u8, Vec<u8>>,
    /// Shards whose first report is awaited: until all have come nothing is told.
    awaited: u64,
    /// Whether they have been told since somebody wants to know.
    is_told: bool,
    /// Until when the shards report although nobody wants to know; `None` while somebody does.
    lingers_until: Option<Mono>,
}

impl Shard {
    /// Somebody watches the watchers of the user `key` from now on, and nobody did before. Only the owner calls this.
    pub(super) fn watch_watchers(&mut self, now: Now, key: AorKey) {
        let user = self.presentities.find_or_insert(key, EventPackage::PRESENCE);
        self.presentities[user].marks |= WATCHERS_WATCHED;
        if let Some(reported) = self.watched_watchers.of.get_mut(&key) {
            // The shards have not been told that nobody did.
            reported.is_told = false;
            if let Some(until) = reported.lingers_until.take() {
                self.watched_watchers.lingering.remove(&(until, key));
            }
            self.report_complete(now, key);
            return;
        }
        // After a start not every shard has said yet whom it watches, so all are asked.
        let shards = u64::MAX >> (64 - self.shards);
        let reported = ReportedWatchers { awaited: shards, ..ReportedWatchers::default() };
        self.watched_watchers.of.insert(key, reported);
        self.post_winfo_wanted(now, key, shards, true);
    }

    /// Nobody watches the watchers of the user `key` any more.
    pub(super) fn unwatch_watchers(&mut self, now: Now, key: AorKey) {
        let until = now.mono + LINGER;
        if let Some(reported) = self.watched_watchers.of.get_mut(&key) {
            if let Some(before) = reported.lingers_until.replace(until) {
                self.watched_watchers.lingering.remove(&(before, key));
            }
            self.watched_watchers.lingering.insert((until, key));
        }
    }

    /// Tells the shards of whom nobody has wanted to know for long enough; says whether more are.
    pub(crate) fn end_lingering(&mut self, now: Now) -> bool {
        for _ in 0..LINGERING_PER_TURN {
            match self.watched_watchers.lingering.first() {
                Some(&(until, key)) if until <= now.mono => {
                    self.watched_watchers.lingering.remove(&(until, key));
                    self.watched_watchers.of.remove(&key);
                    let Some(user) = self.presentities.find(key) else { continue };
                    let entry = &mut self.presentities[user];
                    entry.marks &= !WATCHERS_WATCHED;
                    let shards = entry.watching_shards;
                    self.presentities.forget_if_empty(user);
                    self.post_winfo_wanted(now, key, shards, false);
                }
                _ => return false,
            }
        }
        true
    }

    fn post_winfo_wanted(&mut self, now: Now, key: AorKey, mut shards: u64, wanted: bool) {
        while shards != 0 {
            let shard = shards.trailing_zeros() as usize;
            shards &= shards - 1;
            self.post_to(now, shard, Note::WinfoWanted { key, wanted });
        }
    }

    /// Whether the document about the watchers of a resource waits for the first reports.
    pub(super) fn awaits_reports(&self, resource: AorKey) -> bool {
        let key = self.keys.user_of(resource, EventPackage::presence_winfo());
        self.watched_watchers.of.get(&key).is_some_and(|reported| reported.awaited != 0)
    }

    /// Takes a shard's report of its watchers of a presentity.
    pub fn on_report(&mut self, now: Now, report: Report) {
        let Report { key, shard, bytes } = report;
        self.heed_wall_clock(now);
        // Nobody may want to know any more.
        let Some(reported) = self.watched_watchers.of.get_mut(&key) else { return };
        reported.awaited &= !(1 << shard);
        if bytes.is_empty() {
            reported.by_shard.remove(&shard);
        } else {
            reported.by_shard.insert(shard, bytes);
        }
        self.report_complete(now, key);
    }

    /// Composes the document about the watchers of `key`, if every shard that has any has reported.
    fn report_complete(&mut self, now: Now, key: AorKey) {
        let Some(reported) = self.watched_watchers.of.get_mut(&key) else { return };
        if reported.awaited != 0 || reported.lingers_until.is_some() {
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
        let is_wanted =
            |reported: &&ReportedWatchers| reported.awaited == 0 && reported.lingers_until.is_none();
        let reported = self.watched_watchers.of.get(&key).filter(is_wanted)?;
        let scratch = &mut self.scratch;
        scratch.user.clear();
        let mut watchers: Vec<Watcher<'_>> = Vec::new();
        for report in reported.by_shard.values() {
            let Some((aor, rest)) = winfo::split_report(report) else { continue };
            // A shard on which nobody watches any more may not know the user's name.
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
        // Whoever watches comes before those who did, and who came last before the others: where there is no room for all,
        // that is who is told; and the list is the same after a restart.
        watchers.sort_unstable_by_key(|it| {
            (
                !it.event.is_active(),
                std::cmp::Reverse(it.subscribed_at.0),
                std::cmp::Reverse(it.until.0),
                it.id,
            )
        });
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
}

#[cfg(test)]
mod tests;

//! What watchers are told of a user: the document composed of all that is published and registered.
//!
//! The document is stored while anything is known of the user. When the last publication ends it becomes a bare `closed`
//! and stays while somebody watches, because its time says that watchers are owed it: a crash may come before they are
//! told. After a start nobody knows yet who watches, so bare documents stay for a while then (see [`Settling`]).

use std::time::Duration;

use comsipl_core::pidf::{self, Basic, Published};
use comsipl_core::{AorKey, Mono, Now};
use smallvec::SmallVec;

use crate::note::Note;
use crate::records::{self, StoredDocument};
use crate::settings::RegisteredState;
use crate::shard::Shard;
use crate::watched::NONE;

/// Room on the stack for what one user publishes; more devices than this go to the heap.
const DEVICES: usize = 8;
/// Bare documents looked at in one turn when the time after a start is over.
const SWEPT_PER_TURN: usize = 256;

/// Pause before a document that found no room is composed again.
const COMPOSE_AGAIN: Duration = Duration::from_secs(1);
/// Users on the list for that; more than this wait for their next change.
const UNCOMPOSED_MAX: usize = 1024;

/// The time after a start in which bare documents are kept although no watcher is known.
pub(crate) struct Settling {
    /// Its end.
    pub(crate) until: Mono,
    /// Users whose bare documents may go then.
    pub(crate) bare: Vec<AorKey>,
}

impl Shard {
    /// Composes the presentity's document anew, and if it means something else than before, stores it and tells the
    /// shards that have watchers. Only the owner of the AoR calls this.
    pub(crate) fn state_changed(&mut self, now: Now, key: AorKey) {
        let Some(user) = self.presentities.find(key) else { return };
        let partition = key.partition();
        let mut out = std::mem::take(&mut self.scratch.composed);
        let mut note = std::mem::take(&mut self.scratch.note);
        let mut bodies = std::mem::take(&mut self.scratch.published);
        let mut aor = std::mem::take(&mut self.scratch.user);
        note.clear();
        let summary = self.compose(user, &mut aor, &mut bodies, &mut out, &mut note);
        let entry = &self.presentities[user];
        let (document, unchanged) = match &summary {
            Some(summary) => {
                (entry.document, entry.document != NONE && entry.fingerprint == summary.fingerprint)
            }
            None => (entry.document, entry.document == NONE),
        };
        if unchanged {
            self.counters.changes_suppressed.up();
        } else {
            // The version grows with the wall clock, so that it also grows across a restart without being stored apart; and
            // beyond every other version of this shard, so that it grows for a user who was forgotten in between.
            let version = (entry.version.max(self.last_version) + 1).max(now.wall.0 << 10);
            self.last_version = version;
            let files = self.files.presence_partition_mut(partition);
            let stored = match summary {
                Some(summary) => {
                    let record = StoredDocument {
                        key,
                        version,
                        fingerprint: summary.fingerprint,
                        basic: summary.basic,
                        changed_at: now.wall,
                        aor: &aor,
                        note: &note,
                        body: &out,
                    };
                    if document == NONE {
                        records::insert_document(files, &record).map(|slot| (slot, summary.fingerprint))
                    } else {
                        records::update_document(files, document, &record)
                            .map(|()| (document, summary.fingerprint))
                    }
                }
                None => {
                    files.remove(document);
                    Ok((NONE, 0))
                }
            };
            match stored {
                Ok((slot, fingerprint)) => {
                    let entry = &mut self.presentities[user];
                    entry.document = slot;
                    entry.fingerprint = fingerprint;
                    entry.version = version;
                    self.counters.changes.up();
                    self.tell_watching_shards(now, user);
                }
                // The publication is stored and the document is not: it is composed again until there is room.
                Err(what) => {
                    self.note_full(what);
                    self.compose_later(now, key);
                }
            }
        }
        (self.scratch.composed, self.scratch.note) = (out, note);
        (self.scratch.published, self.scratch.user) = (bodies, aor);
        self.presentities.forget_if_empty(user);
    }

    /// One note to each shard that has watchers of the user, ourselves included.
    fn tell_watching_shards(&mut self, now: Now, user: u32) {
        let entry = &self.presentities[user];
        let (key, version, mut shards) = (entry.key, entry.version, entry.watching_shards);
        while shards != 0 {
            let shard = shards.trailing_zeros() as usize;
            shards &= shards - 1;
            self.post_to(now, shard, Note::Changed { key, version });
        }
    }

    /// Writes the user's document of all that is published and registered; `None` if there is nothing to keep.
    fn compose(
        &mut self,
        user: u32,
        aor: &mut Vec<u8>,
        bodies: &mut Vec<u8>,
        out: &mut Vec<u8>,
        note: &mut Vec<u8>,
    ) -> Option<pidf::Summary> {
        bodies.clear();
        let partition = self.presentities[user].key.partition();
        let mut record = std::mem::take(&mut self.scratch.document);
        let mut parts: SmallVec<[(u64, u64, std::ops::Range<usize>); DEVICES]> = SmallVec::new();
        for number in self.presentities.publications_of(user) {
            let slot = self.presentities.publications[number].slot;
            let files = self.files.presence_partition(partition);
            match records::view_publication(files, slot, &mut record) {
                Some(stored) => {
                    let start = bodies.len();
                    bodies.extend_from_slice(stored.body);
                    aor.clear();
                    aor.extend_from_slice(stored.aor);
                    parts.push((u64::from(stored.number), stored.published_at.0, start..bodies.len()));
                }
                None => self.counters.unreadable_records.up(),
            }
        }
        self.scratch.document = record;
        if parts.is_empty() {
            return self.compose_without_publications(user, aor, out);
        }
        // The oldest first, in whatever order the list has them now, so that the document does not depend on it.
        parts.sort_by_key(|part| part.0);
        let published: SmallVec<[Published<'_>; DEVICES]> = parts
            .iter()
            .map(|(number, published_at_ms, range)| Published {
                number: *number,
                published_at_ms: *published_at_ms,
                body: &bodies[range.clone()],
            })
            .collect();
        // Every body was checked when it was published, so this fails only for a damaged record.
        match self.composer.compose(aor, &published, out, note) {
            Ok(summary) => Some(summary),
            Err(_) => {
                self.counters.unreadable_records.up();
                None
            }
        }
    }

    /// A user about whom nothing is published: what the registration says, or that he is closed as long as anybody may
    /// have to be told.
    fn compose_without_publications(
        &mut self,
        user: u32,
        aor: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Option<pidf::Summary> {
        let entry = &self.presentities[user];
        let (key, document, first_binding) = (entry.key, entry.document, entry.first_binding);
        if first_binding != NONE && self.settings.registered_state == RegisteredState::Open {
            self.aor_of_binding(first_binding, aor)?;
            return Some(pidf::write_bare(aor, Basic::Open, out));
        }
        if document == NONE || (entry.watching_shards == 0 && self.settling.is_none()) {
            return None;
        }
        if let Some(settling) = self.settling.as_mut().filter(|_| entry.watching_shards == 0) {
            settling.bare.push(key);
        }
        let mut record = std::mem::take(&mut self.scratch.document);
        let files = self.files.presence_partition(key.partition());
        let known = records::view_document(files, document, &mut record).map(|stored| {
            aor.clear();
            aor.extend_from_slice(stored.aor);
        });
        self.scratch.document = record;
        known.map(|()| pidf::write_bare(aor, Basic::Closed, out))
    }

    /// The last watcher of a user is gone: a document that says only that he is closed need not be kept.
    pub(crate) fn forget_bare_document(&mut self, now: Now, user: u32) {
        let entry = &self.presentities[user];
        let is_bare = entry.document != NONE && entry.first_publication == NONE;
        if entry.watching_shards == 0 && is_bare {
            self.state_changed(now, entry.key);
        } else {
            self.presentities.forget_if_empty(user);
        }
    }

    /// Puts a user on the list of those whose document found no room.
    fn compose_later(&mut self, now: Now, key: AorKey) {
        let (_, keys) = self.uncomposed.get_or_insert_with(|| (now.mono + COMPOSE_AGAIN, Vec::new()));
        if keys.len() < UNCOMPOSED_MAX && !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// Composes again what found no room before.
    pub(crate) fn compose_again(&mut self, now: Now) {
        if let Some((_, keys)) = self.uncomposed.take_if(|(at, _)| now.mono >= *at) {
            for key in keys {
                self.state_changed(now, key);
            }
        }
    }

    /// Ends the time after a start; says whether more is to be looked at.
    pub(crate) fn settle(&mut self, now: Now) -> bool {
        let Some(settling) = self.settling.take_if(|settling| now.mono >= settling.until) else {
            return false;
        };
        let mut bare = settling.bare;
        for _ in 0..SWEPT_PER_TURN {
            let Some(key) = bare.pop() else { return false };
            if let Some(user) = self.presentities.find(key) {
                self.forget_bare_document(now, user);
            }
        }
        self.settling = Some(Settling { until: settling.until, bare });
        true
    }
}

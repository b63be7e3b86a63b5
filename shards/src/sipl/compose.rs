//! What watchers are told of a user: the document composed of all that is published and registered.
//!
//! The document is stored while anything is known of the user. When the last publication ends it becomes a bare `closed`
//! and stays while somebody watches, because its time says that watchers are owed it: a crash may come before they are
//! told. After a start nobody knows yet who watches, so bare documents stay for a while then (see [`Settling`]).
//!
//! Watchers are told of a resource no faster than its event package allows. What changes sooner is *held*: it is composed
//! when the time is over, so the newest state always goes out. Its document is marked as behind meanwhile, and is
//! composed again after a restart.

use std::time::Duration;

use comsipl_core::event::{Compose, Composed, EventPackage};
use comsipl_core::pidf::{self, Basic, Published};
use comsipl_core::{AorKey, Mono, Now, UnixMillis};
use smallvec::SmallVec;

use crate::note::Note;
use crate::presentities::{HELD, OFFLINE, Publication};
use crate::records::{self, StoredDocument};
use crate::settings::RegisteredState;
use crate::shard::Shard;
use crate::watched::NONE;

/// Held documents composed in one turn; the rest waits for the next.
const HELD_PER_TURN: usize = 256;

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
        if let Some(user) = self.presentities.find(key) {
            self.state_of_user_changed(now, user, None);
        }
    }

    /// [`Self::state_changed`] for the resource of number `user`. The compositor has just read the document of the
    /// publication `fresh`, and the AoR of that request is in the scratch buffer.
    pub(super) fn state_of_user_changed(&mut self, now: Now, user: u32, fresh: Option<u32>) {
        if let Some(until) = self.held_until(now, user) {
            self.hold(user, until);
        } else {
            self.compose_now(now, user, fresh);
        }
    }

    /// Until when watchers of a resource are not told again; `None`: they may be.
    fn held_until(&self, now: Now, user: u32) -> Option<Mono> {
        let entry = &self.presentities[user];
        (now.mono < entry.quiet_until && entry.watching_shards != 0).then_some(entry.quiet_until)
    }

    /// Puts off the composition of a resource's document.
    fn hold(&mut self, user: u32, until: Mono) {
        self.counters.changes_held.up();
        if self.presentities.held.is_armed(user) {
            return;
        }
        self.presentities.held.arm(user, until);
        let entry = &mut self.presentities[user];
        let (key, document) = (entry.key, entry.document);
        entry.behind = true;
        if document != NONE {
            records::mark_behind(self.files.presence_partition_mut(key.partition()), document);
        }
    }

    /// Composes what was held and may be told now; says whether more is due.
    pub(crate) fn compose_held(&mut self, now: Now) -> bool {
        if self.presentities.held.armed() == 0 {
            return false;
        }
        for _ in 0..HELD_PER_TURN {
            let Some(user) = self.presentities.held.pop_due(now.mono) else { return false };
            self.compose_now(now, user, None);
        }
        true
    }

    fn compose_now(&mut self, now: Now, user: u32, fresh: Option<u32>) {
        if self.presentities.held.armed() != 0 {
            self.presentities.held.cancel(user);
        }
        let summary = self.compose(now, user, fresh);
        let unregistered_at = self.unregistered_at(user);
        let entry = &self.presentities[user];
        let (key, document, event) = (entry.key, entry.document, entry.package);
        let unchanged = match &summary {
            Some(summary) => document != NONE && entry.fingerprint == summary.fingerprint,
            None => document == NONE,
        };
        if unchanged {
            self.counters.changes_suppressed.up();
            if summary.is_some() && self.presentities.package(user).has_moments() {
                self.renew_moments(user);
            }
            self.not_behind(user);
        } else {
            // The version grows with the wall clock, so that it also grows across a restart without being stored apart; and
            // beyond every other version of this shard, so that it grows for a user who was forgotten in between.
            let version = (entry.version.max(self.last_version) + 1).max(now.wall.0 << 10);
            self.last_version = version;
            let files = self.files.presence_partition_mut(key.partition());
            let stored = match summary {
                Some(summary) => {
                    let record = StoredDocument {
                        key,
                        version,
                        fingerprint: summary.fingerprint,
                        event,
                        basic: summary.basic,
                        first_end: summary.first_end,
                        changed_at: now.wall,
                        unregistered_at,
                        aor: &self.scratch.user,
                        note: &self.scratch.note,
                        body: &self.scratch.composed,
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
            let interval = self.presentities.package(user).interval.unwrap_or(self.settings.notify_interval);
            let entry = &mut self.presentities[user];
            entry.behind = stored.is_err();
            match stored {
                Ok((slot, fingerprint)) => {
                    entry.document = slot;
                    entry.fingerprint = fingerprint;
                    entry.version = version;
                    entry.quiet_until = now.mono + interval;
                    self.counters.changes.up();
                    self.tell_watching_shards(now, user);
                }
                // The publication is stored and the document is not: it is composed again until there is room, also after a
                // restart.
                Err(what) => {
                    if document != NONE {
                        entry.fingerprint = records::BEHIND;
                        records::mark_behind(self.files.presence_partition_mut(key.partition()), document);
                    }
                    self.note_full(what);
                    self.compose_later(now, key);
                }
            }
        }
        self.presentities.forget_if_empty(user);
    }

    /// The document in the scratch buffer means the same as the stored one: it takes its place, if its moments are others,
    /// and nobody is told.
    fn renew_moments(&mut self, user: u32) {
        let entry = &self.presentities[user];
        let (key, slot, event, version, fingerprint) =
            (entry.key, entry.document, entry.package, entry.version, entry.fingerprint);
        let scratch = &mut self.scratch;
        let files = self.files.presence_partition(key.partition());
        let Some(stored) = records::view_document(files, slot, &mut scratch.document) else { return };
        if stored.body == scratch.composed {
            return;
        }
        let record = StoredDocument {
            key,
            version,
            fingerprint,
            event,
            first_end: 0,
            basic: stored.basic,
            changed_at: stored.changed_at,
            unregistered_at: UnixMillis(0),
            aor: &scratch.user,
            note: b"",
            body: &scratch.composed,
        };
        let files = self.files.presence_partition_mut(key.partition());
        if let Err(what) = records::update_document(files, slot, &record) {
            self.note_full(what);
        }
    }

    /// Somebody watches a resource whose document the server makes by itself, and nobody did before. Nobody is told of it
    /// before it is complete.
    pub(crate) fn begin_telling(&mut self, now: Now, number: u32) {
        let (key, package) = (self.presentities[number].key, self.presentities.package(number));
        let user = self.keys.user_of(key, package);
        match package.compose {
            Compose::Registration => {
                self.watch_registration(user, true);
                self.compose_first(now, number);
            }
            Compose::Watchers => self.watch_watchers(now, user),
            Compose::Pidf | Compose::DialogInfo | Compose::Newest(_) => {}
        }
    }

    /// Nobody watches such a resource any more.
    pub(crate) fn end_telling(&mut self, now: Now, number: u32) {
        let (key, package) = (self.presentities[number].key, self.presentities.package(number));
        let user = self.keys.user_of(key, package);
        match package.compose {
            Compose::Registration => self.watch_registration(user, false),
            Compose::Watchers => self.unwatch_watchers(now, user),
            Compose::Pidf | Compose::DialogInfo | Compose::Newest(_) => {}
        }
    }

    /// Composes the first document of such a resource, and tells all who wait for it.
    pub(super) fn compose_first(&mut self, now: Now, number: u32) {
        self.compose_now(now, number, None);
        self.tell_watching_shards(now, number);
    }

    /// One more shard watches such a resource: it is told what the others know, and with them if that is not complete.
    pub(crate) fn tell_if_complete(&mut self, now: Now, number: u32) {
        if !self.awaits_reports(self.presentities[number].key) {
            self.tell_watching_shards(now, number);
        }
    }

    /// A resource's document says what is published, without having been written anew.
    fn not_behind(&mut self, user: u32) {
        let entry = &mut self.presentities[user];
        if std::mem::take(&mut entry.behind) && entry.document != NONE {
            let files = self.files.presence_partition_mut(entry.key.partition());
            records::set_fingerprint(files, entry.document, entry.fingerprint);
        }
    }

    /// A publication's document was replaced by one of the same meaning.
    pub(super) fn state_is_the_same(&mut self, now: Now, user: u32, fresh: u32) {
        let entry = &self.presentities[user];
        if entry.document == NONE || entry.behind {
            self.state_of_user_changed(now, user, Some(fresh));
        } else {
            // The composition's meaning is made of the meanings of its parts.
            self.counters.changes_suppressed.up();
        }
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

    /// Writes the user's document of all that is published and registered into the scratch buffers, with his AoR and the
    /// note; `None` if there is nothing to keep.
    fn compose(&mut self, now: Now, user: u32, fresh: Option<u32>) -> Option<Composed> {
        let package = self.presentities.package(user);
        self.scratch.note.clear();
        match package.compose {
            Compose::Registration => return self.compose_registration(now, self.presentities[user].key),
            Compose::Watchers => return self.compose_watchers(now, self.presentities[user].key),
            Compose::Pidf | Compose::DialogInfo | Compose::Newest(_) => {}
        }
        let entry = &self.presentities[user];
        if entry.marks & OFFLINE != 0 && entry.document != NONE && entry.first_publication != NONE {
            return self.compose_offline(user, package);
        }
        let mut damaged = SmallVec::new();
        let mut added = self.add_publications(user, package, fresh, &damaged);
        while let Err(id) = added {
            self.counters.unreadable_records.up();
            damaged.push(id);
            // What was added is forgotten with it, the document that the compositor has just read too.
            added = self.add_publications(user, package, None, &damaged);
        }
        if added == Ok(false) {
            return self.compose_without_publications(user, package);
        }
        let scratch = &mut self.scratch;
        Some(self.compositor.finish(package, &scratch.user, &mut scratch.composed, &mut scratch.note))
    }

    /// Brings the publications of a user before the compositor, but for those in `damaged`, and his AoR into the scratch buffer.
    /// Tells whether there are any.
    ///
    /// # Errors
    /// The number of one that cannot be read; all must be added again without it then.
    fn add_publications(
        &mut self,
        user: u32,
        package: &EventPackage,
        fresh: Option<u32>,
        damaged: &SmallVec<[u32; 1]>,
    ) -> Result<bool, u32> {
        let scratch = &mut self.scratch;
        scratch.user.clear();
        if let Some(fresh) = fresh {
            let Publication { number, published_at, .. } = self.presentities.publications[fresh];
            self.compositor.keep(package, number.into(), published_at.0);
            scratch.user.extend_from_slice(&scratch.aor);
        } else {
            self.compositor.begin(package);
        }
        let mut is_published = fresh.is_some();
        let files = self.files.presence_partition(self.presentities[user].key.partition());
        let others = self.presentities.publications_of(user).filter(|&id| Some(id) != fresh);
        for id in others.filter(|id| !damaged.contains(id)) {
            let slot = self.presentities.publications[id].slot;
            let stored = records::view_publication(files, slot, &mut scratch.document).ok_or(id)?;
            let published = Published {
                number: stored.number.into(),
                published_at_ms: stored.published_at.0,
                body: stored.body,
            };
            // Every body was checked when it was published, so this fails only for a damaged record.
            self.compositor.add(package, published).map_err(|_| id)?;
            is_published = true;
            scratch.user.clear();
            scratch.user.extend_from_slice(stored.aor);
        }
        Ok(is_published)
    }

    /// A user about whom nothing is published: what the registration says, or that he is closed as long as anybody may
    /// have to be told.
    fn compose_without_publications(&mut self, user: u32, package: &EventPackage) -> Option<Composed> {
        let entry = &self.presentities[user];
        let (key, document, first_binding) = (entry.key, entry.document, entry.first_binding);
        let is_held = entry.marks & HELD != 0 && document != NONE;
        if (first_binding != NONE || is_held) && self.settings.registered_state == RegisteredState::Open {
            let mut aor = std::mem::take(&mut self.scratch.user);
            let found = if first_binding == NONE {
                self.aor_of_document(user, &mut aor)
            } else {
                self.aor_of_binding(first_binding, &mut aor)
            };
            self.scratch.user = aor;
            found?;
            let scratch = &mut self.scratch;
            scratch.note.extend_from_slice(self.settings.registered_note.as_bytes());
            let summary = pidf::write_registered(&scratch.user, &scratch.note, &mut scratch.composed);
            return Some(Composed { basic: summary.basic, fingerprint: summary.fingerprint, first_end: 0 });
        }
        if document == NONE || (entry.watching_shards == 0 && self.settling.is_none()) {
            return None;
        }
        if let Some(settling) = self.settling.as_mut().filter(|_| entry.watching_shards == 0) {
            settling.bare.push(key);
        }
        let scratch = &mut self.scratch;
        let files = self.files.presence_partition(key.partition());
        let stored = records::view_document(files, document, &mut scratch.document)?;
        scratch.user.extend_from_slice(stored.aor);
        let (aor, out) = (stored.aor, &mut scratch.composed);
        Some(self.compositor.without_publication(package, aor, Basic::Closed, out))
    }

    /// A user whose registration has ended, whatever is published of him.
    fn compose_offline(&mut self, user: u32, package: &EventPackage) -> Option<Composed> {
        let mut aor = std::mem::take(&mut self.scratch.user);
        let found = self.aor_of_document(user, &mut aor);
        self.scratch.user = aor;
        found?;
        let scratch = &mut self.scratch;
        let (aor, out) = (&scratch.user, &mut scratch.composed);
        Some(self.compositor.without_publication(package, aor, Basic::Closed, out))
    }

    /// Reads the AoR of a user's document.
    fn aor_of_document(&mut self, user: u32, aor: &mut Vec<u8>) -> Option<()> {
        let entry = &self.presentities[user];
        let files = self.files.presence_partition(entry.key.partition());
        let stored = records::view_document(files, entry.document, &mut self.scratch.document)?;
        aor.clear();
        aor.extend_from_slice(stored.aor);
        Some(())
    }

    /// The last watcher of a user is gone: a document that says only that he is closed need not be kept.
    pub(crate) fn forget_bare_document(&mut self, now: Now, user: u32) {
        let entry = &self.presentities[user];
        let is_bare = entry.document != NONE && entry.first_publication == NONE;
        if entry.watching_shards == 0 && is_bare {
            self.state_of_user_changed(now, user, None);
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

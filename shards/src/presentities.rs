//! The users that this shard owns: their publications, their bindings, and which shards watch them.
//!
//! Invariants:
//!   * a presentity is here while it has a publication, a binding, a document or a watching shard;
//!   * its version only grows, across restarts too (it begins at the wall clock).

use std::num::NonZeroU64;

use comsipl_core::chunked::Slab;
use comsipl_core::event::EventPackage;
use comsipl_core::publication::EntityTag;
use comsipl_core::timer::Wheel;
use comsipl_core::{AorKey, Mono, UnixMillis};

use crate::index::{PartitionedIndex, hash_of};
use crate::watched::NONE;

/// One user's state in one event package: a resource. Bindings stand with the user's presence, whose key is his own.
#[derive(Debug)]
pub struct Presentity {
    /// Which resource ([`comsipl_core::HashKey::resource`]).
    pub key: AorKey,
    /// One bit a shard that has watchers.
    pub watching_shards: u64,
    /// Version of the document; zero before the first.
    pub version: u64,
    /// Meaning of the document (see `pidf::Summary`).
    pub fingerprint: u64,
    /// Until when watchers are not told of another change.
    pub quiet_until: Mono,
    /// True while the document does not say what is published, because there was no room for it.
    pub behind: bool,
    /// Number of the event package.
    pub package: u8,
    /// [`HELD`], [`OFFLINE`], [`REGISTRATION_WATCHED`], [`WATCHERS_WATCHED`]; of a user's presence only.
    pub marks: u8,
    /// Slot of the document's record, or [`NONE`] while nothing is known of the user.
    pub document: u32,
    /// First publication, or [`NONE`].
    pub first_publication: u32,
    /// First binding, or [`NONE`].
    pub first_binding: u32,
}

/// The user's last binding has ended, and what that means is not told yet.
pub const HELD: u8 = 1;
/// The user's last binding has ended, and watchers see him offline for it.
pub const OFFLINE: u8 = 2;
/// Somebody watches the user's registration.
pub const REGISTRATION_WATCHED: u8 = 4;
/// Somebody watches the user's watchers.
pub const WATCHERS_WATCHED: u8 = 8;

const _: () = assert!(size_of::<Presentity>() <= 64, "a million users leave no room for more");

impl Default for Presentity {
    fn default() -> Self {
        Self {
            key: AorKey(0),
            watching_shards: 0,
            version: 0,
            fingerprint: 0,
            quiet_until: Mono(0),
            behind: false,
            package: EventPackage::PRESENCE,
            marks: 0,
            document: NONE,
            first_publication: NONE,
            first_binding: NONE,
        }
    }
}

/// One publication of a device.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    /// Whose.
    pub presentity: u32,
    /// Next of the same user.
    pub next: u32,
    /// Its record's slot.
    pub slot: u32,
    /// Present entity tag.
    pub entity_tag: EntityTag,
    /// The tag before.
    pub previous_tag: EntityTag,
    /// The request that made the present tag.
    pub request: u64,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// When its meaning changed last.
    pub published_at: UnixMillis,
    /// Meaning of its document (see `pidf::Summary`); `None` after a start, until it is asked for.
    pub meaning: Option<NonZeroU64>,
    /// Length of its document in bytes.
    pub len: u32,
    /// Its number among the user's publications: a later one has a higher one, so that an earlier device keeps its tuple
    /// ids when another comes with the same.
    pub number: u32,
    /// Number of its event package.
    pub event: u8,
}

impl Default for Publication {
    fn default() -> Self {
        Self {
            presentity: NONE,
            next: NONE,
            slot: NONE,
            entity_tag: EntityTag(0),
            previous_tag: EntityTag(0),
            request: 0,
            expires_at: UnixMillis(0),
            published_at: UnixMillis(0),
            meaning: None,
            len: 0,
            number: 0,
            event: 0,
        }
    }
}

/// One binding of a contact.
#[derive(Debug)]
pub struct Binding {
    /// Whose.
    pub presentity: u32,
    /// Next of the same user.
    pub next: u32,
    /// Its record's slot.
    pub slot: u32,
    /// When it ends.
    pub expires_at: UnixMillis,
}

impl Default for Binding {
    fn default() -> Self {
        Self { presentity: NONE, next: NONE, slot: NONE, expires_at: UnixMillis(0) }
    }
}

/// All resources of a shard, with what was published and registered.
#[derive(Debug)]
pub struct Presentities {
    users: Slab<Presentity>,
    index: PartitionedIndex,
    /// Publications by number.
    pub publications: Slab<Publication>,
    /// Expiry timers of the publications.
    pub publication_expiry: Wheel,
    /// Bindings by number.
    pub bindings: Slab<Binding>,
    /// Expiry timers of the bindings.
    pub binding_expiry: Wheel,
    /// Resources whose documents may not be composed yet, because watchers were told a moment ago; when they may.
    pub held: Wheel,
    /// Users whose last binding has ended, and when that is told.
    pub hold_down: Wheel,
}

impl Presentities {
    /// An empty table whose timers begin at `now`.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            users: Slab::default(),
            index: PartitionedIndex::default(),
            publications: Slab::default(),
            publication_expiry: Wheel::new(now),
            bindings: Slab::default(),
            binding_expiry: Wheel::new(now),
            held: Wheel::new(now),
            hold_down: Wheel::new(now),
        }
    }

    /// Users who have published and have no document: it found no room.
    pub fn published_without_document(&self) -> impl Iterator<Item = AorKey> + '_ {
        let numbers = 0..u32::try_from(self.users.high_water()).unwrap_or(u32::MAX);
        let users = numbers.map(|number| &self.users[number]);
        users.filter(|user| user.first_publication != NONE && user.document == NONE).map(|user| user.key)
    }

    /// The event package of the resource `id`.
    #[must_use]
    pub fn package(&self, id: u32) -> &'static EventPackage {
        EventPackage::by_number(self.users[id].package)
            .expect("only resources of known packages are taken in")
    }

    /// The number of a resource, if anything is known of it.
    #[must_use]
    pub fn find(&self, key: AorKey) -> Option<u32> {
        self.index.find(key.partition(), hash_of(key), |id| self.users[id].key == key)
    }

    /// The number of a resource of the package numbered `package`, made if need be.
    pub fn find_or_insert(&mut self, key: AorKey, package: u8) -> u32 {
        if let Some(id) = self.find(key) {
            return id;
        }
        let id = self.users.insert(Presentity { key, package, ..Presentity::default() });
        let users = &self.users;
        self.index.insert(key.partition(), hash_of(key), id, |id| hash_of(users[id].key));
        id
    }

    /// Whether nothing is left to know of a user.
    #[must_use]
    pub fn is_empty(&self, id: u32) -> bool {
        let user = &self.users[id];
        user.watching_shards == 0
            && user.marks & (REGISTRATION_WATCHED | WATCHERS_WATCHED) == 0
            && user.document == NONE
            && user.first_publication == NONE
            && user.first_binding == NONE
    }

    /// Forgets a user of whom nothing is left to know.
    pub fn forget_if_empty(&mut self, id: u32) {
        if self.is_empty(id) {
            let user = &self.users[id];
            self.held.cancel(id);
            self.hold_down.cancel(id);
            self.index.remove(user.key.partition(), hash_of(user.key), id);
            self.users.remove(id);
        }
    }

    /// Numbers of a user's publications, newest first.
    pub fn publications_of(&self, id: u32) -> impl Iterator<Item = u32> + '_ {
        let first = self.users[id].first_publication;
        std::iter::successors((first != NONE).then_some(first), |&p| {
            let next = self.publications[p].next;
            (next != NONE).then_some(next)
        })
    }

    /// Adds a publication to its user's list.
    pub fn insert_publication(&mut self, mut publication: Publication) -> u32 {
        let user = publication.presentity;
        publication.next = self.users[user].first_publication;
        let id = self.publications.insert(publication);
        self.users[user].first_publication = id;
        id
    }

    /// Takes a publication out of its user's list; the record is the caller's.
    pub fn remove_publication(&mut self, id: u32) -> Publication {
        self.publication_expiry.cancel(id);
        let Publication { presentity: user, next, .. } = self.publications[id];
        if self.users[user].first_publication == id {
            self.users[user].first_publication = next;
        } else {
            let before = self.publications_of(user).find(|&p| self.publications[p].next == id);
            let before = before.expect("a publication is in its user's list");
            self.publications[before].next = next;
        }
        self.publications.remove(id)
    }

    /// Numbers of a user's bindings, newest first.
    pub fn bindings_of(&self, id: u32) -> impl Iterator<Item = u32> + '_ {
        let first = self.users[id].first_binding;
        std::iter::successors((first != NONE).then_some(first), |&b| {
            let next = self.bindings[b].next;
            (next != NONE).then_some(next)
        })
    }

    /// Adds a binding to its user's list.
    pub fn insert_binding(&mut self, mut binding: Binding) -> u32 {
        let user = binding.presentity;
        binding.next = self.users[user].first_binding;
        let id = self.bindings.insert(binding);
        self.users[user].first_binding = id;
        id
    }

    /// Takes a binding out of its user's list; the record is the caller's.
    pub fn remove_binding(&mut self, id: u32) -> Binding {
        self.binding_expiry.cancel(id);
        let Binding { presentity: user, next, .. } = self.bindings[id];
        if self.users[user].first_binding == id {
            self.users[user].first_binding = next;
        } else {
            let before = self.bindings_of(user).find(|&b| self.bindings[b].next == id);
            let before = before.expect("a binding is in its user's list");
            self.bindings[before].next = next;
        }
        self.bindings.remove(id)
    }

    /// One more than the highest number of a user so far.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.users.high_water()
    }

    /// Number of users known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.in_use()
    }
}

impl std::ops::Index<u32> for Presentities {
    type Output = Presentity;

    fn index(&self, id: u32) -> &Presentity {
        &self.users[id]
    }
}

impl std::ops::IndexMut<u32> for Presentities {
    fn index_mut(&mut self, id: u32) -> &mut Presentity {
        &mut self.users[id]
    }
}

//! The presentities that this shard's subscriptions watch.
//!
//! Invariants:
//!   * a presentity is here exactly while a subscription of this shard watches it;
//!   * a subscription is due exactly when its `epoch` differs from its presentity's;
//!   * `queued` says in which queue of the fan-out the presentity stands, or whose walk through it is under way.

use comsipl_core::chunked::Slab;
use comsipl_core::event::{Compose, EventPackage, RequestedInfo};
use comsipl_core::quirks::Quirks;
use comsipl_core::{AorKey, BodyId, UnixMillis};

use crate::index::{PartitionedIndex, hash_of};
use crate::sipp::Queued;

/// No entry.
pub const NONE: u32 = u32::MAX;

/// One watched presentity.
#[derive(Debug)]
pub struct Watched {
    /// The presentity.
    pub key: AorKey,
    /// Number of the event package.
    pub package: u8,
    /// First of its subscriptions, or [`NONE`].
    pub first: u32,
    /// How many subscriptions watch it.
    pub count: u32,
    /// Newest version that this shard knows of.
    pub version: u64,
    /// Grows when watchers have to be told something new.
    pub epoch: u32,
    /// Where the fan-out goes on, or [`NONE`].
    pub cursor: u32,
    /// Whether it stands in the fan-out's queue, and in which.
    pub queued: Queued,
    /// Whether the owner has not yet said what there is to tell, of a package whose state the server makes by itself.
    pub awaited: bool,
    /// Whether its watchers are reported to its owner.
    pub is_reported: bool,
    /// Whether it changed while its watchers were walked through, so that they are once more.
    pub again: bool,
    /// When its watchers became due, while `queued`.
    pub due_since: UnixMillis,
    /// The encoded document by [`BodyKind`], while cached.
    pub bodies: [Option<BodyId>; BodyKind::COUNT],
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            key: AorKey(0),
            package: EventPackage::PRESENCE,
            first: NONE,
            count: 0,
            version: 0,
            epoch: 0,
            cursor: NONE,
            queued: Queued::No,
            awaited: false,
            is_reported: false,
            again: false,
            due_since: UnixMillis(0),
            bodies: [None; BodyKind::COUNT],
        }
    }
}

/// Which of a presentity's bodies a subscription gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyKind {
    /// All that is published.
    #[default]
    All = 0,
    /// The basic state only.
    Basic = 1,
    /// Dialog information in which there is always a dialog.
    NeverEmpty = 2,
    /// Dialog information with one dialog at most.
    Single = 3,
    /// No body.
    Nothing = 4,
}

impl BodyKind {
    /// How many there are.
    pub const COUNT: usize = Self::Nothing as usize + 1;

    /// What a watcher gets who asked for `info` and needs `quirks`.
    #[must_use]
    pub fn of(package: &EventPackage, info: RequestedInfo, quirks: Quirks) -> Self {
        match package.compose {
            Compose::Pidf if info == RequestedInfo::Basic => Self::Basic,
            Compose::DialogInfo if quirks.single_dialog => Self::Single,
            Compose::DialogInfo if quirks.never_without_dialog => Self::NeverEmpty,
            _ => Self::All,
        }
    }

    /// What a watcher gets for whom a message with this body would be too long.
    #[must_use]
    pub fn shorter(self, package: &EventPackage) -> Self {
        match (package.compose, self) {
            (Compose::Pidf, Self::All) => Self::Basic,
            (Compose::DialogInfo, Self::All | Self::NeverEmpty) => Self::Single,
            _ => Self::Nothing,
        }
    }
}

/// All watched presentities of a shard.
#[derive(Debug, Default)]
pub struct WatchedTable {
    slab: Slab<Watched>,
    index: PartitionedIndex,
}

impl WatchedTable {
    /// The number of a watched presentity.
    #[must_use]
    pub fn find(&self, key: AorKey) -> Option<u32> {
        self.index.find(key.partition(), hash_of(key), |id| self.slab[id].key == key)
    }

    /// Begins to watch the resource `key` of the package numbered `package`, which is not watched yet.
    pub fn insert(&mut self, key: AorKey, package: u8) -> u32 {
        debug_assert!(self.find(key).is_none());
        let awaited = EventPackage::by_number(package).is_some_and(EventPackage::has_moments);
        let id = self.slab.insert(Watched { key, package, awaited, ..Watched::default() });
        let slab = &self.slab;
        self.index.insert(key.partition(), hash_of(key), id, |id| hash_of(slab[id].key));
        id
    }

    /// Forgets a presentity that no subscription watches and that is not queued.
    pub fn remove(&mut self, id: u32) {
        let key = self.slab[id].key;
        debug_assert!(self.slab[id].count == 0 && self.slab[id].queued == Queued::No);
        debug_assert!(self.slab[id].bodies.iter().all(Option::is_none));
        self.index.remove(key.partition(), hash_of(key), id);
        self.slab.remove(id);
    }

    /// The numbers of all watched presentities.
    pub fn ids(&self) -> impl Iterator<Item = u32> + use<> {
        let ids: Vec<u32> =
            (0..self.slab.high_water() as u32).filter(|&id| self.slab[id].count > 0).collect();
        ids.into_iter()
    }

    /// How many presentities are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.in_use()
    }
}

impl std::ops::Index<u32> for WatchedTable {
    type Output = Watched;

    fn index(&self, id: u32) -> &Watched {
        &self.slab[id]
    }
}

impl std::ops::IndexMut<u32> for WatchedTable {
    fn index_mut(&mut self, id: u32) -> &mut Watched {
        &mut self.slab[id]
    }
}

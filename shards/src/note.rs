//! What shards tell one another.

use comsipl_core::AorKey;

/// A message between shards. Notes are small and copied; datagrams for another shard travel beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The sending shard has watchers of the presentity; the owner always answers `Changed`.
    Watch {
        /// The presentity.
        key: AorKey,
        /// The shard that has watchers now.
        shard: u8,
    },
    /// The sending shard has no watchers of the presentity any more.
    Unwatch {
        /// The presentity.
        key: AorKey,
        /// The shard that had watchers.
        shard: u8,
    },
    /// The presentity's document has this version now; read it from `presence_w.fdb`.
    Changed {
        /// The presentity.
        key: AorKey,
        /// The newest version; grows with every change.
        version: u64,
    },
}

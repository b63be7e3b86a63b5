//! The server process: its shards and its files.

use std::io;
use std::path::Path;
use std::sync::Arc;

use comsipl_core::UnixMillis;
use comsipl_shards::settings::Settings;
use comsipl_shards::shard::Shard;

/// How many records of each file are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsInUse {
    /// In `presence_w.fdb`.
    pub presence: u64,
    /// In `registered.fdb`.
    pub registered: u64,
}

/// A living process.
pub(super) struct Node {
    pub shards: Vec<Shard>,
    pub born_at: u64,
}

impl Node {
    pub fn open(
        _dir: &Path,
        _settings: &Arc<Settings>,
        shards: usize,
        _seed: [u8; 32],
        born_at: u64,
        _wall: UnixMillis,
    ) -> io::Result<Self> {
        let new = || Shard { outbox: Default::default(), bodies: Default::default(), notes: Vec::new() };
        Ok(Self { shards: (0..shards).map(|_| new()).collect(), born_at })
    }

    pub fn records_in_use(&self) -> RecordsInUse {
        RecordsInUse { presence: 0, registered: 0 }
    }
}

//! The server process: its shards and its files.

use std::fs::OpenOptions as FileOptions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use comsipl_core::{Chance, Mono, Now, UnixMillis};
use comsipl_fdb::{Fdb, FileKind, OpenOptions, Opened};
use comsipl_shards::settings::Settings;
use comsipl_shards::shard::{Shard, ShardStart};
use comsipl_shards::shard_files::ShardFiles;

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
    /// Its shards.
    pub shards: Vec<Shard>,
    /// Its first moment, in microseconds of the world; its monotonic clock starts there.
    pub born_at: u64,
    born: UnixMillis,
    registered: Arc<Fdb>,
    presence: Arc<Fdb>,
}

impl Node {
    /// Starts a process on the files in `dir`, which are made if they are not there.
    pub fn open(
        dir: &Path,
        settings: &Arc<Settings>,
        shards: usize,
        chance: &mut Chance,
        born_at: u64,
        born: UnixMillis,
    ) -> io::Result<Self> {
        let registered = open(dir, FileKind::Registered, settings.registered_records_max, chance)?;
        let presence = open(dir, FileKind::Presence, settings.presence_records_max, chance)?;
        let last_alive_ms = presence.recovery.last_heartbeat_ms;
        let mut dealt: Vec<ShardFiles> = (0..shards)
            .map(|_| ShardFiles {
                registered: Arc::clone(&registered.file),
                presence: Arc::clone(&presence.file),
                registered_partitions: Vec::new(),
                presence_partitions: Vec::new(),
            })
            .collect();
        for partition in registered.partitions {
            dealt[usize::from(partition.number()) % shards].registered_partitions.push(partition);
        }
        for partition in presence.partitions {
            dealt[usize::from(partition.number()) % shards].presence_partitions.push(partition);
        }
        let now = Now { mono: Mono(0), wall: born };
        let listeners: Vec<SocketAddr> = settings.listen.clone();
        let shards = dealt
            .into_iter()
            .enumerate()
            .map(|(index, files)| {
                let mut seed = [0; 32];
                for bytes in seed.chunks_mut(8) {
                    bytes.copy_from_slice(&chance.next_u64().to_le_bytes());
                }
                let start = ShardStart {
                    index,
                    shards,
                    settings: Arc::clone(settings),
                    files,
                    listeners: listeners.clone(),
                    seed,
                    last_alive_ms,
                };
                Shard::open(start, now)
            })
            .collect();
        Ok(Self { shards, born_at, born, registered: registered.file, presence: presence.file })
    }

    /// How many records of each file are in use.
    pub fn records_in_use(&self) -> RecordsInUse {
        RecordsInUse {
            presence: self.presence.usage().slots_used(),
            registered: self.registered.usage().slots_used(),
        }
    }

    /// Leaves the files as the death of the process leaves them: the last heartbeat is up to a sync interval old.
    pub fn die(self, settings: &Settings, now: UnixMillis) {
        let interval =
            u64::try_from(settings.sync_interval.as_millis()).expect("an interval is short").max(1);
        let age = now.0.saturating_sub(self.born.0);
        if age >= interval {
            let last = self.born.0 + age / interval * interval;
            self.registered.heartbeat(last);
            self.presence.heartbeat(last);
        }
    }
}

/// Opens one file; a file that is new gets a hash key that the seed determines.
fn open(dir: &Path, kind: FileKind, records_max: u32, chance: &mut Chance) -> io::Result<Opened> {
    let path = dir.join(kind.file_name());
    let options = OpenOptions { records_max, threads: 1, hash_key: None };
    let opened = Fdb::open(&path, kind, &options).map_err(io::Error::other)?;
    if !opened.recovery.created {
        return Ok(opened);
    }
    drop(opened);
    set_hash_key(&path, [chance.next_u64(), chance.next_u64()])?;
    Fdb::open(&path, kind, &options).map_err(io::Error::other)
}

/// Replaces the hash key in the superblock of a file that nobody has open (`fdb/FORMAT.md`): words 5 and 6 are the key,
/// word 7 is the CRC-32C of the words before it. The key decides which shard owns what, so a run could not be replayed
/// with one that the operating system drew.
fn set_hash_key(path: &Path, key: [u64; 2]) -> io::Result<()> {
    let file = FileOptions::new().read(true).write(true).open(path)?;
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    head[40..48].copy_from_slice(&key[0].to_le_bytes());
    head[48..56].copy_from_slice(&key[1].to_le_bytes());
    let crc = u64::from(crc32c(&head[..56]));
    head[56..64].copy_from_slice(&crc.to_le_bytes());
    file.write_all_at(&head, 0)
}

/// CRC-32C (Castagnoli), bit by bit: 56 bytes need no table.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_the_castagnoli_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}

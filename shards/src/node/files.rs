//! The two files of a node, opened and dealt out to the shards.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use comsipl_fdb::{Fdb, FileKind, OpenError, OpenFault, OpenOptions, Opened, Recovery};

use super::{Heartbeats, StartError};
use crate::clock::Clock;
use crate::net::stream::generations;
use crate::settings::Settings;
use crate::shard_files::ShardFiles;

/// Both files of a node.
pub struct NodeFiles {
    registered: Arc<Fdb>,
    presence: Arc<Fdb>,
    /// What each shard will write; taken by [`Self::take_shard`].
    shards: Vec<ShardFiles>,
    recovered: Recovered,
    clock: Clock,
    heartbeats: Mutex<Heartbeats>,
}

/// What was found in the files of a node.
#[derive(Clone, Copy, Debug)]
pub struct Recovered {
    /// In `registered.fdb`.
    pub registered: Recovery,
    /// In `presence_w.fdb`.
    pub presence: Recovery,
    /// Number of this start: more than that of any before, also where a power cut has taken back what the files knew of those.
    pub start: u64,
}

/// How a start comes by the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// Nobody knows what became of who had them before. That they were opened is brought to disk before anything is served, and
    /// after the end of a machine all that is left of them.
    Alone,
    /// From a process that brought them to disk after its own start, and let go of them a moment ago. Watchers wait, so nothing
    /// is brought to disk but with the first regular sync.
    HandedOver,
}

impl Recovered {
    /// What a start that comes by the files in this way has found in them.
    #[must_use]
    pub const fn new(coming: Coming, registered: Recovery, presence: Recovery) -> Self {
        // A start that is handed the files has a power cut forget that it was, and the next one opens them for the same time again.
        let start = match coming {
            Coming::Alone => 2 * presence.boots,
            Coming::HandedOver => 2 * presence.boots - 1,
        };
        Self { registered, presence, start }
    }

    /// Whether nobody can be owed anything, because no server has had the files before.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.presence.last_heartbeat_ms == 0 && !self.may_lack_something()
    }

    /// Whether something that was stored may be missing: then nobody knows what watchers were told last.
    #[must_use]
    pub const fn may_lack_something(&self) -> bool {
        !(self.registered.is_complete() && self.presence.is_complete())
    }
}

impl NodeFiles {
    /// Opens both files in the data directory of `settings`, which is made if there is none, and recovers what they
    /// hold. No other server can open them meanwhile.
    ///
    /// # Errors
    /// What is wrong with the directory or a file.
    pub fn open(settings: &Settings, shards: usize, coming: Coming) -> Result<Self, StartError> {
        let dir = &settings.data_dir;
        make_dir(dir).map_err(|source| StartError::DataDir { path: dir.clone(), source })?;
        let open = |kind: FileKind, hash_key| {
            let records_max = match kind {
                FileKind::Registered => settings.registered_records_max,
                FileKind::Presence => settings.presence_records_max,
            };
            // Recovery is over before the shards begin, so it may use all cores.
            let options = OpenOptions { records_max, threads: 0, hash_key };
            Fdb::open(&dir.join(kind.file_name()), kind, &options)
        };
        // Both files share one hash key, because it decides which partition, and so which shard, a user belongs to. A file
        // that is made anew gets the key of the one that is there.
        let presence_first =
            std::fs::metadata(dir.join(FileKind::Presence.file_name())).is_ok_and(|it| it.len() > 0);
        let (registered, presence) = if presence_first {
            let presence = open(FileKind::Presence, None)?;
            (open(FileKind::Registered, Some(presence.file.hash_key()))?, presence)
        } else {
            let registered = open(FileKind::Registered, None)?;
            let key = registered.file.hash_key();
            (registered, open(FileKind::Presence, Some(key))?)
        };
        let files = Self::deal_out(registered, presence, shards, coming);
        generations::reserve(&[&files.registered, &files.presence], coming, Clock::wall());
        if coming == Coming::Alone {
            files.begin().map_err(StartError::Sync)?;
        }
        Ok(files)
    }

    fn deal_out(registered: Opened, presence: Opened, shards: usize, coming: Coming) -> Self {
        let recovered = Recovered::new(coming, registered.recovery, presence.recovery);
        let clock = Clock::start();
        let mut files = Self {
            shards: (0..shards)
                .map(|_| ShardFiles {
                    registered: Arc::clone(&registered.file),
                    presence: Arc::clone(&presence.file),
                    registered_partitions: Vec::new(),
                    presence_partitions: Vec::new(),
                })
                .collect(),
            registered: registered.file,
            presence: presence.file,
            recovered,
            clock,
            heartbeats: Mutex::new(Heartbeats::new(clock.now(), recovered.is_first())),
        };
        for partition in registered.partitions {
            files.shards[usize::from(partition.number()) % shards].registered_partitions.push(partition);
        }
        for partition in presence.partitions {
            files.shards[usize::from(partition.number()) % shards].presence_partitions.push(partition);
        }
        files
    }

    /// Brings to disk what must not be taken back by a machine that dies before the first regular sync.
    fn begin(&self) -> io::Result<()> {
        if self.recovered.may_lack_something() {
            // Nor may it be taken back a second time what a power cut took: watchers are told of it from now on.
            return self.sync();
        }
        // The number of this start and the names of connections may not be given again. All the rest of what a process
        // left that was killed is the memory's and is synced while phones are served: it may be as much as the disk takes in seconds.
        let registered = self.registered.sync_superblock();
        self.presence.sync_superblock().and(registered)
    }

    /// What the next shard works on, the first shard first; `None` when all have been given theirs.
    pub fn take_shard(&mut self) -> Option<ShardFiles> {
        if self.shards.is_empty() { None } else { Some(self.shards.remove(0)) }
    }

    /// The secret hash key of both files.
    pub fn hash_key(&self) -> [u64; 2] {
        self.registered.hash_key()
    }

    /// What was found in the files.
    pub const fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Stores in both files that the server is alive now, unless what was owed before must stay owed ([`Heartbeats`]).
    pub fn heartbeat(&self) {
        let now = self.clock.now();
        if self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner).is_due(now) {
            self.registered.heartbeat(now.wall.0);
            self.presence.heartbeat(now.wall.0);
        }
    }

    /// Brings both files to disk; one that fails does not keep the other from it.
    ///
    /// # Errors
    /// What the system says of the first that fails.
    pub fn sync(&self) -> io::Result<()> {
        let registered = self.registered.sync();
        self.presence.sync().and(registered)
    }

    /// Brings both files to disk and marks them as cleanly closed. Nothing may be written any more.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn close(&self) -> io::Result<()> {
        let registered = self.registered.close();
        self.presence.close().and(registered)
    }
}

/// Opens `registered.fdb` alone, for a tool that changes it while no server runs.
///
/// # Errors
/// What is wrong with the directory or the file; a server that uses it is among that.
pub fn open_registered(settings: &Settings) -> Result<Opened, StartError> {
    let dir = &settings.data_dir;
    make_dir(dir).map_err(|source| StartError::DataDir { path: dir.clone(), source })?;
    // A file that is made anew gets the key of the other one, as the server would have it.
    let presence = dir.join(FileKind::Presence.file_name());
    let hash_key = match std::fs::metadata(&presence) {
        Ok(it) if it.len() > 0 => Some(Fdb::open_reader(&presence)?.hash_key()),
        _ => None,
    };
    let options = OpenOptions { records_max: settings.registered_records_max, threads: 0, hash_key };
    Ok(Fdb::open(&dir.join(FileKind::Registered.file_name()), FileKind::Registered, &options)?)
}

/// Looks at both files without a lock: whether this program reads their format, and whether they are of one server.
///
/// # Errors
/// What is wrong with one of them.
pub fn look(settings: &Settings) -> Result<(), StartError> {
    let mut key = None;
    for kind in [FileKind::Presence, FileKind::Registered] {
        let path = settings.data_dir.join(kind.file_name());
        if !std::fs::metadata(&path).is_ok_and(|it| it.len() > 0) {
            continue;
        }
        let file = Fdb::open_reader(&path)?;
        if *key.get_or_insert(file.hash_key()) != file.hash_key() {
            return Err(OpenError { path, fault: OpenFault::HashKey }.into());
        }
    }
    Ok(())
}

/// Makes a directory that only its owner may enter, unless there is one.
fn make_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;

    #[test]
    fn every_partition_is_dealt_out_once() {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { data_dir: folder.path().join("a/b"), presence_records_max: 64, ..Settings::default() };
        let mut files = NodeFiles::open(&settings, 3, Coming::Alone).unwrap();
        let mut seen = [0; 64];
        for shard in 0..3 {
            let engine = files.take_shard().unwrap();
            for partition in engine.registered_partitions.iter().chain(&engine.presence_partitions) {
                assert_eq!(usize::from(partition.number()) % 3, shard);
                seen[usize::from(partition.number())] += 1;
            }
        }
        assert_eq!(seen, [2; 64]);
        assert!(files.take_shard().is_none());
        let mode = std::fs::metadata(&settings.data_dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(files.recovered().presence.created);
        assert!(matches!(NodeFiles::open(&settings, 3, Coming::Alone), Err(StartError::File(_))), "in use");
        files.close().unwrap();
        drop(files);
        let files = NodeFiles::open(&settings, 2, Coming::Alone).unwrap();
        assert!(!files.recovered().presence.created && files.recovered().presence.clean);
    }

    #[test]
    fn no_start_has_the_number_of_one_that_a_power_cut_made_forgotten() {
        let with = |boots| {
            let mut recovery = Recovery::default();
            recovery.boots = boots;
            recovery
        };
        let start = |coming, boots| Recovered::new(coming, with(1), with(boots)).start;
        for boots in 1..9 {
            let [served, handed_over] = [start(Coming::Alone, boots), start(Coming::HandedOver, boots + 1)];
            assert!(served < handed_over);
            let after_a_power_cut = start(Coming::Alone, boots + 1);
            assert!(handed_over < after_a_power_cut);
        }
    }

    /// What a killed process left may be so much that waiting for the disk would be its users' gap.
    #[test]
    fn all_is_on_disk_before_anything_is_served_where_the_machine_was_down() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data_dir: folder.path().to_owned(), ..Settings::default() };
        let mut files = NodeFiles::open(&settings, 1, Coming::Alone).unwrap();
        let first = files.presence.names_given();
        assert!(first > 0 && files.registered.names_given() == first);
        let mut shard = files.take_shard().unwrap();
        shard.presence_partitions[63].insert(comsipl_fdb::Kind::Publication, &[7; 12], b"").unwrap();
        drop((shard, files));
        let path = settings.data_dir.join(FileKind::Presence.file_name());
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        // A file says how many extents of a partition were synced (fdb/FORMAT.md).
        let synced = || {
            let mut word = [0; 8];
            file.read_exact_at(&mut word, (256 << 10) + 63 * 4096 + 8 * 8).unwrap();
            u32::from_le_bytes(word[..4].try_into().unwrap())
        };
        let files = NodeFiles::open(&settings, 1, Coming::Alone).unwrap();
        assert!(files.presence.names_given() > first);
        drop(files);
        assert_eq!(synced(), 0, "a killed process");
        // Another boot of the machine.
        file.write_all_at(&[0; 8], 20 * 8).unwrap();
        drop(NodeFiles::open(&settings, 1, Coming::Alone).unwrap());
        assert_eq!(synced(), 1, "a machine that was down");
    }

    #[test]
    fn both_files_share_one_hash_key() {
        let folder = tempfile::tempdir().unwrap();
        let settings = |name: &str| Settings { data_dir: folder.path().join(name), ..Settings::default() };
        let keys = |name: &str| {
            let files = NodeFiles::open(&settings(name), 1, Coming::Alone)?;
            Ok::<_, StartError>((files.presence.hash_key(), files.registered.hash_key()))
        };
        let (first, same) = keys("a").unwrap();
        assert_eq!(first, same);
        let path = |name: &str, kind: FileKind| folder.path().join(name).join(kind.file_name());
        for kind in [FileKind::Presence, FileKind::Registered] {
            std::fs::remove_file(path("a", kind)).unwrap();
            assert_eq!(
                keys("a").unwrap(),
                (first, first),
                "a new {} gets the key of the other",
                kind.file_name()
            );
        }
        keys("b").unwrap();
        std::fs::copy(path("b", FileKind::Registered), path("a", FileKind::Registered)).unwrap();
        assert!(matches!(keys("a"), Err(StartError::File(_))), "files of two servers do not go together");
    }
}

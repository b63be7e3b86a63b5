//! The server process: its shards and its files.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use comsipl_core::{Aor, Chance, HashKey, Mono, Now, UnixMillis};
use comsipl_fdb::{Fdb, FileKind, OpenError, OpenFault, OpenOptions, Opened};
use comsipl_shards::access::Gate;
use comsipl_shards::counters::{Counter, Counters};
use comsipl_shards::mailbox::Command;
use comsipl_shards::node::{Coming, Heartbeats, Recovered};
use comsipl_shards::overload::Levels;
use comsipl_shards::settings::Settings;
use comsipl_shards::shard::{Shard, ShardStart};
use comsipl_shards::shard_files::ShardFiles;
use comsipl_shards::users::{Outcome, Put, UserChange, UserCommand, UserSecrets};

/// What the server knows of a user's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// As of any user who was added with this one.
    Password(String),
    /// The phone sends this name for authentication.
    Named {
        /// The name.
        name: String,
        /// The password.
        password: String,
    },
    /// The hash by MD5 alone.
    Md5(String),
}

/// How many records of each file are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsInUse {
    /// In `presence_w.fdb`.
    pub presence: u64,
    /// In `registered.fdb`.
    pub registered: u64,
}

/// How much of the files a start brings to disk before it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDisk {
    /// All, because the machine was down.
    All,
    /// The superblocks.
    Superblocks,
}

/// A living process.
pub(super) struct Node {
    /// Its shards.
    pub shards: Vec<Shard>,
    /// Its first moment, in microseconds of the world; its monotonic clock starts there.
    pub born_at: u64,
    heartbeats: Heartbeats,
    /// When the thread that syncs looked at them last.
    beaten: Mono,
    registered: Arc<Fdb>,
    presence: Arc<Fdb>,
    /// Damaged records that its start dropped, and extents.
    pub dropped: u64,
}

impl Node {
    /// Starts a process on the files in `dir`, which are made if they are not there. `recovered` is called when the files are
    /// open, before the shards look at them, and told how much of them is on disk.
    pub fn open(
        dir: &Path,
        settings: &Arc<Settings>,
        shards: usize,
        chance: &mut Chance,
        born_at: u64,
        born: UnixMillis,
        recovered: impl FnOnce(OnDisk) -> io::Result<()>,
    ) -> io::Result<Self> {
        // The key decides which shard owns what: one that the operating system drew could not be replayed.
        let is_new = !dir.join(FileKind::Presence.file_name()).exists();
        let hash_key = is_new.then(|| [chance.next_u64(), chance.next_u64()]);
        let registered = open(dir, FileKind::Registered, settings.registered_records_max, hash_key)?;
        let presence = open(dir, FileKind::Presence, settings.presence_records_max, hash_key)?;
        let found = Recovered::new(Coming::Alone, registered.recovery, presence.recovery);
        recovered(if found.may_lack_something() {
            registered.file.sync()?;
            presence.file.sync()?;
            OnDisk::All
        } else {
            registered.file.sync_superblock()?;
            presence.file.sync_superblock()?;
            OnDisk::Superblocks
        })?;
        let (last_alive_ms, owes_all) = (found.presence.last_heartbeat_ms, found.may_lack_something());
        let dropped = [&registered, &presence].map(|it| it.recovery.torn_dropped + it.recovery.extents_lost);
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
        let keys = HashKey(registered.file.hash_key());
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&born.0.to_le_bytes());
        let gate = Arc::new(Gate::new(settings, keys, salt));
        let levels = Arc::new(Levels::new(shards, born));
        let listeners: Vec<comsipl_core::Listen> = settings.listen.clone();
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
                    gate: Arc::clone(&gate),
                    start: found.start,
                    levels: Arc::clone(&levels),
                    last_alive_ms,
                    owes_all,
                    connections: Arc::default(),
                };
                Shard::open(start, now)
            })
            .collect();
        Ok(Self {
            shards,
            born_at,
            heartbeats: Heartbeats::new(now, found.is_first()),
            beaten: now.mono,
            registered: registered.file,
            presence: presence.file,
            dropped: dropped.iter().sum(),
        })
    }

    /// Stores the heartbeat, as the thread that syncs does before each sync.
    pub fn heartbeat(&mut self, now: Now) {
        self.beaten = now.mono;
        if self.heartbeats.is_due(now) {
            self.registered.heartbeat(now.wall.0);
            self.presence.heartbeat(now.wall.0);
        }
    }

    /// Stores the heartbeats that have come up to `now`, the wall clock not having been set since the last of them.
    pub fn catch_up(&mut self, settings: &Settings, now: Now) {
        let interval = settings.sync_interval.max(Duration::from_millis(1));
        while self.beaten + interval <= now.mono {
            let mono = self.beaten + interval;
            let ago = u64::try_from(now.mono.since(mono).as_millis()).expect("a test does not run for ages");
            self.heartbeat(Now { mono, wall: UnixMillis(now.wall.0.saturating_sub(ago)) });
        }
    }

    /// Brings the files to disk.
    pub fn sync(&self) -> io::Result<()> {
        self.registered.sync().and(self.presence.sync())
    }

    /// Checks that what the shards count adds up, among itself and with the files.
    ///
    /// # Errors
    /// What does not.
    pub fn check_counters(&self) -> Result<(), String> {
        let sum = |counter: fn(&Counters) -> &Counter| -> u64 {
            self.shards.iter().map(|shard| counter(shard.counters()).get()).sum()
        };
        let handled = sum(|it| &it.registers)
            + sum(|it| &it.publishes)
            + sum(|it| &it.subscribes)
            + sum(|it| &it.other_requests);
        let answered = sum(|it| &it.answered_ok) + sum(|it| &it.refused);
        if handled != answered {
            return Err(format!("{handled} requests were handled and {answered} answered"));
        }
        let ended = sum(|it| &it.notifies_delivered)
            + sum(|it| &it.notifies_refused)
            + sum(|it| &it.notifies_timed_out);
        let begun = sum(|it| &it.notifies);
        if ended > begun {
            return Err(format!("{begun} NOTIFYs were begun and {ended} have ended"));
        }
        let (bindings, stored) = (sum(|it| &it.bindings), self.registered.usage().records());
        if bindings != stored {
            return Err(format!("{bindings} bindings are counted and {stored} stored"));
        }
        let known = sum(|it| &it.subscriptions) + sum(|it| &it.publications);
        let (stored, users) = (self.presence.usage().records(), sum(|it| &it.presentities));
        // The rest are documents, one of each user at most.
        if stored.checked_sub(known).is_none_or(|documents| documents > users) {
            return Err(format!(
                "{known} subscriptions and publications are counted, {stored} records stored, of {users} users"
            ));
        }
        if sum(|it| &it.unreadable_records) != 0 {
            return Err("a stored record could not be read back".to_owned());
        }
        Ok(())
    }

    /// How many records the partitions have that are not `shard`'s, which alone may end its own.
    pub fn records_of_others(&self, shard: usize) -> RecordsInUse {
        let of_others = |file: &Fdb| {
            let partitions = file.usage().partitions.into_iter().enumerate();
            let others = partitions.filter(|(number, _)| number % self.shards.len() != shard);
            others.map(|(_, partition)| u64::from(partition.slots_used)).sum()
        };
        RecordsInUse { presence: of_others(&self.presence), registered: of_others(&self.registered) }
    }

    /// How many records of each file are in use.
    pub fn records_in_use(&self) -> RecordsInUse {
        RecordsInUse {
            presence: self.presence.usage().slots_used(),
            registered: self.registered.usage().slots_used(),
        }
    }

    /// Has the shard that owns a user store the user's secrets, as `comsipl user add` does.
    pub fn put_user(&mut self, user: &Aor, realm: &str, secret: &Secret) -> Outcome {
        let keys = HashKey(self.registered.hash_key());
        let owner = usize::from(keys.aor(user.as_bytes()).partition()) % self.shards.len();
        let secrets = match secret {
            Secret::Password(password) => UserSecrets::of_password(user, realm, password.as_bytes()),
            Secret::Named { name, password } => UserSecrets::of_name(user, realm, name, password.as_bytes()),
            Secret::Md5(password) => UserSecrets {
                sha256: None,
                address_md5: None,
                address_sha256: None,
                ..UserSecrets::of_password(user, realm, password.as_bytes())
            },
        };
        let (answer, outcomes) = channel();
        let changes = vec![(0, UserChange::Put(Put::Any, secrets))];
        self.shards[owner].on_command(Command::Users(UserCommand { changes, answer }));
        outcomes.recv().expect("the shard answers at once").1
    }
}

/// Opens one file; a file that is new gets `hash_key`.
fn open(dir: &Path, kind: FileKind, records_max: u32, hash_key: Option<[u64; 2]>) -> io::Result<Opened> {
    let options = OpenOptions { records_max, threads: 1, hash_key };
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Fdb::open(&dir.join(kind.file_name()), kind, &options) {
            // Another test of this program may be starting an xmllint: until that is executed, it has every file that was
            // open when it was forked, with its lock.
            Err(OpenError { fault: OpenFault::Locked, .. }) if Instant::now() < deadline => {
                thread::yield_now()
            }
            result => return result.map_err(io::Error::other),
        }
    }
}

/// How long a file may stay locked by a program that is being started.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

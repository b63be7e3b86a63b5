//! The shard that owns a datagram is that which its parsed fields name.

use std::cell::RefCell;
use std::sync::Arc;

use comsipl_core::msg::{Method, parse};
use comsipl_core::{HashKey, Mono, Now, UnixMillis};
use comsipl_shards::access::Gate;
use comsipl_shards::node::{Coming, NodeFiles};
use comsipl_shards::overload::Levels;
use comsipl_shards::settings::Settings;
use comsipl_shards::shard::{Owner, Shard, ShardStart};
use tempfile::TempDir;

/// How many shards the server has: no divisor of the number of partitions, so that a wrong partition shows.
const SHARDS: usize = 61;

/// Checks one datagram.
pub fn hold(bytes: &[u8]) {
    thread_local!(static SERVER: RefCell<Server> = RefCell::new(Server::new()));
    SERVER.with_borrow_mut(|server| server.check(bytes));
}

/// One shard of many, asked for owners only.
struct Server {
    shard: Shard,
    keys: HashKey,
    _files: NodeFiles,
    _dir: TempDir,
}

impl Server {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a place for files");
        let settings = Settings {
            data_dir: dir.path().to_owned(),
            presence_records_max: 512,
            registered_records_max: 512,
            ..Settings::default()
        };
        let mut files = NodeFiles::open(&settings, SHARDS, Coming::Alone).expect("the files open");
        let keys = HashKey(files.hash_key());
        let gate = Arc::new(Gate::new(&settings, keys, [9; 32]));
        let now = Now { mono: Mono(0), wall: UnixMillis(1_700_000_000_000) };
        let start = ShardStart {
            index: 0,
            shards: SHARDS,
            listeners: settings.listen.clone(),
            settings: Arc::new(settings),
            files: files.take_shard().expect("a shard"),
            seed: [7; 32],
            gate,
            levels: Arc::new(Levels::new(SHARDS, now.wall)),
            start: 1,
            last_alive_ms: 0,
            owes_all: false,
            connections: Arc::default(),
        };
        Self { shard: Shard::open(start, now), keys, _files: files, _dir: dir }
    }

    fn check(&mut self, bytes: &[u8]) {
        let owner = self.shard.owner_of(bytes);
        let Ok(message) = parse(bytes) else { return };
        let of = |partition: u8| Owner::Shard(usize::from(partition) % SHARDS);
        let of_call_id = of(self.keys.call_id_partition(message.call_id()));
        let of_user = |uri: &[u8]| {
            self.keys.aor_of_uri(uri, &mut Vec::new()).map_or(Owner::Anyone, |key| of(key.partition()))
        };
        let expected = match message.method() {
            Some(Method::Subscribe | Method::Cancel) => of_call_id,
            Some(Method::Publish) => of_user(message.request_uri()),
            Some(Method::Register) => of_user(message.to().uri()),
            Some(_) => Owner::Anyone,
            // Branches that we made name a partition; all other answers have a Call-ID.
            None => match message.via().branch() {
                None => Owner::Anyone,
                Some(branch) if branch.starts_with(b"z9hG4bK~") && branch.len() == 26 => {
                    assert_ne!(owner, Owner::Anyone);
                    return;
                }
                Some(_) => of_call_id,
            },
        };
        assert_eq!(owner, expected);
    }
}

//! One shard of the real engine, its sockets replaced by memory.
//!
//! The same engine, the same files (on a memory file system where there is one), the same messages; only the kernel's
//! sockets are left out, so that a figure says what our own code costs.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use comsipl_core::overload::{Measured, WHOLE};
use comsipl_core::{Aor, Flow, HashKey, Mono, Now, UnixMillis};
use comsipl_shards::access::Gate;
use comsipl_shards::mailbox::Command;
use comsipl_shards::node::{Coming, NodeFiles};
use comsipl_shards::overload::Levels;
use comsipl_shards::settings::{Auth, OverloadSettings, Settings};
use comsipl_shards::shard::{Owner, Shard, ShardStart};
use comsipl_shards::users::{Outcome, Put, UserChange, UserCommand, UserSecrets};
use tempfile::TempDir;

use crate::flow;

/// One shard, driven by hand.
pub struct OneShard {
    /// The engine.
    pub shard: Shard,
    now: Now,
    /// Answers to the NOTIFYs that were sent: arena and where each lies and comes from.
    answers: Vec<u8>,
    waiting: VecDeque<(Flow, Range<usize>)>,
    /// NOTIFYs sent so far.
    pub notifies: u64,
    /// Whether the engine's work is done under the name of [`engine_work`].
    is_measured: bool,
    _files: NodeFiles,
    _dir: TempDir,
}

/// How much more comes than can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// So much that hardly anything is taken; each refusal is answered.
    Answered,
    /// So much more that hardly any refusal is answered.
    Silent,
    /// So little that nearly everything is taken.
    Slight,
}

impl OneShard {
    /// A shard over new files with room for `records` records a partition.
    ///
    /// # Panics
    /// If the files cannot be made.
    #[must_use]
    pub fn new(records: u32) -> Self {
        Self::one_of(1, records)
    }

    /// The first of `shards` shards, the others missing; see [`Self::new`].
    ///
    /// # Panics
    /// If the files cannot be made.
    #[must_use]
    pub fn one_of(shards: usize, records: u32) -> Self {
        let dir =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for files");
        let now = Now { mono: Mono(0), wall: UnixMillis(1_700_000_000_000) };
        Self::open(dir, shards, records, now, 0, Auth::Unset)
    }

    /// A shard over new files that challenges its users; see [`Self::new`].
    ///
    /// # Panics
    /// If the files cannot be made.
    #[must_use]
    pub fn challenging(records: u32) -> Self {
        let dir =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for files");
        let now = Now { mono: Mono(0), wall: UnixMillis(1_700_000_000_000) };
        Self::open(dir, 1, records, now, 0, Auth::Digest)
    }

    /// A shard over new files that serves whoever comes, from wherever; see [`Self::new`].
    ///
    /// # Panics
    /// If the files cannot be made.
    #[must_use]
    pub fn open_to_all(records: u32) -> Self {
        let dir =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for files");
        let now = Now { mono: Mono(0), wall: UnixMillis(1_700_000_000_000) };
        Self::open(dir, 1, records, now, 0, Auth::None)
    }

    /// Makes a user with a password.
    ///
    /// # Panics
    /// If the address is not in canonical form, or there is no room.
    pub fn put_user(&mut self, user: &str, password: &str) {
        let user = Aor::from_canonical(user).expect("a canonical address");
        let secrets = UserSecrets::of_password(&user, user.host(), password.as_bytes());
        let (answer, outcomes) = channel();
        let changes = vec![(0, UserChange::Put(Put::New, secrets))];
        self.shard.on_command(Command::Users(UserCommand { changes, answer }));
        assert_eq!(outcomes.recv(), Ok((0, Outcome::Added)));
    }

    /// The shard killed and started again over its files, now with room for `records` records a partition, after it was down
    /// for so many milliseconds.
    ///
    /// # Panics
    /// If the files cannot be opened.
    #[must_use]
    pub fn started_again(self, records: u32, down_millis: u64) -> Self {
        let Self { shard, _files: files, _dir: dir, now, .. } = self;
        drop(shard);
        drop(files);
        let wall = UnixMillis(now.wall.0 + down_millis);
        Self::open(dir, 1, records, Now { mono: Mono(0), wall }, now.wall.0, Auth::Unset)
    }

    fn open(dir: TempDir, shards: usize, records: u32, now: Now, last_alive_ms: u64, auth: Auth) -> Self {
        let settings = Settings {
            data_dir: dir.path().to_owned(),
            presence_records_max: records,
            registered_records_max: records,
            auth,
            overload: OverloadSettings::EXACT,
            ..Settings::default()
        };
        let mut files = NodeFiles::open(&settings, shards, Coming::Alone).expect("the files open");
        let gate = Arc::new(Gate::new(&settings, HashKey(files.hash_key()), [9; 32]));
        let start = ShardStart {
            index: 0,
            shards,
            listeners: settings.listen.clone(),
            settings: Arc::new(settings),
            files: files.take_shard().expect("one shard"),
            seed: [7; 32],
            gate,
            levels: Arc::new(Levels::new(shards, now.wall)),
            start: 1,
            last_alive_ms,
            owes_all: false,
            connections: Arc::default(),
        };
        Self {
            shard: Shard::open(start, now),
            now,
            answers: Vec::new(),
            waiting: VecDeque::new(),
            notifies: 0,
            is_measured: false,
            _files: files,
            _dir: dir,
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, millis: u64) {
        self.now.mono = Mono(self.now.mono.0 + millis * 1000);
        self.now.wall = UnixMillis(self.now.wall.0 + millis);
    }

    /// The clocks.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// Whether the engine's work from now on is to be seen as that of [`engine_work`].
    pub const fn measure(&mut self, is_measured: bool) {
        self.is_measured = is_measured;
    }

    /// Brings a datagram from a phone.
    pub fn deliver(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.on_shard(|shard, now| shard.on_datagram(now, flow(from), datagram));
    }

    /// Asks whose a datagram is, as the event loop does where there are several shards.
    pub fn owner_of(&mut self, datagram: &[u8]) -> Owner {
        self.on_shard(|shard, _| shard.owner_of(datagram))
    }

    /// Has the shard measure an overload.
    pub fn overload(&mut self, overload: Overload) {
        let late = Some(Duration::from_secs(1));
        let measured = Measured { late, is_grave: true, grows: true, ..Measured::default() };
        let calm = Measured { late: None, ..measured };
        match overload {
            Overload::Answered => (0..100).for_each(|_| _ = self.shard.step_load(self.now, &measured)),
            Overload::Silent => {
                // First what may be spent on refusing is used up; then there is too much of it to answer all.
                for refusing in [WHOLE / 2, WHOLE / 7] {
                    let busy = Measured { refusing, ..measured };
                    (0..100).for_each(|_| _ = self.shard.step_load(self.now, &busy));
                }
            }
            Overload::Slight => {
                self.shard.step_load(self.now, &measured);
                while self.shard.step_load(self.now, &calm) < WHOLE - WHOLE / 32 {}
            }
        }
        assert!(self.shard.is_refusing());
    }

    /// Asks whether a datagram from a phone is taken, as the event loop does in an overload.
    pub fn takes(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        self.on_shard(|shard, now| shard.owner_if_taken(now.mono, flow(from), datagram).is_some())
    }

    /// Ends the turn: timers and fan-out run, then the outbox is taken. NOTIFYs wait for [`Self::answer`].
    /// Returns how many messages left.
    pub fn end_turn(&mut self) -> usize {
        self.on_shard(Shard::on_turn_end);
        for message in self.shard.outbox.messages() {
            let head = self.shard.outbox.head(message);
            if head.starts_with(b"NOTIFY ") {
                self.notifies += 1;
                let start = self.answers.len();
                push_answer(head, &mut self.answers);
                self.waiting.push_back((message.flow, start..self.answers.len()));
            }
        }
        let sent = self.shard.outbox.len();
        self.on_shard(|shard, _| shard.outbox.clear(&mut shard.bodies));
        sent
    }

    /// Answers every NOTIFY that was sent, as phones do; says how many.
    pub fn answer(&mut self) -> usize {
        self.answer_some(usize::MAX)
    }

    /// Answers the `most` NOTIFYs that were sent first, or all if there are fewer; says how many.
    pub fn answer_some(&mut self, most: usize) -> usize {
        let count = most.min(self.waiting.len());
        for _ in 0..count {
            let Some((flow, range)) = self.waiting.pop_front() else { break };
            let answers = std::mem::take(&mut self.answers);
            self.on_shard(|shard, now| shard.on_datagram(now, flow, &answers[range]));
            self.answers = answers;
        }
        if self.waiting.is_empty() {
            self.answers.clear();
        }
        count
    }

    /// A turn as the event loop has it: at most [`DATAGRAMS_PER_TURN`] answers come in, and the engine knows whether
    /// more wait. `false`: nothing is left to do now.
    pub fn turn(&mut self) -> bool {
        let answered = self.answer_some(DATAGRAMS_PER_TURN);
        self.shard.input_waits = !self.waiting.is_empty();
        let sent = self.end_turn();
        self.shard.input_waits = false;
        sent > 0 || answered > 0 || self.shard.deadline() == Some(Mono(0))
    }

    /// Turns and answers until nothing is left to do now.
    pub fn settle(&mut self) {
        while self.turn() {}
    }

    /// Entity tag in the newest 200 of the outbox; for a PUBLISH that was just delivered.
    #[must_use]
    pub fn newest_entity_tag(&self) -> Option<String> {
        let head = std::str::from_utf8(self.shard.outbox.newest_head()?).ok()?;
        head.split("\r\n").find_map(|line| line.strip_prefix("SIP-ETag: ")).map(str::to_owned)
    }

    /// Nonce in the newest answer of the outbox; for a request that was just challenged.
    #[must_use]
    pub fn newest_nonce(&self) -> Option<String> {
        let head = std::str::from_utf8(self.shard.outbox.newest_head()?).ok()?;
        head.split("nonce=\"").nth(1)?.split('"').next().map(str::to_owned)
    }

    /// Whether the newest answer of the outbox is a 200.
    #[must_use]
    pub fn newest_is_ok(&self) -> bool {
        self.shard.outbox.newest_head().is_some_and(|head| head.starts_with(b"SIP/2.0 200 "))
    }

    /// To tag in the first answer of the outbox; for a SUBSCRIBE that was just delivered.
    #[must_use]
    pub fn first_to_tag(&self) -> Option<String> {
        to_tag(self.shard.outbox.head(self.shard.outbox.messages().first()?))
    }

    /// To tag in the newest answer of the outbox; as [`Self::first_to_tag`], where others came before in the same turn.
    #[must_use]
    pub fn newest_to_tag(&self) -> Option<String> {
        let heads = self.shard.outbox.messages().iter().rev().map(|message| self.shard.outbox.head(message));
        to_tag(heads.into_iter().find(|head| head.starts_with(b"SIP/2.0 "))?)
    }

    /// The answer that the NOTIFY sent last will get.
    #[must_use]
    pub fn newest_answer(&self) -> Option<&[u8]> {
        self.waiting.back().map(|(_, range)| &self.answers[range.clone()])
    }

    /// Lets the engine work, under a name of its own while it is measured.
    fn on_shard<T>(&mut self, work: impl FnOnce(&mut Shard, Now) -> T) -> T {
        let (shard, now) = (&mut self.shard, self.now);
        if self.is_measured { engine_work(|| work(shard, now)) } else { work(shard, now) }
    }
}

/// What callgrind counts: it begins with the entry into a function of this name and ends where that is left. Never inlined
/// and never nested, so that nothing of the harness is in the count.
#[inline(never)]
pub fn engine_work<T>(work: impl FnOnce() -> T) -> T {
    // Not the last thing that is done here: a call in the tail would leave this function before its work is over.
    black_box(work())
}

/// Datagrams that a turn of the event loop takes at most.
pub const DATAGRAMS_PER_TURN: usize = 256;

/// The tag in the To of a message.
fn to_tag(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let to = head.split("\r\n").find(|line| line.starts_with("To: "))?;
    to.split(";tag=").nth(1).map(str::to_owned)
}

/// 200 to a NOTIFY.
fn push_answer(head: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
    for line in head.split_inclusive(|&b| b == b'\n') {
        let kept = [&b"Via:"[..], b"From:", b"To:", b"Call-ID:", b"CSeq:"];
        if kept.iter().any(|name| line.starts_with(name)) {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

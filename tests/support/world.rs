//! A whole server in virtual time: real shards over real files, and a made-up network, bus and clock around them.
//!
//! Nothing here reads a clock or draws a number that the seed does not determine, so a run replays exactly. Time stands
//! still while anything happens and jumps to whatever happens next.
//!
//! ```text
//!   phones ──network──▶ socket of some shard ──owner_of──▶ owner's inbox ──turn──▶ outbox ──network──▶ phones
//!                        (chosen by peer)      hand-over    (delayed bus)  └─────▶ notes ──bus──▶ other shards
//! ```
//!
//! Invariants:
//!   * what is addressed to a process that has crashed since never reaches its successor, except in datagrams;
//!   * hand-overs from one shard to another arrive in order, and so do notes; across the two there is no order.

mod disk;
mod network;
mod node;
pub mod sip_text;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use comsipl_core::overload::{Measured, WHOLE};
use comsipl_core::{Aor, Chance, ConnectionId, Flow, Listen, Mono, Now, Transport, UnixMillis};
use comsipl_shards::Report;
use comsipl_shards::audit::Findings;
use comsipl_shards::mailbox::Command;
use comsipl_shards::note::Note;
use comsipl_shards::resolve::{Answer, Found, NEGATIVE_TTL, Query};
use comsipl_shards::settings::{OverloadSettings, Settings};
use comsipl_shards::shard::Owner;
use comsipl_shards::users::Outcome;

use disk::Disk;
pub use network::Network;
use node::Node;
pub use node::{RecordsInUse, Secret};
use streams::Streams;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many shards the server has.
    pub shards: usize,
    /// The server's settings; `data_dir` is replaced by the world's own.
    pub settings: Settings,
    /// The network between phones and server.
    pub network: Network,
    /// Longest delay of a hand-over or a note between two shards.
    pub bus_delay_max: Duration,
    /// Longest time between the arrival of input and the turn that takes it.
    pub turn_delay_max: Duration,
    /// Decides everything that is left to chance.
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            shards: 2,
            settings: Settings {
                listen: vec![Listen::udp(SERVER)],
                overload: OverloadSettings::EXACT,
                ..Settings::default()
            },
            network: Network::PERFECT,
            bus_delay_max: Duration::ZERO,
            turn_delay_max: Duration::ZERO,
            seed: 0,
        }
    }
}

/// Where the server listens unless the settings say otherwise.
pub const SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 5060);

/// Listeners of every transport at [`SERVER`]'s address, that of datagrams first.
#[must_use]
pub fn listeners_of_all() -> Vec<Listen> {
    let listen = |transport: Transport| {
        let address = SocketAddr::new(SERVER.ip(), transport.default_port());
        Listen { transport, address }
    };
    Transport::ALL.into_iter().map(listen).collect()
}

/// The bytes of a datagram, shared by everyone who looks at it.
pub type Bytes = Arc<[u8]>;

/// Something that happened, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Happening {
    /// The server gave a message to the network.
    ServerSent {
        /// The listener it left from.
        from: SocketAddr,
        /// Where it goes.
        to: SocketAddr,
        /// The message.
        bytes: Bytes,
    },
    /// The shard that owns a datagram took it.
    ServerTook {
        /// Who had sent it.
        from: SocketAddr,
        /// The datagram.
        bytes: Bytes,
    },
    /// A message of the server arrived at an address.
    PhoneGot {
        /// The listener it came from.
        from: SocketAddr,
        /// Where it arrived.
        to: SocketAddr,
        /// The connection that brought it; `None`: it was a datagram.
        connection: Option<ConnectionId>,
        /// The message.
        bytes: Bytes,
    },
    /// The process is about to end with this message in hand: what it stored for it is in the files. Comes before `Crashed`.
    DiedWith {
        /// The message.
        bytes: Bytes,
    },
    /// The process ended, with everything it had in memory.
    Crashed,
    /// That was the end of the machine as well: of the files there is what was on disk. Comes behind `Crashed`.
    PowerFailed {
        /// When all was on disk last.
        synced_at: Duration,
    },
    /// The wall clock was set.
    ClockSet {
        /// By so many milliseconds.
        by_ms: i64,
    },
    /// A new process opened the files.
    Restarted,
    /// A new process would not go on with the files as they are; see [`World::may_refuse_files`].
    Refused {
        /// What it said.
        why: String,
    },
}

/// A server, its network and its clock.
pub struct World {
    setup: Setup,
    settings: Arc<Settings>,
    dir: tempfile::TempDir,
    node: Option<Node>,
    disk: Option<Disk>,
    may_refuse_files: bool,
    /// Damaged records, and extents, that starts dropped.
    dropped: u64,
    /// Microseconds since the world began.
    now: u64,
    /// How far the wall clock was set, in milliseconds.
    wall_set_ms: i64,
    /// Counts processes; what was meant for an earlier one is dropped.
    life: u32,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    benches: Vec<Bench>,
    /// Latest arrival on the bus, by (from, to, is a note), which keeps each lane in order.
    lanes: BTreeMap<(usize, usize, bool), u64>,
    happenings: VecDeque<Happening>,
    streams: Streams,
    names: BTreeMap<String, NameEntry>,
    chance: Chance,
    /// Set: the next turn that wants to send ends the process instead.
    doom: Option<Crash>,
    story: VecDeque<String>,
    story_len_max: usize,
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// So long after it the next process starts.
    pub down: Duration,
    /// The next process has so many shards; `None`: as many.
    pub shards: Option<usize>,
    /// Whether the machine goes down, too.
    pub power: Power,
    /// Milliseconds by which the wall clock is set meanwhile.
    pub clock_step_ms: i64,
}

impl Crash {
    /// Nothing happens but that.
    #[must_use]
    pub const fn of_process(down: Duration) -> Self {
        Self { down, shards: None, power: Power::Stays, clock_step_ms: 0 }
    }
}

/// What becomes of the machine when a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Nothing: the files are as the process left them.
    Stays,
    /// It goes down: of the files there is what was on disk, which is chance.
    Fails,
    /// It goes down, and nothing was on disk but what was synced.
    FailsAndAllIsLost,
}

/// What the made-up DNS says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// Where it leads, in the order in which that is tried; nowhere, if there is nothing.
    pub found: Vec<Found>,
    /// How long the answer takes; `None`: there is none.
    pub after: Option<Duration>,
    /// For how long it counts.
    pub ttl: Duration,
}

/// What waits for one shard, and when it looks.
#[derive(Debug, Default)]
struct Bench {
    inbox: VecDeque<Input>,
    wakes_at: Option<u64>,
    /// Turns in a row that took nothing and gave nothing though the shard had asked to be called at once.
    idle_turns: u32,
}

/// Something for one shard.
#[derive(Debug)]
enum Input {
    /// From the shard's own socket; it may belong to another shard.
    Datagram(Flow, Bytes),
    /// From another shard's socket; it belongs to this one.
    HandedOver(Flow, Bytes),
    /// From another shard.
    Note(Note),
    Report(Report),
    /// From the resolver.
    Answer(Answer),
}

/// Something that is due at a moment.
#[derive(Debug)]
enum Event {
    ArrivesAtServer {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Bytes,
    },
    ArrivesAtPhone {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Bytes,
    },
    /// Bytes that a phone wrote into a connection.
    OnConnection {
        id: ConnectionId,
        bytes: Bytes,
    },
    /// A phone's end of a connection closed, and the server sees it.
    Closed {
        id: ConnectionId,
    },
    /// Bytes that the server wrote into a connection.
    FromConnection {
        id: ConnectionId,
        from: SocketAddr,
        bytes: Bytes,
    },
    /// A message of the server reaches the shard that holds its connection.
    ToHolder {
        life: u32,
        from: usize,
        flow: Flow,
        bytes: Bytes,
    },
    OnBus {
        life: u32,
        to: usize,
        input: Input,
    },
    Turn {
        life: u32,
        shard: usize,
    },
    Restart {
        shards: usize,
    },
}

impl World {
    /// A world whose server has just been started for the first time.
    ///
    /// # Panics
    /// If the files cannot be made: a test has nothing to say then.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let dir = if Path::new("/dev/shm").is_dir() {
            tempfile::TempDir::new_in("/dev/shm")
        } else {
            tempfile::TempDir::new()
        }
        .expect("a place for the files");
        let settings = Arc::new(Settings { data_dir: dir.path().to_owned(), ..setup.settings.clone() });
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&setup.seed.to_le_bytes());
        let shards = setup.shards;
        let mut world = Self {
            setup,
            settings,
            dir,
            node: None,
            disk: None,
            may_refuse_files: false,
            dropped: 0,
            now: 0,
            wall_set_ms: 0,
            life: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            benches: Vec::new(),
            lanes: BTreeMap::new(),
            happenings: VecDeque::new(),
            streams: Streams::default(),
            names: BTreeMap::new(),
            chance: Chance::from_seed(seed),
            doom: None,
            story: VecDeque::new(),
            story_len_max: STORY_LEN_MAX,
        };
        world.boot(shards);
        world
    }

    /// Time since the world began.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.now)
    }

    /// The wall clock, in milliseconds since 1970.
    #[must_use]
    pub fn wall(&self) -> UnixMillis {
        UnixMillis((WALL_AT_START + self.now / 1000).saturating_add_signed(self.wall_set_ms))
    }

    /// Sets the wall clock forward, or back if `millis` is negative. The monotonic clock goes on.
    pub fn set_wall_clock(&mut self, millis: i64) {
        self.beat();
        self.wall_set_ms += millis;
        self.tell(format!("the wall clock is set by {millis} ms"));
        self.happenings.push_back(Happening::ClockSet { by_ms: millis });
    }

    /// Where the files are.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// From now on a start that refuses the files is a [`Happening::Refused`] and not the end of the test.
    pub fn may_refuse_files(&mut self) {
        self.may_refuse_files = true;
    }

    /// Damaged records, and extents, that starts have dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Checks that what the server counts adds up.
    ///
    /// # Errors
    /// What does not.
    pub fn check_counters(&self) -> Result<(), String> {
        self.node.as_ref().map_or(Ok(()), Node::check_counters)
    }

    /// Brings the files to disk, as a server does once a sync interval. That costs real time, so here it happens when a power
    /// cut is to come.
    ///
    /// # Panics
    /// If the files cannot be read: a test has nothing to say then.
    pub fn sync(&mut self) {
        self.beat();
        let at = self.now();
        let now = self.node.as_ref().map(|node| self.now_of(node));
        if let (Some(node), Some(now)) = (&mut self.node, now) {
            node.heartbeat(now);
            self.disk = Some(Disk::synced(self.dir.path(), at).expect("the files are there"));
            node.sync().expect("the files can be synced");
        }
    }

    /// Stores the heartbeats that have come until now.
    fn beat(&mut self) {
        let now = self.node.as_ref().map(|node| self.now_of(node));
        if let (Some(node), Some(now)) = (&mut self.node, now) {
            node.catch_up(&self.settings, now);
        }
    }

    /// Both clocks, as a process reads them.
    fn now_of(&self, node: &Node) -> Now {
        Now { mono: Mono(self.now - node.born_at), wall: self.wall() }
    }

    /// From now on a power cut may leave any page as it is now.
    ///
    /// # Panics
    /// If the files cannot be read: a test has nothing to say then.
    pub fn write_back(&mut self) {
        if let (Some(disk), true) = (&mut self.disk, self.node.is_some()) {
            disk.write_back().expect("the files are there");
        }
    }

    /// The settings the server runs with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a server process is running.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Replaces the network; what is on its way already is not touched.
    pub fn set_network(&mut self, network: Network) {
        self.setup.network = network;
    }

    /// How many records of each file are in use. The server must be up.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn records_in_use(&self) -> RecordsInUse {
        self.node.as_ref().expect("the server is up").records_in_use()
    }

    /// Makes a user with a password, or changes the password of one.
    ///
    /// # Errors
    /// What is wrong with the address, or that there is no room.
    ///
    /// # Panics
    /// If the server is down.
    pub fn put_user(&mut self, user: &str, secret: &Secret) -> Result<(), String> {
        let user = Aor::from_canonical(user).map_err(|bad| format!("{user}: {bad}"))?;
        let realm = self.settings.access.realm.clone().unwrap_or_else(|| user.host().to_owned());
        let node = self.node.as_mut().expect("the server is up");
        match node.put_user(&user, &realm, secret) {
            Outcome::Added | Outcome::Changed => Ok(()),
            other => Err(format!("{user}: {other:?}")),
        }
    }

    /// Gives a datagram of a phone to the network.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        for delay in self.setup.network.fates(&mut self.chance) {
            let bytes = Arc::clone(&bytes);
            self.schedule(delay, Event::ArrivesAtServer { from, to, bytes });
        }
        self.tell(format!("{from} ─▶ server  {}", first_line(&bytes)));
    }

    /// A phone at `phone` opens a connection to one of the server's listeners; `None`: nobody answers.
    pub fn connect(&mut self, phone: SocketAddr, transport: Transport) -> Option<ConnectionId> {
        let listener = self.settings.listen.iter().position(|l| l.transport == transport)?;
        self.node.as_ref()?;
        let listener = u8::try_from(listener).expect("few listeners");
        let flow = Flow { transport, listener, local_ip: None, peer: phone, connection: None };
        let shard = socket_of(phone, self.benches.len());
        self.tell(format!("{phone} connects by {}", transport.via_token()));
        Some(self.streams.open(shard, self.wall().0, flow))
    }

    /// A phone writes a message into a connection; nothing happens if that is closed.
    pub fn write(&mut self, id: ConnectionId, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !self.is_open(id) {
            return;
        }
        let delay = self.setup.network.stream_delay(&mut self.chance);
        let now = self.now;
        let connection = self.streams.get_mut(id).expect("it is open");
        let at = (now + micros(delay)).max(connection.last_in);
        connection.last_in = at;
        let peer = connection.flow.peer;
        self.tell(format!("{peer} ═▶ server  {}", first_line(&bytes)));
        self.schedule(Duration::from_micros(at - now), Event::OnConnection { id, bytes });
    }

    /// Whether a phone takes its connection for whole.
    #[must_use]
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.streams.get(id).is_some_and(|connection| connection.phone_end)
    }

    /// A phone closes its connection, and the server sees it behind what the phone wrote last.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.streams.get_mut(id) else { return };
        connection.phone_end = false;
        let (at, peer) = (connection.last_in.max(self.now), connection.flow.peer);
        self.tell(format!("{peer} closes its connection"));
        self.schedule(Duration::from_micros(at - self.now), Event::Closed { id });
    }

    /// A phone loses its connection, and the server does not see it.
    pub fn cut(&mut self, id: ConnectionId) {
        let Some(connection) = self.streams.get_mut(id) else { return };
        connection.phone_end = false;
        let peer = connection.flow.peer;
        self.tell(format!("{peer} is cut off"));
    }

    /// A phone takes connections at an address from now on, or not any more.
    pub fn listen(&mut self, transport: Transport, at: SocketAddr, listens: bool) {
        self.streams.listen(transport, at, listens);
    }

    /// The next thing that happens until `until`; `None`: nothing does, and it is `until` now.
    pub fn next(&mut self, until: Duration) -> Option<Happening> {
        let until = micros(until);
        loop {
            if let Some(happening) = self.happenings.pop_front() {
                return Some(happening);
            }
            match self.queue.first_key_value() {
                Some((&(at, _), _)) if at <= until => {
                    let ((at, _), event) = self.queue.pop_first().expect("just seen");
                    self.now = self.now.max(at);
                    self.handle(event);
                }
                _ => {
                    self.now = self.now.max(until);
                    return None;
                }
            }
        }
    }

    /// Has every shard measure what lets it take so much of the requests, and not 3 % more.
    ///
    /// # Panics
    /// If the server is down.
    pub fn take_percent(&mut self, percent: u32) {
        let wanted = WHOLE * percent / 100;
        let wall = self.wall();
        let node = self.node.as_mut().expect("the server is up");
        let now = Now { mono: Mono(self.now - node.born_at), wall };
        let measured = |late| Measured { late, is_grave: true, grows: true, ..Measured::default() };
        for shard in &mut node.shards {
            while wanted < WHOLE && shard.step_load(now, &measured(Some(Duration::from_secs(1)))) > wanted {}
            while shard.step_load(now, &measured(None)) < wanted {}
        }
        // Each has to hear how much the last one takes.
        for shard in &mut node.shards {
            shard.step_load(now, &measured(None));
        }
    }

    /// Ends the process at once: memory, notes and hand-overs are gone, the files stay as they are unless the power fails.
    ///
    /// # Panics
    /// If the files cannot be written: a test has nothing to say then.
    pub fn crash(&mut self, crash: Crash) {
        let Crash { down, shards, power, clock_step_ms } = crash;
        let shards = shards.unwrap_or(self.setup.shards);
        self.setup.shards = shards;
        self.life += 1;
        self.beat();
        self.node = None;
        self.benches.clear();
        self.lanes.clear();
        self.streams.break_all();
        self.doom = None;
        self.happenings.push_back(Happening::Crashed);
        self.tell("server crashes".to_owned());
        if let (Power::Fails | Power::FailsAndAllIsLost, Some(disk)) = (power, self.disk.take()) {
            let synced_at = disk.synced_at;
            let all_is_lost = power == Power::FailsAndAllIsLost;
            disk.cut(all_is_lost, &mut self.chance).expect("the files can be written");
            self.happenings.push_back(Happening::PowerFailed { synced_at });
            self.tell(format!("and the machine; all was on disk at {synced_at:?}"));
        }
        if clock_step_ms != 0 {
            self.set_wall_clock(clock_step_ms);
        }
        self.schedule(down, Event::Restart { shards });
    }

    /// The next turn that has something to send ends the process before it is sent, but after it is stored.
    pub fn crash_before_next_send(&mut self, crash: Crash) {
        self.doom = Some(crash);
    }

    /// Takes [`Self::crash_before_next_send`] back, if it has not come to it.
    pub fn spare(&mut self) {
        self.doom = None;
    }

    /// The last messages, oldest first, for a failure's report.
    #[must_use]
    pub fn story(&self) -> String {
        self.story.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// From now on the story is kept from here to its end.
    pub fn keep_whole_story(&mut self) {
        self.story_len_max = usize::MAX;
    }

    /// A number below `bound` from the world's own chance.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.chance.below(bound)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ArrivesAtServer { from, to, bytes } => {
                let Some(listener) = self.settings.listen.iter().position(|l| l.address == to) else {
                    return;
                };
                if self.node.is_none() {
                    return;
                }
                let flow = Flow::udp(u8::try_from(listener).expect("few listeners"), None, from);
                let shard = socket_of(from, self.benches.len());
                self.give(shard, Input::Datagram(flow, bytes));
            }
            Event::ArrivesAtPhone { from, to, bytes } => {
                self.happenings.push_back(Happening::PhoneGot { from, to, connection: None, bytes });
            }
            Event::OnConnection { id, bytes } => {
                // What the phone wrote before it closed arrives all the same.
                let connection = self.streams.get(id).filter(|connection| connection.server_end);
                if let Some(flow) = connection.map(|connection| connection.flow) {
                    self.give(id.shard(), Input::Datagram(flow, bytes));
                }
            }
            Event::Closed { id } => {
                if let Some(connection) = self.streams.get_mut(id) {
                    connection.server_end = false;
                }
            }
            Event::FromConnection { id, from, bytes } => {
                let connection = self.streams.get(id).filter(|connection| connection.phone_end);
                if let Some(to) = connection.map(|connection| connection.flow.peer) {
                    let connection = Some(id);
                    self.happenings.push_back(Happening::PhoneGot { from, to, connection, bytes });
                }
            }
            Event::ToHolder { life, from, flow, bytes } => {
                if life == self.life {
                    self.write_to_phone(from, flow, bytes);
                }
            }
            Event::OnBus { life, to, input } => {
                if life == self.life {
                    self.give(to, input);
                }
            }
            Event::Turn { life, shard } => {
                if life == self.life && self.benches[shard].wakes_at == Some(self.now) {
                    self.turn(shard);
                }
            }
            Event::Restart { shards } => {
                if self.node.is_none() {
                    self.boot(shards);
                    if self.node.is_some() {
                        self.happenings.push_back(Happening::Restarted);
                        self.tell(format!("server starts again with {shards} shards"));
                    }
                }
            }
        }
    }

    /// Puts `input` into a shard's inbox and sees to it that the shard looks.
    fn give(&mut self, shard: usize, input: Input) {
        self.benches[shard].inbox.push_back(input);
        let delay = self.below_duration(self.setup.turn_delay_max);
        self.wake(shard, self.now + delay);
    }

    /// One turn of a shard's event loop.
    fn turn(&mut self, shard: usize) {
        let mut node = self.node.take().expect("turns belong to the living process");
        let now = self.now_of(&node);
        self.benches[shard].wakes_at = None;
        let take = self.benches[shard].inbox.len().min(INPUTS_PER_TURN_MAX);
        let inputs: Vec<Input> = self.benches[shard].inbox.drain(..take).collect();
        let was_idle = inputs.is_empty();
        let of_others = node.records_of_others(shard);
        let engine = &mut node.shards[shard];
        for input in inputs {
            let (flow, bytes) = match input {
                Input::Note(note) => {
                    engine.on_note(now, note);
                    continue;
                }
                Input::Answer(answer) => {
                    engine.on_command(Command::Resolved(answer));
                    continue;
                }
                Input::Report(report) => {
                    engine.on_report(now, report);
                    continue;
                }
                Input::Datagram(flow, bytes) => {
                    let owner = match engine.is_judging(now.mono) {
                        true => engine.owner_if_taken(now.mono, flow, &bytes),
                        false => Some(engine.owner_of(&bytes)),
                    };
                    match owner {
                        None => continue,
                        Some(Owner::Shard(owner)) if owner != shard => {
                            self.post(shard, owner, Input::HandedOver(flow, bytes));
                            continue;
                        }
                        Some(Owner::Shard(_) | Owner::Anyone) => {
                            engine.ahead().into_iter().for_each(|it| engine.ask_ahead(it));
                            (flow, bytes)
                        }
                    }
                }
                Input::HandedOver(flow, bytes) => (flow, bytes),
            };
            engine.on_datagram(now, flow, &bytes);
            self.happenings.push_back(Happening::ServerTook { from: flow.peer, bytes });
        }
        engine.on_turn_end(now);
        assert_eq!(engine.audit_all(), Findings::default(), "shard {shard} at {:?}", self.now);

        let sent: Vec<(Flow, Bytes)> = engine
            .outbox
            .messages()
            .iter()
            .map(|message| {
                let bytes = engine.outbox.parts(message, &engine.bodies).concat();
                (message.flow, bytes.into())
            })
            .collect();
        engine.outbox.clear(&mut engine.bodies);
        let notes = std::mem::take(&mut engine.notes);
        let reports = std::mem::take(&mut engine.reports);
        let lookups = std::mem::take(&mut engine.lookups);
        let deadline = engine.deadline();
        let born_at = node.born_at;
        assert_eq!(of_others, node.records_of_others(shard), "shard {shard} keeps to what it owns");

        if let (false, Some(crash)) = (sent.is_empty(), self.doom) {
            self.node = Some(node);
            self.happenings.extend(sent.into_iter().map(|(_, bytes)| Happening::DiedWith { bytes }));
            self.crash(crash);
            return;
        }
        self.node = Some(node);
        let was_idle = was_idle && sent.is_empty() && notes.is_empty() && reports.is_empty();
        for (to, note) in notes {
            self.post(shard, to, Input::Note(note));
        }
        for (to, report) in reports {
            self.post(shard, to, Input::Report(report));
        }
        for query in lookups {
            self.look_up(shard, query);
        }
        for (flow, bytes) in sent {
            if flow.transport.is_stream() {
                self.emit_by_connection(shard, flow, bytes);
            } else {
                self.emit(flow, bytes);
            }
        }

        let bench = &mut self.benches[shard];
        let deadline = deadline.map(|d| d.0.saturating_add(born_at));
        bench.idle_turns = match deadline {
            Some(at) if was_idle && at <= self.now => bench.idle_turns + 1,
            _ => 0,
        };
        assert!(
            bench.idle_turns < IDLE_TURNS_MAX,
            "shard {shard} asks to be called at once, for ever, and does nothing\n{}",
            self.story()
        );
        if !bench.inbox.is_empty() {
            self.wake(shard, self.now + TURN);
        }
        if let Some(at) = deadline {
            self.wake(shard, at.max(self.now + TURN));
        }
    }

    /// Gives a datagram of the server to the network.
    fn emit(&mut self, flow: Flow, bytes: Bytes) {
        let from = self.settings.listen[usize::from(flow.listener)].address;
        let to = flow.peer;
        self.tell(format!("server ─▶ {to}  {}", first_line(&bytes)));
        for delay in self.setup.network.fates(&mut self.chance) {
            let bytes = Arc::clone(&bytes);
            self.schedule(delay, Event::ArrivesAtPhone { from, to, bytes });
        }
        self.happenings.push_back(Happening::ServerSent { from, to, bytes });
    }

    /// Brings a message of a shard to whoever holds its connection.
    fn emit_by_connection(&mut self, shard: usize, flow: Flow, bytes: Bytes) {
        let from = self.settings.listen[usize::from(flow.listener)].address;
        self.tell(format!("server ═▶ {}  {}", flow.peer, first_line(&bytes)));
        self.happenings.push_back(Happening::ServerSent { from, to: flow.peer, bytes: Arc::clone(&bytes) });
        let holder = flow.connection.map_or(shard, ConnectionId::shard);
        if holder == shard {
            self.write_to_phone(shard, flow, bytes);
        } else {
            let delay = Duration::from_micros(self.below_duration(self.setup.bus_delay_max));
            let life = self.life;
            self.schedule(delay, Event::ToHolder { life, from: holder, flow, bytes });
        }
    }

    /// Writes a message into its connection, or tells its owner that it could not be written.
    fn write_to_phone(&mut self, holder: usize, flow: Flow, bytes: Bytes) {
        let wall = self.wall().0;
        let id = flow.connection.or_else(|| self.streams.dial(holder, wall, flow));
        let whole = id.filter(|&id| self.streams.get(id).is_some_and(|connection| connection.server_end));
        let Some(id) = whole else {
            self.tell(format!("unsent to {}  {}", flow.peer, first_line(&bytes)));
            if let Some(note @ Note::Unsent { partition, .. }) = Note::unsent(&bytes, false) {
                self.post(holder, usize::from(partition) % self.benches.len(), Input::Note(note));
            }
            return;
        };
        let delay = self.setup.network.stream_delay(&mut self.chance);
        let from = self.settings.listen[usize::from(flow.listener)].address;
        let now = self.now;
        let connection = self.streams.get_mut(id).expect("it is whole");
        let at = (now + micros(delay)).max(connection.last_out);
        connection.last_out = at;
        self.schedule(Duration::from_micros(at - now), Event::FromConnection { id, from, bytes });
    }

    /// Has the made-up DNS answer a shard.
    fn look_up(&mut self, shard: usize, query: Query) {
        self.tell(format!("server asks for {}", query.host));
        let known = self.names.get(&*query.host).cloned();
        let entry =
            known.unwrap_or(NameEntry { found: Vec::new(), after: Some(Duration::ZERO), ttl: NEGATIVE_TTL });
        if let Some(after) = entry.after {
            let answer = Answer { query, found: entry.found, ttl: entry.ttl };
            self.schedule(after, Event::OnBus { life: self.life, to: shard, input: Input::Answer(answer) });
        }
    }

    /// Puts a name into the made-up DNS; one that is not there is unknown.
    pub fn put_name(&mut self, host: &str, entry: NameEntry) {
        self.names.insert(host.to_owned(), entry);
    }

    /// Puts something on the bus.
    fn post(&mut self, from: usize, to: usize, input: Input) {
        assert!(to < self.benches.len(), "shard {from} writes to shard {to}, which does not exist");
        let at = self.now + self.below_duration(self.setup.bus_delay_max);
        let lane = self.lanes.entry((from, to, matches!(input, Input::Note(_)))).or_default();
        *lane = at.max(*lane);
        let delay = Duration::from_micros(*lane - self.now);
        self.schedule(delay, Event::OnBus { life: self.life, to, input });
    }

    /// Sees to it that a shard has a turn at `at` or before.
    fn wake(&mut self, shard: usize, at: u64) {
        let bench = &mut self.benches[shard];
        if bench.wakes_at.is_none_or(|earlier| at < earlier) {
            bench.wakes_at = Some(at);
            let delay = Duration::from_micros(at - self.now);
            self.schedule(delay, Event::Turn { life: self.life, shard });
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.next_event += 1;
        self.queue.insert((self.now + micros(delay), self.next_event), event);
    }

    /// Starts a process on the files.
    fn boot(&mut self, shards: usize) {
        let wall = self.wall();
        let (dir, at) = (self.dir.path(), self.now());
        let mut disk = None;
        let recovered = || {
            disk = Some(Disk::synced(dir, at)?);
            Ok(())
        };
        let node = match Node::open(dir, &self.settings, shards, &mut self.chance, self.now, wall, recovered)
        {
            Ok(node) => node,
            Err(error) if self.may_refuse_files => {
                self.happenings.push_back(Happening::Refused { why: format!("{error:#}") });
                return;
            }
            Err(error) => panic!("the server does not start: {error:#}\n{}", self.story()),
        };
        self.dropped += node.dropped;
        if node.dropped != 0 {
            self.tell(format!("{} damaged records and extents are dropped", node.dropped));
        }
        self.disk = disk;
        self.node = Some(node);
        self.benches = (0..shards).map(|_| Bench::default()).collect();
        for shard in 0..shards {
            self.wake(shard, self.now);
        }
    }

    fn below_duration(&mut self, max: Duration) -> u64 {
        match u32::try_from(max.as_micros()).unwrap_or(u32::MAX) {
            0 => 0,
            bound => u64::from(self.chance.below(bound)),
        }
    }

    fn tell(&mut self, line: String) {
        if self.story.len() == self.story_len_max {
            self.story.pop_front();
        }
        let now = self.now;
        self.story.push_back(format!("{:>5}.{:06}  {line}", now / 1_000_000, now % 1_000_000));
    }
}

/// The shard whose socket the kernel picks for a peer: always the same one.
fn socket_of(peer: SocketAddr, shards: usize) -> usize {
    let ip = match peer.ip() {
        std::net::IpAddr::V4(ip) => u32::from(ip),
        std::net::IpAddr::V6(ip) => (u128::from(ip) & 0xffff_ffff) as u32,
    };
    let mixed = (u64::from(ip) << 16 | u64::from(peer.port())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % shards
}

/// The first line of a message and what tells messages apart, for the story.
fn first_line(bytes: &[u8]) -> String {
    match sip_text::SipText::read(bytes) {
        Some(message) => {
            let of = |name| message.header(name).unwrap_or("-").to_owned();
            let state = message.header("Subscription-State").map(|s| format!("  [{s}]")).unwrap_or_default();
            let expires = message.header("Expires").or_else(|| message.param("Contact", "expires"));
            let expires = expires.map(|seconds| format!("  {seconds} s")).unwrap_or_default();
            let marks: String = message.elements("note").iter().map(|mark| format!("  {mark}")).collect();
            format!("{}  ({}, CSeq {}){expires}{state}{marks}", message.start, of("Call-ID"), of("CSeq"))
        }
        None => format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)])),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).expect("a test does not run for ages")
}

/// 2027-01-15T08:00:00Z, in milliseconds.
const WALL_AT_START: u64 = 1_800_000_000_000;

/// Time one turn takes, in microseconds, so that a shard that always has work does not stop the clock.
const TURN: u64 = 10;

/// Most inputs of one turn, as in the event loop.
const INPUTS_PER_TURN_MAX: usize = 64;

/// Idle turns in a row after which a shard is said to spin.
const IDLE_TURNS_MAX: u32 = 1000;

/// How many messages a failure's report shows.
const STORY_LEN_MAX: usize = 200;

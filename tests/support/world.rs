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
mod fate;
mod happening;
mod network;
mod node;
mod phones;
mod sending;
pub mod sip_text;
mod streams;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use comsipl_core::overload::{Measured, WHOLE};
use comsipl_core::{Aor, Chance, ConnectionId, Flow, Listen, Mono, Now, Transport, UnixMillis};
use comsipl_shards::resolve::Found;
use comsipl_shards::settings::{OverloadSettings, Settings};
use comsipl_shards::users::Outcome;

use disk::Disk;
pub use fate::{Crash, Power};
pub use happening::Happening;
pub use network::Network;
use node::Node;
pub use node::{RecordsInUse, Secret};
use streams::Streams;
use turn::{Bench, Input, TURN};

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
    /// How long a turn takes.
    turn_takes: u64,
    /// Set: the next turn that wants to send ends the process instead.
    doom: Option<Crash>,
    story: VecDeque<String>,
    story_len_max: usize,
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
            turn_takes: TURN,
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

    /// From now on each turn takes so long, until the process ends: it began with what it does then, and does nothing more meanwhile.
    pub fn set_turn(&mut self, takes: Duration) {
        self.turn_takes = micros(takes);
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

    /// Puts a name into the made-up DNS; one that is not there is unknown.
    pub fn put_name(&mut self, host: &str, entry: NameEntry) {
        self.names.insert(host.to_owned(), entry);
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.next_event += 1;
        self.queue.insert((self.now + micros(delay), self.next_event), event);
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

/// How many messages a failure's report shows.
const STORY_LEN_MAX: usize = 200;

//! A node: the files, the sockets and the threads of one server, from start to stop.
//!
//! Threads: one for each shard; one that syncs the files; one that serves the control socket; one that looks up names; and the caller's, which waits
//! in [`Running::wait`], sums up the traffic and stops the others. If one of them fails, all stop and the node ends with an
//! error: a node that is half alive would take in what nobody answers. Only the control socket and the resolver may be missing.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use comsipl_core::{HashKey, PARTITIONS};
use comsipl_fdb::{OpenError, OpenFault};
use crossbeam::utils::CachePadded;
use mio::{Poll, Waker};
use rustix::thread::CpuSet;

use crate::access::Gate;
use crate::bus::{self, Wake};
use crate::clock::Clock;
use crate::config;
use crate::control::{self, Control, Instruments, Office};
use crate::event_loop::{Stop, WAKER};
use crate::mailbox::Mailbox;
use crate::metrics::NetCounters;
use crate::net::bind::{self, BoundListener, bind};
use crate::net::stream::admission::Admission;
use crate::net::stream::bind::{BoundStreams, adopt_streams, bind_streams};
use crate::net::stream::hand_over::Carried;
use crate::net::stream::layer::LayerSettings;
use crate::overload::Levels;
use crate::resolve::thread::Resolver;
use crate::restart::inherited::{GivenUp, Inherited, ListeningSocket, renumber, take_for};
use crate::restart::service_manager;
use crate::restart::successor::Succession;
use crate::settings::{Listen, Settings};
use crate::shard::ShardStart;
use crate::tls::{Tls, TlsWatch};

mod descriptors;
use descriptors::connections_max;
mod error;
pub use error::{NodeFailure, StartError};
mod files;
pub use files::{Coming, NodeFiles, Recovered, open_registered};
mod heartbeats;
pub use heartbeats::Heartbeats;
mod running;
pub(crate) use running::Event;
pub use running::{Ended, Reloader, Running, Stopper};
mod sample;
mod shard_thread;
use shard_thread::{ShardThread, Sockets, Threshold};
mod syncing;
use syncing::Syncing;
#[cfg(test)]
mod tests;

/// A node that has all it needs but its files, which another process may have still.
pub struct Prepared {
    settings: Arc<Settings>,
    shards: usize,
    cpus: Vec<usize>,
    listeners: Vec<Bound>,
    /// The numbers and addresses of listeners in the process that had the sockets before.
    earlier: Vec<(u8, Listen)>,
    /// Sockets of that process that nobody will read any more.
    left: Vec<ListeningSocket>,
    connections_max: usize,
    tls: Option<Arc<Tls>>,
    clock: Clock,
}

/// A node whose files are open and whose sockets are bound, but which does not work yet.
pub struct Node {
    parts: Prepared,
    files: NodeFiles,
    given_up: GivenUp,
    is_successor: bool,
}

/// The sockets of a listener.
enum Bound {
    Datagrams(BoundListener),
    Streams(BoundStreams),
}

impl Bound {
    /// Binds `shards` sockets to the address of `listen`.
    fn to(listen: Listen, shards: usize, settings: &Settings) -> std::io::Result<Self> {
        if !listen.transport.is_stream() {
            return bind(listen.address, shards, settings.socket_buffer).map(Self::Datagrams);
        }
        bind_streams(listen, shards).map(Self::Streams)
    }

    /// Goes on with sockets that another process bound, of which there is one at least.
    fn adopt(
        sockets: Vec<ListeningSocket>,
        listen: Listen,
        shards: usize,
        settings: &Settings,
    ) -> std::io::Result<Self> {
        if !listen.transport.is_stream() {
            let sockets = sockets.into_iter().map(|it| it.socket.into()).collect();
            return bind::adopt(sockets, shards, settings.socket_buffer).map(Self::Datagrams);
        }
        let sockets = sockets.into_iter().map(|it| it.socket.into()).collect();
        adopt_streams(listen, sockets, shards).map(Self::Streams)
    }

    /// The sockets by other descriptors.
    fn try_clone(&self, listener: u8) -> std::io::Result<Vec<ListeningSocket>> {
        let descriptors: Vec<_> = match self {
            Self::Datagrams(bound) => bound.sockets.iter().map(AsFd::as_fd).collect(),
            Self::Streams(bound) => bound.sockets.iter().map(AsFd::as_fd).collect(),
        };
        let listen = self.listen();
        let clones = descriptors.into_iter().enumerate().map(|(shard, socket)| {
            Ok(ListeningSocket { listener, listen, shard, socket: socket.try_clone_to_owned()? })
        });
        clones.collect()
    }

    /// The address, with the port the kernel chose.
    fn listen(&self) -> Listen {
        match self {
            Self::Datagrams(bound) => Listen::udp(bound.address),
            Self::Streams(bound) => bound.listen,
        }
    }
}

impl Prepared {
    /// Reads certificates and binds the sockets of all shards, but for those that another process bound to the same addresses.
    ///
    /// # Errors
    /// [`StartError`] says what stands in the way.
    pub fn new(settings: Settings, sockets: Vec<ListeningSocket>) -> Result<Self, StartError> {
        config::check_exposure(&settings)?;
        let cpus = usable_cpus().map_err(StartError::Threads)?;
        let shards = shards_of(&settings);
        let clock = Clock::start();
        let tls = Tls::open(&settings)?.map(Arc::new);
        let mut earlier: Vec<_> = sockets.iter().map(|it| (it.listener, it.listen)).collect();
        earlier.dedup();
        let mut sockets = sockets;
        let listeners = settings
            .listen
            .iter()
            .map(|&listen| {
                let inherited = take_for(listen, &settings.listen, &mut sockets);
                let bound = match inherited.first().map(|it| it.listen) {
                    Some(listen) => Bound::adopt(inherited, listen, shards, &settings),
                    None => Bound::to(listen, shards, &settings),
                };
                bound.map_err(|source| StartError::Listen { listen, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let connections_max = connections_max(&settings, shards);
        let settings = Arc::new(settings);
        for socket in &sockets {
            tracing::warn!(listen = %socket.listen, shard = socket.shard, "was listened on before and is not any more");
        }
        let left = sockets;
        Ok(Self { settings, shards, cpus, listeners, earlier, left, connections_max, tls, clock })
    }

    /// Looks whether the files can be opened, as far as that can be told while another process has them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn look_at_files(&self) -> Result<(), StartError> {
        files::look(&self.settings)
    }

    /// Opens the files, which nobody else may have after `patience`, and goes on with what was given up by who had them.
    ///
    /// # Errors
    /// What is wrong with the data directory or a file.
    pub fn open_files(self, given_up: GivenUp, patience: Duration) -> Result<Node, StartError> {
        let give_up = Instant::now() + patience;
        let coming = if given_up.files_synced { Coming::HandedOver } else { Coming::Alone };
        let files = loop {
            match NodeFiles::open(&self.settings, self.shards, coming) {
                Err(StartError::File(OpenError { fault: OpenFault::Locked, .. }))
                    if Instant::now() < give_up =>
                {
                    std::thread::sleep(LOCKED_PAUSE);
                }
                result => break result?,
            }
        };
        let addresses: Vec<_> = self.listeners.iter().map(Bound::listen).collect();
        let mut given_up = given_up;
        given_up.connections = renumber(given_up.connections, &self.earlier, &addresses);
        Ok(Node { parts: self, files, given_up, is_successor: !patience.is_zero() })
    }
}

/// How many shards a node with these settings has.
#[must_use]
pub fn shards_of(settings: &Settings) -> usize {
    let parallelism = || std::thread::available_parallelism().map_or(1, usize::from);
    settings.shards.unwrap_or_else(parallelism).clamp(1, PARTITIONS)
}

impl Node {
    /// Opens the files and binds the sockets of all shards.
    ///
    /// # Errors
    /// [`StartError`] says what stands in the way; nothing is left behind but the data directory.
    pub fn open(settings: Settings) -> Result<Self, StartError> {
        Self::go_on(settings, Inherited::default())
    }

    /// The same with sockets and connections of a node that served before.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn go_on(settings: Settings, inherited: Inherited) -> Result<Self, StartError> {
        // Sockets come before the files, because recovering these may take long, and an address in use is the likelier mistake.
        Prepared::new(settings, inherited.sockets)?.open_files(inherited.given_up, Duration::ZERO)
    }

    /// The addresses listened on, with the ports the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        self.parts.listeners.iter().map(Bound::listen).collect()
    }

    /// Whether another process had the files a moment before.
    #[must_use]
    pub const fn is_successor(&self) -> bool {
        self.is_successor
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.parts.shards
    }

    /// Whether each shard will stay on a core of its own: wanted, and exactly one shard for each core. Fewer shards are
    /// left to the scheduler, which knows what else runs on the machine.
    #[must_use]
    pub fn pinned(&self) -> bool {
        self.parts.settings.pin && self.parts.shards == self.parts.cpus.len()
    }

    /// The smallest receive buffer that the kernel granted to a socket for datagrams, in bytes; `None`: there is none.
    #[must_use]
    pub fn recv_buffer(&self) -> Option<usize> {
        let granted = |bound: &Bound| match bound {
            Bound::Datagrams(bound) => Some(bound.recv_buffer),
            Bound::Streams(_) => None,
        };
        self.parts.listeners.iter().filter_map(granted).min()
    }

    /// How many connections there may be; fewer than set where the system has no descriptors for them.
    #[must_use]
    pub const fn connections_max(&self) -> usize {
        self.parts.connections_max
    }

    /// What was found in the files.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        self.files.recovered()
    }

    /// Starts the threads and returns when all shards take datagrams.
    ///
    /// # Errors
    /// [`StartError`]; then no thread is left.
    pub fn start(self) -> Result<Running, StartError> {
        self.start_if(|| Ok(()))
    }

    /// The same, but asks `commit` first: when everything is recovered and nothing is read or written on a socket yet.
    ///
    /// # Errors
    /// What `commit` says, too.
    pub fn start_if(
        mut self,
        commit: impl FnOnce() -> Result<(), StartError>,
    ) -> Result<Running, StartError> {
        let mut kept = Vec::new();
        for (listener, bound) in (0..).zip(&self.parts.listeners) {
            kept.extend(bound.try_clone(listener).map_err(StartError::Threads)?);
        }
        let kept = Arc::new(kept);
        let threshold = Arc::new(Threshold::default());
        let mut connections: Vec<_> = self.given_up.connections.iter().map(|it| it.id).collect();
        connections.sort_unstable();
        let connections: Arc<[_]> = connections.into();
        let mut carried_of: Vec<Vec<Carried>> = (0..self.shards()).map(|_| Vec::new()).collect();
        for carried in std::mem::take(&mut self.given_up.connections) {
            // A name says which shard holds the connection, so with fewer shards some are held by none.
            if let Some(of_shard) = carried_of.get_mut(carried.id.shard()) {
                of_shard.push(carried);
            }
        }
        let addresses = self.addresses();
        let pinned = self.pinned();
        let polls = (0..self.parts.shards).map(|_| Poll::new()).collect::<Result<Vec<_>, _>>();
        let polls = polls.map_err(StartError::Threads)?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKER).map(Arc::new));
        let wakers = wakers.collect::<Result<Vec<_>, _>>().map_err(StartError::Threads)?;
        let bus_wakers: Vec<_> = wakers.iter().map(|it| Arc::clone(it) as Arc<dyn Wake>).collect();
        let mailboxes: Vec<_> = bus_wakers.iter().map(|it| Arc::new(Mailbox::new(Arc::clone(it)))).collect();
        let stop = Arc::new(Stop::default());
        let keys = HashKey(self.files.hash_key());
        let nonces = self.given_up.nonces.as_ref();
        let now = self.parts.clock.mono();
        let gate = Arc::new(Gate::go_on(&self.parts.settings, keys, random_seed()?, nonces, now));
        let levels = Arc::new(Levels::new(self.parts.shards, self.parts.clock.now().wall));
        let (events, inbox) = channel();
        let mut sockets_of: Vec<Sockets> = (0..self.parts.shards).map(|_| Sockets::default()).collect();
        for (listener, bound) in (0..).zip(self.parts.listeners) {
            match bound {
                Bound::Datagrams(bound) => {
                    for (sockets, socket) in sockets_of.iter_mut().zip(bound.sockets) {
                        sockets.datagrams.push((listener, socket));
                    }
                }
                Bound::Streams(bound) => {
                    for (sockets, socket) in sockets_of.iter_mut().zip(bound.sockets) {
                        sockets.streams.push((listener, socket));
                    }
                }
            }
        }
        let per_source_max = self.parts.settings.streams.connections_per_source_max;
        let admission = Arc::new(Admission::new(self.parts.connections_max, per_source_max));
        let layers = LayerSettings {
            tls: self.parts.tls.clone(),
            origins: self.parts.settings.web_socket.origins.clone().into(),
        };
        let ways = addresses.iter().map(|listen| listen.transport).collect();
        let resolver = Resolver::start(&self.parts.settings.resolver, ways, mailboxes.clone());
        let resolver = resolver.inspect_err(|error| {
            tracing::warn!(%error, "names are not looked up: watchers are told where they came from");
        });
        let resolver = resolver.ok();
        let mut running = Running {
            addresses: addresses.clone(),
            tls: self.parts.tls.map(TlsWatch::new),
            wakers,
            stop: Arc::clone(&stop),
            events: events.clone(),
            inbox,
            counters: Vec::new(),
            engines: Vec::new(),
            thread_ids: Vec::new(),
            threads: Vec::new(),
            syncing: None,
            control: None,
            resolver: None,
            ended: 0,
            stop_asked: false,
            failure: None,
            files: None,
            threshold: Arc::clone(&threshold),
            kept: Arc::clone(&kept),
            gate: Arc::clone(&gate),
            clock: self.parts.clock,
            given_up: GivenUp::default(),
            recovery_max: self.parts.settings.recovery_max,
            successor: None,
        };
        let starts =
            polls.into_iter().zip(sockets_of).zip(bus::join(&bus_wakers)).zip(carried_of).enumerate();
        for (index, (((poll, sockets), bus), carried)) in starts {
            let counters = Arc::new(CachePadded::new(NetCounters::default()));
            running.counters.push(Arc::clone(&counters));
            let thread = ShardThread {
                index,
                shards: self.parts.shards,
                cpu: pinned.then(|| self.parts.cpus[index]),
                start: ShardStart {
                    index,
                    shards: self.parts.shards,
                    settings: Arc::clone(&self.parts.settings),
                    files: self.files.take_shard().expect("dealt out to as many shards"),
                    listeners: addresses.clone(),
                    seed: random_seed()?,
                    gate: Arc::clone(&gate),
                    levels: Arc::clone(&levels),
                    start: self.files.recovered().start,
                    last_alive_ms: self.files.recovered().presence.last_heartbeat_ms,
                    owes_all: self.files.recovered().may_lack_something(),
                    connections: Arc::clone(&connections),
                },
                poll,
                sockets,
                listeners: addresses.clone(),
                admission: Arc::clone(&admission),
                layers: layers.clone(),
                carried,
                threshold: Arc::clone(&threshold),
                bus,
                mailbox: Arc::clone(&mailboxes[index]),
                lookups: resolver.as_ref().map(Resolver::lookups),
                clock: self.parts.clock,
                counters,
                stop: Arc::clone(&stop),
                events: events.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || thread.run())
                .map_err(StartError::Threads)?;
            running.threads.push(thread);
        }
        let files = Arc::new(self.files);
        running.syncing = Some(
            Syncing::start(
                Arc::clone(&files),
                Arc::clone(&threshold),
                self.parts.settings.sync_interval,
                events.clone(),
            )
            .map_err(StartError::Threads)?,
        );
        running.files = Some(files);
        running.resolver = resolver;
        running.wait_ready()?;
        // Shards wait at the threshold; without this they never cross it.
        commit()?;
        self.parts.left.iter().for_each(service_manager::forget);
        threshold.open();
        let instruments = Instruments {
            since: Instant::now(),
            net: running.counters.clone(),
            engines: running.engines.clone(),
        };
        let realm = self.parts.settings.access.realm.clone();
        let succession = Some(Succession::new(self.parts.shards, kept, events));
        let office = Office { mailboxes, keys, realm, succession, instruments };
        running.control = open_control(&self.parts.settings, office);
        Ok(running)
    }
}

/// Opens the control socket. A node without one serves as well, so it is no reason not to start.
fn open_control(settings: &Settings, office: Office) -> Option<Control> {
    let path = settings.data_dir.join(control::SOCKET_NAME);
    match Control::start(&path, office) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!(
                %error,
                path = %path.display(),
                "there is no control socket: users cannot be changed while this server runs; a shorter data_dir may help"
            );
            None
        }
    }
}

/// How long to wait between two looks whether the files are still locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(1);

/// The cores that this process may run on.
fn usable_cpus() -> std::io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// A seed from the system.
fn random_seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StartError::Random(error.into()))?;
    Ok(seed)
}

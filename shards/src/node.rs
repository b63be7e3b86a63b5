//! A node: the files, the sockets and the threads of one server, from start to stop.
//!
//! Threads: one for each shard; one that syncs the files; one that serves the control socket; one that looks up names; and the caller's, which waits
//! in [`Running::wait`], sums up the traffic and stops the others. If one of them fails, all stop and the node ends with an
//! error: a node that is half alive would take in what nobody answers. Only the control socket and the resolver may be missing.

use std::sync::Arc;
use std::sync::mpsc::channel;

use comsipl_core::{HashKey, PARTITIONS};
use crossbeam::utils::CachePadded;
use mio::{Poll, Waker};
use rustix::thread::CpuSet;

use crate::access::Gate;
use crate::bus::{self, Wake};
use crate::clock::Clock;
use crate::config;
use crate::control::{self, Control, Office};
use crate::event_loop::{Stop, WAKER};
use crate::mailbox::Mailbox;
use crate::metrics::NetCounters;
use crate::net::bind::{BoundListener, bind};
use crate::net::stream::admission::Admission;
use crate::net::stream::bind::{BoundStreams, bind_streams};
use crate::net::stream::layer::LayerSettings;
use crate::resolve::thread::Resolver;
use crate::settings::{Listen, Settings};
use crate::shard::ShardStart;
use crate::tls::{Tls, TlsWatch};

mod descriptors;
use descriptors::connections_max;
mod error;
pub use error::{NodeFailure, StartError};
mod files;
pub use files::{NodeFiles, Recovered, open_registered};
mod running;
pub use running::{Reloader, Running, Stopper};
mod sample;
mod shard_thread;
use shard_thread::{ShardThread, Sockets};
mod syncing;
use syncing::Syncing;
#[cfg(test)]
mod tests;

/// A node whose files are open and whose sockets are bound, but which does not work yet.
pub struct Node {
    settings: Arc<Settings>,
    shards: usize,
    cpus: Vec<usize>,
    listeners: Vec<Bound>,
    connections_max: usize,
    tls: Option<Arc<Tls>>,
    files: NodeFiles,
    clock: Clock,
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

    /// The address, with the port the kernel chose.
    fn listen(&self) -> Listen {
        match self {
            Self::Datagrams(bound) => Listen::udp(bound.address),
            Self::Streams(bound) => bound.listen,
        }
    }
}

impl Node {
    /// Opens the files and binds the sockets of all shards.
    ///
    /// # Errors
    /// [`StartError`] says what stands in the way; nothing is left behind but the data directory.
    pub fn open(settings: Settings) -> Result<Self, StartError> {
        config::check_exposure(&settings)?;
        let cpus = usable_cpus().map_err(StartError::Threads)?;
        let parallelism = std::thread::available_parallelism().map_or(cpus.len(), usize::from);
        let shards = settings.shards.unwrap_or(parallelism).clamp(1, PARTITIONS);
        let clock = Clock::start();
        let tls = Tls::open(&settings)?.map(Arc::new);
        // Before the files, because recovering them may take long, and an address in use is the likelier mistake.
        let listeners = settings
            .listen
            .iter()
            .map(|&listen| {
                Bound::to(listen, shards, &settings).map_err(|source| StartError::Listen { listen, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let connections_max = connections_max(&settings, shards);
        let files = NodeFiles::open(&settings, shards)?;
        Ok(Self { settings: Arc::new(settings), shards, cpus, listeners, connections_max, tls, files, clock })
    }

    /// The addresses listened on, with the ports the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        self.listeners.iter().map(Bound::listen).collect()
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.shards
    }

    /// Whether each shard will stay on a core of its own: wanted, and exactly one shard for each core. Fewer shards are
    /// left to the scheduler, which knows what else runs on the machine.
    #[must_use]
    pub fn pinned(&self) -> bool {
        self.settings.pin && self.shards == self.cpus.len()
    }

    /// The smallest receive buffer that the kernel granted to a socket for datagrams, in bytes; `None`: there is none.
    #[must_use]
    pub fn recv_buffer(&self) -> Option<usize> {
        let granted = |bound: &Bound| match bound {
            Bound::Datagrams(bound) => Some(bound.recv_buffer),
            Bound::Streams(_) => None,
        };
        self.listeners.iter().filter_map(granted).min()
    }

    /// How many connections there may be; fewer than set where the system has no descriptors for them.
    #[must_use]
    pub const fn connections_max(&self) -> usize {
        self.connections_max
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
    pub fn start(mut self) -> Result<Running, StartError> {
        let addresses = self.addresses();
        let pinned = self.pinned();
        let polls = (0..self.shards).map(|_| Poll::new()).collect::<Result<Vec<_>, _>>();
        let polls = polls.map_err(StartError::Threads)?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKER).map(Arc::new));
        let wakers = wakers.collect::<Result<Vec<_>, _>>().map_err(StartError::Threads)?;
        let bus_wakers: Vec<_> = wakers.iter().map(|it| Arc::clone(it) as Arc<dyn Wake>).collect();
        let mailboxes: Vec<_> = bus_wakers.iter().map(|it| Arc::new(Mailbox::new(Arc::clone(it)))).collect();
        let stop = Arc::new(Stop::default());
        let keys = HashKey(self.files.hash_key());
        let gate = Arc::new(Gate::new(&self.settings, keys, random_seed()?));
        let (events, inbox) = channel();
        let mut sockets_of: Vec<Sockets> = (0..self.shards).map(|_| Sockets::default()).collect();
        for (listener, bound) in (0..).zip(self.listeners) {
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
        let per_source_max = self.settings.streams.connections_per_source_max;
        let admission = Arc::new(Admission::new(self.connections_max, per_source_max));
        let layers =
            LayerSettings { tls: self.tls.clone(), origins: self.settings.web_socket.origins.clone().into() };
        let ways = addresses.iter().map(|listen| listen.transport).collect();
        let resolver = Resolver::start(&self.settings.resolver, ways, mailboxes.clone());
        let resolver = resolver.inspect_err(|error| {
            tracing::warn!(%error, "names are not looked up: watchers are told where they came from");
        });
        let resolver = resolver.ok();
        let mut running = Running {
            addresses: addresses.clone(),
            tls: self.tls.map(TlsWatch::new),
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
        };
        let starts = polls.into_iter().zip(sockets_of).zip(bus::join(&bus_wakers)).enumerate();
        for (index, ((poll, sockets), bus)) in starts {
            let counters = Arc::new(CachePadded::new(NetCounters::default()));
            running.counters.push(Arc::clone(&counters));
            let thread = ShardThread {
                index,
                shards: self.shards,
                cpu: pinned.then(|| self.cpus[index]),
                start: ShardStart {
                    index,
                    shards: self.shards,
                    settings: Arc::clone(&self.settings),
                    files: self.files.take_shard().expect("dealt out to as many shards"),
                    listeners: addresses.clone(),
                    seed: random_seed()?,
                    gate: Arc::clone(&gate),
                    last_alive_ms: self.files.recovered().presence.last_heartbeat_ms,
                },
                poll,
                sockets,
                listeners: addresses.clone(),
                admission: Arc::clone(&admission),
                layers: layers.clone(),
                bus,
                mailbox: Arc::clone(&mailboxes[index]),
                lookups: resolver.as_ref().map(Resolver::lookups),
                clock: self.clock,
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
            Syncing::start(Arc::clone(&files), self.settings.sync_interval, events)
                .map_err(StartError::Threads)?,
        );
        running.files = Some(files);
        running.resolver = resolver;
        running.wait_ready()?;
        running.control = open_control(
            &self.settings,
            Office { mailboxes, keys, realm: self.settings.access.realm.clone() },
        );
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

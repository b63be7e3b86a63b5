//! A node: the files, the sockets and the threads of one server, from start to stop.
//!
//! Threads: one for each shard; one that syncs the files; one that serves the control socket; one that looks up names; and the caller's, which waits
//! in [`Running::wait`], sums up the traffic and stops the others. If one of them fails, all stop and the node ends with an
//! error: a node that is half alive would take in what nobody answers. Only the control socket and the resolver may be missing.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use comsipl_core::{HashKey, PARTITIONS};
use crossbeam::utils::CachePadded;
use mio::{Poll, Waker};
use rustix::thread::{CpuSet, Pid};

use crate::access;
use crate::bus::{self, BusEnd, Wake};
use crate::clock::Clock;
use crate::config;
use crate::control::{self, Control, Office};
use crate::counters::Counters;
use crate::event_loop::{EventLoop, Parts, Stop, WAKER};
use crate::mailbox::Mailbox;
use crate::metrics::{self, NetCounters, NetFigures};
use crate::net::bind::{BoundListener, bind};
use crate::net::stream::admission::Admission;
use crate::net::stream::bind::{BoundStreams, bind_streams};
use crate::net::stream::layer::LayerSettings;
use crate::resolve::thread::{Lookups, Resolver};
use crate::settings::{Listen, Settings};
use crate::shard::{Shard, ShardStart};
use crate::tls::{Tls, TlsWatch};

mod descriptors;
use descriptors::connections_max;
mod error;
pub use error::{NodeFailure, StartError};
mod files;
pub use files::{NodeFiles, Recovered, open_registered};

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
        let nonces = access::nonces(&self.settings, keys, random_seed()?);
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
                    nonces: nonces.clone(),
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

/// A node at work. Dropping it stops it.
pub struct Running {
    addresses: Vec<Listen>,
    /// Certificates that may change.
    tls: Option<TlsWatch>,
    wakers: Vec<Arc<Waker>>,
    stop: Arc<Stop>,
    events: Sender<Event>,
    inbox: Receiver<Event>,
    counters: Vec<Arc<CachePadded<NetCounters>>>,
    engines: Vec<Arc<Counters>>,
    /// The kernel's numbers of the shards' threads, in no order.
    thread_ids: Vec<Pid>,
    threads: Vec<JoinHandle<()>>,
    syncing: Option<Syncing>,
    /// The socket for the operator's tools; the server works without it, too.
    control: Option<Control>,
    /// The thread that looks up names; the server works without it, too.
    resolver: Option<Resolver>,
    /// How many shards have ended.
    ended: usize,
    /// Whether somebody wants us to stop.
    stop_asked: bool,
    /// The first failure.
    failure: Option<NodeFailure>,
    /// Open until the end.
    files: Option<Arc<NodeFiles>>,
}

impl Running {
    /// The addresses listened on, with the ports the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// Counters of the shards' sockets and of the bus, in the order of the shards.
    #[must_use]
    pub fn counters(&self) -> &[Arc<CachePadded<NetCounters>>] {
        &self.counters
    }

    /// Counters of the shards' engines, in no order.
    #[must_use]
    pub fn engine_counters(&self) -> &[Arc<Counters>] {
        &self.engines
    }

    /// Something to stop the node with, from any thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.events.clone())
    }

    /// Something to have certificates read again with, from any thread.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader(self.events.clone())
    }

    /// Waits until the node is stopped, sums up its traffic in the log meanwhile, then brings everything to an end:
    /// answers under way are sent, the files are synced and closed.
    ///
    /// # Errors
    /// The failure that ended the node, or came up while it was ending.
    pub fn wait(mut self) -> Result<(), NodeFailure> {
        let mut last = Sample::of(&self);
        let mut looked = last.at;
        while !self.stop_asked && self.failure.is_none() {
            let until_summary = SUMMARY_EVERY.saturating_sub(last.at.elapsed());
            let until_look = TlsWatch::EVERY.saturating_sub(looked.elapsed());
            let wait = if self.tls.is_some() { until_summary.min(until_look) } else { until_summary };
            match self.inbox.recv_timeout(wait) {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if let Some(tls) = &mut self.tls
                && looked.elapsed() >= TlsWatch::EVERY
            {
                looked = Instant::now();
                tls.look();
            }
            if last.at.elapsed() >= SUMMARY_EVERY {
                let now = Sample::of(&self);
                if let Some(summary) = now.summary(&last) {
                    tracing::info!("traffic: {summary}");
                }
                last = now;
            }
        }
        self.shut_down();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Stops the node and waits until it has ended.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn stop(mut self) -> Result<(), NodeFailure> {
        self.stop_asked = true;
        self.wait()
    }

    /// Waits until all shards are ready.
    fn wait_ready(&mut self) -> Result<(), StartError> {
        let mut ready = 0;
        while ready < self.threads.len() {
            let event = self.inbox.recv().expect("we hold a sender ourselves");
            ready += usize::from(matches!(event, Event::ShardReady { .. }));
            self.take(event);
            if let Some(failure) = self.failure.take() {
                self.shut_down();
                return Err(StartError::Shard(failure));
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::ShardReady { engine, thread } => {
                self.engines.push(engine);
                self.thread_ids.push(thread);
            }
            Event::StopAsked => self.stop_asked = true,
            Event::ReloadAsked => match &mut self.tls {
                Some(tls) => tls.reload(),
                None => tracing::info!("asked to read certificates again, but there are none"),
            },
            Event::ShardEnded { index, end } => {
                self.ended += 1;
                let failure = match end {
                    End::Regular if self.stop.is_asked() => return,
                    End::Regular => NodeFailure::ShardLeft { index },
                    End::Failed(source) => NodeFailure::ShardFailed { index, source },
                    End::Panicked(message) => NodeFailure::ShardPanicked { index, message },
                };
                self.fail(failure);
            }
            Event::SyncingPanicked(message) => self.fail(NodeFailure::SyncingPanicked { message }),
        }
    }

    /// Keeps the first failure, which is the cause of the later ones.
    fn fail(&mut self, failure: NodeFailure) {
        tracing::error!("{failure}");
        self.failure.get_or_insert(failure);
    }

    /// Stops all threads, then syncs and closes the files.
    fn shut_down(&mut self) {
        let Some(files) = self.files.take() else { return };
        drop(self.control.take());
        drop(self.resolver.take());
        self.stop.ask();
        for waker in &self.wakers {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "a shard could not be woken to stop");
            }
        }
        let give_up = Instant::now() + STOP_SPAN;
        while self.ended < self.threads.len() {
            match self.inbox.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(event) => self.take(event),
                Err(_) => {
                    self.fail(NodeFailure::StopTimedOut);
                    break;
                }
            }
        }
        if self.ended == self.threads.len() {
            for thread in self.threads.drain(..) {
                // Panics are caught within the thread and reported as its end.
                let _ = thread.join();
            }
        }
        drop(self.syncing.take());
        // With a shard still at work, or after one has panicked in the middle of a change, the files are safe but not
        // to be called cleanly closed.
        files.heartbeat(Clock::wall());
        let closed = if self.failure.is_none() { files.close() } else { files.sync() };
        if let Err(source) = closed {
            self.fail(NodeFailure::Files { source });
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// All counters of all shards together at one moment.
struct Sample {
    at: Instant,
    net: NetFigures,
    engine: Vec<(&'static str, u64)>,
    /// How long all shards together were ready to run and had no processor.
    without_processor: Duration,
}

impl Sample {
    fn of(running: &Running) -> Self {
        let net = running.counters.iter().fold(NetFigures::default(), |sum, it| sum.plus(it.snapshot()));
        let mut engine: Vec<(&'static str, u64)> = Vec::new();
        for counters in &running.engines {
            if engine.is_empty() {
                engine = counters.each().collect();
            } else {
                for (sum, (_, value)) in engine.iter_mut().zip(counters.each()) {
                    sum.1 = sum.1.wrapping_add(value);
                }
            }
        }
        let without_processor = running.thread_ids.iter().map(|&it| without_processor(it)).sum();
        Self { at: Instant::now(), net, engine, without_processor }
    }

    /// The line for operators; `None` if nothing came or went since `earlier`.
    fn summary(&self, earlier: &Self) -> Option<String> {
        let growth = self.net.since(earlier.net);
        if !growth.has_traffic() {
            return None;
        }
        let span = self.at - earlier.at;
        let mut line = growth.summary(span);
        match self.net.connections_open() {
            0 => {}
            open => line.push_str(&format!(", connections {open}")),
        }
        let kept_waiting = self.without_processor.saturating_sub(earlier.without_processor);
        if kept_waiting >= span / KEPT_WAITING_SHARE {
            line.push_str(&format!(", shards kept waiting for a processor {} ms", kept_waiting.as_millis()));
        }
        for ((name, now), (_, before)) in self.engine.iter().zip(&earlier.engine) {
            // What only grows is told as its growth, what is there at present (gauges) as it is.
            let gauge = metrics::ENGINE_GAUGES.contains(name);
            let value = if gauge { *now } else { now.wrapping_sub(*before) };
            if value != 0 {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        Some(line)
    }
}

/// Stops a node.
#[derive(Clone)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    /// Asks the node to stop, once or more often. One that has ended already does not mind.
    pub fn stop(&self) {
        let _ = self.0.send(Event::StopAsked);
    }
}

/// Has the certificates of a node read again.
#[derive(Clone)]
pub struct Reloader(Sender<Event>);

impl Reloader {
    /// Asks the node to read its certificates again; what becomes of that stands in the log.
    pub fn reload(&self) {
        let _ = self.0.send(Event::ReloadAsked);
    }
}

/// What the threads and the operator tell the waiting thread.
enum Event {
    ShardReady { engine: Arc<Counters>, thread: Pid },
    ShardEnded { index: usize, end: End },
    SyncingPanicked(String),
    StopAsked,
    ReloadAsked,
}

/// How a shard's thread ended.
enum End {
    Regular,
    Failed(std::io::Error),
    Panicked(String),
}

/// The sockets of one shard, with the numbers of their listeners.
#[derive(Default)]
struct Sockets {
    datagrams: Vec<(u8, std::net::UdpSocket)>,
    streams: Vec<(u8, std::net::TcpListener)>,
}

/// Everything that a shard's thread starts with.
struct ShardThread {
    index: usize,
    shards: usize,
    /// The core to stay on.
    cpu: Option<usize>,
    start: ShardStart,
    poll: Poll,
    sockets: Sockets,
    listeners: Vec<Listen>,
    admission: Arc<Admission>,
    layers: LayerSettings,
    bus: BusEnd,
    mailbox: Arc<Mailbox>,
    lookups: Option<Lookups>,
    clock: Clock,
    counters: Arc<CachePadded<NetCounters>>,
    stop: Arc<Stop>,
    events: Sender<Event>,
}

impl ShardThread {
    /// The whole life of the thread.
    fn run(self) {
        let (index, events) = (self.index, self.events.clone());
        report_end(index, &events, || self.turn_until_stopped());
    }

    fn turn_until_stopped(self) -> std::io::Result<()> {
        if let Some(cpu) = self.cpu {
            let mut set = CpuSet::new();
            set.set(cpu);
            if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
                tracing::warn!(%error, shard = self.index, "the shard is not pinned to its core");
            }
        }
        let shard = Shard::open(self.start, self.clock.now());
        let engine = Arc::clone(shard.counters());
        let event_loop = EventLoop::new(Parts {
            index: self.index,
            shards: self.shards,
            shard,
            poll: self.poll,
            sockets: self.sockets.datagrams,
            stream_sockets: self.sockets.streams,
            listeners: self.listeners,
            admission: self.admission,
            layers: self.layers,
            bus: self.bus,
            mailbox: self.mailbox,
            lookups: self.lookups,
            clock: self.clock,
            counters: self.counters,
            stop: self.stop,
        })?;
        let _ = self.events.send(Event::ShardReady { engine, thread: rustix::thread::gettid() });
        event_loop.run()
    }
}

/// Does the work of a shard's thread and tells how it ended, also when it panicked.
fn report_end(index: usize, events: &Sender<Event>, work: impl FnOnce() -> std::io::Result<()>) {
    let end = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => End::Regular,
        Ok(Err(error)) => End::Failed(error),
        Err(panic) => End::Panicked(panic_message(panic.as_ref())),
    };
    // Nobody listens any more only when the process is about to exit.
    let _ = events.send(Event::ShardEnded { index, end });
}

/// The thread that makes changes durable.
struct Syncing {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncing {
    fn start(files: Arc<NodeFiles>, every: Duration, events: Sender<Event>) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
            // Where each core has a shard, writing back would hold one up for a slice of the scheduler; a shard that wakes
            // comes first then, and writing back still has its part of a busy core. It concerns this thread alone.
            if let Err(error) = rustix::process::setpriority_process(None, SYNC_NICENESS) {
                tracing::debug!(%error, "files are synced with the priority of the shards");
            }
            let work = AssertUnwindSafe(|| {
                let mut failing = false;
                while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    files.heartbeat(Clock::wall());
                    let result = files.sync();
                    match &result {
                        Err(error) if !failing => {
                            tracing::error!(%error, "the files cannot be synced; a power cut would lose changes");
                        }
                        Ok(()) if failing => tracing::info!("the files are synced again"),
                        _ => {}
                    }
                    failing = result.is_err();
                }
            });
            if let Err(panic) = catch_unwind(work) {
                let _ = events.send(Event::SyncingPanicked(panic_message(panic.as_ref())));
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long a thread of ours was ready to run and had no processor: what else runs on the machine took it. Zero where the
/// kernel does not count that (`/proc/PID/task/TID/schedstat`).
fn without_processor(thread: Pid) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"));
    let nanos = text.ok().and_then(|text| text.split_ascii_whitespace().nth(1)?.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
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

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// How often the traffic is summed up in the log.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

/// It is told when shards were kept waiting for a processor for such a part of the time: a percent of what one can do.
const KEPT_WAITING_SHARE: u32 = 100;

/// Niceness of the thread that syncs: about a tenth of a core that a shard keeps busy.
const SYNC_NICENESS: i32 = 10;

/// How long shards may take to stop; they themselves give up earlier.
const STOP_SPAN: Duration = Duration::from_millis(700);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn who_shares_a_processor_is_kept_waiting_for_it() {
        let cpu = usable_cpus().unwrap()[0];
        let begin = std::sync::Barrier::new(2);
        let spin = || {
            let mut set = CpuSet::new();
            set.set(cpu);
            rustix::thread::sched_setaffinity(None, &set).unwrap();
            begin.wait();
            let end = Instant::now() + Duration::from_millis(100);
            while Instant::now() < end {}
            without_processor(rustix::thread::gettid())
        };
        let waited = std::thread::scope(|scope| {
            let threads = [scope.spawn(spin), scope.spawn(spin)];
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Duration>()
        });
        // Each of two wants all of the same tenth of a second.
        assert!(waited >= Duration::from_millis(50), "{waited:?}");
    }

    #[test]
    fn a_node_starts_takes_datagrams_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let running = start(&folder, 3);
        let [Listen { address, .. }] = *running.addresses() else { panic!("one listener") };
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let counters: Vec<_> = running.counters().to_vec();
        client.send_to(b"\r\n\r\n", address).unwrap();
        let counted = || counters.iter().map(|it| it.datagrams_in.get()).sum::<u64>();
        let patience = Instant::now() + Duration::from_secs(10);
        while counted() == 0 {
            assert!(Instant::now() < patience, "the datagram is not taken");
            std::thread::yield_now();
        }
        assert_eq!(running.engine_counters().len(), 3);
        running.stop().unwrap();
        client.send_to(b"late", address).ok();
        start(&folder, 2).stop().expect("files and threads were let go of");
    }

    #[test]
    fn an_idle_shard_makes_no_turn() {
        let folder = tempfile::tempdir().unwrap();
        let idle = start(&folder, 4);
        let other = tempfile::tempdir().unwrap();
        // Time passes while another node starts and stops.
        for _ in 0..10 {
            start(&other, 2).stop().unwrap();
        }
        let turns: Vec<_> = idle.counters().iter().map(|it| it.turns.get()).collect();
        assert_eq!(turns, [0; 4]);
    }

    #[test]
    fn a_stopper_stops_from_anywhere_and_more_than_once() {
        let folder = tempfile::tempdir().unwrap();
        let running = start(&folder, 1);
        let stopper = running.stopper();
        let again = stopper.clone();
        std::thread::spawn(move || stopper.stop());
        running.wait().unwrap();
        again.stop();
    }

    #[test]
    fn dropping_a_node_stops_it() {
        let folder = tempfile::tempdir().unwrap();
        drop(start(&folder, 2));
        drop(start(&folder, 2));
    }

    #[test]
    fn a_panicking_shard_ends_the_node() {
        let folder = tempfile::tempdir().unwrap();
        let running = start(&folder, 2);
        let events = running.events.clone();
        std::thread::spawn(move || report_end(1, &events, || panic!("on purpose"))).join().unwrap();
        match running.wait() {
            Err(NodeFailure::ShardPanicked { index: 1, message }) => assert_eq!(message, "on purpose"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failing_shard_ends_the_node() {
        let folder = tempfile::tempdir().unwrap();
        let running = start(&folder, 2);
        report_end(0, &running.events, || Err(std::io::ErrorKind::OutOfMemory.into()));
        assert!(matches!(running.wait(), Err(NodeFailure::ShardFailed { index: 0, .. })));
        let running = start(&folder, 2);
        report_end(0, &running.events, || Ok(()));
        assert!(matches!(running.wait(), Err(NodeFailure::ShardLeft { index: 0 })), "nobody asked it to end");
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let exposed = Settings {
            listen: vec![crate::config::parse_listen("0.0.0.0:0").unwrap()],
            ..settings(&folder, 1)
        };
        assert!(matches!(Node::open(exposed), Err(StartError::Exposed(_))));
        let foreign = Settings {
            listen: vec![crate::config::parse_listen("127.0.0.1:0").unwrap()],
            ..settings(&folder, 1)
        };
        std::fs::write(folder.path().join("file"), "").unwrap();
        let no_dir = Settings { data_dir: folder.path().join("file/dir"), ..foreign };
        assert!(matches!(Node::open(no_dir), Err(StartError::DataDir { .. })));
    }

    fn start(folder: &TempDir, shards: usize) -> Running {
        Node::open(settings(folder, shards)).unwrap().start().unwrap()
    }

    fn settings(folder: &TempDir, shards: usize) -> Settings {
        Settings {
            listen: vec![crate::config::parse_listen("127.0.0.1:0").unwrap()],
            data_dir: folder.path().join("data"),
            shards: Some(shards),
            ..Settings::default()
        }
    }
}

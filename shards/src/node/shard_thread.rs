//! The thread of a shard, from its start to the report of its end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam::utils::CachePadded;
use mio::Poll;
use rustix::thread::CpuSet;

use super::running::Event;
use crate::bus::BusEnd;
use crate::clock::Clock;
use crate::event_loop::{EventLoop, Parts, Stop};
use crate::mailbox::Mailbox;
use crate::metrics::NetCounters;
use crate::net::stream::admission::Admission;
use crate::net::stream::hand_over::Carried;
use crate::net::stream::layer::LayerSettings;
use crate::resolve::thread::Lookups;
use crate::settings::Listen;
use crate::shard::{Shard, ShardStart};

/// How a shard's thread ended.
pub(crate) enum End {
    /// It was asked to, and gave up these connections.
    Regular(Vec<Carried>),
    Failed(std::io::Error),
    Panicked(String),
}

/// The sockets of one shard, with the numbers of their listeners.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) datagrams: Vec<(u8, std::net::UdpSocket)>,
    pub(super) streams: Vec<(u8, std::net::TcpListener)>,
}

/// Everything that a shard's thread starts with.
pub(super) struct ShardThread {
    pub(super) index: usize,
    pub(super) shards: usize,
    /// The core to stay on.
    pub(super) cpu: Option<usize>,
    pub(super) start: ShardStart,
    pub(super) poll: Poll,
    pub(super) sockets: Sockets,
    pub(super) listeners: Vec<Listen>,
    pub(super) admission: Arc<Admission>,
    pub(super) layers: LayerSettings,
    /// Connections to go on with.
    pub(super) carried: Vec<Carried>,
    /// What keeps the shard from its sockets until all are ready.
    pub(super) threshold: Arc<Threshold>,
    pub(super) bus: BusEnd,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) lookups: Option<Lookups>,
    pub(super) clock: Clock,
    pub(super) counters: Arc<CachePadded<NetCounters>>,
    pub(super) stop: Arc<Stop>,
    pub(super) events: Sender<Event>,
}

impl ShardThread {
    /// The whole life of the thread.
    pub(super) fn run(self) {
        let (index, events) = (self.index, self.events.clone());
        report_end(index, &events, || self.turn_until_stopped());
    }

    fn turn_until_stopped(self) -> std::io::Result<Vec<Carried>> {
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
            carried: self.carried,
            bus: self.bus,
            mailbox: self.mailbox,
            lookups: self.lookups,
            clock: self.clock,
            counters: self.counters,
            stop: self.stop,
        })?;
        let _ = self.events.send(Event::ShardReady { engine, thread: rustix::thread::gettid() });
        if self.threshold.wait() { event_loop.run() } else { Ok(Vec::new()) }
    }
}

/// What the shards of a node wait at before they begin to serve.
#[derive(Debug, Default)]
pub(super) struct Threshold {
    /// Whether they may serve; `None`: that is not known yet.
    answer: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Threshold {
    /// Lets the shards serve.
    pub(super) fn open(&self) {
        self.decide(true);
    }

    /// Ends the shards without a look at their sockets, unless they serve already.
    pub(super) fn close(&self) {
        self.decide(false);
    }

    /// Whether the shards were let in.
    pub(super) fn is_open(&self) -> bool {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) == Some(true)
    }

    fn decide(&self, answer: bool) {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(answer);
        self.changed.notify_all();
    }

    /// Waits for the answer.
    fn wait(&self) -> bool {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = self.changed.wait_while(answer, |it| it.is_none());
        *answer.unwrap_or_else(PoisonError::into_inner) == Some(true)
    }
}

/// Does the work of a shard's thread and tells how it ended, also when it panicked.
pub(super) fn report_end(
    index: usize,
    events: &Sender<Event>,
    work: impl FnOnce() -> std::io::Result<Vec<Carried>>,
) {
    let end = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(carried)) => End::Regular(carried),
        Ok(Err(error)) => End::Failed(error),
        Err(panic) => End::Panicked(panic_message(panic.as_ref())),
    };
    // Nobody listens any more only when the process is about to exit.
    let _ = events.send(Event::ShardEnded { index, end });
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

//! A node at work: waiting for its end, and ending it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use mio::Waker;
use rustix::thread::Pid;

use super::sample::Sample;
use super::shard_thread::{End, Threshold};
use super::syncing::Syncing;
use super::{NodeFailure, NodeFiles, StartError};
use crate::access::Gate;
use crate::clock::Clock;
use crate::control::Control;
use crate::counters::Counters;
use crate::event_loop::Stop;
use crate::metrics::NetCounters;
use crate::resolve::thread::Resolver;
use crate::restart::courier::Courier;
use crate::restart::inherited::{GivenUp, Inherited, ListeningSocket};
use crate::restart::successor::{self, Outcome};
use crate::settings::Listen;
use crate::tls::TlsWatch;

/// A node at work. Dropping it stops it.
pub struct Running {
    pub(super) addresses: Vec<Listen>,
    /// Certificates that may change.
    pub(super) tls: Option<TlsWatch>,
    pub(super) wakers: Vec<Arc<Waker>>,
    pub(super) stop: Arc<Stop>,
    pub(super) events: Sender<Event>,
    pub(super) inbox: Receiver<Event>,
    pub(super) counters: Vec<Arc<CachePadded<NetCounters>>>,
    pub(super) engines: Vec<Arc<Counters>>,
    /// The kernel's numbers of the shards' threads, in no order.
    pub(super) thread_ids: Vec<Pid>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) syncing: Option<Syncing>,
    /// The socket for the operator's tools; the server works without it, too.
    pub(super) control: Option<Control>,
    /// The thread that looks up names; the server works without it, too.
    pub(super) resolver: Option<Resolver>,
    /// How many shards have ended.
    pub(super) ended: usize,
    /// Whether somebody wants us to stop.
    pub(super) stop_asked: bool,
    /// The first failure.
    pub(super) failure: Option<NodeFailure>,
    /// Open until the end.
    pub(super) files: Option<Arc<NodeFiles>>,
    /// What the shards wait at before they begin.
    pub(super) threshold: Arc<Threshold>,
    /// The listening sockets by other descriptors, so that they outlive the shards when another process goes on with them.
    pub(super) kept: Arc<Vec<ListeningSocket>>,
    /// What all shards know senders by.
    pub(super) gate: Arc<Gate>,
    pub(super) clock: Clock,
    /// What the shards gave up.
    pub(super) given_up: GivenUp,
    /// How long who takes over may have the files before it serves.
    pub(super) recovery_max: Duration,
    /// Who takes over, when all is prepared there.
    pub(super) successor: Option<Courier>,
}

/// How a node ended that did not fail.
#[derive(Debug)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// Another process serves in its place.
    HandedOver,
    /// Another process wanted to serve in its place and did not get there; this is what it was to have, to go on with.
    TakenBack(Inherited),
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

    /// The listening sockets of all shards.
    #[must_use]
    pub fn listening_sockets(&self) -> &[ListeningSocket] {
        &self.kept
    }

    /// Waits until the node is stopped or another process takes over, sums up its traffic in the log meanwhile, then brings
    /// everything to an end: answers under way are sent, the files are synced and closed.
    ///
    /// # Errors
    /// The failure that ended the node, or came up while it was ending.
    pub fn wait(mut self) -> Result<Ended, NodeFailure> {
        let mut last = self.sample();
        let mut looked = last.at;
        while !self.stop_asked && self.failure.is_none() && self.successor.is_none() {
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
                let now = self.sample();
                if let Some(summary) = now.summary(&last) {
                    tracing::info!("traffic: {summary}");
                }
                last = now;
            }
        }
        let successor = self.successor.take();
        let mut files_synced = false;
        if successor.is_some() {
            // Who changes users may wait for a shard, and who syncs for the disk: while the shards serve still.
            drop(self.control.take());
            drop(self.syncing.take());
            // Who takes over does without a sync until it serves, and counts on this one (`Coming::HandedOver`), or hears that there
            // was none.
            match self.files.as_ref().map(|files| files.sync()) {
                Some(Err(error)) => {
                    tracing::error!(%error, "the files cannot be synced before they are handed over");
                }
                synced => files_synced = synced.is_some(),
            }
            self.stop.will_hand_over();
        }
        let begin = Instant::now();
        self.shut_down();
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(successor) = successor else { return Ok(Ended::Stopped) };
        tracing::info!(stop_ms = begin.elapsed().as_millis() as u64, "stopped for another process");
        let mut given_up = std::mem::take(&mut self.given_up);
        given_up.nonces = self.gate.nonces.as_ref().map(|it| it.bequeath(self.clock.mono()));
        given_up.files_synced = files_synced;
        Ok(match successor::hand_over(successor, &given_up, self.recovery_max) {
            Outcome::Gone => Ended::HandedOver,
            Outcome::Back => {
                // The other process may have had them meanwhile.
                given_up.files_synced = false;
                Ended::TakenBack(Inherited {
                    sockets: self.kept.iter().filter_map(|it| it.try_clone().ok()).collect(),
                    given_up,
                })
            }
        })
    }

    /// Stops the node and waits until it has ended.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn stop(mut self) -> Result<(), NodeFailure> {
        self.stop_asked = true;
        self.wait().map(drop)
    }

    /// Waits until all shards are ready.
    pub(super) fn wait_ready(&mut self) -> Result<(), StartError> {
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

    /// What the shards have done so far.
    fn sample(&self) -> Sample {
        Sample::of(&self.counters, &self.engines, &self.thread_ids)
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
            Event::ReleaseAsked(successor) => self.successor = Some(successor),
            Event::ShardEnded { index, end } => {
                self.ended += 1;
                let failure = match end {
                    End::Regular(carried) if self.stop.is_asked() => {
                        self.given_up.connections.extend(carried);
                        return;
                    }
                    End::Regular(_) => NodeFailure::ShardLeft { index },
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
        self.threshold.close();
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
        if self.threshold.is_open() {
            files.heartbeat();
        }
        let closed = match self.failure {
            // The other process sees every page as we do, and syncs them as we did; waiting for the disk would be its gap.
            None if self.stop.is_handing_over() => Ok(()),
            None => files.close(),
            Some(_) => files.sync(),
        };
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
pub(crate) enum Event {
    ShardReady {
        engine: Arc<Counters>,
        thread: Pid,
    },
    ShardEnded {
        index: usize,
        end: End,
    },
    SyncingPanicked(String),
    StopAsked,
    ReloadAsked,
    /// Another process has prepared all that it can before it has our connections and files.
    ReleaseAsked(Courier),
}

/// How often the traffic is summed up in the log.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

/// How long shards may take to stop; they themselves give up earlier.
const STOP_SPAN: Duration = Duration::from_millis(700);

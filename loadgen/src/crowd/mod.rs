//! The agents of one thread, their running operations and timers. What they want sent is listed in an outbox, so that
//! everything here works the same whatever carries it.

mod inbound;
mod send;
mod work;

use crate::agent::{Op, Presentity, Registrant, Requests, Watcher};
use crate::audit::Tally;
use crate::clock::Nanos;
use crate::ident::{Ident, Kind};
use crate::message;
use crate::overload::OverloadControl;
use crate::pace::{Pace, Schedule};
use crate::retransmit::Retransmit;
use crate::scenario::{Contact, Ends, Phase, Work};
use crate::shared::{Post, Shared};
use crate::stats::{Counters, Timings, record};
use crate::told::Received;
use memchr::memmem::Finder;
use send::Outgoing;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::atomic::Ordering;
use work::{Change, Running};

/// The agents of one thread: of every kind those whose number leaves the thread's when divided by the number of
/// threads. `local` is a place in this thread's list, `index` the number in the whole run.
pub struct Crowd<'s> {
    shared: &'s Shared,
    watchers: Vec<Watcher>,
    presentities: Vec<Presentity>,
    registrants: Vec<Registrant>,
    /// One for each measured phase.
    timings: Vec<Timings>,
    last_notify: Nanos,
    /// Looks for the mark of this run in documents.
    finder: Finder<'static>,
    received: Received,
    thread: usize,
    retransmit: Retransmit<(Ident, u32)>,
    works: Vec<Running>,
    /// Unfinished operations by [`Op`].
    unfinished: [u64; Op::COUNT],
    changes: Vec<Change>,
    /// Operations that are due while another one of the same agent runs, with their intended times.
    waiting: BTreeMap<(Kind, usize), VecDeque<(Op, Nanos)>>,
    /// Agents that were refused for a while, with the times at which they may come again.
    resting: BinaryHeap<Reverse<(Nanos, Kind, usize)>>,
    /// Presentities with calls under way, and when their next states are due.
    calls: BinaryHeap<Reverse<(Nanos, usize)>>,
    outbox: Vec<Outgoing>,
    /// What the server has asked the proxy for that takes part in overload control.
    overload_control: Option<OverloadControl>,
    /// Requests that it withholds, to be refused to their agents.
    withheld: Vec<(Ident, u32)>,
    /// Requests that are handed over to the kernel in this turn: by which socket, and when they were meant to be.
    leaving: Vec<(usize, Nanos)>,
    /// Intended times that count: from the beginning of each measured phase to its end.
    measured: Vec<(Nanos, Nanos)>,
    /// Watchers before this one have shown the newest document in this phase.
    settled: usize,
    scratch: Vec<u8>,
}

impl<'s> Crowd<'s> {
    /// The agents of `thread`.
    pub fn new(shared: &'s Shared, thread: usize) -> Self {
        let threads = shared.posts.len();
        let mine = |count: u32| (thread as u32..count).step_by(threads);
        let plan = &shared.plan;
        Self {
            shared,
            watchers: mine(plan.watchers)
                .map(|index| {
                    let Contact { presentity, owner } = plan.contact(index);
                    Watcher::new(presentity, owner, shared.expires)
                })
                .collect(),
            presentities: mine(plan.presentities).map(|_| Presentity::new(shared.expires)).collect(),
            registrants: mine(plan.registrants).map(|_| Registrant::new(shared.expires)).collect(),
            timings: Vec::new(),
            last_notify: 0,
            finder: Finder::new(&message::mark(shared.style.salt)).into_owned(),
            received: Received::new(),
            thread,
            retransmit: Retransmit::new(!shared.style.transport.is_reliable()),
            works: Vec::new(),
            unfinished: [0; Op::COUNT],
            changes: Vec::new(),
            waiting: BTreeMap::new(),
            resting: BinaryHeap::new(),
            calls: BinaryHeap::new(),
            outbox: Vec::new(),
            overload_control: shared.style.takes_part.then(|| OverloadControl::new(shared.style.salt.0)),
            withheld: Vec::new(),
            leaving: Vec::new(),
            measured: Vec::new(),
            settled: 0,
            scratch: Vec::with_capacity(1024),
        }
    }

    /// Takes up the work of a phase that begins at `start`.
    pub fn enter(&mut self, phase: &Phase, start: Nanos) {
        self.settled = 0;
        self.last_notify = start;
        if phase.measured {
            self.measured.push((start, Nanos::MAX));
            self.timings.push(Timings::new());
        }
        if phase.forgets {
            self.forget();
        }
        let plan = &self.shared.plan;
        for work in &phase.works {
            let all = match work.op.kind() {
                Kind::Watcher => plan.watchers,
                Kind::Presentity => plan.presentities,
                Kind::Registrant => plan.registrants,
            };
            // Agents are dealt to the threads in turn, so a range is too, from the thread that owns its first agent.
            let threads = self.shared.posts.len();
            let range = work.agents.start.min(all) as usize..work.agents.end.min(all) as usize;
            let place = (self.thread + threads - range.start % threads) % threads;
            let agents = (range.len() + threads - 1 - place) / threads;
            if agents > 0 {
                let share = (place, threads.min(range.len()));
                let Work { rate, window, arrivals, .. } = *work;
                let pace = Pace { rate, arrivals, window, amount: work.amount.amount(agents) };
                let schedule = Schedule::new(start, pace, share, self.works.len() as u64);
                let first = (range.start + place - self.thread) / threads;
                let Work { op, finish, .. } = *work;
                self.works.push(Running { op, finish, schedule, first, agents, next: 0, skipped: 0 });
            }
        }
    }

    /// Puts down the work of a phase that ends at `now`.
    pub fn leave(&mut self, now: Nanos) {
        if let Some(last) = self.measured.last_mut().filter(|last| last.1 == Nanos::MAX) {
            last.1 = now;
        }
        self.works.clear();
        self.changes.clear();
        self.calls.clear();
        // Only a phase that was broken off leaves operations waiting.
        for (op, _) in std::mem::take(&mut self.waiting).into_values().flatten() {
            self.unfinished[op as usize] -= 1;
        }
    }

    /// All phones lose what they know, as after a loss of power.
    fn forget(&mut self) {
        for local in 0..self.watchers.len() {
            let was_active = self.watchers[local].is_active();
            self.watchers[local].forget_dialog();
            self.note_activity(local, was_active);
        }
        self.presentities.iter_mut().for_each(Presentity::forget);
        self.registrants.iter_mut().for_each(Registrant::forget);
    }

    /// Whether the phase that ends so has ended for this thread.
    pub fn is_done(&mut self, ends: Ends, now: Nanos) -> bool {
        if self.unfinished() > 0 || self.works.iter().any(|work| !work.schedule.is_over(now)) {
            return false;
        }
        match ends {
            Ends::Done => true,
            Ends::Quiet(quiet) => now >= self.last_notify + quiet,
            Ends::Settled(limit) => self.is_settled() || now >= self.shared.start() + limit,
        }
    }

    /// Whether every subscribed watcher has shown the newest document since the phase began.
    fn is_settled(&mut self) -> bool {
        while let Some(watcher) = self.watchers.get(self.settled) {
            if !self.is_audited(self.settled) {
                break;
            }
            let (accepted, unsure) = self.shared.boards[watcher.presentity as usize].settled();
            let shown = watcher.watch.shown();
            if watcher.is_active() && shown != accepted && Some(shown) != unsure {
                return false;
            }
            self.settled += 1;
        }
        true
    }

    /// What the watchers have now, compared with what their presentities published.
    pub fn audit(&self) -> Tally {
        let mut tally = Tally::default();
        let audited = (0..self.watchers.len()).take_while(|&local| self.is_audited(local));
        for watcher in audited.map(|local| &self.watchers[local]) {
            let (accepted, unsure) = self.shared.boards[watcher.presentity as usize].settled();
            tally.add(&watcher.watch, watcher.is_active(), accepted, unsure);
        }
        tally
    }

    /// Whether a watcher of this thread is to be told everything.
    fn is_audited(&self, local: usize) -> bool {
        self.index(local) < self.shared.plan.audited
    }

    /// Operations that have begun and not ended.
    pub fn unfinished(&self) -> u64 {
        self.unfinished.iter().sum::<u64>() + (self.changes.len() + self.calls.len()) as u64
    }

    /// When the next request is meant to be sent that nobody has asked for: to be kept exactly.
    pub fn next_request(&self, now: Nanos) -> Nanos {
        let works = self.works.iter().map(|work| work.schedule.next_at(now)).min().unwrap_or(Nanos::MAX);
        works.min(self.calls.peek().map_or(Nanos::MAX, |Reverse((at, _))| *at))
    }

    /// When a timer fires, whether it still means something or not.
    pub fn next_timer(&self) -> Nanos {
        let rested = self.resting.peek().map_or(Nanos::MAX, |Reverse((at, ..))| *at);
        self.retransmit.next_at().min(rested)
    }

    /// Tells all threads what became of a presentity's PUBLISH.
    fn post_state(&self, local: usize) {
        let (accepted, unsure) = self.presentities[local].settled();
        let board = &self.shared.boards[self.index(local) as usize];
        board.accepted.store(accepted, Ordering::Relaxed);
        board.unsure.store(unsure.unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether requests wait to be handed over to the kernel.
    pub fn leaves(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Measures how late those requests are that are handed over by a socket at `now`.
    pub fn leave_by(&mut self, socket: usize, now: Nanos) {
        let Self { leaving, timings, measured, .. } = self;
        leaving.retain(|&(by, intended)| {
            if by == socket
                && let Some(i) = measured.iter().rposition(|(from, to)| (*from..*to).contains(&intended))
            {
                record(&mut timings[i].lateness, intended, now);
            }
            by != socket
        });
    }

    /// Where operations meant for this time are measured; none if they are not.
    fn timings(&mut self, intended: Nanos) -> Option<&mut Timings> {
        let i = self.measured.iter().rposition(|(from, to)| (*from..*to).contains(&intended))?;
        Some(&mut self.timings[i])
    }

    /// What was measured, one for each measured phase.
    pub fn into_timings(self) -> Vec<Timings> {
        self.timings
    }

    /// How many agents were refused for a while and have not come again.
    pub fn resting(&self) -> u64 {
        self.resting.len() as u64
    }

    /// What the world knows of this thread.
    pub fn post(&self) -> &'s Post {
        &self.shared.posts[self.thread]
    }

    /// The counters of this thread.
    fn counters(&self) -> &'s Counters {
        &self.post().counters
    }

    /// The agent of this thread that a Call-ID names.
    fn agent(&self, call_id: &[u8]) -> Option<(Ident, usize)> {
        let ident = self.shared.style.salt.decode(call_id)?;
        if ident.index as usize % self.shared.posts.len() != self.thread {
            return None;
        }
        let local = self.local(ident.index);
        let agents = match ident.kind {
            Kind::Watcher => self.watchers.len(),
            Kind::Presentity => self.presentities.len(),
            Kind::Registrant => self.registrants.len(),
        };
        (local < agents).then_some((ident, local))
    }

    /// The requests of an agent.
    fn requests(&self, kind: Kind, local: usize) -> &Requests {
        match kind {
            Kind::Watcher => &self.watchers[local].requests,
            Kind::Presentity => &self.presentities[local].requests,
            Kind::Registrant => &self.registrants[local].requests,
        }
    }

    /// The same, to be changed.
    fn requests_mut(&mut self, kind: Kind, local: usize) -> &mut Requests {
        match kind {
            Kind::Watcher => &mut self.watchers[local].requests,
            Kind::Presentity => &mut self.presentities[local].requests,
            Kind::Registrant => &mut self.registrants[local].requests,
        }
    }

    /// Whether the request `cseq` of an agent is not answered.
    fn runs(&self, ident: Ident, local: usize, cseq: u32) -> bool {
        match self.running(ident.kind, local) {
            Some((running, _)) if ident.kind == Kind::Presentity => {
                running == ident && self.presentities[local].unanswered().any(|unanswered| unanswered == cseq)
            }
            running => running == Some((ident, cseq)),
        }
    }

    /// The name and number of an agent's running request.
    fn running(&self, kind: Kind, local: usize) -> Option<(Ident, u32)> {
        let index = self.index(local);
        let ident = match kind {
            Kind::Watcher => self.watchers[local].ident(index),
            Kind::Presentity | Kind::Registrant => Ident { kind, index, generation: 0 },
        };
        Some((ident, self.requests(kind, local).running?.cseq))
    }

    fn index(&self, local: usize) -> u32 {
        (local * self.shared.posts.len() + self.thread) as u32
    }

    fn local(&self, index: u32) -> usize {
        (index as usize - self.thread) / self.shared.posts.len()
    }
}

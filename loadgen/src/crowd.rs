//! The agents of one thread, their running operations and timers. What they want sent is listed in an outbox, so that
//! everything here works the same whatever carries it.

use crate::agent::{Op, Presentity, Registrant, Watcher};
use crate::audit::Tally;
use crate::clock::{Nanos, SECOND};
use crate::ident::{Ident, Kind};
use crate::message::{self, MARK_LEN};
use crate::net::Sockets;
use crate::pace::Schedule;
use crate::retransmit::{Due, Retransmit};
use crate::scenario::{Contact, Ends, Finish, Phase, Work};
use crate::shared::{Post, Shared};
use crate::stats::{Counters, Timings, record};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

/// Most operations of a turn, so that the sockets are emptied in time.
const OPERATIONS_MAX: usize = 64;
/// Most fired timers of a turn.
const TIMERS_MAX: usize = 256;
/// How long a state change in the closed loop waits for its last watcher.
const TOLD_WAIT: Nanos = 5 * SECOND;

/// The agents of one thread: of every kind those whose number leaves the thread's when divided by the number of
/// threads. `local` is a place in this thread's list, `index` the number in the whole run.
pub struct Crowd<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) presentities: Vec<Presentity>,
    pub(crate) registrants: Vec<Registrant>,
    /// One for each measured phase.
    pub(crate) timings: Vec<Timings>,
    pub(crate) last_notify: Nanos,
    pub(crate) mark: [u8; MARK_LEN],
    thread: usize,
    retransmit: Retransmit<(Ident, u32)>,
    works: Vec<Running>,
    /// Unfinished operations by [`Op`].
    unfinished: [u64; 8],
    changes: Vec<Change>,
    /// Operations that are due while another one of the same agent runs, with their intended times.
    waiting: BTreeMap<(Kind, usize), VecDeque<(Op, Nanos)>>,
    outbox: Vec<Outgoing>,
    /// Intended times of requests that are handed over to the kernel in this turn.
    leaving: Vec<Nanos>,
    /// Intended times that count: from the beginning of each measured phase to its end.
    measured: Vec<(Nanos, Nanos)>,
    /// Watchers before this one have shown the newest document in this phase.
    settled: usize,
    scratch: Vec<u8>,
}

/// A work of the running phase.
struct Running {
    op: Op,
    finish: Finish,
    schedule: Schedule,
    /// The first of its agents.
    first: usize,
    /// How many agents it has.
    agents: usize,
    /// The agent whose turn it is, counted from the first.
    next: usize,
    /// How many agents from there are known to be busy.
    skipped: usize,
}

/// A state change of the closed loop that waits for its watchers.
struct Change {
    presentity: usize,
    deadline: Nanos,
}

/// A request that an agent wants sent.
struct Outgoing {
    kind: Kind,
    local: usize,
    /// Its sequence number.
    cseq: u32,
    /// Whether its lateness is the generator's.
    first: bool,
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
            mark: message::mark(shared.style.salt),
            thread,
            retransmit: Retransmit::new(),
            works: Vec::new(),
            unfinished: [0; 8],
            changes: Vec::new(),
            waiting: BTreeMap::new(),
            outbox: Vec::new(),
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
                let schedule =
                    Schedule::new(start, work.rate, work.window, work.amount.amount(agents), share);
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
    pub(crate) fn is_audited(&self, local: usize) -> bool {
        self.index(local) < self.shared.plan.audited
    }

    /// Operations that have begun and not ended.
    pub fn unfinished(&self) -> u64 {
        self.unfinished.iter().sum::<u64>() + self.changes.len() as u64
    }

    /// When there is something to do without a datagram.
    pub fn next_at(&self, now: Nanos) -> Nanos {
        let works = self.works.iter().map(|work| work.schedule.next_at(now)).min();
        works.unwrap_or(Nanos::MAX).min(self.retransmit.next_at())
    }

    /// Starts what is due, a bounded number of operations; how many.
    pub fn start_due(&mut self) -> usize {
        let mut begun = 0;
        for i in 0..self.works.len() {
            while begun < OPERATIONS_MAX {
                let Running { op, finish, first, agents, .. } = self.works[i];
                let unfinished = match finish {
                    Finish::Answered => self.unfinished[op as usize],
                    Finish::Told => self.changes.len() as u64,
                };
                let now = self.shared.clock.now();
                // The closed loop passes over agents that are busy; the open loop asks everyone in turn.
                while self.works[i].schedule.may_skip()
                    && self.works[i].skipped < agents
                    && !self.is_free(
                        finish,
                        op,
                        first + (self.works[i].next + self.works[i].skipped) % agents,
                    )
                {
                    self.works[i].skipped += 1;
                }
                let work = &mut self.works[i];
                if work.skipped == agents {
                    work.skipped = 0;
                    break;
                }
                let Some((_, intended)) = work.schedule.take(now, unfinished) else { break };
                let local = (work.next + std::mem::take(&mut work.skipped)) % agents;
                work.next = (local + 1) % agents;
                self.start(op, finish, first + local, intended);
                begun += 1;
            }
        }
        begun
    }

    /// Whether an agent has nothing unfinished.
    fn is_free(&self, finish: Finish, op: Op, local: usize) -> bool {
        self.running(op.kind(), local).is_none()
            && (finish == Finish::Answered || self.shared.boards[self.index(local) as usize].all_told())
    }

    /// Starts an operation. It waits for its turn while another one of the same agent runs, and counts from its
    /// intended time all the same.
    fn start(&mut self, op: Op, finish: Finish, local: usize, intended: Nanos) {
        if self.running(op.kind(), local).is_some() {
            self.counters().queued.add(1);
            self.unfinished[op as usize] += 1;
            self.waiting.entry((op.kind(), local)).or_default().push_back((op, intended));
            return;
        }
        self.begin(op, finish, local, intended, true);
    }

    /// Begins an operation of an agent that has none. `first` if nothing but the generator could have delayed it.
    fn begin(&mut self, op: Op, finish: Finish, local: usize, intended: Nanos, first: bool) {
        let index = self.index(local);
        let started = match op.kind() {
            Kind::Watcher => self.watchers[local].start(op, intended),
            Kind::Registrant => self.registrants[local].start(op, intended),
            Kind::Presentity => self.presentities[local].start(op, intended),
        };
        if !started {
            return;
        }
        if op == Op::Publish {
            self.shared.boards[index as usize].publish(self.presentities[local].state());
        }
        if finish == Finish::Told {
            self.changes.push(Change { presentity: local, deadline: intended + TOLD_WAIT });
        }
        self.unfinished[op as usize] += 1;
        self.send_new(op.kind(), local, first);
    }

    /// Lists the running request of an agent, which is new, for sending. `first` if its lateness is the
    /// generator's: not when it repeats its operation or waited for its turn.
    pub(crate) fn send_new(&mut self, kind: Kind, local: usize, first: bool) {
        if let Some((ident, cseq)) = self.running(kind, local) {
            self.send_one(kind, local, (ident, cseq), first);
            let second = self.presentities.get(local).filter(|_| kind == Kind::Presentity);
            let second = second.and_then(|presentity| presentity.unanswered().find(|&other| other != cseq));
            if let Some(second) = second {
                self.send_one(kind, local, (ident, second), first);
            }
        }
    }

    fn send_one(&mut self, kind: Kind, local: usize, name: (Ident, u32), first: bool) {
        self.counters().requests_sent.add(1);
        self.retransmit.arm(self.shared.clock.now(), name);
        self.outbox.push(Outgoing { kind, local, cseq: name.1, first });
    }

    /// Takes note that an operation has ended, and starts the one that waited for it.
    pub(crate) fn finished(&mut self, op: Op, local: usize) {
        self.unfinished[op as usize] -= 1;
        let key = (op.kind(), local);
        if let Some(queue) = self.waiting.get_mut(&key) {
            let next = queue.pop_front();
            if queue.is_empty() {
                self.waiting.remove(&key);
            }
            if let Some((op, intended)) = next {
                self.unfinished[op as usize] -= 1;
                self.begin(op, Finish::Answered, local, intended, false);
            }
        }
    }

    /// Ends the state changes of the closed loop whose watchers were all told, or that waited too long.
    pub fn finish_told(&mut self, now: Nanos) {
        let Self { changes, presentities, shared, thread, .. } = self;
        let threads = shared.posts.len();
        changes.retain(|change| {
            let board = &shared.boards[change.presentity * threads + *thread];
            let answered = presentities[change.presentity].running.is_none();
            now < change.deadline && !(answered && board.all_told())
        });
    }

    /// Retransmits and gives up what is due, a bounded number; how many.
    pub fn fire_timers(&mut self, now: Nanos) -> usize {
        for fired in 0..TIMERS_MAX {
            let Self { watchers, presentities, registrants, retransmit, thread, shared, .. } = self;
            let threads = shared.posts.len();
            let due = retransmit.take(now, |(ident, cseq)| {
                let local = (ident.index as usize - *thread) / threads;
                let running = match ident.kind {
                    Kind::Watcher => watchers[local].running,
                    Kind::Presentity => {
                        return presentities[local].unanswered().any(|unanswered| unanswered == cseq);
                    }
                    Kind::Registrant => registrants[local].running,
                };
                running.is_some_and(|running| running.cseq == cseq)
            });
            match due {
                None => return fired,
                Some(Due::Again((Ident { kind, index, .. }, cseq))) => {
                    let local = self.local(index);
                    // A watcher's transaction lives on after its 200 until the NOTIFY has come.
                    let answered = kind == Kind::Watcher
                        && self.watchers[local].running.is_some_and(|running| running.answered);
                    if !answered {
                        self.counters().retransmissions_sent.add(1);
                        self.outbox.push(Outgoing { kind, local, cseq, first: false });
                    }
                }
                Some(Due::TimedOut((ident, _))) => self.time_out(ident.kind, self.local(ident.index)),
            }
        }
        TIMERS_MAX
    }

    fn time_out(&mut self, kind: Kind, local: usize) {
        let running = match kind {
            Kind::Watcher => {
                let running = self.watchers[local].running;
                self.watchers[local].give_up();
                running
            }
            Kind::Presentity => {
                let running = self.presentities[local].running;
                self.presentities[local].give_up();
                self.post_state(local);
                running
            }
            Kind::Registrant => {
                let running = self.registrants[local].running;
                self.registrants[local].give_up();
                running
            }
        };
        self.counters().timed_out.add(1);
        if let Some(running) = running {
            self.finished(running.op, local);
        }
    }

    /// Tells all threads what became of a presentity's PUBLISH.
    pub(crate) fn post_state(&self, local: usize) {
        let (accepted, unsure) = self.presentities[local].settled();
        let board = &self.shared.boards[self.index(local) as usize];
        board.accepted.store(accepted, Ordering::Relaxed);
        board.unsure.store(unsure.unwrap_or(0), Ordering::Relaxed);
    }

    /// Writes what the agents want sent into the queues of the sockets.
    pub fn write_out(&mut self, sockets: &mut Sockets) {
        let Self { watchers, presentities, registrants, outbox, leaving, shared, scratch, thread, .. } = self;
        let (style, target) = (&shared.style, shared.target);
        for Outgoing { kind, local, cseq, first } in outbox.drain(..) {
            let index = (local * shared.posts.len() + *thread) as u32;
            let socket = sockets.of_agent(local);
            let running = match kind {
                Kind::Watcher => {
                    let watcher = &watchers[local];
                    // A run against loopback stays there, whatever the server's Contact says.
                    let hop =
                        watcher.next_hop().filter(|hop| hop.ip().is_loopback() || !target.ip().is_loopback());
                    sockets.send(socket, hop.unwrap_or(target), |out, local| {
                        watcher.write(out, style, index, local);
                    });
                    watcher.running
                }
                Kind::Presentity => {
                    let presentity = &presentities[local];
                    sockets.send(socket, target, |out, local| {
                        presentity.write(cseq, out, scratch, style, index, local);
                    });
                    presentity.running
                }
                Kind::Registrant => {
                    let registrant = &registrants[local];
                    sockets.send(socket, target, |out, local| registrant.write(out, style, index, local));
                    registrant.running
                }
            };
            if let (true, Some(running)) = (first, running) {
                leaving.push(running.intended);
            }
        }
    }

    /// Measures how late the requests were that the kernel has now.
    pub fn record_lateness(&mut self, now: Nanos) {
        let Self { leaving, timings, measured, .. } = self;
        for intended in leaving.drain(..) {
            if let Some(i) = measured.iter().rposition(|(from, to)| (*from..*to).contains(&intended)) {
                record(&mut timings[i].lateness, intended, now);
            }
        }
    }

    /// Where operations meant for this time are measured; none if they are not.
    pub(crate) fn timings(&mut self, intended: Nanos) -> Option<&mut Timings> {
        let i = self.measured.iter().rposition(|(from, to)| (*from..*to).contains(&intended))?;
        Some(&mut self.timings[i])
    }

    /// What the world knows of this thread.
    pub fn post(&self) -> &'s Post {
        &self.shared.posts[self.thread]
    }

    /// The counters of this thread.
    pub(crate) fn counters(&self) -> &'s Counters {
        &self.post().counters
    }

    /// The agent of this thread that a Call-ID names.
    pub(crate) fn agent(&self, call_id: &[u8]) -> Option<(Ident, usize)> {
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

    /// Whether the request `cseq` of an agent is not answered.
    pub(crate) fn runs(&self, ident: Ident, local: usize, cseq: u32) -> bool {
        match self.running(ident.kind, local) {
            Some((running, _)) if ident.kind == Kind::Presentity => {
                running == ident && self.presentities[local].unanswered().any(|unanswered| unanswered == cseq)
            }
            running => running == Some((ident, cseq)),
        }
    }

    /// The name and number of an agent's running request.
    pub(crate) fn running(&self, kind: Kind, local: usize) -> Option<(Ident, u32)> {
        let index = self.index(local);
        let (ident, running) = match kind {
            Kind::Watcher => (self.watchers[local].ident(index), self.watchers[local].running),
            Kind::Presentity => (Ident { kind, index, generation: 0 }, self.presentities[local].running),
            Kind::Registrant => (Ident { kind, index, generation: 0 }, self.registrants[local].running),
        };
        Some((ident, running?.cseq))
    }

    pub(crate) fn index(&self, local: usize) -> u32 {
        (local * self.shared.posts.len() + self.thread) as u32
    }

    fn local(&self, index: u32) -> usize {
        (index as usize - self.thread) / self.shared.posts.len()
    }
}

//! What the agents of a thread do in a phase: which operation of which agent begins when, and when it has ended.

use super::Crowd;
use crate::agent::Op;
use crate::clock::{Nanos, SECOND};
use crate::ident::{Kind, mix};
use crate::pace::Schedule;
use crate::scenario::Finish;
use std::cmp::Reverse;
use std::sync::atomic::Ordering;

/// Most operations of a turn, so that the sockets are emptied in time.
const OPERATIONS_MAX: usize = 64;
/// When a phone rings, is picked up and put down, in seconds after it was called.
const CALL_SECS: [f64; 3] = [0.2, 3.0, 12.0];
/// How long a state change in the closed loop waits for its last watcher.
const TOLD_WAIT: Nanos = 5 * SECOND;

/// A work of the running phase.
pub(super) struct Running {
    pub op: Op,
    pub finish: Finish,
    pub schedule: Schedule,
    /// The first of its agents.
    pub first: usize,
    /// How many agents it has.
    pub agents: usize,
    /// The agent whose turn it is, counted from the first.
    pub next: usize,
    /// How many agents from there are known to be busy.
    pub skipped: usize,
}

/// A state change of the closed loop that waits for its watchers.
pub(super) struct Change {
    presentity: usize,
    deadline: Nanos,
}

impl Crowd<'_> {
    /// Starts what is due, a bounded number of operations; how many.
    pub fn start_due(&mut self, now: Nanos) -> usize {
        let mut begun = 0;
        for i in 0..self.works.len() {
            while begun < OPERATIONS_MAX {
                let Running { op, finish, first, agents, .. } = self.works[i];
                let unfinished = match finish {
                    Finish::Answered => self.unfinished_of(op),
                    Finish::Told => self.changes.len() as u64,
                };
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

    /// How many operations of a sort have begun and not ended.
    fn unfinished_of(&self, op: Op) -> u64 {
        match op {
            Op::Visit => self.unfinished[Op::Subscribe as usize] + self.unfinished[Op::Unsubscribe as usize],
            Op::Call => self.unfinished[Op::Publish as usize],
            op => self.unfinished[op as usize],
        }
    }

    /// Starts the states of calls that are due.
    pub fn go_on_with_calls(&mut self, now: Nanos) {
        for _ in 0..OPERATIONS_MAX {
            let Some(&Reverse((at, local))) = self.calls.peek() else { break };
            if at > now {
                break;
            }
            self.calls.pop();
            self.start(Op::Publish, Finish::Answered, local, at);
        }
    }

    /// Whether an agent has nothing unfinished.
    fn is_free(&self, finish: Finish, op: Op, local: usize) -> bool {
        self.running(op.kind(), local).is_none()
            && (finish == Finish::Answered || self.shared.all_told(self.index(local)))
    }

    /// Starts an operation. It waits for its turn while another one of the same agent runs, and counts from its
    /// intended time all the same.
    fn start(&mut self, op: Op, finish: Finish, local: usize, intended: Nanos) {
        let op = match op {
            Op::Visit if self.watchers[local].is_active() => Op::Unsubscribe,
            Op::Visit => {
                if self.watchers[local].requests.running.is_none() {
                    // The dialog of the visit before is over.
                    self.watchers[local].forget_dialog();
                }
                Op::Subscribe
            }
            Op::Call => {
                let mut dice = mix(intended ^ local as u64);
                for secs in CALL_SECS {
                    // Half as long to half as long again.
                    let length = (0.5 + (dice & 0xff) as f64 / 256.0) * secs;
                    self.calls.push(Reverse((intended + (length * SECOND as f64) as Nanos, local)));
                    dice >>= 8;
                }
                Op::Publish
            }
            op => op,
        };
        if self.running(op.kind(), local).is_some() {
            self.counters().queued.add(1);
            if self.shared.plan.overloads {
                // Nobody does twice what he could not do once.
                return;
            }
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
        if matches!(op, Op::Publish | Op::Race | Op::Refresh) {
            self.shared.boards[index as usize]
                .newest
                .store(self.presentities[local].state(), Ordering::Relaxed);
        }
        if finish == Finish::Told {
            self.changes.push(Change { presentity: local, deadline: intended + TOLD_WAIT });
        }
        self.unfinished[op as usize] += 1;
        self.send_new(op.kind(), local, first);
    }

    /// Takes note that an operation has ended, and starts the one that waited for it.
    pub(super) fn finished(&mut self, op: Op, local: usize) {
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
            let index = change.presentity * threads + *thread;
            let answered = presentities[change.presentity].requests.running.is_none();
            now < change.deadline && !(answered && shared.all_told(index as u32))
        });
    }

    /// Lets an agent rest that was refused for a while.
    pub(super) fn rest(&mut self, kind: Kind, local: usize, until: Nanos) {
        self.counters().deferred.add(1);
        self.resting.push(Reverse((until, kind, local)));
    }

    /// Lets those come again who have rested, a bounded number.
    pub fn wake_rested(&mut self, now: Nanos) {
        for _ in 0..OPERATIONS_MAX {
            let Some(&Reverse((until, kind, local))) = self.resting.peek() else { break };
            if until > now {
                break;
            }
            self.resting.pop();
            if self.requests(kind, local).running.is_some_and(|running| running.rests) {
                self.start_again(kind, local);
            }
        }
    }

    /// Starts an agent's running operation again.
    pub(super) fn start_again(&mut self, kind: Kind, local: usize) {
        match kind {
            Kind::Watcher => self.watchers[local].start_again(),
            Kind::Presentity => self.presentities[local].start_again(),
            Kind::Registrant => self.registrants[local].start_again(),
        }
        self.send_new(kind, local, false);
    }
}

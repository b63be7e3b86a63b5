//! What the agents of a thread want sent: first, again, and at last given up.

use super::Crowd;
use crate::agent::Answer;
use crate::class::Class;
use crate::clock::{Nanos, SECOND};
use crate::ident::{Ident, Kind};
use crate::net::Sockets;
use crate::retransmit::Due;

/// Most fired timers of a turn.
const TIMERS_MAX: usize = 256;

/// How long a phone waits that cannot connect.
const CONNECT_AGAIN: Nanos = SECOND;

/// A request that an agent wants sent.
pub(super) struct Outgoing {
    kind: Kind,
    local: usize,
    /// Its sequence number.
    cseq: u32,
    /// Whether its lateness is the generator's.
    first: bool,
}

impl Crowd<'_> {
    /// Lists the running request of an agent, which is new, for sending. `first` if its lateness is the
    /// generator's: not when it repeats its operation or waited for its turn.
    pub(super) fn send_new(&mut self, kind: Kind, local: usize, first: bool) {
        if let Some((ident, cseq)) = self.running(kind, local) {
            if self.offer(kind, local) {
                self.withheld.push((ident, cseq));
                return;
            }
            self.send_one(kind, local, (ident, cseq), first);
            let second = self.presentities.get(local).filter(|_| kind == Kind::Presentity);
            let second = second.and_then(|presentity| presentity.unanswered().find(|&other| other != cseq));
            if let Some(second) = second {
                self.send_one(kind, local, (ident, second), first);
            }
        }
    }

    /// Counts a request that is to be sent for the first time by what it is worth; whether it is withheld.
    fn offer(&mut self, kind: Kind, local: usize) -> bool {
        let now = self.shared.clock.now();
        let is_bound = kind == Kind::Registrant && self.registrants[local].is_bound();
        let Some(running) = self.requests_mut(kind, local).running.as_mut() else { return false };
        running.sent = now;
        running.class = Class::of(running.op, running.in_dialog || is_bound);
        let class = running.class;
        let is_withheld = self.overload_control.as_mut().is_some_and(|control| control.withholds(class, now));
        if let Some(timings) = self.timings(now) {
            let fate = &mut timings.fates[class as usize];
            fate.offer(now);
            fate.withheld += u64::from(is_withheld);
        }
        is_withheld
    }

    /// Refuses what was withheld, as a proxy does: "with a "503 (Service Unavailable)" response without the Retry-After header"
    /// (RFC 7339 §5.10).
    pub fn refuse_withheld(&mut self, now: Nanos) {
        while let Some((ident, cseq)) = self.withheld.pop() {
            self.counters().withheld.add(1);
            let local = self.local(ident.index);
            if let Some(running) = self.requests(ident.kind, local).running {
                let refusal = Answer { status: 503, cseq, ..Answer::default() };
                self.take_answer(ident, local, running, &refusal, now);
            }
        }
    }

    fn send_one(&mut self, kind: Kind, local: usize, name: (Ident, u32), first: bool) {
        self.counters().requests_sent.add(1);
        self.retransmit.arm(self.shared.clock.now(), name);
        self.outbox.push(Outgoing { kind, local, cseq: name.1, first });
    }

    /// Retransmits and gives up what is due, a bounded number; how many.
    pub fn fire_timers(&mut self, now: Nanos) -> usize {
        for fired in 0..TIMERS_MAX {
            let Self { watchers, presentities, registrants, retransmit, thread, shared, .. } = self;
            let threads = shared.posts.len();
            let due = retransmit.take(now, |(ident, cseq)| {
                let local = (ident.index as usize - *thread) / threads;
                let running = match ident.kind {
                    Kind::Watcher => watchers[local].requests.running,
                    Kind::Presentity => {
                        return presentities[local].unanswered().any(|unanswered| unanswered == cseq);
                    }
                    Kind::Registrant => registrants[local].requests.running,
                };
                running.is_some_and(|running| running.cseq == cseq && !running.rests)
            });
            match due {
                None => return fired,
                Some(Due::Again((Ident { kind, index, .. }, cseq), time)) => {
                    let local = self.local(index);
                    // A watcher's transaction lives on after its 200 until the NOTIFY has come.
                    let answered = kind == Kind::Watcher
                        && self.watchers[local].requests.running.is_some_and(|running| running.answered);
                    if !answered {
                        self.counters().retransmissions_sent.add(1);
                        self.counters().sent_thrice.add(u64::from(time == 2));
                        self.outbox.push(Outgoing { kind, local, cseq, first: false });
                    }
                }
                Some(Due::TimedOut((ident, _))) => self.time_out(ident.kind, self.local(ident.index)),
            }
        }
        TIMERS_MAX
    }

    fn time_out(&mut self, kind: Kind, local: usize) {
        let running = self.requests(kind, local).running;
        match kind {
            Kind::Watcher => self.watchers[local].give_up(),
            Kind::Presentity => {
                self.presentities[local].give_up();
                self.post_state(local);
            }
            Kind::Registrant => self.registrants[local].give_up(),
        }
        self.counters().timed_out.add(1);
        if let Some(running) = running {
            if let Some(timings) = self.timings(running.sent) {
                timings.fates[running.class as usize].given_up += 1;
            }
            self.finished(running.op, local);
        }
    }

    /// Writes what the agents want sent into the queues of the sockets.
    pub fn write_out(&mut self, sockets: &mut Sockets) {
        let Self { watchers, presentities, registrants, outbox, leaving, shared, scratch, thread, .. } = self;
        // What a bad network kept back left in another turn, and not by its own doing.
        leaving.clear();
        let (style, target) = (&shared.style, shared.target);
        let mut unsent = Vec::new();
        for Outgoing { kind, local, cseq, first } in outbox.drain(..) {
            let index = (local * shared.posts.len() + *thread) as u32;
            let socket = sockets.of_agent(local);
            let (sent, running) = match kind {
                Kind::Watcher => {
                    let watcher = &watchers[local];
                    // A run against loopback stays there, whatever the server's Contact says.
                    let hop =
                        watcher.next_hop().filter(|hop| hop.ip().is_loopback() || !target.ip().is_loopback());
                    let sent = sockets.send(socket, hop.unwrap_or(target), |out, local| {
                        watcher.write(out, style, index, local);
                    });
                    (sent, watcher.requests.running)
                }
                Kind::Presentity => {
                    let presentity = &presentities[local];
                    let sent = sockets.send(socket, target, |out, local| {
                        presentity.write(cseq, out, scratch, style, index, local);
                    });
                    (sent, presentity.requests.running)
                }
                Kind::Registrant => {
                    let registrant = &registrants[local];
                    let sent =
                        sockets.send(socket, target, |out, local| registrant.write(out, style, index, local));
                    (sent, registrant.requests.running)
                }
            };
            if !sent {
                unsent.push((kind, local));
            } else if let (true, Some(running)) = (first, running) {
                leaving.push((socket, running.intended));
            }
        }
        for (kind, local) in unsent {
            self.fail(kind, local);
        }
    }

    /// A connection is lost, one of `count` that the agents share: no answer comes by it any more.
    pub fn on_lost(&mut self, connection: usize, count: usize) {
        let lengths = [
            (Kind::Watcher, self.watchers.len()),
            (Kind::Presentity, self.presentities.len()),
            (Kind::Registrant, self.registrants.len()),
        ];
        for (kind, len) in lengths {
            for local in (connection..len).step_by(count) {
                if self.requests(kind, local).running.is_some_and(|running| !running.answered) {
                    self.fail(kind, local);
                }
            }
        }
    }

    /// The running request of an agent did not reach the server. RFC 3261 §17.1.4: a transport error ends the transaction at
    /// once; the phone tries again a little later.
    fn fail(&mut self, kind: Kind, local: usize) {
        if self.requests_mut(kind, local).put_off() {
            self.rest(kind, local, self.shared.clock.now() + CONNECT_AGAIN);
        }
    }
}

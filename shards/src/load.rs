//! What an event loop measures of its load, for `comsipl_core::overload`.
//!
//! A queue that is never empty is not yet an overload: clients that keep a window full make one, and so does every moment in
//! which the processor was someone else's. More comes than can be done if what waits would take longer than the target at the
//! rate at which this shard works, and does not become less while it works. So three things are looked at:
//!
//! 1. Whether everything that waited is ever taken. While it is so, nothing else is looked at.
//! 2. If not, once a step: how much waits in the sockets ([`Queued`]), between the shards, and for the fan-out; and how long what
//!    waits in the sockets will take, from what was taken in the same step.
//! 3. For how long that has been too much, in the shard's *own time*: that of its turns, of each at most [`TURN_MAX`]. Whoever
//!    held the shard up, scheduler or hypervisor, adds no more than that, and the thread's processor time would cost a system
//!    call and not know the hypervisor. When the backlog has become less, its time begins anew.

mod queued;

use std::time::Duration;

use comsipl_core::Mono;
use comsipl_core::overload::{Control, Measured, Share, Signals, WHOLE};
pub use queued::{Queued, memory_of};

/// What waits, in whatever it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Memory of the datagrams in the sockets, bytes.
    pub socket_bytes: u64,
    /// Datagrams that the kernel has dropped so far.
    pub dropped: u64,
    /// Batches of other shards.
    pub batches: u64,
    /// How many of these can wait.
    pub batches_room: u64,
    /// Presentities whose watchers are to be told.
    pub presentities: u64,
    /// How long the first of them has waited, if they are many.
    pub fan_out: Duration,
}

impl Waiting {
    /// How much waits in each queue.
    const fn levels(&self) -> [u64; QUEUES] {
        [self.socket_bytes, self.batches, self.presentities]
    }
}

/// How many messages were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// All.
    pub all: usize,
    /// Those that the kernel can keep out.
    pub avoidable: usize,
}

impl Refusals {
    /// One more.
    pub const fn count(&mut self, is_avoidable: bool) {
        self.all += 1;
        self.avoidable += is_avoidable as usize;
    }
}

/// The sockets, the bus, the fan-out.
const QUEUES: usize = 3;

/// The measurements of one event loop.
#[derive(Debug)]
pub struct LoadGauge {
    /// When everything that waited had been taken.
    emptied: Mono,
    /// Whether the last turn took everything.
    all_taken: bool,
    stepped: Mono,
    /// Own time so far, microseconds.
    own_micros: u64,
    /// The same at the last step.
    own_at_step: u64,
    /// Memory of the datagrams taken so far, about as the kernel reckons it.
    memory_taken: u64,
    /// The same at the last step.
    memory_at_step: u64,
    /// Microseconds spent in refusing since the last step, and what of it could have been kept out.
    refusing_micros: u64,
    avoidable_micros: u64,
    waiting: Waiting,
    backlog: Option<Backlog>,
}

/// More than can be done within the target, and not becoming less.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    /// Own time at its beginning.
    since: u64,
    /// Memory of the datagrams taken until then.
    memory_taken: u64,
    /// What waited then.
    levels: [u64; QUEUES],
}

impl LoadGauge {
    /// Nothing waits.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            emptied: now,
            all_taken: true,
            stepped: now,
            own_micros: 0,
            own_at_step: 0,
            memory_taken: 0,
            memory_at_step: 0,
            refusing_micros: 0,
            avoidable_micros: 0,
            waiting: Waiting::default(),
            backlog: None,
        }
    }

    /// A turn begins at `now`: what has come since one that took everything has waited for nobody, however long we slept.
    #[inline]
    pub const fn begin_turn(&mut self, now: Mono) {
        if self.all_taken {
            self.emptied = now;
        }
    }

    /// Datagrams of so much [memory](memory_of) were taken.
    #[inline]
    pub const fn note_taken(&mut self, memory: u64) {
        self.memory_taken += memory;
    }

    /// The turn that began at `now` and took `span` has taken all that waited, or has not.
    #[inline]
    pub fn end_turn(&mut self, now: Mono, span: Duration, all_taken: bool) {
        self.own_micros += span.min(TURN_MAX).as_micros() as u64;
        self.all_taken = all_taken;
        if all_taken {
            self.emptied = now;
        }
    }

    /// A span in which some of `count` messages were refused.
    pub fn note_refusing(&mut self, span: Duration, refusals: Refusals, count: usize) {
        let part = |of: usize| span.as_micros() as u64 * of as u64 / count.max(1) as u64;
        self.refusing_micros += part(refusals.all);
        self.avoidable_micros += part(refusals.avoidable);
    }

    /// How long ago everything that waited was taken.
    #[inline]
    #[must_use]
    pub const fn standing(&self, now: Mono) -> Duration {
        now.since(self.emptied)
    }

    /// Whether it is time for a step.
    #[inline]
    #[must_use]
    pub fn is_due(&self, now: Mono) -> bool {
        now.since(self.stepped) >= Control::STEP
    }

    /// When it will be.
    #[must_use]
    pub fn due_at(&self) -> Mono {
        self.stepped + Control::STEP
    }

    /// What was measured since the last step, if so much waits now and may wait for `target`.
    pub fn measure(&mut self, now: Mono, waiting: Waiting, target: Duration) -> Measured {
        let span = now.since(self.stepped).as_micros() as u64;
        let share = |micros: &mut u64| {
            let share = std::mem::take(micros) * u64::from(WHOLE) / span.max(1);
            share.min(u64::from(WHOLE)) as Share
        };
        let refusing = share(&mut self.refusing_micros);
        let avoidable = share(&mut self.avoidable_micros);
        // After a while in which everything was taken there is nothing to compare with.
        let has_before = self.emptied < self.stepped || span <= 4 * Control::STEP.as_micros() as u64;
        let own = self.own_micros - std::mem::replace(&mut self.own_at_step, self.own_micros);
        let taken = self.memory_taken - std::mem::replace(&mut self.memory_at_step, self.memory_taken);
        let before = std::mem::replace(&mut self.waiting, waiting);
        self.stepped = now;
        let is_beyond = |bound: Duration| {
            let micros = bound.as_micros() as u64;
            let sockets =
                waiting.socket_bytes > SOCKET_BYTES_FEW && waiting.socket_bytes * own > taken * micros;
            (sockets, waiting.fan_out > bound)
        };
        let signals = if has_before && self.standing(now) >= target {
            let (sockets, fan_out) = is_beyond(target);
            Signals {
                sockets,
                drops: waiting.dropped > before.dropped,
                bus: waiting.batches > BATCHES_FEW && 2 * waiting.batches >= waiting.batches_room,
                fan_out,
            }
        } else {
            Signals::default()
        };
        let is_late = [signals.sockets || signals.drops, signals.bus, signals.fan_out];
        let (sockets, fan_out) = is_beyond(GRAVE * target);
        let levels = waiting.levels();
        // A sixteenth less counts as no less: a full buffer breathes.
        let no_less = |than: [u64; QUEUES]| {
            (0..QUEUES).any(|queue| is_late[queue] && levels[queue] >= than[queue] - than[queue] / 16)
        };
        let grows = no_less(before.levels());
        self.backlog = is_late.contains(&true).then(|| match self.backlog.filter(|it| no_less(it.levels)) {
            Some(backlog) => backlog,
            None => Backlog { since: self.own_micros, memory_taken: self.memory_taken, levels },
        });
        let excess = self.backlog.map_or(0, |it| {
            let more = levels[0].saturating_sub(it.levels[0]);
            more * u64::from(WHOLE) / (more + self.memory_taken - it.memory_taken).max(1)
        });
        Measured {
            late: self.backlog.map(|it| Duration::from_micros(self.own_micros - it.since)),
            signals,
            is_grave: sockets || fan_out || signals.drops || signals.bus,
            grows,
            excess: excess as Share,
            refusing,
            avoidable,
            ..Measured::default()
        }
    }
}

/// Most of a turn that counts as own time: turns that take so long are rare, even under full load.
const TURN_MAX: Duration = Duration::from_millis(2);

/// So many times the target is grave.
const GRAVE: u32 = 3;

/// So much in the sockets is a window of clients that wait for us, and no backlog.
const SOCKET_BYTES_FEW: u64 = 512 * 1024;
/// So many batches of other shards are no backlog.
const BATCHES_FEW: u64 = 2;

#[cfg(test)]
mod tests;

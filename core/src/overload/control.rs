//! How much is taken: a step every [`Control::STEP`], from what was measured meanwhile.
//!
//! The aim is that what waits to be taken does not wait for longer than a target. Whoever measures says for how long more has
//! waited, in the server's own time: the time in which it was at work. A server from which the processor was taken away finds
//! more than it can do at once, and it is behind until that is done, but it is not overloaded: so nothing is refused before the
//! backlog has lasted for [`Control::PATIENCE`] of work and has not become less meanwhile, for less if it grows fast, and if it is
//! small (a server that is nearly full has one now and then) for [`Control::PATIENCE_SMALL`]. Phones that were told when to come
//! again come in waves, and each would fill the sockets anew for that time, so soon after an overload there is less patience:
//! [`MEMORY`].
//!
//! Clients that take part in RFC 7339 send less by themselves, but a little later, and what they do not send costs nothing. So for
//! them every step goes by what was measured, has its effect before the next one, and is taken back more slowly.
//!
//! | what waits | what is taken |
//! |---|---|
//! | no more than is done within the target | a thirty-second more; half of that if clients take part |
//! | more, and shrinks | as much as before |
//! | more, and grows, but not for long yet, and nothing is refused | everything |
//! | more, and grows, and nothing was refused before | less by the part that was too much meanwhile, an eighth at least |
//! | more, and grows, and clients take part | the same, once in [`HEEDED_AFTER`] |
//! | more, and grows | an eighth less; a quarter if it is grave and has lasted |
//! | more, and refusing has taken too much of the time | a thirty-second more: the socket is full then, and the kernel drops |
//!
//! Refusing has its bounds because it takes from what it is to protect (RFC 6357 §1): whoever refused three times what he can do
//! would do nothing else. Phones that are told when to come again are silent until then, so at first everybody is told, and that
//! may take half of the time: [`CREDIT`]. If that is used up and there are no fewer, they do not listen. Then refusing has an
//! eighth of the time; beyond it fewer refusals are answered, but some in any case, so that everybody is told in the end. If looking
//! alone takes too much, requests are [kept out](KeptOut) of the sockets, by the kernel and in the order of classes, at no cost
//! of ours. Not everything can be kept out: what trusted proxies bring that take part in RFC 7339, and what comes by
//! connections, is left to the kernel when it finds no room.
//!
//! How much is kept out rises by how much refusing takes too much, and falls the faster the longer everything that comes in is
//! done, within two seconds from the most to nothing. In between, while some of what comes in is refused, it stays, so that what
//! was kept out once is not let in when it is repeated.

use std::fmt;
use std::time::Duration;

use super::{KeptOut, Share, WHOLE};
use crate::Mono;

/// What a shard measured since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// For how much of its own time more has waited, without becoming less, than it does within its target; none: no more does.
    pub late: Option<Duration>,
    /// What says so.
    pub signals: Signals,
    /// Whether it is so much that nobody should wait for it to pass: several times the target, or more than there is room for.
    pub is_grave: bool,
    /// Whether more waits than at the last step.
    pub grows: bool,
    /// Of what came into the sockets while it was `late`, the part by which more waits now.
    pub excess: Share,
    /// The part of the time that went into refusing.
    pub refusing: Share,
    /// What of that went into what could have been kept out.
    pub avoidable: Share,
    /// Whether clients take part (RFC 7339): they send less when they are told to, but not at once.
    pub is_heeded: bool,
}

/// What says that more comes than can be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// What waits in the sockets would take longer than the target.
    pub sockets: bool,
    /// The kernel has dropped what found no room in a socket.
    pub drops: bool,
    /// The queues between the shards are half full.
    pub bus: bool,
    /// Watchers wait longer than the target to be told.
    pub fan_out: bool,
}

impl fmt::Display for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (self.sockets, "sockets"),
            (self.drops, "drops of the kernel"),
            (self.bus, "bus"),
            (self.fan_out, "fan-out"),
        ];
        let mut red = named.into_iter().filter(|it| it.0);
        f.write_str(red.next().map_or("nothing", |it| it.1))?;
        red.try_for_each(|it| write!(f, ", {}", it.1))
    }
}

/// How much a shard takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    taken: Share,
    answered: Share,
    /// How much more than its part refusing may take, in parts of steps.
    credit: Share,
    /// Whether that was used up, and has not been saved again.
    is_spent: bool,
    /// How much is kept out, a level of [`KeptOut`].
    kept_out: Share,
    /// The part of the time that went into what could have been kept out, the last steps the most.
    avoidable: Share,
    /// Steps for which everything that came in was taken while something was kept out.
    calm: u32,
    /// When something was refused last.
    refused: Option<Mono>,
    /// When it was decided last to take less.
    cut: Option<Mono>,
    /// When it was decided last not to take everything any more.
    began: Option<Mono>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            taken: WHOLE,
            answered: WHOLE,
            credit: CREDIT,
            is_spent: false,
            kept_out: 0,
            avoidable: 0,
            calm: 0,
            refused: None,
            cut: None,
            began: None,
        }
    }
}

impl Control {
    /// Time between two steps.
    pub const STEP: Duration = Duration::from_millis(10);

    /// The least that is taken, so that it never takes long to come back.
    pub const TAKEN_MIN: Share = WHOLE / 64;

    /// How long a server is at work on a backlog that does not become less before anything is refused: a moment in which it was
    /// held up, and a burst, are over by then. Less by the part that is too much: with three times what can be done, everybody
    /// waits for 100 ms after 50.
    pub const PATIENCE: Duration = Duration::from_millis(100);

    /// The same for a backlog that is not grave. Whoever has it would hardly notice; whoever is refused would.
    pub const PATIENCE_SMALL: Duration = Duration::from_secs(1);

    /// One step.
    pub fn step(&mut self, now: Mono, measured: &Measured) {
        let Measured { late, is_grave, grows, excess, refusing, avoidable, is_heeded, .. } = *measured;
        let patience = self.patience(now, is_grave, excess);
        self.credit = (self.credit + REFUSING_ANSWERED).saturating_sub(refusing).min(CREDIT);
        self.is_spent = self.credit == 0 || self.is_spent && self.credit < CREDIT;
        let bound = |then: Share| if self.is_spent { then } else { REFUSING_AT_FIRST };
        let [answered_bound, bound] = [REFUSING_ANSWERED, REFUSING_MAX].map(bound);
        if refusing > answered_bound {
            self.answered = (self.answered - self.answered / 4).max(ANSWERED_MIN);
        } else {
            self.answered = (self.answered + WHOLE / 32).min(WHOLE);
        }
        self.keep_out(avoidable, bound);
        let will_keep_out = avoidable > refusing / 2 && self.kept_out < KeptOut::LEVEL_MAX;
        let may_take_less = will_keep_out || refusing <= bound;
        let taken = self.taken;
        let changed = match late.filter(|_| may_take_less) {
            None if is_heeded => taken + (taken / 64).max(1),
            None => taken + (taken / 32).max(1),
            Some(late) if !grows || !self.is_refusing() && late < patience => taken,
            Some(_) if is_heeded && self.cut.is_some_and(|it| now.since(it) < HEEDED_AFTER) => taken,
            Some(_) if is_heeded || !self.is_refusing() => taken - part_of(taken, excess.max(WHOLE / 8)),
            Some(late) if !is_grave || late < 2 * Self::PATIENCE => taken - taken / 8,
            Some(_) => taken - taken / 4,
        };
        if changed < taken {
            self.cut = Some(now);
            if !self.is_refusing() {
                self.began = self.cut;
            }
        }
        self.taken = changed.clamp(Self::TAKEN_MIN, WHOLE);
        if self.is_refusing() {
            self.refused = Some(now);
        }
    }

    /// For how long a backlog may last: the shorter the faster it grows; after an overload a little at first, and all of it when
    /// that is forgotten.
    fn patience(&self, now: Mono, is_grave: bool, excess: Share) -> Duration {
        let whole = if is_grave {
            Self::PATIENCE * WHOLE.saturating_sub(excess) / WHOLE
        } else {
            Self::PATIENCE_SMALL
        };
        let forgotten = self.refused.map_or(MEMORY, |refused| now.since(refused).min(MEMORY));
        whole.mul_f64(forgotten.as_secs_f64() / MEMORY.as_secs_f64()).max(whole / 5)
    }

    /// Keeps out more, where refusing what could be kept out takes more of the time than `bound`, or less.
    fn keep_out(&mut self, avoidable: Share, bound: Share) {
        self.avoidable = self.avoidable - self.avoidable / SMOOTHED + avoidable / SMOOTHED;
        let more = self.avoidable.saturating_sub(bound) / 2;
        let takes_all = self.taken == WHOLE;
        self.calm = if takes_all && self.kept_out > 0 { self.calm + 1 } else { 0 };
        let has_room = takes_all || self.avoidable < REFUSING_ANSWERED / 4;
        let less = if has_room { KEPT_OUT_FALLS * (1 + self.calm / 4) } else { 0 };
        self.kept_out = (self.kept_out + more).min(KeptOut::LEVEL_MAX).saturating_sub(less);
    }

    /// The part of the requests that is taken.
    #[must_use]
    pub const fn taken(&self) -> Share {
        self.taken
    }

    /// The part of the refusals that are answered.
    #[must_use]
    pub const fn answered(&self) -> Share {
        self.answered
    }

    /// What is kept out of the sockets.
    #[must_use]
    pub fn kept_out(&self) -> KeptOut {
        KeptOut::of(self.kept_out)
    }

    /// Whether it is so new that not everything is taken that what comes was sent by clients who did not know it.
    #[must_use]
    pub fn is_news(&self, now: Mono) -> bool {
        self.began.is_some_and(|it| now.since(it) < HEEDED_AFTER)
    }

    /// Whether anything is refused or kept out.
    #[must_use]
    pub const fn is_refusing(&self) -> bool {
        self.taken < WHOLE || self.kept_out > 0
    }
}

fn part_of(taken: Share, part: Share) -> Share {
    (u64::from(taken) * u64::from(part) / u64::from(WHOLE)) as Share
}

/// How long clients that take part may need to send less: until the answers by which they are told have come to them, and what
/// they had sent by then to us.
const HEEDED_AFTER: Duration = Duration::from_millis(50);

/// How long an overload is remembered: about as long as the phones that were refused may stay away.
const MEMORY: Duration = Duration::from_secs(64);

/// The part of the time that may go into refusing without end; what is not used is saved.
const REFUSING_ANSWERED: Share = WHOLE / 8;

/// Most that is saved: 250 ms of nothing but refusing, in which some 50,000 phones are told.
const CREDIT: Share = WHOLE * (250 / Control::STEP.as_millis() as u32);

/// The part of the time that may go into refusing while something saved is left.
const REFUSING_AT_FIRST: Share = WHOLE / 2;

/// The part of the time that may go into refusing, when nothing is saved, before more is kept out.
const REFUSING_MAX: Share = WHOLE / 6;

/// The part of the refusals that are answered in any case.
const ANSWERED_MIN: Share = WHOLE / 16;

/// Steps over which the time that goes into refusing is smoothed; a step has only some batches.
const SMOOTHED: Share = 4;

/// By how much less is kept out in a step, at first.
const KEPT_OUT_FALLS: Share = WHOLE / 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overload::Kind;
    use proptest::prelude::*;

    /// How many steps what waits may wait.
    const TARGET_STEPS: f64 = 2.0;

    /// The same if it is grave.
    const GRAVE_STEPS: f64 = 5.0;

    /// A server with a queue, in steps: each request taken costs a unit, each refused and each answer to that a part of it.
    struct Server {
        control: Control,
        /// Units that can be done in a step.
        capacity: f64,
        /// Cost of taking a message from the queue and refusing it.
        refusal: f64,
        /// Cost of the answer to that.
        answer: f64,
        /// Most messages that wait; what comes beyond is lost.
        room: f64,
        /// Whether something can be kept out; kinds come equally often.
        can_keep_out: bool,
        waiting: f64,
        /// For how many steps too much has waited.
        late: Option<u32>,
        now: Mono,
    }

    /// What became of the requests of a step.
    #[derive(Clone, Copy, Default)]
    struct Done {
        served: f64,
        /// How long who came last will have waited, in steps.
        wait: f64,
    }

    impl Server {
        fn new(capacity: f64, refusal: f64, answer: f64) -> Self {
            Self {
                control: Control::default(),
                capacity,
                refusal,
                answer,
                room: 10.0 * capacity,
                can_keep_out: true,
                waiting: 0.0,
                late: None,
                now: Mono(0),
            }
        }

        fn step(&mut self, offered: f64) -> Done {
            let taken = f64::from(self.control.taken()) / f64::from(WHOLE);
            let answered = f64::from(self.control.answered()) / f64::from(WHOLE);
            let kept_out = Kind::ALL.map(|kind| f64::from(self.control.kept_out().share_of(kind)));
            let kept_out = kept_out.iter().sum::<f64>() / (kept_out.len() as f64 * f64::from(WHOLE));
            let offered = if self.can_keep_out { offered * (1.0 - kept_out) } else { offered };
            let refusing = (1.0 - taken) * (self.refusal + self.answer * answered);
            let before = self.waiting;
            let there = (self.waiting + offered).min(self.room);
            let drained = (self.capacity / (taken + refusing)).min(there);
            self.waiting = there - drained;
            let is_late = self.waiting > TARGET_STEPS * drained;
            self.late = is_late.then(|| self.late.map_or(0, |steps| steps + 1));
            let refusing = (drained * refusing / self.capacity * f64::from(WHOLE)) as Share;
            let measured = Measured {
                is_grave: self.waiting > GRAVE_STEPS * drained,
                late: self.late.map(|steps| Control::STEP * steps),
                grows: self.waiting >= before && self.waiting > 0.0,
                refusing,
                avoidable: if self.can_keep_out { refusing } else { 0 },
                ..Measured::default()
            };
            self.now = self.now + Control::STEP;
            self.control.step(self.now, &measured);
            Done { served: drained * taken, wait: self.waiting / drained.max(1.0) }
        }

        fn run(&mut self, offered: f64, steps: usize) -> Vec<Done> {
            (0..steps).map(|_| self.step(offered)).collect()
        }
    }

    fn grave(late: Duration, grows: bool) -> Measured {
        Measured { late: Some(late), is_grave: true, grows, ..Measured::default() }
    }

    fn mean(done: &[Done]) -> f64 {
        done.iter().map(|it| it.served).sum::<f64>() / done.len() as f64
    }

    #[test]
    fn at_three_times_capacity_refusing_leaves_time_for_work_and_nobody_waits() {
        // A SUBSCRIBE with its NOTIFY; a REGISTER, of which a refusal costs more than a tenth and its answer a third.
        // Where nothing can be kept out, because proxies bring it, the kernel drops.
        for (refusal, answer, can_keep_out, wait_max) in [
            (0.06, 0.14, true, 5.0),
            (0.15, 0.35, true, 5.0),
            (0.06, 0.14, false, 5.0),
            (0.15, 0.35, false, 10.0),
        ] {
            let mut server = Server { can_keep_out, ..Server::new(1000.0, refusal, answer) };
            server.run(500.0, 100);
            assert!(!server.control.is_refusing(), "half of it is done as ever");
            server.run(3000.0, 50);
            let done = server.run(3000.0, 1000);
            let goodput = mean(&done) / 1000.0;
            assert!(goodput >= 0.8, "{goodput} with {refusal} and {answer}, {can_keep_out}");
            let longest = done.iter().map(|it| it.wait).fold(0.0, f64::max);
            assert!(longest < wait_max, "{longest} steps with {refusal} and {answer}, {can_keep_out}");
            // Three seconds at half of the load, and nothing is refused any more.
            server.run(500.0, 300);
            assert!(!server.control.is_refusing());
        }
    }

    #[test]
    fn it_does_not_swing() {
        let mut server = Server::new(1000.0, 0.06, 0.14);
        server.run(1500.0, 300);
        let done = server.run(1500.0, 1000);
        let least = done.iter().map(|it| it.served).fold(f64::MAX, f64::min);
        assert!(least > 600.0, "{least}");
        assert!(mean(&done) > 850.0, "{}", mean(&done));
    }

    #[test]
    fn what_does_not_last_is_not_refused() {
        let mut control = Control::default();
        let late = |millis, grows| grave(Duration::from_millis(millis), grows);
        for millis in (10..100).step_by(10) {
            control.step(Mono(0), &late(millis, true));
        }
        control.step(Mono(0), &late(5000, false));
        assert!(!control.is_refusing(), "what shrinks is left to it");
        control.step(Mono(0), &late(100, true));
        assert_eq!(control.taken(), WHOLE - WHOLE / 8);
        control.step(Mono(0), &late(10, true));
        assert!(control.taken() < WHOLE - WHOLE / 8, "there is no patience with one who refuses already");
        control.step(Mono(0), &late(200, true));
        assert!(control.taken() < WHOLE - WHOLE / 3);
    }

    #[test]
    fn what_is_refused_first_is_what_was_too_much() {
        let taken_at = |excess| {
            let mut control = Control::default();
            control.step(Mono(0), &Measured { excess, ..grave(Control::PATIENCE, true) });
            control.taken()
        };
        assert_eq!(taken_at(WHOLE / 3 * 2), WHOLE - WHOLE / 3 * 2, "three times as much as can be done");
        assert_eq!(taken_at(WHOLE / 100), WHOLE - WHOLE / 8, "something in any case");
        assert_eq!(taken_at(WHOLE), Control::TAKEN_MIN);
    }

    #[test]
    fn what_grows_fast_is_given_less_time() {
        let is_refused = |excess, millis| {
            let mut control = Control::default();
            control.step(Mono(0), &Measured { excess, ..grave(Duration::from_millis(millis), true) });
            control.is_refusing()
        };
        assert!(!is_refused(WHOLE / 3 * 2, 33) && is_refused(WHOLE / 3 * 2, 34));
        assert!(!is_refused(WHOLE / 4, 74) && is_refused(WHOLE / 4, 75));
    }

    #[test]
    fn who_was_told_to_send_less_is_given_time_to_do_so() {
        let mut control = Control::default();
        let mut taken_at = |millis, excess| {
            let late = grave(Duration::from_millis(millis), true);
            control.step(Mono(1000 * millis), &Measured { is_heeded: true, excess, ..late });
            control.taken()
        };
        assert_eq!(taken_at(100, WHOLE / 2), WHOLE / 2);
        assert_eq!(taken_at(140, WHOLE / 2), WHOLE / 2);
        assert_eq!(taken_at(150, WHOLE / 4), WHOLE / 8 * 3);
        assert_eq!(taken_at(200, 0), WHOLE / 64 * 21, "an eighth");
        assert!(control.is_news(Mono(149_000)) && !control.is_news(Mono(150_000)));
        control.step(Mono(300_000), &Measured { is_heeded: true, ..Measured::default() });
        assert_eq!(control.taken(), WHOLE / 64 * 21 + WHOLE / 64 * 21 / 64, "nor do they send more at once");
    }

    #[test]
    fn a_small_backlog_is_given_a_second() {
        let mut control = Control::default();
        let small = |millis| Measured { is_grave: false, ..grave(Duration::from_millis(millis), true) };
        for millis in (10..1000).step_by(10) {
            control.step(Mono(0), &small(millis));
        }
        assert!(!control.is_refusing());
        control.step(Mono(0), &small(1000));
        assert_eq!(control.taken(), WHOLE - WHOLE / 8);
    }

    #[test]
    fn what_comes_soon_after_an_overload_is_refused_sooner() {
        let refused_after = |span: Duration, is_grave| {
            let mut control = Control::default();
            let whole = if is_grave { Control::PATIENCE } else { Control::PATIENCE_SMALL };
            control.step(Mono(0), &Measured { is_grave, ..grave(whole, true) });
            assert!(control.is_refusing());
            (0..100).for_each(|_| control.step(Mono(0), &Measured::default()));
            assert!(!control.is_refusing());
            let again = Mono(0) + span;
            let step = |millis| {
                let mut then = control;
                then.step(again, &Measured { is_grave, ..grave(Duration::from_millis(millis), true) });
                then.is_refusing()
            };
            (0..=1000).find(|&millis| step(millis)).expect("in the end")
        };
        for (secs, is_grave, expected) in [
            (0, true, 20),
            (10, true, 20),
            (32, true, 50),
            (64, true, 100),
            (600, true, 100),
            (32, false, 500),
        ] {
            assert_eq!(refused_after(Duration::from_secs(secs), is_grave), expected, "after {secs} s");
        }
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(Signals::default().to_string(), "nothing");
        assert_eq!(
            Signals { drops: true, fan_out: true, ..Signals::default() }.to_string(),
            "drops of the kernel, fan-out"
        );
    }

    proptest! {
        #[test]
        fn whatever_came_it_recovers(steps in prop::collection::vec((0_u64..5000, any::<bool>(), 0..=WHOLE, any::<bool>()), 0..200)) {
            let mut control = Control::default();
            for (late, grows, refusing, is_avoidable) in steps {
                let avoidable = if is_avoidable { refusing } else { 0 };
                control.step(Mono(0), &Measured { refusing, avoidable, ..grave(Duration::from_millis(late), grows) });
                prop_assert!((Control::TAKEN_MIN..=WHOLE).contains(&control.taken()));
                prop_assert!(control.answered() <= WHOLE);
            }
            for _ in 0..400 {
                control.step(Mono(0), &Measured::default());
            }
            prop_assert!(!control.is_refusing() && control.answered() == WHOLE, "four seconds");
        }

        #[test]
        fn what_grows_for_longer_is_taken_less(a in 0_u64..500, b in 0_u64..500) {
            let after = |late| {
                let mut control = Control::default();
                control.step(Mono(0), &grave(Duration::from_millis(late), true));
                control.taken()
            };
            prop_assert!(after(a.max(b)) <= after(a.min(b)));
        }
    }
}

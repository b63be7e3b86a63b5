//! What a shard takes and what it refuses when more comes than can be done. `comsipl_core::overload` decides; here it is asked
//! for each message, and the shards tell one another how much each takes, so that whoever reads a request off a socket refuses
//! it in the name of its owner before it is handed over.
//!
//! A request is judged once. Its lot is drawn from the hash of its transaction, under a key that is drawn anew for each time of
//! overload, so that nobody can choose a branch that is always taken; and the judgement is [written down](Fates), so that a
//! repetition fares as the request did, whatever is taken meanwhile. That is looked up first, and who is refused by every shard
//! is refused before anybody asks whose he is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use comsipl_core::overload::{
    Class, Control, Cut, Fate, Fates, Feedback, KeptOut, Measured, Mix, Offer, Refused, Share, Signals, WHOLE,
};
use comsipl_core::transaction::TIMER_J;
use comsipl_core::{Flow, Mono, Now, UnixMillis};
use crossbeam::utils::CachePadded;

use crate::access::IpRange;
use crate::ahead::Ahead;
use crate::counters::Counters;
use crate::load::Refusals;
use crate::reply::{answer_flow, branch_key};
use crate::shard::{Owner, Shard};

/// How much each shard of a node takes; written by each for itself, read by all.
#[derive(Debug)]
pub struct Levels {
    taken: Box<[CachePadded<AtomicU32>]>,
    /// A bit for each shard that does not take everything.
    refusing: AtomicU64,
    /// What clients are told: `seq_ms` above [`LOSS_BITS`] bits of `loss_percent`.
    feedback: AtomicU64,
}

impl Levels {
    /// Levels of `shards` shards that take everything.
    #[must_use]
    pub fn new(shards: usize, wall: UnixMillis) -> Self {
        Self {
            taken: (0..shards).map(|_| CachePadded::new(AtomicU32::new(WHOLE))).collect(),
            refusing: AtomicU64::new(0),
            feedback: AtomicU64::new(wall.0 << LOSS_BITS),
        }
    }

    /// A shard says how much it takes from now on.
    pub fn tell(&self, shard: usize, taken: Share, wall: UnixMillis) {
        self.taken[shard].store(taken, Ordering::Relaxed);
        let bit = 1 << shard;
        if taken < WHOLE {
            self.refusing.fetch_or(bit, Ordering::Relaxed);
        } else if self.refusing.load(Ordering::Relaxed) & bit != 0 {
            self.refusing.fetch_and(!bit, Ordering::Relaxed);
        }
        // Requests are spread over the shards by hashes, so a client that sends less sends less to each.
        let refused: u64 = self.taken.iter().map(|it| u64::from(WHOLE - it.load(Ordering::Relaxed))).sum();
        let all = self.taken.len() as u64 * u64::from(WHOLE);
        let loss_percent = (refused * 100).div_ceil(all) as u8;
        let _ = self.feedback.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |told| {
            let told = unpack(told);
            let age = wall.0.saturating_sub(told.seq_ms);
            let is_news = told.loss_percent != loss_percent;
            // One that stays the same must be said anew before it ends (RFC 7339 §5.4).
            let is_due = loss_percent != 0 && age >= FEEDBACK_RENEWED_MS;
            (is_news || is_due).then(|| {
                // RFC 7339 §4.4: it only increases, whatever the clock does.
                let seq_ms = wall.0.max(told.seq_ms + 1);
                seq_ms << LOSS_BITS | u64::from(loss_percent)
            })
        });
    }

    /// Whether a shard does not take everything.
    #[must_use]
    pub fn is_any_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed) != 0
    }

    /// What clients that take part are told.
    #[must_use]
    pub fn feedback(&self) -> Feedback {
        unpack(self.feedback.load(Ordering::Relaxed))
    }

    fn taken(&self, shard: usize) -> Share {
        self.taken[shard].load(Ordering::Relaxed)
    }
}

fn unpack(told: u64) -> Feedback {
    Feedback { loss_percent: (told & ((1 << LOSS_BITS) - 1)) as u8, seq_ms: told >> LOSS_BITS }
}

/// A shard's own part of overload control.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) levels: Arc<Levels>,
    control: Control,
    mix: Mix,
    /// For each owner, what is taken.
    cuts: Vec<Cut>,
    /// What anybody takes.
    widest: Cut,
    fates: Fates,
    /// Part of the key of the lots.
    salt: [u8; 4],
    /// Refusals in the outbox.
    refusals: Refusals,
    /// When this shard began to refuse, and when it did last.
    episode: Option<Episode>,
    /// For each range of trusted proxies, when a request came from there last whose sender takes part (RFC 7339).
    taking_part: Vec<Option<Mono>>,
}

/// A time in which a shard refuses; short pauses do not end it.
#[derive(Clone, Copy, Debug)]
struct Episode {
    began: Mono,
    last: Mono,
    /// What had been refused before.
    refused_before: u64,
}

impl Overload {
    pub(crate) fn new(levels: Arc<Levels>, trusted_ranges: usize) -> Self {
        let cuts = vec![Cut::NONE; levels.taken.len()];
        Self {
            levels,
            control: Control::default(),
            mix: Mix::default(),
            cuts,
            widest: Cut::NONE,
            fates: Fates::default(),
            salt: [0; 4],
            refusals: Refusals::default(),
            episode: None,
            taking_part: vec![None; trusted_ranges],
        }
    }
}

impl Shard {
    /// Whether any shard refuses anything at present.
    #[inline]
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.overload.levels.is_any_refusing()
    }

    /// Whether messages must be asked about by [`Self::owner_if_taken`] at present: while anything is refused, and for as long
    /// as what was refused may be sent again.
    #[inline]
    pub fn is_judging(&mut self, now: Mono) -> bool {
        self.is_refusing() || self.overload.fates.remembers(now)
    }

    /// Whose a message is, if it is taken; if not, it has been answered, or it is dropped.
    pub fn owner_if_taken(&mut self, now: Mono, flow: Flow, bytes: &[u8]) -> Option<Owner> {
        let offer = Offer::of(bytes);
        // Line ends by which phones keep their bindings open cost nothing.
        if bytes.len() <= KEEP_ALIVE_LEN_MAX || offer.class.is_always_taken() {
            self.overload.mix.count(offer.class);
            return Some(self.owner_of(bytes));
        }
        let [identity, more] = offer.identity();
        let hash = self.keys.of(&[&self.overload.salt, identity, more]);
        // Over connections nothing is sent again.
        let fate = if flow.transport.is_stream() { None } else { self.overload.fates.find(hash) };
        let fate = match fate {
            Some(Fate::Refused) => {
                self.counters.refused_again.up();
                Fate::Refused
            }
            Some(Fate::Taken) => Fate::Taken,
            None if !self.is_refusing() => {
                // So that the next refusal, if it comes, knows what there is to choose from.
                self.overload.mix.count(best_class_of(&offer));
                Fate::Taken
            }
            None => {
                let owner = self.judge(now, flow, &offer, bytes, hash as u16);
                if !flow.transport.is_stream() {
                    let fate = if owner.is_some() { Fate::Taken } else { Fate::Refused };
                    self.overload.fates.note(now, hash, fate);
                }
                if owner.is_some() {
                    return owner;
                }
                Fate::Refused
            }
        };
        if fate == Fate::Taken {
            return Some(self.owner_of(bytes));
        }
        self.refuse_offer(now, flow, &offer);
        None
    }

    /// Decides on a request that was not seen before: whose it is, if it is taken.
    fn judge(&mut self, now: Mono, flow: Flow, offer: &Offer<'_>, bytes: &[u8], lot: u16) -> Option<Owner> {
        // Whoever is refused as the better one would be as the worse.
        let mut class = best_class_of(offer);
        let mut owner = None;
        if self.overload.widest.takes(class, lot) {
            let it = self.owner_of(bytes);
            class = self.class_of(offer, it.or(self.index));
            owner = self.overload.cuts[it.or(self.index)].takes(class, lot).then_some(it);
        }
        self.overload.mix.count(class);
        if owner.is_none() && (self.has_reduced(now, flow, offer) || self.has_answered(now, flow, offer)) {
            owner = Some(self.owner_of(bytes));
        }
        if owner.is_none() {
            self.count_refused(class);
        }
        owner
    }

    /// Whether a request comes from a client that takes part, which has thrown away on its own what it was told to, if it can know
    /// of it.
    fn has_reduced(&mut self, now: Mono, flow: Flow, offer: &Offer<'_>) -> bool {
        let Some(range) = self.settings.access.trusted_range(flow.peer.ip()) else { return false };
        if !offer.takes_part() {
            return false;
        }
        self.overload.taking_part[range] = Some(now);
        let control = &self.overload.control;
        control.taken() > TRUST_ENDS_AT && !control.is_news(now)
    }

    /// Whether a request that is about to be refused has been answered before anything was refused, as far as this shard knows:
    /// then it came again because the answer was lost, and gets it again.
    fn has_answered(&self, now: Mono, flow: Flow, offer: &Offer<'_>) -> bool {
        let is_early = self.overload.episode.is_none_or(|episode| now.since(episode.began) < TIMER_J);
        let Some(via) = offer.via().filter(|_| is_early && !flow.transport.is_stream()) else { return false };
        let key = branch_key(&self.keys, &via, offer.method_text());
        key.is_some_and(|key| self.transactions.find(key).is_some())
    }

    /// Answers a request that is refused, or not, if that would take too much time.
    fn refuse_offer(&mut self, now: Mono, flow: Flow, offer: &Offer<'_>) {
        // Silence saves time where time is short. What is only refused because it was refused before comes until it is answered.
        let answered = if self.is_refusing() { self.overload.control.answered() } else { WHOLE };
        let is_dropped =
            !flow.transport.is_stream() && answered < WHOLE && self.chance.below(WHOLE) >= answered;
        let via = if is_dropped { None } else { offer.via() };
        let Some(via) = via else {
            self.counters.refused_unanswered.up();
            return;
        };
        let is_trusted = self.settings.access.trusts(flow.peer.ip());
        let retry_after_secs = (!is_trusted).then(|| self.draw_retry_after());
        let to = answer_flow(&via, flow);
        let (source, feedback) = (flow.peer, self.feedback());
        let refused = Refused { source, feedback, retry_after_secs, run: self.outbox.run_to(&to) };
        let mut is_written = false;
        self.outbox.send(to, |out| is_written = offer.push_refusal(out, &via, &refused));
        if is_written {
            self.overload.refusals.count(self.can_keep_out(now, &flow));
        } else {
            self.outbox.take_back(&mut self.bodies);
            self.counters.refused_unanswered.up();
        }
    }

    /// A step of the control, every [`Control::STEP`] while something is refused or what waits stands for long. Returns how much
    /// is taken from now on.
    pub fn step_load(&mut self, now: Now, measured: &Measured) -> Share {
        let Self { overload, index, chance, .. } = self;
        let was_refusing = overload.levels.is_any_refusing();
        overload.control.step(now.mono, measured);
        overload.levels.tell(*index, overload.control.taken(), now.wall);
        let own = overload.control.taken();
        for (owner, cut) in overload.cuts.iter_mut().enumerate() {
            // What another shard would take costs us to hand it over.
            *cut = Cut::of(overload.levels.taken(owner).min(own), &overload.mix);
        }
        overload.widest = overload.cuts.iter().fold(overload.cuts[0], |widest, cut| widest.or(cut));
        overload.mix.age();
        if !was_refusing && !overload.fates.remembers(now.mono) {
            overload.salt = chance.below(u32::MAX).to_le_bytes();
        }
        self.tell_episode(now, measured.signals);
        own
    }

    /// What clients that take part are told; nothing if overload is not controlled.
    pub(crate) fn feedback(&self) -> Option<Feedback> {
        self.settings.overload.is_controlled.then(|| self.overload.levels.feedback())
    }

    /// Whether what comes so can be kept out of the sockets: datagrams, but for those of trusted proxies that take part.
    #[must_use]
    pub fn can_keep_out(&self, now: Mono, flow: &Flow) -> bool {
        let range = || self.settings.access.trusted_range(flow.peer.ip());
        !flow.transport.is_stream() && range().is_none_or(|range| !self.takes_part(now, range))
    }

    /// The ranges of trusted proxies from which nothing is to be kept out: those where one takes part, which sends less by itself.
    pub fn let_in(&self, now: Mono) -> impl Iterator<Item = IpRange> {
        let ranges = self.settings.access.trusted.iter().enumerate();
        ranges.filter(move |&(range, _)| self.takes_part(now, range)).map(|(_, &it)| it)
    }

    fn takes_part(&self, now: Mono, range: usize) -> bool {
        self.overload.taking_part[range].is_some_and(|last| now.since(last) < TAKING_PART)
    }

    /// What is to be kept out of this shard's sockets.
    #[must_use]
    pub fn kept_out(&self) -> KeptOut {
        self.overload.control.kept_out()
    }

    /// How many refusals were written since this was asked last.
    pub fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.overload.refusals)
    }

    /// The class of a message, as far as this shard can tell.
    fn class_of(&mut self, offer: &Offer<'_>, owner: usize) -> Class {
        if offer.class != Class::Register {
            return offer.class;
        }
        if owner != self.index {
            // Its owner would know. Most REGISTERs are of users who are registered.
            return Class::Reregister;
        }
        let key = match self.ahead {
            Some(Ahead::Bindings(key)) => Some(key),
            // One shard does not look for owners.
            _ => offer.to_uri().and_then(|uri| self.keys.aor_of_uri(uri, &mut self.scratch.aor)),
        };
        let Some(key) = key else { return Class::Register };
        let user = self.presentities.find(key);
        let is_known = user.is_some_and(|user| self.presentities.bindings_of(user).next().is_some());
        if is_known { Class::Reregister } else { Class::Register }
    }

    /// When a user agent is to try again, in seconds: the later the more is refused, and never all at once (RFC 3261 §21.5.4).
    fn draw_retry_after(&mut self) -> u32 {
        let refused = WHOLE - self.overload.control.taken();
        let span =
            RETRY_SPAN_MIN_SECS + (u64::from(refused) * u64::from(RETRY_SPAN_SECS) / u64::from(WHOLE)) as u32;
        RETRY_MIN_SECS + self.chance.below(span)
    }

    fn count_refused(&self, class: Class) {
        let counters = &self.counters;
        match class {
            Class::Answer | Class::End => debug_assert!(false, "these are always taken"),
            Class::Refresh => counters.refused_refreshes.up(),
            Class::Reregister => counters.refused_reregisters.up(),
            Class::Register => counters.refused_registers.up(),
            Class::Publish => counters.refused_publishes.up(),
            Class::Subscribe => counters.refused_subscribes.up(),
            Class::Poll => counters.refused_polls.up(),
        }
    }

    /// Says in the log when refusing begins and when it has ended, once each.
    fn tell_episode(&mut self, now: Now, signals: Signals) {
        let shard = self.index;
        let is_refusing = self.overload.control.is_refusing();
        self.counters.shards_refusing.set(u64::from(is_refusing));
        let refused = refused_in_all(&self.counters);
        match &mut self.overload.episode {
            None if is_refusing => {
                self.overload.episode =
                    Some(Episode { began: now.mono, last: now.mono, refused_before: refused });
                tracing::warn!(shard, red = %signals, "overloaded: what is worth least is refused with 503");
            }
            Some(episode) if is_refusing => episode.last = now.mono,
            &mut Some(Episode { began, last, refused_before }) if now.mono.since(last) >= EPISODE_PAUSE => {
                self.overload.episode = None;
                let secs = last.since(began).as_secs_f32();
                tracing::info!(shard, secs, refused = refused - refused_before, "no longer overloaded");
            }
            _ => {}
        }
    }

    /// Whether the end of an overload is still to be told, for which steps go on.
    #[must_use]
    pub fn is_in_episode(&self) -> bool {
        self.overload.episode.is_some()
    }
}

/// The class of a request, or the better one where only its owner knows: of a REGISTER.
fn best_class_of(offer: &Offer<'_>) -> Class {
    if offer.class == Class::Register { Class::Reregister } else { offer.class }
}

fn refused_in_all(counters: &Counters) -> u64 {
    [
        &counters.refused_refreshes,
        &counters.refused_reregisters,
        &counters.refused_registers,
        &counters.refused_publishes,
        &counters.refused_subscribes,
        &counters.refused_polls,
    ]
    .into_iter()
    .map(crate::counters::Counter::get)
    .sum()
}

/// Bits of the loss in what clients are told.
const LOSS_BITS: u32 = 7;

/// How often a loss that stays the same is said anew: a fifth of its validity.
const FEEDBACK_RENEWED_MS: u64 = comsipl_core::overload::VALIDITY_MS as u64 / 5;

/// Line ends by which phones keep their bindings open are taken: they cost nothing.
const KEEP_ALIVE_LEN_MAX: usize = 4;

/// A client that takes part is believed to send less for as long as more than this is taken.
const TRUST_ENDS_AT: Share = WHOLE / 8;

/// For how long a range of trusted proxies counts as one where they take part, after a request said so that was about to be
/// refused.
const TAKING_PART: Duration = Duration::from_secs(64);

/// Retry-After: at least so long; within at least such a span, and one so much longer if everything is refused.
const RETRY_MIN_SECS: u32 = 5;
const RETRY_SPAN_MIN_SECS: u32 = 10;
const RETRY_SPAN_SECS: u32 = 50;

/// For how long nothing is refused when an overload has ended.
const EPISODE_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::engine::{Engine, by_udp, publish};

    #[test]
    fn what_was_refused_in_silence_is_answered_when_there_is_time_again() {
        // A proxy sent again what was refused in an overload, and for half a minute more hardly any of it was answered, though
        // there was nothing else to do: how much is answered stayed as it was at the end of the overload.
        let mut engine = Engine::new();
        let now = engine.now;
        let step = |engine: &mut Engine, refusing| {
            let late = Some(Duration::from_secs(1));
            let measured = Measured { late, is_grave: true, grows: true, refusing, ..Measured::default() };
            engine.shard.step_load(now, &measured)
        };
        while step(&mut engine, 0) > Control::TAKEN_MIN {}
        for _ in 0..20 {
            step(&mut engine, WHOLE);
        }
        let requests: Vec<_> = (0..64).map(|n| publish(n, "open").replace('\n', "\r\n")).collect();
        let deliver = |engine: &mut Engine| {
            for request in &requests {
                let owner = engine.shard.owner_if_taken(now.mono, by_udp(), request.as_bytes());
                assert!(owner.is_none(), "it is refused, whatever is taken meanwhile");
            }
            engine.turn().len()
        };
        let answered = deliver(&mut engine);
        assert!(answered < 32, "{answered}: there was no time");
        while step(&mut engine, WHOLE) < WHOLE {}
        assert_eq!(deliver(&mut engine), 64);
    }

    #[test]
    fn what_a_proxy_brings_is_let_in_while_it_takes_part() {
        let proxy: IpRange = "192.0.2.0/24".parse().unwrap();
        let mut engine = Engine::trusting(&["198.51.100.0/24".parse().unwrap(), proxy]);
        let late = Some(Duration::from_secs(1));
        let measured = Measured { late, is_grave: true, grows: true, ..Measured::default() };
        while engine.shard.step_load(engine.now, &measured) > Control::TAKEN_MIN {}
        let mut bring = |n, via: &str, at: Mono| {
            let text =
                publish(n, "open").replace('\n', "\r\n").replacen(";branch", &format!("{via};branch"), 1);
            let owner = engine.shard.owner_if_taken(at, by_udp(), text.as_bytes());
            assert!(owner.is_none(), "so little is taken that it is refused");
            let let_in: Vec<_> = engine.shard.let_in(at).collect();
            assert_eq!(engine.shard.can_keep_out(at, &by_udp()), let_in.is_empty());
            let_in
        };
        let at = engine.now.mono;
        assert_eq!(bring(0, "", at), [], "trusted, and it does not say that it takes part");
        assert_eq!(bring(1, ";oc;oc-algo=\"loss\"", at), [proxy]);
        assert_eq!(bring(2, "", at + TAKING_PART / 2), [proxy], "another one of the same range");
        assert_eq!(bring(3, "", at + TAKING_PART), []);
    }

    #[test]
    fn what_clients_are_told_only_grows_and_is_said_anew() {
        let levels = Levels::new(2, UnixMillis(5000));
        assert_eq!(levels.feedback(), Feedback { loss_percent: 0, seq_ms: 5000 });
        levels.tell(0, WHOLE, UnixMillis(9000));
        assert_eq!(levels.feedback().seq_ms, 5000, "nothing is new");
        assert!(!levels.is_any_refusing());
        levels.tell(0, WHOLE / 2, UnixMillis(6000));
        assert_eq!(levels.feedback(), Feedback { loss_percent: 25, seq_ms: 6000 }, "half of one of two");
        assert!(levels.is_any_refusing());
        levels.tell(1, WHOLE, UnixMillis(6099));
        assert_eq!(levels.feedback().seq_ms, 6000);
        levels.tell(1, WHOLE, UnixMillis(6100));
        assert_eq!(levels.feedback(), Feedback { loss_percent: 25, seq_ms: 6100 });
        levels.tell(0, WHOLE, UnixMillis(100));
        assert_eq!(levels.feedback(), Feedback { loss_percent: 0, seq_ms: 6101 }, "the clock went back");
        assert!(!levels.is_any_refusing());
        levels.tell(0, WHOLE - 1, UnixMillis(7000));
        assert_eq!(levels.feedback().loss_percent, 1, "a little is not nothing");
    }
}

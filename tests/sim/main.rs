//! Seeded simulation: phones that do what phones do, over a network that does what networks do, against a server that
//! crashes now and then – checked against what each phone was promised.
//!
//! `COMSIPL_SIM_SEED=n` plays one seed, `COMSIPL_SIM_SEEDS=count` as many from zero (or from n) on. A failure names its seed and the
//! last messages; the same seed fails again in the same way.
//!
//! A run has rounds. In each there is first a wild time (losses, doubles, disorder, phones that do not answer; the process is
//! killed, the power fails and leaves of the files what was on disk, the clock is set, another number of shards starts),
//! then a calm one: the network is perfect and the phones are polite, so that within bounded time
//!   * each live watcher's newest document equals what is published ([`Simulation::check_documents`], every few seconds);
//!   * the registrar lists what is registered;
//!   * every subscription that was promised can be refreshed.
//!
//! At every step, wild or calm, [`Witness`] looks at every message, and what the server counts adds up
//! ([`World::check_counters`]). At the end everything runs out, and both files must be empty.
//!
//! What a power cut may take is what was answered since the last sync, and what the server changed since: a phone calls that
//! *shaky* until the server confirms it. Whatever is older must be there, CSeqs and versions never go back, and once the server is
//! up again its watchers are told what it has.

mod phone;
mod seeds;
mod witness;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use comsipl_core::{Chance, Transport};
use comsipl_shards::settings::{Auth, ExpiryPolicy, RegisteredState, Settings, Unregistered};
use comsipl_tests::scenario::said;
use comsipl_tests::world::sip_text::SipText;
use comsipl_tests::world::{
    Bytes, Crash, Happening, Network, Power, RecordsInUse, SERVER, Setup, World, listeners_of_all,
};

use phone::{ClockStep, LONGEST, Manner, Package, Phone, Purpose, Stage};
use seeds::Story;
use witness::Witness;

#[test]
fn promises_are_kept_whatever_happens() {
    seeds::play_all(SEEDS, Simulation::run);
}

#[test]
fn a_seed_replays_exactly() {
    let story = |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.play().map(|()| simulation.world.story())
    };
    assert_eq!(story(7), story(7));
}

/// One run.
struct Simulation {
    world: World,
    chance: Chance,
    phones: Vec<Phone>,
    witness: Witness,
    users: usize,
    crashes: u32,
    /// Phones misbehave.
    wild: bool,
    /// The end of the last wild time.
    calm_since: Duration,
    /// Since then the network was perfect and the server up.
    quiet_since: Duration,
    /// By how much the server's clock was set back, all in all.
    stepped_back: Duration,
    /// All phones have been thrown away: nobody answers.
    over: bool,
}

/// How the server ends.
#[derive(Clone, Copy)]
struct Trouble {
    crash_at: Duration,
    /// The power fails.
    power: bool,
    /// When the files are synced for the last time before that, if they have not been.
    sync_at: Option<Duration>,
}

impl Simulation {
    fn run(seed: u64, story: Story) -> Result<(), String> {
        let mut simulation = Self::new(seed);
        if story == Story::Whole {
            simulation.world.keep_whole_story();
        }
        let played = catch_unwind(AssertUnwindSafe(|| simulation.play()))
            .unwrap_or_else(|panic| Err(said(panic.as_ref())));
        played.map_err(|why| {
            format!("at {:?}: {why}\n\nWhat happened:\n{}", simulation.world.now(), simulation.world.story())
        })
    }

    fn new(seed: u64) -> Self {
        let mut bytes = [0x5a; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut chance = Chance::from_seed(bytes);
        let policy = ExpiryPolicy { min_secs: 30, default_secs: 300, max_secs: 900 };
        let settings = Settings {
            listen: listeners_of_all(),
            auth: Auth::None,
            registration: policy,
            publication: policy,
            subscription: policy,
            registered_state: if chance.below(4) == 0 {
                RegisteredState::Open
            } else {
                RegisteredState::Closed
            },
            notify_interval: Duration::from_secs(u64::from(chance.below(4) / 3 * 2)),
            unregistered: if chance.below(2) == 0 { Unregistered::Keep } else { Unregistered::Offline },
            offline_hold: Duration::from_secs([0, 5, 30][chance.below(3) as usize]),
            notifies_per_turn: 1 + chance.below(16) as usize,
            ..Setup::default().settings
        };
        let setup = Setup {
            shards: 1 + chance.below(4) as usize,
            settings,
            network: Network::PERFECT,
            bus_delay_max: Duration::from_micros(u64::from(chance.below(3) * 2000)),
            turn_delay_max: Duration::from_micros(u64::from(chance.below(3) * 1500)),
            seed,
        };
        let users = 1 + chance.below(4) as usize;
        let phones = 2 + chance.below(4) as usize;
        let phones = (0..phones).map(|n| Phone::new(n, n % users, chance.below(3) == 0)).collect();
        Self {
            world: World::new(setup),
            chance,
            phones,
            witness: Witness::default(),
            users,
            crashes: 0,
            wild: false,
            calm_since: Duration::ZERO,
            quiet_since: Duration::ZERO,
            stepped_back: Duration::ZERO,
            over: false,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            self.wild_time()?;
            self.calm_time()?;
        }
        self.farewell()
    }

    fn wild_time(&mut self) -> Result<(), String> {
        let chance = &mut self.chance;
        self.world.set_network(Network {
            loss_permille: [0, 50, 150, 300][chance.below(4) as usize],
            duplicate_permille: [0, 100, 300][chance.below(3) as usize],
            delay_min: Duration::from_micros(u64::from(chance.below(2000))),
            delay_max: [Duration::from_millis(3), Duration::from_millis(60), DELAY_MAX]
                [chance.below(3) as usize],
        });
        self.wild = true;
        let end = self.world.now() + Duration::from_secs(u64::from(20 + self.chance.below(60)));
        let mut trouble = self.plan_crash(end);
        while self.world.now() < end {
            let pause = Duration::from_millis(u64::from(10 + self.chance.below(2000)));
            let until = (self.world.now() + pause).min(end);
            match trouble {
                Some(Trouble { sync_at: Some(at), .. }) if at <= until => {
                    self.advance(at)?;
                    self.world.sync();
                    trouble = trouble.map(|it| Trouble { sync_at: None, ..it });
                }
                Some(Trouble { crash_at, power, .. }) if crash_at <= until => {
                    self.advance(crash_at)?;
                    // The process may be killed first. Then what it left is not on disk either when the power fails.
                    let is_killed_first = power && self.chance.below(3) == 0;
                    self.crash(power && !is_killed_first);
                    trouble = if is_killed_first {
                        let crash_at = crash_at + Duration::from_millis(u64::from(self.chance.below(20_000)));
                        (crash_at < end).then_some(Trouble { crash_at, power, sync_at: None })
                    } else if self.chance.below(4) == 0 {
                        self.plan_crash(end)
                    } else {
                        None
                    };
                }
                _ => {
                    self.advance(until)?;
                    if self.chance.below(4) == 0 {
                        self.connect_phones();
                    }
                    if self.chance.below(CLOCK_SET_ONE_IN) == 0 {
                        self.world.set_wall_clock(clock_step(&mut self.chance));
                    }
                    if trouble.is_some_and(|it| it.power && it.sync_at.is_none()) && self.chance.below(2) == 0
                    {
                        self.world.write_back();
                    }
                    self.act();
                }
            }
        }
        self.wild = false;
        self.calm_since = self.world.now();
        self.quiet_since = self.calm_since;
        Ok(())
    }

    /// Every other time the server ends before `end`.
    fn plan_crash(&mut self, end: Duration) -> Option<Trouble> {
        let chance = &mut self.chance;
        if chance.below(2) == 0 {
            return None;
        }
        let now = self.world.now();
        let crash_at = now + Duration::from_millis(u64::from(chance.below(40_000)));
        let power = chance.below(2) == 0;
        // Mostly within a sync interval; the disk may also have failed to sync for a while.
        let unsynced = if chance.below(4) == 0 { chance.below(20_000) } else { chance.below(1000) };
        let sync_at = crash_at.saturating_sub(Duration::from_millis(unsynced.into())).max(now);
        let sync_at = power.then_some(sync_at);
        (crash_at < end).then_some(Trouble { crash_at, power, sync_at })
    }

    /// Ends the server's process, at once or with its next answer in hand. It stays away for longer than anything is on
    /// its way, because a copy of an old PUBLISH that outlives the memory of it is a new PUBLISH (RFC 3903 has no order).
    fn crash(&mut self, power: bool) {
        let chance = &mut self.chance;
        let down = DELAY_MAX + Duration::from_millis(u64::from(chance.below(3000)));
        let shards = 1 + chance.below(4) as usize;
        let clock_step_ms = if chance.below(4) == 0 { clock_step(chance) } else { 0 };
        let power = if power { Power::Fails } else { Power::Stays };
        let crash = Crash { down, shards: Some(shards), power, clock_step_ms };
        if chance.below(3) == 0 {
            self.world.crash_before_next_send(crash);
        } else {
            self.world.crash(crash);
        }
    }

    fn calm_time(&mut self) -> Result<(), String> {
        self.world.set_network(Network::PERFECT);
        let start = self.world.now();
        for phone in &mut self.phones {
            phone.mute_until = phone.mute_until.min(start);
        }
        // A crash that waits for something to be sent may come yet; later it would come into the questions below.
        self.sweep(start + Duration::from_secs(40))?;
        self.world.spare();
        // Timer F, the pause of a suspect subscription, and the transaction after it.
        self.sweep(start + Duration::from_secs(110))?;
        self.check_documents(false)?;
        if let Some(phone) = self.phones.iter().find(|p| p.is_waiting()) {
            return Err(format!("phone {} waits for an answer over a perfect network", phone.number));
        }
        self.witness.check_all_answered()?;
        self.check_bindings()?;
        self.refresh_subscriptions()
    }

    /// Lets the world go on until a moment, and looks every few seconds whether all who can be told have been.
    fn sweep(&mut self, until: Duration) -> Result<(), String> {
        while self.world.now() < until {
            let pause = Duration::from_millis(u64::from(500 + self.chance.below(5000)));
            self.advance((self.world.now() + pause).min(until))?;
            if self.world.now() >= self.quiet_since + TOLD_WITHIN {
                self.check_documents(true)?;
            }
        }
        Ok(())
    }

    /// Each live watcher's newest document says what is published. `early`: only watchers without any trouble lately.
    fn check_documents(&self, early: bool) -> Result<(), String> {
        let now = self.world.now();
        for phone in &self.phones {
            for watch in &phone.watches {
                let live = watch.stage == Stage::Live && watch.ends.surely_runs(now) && !watch.is_shaky;
                let patience = if phone.streams { PATIENCE_OVER_CONNECTION } else { PATIENCE };
                let lately = self.calm_since.saturating_sub(patience);
                let patient = early && (watch.trouble > lately || phone.is_waiting());
                // Without its connection, or before it has registered on a new one, it cannot be told.
                let reachable = !phone.streams || phone.is_bound_here;
                if !live || patient || !reachable || self.witness.is_troubled(now, &watch.call_id, &watch.tag)
                {
                    continue;
                }
                let name = format!("{} of phone {}, watching u{}", watch.call_id, phone.number, watch.whom);
                if !watch.told {
                    return Err(format!("{name}, was never told anything"));
                }
                let (required, allowed) = self.tokens(watch.whom, now, early);
                let there: BTreeSet<String> = watch.tokens.iter().cloned().collect();
                if self.may_be_offline(watch.whom, now) && there.is_empty() && watch.basics == ["closed"] {
                    continue;
                }
                if !required.is_subset(&there) || !there.is_subset(&allowed) {
                    return Err(format!(
                        "{name}, sees {there:?}; must see {required:?}, may see {allowed:?}"
                    ));
                }
                if Package::of(watch.whom) == Package::Dialog {
                    continue;
                }
                if allowed.is_empty() {
                    let expected = match self.registered(watch.whom, now) {
                        Some(true) if self.world.settings().registered_state == RegisteredState::Open => {
                            "open"
                        }
                        _ if self.world.settings().registered_state == RegisteredState::Open
                            && (self.registered(watch.whom, now).is_none()
                                || self.may_be_offline(watch.whom, now)) =>
                        {
                            continue;
                        }
                        _ => "closed",
                    };
                    if watch.basics != [expected] {
                        return Err(format!("{name}, sees {:?}; must see {expected}", watch.basics));
                    }
                }
            }
        }
        Ok(())
    }

    /// The marks that a user's document must show, and those that it may show.
    fn tokens(&self, user: usize, now: Duration, early: bool) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut required, mut allowed) = (BTreeSet::new(), BTreeSet::new());
        for phone in self.phones.iter().filter(|p| p.user == user) {
            let unsure = phone.is_busy(&Purpose::Unpublish);
            if let Some(live) = &phone.live {
                if live.ends.surely_runs(now) && !unsure && !live.is_shaky {
                    required.insert(live.token.clone());
                }
                if !live.ends.surely_over(now) {
                    allowed.insert(live.token.clone());
                }
            }
            let ghosts = phone.ghosts.iter().filter(|(_, until)| now < *until + Duration::from_secs(4));
            allowed.extend(ghosts.map(|(token, _)| token.clone()));
            if early && unsure {
                allowed.extend(phone.pending_tokens());
            }
        }
        (required, allowed)
    }

    /// Whether a user may be shown as closed although something is published of him, or as open although his registration has
    /// just ended.
    fn may_be_offline(&self, user: usize, now: Duration) -> bool {
        self.world.settings().unregistered == Unregistered::Offline
            && self.registered(user, now) != Some(true)
    }

    /// Whether a user has a live binding; `None`: nobody can tell.
    fn registered(&self, user: usize, now: Duration) -> Option<bool> {
        let mut sure = Some(false);
        for phone in self.phones.iter().filter(|p| p.user == user) {
            match phone.bound {
                Some(window) if window.surely_runs(now) => return Some(true),
                Some(window) if !window.surely_over(now) => sure = None,
                _ if phone.maybe_bound + Duration::from_secs(4) > now => sure = None,
                _ if phone.is_busy(&Purpose::Query) => sure = None,
                _ => {}
            }
        }
        sure
    }

    /// The registrar lists the bindings that it granted, and no others.
    fn check_bindings(&mut self) -> Result<(), String> {
        for index in 0..self.phones.len() {
            let (now, crashes) = (self.world.now(), self.crashes);
            let bytes = self.phones[index].query(now, crashes);
            self.send(index, bytes);
        }
        self.advance(self.world.now() + Duration::from_secs(1))?;
        let now = self.world.now();
        for phone in &self.phones {
            let listed = phone.listed.as_ref().ok_or("a query was not answered")?;
            for other in self.phones.iter().filter(|p| p.user == phone.user) {
                let there = listed.contains(&other.contact());
                let must = other.bound.is_some_and(|window| window.surely_runs(now));
                let may = other.bound.is_some_and(|window| !window.surely_over(now))
                    || other.maybe_bound + Duration::from_secs(4) > now;
                if (must && !there) || (there && !may) {
                    return Err(format!("the binding of phone {}: listed {there}, due {must}", other.number));
                }
            }
        }
        Ok(())
    }

    /// Every subscription that was promised, and that no silence can have ended, is still there.
    fn refresh_subscriptions(&mut self) -> Result<(), String> {
        for index in 0..self.phones.len() {
            for watch in 0..self.phones[index].watches.len() {
                if self.phones[index].watches[watch].stage == Stage::Live {
                    let (now, crashes) = (self.world.now(), self.crashes);
                    let bytes = self.phones[index].resubscribe(now, crashes, watch, 900);
                    self.send(index, bytes);
                }
            }
        }
        self.advance(self.world.now() + Duration::from_secs(2))?;
        self.check_documents(true)
    }

    /// Some phones say good-bye, the others just vanish; in the end nothing is left of them.
    fn farewell(&mut self) -> Result<(), String> {
        for index in 0..self.phones.len() {
            let (now, crashes) = (self.world.now(), self.crashes);
            if self.chance.below(2) == 0 {
                continue;
            }
            let phone = &mut self.phones[index];
            let mut out = vec![phone.register(now, crashes, 0)];
            if phone.live.is_some() {
                out.push(phone.unpublish(now, crashes));
            }
            for watch in 0..phone.watches.len() {
                if phone.watches[watch].stage == Stage::Live {
                    out.push(phone.resubscribe(now, crashes, watch, 0));
                }
            }
            for bytes in out {
                self.send(index, bytes);
            }
        }
        self.advance(self.world.now() + Duration::from_secs(5))?;
        self.over = true;
        self.advance(self.world.now() + LONGEST + self.stepped_back + Duration::from_secs(600))?;
        let used = self.world.records_in_use();
        if used == (RecordsInUse { presence: 0, registered: 0 }) {
            Ok(())
        } else {
            Err(format!("everything has run out, and there are {used:?}"))
        }
    }

    /// Lets the world go on until a moment.
    fn advance(&mut self, until: Duration) -> Result<(), String> {
        loop {
            if !self.wild && !self.over {
                self.connect_phones();
            }
            let wakes = self.phones.iter().filter_map(Phone::wakes_at).min().filter(|_| !self.over);
            let stop = wakes.unwrap_or(until).min(until);
            if let Some(happening) = self.world.next(stop.max(self.world.now())) {
                self.on_happening(&happening)?;
                continue;
            }
            self.world.check_counters()?;
            let now = self.world.now();
            for index in 0..self.phones.len() {
                let mut out = Vec::new();
                if !self.over {
                    self.phones[index].on_time(now, &mut out);
                }
                for bytes in out {
                    self.send(index, bytes);
                }
            }
            if now >= until {
                return Ok(());
            }
        }
    }

    fn on_happening(&mut self, happening: &Happening) -> Result<(), String> {
        let now = self.world.now();
        self.witness.see(now, happening)?;
        match happening {
            Happening::Crashed => {
                self.crashes += 1;
                for phone in self.phones.iter_mut().filter(|phone| phone.streams) {
                    phone.disconnected(now);
                }
            }
            Happening::PhoneGot { to, connection, bytes, .. } if !self.over => {
                let index = self.phones.iter().position(|p| p.at == *to && p.connection == *connection);
                let index = index.ok_or_else(|| format!("nobody lives at {to}"))?;
                let text = SipText::read(bytes).ok_or("a phone got what cannot be read")?;
                let manner = self.manner();
                let mut out = Vec::new();
                let crashes = self.crashes;
                let phone = &mut self.phones[index];
                let result = phone.on_message(now, crashes, &text, manner, &mut out);
                if let Err(why) = result {
                    self.excuse(now, &why)?;
                }
                for bytes in out {
                    self.send(index, bytes);
                }
            }
            Happening::PowerFailed { synced_at } => {
                let witness = &self.witness;
                for phone in &mut self.phones {
                    phone.power_failed(now, *synced_at, |call_id, tag| {
                        witness.notified_since(*synced_at, call_id, tag)
                    });
                }
            }
            Happening::ClockSet { by_ms } => {
                let step = ClockStep::of(*by_ms);
                self.stepped_back += step.back;
                self.phones.iter_mut().for_each(|phone| phone.clock_stepped(step));
            }
            Happening::Restarted => self.quiet_since = now,
            Happening::PhoneGot { .. }
            | Happening::Refused { .. }
            | Happening::DiedWith { .. }
            | Happening::ServerSent { .. }
            | Happening::ServerTook { .. } => {}
        }
        Ok(())
    }

    /// A subscription may be gone before its time if a NOTIFY of it was not answered in time.
    fn excuse(&self, now: Duration, why: &str) -> Result<(), String> {
        let words: Vec<&str> = why.split(' ').collect();
        match words.as_slice() {
            ["481", call_id, tag] if self.witness.is_troubled(now, call_id, tag) => Ok(()),
            ["481", call_id, _] => Err(format!("the subscription {call_id} is gone before its time")),
            _ => Err(why.to_owned()),
        }
    }

    fn manner(&mut self) -> Manner {
        if !self.wild {
            return Manner::Good;
        }
        match self.chance.below(100) {
            0..=2 => Manner::Silent,
            3..=4 => Manner::Failing,
            5 => Manner::Busy,
            6 => Manner::Forgetful,
            _ => Manner::Good,
        }
    }

    /// Some phone does something.
    fn act(&mut self) {
        let index = self.chance.below(u32::try_from(self.phones.len()).expect("few")) as usize;
        let (now, crashes) = (self.world.now(), self.crashes);
        let expires = [30, 60, 300, 900][self.chance.below(4) as usize];
        let dice = self.chance.below(100);
        let pick = self.chance.below(1000);
        let whom = self.chance.below(u32::try_from(self.users).expect("few")) as usize;
        if self.phones[index].streams && self.phones[index].connection.is_none() {
            return;
        }
        if let (94..=96, Some(id)) = (dice, self.phones[index].connection) {
            if pick.is_multiple_of(2) {
                self.world.close(id);
            } else {
                self.world.cut(id);
            }
            self.phones[index].disconnected(now);
            return;
        }
        let phone = &mut self.phones[index];
        let may_publish = !phone.is_busy(&Purpose::Unpublish);
        let may_register = !phone.is_busy(&Purpose::Query);
        let live: Vec<usize> = (0..phone.watches.len())
            .filter(|&w| phone.watches[w].stage == Stage::Live)
            .filter(|&w| phone.watches[w].ends.surely_runs(now + REFRESH_BEFORE))
            .filter(|&w| !phone.is_busy(&Purpose::Subscribe { watch: w, expires: Duration::ZERO }))
            .collect();
        let some_watch = live.get(pick as usize % live.len().max(1)).copied();
        let bytes = match (dice, some_watch) {
            (0..=29, _) if may_publish => Some(phone.publish(now, crashes, expires, pick.is_multiple_of(3))),
            (30..=37, _) if may_publish && phone.live.is_some() => Some(phone.refresh(now, crashes, expires)),
            (38..=43, _) if may_publish && phone.live.is_some() => Some(phone.unpublish(now, crashes)),
            (44..=47, _) if may_publish => phone.try_old_tag(now, crashes, pick),
            (48..=55, _) if may_register => Some(phone.register(now, crashes, expires)),
            (56..=58, _) if may_register => Some(phone.register(now, crashes, 0)),
            (59..=74, _) if live.len() < WATCHES_MAX => Some(phone.subscribe(now, crashes, whom, expires)),
            (75..=77, _) => Some(phone.subscribe(now, crashes, whom, 0)),
            (78..=87, Some(watch)) => Some(phone.resubscribe(now, crashes, watch, expires)),
            (88..=91, Some(watch)) => Some(phone.resubscribe(now, crashes, watch, 0)),
            (92..=93, _) => {
                phone.mute_until = now + Duration::from_secs(u64::from(5 + pick % 80));
                None
            }
            _ => None,
        };
        if let Some(bytes) = bytes {
            self.send(index, bytes);
        }
    }

    /// Phones that have lost their connection open a new one, from another port, and register on it.
    fn connect_phones(&mut self) {
        for index in 0..self.phones.len() {
            let phone = &mut self.phones[index];
            if !phone.streams || phone.connection.is_some() || !self.world.is_up() {
                continue;
            }
            phone.at.set_port(phone.at.port() + 1);
            phone.connection = self.world.connect(phone.at, Transport::Tcp);
            let bytes = phone.register(self.world.now(), self.crashes, 900);
            self.send(index, bytes);
        }
    }

    fn send(&mut self, index: usize, bytes: Bytes) {
        let phone = &self.phones[index];
        match phone.connection {
            Some(id) => self.world.write(id, bytes),
            None if phone.streams => {}
            None => self.world.send(phone.at, SERVER, bytes),
        }
    }
}

/// By how many milliseconds somebody sets the clock.
fn clock_step(chance: &mut Chance) -> i64 {
    match chance.below(2) {
        0 => i64::from(chance.below(60_000)) - 30_000,
        _ => i64::from(chance.below(400_000)) - 200_000,
    }
}

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 256;
/// Wild and calm times of a run.
const ROUNDS: usize = 3;
/// At one in so many steps of a wild time, of which there are about fifty, the clock is set.
const CLOCK_SET_ONE_IN: u32 = 200;
/// Longest time on the way.
const DELAY_MAX: Duration = Duration::from_millis(700);
/// Phones refresh a subscription so long before it ends, or not at all.
const REFRESH_BEFORE: Duration = Duration::from_secs(20);
/// Live subscriptions of a phone.
const WATCHES_MAX: usize = 4;
/// So long after the calm began, or the server started again in it, all are told who made no trouble.
const TOLD_WITHIN: Duration = Duration::from_secs(12);
/// A watcher that made trouble so shortly before the calm may still be waiting out a pause.
const PATIENCE: Duration = Duration::from_secs(45);
/// Over a connection nothing is sent again before Timer F and the pause after it.
const PATIENCE_OVER_CONNECTION: Duration = Duration::from_secs(75);

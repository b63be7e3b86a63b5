//! One shard: the engine that owns a part of the users and a part of the subscriptions, without sockets and threads.
//!
//! The caller brings datagrams, notes and the time; the shard leaves messages in `outbox` and notes in `notes`. The event
//! loop, the simulator and the benches drive it alike:
//!
//! ```text
//! owner_of(datagram)  -> whose it is
//! on_datagram(now, …)    a datagram of ours
//! on_note(now, …)        what another shard says
//! on_turn_end(now)       timers, then the fan-out, within the bounds of a turn
//! outbox, notes          taken by the caller; outbox.clear(&mut bodies)
//! deadline()             when on_turn_end must be called next
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use comsipl_core::chunked::Slab;
use comsipl_core::event::Compositor;
use comsipl_core::registrar::BindingChange;
use comsipl_core::timer::Wheel;
use comsipl_core::transaction::ServerTransactions;
use comsipl_core::{AorKey, Bodies, Chance, ConnectionId, HashKey, Mono, Now, Outbox, UnixMillis};
use comsipl_fdb::{Full, RecordBuf};

use crate::access::Gate;
use crate::ahead::Ahead;
use crate::audit::Audit;
use crate::counters::Counters;
use crate::listeners::Listeners;
use crate::local_ips::LocalIps;
use crate::net::stream::generations::Generations;
use crate::note::Note;
use crate::overload::{Levels, Overload};
use crate::presentities::{Presentities, WATCHERS_WATCHED};
use crate::resolve::Query;
use crate::resolve::names::Names;
use crate::settings::Settings;
use crate::shard_files::{Files, ShardFiles};
use crate::sipl::{Guard, Report, Reports, Settling, WatchedRegistration, WatchedWatchers};
use crate::sipp::{Attempt, Behind, BoundFlows, CACHED_MAX, Due, Mark, Renewals};
use crate::subscriptions::Subscriptions;
use crate::wall::Wall;
use crate::watched::WatchedTable;

/// How long after a start bare documents are kept although nobody is known to watch them: long enough for every shard to
/// say whom it watches.
const SETTLING: Duration = Duration::from_secs(10);

/// How long after a start granted times are spread more widely: whoever was cut off by what led to the start comes back within
/// minutes.
const SPREAD_WIDELY_FOR: Duration = Duration::from_secs(600);

/// Who must handle a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The shard with this number (which may be the asking one).
    Shard(usize),
    /// Nobody in particular: whoever has it passes it to its own `on_datagram`.
    Anyone,
}

impl Owner {
    /// The number of the shard, or of `this` if it is nobody's in particular.
    #[must_use]
    pub const fn or(self, this: usize) -> usize {
        match self {
            Self::Shard(owner) => owner,
            Self::Anyone => this,
        }
    }
}

/// Buffers that are used again by every message.
#[derive(Default)]
pub(crate) struct Scratch {
    /// A subscription's record.
    pub(crate) subscription: RecordBuf,
    /// A document's, publication's or binding's record.
    pub(crate) document: RecordBuf,
    /// Canonical AoR of the request at hand.
    pub(crate) aor: Vec<u8>,
    /// Canonical AoR of the user whose document is composed.
    pub(crate) user: Vec<u8>,
    /// A route set or Path vector.
    pub(crate) routes: Vec<u8>,
    /// Texts of several records, or several header lines.
    pub(crate) texts: Vec<u8>,
    /// Changes of bindings.
    pub(crate) changes: Vec<BindingChange>,
    /// The Date line.
    pub(crate) date: crate::sipl::DateLine,
    /// The composed document.
    pub(crate) composed: Vec<u8>,
    /// Its note.
    pub(crate) note: Vec<u8>,
}

/// What a shard begins with.
pub struct ShardStart {
    /// Its number, from 0.
    pub index: usize,
    /// How many shards there are.
    pub shards: usize,
    /// What the operator set.
    pub settings: Arc<Settings>,
    /// The files, with the partitions `p` for which `p % shards == index`.
    pub files: ShardFiles,
    /// Our addresses, in the order of `Flow::listener`.
    pub listeners: Vec<comsipl_core::Listen>,
    /// Seed of its randomness; each shard needs another one.
    pub seed: [u8; 32],
    /// What all shards share to know senders by.
    pub gate: Arc<Gate>,
    /// How much each shard takes, which all shards share.
    pub levels: Arc<Levels>,
    /// Number of the node's start ([`Recovered::start`](crate::node::Recovered::start)).
    pub start: u64,
    /// When the node was alive last, as `Recovery::last_heartbeat_ms` says; zero: never.
    pub last_alive_ms: u64,
    /// The files may lack something, so nobody knows what watchers were told last: all are told again.
    pub owes_all: bool,
    /// The connections of all shards that outlived the process before, in order.
    pub connections: Arc<[ConnectionId]>,
}

/// The engine of one shard.
pub struct Shard {
    /// Messages to send, emptied by the caller at the end of the turn (`outbox.clear(&mut bodies)`).
    pub outbox: Outbox,
    /// Shared bodies named by the outbox.
    pub bodies: Bodies,
    /// Notes to other shards as (shard, note), emptied by the caller at the end of the turn.
    pub notes: Vec<(usize, Note)>,
    /// Reports to other shards as (shard, report), taken by the caller at the end of the turn; what it cannot deliver yet it
    /// leaves.
    pub reports: Vec<(usize, Report)>,
    /// Names to be looked up, taken by the caller at the end of the turn: an answer comes by [`Self::on_command`], or the query
    /// goes back by [`Self::lookup_refused`], or nothing comes.
    pub lookups: Vec<Query>,
    /// Set by the caller before `on_turn_end`: more input waits than the turn could take. Then the fan-out steps back, so that
    /// the answers to one celebrity's NOTIFYs do not pile up in front of everybody else's requests.
    pub input_waits: bool,
    pub(crate) index: usize,
    pub(crate) shards: usize,
    /// Counted without atomics: handlers hold on to these two while they write, for each request, and a locked instruction waits
    /// for all stores before it.
    pub(crate) settings: Rc<Settings>,
    pub(crate) listeners: Rc<Listeners>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) keys: HashKey,
    pub(crate) guard: Guard,
    pub(crate) overload: Overload,
    pub(crate) chance: Chance,
    /// Number of the node's start.
    pub(crate) start: u64,
    pub(crate) files: Files,
    pub(crate) transactions: ServerTransactions,
    pub(crate) compositor: Compositor,
    pub(crate) presentities: Presentities,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) watched: WatchedTable,
    pub(crate) local_ips: LocalIps,
    pub(crate) names: Names,
    /// NOTIFYs under way.
    pub(crate) attempts: Slab<Attempt>,
    /// Their timers.
    pub(crate) attempt_timers: Wheel,
    /// Watched presentities whose watchers are to be told.
    pub(crate) due: Due,
    /// Watched presentities whose bodies are cached, oldest first.
    pub(crate) cached: VecDeque<(u32, AorKey)>,
    /// Watched resources whose cached bodies tell what time it is, so that they are not kept beyond the turn.
    pub(crate) timed: Vec<(u32, AorKey)>,
    /// Devices with new connections whose subscriptions wait for their turn.
    pub(crate) renewals: Renewals,
    /// The flows of watchers' bindings that lead to them better than those of their subscriptions.
    pub(crate) bound_flows: BoundFlows,
    /// The registrations of our users that somebody watches, by user.
    pub(crate) watched_registrations: BTreeMap<AorKey, WatchedRegistration>,
    /// Our users whose watchers somebody watches.
    pub(crate) watched_watchers: WatchedWatchers,
    /// Presentities whose watchers we report to their owners.
    pub(crate) reports_due: Reports,
    pub(crate) scratch: Scratch,
    /// What the request will look at whose owner was asked for last.
    pub(crate) ahead: Option<Ahead>,
    /// The time after the start in which watchers are not known yet.
    pub(crate) settling: Option<Settling>,
    /// Users whose documents found no room, and when they are composed again.
    pub(crate) uncomposed: Option<(Mono, Vec<AorKey>)>,
    /// Highest version that this shard gave to a document.
    pub(crate) last_version: u64,
    /// How far the look at the own tables has come.
    pub(crate) audit: Audit,
    /// Timers that were due and did not fit the turn.
    more_due: bool,
    /// What the files say of how far the fan-out is behind.
    pub(crate) behind: Behind,
    full_warned: Option<Mono>,
    /// Until when granted times are spread more widely.
    spread_widely_until: Mono,
    /// Whether what is stored by the wall clock tells how much is left.
    pub(crate) wall: Wall,
    now: Mono,
}

impl Shard {
    /// Opens a shard over recovered files and takes up what they hold: users, publications, bindings, subscriptions and
    /// their timers. What was owed to watchers when the node stopped is due again.
    #[must_use]
    pub fn open(start: ShardStart, now: Now) -> Self {
        let keys = HashKey(start.files.presence.hash_key());
        let settings = Rc::new(Settings::clone(&start.settings));
        let listeners = Listeners::new(settings.advertise.clone(), settings.profile, start.listeners);
        let mut shard = Self {
            outbox: Outbox::default(),
            bodies: Bodies::default(),
            notes: Vec::new(),
            reports: Vec::new(),
            lookups: Vec::new(),
            input_waits: false,
            index: start.index,
            shards: start.shards,
            listeners: Rc::new(listeners),
            counters: Arc::default(),
            keys,
            guard: Guard::new(&settings, &keys, start.gate, now.mono),
            overload: Overload::new(start.levels, settings.access.trusted.len()),
            chance: Chance::from_seed(start.seed),
            start: start.start,
            files: Files::new(start.files),
            transactions: ServerTransactions::new(settings.transaction_memory),
            settings,
            compositor: Compositor::with_key(keys),
            presentities: Presentities::new(now.mono),
            subscriptions: Subscriptions::new(now.mono),
            watched: WatchedTable::default(),
            local_ips: LocalIps::default(),
            names: Names::default(),
            attempts: Slab::default(),
            attempt_timers: Wheel::new(now.mono),
            due: Due::default(),
            cached: VecDeque::with_capacity(CACHED_MAX + 1),
            timed: Vec::new(),
            renewals: Renewals::default(),
            bound_flows: BoundFlows::default(),
            watched_registrations: BTreeMap::new(),
            watched_watchers: WatchedWatchers::default(),
            reports_due: Reports::default(),
            scratch: Scratch::default(),
            ahead: None,
            // Over new files there is nobody who could have watched before.
            settling: (start.last_alive_ms != 0 || start.owes_all)
                .then(|| Settling { until: now.mono + SETTLING, bare: Vec::new() }),
            uncomposed: None,
            last_version: 0,
            audit: Audit::default(),
            more_due: false,
            behind: Behind::default(),
            full_warned: None,
            spread_widely_until: now.mono + SPREAD_WIDELY_FOR,
            wall: Wall::new(now, UnixMillis(start.last_alive_ms)),
            now: now.mono,
        };
        let told_until = if start.owes_all { 1 } else { start.last_alive_ms };
        shard.recover(now, told_until, &start.connections);
        shard
    }

    /// The names of connections that were not given yet, as the files remember them.
    pub(crate) fn generations(&self) -> Generations {
        let files = [&self.files.presence, &self.files.registered_file];
        Generations::remembered_by(files.map(Arc::clone).into())
    }

    /// Sees to it that the files do not claim to be of a later time than it is, before anything is stored by a clock that was set
    /// back: a start takes their heartbeat for the least that the time can be and for when watchers were told last, so it would
    /// end what is granted now at once, and tell nobody what changes now.
    #[inline]
    pub(crate) fn heed_wall_clock(&self, now: Now) {
        self.files.presence.put_heartbeat_back(now.wall.0);
    }

    /// Takes a note of another shard.
    pub fn on_note(&mut self, now: Now, note: Note) {
        self.heed_wall_clock(now);
        match note {
            Note::Watch { key, shard, package } => {
                let user = self.presentities.find_or_insert(key, package);
                let entry = &mut self.presentities[user];
                let is_first = entry.watching_shards == 0;
                entry.watching_shards |= 1 << shard;
                if entry.marks & WATCHERS_WATCHED != 0 {
                    self.post_to(now, usize::from(shard), Note::WinfoWanted { key, wanted: true });
                }
                if !self.presentities.package(user).has_moments() {
                    let version = self.presentities[user].version;
                    self.post_to(now, usize::from(shard), Note::Changed { key, version });
                } else if is_first {
                    self.begin_telling(now, user);
                } else {
                    self.tell_if_complete(now, user);
                }
            }
            Note::Unwatch { key, shard } => {
                if let Some(user) = self.presentities.find(key) {
                    let entry = &mut self.presentities[user];
                    let was_watching = entry.watching_shards & (1 << shard) != 0;
                    entry.watching_shards &= !(1 << shard);
                    let is_last = was_watching && entry.watching_shards == 0;
                    if is_last && self.presentities.package(user).has_moments() {
                        self.end_telling(now, user);
                    }
                    self.forget_bare_document(now, user);
                }
            }
            Note::Changed { key, version } => self.on_changed(now, key, version),
            Note::FlowRenewed { watcher, device, flow } => self.on_flow_renewed(now, watcher, device, flow),
            Note::FlowWanted { watcher, device, any, shard, id, question } => {
                let flow = self.flow_of_device(watcher, device, any);
                self.post_to(now, usize::from(shard), Note::FlowFound { id, question, flow });
            }
            Note::FlowFound { id, question, flow } => self.on_flow_found(now, id, question, flow),
            Note::WinfoWanted { key, wanted } => self.on_winfo_wanted(now, key, wanted),
            Note::Unsent { partition, id, check, lives } => {
                self.on_unsent(now, Mark { partition, id, check }, lives);
            }
        }
    }

    /// Fires due timers and goes on with the fan-out, within the bounds of one turn.
    pub fn on_turn_end(&mut self, now: Now) {
        self.now = now.mono;
        self.heed_wall_clock(now);
        self.take_names(now);
        let expiries = self.expire(now);
        let attempts = self.fire_attempt_timers(now);
        let hold_downs = self.end_hold_downs(now);
        let held = self.compose_held(now);
        self.compose_again(now);
        let settling = self.settle(now);
        self.more_due = expiries || attempts || hold_downs || held || settling;
        self.more_due |= self.renew_waiting(now);
        self.more_due |= self.end_lingering(now);
        self.more_due |= self.write_reports(now);
        self.fan_out(now);
        self.release_timed_bodies();
        self.transactions.expire(now.mono);
        self.note_undelivered(now);
        self.audit_some(now);
        self.set_gauges();
    }

    /// When `on_turn_end` must be called again at the latest; `None`: only after input. A moment that is past: at once.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        if self.more_due || !self.due.is_empty() {
            return Some(Mono(0));
        }
        [
            self.attempt_timers.deadline(),
            self.subscriptions.expiry.deadline(),
            self.presentities.publication_expiry.deadline(),
            self.presentities.binding_expiry.deadline(),
            self.presentities.held.deadline(),
            self.presentities.hold_down.deadline(),
            self.reports_due.deadline(),
            self.watched_watchers.deadline(),
            self.names.deadline(),
            self.settling
                .as_ref()
                .filter(|settling| !settling.bare.is_empty())
                .map(|settling| settling.until),
            self.uncomposed.as_ref().map(|(at, _)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What this shard counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// This shard's number.
    pub(crate) fn number(&self) -> u8 {
        u8::try_from(self.index).expect("there are at most 64 shards")
    }

    /// The shard that owns a partition.
    pub(crate) fn shard_of(&self, partition: u8) -> usize {
        usize::from(partition) % self.shards
    }

    /// Sends a note to a shard; one to ourselves is taken at once.
    pub(crate) fn post_to(&mut self, now: Now, shard: usize, note: Note) {
        if shard == self.index {
            self.on_note(now, note);
        } else {
            self.notes.push((shard, note));
        }
    }

    /// Says that a file had no room, at most once a minute in the log.
    pub(crate) fn note_full(&mut self, what: Full) {
        let quiet = self.full_warned.is_some_and(|at| self.now.since(at).as_secs() < 60);
        if !quiet {
            self.full_warned = Some(self.now);
            tracing::error!(
                shard = self.index,
                "a record could not be stored: {what}; phones are told to come back later"
            );
        }
    }

    /// By how many thousandths what a request is granted is shortened.
    pub(crate) fn draw_shortening(&mut self, now: Now) -> u16 {
        let overload = &self.settings.overload;
        let percent = if now.mono < self.spread_widely_until {
            overload.expires_spread_after_start_percent
        } else {
            overload.expires_spread_percent
        };
        if percent == 0 { 0 } else { self.chance.below(u32::from(percent) * 10 + 1) as u16 }
    }

    /// Writes down, about once a second, since when changes may be undelivered, so that a crash owes them again.
    fn note_undelivered(&mut self, now: Now) {
        if !self.behind.is_due(now.mono) {
            return;
        }
        if let Some(since) = self.behind.note(now.mono, self.due_since()) {
            for number in self.files.own_numbers() {
                self.files.presence_partition_mut(number).set_undelivered_since(since);
            }
        }
    }

    fn set_gauges(&mut self) {
        let counters = &self.counters;
        counters.subscriptions.set(self.subscriptions.len() as u64);
        counters.watchers_unreachable.set(self.subscriptions.unreachable() as u64);
        counters.publications.set(self.presentities.publications.in_use() as u64);
        counters.bindings.set(self.presentities.bindings.in_use() as u64);
        counters.notifies_in_flight.set(self.attempts.in_use() as u64);
        counters.presentities.set(self.presentities.len() as u64);
        counters.presentities_watched.set(self.watched.len() as u64);
        counters.presentities_due.set(self.due.len() as u64);
        counters.presentities_left_over.set(self.due.left_over() as u64);
        counters.answers_forgotten_early.set(self.transactions.forgotten_early());
    }
}

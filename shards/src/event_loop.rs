//! The turn of a shard: sockets and bus in, engine, sockets and bus out.
//!
//! A turn:
//!   1. wait until a socket, the bus or the engine's deadline wants us: look for a moment if traffic is dense, then sleep; not
//!      at all if the last turn left work over;
//!   2. read both clocks, once;
//!   3. take from the bus, at most [`BUS_ITEMS_PER_TURN`], and from the mailbox, at most what it holds;
//!   4. take one batch from each socket that may hold datagrams, and read connections within the bounds of a turn: first what
//!      other shards own is handed over and they are woken, then memory is asked for what ours will look at, then ours is
//!      handled;
//!   5. deliver the notes that the engine wrote to itself;
//!   6. end the engine's turn: due timers, fan-out within its bounds;
//!   7. notes to the bus, messages to the sockets, wake those who were given something and sleep.
//!
//! Turns are short, so that what is written in one leaves soon: a batch in, its answers and NOTIFYs out. A socket that was
//! found to hold something is read until a batch comes back short, which says that it was empty; where traffic is dense it
//! is not for long, so that socket is read once more before the kernel is asked about all of them. There is no tick: a shard
//! with nothing to do and no deadline sleeps for ever.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comsipl_core::{ConnectionId, Flow, Listen, Mono, Now};
use crossbeam::utils::CachePadded;
use mio::{Poll, Token};
use smallvec::SmallVec;

use crate::Report;
use crate::access::IpRange;
use crate::bus::{BusEnd, Delivery};
use crate::clock::Clock;
use crate::load::{LoadGauge, Queued, Refusals, Waiting, memory_of};
use crate::mailbox::Mailbox;
use crate::metrics::NetCounters;
use crate::net::mmsg::{self, BATCH_LEN, Received, RecvBatch};
use crate::net::stream::admission::Admission;
use crate::net::stream::hand_over::Carried;
use crate::net::stream::layer::LayerSettings;
use crate::net::stream::{CONNECTION_TOKENS, Streams, StreamsStart};
use crate::net::throttle::Throttle;
use crate::net::{Readiness, SendFigures, Sender};
use crate::note::Note;
use crate::resolve::thread::Lookups;
use crate::rest::{Rest, Rounds};
use crate::settings::OverloadSettings;
use crate::shard::{Owner, Shard};
use crate::wait::Patience;

/// The token of the waker; listeners of streams have their number, connections come from [`CONNECTION_TOKENS`] on.
pub const WAKER: Token = Token(usize::MAX);

/// What all shards of a node share to stop together.
#[derive(Debug, Default)]
pub struct Stop {
    asked: AtomicBool,
    /// Whether another process goes on with the connections.
    handing_over: AtomicBool,
    /// Whether shards that have stopped reading have anything under way between them.
    rest: Rest,
}

impl Stop {
    /// Asks all shards to stop. Those asleep must be woken by their wakers.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// When the shards are [asked](Self::ask), they are to give up their connections for another process.
    pub fn will_hand_over(&self) {
        self.handing_over.store(true, Ordering::Relaxed); // published by the store of `asked`
    }

    /// Whether another process goes on.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Relaxed)
    }

    /// Whether the shards were asked to stop.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// What an event loop joins together.
pub struct Parts {
    /// The number of the shard.
    pub index: usize,
    /// How many shards there are.
    pub shards: usize,
    /// The engine.
    pub shard: Shard,
    /// The poll, on which a waker with token [`WAKER`] is registered.
    pub poll: Poll,
    /// One socket of each listener for datagrams, not blocking, with the listener's number.
    pub sockets: Vec<(u8, UdpSocket)>,
    /// One socket of each listener for streams, not blocking, with the listener's number.
    pub stream_sockets: Vec<(u8, std::net::TcpListener)>,
    /// All addresses listened on.
    pub listeners: Vec<Listen>,
    /// Counts the connections of all shards.
    pub admission: Arc<Admission>,
    /// What lies between sockets of streams and messages.
    pub layers: LayerSettings,
    /// Connections of another process to go on with.
    pub carried: Vec<Carried>,
    /// Our end of the bus.
    pub bus: BusEnd,
    /// Where other threads put commands for us.
    pub mailbox: Arc<Mailbox>,
    /// Where names go that are to be looked up; `None`: no thread looks them up.
    pub lookups: Option<Lookups>,
    /// The clock of the node.
    pub clock: Clock,
    /// Our counters.
    pub counters: Arc<CachePadded<NetCounters>>,
    /// The node's wish to stop.
    pub stop: Arc<Stop>,
}

/// The event loop of one shard.
pub struct EventLoop {
    index: usize,
    shards: usize,
    shard: Shard,
    readiness: Readiness,
    sockets: Vec<UdpSocket>,
    /// For each of them, the number of its listener.
    listeners: Vec<u8>,
    /// For each of them, what is known of what it holds.
    holds: Vec<Holds>,
    streams: Streams,
    /// What came by streams in this turn and is ours.
    from_streams: FromStreams,
    bus: BusEnd,
    mailbox: Arc<Mailbox>,
    lookups: Option<Lookups>,
    recv: RecvBatch,
    /// The place of the socket that was read before this turn, and what came of it.
    received: Option<(usize, io::Result<usize>)>,
    sender: Sender,
    /// What waits in each socket.
    queued: Vec<Queued>,
    /// Notes of the engine to itself, not yet delivered.
    own_notes: Vec<Note>,
    /// Whether the last turn could not take all that waits.
    work_left: bool,
    /// Turns since the sockets were asked for their readiness.
    unpolled: usize,
    patience: Patience,
    gauge: LoadGauge,
    throttle: Throttle,
    clock: Clock,
    counters: Arc<CachePadded<NetCounters>>,
    stop: Arc<Stop>,
}

impl EventLoop {
    /// Registers what connections come by. To be called on the thread that will run the loop.
    ///
    /// # Errors
    /// What the system says of the registration.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let (listeners, sockets): (Vec<_>, Vec<_>) = parts.sockets.into_iter().unzip();
        let now = parts.clock.now();
        let streams = Streams::new(StreamsStart {
            shard: u8::try_from(parts.index).expect("there are at most 64 shards"),
            sockets: parts.stream_sockets,
            listeners: parts.listeners,
            registry: parts.poll.registry().try_clone()?,
            admission: parts.admission,
            settings: Rc::clone(&parts.shard.settings),
            layers: parts.layers,
            carried: parts.carried,
            counters: Arc::clone(&parts.counters),
            now: now.mono,
            generations: parts.shard.generations(),
        })?;
        Ok(Self {
            index: parts.index,
            shards: parts.shards,
            readiness: Readiness::new(parts.poll),
            holds: vec![Holds::Nothing; sockets.len()],
            bus: parts.bus,
            mailbox: parts.mailbox,
            lookups: parts.lookups,
            recv: RecvBatch::new(),
            received: None,
            sender: Sender::new(&listeners),
            listeners,
            streams,
            from_streams: FromStreams::default(),
            queued: vec![Queued::default(); sockets.len()],
            own_notes: Vec::new(),
            work_left: false,
            unpolled: 0,
            patience: Patience::new(parts.shard.settings().busy_wait),
            gauge: LoadGauge::new(now.mono),
            throttle: Throttle::default(),
            clock: parts.clock,
            counters: parts.counters,
            stop: parts.stop,
            shard: parts.shard,
            sockets,
        })
    }

    /// Turns until the node wants to stop, then brings out what is under way. Returns the connections that another process is
    /// to go on with.
    ///
    /// # Errors
    /// What the system says of the poll; errors of single datagrams are counted and do not end the loop.
    pub fn run(mut self) -> io::Result<Vec<Carried>> {
        while !self.stop.is_asked() {
            self.turn()?;
        }
        self.throttle.end(&self.sockets);
        self.finish()
    }

    /// One turn.
    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        let now = self.clock.now();
        self.gauge.begin_turn(now.mono);
        let mut work_left = self.take_from_bus(now);
        self.mailbox.take(|command| self.shard.on_command(command));
        work_left |= self.mailbox.is_filled();
        if let Some((place, count)) = self.received.take() {
            let judging_since = self.judging_since(now);
            work_left |= self.take_datagrams(place, count, judging_since, now)?;
        } else {
            for place in 0..self.sockets.len() {
                if self.holds[place] == Holds::Something {
                    let judging_since = self.judging_since(now);
                    let count = self.recv.recv(self.sockets[place].as_fd());
                    work_left |= self.take_datagrams(place, count, judging_since, now)?;
                }
            }
        }
        self.take_from_streams(now)?;
        work_left |= self.streams.has_work();
        // While requests are refused, what is done for those that were not comes first.
        self.shard.input_waits = work_left && !self.shard.is_refusing();
        self.end_turn(now)?;
        self.work_left = work_left || !self.own_notes.is_empty();
        let span = self.clock.mono().since(now.mono);
        self.counters.count_turn(span);
        self.look_at_load(now, span, work_left);
        Ok(())
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> io::Result<()> {
        if self.work_left {
            // A socket that is known to hold more need not be asked, but others want their turn.
            self.unpolled += 1;
            if self.unpolled < UNPOLLED_MAX
                && (self.holds.contains(&Holds::Something) || self.streams.has_work())
            {
                return Ok(());
            }
            self.unpolled = 0;
            return self.poll(Some(Duration::ZERO)).map(|_| ());
        }
        // While requests are refused, the time that reading takes is counted, which begins with the turn.
        if self.unpolled < UNPOLLED_MAX && !self.shard.is_refusing() && self.receive_again() {
            self.unpolled += 1;
            self.patience.waited(0);
            return Ok(());
        }
        self.unpolled = 0;
        let began = self.clock.mono();
        let longest = self.longest_sleep(began);
        if longest == Some(Duration::ZERO) {
            return self.poll(Some(Duration::ZERO)).map(|_| ());
        }
        let look = self.patience.micros().min(longest.map_or(u64::MAX, |it| it.as_micros() as u64));
        let mut found = false;
        let mut looked = 0;
        while !found && looked < look {
            found = self.poll(Some(Duration::ZERO))? || !self.bus.is_empty();
            looked = self.clock.mono().since(began).as_micros() as u64;
        }
        self.counters.idle_looks_micros.add(looked);
        if !found && self.bus.prepare_sleep() {
            let longest = longest.map(|it| it.saturating_sub(Duration::from_micros(looked)));
            let result = self.poll(longest);
            self.bus.wake_up();
            result?;
            self.counters.sleeps.add(1);
        }
        self.patience.waited(self.clock.mono().since(began).as_micros() as u64);
        Ok(())
    }

    /// Reads sockets again that have just been emptied, until one holds something. Returns whether one does.
    fn receive_again(&mut self) -> bool {
        let Self { sockets, holds, recv, received, .. } = self;
        let emptied = holds.iter_mut().enumerate().filter(|(_, holds)| **holds == Holds::NothingLately);
        for (place, holds) in emptied {
            match recv.recv(sockets[place].as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *holds = Holds::Nothing,
                count => {
                    *received = Some((place, count));
                    return true;
                }
            }
        }
        false
    }

    /// How long we may sleep if nobody wakes us; `None`: for ever.
    fn longest_sleep(&self, now: Mono) -> Option<Duration> {
        let is_stepping = self.shard.is_refusing() || self.shard.is_in_episode();
        let step = is_stepping.then(|| self.gauge.due_at());
        let deadlines = [self.shard.deadline(), self.streams.deadline(), step];
        let until_deadline = deadlines.into_iter().flatten().min().map(|deadline| deadline.since(now));
        if !self.bus.waits_for_room() && !self.streams.is_blocked() {
            return until_deadline;
        }
        // A reader does not tell when it has made room, so we look again soon; it is awake and will have.
        Some(until_deadline.map_or(BACKLOG_RETRY, |it| it.min(BACKLOG_RETRY)))
    }

    /// Waits for at most `timeout` and notes which sockets are ready. Returns whether anything happened.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let Self { readiness, sockets, holds, sender, streams, clock, counters, .. } = self;
        let found = readiness.look(sockets, |place| sender.is_waiting(place), timeout)?;
        for (place, state) in readiness.sockets() {
            if state.is_readable {
                holds[place] = Holds::Something;
            }
            if state.is_writable {
                let mut figures = SendFigures::default();
                sender.resume(place, &sockets[place], &mut figures);
                count_sent(counters, figures);
            }
        }
        let mut now = None;
        for event in readiness.events().filter(|event| event.token() != WAKER) {
            streams.on_event(*now.get_or_insert_with(|| clock.mono()), event);
        }
        Ok(found)
    }

    /// Notes whether a turn that took `span` has taken all that waited, and takes a step of overload control where there is a
    /// reason and it is time.
    fn look_at_load(&mut self, now: Now, span: Duration, work_left: bool) {
        let OverloadSettings { is_controlled, target, .. } = self.shard.settings().overload;
        let (presentities, fan_out) = self.shard.fan_out_stands(now);
        self.gauge.end_turn(now.mono, span, !work_left && fan_out < target);
        let is_needed =
            self.gauge.standing(now.mono) >= target || self.shard.is_refusing() || self.shard.is_in_episode();
        if !is_needed || !is_controlled || !self.gauge.is_due(now.mono) {
            return;
        }
        let (batches, batches_room) = self.bus.waiting();
        let mut waiting = Waiting {
            batches: batches as u64,
            batches_room: batches_room as u64,
            presentities: presentities as u64,
            fan_out,
            ..Waiting::default()
        };
        for (socket, queued) in self.sockets.iter().zip(&mut self.queued) {
            waiting.dropped += ask_what_waits(socket, queued);
            waiting.socket_bytes += queued.waiting();
        }
        // The kernel does not count what was kept out apart from what it dropped.
        if self.throttle.is_on() {
            self.counters.kept_out.set(waiting.dropped.saturating_sub(self.counters.kernel_dropped.get()));
        }
        waiting.dropped = waiting.dropped.saturating_sub(self.counters.kept_out.get());
        self.counters.kernel_dropped.set(waiting.dropped);
        let mut measured = self.gauge.measure(now.mono, waiting, target);
        if !self.throttle.works() {
            measured.avoidable = 0;
        }
        let let_in: SmallVec<[IpRange; 8]> = self.shard.let_in(now.mono).collect();
        measured.is_heeded = !let_in.is_empty();
        self.counters.count_late(measured.signals);
        self.shard.step_load(now, &measured);
        let Self { shard, throttle, sockets, .. } = self;
        let kept_out = shard.kept_out();
        throttle.set(sockets, kept_out, &let_in, || shard.chance.below(u32::MAX));
    }

    /// Takes what other shards put in. Returns whether more is left.
    fn take_from_bus(&mut self, now: Now) -> bool {
        let (shard, streams) = (&mut self.shard, &mut self.streams);
        for note in self.own_notes.drain(..) {
            shard.on_note(now, note);
        }
        let taken = self.bus.take(BUS_ITEMS_PER_TURN, |delivery| match delivery {
            Delivery::Ahead(ahead) => shard.ask_ahead(ahead),
            Delivery::Note(note) => shard.on_note(now, note),
            Delivery::Packet { flow, bytes } => shard.on_datagram(now, flow, bytes),
            Delivery::Send { flow, bytes } => streams.send(now.mono, &flow, &[bytes]),
            Delivery::Report { key, shard: from, bytes } => {
                shard.on_report(now, Report { key, shard: from, bytes: bytes.to_vec() });
            }
        });
        taken == BUS_ITEMS_PER_TURN
    }

    /// The time from which on reading and refusing count, while each message is judged.
    fn judging_since(&mut self, now: Now) -> Option<Mono> {
        self.shard.is_judging(now.mono).then(|| self.clock.mono())
    }

    /// Takes the batch that was read from a socket for datagrams. Returns whether the socket may hold more.
    fn take_datagrams(
        &mut self,
        place: usize,
        count: io::Result<usize>,
        judging_since: Option<Mono>,
        now: Now,
    ) -> io::Result<bool> {
        let listener = self.listeners[place];
        let counters = &self.counters;
        let count = match count {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.holds[place] = Holds::Nothing;
                self.queued[place].empty();
                return Ok(false);
            }
            Err(error) => {
                // It has been taken off the socket, which may hold datagrams yet.
                tracing::debug!(%error, "a socket reported an error");
                counters.recv_errors.add(1);
                self.holds[place] = Holds::Something;
                return Ok(true);
            }
        };
        // A short batch ended because the socket was empty.
        let more_left = count == BATCH_LEN;
        self.holds[place] = if more_left { Holds::Something } else { Holds::NothingLately };
        let mut bytes_in = 0;
        let mut ours = [0_u8; BATCH_LEN];
        let mut ahead = [None; BATCH_LEN];
        let (mut ours_len, mut handed_over) = (0, 0);
        let mut refused = Refusals::default();
        for index in 0..count {
            let Some(received) = self.recv.get(index) else { continue };
            bytes_in += received.bytes.len() as u64;
            if received.truncated {
                counters.truncated.add(1);
                continue;
            }
            let owner = if judging_since.is_none() {
                self.shard.owner_of(received.bytes)
            } else {
                let flow = flow_of(listener, &received);
                let Some(owner) = self.shard.owner_if_taken(now.mono, flow, received.bytes) else {
                    refused.count(self.shard.can_keep_out(now.mono, &flow));
                    continue;
                };
                owner
            };
            match owner {
                Owner::Shard(owner) if owner != self.index => {
                    debug_assert!(owner < self.shards, "the engine knows how many shards there are");
                    if self.bus.hand_over_ahead(
                        owner,
                        flow_of(listener, &received),
                        self.shard.ahead(),
                        received.bytes,
                    ) {
                        handed_over += 1;
                    } else {
                        counters.hand_over_dropped.add(1);
                    }
                }
                Owner::Shard(_) | Owner::Anyone => {
                    ours[ours_len] = index as u8;
                    ahead[ours_len] = self.shard.ahead();
                    ours_len += 1;
                }
            }
        }
        if let Some(since) = judging_since {
            self.gauge.note_refusing(self.clock.mono().since(since), refused, count);
        }
        let memory = memory_of(count as u64, bytes_in);
        self.gauge.note_taken(memory);
        self.queued[place].take(memory);
        if more_left {
            ask_what_waits(&self.sockets[place], &mut self.queued[place]);
        } else {
            self.queued[place].empty();
        }
        counters.datagrams_in.add(count as u64);
        counters.bytes_in.add(bytes_in);
        if handed_over > 0 {
            counters.handed_over.add(handed_over);
            // Before our own work, so that the others work meanwhile.
            self.bus.flush()?;
        }
        ahead[..ours_len].iter().flatten().for_each(|&it| self.shard.ask_ahead(it));
        for &index in &ours[..ours_len] {
            if let Some(received) = self.recv.get(usize::from(index)) {
                self.shard.on_datagram(now, flow_of(listener, &received), received.bytes);
            }
        }
        Ok(more_left)
    }

    /// Reads connections within the bounds of a turn.
    fn take_from_streams(&mut self, now: Now) -> io::Result<()> {
        let Self { index, shards, shard, bus, streams, from_streams, counters, .. } = self;
        let mut handed_over = 0;
        let is_judging = shard.is_judging(now.mono);
        let owner_of = |shard: &mut Shard, flow: &Flow, bytes: &[u8]| match is_judging {
            true => shard.owner_if_taken(now.mono, *flow, bytes),
            false => Some(shard.owner_of(bytes)),
        };
        streams.take(now.mono, |flow, bytes| match owner_of(shard, flow, bytes) {
            None => true,
            Some(Owner::Shard(owner)) if owner != *index => {
                debug_assert!(owner < *shards, "the engine knows how many shards there are");
                // What came by a stream will not come again, so nothing is dropped: its connection is not read until there
                // is room, and the peer is held up as TCP holds up whoever is too fast.
                let taken = bus.hand_over(owner, *flow, bytes);
                handed_over += u64::from(taken);
                taken
            }
            Some(Owner::Shard(_) | Owner::Anyone) => {
                from_streams.push(flow, bytes);
                true
            }
        });
        if handed_over > 0 {
            counters.handed_over.add(handed_over);
            // Before our own work, so that the others work meanwhile; for that ours was put aside.
            bus.flush()?;
        }
        let mut start = 0;
        for (flow, end) in from_streams.messages.drain(..) {
            shard.on_datagram(now, flow, &from_streams.bytes[start..end]);
            start = end;
        }
        from_streams.bytes.clear();
        Ok(())
    }

    /// Ends the engine's turn and brings out what it wrote.
    fn end_turn(&mut self, now: Now) -> io::Result<()> {
        // What a PUBLISH changes is told to our own watchers within the same turn; the bound is for notes that answer
        // notes, and what is beyond it is delivered in the next turn.
        for _ in 0..OWN_NOTE_ROUNDS {
            self.post_notes();
            if self.own_notes.is_empty() {
                break;
            }
            for note in self.own_notes.drain(..) {
                self.shard.on_note(now, note);
            }
        }
        // Before the work that follows, so that the watchers of other shards are told at the same time as ours.
        self.bus.flush()?;
        self.send(now);
        self.shard.on_turn_end(now);
        self.post_notes();
        self.send(now);
        self.post_lookups();
        self.streams.fire_timers(now.mono);
        self.post_unsent();
        self.bus.flush()?;
        Ok(())
    }

    /// Hands the names that the engine wants to know to the resolver.
    fn post_lookups(&mut self) {
        while let Some(query) = self.shard.lookups.pop() {
            let refused = match &self.lookups {
                Some(lookups) => lookups.ask(self.index, query).err(),
                None => Some(query),
            };
            if let Some(query) = refused {
                self.shard.lookup_refused(query);
            }
        }
    }

    /// Brings what the engine wrote to the sockets.
    fn send(&mut self, now: Now) {
        let mut figures = SendFigures::default();
        let refusals = self.shard.take_refusals();
        let refusing_since = (refusals.all > 0).then(|| (self.clock.mono(), self.shard.outbox.len()));
        let Shard { outbox, bodies, .. } = &mut self.shard;
        self.sender.send(&self.sockets, outbox, bodies, &mut figures);
        for message in outbox.messages().iter().filter(|it| it.flow.transport.is_stream()) {
            let (flow, parts) = (&message.flow, outbox.parts(message, bodies));
            match flow.connection.map(ConnectionId::shard) {
                Some(holder) if holder != self.index && holder < self.shards => {
                    if !self.bus.send(holder, *flow, &parts) {
                        // The lane is full, which says nothing of the connection.
                        self.streams.note_unsent(&parts, true);
                    }
                }
                _ => self.streams.send(now.mono, flow, &parts),
            }
        }
        outbox.clear(bodies);
        count_sent(&self.counters, figures);
        self.streams.flush(now.mono);
        if let Some((since, count)) = refusing_since {
            self.gauge.note_refusing(self.clock.mono().since(since), refusals, count);
        }
    }

    /// Tells the owners of NOTIFYs that could not be sent.
    fn post_unsent(&mut self) {
        for note in self.streams.take_unsent() {
            let Note::Unsent { partition, .. } = note else { continue };
            match usize::from(partition) % self.shards {
                owner if owner == self.index => self.own_notes.push(note),
                owner => self.bus.tell(owner, note),
            }
        }
    }

    /// Moves the engine's notes to the bus, those to ourselves aside.
    fn post_notes(&mut self) {
        for (to, note) in self.shard.notes.drain(..) {
            if to == self.index {
                self.own_notes.push(note);
            } else {
                self.bus.tell(to, note);
            }
        }
        // One that finds no room is given again with the next turn, which comes soon then.
        let bus = &mut self.bus;
        self.shard.reports.retain(|(to, report)| !bus.report(*to, report));
    }

    /// After the wish to stop: reads no socket any more, but brings out every answer, and takes what other shards put
    /// in until nothing is under way between them.
    fn finish(&mut self) -> io::Result<Vec<Carried>> {
        let give_up = self.clock.mono() + FINISH_SPAN;
        let handing_over = self.stop.is_handing_over();
        self.readiness.stop_reading();
        let mut rounds = Rounds::new(self.shards);
        loop {
            let now = self.clock.now();
            if !self.bus.is_empty() || !self.own_notes.is_empty() {
                rounds.take();
            }
            let work_left = self.take_from_bus(now);
            self.end_turn(now)?;
            let idle = self.bus.is_empty()
                && !self.bus.waits_for_room()
                && self.own_notes.is_empty()
                && (0..self.sockets.len()).all(|place| !self.sender.is_waiting(place))
                // What waits for a full socket goes with it.
                && (handing_over || !self.streams.waits_for_sockets());
            if (idle && rounds.is_over(&self.stop.rest)) || now.mono >= give_up {
                if handing_over {
                    return Ok(self.streams.hand_over(now.mono));
                }
                self.streams.close_all(now.mono);
                return Ok(Vec::new());
            }
            if work_left || !self.bus.prepare_sleep() {
                continue;
            }
            let result = self.poll(Some(FINISH_POLL));
            self.bus.wake_up();
            result?;
        }
    }
}

/// What is known of what a socket holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Holds {
    /// It was empty when it was last asked.
    Nothing,
    /// It was emptied in the last turn.
    NothingLately,
    /// It holds a datagram or an error, or may.
    Something,
}

/// Adds what sending came to.
fn count_sent(counters: &NetCounters, figures: SendFigures) {
    counters.datagrams_out.add(figures.sent);
    counters.bytes_out.add(figures.sent_bytes);
    counters.send_refused.add(figures.refused);
    counters.send_dropped.add(figures.dropped);
}

/// Messages that lie behind one another, used again in each turn.
#[derive(Default)]
struct FromStreams {
    bytes: Vec<u8>,
    /// Where each came from and where it ends.
    messages: Vec<(Flow, usize)>,
}

impl FromStreams {
    fn push(&mut self, flow: &Flow, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.messages.push((*flow, self.bytes.len()));
    }
}

/// Asks the kernel how much waits in a socket. Returns how many datagrams it has dropped there so far. A kernel that does not say
/// leaves us with what we see ourselves.
fn ask_what_waits(socket: &UdpSocket, queued: &mut Queued) -> u64 {
    let (reported, dropped) = mmsg::waiting(socket.as_fd()).unwrap_or_default();
    queued.report(u64::from(reported));
    u64::from(dropped)
}

/// Where a datagram came from.
fn flow_of(listener: u8, received: &Received<'_>) -> Flow {
    Flow::udp(listener, received.local_ip, received.peer)
}

const _: () = assert!(crate::config::LISTENERS_MAX <= CONNECTION_TOKENS);

/// Most items taken from the bus in one turn, so that sockets, timers and answers come to their right.
const BUS_ITEMS_PER_TURN: usize = 128;

/// Most turns in which sockets that are known to hold more keep us from asking the others.
const UNPOLLED_MAX: usize = 8;

const _: () = assert!(BATCH_LEN <= u8::MAX as usize + 1);

/// Most rounds of notes to ourselves that are delivered within the turn: `Watch` leads to `Changed`, which leads to none.
const OWN_NOTE_ROUNDS: usize = 4;

/// How soon a shard looks again whether a full queue has room for its notes.
const BACKLOG_RETRY: Duration = Duration::from_millis(1);

/// How long a stopping shard waits for the others and for full sockets; a stop must take less than a second.
const FINISH_SPAN: Duration = Duration::from_millis(300);

/// How often a stopping shard looks whether the others have stopped.
const FINISH_POLL: Duration = Duration::from_millis(1);

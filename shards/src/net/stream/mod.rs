//! The connections of one shard: accepted, dialled, read, written, closed.
//!
//! [`Streams`] is driven by the event loop and waits for nothing. What a connection may do in one turn is bounded, in bytes
//! read and in connections looked at, so that a busy one does not starve the others.
//!
//! Invariants:
//!   * a connection is in the table as long as its socket is open, and counted by [`Admission`] exactly as long;
//!   * `queued` and `dirty` of a connection say whether its number stands in `ready` (or `blocked`) and `dirty`; numbers there
//!     may belong to a connection that is gone, and mean nothing then;
//!   * messages of one connection are handed over in the order in which they came;
//!   * a message is written whole or not at all.

mod accept;
pub mod admission;
pub mod bind;
mod bounded;
mod by_peer;
mod connection;
mod dial;
pub mod generations;
pub mod hand_over;
pub mod layer;
pub mod out_buffer;
#[cfg(test)]
mod tests;
pub mod tls;
mod unfinished;
mod upgrade;
pub mod websocket;

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;

use comsipl_core::chunked::Slab;
use comsipl_core::framing::PONG;
use comsipl_core::timer::Wheel;
use comsipl_core::{ConnectionId, Flow, Listen, Mono};
use crossbeam::utils::CachePadded;
use mio::event::Event;
use mio::{Interest, Registry, Token};

use accept::Acceptor;
use admission::Admission;
use by_peer::ByPeer;
use connection::{Connection, DRAIN_SPAN, Overdue, Phase, Taken};
use dial::{Dials, NotDialled};
use generations::Generations;
use hand_over::Carried;
use layer::{Layer, LayerSettings, ReadEnd};
use out_buffer::Buffers;

use crate::metrics::NetCounters;
use crate::note::Note;
use crate::settings::{Settings, StreamLimits};

/// Tokens from here on name connections by their slot; those below name listeners.
pub const CONNECTION_TOKENS: usize = 1 << 16;

/// What the connections of a shard begin with.
pub struct StreamsStart {
    /// The shard's number.
    pub shard: u8,
    /// Our listening socket of each stream listener, with the listener's number.
    pub sockets: Vec<(u8, std::net::TcpListener)>,
    /// The addresses of all listeners, in the order of [`Flow::listener`].
    pub listeners: Vec<Listen>,
    /// Where sockets are registered.
    pub registry: Registry,
    /// Counts the connections of all shards.
    pub admission: Arc<Admission>,
    /// What connections may cost, and from whom they are accepted.
    pub settings: Rc<Settings>,
    /// What lies between sockets and messages.
    pub layers: LayerSettings,
    /// Connections to go on with.
    pub carried: Vec<Carried>,
    /// Our counters.
    pub counters: Arc<CachePadded<NetCounters>>,
    /// The clock.
    pub now: Mono,
    /// The names of connections that were not given yet.
    pub generations: Generations,
}

/// The connections of one shard.
pub struct Streams {
    shard: u8,
    acceptors: Vec<Acceptor>,
    listeners: Vec<Listen>,
    registry: Registry,
    admission: Arc<Admission>,
    settings: Rc<Settings>,
    limits: StreamLimits,
    layers: LayerSettings,
    counters: Arc<CachePadded<NetCounters>>,
    table: Slab<Option<Box<Connection>>>,
    /// The newest connection to each peer, for messages that name none.
    by_peer: ByPeer,
    /// Connections whose sockets may hold something, longest waiting first.
    ready: VecDeque<u32>,
    /// Connections whose messages found no room with their owners; they are ready again in the next turn.
    blocked: Vec<u32>,
    /// Connections that something was pushed to since they were flushed.
    dirty: Vec<u32>,
    /// How many connections wait for a full socket.
    full: usize,
    /// The connections that are being opened by us.
    dials: Dials,
    timers: Wheel,
    generations: Generations,
    buffers: Buffers,
    scratch: Box<[u8]>,
    /// What could not be sent, for its owner.
    unsent: Vec<Note>,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The peer closed it.
    Peer,
    /// The socket or the layer reported an error.
    Error,
    /// The peer does not read what we write.
    SlowReader,
    /// A message was not complete in time.
    SlowMessage,
    /// A handshake was not.
    SlowHandshake,
    /// Nothing came for long.
    Idle,
    /// What came cannot be framed.
    Broken,
    /// It could not be opened.
    NotOpened,
    /// The node stops.
    Stop,
}

impl Streams {
    /// Registers the listening sockets. To be called on the thread that will drive it.
    ///
    /// # Errors
    /// What the system says of the registration.
    pub fn new(start: StreamsStart) -> io::Result<Self> {
        let mut acceptors = Vec::new();
        for (listener, socket) in start.sockets {
            let listen = start.listeners[usize::from(listener)];
            acceptors.push(Acceptor::new(listener, listen, socket, &start.registry)?);
        }
        let mut streams = Self {
            shard: start.shard,
            acceptors,
            listeners: start.listeners,
            registry: start.registry,
            admission: start.admission,
            limits: start.settings.streams,
            settings: start.settings,
            layers: start.layers,
            counters: start.counters,
            table: Slab::default(),
            by_peer: ByPeer::default(),
            ready: VecDeque::new(),
            blocked: Vec::new(),
            dirty: Vec::new(),
            full: 0,
            dials: Dials::default(),
            timers: Wheel::new(start.now),
            generations: start.generations,
            buffers: Buffers::default(),
            scratch: vec![0; READ_LEN].into_boxed_slice(),
            unsent: Vec::new(),
        };
        streams.adopt(start.now, start.carried);
        Ok(streams)
    }

    /// Takes what the poll says of a listening socket or of a connection.
    pub fn on_event(&mut self, now: Mono, event: &Event) {
        let Token(token) = event.token();
        let Some(slot) = token.checked_sub(CONNECTION_TOKENS) else {
            for acceptor in self.acceptors.iter_mut().filter(|it| usize::from(it.listener) == token) {
                acceptor.ready = true;
            }
            return;
        };
        let Ok(slot) = u32::try_from(slot) else { return };
        let Some(connection) = self.connection(slot) else { return };
        if event.is_read_closed() || event.is_error() {
            connection.peer_closed = true;
        }
        if connection.is_connecting() {
            self.opened_or_not(now, slot);
            return;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.queue(slot);
        }
        if event.is_writable() {
            self.mark_dirty(slot);
        }
    }

    /// Accepts and reads, within the bounds of a turn. `deliver` gets each message with its flow and says whether it took it;
    /// what it does not take it is given again in a later turn, and nothing more is read from that connection meanwhile.
    pub fn take(&mut self, now: Mono, mut deliver: impl FnMut(&Flow, &[u8]) -> bool) {
        self.accept(now);
        // Behind the others: their owners may have room.
        self.ready.extend(self.blocked.drain(..));
        let (mut messages, mut handshakes) = (0, 0);
        for _ in 0..self.ready.len().min(CONNECTIONS_PER_TURN) {
            if messages >= MESSAGES_PER_TURN {
                break;
            }
            let Some(slot) = self.ready.pop_front() else { break };
            if self.table[slot].as_deref().is_some_and(|it| it.queued && it.is_handshaking()) {
                handshakes += 1;
                if handshakes > HANDSHAKES_PER_TURN {
                    self.ready.push_back(slot);
                    continue;
                }
            }
            messages += self.read(now, slot, &mut deliver);
        }
    }

    /// Reads a connection once; says how many messages that brought.
    fn read(&mut self, now: Mono, slot: u32, deliver: &mut impl FnMut(&Flow, &[u8]) -> bool) -> usize {
        let Some(connection) = self.table[slot].as_deref_mut().filter(|it| it.queued) else { return 0 };
        connection.queued = false;
        if let Phase::Draining { why, .. } = connection.phase {
            match connection.discard(&mut self.scratch) {
                Ok(ReadEnd::Closed) => self.close(slot, why),
                Ok(ReadEnd::Bound | ReadEnd::Short) => self.queue(slot),
                Ok(ReadEnd::WouldBlock) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.close(slot, why),
            }
            return 0;
        }
        let (taken, end) = connection.read(now, &mut self.scratch, &mut self.buffers, deliver);
        let Taken { bytes, messages, pings, broken, blocked } = taken;
        let transport = connection.flow.transport;
        self.counters.stream_bytes_in.add(bytes as u64);
        self.counters.stream_messages_in(transport).add(messages as u64);
        if blocked {
            connection.queued = true;
            self.blocked.push(slot);
            self.counters.stream_hand_over_waits.up();
        }
        self.counters.stream_keep_alives.add(pings as u64);
        for _ in 0..pings {
            // Where one finds no room, the others do not.
            if !self.push(now, slot, &[PONG]) {
                break;
            }
        }
        // Whatever else the read said, the next one will say again.
        if blocked {
            if self.table[slot].as_deref().is_some_and(|it| it.layer.wants_flush()) {
                self.mark_dirty(slot);
            }
            self.arm(slot);
            return messages;
        }
        if let Some(answer) = broken {
            self.counters.stream_broken.up();
            self.push(now, slot, &[&answer]);
            self.drain(now, slot, Why::Broken);
            return messages;
        }
        let Some(connection) = self.connection(slot) else { return messages };
        match end {
            Ok(ReadEnd::Closed) => {
                if !connection.layer.ends_one_way() {
                    // What follows a Close unread would turn our end into a reset, which may destroy the answer.
                    self.drain(now, slot, Why::Peer);
                } else if !connection.answer_only(now) {
                    self.close(slot, Why::Peer);
                } else if let Some(connection) = self.table[slot].as_deref() {
                    self.by_peer.remove(&connection.peer(), slot);
                }
            }
            Err(error) => {
                tracing::debug!(%error, peer = %connection.flow.peer, "a connection broke");
                match error.kind() {
                    // The layer has said why, and the peer is to read that.
                    io::ErrorKind::InvalidData => self.drain(now, slot, Why::Error),
                    _ => self.close(slot, Why::Error),
                }
            }
            Ok(ReadEnd::Bound) => self.queue(slot),
            // An end that came before the read was reported with what it read, and not again.
            Ok(ReadEnd::Short) if connection.peer_closed => self.queue(slot),
            Ok(ReadEnd::Short) => {}
            Ok(ReadEnd::WouldBlock) => connection.peer_closed = false,
        }
        if let Some(connection) = self.table[slot].as_deref() {
            // The end of a handshake may have let go what waited for it, which a flush takes note of.
            if connection.layer.wants_flush() || !connection.unwritten.is_empty() {
                self.mark_dirty(slot);
            }
            self.arm(slot);
        }
        messages
    }

    /// Sends a message by the connection that its flow names, or, if that names none, by the one that there is to the peer or
    /// a new one. What cannot be sent is told by [`Self::take_unsent`].
    pub fn send(&mut self, now: Mono, flow: &Flow, parts: &[&[u8]]) {
        let head = parts.first().copied().unwrap_or_default();
        let slot = match flow.connection {
            Some(id) => self.find(id).map_or_else(|| self.reach_sent_by(now, flow, head), Ok),
            None => self.reach(now, flow, head),
        };
        let sent = slot.is_ok_and(|slot| self.push(now, slot, parts));
        let lives = match slot {
            Ok(slot) => self.table[slot].as_deref().is_some_and(Connection::may_take_later),
            Err(not_dialled) => not_dialled == NotDialled::NoRoom,
        };
        if sent {
            self.counters.stream_messages_out(flow.transport).up();
        } else {
            self.note_unsent(parts, lives);
        }
    }

    /// Counts a message that cannot be sent, and notes it for its owner if it is a NOTIFY of ours; `lives`: the same way may
    /// do later.
    pub fn note_unsent(&mut self, parts: &[&[u8]], lives: bool) {
        self.counters.stream_unsent.up();
        self.unsent.extend(parts.first().and_then(|head| Note::unsent(head, lives)));
    }

    /// What could not be sent, for the owners of the subscriptions.
    pub fn take_unsent(&mut self) -> impl Iterator<Item = Note> {
        self.unsent.drain(..)
    }

    /// Writes what was pushed since the last call.
    pub fn flush(&mut self, now: Mono) {
        while let Some(slot) = self.dirty.pop() {
            let Some(connection) = self.table[slot].as_deref_mut().filter(|it| it.dirty) else { continue };
            connection.dirty = false;
            let was_full = connection.full;
            let result = connection.flush(now, &mut self.buffers);
            self.full = self.full + usize::from(connection.full) - usize::from(was_full);
            if let Err(error) = result {
                tracing::debug!(%error, peer = %connection.flow.peer, "a connection broke");
                self.close(slot, Why::Error);
            }
        }
    }

    /// Closes connections whose time is over.
    pub fn fire_timers(&mut self, now: Mono) {
        for _ in 0..TIMERS_PER_TURN {
            let Some(slot) = self.timers.pop_due(now) else { return };
            let Some(connection) = self.table[slot].as_deref() else { continue };
            let (at, overdue) = connection.deadline(&self.limits);
            if at > now {
                self.timers.arm(slot, at);
                continue;
            }
            match overdue {
                Overdue::Connecting => self.close(slot, Why::NotOpened),
                Overdue::Handshake => self.close(slot, Why::SlowHandshake),
                Overdue::Reader => self.close(slot, Why::SlowReader),
                Overdue::Message => self.close(slot, Why::SlowMessage),
                Overdue::Idle => self.close(slot, Why::Idle),
                Overdue::Answering => self.close(slot, Why::Peer),
                Overdue::Draining(why) => self.close(slot, why),
            }
        }
    }

    /// When [`Self::fire_timers`] or [`Self::take`] must be called again at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let accepting = self.acceptors.iter().filter_map(|it| it.paused_until);
        accepting.chain(self.timers.deadline()).min()
    }

    /// Whether there is something to accept or to read at once.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.acceptors.iter().any(Acceptor::has_work)
    }

    /// Whether messages found no room with their owners.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Whether something waits for a full socket.
    #[must_use]
    pub const fn waits_for_sockets(&self) -> bool {
        self.full > 0
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.in_use()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says good-bye on all connections and closes them.
    pub fn close_all(&mut self, now: Mono) {
        for slot in 0..self.table.high_water() as u32 {
            let Some(connection) = self.table[slot].as_deref_mut() else { continue };
            if !connection.is_connecting() {
                connection.layer.say_goodbye(&mut self.buffers);
                // Unread bytes would turn the end of our side into a reset, which may destroy what the peer has not read.
                if connection.flush(now, &mut self.buffers).is_ok()
                    && connection.socket.shutdown(Shutdown::Write).is_ok()
                {
                    for _ in 0..DISCARDS_AT_STOP {
                        if !matches!(connection.discard(&mut self.scratch), Ok(ReadEnd::Bound)) {
                            break;
                        }
                    }
                }
            }
            self.close(slot, Why::Stop);
        }
    }

    /// Takes a new socket into the table, and so gives it a name.
    fn insert(
        &mut self,
        now: Mono,
        socket: mio::net::TcpStream,
        layer: Layer,
        flow: Flow,
        host: Option<&str>,
        phase: Phase,
    ) -> io::Result<u32> {
        let slot = self.table.insert(None);
        if slot as usize >= ConnectionId::SLOTS {
            self.table.remove(slot);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let id = ConnectionId::new(self.shard, slot, self.generations.draw());
        let flow = Flow { connection: Some(id), ..flow };
        self.place(socket, id, |socket| {
            Connection::new(socket, layer, id, flow, host.map(Box::from), phase, now)
        })?;
        Ok(slot)
    }

    /// Puts a connection at the place in the table that its name says, which is given back if its socket cannot be registered.
    fn place(
        &mut self,
        socket: mio::net::TcpStream,
        id: ConnectionId,
        connection: impl FnOnce(mio::net::TcpStream) -> Connection,
    ) -> io::Result<()> {
        let mut socket = socket;
        let slot = id.slot();
        // Both at once and for good: the kernel reports room in a socket only after it was full.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.registry.register(&mut socket, Token(CONNECTION_TOKENS + slot as usize), interest)
        {
            self.table.remove(slot);
            return Err(error);
        }
        let connection = connection(socket);
        self.by_peer.insert(&connection.peer(), slot);
        self.table[slot] = Some(Box::new(connection));
        self.arm(slot);
        Ok(())
    }

    /// Closes a connection and forgets it.
    fn close(&mut self, slot: u32, why: Why) {
        if self.table[slot].is_none() {
            return;
        }
        let Some(mut connection) = self.table.remove(slot) else { return };
        self.timers.cancel(slot);
        self.by_peer.remove(&connection.peer(), slot);
        if let Phase::Connecting(errand) = connection.phase {
            self.dials.of(errand).end(connection.flow.peer.ip());
        }
        self.counters.stream_unsent.add(connection.unwritten.len() as u64);
        self.unsent.extend(connection.unwritten.drain(..).map(|(_, note)| note));
        self.full -= usize::from(connection.full);
        self.admission.leave(connection.flow.peer.ip());
        if let Err(error) = self.registry.deregister(&mut connection.socket) {
            tracing::debug!(%error, "a socket was not deregistered");
        }
        let counters = &self.counters;
        match why {
            Why::Peer => counters.closed_by_peer.up(),
            Why::Error => counters.closed_by_error.up(),
            Why::SlowReader => counters.closed_slow_reader.up(),
            Why::SlowMessage => counters.closed_slow_message.up(),
            Why::SlowHandshake => counters.closed_slow_handshake.up(),
            Why::Idle => counters.closed_idle.up(),
            Why::Broken => counters.closed_broken.up(),
            Why::NotOpened => counters.dials_failed.up(),
            Why::Stop => counters.closed_at_stop.up(),
        }
        connection.layer.dissolve(&mut self.buffers);
    }

    /// Puts a message behind what waits for a connection; says whether it was taken.
    fn push(&mut self, now: Mono, slot: u32, parts: &[&[u8]]) -> bool {
        let Some(connection) = self.table[slot].as_deref_mut() else { return false };
        if !connection.takes(parts.first().copied().unwrap_or_default()) {
            return false;
        }
        let was_full = connection.full;
        let result = connection.push(now, parts, &mut self.buffers);
        self.full = self.full + usize::from(connection.full) - usize::from(was_full);
        match result {
            Ok(true) => {}
            Ok(false) => {
                self.arm(slot);
                return false;
            }
            Err(error) => {
                tracing::debug!(%error, peer = %connection.flow.peer, "a connection broke");
                self.close(slot, Why::Error);
                return false;
            }
        }
        self.counters.stream_bytes_out.add(parts.iter().map(|part| part.len() as u64).sum());
        if !connection.is_connecting() && !connection.full {
            self.mark_dirty(slot);
        }
        true
    }

    /// Ends a connection whose stream cannot be followed any further, or has ended: what waits is written, then the peer is to close.
    fn drain(&mut self, now: Mono, slot: u32, why: Why) {
        if let Some(connection) = self.table[slot].as_deref_mut() {
            connection.layer.say_goodbye(&mut self.buffers);
            connection.phase = Phase::Draining { until: now + DRAIN_SPAN, why };
            self.by_peer.remove(&connection.peer(), slot);
            self.mark_dirty(slot);
            self.queue(slot);
            self.arm(slot);
        }
    }

    /// The connection of that name.
    fn find(&self, id: ConnectionId) -> Option<u32> {
        let slot = id.slot();
        let known = (slot as usize) < self.table.high_water();
        (known && self.table[slot].as_deref().is_some_and(|it| it.id == id)).then_some(slot)
    }

    fn connection(&mut self, slot: u32) -> Option<&mut Connection> {
        if slot as usize >= self.table.high_water() {
            return None;
        }
        self.table[slot].as_deref_mut()
    }

    /// Puts a connection at the end of those to be read.
    fn queue(&mut self, slot: u32) {
        if let Some(connection) = self.table[slot].as_deref_mut()
            && !connection.queued
        {
            connection.queued = true;
            self.ready.push_back(slot);
        }
    }

    /// Puts a connection on the list of those to be written to.
    fn mark_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.table[slot].as_deref_mut()
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Arms the timer of a connection.
    fn arm(&mut self, slot: u32) {
        if let Some(connection) = self.table[slot].as_deref() {
            self.timers.arm(slot, connection.deadline(&self.limits).0);
        }
    }
}

/// Bytes read from one connection in a turn, besides what a layer gathers: a full record of TLS (RFC 8446 §5.1), a dozen messages.
const READ_LEN: usize = 16 * 1024;
/// Most connections read in a turn.
const CONNECTIONS_PER_TURN: usize = 64;
/// Most of them in handshakes, of which one costs as much as hundreds of messages.
const HANDSHAKES_PER_TURN: usize = 8;
/// When so many messages have come, the other connections wait for the next turn.
const MESSAGES_PER_TURN: usize = 64;
/// Most connections that are closed in a turn because their time is over.
const TIMERS_PER_TURN: usize = 256;
/// Most reads of a connection to which good-bye was said because the node stops.
const DISCARDS_AT_STOP: usize = 4;

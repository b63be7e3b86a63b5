//! One connection: its socket, its layer, and the messages found on it.
//!
//! | state | input | next |
//! |---|---|---|
//! | connecting | the socket is writable | open |
//! | connecting | an error, or its time is over | closed |
//! | open | a stream that cannot be framed, a record or frame or handshake that is refused | draining, behind an answer |
//! | open | the end of a WebSocket | draining |
//! | open | the peer sends nothing more, soon after a message | answering |
//! | open | the peer sends nothing more, an error, its time is over | closed |
//! | answering | an error, its time is over | closed |
//! | draining | the peer has closed, an error, its time is over | closed |

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use comsipl_core::framing::{Frame, Framer};
use comsipl_core::msg;
use comsipl_core::{ConnectionId, Flow, Mono};
use mio::net::TcpStream;

use super::Why;
use super::by_peer::Peer;
use super::dial::Errand;
use super::layer::{Layer, ReadEnd, Sink};
use super::out_buffer::Buffers;
use crate::note::Note;
use crate::settings::StreamLimits;

/// Where a connection stands; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting(Errand),
    Open,
    /// The peer sends nothing more; it gets answers, but no requests.
    Answering {
        until: Mono,
    },
    /// We write what waits, and read nothing more.
    Draining {
        until: Mono,
        why: Why,
    },
}

/// One connection of a shard.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) layer: Layer,
    /// What its messages come with, and its name.
    pub(super) flow: Flow,
    pub(super) id: ConnectionId,
    /// The name that the peer was found by, if we opened it and TLS proves it.
    host: Option<Box<str>>,
    pub(super) phase: Phase,
    /// Whether the socket may hold something and the connection is in the queue of those to be read.
    pub(super) queued: bool,
    /// Whether it is in the list of those to be written to.
    pub(super) dirty: bool,
    /// Whether the socket is full, so that it has to tell when it takes more.
    pub(super) full: bool,
    /// Whether the poll said that the peer sends nothing more.
    pub(super) peer_closed: bool,
    /// What to tell if it closes before all that was pushed is written, each with where it ends in that.
    pub(super) unwritten: VecDeque<(u64, Note)>,
    /// When a full socket last took anything.
    stalled: Option<Mono>,
    /// Whether a message found no room since then.
    refused: bool,
    framer: Framer,
    held: Held,
    /// How the stream ended behind what is held; to be told when that was taken.
    end_behind: Option<Ending>,
    opened: Mono,
    last_input: Mono,
    last_message: Option<Mono>,
    /// When the message that is not complete yet began, or what it comes in (a TLS record, a WebSocket frame).
    message_began: Option<Mono>,
}

/// How a stream ended: an answer to what cannot be framed, and what the layer said.
type Ending = (Option<Vec<u8>>, io::Result<ReadEnd>);

/// What one look at a connection brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) bytes: usize,
    pub(super) messages: usize,
    pub(super) pings: usize,
    /// The stream cannot be framed; with an answer, if one is possible.
    pub(super) broken: Option<Vec<u8>>,
    /// What was read could not all be handed over.
    pub(super) blocked: bool,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        layer: Layer,
        id: ConnectionId,
        flow: Flow,
        host: Option<Box<str>>,
        phase: Phase,
        now: Mono,
    ) -> Self {
        Self {
            socket,
            layer,
            flow,
            id,
            host,
            phase,
            queued: false,
            dirty: false,
            full: false,
            peer_closed: false,
            unwritten: VecDeque::new(),
            stalled: None,
            refused: false,
            framer: Framer::default(),
            held: Held::default(),
            end_behind: None,
            opened: now,
            last_input: now,
            last_message: None,
            message_began: None,
        }
    }

    /// To whom it leads.
    pub(super) fn peer(&self) -> Peer<'_> {
        Peer { transport: self.flow.transport, address: self.flow.peer, host: self.host.as_deref() }
    }

    /// Reads once, and hands messages to `deliver`, which says whether it took them. What it does not take is kept, and nothing
    /// more is read before it has been taken.
    pub(super) fn read(
        &mut self,
        now: Mono,
        scratch: &mut [u8],
        buffers: &mut Buffers,
        deliver: &mut impl FnMut(&Flow, &[u8]) -> bool,
    ) -> (Taken, io::Result<ReadEnd>) {
        let mut taken = Taken::default();
        let flow = self.flow;
        let was_held = !self.held.is_empty();
        if !self.held.deliver(|bytes| deliver(&flow, bytes)) {
            taken.blocked = true;
            return (taken, Ok(ReadEnd::Bound));
        }
        if let Some((broken, end)) = self.end_behind.take() {
            taken.broken = broken;
            return (taken, end);
        }
        if was_held && self.message_began.is_some() {
            // It was we who held it up.
            self.message_began = Some(now);
        }
        let mut intake =
            Intake { framer: &mut self.framer, held: &mut self.held, flow, deliver, taken: &mut taken };
        let end = self.layer.read(&mut self.socket, scratch, &mut intake, buffers);
        taken.blocked = !self.held.is_empty();
        if taken.bytes > 0 {
            self.last_input = now;
        }
        if taken.messages > 0 {
            self.last_message = Some(now);
        }
        if !self.framer.is_within_message() && !self.layer.is_within_unit() {
            self.message_began = None;
        } else if taken.messages > 0 || self.message_began.is_none() {
            self.message_began = Some(now);
        }
        if taken.blocked && (taken.broken.is_some() || end.is_err()) {
            // Requests that came whole before are handed over first.
            self.end_behind = Some((taken.broken.take(), end));
            return (taken, Ok(ReadEnd::Bound));
        }
        (taken, end)
    }

    /// The peer sends nothing more: goes on answering if a message came just before, as from a program that closes its side
    /// behind its request. Returns whether it does.
    pub(super) fn answer_only(&mut self, now: Mono) -> bool {
        let asked =
            self.layer.ends_one_way() && self.last_message.is_some_and(|at| now.since(at) < ANSWER_SPAN);
        if asked && self.phase == Phase::Open {
            self.phase = Phase::Answering { until: now + ANSWER_SPAN };
        }
        asked && matches!(self.phase, Phase::Answering { .. })
    }

    /// Whether reading it may go on with a handshake.
    pub(super) fn is_handshaking(&self) -> bool {
        self.phase == Phase::Open && self.layer.is_handshaking()
    }

    /// Whether a message that begins with `head` may still be sent.
    pub(super) fn takes(&self, head: &[u8]) -> bool {
        match self.phase {
            Phase::Connecting(_) | Phase::Open => true,
            Phase::Answering { .. } => head.starts_with(b"SIP/"),
            Phase::Draining { .. } => false,
        }
    }

    /// Whether nothing but bytes would be lost if another process read on.
    pub(super) fn can_be_taken_up(&self) -> bool {
        self.end_behind.is_none() && !self.framer.is_broken()
    }

    /// Takes out what was read and not handed over: whole messages, and the beginning of one.
    pub(super) fn unread(&mut self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut held = Vec::new();
        self.held.deliver(|message| {
            held.push(message.to_vec());
            true
        });
        (held, self.framer.begun())
    }

    /// Goes on where another process has stopped, with what [`Self::unread`] gave there.
    pub(super) fn take_up(&mut self, now: Mono, held: &[Vec<u8>], begun: &[u8]) {
        held.iter().for_each(|message| self.held.push(message));
        let (_, found) = self.framer.next(begun);
        debug_assert!(found.is_none(), "what has begun has not ended");
        self.message_began = self.framer.is_within_message().then_some(now);
    }

    /// Reads and forgets, once; says whether more may come.
    pub(super) fn discard(&mut self, scratch: &mut [u8]) -> io::Result<ReadEnd> {
        io::Read::read(&mut self.socket, scratch).map(|len| match len {
            0 => ReadEnd::Closed,
            len if len < scratch.len() => ReadEnd::Short,
            _ => ReadEnd::Bound,
        })
    }

    /// Writes what waits. When all is written and the connection is to be closed, the peer is told that nothing follows.
    pub(super) fn flush(&mut self, now: Mono, buffers: &mut Buffers) -> io::Result<()> {
        if self.is_connecting() {
            return Ok(());
        }
        let written = self.layer.written_in_all();
        self.full = self.layer.flush(&mut self.socket, buffers)?;
        if !self.full || self.layer.written_in_all() != written {
            (self.stalled, self.refused) = (None, false);
        }
        if self.full {
            self.stalled.get_or_insert(now);
        }
        let left = self.layer.left_in_all();
        while self.unwritten.front().is_some_and(|(end, _)| *end <= left) {
            self.unwritten.pop_front();
        }
        // During a handshake messages wait although the socket is not full.
        if !self.full {
            if !self.layer.is_handshaking() {
                self.unwritten.shrink_to(UNWRITTEN_KEPT_MAX);
            }
            if let Phase::Draining { .. } = self.phase {
                // It fails if the peer is gone, which reading or the timer finds out.
                let _ = self.socket.shutdown(Shutdown::Write);
            }
        }
        Ok(())
    }

    /// Takes a message to be written, whole or not at all; says whether it did. What waits is written first if there is no
    /// room otherwise, so that what one turn brings fills no buffer of a peer that reads. A message that finds no room even
    /// so is not taken, and the connection goes on: only its time may end it.
    pub(super) fn push(&mut self, now: Mono, parts: &[&[u8]], buffers: &mut Buffers) -> io::Result<bool> {
        if self.layer.push(parts, buffers).is_err() {
            if self.is_connecting() || self.layer.is_handshaking() {
                // Nothing can be written yet, and how long that may last is bounded.
                return Ok(false);
            }
            self.flush(now, buffers)?;
            if self.layer.push(parts, buffers).is_err() {
                self.refused = self.full;
                return Ok(false);
            }
        }
        let note = parts.first().and_then(|head| Note::unsent(head, false));
        self.unwritten.extend(note.map(|note| (self.layer.pushed_in_all(), note)));
        Ok(true)
    }

    /// Whether it is being opened by us.
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_))
    }

    /// Whether what is refused now may be taken later.
    pub(super) fn may_take_later(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_) | Phase::Open)
    }

    /// When something has to happen, and what is wrong if it does not.
    pub(super) fn deadline(&self, limits: &StreamLimits) -> (Mono, Overdue) {
        match self.phase {
            Phase::Connecting(_) => return (self.opened + CONNECT_SPAN, Overdue::Connecting),
            Phase::Answering { until } => return (until, Overdue::Answering),
            Phase::Draining { until, why } => return (until, Overdue::Draining(why)),
            Phase::Open => {}
        }
        let idle = (self.last_input + limits.idle, Overdue::Idle);
        let handshake =
            self.layer.is_handshaking().then(|| (self.opened + limits.handshake, Overdue::Handshake));
        // What waits for its owner is held up by us, and what follows with it.
        let message = self
            .message_began
            .filter(|_| self.held.is_empty())
            .map(|began| (began + limits.message, Overdue::Message));
        let reader = self.stalled.filter(|_| self.refused).map(|at| (at + limits.message, Overdue::Reader));
        [Some(idle), handshake, message, reader]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
            .unwrap_or(idle)
    }
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Connecting,
    Handshake,
    Message,
    Reader,
    Idle,
    Answering,
    Draining(Why),
}

/// Takes what the layer reads.
struct Intake<'c, D> {
    framer: &'c mut Framer,
    held: &'c mut Held,
    flow: Flow,
    deliver: &'c mut D,
    taken: &'c mut Taken,
}

impl<D: FnMut(&Flow, &[u8]) -> bool> Intake<'_, D> {
    fn take(&mut self, message: &[u8]) {
        self.taken.messages += 1;
        // What was held back first comes first.
        if !self.held.is_empty() || !(self.deliver)(&self.flow, message) {
            self.held.push(message);
        }
    }
}

impl<D: FnMut(&Flow, &[u8]) -> bool> Sink for Intake<'_, D> {
    fn stream(&mut self, bytes: &[u8]) {
        self.taken.bytes += bytes.len();
        let mut rest = bytes;
        // Out of `self`, so that a message that lies in it can be taken while it is borrowed.
        let mut framer = std::mem::take(self.framer);
        loop {
            let (done, found) = framer.next(rest);
            match found {
                Some(Frame::Message(message)) => self.take(message),
                Some(Frame::Ping) => self.taken.pings += 1,
                Some(Frame::Broken(error)) => {
                    let mut answer = Vec::new();
                    let (code, reason) = (error.kind.status(), error.kind.reason_phrase());
                    msg::respond_malformed(&mut answer, &error.partial, code, reason, self.flow.peer);
                    self.taken.broken = Some(answer);
                }
                None => break,
            }
            rest = &rest[done..];
        }
        *self.framer = framer;
    }

    fn message(&mut self, bytes: &[u8]) {
        self.taken.bytes += bytes.len();
        match bytes {
            // RFC 7118 §6: clients may send the keep-alives of RFC 5626 in frames of their own.
            b"\r\n\r\n" => self.taken.pings += 1,
            b"" | b"\r\n" => {}
            message => self.take(message),
        }
    }
}

/// Messages that were read and not taken yet, oldest first: at most what one read brings.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: VecDeque<usize>,
    /// Where the first begins.
    start: usize,
}

impl Held {
    fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.ends.push_back(self.bytes.len());
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Hands out as many as are taken; says whether none is left.
    fn deliver(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> bool {
        while let Some(&end) = self.ends.front() {
            if !take(&self.bytes[self.start..end]) {
                return false;
            }
            self.start = end;
            self.ends.pop_front();
        }
        if self.start > 0 {
            // Few connections ever hold anything, so the memory is not kept.
            *self = Self::default();
        }
        true
    }
}

/// How long a peer that we connect to may take to accept.
const CONNECT_SPAN: Duration = Duration::from_secs(5);

/// Room for notes about what is not written that a connection keeps.
const UNWRITTEN_KEPT_MAX: usize = 4;

/// How long a peer that has closed its side is answered.
const ANSWER_SPAN: Duration = Duration::from_secs(1);

/// How long a peer that we have said good-bye to may take to close.
pub(super) const DRAIN_SPAN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_held_in_order() {
        let mut held = Held::default();
        for message in [&b"one"[..], b"two", b"three"] {
            held.push(message);
        }
        let mut taken = Vec::new();
        assert!(!held.deliver(|bytes| {
            let room = taken.len() < 2;
            if room {
                taken.push(bytes.to_vec());
            }
            room
        }));
        assert!(held.deliver(|bytes| {
            taken.push(bytes.to_vec());
            true
        }));
        assert_eq!(taken, [&b"one"[..], b"two", b"three"]);
        assert!(held.is_empty() && held.bytes.capacity() == 0);
    }
}

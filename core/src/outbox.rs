//! Messages that a turn wants sent.
//!
//! The engine writes here; the event loop (or the simulator) takes the messages out at the end of the turn. Heads lie
//! behind one another in one buffer that is used again each turn; shared bodies are named, not copied.

use crate::padding::{Run, spaces};
use crate::{Bodies, BodyId, Flow};

/// One message to send: its head lies in the outbox, its shared body (if any) in [`Bodies`].
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// Where to.
    pub flow: Flow,
    /// Start of the head in the outbox's buffer.
    head_start: u32,
    /// Length of the head in bytes.
    head_len: u32,
    /// Shared body that follows the head; the outbox holds a reference until [`Outbox::clear`].
    pub body: Option<BodyId>,
    /// Bytes of padding behind the body.
    padding: u8,
}

/// The messages of one turn, in the order in which they must leave.
#[derive(Debug, Default)]
pub struct Outbox {
    heads: Vec<u8>,
    messages: Vec<Outgoing>,
    /// The messages at the end that go to one address.
    run: Run,
}

impl Outbox {
    /// Appends a message whose bytes `write` produces.
    pub fn send(&mut self, flow: Flow, write: impl FnOnce(&mut Vec<u8>)) {
        self.push(flow, None, |heads| {
            write(heads);
            (0, 0)
        });
    }

    /// Appends a message that ends in a shared body. `write` produces the head and says how many bytes of padding follow the
    /// body. The caller holds the body; the outbox takes a reference of its own.
    pub fn send_with_body(
        &mut self,
        flow: Flow,
        body: BodyId,
        bodies: &mut Bodies,
        write: impl FnOnce(&mut Vec<u8>) -> u8,
    ) {
        bodies.retain(body);
        let body_len = bodies.get(body).len();
        self.push(flow, Some(body), |heads| (write(heads), body_len));
    }

    fn push(&mut self, flow: Flow, body: Option<BodyId>, write: impl FnOnce(&mut Vec<u8>) -> (u8, usize)) {
        let start = self.heads.len();
        let (padding, body_len) = write(&mut self.heads);
        let head_len = self.heads.len() - start;
        let len = u32::try_from(head_len + body_len + usize::from(padding)).unwrap_or(u32::MAX);
        self.run = Run { count: self.run_to(&flow).count + 1, len };
        let head_len = u32::try_from(head_len).expect("a head is far below 4 GiB");
        let head_start = u32::try_from(start).expect("a turn's heads are far below 4 GiB");
        self.messages.push(Outgoing { flow, head_start, head_len, body, padding });
    }

    /// The messages at the end that go where `flow` goes: what padding fits a next one to.
    #[must_use]
    pub fn run_to(&self, flow: &Flow) -> Run {
        let same = self.messages.last().is_some_and(|last| last.flow == *flow);
        if same { self.run } else { Run::default() }
    }

    /// Takes the newest message back, as if it had never been appended.
    pub fn take_back(&mut self, bodies: &mut Bodies) {
        let Some(message) = self.messages.pop() else { return };
        self.heads.truncate(message.head_start as usize);
        if let Some(body) = message.body {
            bodies.release(body);
        }
        let before = self.messages.last().filter(|before| before.flow == message.flow);
        self.run = before.map_or_else(Run::default, |before| {
            let body_len = before.body.map_or(0, |body| bodies.get(body).len());
            let len = before.head_len as usize + body_len + usize::from(before.padding);
            Run { count: self.run.count - 1, len: u32::try_from(len).unwrap_or(u32::MAX) }
        });
    }

    /// The messages, oldest first.
    #[must_use]
    pub fn messages(&self) -> &[Outgoing] {
        &self.messages
    }

    /// The head of one of [`Self::messages`].
    #[must_use]
    pub fn head(&self, message: &Outgoing) -> &[u8] {
        &self.heads[message.head_start as usize..][..message.head_len as usize]
    }

    /// What a message is made of: head, body, padding.
    #[must_use]
    pub fn parts<'a>(&'a self, message: &Outgoing, bodies: &'a Bodies) -> [&'a [u8]; 3] {
        let body = message.body.map_or(&[][..], |id| bodies.get(id));
        [self.head(message), body, spaces(message.padding)]
    }

    /// The head of the newest message, if there is one: what an answer's transaction remembers.
    #[must_use]
    pub fn newest_head(&self) -> Option<&[u8]> {
        self.messages.last().map(|message| self.head(message))
    }

    /// Length of the newest message, its body and padding included.
    #[must_use]
    pub const fn newest_len(&self) -> usize {
        self.run.len as usize
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets all messages and lets go of their bodies. Buffers are kept for the next turn.
    pub fn clear(&mut self, bodies: &mut Bodies) {
        for message in self.messages.drain(..) {
            if let Some(body) = message.body {
                bodies.release(body);
            }
        }
        self.heads.clear();
        // One burst of huge heads is not paid for ever.
        self.heads.shrink_to(HEADS_KEPT_MAX);
    }
}

/// Capacity for heads that is kept from turn to turn: a full turn of ordinary ones.
const HEADS_KEPT_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_was_never_there() {
        let (mut outbox, mut bodies) = (Outbox::default(), Bodies::default());
        let body = bodies.insert(|bytes| bytes.extend_from_slice(b"body"));
        let flow = |port| Flow::udp(0, None, ([192, 0, 2, 1], port).into());
        let send = |outbox: &mut Outbox, bodies: &mut Bodies, port, head: &[u8]| {
            outbox.send_with_body(flow(port), body, bodies, |heads| {
                heads.extend_from_slice(head);
                3
            });
        };
        send(&mut outbox, &mut bodies, 5060, b"one");
        for port in [5060, 5070] {
            send(&mut outbox, &mut bodies, port, b"another");
            outbox.take_back(&mut bodies);
            assert_eq!(outbox.newest_head(), Some(&b"one"[..]));
        }
        send(&mut outbox, &mut bodies, 5060, b"another");
        outbox.take_back(&mut bodies);
        outbox.take_back(&mut bodies);
        outbox.take_back(&mut bodies);
        assert!(outbox.is_empty() && outbox.heads.is_empty());
        assert_eq!(outbox.run_to(&flow(5060)), Run::default());
        bodies.release(body);
        assert_eq!(bodies.held(), 0, "no reference is left");
    }

    #[test]
    fn a_run_goes_on_where_the_last_message_was_taken_back() {
        let (mut outbox, mut bodies) = (Outbox::default(), Bodies::default());
        let flow = Flow::udp(0, None, ([192, 0, 2, 1], 5060).into());
        for len in [10, 20, 30] {
            outbox.send(flow, |heads| heads.resize(heads.len() + len, b'.'));
        }
        outbox.take_back(&mut bodies);
        assert_eq!(outbox.run_to(&flow), Run { count: 2, len: 20 });
        assert_eq!(outbox.newest_len(), 20);
    }
}

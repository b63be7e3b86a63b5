//! What phones do to a world: they send datagrams, and open, write and close connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use comsipl_core::{ConnectionId, Flow, Transport};

use super::{Bytes, Event, World, first_line, micros, socket_of};

impl World {
    /// Gives a datagram of a phone to the network.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        for delay in self.setup.network.fates(&mut self.chance) {
            let bytes = Arc::clone(&bytes);
            self.schedule(delay, Event::ArrivesAtServer { from, to, bytes });
        }
        self.tell(format!("{from} ─▶ server  {}", first_line(&bytes)));
    }

    /// A phone at `phone` opens a connection to one of the server's listeners; `None`: nobody answers.
    pub fn connect(&mut self, phone: SocketAddr, transport: Transport) -> Option<ConnectionId> {
        let listener = self.settings.listen.iter().position(|l| l.transport == transport)?;
        self.node.as_ref()?;
        let listener = u8::try_from(listener).expect("few listeners");
        let flow = Flow { transport, listener, local_ip: None, peer: phone, connection: None };
        let shard = socket_of(phone, self.benches.len());
        self.tell(format!("{phone} connects by {}", transport.via_token()));
        Some(self.streams.open(shard, self.wall().0, flow))
    }

    /// A phone writes a message into a connection; nothing happens if that is closed.
    pub fn write(&mut self, id: ConnectionId, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if !self.is_open(id) {
            return;
        }
        let delay = self.setup.network.stream_delay(&mut self.chance);
        let now = self.now;
        let connection = self.streams.get_mut(id).expect("it is open");
        let at = (now + micros(delay)).max(connection.last_in);
        connection.last_in = at;
        let peer = connection.flow.peer;
        self.tell(format!("{peer} ═▶ server  {}", first_line(&bytes)));
        self.schedule(Duration::from_micros(at - now), Event::OnConnection { id, bytes });
    }

    /// Whether a phone takes its connection for whole.
    #[must_use]
    pub fn is_open(&self, id: ConnectionId) -> bool {
        self.streams.get(id).is_some_and(|connection| connection.phone_end)
    }

    /// A phone closes its connection, and the server sees it behind what the phone wrote last.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.streams.get_mut(id) else { return };
        connection.phone_end = false;
        let (at, peer) = (connection.last_in.max(self.now), connection.flow.peer);
        self.tell(format!("{peer} closes its connection"));
        self.schedule(Duration::from_micros(at - self.now), Event::Closed { id });
    }

    /// A phone loses its connection, and the server does not see it.
    pub fn cut(&mut self, id: ConnectionId) {
        let Some(connection) = self.streams.get_mut(id) else { return };
        connection.phone_end = false;
        let peer = connection.flow.peer;
        self.tell(format!("{peer} is cut off"));
    }

    /// A phone takes connections at an address from now on, or not any more.
    pub fn listen(&mut self, transport: Transport, at: SocketAddr, listens: bool) {
        self.streams.listen(transport, at, listens);
    }
}

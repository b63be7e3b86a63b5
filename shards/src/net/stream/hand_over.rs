//! Connections that go on in another process.
//!
//! What is carried is the socket, the name, and all bytes that have left the socket and not reached the engine, or left the
//! engine and not reached the socket. Not carried are connections of TLS, whose keys are their process's own; those in a
//! handshake or in the middle of a WebSocket frame, which a library holds; and those that are ending. They are told good-bye.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use comsipl_core::{ConnectionId, Flow, Mono, Transport};
use mio::net::TcpStream;
use serde::{Deserialize, Serialize};

use super::Streams;
use super::connection::{Connection, Phase};
use super::layer::{Layer, LayerSettings};

/// A connection on its way from one process to another.
#[derive(Debug)]
pub struct Carried {
    /// Its name, which stored flows have.
    pub id: ConnectionId,
    /// What its messages come with.
    pub flow: Flow,
    /// What is known of its WebSocket, if it is one.
    pub web: Option<Web>,
    /// Whole messages that were read and not taken by their owners.
    pub held: Vec<Vec<u8>>,
    /// The beginning of a message whose end was not read.
    pub begun: Vec<u8>,
    /// What waits for the socket.
    pub out: Vec<u8>,
    /// The socket.
    pub socket: OwnedFd,
}

/// An open WebSocket between two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Whether the client writes text.
    pub text: bool,
}

impl Streams {
    /// Gives up all connections: those that another process can go on with are returned, the others are closed as by
    /// [`Self::close_all`].
    pub fn hand_over(&mut self, now: Mono) -> Vec<Carried> {
        let mut carried = Vec::new();
        for slot in 0..self.table.high_water() as u32 {
            if !self.table[slot].as_deref().is_some_and(Connection::can_be_carried) {
                continue;
            }
            let Some(mut connection) = self.table.remove(slot) else { continue };
            self.timers.cancel(slot);
            self.full -= usize::from(connection.full);
            self.admission.leave(connection.flow.peer.ip());
            if let Err(error) = self.registry.deregister(&mut connection.socket) {
                tracing::debug!(%error, "a socket was not deregistered");
            }
            carried.push(connection.carry());
        }
        self.close_all(now);
        carried
    }

    /// Goes on with connections of another process, before there are any others. Those for which there is no room are closed.
    pub fn adopt(&mut self, now: Mono, carried: Vec<Carried>) {
        debug_assert!(self.is_empty(), "names say which slots they have");
        let mut carried = carried;
        // Slots are given in their order; those between are given back below.
        carried.sort_by_key(|it| it.id.slot());
        let (mut gaps, mut placed) = (Vec::new(), Vec::new());
        for carried in carried {
            let Carried { id, flow, .. } = carried;
            let is_ours =
                id.shard() == usize::from(self.shard) && id.slot() >= self.table.high_water() as u32;
            let layer = Layer::carried(flow.transport, &carried, &self.layers, self.limits.out_buffer);
            let (Some(layer), true) = (layer, is_ours) else {
                tracing::warn!(peer = %flow.peer, "a connection of the predecessor cannot be gone on with");
                continue;
            };
            if self.admission.admit(flow.peer.ip()).is_err() {
                self.counters.refused_connections_max.up();
                continue;
            }
            while self.table.insert(None) != id.slot() {
                gaps.push(self.table.high_water() as u32 - 1);
            }
            placed.push((carried, layer));
        }
        // The newest to a peer comes last, as it did when they were opened.
        placed.sort_by_key(|(carried, _)| carried.id.generation());
        for (Carried { id, flow, held, begun, socket, .. }, layer) in placed {
            let socket = TcpStream::from_std(socket.into());
            let begin = |socket| {
                let mut connection = Connection::new(socket, layer, id, flow, None, Phase::Open, now);
                connection.take_up(now, &held, &begun);
                connection
            };
            match self.place(socket, id, begin) {
                Ok(()) => {
                    self.counters.connections_adopted.up();
                    self.queue(id.slot());
                    self.mark_dirty(id.slot());
                }
                Err(error) => {
                    tracing::warn!(%error, peer = %flow.peer, "a connection of the predecessor is not taken in");
                    self.admission.leave(flow.peer.ip());
                }
            }
        }
        for gap in gaps {
            self.table.remove(gap);
        }
    }
}

impl Connection {
    /// Whether another process can go on with it.
    fn can_be_carried(&self) -> bool {
        self.phase == Phase::Open && self.layer.can_be_carried() && self.can_be_taken_up()
    }

    fn carry(mut self) -> Carried {
        let (held, begun) = self.unread();
        let (web, out) = self.layer.carry();
        Carried { id: self.id, flow: self.flow, web, held, begun, out, socket: self.socket.into() }
    }
}

impl Layer {
    /// The layer of a connection that another process had; `None`: none that can be carried has this transport.
    fn carried(
        transport: Transport,
        carried: &Carried,
        settings: &LayerSettings,
        out_max: usize,
    ) -> Option<Self> {
        let fits = can_be_carried(transport) && transport.is_web_socket() == carried.web.is_some();
        fits.then(|| Self::go_on(carried.web, Arc::clone(&settings.origins), out_max, &carried.out))
    }
}

/// Whether connections of a transport can be handed to another process: those of TLS have keys that only their process knows.
const fn can_be_carried(transport: Transport) -> bool {
    transport.is_stream() && !transport.is_secure()
}

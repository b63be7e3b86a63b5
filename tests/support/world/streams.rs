//! Connections between phones and server.
//!
//! A connection brings everything in order, or breaks. It has two ends that need not agree: a phone that was cut off leaves
//! one that the server still takes for whole, and whatever is written into that is gone without a word.
//!
//! As the real loops do it, each connection is held by one shard, and of every NOTIFY that could not be written its owner is
//! told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use comsipl_core::{ConnectionId, Flow, Transport};

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// As the server's messages name it.
    pub flow: Flow,
    /// Whether the server takes it for whole.
    pub server_end: bool,
    /// Whether the phone does.
    pub phone_end: bool,
    /// When the last bytes to the server arrive, so that those behind them do not overtake them.
    pub last_in: u64,
    /// The same to the phone.
    pub last_out: u64,
}

/// All connections that there were.
#[derive(Debug, Default)]
pub(super) struct Streams {
    each: BTreeMap<ConnectionId, Connection>,
    /// Where phones take connections.
    open_ports: BTreeSet<(Transport, SocketAddr)>,
    /// Connections that a shard dialled.
    dialled: BTreeMap<(usize, Transport, SocketAddr), ConnectionId>,
    made: u32,
}

impl Streams {
    /// Opens a connection that `shard` holds; `generation` names the moment.
    pub fn open(&mut self, shard: usize, generation: u64, flow: Flow) -> ConnectionId {
        self.made += 1;
        let shard = u8::try_from(shard).expect("at most 64 shards");
        let id = ConnectionId::new(shard, self.made, generation);
        let flow = Flow { connection: Some(id), ..flow };
        let connection = Connection { flow, server_end: true, phone_end: true, last_in: 0, last_out: 0 };
        self.each.insert(id, connection);
        id
    }

    /// The connection of that name, if there ever was one.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.each.get(&id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.each.get_mut(&id)
    }

    /// Lets a phone take connections at an address, or not any more.
    pub fn listen(&mut self, transport: Transport, at: SocketAddr, listens: bool) {
        if listens {
            self.open_ports.insert((transport, at));
        } else {
            self.open_ports.remove(&(transport, at));
        }
    }

    /// The connection by which `shard` reaches a peer that it must dial: one that it has, or a new one; `None` if nobody
    /// answers there.
    pub fn dial(&mut self, shard: usize, generation: u64, flow: Flow) -> Option<ConnectionId> {
        let key = (shard, flow.transport, flow.peer);
        if let Some(&id) = self.dialled.get(&key)
            && self.each[&id].server_end
        {
            return Some(id);
        }
        if !self.open_ports.contains(&(flow.transport, flow.peer)) {
            return None;
        }
        let id = self.open(shard, generation, flow);
        self.dialled.insert(key, id);
        Some(id)
    }

    /// The server's process is gone, and with it the ends of all connections.
    pub fn break_all(&mut self) {
        for connection in self.each.values_mut() {
            (connection.server_end, connection.phone_end) = (false, false);
        }
        self.dialled.clear();
    }
}

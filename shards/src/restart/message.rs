//! What two servers say to each other while one takes over from the other.

use std::net::{IpAddr, SocketAddr};

use comsipl_core::{ConnectionId, Flow, Listen, Transport};
use serde::{Deserialize, Serialize};

use crate::config::parse_listen;
use crate::net::stream::hand_over::{Carried, Web};

/// Version of all that is said here, the request to take over included. A server refuses any other, so that neither side
/// has to guess.
pub const FORMAT: u32 = 2;

/// A message; see the table of [`crate::restart`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    /// From the predecessor: listening sockets, whose descriptors travel with it in order.
    Sockets {
        /// What they are.
        sockets: Vec<SocketLine>,
        /// Whether these were the last.
        last: bool,
    },
    /// From the new process: it has all it needs but connections and files.
    Release,
    /// From the predecessor: connections, whose descriptors travel with it in order, and their bytes behind one another.
    Connections {
        /// What they are.
        connections: Vec<ConnectionLine>,
    },
    /// From the predecessor: its nonces, which are the payload.
    Nonces,
    /// From the predecessor: it has let go of its files.
    Released {
        /// They are on disk as they were a moment before it did.
        synced: bool,
    },
    /// From the new process: the files are recovered and all is adopted.
    Ready,
    /// From the predecessor: it will not serve again.
    Go,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketLine {
    /// The number of its listener, which flows name.
    pub listener: u8,
    /// Transport and address, as in the configuration.
    pub listen: String,
    /// The shard that reads it.
    pub shard: usize,
}

impl SocketLine {
    /// Transport and address; `None`: they cannot be read.
    #[must_use]
    pub fn listen(&self) -> Option<Listen> {
        parse_listen(&self.listen).ok()
    }
}

/// A connection, but for its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionLine {
    /// Its name, as it is stored.
    id: u64,
    /// The word of its transport.
    transport: String,
    listener: u8,
    local_ip: Option<IpAddr>,
    peer: SocketAddr,
    web: Option<Web>,
    /// Lengths of the whole messages that were read and not taken.
    held: Vec<usize>,
    /// Bytes of what has begun and not ended.
    begun: usize,
    /// Bytes that wait for the socket.
    out: usize,
}

impl ConnectionLine {
    /// What there is to say of a connection; its bytes go to the end of `payload`.
    #[must_use]
    pub fn of(carried: &Carried, payload: &mut Vec<u8>) -> Self {
        for bytes in carried.held.iter().chain([&carried.begun, &carried.out]) {
            payload.extend_from_slice(bytes);
        }
        let Flow { transport, listener, local_ip, peer, .. } = carried.flow;
        Self {
            id: carried.id.to_bits(),
            transport: transport.word().to_owned(),
            listener,
            local_ip,
            peer,
            web: carried.web,
            held: carried.held.iter().map(Vec::len).collect(),
            begun: carried.begun.len(),
            out: carried.out.len(),
        }
    }

    /// The connection, whose bytes are taken off the beginning of `payload`; `None`: this cannot be.
    #[must_use]
    pub fn carried(self, socket: std::os::fd::OwnedFd, payload: &mut &[u8]) -> Option<Carried> {
        let mut take = |len: usize| {
            let (bytes, rest) = payload.split_at_checked(len)?;
            *payload = rest;
            Some(bytes.to_vec())
        };
        let id = ConnectionId::from_bits(self.id)?;
        let transport = Transport::by_word(self.transport.as_bytes())?;
        Some(Carried {
            id,
            flow: Flow {
                transport,
                listener: self.listener,
                local_ip: self.local_ip,
                peer: self.peer,
                connection: Some(id),
            },
            web: self.web,
            held: self.held.into_iter().map(&mut take).collect::<Option<_>>()?,
            begun: take(self.begun)?,
            out: take(self.out)?,
            socket,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn some_socket() -> OwnedFd {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn a_connection_arrives_as_it_was_sent() {
        let id = ConnectionId::new(3, 7, 1000);
        let flow = Flow {
            transport: Transport::Ws,
            listener: 2,
            local_ip: Some([192, 0, 2, 1].into()),
            peer: "192.0.2.7:5060".parse().unwrap(),
            connection: Some(id),
        };
        let carried = Carried {
            id,
            flow,
            web: Some(Web { text: false }),
            held: vec![b"one".to_vec(), b"two!".to_vec()],
            begun: b"th".to_vec(),
            out: b"answers".to_vec(),
            socket: some_socket(),
        };
        let mut payload = b"of another".to_vec();
        let line = ConnectionLine::of(&carried, &mut payload);
        let line: ConnectionLine = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
        let mut rest = &payload[10..];
        let arrived = line.clone().carried(some_socket(), &mut rest).unwrap();
        assert_eq!((arrived.id, arrived.flow, arrived.web), (carried.id, carried.flow, carried.web));
        assert_eq!((arrived.held, arrived.begun, arrived.out), (carried.held, carried.begun, carried.out));
        assert!(rest.is_empty());
        assert!(line.carried(some_socket(), &mut &payload[11..]).is_none(), "a byte is missing");
    }
}

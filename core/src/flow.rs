//! Where a message came from and where its answer goes.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

/// Transport protocol of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// RFC 3261 §18 over UDP.
    #[default]
    Udp = 0,
    /// RFC 3261 §18 over TCP.
    Tcp = 1,
    /// TLS over TCP (RFC 3261 §26.2.1).
    Tls = 2,
    /// WebSocket (RFC 7118).
    Ws = 3,
    /// WebSocket over TLS (RFC 7118).
    Wss = 4,
}

impl Transport {
    /// All of them, in the order of their stored numbers.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// The transport with that stored number (`transport as u8`).
    #[must_use]
    pub fn by_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The token in a Via header (RFC 3261 §20.42, RFC 7118 §5.1).
    #[must_use]
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The word before an address to listen on, which is that of a `transport` parameter, too.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The transport of that [`Self::word`], in any case.
    #[must_use]
    pub fn by_word(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.word().as_bytes().eq_ignore_ascii_case(word))
    }

    /// Whether it runs over connections, which bring everything in order or break: "reliable" in RFC 3261 §17.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether it is encrypted, as a `sips` URI demands (RFC 3261 §26.2.2).
    #[must_use]
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether messages are framed by WebSocket and not by Content-Length.
    #[must_use]
    pub const fn is_web_socket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// The usual port (RFC 3261 §19.1.2; RFC 7118 leaves it to HTTP).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// Name of a connection: which shard holds it, where, and that it is this one and no earlier or later one.
///
/// A generation is given once by a shard, over restarts too, so an id that was stored before names nothing after its connection is
/// gone. It is the caller who remembers which were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(NonZeroU64);

impl ConnectionId {
    /// Bits of the shard's number, the lowest.
    const SHARD_BITS: u32 = 6;
    /// Bits of the slot in the shard's table of connections.
    const SLOT_BITS: u32 = 20;
    /// Most connections of a shard.
    pub const SLOTS: usize = 1 << Self::SLOT_BITS;
    /// Bits of the generation: 8.7 years of a thousand connections a second.
    pub const GENERATION_BITS: u32 = 64 - Self::SHARD_BITS - Self::SLOT_BITS;

    /// Puts a name together; of `generation` the low [`Self::GENERATION_BITS`] count, and zero stands for one.
    #[must_use]
    pub fn new(shard: u8, slot: u32, generation: u64) -> Self {
        let generation = (generation & ((1 << Self::GENERATION_BITS) - 1)).max(1);
        let slot = u64::from(slot) & (Self::SLOTS as u64 - 1);
        let shard = u64::from(shard) & ((1 << Self::SHARD_BITS) - 1);
        let bits = generation << (Self::SHARD_BITS + Self::SLOT_BITS) | slot << Self::SHARD_BITS | shard;
        Self(NonZeroU64::new(bits).expect("the generation is not zero"))
    }

    /// The name as it is stored; see [`Self::from_bits`].
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The name stored as `bits`; zero names nothing.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// The shard that holds the connection.
    #[must_use]
    pub const fn shard(self) -> usize {
        (self.0.get() & ((1 << Self::SHARD_BITS) - 1)) as usize
    }

    /// Which of all connections of that shard it is: later ones have higher numbers.
    #[must_use]
    pub const fn generation(self) -> u64 {
        self.0.get() >> (Self::SHARD_BITS + Self::SLOT_BITS)
    }

    /// Its place in that shard's table.
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0.get() >> Self::SHARD_BITS) as u32 & (Self::SLOTS as u32 - 1)
    }
}

/// One direction of talk with a peer: our listener, our address on it, the peer's address, and the connection.
///
/// An answer that leaves by the flow of its request comes from the very address the request was sent to, which is what
/// NATs and firewalls expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Transport protocol.
    pub transport: Transport,
    /// Index into the node's list of listeners.
    pub listener: u8,
    /// Our own address on a listener that is bound to the wildcard address; `None` lets the kernel choose.
    pub local_ip: Option<IpAddr>,
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// The connection; `None` for UDP, and for a stream that is still to be dialled.
    pub connection: Option<ConnectionId>,
}

impl Flow {
    /// A flow of datagrams.
    #[must_use]
    pub const fn udp(listener: u8, local_ip: Option<IpAddr>, peer: SocketAddr) -> Self {
        Self { transport: Transport::Udp, listener, local_ip, peer, connection: None }
    }
}

/// An address that the node listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    /// Transport protocol.
    pub transport: Transport,
    /// Address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
}

impl Listen {
    /// For datagrams.
    #[must_use]
    pub const fn udp(address: SocketAddr) -> Self {
        Self { transport: Transport::Udp, address }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.transport.word(), self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_says_who_holds_it() {
        let id = ConnectionId::new(63, 0xf_ffff, u64::MAX);
        assert_eq!((id.shard(), id.slot()), (63, 0xf_ffff));
        assert_eq!(ConnectionId::from_bits(id.to_bits()), Some(id));
        assert_ne!(ConnectionId::new(1, 2, 3), ConnectionId::new(1, 2, 4));
        assert_eq!(ConnectionId::from_bits(0), None);
        assert_ne!(ConnectionId::new(0, 0, 0).to_bits(), 0);
    }

    #[test]
    fn numbers_and_words_name_the_transport() {
        for transport in Transport::ALL {
            assert_eq!(Transport::by_number(transport as u8), Some(transport));
            assert_eq!(Transport::by_word(transport.via_token().as_bytes()), Some(transport));
        }
        assert_eq!(Transport::by_number(5), None);
        assert_eq!(Transport::by_word(b"sctp"), None);
    }
}

//! Where a message came from and where its answer goes.

use std::net::{IpAddr, SocketAddr};

/// Transport protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// RFC 3261 §18 over UDP.
    Udp,
}

impl Transport {
    /// The token in a Via header (RFC 3261 §20.42).
    #[must_use]
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
        }
    }
}

/// One direction of talk with a peer: our listener, our address on it, the peer's address.
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
}

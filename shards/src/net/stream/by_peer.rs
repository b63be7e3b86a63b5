//! Which connection leads to a peer, for messages that name none.

use std::net::SocketAddr;

use comsipl_core::Transport;
use hashbrown::{Equivalent, HashMap};

/// The newest connection to each peer.
#[derive(Debug, Default)]
pub(super) struct ByPeer(HashMap<OwnPeer, u32, foldhash::quality::RandomState>);

/// To whom a connection leads. One that was opened to a host by name proved that it is that host and no other, although others
/// may live at the same address (RFC 5922 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer<'a> {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    /// The name that its certificate is for, as it was asked for; `None`: the address is, or there is no certificate of its own.
    pub(super) host: Option<&'a str>,
}

/// The same, kept. Its fields stand in the same order, because both must have the same hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OwnPeer {
    transport: Transport,
    address: SocketAddr,
    host: Option<Box<str>>,
}

impl ByPeer {
    /// The newest connection to `peer`.
    pub(super) fn get(&self, peer: &Peer<'_>) -> Option<u32> {
        self.0.get(peer).copied()
    }

    /// A connection to `peer` has begun.
    pub(super) fn insert(&mut self, peer: &Peer<'_>, slot: u32) {
        self.0.insert(OwnPeer::from(*peer), slot);
    }

    /// A connection to `peer` takes no more messages; a newer one may.
    pub(super) fn remove(&mut self, peer: &Peer<'_>, slot: u32) {
        if self.get(peer) == Some(slot) {
            self.0.remove(peer);
        }
    }
}

impl Equivalent<OwnPeer> for Peer<'_> {
    fn equivalent(&self, own: &OwnPeer) -> bool {
        *self == own.borrowed()
    }
}

impl OwnPeer {
    fn borrowed(&self) -> Peer<'_> {
        Peer { transport: self.transport, address: self.address, host: self.host.as_deref() }
    }
}

impl From<Peer<'_>> for OwnPeer {
    fn from(peer: Peer<'_>) -> Self {
        Self { transport: peer.transport, address: peer.address, host: peer.host.map(Box::from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_at_one_address_is_told_apart_by_name() {
        let mut by_peer = ByPeer::default();
        let peer = |transport, host| Peer { transport, address: "192.0.2.1:5061".parse().unwrap(), host };
        let [a, b] = ["a.example", "b.example"].map(|host| peer(Transport::Tls, Some(host)));
        let nameless = peer(Transport::Tls, None);
        for (slot, peer) in (1..).zip([a, b, nameless, peer(Transport::Tcp, None)]) {
            assert_eq!(by_peer.get(&peer), None);
            by_peer.insert(&peer, slot);
        }
        assert_eq!([a, b, nameless].map(|peer| by_peer.get(&peer)), [Some(1), Some(2), Some(3)]);
        by_peer.insert(&a, 7);
        by_peer.remove(&a, 1);
        assert_eq!(by_peer.get(&a), Some(7), "a newer one stays");
        by_peer.remove(&a, 7);
        assert_eq!([a, b].map(|peer| by_peer.get(&peer)), [None, Some(2)]);
    }
}

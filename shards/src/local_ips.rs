//! Our IPv6 addresses on the connections of watchers.
//!
//! Where a listener is bound to the wildcard address, Via and Contact of a NOTIFY name the address that its watcher reached us
//! on. A stored flow has room for that beside a connection's name only where it is an IPv4 address; the others are kept here. They
//! are needed no longer than the process lives, because its connections end with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use comsipl_core::{ConnectionId, Flow};

/// What a shard knows of its watchers' connections.
#[derive(Debug, Default)]
pub(crate) struct LocalIps(BTreeMap<ConnectionId, Ipv6Addr>);

impl LocalIps {
    /// A watcher is reached by this flow from now on.
    pub(crate) fn note(&mut self, flow: &Flow) {
        let (Some(connection), Some(IpAddr::V6(ip))) = (flow.connection, flow.local_ip) else { return };
        self.0.insert(connection, ip);
        if self.0.len() > KEPT_MAX {
            // The generation stands first in a name, so this is the oldest connection.
            self.0.pop_first();
        }
    }

    /// The flow as it was noted, of which the record has lost our address.
    pub(crate) fn complete(&self, flow: Flow) -> Flow {
        match flow.connection {
            Some(connection) if flow.local_ip.is_none() && flow.peer.is_ipv6() => {
                Flow { local_ip: self.0.get(&connection).copied().map(IpAddr::V6), ..flow }
            }
            _ => flow,
        }
    }
}

/// Most connections whose address is kept: more than a shard has in practice; watchers on older ones are told the wildcard address,
/// and reach us by the connection that they have.
const KEPT_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use comsipl_core::Transport;

    use super::*;

    fn flow(generation: u64, local_ip: Option<&str>, peer: &str) -> Flow {
        Flow {
            transport: Transport::Tcp,
            connection: Some(ConnectionId::new(1, 2, generation)),
            ..Flow::udp(0, local_ip.map(|ip| ip.parse().unwrap()), peer.parse().unwrap())
        }
    }

    #[test]
    fn what_a_record_loses_is_given_back() {
        let mut known = LocalIps::default();
        let noted = flow(7, Some("2001:db8::1"), "[2001:db8::9]:5060");
        known.note(&noted);
        assert_eq!(known.complete(Flow { local_ip: None, ..noted }), noted);
        let other = flow(8, None, "[2001:db8::9]:5060");
        assert_eq!(known.complete(other), other);
        let v4 = flow(9, Some("192.0.2.1"), "192.0.2.9:5060");
        known.note(&v4);
        assert_eq!((known.0.len(), known.complete(v4)), (1, v4));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut known = LocalIps::default();
        for generation in 1..=KEPT_MAX as u64 + 1 {
            known.note(&flow(generation, Some("::1"), "[::1]:5060"));
        }
        assert_eq!(known.0.len(), KEPT_MAX);
        let of = |generation| known.complete(flow(generation, None, "[::1]:5060")).local_ip;
        assert_eq!((of(1), of(2).is_some()), (None, true));
    }
}

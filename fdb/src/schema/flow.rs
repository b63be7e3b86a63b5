//! Where a peer is reached, and from which of our addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::DecodeError;

/// One direction of talk with a peer. Numbers of transports and listeners are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Transport protocol.
    pub transport: u8,
    /// Index of our listener.
    pub listener: u8,
    /// The peer's address.
    pub ip: IpAddr,
    /// The peer's port.
    pub port: u16,
    /// Our own address, where it is known. Beside a connection an IPv4 address is kept, and no IPv6 address.
    pub local_ip: Option<IpAddr>,
    /// The caller's name of a connection; 0: none.
    pub connection: u64,
}

impl Default for Flow {
    /// Nowhere: all zeros.
    fn default() -> Self {
        Self {
            transport: 0,
            listener: 0,
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
            local_ip: None,
            connection: 0,
        }
    }
}

/// Address families in bits 16..24 of the first word: 2 bits the peer's, 2 bits ours; then [`CONNECTION`].
const NONE: u8 = 0;
const V4: u8 = 1;
const V6: u8 = 2;
/// The words of our address hold a connection's name and our IPv4 address, if it is one.
const CONNECTION: u8 = 1 << 4;

impl Flow {
    /// Five words: transport 0..8, listener 8..16, families 16..24, port 24..40 (bits 40..64 are the caller's, here 0);
    /// the peer's address; our address, or connection and our IPv4 address.
    #[inline]
    pub(super) fn pack(&self) -> [u64; 5] {
        let (family, ip) = pack_ip(Some(self.ip));
        let (local_family, local_ip) = if self.connection == 0 {
            let (local_family, local_ip) = pack_ip(self.local_ip);
            (local_family << 2, local_ip)
        } else {
            let (local_family, [local_ip, _]) = pack_ip(self.local_ip.filter(IpAddr::is_ipv4));
            (local_family << 2 | CONNECTION, [self.connection, local_ip])
        };
        let word = u64::from(self.transport)
            | u64::from(self.listener) << 8
            | u64::from(family | local_family) << 16
            | u64::from(self.port) << 24;
        [word, ip[0], ip[1], local_ip[0], local_ip[1]]
    }

    #[inline]
    pub(super) fn unpack(words: &[u64]) -> Result<Self, DecodeError> {
        let families = (words[0] >> 16) as u8;
        let local_family = families >> 2 & 3;
        let (connection, local_ip) = if families & CONNECTION == 0 {
            (0, unpack_ip(local_family, &words[3..5])?)
        } else if local_family == V6 {
            return Err(DecodeError::Flow);
        } else {
            (words[3], unpack_ip(local_family, &words[4..5])?)
        };
        Ok(Self {
            transport: words[0] as u8,
            listener: (words[0] >> 8) as u8,
            ip: unpack_ip(families & 3, &words[1..3])?.ok_or(DecodeError::Flow)?,
            port: (words[0] >> 24) as u16,
            local_ip,
            connection,
        })
    }
}

#[inline]
fn pack_ip(ip: Option<IpAddr>) -> (u8, [u64; 2]) {
    match ip {
        None => (NONE, [0, 0]),
        Some(IpAddr::V4(ip)) => (V4, [u64::from(ip.to_bits()), 0]),
        Some(IpAddr::V6(ip)) => (V6, super::pack_key(ip.to_bits())),
    }
}

#[inline]
fn unpack_ip(family: u8, words: &[u64]) -> Result<Option<IpAddr>, DecodeError> {
    match family {
        NONE => Ok(None),
        V4 => Ok(Some(IpAddr::V4(Ipv4Addr::from_bits(words[0] as u32)))),
        V6 => Ok(Some(IpAddr::V6(Ipv6Addr::from_bits(super::unpack_key(words))))),
        _ => Err(DecodeError::Flow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_of_all_families_come_back() {
        let v4: IpAddr = "192.0.2.1".parse().expect("an address");
        let v6: IpAddr = "2001:db8::1:2".parse().expect("an address");
        for ip in [v4, v6] {
            for local_ip in [None, Some(v4), Some(v6)] {
                for connection in [0, u64::MAX] {
                    let flow = Flow { transport: 3, listener: 255, ip, port: 65_535, local_ip, connection };
                    let kept = if connection == 0 { local_ip } else { local_ip.filter(IpAddr::is_ipv4) };
                    assert_eq!(Flow::unpack(&flow.pack()), Ok(Flow { local_ip: kept, ..flow }));
                    assert_eq!(flow.pack()[0] >> 40, 0);
                }
            }
        }
    }

    #[test]
    fn a_flow_without_a_peer_is_refused() {
        assert_eq!(Flow::unpack(&[0; 5]), Err(DecodeError::Flow));
        assert_eq!(Flow::unpack(&[0xff_0000, 0, 0, 0, 0]), Err(DecodeError::Flow));
    }
}

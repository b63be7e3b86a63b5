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
    /// Our own address, where it is known.
    pub local_ip: Option<IpAddr>,
}

impl Default for Flow {
    /// Nowhere: all zeros.
    fn default() -> Self {
        Self { transport: 0, listener: 0, ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0, local_ip: None }
    }
}

/// Address families in bits 16..24 of the first word: 2 bits the peer's, 2 bits ours.
const NONE: u8 = 0;
const V4: u8 = 1;
const V6: u8 = 2;

impl Flow {
    /// Five words: transport 0..8, listener 8..16, families 16..24, port 24..40 (bits 40..64 are the caller's, here 0);
    /// the peer's address; our address.
    #[inline]
    pub(super) fn pack(&self) -> [u64; 5] {
        let (family, ip) = pack_ip(Some(self.ip));
        let (local_family, local_ip) = pack_ip(self.local_ip);
        let word = u64::from(self.transport)
            | u64::from(self.listener) << 8
            | u64::from(family | local_family << 2) << 16
            | u64::from(self.port) << 24;
        [word, ip[0], ip[1], local_ip[0], local_ip[1]]
    }

    #[inline]
    pub(super) fn unpack(words: &[u64]) -> Result<Self, DecodeError> {
        let families = (words[0] >> 16) as u8;
        Ok(Self {
            transport: words[0] as u8,
            listener: (words[0] >> 8) as u8,
            ip: unpack_ip(families & 3, &words[1..3])?.ok_or(DecodeError::Flow)?,
            port: (words[0] >> 24) as u16,
            local_ip: unpack_ip(families >> 2, &words[3..5])?,
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
                let flow = Flow { transport: 3, listener: 255, ip, port: 65_535, local_ip };
                assert_eq!(Flow::unpack(&flow.pack()), Ok(flow));
                assert_eq!(flow.pack()[0] >> 40, 0);
            }
        }
    }

    #[test]
    fn a_flow_without_a_peer_is_refused() {
        assert_eq!(Flow::unpack(&[0; 5]), Err(DecodeError::Flow));
        assert_eq!(Flow::unpack(&[0xff_0000, 0, 0, 0, 0]), Err(DecodeError::Flow));
    }
}

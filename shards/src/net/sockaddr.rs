//! Socket addresses and control messages as the bytes that the kernel reads and writes.
//!
//! All of it is safe code, so every length and offset is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A `sockaddr_in` or `sockaddr_in6`, as bytes.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Name(pub(super) [u8; NAME_LEN]);

impl Name {
    pub(super) const EMPTY: Self = Self([0; NAME_LEN]);

    /// Writes `address` and returns the length of the structure.
    pub(super) fn encode(&mut self, address: SocketAddr) -> usize {
        match address {
            SocketAddr::V4(v4) => {
                self.0[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                self.0[2..4].copy_from_slice(&v4.port().to_be_bytes());
                self.0[4..8].copy_from_slice(&v4.ip().octets());
                self.0[8..16].fill(0);
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                self.0[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                self.0[2..4].copy_from_slice(&v6.port().to_be_bytes());
                self.0[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                self.0[8..24].copy_from_slice(&v6.ip().octets());
                self.0[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                size_of::<libc::sockaddr_in6>()
            }
        }
    }

    /// The address in the first `len` bytes.
    pub(super) fn decode(&self, len: usize) -> Option<SocketAddr> {
        let bytes = self.0.get(..len)?;
        let family = u16::from_ne_bytes(array_at(bytes, 0)?);
        let port = u16::from_be_bytes(array_at(bytes, 2)?);
        match libc::c_int::from(family) {
            libc::AF_INET => Some(SocketAddr::from((Ipv4Addr::from_octets(array_at(bytes, 4)?), port))),
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from_octets(array_at(bytes, 8)?);
                // The flow label is not part of a peer's identity, and echoing it is not asked for by anything.
                let scope_id = u32::from_ne_bytes(array_at(bytes, 24)?);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope_id)))
            }
            _ => None,
        }
    }
}

/// Room for the control messages we ask for or send.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control {
    pub(super) bytes: [u8; CONTROL_LEN],
    len: usize,
}

impl Control {
    pub(super) const EMPTY: Self = Self { bytes: [0; CONTROL_LEN], len: 0 };

    /// Forgets all messages.
    pub(super) const fn clear(&mut self) {
        self.len = 0;
    }

    /// Bytes of the messages written.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a message that chooses the source address.
    pub(super) fn push_local_ip(&mut self, local_ip: IpAddr) {
        // The interface index stays 0: routing chooses, only the address is ours to say.
        match local_ip {
            IpAddr::V4(v4) => {
                // struct in_pktinfo { int ipi_ifindex; in_addr ipi_spec_dst; in_addr ipi_addr; }
                let mut data = [0; PKTINFO_V4_LEN];
                data[4..8].copy_from_slice(&v4.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
            }
            IpAddr::V6(v6) => {
                // struct in6_pktinfo { in6_addr ipi6_addr; unsigned ipi6_ifindex; }
                let mut data = [0; PKTINFO_V6_LEN];
                data[..16].copy_from_slice(&v6.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
            }
        }
    }

    /// Adds a message that has the payload cut into datagrams of `len` bytes (`UDP_SEGMENT`, udp(7)).
    pub(super) fn push_segment_len(&mut self, len: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }

    /// Writes a `cmsghdr` with its data behind those that are there.
    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let cmsg_len = CMSG_HEADER_LEN + data.len();
        let message = &mut self.bytes[self.len..self.len + align(cmsg_len)];
        message.fill(0);
        message[..CMSG_LEVEL_AT].copy_from_slice(&cmsg_len.to_ne_bytes());
        message[CMSG_LEVEL_AT..][..4].copy_from_slice(&level.to_ne_bytes());
        message[CMSG_LEVEL_AT + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        message[CMSG_HEADER_LEN..cmsg_len].copy_from_slice(data);
        self.len += align(cmsg_len);
    }
}

/// The address that a datagram was sent to, if the control messages tell it.
pub(super) fn local_ip_in(mut control: &[u8]) -> Option<IpAddr> {
    loop {
        let cmsg_len = usize::from_ne_bytes(array_at(control, 0)?);
        let level = libc::c_int::from_ne_bytes(array_at(control, CMSG_LEVEL_AT)?);
        let kind = libc::c_int::from_ne_bytes(array_at(control, CMSG_LEVEL_AT + 4)?);
        let data = control.get(CMSG_HEADER_LEN..cmsg_len)?;
        match (level, kind) {
            // `ipi_spec_dst` is the local address to answer from; for a broadcast it is not what the header said.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                return Some(IpAddr::V4(Ipv4Addr::from_octets(array_at(data, 4)?)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                return Some(IpAddr::V6(Ipv6Addr::from_octets(array_at(data, 0)?)));
            }
            _ => control = control.get(align(cmsg_len)..)?,
        }
    }
}

/// The `N` bytes at `at`, if they are there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// `len` rounded up to where the next control message starts (`CMSG_ALIGN`).
const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// Size of [`Name`].
pub(super) const NAME_LEN: usize = 32;
const _: () = assert!(size_of::<libc::sockaddr_in6>() <= NAME_LEN);
const _: () = assert!(size_of::<libc::sockaddr_in>() == 16 && size_of::<libc::sockaddr_in6>() == 28);

/// Where `cmsg_level` lies in a `cmsghdr` of Linux with glibc: after a length of pointer size.
const CMSG_LEVEL_AT: usize = size_of::<usize>();
/// Length of a `cmsghdr`, where its data begin.
const CMSG_HEADER_LEN: usize = align(size_of::<libc::cmsghdr>());
const _: () = assert!(std::mem::offset_of!(libc::cmsghdr, cmsg_level) == CMSG_LEVEL_AT);
const _: () = assert!(std::mem::offset_of!(libc::cmsghdr, cmsg_type) == CMSG_LEVEL_AT + 4);
/// Length of `in_pktinfo`.
const PKTINFO_V4_LEN: usize = size_of::<libc::in_pktinfo>();
/// Length of `in6_pktinfo`.
const PKTINFO_V6_LEN: usize = size_of::<libc::in6_pktinfo>();
/// Bytes of a segment length in its control message.
const SEGMENT_LEN: usize = size_of::<u16>();
/// Room for the messages of a [`Control`].
pub(super) const CONTROL_LEN: usize = 64;
const _: () =
    assert!(align(CMSG_HEADER_LEN + PKTINFO_V6_LEN) + align(CMSG_HEADER_LEN + SEGMENT_LEN) <= CONTROL_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_of_any_bytes_are_read_without_harm() {
        let mut seed = 1_u64;
        for len in (0..=CONTROL_LEN).cycle().take(20_000) {
            let mut control = [0; CONTROL_LEN];
            for byte in &mut control {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (seed >> 60) as u8;
            }
            let _ = local_ip_in(&control[..len]);
        }
        // A message that claims no length at all would be looked at for ever.
        assert_eq!(local_ip_in(&[0; CONTROL_LEN]), None);
    }

    #[test]
    fn names_read_back_as_written() {
        for text in ["10.0.0.27:5060", "[2001:db8::1]:5061", "[fe80::1%3]:5060"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = Name([0xff; NAME_LEN]);
            let len = name.encode(address);
            assert_eq!(name.decode(len), Some(address));
            assert_eq!(name.decode(3), None, "cut off");
        }
    }

    #[test]
    fn two_control_messages_lie_behind_one_another() {
        let ours: IpAddr = "2001:db8::27".parse().unwrap();
        let mut control = Control::EMPTY;
        control.push_segment_len(704);
        control.push_local_ip(ours);
        assert_eq!(control.len(), 24 + 40);
        assert_eq!(local_ip_in(&control.bytes[..control.len()]), Some(ours));
        control.clear();
        control.push_local_ip("192.0.2.7".parse().unwrap());
        assert_eq!(local_ip_in(&control.bytes[..control.len()]), Some("192.0.2.7".parse().unwrap()));
    }
}

//! Many datagrams a system call: `recvmmsg(2)` and `sendmmsg(2)` of Linux, with our own address on wildcard sockets.
//!
//! The only file of the crate with `unsafe`: the system calls themselves and the zeroed headers they take. Addresses and
//! control messages are written and read as bytes by safe code, so every length and offset is checked.
//!
//! Nothing allocates after construction. Pointers are made anew for each call from the buffers as they are at that
//! moment and are not used after it; between calls they dangle, which is why both batches are `!Send`: build them on
//! the thread that uses them.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Most datagrams a call moves. Measured: more than 64 gain nothing.
pub const BATCH_LEN: usize = 64;

/// Room for one received datagram: more than UDP can carry over IPv4 (65,507) and IPv6 without jumbograms (65,527).
pub const SLOT_LEN: usize = 64 * 1024;

/// Asks the kernel to tell, with each datagram, which of our addresses it was sent to (`IP_PKTINFO`, RFC 3542 §6.2).
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn tell_local_ip(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, option) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the value pointer is to a live `c_int` and the length is that of a `c_int`, which is what both options
    // take; the descriptor is open for as long as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the reuse-port group of a socket the classic BPF program that chooses a socket for each datagram.
///
/// # Errors
/// What `setsockopt(2)` says, `InvalidInput` for a program of more than 65,535 instructions.
pub fn attach_reuse_port_program(
    socket: BorrowedFd<'_>,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let description = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the value pointer is to a live `sock_fprog` and the length is its own, which is what the option takes; it
    // names `len` instructions that `program` keeps borrowed during the call, and the kernel copies them; the descriptor is
    // open for as long as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const description).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Who sent it.
    pub peer: SocketAddr,
    /// Which of our addresses it was sent to; only on sockets prepared by [`tell_local_ip`].
    pub local_ip: Option<IpAddr>,
    /// Its payload, or the first part of it.
    pub bytes: &'a [u8],
    /// Whether the payload was longer than the slot.
    pub truncated: bool,
}

/// Buffers for receiving up to [`BATCH_LEN`] datagrams at once.
///
/// The memory is reserved, not used: a slot's pages become real when a datagram is long enough to touch them.
pub struct RecvBatch {
    slots: Box<[u8]>,
    slot_len: usize,
    stride: usize,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    received: usize,
}

impl RecvBatch {
    /// Buffers for datagrams of any length.
    #[must_use]
    pub fn new() -> Self {
        Self::with_slot_len(SLOT_LEN)
    }

    /// Buffers for datagrams of at most `slot_len` bytes.
    #[must_use]
    pub fn with_slot_len(slot_len: usize) -> Self {
        let stride = slot_len + SLOT_STAGGER;
        Self {
            slots: vec![0; stride * BATCH_LEN].into_boxed_slice(),
            slot_len,
            stride,
            names: vec![Name::EMPTY; BATCH_LEN].into_boxed_slice(),
            controls: vec![Control::EMPTY; BATCH_LEN].into_boxed_slice(),
            iovecs: vec![EMPTY_IOVEC; BATCH_LEN].into_boxed_slice(),
            headers: empty_headers(),
            received: 0,
        }
    }

    /// Takes what the socket holds, up to [`BATCH_LEN`] datagrams, and returns how many. Never blocks. The datagrams of
    /// the call before are forgotten.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is empty; any other error belongs to the socket (on UDP: an ICMP answer to
    /// something sent earlier) and has been taken off it, so that the next call goes on.
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received = 0;
        let slots = self.slots.chunks_exact_mut(self.stride);
        let names = self.names.iter_mut();
        let controls = self.controls.iter_mut();
        let buffers = slots.zip(names).zip(controls).zip(self.iovecs.iter_mut());
        for (header, (((slot, name), control), iovec)) in self.headers.iter_mut().zip(buffers) {
            *iovec = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: self.slot_len };
            header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_LEN as libc::socklen_t;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_LEN as _;
            header.msg_hdr.msg_flags = 0;
            header.msg_len = 0;
        }
        let count = loop {
            // SAFETY: `headers` holds `BATCH_LEN` headers, and each was just given pointers, made from `&mut`, into
            // buffers that `self` owns, with lengths within them: `slot_len <= stride`, `NAME_LEN` and `CONTROL_LEN`
            // are the sizes of the arrays. Nothing else touches the buffers during the call, because `self` is
            // borrowed mutably. The null timeout is allowed.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    BATCH_LEN as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            if count >= 0 {
                break usize::try_from(count).expect("not negative");
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        self.received = count.min(BATCH_LEN);
        Ok(self.received)
    }

    /// One of the datagrams of the last [`Self::recv`]; `None` from its count on, and for one without a usable source.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Received<'_>> {
        if index >= self.received {
            return None;
        }
        let header = &self.headers[index];
        let len = (header.msg_len as usize).min(self.slot_len);
        let control_len = header.msg_hdr.msg_controllen.min(CONTROL_LEN);
        Some(Received {
            peer: self.names[index].decode(header.msg_hdr.msg_namelen as usize)?,
            local_ip: local_ip_in(&self.controls[index].0[..control_len]),
            bytes: &self.slots[index * self.stride..][..len],
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// One datagram to send: its payload is `head` followed by `body`.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Where to.
    pub peer: SocketAddr,
    /// Which of our addresses it leaves from; `None` lets the kernel choose.
    pub local_ip: Option<IpAddr>,
    /// First part of the payload.
    pub head: &'a [u8],
    /// Second part of the payload; may be empty.
    pub body: &'a [u8],
}

/// Headers for sending up to [`BATCH_LEN`] datagrams at once. Payloads are not copied.
pub struct SendBatch {
    names: Box<[Name]>,
    controls: Box<[Control]>,
    iovecs: Box<[[libc::iovec; 2]]>,
    headers: Box<[libc::mmsghdr]>,
}

impl SendBatch {
    /// Empty headers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            names: vec![Name::EMPTY; BATCH_LEN].into_boxed_slice(),
            controls: vec![Control::EMPTY; BATCH_LEN].into_boxed_slice(),
            iovecs: vec![[EMPTY_IOVEC; 2]; BATCH_LEN].into_boxed_slice(),
            headers: empty_headers(),
        }
    }

    /// Hands the first [`BATCH_LEN`] of `datagrams` to the kernel by one call and returns how many it took, at least one.
    /// Never blocks. No datagrams: zero.
    ///
    /// # Errors
    /// Why the *first* datagram was not taken: `WouldBlock` when the socket's buffer is full, anything else concerns
    /// that datagram or its destination. When a later one is refused the count ends before it.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: impl Iterator<Item = Datagram<'a>>,
    ) -> io::Result<usize> {
        let mut filled = 0;
        for (index, datagram) in datagrams.take(BATCH_LEN).enumerate() {
            let iovecs = &mut self.iovecs[index];
            // The kernel only reads through these pointers, although their type says otherwise.
            iovecs[0].iov_base = datagram.head.as_ptr().cast_mut().cast();
            iovecs[0].iov_len = datagram.head.len();
            iovecs[1].iov_base = datagram.body.as_ptr().cast_mut().cast();
            iovecs[1].iov_len = datagram.body.len();
            let name = &mut self.names[index];
            let name_len = name.encode(datagram.peer);
            let control = &mut self.controls[index];
            let control_len = datagram.local_ip.map_or(0, |local_ip| control.encode(local_ip));
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = name.0.as_mut_ptr().cast();
            header.msg_namelen = name_len as libc::socklen_t;
            header.msg_iov = iovecs.as_mut_ptr();
            header.msg_iovlen = if datagram.body.is_empty() { 1 } else { 2 };
            header.msg_control =
                if control_len == 0 { std::ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
            header.msg_controllen = control_len as _;
            header.msg_flags = 0;
            filled = index + 1;
        }
        if filled == 0 {
            return Ok(0);
        }
        loop {
            // SAFETY: the first `filled <= BATCH_LEN` headers were just filled in. Names, control messages and iovecs
            // lie in boxed slices of `self`, which is borrowed mutably; payloads are borrowed for `'a`, which outlives
            // this call, and the kernel does not write to them.
            let count = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    filled as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            if count >= 0 {
                return Ok(usize::try_from(count).expect("not negative").min(filled));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// A `sockaddr_in` or `sockaddr_in6`, as bytes.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME_LEN]);

impl Name {
    const EMPTY: Self = Self([0; NAME_LEN]);

    /// Writes `address` and returns the length of the structure.
    fn encode(&mut self, address: SocketAddr) -> usize {
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
    fn decode(&self, len: usize) -> Option<SocketAddr> {
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

/// Room for the one control message we ask for or send.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

impl Control {
    const EMPTY: Self = Self([0; CONTROL_LEN]);

    /// Writes a control message that chooses the source address and returns its length.
    fn encode(&mut self, local_ip: IpAddr) -> usize {
        // The interface index stays 0: routing chooses, only the address is ours to say.
        match local_ip {
            IpAddr::V4(v4) => {
                let data = self.start(libc::IPPROTO_IP, libc::IP_PKTINFO, PKTINFO_V4_LEN);
                // struct in_pktinfo { int ipi_ifindex; in_addr ipi_spec_dst; in_addr ipi_addr; }
                data[4..8].copy_from_slice(&v4.octets());
                align(CMSG_HEADER_LEN + PKTINFO_V4_LEN)
            }
            IpAddr::V6(v6) => {
                let data = self.start(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, PKTINFO_V6_LEN);
                // struct in6_pktinfo { in6_addr ipi6_addr; unsigned ipi6_ifindex; }
                data[..16].copy_from_slice(&v6.octets());
                align(CMSG_HEADER_LEN + PKTINFO_V6_LEN)
            }
        }
    }

    /// Writes a `cmsghdr` and returns its zeroed data.
    fn start(&mut self, level: libc::c_int, kind: libc::c_int, data_len: usize) -> &mut [u8] {
        let cmsg_len = CMSG_HEADER_LEN + data_len;
        self.0.fill(0);
        self.0[..CMSG_LEVEL_AT].copy_from_slice(&cmsg_len.to_ne_bytes());
        self.0[CMSG_LEVEL_AT..][..4].copy_from_slice(&level.to_ne_bytes());
        self.0[CMSG_LEVEL_AT + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        &mut self.0[CMSG_HEADER_LEN..cmsg_len]
    }
}

/// The address that a datagram was sent to, if the control messages tell it.
fn local_ip_in(mut control: &[u8]) -> Option<IpAddr> {
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

/// [`BATCH_LEN`] headers of zeroes.
fn empty_headers() -> Box<[libc::mmsghdr]> {
    (0..BATCH_LEN)
        .map(|_| {
            // SAFETY: `mmsghdr` consists of integers and raw pointers, for all of which zero is a valid value.
            unsafe { std::mem::zeroed::<libc::mmsghdr>() }
        })
        .collect()
}

/// An iovec of nothing.
const EMPTY_IOVEC: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Slots of exactly 64 KiB would all begin in the same cache sets; 17 lines more let their beginnings lie side by side.
const SLOT_STAGGER: usize = 17 * 64;

/// Size of [`Name`].
const NAME_LEN: usize = 32;
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
/// Size of [`Control`].
const CONTROL_LEN: usize = 64;
const _: () = assert!(align(CMSG_HEADER_LEN + PKTINFO_V6_LEN) <= CONTROL_LEN);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn two_parts_arrive_as_one_datagram_over_ipv4_and_ipv6() {
        for ip in ["127.0.0.1", "::1"] {
            let (server, client) = pair(ip);
            let sent = send_all(&client, &[datagram(&server, b"NOTIFY\r\n\r\n", b"<presence/>")]);
            assert_eq!(sent, 1);
            let mut batch = RecvBatch::new();
            wait_readable(&server);
            assert_eq!(batch.recv(server.as_fd()).unwrap(), 1);
            let received = batch.get(0).unwrap();
            assert_eq!(received.bytes, b"NOTIFY\r\n\r\n<presence/>");
            assert_eq!(received.peer, client.local_addr().unwrap());
            assert_eq!(received.local_ip, None, "not asked for");
            assert!(!received.truncated);
            assert_eq!(batch.get(1), None);
            let error = batch.recv(server.as_fd()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(batch.get(0), None, "the datagrams of the call before are gone");
        }
    }

    #[test]
    fn a_full_batch_keeps_order_and_the_longest_datagram_fits() {
        let (server, client) = pair("127.0.0.1");
        let longest = vec![b'x'; 65_507];
        let texts: Vec<String> = (0..BATCH_LEN + 1).map(|i| format!("number {i}")).collect();
        let mut datagrams: Vec<_> =
            texts.iter().map(|text| datagram(&server, text.as_bytes(), b"")).collect();
        assert_eq!(send_all(&client, &datagrams), BATCH_LEN, "one call takes a batch");
        datagrams.clear();
        let mut batch = RecvBatch::new();
        wait_readable(&server);
        assert_eq!(batch.recv(server.as_fd()).unwrap(), BATCH_LEN);
        for (index, text) in texts[..BATCH_LEN].iter().enumerate() {
            assert_eq!(batch.get(index).unwrap().bytes, text.as_bytes());
        }
        assert_eq!(send_all(&client, &[datagram(&server, &longest[..100], &longest[100..])]), 1);
        wait_readable(&server);
        assert_eq!(batch.recv(server.as_fd()).unwrap(), 1);
        assert_eq!(batch.get(0).unwrap().bytes, longest);
    }

    #[test]
    fn what_does_not_fit_is_marked() {
        let (server, client) = pair("127.0.0.1");
        let mut batch = RecvBatch::with_slot_len(8);
        send_all(&client, &[datagram(&server, b"12345678", b""), datagram(&server, b"12345678", b"9")]);
        wait_readable(&server);
        assert_eq!(batch.recv(server.as_fd()).unwrap(), 2);
        assert_eq!(batch.get(0).map(|it| (it.bytes, it.truncated)), Some((&b"12345678"[..], false)));
        assert_eq!(batch.get(1).map(|it| (it.bytes, it.truncated)), Some((&b"12345678"[..], true)));
    }

    #[test]
    fn a_wildcard_socket_learns_and_chooses_its_address() {
        // All of 127.0.0.0/8 is ours, so that the kernel would answer from 127.0.0.1 if it were left to choose.
        for (wildcard, ours) in [("0.0.0.0", "127.0.0.2"), ("::", "::1")] {
            let server = bind(wildcard);
            tell_local_ip(server.as_fd(), wildcard == "::").unwrap();
            let ours: IpAddr = ours.parse().unwrap();
            let client = bind(if ours.is_ipv4() { "127.0.0.1" } else { "::1" });
            let to = SocketAddr::new(ours, server.local_addr().unwrap().port());
            send_all(&client, &[Datagram { peer: to, local_ip: None, head: b"OPTIONS", body: b"" }]);
            let mut batch = RecvBatch::new();
            wait_readable(&server);
            assert_eq!(batch.recv(server.as_fd()).unwrap(), 1);
            let received = batch.get(0).unwrap();
            assert_eq!(received.local_ip, Some(ours));

            let answer =
                Datagram { peer: received.peer, local_ip: received.local_ip, head: b"200 ", body: b"OK" };
            assert_eq!(send_all(&server, &[answer]), 1);
            wait_readable(&client);
            let mut buffer = [0; 16];
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (&b"200 OK"[..], to));
        }
    }

    #[test]
    fn a_refused_datagram_ends_the_count_and_is_named_by_the_next_call() {
        let (server, client) = pair("127.0.0.1");
        let good = datagram(&server, b"good", b"");
        let bad = Datagram { peer: "[::1]:9".parse().unwrap(), ..good };
        assert_eq!(send_all(&client, &[good, bad, good]), 1);
        let mut batch = SendBatch::new();
        let error = batch.send(client.as_fd(), [bad, good].into_iter()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT));
    }

    #[test]
    fn nothing_to_send_is_no_call() {
        let (_, client) = pair("127.0.0.1");
        assert_eq!(send_all(&client, &[]), 0);
    }

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

    fn bind(ip: &str) -> UdpSocket {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        socket
    }

    fn pair(ip: &str) -> (UdpSocket, UdpSocket) {
        (bind(ip), bind(ip))
    }

    fn datagram<'a>(to: &UdpSocket, head: &'a [u8], body: &'a [u8]) -> Datagram<'a> {
        Datagram { peer: to.local_addr().unwrap(), local_ip: None, head, body }
    }

    fn send_all(from: &UdpSocket, datagrams: &[Datagram<'_>]) -> usize {
        SendBatch::new().send(from.as_fd(), datagrams.iter().copied()).unwrap()
    }

    /// Waits until the socket holds something, and no longer than its read timeout.
    fn wait_readable(socket: &UdpSocket) {
        socket.peek_from(&mut [0; 1]).unwrap();
    }
}

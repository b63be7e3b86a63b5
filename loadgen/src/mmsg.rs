//! Batched datagrams: `recvmmsg`, `sendmmsg` and the few socket options that the standard crates do not offer.
//!
//! The only file of this crate with `unsafe`. Addresses and control messages are kept as plain bytes, so reading what
//! the kernel wrote needs no pointer. Every pointer handed to the kernel is derived anew before each call from a
//! buffer that the caller holds mutably for the whole call.

#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Most buffers of one system call: few enough that a request does not wait long behind the answers to a batch.
pub const BATCH: usize = 32;
/// Largest datagram that is received whole; a longer one is reported as truncated.
pub const DATAGRAM_MAX: usize = 16 * 1024;
/// Largest buffer of datagrams that the kernel left together (`UDP_GRO`).
const TOGETHER_MAX: usize = 64 * 1024;
/// Room for one `SCM_TIMESTAMPNS` message (16 bytes of header, 16 of `timespec`) and one of `UDP_GRO` (16 and 4).
const CONTROL_MAX: usize = 64;
/// Room for a `sockaddr_in6`, the longest address that we use.
const NAME_MAX: usize = 28;

/// Buffers of one `recvmmsg`, reused from call to call.
pub struct Receiver {
    bytes: Box<[u8]>,
    /// Length of each buffer.
    room: usize,
    names: Box<[[u8; NAME_MAX]]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

/// Control bytes with the alignment that the kernel's `cmsghdr` wants.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL_MAX]);

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// What was received.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub source: SocketAddr,
    /// When the kernel received it, in nanoseconds of the wall clock; none if the kernel gave no stamp.
    pub stamp_ns: Option<u64>,
    /// Whether the end is missing.
    pub truncated: bool,
}

impl Receiver {
    /// [`BATCH`] buffers, for a datagram each, or for several that the kernel left `together`.
    pub fn new(together: bool) -> Self {
        let room = if together { TOGETHER_MAX } else { DATAGRAM_MAX };
        Self {
            bytes: vec![0; BATCH * room].into_boxed_slice(),
            room,
            names: vec![[0; NAME_MAX]; BATCH].into_boxed_slice(),
            controls: vec![Control([0; CONTROL_MAX]); BATCH].into_boxed_slice(),
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH].into_boxed_slice(),
            headers: vec![empty_header(); BATCH].into_boxed_slice(),
        }
    }

    /// Receives what is there without waiting; the number of buffers filled, 0 if there is nothing.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let parts = self.bytes.chunks_exact_mut(self.room);
        for ((((part, name), control), iovec), header) in parts
            .zip(self.names.iter_mut())
            .zip(self.controls.iter_mut())
            .zip(self.iovecs.iter_mut())
            .zip(self.headers.iter_mut())
        {
            iovec.iov_base = part.as_mut_ptr().cast();
            iovec.iov_len = self.room;
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_MAX as u32;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_MAX as _;
            header.msg_hdr.msg_flags = 0;
            header.msg_len = 0;
        }
        // SAFETY: `headers` is an array of `BATCH` initialised headers. The loop above pointed each at its own name,
        // control, iovec and bytes, all live and exclusively borrowed through `&mut self` for the whole call, and set
        // every length to the size of what it describes. A null timeout means none.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if count >= 0 {
            return Ok(count as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
    }

    /// The datagrams in the `i`-th buffer of the last [`Receiver::receive`]; none when their sender's address is of no
    /// known family.
    pub fn datagrams(&self, i: usize) -> impl Iterator<Item = Datagram<'_>> {
        let header = &self.headers[i];
        let len = (header.msg_len as usize).min(self.room);
        let start = i * self.room;
        let control = &self.controls[i].0[..header.msg_hdr.msg_controllen.min(CONTROL_MAX)];
        let (stamp_ns, size) = (stamp(control), segment_size(control).unwrap_or(len).max(1));
        let source = decode_name(&self.names[i]);
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let parts = self.bytes[start..start + len].chunks(size);
        source.into_iter().flat_map(move |source| {
            parts.clone().map(move |bytes| Datagram { bytes, source, stamp_ns, truncated })
        })
    }
}

/// Datagrams that wait to be sent on one socket.
#[derive(Default)]
pub struct SendQueue {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Entries before this one are sent.
    head: usize,
    /// Whether the kernel may cut what is longer than the path takes.
    fragments: bool,
}

/// One datagram of a [`SendQueue`].
struct Entry {
    start: usize,
    len: usize,
    name: [u8; NAME_MAX],
    name_len: u8,
}

impl SendQueue {
    /// Appends the datagram that `write` puts into the buffer, for `to`. Nothing is queued when it writes nothing.
    pub fn push(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - start;
        if len > 0 {
            let (name, name_len) = encode_name(to);
            self.entries.push(Entry { start, len, name, name_len });
        }
    }

    /// How many datagrams wait.
    pub fn len(&self) -> usize {
        self.entries.len() - self.head
    }
}

/// Headers of one `sendmmsg`, reused from call to call.
pub struct Sender {
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Sender {
    /// Headers for [`BATCH`] datagrams.
    pub fn new() -> Self {
        Self {
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH].into_boxed_slice(),
            headers: vec![empty_header(); BATCH].into_boxed_slice(),
        }
    }

    /// Sends what waits in `queue`; the number of datagrams that the kernel refused for good. What it has no room for
    /// now stays in the queue.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, queue: &mut SendQueue) -> u64 {
        let mut refused = 0;
        while queue.head < queue.entries.len() {
            match self.send_batch(socket, queue) {
                Ok(0) => break,
                Ok(count) => queue.head += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && !queue.fragments => {
                    queue.fragments = true;
                    refused += u64::from(set_fragments(socket, true).is_err());
                }
                Err(_) => {
                    queue.head += 1;
                    refused += 1;
                }
            }
        }
        if queue.head == queue.entries.len() {
            queue.entries.clear();
            queue.bytes.clear();
            queue.head = 0;
        }
        refused
    }

    /// One system call for the first waiting datagrams; how many of them were sent.
    fn send_batch(&mut self, socket: BorrowedFd<'_>, queue: &mut SendQueue) -> io::Result<usize> {
        let SendQueue { bytes, entries, head, .. } = queue;
        let mut count = 0;
        for ((entry, iovec), header) in
            entries[*head..].iter_mut().zip(self.iovecs.iter_mut()).zip(self.headers.iter_mut())
        {
            let part = &mut bytes[entry.start..entry.start + entry.len];
            iovec.iov_base = part.as_mut_ptr().cast();
            iovec.iov_len = entry.len;
            header.msg_hdr.msg_name = entry.name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = u32::from(entry.name_len);
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = ptr::null_mut();
            header.msg_hdr.msg_controllen = 0;
            header.msg_hdr.msg_flags = 0;
            count += 1;
        }
        // SAFETY: the first `count` headers were filled above; each points at an iovec of `self`, an address and a
        // byte range of `queue` with their true lengths, and both owners stay borrowed for the whole call. The kernel
        // only reads them, except for `msg_len`, which lies in the header itself.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT)
        };
        if sent >= 0 { Ok(sent as usize) } else { Err(io::Error::last_os_error()) }
    }
}

/// Whether the kernel may cut datagrams that are longer than the path takes (`IP_MTU_DISCOVER`). While it may not, it
/// need not number them, which costs some percent of sending. Only for IPv4; IPv6 numbers only what it cuts.
pub fn set_fragments(socket: BorrowedFd<'_>, may: bool) -> io::Result<()> {
    let value = if may { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_DO };
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
}

/// Asks the kernel to leave together what came together, as it does for a proxy (`UDP_GRO`).
pub fn receive_together(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Asks the kernel to stamp every received datagram (`SO_TIMESTAMPNS`).
pub fn enable_stamps(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SO_TIMESTAMPNS, 1)
}

/// Sets the receive buffer to `bytes`, beyond the system's limit where we may (`SO_RCVBUFFORCE`).
pub fn set_receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_option(socket, libc::SO_RCVBUFFORCE, bytes).or_else(|_| set_option(socket, libc::SO_RCVBUF, bytes))
}

/// How many datagrams the kernel dropped for want of room in this socket since it was opened (`SO_MEMINFO`).
pub fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` and the number of values (linux/sock_diag.h).
    const DROPS: usize = 8;
    const VALUES: usize = 9;
    let mut values = [0u32; VALUES];
    let mut len = size_of::<[u32; VALUES]>() as libc::socklen_t;
    // SAFETY: `values` and `len` are live locals; `len` holds the size of `values` in bytes, which bounds what the
    // kernel writes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(values[DROPS]) } else { Err(io::Error::last_os_error()) }
}

/// Sets one integer option of the socket level.
fn set_option(socket: BorrowedFd<'_>, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, name, value)
}

/// Sets one integer option.
fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one `c_int` from a live local, and the length says so.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A header that describes nothing.
fn empty_header() -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is integers and raw pointers only, for which all-zero bytes are valid.
    unsafe { std::mem::zeroed() }
}

/// The `SCM_TIMESTAMPNS` stamp among the control messages, in nanoseconds of the wall clock.
fn stamp(control: &[u8]) -> Option<u64> {
    let value = find_control(control, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)?;
    let seconds = u64::from_ne_bytes(value.get(..8)?.try_into().ok()?);
    let nanoseconds = u64::from_ne_bytes(value.get(8..16)?.try_into().ok()?);
    Some(seconds * 1_000_000_000 + nanoseconds)
}

/// How long each of several datagrams is that were left together, the last one but at most; none if there is one.
fn segment_size(control: &[u8]) -> Option<usize> {
    let value = find_control(control, libc::SOL_UDP, libc::UDP_GRO)?;
    usize::try_from(i32::from_ne_bytes(value.get(..4)?.try_into().ok()?)).ok()
}

/// The value of a control message.
fn find_control(mut control: &[u8], level: libc::c_int, kind: libc::c_int) -> Option<&[u8]> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    while control.len() >= HEADER {
        let len = usize::from_ne_bytes(control[..8].try_into().ok()?);
        let found_level = i32::from_ne_bytes(control[8..12].try_into().ok()?);
        let found_kind = i32::from_ne_bytes(control[12..16].try_into().ok()?);
        if (found_level, found_kind) == (level, kind) {
            return control.get(HEADER..len);
        }
        control = control.get(len.max(HEADER).next_multiple_of(8)..)?;
    }
    None
}

/// The kernel's form of an address.
fn encode_name(address: SocketAddr) -> ([u8; NAME_MAX], u8) {
    let mut name = [0; NAME_MAX];
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&v4.ip().octets());
            (name, 16)
        }
        SocketAddr::V6(v6) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            name[8..24].copy_from_slice(&v6.ip().octets());
            name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (name, 28)
        }
    }
}

/// The address in the kernel's form.
fn decode_name(name: &[u8; NAME_MAX]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([name[2], name[3]]);
    match i32::from(u16::from_ne_bytes([name[0], name[1]])) {
        libc::AF_INET => {
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(name[4], name[5], name[6], name[7])), port))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = name[8..24].try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), port))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_queued_arrives_with_source_and_stamp() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        enable_stamps(b.as_fd()).unwrap();
        let mut queue = SendQueue::default();
        for i in 0..100u8 {
            queue.push(b.local_addr().unwrap(), |out| out.extend_from_slice(&[i; 33]));
        }
        assert_eq!(queue.len(), 100);
        assert_eq!(Sender::new().flush(a.as_fd(), &mut queue), 0);
        assert_eq!(queue.len(), 0);
        let mut receiver = Receiver::new(false);
        let mut got = Vec::new();
        loop {
            let count = receiver.receive(b.as_fd()).unwrap();
            for datagram in (0..count).flat_map(|i| receiver.datagrams(i)) {
                assert_eq!(datagram.source, a.local_addr().unwrap());
                assert!(datagram.stamp_ns.unwrap() > 1_700_000_000_000_000_000);
                assert!(!datagram.truncated);
                got.push(datagram.bytes[0]);
            }
            if count < BATCH {
                break;
            }
        }
        assert_eq!(got, (0..100).collect::<Vec<u8>>());
        assert_eq!(dropped(b.as_fd()).unwrap(), 0);
    }

    #[test]
    fn what_came_together_is_taken_apart() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        enable_stamps(b.as_fd()).unwrap();
        receive_together(b.as_fd()).unwrap();
        // The kernel cuts this in three on its way, or on loopback leaves it whole.
        set(a.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 100).unwrap();
        a.send_to(&[7; 250], b.local_addr().unwrap()).unwrap();
        let mut receiver = Receiver::new(true);
        let count = receiver.receive(b.as_fd()).unwrap();
        let all: Vec<_> = (0..count).flat_map(|i| receiver.datagrams(i)).collect();
        assert_eq!(all.iter().map(|datagram| datagram.bytes.len()).collect::<Vec<_>>(), [100, 100, 50]);
        assert!(all.iter().all(|datagram| datagram.stamp_ns.is_some() && !datagram.truncated));
    }

    #[test]
    fn what_may_not_be_cut_is_cut_when_it_has_to_be() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        set_fragments(a.as_fd(), false).unwrap();
        let mut queue = SendQueue::default();
        // Longer than any datagram: it is refused for good, and what follows is sent.
        queue.push(b.local_addr().unwrap(), |out| out.resize(66_000, 1));
        queue.push(b.local_addr().unwrap(), |out| out.push(2));
        assert_eq!(Sender::new().flush(a.as_fd(), &mut queue), 1);
        assert!(queue.fragments && queue.len() == 0);
        let mut receiver = Receiver::new(false);
        assert_eq!(receiver.receive(b.as_fd()).unwrap(), 1);
        assert_eq!(receiver.datagrams(0).next().unwrap().bytes, [2]);
    }

    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["127.0.0.1:5060", "[2001:db8::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode_name(&encode_name(address).0), Some(address));
        }
    }

    #[test]
    fn a_full_socket_says_how_much_it_dropped() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        set_option(b.as_fd(), libc::SO_RCVBUF, 4096).unwrap();
        let mut queue = SendQueue::default();
        for _ in 0..1000 {
            queue.push(b.local_addr().unwrap(), |out| out.extend_from_slice(&[0; 1000]));
        }
        Sender::new().flush(a.as_fd(), &mut queue);
        let mut receiver = Receiver::new(false);
        let kept = receiver.receive(b.as_fd()).unwrap();
        assert!(kept < BATCH, "the buffer takes a few");
        assert_eq!(dropped(b.as_fd()).unwrap() as usize, 1000 - kept);
    }
}

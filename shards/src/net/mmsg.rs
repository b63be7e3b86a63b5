//! Many datagrams a system call: `recvmmsg(2)` and `sendmmsg(2)` of Linux, with our own address on wildcard sockets.
//!
//! The only file of the crate with `unsafe`: the system calls themselves and the zeroed headers they take. Addresses and
//! control messages are written and read as bytes by safe code ([`super::sockaddr`]).
//!
//! Datagrams that follow one another to one address travel as a train ([`super::train`]): one message for the kernel, cut by
//! it (`UDP_SEGMENT`, udp(7)). Where a device or the kernel does not take trains they go one by one.
//!
//! Nothing allocates after construction. Pointers are made anew for each call from the buffers as they are at that
//! moment and are not used after it; between calls they dangle, which is why both batches are `!Send`: build them on
//! the thread that uses them.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::sockaddr::{CONTROL_LEN, Control, NAME_LEN, Name, local_ip_in};
use super::train::Train;

/// Most datagrams a call moves. Measured: more than 64 gain nothing.
pub const BATCH_LEN: usize = 64;

/// Room for one received datagram: more than UDP can carry over IPv4 (65,507) and IPv6 without jumbograms (65,527).
pub const SLOT_LEN: usize = 64 * 1024;

/// Asks the kernel to tell, with each datagram, which of our addresses it was sent to (`IP_PKTINFO`, RFC 3542 §6.2).
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn tell_local_ip(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Has an IPv4 socket refuse to fragment (`IP_PMTUDISC_DO`, ip(7)). What can never be in fragments needs no identification,
/// whose counters all processors share: measured 4 % of what a NOTIFY costs. [`SendBatch::send`] lets datagrams that are longer
/// than usual links carry be fragmented all the same, and those that are refused because their path carries less.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn never_fragment(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
}

/// Sets an option whose value is a `c_int`.
fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value pointer is to a live `c_int` and the length is that of a `c_int`, which is what the options of our
    // callers take; the descriptor is open for as long as `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What waits in a socket: the memory of its datagrams in bytes, by the kernel's reckoning, and how many were dropped so far
/// because there was no room (`SO_MEMINFO`).
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn waiting(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut figures = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the value pointer is to a live array of `len` bytes that is borrowed mutably for the call, and the kernel writes
    // at most `len` bytes of plain numbers; the descriptor is open for as long as `socket` is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            figures.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((figures[libc::SK_MEMINFO_RMEM_ALLOC as usize], figures[libc::SK_MEMINFO_DROPS as usize]))
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
            header.msg_hdr.msg_control = control.bytes.as_mut_ptr().cast();
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
            local_ip: local_ip_in(&self.controls[index].bytes[..control_len]),
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

/// One datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Where to.
    pub peer: SocketAddr,
    /// Which of our addresses it leaves from; `None` lets the kernel choose.
    pub local_ip: Option<IpAddr>,
    /// Its payload: the parts one after another, of which some may be empty.
    pub parts: [&'a [u8]; PARTS],
}

impl Datagram<'_> {
    /// Bytes of the payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Parts of a datagram: head, body, padding.
pub const PARTS: usize = 3;

/// Headers for sending up to [`BATCH_LEN`] datagrams at once. Payloads are not copied.
pub struct SendBatch {
    names: Box<[Name]>,
    controls: Box<[Control]>,
    headers: Box<[libc::mmsghdr]>,
    trains: Box<[Train]>,
    /// Parts of all datagrams, those without bytes left out.
    iovecs: Box<[libc::iovec]>,
    /// For each datagram, where its iovecs begin; one more for the end.
    starts: [usize; BATCH_LEN + 1],
}

impl SendBatch {
    /// Empty headers.
    #[must_use]
    pub fn new() -> Self {
        let nobody =
            Datagram { peer: SocketAddr::from(([0, 0, 0, 0], 0)), local_ip: None, parts: [&[]; PARTS] };
        Self {
            names: vec![Name::EMPTY; BATCH_LEN].into_boxed_slice(),
            controls: vec![Control::EMPTY; BATCH_LEN].into_boxed_slice(),
            headers: empty_headers(),
            trains: vec![Train::of(&nobody); BATCH_LEN].into_boxed_slice(),
            iovecs: vec![EMPTY_IOVEC; PARTS * BATCH_LEN].into_boxed_slice(),
            starts: [0; BATCH_LEN + 1],
        }
    }

    /// Hands the first [`BATCH_LEN`] of `datagrams` to the kernel and returns how many it took, at least one. One call, unless
    /// something needs special treatment. Never blocks. No datagrams: zero.
    ///
    /// # Errors
    /// Why the *first* datagram was not taken: `WouldBlock` when the socket's buffer is full, anything else concerns
    /// that datagram or its destination. When a later one is refused the count ends before it.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        datagrams: impl Iterator<Item = Datagram<'a>>,
    ) -> io::Result<usize> {
        let trains = self.fill(datagrams);
        if trains == 0 {
            return Ok(0);
        }
        let first = self.trains[0];
        if is_long(&first) {
            // SAFETY: `fill` has filled in that many headers, from payloads that are borrowed for `'a`, which outlives this call.
            return unsafe { self.hand_over_to_fragment(socket, trains) };
        }
        // SAFETY: as above.
        let mut result = unsafe { self.hand_over(socket, trains) };
        if let Ok(taken) = result {
            return Ok(self.trains[..taken].iter().map(|train| train.count).sum());
        }
        if first.count > 1 && !would_block(&result) {
            self.uncouple(&first);
            // SAFETY: as above; `uncouple` has filled in a header for each datagram of the train.
            result = unsafe { self.hand_over(socket, first.count) };
        }
        if first.peer.is_ipv4() && is_too_long(&result) {
            // SAFETY: as above; there is at least one header.
            result = unsafe { self.hand_over_to_fragment(socket, 1) };
        }
        result
    }

    /// Fills in iovecs and headers, either of datagrams that a usual link carries or of longer ones; returns how many headers.
    fn fill<'a>(&mut self, datagrams: impl Iterator<Item = Datagram<'a>>) -> usize {
        let (mut trains, mut first, mut iovecs) = (0, 0, 0);
        for (index, datagram) in datagrams.take(BATCH_LEN).enumerate() {
            if trains == 0 || !self.trains[trains - 1].couple(&datagram) {
                let train = Train::of(&datagram);
                if trains > 0 {
                    self.set_header(trains - 1, trains - 1, first);
                    if is_long(&train) != is_long(&self.trains[0]) {
                        return trains;
                    }
                }
                self.trains[trains] = train;
                (trains, first) = (trains + 1, index);
            }
            for part in datagram.parts {
                if !part.is_empty() {
                    // The kernel only reads through this pointer, although its type says otherwise.
                    let iov_base = part.as_ptr().cast_mut().cast();
                    self.iovecs[iovecs] = libc::iovec { iov_base, iov_len: part.len() };
                    iovecs += 1;
                }
            }
            self.starts[index + 1] = iovecs;
        }
        if trains > 0 {
            self.set_header(trains - 1, trains - 1, first);
        }
        trains
    }

    /// Has header `index` send train number `train`, whose first datagram is number `first`.
    fn set_header(&mut self, index: usize, train: usize, first: usize) {
        let Train { peer, local_ip, count, segment_len, .. } = self.trains[train];
        let name = &mut self.names[index];
        let name_len = name.encode(peer);
        let control = &mut self.controls[index];
        control.clear();
        if let Some(local_ip) = local_ip {
            control.push_local_ip(local_ip);
        }
        if count > 1 {
            control.push_segment_len(u16::try_from(segment_len).expect("a segment fits a link"));
        }
        let iovecs = &mut self.iovecs[self.starts[first]..self.starts[first + count]];
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = name.0.as_mut_ptr().cast();
        header.msg_namelen = name_len as libc::socklen_t;
        header.msg_iov = iovecs.as_mut_ptr();
        header.msg_iovlen = iovecs.len() as _;
        header.msg_control =
            if control.len() == 0 { std::ptr::null_mut() } else { control.bytes.as_mut_ptr().cast() };
        header.msg_controllen = control.len() as _;
        header.msg_flags = 0;
    }

    /// Gives each datagram of the first train a header of its own.
    fn uncouple(&mut self, train: &Train) {
        for index in 0..train.count {
            self.trains[index] = train.one();
            self.set_header(index, index, index);
        }
    }

    /// As [`Self::hand_over`], for datagrams that may be fragmented on their way.
    ///
    /// # Safety
    /// As there.
    unsafe fn hand_over_to_fragment(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
        // SAFETY: what the caller says.
        let result = unsafe { self.hand_over(socket, count) };
        never_fragment(socket)?;
        result
    }

    /// One call for the first `count` headers; how many the kernel took.
    ///
    /// # Safety
    /// These headers are filled in, and the payloads that their iovecs point to are alive.
    unsafe fn hand_over(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        debug_assert!(count <= BATCH_LEN);
        loop {
            // SAFETY: names, control messages and iovecs lie in boxed slices of `self`, which is borrowed mutably; of the
            // payloads the caller says that they are alive, and the kernel does not write to them.
            let taken = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            if taken >= 0 {
                return Ok(usize::try_from(taken).expect("not negative").min(count));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Whether it is a datagram over IPv4 that a usual link carries in fragments only.
const fn is_long(train: &Train) -> bool {
    train.peer.is_ipv4() && train.segment_len > LINK_LEN
}

/// What a link of 1,500 bytes carries over IPv4.
const LINK_LEN: usize = 1_500 - 20 - 8;

/// Whether the socket was full.
fn would_block(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether the datagram was too long for its path, or for UDP.
fn is_too_long(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE))
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
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
            send_all(&client, &[Datagram { peer: to, local_ip: None, parts: [b"OPTIONS", b"", b""] }]);
            let mut batch = RecvBatch::new();
            wait_readable(&server);
            assert_eq!(batch.recv(server.as_fd()).unwrap(), 1);
            let received = batch.get(0).unwrap();
            assert_eq!(received.local_ip, Some(ours));

            let parts: [&[u8]; PARTS] = [b"200 ", b"OK", b""];
            let answer = Datagram { peer: received.peer, local_ip: received.local_ip, parts };
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
    fn a_train_arrives_as_its_datagrams() {
        for (wildcard, ours) in [("0.0.0.0", "127.0.0.2"), ("::", "::1")] {
            let server = bind(wildcard);
            let client = bind(if wildcard == "::" { "::1" } else { "127.0.0.1" });
            let local_ip = Some(ours.parse().unwrap());
            let texts: Vec<String> = (0..40).map(|i| format!("{i:04} and so on")).collect();
            let datagrams: Vec<_> = texts
                .iter()
                .map(|text| Datagram { local_ip, ..datagram(&client, text.as_bytes(), b"<presence/>") })
                .chain([Datagram { local_ip, ..datagram(&client, b"short", b"") }])
                .collect();
            assert_eq!(send_all(&server, &datagrams), 41);
            for text in &texts {
                assert_eq!(received(&client), (format!("{text}<presence/>"), local_ip));
            }
            assert_eq!(received(&client), ("short".to_owned(), local_ip));
        }
    }

    #[test]
    fn a_train_that_the_kernel_refuses_goes_one_by_one() {
        let (server, client) = pair("127.0.0.1");
        // Without checksums the kernel cuts nothing (udp(7)).
        set_option(server.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let datagrams = [datagram(&client, b"one", b""), datagram(&client, b"two", b"")];
        assert_eq!(send_all(&server, &datagrams), 2);
        assert_eq!(received(&client).0, "one");
        assert_eq!(received(&client).0, "two");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let refused = datagrams.map(|datagram| Datagram { peer: nowhere, ..datagram });
        let error = SendBatch::new().send(server.as_fd(), refused.into_iter()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn what_never_fits_is_named_and_the_socket_goes_on_without_fragments() {
        let (server, client) = pair("127.0.0.1");
        never_fragment(server.as_fd()).unwrap();
        let huge = vec![b'x'; 70_000];
        let error =
            SendBatch::new().send(server.as_fd(), [datagram(&client, &huge, b"")].into_iter()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(send_all(&server, &[datagram(&client, b"next", b"")]), 1);
        assert_eq!(received(&client).0, "next");
    }

    /// Run in a network namespace whose loopback carries 1,300 bytes, this goes the long way: cut in vain, one by one, in
    /// fragments.
    #[test]
    fn long_datagrams_arrive_whatever_the_link_carries() {
        let (server, client) = pair("127.0.0.1");
        never_fragment(server.as_fd()).unwrap();
        let texts: Vec<String> = [1_390, 1_390, 1_390, 1_500, 5_000, 100].map(|len| "x".repeat(len)).into();
        let datagrams = texts.iter().map(|text| datagram(&client, text.as_bytes(), b""));
        let (mut batch, mut sent) = (SendBatch::new(), 0);
        while sent < texts.len() {
            sent += batch.send(server.as_fd(), datagrams.clone().skip(sent)).unwrap();
        }
        let mut buffer = [0; 8192];
        for text in &texts {
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(len, text.len());
        }
    }

    /// The next datagram and where it came from.
    fn received(client: &UdpSocket) -> (String, Option<IpAddr>) {
        let mut buffer = [0; 2048];
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        (String::from_utf8(buffer[..len].to_vec()).unwrap(), Some(from.ip()))
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
        Datagram { peer: to.local_addr().unwrap(), local_ip: None, parts: [head, body, b""] }
    }

    fn send_all(from: &UdpSocket, datagrams: &[Datagram<'_>]) -> usize {
        SendBatch::new().send(from.as_fd(), datagrams.iter().copied()).unwrap()
    }

    /// Waits until the socket holds something, and no longer than its read timeout.
    fn wait_readable(socket: &UdpSocket) {
        socket.peek_from(&mut [0; 1]).unwrap();
    }
}

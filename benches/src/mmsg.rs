//! The barest `sendmmsg(2)` and `recvmmsg(2)`: what a datagram costs the kernel, for the floor.
//!
//! Of its own, apart from the server's, so that the floor does not move when the server's batches change. The only file
//! of this crate with `unsafe`. Pointers are made anew for each call from buffers that the batch owns and holds
//! mutably, and are not used after it.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Datagrams of one system call.
pub const BATCH_LEN: usize = 64;

/// Datagrams of one length to send, one for each of up to [`BATCH_LEN`] destinations.
pub struct SendBatch {
    payloads: Box<[u8]>,
    payload_len: usize,
    names: Box<[libc::sockaddr_in]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl SendBatch {
    /// Datagrams of `payload_len` bytes for `destinations`, in their order.
    ///
    /// # Panics
    /// If there are no destinations, more than [`BATCH_LEN`], or no payload.
    #[must_use]
    pub fn new(payload_len: usize, destinations: &[SocketAddrV4]) -> Self {
        assert!((1..=BATCH_LEN).contains(&destinations.len()) && payload_len > 0);
        let names = destinations.iter().map(|to| libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
            sin_zero: [0; 8],
        });
        Self {
            payloads: vec![b'x'; payload_len * destinations.len()].into_boxed_slice(),
            payload_len,
            names: names.collect(),
            iovecs: iovecs(destinations.len()),
            headers: headers(destinations.len()),
        }
    }

    /// Sends the first `count` datagrams, or all if there are fewer; how many the kernel took.
    ///
    /// # Errors
    /// What the kernel says of the first of them; `WouldBlock` if it has no room.
    pub fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let payloads = self.payloads.chunks_exact_mut(self.payload_len);
        let parts = payloads.zip(&mut self.names).zip(&mut self.iovecs).zip(&mut self.headers);
        for (((payload, name), iovec), header) in parts {
            iovec.iov_base = payload.as_mut_ptr().cast();
            iovec.iov_len = self.payload_len;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = count.min(self.headers.len());
        // SAFETY: the first `count` headers exist, and the loop above pointed each of them at a payload, a name and an
        // iovec of its own, all owned by `self`, which is borrowed mutably for the call, with their true lengths.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Buffers for receiving up to [`BATCH_LEN`] datagrams; their senders are told by the kernel, as a server needs.
pub struct RecvBatch {
    slots: Box<[u8]>,
    names: Box<[libc::sockaddr_in]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl RecvBatch {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        let nobody = libc::sockaddr_in {
            sin_family: 0,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: 0 },
            sin_zero: [0; 8],
        };
        Self {
            slots: vec![0; SLOT_LEN * BATCH_LEN].into_boxed_slice(),
            names: vec![nobody; BATCH_LEN].into_boxed_slice(),
            iovecs: iovecs(BATCH_LEN),
            headers: headers(BATCH_LEN),
        }
    }

    /// Takes up to [`BATCH_LEN`] datagrams without waiting; 0 if there are none. What is longer than 2 KiB loses its end.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let slots = self.slots.chunks_exact_mut(SLOT_LEN);
        let parts = slots.zip(&mut self.names).zip(&mut self.iovecs).zip(&mut self.headers);
        for (((slot, name), iovec), header) in parts {
            iovec.iov_base = slot.as_mut_ptr().cast();
            iovec.iov_len = SLOT_LEN;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: there are `BATCH_LEN` headers, and the loop above pointed each of them at a slot, a name and an iovec
        // of its own, all owned by `self`, which is borrowed mutably for the call, with their true lengths. The null
        // timeout is allowed.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH_LEN as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                error => Err(error),
            },
        }
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Lets the kernel cut what is sent on `socket` into datagrams of `segment_len` bytes (`UDP_SEGMENT`, udp(7)).
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn segment(socket: BorrowedFd<'_>, segment_len: u16) -> io::Result<()> {
    let value = libc::c_int::from(segment_len);
    // SAFETY: the value pointer is to a live `c_int` and the length is that of a `c_int`, which the option takes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Room for one received datagram.
const SLOT_LEN: usize = 2048;

/// Iovecs of nothing.
fn iovecs(count: usize) -> Box<[libc::iovec]> {
    vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; count].into_boxed_slice()
}

/// Headers of zeroes.
fn headers(count: usize) -> Box<[libc::mmsghdr]> {
    (0..count)
        .map(|_| {
            // SAFETY: `mmsghdr` consists of integers and raw pointers, for all of which zero is a valid value.
            unsafe { std::mem::zeroed::<libc::mmsghdr>() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsFd as _;

    fn pair() -> (UdpSocket, UdpSocket, SocketAddrV4) {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let SocketAddr::V4(address) = to.local_addr().unwrap() else { panic!("IPv4 was asked for") };
        (from, to, address)
    }

    #[test]
    fn every_datagram_of_a_batch_arrives() {
        let (from, to, address) = pair();
        let mut send = SendBatch::new(800, &[address; 5]);
        assert_eq!(send.send(from.as_fd(), BATCH_LEN).unwrap(), 5);
        let mut recv = RecvBatch::new();
        assert_eq!(recv.recv(to.as_fd()).unwrap(), 5);
        assert!(recv.headers[..5].iter().all(|header| header.msg_len == 800));
        assert_eq!(recv.recv(to.as_fd()).unwrap(), 0);
    }

    #[test]
    fn a_segmented_send_arrives_as_many_datagrams() {
        let (from, to, address) = pair();
        segment(from.as_fd(), 800).unwrap();
        from.send_to(&[0; 2000], address).unwrap();
        let mut recv = RecvBatch::new();
        assert_eq!(recv.recv(to.as_fd()).unwrap(), 3);
        assert_eq!(
            recv.headers[..3].iter().map(|header| header.msg_len).collect::<Vec<_>>(),
            [800, 800, 400]
        );
    }
}

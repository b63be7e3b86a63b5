//! Opening the sockets of a listener: one for each shard, all on one address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{mmsg, steer, throttle};

/// The sockets of one listener.
#[derive(Debug)]
pub struct BoundListener {
    /// The address they share; its port is the one the kernel chose if 0 was asked for.
    pub address: SocketAddr,
    /// One for each shard, in the order of the shards, which is also the kernel's order in the reuse-port group.
    pub sockets: Vec<std::net::UdpSocket>,
    /// The smallest receive buffer the kernel granted, in bytes.
    pub recv_buffer: usize,
    /// Whether the kernel brings answers to the shards that wait for them; otherwise it spreads them blindly.
    pub steered: bool,
}

/// Binds `shards` sockets to `address`, ready for non-blocking use.
///
/// The first is bound alone, without SO_REUSEPORT, and joins the group afterwards. So an address that another process
/// holds is an error even if that process shares it, instead of half of the traffic going there; and a port that the
/// kernel chooses is truly free.
///
/// # Errors
/// What the system says of the address or of the socket's options.
pub fn bind(address: SocketAddr, shards: usize, buffer_len: usize) -> io::Result<BoundListener> {
    let first = open(address, buffer_len)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    complete(vec![first], shards, buffer_len, false)
}

/// Goes on with sockets that another process bound to one address, which it may do for fewer shards or for more: then others
/// are bound beside them, or the last are closed and what waits in them is lost.
///
/// # Errors
/// As [`bind`].
pub fn adopt(
    sockets: Vec<std::net::UdpSocket>,
    shards: usize,
    buffer_len: usize,
) -> io::Result<BoundListener> {
    let mut sockets: Vec<Socket> = sockets.into_iter().map(Socket::from).collect();
    // From the end, because the kernel fills the gap in a group with the last of it.
    while sockets.len() > shards {
        sockets.pop();
    }
    for socket in &sockets {
        socket.set_reuse_port(true)?;
        throttle::let_everything_in(&SockRef::from(socket))?;
        set_options(socket, local_address(socket)?, buffer_len)?;
    }
    complete(sockets, shards, buffer_len, true)
}

/// Binds sockets beside those that there are, at least one, until there are as many as shards. A group that was of others before
/// (`has_others`) has their program and perhaps still their sockets, so it is given a program even for one shard.
fn complete(
    mut sockets: Vec<Socket>,
    shards: usize,
    buffer_len: usize,
    has_others: bool,
) -> io::Result<BoundListener> {
    let address = local_address(&sockets[0])?;
    while sockets.len() < shards {
        let socket = open(address, buffer_len)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        sockets.push(socket);
    }
    let mut recv_buffer = usize::MAX;
    for socket in &sockets {
        // The kernel reports twice what was set, for its own book-keeping (socket(7)).
        recv_buffer = recv_buffer.min(socket.recv_buffer_size()? / 2);
    }
    let steered = (shards > 1 || has_others) && steer_answers(&sockets[0], address, shards);
    let sockets = sockets.into_iter().map(Into::into).collect();
    Ok(BoundListener { address, sockets, recv_buffer, steered })
}

/// Gives the reuse-port group of `socket` its program. One that the kernel does not take is no error: shards hand over what
/// is not theirs.
fn steer_answers(socket: &Socket, address: SocketAddr, shards: usize) -> bool {
    let mut program = steer::program(address, shards);
    let result = mmsg::attach_reuse_port_program(socket.as_fd(), &mut program);
    if let Err(error) = &result {
        tracing::info!(%address, %error, "the kernel does not steer answers to their shards; they are handed over");
    }
    result.is_ok()
}

/// A UDP socket with all its options but no address.
fn open(address: SocketAddr, buffer_len: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_options(&socket, address, buffer_len)?;
    Ok(socket)
}

/// Sets the options that may change while a socket is bound.
fn set_options(socket: &Socket, address: SocketAddr, buffer_len: usize) -> io::Result<()> {
    let ipv6 = address.is_ipv6();
    socket.set_nonblocking(true)?;
    if !ipv6 {
        mmsg::never_fragment(socket.as_fd())?;
    }
    // With the privilege (CAP_NET_ADMIN) the system's limit does not count; without, the kernel grants what it may.
    if sockopt::set_socket_recv_buffer_size_force(socket, buffer_len).is_err() {
        socket.set_recv_buffer_size(buffer_len)?;
    }
    if sockopt::set_socket_send_buffer_size_force(socket, buffer_len).is_err() {
        socket.set_send_buffer_size(buffer_len)?;
    }
    if address.ip().is_unspecified() {
        mmsg::tell_local_ip(socket.as_fd(), ipv6)?;
    }
    Ok(())
}

/// The address a socket is bound to.
fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER_LEN: usize = 64 * 1024;

    #[test]
    fn all_shards_share_the_port_that_the_kernel_chose() {
        for ip in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
            let listener = bind(SocketAddr::new(ip.parse().unwrap(), 0), 3, BUFFER_LEN).unwrap();
            assert_ne!(listener.address.port(), 0);
            assert_eq!(listener.sockets.len(), 3);
            for socket in &listener.sockets {
                assert_eq!(socket.local_addr().unwrap(), listener.address);
            }
            assert!(listener.recv_buffer >= 1024);
        }
    }

    #[test]
    fn traffic_of_many_peers_reaches_every_shard() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 2, BUFFER_LEN).unwrap();
        let mut reached = [false; 2];
        for _ in 0..64 {
            let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"x", listener.address).unwrap();
            // Loopback delivers before the call returns.
            for (shard, socket) in listener.sockets.iter().enumerate() {
                reached[shard] |= socket.recv_from(&mut [0; 1]).is_ok();
            }
        }
        assert_eq!(reached, [true; 2]);
    }

    #[test]
    fn sockets_go_on_with_fewer_shards_and_with_more() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), 3, BUFFER_LEN).unwrap();
        let address = bound.address;
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"before", address).unwrap();
        let waiting = bound.sockets.iter().map(|it| it.peek_from(&mut [0; 9]).is_ok()).collect::<Vec<_>>();
        let fewer = adopt(bound.sockets, 3, BUFFER_LEN).unwrap();
        assert_eq!((fewer.address, fewer.sockets.len(), fewer.steered), (address, 3, true));
        let mut received = fewer.sockets.iter().map(|it| it.recv_from(&mut [0; 9]).is_ok());
        assert!(waiting.into_iter().eq(&mut received), "what waits in a socket stays");
        drop(received);
        // Somebody else still has the sockets of the shards that there are no more.
        let kept: Vec<_> = fewer.sockets.iter().map(|it| it.try_clone().unwrap()).collect();
        let fewer = adopt(fewer.sockets, 1, BUFFER_LEN).unwrap();
        for _ in 0..16 {
            let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"x", address).unwrap();
            assert_eq!(fewer.sockets[0].recv_from(&mut [0; 9]).unwrap().0, 1, "nothing goes to those");
        }
        drop(kept);
        client.send_to(b"after", address).unwrap();
        assert_eq!(
            fewer.sockets[0].recv_from(&mut [0; 9]).unwrap().0,
            5,
            "there is no other socket any more"
        );
        let more = adopt(fewer.sockets, 2, BUFFER_LEN).unwrap();
        assert_eq!((more.address, more.sockets.len()), (address, 2));
    }

    #[test]
    fn an_address_that_others_share_is_refused() {
        let theirs = bind("127.0.0.1:0".parse().unwrap(), 2, BUFFER_LEN).unwrap();
        let error = bind(theirs.address, 2, BUFFER_LEN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}

//! Opening the listening sockets of a stream listener: one for each shard, all on one address.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use comsipl_core::Listen;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// The sockets of one stream listener.
#[derive(Debug)]
pub struct BoundStreams {
    /// The transport and the address they share; its port is the one the kernel chose if 0 was asked for.
    pub listen: Listen,
    /// One for each shard.
    pub sockets: Vec<TcpListener>,
}

/// Binds `shards` listening sockets to the address of `listen`, ready for non-blocking use. The kernel spreads connections
/// over them by the peer's address and port.
///
/// The first is bound and listens alone and joins the group afterwards, for the reasons that
/// [`bind`](crate::net::bind::bind) has.
///
/// # Errors
/// What the system says of the address or of the socket's options.
pub fn bind_streams(listen: Listen, shards: usize) -> io::Result<BoundStreams> {
    let Listen { transport, address } = listen;
    let first = open(address)?;
    first.bind(&address.into())?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    // A socket joins the group when it begins to listen, so this comes between.
    first.set_reuse_port(true)?;
    first.listen(BACKLOG)?;
    complete(Listen { transport, address }, vec![first], shards)
}

/// Goes on with sockets that another process bound and listens on, which it may do for fewer shards or for more: then others
/// are bound beside them, or the last are closed, and what waits in them is refused as soon as nobody else has them.
///
/// # Errors
/// As [`bind_streams`].
pub fn adopt_streams(listen: Listen, sockets: Vec<TcpListener>, shards: usize) -> io::Result<BoundStreams> {
    let mut sockets: Vec<Socket> = sockets.into_iter().map(Socket::from).collect();
    sockets.truncate(shards);
    for socket in &sockets {
        socket.set_nonblocking(true)?;
        socket.set_reuse_port(true)?;
        set_options(&SockRef::from(socket))?;
        // Listening again changes the backlog alone.
        socket.listen(BACKLOG)?;
    }
    complete(listen, sockets, shards)
}

/// Binds sockets beside those that there are until there are as many as shards.
fn complete(listen: Listen, mut sockets: Vec<Socket>, shards: usize) -> io::Result<BoundStreams> {
    let address = listen.address;
    while sockets.len() < shards {
        let socket = open(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        sockets.push(socket);
    }
    let sockets = sockets.into_iter().map(Into::into).collect();
    Ok(BoundStreams { listen, sockets })
}

/// A TCP socket with all its options but no address. Those it accepts inherit the options.
pub(super) fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart need not wait for connections that the kernel still remembers.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_options(&SockRef::from(&socket))?;
    Ok(socket)
}

/// What a connection needs, whoever opened it.
fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    // A turn's messages are written together, so there is nothing to wait for.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES),
    )?;
    // What is written and not acknowledged for so long will not be.
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// Most connections that wait for a shard to accept them; the system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A silent connection is probed after this time, so that one whose peer has vanished is known and closed (tcp(7)).
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Probes follow one another after this time.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// So many unanswered probes end the connection.
const PROBES: u32 = 4;
/// 64*T1 (RFC 3261 §17.1.2.2): a request that was not even acknowledged then has timed out.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(32);

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use comsipl_core::Transport;

    use super::*;

    #[test]
    fn all_shards_share_the_port_that_the_kernel_chose() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let bound = bind_streams(listen(address), 3).unwrap();
            assert_ne!(bound.listen.address.port(), 0);
            assert_eq!(bound.sockets.len(), 3);
            for socket in &bound.sockets {
                assert_eq!(socket.local_addr().unwrap(), bound.listen.address);
            }
        }
    }

    #[test]
    fn connections_reach_every_shard_and_inherit_the_options() {
        let bound = bind_streams(listen("127.0.0.1:0"), 2).unwrap();
        let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(bound.listen.address).unwrap()).collect();
        let mut reached = [0; 2];
        for (shard, socket) in bound.sockets.iter().enumerate() {
            while let Ok((accepted, _)) = socket.accept() {
                assert!(accepted.nodelay().unwrap());
                assert!(SockRef::from(&accepted).keepalive().unwrap());
                reached[shard] += 1;
            }
        }
        assert_eq!(reached.iter().sum::<usize>(), clients.len());
        assert!(reached.iter().all(|&count| count > 0), "{reached:?}");
    }

    #[test]
    fn connections_that_wait_are_adopted_with_their_sockets() {
        let bound = bind_streams(listen("127.0.0.1:0"), 2).unwrap();
        let clients: Vec<_> = (0..8).map(|_| TcpStream::connect(bound.listen.address).unwrap()).collect();
        let adopted = adopt_streams(bound.listen, bound.sockets, 3).unwrap();
        assert_eq!((adopted.listen, adopted.sockets.len()), (bound.listen, 3));
        let waiting = adopted.sockets.iter().flat_map(|it| std::iter::from_fn(|| it.accept().ok()));
        assert_eq!(waiting.count(), clients.len());
    }

    #[test]
    fn an_address_that_others_share_is_refused() {
        let theirs = bind_streams(listen("127.0.0.1:0"), 2).unwrap();
        let error = bind_streams(theirs.listen, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    fn listen(address: &str) -> Listen {
        Listen { transport: Transport::Tcp, address: address.parse().unwrap() }
    }
}

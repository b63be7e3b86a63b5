//! What a node begins with that another one had.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use comsipl_core::Listen;
use comsipl_core::auth::NonceEstate;
use rustix::net::{SocketType, sockopt};

use crate::net::stream::hand_over::Carried;

/// All that is left of a node that served before, but its files.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Its listening sockets.
    pub sockets: Vec<ListeningSocket>,
    /// The rest.
    pub given_up: GivenUp,
}

/// What a node gives up when it stops.
#[derive(Debug, Default)]
pub struct GivenUp {
    /// Its connections.
    pub connections: Vec<Carried>,
    /// Its nonces, if it challenged anybody.
    pub nonces: Option<NonceEstate>,
    /// It brought its files to disk just before it let go of them.
    pub files_synced: bool,
}

/// A listening socket of a shard.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The number of its listener, which flows name.
    pub listener: u8,
    /// Transport and address.
    pub listen: Listen,
    /// The shard that reads it.
    pub shard: usize,
    /// The socket.
    pub socket: OwnedFd,
}

impl ListeningSocket {
    /// The same socket by another descriptor.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, ..*self })
    }

    /// Whether the socket is what is said of it: of that kind, at that address, and listening.
    #[must_use]
    pub fn is_true(&self) -> bool {
        let address = rustix::net::getsockname(&self.socket).ok().and_then(|it| it.try_into().ok());
        address == Some(self.listen.address)
            && is_listening(&self.socket) == Some(self.listen.transport.is_stream())
    }
}

/// Whether a socket listens for streams or takes datagrams; `None`: it does neither.
#[must_use]
pub fn is_listening(socket: impl AsFd) -> Option<bool> {
    match sockopt::socket_type(socket.as_fd()) {
        Ok(SocketType::STREAM) if sockopt::socket_acceptconn(socket.as_fd()) == Ok(true) => Some(true),
        Ok(SocketType::DGRAM) => Some(false),
        _ => None,
    }
}

/// Takes the sockets for `listen` out of `sockets`, those of the first shard first. A wanted port 0 means any port: then it is
/// that of the first listener which has the same transport and IP address and is wanted by none of `others` by its port.
pub fn take_for(
    listen: Listen,
    others: &[Listen],
    sockets: &mut Vec<ListeningSocket>,
) -> Vec<ListeningSocket> {
    let fits = |it: &ListeningSocket| {
        it.listen.transport == listen.transport
            && it.listen.address.ip() == listen.address.ip()
            && !others.contains(&it.listen)
    };
    let wanted = if listen.address.port() == 0 {
        let listener = sockets.iter().filter(|it| fits(it)).map(|it| it.listener).min();
        sockets.iter().find(|it| fits(it) && Some(it.listener) == listener).map(|it| it.listen)
    } else {
        Some(listen)
    };
    let mut taken: Vec<_> = sockets.extract_if(.., |it| Some(it.listen) == wanted).collect();
    taken.sort_by_key(|it| it.shard);
    taken
}

/// Gives connections the numbers that their listeners have now: `earlier` has each listener's number and address as they were,
/// `now` the addresses in the order of today's numbers. Connections whose listener is gone are left out and so closed.
#[must_use]
pub fn renumber(connections: Vec<Carried>, earlier: &[(u8, Listen)], now: &[Listen]) -> Vec<Carried> {
    let number = |listener: u8| {
        let (_, listen) = earlier.iter().find(|(number, _)| *number == listener)?;
        now.iter().position(|it| it == listen).and_then(|at| u8::try_from(at).ok())
    };
    let renumbered = connections.into_iter().filter_map(|mut carried| {
        carried.flow.listener = number(carried.flow.listener)?;
        Some(carried)
    });
    renumbered.collect()
}

#[cfg(test)]
mod tests {
    use comsipl_core::Transport;

    use super::*;
    use crate::config::parse_listen;

    fn socket(listener: u8, listen: &str, shard: usize) -> ListeningSocket {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        ListeningSocket { listener, listen: parse_listen(listen).unwrap(), shard, socket }
    }

    #[test]
    fn sockets_are_found_by_transport_and_address() {
        let tcp = "tcp:127.0.0.1:5060";
        let udp = "udp:127.0.0.1:5060";
        let other = "udp:127.0.0.1:5070";
        let mut sockets: Vec<_> = [(0, udp, 1), (0, udp, 0), (1, tcp, 0), (2, other, 0), (2, other, 1)]
            .map(|(listener, listen, shard)| socket(listener, listen, shard))
            .into();
        let mut take = |text: &str, others: &[&str]| -> Vec<(String, usize)> {
            let others: Vec<_> = others.iter().map(|it| parse_listen(it).unwrap()).collect();
            let taken = take_for(parse_listen(text).unwrap(), &others, &mut sockets);
            taken.iter().map(|it| (it.listen.to_string(), it.shard)).collect()
        };
        assert_eq!(take("udp:127.0.0.1:5080", &[]), []);
        assert_eq!(take("udp:127.0.0.2:0", &[]), []);
        let both = |listen: &str| vec![(listen.to_owned(), 0), (listen.to_owned(), 1)];
        assert_eq!(take("udp:127.0.0.1:0", &[udp]), both(other), "the first is wanted by its port");
        assert_eq!(take(udp, &["udp:127.0.0.1:0"]), both(udp));
        assert_eq!(take("udp:127.0.0.1:0", &[]), []);
        assert_eq!(take("tcp:127.0.0.1:0", &[]), [(tcp.to_owned(), 0)]);
        assert!(sockets.is_empty());
    }

    #[test]
    fn a_socket_that_is_not_what_is_said_is_known() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = Listen::udp(udp.local_addr().unwrap());
        let mut socket = ListeningSocket { listener: 0, listen, shard: 0, socket: udp.into() };
        assert!(socket.is_true());
        socket.listen.transport = Transport::Tcp;
        assert!(!socket.is_true());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.listen.address = tcp.local_addr().unwrap();
        socket.socket = tcp.into();
        assert!(socket.is_true());
        socket.listen.address.set_port(1);
        assert!(!socket.is_true());
        let unbound: OwnedFd = std::net::TcpStream::connect(
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        )
        .unwrap()
        .into();
        assert_eq!(is_listening(&unbound), None);
    }
}

//! The service manager: it hears that we are ready, and keeps our listening sockets over a plain stop and start.
//!
//! Told by `sd_notify(3)` datagrams to `NOTIFY_SOCKET`; what is kept (`FDSTORE=1`, `FileDescriptorStoreMax=`) comes back by
//! `LISTEN_FDS` (sd_listen_fds(3)). A socket is known by the address it is bound to; its name in the store says which shard read
//! it, because the order of a reuse-port group is what the kernel steers answers by. Without a service manager nothing here
//! does anything.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use comsipl_core::{Listen, Transport};
use listenfd::ListenFd;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::process::Pid;

use super::courier::send_with;
use super::inherited::{ListeningSocket, is_listening};
use crate::deadline::Deadline;

/// The listening sockets that the service manager has kept. To be called before there are threads, because it takes the
/// variables out of the environment.
#[must_use]
pub fn kept_sockets() -> Vec<KeptSocket> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let socket: Option<OwnedFd> = match passed.take_udp_socket(index) {
            Ok(socket) => socket.map(UdpSocket::into),
            Err(_) => passed.take_tcp_listener(index).ok().flatten().map(TcpListener::into),
        };
        match socket {
            Some(socket) => sockets.push(KeptSocket { name, socket }),
            None => {
                tracing::warn!(name, "the service manager passed something that is no socket to listen on")
            }
        }
    }
    sockets
}

/// A socket that the service manager has kept.
#[derive(Debug)]
pub struct KeptSocket {
    name: String,
    socket: OwnedFd,
}

impl KeptSocket {
    /// Takes it as one of the `wanted` listeners of as many shards; `None`: nobody would read it, and it is closed and taken out of
    /// the store.
    #[must_use]
    pub fn listening(self, wanted: &[Listen], shards: usize) -> Option<ListeningSocket> {
        let Self { name, socket } = self;
        let (listen, shard) =
            parse_name(&name).map_or((None, 0), |(transport, shard)| (Some(transport), shard));
        let address = rustix::net::getsockname(&socket).ok().and_then(|it| it.try_into().ok());
        let found = address.and_then(|address| {
            let is_stream = is_listening(&socket)?;
            let fits = |it: &&Listen| it.transport.is_stream() == is_stream && is_same(it.address, address);
            // One address may be listened on for one transport over streams only, so the socket need not say which.
            let transport = listen.filter(|it| it.is_stream() == is_stream);
            let wanted = wanted.iter().filter(fits).map(|it| it.transport);
            let transport = transport
                .filter(|it| wanted.clone().any(|wanted| wanted == *it))
                .or_else(|| wanted.clone().next())?;
            let socket = socket.try_clone().ok()?;
            Some(ListeningSocket { listener: 0, listen: Listen { transport, address }, shard, socket })
        });
        let found = found.filter(|_| shard < shards);
        if found.is_none() {
            tracing::warn!(
                name,
                ?address,
                "a socket that the service manager has kept is listened on no more"
            );
            remove(&name, &socket);
        }
        found
    }
}

/// Has the service manager keep a socket no longer which nobody reads any more. Left in the store it would go on taking its part of
/// what comes.
pub fn forget(socket: &ListeningSocket) {
    remove(&name_of(socket), &socket.socket);
}

fn remove(name: &str, socket: &OwnedFd) {
    notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]);
    if is_listening(socket) == Some(true) {
        // At once, whenever the service manager comes to closing its own descriptor; whoever waits is refused and tries again.
        let _ = rustix::net::shutdown(socket, Shutdown::Both);
    }
}

/// Whether a wanted address is that of a socket; port 0 is any.
fn is_same(wanted: std::net::SocketAddr, bound: std::net::SocketAddr) -> bool {
    wanted == bound || (wanted.port() == 0 && wanted.ip() == bound.ip())
}

/// Says that we serve, and gives the service manager our listening sockets to keep, as far as it takes them in time.
pub fn tell_ready(sockets: &[ListeningSocket]) {
    let give_up = Instant::now() + FULL_SPAN;
    for socket in sockets.iter().take_while(|_| Instant::now() < give_up) {
        // Without polling it would drop what it takes for broken: a socket with an error that a datagram of ours met.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}", name_of(socket));
        notify(&text, &[socket.socket.as_fd()]);
    }
    notify("READY=1\nSTATUS=serving", &[]);
}

/// Says that another process is the service from now on.
pub fn tell_main_process(pid: Pid) {
    notify(&format!("MAINPID={pid}"), &[]);
}

/// Says that we are about to end.
pub fn tell_stopping() {
    notify("STOPPING=1", &[]);
}

fn notify(text: &str, descriptors: &[BorrowedFd<'_>]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|it| !it.is_empty()) else { return };
    let result = address_of(path.as_bytes()).and_then(|address| send(&address, text, descriptors));
    if let Err(error) = result {
        tracing::warn!(%error, "the service manager cannot be told: {}", text.replace('\n', " "));
    }
}

fn address_of(path: &[u8]) -> io::Result<SocketAddr> {
    match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    }
}

fn send(address: &SocketAddr, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(address)?;
    let deadline = Deadline::of(FULL_SPAN);
    loop {
        match send_with(&socket, text.as_bytes(), descriptors) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => deadline.wait(&socket, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The name of a socket in the store: its listener, without the colons that names may not have, and its shard.
fn name_of(socket: &ListeningSocket) -> String {
    format!("{}/{}", socket.listen, socket.shard).replace(':', "_")
}

/// The transport and the shard in a name.
fn parse_name(name: &str) -> Option<(Transport, usize)> {
    let (listen, shard) = name.rsplit_once('/')?;
    let (transport, _) = listen.split_once('_')?;
    Some((Transport::by_word(transport.as_bytes())?, shard.parse().ok()?))
}

/// How long a service manager may leave its socket full.
const FULL_SPAN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_listen;

    #[test]
    fn a_kept_socket_is_known_by_its_address_and_its_name() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listen = Listen { transport: Transport::Ws, address };
        let socket = ListeningSocket { listener: 3, listen, shard: 12, socket: listener.into() };
        let name = name_of(&socket);
        assert!(!name.contains(':') && name.len() <= 255);
        assert_eq!(parse_name(&name), Some((Transport::Ws, 12)));
        let kept =
            |name: &str| KeptSocket { name: name.to_owned(), socket: socket.socket.try_clone().unwrap() };
        let taken =
            |name: &str, wanted: &[Listen]| kept(name).listening(wanted, 13).map(|it| (it.listen, it.shard));
        let tcp = Listen { transport: Transport::Tcp, address };
        assert_eq!(taken(&name, &[listen]), Some((listen, 12)));
        assert_eq!(taken("of-a-socket-unit", &[Listen::udp(address), tcp]), Some((tcp, 0)));
        assert_eq!(taken(&name, &[tcp]), Some((tcp, 12)), "the configuration says what is spoken");
        assert_eq!(is_listening(&socket.socket), Some(true));
        assert!(kept(&name).listening(&[tcp], 12).is_none(), "there is no shard 12 any more");
        assert_eq!(is_listening(&socket.socket), None, "nobody waits there in vain");
        assert_eq!(taken(&name, &[Listen::udp(address), parse_listen("tcp:[::1]:1").unwrap()]), None);
    }
}

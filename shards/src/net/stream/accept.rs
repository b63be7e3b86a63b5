//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::{Flow, Listen, Mono};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::Streams;
use super::admission::NoRoom;
use super::connection::Phase;
use super::layer::{Layer, Side};

/// A listening socket of ours.
pub(super) struct Acceptor {
    /// Its listener's number.
    pub(super) listener: u8,
    listen: Listen,
    socket: TcpListener,
    /// Whether it may hold connections.
    pub(super) ready: bool,
    /// Until when nothing is accepted, because the system gives no descriptors.
    pub(super) paused_until: Option<Mono>,
    /// When that was said in the log last.
    warned: Option<Mono>,
}

impl Acceptor {
    pub(super) fn new(
        listener: u8,
        listen: Listen,
        socket: std::net::TcpListener,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut socket = TcpListener::from_std(socket);
        registry.register(&mut socket, Token(usize::from(listener)), Interest::READABLE)?;
        Ok(Self { listener, listen, socket, ready: false, paused_until: None, warned: None })
    }

    /// Whether there is something to accept at once.
    pub(super) fn has_work(&self) -> bool {
        self.ready && self.paused_until.is_none()
    }

    /// The next connection; `None`: none waits, or none can be had now.
    fn next(&mut self, now: Mono) -> Option<(TcpStream, SocketAddr)> {
        loop {
            match self.socket.accept() {
                Ok(accepted) => return Some(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready = false;
                    return None;
                }
                Err(error) if is_shortage(&error) => {
                    // The connection waits in the kernel, and asking again at once would give the same answer.
                    self.paused_until = Some(now + SHORTAGE_PAUSE);
                    if self.warned.is_none_or(|at| now.since(at) >= WARN_EVERY) {
                        self.warned = Some(now);
                        tracing::warn!(
                            %error, listen = %self.listen,
                            "connections cannot be accepted for now: raise the limit of open files (LimitNOFILE) or lower \
                             limits.connections_max"
                        );
                    }
                    return None;
                }
                // The peer has given up meanwhile, or the network says so (accept(2)): the next one.
                Err(error) => tracing::debug!(%error, "a connection broke before it was accepted"),
            }
        }
    }
}

impl Streams {
    /// Accepts from every listening socket that may hold connections, at most [`ACCEPTS_PER_TURN`] each.
    pub(super) fn accept(&mut self, now: Mono) {
        for index in 0..self.acceptors.len() {
            let acceptor = &mut self.acceptors[index];
            if acceptor.paused_until.is_some_and(|until| until <= now) {
                acceptor.paused_until = None;
            }
            if !acceptor.has_work() {
                continue;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                let acceptor = &mut self.acceptors[index];
                let Some((socket, peer)) = acceptor.next(now) else {
                    self.counters.accept_pauses.add(u64::from(acceptor.paused_until.is_some()));
                    break;
                };
                let (listener, listen) = (acceptor.listener, acceptor.listen);
                self.take_in(now, listener, listen, socket, peer);
            }
        }
    }

    /// Takes an accepted socket into the table, if it is admitted.
    fn take_in(&mut self, now: Mono, listener: u8, listen: Listen, socket: TcpStream, peer: SocketAddr) {
        let refused = if self.settings.access.admits(peer.ip()) {
            match self.admission.admit(peer.ip()) {
                Ok(()) => None,
                Err(NoRoom::Node) => Some(&self.counters.refused_connections_max),
                Err(NoRoom::Source) => Some(&self.counters.refused_per_source_max),
            }
        } else {
            tracing::debug!(%peer, "a connection from a source that is not heard");
            Some(&self.counters.refused_source)
        };
        if let Some(counter) = refused {
            counter.up();
            // A reset, so that nothing of it stays with us (tcp(7), SO_LINGER).
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            return;
        }
        let local_ip = (listen.address.ip().is_unspecified())
            .then(|| socket.local_addr().ok().map(|address| address.ip()))
            .flatten();
        let flow = Flow { transport: listen.transport, listener, local_ip, peer, connection: None };
        let out_max = self.limits.out_buffer;
        let Some(layer) =
            Layer::new(listen.transport, Side::Accepted, peer.ip(), None, &self.layers, out_max)
        else {
            tracing::error!(%listen, "a connection cannot be served");
            self.admission.leave(peer.ip());
            self.counters.refused_by_system.up();
            return;
        };
        match self.insert(now, socket, layer, flow, None, Phase::Open) {
            Ok(slot) => {
                self.counters.connections_accepted.up();
                // What came with the connection is not reported again.
                self.queue(slot);
            }
            Err(error) => {
                tracing::debug!(%error, %peer, "a connection was not taken in");
                self.admission.leave(peer.ip());
                self.counters.refused_by_system.up();
            }
        }
    }
}

/// Whether the system lacks what a connection needs (accept(2)).
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Most connections accepted of one listener in a turn.
const ACCEPTS_PER_TURN: usize = 64;
/// How long nothing is accepted after the system had no descriptor for it.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// How often that is said in the log.
const WARN_EVERY: Duration = Duration::from_secs(60);

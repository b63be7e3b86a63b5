//! Opening connections to peers that messages are for (RFC 3261 §18.1.1).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use comsipl_core::locate::host_of_request;
use comsipl_core::uri::Host;
use comsipl_core::{Flow, Mono, msg};
use hashbrown::HashMap;
use mio::net::TcpStream;

use super::bind;
use super::by_peer::Peer;
use super::connection::Phase;
use super::layer::{Layer, Side};
use super::{Streams, Why};
use crate::settings::Settings;

impl Streams {
    /// The connection for a message that names none: the one that there is to the peer, or a new one.
    pub(super) fn reach(&mut self, now: Mono, flow: &Flow, head: &[u8]) -> Option<u32> {
        let settings = Arc::clone(&self.settings);
        let host = if flow.transport.is_secure() { host_of(&settings, flow, head) } else { None };
        let peer = Peer { transport: flow.transport, address: flow.peer, host };
        self.by_peer.get(&peer).or_else(|| self.dial(now, flow, host))
    }

    /// The connection for an answer whose own is gone: one to where its request came from, at the port of its Via.
    ///
    /// > If that connection is no longer open, the server SHOULD open a connection to the IP address in the "received" parameter,
    /// > if present, using the port in the "sent-by" value, or the default port for that transport, if no port is specified.
    /// > (RFC 3261 §18.2.2)
    ///
    /// The port that `rport` has is that of the connection that is gone (RFC 3581 §4). A name in `sent-by` is not looked up where
    /// that fails: what a client gives up before it has its answer, it asks again. Browsers take no connections.
    #[cold]
    pub(super) fn reach_sent_by(&mut self, now: Mono, flow: &Flow, head: &[u8]) -> Option<u32> {
        if !head.starts_with(b"SIP/2.0 ") || flow.transport.is_web_socket() {
            return None;
        }
        let answer = msg::parse(head).ok()?;
        let via = answer.via();
        let host = match Host::parse(via.host()).ok()? {
            Host::Name(name) if flow.transport.is_secure() => std::str::from_utf8(name).ok(),
            _ => None,
        };
        let port = via.port().unwrap_or(flow.transport.default_port());
        let flow = Flow { peer: SocketAddr::new(flow.peer.ip(), port), connection: None, ..*flow };
        let peer = Peer { transport: flow.transport, address: flow.peer, host };
        self.by_peer.get(&peer).or_else(|| self.dial(now, &flow, host))
    }

    /// Begins to connect to the peer of `flow`, which has the name `host` if it was found by one; what is pushed meanwhile waits.
    /// `None`: that is not possible.
    fn dial(&mut self, now: Mono, flow: &Flow, host: Option<&str>) -> Option<u32> {
        let peer = flow.peer;
        let out_max = self.limits.out_buffer;
        let layer = Layer::new(flow.transport, Side::Dialled, peer.ip(), host, &self.layers, out_max)?;
        if !self.dials.may_begin(peer.ip()) || self.admission.admit(peer.ip()).is_err() {
            self.counters.dials_failed.up();
            return None;
        }
        let dialled = connect(peer, self.source_for(flow))
            .and_then(|socket| self.insert(now, socket, layer, *flow, host, Phase::Connecting));
        match dialled {
            Ok(slot) => {
                self.dials.begin(peer.ip());
                self.counters.connections_dialled.up();
                Some(slot)
            }
            Err(error) => {
                tracing::debug!(%error, %peer, "no connection could be begun");
                self.admission.leave(peer.ip());
                self.counters.dials_failed.up();
                None
            }
        }
    }

    /// The poll says something of a socket that was connecting.
    pub(super) fn opened_or_not(&mut self, now: Mono, slot: u32) {
        let Some(connection) = self.connection(slot) else { return };
        let result = connection.socket.take_error().and_then(|error| match error {
            Some(error) => Err(error),
            None => connection.socket.peer_addr().map(|_| ()),
        });
        match result {
            Ok(()) => {
                connection.phase = Phase::Open;
                let peer = connection.flow.peer.ip();
                self.dials.end(peer);
                self.mark_dirty(slot);
                self.queue(slot);
                self.arm(slot);
            }
            // An event from before the handshake's end.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => {
                tracing::debug!(%error, peer = %connection.flow.peer, ?now, "a peer does not accept a connection");
                self.close(slot, Why::NotOpened);
            }
        }
    }

    /// The address of ours that a connection is to come from: that of the flow, as far as it has one.
    fn source_for(&self, flow: &Flow) -> Option<SocketAddr> {
        let listener = self.listeners.get(usize::from(flow.listener)).map(|listen| listen.address.ip());
        let ip = flow.local_ip.or(listener)?;
        let fits = !ip.is_unspecified()
            && ip.is_ipv4() == flow.peer.is_ipv4()
            // Loopback addresses lead nowhere else.
            && (!ip.is_loopback() || flow.peer.ip().is_loopback());
        fits.then(|| SocketAddr::new(ip, 0))
    }
}

/// The name that the certificate of a request's next hop must be for; `None`: its address.
///
/// It is not stored with the flow, because the request has it: what does not go to the numeric address that it names goes to the
/// operator's outbound proxy, if there is one.
fn host_of<'a>(settings: &'a Settings, flow: &Flow, head: &'a [u8]) -> Option<&'a str> {
    let host = host_of_request(head);
    if host.as_ref().and_then(Host::ip) == Some(flow.peer.ip()) {
        return None;
    }
    if let Some(proxy) = &settings.outbound_proxy {
        return std::str::from_utf8(proxy.name()?.host).ok();
    }
    match host? {
        Host::Name(name) => std::str::from_utf8(name).ok(),
        _ => None,
    }
}

/// How many connections are being opened, in all and to each host. Hosts that do not answer keep theirs for seconds; those of one
/// host leave room for all others.
#[derive(Debug, Default)]
pub(super) struct Dials {
    all: usize,
    to: HashMap<IpAddr, usize, foldhash::quality::RandomState>,
}

impl Dials {
    /// Whether one more may be opened to `host`.
    fn may_begin(&self, host: IpAddr) -> bool {
        self.all < DIALS_MAX && self.to.get(&host).is_none_or(|&count| count < DIALS_PER_HOST_MAX)
    }

    fn begin(&mut self, host: IpAddr) {
        self.all += 1;
        *self.to.entry(host).or_default() += 1;
    }

    /// One to `host` is open, or will not be.
    pub(super) fn end(&mut self, host: IpAddr) {
        self.all -= 1;
        if let Some(count) = self.to.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.to.remove(&host);
            }
        }
    }
}

/// A socket that connects to `peer`, from `source` if that is given.
fn connect(peer: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = bind::open(peer)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Most connections that a shard is opening at a time; what needs one more is not sent.
const DIALS_MAX: usize = 1024;
/// Most of them to one host. One is enough for a proxy, as all that goes to the same port shares it; several have different ports.
const DIALS_PER_HOST_MAX: usize = 16;

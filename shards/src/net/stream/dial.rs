//! Opening connections to peers that messages are for (RFC 3261 §18.1.1).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use comsipl_core::auth::Source;
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

/// What a connection is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// A request of ours.
    Request,
    /// An answer whose own connection is gone.
    Answer,
}

/// Why no connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotDialled {
    /// We have no room for it now, which says nothing of the peer.
    NoRoom,
    /// None leads there.
    NoWay,
}

impl Streams {
    /// The connection for a message that names none: the one that there is to the peer, or a new one.
    pub(super) fn reach(&mut self, now: Mono, flow: &Flow, head: &[u8]) -> Result<u32, NotDialled> {
        let settings = Rc::clone(&self.settings);
        let host = if flow.transport.is_secure() { host_of(&settings, flow, head) } else { None };
        let peer = Peer { transport: flow.transport, address: flow.peer, host };
        match self.by_peer.get(&peer) {
            Some(slot) => Ok(slot),
            None => {
                let is_operators = leads_to_operator(&settings, flow, head);
                self.dial(now, flow, host, Errand::Request, is_operators)
            }
        }
    }

    /// The connection for an answer whose own is gone: one to where its request came from, at the port of its Via.
    ///
    /// > If that connection is no longer open, the server SHOULD open a connection to the IP address in the "received" parameter,
    /// > if present, using the port in the "sent-by" value, or the default port for that transport, if no port is specified.
    /// > (RFC 3261 §18.2.2)
    ///
    /// The port that `rport` has is that of the connection that is gone (RFC 3581 §4). A name in `sent-by` is not looked up where
    /// that fails: what a client gives up before it has its answer, it asks again. Browsers take no connections.
    ///
    /// Anybody can have us open these, to any port of his, so they have a bound of their own: see [`Dials`].
    #[cold]
    pub(super) fn reach_sent_by(&mut self, now: Mono, flow: &Flow, head: &[u8]) -> Result<u32, NotDialled> {
        if !head.starts_with(b"SIP/2.0 ") || flow.transport.is_web_socket() {
            return Err(NotDialled::NoWay);
        }
        let answer = msg::parse(head).map_err(|_| NotDialled::NoWay)?;
        let via = answer.via();
        let host = match Host::parse(via.host()).map_err(|_| NotDialled::NoWay)? {
            Host::Name(name) if flow.transport.is_secure() => std::str::from_utf8(name).ok(),
            _ => None,
        };
        let port = via.port().unwrap_or(flow.transport.default_port());
        let flow = Flow { peer: SocketAddr::new(flow.peer.ip(), port), connection: None, ..*flow };
        let peer = Peer { transport: flow.transport, address: flow.peer, host };
        match self.by_peer.get(&peer) {
            Some(slot) => Ok(slot),
            None => {
                let is_trusted = self.settings.access.trusts(flow.peer.ip());
                self.dial(now, &flow, host, Errand::Answer, is_trusted)
            }
        }
    }

    /// Begins to connect to the peer of `flow`, which has the name `host` if it was found by one; what is pushed meanwhile waits.
    /// `is_operators`: whether the operator has named the peer, so that it may have any number of the connections that are being
    /// opened.
    fn dial(
        &mut self,
        now: Mono,
        flow: &Flow,
        host: Option<&str>,
        errand: Errand,
        is_operators: bool,
    ) -> Result<u32, NotDialled> {
        let peer = flow.peer;
        let out_max = self.limits.out_buffer;
        let layer = Layer::new(flow.transport, Side::Dialled, peer.ip(), host, &self.layers, out_max)
            .ok_or(NotDialled::NoWay)?;
        let dials = self.dials.of(errand);
        if !dials.may_begin(peer.ip(), is_operators) || self.admission.admit(peer.ip()).is_err() {
            self.counters.dials_failed.up();
            return Err(NotDialled::NoRoom);
        }
        let dialled = connect(peer, self.source_for(flow))
            .and_then(|socket| self.insert(now, socket, layer, *flow, host, Phase::Connecting(errand)));
        match dialled {
            Ok(slot) => {
                self.dials.of(errand).begin(peer.ip());
                self.counters.connections_dialled.up();
                Ok(slot)
            }
            Err(error) => {
                tracing::debug!(%error, %peer, "no connection could be begun");
                self.admission.leave(peer.ip());
                self.counters.dials_failed.up();
                Err(if is_lack_of_ours(&error) { NotDialled::NoRoom } else { NotDialled::NoWay })
            }
        }
    }

    /// The poll says something of a socket that was connecting.
    pub(super) fn opened_or_not(&mut self, now: Mono, slot: u32) {
        let Some(connection) = self.connection(slot) else { return };
        let Phase::Connecting(errand) = connection.phase else { return };
        let result = connection.socket.take_error().and_then(|error| match error {
            Some(error) => Err(error),
            None => connection.socket.peer_addr().map(|_| ()),
        });
        match result {
            Ok(()) => {
                connection.phase = Phase::Open;
                let peer = connection.flow.peer.ip();
                self.dials.of(errand).end(peer);
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

/// Whether a request goes to a proxy that the operator has named: as the outbound proxy, or as one that is trusted.
fn leads_to_operator(settings: &Settings, flow: &Flow, head: &[u8]) -> bool {
    let ip = flow.peer.ip();
    settings.access.trusts(ip)
        || settings.outbound_proxy.as_ref().is_some_and(|proxy| match proxy.address() {
            Some((_, address)) => address.ip() == ip,
            // As above: one that has a name gets all that does not go to the address that it names.
            None => host_of_request(head).and_then(|host| host.ip()) != Some(ip),
        })
}

/// The connections that are being opened, by what for.
///
/// Whom requests go to was named in a SUBSCRIBE that was accepted. Answers are asked for by whoever sends anything at all, so these
/// must not be able to take the others' room.
#[derive(Debug)]
pub(super) struct Dials {
    requests: BeingOpened,
    answers: BeingOpened,
}

impl Default for Dials {
    fn default() -> Self {
        Self {
            requests: BeingOpened::new(DIALS_MAX, DIALS_PER_HOST_MAX),
            answers: BeingOpened::new(ANSWER_DIALS_MAX, ANSWER_DIALS_PER_HOST_MAX),
        }
    }
}

impl Dials {
    /// Those for such errands.
    pub(super) fn of(&mut self, errand: Errand) -> &mut BeingOpened {
        match errand {
            Errand::Request => &mut self.requests,
            Errand::Answer => &mut self.answers,
        }
    }
}

/// How many connections are being opened, in all and to each host. Hosts that do not answer keep theirs for seconds; those of one
/// host leave room for all others.
#[derive(Debug)]
pub(super) struct BeingOpened {
    all: usize,
    all_max: usize,
    /// By host, of which one with IPv6 has all addresses of its network.
    to: HashMap<Source, usize, foldhash::quality::RandomState>,
    per_host_max: usize,
}

impl BeingOpened {
    fn new(all_max: usize, per_host_max: usize) -> Self {
        Self { all: 0, all_max, to: HashMap::default(), per_host_max }
    }

    /// Whether one more may be opened to `host`; to one of the operator's as long as any may.
    fn may_begin(&self, host: IpAddr, is_operators: bool) -> bool {
        let has_room = || self.to.get(&Source::of(host)).is_none_or(|&count| count < self.per_host_max);
        self.all < self.all_max && (is_operators || has_room())
    }

    fn begin(&mut self, host: IpAddr) {
        self.all += 1;
        *self.to.entry(Source::of(host)).or_default() += 1;
    }

    /// One to `host` is open, or will not be.
    pub(super) fn end(&mut self, host: IpAddr) {
        self.all -= 1;
        let host = Source::of(host);
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

/// Whether a connection could not be begun because we lack something, a descriptor or a port, so that it may be possible later.
fn is_lack_of_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::AddrNotAvailable)
        || matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::EAGAIN | libc::ENOSPC)
        )
}

/// Most connections that a shard is opening at a time for requests; what needs one more is tried again later.
const DIALS_MAX: usize = 1024;
/// Most of them to one host. One is enough for a proxy, as all that goes to the same port shares it; several have different ports.
const DIALS_PER_HOST_MAX: usize = 16;
/// Most connections that a shard is opening at a time for answers; an answer that needs one more is not sent, and its request will
/// be sent again if it is still wanted.
const ANSWER_DIALS_MAX: usize = 64;
/// Most of them to one host: one is enough for a proxy, as all answers to the same port share it.
const ANSWER_DIALS_PER_HOST_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let mut being_opened = BeingOpened::new(5, 2);
        let [a, same, other, v4] =
            ["2001:db8::1", "2001:db8::f:2", "2001:db8:0:1::1", "192.0.2.1"].map(|ip| ip.parse().unwrap());
        being_opened.begin(a);
        being_opened.begin(same);
        assert_eq!(
            [a, same, other, v4].map(|ip| being_opened.may_begin(ip, false)),
            [false, false, true, true]
        );
        assert!(being_opened.may_begin(a, true));
        being_opened.end(a);
        assert!(being_opened.may_begin(same, false));
        for ip in [other, other, v4, v4] {
            being_opened.begin(ip);
        }
        assert!([a, other, v4].iter().all(|&ip| !being_opened.may_begin(ip, true)), "that is all");
        for ip in [same, other, other, v4, v4] {
            being_opened.end(ip);
        }
        assert!(being_opened.to.is_empty() && being_opened.all == 0);
    }
}

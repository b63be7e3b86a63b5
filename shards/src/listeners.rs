//! The node's own addresses, as phones are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use comsipl_core::dialog::NextHop;
use comsipl_core::{Flow, Listen, Profile, Transport, Uri, own_gruu};
use smallvec::SmallVec;

/// The addresses that the shards listen on.
#[derive(Debug)]
pub struct Listeners {
    advertise: Option<SentBy>,
    profile: Profile,
    each: Vec<Listen>,
    /// What phones are told of each that is bound to an address of its own.
    texts: Vec<SentBy>,
}

/// `host[:port]` for Via and Contact.
pub type SentBy = SmallVec<[u8; 64]>;

impl Listeners {
    /// The bound addresses, in the order of `Flow::listener`. `advertise` replaces them all, but for the ports of transports that
    /// have others than UDP and TCP.
    #[must_use]
    pub fn new(advertise: Option<String>, profile: Profile, each: Vec<Listen>) -> Self {
        let texts = each
            .iter()
            .map(|listen| {
                let mut text = SentBy::new();
                match advertise.as_deref() {
                    Some(advertise) if has_own_port(listen.transport) => {
                        text.extend_from_slice(host_of(advertise).as_bytes());
                        push_port(listen.address.port(), &mut text);
                    }
                    _ => push_address(listen.address, profile, &mut text),
                }
                text
            })
            .collect();
        let advertise = advertise.map(|text| SentBy::from_slice(text.as_bytes()));
        Self { advertise, profile, each, texts }
    }

    /// The flow as it can be used now: after a change of the configuration, or a listener less, a stored flow may name one
    /// that is not there or speaks another protocol family; then the first that fits its peer is taken.
    #[must_use]
    pub fn fit(&self, flow: Flow) -> Flow {
        let fits = |listener: &Listen| {
            listener.transport == flow.transport && listener.address.is_ipv4() == flow.peer.is_ipv4()
        };
        if self.each.get(usize::from(flow.listener)).is_some_and(fits) {
            return flow;
        }
        let listener = self.each.iter().position(fits).unwrap_or(0);
        Flow { listener: u8::try_from(listener).unwrap_or(0), local_ip: None, ..flow }
    }

    /// What our Contact says behind [`Self::sent_by`]: the transport, unless it is UDP, and in the `rfc` profile that it is a
    /// GRUU of our own; the value of `gr` follows, see [`comsipl_core::own_gruu`].
    ///
    /// > Notifiers MUST implement the Globally Routable User Agent URI (GRUU) extension […], and MUST use a GRUU as their
    /// > local target. (RFC 6665 §4.5.1)
    ///
    /// A self-made one has the address of its maker and "the "gr" URI parameter, with or without a value" (RFC 5627 §4.3).
    /// Over WebSockets the parameter is `ws`, encrypted or not (RFC 7118 §5.2.1 has `WSS` for Via alone). Installed ComSIPL
    /// clients know the bare form by heart.
    #[must_use]
    pub const fn contact_params(&self, transport: Transport) -> &'static [u8] {
        match (self.profile, transport) {
            (Profile::Rfc, Transport::Udp) => b";gr=",
            (Profile::Rfc, Transport::Tcp) => b";transport=tcp;gr=",
            (Profile::Rfc, Transport::Tls) => b";transport=tls;gr=",
            (Profile::Rfc, Transport::Ws | Transport::Wss) => b";transport=ws;gr=",
            (Profile::Comsipl, Transport::Udp) => b"",
            (Profile::Comsipl, Transport::Tcp) => b";transport=tcp",
            (Profile::Comsipl, Transport::Tls) => b";transport=tls",
            (Profile::Comsipl, Transport::Ws | Transport::Wss) => b";transport=ws",
        }
    }

    /// Our Contact URI towards `flow` for a presentity, as its parts behind the scheme; `address` is what [`Self::sent_by`] says.
    #[must_use]
    pub fn contact<'a>(&self, flow: &Flow, address: &'a [u8], aor: &'a [u8]) -> [&'a [u8]; 4] {
        let (user, domain) = match self.profile {
            Profile::Rfc => own_gruu(aor),
            Profile::Comsipl => (&b""[..], &b""[..]),
        };
        [user, address, self.contact_params(flow.transport), domain]
    }

    /// The domain of the presentity whose [Contact](Self::contact) `uri` is, if it is one: the user part is his. `flow` is the
    /// one of the request that came to it.
    #[must_use]
    pub fn domain_of_contact<'a>(&self, uri: &Uri<'a>, flow: &Flow) -> Option<&'a [u8]> {
        if uri.params.is_empty() {
            return None;
        }
        let domain = uri.params.value("gr")?;
        // The public GRUU of a phone has its instance there, also where its domain is our address.
        if domain.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"urn:")) {
            return None;
        }
        let is_ours = match &self.advertise {
            Some(advertise) => {
                // Whatever the port: each transport may have its own.
                let own = [b"sip:", &advertise[..]].concat();
                let own = Uri::parse(&own).ok().and_then(|own| own.host);
                uri.host.zip(own).is_some_and(|(host, own)| host.matches(&own))
            }
            None => uri.socket_addr().is_some_and(|address| self.is_ours(flow, address)),
        };
        is_ours.then_some(domain)
    }

    /// The flow by which a dialog's requests go to `hop`, when its SUBSCRIBE came on `source`.
    ///
    /// A transport that we do not listen by is not dialled by either, because its Via could not say where we are; the message
    /// goes by UDP then. Nothing is ever sent to ourselves: a URI that names us names a way to the watcher that only its own
    /// flow is.
    #[must_use]
    pub fn toward(&self, source: &Flow, hop: NextHop) -> Flow {
        let NextHop::To(transport, peer) = hop else { return *source };
        if self.is_ours(source, peer) {
            return *source;
        }
        if transport == source.transport && !transport.is_stream() {
            return Flow { peer, ..*source };
        }
        let find = |transport: Transport| {
            let fits =
                |listen: &Listen| listen.transport == transport && listen.address.is_ipv4() == peer.is_ipv4();
            self.each.iter().position(fits).map(|found| (transport, found))
        };
        // What is to be secured goes back by the way it came rather than in the clear by another.
        let instead = || if transport.is_secure() { None } else { find(Transport::Udp) };
        let Some((transport, listener)) = find(transport).or_else(instead) else {
            return *source;
        };
        let local_ip = source.local_ip.filter(|ip| ip.is_ipv4() == peer.is_ipv4());
        let listener = u8::try_from(listener).unwrap_or(0);
        // An address of its own is written as it is bound.
        let local_ip = local_ip.filter(|_| self.each[usize::from(listener)].address.ip().is_unspecified());
        Flow { transport, listener, local_ip, peer, connection: None }
    }

    /// Whether we listen at `address` ourselves.
    fn is_ours(&self, source: &Flow, address: SocketAddr) -> bool {
        self.each.iter().any(|listen| {
            let ip = listen.address.ip();
            listen.address.port() == address.port()
                && (ip == address.ip() || (ip.is_unspecified() && source.local_ip == Some(address.ip())))
        })
    }

    /// Our address on the side of `flow`: the one advertised, else the one the peer reached us on. It may be put together in
    /// `buffer`.
    #[must_use]
    pub fn sent_by<'a>(&'a self, flow: &Flow, buffer: &'a mut SentBy) -> &'a [u8] {
        let listener = usize::from(flow.listener).min(self.each.len().saturating_sub(1));
        if let Some(advertise) = &self.advertise {
            let own_port = has_own_port(flow.transport).then(|| self.texts.get(listener)).flatten();
            return own_port.unwrap_or(advertise);
        }
        match (flow.local_ip, self.each.get(listener)) {
            (None, Some(_)) => &self.texts[listener],
            (local_ip, address) => {
                let port = address.map_or(5060, |listen| listen.address.port());
                let ip = local_ip.unwrap_or(Ipv4Addr::LOCALHOST.into());
                buffer.clear();
                push_address(SocketAddr::new(ip, port), self.profile, buffer);
                buffer
            }
        }
    }
}

/// `host[:port]` as phones are told.
fn push_address(address: SocketAddr, profile: Profile, text: &mut SentBy) {
    push_ip(address.ip(), text);
    // The customer's document leaves the default port out; others get it written.
    if profile == Profile::Rfc || address.port() != 5060 {
        push_port(address.port(), text);
    }
}

fn push_port(port: u16, text: &mut SentBy) {
    text.push(b':');
    text.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
}

/// Whether a transport cannot share its port with UDP and plain TCP.
const fn has_own_port(transport: Transport) -> bool {
    !matches!(transport, Transport::Udp | Transport::Tcp)
}

/// The host of `host[:port]`.
fn host_of(advertised: &str) -> &str {
    match advertised.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => host,
        _ => advertised,
    }
}

/// An address as it stands in SIP, IPv6 in brackets.
fn push_ip(ip: IpAddr, text: &mut SentBy) {
    match ip {
        IpAddr::V4(ip) => {
            for (i, octet) in ip.octets().into_iter().enumerate() {
                if i > 0 {
                    text.push(b'.');
                }
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(ip) => {
            use std::io::Write as _;
            let mut buffer = [0u8; 48];
            let mut rest = &mut buffer[..];
            // 48 bytes hold every IPv6 address with its brackets.
            let _ = write!(rest, "[{ip}]");
            let left = rest.len();
            text.extend_from_slice(&buffer[..48 - left]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(listen: &str, profile: Profile, local: Option<&str>) -> String {
        let listeners = Listeners::new(None, profile, vec![Listen::udp(listen.parse().unwrap())]);
        let local_ip = local.map(|ip| ip.parse().unwrap());
        let flow = Flow::udp(0, local_ip, SocketAddr::from(([127, 0, 0, 1], 1)));
        String::from_utf8(listeners.sent_by(&flow, &mut SentBy::new()).to_vec()).unwrap()
    }

    #[test]
    fn an_advertised_host_has_the_ports_of_its_transports() {
        let each = ["udp:0.0.0.0:5060", "tls:0.0.0.0:5061", "wss:0.0.0.0:8443"];
        let each: Vec<_> = each.iter().map(|it| crate::config::parse_listen(it).unwrap()).collect();
        for (advertise, expected) in [
            ("sip.example", ["sip.example", "sip.example:5061", "sip.example:8443"]),
            ("sip.example:5070", ["sip.example:5070", "sip.example:5061", "sip.example:8443"]),
            ("[2001:db8::1]", ["[2001:db8::1]", "[2001:db8::1]:5061", "[2001:db8::1]:8443"]),
            ("[2001:db8::1]:5070", ["[2001:db8::1]:5070", "[2001:db8::1]:5061", "[2001:db8::1]:8443"]),
        ] {
            let listeners = Listeners::new(Some(advertise.to_owned()), Profile::Rfc, each.clone());
            for (index, listen) in (0..).zip(&each) {
                let local_ip = Some(IpAddr::from([192, 0, 2, 7]));
                let flow = Flow { transport: listen.transport, ..Flow::udp(index, local_ip, listen.address) };
                let mut buffer = SentBy::new();
                let told = listeners.sent_by(&flow, &mut buffer);
                assert_eq!(std::str::from_utf8(told).unwrap(), expected[usize::from(index)]);
            }
        }
    }

    #[test]
    fn phones_are_told_the_address_they_reached() {
        assert_eq!(text("10.0.0.27:5060", Profile::Comsipl, None), "10.0.0.27");
        assert_eq!(text("10.0.0.27:5060", Profile::Rfc, None), "10.0.0.27:5060");
        assert_eq!(text("[::]:5062", Profile::Rfc, Some("2001:db8::1")), "[2001:db8::1]:5062");
        assert_eq!(text("0.0.0.0:5062", Profile::Comsipl, Some("192.0.2.7")), "192.0.2.7:5062");
    }
}

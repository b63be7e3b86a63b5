//! Where requests within a dialog go (RFC 3261 §12).

use std::net::SocketAddr;

use crate::flow::{Flow, Transport};
use crate::header::Via;
use crate::msg::Message;
use crate::uri::{Host, Scheme, Uri};

/// Appends the route set that a SUBSCRIBE makes, as `<uri>,<uri>`.
///
/// > The route set MUST be set to the list of URIs in the Record-Route header field from the request, taken in order and
/// > preserving all URI parameters. (RFC 3261 §12.1.1)
pub fn push_route_set(message: &Message<'_>, out: &mut Vec<u8>) {
    for route in message.record_routes().flatten() {
        if !out.is_empty() {
            out.push(b',');
        }
        out.push(b'<');
        out.extend_from_slice(route.uri());
        out.push(b'>');
    }
}

/// The URI of the first value of a stored route set (`<uri>,<uri>`).
#[must_use]
pub fn first_route(route_set: &[u8]) -> Option<&[u8]> {
    let inner = route_set.strip_prefix(b"<")?;
    let end = inner.iter().position(|&b| b == b'>')?;
    Some(&inner[..end])
}

/// Where the requests of a dialog go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The way the SUBSCRIBE came: over its connection, or to its source.
    Back,
    /// To the operator's outbound proxy.
    OutboundProxy,
    /// To this address.
    To(Transport, SocketAddr),
}

/// What a URI says of the way to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address, if it is given in numbers.
    pub address: Option<SocketAddr>,
    /// The transport that it asks for, if it asks for one.
    pub transport: Option<Transport>,
    /// It names a flow and not a place: nothing can be sent to its host.
    pub names_flow: bool,
}

impl Target {
    /// What `uri` says.
    #[must_use]
    pub fn of(uri: &Uri<'_>) -> Self {
        let address = uri.socket_addr();
        let secure = uri.scheme == Scheme::Sips;
        // Most phones say nothing else.
        let plain = uri.params.is_empty() || uri.params.raw() == b";transport=udp";
        if plain && address.is_some() {
            let transport = secure.then_some(Transport::Tls);
            return Self { address, transport, names_flow: false };
        }
        let (mut asked, mut names_flow) = (None, is_invalid(uri));
        for param in uri.params {
            match param.name.len() {
                2 => names_flow |= FLOW_PARAMS.iter().any(|name| param.name.eq_ignore_ascii_case(name)),
                9 if asked.is_none() && param.name.eq_ignore_ascii_case(b"transport") => {
                    asked = param.value.and_then(Transport::by_word);
                }
                _ => {}
            }
        }
        let transport = match asked {
            // RFC 3261 §26.2.2: with `sips` each hop is secured, whatever `transport` says of what lies below.
            Some(Transport::Ws | Transport::Wss) if secure => Some(Transport::Wss),
            _ if secure => Some(Transport::Tls),
            asked => asked,
        };
        let address = match transport {
            Some(transport) if uri.port.is_none() => {
                address.map(|address| SocketAddr::new(address.ip(), transport.default_port()))
            }
            _ => address,
        };
        Self { address, transport, names_flow }
    }
}

/// Parameters of a Contact URI that names the flow on which its request came:
///   * `ob` "will cause all subsequent requests in the dialog to arrive over the flow instantiated by the dialog-forming
///     request" (RFC 5626 §4.3);
///   * `gr`: a GRUU names a device, which its registrar knows how to reach (RFC 5627 §3.1).
const FLOW_PARAMS: [&[u8]; 2] = [b"ob", b"gr"];

/// Whether the host is a name in `.invalid`, which leads nowhere (RFC 2606 §2); a browser has no other (RFC 7118 §8.1).
fn is_invalid(uri: &Uri<'_>) -> bool {
    let Some(Host::Name(name)) = uri.host else { return false };
    let name = name.strip_suffix(b".").unwrap_or(name);
    name.len() > INVALID.len() && name[name.len() - INVALID.len()..].eq_ignore_ascii_case(INVALID)
}

/// The domain in which no name exists (RFC 2606 §2).
const INVALID: &[u8] = b".invalid";

/// Where the NOTIFYs of a dialog go whose SUBSCRIBE came on `source`.
///
/// A route set decides (RFC 3261 §12.2.1.1), else the remote target (the Contact), else the source:
///   * over a connection the phone or proxy is reached by that connection, unless the first route is somewhere else;
///   * the operator's outbound proxy, if there is one, comes before all but that;
///   * the source stands in where route and Contact name no reachable numeric address, and for a phone behind a NAT: one
///     whose Via shows that it does not know its public address and whose Contact repeats that private one (RFC 3581 §1
///     describes the case).
#[must_use]
pub fn next_hop(
    route_set: &[u8],
    remote_target: Option<Target>,
    via: &Via<'_>,
    source: &Flow,
    has_outbound_proxy: bool,
) -> NextHop {
    let route = first_route(route_set).map(|route| Uri::parse(route).ok().map(|uri| Target::of(&uri)));
    if source.transport.is_stream() {
        let Some(Some(Target { address: Some(address), transport, .. })) = route else {
            return NextHop::Back;
        };
        // RFC 5923 §5 has proxies say by `alias` that their connection may be used in both directions; one that comes from
        // the very host that is to be reached is used in any case.
        let leads_there = address.ip() == source.peer.ip()
            && transport.is_none_or(|transport| {
                transport == source.transport
                    || (transport.is_web_socket() && source.transport.is_web_socket())
            });
        if leads_there {
            return NextHop::Back;
        }
        if !has_outbound_proxy {
            return NextHop::To(transport.unwrap_or_default(), address);
        }
    }
    if has_outbound_proxy {
        return NextHop::OutboundProxy;
    }
    if let Some(route) = route {
        return match route {
            Some(Target { address: Some(address), transport, .. }) => to(transport, address),
            _ => NextHop::Back,
        };
    }
    let Some(Target { address: Some(contact), transport, names_flow: false }) = remote_target else {
        return NextHop::Back;
    };
    if contact.ip().is_unspecified() || contact.is_ipv4() != source.peer.is_ipv4() {
        return NextHop::Back;
    }
    match sent_by(via) {
        Some(sent_by) if sent_by != source.peer && sent_by == contact => NextHop::Back,
        _ => to(transport, contact),
    }
}

/// Nothing can be dialled by WebSocket: browsers take no connections.
fn to(transport: Option<Transport>, address: SocketAddr) -> NextHop {
    match transport {
        Some(Transport::Ws | Transport::Wss) => NextHop::Back,
        transport => NextHop::To(transport.unwrap_or_default(), address),
    }
}

/// The address in a Via, if it is given in numbers.
fn sent_by(via: &Via<'_>) -> Option<SocketAddr> {
    let ip = Host::parse(via.host()).ok()?.ip()?;
    Some(SocketAddr::new(ip, via.port().unwrap_or(5060)))
}

/// The address a URI names in numbers; names are not looked up.
#[must_use]
pub fn numeric(uri: &[u8]) -> Option<SocketAddr> {
    Uri::parse(uri).ok()?.socket_addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn over(transport: Transport, peer: &str) -> Flow {
        let connection = transport.is_stream().then(|| crate::ConnectionId::new(0, 1, 2));
        Flow { transport, connection, ..Flow::udp(0, None, address(peer)) }
    }

    /// The next hop of a SUBSCRIBE with this Contact and this Via that came on `source`.
    fn hop(source: &Flow, route_set: &str, contact: &str, via: &str, has_proxy: bool) -> NextHop {
        let message = format!(
            "SUBSCRIBE sip:a@h SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bKa\r\nFrom: <sip:b@h>;tag=f\r\n\
             To: <sip:a@h>\r\nCall-ID: c\r\nCSeq: 1 SUBSCRIBE\r\n\r\n"
        );
        let message = msg::parse(message.as_bytes()).unwrap();
        let target = Uri::parse(contact.as_bytes()).ok().map(|uri| Target::of(&uri));
        next_hop(route_set.as_bytes(), target, message.via(), source, has_proxy)
    }

    fn by_udp(contact: &str) -> NextHop {
        hop(&over(Transport::Udp, "192.0.2.7:5060"), "", contact, "192.0.2.7:5060", false)
    }

    #[test]
    fn the_contact_says_where_and_by_what() {
        let to = |transport, to| NextHop::To(transport, address(to));
        assert_eq!(by_udp("sip:b@192.0.2.7"), to(Transport::Udp, "192.0.2.7:5060"));
        assert_eq!(by_udp("sip:b@192.0.2.9:5070;transport=UDP"), to(Transport::Udp, "192.0.2.9:5070"));
        assert_eq!(by_udp("sip:b@192.0.2.7:5080;transport=tcp"), to(Transport::Tcp, "192.0.2.7:5080"));
        assert_eq!(by_udp("sip:b@192.0.2.7;transport=tls"), to(Transport::Tls, "192.0.2.7:5061"));
        assert_eq!(by_udp("sips:b@192.0.2.7"), to(Transport::Tls, "192.0.2.7:5061"));
        assert_eq!(by_udp("sips:b@192.0.2.7:5071;transport=tcp"), to(Transport::Tls, "192.0.2.7:5071"));
    }

    #[test]
    fn a_contact_that_names_no_place_is_reached_by_its_flow() {
        for contact in [
            "sip:b@phone.example.com",
            "sip:b@0.0.0.0",
            "sip:b@[2001:db8::1]",
            "sip:b@192.0.2.9;ob",
            "sip:b@df7jal23ls0d.invalid;transport=ws",
            "sip:b@DF7.INVALID",
            "sip:b@192.0.2.9;transport=ws",
            "sip:bob@example.com;gr=urn:uuid:f81d4fae",
            "sip:b@192.0.2.9;gr",
            "tel:+12015550123",
        ] {
            assert_eq!(by_udp(contact), NextHop::Back, "{contact}");
        }
    }

    #[test]
    fn a_phone_behind_a_nat_is_reached_at_its_source() {
        let source = over(Transport::Udp, "203.0.113.50:40404");
        for contact in ["sip:b@10.0.0.5:5060", "sip:b@10.0.0.5:5060;transport=tcp"] {
            assert_eq!(hop(&source, "", contact, "10.0.0.5:5060", false), NextHop::Back);
        }
        let elsewhere = hop(&source, "", "sip:b@192.0.2.9:5062", "10.0.0.5:5060", false);
        assert_eq!(elsewhere, NextHop::To(Transport::Udp, address("192.0.2.9:5062")));
    }

    #[test]
    fn the_connection_of_the_subscribe_leads_to_its_phone() {
        for transport in [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss] {
            let source = over(transport, "192.0.2.7:49152");
            for contact in ["sip:b@192.0.2.7:5060;transport=tcp", "sip:b@192.0.2.9", "sip:b@x.invalid"] {
                assert_eq!(hop(&source, "", contact, "192.0.2.7:5060", false), NextHop::Back);
                assert_eq!(hop(&source, "", contact, "192.0.2.7:5060", true), NextHop::Back);
            }
        }
    }

    #[test]
    fn the_first_route_decides_unless_the_connection_leads_to_it() {
        let source = over(Transport::Tcp, "192.0.2.200:49152");
        let by = |routes: &str| hop(&source, routes, "sip:b@192.0.2.7", "192.0.2.200:5060", false);
        assert_eq!(by("<sip:192.0.2.200:5060;transport=tcp;lr>"), NextHop::Back);
        assert_eq!(by("<sip:192.0.2.200;lr>"), NextHop::Back);
        assert_eq!(by("<sip:proxy.example.com;lr>"), NextHop::Back);
        let elsewhere = NextHop::To(Transport::Tcp, address("192.0.2.201:5060"));
        assert_eq!(by("<sip:192.0.2.201;transport=tcp;lr>,<sip:192.0.2.200;lr>"), elsewhere);
        let by_datagrams = NextHop::To(Transport::Udp, address("192.0.2.200:5060"));
        assert_eq!(by("<sip:192.0.2.200;transport=udp;lr>"), by_datagrams);
        let source = over(Transport::Udp, "192.0.2.200:5060");
        let by = |routes: &str| hop(&source, routes, "sip:b@192.0.2.7", "192.0.2.200:5060", false);
        let dialled = NextHop::To(Transport::Tcp, address("192.0.2.200:5062"));
        assert_eq!(by("<sip:192.0.2.200:5062;transport=tcp;lr>"), dialled);
        assert_eq!(by("<sip:proxy.example.com;lr>"), NextHop::Back);
    }

    #[test]
    fn the_outbound_proxy_comes_before_route_and_contact() {
        let there = NextHop::OutboundProxy;
        let source = over(Transport::Udp, "192.0.2.7:5060");
        assert_eq!(hop(&source, "", "sip:b@192.0.2.7", "192.0.2.7", true), there);
        assert_eq!(hop(&source, "<sip:192.0.2.200;lr>", "sip:b@192.0.2.7", "192.0.2.7", true), there);
        let source = over(Transport::Tcp, "192.0.2.7:49152");
        assert_eq!(hop(&source, "<sip:192.0.2.200;lr>", "sip:b@192.0.2.7", "192.0.2.7", true), there);
    }
}

//! Names in place of addresses: what DNS must be asked to find a next hop (RFC 3263 §4).

use crate::dialog::{Target, first_route};
use crate::flow::Transport;
use crate::uri::{Host, Scheme, Uri};

/// The name that must be looked up to know where the NOTIFYs of a dialog go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopName<'a> {
    /// The TARGET (RFC 3263 §4), as it is written.
    pub host: &'a [u8],
    /// The port, if one is written.
    pub port: Option<u16>,
    /// The transport, if one is written; of `sips` always TLS then.
    pub transport: Option<Transport>,
    /// The URI is `sips`.
    pub secure: bool,
}

impl<'a> HopName<'a> {
    /// The name of the first route or, without a route set, of the remote target; `None`: it names no place that could be
    /// looked up. Only of use where [`next_hop`](crate::dialog::next_hop) knows no address.
    #[must_use]
    pub fn of(route_set: &'a [u8], remote_target: Option<&Uri<'a>>) -> Option<Self> {
        match first_route(route_set) {
            Some(route) => Self::of_uri(&Uri::parse(route).ok()?),
            None => Self::of_uri(remote_target?),
        }
    }

    fn of_uri(uri: &Uri<'a>) -> Option<Self> {
        let target = Target::of(uri);
        // Nothing can be dialled by WebSocket, and what names a flow is reached by that alone.
        if target.names_flow
            || target.transport.is_some_and(Transport::is_web_socket)
            || uri.maddr().is_some()
        {
            return None;
        }
        let Some(Host::Name(host)) = uri.host else { return None };
        let secure = uri.scheme == Scheme::Sips;
        let transport = target.transport.filter(|_| !secure || uri.transport().is_some());
        Some(Self { host: host.strip_suffix(b".").unwrap_or(host), port: uri.port, transport, secure })
    }
}

/// The host by which the head of a request says where the request goes: that of the topmost Route, else that of the
/// Request-URI; `None`: nothing that could be told. Only of use for requests of ours, whose form is known: a [Route line behind a
/// strict router](ROUTE_BEHIND_STRICT) leads on from there.
///
/// RFC 5922 §7.3: it is this host, and none that DNS has led to, that the certificate of the next hop must be for.
#[must_use]
pub fn host_of_request(head: &[u8]) -> Option<Host<'_>> {
    let route = memchr::memmem::find(head, b"\r\nRoute: <").map(|at| &head[at + b"\r\nRoute: <".len()..]);
    let (rest, end) = match route {
        Some(rest) => (rest, b'>'),
        None => (&head[memchr::memchr(b' ', head)? + 1..], b' '),
    };
    match Uri::parse(&rest[..memchr::memchr(end, rest)?]).ok()?.host? {
        Host::Name(host) => Some(Host::Name(host.strip_suffix(b".").unwrap_or(host))),
        address => Some(address),
    }
}

/// How the Route line of a request begins that goes to a strict router, which the Request-URI names (RFC 3261 §12.2.1.1): without the
/// space that others have. To whoever receives it that is the same (§7.3.1). The URIs do not tell whose line it is: behind a strict
/// router there may be a loose one, and a Contact may have any parameter.
pub(crate) const ROUTE_BEHIND_STRICT: &[u8] = b"Route:";

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(
        route_set: &'a str,
        contact: &'a str,
    ) -> Option<(&'a str, Option<u16>, Option<Transport>, bool)> {
        let contact = Uri::parse(contact.as_bytes()).unwrap();
        let name = HopName::of(route_set.as_bytes(), Some(&contact))?;
        Some((std::str::from_utf8(name.host).unwrap(), name.port, name.transport, name.secure))
    }

    #[test]
    fn the_uri_says_what_to_ask_for() {
        let name = "phone.example.com";
        assert_eq!(of("", "sip:b@phone.example.com"), Some((name, None, None, false)));
        assert_eq!(of("", "sip:b@phone.example.com.:5070"), Some((name, Some(5070), None, false)));
        let by_tcp = Some((name, None, Some(Transport::Tcp), false));
        assert_eq!(of("", "sip:b@phone.example.com;transport=tcp"), by_tcp);
        assert_eq!(of("", "sips:b@phone.example.com"), Some((name, None, None, true)));
        let by_tls = Some((name, None, Some(Transport::Tls), true));
        assert_eq!(of("", "sips:b@phone.example.com;transport=tcp"), by_tls);
    }

    #[test]
    fn the_first_route_comes_before_the_contact() {
        let routes = "<sip:p1.example.com;lr>,<sip:p2.example.com;lr>";
        assert_eq!(of(routes, "sip:b@phone.example.com"), Some(("p1.example.com", None, None, false)));
        assert_eq!(of("<sip:192.0.2.200;lr>", "sip:b@phone.example.com"), None);
    }

    #[test]
    fn a_request_says_whose_certificate_is_wanted() {
        let of = |uri: &str, more: &str| {
            let head =
                format!("NOTIFY {uri} SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\n{more}l: 0\r\n\r\n");
            match host_of_request(head.as_bytes()) {
                Some(Host::Name(name)) => Some(String::from_utf8(name.to_vec()).unwrap()),
                other => other.and_then(|host| host.ip()).map(|ip| ip.to_string()),
            }
        };
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(of("sip:b@Phone.example.com:5061;transport=tls", ""), name("Phone.example.com"));
        assert_eq!(of("sips:b@phone.example.com.", ""), name("phone.example.com"));
        assert_eq!(of("sip:b@192.0.2.1;transport=tls", ""), name("192.0.2.1"));
        let routes = "Route: <sip:p1.example.com;transport=tls;lr>,<sip:p2.example.com;lr>\r\n";
        assert_eq!(of("sip:b@phone.example.com", routes), name("p1.example.com"));
        assert_eq!(of("sip:b@phone.example.com", "Route: <sips:[2001:db8::1];lr>\r\n"), name("2001:db8::1"));
        for nothing in ["", "NOTIFY", "NOTIFY sip:b@phone.example.com", "NOTIFY ? SIP/2.0\r\n"] {
            assert_eq!(host_of_request(nothing.as_bytes()), None, "{nothing:?}");
        }
    }

    #[test]
    fn what_names_no_place_is_not_looked_up() {
        for contact in [
            "sip:b@192.0.2.1",
            "sip:b@x.invalid",
            "sip:b@phone.example.com;ob",
            "sip:bob@example.com;gr=urn:uuid:f81d4fae",
            "sip:b@phone.example.com;transport=ws",
            "sip:b@phone.example.com;maddr=192.0.2.1",
            "tel:+12015550123",
        ] {
            assert_eq!(of("", contact), None, "{contact}");
        }
    }
}

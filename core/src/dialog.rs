//! Where requests within a dialog go (RFC 3261 §12).

use std::net::SocketAddr;

use crate::header::Via;
use crate::msg::Message;
use crate::uri::{Host, Uri};

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

/// The address to which NOTIFYs of a dialog are sent.
///
/// A route set decides (RFC 3261 §12.2.1.1), else the remote target (the Contact). The source of the SUBSCRIBE stands in
/// where these name no reachable numeric address, and for a phone behind a NAT: one whose Via shows that it does not know
/// its public address and whose Contact repeats that private one (RFC 3581 §1 describes the case). Of the remote target it
/// takes what [`numeric`] gives.
#[must_use]
pub fn next_hop(
    route_set: &[u8],
    remote_target: Option<SocketAddr>,
    via: &Via<'_>,
    source: SocketAddr,
) -> SocketAddr {
    if let Some(route) = first_route(route_set) {
        return numeric(route).unwrap_or(source);
    }
    let Some(contact) = remote_target else { return source };
    if contact.ip().is_unspecified() || contact.is_ipv4() != source.is_ipv4() {
        return source;
    }
    match sent_by(via) {
        Some(sent_by) if sent_by != source && sent_by == contact => source,
        _ => contact,
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

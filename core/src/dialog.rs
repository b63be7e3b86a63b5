//! Where requests within a dialog go (RFC 3261 §12).

use std::net::SocketAddr;

use crate::header::Via;
use crate::uri::Uri;

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
/// its public address and whose Contact repeats that private one (RFC 3581 §1 describes the case).
#[must_use]
pub fn next_hop(route_set: &[u8], remote_target: &[u8], via: &Via<'_>, source: SocketAddr) -> SocketAddr {
    if let Some(route) = first_route(route_set) {
        return numeric(route).unwrap_or(source);
    }
    let Some(contact) = numeric(remote_target) else { return source };
    if contact.ip().is_unspecified() || contact.is_ipv4() != source.is_ipv4() {
        return source;
    }
    match via.sent_by_addr() {
        Some(sent_by) if sent_by != source && sent_by == contact => source,
        _ => contact,
    }
}

/// The address a URI names in numbers.
fn numeric(uri: &[u8]) -> Option<SocketAddr> {
    Uri::parse(uri).ok()?.socket_addr()
}

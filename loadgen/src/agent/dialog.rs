//! The remembered part of a dialog.

use std::net::SocketAddr;

/// The other side of a dialog (RFC 3261 §12).
#[derive(Debug)]
pub struct Dialog {
    /// Tag of the other side.
    pub remote_tag: Box<[u8]>,
    /// The remote target.
    pub target: Vec<u8>,
    /// Complete Route header lines.
    pub routes: Box<[u8]>,
    /// Where requests go; none for the configured server.
    pub next_hop: Option<SocketAddr>,
}

impl Dialog {
    /// A dialog whose route set is `routes` in that order.
    pub fn new<'a>(remote_tag: &[u8], target: &[u8], routes: impl Iterator<Item = &'a &'a [u8]>) -> Self {
        let mut lines = Vec::new();
        let mut next_hop = None;
        for route in routes {
            next_hop = next_hop.or_else(|| next_hop_of(route));
            lines.extend_from_slice(b"Route: ");
            lines.extend_from_slice(route);
            lines.extend_from_slice(b"\r\n");
        }
        Self {
            remote_tag: remote_tag.into(),
            next_hop: if lines.is_empty() { next_hop_of(target) } else { next_hop },
            target: target.to_vec(),
            routes: lines.into(),
        }
    }

    /// Target refresh (RFC 3261 §12.2.1.2).
    pub fn refresh_target(&mut self, target: &[u8]) {
        if self.target != target {
            self.target.clear();
            self.target.extend_from_slice(target);
            if self.routes.is_empty() {
                self.next_hop = next_hop_of(target);
            }
        }
    }
}

/// The address that a SIP URI, bare or in angle brackets, leads to; none unless its host is an IP address.
fn next_hop_of(uri: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(uri).ok()?;
    let text = text.split_once('<').map_or(text, |(_, inner)| inner);
    let text = text.trim_start().strip_prefix("sip:")?;
    let end = text.find(['>', ';', '?', ' ']).unwrap_or(text.len());
    let host_port = text[..end].rsplit('@').next()?;
    host_port.parse().ok().or_else(|| {
        let host = host_port.trim_start_matches('[').trim_end_matches(']');
        Some(SocketAddr::new(host.parse().ok()?, 5060))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_read_from_addresses_only() {
        for (uri, expected) in [
            ("sip:10.0.0.1", Some("10.0.0.1:5060")),
            ("<sip:a@10.0.0.1:99;lr>", Some("10.0.0.1:99")),
            ("sip:[2001:db8::1]:7;x", Some("[2001:db8::1]:7")),
            ("sip:[2001:db8::1]", Some("[2001:db8::1]:5060")),
            ("sip:example.com:5060", None),
            ("tel:1", None),
        ] {
            assert_eq!(next_hop_of(uri.as_bytes()), expected.map(|text| text.parse().unwrap()), "{uri}");
        }
    }
}

//! The remembered part of a dialog.

use std::net::SocketAddr;

/// The other side of a dialog (RFC 3261 §12), in one piece of memory: there may be a million of them.
#[derive(Debug)]
pub struct Dialog {
    /// The tag of the other side, the remote target, and complete Route header lines. All come from one datagram, so
    /// their lengths fit 16 bits.
    text: Box<[u8]>,
    tag_len: u16,
    target_len: u16,
}

impl Dialog {
    /// A dialog whose route set is `routes` in that order.
    pub fn new<'a>(remote_tag: &[u8], target: &[u8], routes: impl Iterator<Item = &'a &'a [u8]>) -> Self {
        let mut lines = Vec::new();
        for route in routes {
            for part in [b"Route: ", *route, b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        Self::of(remote_tag, target, &lines)
    }

    fn of(remote_tag: &[u8], target: &[u8], routes: &[u8]) -> Self {
        Self {
            text: [remote_tag, target, routes].concat().into(),
            tag_len: remote_tag.len() as u16,
            target_len: target.len() as u16,
        }
    }

    /// Tag of the other side.
    pub fn remote_tag(&self) -> &[u8] {
        &self.text[..self.tag_len.into()]
    }

    /// The remote target.
    pub fn target(&self) -> &[u8] {
        let start = usize::from(self.tag_len);
        &self.text[start..start + usize::from(self.target_len)]
    }

    /// Complete Route header lines.
    pub fn routes(&self) -> &[u8] {
        &self.text[usize::from(self.tag_len) + usize::from(self.target_len)..]
    }

    /// Where requests go; none for the configured server.
    pub fn next_hop(&self) -> Option<SocketAddr> {
        match self.routes() {
            [] => next_hop_of(self.target()),
            routes => routes.split(|&b| b == b'\n').find_map(next_hop_of),
        }
    }

    /// Target refresh (RFC 3261 §12.2.1.2).
    pub fn refresh_target(&mut self, target: &[u8]) {
        if self.target() != target {
            *self = Self::of(self.remote_tag(), target, self.routes());
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
    fn a_target_is_refreshed_and_the_rest_stays() {
        let routes: [&[u8]; 2] = [b"<sip:proxy;lr>", b"<sip:10.0.0.2:5064;lr>"];
        let mut dialog = Dialog::new(b"tag", b"sip:10.0.0.9", routes.iter());
        dialog.refresh_target(b"sip:10.0.0.77:99");
        assert_eq!((dialog.remote_tag(), dialog.target()), (&b"tag"[..], &b"sip:10.0.0.77:99"[..]));
        assert_eq!(dialog.routes(), b"Route: <sip:proxy;lr>\r\nRoute: <sip:10.0.0.2:5064;lr>\r\n");
        assert_eq!(dialog.next_hop(), Some("10.0.0.2:5064".parse().unwrap()));
        let direct = Dialog::new(b"", b"sip:10.0.0.9", [].iter());
        assert_eq!(direct.next_hop(), Some("10.0.0.9:5060".parse().unwrap()));
    }

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

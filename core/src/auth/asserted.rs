//! The identity that a trusted proxy asserts (RFC 3325).

use crate::header::NameAddr;
use crate::msg::Message;
use crate::uri::Uri;

/// The first `sip` or `sips` URI of P-Asserted-Identity (RFC 3325 §9.1), if there is one.
///
/// Whoever may be believed is for the caller to know: from anybody else the header field means nothing (RFC 3325 §8).
#[must_use]
pub fn asserted_identity<'a>(message: &Message<'a>) -> Option<Uri<'a>> {
    message
        .headers()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"P-Asserted-Identity"))
        .take(IDENTITIES_MAX)
        .flat_map(|(_, line)| identities(line))
        .find(Uri::is_sip)
}

/// Whether a proxy says at all who sent a request, in whatever form.
#[must_use]
pub fn asserts_identity(message: &Message<'_>) -> bool {
    message.headers().any(|(name, _)| name.eq_ignore_ascii_case(b"P-Asserted-Identity"))
}

/// The URIs of one line; it ends where it stops being a list of them.
fn identities(line: &[u8]) -> impl Iterator<Item = Uri<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (identity, end) = NameAddr::parse_at(line, at).ok()?;
        at = end + 1;
        Some(identity)
    })
    .take(IDENTITIES_MAX)
    .filter_map(|identity| Uri::parse(identity.uri()).ok())
}

/// Most lines, and most values on a line, that are looked at; two in all are allowed.
const IDENTITIES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(lines: &str) -> String {
        format!(
            "SUBSCRIBE sip:a@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:b@h>;tag=1\r\nTo: <sip:a@h>\r\n\
             Call-ID: 1\r\nCSeq: 1 SUBSCRIBE\r\n{lines}\r\n"
        )
    }

    fn asserted(lines: &str) -> Option<String> {
        let message = message(lines);
        let message = crate::msg::parse(message.as_bytes()).expect("well-formed");
        asserted_identity(&message).map(|uri| String::from_utf8_lossy(uri.raw()).into_owned())
    }

    #[test]
    fn the_first_sip_uri_is_found() {
        assert_eq!(asserted(""), None);
        let line = "P-Asserted-Identity: \"B, ob\" <sip:b@h>\r\n";
        assert_eq!(asserted(line).as_deref(), Some("sip:b@h"));
        assert_eq!(asserted("p-asserted-identity: tel:+1, <sips:b@h>\r\n").as_deref(), Some("sips:b@h"));
        let two = "P-Asserted-Identity: tel:+14085264000\r\nP-Asserted-Identity: sip:b@h\r\n";
        assert_eq!(asserted(two).as_deref(), Some("sip:b@h"));
    }

    #[test]
    fn what_is_no_identity_is_none() {
        for value in ["", "b@h", "tel:+1", "<sip:b@h", "<sip:>, <sip:b@h>x", ",<sip:b@h>"] {
            let line = format!("P-Asserted-Identity: {value}\r\n");
            assert_eq!(asserted(&line), None, "{value}");
            let message = message(&line);
            assert!(asserts_identity(&crate::msg::parse(message.as_bytes()).expect("well-formed")));
        }
    }
}

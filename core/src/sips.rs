//! What `sips` URIs demand (RFC 3261 §26.2.2, RFC 5630).
//!
//! | request | over | outcome |
//! |---|---|---|
//! | to a `sips` URI | no TLS | 480, Warning 380: taking it would be a downgrade (RFC 5630 §4.1) |
//! | SUBSCRIBE to a `sips` URI, with a Contact that is not | | 400: inconsistent (RFC 5630 §5.1.2) |
//! | SUBSCRIBE with a `sips` Contact | no TLS | 400: its NOTIFYs could not be secured on that way |
//! | REGISTER of a `sips` Contact, to a URI or with a Path that is not | | 400 (RFC 5630 §5.2) |

use crate::Refusal;
use crate::header::HeaderName;
use crate::msg::{Message, Method};

/// Whether a URI is a `sips` URI.
#[inline]
#[must_use]
pub fn is_sips(uri: &[u8]) -> bool {
    uri.get(4) == Some(&b':') && uri[..4].eq_ignore_ascii_case(b"sips")
}

/// Parameters of a `sip` URI of ours for a `sips` URI, which has TLS already: "UASs MUST NOT use the "transport=tls" parameter"
/// (RFC 5630 §5.1.2).
#[must_use]
pub fn sips_params(params: &[u8]) -> &[u8] {
    params.strip_prefix(b";transport=tls").unwrap_or(params)
}

/// Checks a request that came with TLS (`secure`) or without, before anything is done with it.
///
/// # Errors
/// The first two rows of the table above.
pub fn check(message: &Message<'_>, method: Method, secure: bool) -> Result<(), Refusal> {
    if !is_sips(message.request_uri()) {
        return Ok(());
    }
    if !secure {
        return Err(Refusal::SipsNotAllowed);
    }
    let contact = message.contacts().next().and_then(Result::ok).and_then(|it| it.uri());
    match method {
        // RFC 3261 §8.1.1.8: "If the Request-URI or top Route header field value contains a SIPS URI, the Contact header
        // field MUST contain a SIPS URI as well."
        Method::Subscribe if contact.is_some_and(|contact| !is_sips(contact)) => {
            Err(Refusal::BadRequest("SIPS Request-URI and SIP Contact"))
        }
        _ => Ok(()),
    }
}

/// Checks where a subscription's NOTIFYs are to go, which came with TLS (`secure`) or without.
///
/// # Errors
/// The third row of the table above.
pub fn check_target(contact: &[u8], secure: bool) -> Result<(), Refusal> {
    if is_sips(contact) && !secure { Err(Refusal::BadRequest("SIPS Contact Without TLS")) } else { Ok(()) }
}

/// Checks a REGISTER that has a `sips` Contact.
///
/// > A registrar MUST accept a binding to a SIPS Contact header field only if all the appropriate URIs are of the SIPS scheme
/// > … This includes the Request-URI and the Contacts and all the Path header fields, but does not include the From and To
/// > header fields. (RFC 5630 §5.2)
///
/// # Errors
/// 400 if they are not.
pub fn check_binding(message: &Message<'_>) -> Result<(), Refusal> {
    let is_secured = is_sips(message.request_uri())
        && message.paths().all(|path| path.is_ok_and(|path| is_sips(path.uri())))
        && message.contacts().all(|contact| contact.is_ok_and(|contact| contact.uri().is_none_or(is_sips)));
    if is_secured { Ok(()) } else { Err(Refusal::BadRequest("SIPS Contact Among SIP URIs")) }
}

/// Whether our Contact in the answer to a SUBSCRIBE is a `sips` URI.
///
/// > If the request that initiated the dialog contained a SIPS URI in the Request-URI or in the top Record-Route header field
/// > value, if there was any, or the Contact header field if there was no Record-Route header field, the Contact header field
/// > in the response MUST be a SIPS URI. (RFC 3261 §12.1.1)
#[must_use]
pub fn makes_secure_dialog(message: &Message<'_>) -> bool {
    if is_sips(message.request_uri()) {
        return true;
    }
    match message.record_routes().next() {
        Some(route) => route.is_ok_and(|route| is_sips(route.uri())),
        // Nearly every Contact begins so, and need not be read to be known.
        None if message.first(HeaderName::Contact).is_some_and(|line| line.starts_with(b"<sip:")) => false,
        None => {
            let contact = message.contacts().next().and_then(Result::ok).and_then(|it| it.uri());
            contact.is_some_and(is_sips)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::parse;

    #[test]
    fn the_request_uri_decides_whether_tls_is_needed() {
        let (allowed, downgrade) = (Ok(()), Err(Refusal::SipsNotAllowed));
        let mixed = Err(Refusal::BadRequest("SIPS Request-URI and SIP Contact"));
        for (method, uri, contact, secure, expected) in [
            (Method::Subscribe, "sip:a@h", "sip:b@h", false, allowed),
            (Method::Subscribe, "sip:a@h", "sip:b@h", true, allowed),
            (Method::Subscribe, "sip:a@h", "sips:b@h", true, allowed),
            (Method::Subscribe, "sips:a@h", "sips:b@h", true, allowed),
            (Method::Subscribe, "SIPS:a@h", "sips:b@h", false, downgrade),
            (Method::Subscribe, "sips:a@h", "sip:b@h", true, mixed),
            (Method::Register, "sips:h", "sip:b@h", true, allowed),
            (Method::Register, "sips:h", "sips:b@h", false, downgrade),
            (Method::Publish, "sips:a@h", "sip:b@h", true, allowed),
        ] {
            let text = request(uri, contact, "");
            let message = parse(text.as_bytes()).unwrap();
            assert_eq!(check(&message, method, secure), expected, "{uri} {contact} {secure}");
        }
        assert!(check_target(b"sips:b@h", true).is_ok() && check_target(b"sip:b@h", false).is_ok());
        assert!(check_target(b"sips:b@h", false).is_err());
    }

    #[test]
    fn a_secured_binding_is_secured_in_all_its_uris() {
        for (uri, contact, more, good) in [
            ("sips:h", "sips:b@h", "", true),
            ("sips:h", "sips:b@h", "Path: <sips:p;lr>\r\n", true),
            ("sip:h", "sips:b@h", "", false),
            ("sips:h", "sips:b@h", "Path: <sips:p;lr>, <sip:q;lr>\r\n", false),
            ("sips:h", "sips:b@h", "Contact: <sip:c@h>\r\n", false),
        ] {
            let text = request(uri, contact, more);
            assert_eq!(
                check_binding(&parse(text.as_bytes()).unwrap()).is_ok(),
                good,
                "{uri} {contact} {more}"
            );
        }
    }

    #[test]
    fn our_contact_is_as_secure_as_the_dialog() {
        for (uri, contact, more, secure) in [
            ("sip:a@h", "sip:b@h", "", false),
            ("sips:a@h", "sips:b@h", "", true),
            ("sip:a@h", "sips:b@h", "", true),
            ("sip:a@h", "sips:b@h", "Record-Route: <sip:p;lr>, <sips:q;lr>\r\n", false),
            ("sip:a@h", "sip:b@h", "Record-Route: <sips:p;lr>\r\n", true),
        ] {
            let text = request(uri, contact, more);
            assert_eq!(
                makes_secure_dialog(&parse(text.as_bytes()).unwrap()),
                secure,
                "{uri} {contact} {more}"
            );
        }
    }

    fn request(uri: &str, contact: &str, more: &str) -> String {
        format!(
            "REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>\r\n\
             Call-ID: 1\r\nCSeq: 1 REGISTER\r\nContact: <{contact}>\r\n{more}Content-Length: 0\r\n\r\n"
        )
    }
}

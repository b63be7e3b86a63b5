//! GRUUs that the registrar gives (RFC 5627 §5).
//!
//! A public GRUU is the AoR with the instance behind it, so no state is kept for it, and it is valid as long as the AoR is:
//! "it is possible for a public GRUU to be constructed such that a registrar does not need to retain any additional state for
//! it" (§5.3). A request for it is served as one for the AoR, because parameters are no part of that.

use comsipl_core::aor::canonical_into;
use comsipl_core::uri::{Scheme, Uri, is_param_value};
use comsipl_core::{Refusal, own_gruu};

/// Parameters that a phone may send and that are ignored: "A UA cannot suggest or otherwise provide a public GRUU to the
/// registrar" (§5.1), and the same of a temporary one.
pub(super) const OF_THE_PHONE: &[&[u8]] = &[b"pub-gruu", b"temp-gruu"];

/// The URN in an instance as the phone wrote it (`"<urn:uuid:…>"`).
pub(crate) fn urn_of(instance: &[u8]) -> Option<&[u8]> {
    instance.strip_prefix(b"\"<").and_then(|it| it.strip_suffix(b">\""))
}

/// Appends `;pub-gruu="…"` for an instance as the phone wrote it, if it has one that fits a URI.
pub(super) fn push_public(aor: &[u8], instance: &[u8], out: &mut Vec<u8>) {
    push_public_between([b";pub-gruu=\"", b"\""], aor, instance, out);
}

/// The public GRUU for an instance as the phone wrote it; empty without one that fits a URI.
pub(super) fn public_of(aor: &[u8], instance: &[u8]) -> Vec<u8> {
    let mut gruu = Vec::new();
    push_public_between([b"", b""], aor, instance, &mut gruu);
    gruu
}

fn push_public_between([before, after]: [&[u8]; 2], aor: &[u8], instance: &[u8], out: &mut Vec<u8>) {
    // Such a value cannot end the quoted string either.
    if let Some(urn) = urn_of(instance).filter(|urn| is_param_value(urn)) {
        for part in [before, b"sip:", aor, b";gr=", urn, after] {
            out.extend_from_slice(part);
        }
    }
}

/// Refuses a contact that a GRUU cannot be bound to, because it leads back to the AoR or nowhere.
///
/// > If the contact URI is equivalent (based on URI equivalence in RFC 3261 [1]) to the AOR, the registrar MUST reject the
/// > request with a 403, since this would cause a routing loop. If the contact URI is a GRUU for the AOR in the To header field
/// > of the REGISTER request, the registrar MUST reject the request with a 403, for the same reason. If the contact is not a
/// > SIP URI, the REGISTER request MUST be rejected with a 403. (RFC 5627 §5.1)
pub(super) fn check_contact(aor: &[u8], contact: &[u8]) -> Result<(), Refusal> {
    if names_another_host(aor, contact) {
        return Ok(());
    }
    let Ok(uri) = Uri::parse(contact) else { return Ok(()) };
    if !uri.is_sip() {
        return Err(Refusal::Forbidden("Contact Is No SIP URI"));
    }
    let mut named = Vec::new();
    let is_of_aor = canonical_into(&uri, &mut named).is_ok() && named == aor;
    if is_of_aor && uri.params.has("gr") {
        return Err(Refusal::Forbidden("Contact Is a GRUU"));
    }
    let scheme: &[u8] = if uri.scheme == Scheme::Sips { b"sips:" } else { b"sip:" };
    let own = [scheme, aor].concat();
    if is_of_aor && Uri::parse(&own).is_ok_and(|own| uri.matches(&own)) {
        return Err(Refusal::Forbidden("Contact Is the Address of Record"));
    }
    Ok(())
}

/// Whether a contact is a SIP URI that names another host than the AoR does, as far as a look can tell: nearly all do.
fn names_another_host(aor: &[u8], contact: &[u8]) -> bool {
    let (_, host) = own_gruu(aor);
    let (Some(at), true) = (contact.iter().position(|&b| b == b'@'), is_sip(contact)) else { return false };
    let named = &contact[at + 1..];
    // IPv6 addresses may be written in several ways.
    !host.starts_with(b"[") && !named.get(..host.len()).is_some_and(|named| named.eq_ignore_ascii_case(host))
}

/// Whether a URI begins as those of SIP do.
fn is_sip(uri: &[u8]) -> bool {
    let begins = |scheme: &[u8]| uri.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme));
    begins(b"sip:") || begins(b"sips:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(instance: &str) -> String {
        let mut out = Vec::new();
        push_public(b"alice@example.com", instance.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_instance_stands_behind_the_aor() {
        let uuid = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let expected = format!(";pub-gruu=\"sip:alice@example.com;gr={uuid}\"");
        assert_eq!(public(&format!("\"<{uuid}>\"")), expected);
    }

    #[test]
    fn a_contact_leads_away_from_its_aor() {
        let refused = |contact: &str| check_contact(b"alice@example.com", contact.as_bytes()).is_err();
        for contact in [
            "sip:alice@example.com",
            "sip:alice@EXAMPLE.com",
            "sips:%61lice@example.com",
            "sip:alice@example.com;gr=urn:uuid:1",
            "sip:alice@example.com;transport=tcp;gr=urn:uuid:1",
            "tel:+12015550123",
        ] {
            assert!(refused(contact), "{contact}");
        }
        for contact in [
            "sip:alice@192.0.2.1",
            "sip:alice@example.com:5070",
            "sip:alice@example.com;transport=tcp",
            "sip:bob@example.com",
            "sip:bob@example.com;gr=urn:uuid:1",
        ] {
            assert!(!refused(contact), "{contact}");
        }
    }

    #[test]
    fn what_does_not_fit_a_uri_gets_none() {
        for instance in ["", "\"<>\"", "\"<urn:x;y>\"", "\"<urn:\\\"x>\"", "urn:uuid:1", "\"<urn:a b>\""] {
            assert_eq!(public(instance), "", "{instance}");
        }
    }
}

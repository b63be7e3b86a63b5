//! GRUUs that the registrar gives (RFC 5627 §5).
//!
//! A public GRUU is the AoR with the instance behind it, so no state is kept for it, and it is valid as long as the AoR is:
//! "it is possible for a public GRUU to be constructed such that a registrar does not need to retain any additional state for
//! it" (§5.3). A request for it is served as one for the AoR, because parameters are no part of that.

/// Parameters that a phone may send and that are ignored: "A UA cannot suggest or otherwise provide a public GRUU to the
/// registrar" (§5.1), and the same of a temporary one.
pub(super) const OF_THE_PHONE: &[&[u8]] = &[b"pub-gruu", b"temp-gruu"];

/// Appends `;pub-gruu="…"` for an instance as the phone wrote it (`"<urn:uuid:…>"`), if it has one that fits a URI.
pub(super) fn push_public(aor: &[u8], instance: &[u8], out: &mut Vec<u8>) {
    let urn = instance.strip_prefix(b"\"<").and_then(|it| it.strip_suffix(b">\""));
    // What may stand in a parameter of a URI without an escape (RFC 3261 §25.1), and cannot end the quoted string.
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$".contains(b);
    if let Some(urn) = urn.filter(|urn| !urn.is_empty() && urn.iter().all(fits)) {
        for part in [&b";pub-gruu=\"sip:"[..], aor, b";gr=", urn, b"\""] {
            out.extend_from_slice(part);
        }
    }
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
    fn what_does_not_fit_a_uri_gets_none() {
        for instance in ["", "\"<>\"", "\"<urn:x;y>\"", "\"<urn:\\\"x>\"", "urn:uuid:1", "\"<urn:a b>\""] {
            assert_eq!(public(instance), "", "{instance}");
        }
    }
}

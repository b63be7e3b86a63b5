//! What a sender without credentials is told (RFC 8760 §2.3, RFC 7616 §3.3).

use super::Algorithm;
use crate::msg::Writer;

/// A challenge.
#[derive(Clone, Copy, Debug)]
pub struct Challenge<'a> {
    /// Whose password is wanted. It holds neither quotes nor backslashes.
    pub realm: &'a [u8],
    /// The nonce to use.
    pub nonce: &'a [u8],
    /// Whether the credentials were right but for their nonce, so that nobody need be asked for a password.
    pub stale: bool,
}

impl Challenge<'_> {
    /// Writes one WWW-Authenticate for each algorithm, in the order given.
    ///
    /// > The UAS MUST add these header fields to the response in the order in which it would prefer to see them used,
    /// > starting with the most preferred algorithm at the top. (RFC 8760 §2.3)
    pub fn write(&self, writer: &mut Writer<'_>, algorithms: &[Algorithm]) {
        let stale: &[u8] = if self.stale { b", stale=true" } else { b"" };
        for algorithm in algorithms {
            let algorithm = algorithm.token().as_bytes();
            // RFC 8760 §2.6: "A UAS MUST always send a "qop" parameter".
            writer.header_parts(
                "WWW-Authenticate",
                &[
                    b"Digest realm=\"",
                    self.realm,
                    b"\", nonce=\"",
                    self.nonce,
                    b"\", algorithm=",
                    algorithm,
                    b", qop=\"auth\"",
                    stale,
                ],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_algorithm_the_strongest_first() {
        let mut out = Vec::new();
        let challenge = Challenge { realm: b"example.com", nonce: b"n0", stale: false };
        challenge.write(&mut Writer::new(&mut out), &Algorithm::ALL);
        Challenge { stale: true, ..challenge }.write(&mut Writer::new(&mut out), &[Algorithm::Md5]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"n0\", algorithm=SHA-256, qop=\"auth\"\r\n\
             WWW-Authenticate: Digest realm=\"example.com\", nonce=\"n0\", algorithm=MD5, qop=\"auth\"\r\n\
             WWW-Authenticate: Digest realm=\"example.com\", nonce=\"n0\", algorithm=MD5, qop=\"auth\", stale=true\r\n"
        );
    }
}

//! Authorization: what a sender says to prove who he is (RFC 7616 §3.4, RFC 3261 §20.7).

use super::{Algorithm, Hash};
use crate::aor::canonical_into;
use crate::header::scan::{TOKEN, WS, is, quoted_end, skip, skip_space};
use crate::uri::Uri;

/// The credentials of one Authorization header field, well-formed and not yet proven.
///
/// Texts are given without their quotes and with their escapes, as RFC 7616 §3.4 hashes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// `username`.
    pub username: &'a [u8],
    /// `realm`.
    pub realm: &'a [u8],
    /// `nonce`.
    pub nonce: &'a [u8],
    /// `uri`.
    pub uri: &'a [u8],
    /// `response`.
    pub response: &'a [u8],
    /// `algorithm`, if it is written.
    pub algorithm: Option<&'a [u8]>,
    /// What `qop` brings along, if that is there.
    pub protection: Option<Protection<'a>>,
}

/// `qop` and what must stand with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection<'a> {
    /// `qop`.
    pub qop: &'a [u8],
    /// `cnonce`.
    pub cnonce: &'a [u8],
    /// `nc`, as written: 8 hexadecimal digits.
    pub count_text: &'a [u8],
    /// `nc`.
    pub count: u32,
}

/// Why an Authorization header field holds no credentials that we could look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCredentials {
    /// Another scheme than Digest.
    OtherScheme,
    /// It does not follow its grammar, is longer than [`CREDENTIALS_LEN_MAX`], or has a parameter twice or not at all.
    Malformed,
    /// `username*` or a hashed username (RFC 7616 §3.4.4), which we never offer.
    HiddenUsername,
}

impl<'a> Credentials<'a> {
    /// Reads the value of an Authorization header field.
    ///
    /// # Errors
    /// [`BadCredentials`].
    pub fn parse(value: &'a [u8]) -> Result<Self, BadCredentials> {
        let scheme = value.get(..6).ok_or(BadCredentials::OtherScheme)?;
        if !scheme.eq_ignore_ascii_case(b"Digest") || !value.get(6).is_some_and(|&byte| is(byte, WS)) {
            return Err(BadCredentials::OtherScheme);
        }
        if value.len() > CREDENTIALS_LEN_MAX {
            return Err(BadCredentials::Malformed);
        }
        let mut found: [Option<&[u8]>; PARAMS.len()] = [None; PARAMS.len()];
        for param in Parameters(&value[6..]) {
            let (name, text) = param.ok_or(BadCredentials::Malformed)?;
            let Some(at) = PARAMS.iter().position(|known| name.eq_ignore_ascii_case(known)) else { continue };
            if found[at].replace(text).is_some() {
                return Err(BadCredentials::Malformed);
            }
        }
        let [username, realm, nonce, uri, response, algorithm, qop, cnonce, nc, extended, userhash] = found;
        if extended.is_some() || userhash.is_some_and(|it| !it.eq_ignore_ascii_case(b"false")) {
            return Err(BadCredentials::HiddenUsername);
        }
        let needed = |text: Option<&'a [u8]>| text.ok_or(BadCredentials::Malformed);
        let protection = match qop {
            None => None,
            Some(qop) => {
                let count_text = needed(nc)?;
                let count = count(count_text).ok_or(BadCredentials::Malformed)?;
                Some(Protection { qop, cnonce: needed(cnonce)?, count_text, count })
            }
        };
        Ok(Self {
            username: needed(username)?,
            realm: needed(realm)?,
            nonce: needed(nonce)?,
            uri: needed(uri)?,
            response: needed(response)?,
            algorithm,
            protection,
        })
    }

    /// The user name with its escapes resolved, appended to `out`.
    pub fn username_into(&self, out: &mut Vec<u8>) {
        let mut escaped = false;
        for &byte in self.username {
            escaped = byte == b'\\' && !escaped;
            if !escaped {
                out.push(byte);
            }
        }
    }

    /// Whether they are about the resource of the request: the same user at the same host, however the two are written.
    ///
    /// > The authenticating server MUST assure that the resource designated by the "uri" parameter is the same as the
    /// > resource specified in the Request-Line (RFC 7616 §3.4.6)
    ///
    /// Phones leave out ports and parameters that they write into the request line, or the other way round. `room` is for what
    /// is compared.
    #[must_use]
    pub fn is_about(&self, request_uri: &[u8], room: &mut Vec<u8>) -> bool {
        if self.uri == request_uri {
            return true;
        }
        room.clear();
        let mut push = |uri: &[u8]| {
            canonical_into(&Uri::parse(uri).ok()?, room).ok()?;
            Some(room.len())
        };
        match (push(self.uri), push(request_uri)) {
            (Some(middle), Some(_)) => room[..middle] == room[middle..],
            _ => false,
        }
    }

    /// Whether `response` was made with the secret H(A1) for a request of that method (RFC 7616 §3.4.1, with `qop` as
    /// §3.4.3 says for `auth`).
    #[must_use]
    pub fn prove(
        &self,
        protection: &Protection<'_>,
        algorithm: Algorithm,
        secret: &Hash,
        method: &[u8],
    ) -> bool {
        let (mut a1, mut a2) = ([0; 2 * Hash::LEN_MAX], [0; 2 * Hash::LEN_MAX]);
        let expected = algorithm.hash(&[
            secret.hex(&mut a1),
            self.nonce,
            protection.count_text,
            protection.cnonce,
            protection.qop,
            algorithm.hash(&[method, self.uri]).hex(&mut a2),
        ]);
        Hash::of_hex(self.response).is_some_and(|response| response.matches(&expected))
    }
}

/// `nc-value = 8LHEX` (RFC 7616 §3.4); upper case is let pass.
fn count(text: &[u8]) -> Option<u32> {
    let mut lower: [u8; 8] = text.try_into().ok()?;
    lower.make_ascii_lowercase();
    crate::token::parse_hex8(lower)
}

/// The parameters of credentials: name and text without quotes; `None` for what is none, and then nothing more.
struct Parameters<'a>(&'a [u8]);

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = &self.0[skip_space(self.0, 0)..];
        // Empty elements of a list mean nothing (RFC 3261 §7.3.1 has them in no grammar, RFC 9110 §5.6.1 has).
        while let Some(after) = rest.strip_prefix(b",") {
            rest = &after[skip_space(after, 0)..];
        }
        if rest.is_empty() {
            return None;
        }
        let read = parameter(rest);
        self.0 = read.map_or(&[], |(_, _, rest)| rest);
        Some(read.map(|(name, text, _)| (name, text)))
    }
}

/// Reads `name = token` or `name = "text"` and the comma or the end behind it.
fn parameter(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let name_end = skip(bytes, 0, TOKEN);
    let equals = skip_space(bytes, name_end);
    if name_end == 0 || bytes.get(equals) != Some(&b'=') {
        return None;
    }
    let start = skip_space(bytes, equals + 1);
    let (text, end) = if bytes.get(start)? == &b'"' {
        let end = quoted_end(bytes, start).ok()?;
        (&bytes[start + 1..end - 1], end)
    } else {
        let end = skip(bytes, start, TOKEN);
        (&bytes[start..end], end)
    };
    if end == start {
        return None;
    }
    let comma = skip_space(bytes, end);
    let name = &bytes[..name_end];
    match bytes.get(comma) {
        None => Some((name, text, &[])),
        Some(b',') => Some((name, text, &bytes[comma + 1..])),
        Some(_) => None,
    }
}

/// Longest Authorization that is read, in bytes; beyond it the credentials are malformed. Real ones have 400.
pub const CREDENTIALS_LEN_MAX: usize = 4096;

/// The parameters that are looked at.
const PARAMS: [&[u8]; 11] = [
    b"username",
    b"realm",
    b"nonce",
    b"uri",
    b"response",
    b"algorithm",
    b"qop",
    b"cnonce",
    b"nc",
    b"username*",
    b"userhash",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = r#"Digest username="alice", realm="h", nonce="n", uri="sip:h", response="00", algorithm=MD5, cnonce="c", qop=auth, nc=0000000a"#;

    #[test]
    fn rfc_7616_3_9_1_is_proven_with_both_algorithms() {
        for (algorithm, response) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let value = format!(
                "Digest username=\"Mufasa\",\r\n realm=\"http-auth@example.org\",\r\n uri=\"/dir/index.html\",\r\n \
                 algorithm={},\r\n nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\",\r\n nc=00000001,\r\n \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\",\r\n qop=auth,\r\n response=\"{response}\",\r\n \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
                algorithm.token()
            );
            let credentials = Credentials::parse(value.as_bytes()).unwrap();
            let protection = credentials.protection.unwrap();
            assert_eq!(protection.count, 1);
            assert_eq!(Algorithm::named(credentials.algorithm), Some(algorithm));
            let secret = algorithm.secret(b"Mufasa", b"http-auth@example.org", b"Circle of Life");
            assert!(credentials.prove(&protection, algorithm, &secret, b"GET"));
            assert!(!credentials.prove(&protection, algorithm, &secret, b"PUT"));
            let other = algorithm.secret(b"Mufasa", b"http-auth@example.org", b"Circle of life");
            assert!(!credentials.prove(&protection, algorithm, &other, b"GET"));
        }
    }

    #[test]
    fn parameters_are_read_in_any_order_spelling_and_spacing() {
        let value = b"dIGEST  NC =\"0000000A\" ,,QOP= \"auth\",cnonce=\"c\"  , Response=\"00\", uri=\"sip:h\",nonce=\"n\"\r\n\t,x-new=1, \
                      realm=\"h\", username=\"al\\\"ice\"";
        let read = Credentials::parse(value).unwrap();
        assert_eq!((read.username, read.realm), (&b"al\\\"ice"[..], &b"h"[..]));
        assert_eq!(read.protection.map(|it| (it.count, it.qop)), Some((10, &b"auth"[..])));
        assert_eq!(read.algorithm, None);
        let mut name = Vec::new();
        read.username_into(&mut name);
        assert_eq!(name, b"al\"ice");
        let mut name = Vec::new();
        Credentials { username: br"a\\b\c", ..read }.username_into(&mut name);
        assert_eq!(name, br"a\bc");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let read =
            |from: &str, to: &str| Credentials::parse(PLAIN.replacen(from, to, 1).as_bytes()).map(|_| ());
        assert!(read("", "").is_ok());
        assert_eq!(read("Digest ", "Basic "), Err(BadCredentials::OtherScheme));
        assert_eq!(read("Digest ", "Digest"), Err(BadCredentials::OtherScheme));
        assert_eq!(Credentials::parse(b""), Err(BadCredentials::OtherScheme));
        for (from, to) in [
            ("username=\"alice\", ", ""),
            ("realm=\"h\", ", ""),
            ("nonce=\"n\", ", ""),
            ("uri=\"sip:h\", ", ""),
            ("response=\"00\", ", ""),
            ("cnonce=\"c\", ", ""),
            (", nc=0000000a", ""),
            ("nc=0000000a", "nc=a"),
            ("nc=0000000a", "nc=0000000g"),
            ("nc=0000000a", "nc=00000000a"),
            ("\"alice\"", "\"alice"),
            ("\"alice\"", "\"alice\\\""),
            ("\"alice\"", ""),
            ("\"alice\", ", "\"alice\" "),
            ("realm=", "realm "),
            ("realm=\"h\"", "realm=\"h\", realm=\"h\""),
            ("nc=0000000a", "nc=0000000a, NC=0000000a"),
            ("username", "=username"),
        ] {
            assert_eq!(read(from, to), Err(BadCredentials::Malformed), "{from} -> {to}");
        }
        assert_eq!(read("username=", "username*="), Err(BadCredentials::HiddenUsername));
        assert_eq!(read("qop=auth", "qop=auth, userhash=true"), Err(BadCredentials::HiddenUsername));
        assert!(read("qop=auth", "qop=auth, userhash=false").is_ok());
        let old = PLAIN.replace(", qop=auth", "");
        assert_eq!(Credentials::parse(old.as_bytes()).map(|it| it.protection), Ok(None), "RFC 2069");
        let long = format!("{PLAIN}, x=\"{}\"", "y".repeat(CREDENTIALS_LEN_MAX));
        assert_eq!(Credentials::parse(long.as_bytes()), Err(BadCredentials::Malformed));
    }

    #[test]
    fn the_uri_is_compared_by_what_it_means() {
        let read = Credentials::parse(PLAIN.as_bytes()).unwrap();
        let about = |uri: &'static str, request: &str| {
            Credentials { uri: uri.as_bytes(), ..read }.is_about(request.as_bytes(), &mut Vec::new())
        };
        assert!(about("sip:h", "sip:h"));
        assert!(about("sip:example.com", "sip:EXAMPLE.com:5060;transport=udp"));
        assert!(about("sip:alice@example.com;transport=tcp", "sip:%61lice@example.com"));
        assert!(about("sips:example.com", "sip:example.com"));
        assert!(about("tel:+1", "tel:+1"));
        assert!(!about("sip:alice@example.com", "sip:example.com"));
        assert!(!about("sip:alice@example.com", "sip:bob@example.com"));
        assert!(!about("sip:example.com", "sip:example.net"));
        assert!(!about("/", "sip:h") && !about("", "sip:h") && !about("tel:+1", "tel:+2"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut value = b"Digest ".to_vec();
            value.extend_from_slice(&tail);
            let _ = Credentials::parse(&value);
        }

        #[test]
        fn bits_of_good_credentials_are_read_or_refused(at in 0..PLAIN.len(), byte in any::<u8>(), cut in 0..PLAIN.len()) {
            let mut value = PLAIN.as_bytes().to_vec();
            value[at] = byte;
            if let Ok(read) = Credentials::parse(&value[..cut.max(at)]) {
                let _ = read.is_about(b"sip:h", &mut Vec::new());
                read.username_into(&mut Vec::new());
            }
        }
    }
}

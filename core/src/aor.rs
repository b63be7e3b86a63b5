//! Addresses-of-record in canonical form.

use crate::header::scan::{USER, ipv4, is, is_small_name, skip};
use crate::limits::AOR_LEN_MAX;
use crate::uri::{Host, Scheme, Uri, hex, push_ipv4};

/// Identity of a user as others address it, in canonical form.
///
/// > An address-of-record (AOR) is a SIP or SIPS URI that points to a domain with a location service that can map the
/// > URI to another URI where the user might be available. (RFC 3261 §6)
///
/// Canonical is `user@host`, or `host` without a user (RFC 3261 §10.3 step 5): no scheme, so that `sip:`, `sips:`,
/// `pres:` and `im:` name one user; no port, password, parameters or headers; escapes resolved and set again only where a
/// character needs one; the host in lower case, IPv6 as RFC 5952 writes it, without a trailing dot. Always ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aor(Box<str>);

/// Why a URI names no address-of-record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAor {
    /// A scheme whose users we do not know: 416 in a Request-URI.
    Scheme,
    /// Canonical form longer than [`AOR_LEN_MAX`]: 414 in a Request-URI.
    TooLong,
    /// A text that is not in canonical form.
    NotCanonical,
}

impl std::fmt::Display for BadAor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the scheme names no user of ours",
            Self::TooLong => "the address-of-record is too long",
            Self::NotCanonical => "the address-of-record is not in canonical form",
        })
    }
}

impl std::error::Error for BadAor {}

impl Aor {
    /// The address-of-record that `uri` names.
    ///
    /// # Errors
    /// As [`canonical_into`].
    pub fn of(uri: &Uri<'_>) -> Result<Self, BadAor> {
        let mut text = Vec::new();
        canonical_into(uri, &mut text)?;
        Ok(Self(String::from_utf8(text).expect("the canonical form is ASCII").into_boxed_str()))
    }

    /// Takes a text that is in canonical form already, such as one that was stored.
    ///
    /// # Errors
    /// [`BadAor::NotCanonical`] when it is not, [`BadAor::TooLong`] beyond [`AOR_LEN_MAX`].
    pub fn from_canonical(text: &str) -> Result<Self, BadAor> {
        let mut uri = Vec::with_capacity(4 + text.len());
        uri.extend_from_slice(b"sip:");
        uri.extend_from_slice(text.as_bytes());
        let uri = Uri::parse(&uri).map_err(|_| BadAor::NotCanonical)?;
        let aor = Self::of(&uri)?;
        if *aor.0 == *text { Ok(aor) } else { Err(BadAor::NotCanonical) }
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical form, as hashed by [`crate::HashKey::aor`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The user part, escaped where it needs to be; `None` for a host alone.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.0.split_once('@').map(|(user, _)| user)
    }

    /// The host, IPv6 in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.split_once('@').map_or(&*self.0, |(_, host)| host)
    }
}

impl std::fmt::Display for Aor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Appends the canonical form of the address-of-record that `uri` names to `out`; on an error `out` is as before.
///
/// # Errors
/// [`BadAor::Scheme`] unless the scheme is `sip`, `sips`, `pres` or `im`, [`BadAor::TooLong`] beyond [`AOR_LEN_MAX`].
pub fn canonical_into(uri: &Uri<'_>, out: &mut Vec<u8>) -> Result<(), BadAor> {
    let (Scheme::Sip | Scheme::Sips | Scheme::Pres | Scheme::Im, Some(host)) = (uri.scheme, uri.host) else {
        return Err(BadAor::Scheme);
    };
    let start = out.len();
    if let Some(user) = uri.user {
        push_user(user, out);
        out.push(b'@');
    }
    match host {
        Host::Name(name) => {
            let name = name.strip_suffix(b".").unwrap_or(name);
            let host = out.len();
            out.extend_from_slice(name);
            out[host..].make_ascii_lowercase();
        }
        Host::V4(address) => push_ipv4(address, out),
        Host::V6(address) => push_display(format_args!("[{address}]"), out),
    }
    if out.len() - start > AOR_LEN_MAX {
        out.truncate(start);
        return Err(BadAor::TooLong);
    }
    Ok(())
}

/// The canonical form of the address-of-record that `uri` names, where it stands in the URI as it is: `sip:`, a user part without
/// escapes, and a host in small letters or an IPv4 address. So does nearly everybody write it. `None` is not a verdict:
/// [`canonical_into`] decides then.
#[must_use]
pub fn plain(uri: &[u8]) -> Option<&[u8]> {
    let aor = uri.strip_prefix(b"sip:")?;
    let at = skip(aor, 0, USER);
    let host = aor.get(at..)?.strip_prefix(b"@")?;
    let is_canonical =
        if host.first()?.is_ascii_digit() { ipv4(host).is_some() } else { is_small_name(host) };
    (is_canonical && at != 0 && aor.len() <= AOR_LEN_MAX).then_some(aor)
}

/// Appends the canonical form of the address-of-record of `user`, written plainly or with escapes, at `host`, which is in
/// canonical form; on an error `out` is as before.
///
/// # Errors
/// [`BadAor::TooLong`] beyond [`AOR_LEN_MAX`].
pub fn canonical_of_user(user: &[u8], host: &[u8], out: &mut Vec<u8>) -> Result<(), BadAor> {
    let start = out.len();
    if user.len() > AOR_LEN_MAX {
        return Err(BadAor::TooLong);
    }
    push_user(user, out);
    out.push(b'@');
    out.extend_from_slice(host);
    if out.len() - start > AOR_LEN_MAX {
        out.truncate(start);
        return Err(BadAor::TooLong);
    }
    Ok(())
}

/// Appends the user part with its escapes resolved, and set again where they must be.
fn push_user(user: &[u8], out: &mut Vec<u8>) {
    let mut rest = user;
    loop {
        let plain = skip(rest, 0, USER);
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some((&first, after)) = rest.split_first() else { return };
        let (byte, after) = match *after {
            [high, low, ref after @ ..] if first == b'%' => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (first, &rest[1..]),
            },
            _ => (first, after),
        };
        rest = after;
        if is(byte, USER) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Appends what `value` prints.
fn push_display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    use std::io::Write as _;
    write!(out, "{value}").expect("a Vec takes all that is written");
}

/// Digits of escapes.
const HEX: [u8; 16] = *b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_user_have_one_canonical_form() {
        for text in [
            "sip:Alice@example.com",
            "sips:%41lice@Example.COM.:5061;transport=tls",
            "pres:Alice@EXAMPLE.com",
            "im:Al%69ce@example.com",
            "sip:Alice:secret@example.com?subject=x",
        ] {
            assert_eq!(aor(text).unwrap().as_str(), "Alice@example.com", "{text}");
        }
        assert_ne!(aor("sip:alice@example.com"), aor("sip:Alice@example.com"));
    }

    #[test]
    fn characters_that_need_an_escape_keep_one() {
        assert_eq!(aor("sip:a%40b%3a%25%2fc@h").unwrap().as_str(), "a%40b%3A%25/c@h");
        assert_eq!(aor("sip:#31#%c3%a9@h").unwrap().as_str(), "%2331%23%C3%A9@h");
    }

    #[test]
    fn a_user_name_makes_an_address() {
        let of = |user: &str| {
            let mut out = Vec::new();
            canonical_of_user(user.as_bytes(), b"h", &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(of("alice").as_deref(), Ok("alice@h"));
        assert_eq!(of("al ice@x").as_deref(), Ok("al%20ice%40x@h"));
        assert_eq!(of("%61l%c3%a9").as_deref(), Ok("al%C3%A9@h"));
        assert_eq!(of(&"a".repeat(AOR_LEN_MAX)), Err(BadAor::TooLong));
    }

    #[test]
    fn hosts_are_canonical() {
        assert_eq!(aor("sip:a@[2001:DB8:0:0::1]:5060").unwrap().as_str(), "a@[2001:db8::1]");
        assert_eq!(aor("sip:a@10.0.0.27").unwrap().host(), "10.0.0.27");
        let alone = aor("sip:Example.com").unwrap();
        assert_eq!((alone.user(), alone.host()), (None, "example.com"));
    }

    #[test]
    fn other_schemes_and_long_ones_are_refused() {
        assert_eq!(aor("tel:+12015550123"), Err(BadAor::Scheme));
        let mut out = b"kept".to_vec();
        let long = format!("sip:{}@h", "a".repeat(AOR_LEN_MAX - 1));
        assert_eq!(canonical_into(&Uri::parse(long.as_bytes()).unwrap(), &mut out), Err(BadAor::TooLong));
        assert_eq!(out, b"kept");
        let longest = format!("sip:{}@h", "a".repeat(AOR_LEN_MAX - 2));
        assert!(aor(&longest).is_ok());
    }

    #[test]
    fn what_is_plain_is_its_own_canonical_form() {
        for text in ["sip:alice@example.com", "sip:a;b?c/d@10.0.0.1", "sip:Al+1.x@a_b-c.d", "sip:a@h"] {
            assert_eq!(plain(text.as_bytes()), aor(text).ok().as_ref().map(Aor::as_bytes), "{text}");
        }
        let long = format!("sip:{}@h", "a".repeat(AOR_LEN_MAX - 1));
        for text in [
            "",
            "sip:",
            "sip:@h",
            "sip:h",
            "sip:a@",
            "SIP:a@h",
            "sips:a@h",
            "sip:a:b@h",
            "sip:%61@h",
            "sip:a@b@h",
            "sip:a b@h",
            "sip:a@H",
            "sip:a@h.",
            "sip:a@.h",
            "sip:a@b..h",
            "sip:a@h:5060",
            "sip:a@h;x",
            "sip:a@h?x",
            "sip:a@[::1]",
            "sip:a@1.2.3",
            "sip:a@01.2.3.4",
            "sip:a@1.example.com",
            &long,
        ] {
            assert_eq!(plain(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn canonical_form_is_its_own_canonical_form() {
        for text in ["a%40b@h", "Alice@example.com", "[::1]", "a;b?c/d@10.0.0.1"] {
            assert_eq!(Aor::from_canonical(text).unwrap().as_str(), text);
        }
        for text in ["%41@h", "a@H", "a@h:5060", "a@h;x", "", "@h"] {
            assert_eq!(Aor::from_canonical(text), Err(BadAor::NotCanonical), "{text}");
        }
    }

    fn aor(text: &str) -> Result<Aor, BadAor> {
        Aor::of(&Uri::parse(text.as_bytes()).unwrap_or_else(|_| panic!("{text} is a URI")))
    }
}

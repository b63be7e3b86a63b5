//! SIP URIs (RFC 3261 §19.1) and those of the other schemes a presence server meets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::header::Params;
use crate::header::scan::{self, HOST, skip};

/// What a URI begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `sip:` (RFC 3261 §19.1).
    Sip,
    /// `sips:` (RFC 3261 §19.1).
    Sips,
    /// `tel:` (RFC 3966).
    Tel,
    /// `pres:` (RFC 3859).
    Pres,
    /// `im:` (RFC 3860).
    Im,
    /// `urn:` (RFC 8141).
    Urn,
    /// Any other.
    Other,
}

/// Host part of a URI or of a Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A domain name as written, compared without case.
    Name(&'a [u8]),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, in brackets when written.
    V6(Ipv6Addr),
}

/// A URI that was parsed, as a view of the bytes it was parsed from.
///
/// `sip`, `sips`, `pres` and `im` have a host; of the other schemes only [`Self::opaque`] is known.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    raw: &'a [u8],
    opaque: &'a [u8],
    /// The scheme.
    pub scheme: Scheme,
    /// User part with its escapes; never empty.
    pub user: Option<&'a [u8]>,
    /// Password with its escapes (RFC 3261 §19.1.1 advises against it).
    pub password: Option<&'a [u8]>,
    /// Host; there for `sip`, `sips`, `pres` and `im`.
    pub host: Option<Host<'a>>,
    /// Port, if written; never 0.
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params<'a>,
    /// What follows `?`, without it.
    pub headers: Option<&'a [u8]>,
}

/// Bytes that are no URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUri;

impl std::fmt::Display for BadUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a URI")
    }
}

impl std::error::Error for BadUri {}

impl<'a> Uri<'a> {
    /// Parses a URI that stands alone, as in a request line or between angle brackets.
    ///
    /// # Errors
    /// [`BadUri`] for white space, control characters, quotes or angle brackets, a missing or odd scheme, and for `sip`,
    /// `sips`, `pres` and `im` also for a bad escape in the user part, host, port or parameters.
    pub fn parse(raw: &'a [u8]) -> Result<Self, BadUri> {
        // Most have neither an escape nor a header, and one look finds that out along with what may not stand in a URI.
        let odd = scan::odd_end(raw);
        let is_plain = odd == raw.len();
        if raw.is_empty() || (!is_plain && scan::uri_end(raw, odd) != raw.len()) {
            return Err(BadUri);
        }
        let (scheme, opaque) = match raw.strip_prefix(b"sip:") {
            Some(opaque) => (Scheme::Sip, opaque),
            None => {
                let colon = scan::position(raw, b':').ok_or(BadUri)?;
                (scheme(&raw[..colon])?, &raw[colon + 1..])
            }
        };
        let mut uri = Self {
            raw,
            opaque,
            scheme,
            user: None,
            password: None,
            host: None,
            port: None,
            params: Params::default(),
            headers: None,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips | Scheme::Pres | Scheme::Im => uri.parse_hierarchy(is_plain)?,
            Scheme::Tel | Scheme::Urn | Scheme::Other if opaque.is_empty() => return Err(BadUri),
            Scheme::Tel | Scheme::Urn | Scheme::Other => {}
        }
        Ok(uri)
    }

    /// Parses `user:password@host:port;params?headers`. Where it `is_plain`, there is no `%` and no `?`.
    fn parse_hierarchy(&mut self, is_plain: bool) -> Result<(), BadUri> {
        let bytes = self.opaque;
        let mut at = 0;
        if let Some(end) = scan::position(bytes, b'@') {
            let userinfo = &bytes[..end];
            let user_end = scan::position(userinfo, b':').unwrap_or(end);
            if user_end == 0 || !(is_plain || escapes_are_whole(userinfo)) {
                return Err(BadUri);
            }
            self.user = Some(&userinfo[..user_end]);
            self.password = userinfo.get(user_end + 1..);
            at = end + 1;
        }
        let (host_end, host) = match bytes.get(at) {
            Some(b'[') => {
                let end = at + scan::position(&bytes[at..], b']').ok_or(BadUri)? + 1;
                (end, Host::parse(&bytes[at..end])?)
            }
            _ => {
                let end = skip(bytes, at, HOST);
                (end, Host::of_run(&bytes[at..end])?)
            }
        };
        self.host = Some(host);
        at = host_end;
        if bytes.get(at) == Some(&b':') {
            let end = skip(bytes, at + 1, scan::DIGIT);
            self.port = Some(scan::port(&bytes[at + 1..end]).map_err(|_| BadUri)?);
            at = end;
        }
        if at == bytes.len() {
            return Ok(());
        }
        let headers = if is_plain { None } else { scan::position(&bytes[at..], b'?') };
        let params_end = headers.map_or(bytes.len(), |len| at + len);
        self.params = Params::parse_uri(&bytes[at..params_end]).map_err(|_| BadUri)?;
        self.headers = bytes.get(params_end + 1..);
        // `@` cannot stand unescaped behind the host; were it let pass, two readers could see two hosts.
        if scan::position(&bytes[at..], b'@').is_some() {
            return Err(BadUri);
        }
        Ok(())
    }

    /// The URI as written.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// All behind the scheme's colon.
    #[must_use]
    pub const fn opaque(&self) -> &'a [u8] {
        self.opaque
    }

    /// Whether the URI is `sip:` or `sips:`.
    #[must_use]
    pub const fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The port a message to this URI goes to: the one written, or 5060, for `sips` 5061 (RFC 3261 §19.1.2).
    #[must_use]
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.scheme == Scheme::Sips { 5061 } else { 5060 })
    }

    /// Address and port, if the host is an address; names are not looked up, `maddr` is not regarded.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host?.ip()?, self.port_or_default()))
    }

    /// Whether the `lr` parameter is there: a loose router (RFC 3261 §19.1.1).
    #[must_use]
    pub fn lr(&self) -> bool {
        self.params.has("lr")
    }

    /// The `transport` parameter, compared without case.
    #[must_use]
    pub fn transport(&self) -> Option<&'a [u8]> {
        self.params.value("transport")
    }

    /// The `maddr` parameter.
    #[must_use]
    pub fn maddr(&self) -> Option<&'a [u8]> {
        self.params.value("maddr")
    }

    /// Whether the two are equivalent by RFC 3261 §19.1.4, as a registrar compares contacts. Not transitive.
    ///
    /// URIs of other schemes than `sip` and `sips` are compared byte by byte behind their scheme.
    #[must_use]
    pub fn matches(&self, other: &Uri<'_>) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        if !self.is_sip() {
            return self.raw == other.raw || (self.scheme != Scheme::Other && self.opaque == other.opaque);
        }
        let same = |a: Option<&[u8]>, b: Option<&[u8]>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => same_text(a, b, Case::Kept),
            _ => false,
        };
        let same_host = match (self.host, other.host) {
            (Some(a), Some(b)) => a.matches(&b),
            _ => false,
        };
        same(self.user, other.user)
            && same(self.password, other.password)
            && same_host
            && self.port == other.port
            && params_match(self.params, other.params)
            && params_match(other.params, self.params)
            && headers_match(self.headers, other.headers)
            && headers_match(other.headers, self.headers)
    }
}

impl<'a> Host<'a> {
    /// Parses a host: a name, an IPv4 address, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`BadUri`] when it is none of them; digits and dots alone must be an IPv4 address.
    pub fn parse(text: &'a [u8]) -> Result<Self, BadUri> {
        if let Some(inner) = text.strip_prefix(b"[") {
            let address = std::str::from_utf8(inner.strip_suffix(b"]").ok_or(BadUri)?).map_err(|_| BadUri)?;
            return address.parse().map(Self::V6).map_err(|_| BadUri);
        }
        if skip(text, 0, HOST) == text.len() { Self::of_run(text) } else { Err(BadUri) }
    }

    /// Parses a name or an IPv4 address, given characters of host names only.
    fn of_run(text: &'a [u8]) -> Result<Self, BadUri> {
        if text.first().is_some_and(u8::is_ascii_digit)
            && let Some(address) = scan::ipv4(text)
        {
            return Ok(Self::V4(address));
        }
        if text.first() == Some(&b'.') || scan::has_pair(text, b'.') {
            return Err(BadUri);
        }
        match scan::all_digits_and_dots(text) {
            true => Err(BadUri),
            false => Ok(Self::Name(text)),
        }
    }

    /// The address, unless it is a name.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(address) => Some(IpAddr::V4(*address)),
            Self::V6(address) => Some(IpAddr::V6(*address)),
        }
    }

    /// Whether the two are the same; names without case.
    #[must_use]
    pub fn matches(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Self::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Self::V4(a), Host::V4(b)) => a == b,
            (Self::V6(a), Host::V6(b)) => a == b,
            _ => false,
        }
    }
}

/// The scheme called `name`, compared without case (RFC 3986 §3.1).
fn scheme(name: &[u8]) -> Result<Scheme, BadUri> {
    const KNOWN: [(&[u8], Scheme); 6] = [
        (b"sip", Scheme::Sip),
        (b"sips", Scheme::Sips),
        (b"tel", Scheme::Tel),
        (b"pres", Scheme::Pres),
        (b"im", Scheme::Im),
        (b"urn", Scheme::Urn),
    ];
    if let Some((_, scheme)) = KNOWN.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
        return Ok(*scheme);
    }
    let [first, rest @ ..] = name else { return Err(BadUri) };
    let is_scheme = first.is_ascii_alphabetic()
        && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if is_scheme { Ok(Scheme::Other) } else { Err(BadUri) }
}

/// Whether a text may be the value of a parameter of a URI as it stands: not empty, and of `paramchar`s without escapes
/// (RFC 3261 §25.1).
#[must_use]
pub fn is_param_value(text: &[u8]) -> bool {
    scan::is_param_value(text)
}

/// Whether every `%` is followed by two hexadecimal digits.
pub(crate) fn escapes_are_whole(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(found) = scan::position(&text[at..], b'%') {
        at += found + 1;
        if !matches!(text.get(at..at + 2), Some(digits) if digits.iter().all(u8::is_ascii_hexdigit)) {
            return false;
        }
    }
    true
}

/// Whether letters in upper and lower case are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Kept,
    Ignored,
}

/// Whether two texts are the same once their escapes of non-reserved characters are resolved (RFC 3261 §19.1.4).
fn same_text(a: &[u8], b: &[u8], case: Case) -> bool {
    let fold = |unit: Unit| match (case, unit) {
        (Case::Ignored, Unit::Plain(byte)) => Unit::Plain(byte.to_ascii_lowercase()),
        _ => unit,
    };
    Units(a).map(fold).eq(Units(b).map(fold))
}

/// One character of an escaped text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// It stands for itself, or it was escaped needlessly.
    Plain(u8),
    /// A reserved character that was escaped: not the same as the character itself.
    Escaped(u8),
}

/// Iterates over the characters of an escaped text.
struct Units<'a>(&'a [u8]);

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let (&first, rest) = self.0.split_first()?;
        if first == b'%'
            && let Some((digits, rest)) = rest.split_first_chunk::<2>()
            && let (Some(high), Some(low)) = (hex(digits[0]), hex(digits[1]))
        {
            self.0 = rest;
            let byte = high << 4 | low;
            return Some(if is_reserved(byte) { Unit::Escaped(byte) } else { Unit::Plain(byte) });
        }
        self.0 = rest;
        Some(Unit::Plain(first))
    }
}

/// Appends an IPv4 address as it is written.
pub(crate) fn push_ipv4(address: Ipv4Addr, out: &mut Vec<u8>) {
    let mut text = [0; IPV4_LEN_MAX];
    let len = write_ipv4(address, &mut text);
    out.extend_from_slice(&text[..len]);
}

/// Writes an IPv4 address to the beginning of `text` and gives its length.
fn write_ipv4(address: Ipv4Addr, text: &mut [u8; IPV4_LEN_MAX]) -> usize {
    let mut at = 0;
    for (n, octet) in address.octets().into_iter().enumerate() {
        if n > 0 {
            text[at] = b'.';
            at += 1;
        }
        if octet > 99 {
            text[at] = b'0' + octet / 100;
            at += 1;
        }
        if octet > 9 {
            text[at] = b'0' + octet / 10 % 10;
            at += 1;
        }
        text[at] = b'0' + octet % 10;
        at += 1;
    }
    at
}

/// Length of `255.255.255.255`.
const IPV4_LEN_MAX: usize = 15;

/// The value of a hexadecimal digit.
pub(crate) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The `reserved` set of RFC 2396 §2.2, and `%`, whose escape is never the bare character.
const fn is_reserved(byte: u8) -> bool {
    matches!(byte, b';' | b'/' | b'?' | b':' | b'@' | b'&' | b'=' | b'+' | b'$' | b',' | b'%')
}

/// Whether every parameter of `a` allows `b`: present in both with one value, or in `a` alone and of no matter.
fn params_match(a: Params<'_>, b: Params<'_>) -> bool {
    a.iter().all(|param| {
        let same_name = |other: &[u8]| same_text(param.name, other, Case::Ignored);
        match b.iter().find(|other| same_name(other.name)) {
            Some(other) => match (param.value, other.value) {
                (None, None) => true,
                (Some(a), Some(b)) => same_text(a, b, Case::Ignored),
                _ => false,
            },
            None => {
                ![&b"user"[..], b"ttl", b"method", b"maddr", b"transport"].iter().any(|name| same_name(name))
            }
        }
    })
}

/// Whether every header component of `a` is in `b` with the same value. The rules of §20 for each header are not
/// applied: values are compared with case, which can only make two contacts out of one.
fn headers_match(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    fn each(headers: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &[u8])> {
        headers.into_iter().flat_map(|text| text.split(|&byte| byte == b'&')).map(|header| {
            let equals = memchr::memchr(b'=', header).unwrap_or(header.len());
            (&header[..equals], header.get(equals + 1..).unwrap_or_default())
        })
    }
    each(a).all(|(name, value)| {
        each(b).any(|(other_name, other)| {
            same_text(name, other_name, Case::Ignored) && same_text(value, other, Case::Kept)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_found() {
        let uri =
            uri("sips:alice;day=tuesday:pw@Atlanta.com:5070;maddr=10.0.0.1;lr;Transport=UDP?subject=x&p=y");
        assert_eq!(uri.scheme, Scheme::Sips);
        assert_eq!(uri.user, Some(&b"alice;day=tuesday"[..]));
        assert_eq!(uri.password, Some(&b"pw"[..]));
        assert_eq!(uri.host, Some(Host::Name(b"Atlanta.com")));
        assert_eq!(uri.port, Some(5070));
        assert!(uri.lr());
        assert_eq!(uri.transport(), Some(&b"UDP"[..]));
        assert_eq!(uri.maddr(), Some(&b"10.0.0.1"[..]));
        assert_eq!(uri.headers, Some(&b"subject=x&p=y"[..]));
        assert_eq!(uri.socket_addr(), None);
    }

    #[test]
    fn an_address_is_written_as_the_library_writes_it() {
        for address in [[0, 9, 10, 99], [100, 101, 199, 200], [255, 255, 255, 255], [127, 0, 0, 1]] {
            let address = Ipv4Addr::from(address);
            let mut text = Vec::new();
            push_ipv4(address, &mut text);
            assert_eq!(text, address.to_string().as_bytes());
        }
    }

    #[test]
    fn a_host_without_a_letter_is_an_address_or_nothing() {
        for bad in [
            "",
            ".",
            "1",
            "1.2",
            "1.2.3.4.5",
            "a..b",
            ".a",
            "1..a",
            "1.2.3.04",
            "300.1.1.1",
            "1.2.3.4.",
            "a/b",
        ] {
            assert_eq!(Host::parse(bad.as_bytes()), Err(BadUri), "{bad}");
        }
        for name in ["a", "a.", "1.a", "1.2.3.4a", "-", "_", "1.2.3.4-", "a.b-c_d.example"] {
            assert_eq!(Host::parse(name.as_bytes()), Ok(Host::Name(name.as_bytes())), "{name}");
        }
    }

    #[test]
    fn addresses_are_told_from_names() {
        assert_eq!(uri("sip:a@10.0.0.1").socket_addr(), Some("10.0.0.1:5060".parse().unwrap()));
        assert_eq!(
            uri("sip:[2001:db8::10]:5070").socket_addr(),
            Some("[2001:db8::10]:5070".parse().unwrap())
        );
        assert_eq!(uri("sips:a@10.0.0.1").socket_addr(), Some("10.0.0.1:5061".parse().unwrap()));
        assert_eq!(uri("sip:1.example").socket_addr(), None);
        assert!(Uri::parse(b"sip:a@300.1.1.1").is_err());
        assert!(Uri::parse(b"sip:a@[2001:db8::g]").is_err());
    }

    #[test]
    fn reserved_characters_may_stand_in_the_user_part() {
        let uri = uri("sip:1_unusual?,/;*&it+has=1,d_too.(x)@example.com;p=1");
        assert_eq!(uri.user, Some(&b"1_unusual?,/;*&it+has=1,d_too.(x)"[..]));
        assert!(uri.params.has("p"));
    }

    #[test]
    fn broken_ones_are_refused() {
        for text in [
            "",
            "sip",
            "sip:",
            ":x",
            "1sip:a@h",
            "sip:@h",
            "sip:a@",
            "sip:a@h:",
            "sip:a@h:0",
            "sip:a@h:70000",
            "sip:a%4@h",
            "sip:a%zz@h",
            "sip:a@h@h",
            "sip:a@h;x=@y",
            "sip:a b@h",
            "sip:a@h>",
            "sip:a@h/x",
            "tel:",
            "sip:a@[::1",
            "sip:a@h;",
            "sip:a@.h",
            "sip:a@h..x",
            "\u{1}sip:a@h",
        ] {
            assert!(Uri::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn other_schemes_are_opaque() {
        let uri = uri("tel:+1-201-555-0123;ext=5");
        assert_eq!((uri.scheme, uri.host), (Scheme::Tel, None));
        assert_eq!(uri.opaque(), b"+1-201-555-0123;ext=5");
        assert_eq!(Uri::parse(b"nobodyKnowsThis:x").unwrap().scheme, Scheme::Other);
    }

    #[test]
    fn equivalent_uris_match() {
        for (a, b) in [
            ("sip:%61lice@h.example;transport=TCP", "SIP:alice@H.ExAmPlE;Transport=tcp"),
            ("sip:carol@h", "sip:carol@h;newparam=5"),
            ("sip:carol@h;security=on", "sip:carol@h"),
            (
                "sip:h;transport=tcp;method=REGISTER?to=sip:b%40h",
                "sip:h;method=REGISTER;transport=tcp?to=sip:b%40h",
            ),
            ("sip:a@h?subject=x%20y&priority=urgent", "sip:a@h?priority=urgent&subject=x%20y"),
            ("sip:a@[2001:db8:0::1]", "sip:a@[2001:DB8::1]"),
        ] {
            assert!(uri(a).matches(&uri(b)), "{a} {b}");
            assert!(uri(b).matches(&uri(a)), "{b} {a}");
        }
    }

    #[test]
    fn different_uris_do_not_match() {
        for (a, b) in [
            ("sip:ALICE@h", "sip:alice@h"),
            ("sip:b@h", "sip:b@h:5060"),
            ("sip:b@h", "sip:b@h;transport=udp"),
            ("sip:b@h", "sip:b@h:6000;transport=tcp"),
            ("sip:c@h", "sip:c@h?Subject=next%20meeting"),
            ("sip:c@h;security=on", "sip:c@h;security=off"),
            ("sip:c@h;x", "sip:c@h;x=1"),
            ("sip:c@h", "sips:c@h"),
            ("sip:c@h", "sip:h"),
            ("sip:c:pw@h", "sip:c@h"),
            ("sip:c%3Bx@h", "sip:c;x@h"),
            ("sip:c@h;maddr=10.0.0.1", "sip:c@h"),
            ("sip:c@h;ttl=1", "sip:c@h"),
            ("sip:c@10.0.0.1", "sip:c@h"),
        ] {
            assert!(!uri(a).matches(&uri(b)), "{a} {b}");
            assert!(!uri(b).matches(&uri(a)), "{b} {a}");
        }
    }

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap_or_else(|_| panic!("{text} is a URI"))
    }
}

//! Names of header fields, full and compact (RFC 3261 §7.3.1, §7.3.3).

/// A header field that this crate knows by name.
///
/// Names are compared without case; a compact form is the same header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum HeaderName {
    /// `Accept` (RFC 3261 §20.1).
    Accept,
    /// `Accept-Contact`, compact `a` (RFC 3841).
    AcceptContact,
    /// `Accept-Encoding` (RFC 3261 §20.2).
    AcceptEncoding,
    /// `Allow` (RFC 3261 §20.5).
    Allow,
    /// `Allow-Events`, compact `u` (RFC 6665 §8.2.2).
    AllowEvents,
    /// `Authorization` (RFC 3261 §20.7).
    Authorization,
    /// `Call-ID`, compact `i` (RFC 3261 §20.8).
    CallId,
    /// `Contact`, compact `m` (RFC 3261 §20.10).
    Contact,
    /// `Content-Disposition` (RFC 3261 §20.11).
    ContentDisposition,
    /// `Content-Encoding`, compact `e` (RFC 3261 §20.12).
    ContentEncoding,
    /// `Content-Length`, compact `l` (RFC 3261 §20.14).
    ContentLength,
    /// `Content-Type`, compact `c` (RFC 3261 §20.15).
    ContentType,
    /// `CSeq` (RFC 3261 §20.16).
    CSeq,
    /// `Date` (RFC 3261 §20.17).
    Date,
    /// `Event`, compact `o` (RFC 6665 §8.2.1).
    Event,
    /// `Expires` (RFC 3261 §20.19).
    Expires,
    /// `From`, compact `f` (RFC 3261 §20.20).
    From,
    /// `Identity`, compact `y` (RFC 8224).
    Identity,
    /// `Max-Forwards` (RFC 3261 §20.22).
    MaxForwards,
    /// `Min-Expires` (RFC 3261 §20.23).
    MinExpires,
    /// `Path` (RFC 3327).
    Path,
    /// `Proxy-Authenticate` (RFC 3261 §20.27).
    ProxyAuthenticate,
    /// `Proxy-Authorization` (RFC 3261 §20.28).
    ProxyAuthorization,
    /// `Proxy-Require` (RFC 3261 §20.29).
    ProxyRequire,
    /// `Record-Route` (RFC 3261 §20.30).
    RecordRoute,
    /// `Refer-To`, compact `r` (RFC 3515).
    ReferTo,
    /// `Referred-By`, compact `b` (RFC 3892).
    ReferredBy,
    /// `Reject-Contact`, compact `j` (RFC 3841).
    RejectContact,
    /// `Request-Disposition`, compact `d` (RFC 3841).
    RequestDisposition,
    /// `Require` (RFC 3261 §20.32).
    Require,
    /// `Retry-After` (RFC 3261 §20.33).
    RetryAfter,
    /// `Route` (RFC 3261 §20.34).
    Route,
    /// `Server` (RFC 3261 §20.35).
    Server,
    /// `Service-Route` (RFC 3608).
    ServiceRoute,
    /// `Session-Expires`, compact `x` (RFC 4028).
    SessionExpires,
    /// `SIP-ETag` (RFC 3903 §11.3.1).
    SipEtag,
    /// `SIP-If-Match` (RFC 3903 §11.3.2).
    SipIfMatch,
    /// `Subject`, compact `s` (RFC 3261 §20.36).
    Subject,
    /// `Subscription-State` (RFC 6665 §8.2.3).
    SubscriptionState,
    /// `Supported`, compact `k` (RFC 3261 §20.37).
    Supported,
    /// `Suppress-If-Match` (RFC 5839).
    SuppressIfMatch,
    /// `To`, compact `t` (RFC 3261 §20.39).
    To,
    /// `Unsupported` (RFC 3261 §20.40).
    Unsupported,
    /// `User-Agent` (RFC 3261 §20.41).
    UserAgent,
    /// `Via`, compact `v` (RFC 3261 §20.42).
    Via,
    /// `Warning` (RFC 3261 §20.43).
    Warning,
    /// `WWW-Authenticate` (RFC 3261 §20.44).
    WwwAuthenticate,
    /// Any other header.
    Other,
}

impl HeaderName {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::Other as usize + 1;

    /// The header called `name` in full or in compact form.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name.len() {
            0 => Self::Other,
            len @ 1..=16 => {
                let mut text = [0; 16];
                text[..len].copy_from_slice(name);
                if name.contains(&b'\r') {
                    return Self::Other;
                }
                Self::of_key(len, u128::from_le_bytes(text) | fold(len))
            }
            _ => Self::of_long(name),
        }
    }

    /// The header whose name of `len` bytes, 1 to 16, is in `key`: little-endian, every byte of it or'ed with 0x20, and
    /// zero behind it.
    ///
    /// Setting the bit makes letters lower case; the only other byte that becomes a letter or `-` is CR, and no name
    /// holds CR.
    #[inline]
    pub(crate) fn of_key(len: usize, key: u128) -> Self {
        match len {
            1 => match key as u8 {
                b'a' => Self::AcceptContact,
                b'b' => Self::ReferredBy,
                b'c' => Self::ContentType,
                b'd' => Self::RequestDisposition,
                b'e' => Self::ContentEncoding,
                b'f' => Self::From,
                b'i' => Self::CallId,
                b'j' => Self::RejectContact,
                b'k' => Self::Supported,
                b'l' => Self::ContentLength,
                b'm' => Self::Contact,
                b'o' => Self::Event,
                b'r' => Self::ReferTo,
                b's' => Self::Subject,
                b't' => Self::To,
                b'u' => Self::AllowEvents,
                b'v' => Self::Via,
                b'x' => Self::SessionExpires,
                b'y' => Self::Identity,
                _ => Self::Other,
            },
            2 => match key {
                TO => Self::To,
                _ => Self::Other,
            },
            3 => match key {
                VIA => Self::Via,
                _ => Self::Other,
            },
            4 => match key {
                CSEQ => Self::CSeq,
                DATE => Self::Date,
                FROM => Self::From,
                PATH => Self::Path,
                _ => Self::Other,
            },
            5 => match key {
                ALLOW => Self::Allow,
                EVENT => Self::Event,
                ROUTE => Self::Route,
                _ => Self::Other,
            },
            6 => match key {
                ACCEPT => Self::Accept,
                SERVER => Self::Server,
                _ => Self::Other,
            },
            7 => match key {
                CALL_ID => Self::CallId,
                CONTACT => Self::Contact,
                EXPIRES => Self::Expires,
                REQUIRE => Self::Require,
                SUBJECT => Self::Subject,
                WARNING => Self::Warning,
                _ => Self::Other,
            },
            8 => match key {
                IDENTITY => Self::Identity,
                REFER_TO => Self::ReferTo,
                SIP_ETAG => Self::SipEtag,
                _ => Self::Other,
            },
            9 => match key {
                SUPPORTED => Self::Supported,
                _ => Self::Other,
            },
            10 => match key {
                USER_AGENT => Self::UserAgent,
                _ => Self::Other,
            },
            11 => match key {
                MIN_EXPIRES => Self::MinExpires,
                REFERRED_BY => Self::ReferredBy,
                RETRY_AFTER => Self::RetryAfter,
                UNSUPPORTED => Self::Unsupported,
                _ => Self::Other,
            },
            12 => match key {
                ALLOW_EVENTS => Self::AllowEvents,
                CONTENT_TYPE => Self::ContentType,
                MAX_FORWARDS => Self::MaxForwards,
                RECORD_ROUTE => Self::RecordRoute,
                SIP_IF_MATCH => Self::SipIfMatch,
                _ => Self::Other,
            },
            13 => match key {
                AUTHORIZATION => Self::Authorization,
                PROXY_REQUIRE => Self::ProxyRequire,
                SERVICE_ROUTE => Self::ServiceRoute,
                _ => Self::Other,
            },
            14 => match key {
                ACCEPT_CONTACT => Self::AcceptContact,
                CONTENT_LENGTH => Self::ContentLength,
                REJECT_CONTACT => Self::RejectContact,
                _ => Self::Other,
            },
            15 => match key {
                ACCEPT_ENCODING => Self::AcceptEncoding,
                SESSION_EXPIRES => Self::SessionExpires,
                _ => Self::Other,
            },
            16 => match key {
                CONTENT_ENCODING => Self::ContentEncoding,
                WWW_AUTHENTICATE => Self::WwwAuthenticate,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The header whose name has more than 16 bytes.
    #[cold]
    pub(crate) fn of_long(name: &[u8]) -> Self {
        LONG.into_iter()
            .find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
            .unwrap_or(Self::Other)
    }

    /// The full name as it is usually written; empty for [`Self::Other`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "Accept",
            Self::AcceptContact => "Accept-Contact",
            Self::AcceptEncoding => "Accept-Encoding",
            Self::Allow => "Allow",
            Self::AllowEvents => "Allow-Events",
            Self::Authorization => "Authorization",
            Self::CallId => "Call-ID",
            Self::Contact => "Contact",
            Self::ContentDisposition => "Content-Disposition",
            Self::ContentEncoding => "Content-Encoding",
            Self::ContentLength => "Content-Length",
            Self::ContentType => "Content-Type",
            Self::CSeq => "CSeq",
            Self::Date => "Date",
            Self::Event => "Event",
            Self::Expires => "Expires",
            Self::From => "From",
            Self::Identity => "Identity",
            Self::MaxForwards => "Max-Forwards",
            Self::MinExpires => "Min-Expires",
            Self::Path => "Path",
            Self::ProxyAuthenticate => "Proxy-Authenticate",
            Self::ProxyAuthorization => "Proxy-Authorization",
            Self::ProxyRequire => "Proxy-Require",
            Self::RecordRoute => "Record-Route",
            Self::ReferTo => "Refer-To",
            Self::ReferredBy => "Referred-By",
            Self::RejectContact => "Reject-Contact",
            Self::RequestDisposition => "Request-Disposition",
            Self::Require => "Require",
            Self::RetryAfter => "Retry-After",
            Self::Route => "Route",
            Self::Server => "Server",
            Self::ServiceRoute => "Service-Route",
            Self::SessionExpires => "Session-Expires",
            Self::SipEtag => "SIP-ETag",
            Self::SipIfMatch => "SIP-If-Match",
            Self::Subject => "Subject",
            Self::SubscriptionState => "Subscription-State",
            Self::Supported => "Supported",
            Self::SuppressIfMatch => "Suppress-If-Match",
            Self::To => "To",
            Self::Unsupported => "Unsupported",
            Self::UserAgent => "User-Agent",
            Self::Via => "Via",
            Self::Warning => "Warning",
            Self::WwwAuthenticate => "WWW-Authenticate",
            Self::Other => "",
        }
    }

    /// Whether a message may hold this header on one line only. `Content-Length` is not among them: equal ones are let
    /// pass, differing ones are refused.
    pub(crate) const fn is_single(self) -> bool {
        SINGLE & (1 << self as u64) != 0
    }
}

/// The set of headers of which there may be one line only, one bit each.
const SINGLE: u64 = {
    let single = [
        HeaderName::CallId,
        HeaderName::ContentDisposition,
        HeaderName::ContentType,
        HeaderName::CSeq,
        HeaderName::Date,
        HeaderName::Event,
        HeaderName::Expires,
        HeaderName::From,
        HeaderName::MaxForwards,
        HeaderName::MinExpires,
        HeaderName::ReferTo,
        HeaderName::RetryAfter,
        HeaderName::SipEtag,
        HeaderName::SipIfMatch,
        HeaderName::SubscriptionState,
        HeaderName::SuppressIfMatch,
        HeaderName::To,
    ];
    let mut set = 0;
    let mut i = 0;
    while i < single.len() {
        set |= 1 << single[i] as u64;
        i += 1;
    }
    set
};

const _: () = assert!(HeaderName::COUNT <= 64, "a set of headers fits 64 bits");

/// 0x20 in each of the first `len` bytes, `len` at most 16.
#[inline]
pub(crate) const fn fold(len: usize) -> u128 {
    SPACES & mask(len)
}

/// All bits of the first `len` bytes, `len` at most 16.
#[inline]
pub(crate) const fn mask(len: usize) -> u128 {
    if len == 0 { 0 } else { u128::MAX >> (128 - 8 * len) }
}

/// Sixteen spaces.
const SPACES: u128 = u128::from_le_bytes([b' '; 16]);

/// A name of at most 16 bytes as [`HeaderName::of_key`] wants it.
const fn key(name: HeaderName) -> u128 {
    let name = name.as_str().as_bytes();
    let mut text = [0; 16];
    let mut i = 0;
    while i < name.len() {
        text[i] = name[i] | 0x20;
        i += 1;
    }
    u128::from_le_bytes(text)
}

/// The names that do not fit 16 bytes.
const LONG: [HeaderName; 6] = [
    HeaderName::ContentDisposition,
    HeaderName::ProxyAuthenticate,
    HeaderName::ProxyAuthorization,
    HeaderName::RequestDisposition,
    HeaderName::SubscriptionState,
    HeaderName::SuppressIfMatch,
];

const ACCEPT: u128 = key(HeaderName::Accept);
const ACCEPT_CONTACT: u128 = key(HeaderName::AcceptContact);
const ACCEPT_ENCODING: u128 = key(HeaderName::AcceptEncoding);
const ALLOW: u128 = key(HeaderName::Allow);
const ALLOW_EVENTS: u128 = key(HeaderName::AllowEvents);
const AUTHORIZATION: u128 = key(HeaderName::Authorization);
const CALL_ID: u128 = key(HeaderName::CallId);
const CONTACT: u128 = key(HeaderName::Contact);
const CONTENT_ENCODING: u128 = key(HeaderName::ContentEncoding);
const CONTENT_LENGTH: u128 = key(HeaderName::ContentLength);
const CONTENT_TYPE: u128 = key(HeaderName::ContentType);
const CSEQ: u128 = key(HeaderName::CSeq);
const DATE: u128 = key(HeaderName::Date);
const EVENT: u128 = key(HeaderName::Event);
const EXPIRES: u128 = key(HeaderName::Expires);
const FROM: u128 = key(HeaderName::From);
const IDENTITY: u128 = key(HeaderName::Identity);
const MAX_FORWARDS: u128 = key(HeaderName::MaxForwards);
const MIN_EXPIRES: u128 = key(HeaderName::MinExpires);
const PATH: u128 = key(HeaderName::Path);
const PROXY_REQUIRE: u128 = key(HeaderName::ProxyRequire);
const RECORD_ROUTE: u128 = key(HeaderName::RecordRoute);
const REFER_TO: u128 = key(HeaderName::ReferTo);
const REFERRED_BY: u128 = key(HeaderName::ReferredBy);
const REJECT_CONTACT: u128 = key(HeaderName::RejectContact);
const REQUIRE: u128 = key(HeaderName::Require);
const RETRY_AFTER: u128 = key(HeaderName::RetryAfter);
const ROUTE: u128 = key(HeaderName::Route);
const SERVER: u128 = key(HeaderName::Server);
const SERVICE_ROUTE: u128 = key(HeaderName::ServiceRoute);
const SESSION_EXPIRES: u128 = key(HeaderName::SessionExpires);
const SIP_ETAG: u128 = key(HeaderName::SipEtag);
const SIP_IF_MATCH: u128 = key(HeaderName::SipIfMatch);
const SUBJECT: u128 = key(HeaderName::Subject);
const SUPPORTED: u128 = key(HeaderName::Supported);
const TO: u128 = key(HeaderName::To);
const UNSUPPORTED: u128 = key(HeaderName::Unsupported);
const USER_AGENT: u128 = key(HeaderName::UserAgent);
const VIA: u128 = key(HeaderName::Via);
const WARNING: u128 = key(HeaderName::Warning);
const WWW_AUTHENTICATE: u128 = key(HeaderName::WwwAuthenticate);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every known header.
    fn all() -> Vec<HeaderName> {
        let mut names: Vec<_> = Vec::new();
        let mut text = *b"?";
        for byte in b'a'..=b'z' {
            text[0] = byte;
            names.push(HeaderName::of(&text));
        }
        names.retain(|name| *name != HeaderName::Other);
        names
    }

    #[test]
    fn names_are_found_in_any_case() {
        for name in
            ["Via", "Call-ID", "CSeq", "Subscription-State", "Content-Encoding", "Proxy-Authorization"]
        {
            let known = HeaderName::of(name.as_bytes());
            assert_eq!(known.as_str(), name);
            assert_eq!(HeaderName::of(name.to_ascii_uppercase().as_bytes()), known);
            assert_eq!(HeaderName::of(name.to_ascii_lowercase().as_bytes()), known);
        }
    }

    #[test]
    fn compact_forms_are_the_same_headers() {
        assert_eq!(HeaderName::of(b"v"), HeaderName::Via);
        assert_eq!(HeaderName::of(b"O"), HeaderName::Event);
        assert_eq!(HeaderName::of(b"n"), HeaderName::Other);
        assert_eq!(all().len(), 19);
        for name in all() {
            assert_eq!(HeaderName::of(name.as_str().as_bytes()), name);
        }
    }

    #[test]
    fn near_misses_are_other_headers() {
        for name in [&b""[..], b"T", b"Tox", b"Viaa", b"Call_ID", b"call\rid", b"\x16ia", b"V\x00", b"To "] {
            let known = HeaderName::of(name);
            assert!(known == HeaderName::Other || name == b"T", "{} is {known:?}", name.escape_ascii());
        }
    }
}

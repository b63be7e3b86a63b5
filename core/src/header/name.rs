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
                Self::of_chunk(&text, len).unwrap_or(Self::Other)
            }
            _ => Self::of_long(name),
        }
    }

    /// The known header whose name is the first `len` bytes of `chunk`. No CR may be among them.
    ///
    /// Setting the bit 0x20 makes letters lower case; the only other byte that becomes a letter or `-` is CR.
    #[inline]
    pub(crate) fn of_chunk(chunk: &[u8; 16], len: usize) -> Option<Self> {
        let key = (u128::from_le_bytes(*chunk) | SPACES) & MASKS.get(len)?;
        let (known, name) = &TABLE[slot(key)];
        (*known == key).then_some(*name)
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

/// All bits of the first 0 to 16 bytes.
static MASKS: [u128; 17] = {
    let mut masks = [0; 17];
    let mut len = 1;
    while len <= 16 {
        masks[len] = u128::MAX >> (128 - 8 * len);
        len += 1;
    }
    masks
};

/// The names of at most 16 bytes, full and compact, each in the slot of its key.
static TABLE: [(u128, HeaderName); TABLE_LEN] = {
    let mut table = [(NO_KEY, HeaderName::Other); TABLE_LEN];
    let mut i = 0;
    while i < SHORT.len() {
        let (name, header) = SHORT[i];
        let key = key(name);
        assert!(table[slot(key)].0 == NO_KEY, "two names share a slot: choose another multiplier");
        table[slot(key)] = (key, header);
        i += 1;
    }
    table
};

/// What is no key: in all bytes of one the bit 0x20 is set, and an empty name has none.
const NO_KEY: u128 = 1;

/// Slots of [`TABLE`].
const TABLE_LEN: usize = 256;

/// The slot of a key: found by trying multipliers until no two names shared one.
#[inline]
const fn slot(key: u128) -> usize {
    let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(MULTIPLIER);
    (mixed >> (64 - TABLE_LEN.ilog2())) as usize
}

/// See [`slot`].
const MULTIPLIER: u64 = 0xd698_71bc_a4ab_4eed;

/// Sixteen spaces.
const SPACES: u128 = u128::from_le_bytes([b' '; 16]);

/// A name of at most 16 bytes as it is compared: little-endian, in lower case.
const fn key(name: &str) -> u128 {
    let name = name.as_bytes();
    let mut text = [0; 16];
    let mut i = 0;
    while i < name.len() {
        text[i] = name[i] | 0x20;
        i += 1;
    }
    u128::from_le_bytes(text)
}

/// The names that fit 16 bytes, full and compact.
const SHORT: [(&str, HeaderName); 60] = [
    ("Accept", HeaderName::Accept),
    ("Accept-Contact", HeaderName::AcceptContact),
    ("Accept-Encoding", HeaderName::AcceptEncoding),
    ("Allow", HeaderName::Allow),
    ("Allow-Events", HeaderName::AllowEvents),
    ("Authorization", HeaderName::Authorization),
    ("Call-ID", HeaderName::CallId),
    ("Contact", HeaderName::Contact),
    ("Content-Encoding", HeaderName::ContentEncoding),
    ("Content-Length", HeaderName::ContentLength),
    ("Content-Type", HeaderName::ContentType),
    ("CSeq", HeaderName::CSeq),
    ("Date", HeaderName::Date),
    ("Event", HeaderName::Event),
    ("Expires", HeaderName::Expires),
    ("From", HeaderName::From),
    ("Identity", HeaderName::Identity),
    ("Max-Forwards", HeaderName::MaxForwards),
    ("Min-Expires", HeaderName::MinExpires),
    ("Path", HeaderName::Path),
    ("Proxy-Require", HeaderName::ProxyRequire),
    ("Record-Route", HeaderName::RecordRoute),
    ("Refer-To", HeaderName::ReferTo),
    ("Referred-By", HeaderName::ReferredBy),
    ("Reject-Contact", HeaderName::RejectContact),
    ("Require", HeaderName::Require),
    ("Retry-After", HeaderName::RetryAfter),
    ("Route", HeaderName::Route),
    ("Server", HeaderName::Server),
    ("Service-Route", HeaderName::ServiceRoute),
    ("Session-Expires", HeaderName::SessionExpires),
    ("SIP-ETag", HeaderName::SipEtag),
    ("SIP-If-Match", HeaderName::SipIfMatch),
    ("Subject", HeaderName::Subject),
    ("Supported", HeaderName::Supported),
    ("To", HeaderName::To),
    ("Unsupported", HeaderName::Unsupported),
    ("User-Agent", HeaderName::UserAgent),
    ("Via", HeaderName::Via),
    ("Warning", HeaderName::Warning),
    ("WWW-Authenticate", HeaderName::WwwAuthenticate),
    ("a", HeaderName::AcceptContact),
    ("u", HeaderName::AllowEvents),
    ("i", HeaderName::CallId),
    ("m", HeaderName::Contact),
    ("e", HeaderName::ContentEncoding),
    ("l", HeaderName::ContentLength),
    ("c", HeaderName::ContentType),
    ("o", HeaderName::Event),
    ("f", HeaderName::From),
    ("y", HeaderName::Identity),
    ("r", HeaderName::ReferTo),
    ("b", HeaderName::ReferredBy),
    ("j", HeaderName::RejectContact),
    ("d", HeaderName::RequestDisposition),
    ("x", HeaderName::SessionExpires),
    ("s", HeaderName::Subject),
    ("k", HeaderName::Supported),
    ("t", HeaderName::To),
    ("v", HeaderName::Via),
];

/// The names that do not fit 16 bytes.
const LONG: [HeaderName; 6] = [
    HeaderName::ContentDisposition,
    HeaderName::ProxyAuthenticate,
    HeaderName::ProxyAuthorization,
    HeaderName::RequestDisposition,
    HeaderName::SubscriptionState,
    HeaderName::SuppressIfMatch,
];

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

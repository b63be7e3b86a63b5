//! What is wrong with a message that could not be parsed, and what of it can still be answered.

use super::Method;
use super::respond::raw_lines;
use crate::header::scan::{TOKEN, all};
use crate::header::{CSeq, HeaderName, NameAddr, Via};

/// Why bytes are no SIP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Nothing but line breaks: a keep-alive, to be ignored (RFC 5626 §3.5.1).
    Empty,
    /// Longer than [`crate::limits::MESSAGE_LEN_MAX`]: 513.
    TooLong,
    /// The first line is neither a request line nor a status line.
    StartLine,
    /// A SIP version other than 2.0: 505.
    Version,
    /// CR or LF alone, or NUL, in the head (RFC 3261 §7.3: lines end in CRLF).
    LineBreak,
    /// The empty line that ends the head is missing.
    Unterminated,
    /// A header line without a proper name and colon, or with a name of more than 255 bytes.
    HeaderLine,
    /// More than [`crate::limits::HEADERS_MAX`] header lines.
    TooManyHeaders,
    /// A header that every message must have is missing (RFC 3261 §8.1.1).
    Missing(HeaderName),
    /// A second line of a header that may occur once, or a Content-Length unlike the first.
    Duplicate(HeaderName),
    /// A header whose value does not follow its grammar.
    Bad(HeaderName),
    /// The CSeq names another method than the request line (RFC 3261 §8.1.1.5).
    CSeqMethod,
    /// The Content-Length promises more than the datagram holds (RFC 3261 §18.3).
    BodyTruncated,
}

impl Malformed {
    /// The status that answers such a request.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooLong => 513,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// A reason phrase for that status that tells the sender what to mend (RFC 3261 §21.4.1).
    #[must_use]
    pub const fn reason_phrase(self) -> &'static str {
        match self {
            Self::Empty => "Empty Message",
            Self::TooLong => "Message Too Large",
            Self::StartLine => "Malformed Start Line",
            Self::Version => "Version Not Supported",
            Self::LineBreak => "Stray Line Break or NUL",
            Self::Unterminated => "Unterminated Head",
            Self::HeaderLine => "Malformed Header Line",
            Self::TooManyHeaders => "Too Many Headers",
            Self::Missing(HeaderName::Via) => "Missing Via",
            Self::Missing(HeaderName::From) => "Missing From",
            Self::Missing(HeaderName::To) => "Missing To",
            Self::Missing(HeaderName::CallId) => "Missing Call-ID",
            Self::Missing(HeaderName::CSeq) => "Missing CSeq",
            Self::Missing(_) => "Missing Header",
            Self::Duplicate(HeaderName::ContentLength) => "Conflicting Content-Length",
            Self::Duplicate(_) => "Duplicate Header",
            Self::Bad(HeaderName::Via) => "Malformed Via",
            Self::Bad(HeaderName::From) => "Malformed From",
            Self::Bad(HeaderName::To) => "Malformed To",
            Self::Bad(HeaderName::CallId) => "Malformed Call-ID",
            Self::Bad(HeaderName::CSeq) => "Malformed CSeq",
            Self::Bad(HeaderName::MaxForwards) => "Malformed Max-Forwards",
            Self::Bad(HeaderName::ContentLength) => "Malformed Content-Length",
            Self::Bad(_) => "Malformed Header",
            Self::CSeqMethod => "CSeq Method Mismatch",
            Self::BodyTruncated => "Content-Length Beyond Message",
        }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(name) | Self::Duplicate(name) | Self::Bad(name) => {
                write!(f, "{} ({})", self.reason_phrase(), name.as_str())
            }
            _ => f.write_str(self.reason_phrase()),
        }
    }
}

/// A message that could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError<'a> {
    /// What is wrong.
    pub kind: Malformed,
    /// What could be read nevertheless.
    pub partial: Partial<'a>,
}

impl std::fmt::Display for ParseError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for ParseError<'_> {}

/// The parts of a malformed message that an answer must repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partial<'a> {
    /// The bytes from the start line to the end of the head, or to the end of the datagram.
    pub(super) head: &'a [u8],
    method_text: Option<&'a [u8]>,
    via: Option<&'a [u8]>,
    from: Option<&'a [u8]>,
    to: Option<&'a [u8]>,
    call_id: Option<&'a [u8]>,
    cseq: Option<&'a [u8]>,
}

impl<'a> Partial<'a> {
    /// Reads what can be read. Slow, and only run on messages that are malformed.
    #[cold]
    pub(super) fn read(bytes: &'a [u8]) -> Self {
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let bytes = &bytes[start..];
        let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 2);
        let head = &bytes[..end];
        let mut partial = Self { head, ..Self::default() };
        let method_end = memchr::memchr(b' ', head).unwrap_or_default();
        let method = &head[..method_end];
        if all(method, TOKEN) && method.first().is_some_and(u8::is_ascii_alphabetic) {
            partial.method_text = Some(method);
        }
        let mut clean = true;
        for (name, value) in raw_lines(head) {
            let slot = match name {
                HeaderName::From => &mut partial.from,
                HeaderName::To => &mut partial.to,
                HeaderName::CallId => &mut partial.call_id,
                HeaderName::CSeq => &mut partial.cseq,
                HeaderName::Via => {
                    clean &= is_clean(value);
                    if partial.via.is_none() {
                        partial.via = Some(value);
                    }
                    continue;
                }
                _ => continue,
            };
            clean &= is_clean(value) && slot.is_none();
            *slot = Some(value);
        }
        if !clean {
            // What cannot be repeated without passing on the fault is not answered.
            partial.via = None;
        }
        partial
    }

    /// Whether this is a request other than ACK whose top Via, From, To, Call-ID and CSeq can be read: then, and only
    /// then, it may be answered (RFC 3261 §8.2.6.2, §17.1.1.3: an ACK is never answered).
    #[must_use]
    pub fn can_respond(&self) -> bool {
        self.method_text.is_some_and(|method| method != b"ACK")
            && self.via().is_some()
            && self.from.is_some_and(|from| NameAddr::parse(from).is_ok())
            && self.to.is_some_and(|to| NameAddr::parse(to).is_ok())
            && self.call_id.is_some_and(|call_id| !call_id.is_empty())
            && self.cseq.is_some_and(|cseq| CSeq::parse(cseq).is_ok_and(|cseq| cseq.method != Method::Ack))
    }

    /// The method as written, if this is a request.
    #[must_use]
    pub const fn method_text(&self) -> Option<&'a [u8]> {
        self.method_text
    }

    /// The top Via.
    #[must_use]
    pub fn via(&self) -> Option<Via<'a>> {
        Via::parse_at(self.via?, 0).ok().map(|(via, _)| via)
    }

    /// The raw From value.
    #[must_use]
    pub const fn from(&self) -> Option<&'a [u8]> {
        self.from
    }

    /// The raw To value.
    #[must_use]
    pub const fn to(&self) -> Option<&'a [u8]> {
        self.to
    }

    /// The raw Call-ID value.
    #[must_use]
    pub const fn call_id(&self) -> Option<&'a [u8]> {
        self.call_id
    }

    /// The raw CSeq value.
    #[must_use]
    pub const fn cseq(&self) -> Option<&'a [u8]> {
        self.cseq
    }
}

/// Whether `value` holds no NUL, and CR and LF only in folds.
fn is_clean(value: &[u8]) -> bool {
    let mut at = 0;
    while let Some(skipped) = memchr::memchr3(b'\r', b'\n', 0, &value[at..]) {
        at += skipped;
        match &value[at..] {
            [b'\r', b'\n', b' ' | b'\t', ..] => at += 3,
            _ => return false,
        }
    }
    true
}

//! What is wrong with a message that could not be parsed, and what of it can still be answered.

use super::respond::raw_lines;
use crate::header::scan::{TOKEN, all, is_word};
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
    /// On a stream: the Content-Length makes the message longer than [`crate::limits::MESSAGE_LEN_MAX`]: 413.
    BodyTooLong,
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
            Self::BodyTooLong => 413,
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
            Self::Missing(HeaderName::ContentLength) => "Missing Content-Length",
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
            Self::BodyTooLong => "Request Entity Too Large",
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
    /// What can be read nevertheless.
    pub partial: Partial<'a>,
}

impl<'a> ParseError<'a> {
    /// `kind` is wrong with the datagram `bytes`.
    #[cold]
    pub(crate) const fn new(kind: Malformed, bytes: &'a [u8]) -> Self {
        Self { kind, partial: Partial { bytes } }
    }
}

impl std::fmt::Display for ParseError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for ParseError<'_> {}

/// A malformed message, from which what an answer must repeat can perhaps be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial<'a> {
    bytes: &'a [u8],
}

impl<'a> Partial<'a> {
    /// Whether this is a request other than ACK whose top Via, From, To, Call-ID and CSeq (its number may be too large) can be
    /// read: then, and only then, it may be answered (RFC 3261 §8.2.6.2; §17: an ACK is never answered).
    #[must_use]
    pub fn can_respond(&self) -> bool {
        self.read().is_some()
    }

    /// The top Via, if the message may be answered.
    #[must_use]
    pub fn via(&self) -> Option<Via<'a>> {
        Some(self.read()?.via)
    }

    /// What an answer must repeat, if the message may be answered. Slow, and only run on messages that are malformed.
    #[cold]
    pub(super) fn read(&self) -> Option<Repeated<'a>> {
        let start = self.bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
        let bytes = &self.bytes[start..];
        let head = &bytes[..memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 2)];
        let method = &head[..memchr::memchr(b' ', head)?];
        if !all(method, TOKEN) || method == b"ACK" {
            return None;
        }
        let (mut via, mut from, mut to, mut call_id, mut cseq) = (None, None, None, None, None);
        for (name, value) in raw_lines(head) {
            let slot = match name {
                HeaderName::From => &mut from,
                HeaderName::To => &mut to,
                HeaderName::CallId => &mut call_id,
                HeaderName::CSeq => &mut cseq,
                // Further Vias are repeated as they are, but not with stray line breaks in them.
                HeaderName::Via if via.is_some() && is_clean(value) => continue,
                HeaderName::Via => &mut via,
                _ => continue,
            };
            if slot.is_some() || !is_clean(value) {
                return None;
            }
            *slot = Some(value);
        }
        NameAddr::parse(from?).ok()?;
        let has_tag = NameAddr::parse(to?).ok()?.tag().is_some();
        // RFC 4475 §3.1.2.4: a CSeq whose number is too large is answered with 400; the answer repeats it as it is.
        let (_, cseq_method) = CSeq::split(cseq?).ok()?;
        if cseq_method == b"ACK" || !is_word(call_id?) {
            return None;
        }
        let via = Via::parse_at(via?, 0).ok()?.0;
        Some(Repeated { head, via, from: from?, to: to?, has_tag, call_id: call_id?, cseq: cseq? })
    }
}

/// The parts of a malformed request that its answer repeats.
pub(super) struct Repeated<'a> {
    /// The bytes from the start line to the end of the head, or to the end of the datagram.
    pub head: &'a [u8],
    /// The top Via.
    pub via: Via<'a>,
    /// The raw From value.
    pub from: &'a [u8],
    /// The raw To value.
    pub to: &'a [u8],
    /// Whether To has a tag.
    pub has_tag: bool,
    /// The raw Call-ID value.
    pub call_id: &'a [u8],
    /// The raw CSeq value.
    pub cseq: &'a [u8],
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

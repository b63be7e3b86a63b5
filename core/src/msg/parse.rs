//! The parser: one pass over the head, no allocation.

use super::error::{Malformed, ParseError};
use super::{Message, Method, Start};
use crate::header::chunk::{Block, Marks};
use crate::header::line::{HeadLines, head_lines};
use crate::header::scan::{TOKEN, is_word, number_saturating, skip, word_end};
use crate::header::{CSeq, Event, HeaderName, Index, MediaType, NameAddr, Via};
use crate::limits::{HEADERS_MAX, MESSAGE_LEN_MAX};

/// Parses the SIP message in a datagram (RFC 3261 §7, §18.3).
///
/// Line breaks in front of the start line are skipped (RFC 3261 §7.5); bytes behind the body are ignored.
///
/// # Errors
/// [`ParseError`] when the bytes are no SIP message; it knows what is needed to answer a bad request.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, ParseError<'_>> {
    let bad = |kind| ParseError::new(kind, bytes);
    let bad_value = |name| bad(Malformed::Bad(name));
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(bad(Malformed::TooLong));
    }
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    if at == bytes.len() {
        return Err(bad(Malformed::Empty));
    }
    let mut lines = head_lines(bytes, at);
    let end = lines.start_line_end().map_err(bad)?;
    let start = start_line(&bytes[at..end]).map_err(bad)?;
    let headers_at = lines.at();

    let mut index = Index::new();
    let (head_end, folded) = index_lines(lines, &mut index).map_err(bad)?;
    let body = &bytes[head_end..];

    let (via, _) = Via::parse_at(required(bytes, &index, HeaderName::Via)?, 0)
        .map_err(|_| bad_value(HeaderName::Via))?;
    let from = NameAddr::parse(required(bytes, &index, HeaderName::From)?)
        .map_err(|_| bad_value(HeaderName::From))?;
    let to =
        NameAddr::parse(required(bytes, &index, HeaderName::To)?).map_err(|_| bad_value(HeaderName::To))?;
    let call_id = required(bytes, &index, HeaderName::CallId)?;
    if !is_word(call_id) {
        return Err(bad_value(HeaderName::CallId));
    }
    let cseq = required(bytes, &index, HeaderName::CSeq)?;
    let cseq = match start {
        Start::Request { method, method_text, .. } => match CSeq::parse_of(cseq, method, method_text) {
            Some(cseq) => cseq,
            None => {
                let cseq = CSeq::parse(cseq).map_err(|_| bad_value(HeaderName::CSeq))?;
                if method_text != cseq.method_text {
                    return Err(bad(Malformed::CSeqMethod));
                }
                cseq
            }
        },
        Start::Response { .. } => CSeq::parse(cseq).map_err(|_| bad_value(HeaderName::CSeq))?,
    };
    let max_forwards = match index.first(bytes, HeaderName::MaxForwards) {
        None => None,
        Some(text) => Some(number_saturating(text).map_err(|_| bad_value(HeaderName::MaxForwards))?),
    };
    if index.first(bytes, HeaderName::Event).is_some_and(|text| Event::parse(text).is_err()) {
        return Err(bad_value(HeaderName::Event));
    }
    if index.first(bytes, HeaderName::ContentType).is_some_and(|text| MediaType::parse(text).is_err()) {
        return Err(bad_value(HeaderName::ContentType));
    }
    let content_length = content_length(bytes, &index).map_err(bad)?;
    let body = match content_length {
        None => body,
        Some(len) => body.get(..len as usize).ok_or_else(|| bad(Malformed::BodyTruncated))?,
    };
    let headers_at = headers_at as u16;
    Ok(Message {
        bytes,
        body,
        start,
        via,
        from,
        to,
        call_id,
        cseq,
        max_forwards,
        content_length,
        headers_at,
        folded,
        index,
    })
}

/// Reads the header lines into the index. Tells where the head ends and whether there is a fold in any line.
///
/// Apart from the rest, because the loop then has the registers for itself.
#[inline(never)]
fn index_lines(
    mut lines: HeadLines<'_, impl Fn(Block) -> Marks + Copy>,
    index: &mut Index,
) -> Result<(usize, bool), Malformed> {
    let mut count = 0;
    while let Some(line) = lines.next()? {
        count += 1;
        if count > HEADERS_MAX {
            return Err(Malformed::TooManyHeaders);
        }
        if !index.add(&line) && line.name.is_single() {
            return Err(Malformed::Duplicate(line.name));
        }
    }
    Ok((lines.at() + 2, lines.folded()))
}

/// Parses a line without its CRLF as a request line or a status line.
fn start_line(line: &[u8]) -> Result<Start<'_>, Malformed> {
    let method_end = skip(line, 0, TOKEN);
    match line.get(method_end) {
        Some(b' ') if method_end != 0 => {}
        Some(b'/') => return status_line(line),
        _ => return Err(Malformed::StartLine),
    }
    let method_text = &line[..method_end];
    let uri_end = word_end(line, method_end + 1);
    if uri_end == method_end + 1 || line.get(uri_end) != Some(&b' ') {
        return Err(Malformed::StartLine);
    }
    let uri = &line[method_end + 1..uri_end];
    let version = &line[uri_end + 1..];
    if version != VERSION {
        check_version(version)?;
    }
    if uri[0] == b'<' {
        return Err(Malformed::StartLine);
    }
    Ok(Start::Request { method: Method::of(method_text), method_text, uri })
}

/// Parses a status line.
fn status_line(line: &[u8]) -> Result<Start<'_>, Malformed> {
    let space = memchr::memchr(b' ', line).ok_or(Malformed::StartLine)?;
    let (version, rest) = (&line[..space], &line[space + 1..]);
    if version != VERSION {
        check_version(version)?;
    }
    let (code, reason) = match rest {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9'] => ([*a, *b, *c], &[][..]),
        // RFC 3261 §25.1: the space is there even when the phrase is empty, but some leave it out.
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err(Malformed::StartLine),
    };
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    Ok(Start::Response { code, reason })
}

/// Whether `text` is our version in odd spelling, another version, or none at all.
#[cold]
fn check_version(text: &[u8]) -> Result<(), Malformed> {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    match text.split_at_checked(4) {
        _ if text.eq_ignore_ascii_case(VERSION) => Ok(()),
        Some((sip, number)) if sip.eq_ignore_ascii_case(b"SIP/") => {
            match number.iter().position(|&b| b == b'.') {
                Some(dot) if digits(&number[..dot]) && digits(&number[dot + 1..]) => Err(Malformed::Version),
                _ => Err(Malformed::StartLine),
            }
        }
        _ => Err(Malformed::StartLine),
    }
}

/// The only version (RFC 3261 §7.1: compared without case).
const VERSION: &[u8] = b"SIP/2.0";

/// The first value of a header that every message has.
#[inline(always)]
fn required<'a>(bytes: &'a [u8], index: &Index, name: HeaderName) -> Result<&'a [u8], ParseError<'a>> {
    index.first(bytes, name).ok_or_else(|| ParseError::new(Malformed::Missing(name), bytes))
}

/// The value all Content-Length lines agree on.
#[inline]
fn content_length(bytes: &[u8], index: &Index) -> Result<Option<u32>, Malformed> {
    let Some(first) = index.first(bytes, HeaderName::ContentLength) else { return Ok(None) };
    let read = |text| number_saturating(text).map_err(|_| Malformed::Bad(HeaderName::ContentLength));
    let agreed = read(first)?;
    if index.is_repeated(HeaderName::ContentLength) {
        for text in index.lines(bytes, HeaderName::ContentLength) {
            if read(text)? != agreed {
                return Err(Malformed::Duplicate(HeaderName::ContentLength));
            }
        }
    }
    Ok(Some(agreed))
}

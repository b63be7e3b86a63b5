//! The parser: one pass over the head, no allocation.

use arrayvec::ArrayVec;

use super::error::{Malformed, ParseError, Partial};
use super::{Message, Method, Start};
use crate::header::name::{fold, mask};
use crate::header::scan::{CALL_ID, TOKEN, WS, all, is, number_saturating, skip};
use crate::header::{CSeq, Event, HeaderName, Line, MediaType, NameAddr, Via};
use crate::limits::{HEADERS_MAX, MESSAGE_LEN_MAX};

/// Parses the SIP message in a datagram (RFC 3261 §7, §18.3).
///
/// Line breaks in front of the start line are skipped (RFC 3261 §7.5); bytes behind the body are ignored.
///
/// # Errors
/// [`ParseError`] when the bytes are no SIP message; it holds what is needed to answer a bad request.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, ParseError<'_>> {
    match read(bytes) {
        Ok(message) => Ok(message),
        Err(kind) => Err(ParseError { kind, partial: Partial::read(bytes) }),
    }
}

/// Parses, and says no more about a bad message than what is wrong.
#[inline]
fn read(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(Malformed::TooLong);
    }
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    if at == bytes.len() {
        return Err(Malformed::Empty);
    }
    let end = line_end(bytes, at)?;
    let start = start_line(&bytes[at..end])?;
    at = end + 2;

    let mut lines = ArrayVec::<Line, HEADERS_MAX>::new();
    let mut first = [0; HeaderName::COUNT];
    loop {
        match bytes.get(at) {
            None => return Err(Malformed::Unterminated),
            Some(b'\r') if bytes.get(at + 1) == Some(&b'\n') => {
                at += 2;
                break;
            }
            Some(_) => {}
        }
        let (name, name_len, value_at) = header_name(bytes, at)?;
        let mut end = line_end(bytes, value_at)?;
        let next = loop {
            match bytes.get(end + 2) {
                Some(b' ' | b'\t') => end = line_end(bytes, end + 3)?,
                _ => break end + 2,
            }
        };
        let value_start = skip(bytes, value_at, WS).min(end);
        while end > value_start && is(bytes[end - 1], WS) {
            end -= 1;
        }
        // The message is no longer than 65,535 bytes, so every position fits.
        let line = Line {
            name,
            name_len,
            name_start: at as u16,
            value_start: value_start as u16,
            value_end: end as u16,
        };
        lines.try_push(line).map_err(|_| Malformed::TooManyHeaders)?;
        let slot = &mut first[name as usize];
        if *slot == 0 {
            *slot = lines.len() as u8;
        } else if name.is_single() {
            return Err(Malformed::Duplicate(name));
        }
        at = next;
    }

    let value = |name: HeaderName| {
        let index = usize::from(first[name as usize]).checked_sub(1)?;
        Some(lines[index].value(bytes))
    };
    let must = |name: HeaderName| value(name).ok_or(Malformed::Missing(name));
    let (via, _) = Via::parse_at(must(HeaderName::Via)?, 0).map_err(|_| Malformed::Bad(HeaderName::Via))?;
    let from = NameAddr::parse(must(HeaderName::From)?).map_err(|_| Malformed::Bad(HeaderName::From))?;
    let to = NameAddr::parse(must(HeaderName::To)?).map_err(|_| Malformed::Bad(HeaderName::To))?;
    let call_id = must(HeaderName::CallId)?;
    if !all(call_id, CALL_ID) {
        return Err(Malformed::Bad(HeaderName::CallId));
    }
    let cseq = CSeq::parse(must(HeaderName::CSeq)?).map_err(|_| Malformed::Bad(HeaderName::CSeq))?;
    if let Start::Request { method_text, .. } = start
        && method_text != cseq.method_text
    {
        return Err(Malformed::CSeqMethod);
    }
    let max_forwards = match value(HeaderName::MaxForwards) {
        None => None,
        Some(text) => Some(number_saturating(text).map_err(|_| Malformed::Bad(HeaderName::MaxForwards))?),
    };
    if value(HeaderName::Event).is_some_and(|text| Event::parse(text).is_err()) {
        return Err(Malformed::Bad(HeaderName::Event));
    }
    if value(HeaderName::ContentType).is_some_and(|text| MediaType::parse(text).is_err()) {
        return Err(Malformed::Bad(HeaderName::ContentType));
    }
    let rest = &bytes[at..];
    let (content_length, body) = match value(HeaderName::ContentLength) {
        None => (None, rest),
        Some(_) => {
            let len = content_length(bytes, &lines, first[HeaderName::ContentLength as usize])?;
            (Some(len), rest.get(..len as usize).ok_or(Malformed::BodyTruncated)?)
        }
    };
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
        first,
        lines,
    })
}

/// The position of the CRLF that ends the line from `at` on.
#[inline]
fn line_end(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let rest = bytes.get(at..).unwrap_or_default();
    let len = memchr::memchr3(b'\r', b'\n', 0, rest).ok_or(Malformed::Unterminated)?;
    match rest[len..] {
        [b'\r', b'\n', ..] => Ok(at + len),
        _ => Err(Malformed::LineBreak),
    }
}

/// Parses a line without its CRLF as a request line or a status line.
fn start_line(line: &[u8]) -> Result<Start<'_>, Malformed> {
    if let Some((version, rest)) = line.split_at_checked(VERSION.len())
        && rest.first() == Some(&b' ')
        && is_version(version)
    {
        return status_line(version, &rest[1..]);
    }
    let method_end = skip(line, 0, TOKEN);
    let method_text = &line[..method_end];
    let rest = &line[method_end..];
    let uri_len = memchr::memchr(b' ', rest.get(1..).unwrap_or_default()).ok_or(Malformed::StartLine)?;
    if method_text.is_empty() || rest[0] != b' ' || uri_len == 0 {
        return Err(Malformed::StartLine);
    }
    let uri = &rest[1..=uri_len];
    let version = &rest[uri_len + 2..];
    if !all(uri, crate::header::scan::URI) || !is_version(version) {
        return Err(Malformed::StartLine);
    }
    if !version.eq_ignore_ascii_case(VERSION) {
        return Err(Malformed::Version);
    }
    Ok(Start::Request { method: Method::of(method_text), method_text, uri })
}

/// Parses what follows `SIP/2.0` and a space in a status line.
fn status_line<'a>(version: &[u8], rest: &'a [u8]) -> Result<Start<'a>, Malformed> {
    let (code, reason) = match rest {
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9'] => ([*a, *b, *c], &[][..]),
        // RFC 3261 §25.1: the space is there even when the phrase is empty, but some leave it out.
        [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err(Malformed::StartLine),
    };
    if !version.eq_ignore_ascii_case(VERSION) {
        return Err(Malformed::Version);
    }
    let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    Ok(Start::Response { code, reason })
}

/// Whether `text` is some SIP version: `SIP/`, digits, a dot, digits.
fn is_version(text: &[u8]) -> bool {
    let Some((sip, number)) = text.split_at_checked(4) else { return false };
    let Some(dot) = number.iter().position(|&byte| byte == b'.') else { return false };
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    sip.eq_ignore_ascii_case(b"SIP/") && digits(&number[..dot]) && digits(&number[dot + 1..])
}

/// The only version (RFC 3261 §7.1: compared without case).
const VERSION: &[u8] = b"SIP/2.0";

/// Reads the header name at `at` and its colon: the header, the length of its name, and the position behind the colon.
#[inline]
fn header_name(bytes: &[u8], at: usize) -> Result<(HeaderName, u8, usize), Malformed> {
    if let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let text = u128::from_le_bytes(*chunk);
        let len = first_colon(text);
        if len < 16 && len > 0 {
            let known = HeaderName::of_key(len, (text & mask(len)) | fold(len));
            if known != HeaderName::Other {
                return Ok((known, len as u8, at + len + 1));
            }
        }
    }
    header_name_slow(bytes, at)
}

/// [`header_name`] for names that are long, unknown, near the end, or followed by white space.
fn header_name_slow(bytes: &[u8], at: usize) -> Result<(HeaderName, u8, usize), Malformed> {
    let end = skip(bytes, at, TOKEN);
    let mut colon = end;
    // RFC 3261 §25.1 `HCOLON`: spaces and tabs, but no fold, may stand in front of the colon.
    while let Some(b' ' | b'\t') = bytes.get(colon) {
        colon += 1;
    }
    let Ok(name_len @ 1..) = u8::try_from(end - at) else { return Err(Malformed::HeaderLine) };
    match bytes.get(colon) {
        Some(b':') => Ok((HeaderName::of(&bytes[at..end]), name_len, colon + 1)),
        None => Err(Malformed::Unterminated),
        Some(_) => Err(Malformed::HeaderLine),
    }
}

/// The index of the first colon among the sixteen bytes of `text`, little-endian, or 16.
#[inline]
fn first_colon(text: u128) -> usize {
    const ONES: u128 = u128::from_le_bytes([0x01; 16]);
    const HIGHS: u128 = u128::from_le_bytes([0x80; 16]);
    const COLONS: u128 = u128::from_le_bytes([b':'; 16]);
    // The lowest byte that is zero is found exactly; a borrow can only deceive about bytes above it.
    let zero_at_colon = text ^ COLONS;
    let found = zero_at_colon.wrapping_sub(ONES) & !zero_at_colon & HIGHS;
    (found.trailing_zeros() / 8) as usize
}

/// The value all Content-Length lines agree on; `first` is the index of the first one plus one.
#[inline]
fn content_length(bytes: &[u8], lines: &[Line], first: u8) -> Result<u32, Malformed> {
    let mut agreed = None;
    for line in lines[usize::from(first) - 1..].iter().filter(|line| line.name == HeaderName::ContentLength) {
        let len =
            number_saturating(line.value(bytes)).map_err(|_| Malformed::Bad(HeaderName::ContentLength))?;
        if *agreed.get_or_insert(len) != len {
            return Err(Malformed::Duplicate(HeaderName::ContentLength));
        }
    }
    agreed.ok_or(Malformed::Missing(HeaderName::ContentLength))
}

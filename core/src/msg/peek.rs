//! Cheap looks at a datagram that tell who must handle it, without parsing the rest.
//!
//! They answer `None` rather than guess, and never more than the full parser would: what they give is what
//! [`super::parse`] gives for a message it accepts, and whoever owns the message parses it in full.

use super::Method;
use crate::header::line::{Line, is_empty_line, line_end};
use crate::header::scan::{TOKEN, skip};
use crate::header::{HeaderName, Via};

/// The branch of the topmost Via of a response; `None` for requests and for responses without one.
#[must_use]
pub fn peek_response_branch(bytes: &[u8]) -> Option<&[u8]> {
    if let Some(branch) = super::answer::first_branch(bytes) {
        return Some(branch);
    }
    let head = head(bytes);
    if !head.get(..4)?.eq_ignore_ascii_case(b"SIP/") {
        return None;
    }
    let value = value(head, HeaderName::Via)?;
    Via::parse_at(value, 0).ok()?.0.branch()
}

/// The branch of the topmost Via of a request.
#[must_use]
pub fn peek_request_branch(bytes: &[u8]) -> Option<&[u8]> {
    Via::parse_at(peek_header(bytes, HeaderName::Via)?, 0).ok()?.0.branch()
}

/// Method and Request-URI of a request; `None` for responses.
#[must_use]
pub fn peek_request(bytes: &[u8]) -> Option<(Method, &[u8])> {
    let head = head(bytes);
    let method = &head[..skip(head, 0, TOKEN)];
    let rest = head[method.len()..].strip_prefix(b" ")?;
    let uri = &rest[..memchr::memchr(b' ', rest)?];
    if method.is_empty() || uri.is_empty() || !rest[uri.len()..].get(1..5)?.eq_ignore_ascii_case(b"SIP/") {
        return None;
    }
    Some((Method::of(method), uri))
}

/// The Call-ID, which names the owner of a dialog's messages.
#[must_use]
pub fn peek_call_id(bytes: &[u8]) -> Option<&[u8]> {
    peek_header(bytes, HeaderName::CallId)
}

/// The raw value of the first line of a header.
#[must_use]
pub fn peek_header(bytes: &[u8], name: HeaderName) -> Option<&[u8]> {
    value(head(bytes), name)
}

/// `bytes` without the line breaks in front of the start line.
pub(crate) fn head(bytes: &[u8]) -> &[u8] {
    let mut head = bytes;
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    head
}

/// The value of the first line of `name`.
fn value(head: &[u8], name: HeaderName) -> Option<&[u8]> {
    let mut at = line_end(head, 0).ok()? + 2;
    while !is_empty_line(head, at).ok()? {
        let line = Line::read(head, at).ok()?;
        if line.name == name {
            return Some(&head[line.value_start..line.value_end]);
        }
        at = line.next;
    }
    None
}

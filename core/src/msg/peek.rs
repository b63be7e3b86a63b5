//! Cheap looks at a datagram that tell who must handle it, without parsing the rest.
//!
//! They answer `None` rather than guess, and never more than the full parser would: what they give is what
//! [`super::parse`] gives for a message it accepts, and whoever owns the message parses it in full.

use super::Method;
use crate::header::line::{Line, folded_end, is_empty_line, line_end};
use crate::header::scan::{TOKEN, skip};
use crate::header::{CSeq, HeaderName, NameAddr, Via};
use crate::limits::MESSAGE_LEN_MAX;

/// What a plain 2xx says; see [`peek_answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainAnswer<'a> {
    /// The status, 200 to 299.
    pub status: u16,
    /// The branch of the topmost Via.
    pub branch: &'a [u8],
    /// The sequence number in CSeq.
    pub cseq: u32,
    /// The method in CSeq.
    pub method: Method,
    /// The Call-ID.
    pub call_id: &'a [u8],
    to: &'a [u8],
}

impl<'a> PlainAnswer<'a> {
    /// The tag in To, which is that of whoever answers.
    #[must_use]
    pub fn to_tag(&self) -> Option<&'a [u8]> {
        NameAddr::parse(self.to).ok()?.tag()
    }
}

/// Reads a response that says nothing but that it succeeded: 2xx without Contact and without body, written as nearly
/// everybody writes one. It costs a fraction of [`parse`](super::parse()), which is to decide about whatever gets `None` here.
///
/// From and the header fields that an answer to a NOTIFY has no use for are not looked at, so this may read an answer that
/// the full parser refuses; what both read they read alike.
#[must_use]
pub fn peek_answer(bytes: &[u8]) -> Option<PlainAnswer<'_>> {
    let [tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' ' | b'\r', ..] = bytes.strip_prefix(b"SIP/2.0 2")? else {
        return None;
    };
    if bytes.len() > MESSAGE_LEN_MAX {
        return None;
    }
    let status = 200 + 10 * u16::from(tens - b'0') + u16::from(ones - b'0');
    let (mut branch, mut cseq, mut call_id, mut to) = (None, None, None, None);
    let mut at = line_end(bytes, STATUS_LEN).ok()? + 2;
    loop {
        // The first letter says whether the line may be one of those that matter.
        match bytes.get(at)? | 0x20 {
            b'c' | b'i' | b'l' | b'm' | b't' | b'v' => {
                let line = Line::read(bytes, at).ok()?;
                let value = &bytes[line.value_start..line.value_end];
                match line.name {
                    HeaderName::Via if branch.is_none() => {
                        branch = Some(Via::parse_at(value, 0).ok()?.0.branch()?)
                    }
                    HeaderName::To if to.is_none() => to = Some(value),
                    HeaderName::CallId if call_id.is_none() => call_id = Some(value),
                    HeaderName::CSeq if cseq.is_none() => cseq = Some(CSeq::parse(value).ok()?),
                    HeaderName::ContentLength if value == b"0" => {}
                    HeaderName::To
                    | HeaderName::CallId
                    | HeaderName::CSeq
                    | HeaderName::Contact
                    | HeaderName::ContentLength => return None,
                    _ => {}
                }
                at = line.next;
            }
            CR_OR_MINUS if bytes[at] == b'\r' => break,
            _ => at = folded_end(bytes, at).ok()?.1,
        }
    }
    if bytes.get(at + 1) != Some(&b'\n') {
        return None;
    }
    let cseq = cseq?;
    Some(PlainAnswer {
        status,
        branch: branch?,
        cseq: cseq.number,
        method: cseq.method,
        call_id: call_id?,
        to: to?,
    })
}

/// Length of `SIP/2.0 200`.
const STATUS_LEN: usize = 11;
/// What a CR becomes when it is made a small letter.
const CR_OR_MINUS: u8 = b'\r' | 0x20;

/// The branch of the topmost Via of a response; `None` for requests and for responses without one.
#[must_use]
pub fn peek_response_branch(bytes: &[u8]) -> Option<&[u8]> {
    let head = head(bytes);
    if !head.get(..4)?.eq_ignore_ascii_case(b"SIP/") {
        return None;
    }
    let value = value(head, HeaderName::Via)?;
    Via::parse_at(value, 0).ok()?.0.branch()
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
fn head(bytes: &[u8]) -> &[u8] {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::parse;

    const PLAIN: &str = "SIP/2.0 200 Ok\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK~0a0000002a12345678;rport=5060\r\n\
        From: <sip:user@example.com>;tag=~0a0123456789abcdef\r\nTo: \"W, 1\" <sip:watcher@example.com>;tag=wT1\r\n\
        Call-ID: abc@def\r\nCSeq: 17 NOTIFY\r\nUser-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\n\
        Supported: replaces, outbound, gruu, path\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn a_plain_answer_is_read_as_the_parser_reads_it() {
        let compact = PLAIN
            .replace("Via:", "v:")
            .replace("To:", "t:")
            .replace("Call-ID:", "i :")
            .replace("CSeq:", "cseq:")
            .replace("Content-Length:", "l:");
        let folded = PLAIN.replace(": ", ":\r\n ").replacen(":\r\n ", ": ", 1);
        let two_vias = PLAIN.replace("From:", "Via: SIP/2.0/UDP other;branch=b\r\nFrom:");
        let without_length = PLAIN.replace("Content-Length: 0\r\n", "");
        for text in [PLAIN, &compact, &folded, &two_vias, &without_length, &PLAIN.replace("200 Ok", "202 ")] {
            let read = peek_answer(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            let message = parse(text.as_bytes()).unwrap();
            assert_eq!(Some(read.status), message.status());
            assert_eq!(Some(read.branch), message.via().branch());
            assert_eq!((read.cseq, read.method), (message.cseq().number, message.cseq().method));
            assert_eq!(read.call_id, message.call_id());
            assert_eq!(read.to_tag(), message.to().tag());
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser() {
        let changed = |from: &str, to: &str| {
            assert!(PLAIN.contains(from));
            PLAIN.replace(from, to)
        };
        for text in [
            changed("200", "100"),
            changed("200", "481"),
            changed("200", "2000"),
            changed("SIP/2.0 200", "sip/2.0 200"),
            changed("SIP/2.0 200 Ok", "NOTIFY sip:a@b SIP/2.0"),
            changed("SIP/2.0 200", "\r\nSIP/2.0 200"),
            changed("From:", "Contact: <sip:a@b>\r\nFrom:"),
            changed("From:", "m: <sip:a@b>\r\nFrom:"),
            changed("From:", "CSeq: 17 NOTIFY\r\nFrom:"),
            changed("From:", "t: <sip:a@b>\r\nFrom:"),
            changed("From:", "i: abc@def\r\nFrom:"),
            changed("From:", "l: 3\r\nFrom:"),
            changed("Content-Length: 0\r\n\r\n", "Content-Length: 1\r\n\r\nx"),
            changed("branch=", "brunch="),
            changed("Via:", "Vio:"),
            changed("17 NOTIFY", "NOTIFY"),
            changed("CSeq", "CSeg"),
            changed("To:", "Two:"),
            changed("Call-ID", "Call-IT"),
            changed("path\r\n", "path\n"),
            changed("path\r\n", "path\0\r\n"),
        ] {
            assert_eq!(peek_answer(text.as_bytes()), None, "{text}");
        }
        for len in 0..PLAIN.len() {
            assert_eq!(peek_answer(&PLAIN.as_bytes()[..len]), None, "{len}");
        }
        let long = changed("path", &"path, ".repeat(MESSAGE_LEN_MAX / 6));
        assert_eq!(peek_answer(long.as_bytes()), None);
    }
}

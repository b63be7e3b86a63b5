//! Writing responses, and where they go (RFC 3261 §8.2.6, §18.2; RFC 3581 §4).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::write::{Writer, push_number, push_unfolded};
use super::{Message, Partial};
use crate::header::scan::{TOKEN, ipv4, skip, trim};
use crate::header::{HeaderName, Rport, Via};
use crate::overload::Feedback;
use crate::uri::push_ipv4;

/// Writes the beginning of a response to `request` that came from `source`: status line, all Vias, From, To, Call-ID
/// and CSeq, with folds undone.
///
/// The top Via gets `received` and a filled-in `rport` as RFC 3261 §18.2.1 and RFC 3581 §4 say; what the sender had put
/// there is dropped. To gets `to_tag` if it has no tag. The caller adds further headers, Content-Length and the end.
pub fn respond<'v>(
    out: &'v mut Vec<u8>,
    request: &Message<'_>,
    code: u16,
    reason: &str,
    to_tag: Option<&[u8]>,
    source: SocketAddr,
) -> Writer<'v> {
    Writer::new(out).status_line(code, reason);
    push_vias(out, request, source, None);
    push_ids(out, request, to_tag)
}

/// Writes all Vias of a response to `request` that came from `source`, the top one completed. A client that takes part in overload
/// control is told `feedback` there (RFC 7339 §5.2); tells whether it was.
pub fn push_vias(
    out: &mut Vec<u8>,
    request: &Message<'_>,
    source: SocketAddr,
    feedback: Option<Feedback>,
) -> bool {
    let mut top = Some(request.via());
    let mut tells = false;
    for line in request.via_lines() {
        tells |= push_via_line(out, line, top.take(), source, request.folded, feedback);
    }
    tells
}

/// Writes what a response repeats of `request` behind the Vias: From, To, Call-ID and CSeq. To gets `to_tag` if it has no tag.
pub fn push_ids<'v>(out: &'v mut Vec<u8>, request: &Message<'_>, to_tag: Option<&[u8]>) -> Writer<'v> {
    let folds = request.folded;
    out.extend_from_slice(b"From: ");
    push(out, request.from().raw(), folds);
    out.extend_from_slice(b"\r\nTo: ");
    push(out, request.to().raw(), folds);
    if let Some(tag) = to_tag
        && request.to().tag().is_none()
    {
        out.extend_from_slice(b";tag=");
        push_unfolded(out, tag);
    }
    out.extend_from_slice(b"\r\nCall-ID: ");
    push(out, request.call_id(), folds);
    let cseq = request.cseq();
    out.extend_from_slice(b"\r\nCSeq: ");
    push_number(out, u64::from(cseq.number));
    out.push(b' ');
    out.extend_from_slice(cseq.method_text);
    out.extend_from_slice(b"\r\n");
    Writer::new(out)
}

/// Appends a value of a request; without `folds` it has no line break.
#[inline]
fn push(out: &mut Vec<u8>, value: &[u8], folds: bool) {
    if folds {
        push_unfolded(out, value);
    } else {
        out.extend_from_slice(value);
    }
}

/// Writes a complete response without body to a request that could not be parsed, and tells whether it did: nothing is
/// written unless [`Partial::can_respond`].
pub fn respond_malformed(
    out: &mut Vec<u8>,
    partial: &Partial<'_>,
    code: u16,
    reason: &str,
    source: SocketAddr,
) -> bool {
    let Some(repeated) = partial.read() else { return false };
    Writer::new(out).status_line(code, reason);
    let mut top = Some(&repeated.via);
    for (_, value) in raw_lines(repeated.head).filter(|(name, _)| *name == HeaderName::Via) {
        push_via_line(out, value, top.take(), source, true, None);
    }
    let mut writer = Writer::new(out);
    writer.header("From", repeated.from);
    if repeated.has_tag {
        writer.header("To", repeated.to);
    } else {
        // RFC 3261 §8.2.6.2 wants a tag; a constant one will do for a request that makes no dialog.
        writer.header_parts("To", &[repeated.to, b";tag=malformed"]);
    }
    writer.header("Call-ID", repeated.call_id).header("CSeq", repeated.cseq).end_without_body();
    true
}

/// Where the response to a request from `source` with top Via `via` goes over UDP (RFC 3261 §18.2.2, RFC 3581 §4).
///
/// Always to the host the request came from, at its source port if it asked for that, else at the port of sent-by, by
/// default 5060. `maddr` is not honoured: it would let anybody aim answers at others.
#[must_use]
pub fn response_destination(via: &Via<'_>, source: SocketAddr) -> SocketAddr {
    match via.rport() {
        Rport::Absent => SocketAddr::new(source.ip(), via.port().unwrap_or(5060)),
        Rport::Asked | Rport::Port(_) => source,
    }
}

/// Writes one Via line. If its first value is the top Via, that is completed from `source`. Tells whether `feedback` stands in it.
pub(crate) fn push_via_line(
    out: &mut Vec<u8>,
    line: &[u8],
    top: Option<&Via<'_>>,
    source: SocketAddr,
    folds: bool,
    feedback: Option<Feedback>,
) -> bool {
    out.extend_from_slice(b"Via: ");
    let mut tells = false;
    match top {
        None => push(out, line, folds),
        Some(via) => {
            tells = push_top_via(out, via, source, folds, feedback);
            push(out, &line[via.raw().len()..], folds);
        }
    }
    out.extend_from_slice(b"\r\n");
    tells
}

/// Writes the top Via with `received` and `rport` as the server's transport must set them, and the parameters of overload
/// control if the client takes part in it; tells whether it does.
fn push_top_via(
    out: &mut Vec<u8>,
    via: &Via<'_>,
    source: SocketAddr,
    folds: bool,
    feedback: Option<Feedback>,
) -> bool {
    let asked = via.rport() != Rport::Absent;
    let mut told = None;
    if !folds && let Some(plain) = via.usual_without_rport() {
        // What nearly every phone sends is not taken apart once more.
        out.extend_from_slice(plain);
    } else {
        told = feedback.filter(|_| via.takes_part());
        push_sent_via(out, via, folds, told.is_some());
    }
    // RFC 3261 §18.2.1: `received` is added when the host of sent-by is a name or another address than the source's;
    // RFC 3581 §4: with `rport` it is added always.
    if asked || host_ip(via.host()) != Some(source.ip()) {
        push_received(out, source.ip());
    }
    if asked {
        out.extend_from_slice(b";rport=");
        push_number(out, u64::from(source.port()));
    }
    if let Some(feedback) = told {
        feedback.push(out);
    }
    told.is_some()
}

/// Writes a Via without `received` and `rport`; without the parameters of overload control where they are written anew.
fn push_sent_via(out: &mut Vec<u8>, via: &Via<'_>, folds: bool, tells: bool) {
    push(out, via.head(), folds);
    for param in via.params() {
        if param.name.eq_ignore_ascii_case(b"received") || param.name.eq_ignore_ascii_case(b"rport") {
            continue;
        }
        if tells && Feedback::is_parameter(param.name) {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(param.name);
        if let Some(value) = param.value {
            out.push(b'=');
            push(out, value, folds);
        }
    }
}

/// Appends `received`, an IPv6 address without brackets.
fn push_received(out: &mut Vec<u8>, ip: IpAddr) {
    out.extend_from_slice(b";received=");
    match ip {
        IpAddr::V4(ip) => push_ipv4(ip, out),
        IpAddr::V6(ip) => write!(out, "{ip}").expect("a Vec takes all that is written"),
    }
}

/// The address that `host` is, if it is one.
fn host_ip(host: &[u8]) -> Option<IpAddr> {
    match host.strip_prefix(b"[") {
        Some(text) => std::str::from_utf8(text.strip_suffix(b"]")?).ok()?.parse().ok().map(IpAddr::V6),
        None => ipv4(host).map(IpAddr::V4),
    }
}

/// The header lines that can be made out in `head`, which begins with a start line: name and raw value. Lines that are
/// none are left out; the list ends at an empty line.
pub(super) fn raw_lines(head: &[u8]) -> impl Iterator<Item = (HeaderName, &[u8])> {
    let mut at = crlf(head, 0) + 2;
    std::iter::from_fn(move || {
        loop {
            let line = head.get(at..)?;
            if line.is_empty() || line.starts_with(b"\r\n") {
                return None;
            }
            let mut end = crlf(head, at);
            while let Some(b' ' | b'\t') = head.get(end + 2) {
                end = crlf(head, end + 2);
            }
            let line = &head[at..end];
            at = end + 2;
            let name = &line[..skip(line, 0, TOKEN)];
            let after = &line[name.len()..];
            let colon = after.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
            if let Some(colon) = colon
                && after[colon] == b':'
                && !name.is_empty()
            {
                return Some((HeaderName::of(name), trim(&after[colon + 1..])));
            }
        }
    })
}

/// The position of the next CRLF from `at` on, or the end.
fn crlf(bytes: &[u8], at: usize) -> usize {
    memchr::memchr_iter(b'\n', &bytes[at..])
        .map(|found| at + found)
        .find(|&found| found > at && bytes[found - 1] == b'\r')
        .map_or(bytes.len(), |found| found - 1)
}

//! A datagram is parsed, peeked at, written again and answered.

use std::net::SocketAddr;

use comsipl_core::header::HeaderName;
use comsipl_core::limits::{HEADERS_MAX, MESSAGE_LEN_MAX};
use comsipl_core::msg::{
    Malformed, Message, Method, Start, Writer, parse, peek, plain_answer, respond, respond_malformed,
};

/// Where datagrams come from.
const SOURCE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 77)), 5070);

/// Checks one datagram.
pub fn hold(bytes: &[u8]) {
    // The looks that take less than parsing take any bytes.
    let _ = (peek::peek_request(bytes), peek::peek_call_id(bytes), peek::peek_response_branch(bytes));
    let _ = plain_answer(bytes);
    let message = match parse(bytes) {
        Ok(message) => message,
        Err(error) => {
            let mut out = Vec::new();
            let answered = respond_malformed(&mut out, &error.partial, error.kind.status(), "Bad", SOURCE);
            assert_eq!(answered, error.partial.can_respond());
            match parse(&out) {
                Ok(answer) => assert_eq!(answer.status(), Some(error.kind.status())),
                // Only an overlarge CSeq is repeated although it is malformed.
                Err(bad) if answered => assert_eq!(bad.kind, Malformed::Bad(HeaderName::CSeq)),
                Err(bad) => assert_eq!(bad.kind, Malformed::Empty),
            }
            return;
        }
    };
    peeks_agree(bytes, &message);
    lists_agree(&message);
    written_again(&message);
    answered(&message);
}

/// The looks that take less than parsing see what the parser sees.
fn peeks_agree(bytes: &[u8], message: &Message<'_>) {
    match message.start() {
        Start::Request { method, uri, .. } => {
            assert_eq!(peek::peek_request(bytes), Some((method, uri)));
            assert_eq!(peek::peek_response_branch(bytes), None);
            assert_eq!(peek::peek_request_branch(bytes), message.via().branch());
        }
        Start::Response { .. } => {
            assert_eq!(peek::peek_request(bytes), None);
            assert_eq!(peek::peek_response_branch(bytes), message.via().branch());
        }
    }
    assert_eq!(peek::peek_call_id(bytes), Some(message.call_id()));
    assert_eq!(peek::peek_header(bytes, HeaderName::To), Some(message.to().raw()));
    if let Some(plain) = plain_answer(bytes) {
        assert!(matches!(message.status(), Some(200..300)));
        assert_eq!(Some(plain.branch), message.via().branch());
        assert_eq!((plain.cseq, Method::Notify), (message.cseq().number, message.cseq().method));
        assert!(message.body().is_empty() && !message.has(HeaderName::Contact));
    }
}

/// Fields are found by name as they are found one after another, and typed views can be asked for.
fn lists_agree(message: &Message<'_>) {
    assert!(message.headers().count() <= HEADERS_MAX);
    for (name, _) in message.headers() {
        let text = std::str::from_utf8(name).expect("names are tokens, and tokens are ASCII");
        assert!(message.header(text).is_some(), "{text}");
        let known = HeaderName::of(name);
        if known != HeaderName::Other {
            let listed = message.headers().filter(|(text, _)| HeaderName::of(text) == known).count();
            assert_eq!(message.lines(known).count(), listed, "{text}");
        }
    }
    assert_eq!(message.vias().count(), message.via_count());
    assert_eq!(message.vias().next().and_then(Result::ok).map(|via| via.raw()), Some(message.via().raw()));
    for contact in message.contacts().flatten() {
        let _ = (contact.uri(), contact.expires(), contact.q());
    }
    let _ = (message.accept().q("a/b"), message.expires(), message.retry_after(), message.content_type());
}

/// What was read says the same when it is written anew.
fn written_again(message: &Message<'_>) {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    match message.start() {
        Start::Request { method_text, uri, .. } => {
            writer.request_line(std::str::from_utf8(method_text).expect("a token"), uri);
        }
        Start::Response { code, reason } => {
            let Ok(reason) = std::str::from_utf8(reason) else { return };
            writer.status_line(code, reason);
        }
    }
    for (name, value) in message.headers() {
        writer.header(std::str::from_utf8(name).expect("a token"), value);
    }
    writer.end();
    out.extend_from_slice(message.body());
    if out.len() > MESSAGE_LEN_MAX {
        return;
    }
    let read = parse(&out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()));
    match (read.start(), message.start()) {
        (Start::Response { code, .. }, Start::Response { code: first, .. }) => assert_eq!(code, first),
        (again, first) => assert_eq!(again, first),
    }
    assert_eq!(read.body(), message.body());
    assert_eq!(read.call_id(), message.call_id());
    assert_eq!((read.cseq(), read.max_forwards()), (message.cseq(), message.max_forwards()));
    for (again, first) in [(read.from(), message.from()), (read.to(), message.to())] {
        assert_eq!((again.uri(), again.tag()), (first.uri(), first.tag()));
        assert_eq!(unfolded(again.display()), unfolded(first.display()));
    }
    let (again, first) = (read.via(), message.via());
    assert_eq!((again.host(), again.port(), again.branch()), (first.host(), first.port(), first.branch()));
    assert_eq!((again.transport(), again.rport()), (first.transport(), first.rport()));
    assert_eq!(read.via_count(), message.via_count());
    let fields = |message: &Message<'_>| {
        message.headers().map(|(name, value)| (name.to_vec(), unfolded(value))).collect::<Vec<_>>()
    };
    assert_eq!(fields(&read), fields(message));
    assert_eq!(read.contacts().flatten().count(), message.contacts().flatten().count());
}

/// A request's answer can be read, and repeats what it must (RFC 3261 §8.2.6.2).
fn answered(message: &Message<'_>) {
    if message.method().is_none() {
        return;
    }
    let mut out = Vec::new();
    respond(&mut out, message, 200, "OK", Some(b"t"), SOURCE).content_length(0).end();
    if out.len() > MESSAGE_LEN_MAX {
        return;
    }
    let answer = parse(&out).unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()));
    assert_eq!((answer.cseq(), answer.call_id()), (message.cseq(), message.call_id()));
    assert_eq!(answer.via_count(), message.via_count());
    assert_eq!(answer.via().branch(), message.via().branch());
    assert_eq!((answer.from().uri(), answer.from().tag()), (message.from().uri(), message.from().tag()));
    assert_eq!(answer.to().tag(), message.to().tag().or(Some(b"t")));
}

/// A value with its white space, folds among it, as single spaces (RFC 3261 §7.3.1).
fn unfolded(value: &[u8]) -> Vec<u8> {
    let words = value.split(|byte| b" \t\r\n".contains(byte)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

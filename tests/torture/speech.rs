//! How the tests speak.

use std::net::SocketAddr;

use comsipl_core::msg::{Malformed, Message, parse, respond_malformed};

/// A request that nothing is wrong with, lines ended by LF.
pub(super) fn base() -> String {
    "OPTIONS sip:bob@example.net SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKtort\nMax-Forwards: 70\n\
     From: <sip:alice@example.org>;tag=f1\nTo: <sip:bob@example.net>\nCall-ID: torture@192.0.2.7\nCSeq: 1 OPTIONS\n\
     Content-Length: 0\n\n"
        .into()
}

/// [`base`] with further header lines.
pub(super) fn with(lines: &str) -> String {
    base().replace("\n\n", &format!("\n{lines}\n\n"))
}

/// A response with this status line, but for the version.
pub(super) fn response(line: &str) -> String {
    base().replace("OPTIONS sip:bob@example.net SIP/2.0\n", &format!("SIP/2.0 {line}\n"))
}

/// The bytes of a message whose lines end in LF here.
pub(super) fn wire(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// Parses a message that must be well-formed.
pub(super) fn read(bytes: &[u8]) -> Message<'_> {
    parse(bytes).unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()))
}

/// Holds a message to be refused for this reason, and a request to be answered or not.
pub(super) fn refused(text: &str, kind: Malformed, answered: bool) -> Malformed {
    let bytes = wire(text);
    let error = match parse(&bytes) {
        Ok(message) => panic!("read, but it must not be: {message:?}"),
        Err(error) => error,
    };
    assert_eq!(error.kind, kind, "{text}");
    assert_eq!(error.partial.can_respond(), answered, "{text}");
    let mut out = Vec::new();
    let reason = error.kind.reason_phrase();
    assert_eq!(respond_malformed(&mut out, &error.partial, error.kind.status(), reason, source()), answered);
    if answered {
        assert_eq!(read(&out).status(), Some(error.kind.status()), "{text}");
    } else {
        assert!(out.is_empty());
    }
    error.kind
}

/// Where the requests come from.
pub(super) fn source() -> SocketAddr {
    "198.51.100.9:40000".parse().expect("an address")
}

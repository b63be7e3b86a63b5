//! Only what may be answered is answered, and with what an answer must repeat.

use std::net::SocketAddr;

use comsipl_core::header::{HeaderName, Rport};
use comsipl_core::msg::{Malformed, Start, parse, peek, respond, respond_malformed, response_destination};

use super::speech::{base, read, refused, response, source, wire, with};

/// RFC 5626 §3.5.1: keep-alives, and what else arrives on an open port.
#[test]
fn noise_is_never_answered() {
    for noise in [
        &b""[..],
        b"\r\n",
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"jaK",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x80\x00\x01\x02",
    ] {
        let error = parse(noise).unwrap_err();
        assert!(!error.partial.can_respond(), "{}", noise.escape_ascii());
    }
    assert_eq!(parse(b"\r\n\r\n").unwrap_err().kind, Malformed::Empty);
}

/// RFC 3261 §17.1.1.3: an ACK is never answered, however malformed; nor is a response.
#[test]
fn acks_and_responses_are_never_answered() {
    refused(
        &base().replace("OPTIONS", "ACK").replace("Max-Forwards: 70", "Max-Forwards: x"),
        Malformed::Bad(HeaderName::MaxForwards),
        false,
    );
    refused(
        &response("200 OK").replace("Content-Length: 0", "Content-Length: x"),
        Malformed::Bad(HeaderName::ContentLength),
        false,
    );
}

/// RFC 3261 §8.2.6.2, §18.2.1: what an answer repeats, with folds undone and the top Via completed.
#[test]
fn answers_repeat_what_they_must() {
    let bytes = wire(
        &base()
            .replace(
                "192.0.2.7:5060;branch=z9hG4bKtort",
                "pc.example:5070\n ;branch=z9hG4bKtort, SIP/2.0/UDP second;x",
            )
            .replace("Max-Forwards", "v: SIP/2.0/TCP third\nMax-Forwards")
            .replace("To: <", "To: Bob\n <"),
    );
    let mut out = Vec::new();
    let request = read(&bytes);
    respond(&mut out, &request, 200, "OK", Some(b"mine"), source()).content_length(0).end();
    assert_eq!(
        out.escape_ascii().to_string(),
        wire(
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP pc.example:5070;branch=z9hG4bKtort;received=198.51.100.9, SIP/2.0/UDP second;x\n\
             Via: SIP/2.0/TCP third\nFrom: <sip:alice@example.org>;tag=f1\nTo: Bob <sip:bob@example.net>;tag=mine\n\
             Call-ID: torture@192.0.2.7\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n"
        )
        .escape_ascii()
        .to_string()
    );
    assert_eq!(response_destination(request.via(), source()), "198.51.100.9:5070".parse().unwrap());
    let answer = read(&out);
    assert_eq!(peek::peek_response_branch(&out), Some(&b"z9hG4bKtort"[..]));
    assert_eq!(answer.via_count(), 3);
}

/// RFC 3581 §4: `rport` is filled in with the source port, and `received` with it; a forged `received` is dropped.
#[test]
fn rport_is_filled_in_and_received_cannot_be_forged() {
    for (params, expected) in [
        (";rport;branch=b", ";branch=b;received=198.51.100.9;rport=40000"),
        (";rport=1;received=203.0.113.1;branch=b", ";branch=b;received=198.51.100.9;rport=40000"),
        (";received=203.0.113.1;branch=b", ";branch=b;received=198.51.100.9"),
        (";branch=b;maddr=203.0.113.1", ";branch=b;maddr=203.0.113.1;received=198.51.100.9"),
    ] {
        let bytes = wire(&base().replace(";branch=z9hG4bKtort", params));
        let request = read(&bytes);
        let mut out = Vec::new();
        respond(&mut out, &request, 200, "OK", None, source()).content_length(0).end();
        let answer = read(&out);
        assert_eq!(answer.via().params().raw().escape_ascii().to_string(), expected);
        assert_eq!(answer.to().tag(), None);
        let port = if request.via().rport() == Rport::Absent { 5060 } else { 40000 };
        assert_eq!(response_destination(request.via(), source()), SocketAddr::new(source().ip(), port));
    }
}

/// RFC 3261 §18.2.1: no `received` when sent-by is the very address the request came from.
#[test]
fn received_is_left_out_when_it_tells_nothing() {
    let source: SocketAddr = "192.0.2.7:9".parse().unwrap();
    let bytes = wire(&base());
    let mut out = Vec::new();
    respond(&mut out, &read(&bytes), 200, "OK", None, source).end();
    assert_eq!(parse(&out).unwrap().via().raw(), b"SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKtort");
}

/// RFC 3261 §21.4.1: a 400 is a whole message, with the Vias of the bad request and a tag in To.
#[test]
fn a_malformed_request_gets_a_well_formed_answer() {
    let bytes = wire(&with("v: SIP/2.0/UDP second\nthis is no header"));
    let error = parse(&bytes).unwrap_err();
    let mut out = Vec::new();
    let kind = error.kind;
    assert!(respond_malformed(&mut out, &error.partial, kind.status(), kind.reason_phrase(), source()));
    let answer = read(&out);
    assert_eq!(answer.start(), Start::Response { code: 400, reason: b"Malformed Header Line" });
    assert!(answer.to().tag().is_some());
    assert_eq!(answer.via_count(), 2);
    assert_eq!(answer.via().received(), Some(&b"198.51.100.9"[..]));
    assert_eq!((answer.call_id(), answer.cseq().number), (&b"torture@192.0.2.7"[..], 1));
}

/// A malformed request whose own Via would carry a line break into the answer is not answered.
#[test]
fn an_answer_carries_no_stray_line_break() {
    let bytes =
        base().replace('\n', "\r\n").replace("UDP 192.0.2.7", "UDP 192.0.2.7;x=\nContact: <sip:evil>;y=");
    let error = parse(bytes.as_bytes()).unwrap_err();
    assert!(!error.partial.can_respond());
    assert!(!respond_malformed(&mut Vec::new(), &error.partial, 400, "Bad Request", source()));
}

/// A Call-ID of two words makes a request malformed; the answer once repeated it and was malformed itself.
#[test]
fn a_malformed_call_id_is_not_repeated() {
    refused(&base().replace("torture@", "torture @"), Malformed::Bad(HeaderName::CallId), false);
    refused(&base().replace("torture@192.0.2.7", ""), Malformed::Bad(HeaderName::CallId), false);
}

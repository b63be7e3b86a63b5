//! How long does it take to read a SIP message?
//!
//! `frame` is [`comsipl_core::msg::parse`] alone: all header lines found and named, top Via, From, To, Call-ID, CSeq and
//! Max-Forwards read and checked. `used` adds what the server reads of such a message.

use std::hint::black_box;

use comsipl_core::msg::{Message, parse, peek, plain_answer};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(benches, read, peek_owner);
criterion_main!(benches);

/// Whole messages.
fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, bytes, used) in [
        ("subscribe", subscribe(), subscribe_used as Used),
        ("publish", publish(), publish_used),
        ("200", ok(), ok_used),
    ] {
        let len = bytes.len();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new(format!("{name}/frame"), len), |b| {
            b.iter(|| parse(black_box(&bytes)).is_ok());
        });
        group.bench_function(BenchmarkId::new(format!("{name}/used"), len), |b| {
            b.iter(|| used(&parse(black_box(&bytes)).expect("the message is well-formed")));
        });
    }
    group.finish();
}

/// What decides whose message it is, and all that is read of a plain answer to a NOTIFY.
fn peek_owner(c: &mut Criterion) {
    let (subscribe, ok) = (subscribe(), ok());
    let mut group = c.benchmark_group("peek");
    group.throughput(Throughput::Elements(1));
    group.bench_function("request", |b| b.iter(|| peek::peek_request(black_box(&subscribe))));
    group.bench_function("call_id", |b| b.iter(|| peek::peek_call_id(black_box(&subscribe))));
    group.bench_function("response_branch", |b| b.iter(|| peek::peek_response_branch(black_box(&ok))));
    group.bench_function("answer", |b| b.iter(|| plain_answer(black_box(&ok))));
    group.finish();
}

/// Reads what the server uses of a message, so that it cannot be left out.
type Used = fn(&Message<'_>) -> usize;

fn subscribe_used(message: &Message<'_>) -> usize {
    let contact = message.contacts().next().and_then(Result::ok).and_then(|contact| contact.uri());
    contact.map_or(0, <[u8]>::len)
        + message.expires().and_then(Result::ok).unwrap_or(0) as usize
        + message.event().and_then(|event| event.id()).map_or(1, <[u8]>::len)
        + usize::from(message.accept().allows("application/pidf+xml"))
        + usize::from(message.supported("eventlist"))
        + message.record_routes().count()
        + message.require().count()
        + message.user_agent().map_or(0, <[u8]>::len)
}

fn publish_used(message: &Message<'_>) -> usize {
    message.expires().and_then(Result::ok).unwrap_or(0) as usize
        + usize::from(message.event().is_some_and(|event| event.is("presence")))
        + usize::from(message.content_type().is_some_and(|media| media.is("application/pidf+xml")))
        + message.content_encoding().count()
        + message.if_match().map_or(0, <[u8]>::len)
        + message.require().count()
        + message.body().len()
}

fn ok_used(message: &Message<'_>) -> usize {
    usize::from(message.status().unwrap_or(0))
        + message.via().branch().map_or(0, <[u8]>::len)
        + message.to().tag().map_or(0, <[u8]>::len)
        + message.call_id().len()
        + message.cseq().number as usize
}

/// A SUBSCRIBE as a softphone behind a NAT sends it.
fn subscribe() -> Vec<u8> {
    let message = "SUBSCRIBE sip:alice.cooper@presence.example.net SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.168.1.141:5060;branch=z9hG4bK.nMQZ4~bJDw;rport\r\n\
        From: \"Bob Baker\" <sip:bob.baker@example.net>;tag=HBXjpj6ITa\r\n\
        To: <sip:alice.cooper@presence.example.net>\r\n\
        CSeq: 20 SUBSCRIBE\r\n\
        Call-ID: R3BFg0WqhB-7741@192.168.1.141\r\n\
        Max-Forwards: 70\r\n\
        Supported: replaces, outbound, gruu, path, eventlist\r\n\
        Event: presence\r\n\
        Expires: 3600\r\n\
        Contact: <sip:bob.baker@192.168.1.141:5060;transport=udp>\r\n\
        Accept: application/pidf+xml, application/xpidf+xml\r\n\
        User-Agent: LinphoneAndroid/5.2.5 (Pixel 8) LinphoneSDK/5.3.47\r\n\
        Content-Length: 0\r\n\r\n";
    sized(message.into(), 600)
}

/// A PUBLISH with a document of a softphone.
fn publish() -> Vec<u8> {
    let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <presence xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
        xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" entity=\"sip:51234@10.0.0.27\" \
        xmlns=\"urn:ietf:params:xml:ns:pidf\">\n <tuple id=\"n5z2og\">\n  <status>\n   <basic>open</basic>\n  </status>\n  \
        <contact priority=\"0.8\">sip:51234@10.0.0.27</contact>\n  <timestamp>2023-12-17T16:45:04Z</timestamp>\n \
        </tuple>\n</presence>\n";
    let message = format!(
        "PUBLISH sip:51234@10.0.0.27 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 10.0.0.141:5060;branch=z9hG4bK.-~bJDwuuV;rport\r\n\
        From: <sip:51234@10.0.0.27>;tag=HBXjpj6IT\r\n\
        To: sip:51234@10.0.0.27\r\n\
        CSeq: 20 PUBLISH\r\n\
        Call-ID: R3BFg0WqhB\r\n\
        Max-Forwards: 70\r\n\
        Supported: replaces, outbound, gruu, path, record-aware\r\n\
        Event: presence\r\n\
        Content-Type: application/pidf+xml\r\n\
        Content-Length: {}\r\n\
        Expires: 3600\r\n\
        SIP-If-Match: dx200xyz\r\n\
        User-Agent: LinphoneAndroid/5.1.4 (moto g power 5G - 2023) LinphoneSDK/5.2.110\r\n\r\n{document}",
        document.len()
    );
    sized(message.into(), 900)
}

/// The answer to a NOTIFY.
fn ok() -> Vec<u8> {
    let message = "SIP/2.0 200 OK\r\n\
        Via: SIP/2.0/UDP 10.0.0.27:5060;branch=z9hG4bK-d1e4c983-07;rport=5060\r\n\
        From: <sip:51234@10.0.0.27>;tag=as7b1c2d3e\r\n\
        To: \"Bob Baker\" <sip:51112@10.0.0.27>;tag=rnzgcHBXjpj6\r\n\
        Call-ID: uyyucrjijinwadl-7741@192.168.1.141\r\n\
        CSeq: 633 NOTIFY\r\n\
        User-Agent: LinphoneAndroid/5.2.5 (Pixel 8) LinphoneSDK/5.3.47\r\n\
        Content-Length: 0\r\n\r\n";
    sized(message.into(), 350)
}

/// Holds a message to the size that its results are quoted with.
fn sized(message: Vec<u8>, about: usize) -> Vec<u8> {
    assert!(message.len().abs_diff(about) <= about / 20, "{} bytes are not about {about}", message.len());
    assert!(
        parse(&message).is_ok_and(|message| message.max_forwards().is_some() || message.status().is_some())
    );
    message
}

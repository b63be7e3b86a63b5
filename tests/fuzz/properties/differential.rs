//! A datagram is read by our parser and by that of `sipx-sip`: what both accept they have read alike.
//!
//! What only one of them accepts is not compared, since each may be stricter than the other. Where both accept a message no
//! difference is known; one that is legal would be left out here, with its section of the RFC.

use bytes::Bytes;
use comsipl_core::msg::{Start, parse};
use sipx_sip::{CSeq, CallId, HeaderName, Limits, Message, Via, headers};

/// Checks one datagram.
pub fn hold(bytes: &[u8]) {
    let Ok(ours) = parse(bytes) else { return };
    let Ok(theirs) = sipx_sip::parse_datagram(Bytes::copy_from_slice(bytes), &Limits::datagram()) else {
        return;
    };
    match (ours.start(), &theirs) {
        (Start::Request { method_text, uri, .. }, Message::Request(request)) => {
            assert_eq!(method_text, request.method.as_bytes());
            assert_eq!(lower(uri), lower(&request.uri.to_bytes()), "Request-URI");
        }
        (Start::Response { code, .. }, Message::Response(response)) => {
            assert_eq!(code, response.status.code());
        }
        (start, theirs) => panic!("{start:?} is {theirs:?}"),
    }
    assert_eq!(ours.body(), &theirs.body()[..], "body");
    let fields = theirs.headers();
    if let Some(Ok(CallId(call_id))) = fields.typed::<CallId>() {
        assert_eq!(ours.call_id(), &call_id[..], "Call-ID");
    }
    if let Some(Ok(cseq)) = fields.typed::<CSeq>() {
        assert_eq!(ours.cseq().number, cseq.sequence, "CSeq");
        assert_eq!(ours.cseq().method_text, cseq.method.as_bytes(), "CSeq");
    }
    if let Some(Ok(via)) = fields.typed_all::<Via>().next() {
        assert_eq!(ours.via().branch(), via.branch(), "branch");
        assert_eq!(ours.via().port(), via.port, "port of sent-by");
        assert_eq!(lower(ours.via().transport()), lower(&via.transport), "transport");
    }
    for (name, ours) in [(HeaderName::From, ours.from()), (HeaderName::To, ours.to())] {
        let Some(value) = fields.value(&name) else { panic!("{name:?} is not there") };
        let Ok(theirs) = headers::Address::parse(&value, "address") else { continue };
        assert_eq!(ours.tag(), theirs.tag(), "tag of {name:?}");
        assert_eq!(lower(ours.uri()), lower(&theirs.uri.to_bytes()), "URI of {name:?}");
    }
}

fn lower(text: &[u8]) -> Vec<u8> {
    text.to_ascii_lowercase()
}

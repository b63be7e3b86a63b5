//! What is malformed is refused, and named.

use comsipl_core::header::HeaderName;
use comsipl_core::limits::{HEADERS_MAX, MESSAGE_LEN_MAX};
use comsipl_core::msg::{Malformed, Method, parse, respond_malformed};
use comsipl_core::uri::Uri;

use super::speech::{base, read, refused, response, source, wire, with};

/// RFC 4475 §3.1.2.1: separators without anything between them.
#[test]
fn extra_separators_are_refused() {
    refused(&base().replace(";branch", ";;branch"), Malformed::Bad(HeaderName::Via), false);
    refused(&base().replace("tag=f1", "tag=f1;"), Malformed::Bad(HeaderName::From), false);
    let bytes = wire(&with("Contact: \"Erin\" <sip:erin@example.org>;;"));
    assert!(read(&bytes).contacts().next().unwrap().is_err());
}

/// RFC 4475 §3.1.2.2: Content-Length beyond the datagram.
#[test]
fn a_truncated_body_is_refused() {
    refused(&base().replace("Content-Length: 0", "Content-Length: 9999"), Malformed::BodyTruncated, true);
    refused(
        &base().replace("Content-Length: 0", "Content-Length: 4294967296"),
        Malformed::BodyTruncated,
        true,
    );
}

/// RFC 4475 §3.1.2.3: a negative Content-Length.
#[test]
fn a_negative_content_length_is_refused() {
    for value in ["-1", "", "0x0", "0 0", "0,0"] {
        let text = base().replace("Content-Length: 0", &format!("Content-Length: {value}"));
        refused(&text, Malformed::Bad(HeaderName::ContentLength), true);
    }
}

/// RFC 4475 §3.1.2.4: a CSeq beyond 2^31-1 (RFC 3261 §8.1.1.5) gets a 400 that repeats it as it is; what is no CSeq at
/// all gets none.
#[test]
fn an_overlarge_cseq_is_refused() {
    for number in ["18446744073709551617", "2147483648"] {
        let bytes = wire(&base().replace("1 OPTIONS", &format!("{number} OPTIONS")));
        let error = parse(&bytes).unwrap_err();
        assert_eq!(error.kind, Malformed::Bad(HeaderName::CSeq));
        let mut out = Vec::new();
        assert!(respond_malformed(&mut out, &error.partial, 400, "Bad Request", source()));
        assert!(String::from_utf8(out).unwrap().contains(&format!("\r\nCSeq: {number} OPTIONS\r\n")));
    }
    for cseq in ["-1 OPTIONS", "OPTIONS", "1", "1 OPTIONS x", "one OPTIONS"] {
        refused(&base().replace("1 OPTIONS", cseq), Malformed::Bad(HeaderName::CSeq), false);
    }
    let bytes = wire(&base().replace("1 OPTIONS", "2147483647 OPTIONS"));
    assert_eq!(read(&bytes).cseq().number, 2_147_483_647);
}

/// RFC 4475 §3.1.2.5: the same in a response, which is dropped.
#[test]
fn an_overlarge_cseq_in_a_response_is_dropped() {
    let text = response("503 Service Unavailable").replace("1 OPTIONS", "18446744073709551617 OPTIONS");
    refused(&text, Malformed::Bad(HeaderName::CSeq), false);
}

/// RFC 4475 §3.1.2.6: a quote that is never closed.
#[test]
fn an_open_quote_is_refused() {
    refused(&base().replace("To: <", "To: \"Erin <"), Malformed::Bad(HeaderName::To), false);
}

/// RFC 4475 §3.1.2.7: angle brackets around the Request-URI.
#[test]
fn brackets_around_the_request_uri_are_refused() {
    refused(
        &base().replace("sip:bob@example.net SIP", "<sip:bob@example.net> SIP"),
        Malformed::StartLine,
        true,
    );
}

/// RFC 4475 §3.1.2.8: white space within the Request-URI.
#[test]
fn a_space_in_the_request_uri_is_refused() {
    refused(
        &base().replace("sip:bob@example.net SIP", "sip:bob@example.net; lr SIP"),
        Malformed::StartLine,
        true,
    );
    refused(
        &base().replace("sip:bob@example.net SIP", "sip:bob@example.net;\tlr SIP"),
        Malformed::StartLine,
        true,
    );
}

/// RFC 4475 §3.1.2.9: more than one space between the parts of the request line.
#[test]
fn several_spaces_in_the_request_line_are_refused() {
    refused(&base().replace("OPTIONS sip", "OPTIONS  sip"), Malformed::StartLine, true);
    refused(&base().replace("net SIP", "net  SIP"), Malformed::StartLine, true);
    refused(&base().replace("OPTIONS sip", " OPTIONS sip"), Malformed::StartLine, false);
}

/// RFC 4475 §3.1.2.10: a space at the end of the request line.
#[test]
fn a_space_behind_the_version_is_refused() {
    refused(&base().replace("SIP/2.0\n", "SIP/2.0 \n"), Malformed::StartLine, true);
}

/// RFC 4475 §3.1.2.14: spaces within angle brackets.
#[test]
fn spaces_within_brackets_are_refused() {
    refused(
        &base().replace("<sip:bob@example.net>", "< sip:bob@example.net >"),
        Malformed::Bad(HeaderName::To),
        false,
    );
}

/// RFC 4475 §3.1.2.15: a comma in a display name without quotes.
#[test]
fn a_comma_in_a_bare_display_name_is_refused() {
    refused(&base().replace("From: <", "From: Frost, Erin <"), Malformed::Bad(HeaderName::From), false);
}

/// RFC 4475 §3.1.2.16: another version of the protocol: 505.
#[test]
fn another_version_is_refused_with_505() {
    let kind = refused(&base().replace("net SIP/2.0", "net SIP/7.0"), Malformed::Version, true);
    assert_eq!(kind.status(), 505);
    refused(&response("200 OK").replace("SIP/2.0 200", "SIP/7.0 200"), Malformed::Version, false);
    refused(&base().replace("net SIP/2.0", "net HTTP/1.1"), Malformed::StartLine, true);
    let bytes = wire(&base().replace("net SIP/2.0", "net sip/2.0"));
    assert_eq!(read(&bytes).method(), Some(Method::Options));
}

/// RFC 4475 §3.1.2.17, §3.1.2.18: a CSeq of another method, known or not.
#[test]
fn a_cseq_of_another_method_is_refused() {
    refused(&base().replace("1 OPTIONS", "1 INVITE"), Malformed::CSeqMethod, true);
    refused(&base().replace("OPTIONS sip", "WAVE sip"), Malformed::CSeqMethod, true);
    refused(&base().replace("1 OPTIONS", "1 options"), Malformed::CSeqMethod, true);
}

/// RFC 4475 §3.1.2.19: a status code that is none.
#[test]
fn odd_status_codes_are_dropped() {
    for line in ["4294967496 wrapped", "99 x", "700 x", "0200 OK", "20x OK", "2000 OK", "", " 200 OK"] {
        refused(&response(line), Malformed::StartLine, false);
    }
}

/// RFC 4475 §3.3.1: headers that must be there (RFC 3261 §8.1.1).
#[test]
fn missing_headers_are_refused() {
    for (name, header) in [
        ("Via", HeaderName::Via),
        ("From", HeaderName::From),
        ("To", HeaderName::To),
        ("Call-ID", HeaderName::CallId),
        ("CSeq", HeaderName::CSeq),
    ] {
        refused(&base().replace(&format!("\n{name}:"), "\nX-Not:"), Malformed::Missing(header), false);
    }
}

/// RFC 4475 §3.3.8: two lines of a header that may occur once. When one of them is needed for the answer, there is none.
#[test]
fn repeated_single_headers_are_refused() {
    for (line, header, answered) in [
        ("From: <sip:x@h>;tag=2", HeaderName::From, false),
        ("t: <sip:x@h>", HeaderName::To, false),
        ("i: other", HeaderName::CallId, false),
        ("CSeq: 1 OPTIONS", HeaderName::CSeq, false),
        ("Max-Forwards: 70", HeaderName::MaxForwards, true),
        ("Expires: 1\nExpires: 1", HeaderName::Expires, true),
        ("Event: a\no: b", HeaderName::Event, true),
        ("Content-Type: a/b\nc: a/b", HeaderName::ContentType, true),
        ("SIP-If-Match: a\nSIP-If-Match: b", HeaderName::SipIfMatch, true),
        ("Subscription-State: active\nSubscription-State: active", HeaderName::SubscriptionState, true),
    ] {
        refused(&with(line), Malformed::Duplicate(header), answered);
    }
}

/// RFC 4475 §3.3.9: Content-Lengths that differ: where one reader sees the end, another sees a second request.
#[test]
fn differing_content_lengths_are_refused() {
    refused(
        &format!("{}body", with("Content-Length: 4")),
        Malformed::Duplicate(HeaderName::ContentLength),
        true,
    );
}

/// RFC 5118 §4.2, §4.10: IPv6 addresses without brackets, and with a colon too many.
#[test]
fn broken_ipv6_references_are_refused() {
    for uri in
        ["sip:2001:db8::10", "sip:user@2001:db8::10", "sip:user@[2001:db8:::192.0.2.1]", "sip:[2001:db8::10"]
    {
        assert!(Uri::parse(uri.as_bytes()).is_err(), "{uri}");
    }
    refused(&base().replace("192.0.2.7:5060", "2001:db8::9:1"), Malformed::Bad(HeaderName::Via), false);
}

/// RFC 3261 §7: lines end in CRLF; CR, LF or NUL alone are how requests are smuggled through lenient readers.
#[test]
fn stray_line_breaks_and_nulls_are_refused() {
    for stray in ["\r", "\0", "x\rVia: SIP/2.0/UDP evil", "\\\0"] {
        let mut bytes = wire(&with("Subject: a@b"));
        let at = bytes.iter().rposition(|&byte| byte == b'@').unwrap();
        bytes.splice(at..=at, stray.bytes());
        assert_eq!(parse(&bytes).unwrap_err().kind, Malformed::LineBreak, "{stray:?}");
    }
    let lf_only = base();
    assert_eq!(parse(lf_only.as_bytes()).unwrap_err().kind, Malformed::LineBreak);
    let one_lf = base().replace('\n', "\r\n").replace("70\r\n", "70\n");
    assert_eq!(parse(one_lf.as_bytes()).unwrap_err().kind, Malformed::LineBreak);
    let in_the_start_line = base().replace('\n', "\r\n").replace("net SIP", "net\nSIP");
    assert_eq!(parse(in_the_start_line.as_bytes()).unwrap_err().kind, Malformed::LineBreak);
}

/// RFC 3261 §7.3.1: what is no header line.
#[test]
fn lines_that_are_no_headers_are_refused() {
    for line in ["no colon here", ": no name", "bad name: x", "bad\tname: x", "näme: x", "\"q\": x"] {
        refused(&with(line), Malformed::HeaderLine, true);
    }
    refused(&base().replace("SIP/2.0\n", "SIP/2.0\n folded: start line\n"), Malformed::HeaderLine, true);
}

/// RFC 3261 §7: a head without its empty line, cut anywhere, is never read.
#[test]
fn cut_messages_are_refused() {
    let bytes = wire(&base());
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "cut at {len}");
    }
    assert!(parse(&bytes).is_ok());
}

/// More header lines than anybody needs.
#[test]
fn too_many_headers_are_refused() {
    let room = HEADERS_MAX - read(&wire(&base())).headers().count();
    let bytes = wire(&with("X: y\n".repeat(room).trim_end()));
    assert_eq!(read(&bytes).headers().count(), HEADERS_MAX);
    refused(&with("X: y\n".repeat(room + 1).trim_end()), Malformed::TooManyHeaders, true);
}

/// Longer than positions can tell.
#[test]
fn too_long_messages_are_refused() {
    let mut bytes = wire(&base());
    bytes.resize(MESSAGE_LEN_MAX, b' ');
    assert!(parse(&bytes).is_ok());
    bytes.push(b' ');
    let error = parse(&bytes).unwrap_err();
    assert_eq!((error.kind, error.kind.status()), (Malformed::TooLong, 513));
}

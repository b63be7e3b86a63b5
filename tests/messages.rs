//! What holds for every message, tried on generated ones: what the fuzz target `message` checks, and what is known of them besides.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use comsipl_core::Aor;
use comsipl_core::header::{NameAddr, Params, Via};
use comsipl_core::msg::{Method, Start, Writer, parse, peek, respond};
use comsipl_core::uri::Uri;

#[path = "fuzz/properties/message.rs"]
mod message;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Arbitrary bytes, with the bytes that matter to the grammar among them.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(byte(), 0..400)) {
        message::hold(&bytes);
    }

    /// Arbitrary header lines behind a head that is well-formed.
    #[test]
    fn any_header_lines_are_read_or_refused(lines in vec(byte(), 0..200)) {
        let mut bytes = SAMPLE.to_vec();
        let at = bytes.len() - 2;
        bytes.splice(at..at, lines);
        message::hold(&bytes);
    }

    /// A well-formed message with a few bytes changed, put in or taken out.
    #[test]
    fn mutated_messages_are_read_or_refused(
        which: bool,
        changes in vec((any::<Index>(), byte(), 0..4_u8), 1..8),
    ) {
        let mut bytes = if which { SAMPLE.to_vec() } else { ANSWER.to_vec() };
        for (at, byte, kind) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
        message::hold(&bytes);
    }

    /// What was written is what is read.
    #[test]
    fn what_is_written_is_read(message in any_message()) {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        let read = parse(&bytes).map_err(|error| TestCaseError::fail(format!("{error}: {}", bytes.escape_ascii())))?;
        prop_assert_eq!(read.body(), &message.body[..]);
        match &message.start {
            Ok((method, uri)) => {
                let method_text = method.as_bytes();
                let expected = Start::Request { method: Method::of(method_text), method_text, uri: uri.as_bytes() };
                prop_assert_eq!(read.start(), expected);
            }
            Err((code, reason)) => {
                prop_assert_eq!(read.start(), Start::Response { code: *code, reason: reason.as_bytes() });
            }
        }
        prop_assert_eq!(read.cseq().number, message.cseq);
        prop_assert_eq!(read.call_id(), message.call_id.as_bytes());
        prop_assert_eq!(read.from().tag(), Some(message.tag.as_bytes()));
        prop_assert_eq!(read.from().uri(), message.uri.as_bytes());
        prop_assert_eq!(read.from().display(), &message.display[..]);
        prop_assert_eq!(read.to().tag(), None);
        let branches: Vec<_> = read.vias().map(|via| via.unwrap().branch().unwrap().to_vec()).collect();
        let written: Vec<_> = message.branches.iter().flatten().map(|branch| branch.as_bytes().to_vec()).collect();
        prop_assert_eq!(read.via_count(), written.len());
        prop_assert_eq!(branches, written);
        prop_assert_eq!(read.via_lines().count(), message.branches.len());
        let others: Vec<_> = read.headers().filter(|(name, _)| name.starts_with(b"X-")).collect();
        let written: Vec<_> = message.others.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        prop_assert_eq!(others, written);
        prop_assert_eq!(peek::peek_call_id(&bytes), Some(read.call_id()));
        message::hold(&bytes);
    }

    /// Folding, spacing and lower-casing change nothing.
    #[test]
    fn spelling_does_not_matter(message in any_message(), folds in any::<u64>()) {
        let mut plain = Vec::new();
        message.write(&mut plain);
        let odd = respell(&plain, folds);
        let (plain, odd) = (parse(&plain).unwrap(), parse(&odd).map_err(|error| {
            TestCaseError::fail(format!("{error}: {}", odd.escape_ascii()))
        })?);
        prop_assert_eq!(plain.start(), odd.start());
        prop_assert_eq!(plain.from().tag(), odd.from().tag());
        prop_assert_eq!(plain.from().uri(), odd.from().uri());
        prop_assert_eq!(plain.via().branch(), odd.via().branch());
        prop_assert_eq!(plain.via_count(), odd.via_count());
        prop_assert_eq!(plain.call_id(), odd.call_id());
        prop_assert_eq!(plain.cseq(), odd.cseq());
        prop_assert_eq!(plain.body(), odd.body());
    }

    /// An answer to any request that can be read can be read, and repeats what it must.
    #[test]
    fn answers_can_be_read(message in any_message(), rport in any::<bool>(), port in 1..=u16::MAX) {
        let start = message.start.or(Ok(("OPTIONS".into(), "sip:a@h".into())));
        let message = Written { start, ..message };
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        if rport {
            let at = bytes.windows(8).position(|window| window == b";branch=").unwrap();
            bytes.splice(at..at, *b";rport");
        }
        let request = parse(&bytes).unwrap();
        let source = SocketAddr::from(([203, 0, 113, 5], port));
        let mut out = Vec::new();
        respond(&mut out, &request, 200, "OK", Some(b"t"), source).end_without_body();
        let answer = parse(&out).unwrap();
        prop_assert_eq!(answer.status(), Some(200));
        prop_assert_eq!(answer.from().raw(), request.from().raw());
        prop_assert_eq!(answer.to().tag(), Some(&b"t"[..]));
        prop_assert_eq!(answer.call_id(), request.call_id());
        prop_assert_eq!(answer.cseq(), request.cseq());
        prop_assert_eq!(answer.via_count(), request.via_count());
        prop_assert_eq!(answer.via().branch(), request.via().branch());
        prop_assert_eq!(peek::peek_response_branch(&out), request.via().branch());
        prop_assert_eq!(answer.via().received(), Some(&b"203.0.113.5"[..]));
    }

    /// Values never panic on their own, and URIs that can be read have one canonical form.
    #[test]
    fn any_value_is_read_or_refused(value in vec(byte(), 0..80), user in "[ -~]{0,20}", host in "[a-zA-Z0-9.:\\[\\]-]{0,20}") {
        let _ = (NameAddr::parse(&value), Via::parse(&value), Params::parse(&value), Uri::parse(&value));
        let text = format!("sip:{user}@{host}");
        if let Ok(uri) = Uri::parse(text.as_bytes()) {
            prop_assert!(uri.matches(&uri), "{} is itself", text);
            if let Ok(aor) = Aor::of(&uri) {
                prop_assert_eq!(Aor::from_canonical(aor.as_str()), Ok(aor));
            }
        }
    }
}

/// A message to be written.
#[derive(Clone, Debug)]
struct Written {
    start: Result<(String, String), (u16, String)>,
    /// Branches of the Vias on each Via line.
    branches: Vec<Vec<String>>,
    display: Vec<u8>,
    uri: String,
    tag: String,
    call_id: String,
    cseq: u32,
    others: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Written {
    fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        let method = match &self.start {
            Ok((method, uri)) => {
                writer.request_line(method, uri.as_bytes());
                method
            }
            Err((code, reason)) => {
                writer.status_line(*code, reason);
                "NOTIFY"
            }
        };
        for line in &self.branches {
            let vias: Vec<_> =
                line.iter().map(|branch| format!("SIP/2.0/UDP host:5062;branch={branch}")).collect();
            writer.header("Via", vias.join(", ").as_bytes());
        }
        let tag = self.tag.as_bytes();
        writer.header_parts("From", &[&self.display, b" <", self.uri.as_bytes(), b">;tag=", tag]);
        writer.header_parts("To", &[b"<", self.uri.as_bytes(), b">"]);
        writer.header("Call-ID", self.call_id.as_bytes()).cseq(self.cseq, method);
        for (name, value) in &self.others {
            writer.header(name, value.as_bytes());
        }
        writer.body(&self.body);
    }
}

/// Messages that are well-formed.
fn any_message() -> impl Strategy<Value = Written> {
    let token = "[a-zA-Z0-9.!%*_+`'~-]{1,24}";
    let uri = "sips?:[a-z0-9;?/,=+]{1,12}@[a-z]{1,8}(\\.[a-z]{1,5})?(:50[0-9]{2})?(;lr|;transport=udp)?";
    let start = prop_oneof![
        (token, uri).prop_map(Ok),
        (100..700_u16, "[ -~]{0,20}").prop_map(|(code, reason)| Err((code, reason.trim().to_owned()))),
    ];
    let display = prop_oneof![
        Just(Vec::new()),
        "[a-zA-Z0-9]{1,9}( [a-zA-Z]{1,9})?".prop_map(String::into_bytes),
        vec(select(&b" ;,<>=:\\\"tag\xe4\xff"[..]), 0..20).prop_map(quote),
    ];
    let others = vec(("X-[A-Za-z0-9-]{1,30}", "[!-~]([ -~]{0,40}[!-~])?"), 0..6);
    let branches = vec(vec(token, 1..3), 1..4);
    let head = (start, branches, display, uri, token, "[!-+\\--~]{1,30}", 0..1_u32 << 31);
    (head, others, vec(any::<u8>(), 0..40)).prop_map(
        |((start, branches, display, uri, tag, call_id, cseq), others, body)| Written {
            start,
            branches,
            display,
            uri,
            tag,
            call_id,
            cseq,
            others,
            body,
        },
    )
}

/// A quoted string that says `text`.
fn quote(text: Vec<u8>) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

/// The same message with names in another case, space around colons, and values folded where white space may stand.
fn respell(plain: &[u8], choices: u64) -> Vec<u8> {
    let head_end = plain.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut choices =
        std::iter::successors(Some(choices), |choice| Some(choice.rotate_left(5) ^ 0x9e37_79b9));
    let mut choose = |of: u64| choices.next().unwrap_or_default() % of;
    let mut out = b"\r\n".repeat(choose(3) as usize);
    for (i, line) in plain[..head_end].split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|&byte| byte == b':');
        match colon {
            Some(colon) if i > 0 => {
                let name = &line[..colon];
                match choose(3) {
                    0 => out.extend(name.iter().map(u8::to_ascii_lowercase)),
                    1 => out.extend(name.iter().map(u8::to_ascii_uppercase)),
                    _ => out.extend_from_slice(name),
                }
                out.extend_from_slice([&b":"[..], b" \t:", b":\r\n\t ", b" :   "][choose(4) as usize]);
                out.extend_from_slice(line[colon + 1..].trim_ascii_start());
                out.extend_from_slice([&b""[..], b" ", b"\r\n "][choose(3) as usize]);
            }
            _ => out.extend_from_slice(line),
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&plain[head_end + 2..]);
    out
}

/// Bytes, those that mean something to the grammar more often than others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        3 => select(&b"\r\n\r\n \t:;,=<>\"\\@?[]()/%&*.-_0159azAZ\0\x7f\x80\xff"[..]),
        1 => any::<u8>(),
    ]
}

/// An answer to a NOTIFY, as plain as most are.
const ANSWER: &[u8] = b"SIP/2.0 200 OK\r\n\
    Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK~0a;rport=5060\r\n\
    From: <sip:alice@example.net>;tag=~0a0\r\n\
    To: <sip:bob@example.net>;tag=f1\r\n\
    Call-ID: call@host\r\n\
    CSeq: 17 NOTIFY\r\n\
    Content-Length: 0\r\n\r\n";

/// A message with something of everything.
const SAMPLE: &[u8] = b"SUBSCRIBE sip:alice@example.net;p=1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bKa;rport, SIP / 2.0 / TCP host ; branch=b\r\n\
    v: SIP/2.0/UDP 192.0.2.1;received=192.0.2.2;branch=c\r\n\
    From: \"A \\\"quoted\\\" <name>;tag=x\" <sip:bob:pw@example.net?a=b>;tag=f1\r\n\
    To: sip:alice@example.net;user=phone\r\n\
    i: call@host\r\n\
    CSeq: 17 SUBSCRIBE\r\n\
    Max-Forwards: 70\r\n\
    Contact: <sip:bob@192.0.2.1:5062;transport=udp>;expires=60;q=0.7, *\r\n\
    o: presence;id=1\r\n\
    Accept: application/pidf+xml;q=0.5, */*\r\n\
    Supported: eventlist,\r\n path\r\n\
    Route: <sip:p1;lr>, <sip:p2;lr>\r\n\
    Expires: 3600\r\n\
    Content-Type: text/plain;charset=\"utf-8\"\r\n\
    Content-Length: 0\r\n\
    \r\n";

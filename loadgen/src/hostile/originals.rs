//! The messages that are damaged: what strangers' phones send.

use crate::chance::Chance;
use crate::message::{Style, USER_AGENT, decimal};
use std::io::Write as _;

/// Users of the strangers, and dialogs of each: what they leave behind in the server is bounded by these.
const USERS: usize = 500;
const DIALOGS: usize = 2;

/// Writes one message into `out`, which is emptied first.
pub fn write(out: &mut Vec<u8>, style: &Style, local: &str, chance: &mut Chance) {
    out.clear();
    let (user, dialog, cseq) = (chance.below(USERS), chance.below(DIALOGS), 1 + chance.below(1 << 20));
    let domain = &*style.domain;
    let aor = format!("sip:stranger-{user}@{domain}");
    let contact = format!("Contact: <sip:stranger-{user}@{local};transport=udp>\r\n");
    let mut body = Vec::new();
    let method =
        chance.pick(&["REGISTER", "PUBLISH", "PUBLISH", "SUBSCRIBE", "SUBSCRIBE", "answer", "other"]);
    let (uri, fields, method) = match method {
        "REGISTER" => {
            let fields = format!("{contact}Expires: 60\r\nSupported: path, outbound, gruu\r\n");
            (format!("sip:{domain}"), fields, method)
        }
        "PUBLISH" => {
            let package = chance.pick(&["presence", "presence", "dialog", "message-summary", "conference"]);
            let media_type = document(&mut body, package, &aor, chance);
            let tag = if chance.once_in(8) { "SIP-If-Match: a1b2c3\r\n" } else { "" };
            (
                aor.clone(),
                format!("Event: {package}\r\nExpires: 60\r\n{tag}Content-Type: {media_type}\r\n"),
                method,
            )
        }
        "SUBSCRIBE" => {
            let package =
                chance.pick(&["presence", "presence", "dialog", "presence.winfo", "reg", "message-summary"]);
            let watched = chance.below(USERS);
            let expires = chance.pick(&["0", "60", "60", "600"]);
            let fields = format!("{contact}Event: {package}\r\nExpires: {expires}\r\nAccept: */*\r\n");
            (format!("sip:stranger-{watched}@{domain}"), fields, method)
        }
        "answer" => return answer(out, local, domain, chance),
        _ => {
            let method = chance.pick(&["OPTIONS", "NOTIFY", "CANCEL", "ACK", "INVITE", "MESSAGE", "BYE"]);
            (aor.clone(), "Subscription-State: active;expires=9\r\nEvent: presence\r\n".to_owned(), method)
        }
    };
    // Within a dialog that nobody has, now and then.
    let tag = if chance.once_in(8) { ";tag=~0a0123456789abcdef" } else { "" };
    let _ = write!(
        out,
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{:016x};rport\r\nMax-Forwards: 70\r\n\
         From: <{aor}>;tag={user:x}\r\nTo: <{uri}>{tag}\r\nCall-ID: stranger-{user}-{dialog}-{method}\r\n\
         CSeq: {cseq} {method}\r\n{fields}User-Agent: {USER_AGENT}\r\nContent-Length: ",
        chance.next()
    );
    decimal(out, body.len() as u64);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(&body);
}

/// An answer to a NOTIFY that the server may or may not have sent.
fn answer(out: &mut Vec<u8>, local: &str, domain: &str, chance: &mut Chance) {
    let status = chance.pick(&[
        "200 OK",
        "202 Accepted",
        "481 Gone",
        "489 Bad Event",
        "503 Busy",
        "100 Trying",
        "408 -",
    ]);
    let _ = write!(
        out,
        "SIP/2.0 {status}\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK~{:02x}{:08x}{:08x}\r\n\
         From: <sip:stranger@{domain}>;tag=~{:018x}\r\nTo: <sip:stranger@{domain}>;tag=x\r\nCall-ID: {:x}\r\n\
         CSeq: {} NOTIFY\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
        chance.below(64),
        chance.below(1 << 12),
        chance.next() as u32,
        chance.next(),
        chance.next(),
        1 + chance.below(100)
    );
}

/// Appends a document of the package; tells its type.
fn document(out: &mut Vec<u8>, package: &str, aor: &str, chance: &mut Chance) -> &'static str {
    let number = chance.below(1 << 16);
    let _ = match package {
        "presence" => write!(
            out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
             xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" xmlns:r=\"urn:ietf:params:xml:ns:pidf:rpid\" \
             entity=\"{aor}\"><tuple id=\"t{number:x}\"><status><basic>open</basic></status><contact>{aor}</contact>\
             <note xml:lang=\"en\">n{number} &lt;&#65;</note><timestamp>2026-01-01T00:00:00Z</timestamp></tuple>\
             <dm:person id=\"p\"><r:activities><r:away/></r:activities></dm:person></presence>\n"
        ),
        "dialog" => write!(
            out,
            "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"{number}\" \
             state=\"full\" entity=\"{aor}\"><dialog id=\"d{number}\" direction=\"initiator\"><state>confirmed</state>\
             <remote><identity>sip:b@c</identity></remote></dialog></dialog-info>"
        ),
        "message-summary" => write!(out, "Messages-Waiting: yes\r\nVoice-Message: {number}/2 (1/0)\r\n"),
        _ => write!(
            out,
            "<conference-info xmlns=\"urn:ietf:params:xml:ns:conference-info\" entity=\"{aor}\" state=\"full\" \
             version=\"{number}\"/>"
        ),
    };
    match package {
        "presence" => "application/pidf+xml",
        "dialog" => "application/dialog-info+xml",
        "message-summary" => "application/simple-message-summary",
        _ => "application/conference-info+xml",
    }
}

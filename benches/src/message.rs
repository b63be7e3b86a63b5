//! The messages of phones, of the size and shape that a Linphone sends.

use std::net::SocketAddr;

use comsipl_core::Flow;

use crate::SERVER;

/// The flow of a phone.
#[must_use]
pub const fn flow(peer: SocketAddr) -> Flow {
    Flow::udp(0, None, peer)
}

/// The address of phone number `n`.
#[must_use]
pub fn phone(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, (n >> 14) as u8, 1 + (n >> 20) as u8], 10_000 + (n & 0x3fff) as u16))
}

/// A REGISTER of phone `n` as a Linphone sends it.
#[must_use]
pub fn register(n: usize, cseq: u32) -> Vec<u8> {
    let at = phone(n);
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK.reg{n}x{cseq};rport\r\n\
         From: <sip:user{n}@example.com>;tag=rT{n}\r\nTo: sip:user{n}@example.com\r\nCSeq: {cseq} REGISTER\r\n\
         Call-ID: reg-{n}\r\nMax-Forwards: 70\r\nSupported: replaces, outbound, gruu, path, record-aware\r\n\
         Accept: application/sdp, text/plain, application/vnd.gsma.rcs-ft-http+xml\r\n\
         Contact: <sip:user{n}@{at};transport=udp>;+sip.instance=\"<urn:uuid:8f2c6b1e-0000-4000-8000-{n:012}>\"\r\n\
         Expires: 3600\r\nUser-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A SUBSCRIBE of watcher `n` to `presentity`; `to_tag` for a refresh.
#[must_use]
pub fn subscribe(n: usize, presentity: usize, cseq: u32, to_tag: Option<&str>) -> Vec<u8> {
    let at = phone(n);
    let tag = to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
    let uri = if to_tag.is_some() { SERVER.to_owned() } else { format!("user{presentity}@example.com") };
    format!(
        "SUBSCRIBE sip:{uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK.s{n}x{presentity}x{cseq};rport\r\n\
         From: <sip:watcher{n}@example.com>;tag=wT{n}\r\nTo: <sip:user{presentity}@example.com>{tag}\r\n\
         CSeq: {cseq} SUBSCRIBE\r\nCall-ID: c{n}x{presentity}\r\nMax-Forwards: 70\r\n\
         Supported: replaces, outbound, gruu, path, record-aware\r\nEvent: presence\r\nExpires: 3600\r\n\
         Accept: application/pidf+xml\r\n\
         Contact: <sip:watcher{n}@{at};transport=udp>;+sip.instance=\"<urn:uuid:8f2c6b1e-0000-4000-8000-{n:012}>\"\r\n\
         User-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A PUBLISH of `presentity` that says `note`; `if_match` for all but the first.
#[must_use]
pub fn publish(presentity: usize, cseq: u32, if_match: Option<&str>, note: Option<&str>) -> Vec<u8> {
    let at = phone(presentity);
    let condition = if_match.map(|tag| format!("SIP-If-Match: {tag}\r\n")).unwrap_or_default();
    let body = note.map(|note| document(presentity, note)).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/pidf+xml\r\n" };
    format!(
        "PUBLISH sip:user{presentity}@example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP {at};branch=z9hG4bK.p{presentity}x{cseq};rport\r\n\
         From: <sip:user{presentity}@example.com>;tag=pT{presentity}\r\nTo: sip:user{presentity}@example.com\r\n\
         CSeq: {cseq} PUBLISH\r\nCall-ID: p{presentity}\r\nMax-Forwards: 70\r\n\
         Supported: replaces, outbound, gruu, path, record-aware\r\nEvent: presence\r\n{condition}Expires: 3600\r\n\
         {kind}User-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A document as a Linphone writes it.
#[must_use]
pub fn document(presentity: usize, note: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <presence xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
         xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
         xmlns:pidfonline=\"http://www.linphone.org/xsds/pidfonline.xsd\" \
         entity=\"sip:user{presentity}@example.com\" xmlns=\"urn:ietf:params:xml:ns:pidf\">\n \
         <tuple id=\"n5z2og\">\n  <status>\n   <basic>open</basic>\n   <pidfonline:online/>\n  </status>\n  \
         <contact priority=\"0.8\">sip:user{presentity}@example.com</contact>\n  <note>{note}</note>\n  \
         <timestamp>2023-12-17T16:45:04Z</timestamp>\n </tuple>\n</presence>\n"
    )
}

/// A request as it looks when it has come through [`PROXY`], which stays on the way of what follows.
///
/// # Panics
/// If `message` is no request of a phone.
#[must_use]
pub fn by_proxy(message: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(message).expect("requests of phones are text");
    let (first, rest) = text.split_once("\r\n").expect("a first line");
    let branch = rest.split("branch=z9hG4bK").nth(1).and_then(|rest| rest.split([';', '\r']).next());
    let branch = branch.expect("phones name a branch");
    format!(
        "{first}\r\nVia: SIP/2.0/UDP {PROXY};branch=z9hG4bK-px{branch}\r\nRecord-Route: <sip:{PROXY};lr>\r\n{rest}"
    )
    .into_bytes()
}

/// An OPTIONS, as phones and monitors ask whether the server is there.
#[must_use]
pub fn options(n: usize, cseq: u32) -> Vec<u8> {
    let at = phone(n);
    format!(
        "OPTIONS sip:{SERVER} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK.o{n}x{cseq};rport\r\n\
         From: <sip:user{n}@example.com>;tag=oT{n}\r\nTo: <sip:{SERVER}>\r\nCSeq: {cseq} OPTIONS\r\n\
         Call-ID: o{n}\r\nMax-Forwards: 70\r\nAccept: application/sdp\r\n\
         User-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The address of the proxy of [`by_proxy`].
pub const PROXY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 9)), 5060);

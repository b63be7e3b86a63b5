//! The requests that the simulated phones send, in the shape and order of headers of Linphone on Android.
//!
//! Everything is appended to a buffer that is reused; a request is a pure function of its parts, so a retransmission
//! is the same bytes again without keeping them.

mod document;
pub use document::{State, date_time, find_state, mark};

use crate::clock::Nanos;
use crate::ident::{Ident, Kind, Salt};

/// What carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams.
    #[default]
    Udp,
    /// Connections, which the phones open.
    Tcp,
}

impl Transport {
    /// Its name in Via (RFC 3261 §25.1).
    pub const fn via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }

    /// Its name in the parameter `transport` of a URI (RFC 3261 §19.1.1).
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// Whether what was sent arrives, so that nothing is sent again.
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::Tcp)
    }
}

/// What all requests of a run have in common.
#[derive(Clone, Debug)]
pub struct Style {
    /// What carries them.
    pub transport: Transport,
    /// Host part of every address of record.
    pub domain: Box<str>,
    /// The event package that is published and watched.
    pub package: Box<str>,
    /// The names of this run.
    pub salt: Salt,
    /// Whether everybody is a user who publishes, watches and registers under one address; otherwise the three kinds
    /// have addresses of their own.
    pub users: bool,
    /// Whether a proxy sends them that takes part in overload control (RFC 7339).
    pub takes_part: bool,
    /// Wall clock at the beginning of the run's time line, in seconds since 1970, for the time stamps in documents.
    pub wall_start_secs: u64,
}

/// Where a request goes: outside of a dialog, or inside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inside<'a> {
    /// The remote target, to be the Request-URI (RFC 3261 §12.2.1.1).
    pub target: &'a [u8],
    /// Tag of the other side.
    pub remote_tag: &'a [u8],
    /// Route headers, complete lines.
    pub routes: &'a [u8],
}

/// One request but for its method and body.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who sends it.
    pub from: Ident,
    /// Number in the sender's address.
    pub name: u32,
    /// Its sent-by, `host:port`.
    pub local: &'a str,
    /// Its sequence number.
    pub cseq: u32,
    /// Seconds to ask for.
    pub expires: u32,
}

/// [`USER_AGENT`] for constants that have more around it.
macro_rules! user_agent {
    () => {
        "LinphoneAndroid/5.1.4 (moto g power 5G - 2023) LinphoneSDK/5.2.110 (tags/5.2.110^0)"
    };
}
pub(crate) use user_agent;

/// The User-Agent of every message.
pub const USER_AGENT: &str = user_agent!();
const SUPPORTED: &[u8] = b"Max-Forwards: 70\r\nSupported: replaces, outbound, gruu, path, record-aware\r\n";

/// A SUBSCRIBE of a watcher to the presence of `presentity`.
pub fn subscribe(
    out: &mut Vec<u8>,
    style: &Style,
    request: Request<'_>,
    presentity: u32,
    inside: Option<Inside<'_>>,
) {
    out.extend_from_slice(b"SUBSCRIBE ");
    match inside {
        Some(inside) => out.extend_from_slice(inside.target),
        None => uri(out, style, Kind::Presentity, presentity),
    }
    via(out, style, request);
    from(out, style, request);
    out.extend_from_slice(b"\r\nTo: <");
    uri(out, style, Kind::Presentity, presentity);
    out.push(b'>');
    if let Some(inside) = inside {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(inside.remote_tag);
    }
    sequence(out, style, request, b"SUBSCRIBE");
    if let Some(inside) = inside {
        out.extend_from_slice(inside.routes);
    }
    out.extend_from_slice(SUPPORTED);
    event(out, style);
    contact(out, style, request);
    for part in [&b"Accept: "[..], document::media_type(style), b"\r\nExpires: "] {
        out.extend_from_slice(part);
    }
    decimal(out, u64::from(request.expires));
    end(out, 0);
}

/// A REGISTER that binds the agent's address of record to its contact, or removes the binding when `expires` is 0.
pub fn register(out: &mut Vec<u8>, style: &Style, request: Request<'_>) {
    out.extend_from_slice(b"REGISTER sip:");
    out.extend_from_slice(style.domain.as_bytes());
    via(out, style, request);
    from(out, style, request);
    out.extend_from_slice(b"\r\nTo: ");
    uri(out, style, request.from.kind, request.name);
    sequence(out, style, request, b"REGISTER");
    out.extend_from_slice(SUPPORTED);
    out.extend_from_slice(b"Accept: application/sdp, text/plain, application/vnd.gsma.rcs-ft-http+xml\r\n");
    contact(out, style, request);
    out.extend_from_slice(b"Expires: ");
    decimal(out, u64::from(request.expires));
    end(out, 0);
}

/// A PUBLISH of a presentity: of a state as it is at a time, or of nothing when its publication is removed. `entity_tag` is the one that
/// the server gave last (RFC 3903 §4.1). `scratch` holds the body while its length is taken.
pub fn publish(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    style: &Style,
    request: Request<'_>,
    entity_tag: Option<&[u8]>,
    state: Option<(State, Nanos)>,
) {
    scratch.clear();
    if let Some((state, at)) = state {
        document::write(scratch, style, state, at);
    }
    out.extend_from_slice(b"PUBLISH ");
    uri(out, style, request.from.kind, request.from.index);
    via(out, style, request);
    from(out, style, request);
    out.extend_from_slice(b"\r\nTo: ");
    uri(out, style, request.from.kind, request.from.index);
    sequence(out, style, request, b"PUBLISH");
    out.extend_from_slice(SUPPORTED);
    event(out, style);
    if let Some(entity_tag) = entity_tag {
        out.extend_from_slice(b"SIP-If-Match: ");
        out.extend_from_slice(entity_tag);
        out.extend_from_slice(b"\r\n");
    }
    if state.is_some() {
        for part in [&b"Content-Type: "[..], document::media_type(style), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"Expires: ");
    decimal(out, u64::from(request.expires));
    end(out, scratch.len());
    out.extend_from_slice(scratch);
}

/// The Event header.
fn event(out: &mut Vec<u8>, style: &Style) {
    for part in [&b"Event: "[..], style.package.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The address of record of an agent.
fn uri(out: &mut Vec<u8>, style: &Style, kind: Kind, index: u32) {
    out.extend_from_slice(b"sip:");
    user(out, style, kind, index);
    out.push(b'@');
    out.extend_from_slice(style.domain.as_bytes());
}

/// The user part of an agent's addresses: a letter for its kind and at least seven digits.
fn user(out: &mut Vec<u8>, style: &Style, kind: Kind, index: u32) {
    out.push(match kind {
        _ if style.users => b'p',
        Kind::Watcher => b'w',
        Kind::Presentity => b'p',
        Kind::Registrant => b'r',
    });
    let mut padding = 1_000_000;
    while padding > index.max(1) {
        out.push(b'0');
        padding /= 10;
    }
    decimal(out, u64::from(index));
}

fn via(out: &mut Vec<u8>, style: &Style, request: Request<'_>) {
    for part in [" SIP/2.0\r\nVia: SIP/2.0/", style.transport.via(), " "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(request.local.as_bytes());
    out.extend_from_slice(b";branch=");
    out.extend_from_slice(&style.salt.branch(request.from, request.cseq));
    out.extend_from_slice(b";rport");
    if style.takes_part {
        // RFC 7339 §4.1, §4.2.
        out.extend_from_slice(b";oc;oc-algo=\"loss\"");
    }
}

fn from(out: &mut Vec<u8>, style: &Style, request: Request<'_>) {
    out.extend_from_slice(b"\r\nFrom: <");
    uri(out, style, request.from.kind, request.name);
    out.extend_from_slice(b">;tag=");
    out.extend_from_slice(&style.salt.tag(request.from));
}

fn sequence(out: &mut Vec<u8>, style: &Style, request: Request<'_>, method: &[u8]) {
    out.extend_from_slice(b"\r\nCSeq: ");
    decimal(out, u64::from(request.cseq));
    out.push(b' ');
    out.extend_from_slice(method);
    out.extend_from_slice(b"\r\nCall-ID: ");
    out.extend_from_slice(&style.salt.call_id(request.from));
    out.extend_from_slice(b"\r\n");
}

fn contact(out: &mut Vec<u8>, style: &Style, request: Request<'_>) {
    out.extend_from_slice(b"Contact: <sip:");
    user(out, style, request.from.kind, request.name);
    out.push(b'@');
    out.extend_from_slice(request.local.as_bytes());
    for part in [";transport=", style.transport.parameter(), ">;+sip.instance=\"<urn:uuid:"] {
        out.extend_from_slice(part.as_bytes());
    }
    let unique = crate::ident::mix(u64::from(request.name) << 8 ^ style.salt.0);
    document::hex(out, unique, 8);
    out.extend_from_slice(b"-4a52-48cf-a3bb-");
    document::hex(out, unique >> 8, 12);
    out.extend_from_slice(b">\"\r\n");
}

fn end(out: &mut Vec<u8>, content_len: usize) {
    out.extend_from_slice(b"\r\nUser-Agent: ");
    out.extend_from_slice(USER_AGENT.as_bytes());
    out.extend_from_slice(b"\r\nContent-Length: ");
    decimal(out, content_len as u64);
    out.extend_from_slice(b"\r\n\r\n");
}

/// A number in decimal digits.
pub fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// What the tests of all who write messages need.
#[cfg(test)]
pub(crate) mod support {
    use super::{Style, Transport};
    use crate::ident::Salt;

    /// A style with nothing special.
    pub fn style() -> Style {
        Style {
            transport: Transport::Udp,
            domain: "example.com".into(),
            package: "presence".into(),
            salt: Salt(0xfeed_beef),
            users: false,
            takes_part: false,
            wall_start_secs: 1_702_831_504,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::document::DIALOG;
    use super::support::style;
    use super::*;
    use memchr::memmem::Finder;

    fn request(kind: Kind) -> Request<'static> {
        let from = Ident { kind, index: 51, generation: 0 };
        Request { from, name: 51, local: "127.0.0.1:40001", cseq: 20, expires: 3600 }
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_subscribe_is_as_long_as_a_phones() {
        let text = text(|out| subscribe(out, &style(), request(Kind::Watcher), 7, None));
        assert!((560..640).contains(&text.len()), "{} bytes: {text}", text.len());
        assert!(
            text.starts_with(
                "SUBSCRIBE sip:p0000007@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:40001;"
            )
        );
        assert!(text.contains("\r\nTo: <sip:p0000007@example.com>\r\n"));
        assert!(text.ends_with("\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn a_refresh_goes_to_the_remote_target_along_the_route() {
        let inside =
            Inside { target: b"sip:10.0.0.9:5099", remote_tag: b"abc", routes: b"Route: <sip:proxy;lr>\r\n" };
        let text = text(|out| subscribe(out, &style(), request(Kind::Watcher), 7, Some(inside)));
        assert!(text.starts_with("SUBSCRIBE sip:10.0.0.9:5099 SIP/2.0\r\n"));
        assert!(text.contains("\r\nTo: <sip:p0000007@example.com>;tag=abc\r\n"));
        assert!(text.contains("\r\nRoute: <sip:proxy;lr>\r\n"));
    }

    #[test]
    fn a_publish_is_as_long_as_a_phones_and_says_its_length() {
        let state = State { presentity: 51, number: 3, intended: 5 };
        let mut scratch = Vec::new();
        let text = text(|out| {
            publish(out, &mut scratch, &style(), request(Kind::Presentity), Some(b"tag1"), Some((state, 5)));
        });
        assert!((880..1120).contains(&text.len()), "{} bytes: {text}", text.len());
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(head.contains("\r\nSIP-If-Match: tag1\r\n"));
        assert!(body.contains("<timestamp>2023-12-17T16:45:04Z</timestamp>"));
        assert_eq!(find_state(body.as_bytes(), &Finder::new(&mark(style().salt))), Some(state));
        assert_eq!(find_state(body.as_bytes(), &Finder::new(&mark(Salt(1)))), None);
    }

    #[test]
    fn a_call_is_a_dialog_in_the_package_of_dialogs() {
        let style = Style { package: DIALOG.into(), ..style() };
        let mut scratch = Vec::new();
        for (number, word) in
            [(1, "trying"), (2, "early"), (3, "confirmed"), (4, "terminated"), (5, "trying")]
        {
            let state = State { presentity: 51, number, intended: 5 };
            let text = text(|out| {
                publish(out, &mut scratch, &style, request(Kind::Presentity), None, Some((state, 5)));
            });
            assert!(
                text.contains("Event: dialog\r\nContent-Type: application/dialog-info+xml\r\n"),
                "{text}"
            );
            assert!(text.contains(&format!("<state>{word}</state>")), "{text}");
            assert_eq!(find_state(text.as_bytes(), &Finder::new(&mark(style.salt))), Some(state));
        }
        let text = text(|out| subscribe(out, &style, request(Kind::Watcher), 7, None));
        assert!(text.contains("Accept: application/dialog-info+xml\r\n"), "{text}");
    }

    #[test]
    fn over_tcp_via_and_contact_say_so() {
        let style = Style { transport: Transport::Tcp, ..style() };
        let text = text(|out| subscribe(out, &style, request(Kind::Watcher), 7, None));
        assert!(text.contains("\r\nVia: SIP/2.0/TCP 127.0.0.1:40001;branch="), "{text}");
        assert!(text.contains("\r\nContact: <sip:w0000051@127.0.0.1:40001;transport=tcp>;"), "{text}");
    }

    #[test]
    fn who_takes_part_in_overload_control_says_so_in_via() {
        let style = Style { takes_part: true, ..style() };
        let text = text(|out| register(out, &style, request(Kind::Registrant)));
        let via = text.lines().nth(1).unwrap();
        assert!(via.ends_with(";rport;oc;oc-algo=\"loss\""), "{via}");
        let via = comsipl_core::msg::Via::parse(&via.as_bytes()["Via: ".len()..]).unwrap();
        assert!(via.takes_part(), "the server sees it");
    }

    #[test]
    fn a_removal_has_no_body() {
        let mut scratch = Vec::new();
        let text =
            text(|out| publish(out, &mut scratch, &style(), request(Kind::Presentity), Some(b"t"), None));
        assert!(text.ends_with("Content-Length: 0\r\n\r\n"));
        assert!(!text.contains("Content-Type"));
    }

    #[test]
    fn users_have_seven_digits_or_more() {
        for (index, expected) in
            [(0, "r0000000"), (9, "r0000009"), (1_000_000, "r1000000"), (u32::MAX, "r4294967295")]
        {
            assert_eq!(text(|out| user(out, &style(), Kind::Registrant, index)), expected);
        }
    }
}

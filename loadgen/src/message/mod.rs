//! The requests that the simulated phones send, in the shape and order of headers of Linphone on Android.
//!
//! Everything is appended to a buffer that is reused; a request is a pure function of its parts, so a retransmission
//! is the same bytes again without keeping them.

use crate::clock::Nanos;
use crate::ident::{Ident, Kind, Salt};

/// What all requests of a run have in common.
#[derive(Clone, Debug)]
pub struct Style {
    /// Host part of every address of record.
    pub domain: Box<str>,
    /// The event package that is published and watched.
    pub package: Box<str>,
    /// The names of this run.
    pub salt: Salt,
    /// Whether everybody is a user who publishes, watches and registers under one address; otherwise the three kinds
    /// have addresses of their own.
    pub users: bool,
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

/// The state that a document announces; written into its note and found again by [`find_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Whose state.
    pub presentity: u32,
    /// Counts the states of this presentity from 1.
    pub number: u32,
    /// When the PUBLISH was meant to be sent.
    pub intended: Nanos,
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
/// Length of a run's mark in a note; the state follows it.
pub const MARK_LEN: usize = 14;

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
    for part in [&b"Accept: "[..], media_type(style), b"\r\nExpires: "] {
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
        if &*style.package == DIALOG {
            dialog_info(scratch, style, state);
        } else {
            document(scratch, style, state, at);
        }
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
        for part in [&b"Content-Type: "[..], media_type(style), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"Expires: ");
    decimal(out, u64::from(request.expires));
    end(out, scratch.len());
    out.extend_from_slice(scratch);
}

/// The PIDF document (RFC 3863) of a state at a time, as Linphone writes it, with a note.
fn document(out: &mut Vec<u8>, style: &Style, state: State, at: Nanos) {
    out.extend_from_slice(
        b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
          <presence xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
          xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
          xmlns:pidfonline=\"http://www.linphone.org/xsds/pidfonline.xsd\" entity=\"",
    );
    uri(out, style, Kind::Presentity, state.presentity);
    out.extend_from_slice(
        b"\" xmlns=\"urn:ietf:params:xml:ns:pidf\">\n <tuple id=\"n5z2og\">\n  <status>\n   <basic>open</basic>\n   \
          <pidfonline:online/>\n  </status>\n  <contact priority=\"0.8\">",
    );
    uri(out, style, Kind::Presentity, state.presentity);
    out.extend_from_slice(b"</contact>\n  <note>");
    note(out, style, state);
    out.extend_from_slice(b"</note>\n  <timestamp>");
    date_time(out, style.wall_start_secs + at / crate::clock::SECOND);
    out.extend_from_slice(b"</timestamp>\n </tuple>\n</presence>\n");
}

/// The dialog-info document (RFC 4235 §4) of a state: a phone with one call, whose states follow each other in a
/// circle. The name of the call is what the state is found by.
fn dialog_info(out: &mut Vec<u8>, style: &Style, state: State) {
    out.extend_from_slice(
        b"<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"",
    );
    decimal(out, u64::from(state.number));
    out.extend_from_slice(b"\" state=\"full\" entity=\"");
    uri(out, style, Kind::Presentity, state.presentity);
    out.extend_from_slice(b"\">\n <dialog id=\"");
    note(out, style, state);
    out.extend_from_slice(b"\" direction=\"initiator\">\n  <state>");
    let states: [&[u8]; 4] = [b"trying", b"early", b"confirmed", b"terminated"];
    out.extend_from_slice(states[(state.number.wrapping_sub(1) % 4) as usize]);
    out.extend_from_slice(b"</state>\n </dialog>\n</dialog-info>\n");
}

/// What tells which state a document announces.
fn note(out: &mut Vec<u8>, style: &Style, state: State) {
    out.extend_from_slice(&mark(style.salt));
    hex(out, u64::from(state.presentity), 8);
    out.push(b'-');
    hex(out, u64::from(state.number), 8);
    out.push(b'-');
    hex(out, state.intended, 16);
}

/// The event package of RFC 4235; of all others it is assumed that they carry PIDF.
pub const DIALOG: &str = "dialog";

/// The type of the documents of the event package.
fn media_type(style: &Style) -> &'static [u8] {
    if &*style.package == DIALOG { b"application/dialog-info+xml" } else { b"application/pidf+xml" }
}

/// The Event header.
fn event(out: &mut Vec<u8>, style: &Style) {
    for part in [&b"Event: "[..], style.package.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// What the notes of this run begin with.
pub fn mark(salt: Salt) -> [u8; MARK_LEN] {
    let mut text = Vec::with_capacity(MARK_LEN);
    text.extend_from_slice(b"State");
    hex(&mut text, salt.0, 8);
    text.push(b'-');
    text.try_into().expect("five letters, eight digits and a dash")
}

/// The state whose note is in `body`, the newest if there are several; `finder` looks for the run's [`mark`].
pub fn find_state(body: &[u8], finder: &memchr::memmem::Finder<'_>) -> Option<State> {
    finder
        .find_iter(body)
        .filter_map(|at| {
            let text = body.get(at + MARK_LEN..at + MARK_LEN + 34)?;
            Some(State {
                presentity: unhex(&text[..8])? as u32,
                number: unhex(&text[9..17])? as u32,
                intended: unhex(&text[18..])?,
            })
        })
        .max_by_key(|state| state.number)
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
    out.extend_from_slice(b" SIP/2.0\r\nVia: SIP/2.0/UDP ");
    out.extend_from_slice(request.local.as_bytes());
    out.extend_from_slice(b";branch=");
    out.extend_from_slice(&style.salt.branch(request.from, request.cseq));
    out.extend_from_slice(b";rport");
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
    out.extend_from_slice(b";transport=udp>;+sip.instance=\"<urn:uuid:");
    let unique = crate::ident::mix(u64::from(request.name) << 8 ^ style.salt.0);
    hex(out, unique, 8);
    out.extend_from_slice(b"-4a52-48cf-a3bb-");
    hex(out, unique >> 8, 12);
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

/// The low `4 * digits` bits of a number in hexadecimal digits.
fn hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    for i in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * i) & 15) as usize]);
    }
}

fn unhex(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// Seconds since 1970 as RFC 3339 wants them, in UTC.
pub fn date_time(out: &mut Vec<u8>, seconds: u64) {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March put the leap day at the end; 719,468 days lie between March of year 0 and 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let mut field = |number: u64, digits: usize, after: u8| {
        let mut text = Vec::with_capacity(4);
        decimal(&mut text, number);
        out.extend(std::iter::repeat_n(b'0', digits - text.len()));
        out.extend_from_slice(&text);
        out.push(after);
    };
    field(year, 4, b'-');
    field(month, 2, b'-');
    field(day, 2, b'T');
    field(rest / 3_600, 2, b':');
    field(rest / 60 % 60, 2, b':');
    field(rest % 60, 2, b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;
    use memchr::memmem::Finder;

    fn style() -> Style {
        Style {
            domain: "example.com".into(),
            package: "presence".into(),
            salt: Salt(0xfeed_beef),
            users: false,
            wall_start_secs: 1_702_831_504,
        }
    }

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
    fn the_newest_of_several_notes_counts() {
        let mut body = Vec::new();
        for number in [4, 9, 2] {
            document(&mut body, &style(), State { presentity: 1, number, intended: 0 }, 0);
        }
        let finder_mark = mark(style().salt);
        assert_eq!(find_state(&body, &Finder::new(&finder_mark)).unwrap().number, 9);
    }

    #[test]
    fn white_space_behind_a_document_changes_nothing() {
        let state = State { presentity: 1, number: 4, intended: 9 };
        let mut body = Vec::new();
        document(&mut body, &style(), state, 0);
        body.extend_from_slice(b" \n\n   \r\n");
        assert_eq!(find_state(&body, &Finder::new(&mark(style().salt))), Some(state));
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
    fn a_removal_has_no_body() {
        let mut scratch = Vec::new();
        let text =
            text(|out| publish(out, &mut scratch, &style(), request(Kind::Presentity), Some(b"t"), None));
        assert!(text.ends_with("Content-Length: 0\r\n\r\n"));
        assert!(!text.contains("Content-Type"));
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(text(|out| date_time(out, seconds)), expected);
        }
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

//! A NOTIFY as nearly all are written, read in one pass and answered by copying its lines.
//!
//! Most of what the phones do is to answer NOTIFYs, so reading one must not cost what reading any message does. Only
//! the plainest form is read here: canonical names, one Via that asks for `rport`, tags right behind the address, no
//! folds, no Record-Route, nothing twice. Whatever differs is left to the general parser, with the same outcome.

use std::io::Write as _;
use std::net::SocketAddr;

/// What the phones look at in a NOTIFY. All parts are of the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<'a> {
    /// The value of Via up to `;rport`, with which it ends.
    via: &'a [u8],
    /// Branch of Via.
    pub branch: &'a [u8],
    /// The value of From.
    from: &'a [u8],
    /// Tag of From.
    pub from_tag: &'a [u8],
    /// The value of To.
    to: &'a [u8],
    /// Tag of To.
    pub to_tag: &'a [u8],
    /// Call-ID.
    pub call_id: &'a [u8],
    /// The value of CSeq.
    cseq_text: &'a [u8],
    /// Its number.
    pub cseq: u32,
    /// URI of Contact.
    pub contact: &'a [u8],
    /// The event package.
    pub event: &'a [u8],
    /// Whether Subscription-State is terminated.
    pub terminated: bool,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Plain<'a> {
    /// Reads a datagram; none unless it is a NOTIFY in the plainest form.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(b"NOTIFY sip:") {
            return None;
        }
        let mut rest = next_line(bytes)?.1;
        let (mut via, mut from, mut to, mut call_id, mut cseq_text) = (None, None, None, None, None);
        let (mut contact, mut event, mut state, mut length) = (None, None, None, None);
        loop {
            let (line, after) = next_line(rest)?;
            rest = after;
            let (value, name) = match line {
                [] => break,
                [b'V', b'i', b'a', b':', b' ', value @ ..] => (value, &mut via),
                [b'F', b'r', b'o', b'm', b':', b' ', value @ ..] => (value, &mut from),
                [b'T', b'o', b':', b' ', value @ ..] => (value, &mut to),
                [b'C', b'a', b'l', b'l', b'-', b'I', b'D', b':', b' ', value @ ..] => (value, &mut call_id),
                [b'C', b'S', b'e', b'q', b':', b' ', value @ ..] => (value, &mut cseq_text),
                [b'E', b'v', b'e', b'n', b't', b':', b' ', value @ ..] => (value, &mut event),
                _ => {
                    if let Some(value) = line.strip_prefix(b"Contact: ") {
                        (value, &mut contact)
                    } else if let Some(value) = line.strip_prefix(b"Subscription-State: ") {
                        (value, &mut state)
                    } else if let Some(value) = line.strip_prefix(b"Content-Length: ") {
                        (value, &mut length)
                    } else if is_idle(line) {
                        continue;
                    } else {
                        return None;
                    }
                }
            };
            if name.replace(value).is_some() {
                return None;
            }
        }
        let via = via?.strip_suffix(b";rport")?;
        let branch = after_sole(via, b";branch=")?;
        let (from, to, cseq_text) = (from?, to?, cseq_text?);
        let state = word(state?);
        if state != b"active" && state != b"pending" && state != b"terminated" {
            return None;
        }
        Some(Self {
            via,
            branch,
            from,
            from_tag: tag(from)?,
            to,
            to_tag: tag(to)?,
            call_id: call_id.filter(|call_id| !call_id.contains(&b' '))?,
            cseq_text,
            cseq: number(cseq_text.strip_suffix(b" NOTIFY")?)?,
            contact: contact?.strip_prefix(b"<")?.strip_suffix(b">").filter(|uri| !uri.contains(&b'>'))?,
            event: word(event?),
            terminated: state == b"terminated",
            body: rest.get(..number(length?)? as usize)?,
        })
    }

    /// Writes the 200 to it (RFC 3261 §8.2.6). `received` is what [`received`] writes for its sender.
    pub fn accept(&self, out: &mut Vec<u8>, received: &[u8], end: &[u8]) {
        let parts: [&[u8]; 12] = [
            b"SIP/2.0 200 OK\r\nVia: ",
            self.via,
            received,
            b"\r\nFrom: ",
            self.from,
            b"\r\nTo: ",
            self.to,
            b"\r\nCall-ID: ",
            self.call_id,
            b"\r\nCSeq: ",
            self.cseq_text,
            end,
        ];
        out.reserve(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
}

/// Where a request came from, as the answer's Via has to say (RFC 3581 §4); written once for all that come from there.
#[derive(Debug)]
pub struct Received {
    source: SocketAddr,
    text: Vec<u8>,
}

impl Received {
    /// Of nobody yet.
    pub fn new() -> Self {
        Self { source: SocketAddr::from(([0, 0, 0, 0], 0)), text: Vec::new() }
    }

    /// The parameters for what came from `source`.
    pub fn from(&mut self, source: SocketAddr) -> &[u8] {
        if self.source != source {
            self.source = source;
            self.text.clear();
            write!(self.text, ";received={};rport={}", source.ip(), source.port())
                .expect("a Vec takes all that is written");
        }
        &self.text
    }
}

/// Whether phones pass over a line.
fn is_idle(line: &[u8]) -> bool {
    match line.first() {
        Some(b'M') => line.starts_with(b"Max-Forwards: "),
        Some(b'U') => line.starts_with(b"User-Agent: "),
        Some(b'C') => line.starts_with(b"Content-Type: "),
        Some(b'A') => line.starts_with(b"Allow-Events: "),
        Some(b'S') => line.starts_with(b"Server: "),
        _ => false,
    }
}

/// Bytes that end a branch or a tag, or may stand for something else in it.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut i = 0;
    while i < 256 {
        special[i] = i <= b' ' as usize || i >= 127;
        i += 1;
    }
    let mut i = 0;
    while i < b";,\"=<>()@%".len() {
        special[b";,\"=<>()@%"[i] as usize] = true;
        i += 1;
    }
    special
};

/// Whether a branch or a tag is one, without anything behind it.
fn is_plain(text: &[u8]) -> bool {
    !text.is_empty() && !text.iter().any(|&b| SPECIAL[usize::from(b)])
}

/// The next line without its end, and what follows.
fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((bytes[..end].strip_suffix(b"\r")?, &bytes[end + 1..]))
}

/// The value up to its parameters.
fn word(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|&b| b == b';').unwrap_or(value.len());
    &value[..end]
}

/// The value of a parameter that follows the last other one, in a value that has nothing quoted and is no list.
fn after_sole<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memchr(b';', value)?;
    let branch = value[at..].strip_prefix(name)?;
    (is_plain(branch) && !value[..at].contains(&b',')).then_some(branch)
}

/// The tag of an address in angle brackets that has no other parameter.
fn tag(value: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'>', value.strip_prefix(b"<")?)?;
    let tag = value[end + 2..].strip_prefix(b";tag=")?;
    is_plain(tag).then_some(tag)
}

/// A decimal number of at most nine digits.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use comsipl_core::msg;

    const NOTIFY: &str = "NOTIFY sip:w0000003@127.0.0.1:40001;transport=udp SIP/2.0\r\n\
        Via: SIP/2.0/UDP 127.0.0.1:6100;branch=z9hG4bK-5a6b;rport\r\n\
        Max-Forwards: 70\r\n\
        From: <sip:p0000007@127.0.0.1>;tag=~3f01\r\n\
        To: <sip:w0000003@127.0.0.1>;tag=abc\r\n\
        Call-ID: aBcDeFgHiJ\r\n\
        CSeq: 17 NOTIFY\r\n\
        Contact: <sip:127.0.0.1:6100>\r\n\
        Event: presence\r\n\
        Subscription-State: active;expires=3599\r\n\
        Content-Type: application/pidf+xml\r\n\
        Content-Length: 4\r\n\r\n<p/>";

    #[test]
    fn a_plain_notify_is_read_as_the_general_parser_does() {
        let plain = Plain::read(NOTIFY.as_bytes()).unwrap();
        let message = msg::parse(NOTIFY.as_bytes()).unwrap();
        assert_eq!(Some(plain.branch), message.via().branch());
        assert_eq!(Some(plain.from_tag), message.from().tag());
        assert_eq!(Some(plain.to_tag), message.to().tag());
        assert_eq!((plain.call_id, plain.cseq), (message.call_id(), message.cseq().number));
        assert_eq!(Some(plain.contact), message.contacts().next().unwrap().unwrap().uri());
        assert_eq!((plain.event, plain.terminated, plain.body), (&b"presence"[..], false, &b"<p/>"[..]));
    }

    #[test]
    fn the_200_is_the_one_that_the_general_writer_makes() {
        let source = "127.0.0.1:6100".parse().unwrap();
        let message = msg::parse(NOTIFY.as_bytes()).unwrap();
        let mut general = Vec::new();
        msg::respond(&mut general, &message, 200, "OK", Some(b"x"), source).content_length(0).end();
        let (mut copied, mut received) = (Vec::new(), Received::new());
        let plain = Plain::read(NOTIFY.as_bytes()).unwrap();
        plain.accept(&mut copied, received.from(source), b"\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(String::from_utf8(copied), String::from_utf8(general));
    }

    #[test]
    fn whatever_is_not_plain_is_left_to_the_general_parser() {
        for (from, to) in [
            ("NOTIFY sip", "OPTIONS sip"),
            ("Call-ID: ", "i: "),
            ("Call-ID: ", "call-id: "),
            (";rport", ""),
            (";rport", ";rport=5"),
            (";branch", ";received=10.0.0.1;branch"),
            (";branch", ",SIP/2.0/UDP b;branch"),
            ("Max-Forwards: 70", "Record-Route: <sip:10.0.0.1;lr>"),
            ("Max-Forwards: 70", "Via: SIP/2.0/UDP b"),
            ("Max-Forwards: 70", "Max-Forwards:\r\n 70"),
            ("\r\nTo: <", "\r\nTo: \"a\" <"),
            (";tag=abc", ""),
            (";tag=abc", ";tag=abc;x=y"),
            ("<sip:127.0.0.1:6100>", "<sip:127.0.0.1:6100>;expires=5"),
            ("17 NOTIFY", "17 OPTIONS"),
            ("17 NOTIFY", "99999999999 NOTIFY"),
            ("active;", "Active;"),
            ("Content-Length: 4", "Content-Length: 5"),
            ("Content-Length: 4\r\n", ""),
            ("Event: presence\r\n", "Event: presence\n"),
            ("Event: presence\r\n", ""),
        ] {
            let text = NOTIFY.replacen(from, to, 1);
            assert!(text != NOTIFY && Plain::read(text.as_bytes()).is_none(), "{text}");
        }
        for len in 0..NOTIFY.len() {
            assert!(Plain::read(&NOTIFY.as_bytes()[..len]).is_none(), "cut at {len}");
        }
    }

    #[test]
    fn other_states_and_lines_of_no_interest_are_read_too() {
        let ended = NOTIFY.replace("active;expires=3599", "terminated;reason=timeout");
        assert!(Plain::read(ended.as_bytes()).unwrap().terminated);
        let more = NOTIFY.replace("Event: presence", "User-Agent: a\r\nEvent: presence;id=7");
        assert_eq!(Plain::read(more.as_bytes()).unwrap().event, b"presence");
        let longer = format!("{NOTIFY}\r\n  ");
        assert_eq!(Plain::read(longer.as_bytes()).unwrap().body, b"<p/>", "as long as Content-Length says");
    }
}

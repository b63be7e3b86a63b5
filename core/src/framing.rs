//! Messages out of a stream of bytes (RFC 3261 §18.3), whatever pieces it arrives in.
//!
//! | state | input | next | outcome |
//! |---|---|---|---|
//! | between messages | CRLF CRLF | between messages | [`Frame::Ping`] |
//! | between messages | other line breaks | between messages | nothing |
//! | between messages | a byte that can begin a message | head | nothing |
//! | between messages | any other byte | broken | [`Frame::Broken`] |
//! | head | the empty line, and the whole body with it | between messages | [`Frame::Message`] |
//! | head | the empty line | body | nothing |
//! | head | no empty line within the bound, or a length that cannot be told | broken | [`Frame::Broken`] |
//! | body | its last byte | between messages | [`Frame::Message`] |
//!
//! Invariants:
//!   * no byte is looked at more often than twice, however the stream is cut: once for the end of the head, once for the
//!     length of the body;
//!   * a message that lies whole in what was read is handed out where it lies; only the beginning of one that does not is
//!     copied, and never more than [`MESSAGE_LEN_MAX`] bytes are kept.

use crate::header::HeaderName;
use crate::header::line::{Line, is_empty_line, line_end};
use crate::header::scan::{TOKEN, is, number_saturating};
use crate::limits::{HEAD_LEN_MAX, MESSAGE_LEN_MAX};
use crate::msg::{Malformed, ParseError};

/// What was found in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message: its head and as many bytes as its Content-Length says.
    Message(&'a [u8]),
    /// A keep-alive that wants the answer [`PONG`] (RFC 5626 §4.4.1).
    Ping,
    /// Where the message ends cannot be told, so neither where the next one begins: it is to be answered as far as that is
    /// possible, and the connection to be closed. Nothing comes after it.
    Broken(ParseError<'a>),
}

/// The answer to [`Frame::Ping`]: "the server 'pong' is a single CRLF" (RFC 5626 §4.4.1).
pub const PONG: &[u8] = b"\r\n";

/// Finds the messages of one stream.
#[derive(Debug, Default)]
pub struct Framer {
    /// The beginning of a message whose end has not come.
    partial: Vec<u8>,
    state: State,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a ping have come.
    Between(usize),
    /// A head.
    Head,
    /// The body of a message of so many bytes.
    Body(usize),
    /// What is kept was handed out.
    Done,
    /// Nothing that can be told.
    Broken,
}

impl Default for State {
    fn default() -> Self {
        Self::Between(0)
    }
}

impl Framer {
    /// Looks at what was read, from `input` and what was kept of earlier calls: how many bytes of `input` are done with, and
    /// what was found. Call it with the bytes that are left until it finds nothing; then all are done with.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> (usize, Option<Frame<'a>>) {
        if self.state == State::Done {
            self.partial.clear();
            self.partial.shrink_to(PARTIAL_KEPT_MAX);
            self.state = State::Between(0);
        }
        match self.state {
            State::Between(of_ping) => self.begin(of_ping, input),
            State::Head => self.go_on_with_head(input),
            State::Body(len) => self.go_on_with_body(len, input, 0),
            State::Broken | State::Done => (input.len(), None),
        }
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub const fn is_within_message(&self) -> bool {
        matches!(self.state, State::Head | State::Body(_))
    }

    /// Whether the end of a message could not be told, so that nothing comes any more.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// What has begun and not ended: another framer that is given these bytes first stands where this one stands.
    #[must_use]
    pub fn begun(&self) -> Vec<u8> {
        match self.state {
            State::Between(of_ping) => PING[..of_ping].to_vec(),
            State::Head | State::Body(_) => self.partial.clone(),
            State::Done | State::Broken => Vec::new(),
        }
    }

    /// Bytes kept.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.partial.len()
    }

    fn begin<'a>(&'a mut self, of_ping: usize, input: &'a [u8]) -> (usize, Option<Frame<'a>>) {
        let mut of_ping = of_ping;
        for (at, &byte) in input.iter().enumerate() {
            // RFC 3261 §7.5: "Implementations processing SIP messages over stream-oriented transports MUST ignore any
            // CRLF appearing before the start-line."
            of_ping = match byte {
                _ if byte == PING[of_ping] => of_ping + 1,
                b'\r' => 1,
                b'\n' => 0,
                _ => return self.begin_message(input, at),
            };
            if of_ping == PING.len() {
                self.state = State::Between(0);
                return (at + 1, Some(Frame::Ping));
            }
        }
        self.state = State::Between(of_ping);
        (input.len(), None)
    }

    /// A message begins at `at`.
    fn begin_message<'a>(&'a mut self, input: &'a [u8], at: usize) -> (usize, Option<Frame<'a>>) {
        let bytes = &input[at..];
        if !is(bytes[0], TOKEN) {
            return self.broken(Malformed::StartLine, input.len(), &bytes[..bytes.len().min(HEAD_LEN_MAX)]);
        }
        let within = &bytes[..bytes.len().min(HEAD_LEN_MAX)];
        let Some(end) = memchr::memmem::find(within, HEAD_END) else {
            if within.len() == HEAD_LEN_MAX {
                return self.broken(Malformed::TooLong, input.len(), within);
            }
            return self.keep(State::Head, bytes, input.len());
        };
        let head = &bytes[..end + HEAD_END.len()];
        match message_len(head) {
            Err(kind) => self.broken(kind, input.len(), head),
            Ok(len) if len <= bytes.len() => {
                self.state = State::Between(0);
                (at + len, Some(Frame::Message(&bytes[..len])))
            }
            Ok(len) => self.keep(State::Body(len), bytes, input.len()),
        }
    }

    /// The head of which a part is kept goes on with `input`.
    fn go_on_with_head<'a>(&'a mut self, input: &'a [u8]) -> (usize, Option<Frame<'a>>) {
        let room = HEAD_LEN_MAX - self.partial.len();
        let within = &input[..input.len().min(room)];
        let Some(end) = head_end(&self.partial, within) else {
            self.partial.extend_from_slice(within);
            if self.partial.len() == HEAD_LEN_MAX {
                self.state = State::Broken;
                let error = ParseError::new(Malformed::TooLong, &self.partial);
                return (input.len(), Some(Frame::Broken(error)));
            }
            return (input.len(), None);
        };
        self.partial.extend_from_slice(&input[..end]);
        match message_len(&self.partial) {
            Err(kind) => {
                self.state = State::Broken;
                (input.len(), Some(Frame::Broken(ParseError::new(kind, &self.partial))))
            }
            Ok(len) => self.go_on_with_body(len, input, end),
        }
    }

    /// The message of `len` bytes, of which a part is kept, goes on with `input` from `at` on.
    fn go_on_with_body<'a>(&'a mut self, len: usize, input: &[u8], at: usize) -> (usize, Option<Frame<'a>>) {
        let end = input.len().min(at + (len - self.partial.len()));
        self.partial.extend_from_slice(&input[at..end]);
        if self.partial.len() < len {
            self.state = State::Body(len);
            return (end, None);
        }
        self.state = State::Done;
        (end, Some(Frame::Message(&self.partial)))
    }

    fn keep<'a>(&mut self, state: State, bytes: &[u8], taken: usize) -> (usize, Option<Frame<'a>>) {
        self.state = state;
        self.partial.extend_from_slice(bytes);
        (taken, None)
    }

    fn broken<'a>(&mut self, kind: Malformed, taken: usize, bytes: &'a [u8]) -> (usize, Option<Frame<'a>>) {
        self.state = State::Broken;
        (taken, Some(Frame::Broken(ParseError::new(kind, bytes))))
    }
}

/// The position in `input` behind the empty line that ends a head whose beginning `kept` holds no such line.
fn head_end(kept: &[u8], input: &[u8]) -> Option<usize> {
    const ACROSS: usize = HEAD_END.len() - 1;
    let before = &kept[kept.len().saturating_sub(ACROSS)..];
    let after = &input[..input.len().min(ACROSS)];
    let mut seam = [0; 2 * ACROSS];
    seam[..before.len()].copy_from_slice(before);
    seam[before.len()..][..after.len()].copy_from_slice(after);
    match memchr::memmem::find(&seam[..before.len() + after.len()], HEAD_END) {
        Some(at) => Some(at + HEAD_END.len() - before.len()),
        None => memchr::memmem::find(input, HEAD_END).map(|at| at + HEAD_END.len()),
    }
}

/// The length of the message with this head.
///
/// RFC 3261 §18.3: "The Content-Length header field MUST be used with stream oriented transports." Where it is missing all the
/// same (Linphone takes its publication back without it), the length is known nevertheless if there is no Content-Type, because
/// that "MUST be present if the body is not empty" (§20.15): then there is no body. With a Content-Type nobody can tell.
fn message_len(head: &[u8]) -> Result<usize, Malformed> {
    let mut at = line_end(head, 0)? + 2;
    let (mut content_length, mut has_type) = (None, false);
    while !is_empty_line(head, at)? {
        let line = match Line::read(head, at) {
            Ok(line) => line,
            // A line without a colon is the parser's to refuse; it leaves no doubt where the message ends.
            Err(Malformed::HeaderLine) => {
                at = line_end(head, at)? + 2;
                continue;
            }
            Err(kind) => return Err(kind),
        };
        at = line.next;
        match line.name {
            HeaderName::ContentLength => {
                let name = HeaderName::ContentLength;
                let value = number_saturating(&head[line.value_start..line.value_end])
                    .map_err(|_| Malformed::Bad(name))?;
                if content_length.replace(value).is_some_and(|first| first != value) {
                    return Err(Malformed::Duplicate(name));
                }
            }
            HeaderName::ContentType => has_type = true,
            _ => {}
        }
    }
    let body_len = match content_length {
        Some(len) => len as usize,
        None if has_type => return Err(Malformed::Missing(HeaderName::ContentLength)),
        None => 0,
    };
    let len = head.len().saturating_add(body_len);
    if len > MESSAGE_LEN_MAX { Err(Malformed::BodyTooLong) } else { Ok(len) }
}

/// What ends a head: the end of its last line, and an empty line.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// "The client 'ping' is a double-CRLF sequence" (RFC 5626 §4.4.1).
const PING: &[u8; 4] = b"\r\n\r\n";

/// Memory for unfinished messages that a stream keeps for the next one: an ordinary message.
const PARTIAL_KEPT_MAX: usize = 2048;

const _: () = assert!(HEAD_LEN_MAX < MESSAGE_LEN_MAX);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::msg;

    const HEAD: &str = "PUBLISH sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                        To: <sip:a@h>\r\nCall-ID: c\r\nCSeq: 1 PUBLISH\r\n";

    #[test]
    fn another_framer_goes_on_where_this_one_stands() {
        let stream = b"\r\n\r\nOPTIONS sip:a SIP/2.0\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n";
        for cut in 0..=stream.len() {
            let (mut framer, mut pings, mut messages) = (Framer::default(), 0, Vec::new());
            for half in [&stream[..cut], &stream[cut..]] {
                let mut rest = half;
                loop {
                    let (done, found) = framer.next(rest);
                    match found {
                        Some(Frame::Ping) => pings += 1,
                        Some(Frame::Message(message)) => messages.push(message.to_vec()),
                        Some(Frame::Broken(error)) => panic!("{cut}: {error:?}"),
                        None => break,
                    }
                    rest = &rest[done..];
                }
                let begun = framer.begun();
                framer = Framer::default();
                assert!(framer.next(&begun).1.is_none(), "{cut}");
            }
            assert_eq!((pings, messages), (2, vec![stream[4..stream.len() - 4].to_vec()]), "{cut}");
        }
    }

    #[test]
    fn a_whole_message_is_handed_out_where_it_lies() {
        let stream = format!("{}\r\n\r\nnext", message("Content-Length: 4\r\n", "body"));
        let whole = stream.len() - "\r\n\r\nnext".len();
        let mut framer = Framer::default();
        let (taken, found) = framer.next(stream.as_bytes());
        assert_eq!(taken, whole);
        let Some(Frame::Message(bytes)) = found else { panic!("{found:?}") };
        assert_eq!(bytes.as_ptr(), stream.as_ptr(), "not copied");
        assert_eq!(bytes.len(), whole);
        assert_eq!(framer.kept(), 0);
        assert_eq!(framer.next(&stream.as_bytes()[whole..]), (4, Some(Frame::Ping)));
        assert_eq!(framer.next(b"next"), (4, None));
        assert!(framer.is_within_message());
    }

    /// RFC 5626 §4.4.1: "the client 'ping' is a double-CRLF sequence"; RFC 3261 §7.5: "MUST ignore any CRLF appearing before
    /// the start-line".
    #[test]
    fn double_line_breaks_are_pings_and_others_are_ignored() {
        for (stream, pings) in
            [("\r\n", 0), ("\r\n\r\n", 1), ("\r\n\r\n\r\n", 1), ("\r\n\r\n\r\n\r\n", 2), ("\n\r\r\n\r\n", 1)]
        {
            let text = format!("{stream}{}", message("l: 0\r\n", ""));
            for size in 1..6 {
                let found = all(&mut Framer::default(), text.as_bytes(), size);
                assert_eq!(found.iter().filter(|it| *it == "ping").count(), pings, "{stream:?} by {size}");
                assert_eq!(found.last().unwrap(), &message("l: 0\r\n", ""), "{stream:?} by {size}");
            }
        }
    }

    /// RFC 3261 §18.3 and §20.14.
    #[test]
    fn content_length_says_where_a_message_ends() {
        for (line, len) in [
            ("Content-Length: 3\r\n", Ok(3)),
            ("l:3\r\n", Ok(3)),
            ("CONTENT-LENGTH \t:\r\n 0003\r\n", Ok(3)),
            ("Content-Length: 3\r\nl: 3\r\n", Ok(3)),
            ("no colon here\r\nl: 3\r\n", Ok(3)),
            ("Content-Length: 3\r\nl: 4\r\n", Err(Malformed::Duplicate(HeaderName::ContentLength))),
            ("Content-Length: 3, 3\r\n", Err(Malformed::Bad(HeaderName::ContentLength))),
            ("Content-Length: -3\r\n", Err(Malformed::Bad(HeaderName::ContentLength))),
            ("Content-Length:\r\n", Err(Malformed::Bad(HeaderName::ContentLength))),
            ("Content-Length: 65000\r\n", Ok(65_000)),
            ("Content-Length: 65536\r\n", Err(Malformed::BodyTooLong)),
            ("Content-Length: 99999999999999999999\r\n", Err(Malformed::BodyTooLong)),
            ("Subject: a\nl: 3\r\nl: 3\r\n", Err(Malformed::LineBreak)),
            ("Subject: a\0\r\nl: 3\r\n", Err(Malformed::LineBreak)),
        ] {
            let head = message(line, "");
            assert_eq!(message_len(head.as_bytes()), len.map(|len| head.len() + len), "{line:?}");
        }
    }

    /// RFC 3261 §20.15: Content-Type "MUST be present if the body is not empty".
    #[test]
    fn without_a_length_only_what_has_no_type_has_an_end() {
        let removal = message("SIP-If-Match: x\r\nExpires: 0\r\n", "");
        let next = message("l: 0\r\n", "");
        let stream = format!("{removal}{next}");
        assert_eq!(all(&mut Framer::default(), stream.as_bytes(), 7), [removal, next]);

        let typed = message("Content-Type: application/pidf+xml\r\n", "<presence/>");
        let found = all(&mut Framer::default(), typed.as_bytes(), usize::MAX);
        assert_eq!(found, ["broken: Missing Content-Length (Content-Length), 400"]);
    }

    #[test]
    fn a_request_that_cannot_be_framed_can_be_answered() {
        let bytes = message("l: 1\r\nl: 2\r\n", "");
        for size in [1, usize::MAX] {
            let mut framer = Framer::default();
            let mut answer = Vec::new();
            for piece in bytes.as_bytes().chunks(size.min(bytes.len())) {
                if let (_, Some(Frame::Broken(error))) = framer.next(piece) {
                    let source = "192.0.2.1:5060".parse().unwrap();
                    assert!(msg::respond_malformed(&mut answer, &error.partial, 400, "Bad", source));
                }
            }
            assert!(answer.starts_with(b"SIP/2.0 400 Bad\r\n"));
            assert_eq!(framer.next(b"PUBLISH"), (7, None), "nothing comes after it");
        }
    }

    #[test]
    fn lengths_are_bounded_however_they_come() {
        let endless = format!("OPTIONS sip:a SIP/2.0\r\nSubject: {}", "x".repeat(HEAD_LEN_MAX));
        for size in [1, 100, 4096, usize::MAX] {
            let mut framer = Framer::default();
            let found = all(&mut framer, endless.as_bytes(), size);
            assert_eq!(found, ["broken: Message Too Large, 513"], "by {size}");
            assert!(framer.kept() <= HEAD_LEN_MAX);
        }
        let filler = "x".repeat(HEAD_LEN_MAX - "OPTIONS sip:a SIP/2.0\r\nSubject: \r\n\r\n".len());
        let longest = format!("OPTIONS sip:a SIP/2.0\r\nSubject: {filler}\r\n\r\n");
        assert_eq!(longest.len(), HEAD_LEN_MAX);
        for size in [1, 100, usize::MAX] {
            assert_eq!(all(&mut Framer::default(), longest.as_bytes(), size), [longest.as_str()]);
        }
        let large = message("Content-Length: 70000\r\n", "");
        let found = all(&mut Framer::default(), large.as_bytes(), 3);
        assert_eq!(found, ["broken: Request Entity Too Large, 413"]);
    }

    #[test]
    fn what_cannot_begin_a_message_is_known_at_once() {
        for stream in [&b"\x16\x03\x01\x02\x00"[..], b"\r\n\0", b" OPTIONS", b"\x80"] {
            let found = all(&mut Framer::default(), stream, usize::MAX);
            assert_eq!(found, ["broken: Malformed Start Line, 400"], "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn memory_of_a_large_message_is_given_back() {
        let mut framer = Framer::default();
        let large = message("Content-Length: 60000\r\n", &"x".repeat(60_000));
        assert_eq!(all(&mut framer, large.as_bytes(), 1000), [large.as_str()]);
        assert_eq!(framer.next(b""), (0, None));
        assert_eq!(framer.kept(), 0);
        assert!(framer.partial.capacity() <= PARTIAL_KEPT_MAX);
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same(
            parts in prop::collection::vec(part(), 0..8),
            cuts in prop::collection::vec(1usize..200, 1..40),
        ) {
            let stream: String = parts.concat();
            let whole = all(&mut Framer::default(), stream.as_bytes(), usize::MAX);
            let mut framer = Framer::default();
            let (mut found, mut at, mut cuts) = (Vec::new(), 0, cuts.into_iter().cycle());
            while at < stream.len() {
                let end = stream.len().min(at + cuts.next().unwrap());
                found.extend(all(&mut framer, &stream.as_bytes()[at..end], usize::MAX));
                at = end;
            }
            prop_assert_eq!(found, whole);
        }

        #[test]
        fn any_bytes_are_taken_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..3000), size in 1usize..400) {
            let mut framer = Framer::default();
            all(&mut framer, &bytes, size);
            prop_assert!(framer.kept() <= bytes.len());
        }

        #[test]
        fn the_parser_sees_the_same_end(parts in prop::collection::vec(part(), 1..4)) {
            let stream = parts.concat();
            let mut framer = Framer::default();
            let mut rest = stream.as_bytes();
            loop {
                let (taken, found) = framer.next(rest);
                match found {
                    Some(Frame::Message(bytes)) => {
                        let parsed = msg::parse(bytes).unwrap();
                        let body_at = memchr::memmem::find(bytes, HEAD_END).unwrap() + HEAD_END.len();
                        prop_assert_eq!(parsed.body(), &bytes[body_at..]);
                    }
                    Some(_) => {}
                    None => break,
                }
                rest = &rest[taken..];
            }
        }
    }

    /// A part of a stream: line breaks or a message.
    fn part() -> impl Strategy<Value = String> {
        let lines = ["l: ", "Content-Length: ", "Subject: a\r\n folded\r\nContent-Length:  "];
        prop_oneof![
            prop::sample::select(vec!["\r\n".to_owned(), "\r\n\r\n".to_owned(), "\r\n\r\n\r\n".to_owned()]),
            Just(message("", "")),
            (prop::sample::select(lines.to_vec()), "[a-z\r\n]{0,300}")
                .prop_map(|(line, body)| message(&format!("{line}{}\r\n", body.len()), &body)),
        ]
    }

    fn message(lines: &str, body: &str) -> String {
        format!("{HEAD}{lines}\r\n{body}")
    }

    /// All that `framer` finds in `stream`, given to it in pieces of `size` bytes, as texts.
    fn all(framer: &mut Framer, stream: &[u8], size: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for mut piece in stream.chunks(size.min(stream.len()).max(1)) {
            loop {
                let (taken, found) = framer.next(piece);
                assert!(taken <= piece.len());
                match found {
                    Some(Frame::Message(bytes)) => texts.push(String::from_utf8(bytes.to_vec()).unwrap()),
                    Some(Frame::Ping) => texts.push("ping".to_owned()),
                    Some(Frame::Broken(error)) => {
                        texts.push(format!("broken: {error}, {}", error.kind.status()));
                    }
                    None => {
                        assert_eq!(taken, piece.len());
                        break;
                    }
                }
                piece = &piece[taken..];
            }
        }
        texts
    }
}

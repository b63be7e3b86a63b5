//! WebSocket frames between a stream of bytes and the SIP messages in them (RFC 6455, RFC 7118).
//!
//! | state | input | next | outcome |
//! |---|---|---|---|
//! | opening | a request that is granted | open | 101 |
//! | opening | any other request | – | its status, an error |
//! | open | the last frame of a text or binary message | open | one SIP message |
//! | open | ping | open | pong |
//! | open | Close | – | Close, [`ReadEnd::Closed`] |
//! | open | a broken frame, a message beyond [`MESSAGE_LEN_MAX`] | – | Close with the reason, an error |
//!
//! All that is written goes to one out-buffer, so that a pong never stands in the middle of a message. A pong or Close that
//! finds it full waits here until there is room ([`WebSocket::say_what_waits`]); of several pongs that wait, the last ones.

use std::io::{self, Read, Write};
use std::sync::Arc;

use comsipl_core::limits::MESSAGE_LEN_MAX;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

use super::hand_over::Web;
use super::layer::{ReadEnd, Sink};
use super::unfinished::Frames;
use super::upgrade::{Outcome, Upgrade};

/// The server's side of one WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    state: State,
    /// Whether the client writes text; RFC 7118 §4.2 has both sides accept both kinds.
    text: bool,
    frames: Frames,
    /// Whether a pong or a Close found no room in the out-buffer.
    held_back: bool,
}

#[derive(Debug)]
enum State {
    Opening { upgrade: Upgrade, origins: Arc<[String]> },
    Open(Box<WebSocketContext>),
}

impl WebSocket {
    /// Waits for the client's handshake, which must come from one of `origins` (in lower case) unless there are none.
    #[must_use]
    pub fn new(origins: Arc<[String]>) -> Self {
        let state = State::Opening { upgrade: Upgrade::default(), origins };
        Self { state, text: true, frames: Frames::default(), held_back: false }
    }

    /// Goes on with one that another process had.
    #[must_use]
    pub fn go_on(carried: Web, origins: Arc<[String]>) -> Self {
        let context = WebSocketContext::new(Role::Server, Some(config()));
        Self { state: State::Open(Box::new(context)), text: carried.text, ..Self::new(origins) }
    }

    /// What another process needs to go on, between two messages.
    #[must_use]
    pub const fn carry(&self) -> Web {
        Web { text: self.text }
    }

    /// Whether the handshake goes on.
    #[must_use]
    pub const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }

    /// Whether a frame, or a message in several frames, has begun and not ended.
    #[must_use]
    pub const fn is_within_message(&self) -> bool {
        self.frames.is_within()
    }

    /// Reads until `stream` would block; writes what WebSocket itself has to say to `out`.
    ///
    /// # Errors
    /// What the stream says, but `WouldBlock`; a handshake that is refused; frames that RFC 6455 does not allow.
    pub fn read(
        &mut self,
        stream: &mut impl Read,
        out: &mut impl Write,
        scratch: &mut [u8],
        sink: &mut impl Sink,
    ) -> io::Result<ReadEnd> {
        while let State::Opening { upgrade, origins } = &mut self.state {
            let count = match stream.read(scratch) {
                Ok(0) => return Ok(ReadEnd::Closed),
                Ok(count) => count,
                Err(error) => return would_block(error),
            };
            match upgrade.take(&scratch[..count], origins) {
                Outcome::Incomplete => {}
                Outcome::Granted { answer, frames } => {
                    out.write_all(&answer)?;
                    self.frames.take(&frames);
                    let context = WebSocketContext::from_partially_read(frames, Role::Server, Some(config()));
                    self.state = State::Open(Box::new(context));
                }
                Outcome::Refused { answer, why } => {
                    out.write_all(&answer)?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
        let State::Open(context) = &mut self.state else { return Ok(ReadEnd::WouldBlock) };
        let mut stream = Followed { stream, frames: &mut self.frames };
        let mut joined = Joined { stream: &mut stream, out, held_back: &mut self.held_back };
        loop {
            match context.read(&mut joined) {
                Ok(Message::Text(text)) => {
                    self.text = true;
                    sink.message(text.as_bytes());
                }
                Ok(Message::Binary(bytes)) => {
                    self.text = false;
                    sink.message(&bytes);
                }
                // RFC 7118 §6: they keep the connection, as the line end does that stands for them here.
                Ok(Message::Ping(_) | Message::Pong(_)) => sink.message(b"\r\n"),
                // RFC 6455 §5.5.1: it is answered by one of ours, which the next call writes; but where that finds no room,
                // nothing more may be read all the same.
                Ok(Message::Close(_)) => {
                    let _ = context.flush(&mut joined);
                    return Ok(ReadEnd::Closed);
                }
                Ok(Message::Frame(_)) => {}
                Err(Error::Io(error)) => return would_block(error),
                // A peer that vanishes without Close is as gone as one with it.
                Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake),
                ) => return Ok(ReadEnd::Closed),
                Err(error) => {
                    // RFC 6455 §7.1.7: the connection fails, with a Close that says why if that gets through.
                    let frame = CloseFrame { code: close_code(&error), reason: Utf8Bytes::default() };
                    let _ = context.close(&mut joined, Some(frame));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }

    /// What stands before a message of ours in these parts: the head of its only frame. `None`: the handshake goes on, and
    /// there is nobody to send it to.
    ///
    /// It is of the kind that the client uses, but for what is not UTF-8: "the whole message MUST be sent within a WebSocket
    /// binary message" (RFC 7118 §4.2).
    #[must_use]
    pub fn frame_head(&self, parts: &[&[u8]]) -> Option<FrameHead> {
        if self.is_opening() {
            return None;
        }
        let kind = if self.text && is_utf8(parts) { Data::Text } else { Data::Binary };
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let header = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
        let mut head = FrameHead { bytes: [0; HEAD_LEN_MAX], len: header.len(len as u64) };
        // Ten bytes are the longest head without a mask, which servers do not use.
        let written = header.format(len as u64, &mut &mut head.bytes[..]);
        debug_assert!(written.is_ok());
        Some(head)
    }

    /// Begins the closing handshake (RFC 6455 §7.1.2): "going away".
    pub fn say_goodbye(&mut self, out: &mut impl Write) {
        if let State::Open(context) = &mut self.state {
            let frame = CloseFrame { code: CloseCode::Away, reason: Utf8Bytes::default() };
            let mut joined = Joined { stream: &mut io::empty(), out, held_back: &mut self.held_back };
            let _ = context.close(&mut joined, Some(frame));
        }
    }

    /// Writes to `out` what found no room in it before; says whether there was anything to say.
    pub fn say_what_waits(&mut self, out: &mut impl Write) -> bool {
        let State::Open(context) = &mut self.state else { return false };
        let waits = std::mem::take(&mut self.held_back);
        if waits {
            // "Connection closed" is what it says when a Close was written.
            let _ =
                context.flush(&mut Joined { stream: &mut io::empty(), out, held_back: &mut self.held_back });
        }
        waits && !self.held_back
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead {
    bytes: [u8; HEAD_LEN_MAX],
    len: usize,
}

impl FrameHead {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Where WebSocket reads and where it writes.
struct Joined<'a, R, W> {
    stream: &'a mut R,
    out: &'a mut W,
    /// Set when `out` has no room.
    held_back: &'a mut bool,
}

impl<R: Read, W> Read for Joined<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl<R, W: Write> Write for Joined<'_, R, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.out.write(bytes);
        *self.held_back |= result.is_err();
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream whose frames are followed while they are read.
struct Followed<'a, R> {
    stream: &'a mut R,
    frames: &'a mut Frames,
}

impl<R: Read> Read for Followed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.frames.take(&buffer[..count]);
        Ok(count)
    }
}

fn would_block(error: io::Error) -> io::Result<ReadEnd> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(ReadEnd::WouldBlock),
        _ => Err(error),
    }
}

/// RFC 6455 §7.4.1.
const fn close_code(error: &Error) -> CloseCode {
    match error {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => CloseCode::Protocol,
    }
}

/// Whether parts together are UTF-8; a character may stand in two of them.
fn is_utf8(parts: &[&[u8]]) -> bool {
    let mut cut = [0_u8; 4];
    let mut cut_len = 0;
    for part in parts {
        let mut part = *part;
        // First the rest of the character that the parts before have begun.
        while cut_len > 0 && !part.is_empty() {
            cut[cut_len] = part[0];
            cut_len += 1;
            part = &part[1..];
            match std::str::from_utf8(&cut[..cut_len]) {
                Ok(_) => cut_len = 0,
                Err(error) if error.error_len().is_some() || cut_len == cut.len() => return false,
                Err(_) => {}
            }
        }
        if let Err(error) = std::str::from_utf8(part) {
            if error.error_len().is_some() {
                return false;
            }
            let rest = &part[error.valid_up_to()..];
            cut[..rest.len()].copy_from_slice(rest);
            cut_len = rest.len();
        }
    }
    cut_len == 0
}

/// How much memory a WebSocket may take.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_LEN)
        .write_buffer_size(0)
        .max_write_buffer_size(CONTROL_LEN_MAX)
        .max_message_size(Some(MESSAGE_LEN_MAX))
        .max_frame_size(Some(MESSAGE_LEN_MAX))
}

/// Length of a read, and what an idle WebSocket keeps for it: most messages of phones are shorter.
const READ_LEN: usize = 2048;
/// Most bytes of pongs and Closes that wait for the out-buffer; tungstenite keeps one pong besides.
const CONTROL_LEN_MAX: usize = 1024;
/// Longest head of a frame without mask (RFC 6455 §5.2).
const HEAD_LEN_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_may_stand_in_two_parts() {
        let text = "aä€😀".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                assert!(is_utf8(&[&text[..first], &text[first..second], &text[second..]]));
            }
        }
        for bad in [&b"\xff"[..], b"\xc3", b"a\xe2\x82", b"\xc3\x28", b"\xf0\x9f\x98", b"\x80"] {
            assert!(!is_utf8(&[bad]), "{bad:?}");
            for at in 0..bad.len() {
                assert!(!is_utf8(&[&bad[..at], &bad[at..]]), "{bad:?}");
            }
        }
        assert!(!is_utf8(&[b"\xc3", b"\xc3\xa4"]));
        assert!(is_utf8(&[]));
    }

    /// RFC 6455 §5.5.2 and §5.5.1: pings and Closes are answered, also to one who has not read what we sent before.
    #[test]
    fn a_pong_and_a_close_that_find_no_room_are_written_when_there_is_some() {
        let mut socket = WebSocket::new(Arc::from([]));
        socket.state = State::Open(Box::new(WebSocketContext::new(Role::Server, Some(config()))));
        let mut out = Room { left: 0, took: Vec::new() };
        let read = |socket: &mut WebSocket, out: &mut Room, frames: &[u8]| {
            let mut stream = Chunk(frames);
            socket.read(&mut stream, out, &mut [0; 64], &mut Nothing).unwrap()
        };
        // Masked by zeros. Nothing is lost for a message that comes behind.
        let pings = [&b"\x89\x81\0\0\0\0a"[..], b"\x89\x81\0\0\0\0b"].concat();
        assert_eq!(read(&mut socket, &mut out, &pings), ReadEnd::WouldBlock);
        assert!(!socket.say_what_waits(&mut out), "there is no room yet");
        out.left = 100;
        assert!(socket.say_what_waits(&mut out));
        assert_eq!(std::mem::take(&mut out.took), b"\x8a\x01a\x8a\x01b");
        assert!(!socket.say_what_waits(&mut out), "once");

        out.left = 0;
        assert_eq!(read(&mut socket, &mut out, b"\x88\x82\0\0\0\0\x03\xe8"), ReadEnd::Closed);
        socket.say_goodbye(&mut out);
        assert_eq!(out.took, b"");
        out.left = 100;
        assert!(socket.say_what_waits(&mut out));
        assert_eq!(out.took, b"\x88\x02\x03\xe8", "one Close, with the code of the peer's");
    }

    /// An endless stream of pings to one who never reads costs no more memory than a few pongs.
    #[test]
    fn pongs_that_wait_are_bounded() {
        let mut socket = WebSocket::new(Arc::from([]));
        socket.state = State::Open(Box::new(WebSocketContext::new(Role::Server, Some(config()))));
        let mut out = Room { left: 0, took: Vec::new() };
        let ping = [&b"\x89\xfd\0\0\0\0"[..], &[b'x'; 125]].concat();
        for _ in 0..1000 {
            let end = socket.read(&mut Chunk(&ping), &mut out, &mut [0; 64], &mut Nothing).unwrap();
            assert_eq!(end, ReadEnd::WouldBlock);
        }
        out.left = usize::MAX;
        assert!(socket.say_what_waits(&mut out));
        assert!(out.took.len() <= CONTROL_LEN_MAX + 127, "{}", out.took.len());
    }

    /// What comes at once, and nothing more for now.
    struct Chunk<'a>(&'a [u8]);

    impl Read for Chunk<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
        }
    }

    /// An out-buffer with so much room, of which a write takes all or nothing.
    struct Room {
        left: usize,
        took: Vec<u8>,
    }

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.left {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.left -= bytes.len();
            self.took.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes keep-alives and no messages.
    struct Nothing;

    impl Sink for Nothing {
        fn stream(&mut self, _: &[u8]) {
            panic!("frames are no stream");
        }

        fn message(&mut self, bytes: &[u8]) {
            assert_eq!(bytes, b"\r\n");
        }
    }

    #[test]
    fn heads_have_the_length_of_their_message() {
        let mut open = WebSocket::new(Arc::from([]));
        assert!(open.frame_head(&[b"too early"]).is_none());
        open.state = State::Open(Box::new(WebSocketContext::new(Role::Server, Some(config()))));
        let head = |parts: &[&[u8]]| open.frame_head(parts).unwrap().as_bytes().to_vec();
        assert_eq!(head(&[b"ab", b"c"]), [0x81, 3]);
        assert_eq!(head(&[&[b'a'; 300]]), [0x81, 126, 1, 44]);
        assert_eq!(head(&[&[b'a'; 70_000]]), [0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
        assert_eq!(head(&[b"\xff"]), [0x82, 1], "what is no text goes as binary");
    }
}

//! A WebSocket's bytes come in different pieces (RFC 6455, RFC 7118).

use std::io::{self, Read};
use std::sync::Arc;

use comsipl_core::limits::MESSAGE_LEN_MAX;
use comsipl_shards::net::stream::layer::{ReadEnd, Sink};
use comsipl_shards::net::stream::websocket::WebSocket;

/// Checks one stream of a client, whose first two bytes say how it is cut. If the second has its lowest bit, a handshake that
/// is granted comes first.
pub fn hold(bytes: &[u8]) {
    let Some((&[size, second], rest)) = bytes.split_first_chunk() else { return };
    let stream = if second & 1 == 1 { [HANDSHAKE, rest].concat() } else { rest.to_vec() };
    let whole = read(&stream, usize::MAX);
    assert!(whole.messages.iter().all(|message| message.len() <= MESSAGE_LEN_MAX));
    assert_eq!(read(&stream, 1), whole, "byte by byte");
    assert_eq!(read(&stream, usize::from(size) + 1), whole, "by {size}");
}

const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\r\n";

/// What became of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    messages: Vec<Vec<u8>>,
    answers: Vec<u8>,
    /// Whether the peer is gone, or what it did was not allowed.
    end: Option<Result<(), io::ErrorKind>>,
}

impl Sink for Outcome {
    fn stream(&mut self, _: &[u8]) {
        panic!("all that comes by WebSocket is a message");
    }

    fn message(&mut self, bytes: &[u8]) {
        self.messages.push(bytes.to_vec());
    }
}

/// Reads a stream that comes in pieces of `size` bytes.
fn read(stream: &[u8], size: usize) -> Outcome {
    let mut socket = WebSocket::new(Arc::default());
    let (mut outcome, mut answers, mut scratch) = (Outcome::default(), Vec::new(), [0; 512]);
    for piece in stream.chunks(size.min(stream.len().max(1))) {
        let mut piece = Piece(piece);
        match socket.read(&mut piece, &mut answers, &mut scratch, &mut outcome) {
            Ok(ReadEnd::Closed) => outcome.end = Some(Ok(())),
            Ok(_) => assert!(piece.0.is_empty(), "what is there is read"),
            Err(error) => outcome.end = Some(Err(error.kind())),
        }
        if outcome.end.is_some() {
            break;
        }
    }
    outcome.answers = answers;
    outcome
}

/// A socket that has these bytes and then would block.
struct Piece<'a>(&'a [u8]);

impl Read for Piece<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(into)
    }
}

//! A stream of messages is cut in different ways (RFC 3261 §18.3).

use comsipl_core::framing::{Frame, Framer};
use comsipl_core::limits::MESSAGE_LEN_MAX;
use comsipl_core::msg::{Malformed, parse};

/// What was found in a stream.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Message(Vec<u8>),
    Ping,
    Broken(Malformed),
}

/// Checks one stream, whose first two bytes say how it is cut.
pub fn hold(bytes: &[u8]) {
    let Some((&[first, second], stream)) = bytes.split_first_chunk() else { return };
    let whole = framed(stream, [usize::MAX; 2]);
    assert_eq!(framed(stream, [1, 1]), whole, "byte by byte");
    let pieces = [usize::from(first) + 1, usize::from(second) * 16 + 1];
    assert_eq!(framed(stream, pieces), whole, "by {pieces:?}");
    for found in &whole {
        let Found::Message(message) = found else { continue };
        assert!(message.len() <= MESSAGE_LEN_MAX);
        // The end that framing finds is the end that the parser finds.
        if let Ok(parsed) = parse(message) {
            let head = message.len() - parsed.body().len();
            assert!(message[..head].ends_with(b"\r\n\r\n"), "bytes behind the body");
        }
    }
}

/// All that is found in a stream that comes in pieces of these sizes in turn.
fn framed(mut stream: &[u8], sizes: [usize; 2]) -> Vec<Found> {
    let mut framer = Framer::default();
    let mut all = Vec::new();
    for size in sizes.into_iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (mut piece, rest) = stream.split_at(size.min(stream.len()));
        loop {
            let (taken, found) = framer.next(piece);
            let is_done = found.is_none();
            match found {
                Some(Frame::Message(bytes)) => all.push(Found::Message(bytes.to_vec())),
                Some(Frame::Ping) => all.push(Found::Ping),
                Some(Frame::Broken(error)) => all.push(Found::Broken(error.kind)),
                None => assert_eq!(taken, piece.len(), "all is taken when nothing is found"),
            }
            assert!(framer.kept() <= MESSAGE_LEN_MAX);
            piece = &piece[taken..];
            if is_done {
                break;
            }
        }
        stream = rest;
    }
    all
}

//! Whether what a layer reads ends in the middle of a unit of its own: a TLS record, a WebSocket message.
//!
//! The libraries that decode these keep the beginning of an unfinished one and do not tell. So the bytes are looked at on
//! their way to them, as far as lengths go: a few of each unit, none of its content. What is wrong with a unit is theirs to
//! say; here it only matters that what they accept is followed rightly.

/// Where a stream of TLS records stands (RFC 8446 §5.1).
#[derive(Debug, Default)]
pub struct Records {
    head: Head<RECORD_HEAD_LEN>,
    /// Bytes of the record's content that have not come.
    left: usize,
    /// Records that have ended.
    ended: u64,
}

impl Records {
    /// Takes what was read.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.head.take(bytes, RECORD_HEAD_LEN);
                let [_, _, _, high, low] = self.head.bytes;
                if self.head.len < RECORD_HEAD_LEN {
                    return;
                }
                self.left = usize::from(u16::from_be_bytes([high, low]));
            }
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            if self.left == 0 {
                self.head.len = 0;
                self.ended += 1;
            }
        }
    }

    /// Whether a record has begun and not ended.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.head.len > 0
    }

    /// How many records have ended.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.ended
    }
}

/// Where a stream of WebSocket frames stands (RFC 6455 §5.2).
#[derive(Debug, Default)]
pub struct Frames {
    head: Head<FRAME_HEAD_LEN_MAX>,
    /// Bytes of the frame's payload that have not come.
    left: u64,
    /// A fragment that is not the last of its message has come.
    fragmented: bool,
}

impl Frames {
    /// Takes what was read.
    pub fn take(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.head.take(bytes, 2);
                if self.head.len < 2 {
                    return;
                }
                bytes = self.head.take(bytes, self.head_len());
                if self.head.len < self.head_len() {
                    return;
                }
                self.left = self.payload_len();
            }
            let skipped = self.left.min(bytes.len() as u64);
            self.left -= skipped;
            bytes = &bytes[skipped as usize..];
            if self.left == 0 {
                self.end();
            }
        }
    }

    /// Whether a frame, or a message in several frames, has begun and not ended.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.head.len > 0 || self.fragmented
    }

    /// A frame has ended. Control frames may stand between the fragments of a message (RFC 6455 §5.4).
    const fn end(&mut self) {
        let first = self.head.bytes[0];
        let (is_last, is_control) = (first & 0x80 != 0, first & 0x08 != 0);
        if !is_control {
            self.fragmented = !is_last;
        }
        self.head.len = 0;
    }

    /// Length of the head whose first two bytes have come.
    const fn head_len(&self) -> usize {
        let second = self.head.bytes[1];
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        let more = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + more + mask
    }

    /// Length of the payload behind the head, which has come.
    fn payload_len(&self) -> u64 {
        let bytes = &self.head.bytes;
        match bytes[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([bytes[2], bytes[3]])),
            127 => bytes[2..10].iter().fold(0, |len, &byte| len << 8 | u64::from(byte)),
            len => u64::from(len),
        }
    }
}

/// The head of a unit, as far as it has come.
#[derive(Debug)]
struct Head<const MAX: usize> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Default for Head<MAX> {
    fn default() -> Self {
        Self { bytes: [0; MAX], len: 0 }
    }
}

impl<const MAX: usize> Head<MAX> {
    /// Takes what is missing to `len` bytes, and returns what is left.
    fn take<'a>(&mut self, bytes: &'a [u8], len: usize) -> &'a [u8] {
        let count = len.saturating_sub(self.len).min(bytes.len());
        self.bytes[self.len..self.len + count].copy_from_slice(&bytes[..count]);
        self.len += count;
        &bytes[count..]
    }
}

/// Length of a record's head: type, version, length.
const RECORD_HEAD_LEN: usize = 5;
/// Longest head of a frame: two bytes, eight of length, four of mask.
const FRAME_HEAD_LEN_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::Frame;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    /// Feeds `bytes` in pieces of each size and says, for each size, after which counts of bytes it stands between units.
    fn between<T: Default>(
        bytes: &[u8],
        take: impl Fn(&mut T, &[u8]),
        is_within: impl Fn(&T) -> bool,
    ) -> Vec<usize> {
        let mut seen = None;
        for size in [1, 2, 3, 7, bytes.len()] {
            let (mut it, mut at, mut ends) = (T::default(), 0, Vec::new());
            for piece in bytes.chunks(size) {
                take(&mut it, piece);
                at += piece.len();
                if !is_within(&it) {
                    ends.push(at);
                }
            }
            assert_eq!(ends.last(), Some(&bytes.len()), "the end of all, by {size}");
            seen.get_or_insert(ends);
        }
        seen.unwrap()
    }

    #[test]
    fn records_end_where_their_lengths_say() {
        let records =
            [&b"\x16\x03\x01\x00\x03abc"[..], b"\x17\x03\x03\x00\x00", b"\x17\x03\x03\x01\x00"].concat();
        let records = [&records[..], &[0; 256]].concat();
        let ends = between::<Records>(&records, Records::take, Records::is_within);
        // A record without content ends with its head; RFC 8446 §5.1 allows those of application data.
        assert_eq!(ends, [8, 13, 274]);
        let mut all = Records::default();
        all.take(&records);
        assert_eq!(all.ended(), 3);
    }

    #[test]
    fn frames_end_where_their_lengths_say_and_messages_with_their_last_fragment() {
        let data = |kind, len: usize, is_last| Frame::message(vec![b'x'; len], OpCode::Data(kind), is_last);
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        for (frame, ends_message) in [
            (data(Data::Text, 0, true), true),
            (data(Data::Binary, 125, true), true),
            (data(Data::Text, 126, true), true),
            (data(Data::Text, 70_000, true), true),
            (Frame::ping(vec![b'p'; 3]), true),
            (data(Data::Text, 10, false), false),
            (Frame::ping(vec![b'p'; 3]), false),
            (data(Data::Continue, 0, false), false),
            (data(Data::Continue, 10, true), true),
        ] {
            let mut frame = frame;
            // As browsers send them, and ended messages as servers do besides.
            for mask in [Some([1, 2, 3, 4]), None] {
                frame.header_mut().mask = mask;
                if mask.is_some() || ends_message {
                    frame.clone().format(&mut bytes).unwrap();
                    if ends_message {
                        messages.push(bytes.len());
                    }
                }
            }
        }
        assert_eq!(between::<Frames>(&bytes, Frames::take, Frames::is_within), messages);
    }
}

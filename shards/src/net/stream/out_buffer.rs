//! What waits for the socket of one connection.
//!
//! Invariants:
//!   * bytes leave in the order in which they were pushed, and a message is taken whole or not at all;
//!   * a connection for which nothing waits holds no memory: buffers go back to the shard's [`Buffers`].

use std::io::{self, Write};

/// Bytes that wait for a socket, bounded.
#[derive(Debug)]
pub struct OutBuffer {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// How many were ever pushed.
    pushed: u64,
    max: usize,
}

/// Too much waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutFull;

impl OutBuffer {
    /// A buffer for at most `max` bytes.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), written: 0, pushed: 0, max }
    }

    /// A buffer in which `waiting` waits already, whether or not that is more than `max` bytes.
    #[must_use]
    pub fn with(max: usize, waiting: &[u8]) -> Self {
        Self { bytes: waiting.to_vec(), written: 0, pushed: waiting.len() as u64, max }
    }

    /// What waits.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.split_off(self.written)
    }

    /// Puts a message behind what waits.
    ///
    /// # Errors
    /// [`OutFull`]; then nothing of it was taken.
    pub fn push(&mut self, parts: &[&[u8]], buffers: &mut Buffers) -> Result<(), OutFull> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.len() + len > self.max {
            return Err(OutFull);
        }
        if self.bytes.capacity() == 0 {
            self.bytes = buffers.take();
        }
        if self.written > self.len() {
            // Less is moved than was written, so moving costs each byte no more than writing did.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.pushed += len as u64;
        Ok(())
    }

    /// Writes until nothing waits or `socket` takes no more; says whether something still waits.
    ///
    /// # Errors
    /// What the socket says, but `WouldBlock`.
    pub fn write_to(&mut self, socket: &mut impl Write, buffers: &mut Buffers) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            match socket.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        buffers.give_back(std::mem::take(&mut self.bytes));
        Ok(false)
    }

    /// How many bytes were ever pushed: where the last message ends in all that is written.
    #[must_use]
    pub const fn pushed_in_all(&self) -> u64 {
        self.pushed
    }

    /// How many bytes were ever written.
    #[must_use]
    pub const fn written_in_all(&self) -> u64 {
        self.pushed - self.len() as u64
    }

    /// How many bytes wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what waits.
    pub fn dissolve(self, buffers: &mut Buffers) {
        buffers.give_back(self.bytes);
    }
}

/// Buffers that the connections of a shard take turns with.
#[derive(Debug, Default)]
pub struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(FIRST_LEN))
    }

    /// Takes a buffer back, whatever is in it.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < KEPT_MAX && (1..=KEPT_LEN_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// Length of a new buffer: an answer and a NOTIFY.
const FIRST_LEN: usize = 2048;
/// Most buffers kept: more connections are rarely written to in one turn.
const KEPT_MAX: usize = 1024;
/// Longest buffer kept, so that what one slow peer needed is not held for ever.
const KEPT_LEN_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_whole_messages_are_refused() {
        let (mut out, mut buffers) = (OutBuffer::new(10), Buffers::default());
        let mut socket = Socket { room: 0, took: Vec::new() };
        assert_eq!(out.push(&[b"abc", b"", b"def"], &mut buffers), Ok(()));
        assert_eq!(out.push(&[b"ghi", b"jk"], &mut buffers), Err(OutFull));
        assert_eq!(out.push(&[b"ghij"], &mut buffers), Ok(()));
        assert!(out.write_to(&mut socket, &mut buffers).unwrap());
        socket.room = 7;
        assert!(out.write_to(&mut socket, &mut buffers).unwrap());
        assert_eq!((out.len(), out.pushed_in_all(), out.written_in_all()), (3, 10, 7));
        assert_eq!(out.push(&[b"klmnopq"], &mut buffers), Ok(()));
        socket.room = 100;
        assert!(!out.write_to(&mut socket, &mut buffers).unwrap());
        assert_eq!(socket.took, b"abcdefghijklmnopq");
        assert!(out.is_empty());
        assert_eq!((out.pushed_in_all(), out.written_in_all()), (17, 17));
        assert_eq!(out.bytes.capacity(), 0, "an idle connection holds no memory");
    }

    #[test]
    fn buffers_are_used_again_within_bounds() {
        let (mut out, mut buffers) = (OutBuffer::new(1 << 20), Buffers::default());
        let mut socket = Socket { room: usize::MAX, took: Vec::new() };
        for _ in 0..3 {
            out.push(&[b"x"], &mut buffers).unwrap();
            out.write_to(&mut socket, &mut buffers).unwrap();
            assert_eq!(buffers.0.len(), 1);
        }
        out.push(&[&[b'x'; KEPT_LEN_MAX + 1]], &mut buffers).unwrap();
        out.write_to(&mut socket, &mut buffers).unwrap();
        assert_eq!(buffers.0.len(), 0, "a huge one is not kept");
    }

    #[test]
    fn a_socket_that_fails_is_reported() {
        let (mut out, mut buffers) = (OutBuffer::new(10), Buffers::default());
        out.push(&[b"x"], &mut buffers).unwrap();
        let error = out.write_to(&mut [0_u8; 0].as_mut_slice(), &mut buffers).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    /// Takes so many bytes.
    struct Socket {
        room: usize,
        took: Vec<u8>,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.took.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

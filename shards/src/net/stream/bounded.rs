//! A socket of which only so much is read in one call, so that no connection takes a shard's whole turn.

use std::io::{self, Read, Write};

/// Says "would block" when its bound is reached.
pub struct Bounded<S> {
    socket: S,
    left: usize,
    reached: bool,
}

impl<S> Bounded<S> {
    /// At most `bound` bytes of `socket`.
    pub const fn new(socket: S, bound: usize) -> Self {
        Self { socket, left: bound, reached: false }
    }

    /// Whether the bound, and not the socket, was the reason for saying "would block".
    pub const fn is_reached(&self) -> bool {
        self.reached
    }
}

impl<S: Read> Read for Bounded<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.reached = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bound = buffer.len().min(self.left);
        let count = self.socket.read(&mut buffer[..bound])?;
        self.left -= count;
        Ok(count)
    }
}

impl<S: Write> Write for Bounded<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

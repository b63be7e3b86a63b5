//! What lies between a socket and the SIP messages on it.
//!
//! A layer is given the socket only for the length of a call, so that the table of connections keeps it registered and closes
//! it. It never waits: what the socket does not give or take now is asked for again when the poll says so.

use std::io::{self, Read};

use comsipl_core::Transport;
use mio::net::TcpStream;

use super::out_buffer::{Buffers, OutBuffer, OutFull};

/// How the bytes of one connection become messages and messages bytes.
#[derive(Debug)]
pub enum Layer {
    /// SIP over TCP: nothing in between.
    Plain(Plain),
}

/// Which side opened the connection: who begins a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer.
    Accepted,
    /// We.
    Dialled,
}

/// Why [`Layer::read`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// The socket is empty: it said so.
    WouldBlock,
    /// The socket gave less than it was asked for, so it was empty; but whether the peer has closed is not known.
    Short,
    /// There may be more: it was enough for one turn.
    Bound,
    /// The peer sends nothing more.
    Closed,
}

/// Where a layer puts what it read.
pub trait Sink {
    /// Bytes of a stream, in which messages are found by their Content-Length.
    fn stream(&mut self, bytes: &[u8]);

    /// One whole message, or a keep-alive: what came in a frame of its own.
    fn message(&mut self, bytes: &[u8]);
}

impl Layer {
    /// The layer of a new connection that lets at most `out_max` bytes wait for the socket; `None`: the transport is not served
    /// by streams.
    #[must_use]
    pub fn new(transport: Transport, _side: Side, out_max: usize) -> Option<Self> {
        match transport {
            Transport::Tcp => Some(Self::Plain(Plain { out: OutBuffer::new(out_max) })),
            Transport::Udp | Transport::Tls | Transport::Ws | Transport::Wss => None,
        }
    }

    /// Reads what the socket has, at most about the length of `scratch`, and puts it into `sink`.
    ///
    /// # Errors
    /// What the socket says, and whatever makes going on impossible (a broken record or frame): the connection is to be
    /// closed. `WouldBlock` is none, see [`ReadEnd`].
    pub fn read(
        &mut self,
        socket: &mut TcpStream,
        scratch: &mut [u8],
        sink: &mut impl Sink,
    ) -> io::Result<ReadEnd> {
        match self {
            Self::Plain(_) => read_plain(socket, scratch, sink),
        }
    }

    /// Takes one whole SIP message, or a keep-alive, in parts, to be written by [`Self::flush`].
    ///
    /// # Errors
    /// [`OutFull`]: too much waits already; the connection is to be closed.
    pub fn push(&mut self, parts: &[&[u8]], buffers: &mut Buffers) -> Result<(), OutFull> {
        match self {
            Self::Plain(plain) => plain.out.push(parts, buffers),
        }
    }

    /// Writes what waits until the socket is full; says whether something is left.
    ///
    /// # Errors
    /// What the socket says, but `WouldBlock`.
    pub fn flush(&mut self, socket: &mut TcpStream, buffers: &mut Buffers) -> io::Result<bool> {
        match self {
            Self::Plain(plain) => plain.out.write_to(socket, buffers),
        }
    }

    /// Puts what says good-bye in this layer (a TLS alert, a Close frame) behind what waits.
    pub fn say_goodbye(&mut self, _buffers: &mut Buffers) {
        match self {
            Self::Plain(_) => {}
        }
    }

    /// Whether messages have to wait for the end of a handshake. They are taken by [`Self::push`] all the same.
    #[must_use]
    pub const fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain(_) => false,
        }
    }

    /// Whether the layer has something of its own to write, after [`Self::read`]: a step of a handshake, an answer to a ping.
    #[must_use]
    pub const fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) => false,
        }
    }

    /// Gives memory back to `buffers`, before the layer is dropped.
    pub fn dissolve(self, buffers: &mut Buffers) {
        match self {
            Self::Plain(plain) => plain.out.dissolve(buffers),
        }
    }
}

/// The layer of plain TCP.
#[derive(Debug)]
pub struct Plain {
    out: OutBuffer,
}

/// One read: a connection that has more comes again when others had their turn.
fn read_plain(socket: &mut impl Read, scratch: &mut [u8], sink: &mut impl Sink) -> io::Result<ReadEnd> {
    loop {
        return match socket.read(scratch) {
            Ok(0) => Ok(ReadEnd::Closed),
            Ok(len) => {
                sink.stream(&scratch[..len]);
                Ok(if len == scratch.len() { ReadEnd::Bound } else { ReadEnd::Short })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReadEnd::WouldBlock),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_a_call() {
        let mut sink = Vec::new();
        let mut bytes = &b"abcdefg"[..];
        let mut scratch = [0; 4];
        let mut ends = Vec::new();
        for _ in 0..3 {
            ends.push(read_plain(&mut bytes, &mut scratch, &mut sink).unwrap());
        }
        assert_eq!(ends, [ReadEnd::Bound, ReadEnd::Short, ReadEnd::Closed]);
        assert_eq!(sink, b"abcdefg");
    }

    impl Sink for Vec<u8> {
        fn stream(&mut self, bytes: &[u8]) {
            self.extend_from_slice(bytes);
        }

        fn message(&mut self, _: &[u8]) {
            panic!("a stream has no frames");
        }
    }
}

//! What lies between a socket and the SIP messages on it.
//!
//! A layer is given the socket only for the length of a call, so that the table of connections keeps it registered and closes
//! it. It never waits: what the socket does not give or take now is asked for again when the poll says so.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use comsipl_core::Transport;
use mio::net::TcpStream;
use smallvec::SmallVec;

use super::bounded::Bounded;
use super::hand_over::Web;
use super::out_buffer::{Buffers, OutBuffer, OutFull};
use super::tls::{RECORDS_LEN_MAX, TlsSession};
use super::websocket::WebSocket;
use crate::tls::Tls;

/// How the bytes of one connection become messages and messages bytes: TLS next to the socket if there is any, WebSocket above
/// it if there is any.
#[derive(Debug)]
pub struct Layer {
    tls: Option<TlsSession>,
    web: Option<Box<WebSocket>>,
    out: OutBuffer,
    /// Whether TLS is to end when nothing waits any more.
    closing: bool,
}

/// What the layers of all connections of a shard share.
#[derive(Clone, Debug, Default)]
pub struct LayerSettings {
    /// Certificates, keys and roots; `None`: no TLS is spoken.
    pub tls: Option<Arc<Tls>>,
    /// Origins served by WebSocket, in lower case; empty: any.
    pub origins: Arc<[String]>,
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

    /// One whole message, or a keep-alive: what came in a frame of its own. WebSocket's own keep-alives come as one line end.
    fn message(&mut self, bytes: &[u8]);
}

impl Layer {
    /// The layer of a new connection with `peer`, which has the name `host` if it was found by one, that lets at most `out_max` bytes wait for the socket; `None`: the transport
    /// is not served by streams, is not opened by servers (RFC 7118 §3: WebSocket), or lacks its certificate.
    #[must_use]
    pub fn new(
        transport: Transport,
        side: Side,
        peer: IpAddr,
        host: Option<&str>,
        settings: &LayerSettings,
        out_max: usize,
    ) -> Option<Self> {
        if !transport.is_stream() || (transport.is_web_socket() && side == Side::Dialled) {
            return None;
        }
        let tls = match (transport.is_secure(), side) {
            (false, _) => None,
            (true, Side::Accepted) => Some(TlsSession::accept(settings.tls.as_ref()?, transport).ok()?),
            (true, Side::Dialled) => Some(TlsSession::dial(settings.tls.as_ref()?, host, peer).ok()?),
        };
        let web = transport.is_web_socket().then(|| Box::new(WebSocket::new(Arc::clone(&settings.origins))));
        Some(Self { tls, web, out: OutBuffer::new(out_max), closing: false })
    }

    /// Reads what the socket has, at most about the length of `scratch`, and puts it into `sink`. What a layer has to answer by
    /// itself is written at once, as far as the socket takes it; the rest waits for [`Self::flush`].
    ///
    /// # Errors
    /// What the socket says, and whatever makes going on impossible (a broken record or frame): the connection is to be
    /// closed. `WouldBlock` is none, see [`ReadEnd`].
    pub fn read(
        &mut self,
        socket: &mut TcpStream,
        scratch: &mut [u8],
        sink: &mut impl Sink,
        buffers: &mut Buffers,
    ) -> io::Result<ReadEnd> {
        let Self { tls, web, out, .. } = self;
        if tls.is_none() && web.is_none() {
            return read_plain(socket, scratch, sink);
        }
        let mut bounded = Bounded::new(&mut *socket, scratch.len());
        let mut own = Own { out, buffers };
        let result = match (tls, web) {
            (Some(tls), Some(web)) => web.read(&mut tls.over(&mut bounded), &mut own, scratch, sink),
            (Some(tls), None) => read_all(&mut tls.over(&mut bounded), scratch, sink),
            (None, Some(web)) => web.read(&mut bounded, &mut own, scratch, sink),
            (None, None) => unreachable!("plain streams are read above"),
        };
        let is_bound_reached = bounded.is_reached();
        // The end of a handshake lets go what waited for it, and an error may come with an answer that says why.
        let flushed = self.flush(socket, buffers);
        let end = result?;
        flushed?;
        Ok(if end == ReadEnd::WouldBlock && is_bound_reached { ReadEnd::Bound } else { end })
    }

    /// Takes one whole SIP message, or a keep-alive, in parts, to be written by [`Self::flush`].
    ///
    /// # Errors
    /// [`OutFull`]: too much waits already, or a WebSocket is not open yet; then nothing of it was taken.
    pub fn push(&mut self, parts: &[&[u8]], buffers: &mut Buffers) -> Result<(), OutFull> {
        let Some(web) = &self.web else { return self.out.push(parts, buffers) };
        let head = web.frame_head(parts).ok_or(OutFull)?;
        let mut framed: SmallVec<[&[u8]; 8]> = SmallVec::new();
        framed.push(head.as_bytes());
        framed.extend_from_slice(parts);
        self.out.push(&framed, buffers)
    }

    /// Where the last message that was pushed ends, counted in bytes from the beginning.
    #[must_use]
    pub const fn pushed_in_all(&self) -> u64 {
        self.out.pushed_in_all()
    }

    /// Up to where, counted likewise, what was pushed was given on.
    #[must_use]
    pub const fn written_in_all(&self) -> u64 {
        self.out.written_in_all()
    }

    /// Up to where what was pushed has certainly reached the socket: TLS holds some of what it was given.
    #[must_use]
    pub fn left_in_all(&self) -> u64 {
        let written = self.out.written_in_all();
        match &self.tls {
            Some(tls) if tls.is_waiting() => written.saturating_sub(RECORDS_LEN_MAX as u64),
            _ => written,
        }
    }

    /// Writes what waits until the socket is full; says whether something is left.
    ///
    /// # Errors
    /// What the socket says, but `WouldBlock`.
    pub fn flush(&mut self, socket: &mut TcpStream, buffers: &mut Buffers) -> io::Result<bool> {
        loop {
            if self.write(socket, buffers)? {
                return Ok(true);
            }
            let Self { web, out, .. } = self;
            let said =
                web.as_mut().is_some_and(|web| web.say_what_waits(&mut Own { out, buffers: &mut *buffers }));
            if !said {
                return Ok(false);
            }
        }
    }

    /// Writes what waits in the out-buffer; says whether something is left in it or below.
    fn write(&mut self, socket: &mut TcpStream, buffers: &mut Buffers) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return self.out.write_to(socket, buffers) };
        while self.out.write_to(&mut tls.over(socket), buffers)? {
            if tls.flush(socket)? {
                return Ok(true);
            }
            if tls.is_handshaking() {
                // What waits goes on when the peer's next step was read, and the socket has nothing to do with it.
                return Ok(false);
            }
        }
        if self.closing {
            tls.say_goodbye();
        }
        tls.flush(socket)
    }

    /// Puts what says good-bye in this layer (a TLS alert, a Close frame) behind what waits.
    pub fn say_goodbye(&mut self, buffers: &mut Buffers) {
        if let Some(web) = &mut self.web {
            web.say_goodbye(&mut Own { out: &mut self.out, buffers });
        }
        self.closing = true;
    }

    /// Whether something waits for the socket, or for the end of a handshake.
    fn is_waiting(&self) -> bool {
        !self.out.is_empty() || self.tls.as_ref().is_some_and(TlsSession::is_waiting)
    }

    /// Whether messages have to wait for the end of a handshake. Those over TLS are taken by [`Self::push`] all the same.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::is_handshaking)
            || self.web.as_ref().is_some_and(|web| web.is_opening())
    }

    /// Whether a unit of a layer has begun and not ended: a TLS record, a WebSocket message.
    #[must_use]
    pub fn is_within_unit(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::is_within_unit)
            || self.web.as_ref().is_some_and(|web| web.is_within_message())
    }

    /// Whether the layer has something of its own to write, after [`Self::read`]: a step of a handshake, an answer to a ping.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        (self.tls.is_some() || self.web.is_some()) && self.is_waiting()
    }

    /// Whether the peer may still be sent messages when it sends nothing more: the end of a WebSocket is that of both
    /// directions (RFC 6455 §7.1.1).
    #[must_use]
    pub const fn ends_one_way(&self) -> bool {
        self.web.is_none()
    }

    /// Whether another process can go on with it: nothing is in the middle of something, and nothing is secret.
    #[must_use]
    pub fn can_be_carried(&self) -> bool {
        self.tls.is_none()
            && !self.closing
            && !self.is_within_unit()
            && !self.is_handshaking()
            && self.out.len() <= CARRIED_OUT_MAX
    }

    /// What another process needs to go on: the WebSocket if there is one, and what waits for the socket.
    #[must_use]
    pub fn carry(self) -> (Option<Web>, Vec<u8>) {
        (self.web.map(|web| web.carry()), self.out.into_bytes())
    }

    /// Goes on with what [`Self::carry`] gave in another process; at most `out_max` bytes more may wait than there wait
    /// already.
    #[must_use]
    pub fn go_on(web: Option<Web>, origins: Arc<[String]>, out_max: usize, out: &[u8]) -> Self {
        let web = web.map(|it| Box::new(WebSocket::go_on(it, origins)));
        Self { tls: None, web, out: OutBuffer::with(out_max, out), closing: false }
    }

    /// Gives memory back to `buffers`, before the layer is dropped.
    pub fn dissolve(self, buffers: &mut Buffers) {
        self.out.dissolve(buffers);
    }
}

/// Most bytes that wait for a socket and are handed to another process; a connection with more is closed instead.
const CARRIED_OUT_MAX: usize = 4 << 20;

/// Where WebSocket puts what it has to say by itself: behind the messages that wait.
struct Own<'a> {
    out: &'a mut OutBuffer,
    buffers: &'a mut Buffers,
}

impl Write for Own<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let full = |OutFull| io::Error::from(io::ErrorKind::WouldBlock);
        self.out.push(&[bytes], self.buffers).map_err(full).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads until `stream` would block, which is bounded further down.
fn read_all(stream: &mut impl Read, scratch: &mut [u8], sink: &mut impl Sink) -> io::Result<ReadEnd> {
    loop {
        match stream.read(scratch) {
            Ok(0) => return Ok(ReadEnd::Closed),
            Ok(len) => sink.stream(&scratch[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ReadEnd::WouldBlock),
            Err(error) => return Err(error),
        }
    }
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

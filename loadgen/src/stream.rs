//! A TCP connection that carries the messages of many agents, as a proxy's, or of one.
//!
//! Messages are found by their Content-Length (RFC 3261 §18.3). What the kernel does not take waits in a bounded buffer. A
//! connection that is lost is opened again when something is to be sent: a phone does so with its next request.

use crate::mmsg;
use anyhow::Context as _;
use comsipl_core::framing::{Frame, Framer};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most bytes that wait for a connection; what comes on top is not sent.
const OUT_MAX: usize = 16 << 20;
/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How much is read at once, from one connection after the other.
pub const READ_MAX: usize = 64 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    framer: Framer,
    /// What is to be sent.
    pub out: Outgoing,
    /// Where it comes from.
    pub local: SocketAddr,
    /// Where it leads to.
    pub peer: SocketAddr,
    is_lost: bool,
}

/// Messages that wait for a connection.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// How many of the bytes are sent.
    sent: usize,
    /// How many messages were not taken since they were asked for.
    refused: u64,
}

impl Outgoing {
    /// Appends the message that `write` puts into the buffer.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.len() - self.sent >= OUT_MAX {
            self.refused += 1;
        } else {
            write(&mut self.bytes);
        }
    }

    /// Whether something waits.
    pub fn waits(&self) -> bool {
        self.sent < self.bytes.len()
    }
}

impl Connection {
    /// Opens a connection from `source` to `peer`.
    pub fn open(source: Option<IpAddr>, peer: SocketAddr) -> anyhow::Result<Self> {
        Self::of(connect(source, peer).with_context(|| format!("cannot connect to {peer} over TCP"))?)
    }

    /// A connection that is open.
    pub fn of(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { stream, framer: Framer::default(), out: Outgoing::default(), local, peer, is_lost: false })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Hands what waits to the kernel; how many messages were refused. `Err` if the connection is lost: then nothing waits any
    /// more.
    pub fn flush(&mut self) -> (u64, Result<(), Lost>) {
        let refused = std::mem::take(&mut self.out.refused);
        while self.out.waits() && !self.is_lost {
            match self.stream.write(&self.out.bytes[self.out.sent..]) {
                Ok(count) => self.out.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (refused, Ok(())),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.is_lost = true,
            }
        }
        self.out.sent = 0;
        self.out.bytes.clear();
        (refused, if self.is_lost { Err(Lost) } else { Ok(()) })
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Reads what is there, at most [`READ_MAX`] bytes: `handle` gets each message with the time at which it was read, in
    /// nanoseconds of the wall clock, and may answer. Whether more may be there.
    pub fn receive(
        &mut self,
        room: &mut [u8],
        mut handle: impl FnMut(&mut Outgoing, mmsg::Datagram<'_>),
    ) -> bool {
        let len = match self.stream.read(room) {
            Ok(0) => {
                self.is_lost = true;
                return false;
            }
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) => {
                self.is_lost |= error.kind() != ErrorKind::WouldBlock;
                return false;
            }
        };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp_ns = u64::try_from(wall.as_nanos()).ok();
        let mut at = 0;
        loop {
            let (taken, frame) = self.framer.next(&room[at..len]);
            at += taken;
            match frame {
                None => break,
                Some(Frame::Ping) => {}
                Some(Frame::Message(bytes)) => {
                    let datagram = mmsg::Datagram { bytes, source: self.peer, stamp_ns, truncated: false };
                    handle(&mut self.out, datagram);
                }
                Some(Frame::Broken(_)) => {
                    // Counted by the handler as what is no message.
                    let datagram =
                        mmsg::Datagram { bytes: b"?", source: self.peer, stamp_ns, truncated: false };
                    handle(&mut self.out, datagram);
                    self.is_lost = true;
                    return false;
                }
            }
        }
        len == room.len()
    }
}

/// A connection is lost.
#[derive(Debug)]
pub struct Lost;

/// Allows so many descriptors, if the system does.
pub fn allow_descriptors(wanted: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        // Who may go beyond the hard limit does; a limit is raised for as long as the generator runs.
        let maximum = maximum.map(|maximum| maximum.max(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
            .with_context(|| format!("{wanted} descriptors are more than the system allows (ulimit -n)"))?;
    }
    Ok(())
}

fn connect(source: Option<IpAddr>, peer: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    // Without a source the kernel chooses the port when it knows the peer, and so has more to choose from.
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&peer.into(), CONNECT_MAX)?;
    Ok(socket.into())
}

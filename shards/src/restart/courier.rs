//! Messages with descriptors between two processes, over a Unix stream.
//!
//! A frame is a head of [`HEAD_LEN`] bytes (length of the text, length of the payload, number of descriptors), the text
//! (JSON), and the payload. Its descriptors travel with the head, so they are there when the rest is: a stream keeps
//! both in order. Lines may be exchanged before the first frame.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::deadline::Deadline;

/// One end of the way between two processes.
#[derive(Debug)]
pub struct Courier {
    socket: UnixStream,
    /// Read, and not taken yet.
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

/// What came in a frame.
#[derive(Debug)]
pub struct Parcel<T> {
    /// What it says.
    pub text: T,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Its descriptors, in the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

impl Courier {
    /// Takes a connected socket, of which nothing has been read that is not in `bytes`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(socket: UnixStream, bytes: Vec<u8>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, bytes, descriptors: VecDeque::new() })
    }

    /// The user and process at the other end.
    ///
    /// # Errors
    /// What the system says.
    pub fn peer(&self) -> io::Result<rustix::net::UCred> {
        Ok(rustix::net::sockopt::socket_peercred(&self.socket)?)
    }

    /// The process at the other end, which is there now; `None`: it cannot be told, or is ours.
    #[must_use]
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = self.peer().ok()?.pid;
        let opened = (pid != getpid()).then(|| pidfd_open(pid, PidfdFlags::empty()))?;
        opened.inspect_err(|error| tracing::debug!(%error, "the other process cannot be held on to")).ok()
    }

    /// From now on the other end can send nothing more; what it has sent can still be received.
    ///
    /// # Errors
    /// What the system says.
    pub fn hear_no_more(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Both)
    }

    /// Sends a line.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_line(&mut self, text: &impl Serialize, deadline: &Deadline<'_>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(text)?;
        bytes.push(b'\n');
        self.write(&bytes, &[], deadline)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// What the system says; `TimedOut` and `Interrupted` as [`Deadline`] says. The way is of no use then.
    pub fn send(
        &mut self,
        text: &impl Serialize,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: &Deadline<'_>,
    ) -> io::Result<()> {
        assert!(descriptors.len() <= DESCRIPTORS_MAX, "more are cut into several frames");
        let text = serde_json::to_vec(text)?;
        let mut bytes = Vec::with_capacity(HEAD_LEN + text.len() + payload.len());
        for len in [text.len(), payload.len(), descriptors.len()] {
            bytes.extend_from_slice(&u32::try_from(len).map_err(|_| too_long())?.to_le_bytes());
        }
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(payload);
        self.write(&bytes, descriptors, deadline)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_line(&mut self, deadline: &Deadline<'_>) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            if self.bytes.len() > TEXT_LEN_MAX {
                return Err(too_long());
            }
            self.read(deadline)?;
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` if the other end is closed; `InvalidData` if it writes what cannot be read;
    /// `TimedOut` and `Interrupted` as [`Deadline`] says.
    pub fn receive<T: DeserializeOwned>(&mut self, deadline: &Deadline<'_>) -> io::Result<Parcel<T>> {
        let [text, payload, descriptors] = loop {
            if let Some(head) = self.bytes.first_chunk::<HEAD_LEN>() {
                break [0, 4, 8]
                    .map(|at| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize);
            }
            self.read(deadline)?;
        };
        if text > TEXT_LEN_MAX || payload > PAYLOAD_LEN_MAX || descriptors > DESCRIPTORS_MAX {
            return Err(too_long());
        }
        let len = HEAD_LEN + text + payload;
        while self.bytes.len() < len {
            self.read(deadline)?;
        }
        if self.descriptors.len() < descriptors {
            return Err(descriptors_missing());
        }
        let rest = self.bytes.split_off(len);
        let frame = std::mem::replace(&mut self.bytes, rest);
        Ok(Parcel {
            text: serde_json::from_slice(&frame[HEAD_LEN..HEAD_LEN + text])?,
            payload: frame[HEAD_LEN + text..].to_vec(),
            descriptors: self.descriptors.drain(..descriptors).collect(),
        })
    }

    fn read(&mut self, deadline: &Deadline<'_>) -> io::Result<()> {
        let mut room = [0; READ_LEN];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        loop {
            deadline.wait(&self.socket, PollFlags::IN)?;
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut room)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            let count = match received {
                // Descriptors that found no place would be missed by the wrong frame.
                Ok(received) if received.flags.contains(ReturnFlags::CTRUNC) => {
                    return Err(descriptors_missing());
                }
                Ok(received) => received.bytes,
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.bytes.extend_from_slice(&room[..count]);
            return Ok(());
        }
    }

    fn write(
        &mut self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: &Deadline<'_>,
    ) -> io::Result<()> {
        let mut rest = bytes;
        let mut descriptors = descriptors;
        while !rest.is_empty() {
            match send_with(&self.socket, rest, descriptors) {
                Ok(count) => {
                    rest = &rest[count..];
                    descriptors = &[];
                }
                Err(Errno::AGAIN) => deadline.wait(&self.socket, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                // As many descriptors are on their way as we may have open (unix(7)): the other end takes them off.
                Err(Errno::TOOMANYREFS) => {
                    deadline.check()?;
                    std::thread::sleep(FULL_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Sends bytes and descriptors in one call, without waiting.
///
/// # Errors
/// What the system says.
pub fn send_with(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::MSGSIZE);
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

/// Whether an error says that the other end is closed: its process has ended or wants no more.
#[must_use]
pub fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

fn descriptors_missing() -> io::Error {
    io::Error::other("descriptors are missing; the limit of open files may be too low")
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message between two servers is too long")
}

/// Most descriptors in a frame; the kernel takes 253 (unix(7), SCM_RIGHTS).
pub const DESCRIPTORS_MAX: usize = 64;
/// Longest text of a frame: what is said of so many connections.
const TEXT_LEN_MAX: usize = 1 << 20;
/// Longest payload of a frame: what waits for and from one connection, each within its bounds.
pub const PAYLOAD_LEN_MAX: usize = 256 << 20;
/// Bytes of a frame before its text.
const HEAD_LEN: usize = 12;
/// Bytes read at a time.
const READ_LEN: usize = 64 * 1024;
/// How long to wait when too many descriptors are on their way.
const FULL_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pair() -> (Courier, Courier) {
        let (one, other) = UnixStream::pair().unwrap();
        (Courier::new(one, Vec::new()).unwrap(), Courier::new(other, Vec::new()).unwrap())
    }

    fn deadline() -> Deadline<'static> {
        Deadline::of(Duration::from_secs(10))
    }

    #[test]
    fn frames_arrive_in_order_with_their_descriptors() {
        let (mut here, mut there) = pair();
        let sockets: Vec<_> = (0..200).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = sockets.iter().map(|it| it.local_addr().unwrap().port()).collect();
        let sender = std::thread::spawn(move || {
            here.send_line(&"hello", &deadline()).unwrap();
            for chunk in sockets.chunks(DESCRIPTORS_MAX) {
                let descriptors: Vec<_> = chunk.iter().map(AsFd::as_fd).collect();
                here.send(&chunk.len(), &vec![7; 100_000], &descriptors, &deadline()).unwrap();
                here.send(&0, b"", &[], &deadline()).unwrap();
            }
        });
        assert_eq!(there.receive_line(&deadline()).unwrap(), b"\"hello\"");
        let mut found = Vec::new();
        while found.len() < ports.len() {
            let parcel: Parcel<usize> = there.receive(&deadline()).unwrap();
            assert_eq!((parcel.text, parcel.payload.len()), (parcel.descriptors.len(), 100_000));
            for descriptor in parcel.descriptors {
                found.push(std::net::UdpSocket::from(descriptor).local_addr().unwrap().port());
            }
            assert_eq!(there.receive::<usize>(&deadline()).unwrap().descriptors.len(), 0);
        }
        assert_eq!(found, ports);
        sender.join().unwrap();
        let end = there.receive::<usize>(&deadline()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_wanted() {
        let (mut here, _there) = pair();
        let short = Deadline::of(Duration::ZERO);
        assert_eq!(here.receive::<usize>(&short).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (stop, stopped) = UnixStream::pair().unwrap();
        drop(stop);
        let error = here.receive::<usize>(&deadline().unless(&stopped)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        let endless = here.send(&0, &vec![0; 4 << 20], &[], &short).unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::TimedOut, "nobody reads");
    }

    #[test]
    fn who_hears_no_more_knows_all_that_was_sent() {
        let (mut here, mut there) = pair();
        there.send(&1, b"", &[], &deadline()).unwrap();
        here.hear_no_more().unwrap();
        assert!(is_closed(&there.send(&2, b"", &[], &deadline()).unwrap_err()));
        assert_eq!(here.receive::<usize>(&deadline()).unwrap().text, 1);
        assert!(is_closed(&here.receive::<usize>(&deadline()).unwrap_err()));
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for bytes in [&[0xff; HEAD_LEN][..], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'x']] {
            let (one, mut other) = UnixStream::pair().unwrap();
            other.write_all(bytes).unwrap();
            let mut courier = Courier::new(one, Vec::new()).unwrap();
            let error = courier.receive::<usize>(&deadline()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let (one, mut other) = UnixStream::pair().unwrap();
        other.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'1']).unwrap();
        assert!(Courier::new(one, Vec::new()).unwrap().receive::<usize>(&deadline()).is_err());
    }
}

//! Sends what a turn wants sent, in order, and keeps what the kernel does not take yet.
//!
//! Invariants:
//!   * datagrams of one listener leave in the order in which they were written, whatever is refused between them;
//!   * a destination that is refused costs its own datagram only;
//!   * what waits for a full socket is bounded in bytes; beyond the bound the oldest is dropped and counted, because a
//!     newer NOTIFY or a retransmission makes up for it and the newest is worth most.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use comsipl_core::{Bodies, Flow, Outbox};

use super::mmsg::{Datagram, SendBatch};

/// What sending came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendFigures {
    /// Datagrams the kernel took.
    pub sent: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// Datagrams the kernel refused: no route, too long, forbidden by a filter.
    pub refused: u64,
    /// Datagrams dropped because too much waited already.
    pub dropped: u64,
}

/// The sending side of one shard, over all its listeners.
pub struct Sender {
    batch: SendBatch,
    /// One for each socket: its listener's number, and what it did not take.
    waiting: Vec<(u8, Waiting)>,
}

impl Sender {
    /// A sender for one socket of each of these listeners.
    #[must_use]
    pub fn new(listeners: &[u8]) -> Self {
        Self {
            batch: SendBatch::new(),
            waiting: listeners.iter().map(|&it| (it, Waiting::new(WAITING_BYTES_MAX))).collect(),
        }
    }

    /// Sends the datagrams of `outbox` by `sockets`, which are in the order of the listeners given to [`Self::new`]. What a
    /// full socket does not take is copied and kept, so that the caller may clear the outbox.
    pub fn send<S: AsFd>(
        &mut self,
        sockets: &[S],
        outbox: &Outbox,
        bodies: &Bodies,
        figures: &mut SendFigures,
    ) {
        if outbox.is_empty() {
            return;
        }
        for ((listener, waiting), socket) in self.waiting.iter_mut().zip(sockets) {
            let ours = |flow: &Flow| flow.listener == *listener && !flow.transport.is_stream();
            let messages = outbox.messages().iter().filter(|it| ours(&it.flow));
            let datagrams = messages.map(|message| Datagram {
                peer: message.flow.peer,
                local_ip: message.flow.local_ip,
                parts: outbox.parts(message, bodies),
            });
            let mut kernel = |it: &mut dyn Iterator<Item = Datagram<'_>>| self.batch.send(socket.as_fd(), it);
            waiting.send(datagrams, &mut kernel, figures);
        }
    }

    /// Goes on with what waits for a socket, by its place among `sockets`, now that it may take it.
    pub fn resume(&mut self, place: usize, socket: &impl AsFd, figures: &mut SendFigures) {
        let mut kernel = |it: &mut dyn Iterator<Item = Datagram<'_>>| self.batch.send(socket.as_fd(), it);
        self.waiting[place].1.resume(&mut kernel, figures);
    }

    /// Whether something waits until the socket in that place is writable.
    #[must_use]
    pub fn is_waiting(&self, place: usize) -> bool {
        !self.waiting[place].1.datagrams.is_empty()
    }
}

/// `sendmmsg` as [`Waiting`] sees it: how many of the datagrams, at least one, or why not the first.
type Kernel<'k> = dyn FnMut(&mut dyn Iterator<Item = Datagram<'_>>) -> io::Result<usize> + 'k;

/// Copies of datagrams that a full socket did not take, oldest first.
struct Waiting {
    datagrams: VecDeque<Kept>,
    /// Their payloads behind one another; a payload that wraps is sent as two parts.
    bytes: VecDeque<u8>,
    bytes_max: usize,
}

/// One datagram of [`Waiting`].
struct Kept {
    peer: SocketAddr,
    local_ip: Option<IpAddr>,
    len: usize,
}

impl Waiting {
    fn new(bytes_max: usize) -> Self {
        Self { datagrams: VecDeque::new(), bytes: VecDeque::new(), bytes_max }
    }

    /// Sends `datagrams`, or keeps them if the socket is full.
    fn send<'a>(
        &mut self,
        mut datagrams: impl Iterator<Item = Datagram<'a>> + Clone,
        kernel: &mut Kernel<'_>,
        figures: &mut SendFigures,
    ) {
        if self.datagrams.is_empty() {
            loop {
                match kernel(&mut datagrams.clone()) {
                    Ok(0) => return,
                    Ok(count) => {
                        for datagram in datagrams.by_ref().take(count) {
                            figures.sent += 1;
                            figures.sent_bytes += datagram.len() as u64;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        if let Some(datagram) = datagrams.next() {
                            refuse(&error, datagram.peer, figures);
                        }
                    }
                }
            }
        }
        for datagram in datagrams {
            self.keep(&datagram, figures);
        }
    }

    /// Sends what is kept.
    fn resume(&mut self, kernel: &mut Kernel<'_>, figures: &mut SendFigures) {
        while !self.datagrams.is_empty() {
            let (front, back) = self.bytes.as_slices();
            let mut at = 0;
            let mut datagrams = self.datagrams.iter().map(|kept| {
                let (head, body) = span(front, back, at, kept.len);
                at += kept.len;
                Datagram { peer: kept.peer, local_ip: kept.local_ip, parts: [head, body, &[]] }
            });
            match kernel(&mut datagrams) {
                Ok(count) => {
                    for _ in 0..count {
                        figures.sent += 1;
                        figures.sent_bytes += self.forget_oldest() as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    refuse(&error, self.datagrams[0].peer, figures);
                    self.forget_oldest();
                }
            }
        }
    }

    /// Puts a copy behind the others; makes room for it first.
    fn keep(&mut self, datagram: &Datagram<'_>, figures: &mut SendFigures) {
        let len = datagram.len();
        while !self.datagrams.is_empty() && self.bytes.len() + len > self.bytes_max {
            self.forget_oldest();
            figures.dropped += 1;
        }
        for part in datagram.parts {
            self.bytes.extend(part);
        }
        self.datagrams.push_back(Kept { peer: datagram.peer, local_ip: datagram.local_ip, len });
    }

    /// Removes the oldest and returns its length.
    fn forget_oldest(&mut self) -> usize {
        let len = self.datagrams.pop_front().map_or(0, |kept| kept.len);
        self.bytes.drain(..len);
        len
    }
}

/// Counts a datagram that the kernel does not want.
fn refuse(error: &io::Error, peer: SocketAddr, figures: &mut SendFigures) {
    figures.refused += 1;
    tracing::debug!(%error, %peer, "datagram refused by the kernel");
}

/// The `len` bytes at `at` of `front` followed by `back`.
fn span<'a>(front: &'a [u8], back: &'a [u8], at: usize, len: usize) -> (&'a [u8], &'a [u8]) {
    match at.checked_sub(front.len()) {
        Some(at) => (&back[at..at + len], &[]),
        None if at + len <= front.len() => (&front[at..at + len], &[]),
        None => (&front[at..], &back[..at + len - front.len()]),
    }
}

/// Most bytes that wait for one full socket, besides what its own buffer holds: some 5,000 NOTIFYs. A longer queue would
/// deliver answers after their requests have been retransmitted.
const WAITING_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_bad_destination_does_not_stop_the_others() {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let good = client.local_addr().unwrap();
        let bad_family: SocketAddr = "[2001:db8::1]:5060".parse().unwrap();
        let port_zero = SocketAddr::new(good.ip(), 0);
        let (mut outbox, mut bodies) = (Outbox::default(), Bodies::default());
        let body = bodies.insert(|out| out.extend_from_slice(b" body"));
        for (number, peer) in [good, bad_family, port_zero, good, good, bad_family].into_iter().enumerate() {
            outbox.send_with_body(flow(0, peer), body, &mut bodies, |out| {
                out.extend_from_slice(number.to_string().as_bytes());
                0
            });
        }
        outbox.send(flow(0, good), |out| out.resize(66_000, b'x'));
        outbox.send(flow(0, good), |out| out.extend_from_slice(b"last"));

        let mut figures = SendFigures::default();
        let mut sender = Sender::new(&[0]);
        sender.send(&[&server], &outbox, &bodies, &mut figures);
        assert_eq!(figures, SendFigures { sent: 4, sent_bytes: 3 * 6 + 4, refused: 4, dropped: 0 });
        assert!(!sender.is_waiting(0));
        for expected in ["0 body", "3 body", "4 body", "last"] {
            let mut buffer = [0; 64];
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..len]), Ok(expected));
        }
    }

    #[test]
    fn each_listener_sends_its_own_and_more_than_a_batch() {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let servers = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        let mut outbox = Outbox::default();
        for number in 0..200_u16 {
            outbox.send(flow((number % 2) as u8, client.local_addr().unwrap()), |out| {
                out.extend_from_slice(&number.to_be_bytes());
            });
        }
        let mut figures = SendFigures::default();
        Sender::new(&[0, 1]).send(&servers, &outbox, &Bodies::default(), &mut figures);
        assert_eq!(figures.sent, 200);
        let mut next = [0_u16, 1];
        for _ in 0..200 {
            let mut buffer = [0; 2];
            let (_, from) = client.recv_from(&mut buffer).unwrap();
            let number = u16::from_be_bytes(buffer);
            assert_eq!(from, servers[usize::from(number % 2)].local_addr().unwrap());
            assert_eq!(number, next[usize::from(number % 2)], "in order");
            next[usize::from(number % 2)] += 2;
        }
    }

    #[test]
    fn a_full_socket_is_waited_for_and_order_is_kept() {
        let mut kernel = FakeKernel { room: 3, ..FakeKernel::default() };
        let mut waiting = Waiting::new(1024);
        let mut figures = SendFigures::default();
        waiting.send(numbered(&["a", "b", "c", "d", "e"]), &mut kernel.call(), &mut figures);
        assert_eq!(kernel.took, ["a", "b", "c"]);
        kernel.room = 10;
        waiting.send(numbered(&["f"]), &mut kernel.call(), &mut figures);
        assert_eq!(kernel.took.len(), 3, "what comes later stays behind what waits");
        waiting.resume(&mut kernel.call(), &mut figures);
        assert_eq!(kernel.took, ["a", "b", "c", "d", "e", "f"]);
        assert!(waiting.datagrams.is_empty() && waiting.bytes.is_empty());
        assert_eq!(figures, SendFigures { sent: 6, sent_bytes: 12, ..SendFigures::default() });
    }

    #[test]
    fn a_refused_datagram_among_the_waiting_is_skipped() {
        let mut kernel = FakeKernel::default();
        let mut waiting = Waiting::new(1024);
        let mut figures = SendFigures::default();
        waiting.send(numbered(&["a", "bad", "c"]), &mut kernel.call(), &mut figures);
        kernel.room = 10;
        waiting.resume(&mut kernel.call(), &mut figures);
        assert_eq!(kernel.took, ["a", "c"]);
        assert_eq!((figures.sent, figures.refused), (2, 1));
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_and_wrapped_payloads_stay_whole() {
        let mut kernel = FakeKernel::default();
        let mut waiting = Waiting::new(20);
        let mut figures = SendFigures::default();
        let texts: Vec<String> = (0..100).map(|i| format!("text {i}")).collect();
        for text in &texts {
            waiting.send(numbered(&[text.as_str()]), &mut kernel.call(), &mut figures);
            assert!(waiting.bytes.len() <= 20);
        }
        assert_eq!(figures.dropped, 98);
        kernel.room = 10;
        waiting.resume(&mut kernel.call(), &mut figures);
        assert_eq!(kernel.took, ["text 98", "text 99"]);
    }

    /// A socket with room for so many datagrams; refuses those that read "bad".
    #[derive(Default)]
    struct FakeKernel {
        room: usize,
        took: Vec<String>,
    }

    impl FakeKernel {
        fn call(&mut self) -> impl FnMut(&mut dyn Iterator<Item = Datagram<'_>>) -> io::Result<usize> {
            |datagrams| {
                let mut count = 0;
                for datagram in datagrams {
                    let text = datagram.parts.concat();
                    let text = std::str::from_utf8(&text).unwrap().trim_start_matches('.');
                    let error = match text {
                        _ if self.room == 0 => io::ErrorKind::WouldBlock,
                        "bad" => io::ErrorKind::HostUnreachable,
                        _ => {
                            self.room -= 1;
                            self.took.push(text.to_owned());
                            count += 1;
                            continue;
                        }
                    };
                    return if count > 0 { Ok(count) } else { Err(error.into()) };
                }
                Ok(count)
            }
        }
    }

    fn numbered<'a>(texts: &'a [&'a str]) -> impl Iterator<Item = Datagram<'a>> + Clone {
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        texts.iter().map(move |text| Datagram { peer, local_ip: None, parts: [b".", text.as_bytes(), b""] })
    }

    fn flow(listener: u8, peer: SocketAddr) -> Flow {
        Flow::udp(listener, None, peer)
    }
}

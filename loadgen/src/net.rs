//! The sockets or connections of one thread: readiness, batches, and sleeping to the nanosecond.

use crate::link::{Done, Fate, Held, Link, Weather};
use crate::mmsg::{self, Datagram, Receiver, SendQueue, Sender};
use crate::relief::Relief;
use crate::stream::{Connection, Outgoing, READ_MAX};
use anyhow::Context as _;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Receive buffer of each socket in bytes: a burst of NOTIFYs must not be lost while requests are written.
const RECEIVE_BUFFER: usize = 16 << 20;
/// A thread that slept wakes up so much late; the rest of a wait is spent looking at the sockets.
const SPIN_MAX: Duration = Duration::from_micros(150);
/// Most sockets that one wait tells of; the others are told of by the next.
const EVENTS_MAX: usize = 1_024;

/// A few sockets, each with its own source port, that carry many agents; over TCP a few connections, or one for each.
pub struct Sockets {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// None over TCP.
    sockets: Vec<UdpSocket>,
    /// None over UDP.
    connections: Vec<Connection>,
    /// What was read from a connection.
    room: Box<[u8]>,
    /// Where connections come from, if that was said.
    source: Option<IpAddr>,
    /// Connections that were lost, and those of them that were not asked for yet.
    lost: u64,
    newly_lost: Vec<usize>,
    /// Messages that found no connection since they were last asked for.
    unsent: u64,
    addresses: Vec<SocketAddr>,
    /// The same as text.
    names: Vec<Box<str>>,
    queues: Vec<SendQueue>,
    /// Sockets that may have something to read, and whether they are in `ready`.
    ready: VecDeque<usize>,
    is_ready: Vec<bool>,
    /// Sockets with something to send.
    dirty: Vec<usize>,
    receiver: Receiver,
    sender: Sender,
    /// Another thread that sends.
    relief: Option<Relief>,
    /// The bad network; none when it is good.
    weather: Option<Box<Weather>>,
    /// Waits are spent looking at the sockets.
    polls: bool,
}

impl Sockets {
    /// Opens `count` sockets on `source` at ports that the system chooses. `together` lets the kernel leave datagrams
    /// together that came together.
    pub fn open(count: usize, source: IpAddr, together: bool) -> anyhow::Result<Self> {
        let mut these = Self::none(together)?;
        for i in 0..count {
            let socket = UdpSocket::bind((source, 0)).with_context(|| format!("cannot bind to {source}"))?;
            socket.set_nonblocking(true)?;
            mmsg::enable_stamps(socket.as_fd()).context("cannot enable receive stamps")?;
            mmsg::set_receive_buffer(socket.as_fd(), RECEIVE_BUFFER)
                .context("cannot size the receive buffer")?;
            if source.is_ipv4() {
                mmsg::set_fragments(socket.as_fd(), false).context("cannot forbid fragments")?;
            }
            if together {
                mmsg::receive_together(socket.as_fd()).context("cannot receive with UDP_GRO")?;
            }
            epoll::add(&these.epoll, &socket, EventData::new_u64(i as u64), EventFlags::IN | EventFlags::ET)?;
            let address = socket.local_addr()?;
            these.name(address);
            these.queues.push(SendQueue::default());
            these.sockets.push(socket);
        }
        Ok(these)
    }

    /// Opens `count` connections to `target`, from ports that the system chooses.
    pub fn connect(count: usize, source: Option<IpAddr>, target: SocketAddr) -> anyhow::Result<Self> {
        let opened = (0..count).map(|_| Connection::open(source, target)).collect::<Result<_, _>>()?;
        Ok(Self { source, ..Self::over(opened)? })
    }

    /// Over connections that are open.
    pub fn over(connections: Vec<Connection>) -> anyhow::Result<Self> {
        let mut these = Self { room: vec![0; READ_MAX].into_boxed_slice(), ..Self::none(false)? };
        for (i, connection) in connections.into_iter().enumerate() {
            these.attend(i, &connection)?;
            these.name(connection.local);
            these.connections.push(connection);
        }
        Ok(these)
    }

    /// No sockets yet.
    fn none(together: bool) -> anyhow::Result<Self> {
        // A wait ends when it should, and not up to 50 µs later in company.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("cannot set the timer slack")?;
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC).context("cannot make an epoll")?,
            events: Vec::with_capacity(EVENTS_MAX),
            sockets: Vec::new(),
            connections: Vec::new(),
            room: Box::default(),
            source: None,
            lost: 0,
            newly_lost: Vec::new(),
            unsent: 0,
            addresses: Vec::new(),
            names: Vec::new(),
            queues: Vec::new(),
            ready: VecDeque::new(),
            is_ready: Vec::new(),
            dirty: Vec::new(),
            receiver: Receiver::new(together),
            sender: Sender::new(),
            relief: None,
            weather: None,
            polls: false,
        })
    }

    /// One more has this local address.
    fn name(&mut self, address: SocketAddr) {
        self.addresses.push(address);
        self.names.push(address.to_string().into());
        self.is_ready.push(false);
    }

    /// Wants to be told of a connection. Room to write is told only after there was none.
    fn attend(&self, i: usize, connection: &Connection) -> anyhow::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, connection.stream(), EventData::new_u64(i as u64), flags)?;
        Ok(())
    }

    /// Opens a connection again that was lost, on whose port nobody listens any more.
    fn reopen(&mut self, i: usize) -> anyhow::Result<()> {
        let connection = Connection::open(self.source, self.connections[i].peer)?;
        self.attend(i, &connection)?;
        self.addresses[i] = connection.local;
        self.names[i] = connection.local.to_string().into();
        self.connections[i] = connection;
        Ok(())
    }

    /// How many connections were lost so far, those included that were opened again.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Never sleeps from now on: a sleeping thread is woken by the server's sending, at the server's cost. So is the entry in
    /// the epoll's list of each datagram that is sent to a socket with one, which is why sockets leave it.
    pub fn poll(&mut self) -> anyhow::Result<()> {
        self.polls = true;
        for socket in &self.sockets {
            epoll::delete(&self.epoll, socket)?;
        }
        Ok(())
    }

    /// Has another thread send, too, which runs `begin` first. For one socket.
    pub fn relieve(
        &mut self,
        begin: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let [socket] = &self.sockets[..] else { anyhow::bail!("only one socket is relieved of sending") };
        let socket = socket.try_clone().context("cannot share a socket")?;
        self.relief = Some(Relief::start(socket, self.polls, begin)?);
        Ok(())
    }

    /// Plays a bad network from now on.
    pub fn worsen(&mut self, link: Link, seed: u64) {
        self.weather = link.is_bad().then(|| Box::new(Weather::new(link, seed)));
    }

    /// What the bad network has done so far; none when it is good.
    pub fn weather(&self) -> Option<Done> {
        self.weather.as_ref().map(|weather| weather.done)
    }

    /// A connection that was lost, each once.
    pub fn take_lost(&mut self) -> Option<usize> {
        self.newly_lost.pop()
    }

    /// How many sockets or connections there are.
    pub const fn count(&self) -> usize {
        self.addresses.len()
    }

    /// The source address that reaches `target`.
    pub fn source_for(target: SocketAddr) -> anyhow::Result<IpAddr> {
        let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
        let probe = UdpSocket::bind(any).context("cannot bind")?;
        probe.connect(target).with_context(|| format!("no route to {target}"))?;
        Ok(probe.local_addr()?.ip())
    }

    /// Which socket the agent `index` uses.
    pub fn of_agent(&self, index: usize) -> usize {
        index % self.addresses.len()
    }

    /// The local address of a socket.
    pub fn address(&self, socket: usize) -> SocketAddr {
        self.addresses[socket]
    }

    /// Queues a message; `write` gets the buffer and the socket's sent-by. Over TCP it goes where the connection leads, whatever
    /// `to` says; false: there is none, and none can be opened.
    pub fn send(&mut self, socket: usize, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>, &str)) -> bool {
        if !self.connections.is_empty() {
            if self.connections[socket].is_lost() && self.reopen(socket).is_err() {
                self.unsent += 1;
                return false;
            }
            let out = &mut self.connections[socket].out;
            let was_empty = !out.waits();
            out.push(|bytes| write(bytes, &self.names[socket]));
            if was_empty {
                self.dirty.push(socket);
            }
            return true;
        }
        let Self { queues, names, weather, .. } = self;
        let was_empty = queues[socket].len() == 0;
        let queue = Queue::Datagrams(&mut queues[socket]);
        let mut outlet = Outlet { queue, weather: weather.as_deref_mut(), socket };
        outlet.send(to, |out| write(out, &names[socket]));
        if was_empty && self.queues[socket].len() > 0 {
            self.dirty.push(socket);
        }
        true
    }

    /// Hands all queued messages to the kernel; how many it refused. `leave` is told each socket right before.
    pub fn flush(&mut self, mut leave: impl FnMut(usize)) -> u64 {
        let mut refused = std::mem::take(&mut self.unsent);
        if !self.connections.is_empty() {
            let Self { dirty, connections, lost, newly_lost, .. } = self;
            dirty.retain(|&socket| {
                leave(socket);
                let was_lost = connections[socket].is_lost();
                let (not_taken, result) = connections[socket].flush();
                refused += not_taken + u64::from(result.is_err());
                if result.is_err() && !was_lost {
                    *lost += 1;
                    newly_lost.push(socket);
                }
                connections[socket].out.waits()
            });
            return refused;
        }
        while let Some(Held { socket, peer, bytes, .. }) =
            self.weather.as_mut().and_then(|weather| weather.release_outward())
        {
            if self.queues[socket].len() == 0 {
                self.dirty.push(socket);
            }
            self.queues[socket].push(peer, |out| out.extend_from_slice(&bytes));
        }
        let Self { dirty, queues, sockets, sender, relief, .. } = self;
        refused += relief.as_ref().map_or(0, Relief::take_refused);
        dirty.retain(|&socket| {
            leave(socket);
            if let Some(relief) = relief {
                relief.take(&mut queues[socket]);
            }
            refused += sender.flush(sockets[socket].as_fd(), &mut queues[socket]);
            queues[socket].len() > 0
        });
        refused
    }

    /// Takes one batch from the next socket that has something: `handle` gets each datagram and may queue others.
    /// How many there were; none if no socket has anything.
    pub fn receive(&mut self, mut handle: impl FnMut(&mut Outlet<'_>, Datagram<'_>)) -> Option<usize> {
        if let Some(count) = self.receive_held(&mut handle) {
            return Some(count);
        }
        let socket = self.ready.pop_front()?;
        self.is_ready[socket] = false;
        if !self.connections.is_empty() {
            return Some(self.receive_stream(socket, handle));
        }
        // An error of an earlier send, such as an unreachable port, ends up here; it says nothing about this batch.
        let count = self.receiver.receive(self.sockets[socket].as_fd()).unwrap_or(mmsg::BATCH);
        if count == mmsg::BATCH {
            self.is_ready[socket] = true;
            self.ready.push_back(socket);
        }
        let was_empty = self.queues[socket].len() == 0;
        let weather = self.weather.as_deref_mut();
        let mut outlet = Outlet { queue: Queue::Datagrams(&mut self.queues[socket]), weather, socket };
        let mut received = 0;
        for datagram in (0..count).flat_map(|i| self.receiver.datagrams(i)) {
            received += 1;
            match outlet.weather.as_mut().map_or(Fate::Once, |weather| weather.fate()) {
                Fate::Lost => {}
                Fate::Once => handle(&mut outlet, datagram),
                Fate::Twice => {
                    handle(&mut outlet, datagram);
                    handle(&mut outlet, datagram);
                }
                Fate::Later => {
                    if let Some(weather) = &mut outlet.weather {
                        weather.hold_inward(socket, datagram.source, datagram.bytes.to_vec());
                    }
                }
            }
        }
        if was_empty && self.queues[socket].len() > 0 {
            self.dirty.push(socket);
        }
        Some(received)
    }

    /// Takes what has come by a connection.
    fn receive_stream(
        &mut self,
        socket: usize,
        mut handle: impl FnMut(&mut Outlet<'_>, Datagram<'_>),
    ) -> usize {
        let Self { connections, room, ready, is_ready, dirty, lost, newly_lost, .. } = self;
        let connection = &mut connections[socket];
        let (was_empty, was_lost) = (!connection.out.waits(), connection.is_lost());
        let mut received = 0;
        let more = connection.receive(room, |out, datagram| {
            received += 1;
            handle(&mut Outlet { queue: Queue::Stream(out), weather: None, socket }, datagram);
        });
        if more {
            is_ready[socket] = true;
            ready.push_back(socket);
        }
        if was_empty && connection.out.waits() {
            dirty.push(socket);
        }
        if connection.is_lost() && !was_lost {
            *lost += 1;
            newly_lost.push(socket);
        }
        received
    }

    /// Hands over what the bad network held back and lets go now: how many; none if there is nothing.
    fn receive_held(&mut self, handle: &mut impl FnMut(&mut Outlet<'_>, Datagram<'_>)) -> Option<usize> {
        let Held { socket, peer, bytes, .. } = self.weather.as_mut()?.release_inward()?;
        let was_empty = self.queues[socket].len() == 0;
        let weather = self.weather.as_deref_mut();
        let mut outlet = Outlet { queue: Queue::Datagrams(&mut self.queues[socket]), weather, socket };
        // It arrives now, whatever the kernel's stamp was.
        let datagram = Datagram { bytes: &bytes, source: peer, stamp_ns: None, truncated: false };
        handle(&mut outlet, datagram);
        if was_empty && self.queues[socket].len() > 0 {
            self.dirty.push(socket);
        }
        Some(1)
    }

    /// Whether nothing is known to wait, neither received nor to be sent. Of a connection that takes nothing we are told when it
    /// does again.
    pub fn is_drained(&self) -> bool {
        self.ready.is_empty() && (self.dirty.is_empty() || !self.connections.is_empty())
    }

    /// Waits for datagrams, at most for `wait`; when the end matters `exactly`, it wakes up early rather than late.
    pub fn wait(&mut self, wait: Duration, exactly: bool) -> anyhow::Result<()> {
        let early = if exactly { SPIN_MAX } else { Duration::ZERO };
        let wait = if self.is_drained() { wait.saturating_sub(early) } else { Duration::ZERO };
        if !self.polls {
            return self.look(wait).map(|_| ());
        }
        let end = Instant::now() + wait;
        while !self.look(Duration::ZERO)? && Instant::now() < end {}
        Ok(())
    }

    /// Notes which sockets are ready, and sleeps at most for `wait` when none is. Whether any is.
    fn look(&mut self, wait: Duration) -> anyhow::Result<bool> {
        if self.polls && !self.sockets.is_empty() {
            return self.look_at_each();
        }
        self.ask(wait)?;
        let Self { events, ready, is_ready, .. } = self;
        for event in &*events {
            note_ready(event.data.u64() as usize, ready, is_ready);
        }
        Ok(!events.is_empty())
    }

    /// Looks which sockets hold something, without their epoll.
    fn look_at_each(&mut self) -> anyhow::Result<bool> {
        let Self { sockets, ready, is_ready, .. } = self;
        let mut states: Vec<_> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let count = poll(&mut states, Some(&Timespec::default()))?;
        for (socket, _) in states.iter().enumerate().filter(|(_, state)| !state.revents().is_empty()) {
            note_ready(socket, ready, is_ready);
        }
        Ok(count > 0)
    }

    /// Asks the epoll once which sockets are ready, and sleeps at most for `wait`.
    fn ask(&mut self, wait: Duration) -> anyhow::Result<()> {
        let wait = Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&wait)) {
            Err(error) if error != rustix::io::Errno::INTR => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Datagrams that the kernel dropped for want of room, since the sockets were opened.
    pub fn dropped(&self) -> u64 {
        self.sockets.iter().filter_map(|socket| mmsg::dropped(socket.as_fd()).ok()).map(u64::from).sum()
    }
}

/// A socket may have something to read.
fn note_ready(socket: usize, ready: &mut VecDeque<usize>, is_ready: &mut [bool]) {
    if !std::mem::replace(&mut is_ready[socket], true) {
        ready.push_back(socket);
    }
}

/// What is to be sent by a socket or a connection.
enum Queue<'a> {
    Datagrams(&'a mut SendQueue),
    Stream(&'a mut Outgoing),
}

impl Queue<'_> {
    fn push(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Datagrams(queue) => queue.push(to, write),
            Self::Stream(out) => out.push(write),
        }
    }
}

/// Where answers to a received message go: the socket or connection that it came in by.
pub struct Outlet<'a> {
    queue: Queue<'a>,
    weather: Option<&'a mut Weather>,
    socket: usize,
}

impl Outlet<'_> {
    /// Queues an answer.
    pub fn send(&mut self, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(weather) = &mut self.weather else { return self.queue.push(to, write) };
        let fate = weather.fate();
        if fate == Fate::Once {
            return self.queue.push(to, write);
        }
        let mut bytes = Vec::new();
        write(&mut bytes);
        match fate {
            Fate::Lost | Fate::Once => {}
            Fate::Twice => {
                for _ in 0..2 {
                    self.queue.push(to, |out| out.extend_from_slice(&bytes));
                }
            }
            Fate::Later => weather.hold_outward(self.socket, to, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_answered_from_the_socket_it_came_to() {
        for (count, polls) in [(3, false), (3, true), (66, true)] {
            answered_from_where_it_came_to(count, polls);
        }
    }

    fn answered_from_where_it_came_to(count: usize, polls: bool) {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let peer_address = peer.local_addr().unwrap();
        let mut sockets = Sockets::open(count, peer_address.ip(), false).unwrap();
        if polls {
            sockets.poll().unwrap();
        }
        for i in 0..count {
            assert!(sockets.send(i, peer_address, |out, name| out.extend_from_slice(name.as_bytes())));
        }
        assert_eq!(sockets.flush(|_| ()), 0);
        let mut bytes = [0; 100];
        for _ in 0..count {
            let (len, from) = peer.recv_from(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], from.to_string().as_bytes());
            peer.send_to(b"back", from).unwrap();
        }
        let mut got = 0;
        while got < count {
            sockets.wait(Duration::from_secs(5), false).unwrap();
            while let Some(received) = sockets.receive(|outlet, datagram| {
                assert_eq!(datagram.bytes, b"back");
                outlet.send(datagram.source, |out| out.extend_from_slice(b"again"));
            }) {
                got += received;
            }
        }
        sockets.flush(|_| ());
        for _ in 0..count {
            let len = peer.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], b"again");
        }
    }

    #[test]
    fn waiting_ends_at_its_time() {
        let mut sockets = Sockets::open(1, "127.0.0.1".parse().unwrap(), false).unwrap();
        for round in 0..4 {
            if round == 2 {
                sockets.poll().unwrap();
            }
            let start = Instant::now();
            sockets.wait(Duration::from_millis(3), true).unwrap();
            assert!(start.elapsed() >= Duration::from_millis(2));
            sockets.wait(Duration::from_millis(3), false).unwrap();
            assert!(start.elapsed() >= Duration::from_millis(5));
        }
    }
}

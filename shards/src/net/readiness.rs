//! Which sockets for datagrams are ready, and whether anything else is.
//!
//! Connections and the waker are in an epoll, because there are many. The few sockets for datagrams are not: of a socket in an
//! epoll the kernel looks through the epoll's list for each datagram that comes, and again for each that has left. `ppoll` asks
//! sockets and epoll together and is on their lists only while it sleeps, which a shard with much to do does not.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smallvec::SmallVec;

use crate::config::LISTENERS_MAX;

/// Most events taken from the epoll at a time; those that are left come with the next.
const EVENTS_MAX: usize = 256;

/// What was found ready when it was last looked for.
pub struct Readiness {
    epoll: Poll,
    events: Events,
    sockets: SmallVec<[SocketState; LISTENERS_MAX]>,
    /// What sockets are asked for always.
    wanted: PollFlags,
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketState {
    /// It holds a datagram or an error, which reading takes off it.
    pub is_readable: bool,
    /// It takes more; false where that was not asked.
    pub is_writable: bool,
}

impl Readiness {
    /// Nothing was found yet. What is to be found beside the sockets is registered with `epoll`.
    #[must_use]
    pub fn new(epoll: Poll) -> Self {
        Self {
            epoll,
            events: Events::with_capacity(EVENTS_MAX),
            sockets: SmallVec::new(),
            wanted: PollFlags::IN,
        }
    }

    /// What the sockets hold is somebody else's from now on, and ends no sleep.
    pub fn stop_reading(&mut self) {
        self.wanted = PollFlags::empty();
    }

    /// Sleeps until one of `sockets` can be read, one whose `wants_room` can be written, the epoll has events or the time is
    /// up (`None`: never). Returns whether anything was found, which is true of a signal, too. Sleeps are whole milliseconds,
    /// so that deadlines that lie close together wake once; no time at all is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn look(
        &mut self,
        sockets: &[UdpSocket],
        wants_room: impl Fn(usize) -> bool,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        self.events.clear();
        self.sockets.clear();
        let mut asked: SmallVec<[PollFd<'_>; LISTENERS_MAX + 1]> = SmallVec::new();
        asked.push(PollFd::new(self.epoll.registry(), PollFlags::IN));
        asked.extend(sockets.iter().enumerate().map(|(place, socket)| {
            let room = if wants_room(place) { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(socket, self.wanted | room)
        }));
        let timeout = timeout.map(whole_millis);
        match poll(&mut asked, timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        self.sockets.extend(asked[1..].iter().map(|it| {
            let found = it.revents();
            SocketState {
                is_readable: found.intersects(PollFlags::IN | PollFlags::ERR),
                is_writable: found.contains(PollFlags::OUT),
            }
        }));
        let is_epoll_ready = !asked[0].revents().is_empty();
        drop(asked);
        if is_epoll_ready {
            match self.epoll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
        }
        Ok(true)
    }

    /// What each socket was ready for, by place; nothing if nothing was found at all.
    pub fn sockets(&self) -> impl Iterator<Item = (usize, SocketState)> {
        self.sockets.iter().copied().enumerate()
    }

    /// What the epoll had.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }
}

/// A time to sleep, rounded up.
fn whole_millis(span: Duration) -> Timespec {
    let millis = u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    // What is too long for the kernel would be longer than any machine runs.
    Timespec::try_from(Duration::from_millis(millis)).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Token, Waker};
    use std::sync::Arc;
    use std::thread;
    use std::time::Instant;

    const SOON: Option<Duration> = Some(Duration::from_secs(20));

    fn sockets() -> [UdpSocket; 2] {
        [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    fn readable(readiness: &Readiness) -> Vec<usize> {
        readiness.sockets().filter(|(_, state)| state.is_readable).map(|(place, _)| place).collect()
    }

    #[test]
    fn a_socket_is_ready_until_it_is_read_and_others_are_not() {
        let mut readiness = Readiness::new(Poll::new().unwrap());
        let sockets = sockets();
        assert!(!readiness.look(&sockets, |_| false, Some(Duration::ZERO)).unwrap());
        assert_eq!(readiness.sockets().count(), 0);
        sockets[0].send_to(b"x", sockets[1].local_addr().unwrap()).unwrap();
        for _ in 0..2 {
            assert!(readiness.look(&sockets, |_| false, SOON).unwrap());
            assert_eq!(readable(&readiness), [1]);
        }
        sockets[1].recv(&mut [0; 1]).unwrap();
        assert!(!readiness.look(&sockets, |_| false, Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn what_is_not_read_any_more_ends_no_sleep() {
        let mut readiness = Readiness::new(Poll::new().unwrap());
        let sockets = sockets();
        sockets[0].send_to(b"x", sockets[1].local_addr().unwrap()).unwrap();
        assert!(readiness.look(&sockets, |_| false, SOON).unwrap());
        readiness.stop_reading();
        assert!(!readiness.look(&sockets, |_| false, Some(Duration::from_millis(1))).unwrap());
        assert!(readiness.look(&sockets, |place| place == 1, SOON).unwrap());
        assert_eq!(readable(&readiness), [0; 0]);
    }

    #[test]
    fn an_error_of_a_socket_is_there_to_be_read() {
        let mut readiness = Readiness::new(Poll::new().unwrap());
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sockets = sockets();
        sockets[0].connect(nobody).unwrap();
        sockets[0].send(b"x").unwrap();
        assert!(readiness.look(&sockets, |_| false, SOON).unwrap());
        assert_eq!(readable(&readiness), [0]);
        assert!(sockets[0].recv(&mut [0; 1]).is_err());
        assert!(!readiness.look(&sockets, |_| false, Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn room_is_told_where_it_is_wanted() {
        let mut readiness = Readiness::new(Poll::new().unwrap());
        let sockets = sockets();
        assert!(readiness.look(&sockets, |place| place == 1, SOON).unwrap());
        let writable: Vec<_> = readiness.sockets().map(|(_, state)| state.is_writable).collect();
        assert_eq!(writable, [false, true]);
        assert_eq!(readable(&readiness), [0; 0]);
    }

    #[test]
    fn who_sleeps_is_woken_by_sockets_and_by_the_epoll() {
        let epoll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(epoll.registry(), Token(7)).unwrap());
        let mut readiness = Readiness::new(epoll);
        let sockets = sockets();
        thread::scope(|scope| {
            scope.spawn(|| waker.wake().unwrap());
            assert!(readiness.look(&sockets, |_| false, None).unwrap());
        });
        assert_eq!(readiness.events().map(Event::token).collect::<Vec<_>>(), [Token(7)]);
        assert_eq!(readable(&readiness), [0; 0]);
        thread::scope(|scope| {
            scope.spawn(|| sockets[1].send_to(b"x", sockets[0].local_addr().unwrap()).unwrap());
            assert!(readiness.look(&sockets, |_| false, None).unwrap());
        });
        assert_eq!(readable(&readiness), [0]);
        assert_eq!(readiness.events().count(), 0, "what was told once is not told again");
    }

    #[test]
    fn a_sleep_is_no_shorter_than_asked() {
        let mut readiness = Readiness::new(Poll::new().unwrap());
        for micros in [1, 1_500] {
            let span = Duration::from_micros(micros);
            let began = Instant::now();
            assert!(!readiness.look(&sockets(), |_| false, Some(span)).unwrap());
            assert!(began.elapsed() >= span);
        }
        let round = |span| whole_millis(span);
        assert_eq!((round(Duration::ZERO).tv_sec, round(Duration::ZERO).tv_nsec), (0, 0));
        assert_eq!(round(Duration::from_nanos(1)).tv_nsec, 1_000_000);
        assert!(round(Duration::MAX).tv_sec > i64::MAX / 1_000 / 2);
    }
}

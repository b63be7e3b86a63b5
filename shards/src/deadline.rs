//! How long to wait for a descriptor: the one place in which threads that may wait do so.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Until a moment (`TimedOut`), and until the other end of a socket is closed, as that of a server which stops (`Interrupted`).
#[derive(Clone, Copy, Debug)]
pub struct Deadline<'a> {
    until: Option<Instant>,
    stop: Option<&'a UnixStream>,
}

impl<'a> Deadline<'a> {
    /// For so long from now on.
    #[must_use]
    pub fn of(span: Duration) -> Self {
        Self { until: Instant::now().checked_add(span), stop: None }
    }

    /// For as long as the other end of `stop` is open.
    #[must_use]
    pub const fn only(stop: &'a UnixStream) -> Self {
        Self { until: None, stop: Some(stop) }
    }

    /// The same, but no longer than the other end of `stop` is open.
    #[must_use]
    pub const fn unless(self, stop: &'a UnixStream) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn check(&self) -> io::Result<()> {
        if self.until.is_none_or(|until| Instant::now() < until) {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    /// Waits until `fd` is ready for one of `flags`, or has ended.
    ///
    /// # Errors
    /// `TimedOut` and `Interrupted`, and what the system says.
    pub fn wait(&self, fd: impl AsFd, flags: PollFlags) -> io::Result<()> {
        self.wait_for(fd.as_fd(), flags)
    }

    fn wait_for(&self, fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
        loop {
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [
                PollFd::from_borrowed_fd(fd, flags),
                // Nothing is asked of the same descriptor twice if there is none to stop by.
                self.stop.map_or_else(
                    || PollFd::from_borrowed_fd(fd, PollFlags::empty()),
                    |stop| PollFd::new(stop, PollFlags::IN),
                ),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) if self.stop.is_some() && !fds[1].revents().is_empty() => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn it_ends_by_what_comes_first() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let (stop, stopper) = UnixStream::pair().unwrap();
        let kind = |waited: io::Result<()>| waited.map_err(|error| error.kind());
        let short = Deadline::of(SHORT).unless(&stop);
        assert_eq!(kind(short.wait(&here, PollFlags::IN)), Err(io::ErrorKind::TimedOut));
        assert_eq!(kind(short.check()), Err(io::ErrorKind::TimedOut));
        assert_eq!(kind(Deadline::of(SHORT).wait(&here, PollFlags::OUT)), Ok(()), "there is room");
        there.write_all(b"!").unwrap();
        let only = Deadline::only(&stop);
        assert_eq!(kind(only.wait(&here, PollFlags::IN)), Ok(()));
        assert_eq!(kind(only.check()), Ok(()));
        drop(stopper);
        let late = Deadline::of(Duration::MAX).unless(&stop);
        assert_eq!(kind(late.wait(&here, PollFlags::IN)), Err(io::ErrorKind::Interrupted), "it stops");
        drop(there);
        assert_eq!(kind(Deadline::of(SHORT).wait(&here, PollFlags::IN)), Ok(()), "its end can be read");
    }
}

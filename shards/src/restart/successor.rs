//! The predecessor's side: another process wants to go on with what we have.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::process::{Signal, Uid, geteuid, pidfd_send_signal};

use super::courier::{Courier, DESCRIPTORS_MAX, Parcel, is_closed};
use super::inherited::{GivenUp, ListeningSocket};
use super::message::{ConnectionLine, FORMAT, Message, SocketLine};
use super::service_manager;
use crate::control::Answer;
use crate::deadline::Deadline;
use crate::node::Event;

/// What a request to take over is answered with.
pub struct Succession {
    shards: usize,
    sockets: Arc<Vec<ListeningSocket>>,
    events: Sender<Event>,
    /// Whether one process is at it already.
    under_way: AtomicBool,
}

impl Succession {
    /// For a node with so many shards and these listening sockets.
    pub(crate) const fn new(
        shards: usize,
        sockets: Arc<Vec<ListeningSocket>>,
        events: Sender<Event>,
    ) -> Self {
        Self { shards, sockets, events, under_way: AtomicBool::new(false) }
    }

    /// Offers the sockets to whoever asked with `format` and so many `shards` over `connection`, waits until all is prepared
    /// there, and then has the node release the rest. The node serves meanwhile. Ends when the other end of `stop` is closed.
    ///
    /// # Errors
    /// What became of the other process, which is no reason for this one to change anything.
    pub fn offer(
        &self,
        connection: UnixStream,
        stop: &UnixStream,
        format: u32,
        shards: usize,
    ) -> io::Result<()> {
        let mut courier = Courier::new(connection, Vec::new())?;
        let deadline = Deadline::of(PREPARATION_SPAN).unless(stop);
        if let Some(why) = self.refusal(format, shards, courier.peer()?.uid) {
            tracing::warn!(%why, "a process that wants to take over is refused");
            return courier.send_line(&Answer::Refused { why }, &deadline);
        }
        let result = self.prepare(&mut courier, &deadline);
        match result {
            // Nobody listens any more when the node ends already; then the other process sees the end of this connection.
            Ok(()) => drop(self.events.send(Event::ReleaseAsked(courier))),
            Err(error) => {
                self.under_way.store(false, Ordering::Release);
                tracing::warn!(%error, "the process that wanted to take over did not get there; this one serves on");
            }
        }
        Ok(())
    }

    /// Why a process of user `uid` may not take over now; `None`: it may, and nobody else until it has failed to.
    fn refusal(&self, format: u32, shards: usize, uid: Uid) -> Option<String> {
        let own = geteuid();
        if format != FORMAT {
            Some(format!(
                "it speaks version {FORMAT} of the take-over and this program version {format}; stop it and start anew"
            ))
        } else if uid != own {
            // Root may do everything, but then the server would run as root from now on.
            Some(format!("it runs as user {own} and this one as user {uid}; start this one as the same user"))
        } else if shards != self.shards {
            Some(format!(
                "it has {} shards and this one is to have {shards}, but their number cannot change while it runs",
                self.shards
            ))
        } else if self.under_way.swap(true, Ordering::AcqRel) {
            Some("another process is taking over already".to_owned())
        } else {
            None
        }
    }

    fn prepare(&self, courier: &mut Courier, deadline: &Deadline<'_>) -> io::Result<()> {
        let pid = courier.peer()?.pid.as_raw_nonzero();
        tracing::info!(%pid, "another process wants to take over");
        courier.send_line(&Answer::TakeOver { pid: std::process::id() }, deadline)?;
        let mut chunks = self.sockets.chunks(DESCRIPTORS_MAX).peekable();
        while let Some(chunk) = chunks.next() {
            let line = |it: &ListeningSocket| SocketLine {
                listener: it.listener,
                listen: it.listen.to_string(),
                shard: it.shard,
            };
            let message =
                Message::Sockets { sockets: chunk.iter().map(line).collect(), last: chunks.peek().is_none() };
            let descriptors: Vec<_> = chunk.iter().map(|it| it.socket.as_fd()).collect();
            courier.send(&message, &[], &descriptors, deadline)?;
        }
        expect(courier, &Message::Release, deadline)
    }
}

/// What became of a node that let go of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other process serves.
    Gone,
    /// It does not, and will not.
    Back,
}

/// Hands over what a node gave up that has stopped and closed its files, and waits until the other process is ready to
/// serve. One that does not get there within `span` is killed, because it may hang with the files locked.
pub fn hand_over(mut successor: Courier, given_up: &GivenUp, span: Duration) -> Outcome {
    let begin = Instant::now();
    let process = successor.process();
    match give(&mut successor, given_up, &Deadline::of(span)) {
        Ok(()) => {
            let pid = successor.peer().map(|it| it.pid);
            if let Ok(pid) = pid {
                service_manager::tell_main_process(pid);
            }
            tracing::info!(
                connections = given_up.connections.len(),
                recovery_ms = begin.elapsed().as_millis() as u64,
                "another process has taken over"
            );
            Outcome::Gone
        }
        Err(error) => {
            tracing::error!(%error, "the process that was to take over failed; this one goes on in its place");
            if let (false, Some(process)) = (is_closed(&error), process) {
                match pidfd_send_signal(process, Signal::KILL) {
                    Ok(()) => tracing::warn!("it was killed, for it had the files and did not answer"),
                    Err(error) => tracing::warn!(%error, "it could not be killed"),
                }
            }
            Outcome::Back
        }
    }
}

fn give(successor: &mut Courier, given_up: &GivenUp, deadline: &Deadline<'_>) -> io::Result<()> {
    if let Some(nonces) = &given_up.nonces {
        successor.send(&Message::Nonces, nonces.as_bytes(), &[], deadline)?;
    }
    let (mut lines, mut payload) = (Vec::new(), Vec::new());
    let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
    let mut rest = given_up.connections.iter().peekable();
    while let Some(carried) = rest.next() {
        lines.push(ConnectionLine::of(carried, &mut payload));
        descriptors.push(carried.socket.as_fd());
        if lines.len() == DESCRIPTORS_MAX || payload.len() >= PAYLOAD_LEN_WANTED || rest.peek().is_none() {
            let message = Message::Connections { connections: std::mem::take(&mut lines) };
            successor.send(&message, &payload, &descriptors, deadline)?;
            payload.clear();
            descriptors.clear();
        }
    }
    successor.send(&Message::Released { synced: given_up.files_synced }, &[], &[], deadline)?;
    expect(successor, &Message::Ready, deadline)?;
    // From here on the other one may serve, so this one may not, whatever becomes of it.
    successor.send(&Message::Go, &[], &[], deadline)
}

fn expect(courier: &mut Courier, wanted: &Message, deadline: &Deadline<'_>) -> io::Result<()> {
    let Parcel { text, .. } = courier.receive::<Message>(deadline)?;
    if text == *wanted {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{wanted:?} is expected, not {text:?}")))
}

/// How long another process may take to prepare all that it can before it has our connections and files.
const PREPARATION_SPAN: Duration = Duration::from_secs(10);

/// A frame with so many bytes of connections takes no more of them.
const PAYLOAD_LEN_WANTED: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    #[test]
    fn one_process_at_a_time_of_the_same_user_and_as_many_shards_may_take_over() {
        let (events, _inbox) = std::sync::mpsc::channel();
        let succession = Succession::new(2, Arc::default(), events);
        let own = geteuid();
        let other = Uid::from_raw(own.as_raw() + 1);
        let why = |format, shards, uid| succession.refusal(format, shards, uid).unwrap_or_default();
        assert!(why(FORMAT + 1, 2, own).contains("version"));
        assert!(why(FORMAT, 2, other).contains("user"));
        assert!(why(FORMAT, 3, own).contains("to have 3"));
        assert_eq!(why(FORMAT, 2, own), "", "those that were refused stand in nobody's way");
        assert!(why(FORMAT, 2, own).contains("already"));
    }

    #[test]
    fn who_dies_or_says_the_wrong_thing_has_not_taken_over() {
        let deadline = Deadline::of(Duration::from_secs(10));
        let pair = || {
            let (here, there) = UnixStream::pair().unwrap();
            [here, there].map(|it| Courier::new(it, Vec::new()).unwrap())
        };
        let [here, there] = pair();
        drop(there);
        assert_eq!(hand_over(here, &GivenUp::default(), SPAN), Outcome::Back);
        for (said, last, outcome) in
            [(Message::Release, None, Outcome::Back), (Message::Ready, Some(Message::Go), Outcome::Gone)]
        {
            let [here, mut there] = pair();
            there.send(&said, &[], &[], &deadline).unwrap();
            let given_up = GivenUp { files_synced: outcome == Outcome::Gone, ..GivenUp::default() };
            assert_eq!(hand_over(here, &given_up, SPAN), outcome, "{said:?}");
            let released = Message::Released { synced: given_up.files_synced };
            assert_eq!(there.receive::<Message>(&deadline).unwrap().text, released);
            assert_eq!(there.receive::<Message>(&deadline).map(|it| it.text).ok(), last);
        }
    }
}

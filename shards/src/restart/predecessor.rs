//! The new process's side: a server runs already, and we go on with what it has.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use comsipl_core::auth::NonceEstate;
use rustix::event::PollFlags;

use super::courier::{Courier, Parcel, is_closed};
use super::inherited::{GivenUp, ListeningSocket};
use super::message::{FORMAT, Message};
use crate::control::{Answer, Client, ConnectError, Request, SOCKET_NAME};
use crate::deadline::Deadline;
use crate::node::StartError;

/// The server whose place we are to take.
#[derive(Debug)]
pub struct Predecessor {
    courier: Courier,
    pid: u32,
    /// Whether it died when we had asked for all it had.
    died: bool,
}

impl Predecessor {
    /// Asks the server that uses the data directory, if there is one, to let a node of so many shards take over. One that ends
    /// instead of answering is none; it has ended when this returns.
    ///
    /// # Errors
    /// It refuses, or does not answer as it should; nothing has changed then.
    pub fn ask(data_dir: &Path, shards: usize) -> Result<Option<(Self, Vec<ListeningSocket>)>, StartError> {
        let socket = match Client::connect(&data_dir.join(SOCKET_NAME)) {
            Ok(client) => client.into_socket(),
            Err(ConnectError::NoServer) => return Ok(None),
            // If there is a server its lock says so.
            Err(ConnectError::Refused { .. }) => return Ok(None),
        };
        let mut courier = Courier::new(socket, Vec::new()).map_err(broken)?;
        let process = courier.process();
        match take_offer(&mut courier, shards) {
            Ok((pid, sockets)) => Ok(Some((Self { courier, pid, died: false }, sockets))),
            Err(NoOffer::Broken(error)) if is_closed(&error) => {
                tracing::info!("the server that was to be succeeded ends; this one starts when it has");
                if let Some(process) = process {
                    await_end(&process);
                }
                Ok(None)
            }
            Err(NoOffer::Broken(error)) => Err(broken(error)),
            Err(NoOffer::Refused(why)) => Err(StartError::TakeOver { why }),
        }
    }

    /// Its process.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Has it stop and let go of its files, and takes its connections and nonces.
    ///
    /// # Errors
    /// It does not answer as it should, but lives.
    pub fn release(&mut self) -> Result<GivenUp, StartError> {
        let deadline = Deadline::of(STOP_SPAN);
        let mut given_up = GivenUp::default();
        let mut released = self.courier.send(&Message::Release, &[], &[], &deadline);
        loop {
            let parcel = match released.and_then(|()| self.courier.receive(&deadline)) {
                Ok(parcel) => parcel,
                // Whether it serves on or is dead the lock of the files will say.
                Err(error) if is_closed(&error) => {
                    tracing::warn!("the server that was to be succeeded ended meanwhile");
                    self.died = true;
                    return Ok(given_up);
                }
                Err(error) => return Err(broken(error)),
            };
            released = Ok(());
            let Parcel { text, payload, descriptors } = parcel;
            match text {
                Message::Released { synced } => {
                    given_up.files_synced = synced;
                    return Ok(given_up);
                }
                Message::Nonces => given_up.nonces = Some(NonceEstate::from_bytes(payload)),
                Message::Connections { connections: lines } => {
                    let mut payload = &payload[..];
                    for (line, socket) in lines.into_iter().zip(descriptors) {
                        let carried = line.carried(socket, &mut payload);
                        given_up.connections.push(carried.ok_or_else(|| StartError::TakeOver {
                            why: "what it says of a connection cannot be".to_owned(),
                        })?);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Says that all is ready here. When it returns without an error the predecessor will not serve again: it has said so, or
    /// has ended, and our lock keeps it from the files should it live after all. To be called with the files open.
    ///
    /// # Errors
    /// The predecessor does not answer, or not as it should; it serves again as soon as the files are free.
    pub fn succeed(mut self) -> Result<(), StartError> {
        if self.died {
            return Ok(());
        }
        let deadline = Deadline::of(ANSWER_SPAN);
        let ready = self.courier.send(&Message::Ready, &[], &[], &deadline);
        let mut answer = ready.and_then(|()| self.courier.receive::<Message>(&deadline));
        let gave_up = answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        if gave_up {
            // Either *go* has been said, or it cannot be said any more: never is it said to nobody.
            self.courier.hear_no_more().map_err(broken)?;
            answer = self.courier.receive(&deadline);
        }
        match answer {
            Ok(Parcel { text: Message::Go, .. }) => Ok(()),
            Ok(Parcel { text, .. }) => Err(unexpected(&text)),
            Err(error) if is_closed(&error) && !gave_up => {
                tracing::warn!("the server that was to be succeeded ended before it said so");
                Ok(())
            }
            Err(error) => Err(broken(error)),
        }
    }
}

/// Why a server offers nothing.
enum NoOffer {
    /// The connection failed.
    Broken(io::Error),
    /// It will not, or says what this program does not know.
    Refused(String),
}

impl From<io::Error> for NoOffer {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Asks for all that can be had while the other serves on: its process and its listening sockets.
fn take_offer(courier: &mut Courier, shards: usize) -> Result<(u32, Vec<ListeningSocket>), NoOffer> {
    let deadline = Deadline::of(ANSWER_SPAN);
    courier.send_line(&Request::TakeOver { format: FORMAT, shards }, &deadline)?;
    let line = courier.receive_line(&deadline)?;
    let pid = match serde_json::from_slice(&line) {
        Ok(Answer::TakeOver { pid }) => pid,
        Ok(Answer::Refused { why }) => return Err(NoOffer::Refused(why)),
        _ => {
            let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
            return Err(NoOffer::Refused(format!("it answers {line}")));
        }
    };
    let mut sockets = Vec::new();
    loop {
        let Parcel { text, descriptors, .. } = courier.receive(&deadline)?;
        let Message::Sockets { sockets: lines, last } = text else {
            return Err(NoOffer::Refused(out_of_place(&text)));
        };
        for (line, socket) in lines.into_iter().zip(descriptors) {
            let listen = line.listen().ok_or_else(|| {
                NoOffer::Refused(format!("it listens on {:?}, which this program does not know", line.listen))
            })?;
            let socket = ListeningSocket { listener: line.listener, listen, shard: line.shard, socket };
            if !socket.is_true() {
                return Err(NoOffer::Refused(format!(
                    "what it gives for {:?} is another socket",
                    line.listen
                )));
            }
            sockets.push(socket);
        }
        if last {
            return Ok((pid, sockets));
        }
    }
}

/// Waits until a process that ends has ended, and its sockets and locks with it; no longer than [`END_SPAN`].
fn await_end(process: &OwnedFd) {
    // If it lives on, its lock will say so.
    let _ = Deadline::of(END_SPAN).wait(process, PollFlags::IN);
}

fn broken(error: io::Error) -> StartError {
    StartError::TakeOver { why: format!("it does not answer: {error}") }
}

fn unexpected(message: &Message) -> StartError {
    StartError::TakeOver { why: out_of_place(message) }
}

fn out_of_place(message: &Message) -> String {
    format!("it says {message:?} in the wrong place")
}

/// How long it may take to answer.
const ANSWER_SPAN: Duration = Duration::from_secs(10);

/// How long it may take to end once it has closed its connections.
const END_SPAN: Duration = Duration::from_secs(5);

/// How long it may take to stop, close its files and send its connections.
const STOP_SPAN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    /// A predecessor whose side of the way is ours.
    fn predecessor() -> (Predecessor, Courier) {
        let (here, there) = UnixStream::pair().unwrap();
        let courier = |it| Courier::new(it, Vec::new()).unwrap();
        (Predecessor { courier: courier(here), pid: 1, died: false }, courier(there))
    }

    #[test]
    fn nobody_serves_before_the_predecessor_says_go_or_has_ended() {
        let deadline = Deadline::of(Duration::from_secs(10));
        let (new, mut old) = predecessor();
        old.send(&Message::Go, &[], &[], &deadline).unwrap();
        new.succeed().unwrap();
        assert_eq!(old.receive::<Message>(&deadline).unwrap().text, Message::Ready);

        let (new, mut old) = predecessor();
        old.send(&Message::Released { synced: true }, &[], &[], &deadline).unwrap();
        assert!(matches!(new.succeed(), Err(StartError::TakeOver { .. })));

        let (new, old) = predecessor();
        drop(old);
        new.succeed().unwrap();
    }

    #[test]
    fn files_are_taken_for_synced_only_where_the_predecessor_says_so() {
        for synced in [true, false] {
            let (mut new, mut old) = predecessor();
            let deadline = Deadline::of(Duration::from_secs(10));
            old.send(&Message::Released { synced }, &[], &[], &deadline).unwrap();
            assert_eq!(new.release().unwrap().files_synced, synced);
        }
        let (mut new, old) = predecessor();
        drop(old);
        assert!(!new.release().unwrap().files_synced, "it died");
    }

    #[test]
    fn a_server_that_ends_instead_of_answering_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Predecessor::ask(folder.path(), 1).unwrap().is_none(), "nobody was ever there");
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET_NAME)).unwrap();
        let closing = std::thread::spawn(move || drop(listener.accept().unwrap()));
        assert!(Predecessor::ask(folder.path(), 1).unwrap().is_none(), "it was there a moment ago");
        closing.join().unwrap();
        let begin = Instant::now();
        assert!(Predecessor::ask(folder.path(), 1).unwrap().is_none(), "it has left its socket behind");
        assert!(begin.elapsed() < END_SPAN, "nobody is waited for who is gone");
    }

    #[test]
    fn a_predecessor_that_ends_in_between_leaves_what_it_has_given() {
        let (mut new, old) = predecessor();
        drop(old);
        assert!(new.release().unwrap().connections.is_empty() && new.died);
        new.succeed().unwrap();
    }
}

//! The server's side of the control socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use comsipl_core::HashKey;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::protocol::{Answer, LINE_LEN_MAX, Request};
use crate::mailbox::{Command, Mailbox};
use crate::users::{Outcome, UserChange, UserCommand};

/// What requests are answered with.
pub struct Office {
    /// The mailboxes of the shards, in their order.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// The key that says which shard owns whom.
    pub keys: HashKey,
    /// The realm of all users, if one is configured.
    pub realm: Option<String>,
}

/// The control socket and its thread. Dropping it ends both.
pub struct Control {
    path: PathBuf,
    /// Closed to end the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Opens the socket and starts its thread. The caller holds the lock of the files, so a socket that is there already was
    /// left behind by a server that is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(path: &Path, office: Office) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // The directory lets nobody else in either, and each peer is asked for its user id.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = UnixStream::pair()?;
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            serve(&listener, &stopped, &office);
        })?;
        Ok(Self { path: path.to_owned(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves one connection after the other until `stop` is closed.
fn serve(listener: &UnixListener, stop: &UnixStream, office: &Office) {
    while wait(listener.as_fd(), PollFlags::IN, stop, None) {
        let Ok((connection, _)) = listener.accept() else { continue };
        let work = AssertUnwindSafe(|| talk(&connection, stop, office));
        match catch_unwind(work) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection of the control socket ended"),
            Err(_) => {
                tracing::error!("a request to the control socket met a bug of ComSIPL; the server goes on")
            }
        }
    }
}

/// Answers the requests of a connection until it ends, says nothing for too long, or says too much.
fn talk(mut connection: &UnixStream, stop: &UnixStream, office: &Office) -> io::Result<()> {
    if !is_welcome(connection) {
        tracing::warn!("another user was refused at the control socket");
        let why = "only the user that the server runs as, and root, may use this socket".to_owned();
        return answer(connection, stop, &Answer::Refused { why });
    }
    connection.set_nonblocking(true)?;
    let mut line = Vec::new();
    let mut room = vec![0; 16 * 1024];
    loop {
        if !wait(connection.as_fd(), PollFlags::IN, stop, Some(SILENCE_MAX)) {
            return Ok(());
        }
        let read = match connection.read(&mut room) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &room[..read];
        while let Some(end) = memchr(rest) {
            line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            if line.len() >= LINE_LEN_MAX {
                break;
            }
            answer(connection, stop, &office.answer(&line))?;
            line.clear();
        }
        line.extend_from_slice(rest);
        if line.len() >= LINE_LEN_MAX {
            let why = format!("a request is one line of less than {LINE_LEN_MAX} bytes");
            return answer(connection, stop, &Answer::Refused { why });
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n')
}

/// Whether the peer is the user that the server runs as, or root.
fn is_welcome(connection: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(connection)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid() || peer.uid.is_root())
}

/// Sends an answer; a peer that takes none is given up.
fn answer(mut connection: &UnixStream, stop: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut text = serde_json::to_vec(answer).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut rest = &text[..];
    while !rest.is_empty() {
        match connection.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !wait(connection.as_fd(), PollFlags::OUT, stop, Some(SILENCE_MAX)) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until `fd` is ready. `false`: the time is over, or the server stops.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, stop: &UnixStream, span: Option<Duration>) -> bool {
    let timeout = span.and_then(|span| Timespec::try_from(span).ok());
    let mut fds = [PollFd::from_borrowed_fd(fd, flags), PollFd::new(stop, PollFlags::IN)];
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) | Ok(0) => return false,
            // The other end of `stop` is closed when the server stops.
            Ok(_) => return fds[1].revents().is_empty(),
        }
    }
}

impl Office {
    /// Answers one line.
    fn answer(&self, line: &[u8]) -> Answer {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return Answer::Refused { why: format!("the request cannot be read: {error}") },
        };
        if request == Request::Realm {
            return Answer::Realm { realm: self.realm.clone() };
        }
        let outcomes = request.changes().and_then(|changes| self.change(changes));
        outcomes.map_or_else(|why| Answer::Refused { why }, |outcomes| Answer::Outcomes { outcomes })
    }

    /// Has users changed by the shards that own them.
    fn change(&self, changes: Vec<UserChange>) -> Result<Vec<Outcome>, String> {
        let count = changes.len();
        let mut of_shard: Vec<Vec<(usize, UserChange)>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        for (number, change) in changes.into_iter().enumerate() {
            let partition = self.keys.aor(change.aor().as_bytes()).partition();
            of_shard[usize::from(partition) % self.mailboxes.len()].push((number, change));
        }
        let (sender, answers) = channel();
        for (mailbox, changes) in self.mailboxes.iter().zip(of_shard) {
            if !changes.is_empty() {
                let command = Command::Users(UserCommand { changes, answer: sender.clone() });
                mailbox.post(command).map_err(|_| "the server is too busy; try again".to_owned())?;
            }
        }
        drop(sender);
        let give_up = Instant::now() + SHARD_SPAN;
        let mut outcomes = vec![None; count];
        for _ in 0..count {
            let left = give_up.saturating_duration_since(Instant::now());
            let (number, outcome) =
                answers.recv_timeout(left).map_err(|_| "the server stops, or is stuck".to_owned())?;
            outcomes[number] = Some(outcome);
        }
        Ok(outcomes.into_iter().flatten().collect())
    }
}

/// How long a peer may say nothing, or take nothing; others wait for it meanwhile.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long shards are waited for, which answer within a turn.
const SHARD_SPAN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    fn start(folder: &tempfile::TempDir) -> Control {
        let office = Office { mailboxes: Vec::new(), keys: HashKey([0; 2]), realm: Some("here".to_owned()) };
        Control::start(&folder.path().join("control.sock"), office).unwrap()
    }

    fn ask(connection: &mut BufReader<UnixStream>, text: &[u8]) -> String {
        connection.get_mut().write_all(text).unwrap();
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn lines_are_answered_in_order_and_mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let control = start(&folder);
        let mode = std::fs::metadata(&control.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut connection = BufReader::new(UnixStream::connect(&control.path).unwrap());
        let realm = "{\"answer\":\"realm\",\"realm\":\"here\"}\n";
        assert_eq!(ask(&mut connection, b"{\"request\":\"realm\"}\n"), realm);
        assert!(ask(&mut connection, b"rubbish\n{\"request\":\"realm\"}\n").contains("cannot be read"));
        assert_eq!(ask(&mut connection, b""), realm);
        drop(connection);
        let mut another = BufReader::new(UnixStream::connect(&control.path).unwrap());
        assert_eq!(ask(&mut another, b"{\"request\":\"realm\"}\n"), realm);
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let control = start(&folder);
        let mut connection = BufReader::new(UnixStream::connect(&control.path).unwrap());
        // The server may close before it has taken all.
        let _ = connection.get_mut().write_all(&vec![b'x'; LINE_LEN_MAX]);
        let mut line = String::new();
        let _ = connection.read_line(&mut line);
        assert!(line.contains("one line of less than"), "{line}");
        assert_eq!(connection.read_line(&mut line).unwrap_or(0), 0);
    }

    #[test]
    fn it_stops_at_once_although_somebody_is_connected_and_takes_its_socket_along() {
        let folder = tempfile::tempdir().unwrap();
        let control = start(&folder);
        let path = control.path.clone();
        let connection = UnixStream::connect(&path).unwrap();
        let begin = Instant::now();
        drop(control);
        assert!(begin.elapsed() < SILENCE_MAX);
        assert!(!path.exists());
        drop(connection);
        // One that was left behind is replaced.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(start(&folder));
    }
}

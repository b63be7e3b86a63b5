//! The server's side of the control socket.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use comsipl_core::HashKey;
use rustix::event::PollFlags;

use super::instruments::Instruments;
use super::protocol::{Answer, LINE_LEN_MAX, Request};
use crate::deadline::Deadline;
use crate::mailbox::{Command, Mailbox};
use crate::restart::successor::Succession;
use crate::users::{Outcome, UserChange, UserCommand};

/// What requests are answered with.
pub struct Office {
    /// The mailboxes of the shards, in their order.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// The key that says which shard owns whom.
    pub keys: HashKey,
    /// The realm of all users, if one is configured.
    pub realm: Option<String>,
    /// Who deals with a process that wants to go on in our place; `None`: nobody can.
    pub succession: Option<Succession>,
    /// What the server does and has.
    pub instruments: Instruments,
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

/// Serves connections, each in a thread of its own, until `stop` is closed.
fn serve(listener: &UnixListener, stop: &UnixStream, office: &Office) {
    let clients = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        while Deadline::only(stop).wait(listener, PollFlags::IN).is_ok() {
            let connection = match listener.accept() {
                Ok((connection, _)) => connection,
                Err(error) => {
                    // Without descriptors the client still waits at the door, and would be found there at once again.
                    tracing::debug!(%error, "the control socket takes no connection");
                    if !pause(stop) {
                        return;
                    }
                    continue;
                }
            };
            if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
                clients.fetch_sub(1, Ordering::Relaxed);
                refuse(&connection);
                continue;
            }
            let clients = &clients;
            let work = move || {
                serve_one(&connection, stop, office);
                clients.fetch_sub(1, Ordering::Relaxed);
            };
            if let Err(error) =
                std::thread::Builder::new().name("control-client".to_owned()).spawn_scoped(scope, work)
            {
                clients.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%error, "no thread for a client of the control socket");
            }
        }
    });
}

/// Serves a connection to its end, whatever that is.
fn serve_one(connection: &UnixStream, stop: &UnixStream, office: &Office) {
    match catch_unwind(AssertUnwindSafe(|| talk(connection, stop, office))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the control socket ended"),
        Err(_) => {
            tracing::error!("a request to the control socket met a bug of ComSIPL; the server goes on")
        }
    }
}

/// Tells one client too many so, as far as that can be done without waiting.
fn refuse(mut connection: &UnixStream) {
    let why = format!("{CLIENTS_MAX} tools use this server already; try again");
    if connection.set_nonblocking(true).is_ok()
        && let Ok(mut text) = serde_json::to_vec(&Answer::Refused { why })
    {
        text.push(b'\n');
        let _ = connection.write(&text);
    }
}

/// Waits a moment. `false`: the server stops.
fn pause(stop: &UnixStream) -> bool {
    Deadline::of(ACCEPT_PAUSE)
        .wait(stop, PollFlags::IN)
        .is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
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
    // A request that comes byte by byte is no better than none.
    let mut patience = Deadline::of(SILENCE_MAX).unless(stop);
    loop {
        if patience.wait(connection, PollFlags::IN).is_err() {
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
            if let Some((succession, format, shards)) = office.succession(&line) {
                return succession.offer(connection.try_clone()?, stop, format, shards);
            }
            answer(connection, stop, &office.answer(&line))?;
            line.clear();
            patience = Deadline::of(SILENCE_MAX).unless(stop);
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
    let deadline = Deadline::of(SILENCE_MAX).unless(stop);
    let mut text = serde_json::to_vec(answer).map_err(io::Error::other)?;
    text.push(b'\n');
    let mut rest = &text[..];
    while !rest.is_empty() {
        match connection.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                deadline.wait(connection, PollFlags::OUT)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Office {
    /// What a line asks for if it asks to take over, and who deals with that.
    fn succession(&self, line: &[u8]) -> Option<(&Succession, u32, usize)> {
        let Request::TakeOver { format, shards } = serde_json::from_slice(line).ok()? else { return None };
        Some((self.succession.as_ref()?, format, shards))
    }

    /// Answers one line.
    fn answer(&self, line: &[u8]) -> Answer {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return Answer::Refused { why: format!("the request cannot be read: {error}") },
        };
        match request {
            Request::Realm => return Answer::Realm { realm: self.realm.clone() },
            Request::Status => return Answer::Status(self.instruments.read()),
            #[cfg(debug_assertions)]
            Request::Panic { shard } => {
                if let Some(mailbox) = self.mailboxes.get(shard) {
                    let _ = mailbox.post(Command::Panic);
                }
            }
            Request::PutUsers { .. } | Request::RemoveUsers { .. } | Request::TakeOver { .. } => {}
        }
        match request.changes() {
            Ok(changes) => Answer::Outcomes { outcomes: self.change(changes) },
            Err(why) => Answer::Refused { why },
        }
    }

    /// Has users changed by the shards that own them; tells of each what came of it.
    fn change(&self, changes: Vec<UserChange>) -> Vec<Outcome> {
        let count = changes.len();
        let mut of_shard: Vec<Vec<(usize, UserChange)>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        for (number, change) in changes.into_iter().enumerate() {
            let partition = self.keys.aor(change.aor().as_bytes()).partition();
            of_shard[usize::from(partition) % self.mailboxes.len()].push((number, change));
        }
        let (sender, answers) = channel();
        let mut outcomes = vec![Outcome::Unanswered; count];
        let mut awaited = 0;
        for (mailbox, changes) in self.mailboxes.iter().zip(of_shard) {
            let numbers: Vec<usize> = changes.iter().map(|(number, _)| *number).collect();
            if numbers.is_empty() {
                continue;
            }
            let command = Command::Users(UserCommand { changes, answer: sender.clone() });
            match mailbox.post(command) {
                Ok(()) => awaited += numbers.len(),
                Err(_) => numbers.iter().for_each(|&number| outcomes[number] = Outcome::Busy),
            }
        }
        drop(sender);
        let give_up = Instant::now() + SHARD_SPAN;
        for _ in 0..awaited {
            let left = give_up.saturating_duration_since(Instant::now());
            let Ok((number, outcome)) = answers.recv_timeout(left) else { break };
            outcomes[number] = outcome;
        }
        outcomes
    }
}

/// Most clients at a time; one more is told so.
const CLIENTS_MAX: usize = 8;

/// How long nobody is accepted when the system lets nobody in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a peer may take for a request, or to take an answer.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long shards are waited for, which answer within a turn.
const SHARD_SPAN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;
    use crate::control::Client;
    use crate::counters::Counters;

    fn office(mailboxes: Vec<Arc<Mailbox>>) -> Office {
        let engines = vec![Arc::new(Counters::default()), Arc::default()];
        engines[0].notifies.add(3);
        engines[1].notifies.add(4);
        engines[1].watchers_never_told.set(1);
        let instruments = Instruments { since: Instant::now(), net: vec![Arc::default()], engines };
        Office { mailboxes, keys: HashKey([0; 2]), realm: None, succession: None, instruments }
    }

    #[test]
    fn the_status_is_that_of_all_shards() {
        let folder = tempfile::tempdir().unwrap();
        let _control = start(&folder);
        let mut client = Client::connect(&folder.path().join("control.sock")).unwrap();
        let Ok(Answer::Status(status)) = client.ask(&Request::Status) else { panic!("no status") };
        assert_eq!((status.shards, status.pid), (2, std::process::id()));
        assert_eq!((status.engine["notifies"], status.net["datagrams_in"]), (7, 0));
        assert_eq!(status.findings.into_iter().collect::<Vec<_>>(), [("watchers_never_told".to_owned(), 1)]);
    }

    fn start(folder: &tempfile::TempDir) -> Control {
        let office = Office { realm: Some("here".to_owned()), ..office(Vec::new()) };
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

    /// Once a client that connected and said nothing kept all others waiting for five seconds.
    #[test]
    fn clients_that_stall_hinder_nobody_until_there_are_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let control = start(&folder);
        let connect = || UnixStream::connect(&control.path).unwrap();
        let mut stalled: Vec<_> = (1..CLIENTS_MAX).map(|_| connect()).collect();
        for half in &mut stalled {
            half.write_all(b"{\"request\":").unwrap();
        }
        let begin = Instant::now();
        let mut connection = BufReader::new(connect());
        assert!(ask(&mut connection, b"{\"request\":\"realm\"}\n").contains("here"));
        let mut many = BufReader::new(connect());
        assert!(ask(&mut many, b"").contains("tools use this server already"));
        assert!(begin.elapsed() < SILENCE_MAX, "{:?}", begin.elapsed());
        drop(stalled);
    }

    #[test]
    fn of_each_user_it_is_told_what_came_of_the_change() {
        struct Nobody;
        impl crate::bus::Wake for Nobody {
            fn wake(&self) -> io::Result<()> {
                Ok(())
            }
        }
        let mailbox = Arc::new(Mailbox::new(Arc::new(Nobody)));
        let office = office(vec![Arc::clone(&mailbox)]);
        let changes = || vec![UserChange::Remove("a@h".into()), UserChange::Remove("b@h".into())];
        let shard = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || {
                while !mailbox.is_filled() {
                    std::thread::yield_now();
                }
                mailbox.take(|command| {
                    let Command::Users(command) = command else { unreachable!("nothing else was posted") };
                    // It dies after the first.
                    command.answer.send((command.changes[0].0, Outcome::Removed)).unwrap();
                });
            }
        });
        assert_eq!(office.change(changes()), [Outcome::Removed, Outcome::Unanswered]);
        shard.join().unwrap();
        let (answer, _outcomes) = channel();
        while mailbox
            .post(Command::Users(UserCommand { changes: Vec::new(), answer: answer.clone() }))
            .is_ok()
        {}
        assert_eq!(office.change(changes()), [Outcome::Busy; 2]);
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

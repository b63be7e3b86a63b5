//! A tool's side of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Answer, LINE_LEN_MAX, Request};

/// A connection to a running server.
#[derive(Debug)]
pub struct Client(BufReader<UnixStream>);

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// No server runs: there is no socket, or nobody behind it any more.
    NoServer,
    /// The system does not let us.
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str("no server runs"),
            Self::Refused { path, source } => write!(
                f,
                "cannot talk to the server through {}: {source}\n  help: run this as the user that the server runs as, or \
                 as root",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a request has no answer.
#[derive(Debug)]
pub enum TalkError {
    /// The connection failed.
    Io(io::Error),
    /// The answer cannot be read, which another version may have written.
    Strange(String),
    /// The server says no, and why.
    Refused(String),
}

impl fmt::Display for TalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the server does not answer: {error}\n  help: look into its log"),
            Self::Strange(line) => write!(
                f,
                "the server answers what this program does not understand: {line}\n  help: use the program of the \
                 server's version"
            ),
            Self::Refused(why) => write!(f, "the server refuses: {why}"),
        }
    }
}

impl std::error::Error for TalkError {}

impl Client {
    /// Connects to the server whose socket is at `path`.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: &Path) -> Result<Self, ConnectError> {
        let refused = |source| ConnectError::Refused { path: path.to_owned(), source };
        match UnixStream::connect(path) {
            Ok(connection) => {
                connection.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
                connection.set_write_timeout(Some(PATIENCE)).map_err(refused)?;
                Ok(Self(BufReader::new(connection)))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(ConnectError::NoServer)
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// The socket, on which nothing was said yet.
    #[must_use]
    pub fn into_socket(self) -> UnixStream {
        self.0.into_inner()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`TalkError`].
    pub fn ask(&mut self, request: &Request) -> Result<Answer, TalkError> {
        let mut text = serde_json::to_vec(request).map_err(|error| TalkError::Io(error.into()))?;
        text.push(b'\n');
        self.0.get_mut().write_all(&text).map_err(TalkError::Io)?;
        let mut line = String::new();
        let read = (&mut self.0).take(LINE_LEN_MAX as u64).read_line(&mut line).map_err(TalkError::Io)?;
        if read == 0 {
            return Err(TalkError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Refused { why }) => Err(TalkError::Refused(why)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(TalkError::Strange(line.chars().take(200).collect())),
        }
    }
}

/// Longer than the server waits for its shards, and for whoever is connected before us.
const PATIENCE: Duration = Duration::from_secs(15);

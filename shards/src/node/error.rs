//! Why a node does not start, and why it ends.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use comsipl_fdb::OpenError;

use crate::config::Exposed;
use crate::sandbox::NotSandboxed;
use crate::settings::Listen;
use crate::tls::TlsError;

/// Why a node does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A listener that others can reach, without the word that this is wanted.
    Exposed(Exposed),
    /// The data directory cannot be used.
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process serves with the same data directory and is not succeeded.
    TakeOver {
        /// Why not.
        why: String,
    },
    /// One of the files cannot be used.
    File(OpenError),
    /// The files cannot be brought to disk.
    Sync(io::Error),
    /// Certificates or keys cannot be used.
    Tls(TlsError),
    /// An address cannot be listened on.
    Listen {
        /// The address.
        listen: Listen,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no threads, or not what they need.
    Threads(io::Error),
    /// The system gives no random numbers.
    Random(io::Error),
    /// The sandbox is required, and cannot be had.
    NotSandboxed(NotSandboxed),
    /// A shard failed before it was ready.
    Shard(NodeFailure),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exposed(exposed) => exposed.fmt(f),
            Self::DataDir { path, source } => write!(
                f,
                "cannot use the data directory {}: {source}\n  help: name a directory that this user may write, by \
                 --data-dir or `data_dir` under [storage]",
                path.display()
            ),
            Self::TakeOver { why } => write!(
                f,
                "cannot take over from the server that runs: {why}\n  help: stop it first and start anew, or correct what \
                 keeps this one from going on in its place"
            ),
            Self::File(error) => error.fmt(f),
            Self::Sync(source) => write!(
                f,
                "the files cannot be brought to disk: {source}\n  help: look after the disk of the data directory; the \
                 system's log says more"
            ),
            Self::Tls(error) => error.fmt(f),
            Self::Listen { listen, source } => {
                write!(f, "cannot listen on {listen}: {source}\n  help: ")?;
                match source.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "another server uses this address (`ss -ltunp` shows which); stop it, or choose another port, \
                         for example --listen {}",
                        Listen { address: SocketAddr::new(listen.address.ip(), 0), ..*listen }
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        f.write_str("this machine has no such address; `ip address` lists those it has")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("ports below 1024 need the privilege CAP_NET_BIND_SERVICE")
                    }
                    _ => f.write_str("choose another address by --listen or `listen` under [server]"),
                }
            }
            Self::Threads(source) => write!(
                f,
                "the system does not give what the threads of the shards need: {source}\n  help: raise the limits of \
                 open files and threads, or use fewer shards by --shards"
            ),
            Self::Random(source) => write!(f, "the system gives no random numbers: {source}"),
            Self::NotSandboxed(error) => error.fmt(f),
            Self::Shard(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<NotSandboxed> for StartError {
    fn from(error: NotSandboxed) -> Self {
        Self::NotSandboxed(error)
    }
}

impl From<Exposed> for StartError {
    fn from(exposed: Exposed) -> Self {
        Self::Exposed(exposed)
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::File(error)
    }
}

/// Why a node that worked has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum NodeFailure {
    /// A shard panicked. This is a bug.
    ShardPanicked {
        /// The shard.
        index: usize,
        /// What it said.
        message: String,
    },
    /// The system refused a shard what it cannot do without.
    ShardFailed {
        /// The shard.
        index: usize,
        /// What the system says.
        source: io::Error,
    },
    /// A shard ended without being asked to. This is a bug.
    ShardLeft {
        /// The shard.
        index: usize,
    },
    /// The thread that syncs the files panicked. This is a bug.
    SyncingPanicked {
        /// What it said.
        message: String,
    },
    /// A shard did not stop in time.
    StopTimedOut,
    /// The files could not be synced or closed.
    Files {
        /// What the system says.
        source: io::Error,
    },
}

impl fmt::Display for NodeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShardPanicked { index, message } => {
                write!(f, "shard {index} panicked, which is a bug of ComSIPL: {message}")
            }
            Self::ShardFailed { index, source } => write!(f, "shard {index} failed: {source}"),
            Self::ShardLeft { index } => {
                write!(f, "shard {index} ended unasked, which is a bug of ComSIPL")
            }
            Self::SyncingPanicked { message } => {
                write!(f, "the thread that syncs the files panicked, which is a bug of ComSIPL: {message}")
            }
            Self::StopTimedOut => f.write_str("a shard did not stop in time"),
            Self::Files { source } => write!(
                f,
                "the files could not be brought to disk: {source}\n  help: check the disk and its free space"
            ),
        }
    }
}

impl std::error::Error for NodeFailure {}

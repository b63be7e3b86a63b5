//! Restart without a gap: a new process takes over the sockets, the connections and the files of the one that runs.
//!
//! The two talk over the control socket of the data directory ([`crate::control`]), the predecessor serving all the while:
//!
//! | step | new process | predecessor |
//! |---|---|---|
//! | 1 | reads its configuration and certificates, asks to take over | refuses, or offers: its listening sockets, as they are |
//! | 2 | adopts sockets, binds what is new, looks at the files, says *release* | serves on |
//! | 3 | | stops its shards, closes the files, sends its connections, says *released* |
//! | 4 | opens the files, recovers them, adopts the connections, says *ready* | waits |
//! | 5 | begins to serve | says *go* and ends |
//!
//! Datagrams and new connections wait in the kernel between 3 and 5: the sockets are never closed. The predecessor keeps
//! descriptors of everything until it has said *go*. Up to then it serves on, or [again](crate::node::Ended::TakenBack), when
//! the new process dies, refuses the files, or takes longer than
//! [`Settings::recovery_max`](crate::settings::Settings::recovery_max); in that case it kills it.
//!
//! Why there are never two servers: whoever reads a socket or writes a record holds the lock of the files. The predecessor lets
//! go of it in 3, after its shards and the other threads that know the files have ended, and serves again only with the lock. The
//! new process opens the files in 4 and keeps them, also when the predecessor ends without *go*. What one wrote the other sees,
//! because both map the same pages; and to the new one the files look like those of a process that was killed with its shards at
//! rest.
//!
//! Why there is not none: who serves in the end is decided by *go*, which is said to a process that has recovered everything.
//! Where *go* is awaited in vain the socket is shut down first, so that it has been said or cannot be said any more.
//!
//! What it needs of the system, for whoever confines the process: `connect` to and `accept` on a Unix socket in the data directory,
//! `sendmsg` and `recvmsg` with SCM_RIGHTS, `getsockopt` (SO_PEERCRED, SO_TYPE, SO_ACCEPTCONN), `dup` of every listening socket,
//! `pidfd_open` of the other process, `poll` on that, `pidfd_send_signal`, and `flock` of both files. Every listening socket has a
//! second descriptor all the time, and until *go* both processes hold one of each connection.
//!
//! What the service manager keeps for us over a plain stop and start takes the same way in ([`service_manager`]).

pub mod courier;
mod message;
pub use message::{FORMAT, Message};
pub mod inherited;
pub mod predecessor;
pub mod service_manager;
pub mod successor;

//! The control socket: how tools of the operator talk to a running server.
//!
//! `control.sock` in the data directory takes one JSON object a line and answers each with one line, in order. Whoever may
//! use it is whoever runs the server, and root. A few small threads serve a connection each; what is to be written goes to its
//! owner by the mailbox of a shard. No shard ever waits for this thread, and none minds if it is gone.

mod client;
pub use client::{Client, ConnectError, TalkError};
mod protocol;
pub use protocol::{Answer, LINE_LEN_MAX, Request, Status, USERS_PER_REQUEST_MAX, UserLine};
mod instruments;
pub use instruments::Instruments;
mod serve;
pub use serve::{Control, Office};

/// Name of the socket in the data directory.
pub const SOCKET_NAME: &str = "control.sock";

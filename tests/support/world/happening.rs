//! What happens in a world, as it tells its phones.

use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::ConnectionId;

use super::Bytes;

/// Something that happened, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Happening {
    /// The server gave a message to the network.
    ServerSent {
        /// The listener it left from.
        from: SocketAddr,
        /// Where it goes.
        to: SocketAddr,
        /// The message.
        bytes: Bytes,
    },
    /// The shard that owns a datagram took it.
    ServerTook {
        /// Who had sent it.
        from: SocketAddr,
        /// The datagram.
        bytes: Bytes,
    },
    /// A message of the server arrived at an address.
    PhoneGot {
        /// The listener it came from.
        from: SocketAddr,
        /// Where it arrived.
        to: SocketAddr,
        /// The connection that brought it; `None`: it was a datagram.
        connection: Option<ConnectionId>,
        /// The message.
        bytes: Bytes,
    },
    /// The process is about to end with this message in hand: what it stored for it is in the files. Comes before `Crashed`.
    DiedWith {
        /// The message.
        bytes: Bytes,
    },
    /// The process ended, with everything it had in memory.
    Crashed,
    /// That was the end of the machine as well: of the files there is what was on disk. Comes behind `Crashed`.
    PowerFailed {
        /// When all was on disk last.
        synced_at: Duration,
    },
    /// The wall clock was set.
    ClockSet {
        /// By so many milliseconds.
        by_ms: i64,
    },
    /// A new process opened the files.
    Restarted,
    /// A new process would not go on with the files as they are; see [`World::may_refuse_files`].
    Refused {
        /// What it said.
        why: String,
    },
}

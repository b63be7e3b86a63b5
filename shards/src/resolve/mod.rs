//! Names in Contact and Route: asked for by shards, looked up by a thread of its own (RFC 3263).
//!
//! ```text
//!   shard: SUBSCRIBE names a host ─▶ cache ──known──▶ flow
//!                                      └─unknown─▶ lookups ─▶ queue ─▶ thread: NAPTR, SRV, A/AAAA
//!   NOTIFY owed, not sent                                                │
//!   flow set, NOTIFY sent   ◀── on_turn_end ◀── mailbox ◀── Answer ◀─────┘
//! ```
//!
//! No shard ever waits for the thread: where the queue is full, the name is unknown or no answer comes in time, the source of
//! the SUBSCRIBE stands in. A place that a NOTIFY could not be brought to gives way to the next that the name leads to
//! (`failed`).

pub(crate) mod failed;
pub mod locate;
pub(crate) mod names;
pub mod thread;

use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::Transport;
use comsipl_core::locate::HopName;

/// Bounds of the time for which an answer counts, whatever its TTL.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// See [`TTL_MIN`].
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// How long it counts that a name leads nowhere.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// Most places of a name that are tried.
pub const TARGETS_MAX: usize = 8;

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSettings {
    /// Name servers; none: those of the system.
    pub nameservers: Vec<SocketAddr>,
    /// How long a NOTIFY waits for a name.
    pub timeout: Duration,
}

impl Default for ResolverSettings {
    fn default() -> Self {
        Self { nameservers: Vec::new(), timeout: Duration::from_secs(2) }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query {
    /// The name, in lower case, without the dot at its end.
    pub host: Box<str>,
    /// The port, if the URI has one.
    pub port: Option<u16>,
    /// The transport, if the URI has one.
    pub transport: Option<Transport>,
    /// The URI is `sips`.
    pub secure: bool,
    /// An IPv4 address is wanted, else one of IPv6: whatever the SUBSCRIBE came by.
    pub ipv4: bool,
}

impl Query {
    /// What to ask for; `None`: no name of DNS.
    #[must_use]
    pub fn new(name: &HopName<'_>, ipv4: bool) -> Option<Self> {
        let host = std::str::from_utf8(name.host).ok().filter(|host| host.len() <= NAME_LEN_MAX)?;
        let host = host.to_ascii_lowercase().into();
        Some(Self { host, port: name.port, transport: name.transport, secure: name.secure, ipv4 })
    }
}

/// Longest name (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 253;

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// By what.
    pub transport: Transport,
    /// Where to.
    pub address: SocketAddr,
}

/// What came of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The query.
    pub query: Query,
    /// Where it leads, in the order in which that is tried (RFC 3263 §4.3), at most [`TARGETS_MAX`]; none: nowhere.
    pub found: Vec<Found>,
    /// For how long that counts.
    pub ttl: Duration,
}

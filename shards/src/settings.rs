//! What an operator may set, with its defaults. The configuration file and the command line fill this in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::access::Access;
pub use crate::resolve::ResolverSettings;
use comsipl_core::Transport;
pub use comsipl_core::{ExpiryPolicy, Listen, Profile};

mod outbound_proxy;
pub use outbound_proxy::{OutboundProxy, ProxyHost};
mod overload;
pub use overload::OverloadSettings;
mod sandbox;
pub use sandbox::SandboxMode;
mod tls;
pub use tls::{ClientAuth, IdentityFiles, SipsRule, TlsSettings, TlsVersion, WebSocketSettings};

/// What watchers are told of a user who is registered and has published nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegisteredState {
    /// `closed`, as if not registered: a phone that takes its publication back is offline.
    #[default]
    Closed,
    /// `open`: a live registration alone makes a user available.
    Open,
}

/// What watchers are told of a user whose registration has ended and whose publications have not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unregistered {
    /// `closed`: his phone is gone and did not take its publication back.
    #[default]
    Offline,
    /// What is published: registrations mean nothing for presence.
    Keep,
}

/// Whether requests must be authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not written out: only loopback listeners are allowed.
    #[default]
    Unset,
    /// Written out by the operator: anyone may do anything.
    None,
    /// By digest (RFC 8760), unless a trusted proxy vouches for the sender.
    Digest,
}

/// Everything that an operator may set.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// `host` or `host:port` that phones are told as our Contact and Via; `None`: the address they reached us on.
    pub advertise: Option<String>,
    /// Where all requests of ours go that no connection leads to; `None`: where the dialog says.
    pub outbound_proxy: Option<OutboundProxy>,
    /// Where the two files are.
    pub data_dir: PathBuf,
    /// Number of shards (1..=64); `None`: one per core.
    pub shards: Option<usize>,
    /// Whether shard threads are pinned to cores.
    pub pin: bool,
    /// Domains served, in lower case; empty: any.
    pub domains: Vec<String>,
    /// Authentication.
    pub auth: Auth,
    /// Whether the server gives up what it does not need.
    pub sandbox: SandboxMode,
    /// Who may do what.
    pub access: Access,
    /// Failures to authenticate as one user that a source may have in a minute; zero: any number.
    pub auth_failures_per_minute: u32,
    /// Failures to authenticate as anybody that a source may have in a minute; zero: any number.
    pub auth_failures_per_source: u32,
    /// Requests that a source may send in a second; zero: any number.
    pub requests_per_source: u32,
    /// How NOTIFYs look.
    pub profile: Profile,
    /// What a registration alone says of its user.
    pub registered_state: RegisteredState,
    /// A note for people to that state, if it is open; empty: none.
    pub registered_note: String,
    /// What the end of a user's registration says of him.
    pub unregistered: Unregistered,
    /// How long the end of a registration is not told, so that a phone that registers anew is not seen to go.
    pub offline_hold: Duration,
    /// Least time between two documents of a user's presence (RFC 3856 §6.10); zero: none.
    pub notify_interval: Duration,
    /// How names in Contact and Route are looked up.
    pub resolver: ResolverSettings,
    /// TLS.
    pub tls: TlsSettings,
    /// WebSocket.
    pub web_socket: WebSocketSettings,
    /// Registrations (RFC 3261 §10.3).
    pub registration: ExpiryPolicy,
    /// Value of Service-Route in answers to REGISTER (RFC 3608 §6.3); empty: none.
    pub service_route: String,
    /// Publications (RFC 3903 §6).
    pub publication: ExpiryPolicy,
    /// Subscriptions (RFC 6665 §4.2.1.1).
    pub subscription: ExpiryPolicy,
    /// How often the files are synced to disk: what a power cut can take.
    pub sync_interval: Duration,
    /// How long a process that takes over may have the files before it serves; then it is killed.
    pub recovery_max: Duration,
    /// Most records a partition of `presence_w.fdb` may have (there are 64 partitions).
    pub presence_records_max: u32,
    /// Most records a partition of `registered.fdb` may have (there are 64 partitions).
    pub registered_records_max: u32,
    /// Bytes of answers a shard remembers for retransmitted requests (RFC 3261 §17.2.2, Timer J).
    pub transaction_memory: usize,
    /// Most NOTIFYs a shard starts in one turn of its event loop.
    pub notifies_per_turn: usize,
    /// How long a shard whose traffic is dense looks for more before it sleeps; zero: never.
    pub busy_wait: Duration,
    /// Receive and send buffer of each socket, bytes.
    pub socket_buffer: usize,
    /// What happens when more comes than can be done.
    pub overload: OverloadSettings,
    /// Bounds of connections.
    pub streams: StreamLimits,
}

/// What connections may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Most connections of the node.
    pub connections_max: usize,
    /// Most of them from one source: an IPv4 address, or a network of 64 bits of IPv6.
    pub connections_per_source_max: usize,
    /// Bytes that may wait for a peer that does not read; what comes beyond them is refused.
    pub out_buffer: usize,
    /// How long nothing may come before a connection is closed.
    pub idle: Duration,
    /// How long a message that has begun may take to be complete, and a peer for which messages are refused to read anything.
    pub message: Duration,
    /// How long a handshake of TLS and WebSocket may take.
    pub handshake: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_source_max: 10_000,
            out_buffer: 1 << 20,
            idle: Duration::from_secs(7200),
            message: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
        }
    }
}

/// The longest that a process which takes over may have the files before it serves: requests that wait so long are given up
/// anyway (64*T1, RFC 3261 §17.1.2.2).
pub const RECOVERY_MAX: Duration = Duration::from_secs(30);

impl Default for Settings {
    fn default() -> Self {
        let expiry = ExpiryPolicy { min_secs: 60, default_secs: 3600, max_secs: 7200 };
        let address = SocketAddr::from(([127, 0, 0, 1], 5060));
        Self {
            listen: [Transport::Udp, Transport::Tcp].map(|transport| Listen { transport, address }).to_vec(),
            advertise: None,
            outbound_proxy: None,
            data_dir: PathBuf::from("./comsipl-data"),
            shards: None,
            pin: true,
            domains: Vec::new(),
            auth: Auth::Unset,
            sandbox: SandboxMode::default(),
            access: Access::default(),
            auth_failures_per_minute: 10,
            auth_failures_per_source: 300,
            requests_per_source: 0,
            profile: Profile::Rfc,
            registered_state: RegisteredState::Closed,
            registered_note: String::new(),
            unregistered: Unregistered::Offline,
            offline_hold: Duration::from_secs(30),
            notify_interval: Duration::ZERO,
            resolver: ResolverSettings::default(),
            tls: TlsSettings::default(),
            web_socket: WebSocketSettings::default(),
            registration: expiry,
            service_route: String::new(),
            publication: expiry,
            subscription: expiry,
            sync_interval: Duration::from_secs(1),
            recovery_max: RECOVERY_MAX,
            presence_records_max: 1 << 20,
            registered_records_max: 1 << 18,
            transaction_memory: 256 << 20,
            notifies_per_turn: 256,
            busy_wait: Duration::from_micros(20),
            socket_buffer: 32 << 20,
            overload: OverloadSettings::default(),
            streams: StreamLimits::default(),
        }
    }
}

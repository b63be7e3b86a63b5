//! The configuration file as it is written. Numbers and words are kept with their place, so that checks can point at
//! them; their meaning and bounds are the business of the module above.

use serde::Deserialize;
use toml::Spanned;

use super::tls::{Tls, WebSocket};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub server: Server,
    pub storage: Storage,
    pub registration: Registration,
    pub publication: Expiries,
    pub subscription: Expiries,
    pub presence: Presence,
    pub auth: Authentication,
    pub resolver: Resolver,
    pub tls: Tls,
    pub websocket: WebSocket,
    pub overload: Overload,
    pub limits: Limits,
}

/// What the node is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub listen: Option<Spanned<Vec<Spanned<String>>>>,
    pub advertise: Option<Spanned<String>>,
    pub outbound_proxy: Option<Spanned<String>>,
    pub domains: Option<Vec<Spanned<String>>>,
    pub shards: Option<Spanned<toml::Value>>,
    pub pin: Option<bool>,
    pub profile: Option<Spanned<String>>,
    pub auth: Option<Spanned<String>>,
    pub sandbox: Option<Spanned<String>>,
}

/// Where its files are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    pub data_dir: Option<Spanned<String>>,
    pub sync_interval_ms: Option<Spanned<i64>>,
    pub recovery_max_ms: Option<Spanned<i64>>,
    pub presence_records_max: Option<Spanned<i64>>,
    pub registered_records_max: Option<Spanned<i64>>,
}

/// How long registrations last, and what phones are told with them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registration {
    pub min_expires: Option<Spanned<i64>>,
    pub default_expires: Option<Spanned<i64>>,
    pub max_expires: Option<Spanned<i64>>,
    pub service_route: Option<Spanned<String>>,
}

/// How long something lasts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expiries {
    pub min_expires: Option<Spanned<i64>>,
    pub default_expires: Option<Spanned<i64>>,
    pub max_expires: Option<Spanned<i64>>,
}

/// What watchers are told.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Presence {
    pub registered_state: Option<Spanned<String>>,
    pub registered_note: Option<Spanned<String>>,
    pub unregistered: Option<Spanned<String>>,
    pub offline_hold_s: Option<Spanned<i64>>,
    pub notify_interval_ms: Option<Spanned<i64>>,
}

/// Who may do what.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Authentication {
    pub realm: Option<Spanned<String>>,
    pub algorithms: Option<Spanned<Vec<Spanned<String>>>>,
    pub nonce_lifetime_s: Option<Spanned<i64>>,
    pub nonce_bound: Option<bool>,
    pub trusted: Option<Spanned<Vec<Spanned<String>>>>,
    pub allow: Option<Spanned<Vec<Spanned<String>>>>,
    pub deny: Option<Spanned<Vec<Spanned<String>>>>,
    pub grant: Option<Spanned<Vec<Grant>>>,
}

/// Who may publish for others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    pub user: Spanned<String>,
    pub publish_for: Spanned<PublishFor>,
}

/// One word, or several addresses.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"*\" or a list of addresses")]
pub enum PublishFor {
    Word(String),
    Users(Vec<String>),
}

/// How names are looked up.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    pub nameservers: Option<Vec<Spanned<String>>>,
    pub timeout_ms: Option<Spanned<i64>>,
}

/// What happens when more comes than can be done.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    pub enabled: Option<bool>,
    pub target_ms: Option<Spanned<i64>>,
    pub expires_spread_percent: Option<Spanned<i64>>,
    pub expires_spread_after_start_percent: Option<Spanned<i64>>,
}

/// What a shard may use.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub transaction_memory_mib: Option<Spanned<i64>>,
    pub notifies_per_turn: Option<Spanned<i64>>,
    pub busy_wait_us: Option<Spanned<i64>>,
    pub socket_buffer_kib: Option<Spanned<i64>>,
    pub connections_max: Option<Spanned<i64>>,
    pub connections_per_source_max: Option<Spanned<i64>>,
    pub stream_out_buffer_kib: Option<Spanned<i64>>,
    pub stream_idle_secs: Option<Spanned<i64>>,
    pub stream_message_secs: Option<Spanned<i64>>,
    pub stream_handshake_secs: Option<Spanned<i64>>,
    pub auth_failures_per_minute: Option<Spanned<i64>>,
    pub auth_failures_per_source_minute: Option<Spanned<i64>>,
    pub requests_per_source_s: Option<Spanned<i64>>,
}

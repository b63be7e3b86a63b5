//! What a tool can read of a running server.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::utils::CachePadded;

use super::protocol::Status;
use crate::audit;
use crate::counters::{self, Counters};
use crate::metrics::{self, NetCounters};

/// The counters of all shards, which anyone may read at any time.
#[derive(Debug)]
pub struct Instruments {
    /// Since when the node serves.
    pub since: Instant,
    /// What the shards count at their sockets.
    pub net: Vec<Arc<CachePadded<NetCounters>>>,
    /// What their engines count.
    pub engines: Vec<Arc<Counters>>,
}

impl Instruments {
    /// What they say now.
    #[must_use]
    pub fn read(&self) -> Status {
        let engine = counters::sum(&self.engines);
        let net = metrics::sum(&self.net).named();
        let findings = engine.iter().copied().filter(|&(name, found)| audit::is_finding(name) && found != 0);
        let owned = |(name, value): (&str, u64)| (name.to_owned(), value);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_secs: self.since.elapsed().as_secs(),
            shards: self.engines.len(),
            findings: findings.map(owned).collect(),
            engine: engine.into_iter().map(owned).collect(),
            net: net.into_iter().map(owned).collect(),
        }
    }
}

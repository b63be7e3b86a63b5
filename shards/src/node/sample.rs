//! What the node did, summed up for the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use rustix::thread::Pid;

use crate::counters::{self, Counters};
use crate::metrics::{self, NetCounters, NetFigures};

/// All counters of all shards together at one moment.
pub(super) struct Sample {
    pub(super) at: Instant,
    net: NetFigures,
    engine: Vec<(&'static str, u64)>,
    /// How long all shards together were ready to run and had no processor.
    without_processor: Duration,
}

impl Sample {
    /// Reads the counters of the shards, and how long their threads were kept waiting.
    pub(super) fn of(
        net: &[Arc<CachePadded<NetCounters>>],
        engines: &[Arc<Counters>],
        threads: &[Pid],
    ) -> Self {
        let (net, engine) = (metrics::sum(net), counters::sum(engines));
        let without_processor = threads.iter().map(|&it| without_processor(it)).sum();
        Self { at: Instant::now(), net, engine, without_processor }
    }

    /// The line for operators; `None` if nothing came or went since `earlier`.
    pub(super) fn summary(&self, earlier: &Self) -> Option<String> {
        let growth = self.net.since(earlier.net);
        if !growth.has_traffic() {
            return None;
        }
        let span = self.at - earlier.at;
        let mut line = growth.summary(span);
        match self.net.connections_open() {
            0 => {}
            open => line.push_str(&format!(", connections {open}")),
        }
        let kept_waiting = self.without_processor.saturating_sub(earlier.without_processor);
        if kept_waiting >= span / KEPT_WAITING_SHARE {
            line.push_str(&format!(", shards kept waiting for a processor {} ms", kept_waiting.as_millis()));
        }
        for ((name, now), (_, before)) in self.engine.iter().zip(&earlier.engine) {
            // What only grows is told as its growth, what is there at present (gauges) as it is.
            let gauge = metrics::ENGINE_GAUGES.contains(name);
            let value = if gauge { *now } else { now.wrapping_sub(*before) };
            if value != 0 {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        Some(line)
    }
}

/// How long a thread of ours was ready to run and had no processor: what else runs on the machine took it. Zero where the
/// kernel does not count that (`/proc/PID/task/TID/schedstat`).
pub(super) fn without_processor(thread: Pid) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"));
    let nanos = text.ok().and_then(|text| text.split_ascii_whitespace().nth(1)?.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// It is told when shards were kept waiting for a processor for such a part of the time: a percent of what one can do.
const KEPT_WAITING_SHARE: u32 = 100;

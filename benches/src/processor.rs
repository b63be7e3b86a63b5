//! Keeping a thread on a processor.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread on a processor.
///
/// # Errors
/// There is no such processor, or it may not be used.
pub fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    anyhow::ensure!(cpu < CpuSet::MAX_CPU, "there is no processor {cpu}");
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {cpu}"))
}

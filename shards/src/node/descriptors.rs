//! File descriptors, of which every connection needs one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Settings;

/// How many connections the node may have: as many as the operator allows, but no more than there are descriptors for, once the
/// limit of open files is as high as the system lets us raise it.
pub(super) fn connections_max(settings: &Settings, shards: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => tracing::info!(%error, "the limit of open files is not raised"),
        }
    }
    let reserved = DESCRIPTORS_RESERVED + shards * (2 * settings.listen.len() + DESCRIPTORS_PER_SHARD);
    let descriptors = limit.current.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
    settings.streams.connections_max.min(descriptors.saturating_sub(reserved).max(1))
}

/// Descriptors that the process needs beside its shards: files, signals, logs, the control socket and who talks to it.
const DESCRIPTORS_RESERVED: usize = 64;
/// Descriptors that a shard needs beside its listeners: poll, its copy, waker.
const DESCRIPTORS_PER_SHARD: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_descriptors() {
        let mut settings = Settings::default();
        settings.streams.connections_max = 100;
        assert_eq!(connections_max(&settings, 2), 100);
        settings.streams.connections_max = usize::MAX;
        let Some(limit) = getrlimit(Resource::Nofile).current else { return };
        let max = connections_max(&settings, 2) as u64;
        assert!(max < limit && max + 200 > limit, "{max} of {limit}");
    }
}

//! The thread that makes changes durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::NodeFiles;
use super::running::Event;
use super::shard_thread::{Threshold, panic_message};

/// The thread that makes changes durable.
pub(super) struct Syncing {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncing {
    /// Starts the thread, which syncs `every` so often from when the shards serve until this is dropped. What was owed when a
    /// server was alive last is owed by its heartbeat, so nobody may say so who tells nobody yet.
    pub(super) fn start(
        files: Arc<NodeFiles>,
        threshold: Arc<Threshold>,
        every: Duration,
        events: Sender<Event>,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
            // Where each core has a shard, writing back would hold one up for a slice of the scheduler; a shard that wakes
            // comes first then, and writing back still has its part of a busy core. It concerns this thread alone.
            if let Err(error) = rustix::process::setpriority_process(None, SYNC_NICENESS) {
                tracing::debug!(%error, "files are synced with the priority of the shards");
            }
            let work = AssertUnwindSafe(|| {
                let mut failing = false;
                while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    if !threshold.is_open() {
                        continue;
                    }
                    files.heartbeat();
                    let result = files.sync();
                    match &result {
                        Err(error) if !failing => {
                            tracing::error!(%error, "the files cannot be synced; a power cut would lose changes");
                        }
                        Ok(()) if failing => tracing::info!("the files are synced again"),
                        _ => {}
                    }
                    failing = result.is_err();
                }
            });
            if let Err(panic) = catch_unwind(work) {
                let _ = events.send(Event::SyncingPanicked(panic_message(panic.as_ref())));
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Niceness of the thread that syncs: about a tenth of a core that a shard keeps busy.
const SYNC_NICENESS: i32 = 10;

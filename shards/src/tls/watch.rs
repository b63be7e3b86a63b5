//! Looking whether certificates, keys and roots have changed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Tls;

/// Reads the files again when they have changed, or when told to. It is for the thread that waits for the node's end.
#[derive(Debug)]
pub struct TlsWatch {
    tls: Arc<Tls>,
    /// The files as they were when they were read last, rightly or in vain.
    read: Vec<Option<Stamp>>,
    /// The files as they were at the last look.
    seen: Vec<Option<Stamp>>,
}

/// By what a file is known to have changed, also one that took the place of another: device, number, length, and the times
/// of its last changes.
type Stamp = [u64; 7];

impl TlsWatch {
    /// How often to [`Self::look`].
    pub const EVERY: Duration = Duration::from_secs(2);

    /// Begins after the files were read.
    #[must_use]
    pub fn new(tls: Arc<Tls>) -> Self {
        let seen = stamps(&tls);
        Self { tls, read: seen.clone(), seen }
    }

    /// Reads the files if they have changed and have been left alone since the last look: a certificate and its key are two
    /// files, and one is there before the other.
    pub fn look(&mut self) {
        let now = stamps(&self.tls);
        let settled = now == self.seen;
        if settled && now != self.read {
            self.reload();
        }
        self.seen = now;
    }

    /// Reads the files.
    pub fn reload(&mut self) {
        self.read = stamps(&self.tls);
        match self.tls.reload() {
            Ok(()) => tracing::info!("certificates were read again; new connections get them"),
            Err(error) => {
                tracing::error!("certificates were read again in vain, the old ones stay in force: {error}")
            }
        }
    }
}

fn stamps(tls: &Tls) -> Vec<Option<Stamp>> {
    tls.files().iter().map(|path| stamp(path)).collect()
}

/// `None`: it is not there, or not to be read.
fn stamp(path: &Path) -> Option<Stamp> {
    let it = std::fs::metadata(path).ok()?;
    let times = [it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()].map(i64::cast_unsigned);
    Some([it.dev(), it.ino(), it.len(), times[0], times[1], times[2], times[3]])
}

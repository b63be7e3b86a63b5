//! How many connections a node has, in all and from one source.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Counts the connections of all shards together. Nothing is locked, and memory does not grow with the sources.
///
/// A source counts in one cell of each of two rows, chosen by two keyed hashes, and has as many connections as the smaller of
/// its cells says at most. So one that shares a cell with others is refused only if it does so in both rows.
#[derive(Debug)]
pub struct Admission {
    open: AtomicUsize,
    open_max: usize,
    per_source_max: u32,
    rows: [(RandomState, Box<[AtomicU32]>); 2],
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The node has as many as it may have.
    Node,
    /// Its source has.
    Source,
}

impl Admission {
    /// Admits `open_max` connections, of which `per_source_max` from one source.
    #[must_use]
    pub fn new(open_max: usize, per_source_max: usize) -> Self {
        let row = || (RandomState::new(), (0..CELLS).map(|_| AtomicU32::new(0)).collect());
        let per_source_max = u32::try_from(per_source_max).unwrap_or(u32::MAX);
        Self { open: AtomicUsize::new(0), open_max, per_source_max, rows: [row(), row()] }
    }

    /// Counts a connection from `source`, if there is room for it.
    ///
    /// # Errors
    /// [`NoRoom`]; then it is not counted.
    pub fn admit(&self, source: IpAddr) -> Result<(), NoRoom> {
        // Relaxed throughout: these are numbers alone, nothing is published by them.
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.open_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(NoRoom::Node);
        }
        let before = self.cells(source).map(|cell| cell.fetch_add(1, Ordering::Relaxed));
        if before.iter().all(|&count| count >= self.per_source_max) {
            self.leave(source);
            return Err(NoRoom::Source);
        }
        Ok(())
    }

    /// A connection that was admitted is closed.
    pub fn leave(&self, source: IpAddr) {
        for cell in self.cells(source) {
            cell.fetch_sub(1, Ordering::Relaxed);
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn cells(&self, source: IpAddr) -> [&AtomicU32; 2] {
        let source = match source {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // Whoever has one IPv6 address has its whole network of 64 bits (RFC 4291 §2.5.4). Its upper half,
            // which is never zero but for loopback (§2.4), keeps these apart from IPv4.
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        self.rows.each_ref().map(|(hash, cells)| &cells[hash.hash_one(source) as usize % CELLS])
    }
}

/// Cells of a row: more than connections are usual, so that sources share few.
const CELLS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_and_source_are_bounded() {
        let admission = Admission::new(5, 2);
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        assert_eq!([a, a, a].map(|ip| admission.admit(ip)), [Ok(()), Ok(()), Err(NoRoom::Source)]);
        assert_eq!([b, b, c, c].map(|ip| admission.admit(ip)), [Ok(()), Ok(()), Ok(()), Err(NoRoom::Node)]);
        admission.leave(a);
        assert_eq!(admission.admit("2001:db8::2".parse().unwrap()), Ok(()), "of one network");
        admission.leave(b);
        assert_eq!(admission.admit("2001:db8::3".parse().unwrap()), Err(NoRoom::Source));
        assert_eq!(admission.admit(b), Ok(()));
        assert_eq!(admission.open(), 5);
    }

    #[test]
    fn what_is_counted_is_uncounted() {
        // Sources that share their cells by chance are not refused by this bound, however they fall.
        let admission = Admission::new(usize::MAX, 1000);
        for round in 0..3 {
            let sources: Vec<IpAddr> = (0..1000_u32).map(|n| IpAddr::V4(n.into())).collect();
            assert!(sources.iter().all(|&ip| admission.admit(ip).is_ok()), "{round}");
            sources.iter().for_each(|&ip| admission.leave(ip));
        }
        assert_eq!(admission.open(), 0);
        let cells = admission.rows.iter().flat_map(|(_, cells)| cells);
        assert!(cells.into_iter().all(|cell| cell.load(Ordering::Relaxed) == 0));
    }
}

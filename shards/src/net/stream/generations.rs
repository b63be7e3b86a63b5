//! Which names of connections were given.
//!
//! A name that was stored with a subscription or a binding must lead to its connection or nowhere, also when the server has
//! been started again since and the clock was set back. So the files remember up to where names may have been given: that
//! is raised by blocks, before the first name of a block is given, and a start goes on from there. The clock is used once, when
//! the files remember nothing.

use std::sync::Arc;

use comsipl_core::UnixMillis;
use comsipl_fdb::Fdb;

/// The generations of a shard's [names](comsipl_core::ConnectionId), each of which it gives once.
#[derive(Debug)]
pub struct Generations {
    next: u64,
    /// Where the block ends that may be used.
    end: u64,
    remembered_by: Vec<Arc<Fdb>>,
}

impl Generations {
    /// Begins at `next` and remembers nothing.
    #[must_use]
    pub const fn beginning_at(next: u64) -> Self {
        Self { next, end: next, remembered_by: Vec::new() }
    }

    /// Goes on where these files say that names may have been given.
    #[must_use]
    pub fn remembered_by(files: Vec<Arc<Fdb>>, wall: UnixMillis) -> Self {
        let given = files.iter().map(|file| file.names_given()).max().unwrap_or(0);
        let next = if given == 0 { wall.0 } else { given };
        Self { next, end: next, remembered_by: files }
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        if self.next == self.end {
            self.end += BLOCK;
            for file in &self.remembered_by {
                // One block more than may be used, so that this store may be lost by a power cut: the one before said as much
                // as is used now.
                file.raise_names_given(self.end + BLOCK);
            }
        }
        self.next += 1;
        self.next - 1
    }
}

/// Generations between two stores: 1,000 connections a second make one in 17 minutes. Of the 38 bits that a name has for its
/// generation (`ConnectionId::GENERATION_BITS`) a start takes two blocks, so 130,000 starts come before the first number again.
const BLOCK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use comsipl_fdb::{FileKind, OpenOptions};

    use super::*;

    /// The server counted from the clock once, and a clock that was set back would have given names again.
    #[test]
    fn no_generation_comes_again_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut given: Vec<(u64, u64)> = Vec::new();
        for wall in [1_800_000_000_000, 1_700_000_000_000, 1_800_000_000_000, 0] {
            let files: Vec<_> =
                [FileKind::Registered, FileKind::Presence].map(|kind| open(&folder, kind)).into();
            // Two shards, of which one opens when the other has given many; nothing is closed in order.
            for count in [2 * BLOCK + 1, 3] {
                let mut shard = Generations::remembered_by(files.clone(), UnixMillis(wall));
                let (first, last) = (shard.draw(), (1..count).map(|_| shard.draw()).last().unwrap());
                assert_eq!(last - first, count - 1, "one by one");
                assert!(given.iter().all(|&(from, to)| last < from || to < first), "{first} {given:?}");
                given.push((first, last));
            }
        }
        assert_eq!(given[0].0, 1_800_000_000_000);
    }

    /// What a power cut may take back is the last store; but not the first of a start, which the first sync brings to disk.
    #[test]
    fn a_store_that_is_lost_is_one_that_need_not_have_been() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(&folder, FileKind::Presence);
        let mut shard = Generations::remembered_by(vec![Arc::clone(&file)], UnixMillis(7));
        let mut said = Vec::new();
        for _ in 0..3 * BLOCK {
            let given = shard.draw();
            if said.last() != Some(&file.names_given()) {
                said.push(file.names_given());
            }
            if let [.., before, _] = said[..] {
                assert!(given < before, "{given} after {said:?}");
            }
        }
        assert_eq!(said.len(), 3);
    }

    fn open(folder: &tempfile::TempDir, kind: FileKind) -> Arc<Fdb> {
        let options = OpenOptions { records_max: 64, threads: 1, hash_key: None };
        Fdb::open(&folder.path().join(kind.file_name()), kind, &options).unwrap().file
    }
}

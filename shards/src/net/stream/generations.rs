//! Which names of connections were given.
//!
//! A name that was stored with a subscription or a binding must lead to its connection or nowhere, also when the server has
//! been started again since and the clock was set back. So the files remember up to where names may have been given: that
//! is raised by blocks, before the first name of a block is given, and a start goes on from there ([`reserve`]). Each raises it by
//! two blocks, of which it uses the first. A start that is handed the files does not wait for the disk, and if a power cut takes back
//! what it raised, the next one does not know of it: so a start that comes alone leaves out as much. The clock is used once, when the
//! files remember nothing.

use std::sync::Arc;

use comsipl_core::UnixMillis;
use comsipl_fdb::Fdb;

use crate::node::Coming;

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

    /// Goes on in the block that was [reserved](reserve) in these files, or in a later one.
    #[must_use]
    pub fn remembered_by(files: Vec<Arc<Fdb>>) -> Self {
        let given = files.iter().map(|file| file.names_given()).max().unwrap_or(0);
        let next = given.saturating_sub(2 * BLOCK);
        Self { next, end: next + BLOCK, remembered_by: files }
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

/// Has these files remember that a start gives names above all that may have been given before. One that comes
/// [alone](Coming::Alone) brings them to disk before it gives any.
pub fn reserve(files: &[&Fdb], coming: Coming, wall: UnixMillis) {
    let given = files.iter().map(|file| file.names_given()).max().unwrap_or(0);
    let next = match coming {
        _ if given == 0 => wall.0,
        Coming::Alone => given + 2 * BLOCK,
        Coming::HandedOver => given,
    };
    for file in files {
        file.raise_names_given(next + 2 * BLOCK);
    }
}

/// Generations between two stores: 1,000 connections a second make one in 17 minutes. Of the 38 bits that a name has for its
/// generation (`ConnectionId::GENERATION_BITS`) a start takes four blocks, so 65,000 starts come before the first number again.
const BLOCK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use comsipl_fdb::{FileKind, OpenOptions};

    use super::*;

    /// The server counted from the clock once, and a clock that was set back would have given names again.
    #[test]
    fn no_generation_comes_again_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        // A name says its shard, so each shard has numbers of its own.
        let mut given: [Vec<(u64, u64)>; 2] = Default::default();
        for wall in [1_800_000_000_000, 1_700_000_000_000, 1_800_000_000_000, 0] {
            let files: Vec<_> =
                [FileKind::Registered, FileKind::Presence].map(|kind| open(&folder, kind)).into();
            reserve(&[&files[0], &files[1]], Coming::Alone, UnixMillis(wall));
            // Two shards, of which one opens when the other has given many; nothing is closed in order.
            for (given, count) in given.iter_mut().zip([2 * BLOCK + 1, 3]) {
                let mut shard = Generations::remembered_by(files.clone());
                let (first, last) = (shard.draw(), (1..count).map(|_| shard.draw()).last().unwrap());
                assert_eq!(last - first, count - 1, "one by one");
                assert!(given.iter().all(|&(from, to)| last < from || to < first), "{first} {given:?}");
                given.push((first, last));
            }
        }
        assert_eq!(given[0][0].0, 1_800_000_000_000);
    }

    /// What a power cut may take back is the last store; but not that of the start, which was brought to disk.
    #[test]
    fn a_store_that_is_lost_is_one_that_need_not_have_been() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(&folder, FileKind::Presence);
        reserve(&[&file], Coming::Alone, UnixMillis(7));
        let mut shard = Generations::remembered_by(vec![Arc::clone(&file)]);
        let mut said = vec![file.names_given()];
        for _ in 0..3 * BLOCK {
            let given = shard.draw();
            if said.last() != Some(&file.names_given()) {
                said.push(file.names_given());
            }
            let sure = match said[..] {
                [.., before, _] => before,
                _ => said[0],
            };
            assert!(given < sure, "{given} after {said:?}");
        }
        assert_eq!(said.len(), 3);
    }

    /// Of a start that was handed the files a power cut may leave nothing: the file says what the process before brought to disk.
    #[test]
    fn a_start_that_is_forgotten_has_given_names_that_are_not_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(&folder, FileKind::Presence);
        reserve(&[&file], Coming::Alone, UnixMillis(7));
        let on_disk = file.names_given();
        let mut before = Generations::remembered_by(vec![Arc::clone(&file)]);
        let used = (0..=BLOCK).map(|_| before.draw()).last().unwrap();
        assert!(file.names_given() > on_disk);
        reserve(&[&file], Coming::HandedOver, UnixMillis(7));
        let mut forgotten = Generations::remembered_by(vec![file]);
        let forgotten = [forgotten.draw(), (1..BLOCK).map(|_| forgotten.draw()).last().unwrap()];
        assert!(forgotten[0] > used);

        let folder = tempfile::tempdir().unwrap();
        let file = open(&folder, FileKind::Presence);
        file.raise_names_given(on_disk);
        reserve(&[&file], Coming::Alone, UnixMillis(7));
        let first = Generations::remembered_by(vec![file]).draw();
        assert!(first > forgotten[1], "{first} after {forgotten:?}");
    }

    fn open(folder: &tempfile::TempDir, kind: FileKind) -> Arc<Fdb> {
        let options = OpenOptions { records_max: 64, threads: 1, hash_key: None };
        Fdb::open(&folder.path().join(kind.file_name()), kind, &options).unwrap().file
    }
}

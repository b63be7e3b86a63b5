//! The mapping of a file, and the only `unsafe` code of the crate.
//!
//! Invariants:
//!   * Mapped memory is only ever seen as words of `AtomicU64`: no `&[u8]`, no `&mut` into it exists.
//!   * Words of a read-only mapping can be loaded, never stored.
//!   * The mapping is as long as the file may ever become. Touching a page beyond the file's end raises SIGBUS, so
//!     callers only name words of the superblock, of the partition headers and of extents that a header counts; these
//!     lie in the file, were reserved before they were counted, and this crate never makes a file shorter. (That another
//!     program does is beyond what a program can guard against: FORMAT.md §"What can still go wrong".)
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::layout::WORD_BYTES;
use crate::seqlock::Load;

/// A mapping of a whole file, present and future.
pub(crate) struct Map {
    raw: MmapRaw,
    writable: bool,
}

impl Map {
    /// Maps `length` bytes of `file`, which may be shorter, for reading and writing.
    pub(crate) fn writable(file: &File, length: u64) -> io::Result<Self> {
        let raw = MmapOptions::new().len(bytes(length)?).map_raw(file)?;
        Ok(Self { raw, writable: true })
    }

    /// Maps `length` bytes of `file`, which may be shorter, for reading only.
    pub(crate) fn read_only(file: &File, length: u64) -> io::Result<Self> {
        let raw = MmapOptions::new().len(bytes(length)?).map_raw_read_only(file)?;
        Ok(Self { raw, writable: false })
    }

    /// `N` words at `offset` (bytes), to load.
    ///
    /// # Panics
    /// If they are not inside the mapping.
    #[inline]
    pub(crate) fn words<const N: usize>(&self, offset: u64) -> &[ReadWord; N] {
        let start = self.start::<N>(offset);
        // SAFETY: `start` gives a pointer to `N * 8` bytes inside `self.raw`, aligned to 8, and the mapping lives as long
        // as the reference (both borrow `self`). `ReadWord` is a transparent `AtomicU64`, for which every bit pattern is
        // valid; all access by this process goes through such words, and only loads are made through this type.
        unsafe { &*start.cast::<[ReadWord; N]>() }
    }

    /// `N` words at `offset` (bytes), to load and store.
    ///
    /// # Panics
    /// If they are not inside the mapping, or the mapping is read-only.
    #[inline]
    pub(crate) fn cells<const N: usize>(&self, offset: u64) -> &[AtomicU64; N] {
        assert!(self.writable, "a reader does not write");
        let start = self.start::<N>(offset);
        // SAFETY: `start` gives a pointer to `N * 8` bytes inside `self.raw`, aligned to 8, and the mapping lives as long
        // as the reference (both borrow `self`). Every bit pattern is a valid `AtomicU64`, all access by this process goes
        // through such words, and the assertion above holds only for mappings made with write permission.
        unsafe { &*start.cast::<[AtomicU64; N]>() }
    }

    /// Asks the kernel to have pages present for reading. `Err` where touching them would raise SIGBUS; kernels
    /// before 5.14 cannot say and get `Ok`.
    pub(crate) fn populate_read(&self, offset: u64, length: u64) -> io::Result<()> {
        self.populate(Advice::PopulateRead, offset, length)
    }

    /// Asks the kernel to have pages present for writing. `Err` where touching them would raise SIGBUS; kernels
    /// before 5.14 cannot say and get `Ok`.
    pub(crate) fn populate_write(&self, offset: u64, length: u64) -> io::Result<()> {
        self.populate(Advice::PopulateWrite, offset, length)
    }

    fn populate(&self, advice: Advice, offset: u64, length: u64) -> io::Result<()> {
        match self.raw.advise_range(advice, bytes(offset)?, bytes(length)?) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(()),
            other => other,
        }
    }

    #[inline]
    fn start<const N: usize>(&self, offset: u64) -> *const u8 {
        let length = (N * WORD_BYTES) as u64;
        assert!(
            offset.is_multiple_of(WORD_BYTES as u64)
                && offset.checked_add(length).is_some_and(|end| end <= self.raw.len() as u64),
            "words outside the mapping"
        );
        // SAFETY: the assertion above places `offset` and the words that follow inside the mapping, whose length is at
        // most `isize::MAX` (memmap2 refuses longer ones), so the pointer stays within one allocation. A mapping starts
        // at a page boundary and `offset` is a multiple of 8: the result is aligned for `AtomicU64`.
        unsafe { self.raw.as_ptr().add(offset as usize) }
    }
}

/// A mapped word that is only loaded.
#[repr(transparent)]
pub(crate) struct ReadWord(AtomicU64);

impl Load for ReadWord {
    #[inline]
    fn get(&self) -> u64 {
        Load::get(&self.0)
    }

    #[inline]
    fn acquire() {
        AtomicU64::acquire();
    }
}

fn bytes(length: u64) -> io::Result<usize> {
    usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seqlock::Word;

    fn file() -> File {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(4096).expect("room for a page");
        file
    }

    #[test]
    fn stores_reach_the_file_and_other_mappings() {
        let file = file();
        let writer = Map::writable(&file, 4096).expect("mapped");
        let reader = Map::read_only(&file, 4096).expect("mapped");
        Word::set(&writer.cells::<2>(8)[1], 42);
        assert_eq!(reader.words::<1>(16)[0].get(), 42);
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 16).expect("read");
        assert_eq!(u64::from_le_bytes(bytes), 42);
    }

    #[test]
    fn pages_beyond_the_end_are_told_without_a_signal() {
        let map = Map::writable(&file(), 1 << 20).expect("a mapping may be longer than its file");
        assert!(map.populate_write(0, 4096).is_ok());
        assert!(map.populate_read(0, 4096).is_ok());
        assert!(map.populate_write(8192, 4096).is_err());
    }

    #[test]
    #[should_panic(expected = "outside the mapping")]
    fn words_outside_are_refused() {
        let map = Map::writable(&file(), 4096).expect("mapped");
        let _ = map.words::<2>(4088);
    }

    #[test]
    #[should_panic(expected = "outside the mapping")]
    fn an_offset_that_overflows_is_refused() {
        let map = Map::writable(&file(), 4096).expect("mapped");
        let _ = map.words::<2>(u64::MAX - 7);
    }

    #[test]
    #[should_panic(expected = "a reader does not write")]
    fn a_read_only_mapping_gives_no_cells() {
        let map = Map::read_only(&file(), 4096).expect("mapped");
        let _ = map.cells::<1>(0);
    }
}

//! The mapping of a file, and the only `unsafe` code of the crate.
//!
//! Invariants:
//!   * Mapped memory is seen as words of `AtomicU64`. The records of a partition may also be seen as plain words, through
//!     the partition's [`Pen`] alone: storing takes the pen by `&mut`, so nobody stores while a plain view is borrowed. Others
//!     may load meanwhile, atomically; loads do not race with loads. No `&mut` into the mapping exists.
//!   * Words of a read-only mapping can be loaded, never stored.
//!   * The mapping is as long as the file may ever become. Touching a page beyond the file's end raises SIGBUS, so
//!     callers only name words of the superblock, of the partition headers and of extents that a header counts; these
//!     lie in the file, were reserved before they were counted, and this crate never makes a file shorter. (That another
//!     program does is beyond what a program can guard against: FORMAT.md §"What can still go wrong".)
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use crate::layout::{
    DATA_START, EXTENT_BYTES, EXTENT_RECORDS, INLINE_BYTES, INLINE_START, PARTITIONS, RECORD_BYTES,
    RECORD_WORDS, WORD_BYTES, extent_offset, record_offset,
};
use crate::seqlock::Load;

// A view of bytes in place shows them in the order of the file only there.
const _: () = assert!(cfg!(target_endian = "little"), "the format is little-endian, and read in place");

/// A mapping of a whole file, present and future.
#[derive(Debug)]
pub(crate) struct Map {
    raw: MmapRaw,
    writable: bool,
    /// For each extent, in the order in which they lie in the file, which of its 64 pages were stored into since this was last
    /// looked at. Empty in a mapping that is only read.
    touched: Box<[AtomicU64]>,
}

impl Map {
    /// Maps `length` bytes of `file`, which may be shorter, for reading and writing, and gives the pens of all partitions.
    pub(crate) fn writable(file: &File, length: u64) -> io::Result<(Arc<Self>, Vec<Pen>)> {
        let raw = MmapOptions::new().len(bytes(length)?).map_raw(file)?;
        let extents = bytes(length.saturating_sub(DATA_START) / EXTENT_BYTES)?;
        let touched = zeros(extents);
        let map = Arc::new(Self { raw, writable: true, touched });
        let pens = (0..PARTITIONS as u8).map(|partition| Pen { map: Arc::clone(&map), partition }).collect();
        Ok((map, pens))
    }

    /// Maps `length` bytes of `file`, which may be shorter, for reading only.
    pub(crate) fn read_only(file: &File, length: u64) -> io::Result<Self> {
        let raw = MmapOptions::new().len(bytes(length)?).map_raw_read_only(file)?;
        Ok(Self { raw, writable: false, touched: Box::default() })
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
        // valid; stores by this process go through such words, and only loads are made through this type.
        unsafe { &*start.cast::<[ReadWord; N]>() }
    }

    /// `N` words at `offset` (bytes) in front of the records, to load and store.
    ///
    /// # Panics
    /// If they are not in front of the records, or the mapping is read-only.
    #[inline]
    pub(crate) fn cells<const N: usize>(&self, offset: u64) -> &[AtomicU64; N] {
        assert!(offset + (N * WORD_BYTES) as u64 <= DATA_START, "only a pen writes records");
        self.cells_anywhere(offset)
    }

    #[inline]
    fn cells_anywhere<const N: usize>(&self, offset: u64) -> &[AtomicU64; N] {
        assert!(self.writable, "a reader does not write");
        let start = self.start::<N>(offset);
        // SAFETY: `start` gives a pointer to `N * 8` bytes inside `self.raw`, aligned to 8, and the mapping lives as long
        // as the reference (both borrow `self`). Every bit pattern is a valid `AtomicU64`, stores by this process go
        // through such words only (a pen's plain words are never borrowed while it stores), and the assertion above holds only
        // for mappings made with write permission.
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

    /// Waits until a range is on disk (msync(2), `MS_SYNC`).
    pub(crate) fn sync(&self, offset: u64, length: u64) -> io::Result<()> {
        self.raw.flush_range(bytes(offset)?, bytes(length)?)
    }

    /// Waits until the first `length` bytes are on disk, as [`sync`](Self::sync) does, in pieces.
    ///
    /// The kernel makes each page that was stored into read-only again before it writes it, one by one, and interrupts for each all
    /// processors that we run on: with many pages that is dearer than everything else that a sync does. So the extents of which
    /// a good part was stored into since the last call are taken out of our page tables first, all at once. What was stored is in
    /// the kernel's pages, and comes back with the next touch, 16 pages at a time. By piece, because a whole file would be touched
    /// again before the kernel came to its end.
    pub(crate) fn sync_in_pieces(&self, length: u64) -> io::Result<()> {
        let mut synced = 0;
        let extents = length.saturating_sub(DATA_START) / EXTENT_BYTES;
        for (piece, pages) in self.touched[..bytes(extents)?].chunks(PIECE_EXTENTS).enumerate() {
            let start = DATA_START + (piece * PIECE_EXTENTS) as u64 * EXTENT_BYTES;
            // Relaxed: this is about cost, and nothing else goes by it.
            let touched = |pages: &AtomicU64| match pages.load(Ordering::Relaxed) {
                0 => 0,
                _ => pages.swap(0, Ordering::Relaxed).count_ones(),
            };
            if pages.iter().map(touched).sum::<u32>() < PIECE_TOUCHED_MIN {
                continue;
            }
            if synced < start {
                self.sync(synced, start - synced)?;
            }
            let end = start + pages.len() as u64 * EXTENT_BYTES;
            // SAFETY: the mapping is a shared one of a file, whose pages this does not change: whoever loads or stores there, now or
            // later, finds what was stored (madvise(2)). The kernel refuses what is not ours to let go, and then nothing has
            // happened, which is why the result does not matter.
            let _ = unsafe {
                self.raw.unchecked_advise_range(UncheckedAdvice::DontNeed, bytes(start)?, bytes(end - start)?)
            };
            self.sync(start, end - start)?;
            synced = end;
        }
        if synced < length { self.sync(synced, length - synced) } else { Ok(()) }
    }

    /// A record is about to be stored into.
    #[inline]
    fn note_touched(&self, partition: u8, slot: u32) {
        let extent = (slot / EXTENT_RECORDS) as usize * PARTITIONS + usize::from(partition);
        let page = 1 << (slot % EXTENT_RECORDS / (EXTENT_RECORDS / u64::BITS));
        if let Some(pages) = self.touched.get(extent)
            && pages.load(Ordering::Relaxed) & page == 0
        {
            pages.fetch_or(page, Ordering::Relaxed);
        }
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

/// The right to store into the records of one partition. There is one for each, made with the mapping.
#[derive(Debug)]
pub(crate) struct Pen {
    map: Arc<Map>,
    partition: u8,
}

impl Pen {
    /// The partition that it writes.
    #[inline]
    pub(crate) const fn partition(&self) -> u8 {
        self.partition
    }

    /// A record to load and store. The caller knows that its extent is in use (or about to be).
    ///
    /// # Panics
    /// If it is not inside the mapping.
    #[inline]
    pub(crate) fn cells(&mut self, slot: u32) -> &[AtomicU64; RECORD_WORDS] {
        self.map.note_touched(self.partition, slot);
        self.map.cells_anywhere(record_offset(self.partition, slot))
    }

    /// A record in place, as plain words. The caller knows that its extent is in use.
    ///
    /// # Panics
    /// If it is not inside the mapping.
    #[inline]
    pub(crate) fn words(&self, slot: u32) -> &[u64; RECORD_WORDS] {
        let start = self.map.start::<RECORD_WORDS>(record_offset(self.partition, slot));
        // SAFETY: `start` gives a pointer to the record's bytes inside the mapping, aligned to 8; the mapping lives as long
        // as the reference (through `self.map`), and every bit pattern is a `u64`. The words do not change meanwhile:
        // stores into records are made through the cells of this partition's only pen, which would borrow it mutably,
        // and other processes are kept from writing by the lock on the file. Other threads load them atomically at most.
        unsafe { &*start.cast::<[u64; RECORD_WORDS]>() }
    }

    /// Asks the processor to have a record in its cache soon. A slot that is not inside the mapping is left alone.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        let offset = record_offset(self.partition, slot);
        if offset + RECORD_BYTES as u64 <= self.map.raw.len() as u64 {
            let start = self.map.start::<RECORD_WORDS>(offset);
            for line in (0..RECORD_BYTES).step_by(LINE_BYTES) {
                prefetch_line(start.wrapping_add(line));
            }
        }
    }

    /// Asks the kernel to have the pages of an extent present for writing, like [`Map::populate_write`].
    pub(crate) fn populate(&self, extent: u32) -> io::Result<()> {
        debug_assert_eq!(EXTENT_BYTES, u64::from(EXTENT_RECORDS) * RECORD_BYTES as u64);
        self.map.populate_write(extent_offset(self.partition, extent), EXTENT_BYTES)
    }
}

/// The inline payload of a head record, as bytes.
#[inline]
pub(crate) fn inline_bytes(record: &[u64; RECORD_WORDS]) -> &[u8; INLINE_BYTES] {
    const { assert!(INLINE_BYTES == (RECORD_WORDS - INLINE_START) * WORD_BYTES) };
    bytes_from::<INLINE_START, INLINE_BYTES>(record)
}

/// `N` bytes of a record, from its word `START` on.
#[inline]
pub(crate) fn bytes_from<const START: usize, const N: usize>(record: &[u64; RECORD_WORDS]) -> &[u8; N] {
    const { assert!(START * WORD_BYTES + N <= RECORD_BYTES) };
    let words = record[START..].as_ptr();
    // SAFETY: `words` points to `RECORD_BYTES - START * 8` bytes that `record` borrows, of which `N` are used as the
    // assertion says. Bytes have no alignment, and every bit pattern of a word is eight bytes.
    unsafe { &*words.cast::<[u8; N]>() }
}

/// Extents that are synced at once where much was stored into.
const PIECE_EXTENTS: usize = 32;
/// As many of the 2,048 pages of a piece are dearer to have made read-only one by one (2 to 7 µs each where the processors of a
/// virtual machine have to be interrupted for it) than it is to fetch the whole piece again (a fault of some 3 µs for 16 pages).
const PIECE_TOUCHED_MIN: u32 = 256;

/// Bytes that a processor moves between memory and cache at a time.
const LINE_BYTES: usize = 64;

#[inline]
fn prefetch_line(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect but on caches, whatever the address; every x86-64 processor has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
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

/// So many zeros, which take no memory before one of them is stored into.
fn zeros(count: usize) -> Box<[AtomicU64]> {
    const { assert!(align_of::<AtomicU64>() == align_of::<u64>()) };
    let zeros = Box::into_raw(vec![0_u64; count].into_boxed_slice());
    // SAFETY: the pointer is that of a box that nobody else has, and an `AtomicU64` has the size, the bits and (as asserted above)
    // the alignment of a `u64`, so it is freed as it was allocated.
    unsafe { Box::from_raw(zeros as *mut [AtomicU64]) }
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
        let (writer, _) = Map::writable(&file, 4096).expect("mapped");
        let reader = Map::read_only(&file, 4096).expect("mapped");
        Word::set(&writer.cells::<2>(8)[1], 42);
        assert_eq!(reader.words::<1>(16)[0].get(), 42);
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 16).expect("read");
        assert_eq!(u64::from_le_bytes(bytes), 42);
    }

    #[test]
    fn pages_beyond_the_end_are_told_without_a_signal() {
        let (map, _) = Map::writable(&file(), 1 << 20).expect("a mapping may be longer than its file");
        assert!(map.populate_write(0, 4096).is_ok());
        assert!(map.populate_read(0, 4096).is_ok());
        assert!(map.populate_write(8192, 4096).is_err());
    }

    #[test]
    #[should_panic(expected = "outside the mapping")]
    fn words_outside_are_refused() {
        let (map, _) = Map::writable(&file(), 4096).expect("mapped");
        let _ = map.words::<2>(4088);
    }

    #[test]
    #[should_panic(expected = "outside the mapping")]
    fn an_offset_that_overflows_is_refused() {
        let (map, _) = Map::writable(&file(), 4096).expect("mapped");
        let _ = map.words::<2>(u64::MAX - 7);
    }

    #[test]
    #[should_panic(expected = "a reader does not write")]
    fn a_read_only_mapping_gives_no_cells() {
        let map = Map::read_only(&file(), 4096).expect("mapped");
        let _ = map.cells::<1>(0);
    }

    #[test]
    #[should_panic(expected = "only a pen writes records")]
    fn records_are_not_written_without_a_pen() {
        let (map, _) = Map::writable(&file(), 1 << 20).expect("mapped");
        let _ = map.cells::<1>(DATA_START);
    }

    #[test]
    fn what_is_let_go_of_is_still_there() {
        let file = file();
        let length = DATA_START + EXTENT_BYTES * 2 * PARTITIONS as u64;
        file.set_len(length).expect("room for two extents of each");
        let (map, mut pens) = Map::writable(&file, length).expect("mapped");
        let value = |partition: usize, slot: u32| 1 + partition as u64 * 10_000 + u64::from(slot);
        // Whole extents that are neighbours, one that is not, and one with a few stores.
        let stored = |slot: u32| [(0, slot), (1, slot), (1, slot + EXTENT_RECORDS), (9, slot)];
        let few = |slot: u32| (20, slot / 64);
        for slot in 0..EXTENT_RECORDS {
            for (partition, slot) in stored(slot).into_iter().chain([few(slot)]) {
                Word::set(&pens[partition].cells(slot)[5], value(partition, slot));
            }
        }
        let touched = || map.touched.iter().filter(|it| it.load(Ordering::Relaxed) != 0).count();
        assert_eq!(touched(), 5);
        map.sync_in_pieces(length).expect("synced");
        assert_eq!(touched(), 0);
        for slot in 0..EXTENT_RECORDS {
            for (partition, slot) in stored(slot).into_iter().chain([few(slot)]) {
                assert_eq!(pens[partition].words(slot)[5], value(partition, slot));
            }
        }
        Word::set(&pens[1].cells(3)[5], 77);
        assert_eq!((pens[1].words(3)[5], pens[1].words(4)[5]), (77, value(1, 4)));
    }

    #[test]
    fn a_pen_sees_what_it_stored_and_others_do_too() {
        let file = file();
        file.set_len(DATA_START + EXTENT_BYTES * PARTITIONS as u64).expect("room for an extent of each");
        let length = DATA_START + EXTENT_BYTES * PARTITIONS as u64;
        let (map, mut pens) = Map::writable(&file, length).expect("mapped");
        let pen = &mut pens[3];
        assert_eq!(pen.partition(), 3);
        for (n, cell) in (0u64..).zip(pen.cells(7)) {
            Word::set(cell, 0x0101_0101_0101_0101 * n);
        }
        let words = pen.words(7);
        assert_eq!(words[5], 0x0505_0505_0505_0505);
        assert_eq!(inline_bytes(words)[..9], [16, 16, 16, 16, 16, 16, 16, 16, 17]);
        assert_eq!(map.words::<RECORD_WORDS>(record_offset(3, 7))[5].get(), words[5]);
        assert_eq!(pens[4].words(7), &[0; RECORD_WORDS]);
        pens[3].prefetch(7);
        pens[3].prefetch(u32::MAX);
    }
}

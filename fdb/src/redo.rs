//! The redo image of a partition: what an update in place is about to write, so that an interrupted one is finished.
//!
//! A partition has one writer, so at most one update is interrupted, and one image is enough. It is
//! the new sequence, the words of the head, and the inline payload where that changes too.
//! The image says for which slot it is; its checksum holds for that place only.

use std::sync::atomic::AtomicU64;

use crate::layout::{HEADER_WORDS, INLINE_START, RECORD_WORDS, WORD_BYTES, header};
use crate::map::inline_bytes;
use crate::record::{Head, HeadWords, store_payload};
use crate::seqlock::{Load, Word};

/// Set in the redo word while the image is whole.
const ARMED: u64 = 1 << 63;

/// A redo image read back.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) slot: u32,
    /// Words of the record from 0 on, of which `count` are to be written.
    pub(crate) words: [u64; RECORD_WORDS],
    pub(crate) count: usize,
}

/// Stores the image of an update: `sequence` is the even one that the record will have, `payload` is empty where the
/// inline payload stays as it is.
#[inline]
pub(crate) fn arm(
    cells: &[AtomicU64; HEADER_WORDS],
    slot: u32,
    sequence: u64,
    words: &HeadWords,
    payload: &[u8],
) {
    let count = INLINE_START + payload.len().div_ceil(8);
    Word::set(&cells[header::REDO], 0);
    AtomicU64::release();
    let image = &cells[header::REDO_IMAGE..header::REDO_IMAGE + RECORD_WORDS];
    Word::set(&image[0], sequence);
    for (cell, &word) in image[1..].iter().zip(words) {
        Word::set(cell, word);
    }
    store_payload(&image[INLINE_START..], payload);
    AtomicU64::release();
    Word::set(&cells[header::REDO], ARMED | (count as u64) << 32 | u64::from(slot));
}

/// The image, if a whole one is there.
pub(crate) fn load(cells: &[AtomicU64; HEADER_WORDS]) -> Option<Image> {
    let redo = Load::get(&cells[header::REDO]);
    let count = (redo >> 32 & 0xffff) as usize;
    if redo & ARMED == 0 || !(INLINE_START..=RECORD_WORDS).contains(&count) {
        return None;
    }
    let words = std::array::from_fn(|i| Load::get(&cells[header::REDO_IMAGE + i]));
    Some(Image { slot: redo as u32, words, count })
}

impl Image {
    /// Whether its checksums hold: of an image whose sectors are of different times, the disk may have kept some only.
    pub(crate) fn is_whole(&self, partition: u8) -> bool {
        let words: HeadWords = std::array::from_fn(|i| self.words[i + 1]);
        let Some(head) = Head::unpack(partition, self.slot, &words) else { return false };
        // Without a payload of its own it changes the typed words alone.
        let bytes = &inline_bytes(&self.words)[..head.inline()];
        self.count == INLINE_START
            || self.count == INLINE_START + bytes.len().div_ceil(WORD_BYTES)
                && crc32c::crc32c(bytes) == head.payload_crc
    }

    /// Writes the image to its record. May be interrupted and repeated.
    pub(crate) fn replay(&self, record: &[AtomicU64; RECORD_WORDS]) {
        Word::set(&record[0], self.words[0].wrapping_sub(1));
        AtomicU64::release();
        for (cell, &word) in record.iter().zip(&self.words).take(self.count).skip(1) {
            Word::set(cell, word);
        }
        AtomicU64::release();
        Word::set(&record[0], self.words[0]);
    }
}

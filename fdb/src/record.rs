//! The words of a record: packing, checksums, and the copying of its payload.
//!
//! ```text
//! word 0   sequence
//! word 1   crc32c 0..32 | kind 32..40 | flags 40..48 | head: chain records, chain: position in the chain 48..64
//! word 2   payload bytes 0..32 | next chain slot 32..64
//! word 3   head: stamp 0..32 | crc32c of the inline payload 32..64      chain: owner slot 0..32 | stamp 32..64
//! head:    words 4..16 fixed, words 16..64 inline payload               chain: words 4..64 payload
//! ```
//!
//! Word 1 is the commit word: 0 means free. Inserting stores it after all others, removing stores 0 into it.

use crate::kind::{CHAIN, FREE, Kind, SPOILED};
use crate::layout::{
    CHAIN_BYTES, CHAIN_MAX, FIXED_WORDS, INLINE_BYTES, INLINE_START, PAYLOAD_MAX, RECORD_HEADER_WORDS,
    RECORD_WORDS, WORD_BYTES, chain_records,
};
use crate::seqlock::{Load, Word};

/// The word after the sequence that makes a slot a record.
pub(crate) const COMMIT: usize = 1;
/// `next` of the last record of a chain.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// Word 1 unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) crc: u32,
    pub(crate) kind: u8,
    pub(crate) count: u16,
}

impl Commit {
    pub(crate) const fn pack(self) -> u64 {
        self.crc as u64 | (self.kind as u64) << 32 | (self.count as u64) << 48
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        let kind = (word >> 32) as u8;
        // Only a word that is 0 makes a slot free: one with anything else in it is a record of which the disk spoiled the kind.
        let kind = if kind == FREE && word != 0 { SPOILED } else { kind };
        Self { crc: word as u32, kind, count: (word >> 48) as u16 }
    }
}

/// Two 32-bit numbers in a word, the first in the low half.
pub(crate) const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// The numbers of a [`pair`].
pub(crate) const fn unpair(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Header and fixed words of a head record, without the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) chain: u16,
    pub(crate) length: u32,
    pub(crate) next: u32,
    pub(crate) stamp: u32,
    pub(crate) payload_crc: u32,
    pub(crate) fixed: [u64; FIXED_WORDS],
}

/// Words 1..16 of a head record.
pub(crate) type HeadWords = [u64; INLINE_START - 1];

impl Head {
    /// Words 1..16, with the checksum for the place `partition`, `slot`.
    pub(crate) fn pack(&self, partition: u8, slot: u32) -> HeadWords {
        let mut words = [0; INLINE_START - 1];
        words[0] = Commit { crc: 0, kind: self.kind.code(), count: self.chain }.pack();
        words[1] = pair(self.length, self.next);
        words[2] = pair(self.stamp, self.payload_crc);
        words[3..].copy_from_slice(&self.fixed);
        words[0] |= u64::from(head_crc(partition, slot, &words));
        words
    }

    /// The head in words 1..16, or `None` where the checksum for this place fails or a number is impossible.
    pub(crate) fn unpack(partition: u8, slot: u32, words: &HeadWords) -> Option<Self> {
        let commit = Commit::unpack(words[0]);
        let kind = Kind::of(commit.kind)?;
        if commit.crc != head_crc(partition, slot, words) {
            return None;
        }
        let (length, next) = unpair(words[1]);
        let (stamp, payload_crc) = unpair(words[2]);
        if length as usize > PAYLOAD_MAX || chain_records(length as usize) != usize::from(commit.count) {
            return None;
        }
        let mut fixed = [0; FIXED_WORDS];
        fixed.copy_from_slice(&words[3..]);
        Some(Self { kind, chain: commit.count, length, next, stamp, payload_crc, fixed })
    }

    /// Payload bytes inside the head record.
    pub(crate) fn inline(&self) -> usize {
        (self.length as usize).min(INLINE_BYTES)
    }
}

/// Header of a chain record, without the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) position: u16,
    pub(crate) length: u32,
    pub(crate) next: u32,
    pub(crate) owner: u32,
    pub(crate) stamp: u32,
}

/// Words 1..4 of a chain record.
pub(crate) type LinkWords = [u64; RECORD_HEADER_WORDS - 1];

impl Link {
    /// Words 1..4, with the checksum for the place `partition`, `slot` and this payload.
    pub(crate) fn pack(&self, partition: u8, slot: u32, payload: &[u8]) -> LinkWords {
        let mut words = [
            Commit { crc: 0, kind: CHAIN, count: self.position }.pack(),
            pair(self.length, self.next),
            pair(self.owner, self.stamp),
        ];
        words[0] |= u64::from(link_crc(partition, slot, &words, payload));
        words
    }

    /// The header in words 1..4 with the payload it counts, or `None` where the checksum fails or a number is
    /// impossible. `payload` may be longer than what the header counts.
    pub(crate) fn unpack(partition: u8, slot: u32, words: &LinkWords, payload: &[u8]) -> Option<Self> {
        let commit = Commit::unpack(words[0]);
        let (length, next) = unpair(words[1]);
        let (owner, stamp) = unpair(words[2]);
        if commit.kind != CHAIN || usize::from(commit.count) >= CHAIN_MAX || length as usize > CHAIN_BYTES {
            return None;
        }
        let payload = payload.get(..length as usize)?;
        let link = Self { position: commit.count, length, next, owner, stamp };
        (commit.crc == link_crc(partition, slot, words, payload)).then_some(link)
    }

    /// Whether this is record `position` of the chain that `head` in `slot` names.
    pub(crate) fn continues(&self, head: &Head, slot: u32, position: u16) -> bool {
        let before = INLINE_BYTES + usize::from(position) * CHAIN_BYTES;
        self.owner == slot
            && self.stamp == head.stamp
            && self.position == position
            && self.length as usize == (head.length as usize).saturating_sub(before).min(CHAIN_BYTES)
    }
}

/// Whether word 1 says that the slot holds nothing.
pub(crate) const fn is_free(commit: u64) -> bool {
    Commit::unpack(commit).kind == FREE
}

/// The version number that ties chain records to their head: from the sequence that the head will have.
pub(crate) const fn stamp_of(sequence: u64) -> u32 {
    (sequence >> 1) as u32
}

/// Copies words 1..N+1 of a record.
#[inline]
pub(crate) fn copy_header<W: Load, const N: usize>(record: &[W; RECORD_WORDS]) -> [u64; N] {
    std::array::from_fn(|i| record[i + 1].get())
}

/// Copies payload words from word `start` on into `bytes`.
#[inline]
pub(crate) fn copy_payload<W: Load>(record: &[W; RECORD_WORDS], start: usize, bytes: &mut [u8]) {
    let mut chunks = bytes.chunks_exact_mut(WORD_BYTES);
    let mut words = record[start..].iter();
    for (chunk, word) in (&mut chunks).zip(&mut words) {
        chunk.copy_from_slice(&word.get().to_le_bytes());
    }
    let rest = chunks.into_remainder();
    if let (false, Some(word)) = (rest.is_empty(), words.next()) {
        let last = word.get().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Stores `bytes` into `cells`, the last word filled up with zeros.
#[inline]
pub(crate) fn store_payload<W: Word>(cells: &[W], bytes: &[u8]) {
    let (chunks, rest) = bytes.as_chunks::<WORD_BYTES>();
    for (cell, &chunk) in cells.iter().zip(chunks) {
        cell.set(u64::from_le_bytes(chunk));
    }
    if !rest.is_empty() {
        let mut last = [0; WORD_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        cells[chunks.len()].set(u64::from_le_bytes(last));
    }
}

/// The place is part of what is summed, so a record that lands in a wrong slot is seen.
fn head_crc(partition: u8, slot: u32, words: &HeadWords) -> u32 {
    let mut bytes = [0; INLINE_START * WORD_BYTES];
    bytes[..8].copy_from_slice(&pair(slot, u32::from(partition)).to_le_bytes());
    bytes[8..16].copy_from_slice(&(words[0] & !0xffff_ffff).to_le_bytes());
    for (chunk, word) in bytes[16..].chunks_exact_mut(WORD_BYTES).zip(&words[1..]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    crc32c::crc32c(&bytes)
}

fn link_crc(partition: u8, slot: u32, words: &LinkWords, payload: &[u8]) -> u32 {
    let mut bytes = [0; RECORD_HEADER_WORDS * WORD_BYTES];
    bytes[..8].copy_from_slice(&pair(slot, u32::from(partition)).to_le_bytes());
    bytes[8..16].copy_from_slice(&(words[0] & !0xffff_ffff).to_le_bytes());
    bytes[16..24].copy_from_slice(&words[1].to_le_bytes());
    bytes[24..].copy_from_slice(&words[2].to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&bytes), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            kind: Kind::Subscription,
            chain: 2,
            length: (INLINE_BYTES + CHAIN_BYTES + 7) as u32,
            next: 9,
            stamp: 5,
            payload_crc: 0xdead_beef,
            fixed: std::array::from_fn(|i| i as u64 * 3),
        }
    }

    #[test]
    fn a_head_is_unpacked_as_packed_and_only_at_its_place() {
        let words = head().pack(3, 77);
        assert_eq!(Head::unpack(3, 77, &words), Some(head()));
        assert_eq!(Head::unpack(3, 78, &words), None);
        assert_eq!(Head::unpack(4, 77, &words), None);
    }

    #[test]
    fn every_flipped_bit_of_a_head_is_seen() {
        let words = head().pack(3, 77);
        for word in 0..words.len() {
            for bit in 0..64 {
                let mut flipped = words;
                flipped[word] ^= 1 << bit;
                assert_eq!(Head::unpack(3, 77, &flipped), None, "word {word} bit {bit}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_link_is_seen() {
        let payload = [7; CHAIN_BYTES];
        let link = Link { position: 1, length: 100, next: NO_SLOT, owner: 77, stamp: 5 };
        let words = link.pack(0, 8, &payload[..100]);
        assert_eq!(Link::unpack(0, 8, &words, &payload), Some(link));
        for word in 0..words.len() {
            for bit in 0..64 {
                let mut flipped = words;
                flipped[word] ^= 1 << bit;
                assert_eq!(Link::unpack(0, 8, &flipped, &payload), None, "word {word} bit {bit}");
            }
        }
        let mut other = payload;
        other[99] ^= 1;
        assert_eq!(Link::unpack(0, 8, &words, &other), None);
    }

    #[test]
    fn a_link_of_another_version_owner_or_position_is_a_stranger() {
        let head = head();
        let link = Link { position: 1, length: 7, next: NO_SLOT, owner: 77, stamp: 5 };
        assert!(link.continues(&head, 77, 1));
        assert!(!link.continues(&head, 77, 0));
        assert!(!link.continues(&head, 78, 1));
        assert!(!Link { stamp: 6, ..link }.continues(&head, 77, 1));
        assert!(!Link { length: 8, ..link }.continues(&head, 77, 1));
    }
}

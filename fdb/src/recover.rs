//! Recovery of a partition: every slot is read, what was interrupted is finished or taken back, the free list and the
//! index are rebuilt. `FORMAT.md` argues every instant at which a writer can be interrupted.
//!
//! Recovery may itself be interrupted at any instruction: run again, it comes to the same end.

use std::io;
use std::sync::atomic::AtomicU64;

use crate::file::{Fdb, key_of};
use crate::kind::{CHAIN, FREE};
use crate::layout::{
    CHAIN_BYTES, EXTENT_BYTES, EXTENT_RECORDS, INLINE_BYTES, INLINE_START, RECORD_HEADER_WORDS, RECORD_WORDS,
    extent_offset,
};
use crate::map::Pen;
use crate::record::{COMMIT, Commit, Head, HeadWords, Link, LinkWords, copy_header, copy_payload, unpair};
use crate::redo;
use crate::seqlock::{Load, Word};

/// What recovery found in a partition.
pub(crate) struct Scan {
    /// Free slots, the lowest one last.
    pub(crate) free: Vec<u32>,
    pub(crate) records: u32,
    pub(crate) torn_dropped: u64,
    pub(crate) redone: bool,
    pub(crate) orphans_freed: u64,
}

/// What a slot was found to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Head,
    /// A whole chain record that no head has claimed yet.
    Link,
    Claimed,
}

/// Recovers the pen's partition.
pub(crate) fn scan(file: &Fdb, pen: &mut Pen) -> io::Result<Scan> {
    let partition = pen.partition();
    let extents = file.extents(partition);
    let mut scan = Scan { free: Vec::new(), records: 0, torn_dropped: 0, redone: false, orphans_freed: 0 };
    scan.redone = redo(file, pen, extents);
    let mut slots = Vec::with_capacity((extents * EXTENT_RECORDS) as usize);
    let mut chained = Vec::new();
    for extent in 0..extents {
        file.map.populate_read(extent_offset(partition, extent), EXTENT_BYTES)?;
        for slot in extent * EXTENT_RECORDS..(extent + 1) * EXTENT_RECORDS {
            let record = pen.cells(slot);
            let found = match Commit::unpack(record[COMMIT].get()).kind {
                FREE => {
                    settle(record);
                    Slot::Free
                }
                CHAIN => match link(partition, slot, record) {
                    Some(_) => {
                        settle(record);
                        Slot::Link
                    }
                    // No kill leaves one that is not whole; and what says that it is one may have been a head.
                    None => {
                        clear(record);
                        scan.torn_dropped += 1;
                        Slot::Free
                    }
                },
                _ => match head(partition, slot, record) {
                    Some(head) => {
                        settle(record);
                        if head.chain > 0 {
                            chained.push((slot, head));
                        } else {
                            scan.keep(file, partition, slot, &head);
                        }
                        Slot::Head
                    }
                    None => {
                        clear(record);
                        scan.torn_dropped += 1;
                        Slot::Free
                    }
                },
            };
            slots.push(found);
        }
    }
    for (slot, head) in chained {
        match claim(file, partition, slot, &head, &slots) {
            Some(links) => {
                for link in links {
                    slots[link as usize] = Slot::Claimed;
                }
                scan.keep(file, partition, slot, &head);
            }
            None => {
                clear(pen.cells(slot));
                slots[slot as usize] = Slot::Free;
                scan.torn_dropped += 1;
            }
        }
    }
    for (slot, found) in slots.iter_mut().enumerate() {
        if *found == Slot::Link {
            clear(pen.cells(slot as u32));
            *found = Slot::Free;
            scan.orphans_freed += 1;
        }
    }
    // Room for every slot there is, so that freeing allocates nothing.
    scan.free.reserve_exact(slots.len());
    let free = slots.iter().enumerate().rev().filter(|(_, found)| **found == Slot::Free);
    scan.free.extend(free.map(|(slot, _)| slot as u32));
    Ok(scan)
}

impl Scan {
    fn keep(&mut self, file: &Fdb, partition: u8, slot: u32, head: &Head) {
        self.records += 1;
        if head.kind.indexed() {
            file.index(partition).insert(key_of(&head.fixed), slot);
        }
    }
}

/// Finishes the update that was interrupted, if one was.
fn redo(file: &Fdb, pen: &mut Pen, extents: u32) -> bool {
    let partition = pen.partition();
    let Some(image) = redo::load(file.header_cells(partition)) else { return false };
    let whole = image.is_whole(partition);
    if image.slot / EXTENT_RECORDS >= extents || !image.words[0].is_multiple_of(2) || !whole {
        return false;
    }
    let record = pen.cells(image.slot);
    let sequence = record[0].get();
    // Killed in the middle of this very update. Or: of this very version, and the disk spoiled it.
    let interrupted = sequence.wrapping_add(1) == image.words[0];
    let spoiled = sequence == image.words[0] && head(partition, image.slot, record).is_none();
    if !interrupted && !spoiled {
        if sequence < image.words[0] {
            // An update that was not begun when its process was killed, or a version that a power cut took. The record goes on above
            // it: if it came to the image's sequence by other changes, they would be undone by this image.
            Word::set(&record[0], image.words[0].wrapping_add(2 + (sequence & 1)));
        }
        return false;
    }
    image.replay(record);
    true
}

/// The head in `record`, if it is whole, its inline payload included.
fn head(partition: u8, slot: u32, record: &[AtomicU64; RECORD_WORDS]) -> Option<Head> {
    let words: HeadWords = copy_header(record);
    let head = Head::unpack(partition, slot, &words)?;
    let mut bytes = [0; INLINE_BYTES];
    let inline = &mut bytes[..head.inline()];
    copy_payload(record, INLINE_START, inline);
    (crc32c::crc32c(inline) == head.payload_crc).then_some(head)
}

/// The chain record in `record`, if it is whole.
fn link<W: Load>(partition: u8, slot: u32, record: &[W; RECORD_WORDS]) -> Option<Link> {
    let words: LinkWords = copy_header(record);
    let mut bytes = [0; CHAIN_BYTES];
    let payload = &mut bytes[..(unpair(words[1]).0 as usize).min(CHAIN_BYTES)];
    copy_payload(record, RECORD_HEADER_WORDS, payload);
    Link::unpack(partition, slot, &words, payload)
}

/// The slots of a head's chain, if all of it is there and nobody else's.
fn claim(file: &Fdb, partition: u8, slot: u32, head: &Head, slots: &[Slot]) -> Option<Vec<u32>> {
    let mut links = Vec::with_capacity(head.chain.into());
    let mut next = head.next;
    for position in 0..head.chain {
        if slots.get(next as usize) != Some(&Slot::Link) {
            return None;
        }
        let link = link(partition, next, file.record(partition, next)?)?;
        if !link.continues(head, slot, position) {
            return None;
        }
        links.push(next);
        next = link.next;
    }
    Some(links)
}

/// Makes the sequence even; the content is whole, or the slot is free.
fn settle(record: &[AtomicU64; RECORD_WORDS]) {
    let sequence = record[0].get();
    if !sequence.is_multiple_of(2) {
        AtomicU64::release();
        Word::set(&record[0], sequence.wrapping_add(1));
    }
}

/// Frees a slot.
fn clear(record: &[AtomicU64; RECORD_WORDS]) {
    let odd = record[0].get() | 1;
    Word::set(&record[0], odd);
    AtomicU64::release();
    Word::set(&record[COMMIT], 0);
    AtomicU64::release();
    Word::set(&record[0], odd.wrapping_add(1));
}

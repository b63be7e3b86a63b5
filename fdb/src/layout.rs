//! Where every byte of a file lies. `FORMAT.md` draws what these constants say, each defined from the one before.

/// Partitions of a file; each has one writing thread.
pub const PARTITIONS: usize = 64;

/// First word of a file, read as bytes: `COMSIPLF`.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"COMSIPLF");
/// Version of the format; any change to the bytes bumps it.
pub(crate) const VERSION: u32 = 1;

/// Bytes of a word: everything in a mapping is read and written as one little-endian `u64` at a time.
pub(crate) const WORD_BYTES: usize = 8;
/// Bytes of a record, of any kind.
pub const RECORD_BYTES: usize = 512;
/// Words of a record.
pub(crate) const RECORD_WORDS: usize = RECORD_BYTES / WORD_BYTES;
/// Records by which a partition grows.
pub(crate) const EXTENT_RECORDS: u32 = 512;
/// Bytes by which a partition grows.
pub(crate) const EXTENT_BYTES: u64 = EXTENT_RECORDS as u64 * RECORD_BYTES as u64;

/// Bytes of the superblock's region; the superblock proper is its first 512 bytes, one disk sector.
pub(crate) const SUPERBLOCK_REGION_BYTES: u64 = EXTENT_BYTES;
/// Bytes of a partition header: one page, so that no two writers share one.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// Words of a partition header.
pub(crate) const HEADER_WORDS: usize = HEADER_BYTES as usize / WORD_BYTES;
/// Where the first partition header lies.
pub(crate) const HEADERS_START: u64 = SUPERBLOCK_REGION_BYTES;
/// Where the first extent lies.
pub(crate) const DATA_START: u64 = HEADERS_START + HEADER_BYTES * PARTITIONS as u64;

/// Words of a record before its content: sequence, marks, lengths, chain.
pub(crate) const RECORD_HEADER_WORDS: usize = 4;
/// Typed words of a head record.
pub const FIXED_WORDS: usize = 12;
/// Word of a head record at which its payload starts.
pub(crate) const INLINE_START: usize = RECORD_HEADER_WORDS + FIXED_WORDS;
/// Payload bytes that fit the head record.
pub const INLINE_BYTES: usize = (RECORD_WORDS - INLINE_START) * WORD_BYTES;
/// Payload bytes of a chain record.
pub const CHAIN_BYTES: usize = (RECORD_WORDS - RECORD_HEADER_WORDS) * WORD_BYTES;
/// Most chain records of one head: bounds what a reader follows.
pub(crate) const CHAIN_MAX: usize = 1024;
/// Longest payload of a record.
pub const PAYLOAD_MAX: usize = INLINE_BYTES + CHAIN_MAX * CHAIN_BYTES;

/// Most records a partition may be configured to have: the whole mapping is then 2 TiB of addresses.
pub const RECORDS_MAX_LIMIT: u32 = 1 << 26;
/// Most extents of a partition.
pub(crate) const EXTENTS_LIMIT: u32 = RECORDS_MAX_LIMIT / EXTENT_RECORDS;

/// Words of the superblock, by name.
pub(crate) mod superblock {
    /// `MAGIC`.
    pub(crate) const MAGIC: usize = 0;
    /// Format version (low half), file kind (high half).
    pub(crate) const VERSION_KIND: usize = 1;
    /// Bytes of a record (low half), bytes of an extent (high half).
    pub(crate) const RECORD_EXTENT: usize = 2;
    /// Partitions (low half), bytes of a partition header (high half).
    pub(crate) const PARTITIONS_HEADER: usize = 3;
    /// Offset of the first extent.
    pub(crate) const DATA_START: usize = 4;
    /// Secret key of the node's hashes, two words.
    pub(crate) const HASH_KEY: usize = 5;
    /// CRC-32C of the words before.
    pub(crate) const CRC: usize = 7;
    /// 1 after `close`, 0 while open.
    pub(crate) const CLEAN: usize = 16;
    /// How often a writer opened the file.
    pub(crate) const BOOTS: usize = 17;
    /// Wall clock, Unix milliseconds, last stored by the running server.
    pub(crate) const HEARTBEAT: usize = 18;
    /// Names of connections below this may have been given; 0: none were.
    pub(crate) const NAMES_GIVEN: usize = 19;
    /// Identity of the machine's boot during which the file was written last; 0: not known, or something was missing at the
    /// opening and there was no heartbeat since.
    pub(crate) const MACHINE_BOOT: usize = 20;
    /// Extents a partition may have (low half), CRC-32C of these (high half).
    pub(crate) const EXTENTS_MAX: usize = 24;
    /// Words of the superblock: one disk sector.
    pub(crate) const WORDS: usize = 64;
}

/// Words of a partition header, by name. Words that different threads write lie in different cache lines.
pub(crate) mod header {
    /// Extents in use (low half), CRC-32C of these and the partition's number (high half).
    pub(crate) const EXTENTS: usize = 0;
    /// Extents that were in use when the file was last synced, with their CRC-32C like `EXTENTS`.
    pub(crate) const SYNCED: usize = 8;
    /// Unix milliseconds since when changes are undelivered; 0: none are.
    pub(crate) const UNDELIVERED: usize = 16;
    /// Head records.
    pub(crate) const RECORDS: usize = 17;
    /// Head and chain records.
    pub(crate) const SLOTS_USED: usize = 18;
    /// 0: no redo image. Else bit 63, words of the image (bits 32..48), slot it is for (bits 0..32).
    pub(crate) const REDO: usize = 64;
    /// The redo image.
    pub(crate) const REDO_IMAGE: usize = 72;
}

const _: () = assert!(RECORD_WORDS == 64 && INLINE_BYTES == 384 && CHAIN_BYTES == 480);
const _: () = assert!(EXTENT_BYTES == 256 * 1024 && DATA_START == 2 * EXTENT_BYTES);
const _: () = assert!(header::REDO_IMAGE + RECORD_WORDS <= HEADER_WORDS);
const _: () = assert!(superblock::CRC < superblock::CLEAN && superblock::EXTENTS_MAX < superblock::WORDS);
const _: () = assert!(CHAIN_MAX <= u16::MAX as usize);
#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("fdb files are mapped as little-endian 64-bit words");

/// Offset of a partition's header.
pub(crate) const fn header_offset(partition: u8) -> u64 {
    HEADERS_START + partition as u64 * HEADER_BYTES
}

/// Offset of an extent: the extents of all partitions take turns, so that growth appends to the file.
pub(crate) const fn extent_offset(partition: u8, extent: u32) -> u64 {
    DATA_START + (extent as u64 * PARTITIONS as u64 + partition as u64) * EXTENT_BYTES
}

/// Offset of a record.
pub(crate) const fn record_offset(partition: u8, slot: u32) -> u64 {
    extent_offset(partition, slot / EXTENT_RECORDS) + (slot % EXTENT_RECORDS) as u64 * RECORD_BYTES as u64
}

/// Length a file needs for `extents` extents of `partition`.
pub(crate) const fn length_needed(partition: u8, extents: u32) -> u64 {
    match extents.checked_sub(1) {
        Some(last) => extent_offset(partition, last) + EXTENT_BYTES,
        None => DATA_START,
    }
}

/// Length of the mapping for `extents_max` extents of each partition.
pub(crate) const fn map_length(extents_max: u32) -> u64 {
    extent_offset(0, extents_max)
}

/// Chain records that a payload of `len` bytes needs.
pub(crate) const fn chain_records(len: usize) -> usize {
    len.saturating_sub(INLINE_BYTES).div_ceil(CHAIN_BYTES)
}

/// A count with its own check: the count in the low half, its CRC-32C (with `salt`) in the high half, so that one
/// store replaces both.
pub(crate) fn checked_count(count: u32, salt: u32) -> u64 {
    u64::from(count) | u64::from(count_crc(count, salt)) << 32
}

/// The count in a word of [`checked_count`], or `None` where the check fails.
pub(crate) fn count_of(word: u64, salt: u32) -> Option<u32> {
    let count = word as u32;
    ((word >> 32) as u32 == count_crc(count, salt)).then_some(count)
}

/// Salt of the marks in the superblock: no partition's number.
pub(crate) const SUPERBLOCK_SALT: u32 = u32::MAX;

/// A mark (a time, or a number that only grows) of up to 48 bits with its own check in the upper 16 bits, so that one store
/// replaces both. 0 is 0.
pub(crate) fn checked_mark(mark: u64, salt: u32) -> u64 {
    let mark = mark & MARK_MAX;
    if mark == 0 { 0 } else { mark | u64::from(mark_check(mark, salt)) << 48 }
}

/// The mark in a word of [`checked_mark`], or `None` where the check fails. A program that did not check yet left the upper
/// bits zero.
pub(crate) fn mark_of(word: u64, salt: u32) -> Option<u64> {
    let (mark, check) = (unchecked_mark(word), (word >> 48) as u16);
    (check == 0 || check == mark_check(mark, salt)).then_some(mark)
}

/// Never zero, nor one flipped bit away from it.
fn mark_check(mark: u64, salt: u32) -> u16 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&mark.to_le_bytes()), &salt.to_le_bytes());
    crc as u16 | 0x8001
}

/// The mark in a word of [`checked_mark`], whatever its check says.
pub(crate) const fn unchecked_mark(word: u64) -> u64 {
    word & MARK_MAX
}

/// The greatest mark.
const MARK_MAX: u64 = (1 << 48) - 1;

fn count_crc(count: u32, salt: u32) -> u32 {
    crc32c::crc32c(&(u64::from(count) | u64::from(salt) << 32).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_of_all_partitions_tile_the_file() {
        assert_eq!(extent_offset(0, 0), DATA_START);
        for extent in 0..3 {
            for partition in 0..PARTITIONS as u8 {
                let next = match partition {
                    63 => extent_offset(0, extent + 1),
                    _ => extent_offset(partition + 1, extent),
                };
                assert_eq!(extent_offset(partition, extent) + EXTENT_BYTES, next);
            }
        }
        assert_eq!(record_offset(5, 513), extent_offset(5, 1) + 512);
        assert_eq!(length_needed(63, 2), map_length(2));
        assert_eq!(length_needed(9, 0), DATA_START);
    }

    #[test]
    fn a_flipped_bit_in_a_checked_count_is_seen() {
        let word = checked_count(17, 3);
        assert_eq!(count_of(word, 3), Some(17));
        assert_eq!(count_of(word, 4), None);
        for bit in 0..64 {
            assert_eq!(count_of(word ^ 1 << bit, 3), None);
        }
        assert_eq!(count_of(0, 0), None, "a page of zeros is no count");
    }

    #[test]
    fn a_flipped_bit_in_a_mark_is_seen() {
        for mark in [1, 1_800_000_000_000, MARK_MAX] {
            let word = checked_mark(mark, 3);
            assert_eq!(mark_of(word, 3), Some(mark));
            assert_eq!(mark_of(word, 4), None);
            assert!((0..64).all(|bit| mark_of(word ^ 1 << bit, 3).is_none()), "{mark}");
        }
        assert_eq!((checked_mark(0, 3), mark_of(0, 3)), (0, Some(0)));
        assert_eq!(mark_of(1_800_000_000_000, 3), Some(1_800_000_000_000), "stored without a check");
    }

    #[test]
    fn a_payload_takes_the_chain_records_it_needs() {
        assert_eq!(chain_records(0), 0);
        assert_eq!(chain_records(INLINE_BYTES), 0);
        assert_eq!(chain_records(INLINE_BYTES + 1), 1);
        assert_eq!(chain_records(INLINE_BYTES + CHAIN_BYTES), 1);
        assert_eq!(chain_records(PAYLOAD_MAX), CHAIN_MAX);
    }
}

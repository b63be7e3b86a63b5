//! The superblock: what the file is, and how it was left.

use crate::error::OpenFault;
use crate::kind::FileKind;
use crate::layout::{
    DATA_START, EXTENT_BYTES, EXTENTS_LIMIT, HEADER_BYTES, MAGIC, PARTITIONS, RECORD_BYTES, SUPERBLOCK_SALT,
    VERSION, WORD_BYTES, checked_count, checked_mark, count_of, mark_of, superblock as word,
};
use crate::record::{pair, unpair};

/// Bytes of the superblock proper.
pub(crate) const BYTES: usize = word::WORDS * WORD_BYTES;

/// The words of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) kind: FileKind,
    pub(crate) hash_key: [u64; 2],
    pub(crate) extents_max: u32,
    pub(crate) clean: bool,
    pub(crate) boots: u64,
    /// `None`: the disk damaged it.
    pub(crate) heartbeat_ms: Option<u64>,
    /// 0: not known.
    pub(crate) machine_boot: u64,
}

impl Superblock {
    /// The bytes of it.
    pub(crate) fn encode(&self) -> [u8; BYTES] {
        let mut words = [0; word::WORDS];
        words[word::MAGIC] = MAGIC;
        words[word::VERSION_KIND] = pair(VERSION, self.kind.code());
        words[word::RECORD_EXTENT] = pair(RECORD_BYTES as u32, EXTENT_BYTES as u32);
        words[word::PARTITIONS_HEADER] = pair(PARTITIONS as u32, HEADER_BYTES as u32);
        words[word::DATA_START] = DATA_START;
        words[word::HASH_KEY..word::HASH_KEY + 2].copy_from_slice(&self.hash_key);
        words[word::CRC] = u64::from(crc(&words));
        words[word::CLEAN] = u64::from(self.clean);
        words[word::BOOTS] = self.boots;
        words[word::HEARTBEAT] = checked_mark(self.heartbeat_ms.unwrap_or(0), SUPERBLOCK_SALT);
        words[word::MACHINE_BOOT] = self.machine_boot;
        words[word::EXTENTS_MAX] = checked_count(self.extents_max, SUPERBLOCK_SALT);
        let mut bytes = [0; BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(WORD_BYTES).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads and checks `bytes`; every number is held against this version's before anything is computed from it.
    pub(crate) fn decode(bytes: &[u8; BYTES], expected: Option<FileKind>) -> Result<Self, OpenFault> {
        let words: [u64; word::WORDS] = std::array::from_fn(|i| {
            let mut chunk = [0; WORD_BYTES];
            chunk.copy_from_slice(&bytes[i * WORD_BYTES..(i + 1) * WORD_BYTES]);
            u64::from_le_bytes(chunk)
        });
        if words[word::MAGIC] != MAGIC {
            return Err(OpenFault::NotFdb { found: words[word::MAGIC].to_le_bytes() });
        }
        let (version, kind) = unpair(words[word::VERSION_KIND]);
        if version != VERSION {
            return Err(OpenFault::Version { found: version, expected: VERSION });
        }
        if words[word::CRC] != u64::from(crc(&words)) {
            return Err(OpenFault::SuperblockChecksum);
        }
        let kind = match (FileKind::of(kind), expected) {
            (Some(found), Some(expected)) if found != expected => {
                return Err(OpenFault::Kind { found: Some(found), expected });
            }
            (Some(found), _) => found,
            (None, expected) => {
                return Err(OpenFault::Kind {
                    found: None,
                    expected: expected.unwrap_or(FileKind::Presence),
                });
            }
        };
        let (record, extent) = unpair(words[word::RECORD_EXTENT]);
        let (partitions, header) = unpair(words[word::PARTITIONS_HEADER]);
        for (what, found, expected) in [
            ("record size", u64::from(record), RECORD_BYTES as u64),
            ("extent size", u64::from(extent), EXTENT_BYTES),
            ("partitions", u64::from(partitions), PARTITIONS as u64),
            ("partition header size", u64::from(header), HEADER_BYTES),
            ("start of the records", words[word::DATA_START], DATA_START),
        ] {
            if found != expected {
                return Err(OpenFault::Geometry { what, found, expected });
            }
        }
        let extents_max =
            count_of(words[word::EXTENTS_MAX], SUPERBLOCK_SALT).ok_or(OpenFault::SuperblockChecksum)?;
        if extents_max > EXTENTS_LIMIT {
            return Err(OpenFault::Geometry {
                what: "most extents of a partition",
                found: extents_max.into(),
                expected: EXTENTS_LIMIT.into(),
            });
        }
        Ok(Self {
            kind,
            hash_key: [words[word::HASH_KEY], words[word::HASH_KEY + 1]],
            extents_max,
            clean: words[word::CLEAN] == 1,
            boots: words[word::BOOTS],
            heartbeat_ms: mark_of(words[word::HEARTBEAT], SUPERBLOCK_SALT),
            machine_boot: words[word::MACHINE_BOOT],
        })
    }
}

fn crc(words: &[u64; word::WORDS]) -> u32 {
    words[..word::CRC].iter().fold(0, |crc, word| crc32c::crc32c_append(crc, &word.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            kind: FileKind::Presence,
            hash_key: [1, 2],
            extents_max: 8,
            clean: true,
            boots: 3,
            heartbeat_ms: Some(4),
            machine_boot: 5,
        }
    }

    #[test]
    fn it_is_decoded_as_encoded() {
        let decoded = Superblock::decode(&superblock().encode(), Some(FileKind::Presence)).expect("whole");
        assert_eq!(decoded, superblock());
    }

    #[test]
    fn every_flipped_bit_of_what_matters_is_refused() {
        let bytes = superblock().encode();
        for byte in (0..(word::CRC + 1) * 8).chain(word::EXTENTS_MAX * 8..(word::EXTENTS_MAX + 1) * 8) {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[byte] ^= 1 << bit;
                assert!(Superblock::decode(&flipped, None).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn a_damaged_heartbeat_is_none() {
        let mut bytes = superblock().encode();
        bytes[word::HEARTBEAT * 8] ^= 1;
        let decoded = Superblock::decode(&bytes, None).expect("the rest is whole");
        assert_eq!(decoded, Superblock { heartbeat_ms: None, ..superblock() });
    }

    #[test]
    fn other_geometry_is_named_even_when_its_checksum_is_right() {
        let mut bytes = superblock().encode();
        bytes[word::RECORD_EXTENT * 8..][..4].copy_from_slice(&1024u32.to_le_bytes());
        let mut words = [0; word::WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        }
        bytes[word::CRC * 8..][..8].copy_from_slice(&u64::from(crc(&words)).to_le_bytes());
        assert!(matches!(
            Superblock::decode(&bytes, None),
            Err(OpenFault::Geometry { what: "record size", found: 1024, expected: 512 })
        ));
    }
}

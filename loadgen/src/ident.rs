//! Names that carry their owner: Call-IDs, tags and branches that look random, as a phone's do, yet need no table.
//!
//! A Call-ID is the agent's kind, number and generation together with the salt of the run, shuffled by a reversible
//! mix and written in ten characters. Whatever comes back from the server leads to its agent by decoding alone.

/// What kind of simulated phone an [`Ident`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Sends SUBSCRIBE.
    Watcher,
    /// Sends PUBLISH.
    Presentity,
    /// Sends REGISTER.
    Registrant,
}

/// One agent of a run, and which of its successive Call-IDs is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ident {
    /// What it does.
    pub kind: Kind,
    /// Its number in the whole run, over all threads.
    pub index: u32,
    /// How often it began anew with another Call-ID, modulo 256.
    pub generation: u8,
}

/// Length of a Call-ID.
pub const CALL_ID_LEN: usize = 10;
/// Length of a tag.
pub const TAG_LEN: usize = 9;
/// Length of a branch with its magic cookie and the dot that belle-sip puts behind it.
pub const BRANCH_LEN: usize = 18;

/// Tells the runs apart: what was named by another run does not decode.
#[derive(Clone, Copy, Debug)]
pub struct Salt(pub u64);

impl Salt {
    /// The Call-ID of `ident`.
    pub fn call_id(self, ident: Ident) -> [u8; CALL_ID_LEN] {
        write_base64(shuffle(self.pack(ident)))
    }

    /// Whose Call-ID this is; none if it is not of this run.
    pub fn decode(self, call_id: &[u8]) -> Option<Ident> {
        let packed = unshuffle(read_base64(call_id)?);
        let ident = Ident {
            kind: match packed >> 56 {
                0 => Kind::Watcher,
                1 => Kind::Presentity,
                2 => Kind::Registrant,
                _ => return None,
            },
            index: packed as u32,
            generation: (packed >> 32) as u8,
        };
        (self.pack(ident) == packed).then_some(ident)
    }

    /// The tag of `ident`'s side of its dialog.
    pub fn tag(self, ident: Ident) -> [u8; TAG_LEN] {
        write_base64(mix(self.pack(ident) ^ self.0.rotate_left(17)))
    }

    /// The branch of the request `cseq` of `ident`: "z9hG4bK" (RFC 3261 §8.1.1.7), a dot and ten characters.
    pub fn branch(self, ident: Ident, cseq: u32) -> [u8; BRANCH_LEN] {
        let mut branch = *b"z9hG4bK.----------";
        let unique: [u8; 10] = write_base64(mix(mix(self.pack(ident) ^ self.0) ^ u64::from(cseq)));
        branch[8..].copy_from_slice(&unique);
        branch
    }

    /// `ident` and 16 bits of the salt in 58 bits.
    fn pack(self, ident: Ident) -> u64 {
        let kind = match ident.kind {
            Kind::Watcher => 0u64,
            Kind::Presentity => 1,
            Kind::Registrant => 2,
        };
        kind << 56 | (self.0 & 0xffff) << 40 | u64::from(ident.generation) << 32 | u64::from(ident.index)
    }
}

/// 32 bits of a hash of some bytes, to remember a branch by.
pub fn fingerprint(bytes: &[u8]) -> u32 {
    let mut hash = 0x9e37_79b9_7f4a_7c15u64 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash ^ u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes")));
    }
    for &byte in chunks.remainder() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (mix(hash) >> 32) as u32
}

/// The finalizer of SplitMix64: every input bit reaches every output bit.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

const MASK: u64 = (1 << 60) - 1;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
/// The inverse of [`ODD`] modulo 2^64, hence also modulo 2^60.
const ODD_INVERSE: u64 = inverse(ODD);
const _: () = assert!(ODD.wrapping_mul(ODD_INVERSE) == 1);

/// A permutation of the numbers below 2^60.
fn shuffle(mut x: u64) -> u64 {
    for _ in 0..2 {
        x = x.wrapping_mul(ODD) & MASK;
        x ^= x >> 30;
    }
    x
}

/// The inverse of [`shuffle`].
fn unshuffle(mut x: u64) -> u64 {
    for _ in 0..2 {
        x ^= x >> 30;
        x = x.wrapping_mul(ODD_INVERSE) & MASK;
    }
    x
}

/// The inverse of an odd number modulo 2^64 by Newton's iteration.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut i = 0;
    while i < 5 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        i += 1;
    }
    x
}

/// All legal in a token (RFC 3261 §25.1).
const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-~";
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut i = 0;
    while i < 64 {
        values[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// The low `6 * N` bits of `x`.
fn write_base64<const N: usize>(mut x: u64) -> [u8; N] {
    std::array::from_fn(|_| {
        let character = ALPHABET[(x & 63) as usize];
        x >>= 6;
        character
    })
}

/// The number that [`write_base64`] wrote; none if this is no such text.
fn read_base64(text: &[u8]) -> Option<u64> {
    if text.len() != CALL_ID_LEN {
        return None;
    }
    text.iter().rev().try_fold(0, |x, &character| match VALUES[usize::from(character)] {
        255 => None,
        value => Some(x << 6 | u64::from(value)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> impl Iterator<Item = Ident> {
        [Kind::Watcher, Kind::Presentity, Kind::Registrant].into_iter().flat_map(|kind| {
            [0, 1, 77, 999_999, u32::MAX]
                .into_iter()
                .flat_map(move |index| [0, 1, 255].map(|generation| Ident { kind, index, generation }))
        })
    }

    #[test]
    fn a_call_id_leads_back_to_its_agent() {
        let salt = Salt(0x1234_5678_9abc_def0);
        for ident in some() {
            assert_eq!(salt.decode(&salt.call_id(ident)), Some(ident));
        }
    }

    #[test]
    fn a_call_id_of_another_run_is_nobodys() {
        for ident in some() {
            assert_eq!(Salt(2).decode(&Salt(1).call_id(ident)), None);
        }
        assert_eq!(Salt(2).decode(b"short"), None);
        assert_eq!(Salt(2).decode(b"ab@cdefghi"), None);
    }

    #[test]
    fn branches_differ_by_request_and_by_agent() {
        let salt = Salt(9);
        let mut branches = std::collections::BTreeSet::new();
        for ident in some() {
            for cseq in 1..50 {
                assert!(branches.insert(salt.branch(ident, cseq)));
            }
        }
    }
}

//! Keyed hashes: who owns a message, and under what number an AoR is known.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13x128};

use crate::transaction::TransactionKey;

/// How many partitions each file has. Partitions are dealt out to shards, so this bounds the number of shards.
pub const PARTITIONS: usize = 64;

/// The secret key of the node's hashes. It is made with the files and kept in them, because it decides which partition
/// a record lies in; being secret, it keeps senders from aiming at one partition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

impl HashKey {
    /// The identity of an address-of-record, given in canonical form.
    #[must_use]
    pub fn aor(&self, canonical: &[u8]) -> AorKey {
        AorKey(self.wide(&[canonical]))
    }

    /// The identity of a server transaction, given the fields that make it one (RFC 3261 §17.2.3).
    #[must_use]
    pub fn transaction(&self, fields: &[&[u8]]) -> TransactionKey {
        TransactionKey(self.wide(fields))
    }

    /// A 128-bit hash of `parts`, each told apart from the next.
    fn wide(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher13x128::new_with_keys(self.0[0], self.0[1]);
        for part in parts {
            hasher.write(part);
            hasher.write_u8(0xff);
        }
        let hash = hasher.finish128();
        (u128::from(hash.h1) << 64) | u128::from(hash.h2)
    }

    /// A 64-bit hash of `parts`, each told apart from the next.
    #[must_use]
    pub fn of(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        for part in parts {
            hasher.write(part);
            hasher.write_u8(0xff);
        }
        hasher.finish()
    }

    /// The partition that owns the dialogs of a Call-ID.
    #[must_use]
    pub fn call_id_partition(&self, call_id: &[u8]) -> u8 {
        (self.of(&[call_id]) % PARTITIONS as u64) as u8
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

/// Identity of an address-of-record: the keyed 128-bit hash of its canonical form.
///
/// Two AoRs with one key would need 2^64 users, or the secret key; the text is not compared again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AorKey(pub u128);

impl AorKey {
    /// The partition that owns the AoR's registrations, publications and presence document.
    #[must_use]
    pub const fn partition(self) -> u8 {
        (self.0 % PARTITIONS as u128) as u8
    }
}

//! Keyed hashes: who owns a message, and under what number an AoR is known.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13x128};

use crate::aor::{canonical_into, plain};
use crate::event::EventPackage;
use crate::transaction::TransactionKey;
use crate::uri::Uri;

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

    /// The identity of the address-of-record that a URI names, whose canonical form is put into `room`; `None`: it names none.
    #[must_use]
    pub fn aor_of_uri(&self, uri: &[u8], room: &mut Vec<u8>) -> Option<AorKey> {
        room.clear();
        match plain(uri) {
            Some(aor) => room.extend_from_slice(aor),
            None => canonical_into(&Uri::parse(uri).ok()?, room).ok()?,
        }
        Some(self.aor(room))
    }

    /// The key of a user's state in a package: for `presence` the user's own. Otherwise all bits but the lowest six, which
    /// name the partition, are changed by a secret mask of the package, so that everything of one user has one owner, and
    /// the key leads back to the user ([`Self::user_of`]).
    ///
    /// Two resources share a key only where the keys of two users differ by just the masks of two packages, which is as
    /// unlikely as one key for two users.
    #[must_use]
    pub fn resource(&self, user: AorKey, package: &EventPackage) -> AorKey {
        AorKey(user.0 ^ self.package_mask(package))
    }

    /// The user whose [`resource`](Self::resource) in `package` has the key `resource`.
    #[must_use]
    pub fn user_of(&self, resource: AorKey, package: &EventPackage) -> AorKey {
        AorKey(resource.0 ^ self.package_mask(package))
    }

    #[inline]
    fn package_mask(&self, package: &EventPackage) -> u128 {
        if package.number == EventPackage::PRESENCE {
            return 0;
        }
        // No canonical address-of-record begins with a colon.
        self.wide(&[b":", package.name.as_bytes()]) & !(PARTITIONS as u128 - 1)
    }

    /// The identity of a server transaction, given the fields that make it one (RFC 3261 §17.2.3).
    #[must_use]
    pub fn transaction(&self, fields: &[&[u8]]) -> TransactionKey {
        TransactionKey(self.wide(fields))
    }

    /// A 128-bit hash of `parts`, each told apart from the next.
    fn wide(&self, parts: &[&[u8]]) -> u128 {
        let hasher = SipHasher13x128::new_with_keys(self.0[0], self.0[1]);
        let mut room = [0; JOINED_MAX];
        let hash = match joined(parts, &mut room) {
            Some(text) => hasher.hash(text),
            None => {
                let mut hasher = hasher;
                write_parts(&mut hasher, parts);
                hasher.finish128()
            }
        };
        (u128::from(hash.h1) << 64) | u128::from(hash.h2)
    }

    /// A 64-bit hash of `parts`, each told apart from the next.
    #[must_use]
    pub fn of(&self, parts: &[&[u8]]) -> u64 {
        let hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        let mut room = [0; JOINED_MAX];
        match joined(parts, &mut room) {
            Some(text) => hasher.hash(text),
            None => {
                let mut hasher = hasher;
                write_parts(&mut hasher, parts);
                hasher.finish()
            }
        }
    }

    /// The partition that owns the dialogs of a Call-ID.
    #[must_use]
    pub fn call_id_partition(&self, call_id: &[u8]) -> u8 {
        (self.of(&[call_id]) % PARTITIONS as u64) as u8
    }
}

/// Longest text that is put together before it is hashed: usual parts in one piece take half as long as one by one.
const JOINED_MAX: usize = 128;

/// The parts with their separators in one piece, if they are short.
#[inline]
fn joined<'t>(parts: &[&[u8]], room: &'t mut [u8; JOINED_MAX]) -> Option<&'t [u8]> {
    let mut at = 0;
    for part in parts {
        let end = at + part.len();
        room.get_mut(at..end)?.copy_from_slice(part);
        *room.get_mut(end)? = SEPARATOR;
        at = end + 1;
    }
    Some(&room[..at])
}

/// Hashes the parts with their separators one by one.
fn write_parts(hasher: &mut impl Hasher, parts: &[&[u8]]) {
    for part in parts {
        hasher.write(part);
        hasher.write_u8(SEPARATOR);
    }
}

/// Stands behind each part: it is in no UTF-8 text.
const SEPARATOR: u8 = 0xff;

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

const _: () = assert!(PARTITIONS.is_power_of_two(), "low bits of a key name its partition");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resources_of_a_user_have_keys_of_their_own_and_one_owner() {
        let key = HashKey([3, 5]);
        let user = key.aor(b"alice@example.com");
        let resources: Vec<AorKey> =
            crate::event::PACKAGES.iter().map(|package| key.resource(user, package)).collect();
        assert_eq!(resources[0], user);
        for (n, (resource, package)) in resources.iter().zip(crate::event::PACKAGES).enumerate() {
            assert_eq!(resource.partition(), user.partition());
            assert!(!resources[..n].contains(resource));
            assert_eq!(key.user_of(*resource, package), user);
        }
    }

    #[test]
    fn parts_in_one_piece_have_the_hash_of_parts_one_by_one() {
        let key = HashKey([3, 5]);
        let long = [b'x'; 2 * JOINED_MAX];
        for len in 0..long.len() {
            let parts = [&long[..len], b"", &long[..len / 3], b"\xff"];
            let mut narrow = SipHasher13::new_with_keys(3, 5);
            write_parts(&mut narrow, &parts);
            assert_eq!(key.of(&parts), narrow.finish(), "{len}");
            let mut wide = SipHasher13x128::new_with_keys(3, 5);
            write_parts(&mut wide, &parts);
            let hash = wide.finish128();
            assert_eq!(key.wide(&parts), (u128::from(hash.h1) << 64) | u128::from(hash.h2), "{len}");
        }
    }
}

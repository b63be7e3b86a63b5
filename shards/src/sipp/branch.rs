//! The branch of a NOTIFY (RFC 3261 §8.1.1.7). It names the owner, so that the answer finds its shard and subscription without
//! a search, and carries a check that only we can make.

use comsipl_core::Profile;
use comsipl_core::token::{hex2, hex8, parse_hex2, parse_hex8};

/// Length of our longest branch: cookie, mark, partition, subscription, check.
pub(crate) const BRANCH_LEN: usize = COOKIE.len() + 1 + 2 + 8 + 8;
/// RFC 3261 §8.1.1.7: every branch begins with the magic cookie.
const COOKIE: &[u8] = b"z9hG4bK";
/// Tells our branches from others that begin with the cookie.
const MARK: u8 = b'~';

/// The branch of a NOTIFY; the `comsipl` profile has the shape of the customer's document, which names nobody.
pub(crate) fn branch_of(
    profile: Profile,
    partition: u8,
    id: u32,
    secret: u32,
    cseq: u32,
    out: &mut [u8; BRANCH_LEN],
) -> &[u8] {
    let check = hex8(check_of(secret, cseq));
    let (cookie, rest) = out.split_at_mut(COOKIE.len());
    cookie.copy_from_slice(COOKIE);
    match profile {
        Profile::Rfc => {
            rest[0] = MARK;
            rest[1..3].copy_from_slice(&hex2(partition));
            rest[3..11].copy_from_slice(&hex8(id));
            rest[11..19].copy_from_slice(&check);
            &out[..]
        }
        Profile::Comsipl => {
            rest[0] = b'-';
            rest[1..9].copy_from_slice(&check);
            &out[..COOKIE.len() + 9]
        }
    }
}

/// What a branch of ours names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Partition of the subscription.
    pub(crate) partition: u8,
    /// Its number.
    pub(crate) id: u32,
    /// See [`check_of`].
    pub(crate) check: u32,
}

/// What a branch of the `rfc` profile names.
pub(crate) fn marked(branch: &[u8]) -> Option<Mark> {
    let branch: &[u8; BRANCH_LEN] = branch.try_into().ok()?;
    let digits = branch.strip_prefix(COOKIE)?.strip_prefix(&[MARK])?;
    let (partition, digits) = digits.split_first_chunk()?;
    let (id, check) = digits.split_first_chunk()?;
    let partition = parse_hex2(*partition)?;
    let mark = Mark { partition, id: parse_hex8(*id)?, check: parse_hex8(*check.first_chunk()?)? };
    (usize::from(partition) < comsipl_core::PARTITIONS).then_some(mark)
}

/// Mixes a subscription's secret with a sequence number (the finalizer of a 32-bit multiplicative hash).
pub(crate) fn check_of(secret: u32, cseq: u32) -> u32 {
    let mut x = secret ^ cseq.wrapping_mul(0x9e37_79b9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_names_what_it_was_made_of() {
        let mut out = [0; BRANCH_LEN];
        let branch = branch_of(Profile::Rfc, 0x3f, 0xdead_beef, 7, 42, &mut out);
        let mark = Mark { partition: 0x3f, id: 0xdead_beef, check: check_of(7, 42) };
        assert_eq!(marked(branch), Some(mark));
    }

    #[test]
    fn other_branches_name_nothing() {
        let mut out = [0; BRANCH_LEN];
        let branch = branch_of(Profile::Rfc, 0x3f, 0xdead_beef, 7, 42, &mut out).to_vec();
        for at in 0..branch.len() {
            let mut other = branch.clone();
            other[at] = if at == 3 { b'H' } else { b'G' }; // the cookie has a `G`
            assert_eq!(marked(&other), None, "{at}");
        }
        assert_eq!(marked(&branch[..branch.len() - 1]), None);
        assert_eq!(marked(b"z9hG4bK~40000000000000000a"), None, "there are 64 partitions");
        let mut out = [0; BRANCH_LEN];
        assert_eq!(marked(branch_of(Profile::Comsipl, 1, 2, 3, 4, &mut out)), None);
    }
}

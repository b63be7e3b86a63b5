//! Nonces that carry their own proof (RFC 7616 §3.3, §5.4): made without keeping anything.
//!
//! ```text
//! 12 hexadecimal digits   milliseconds from the start of the server to the making
//!  8                      a random number
//! 32                      HMAC-SHA-256 over these, the realm and the source, cut to 128 bits
//! ```
//!
//! The key is drawn anew at each start, so a nonce of an earlier process is none of ours: the table of counts is lost with the
//! process. Where one process takes over from another it gets all three from it, the key, the time and the table
//! ([`NonceEstate`]). Time is monotonic: a clock that is set does not make nonces young again.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::replay::SpentCounts;
use crate::token::{hex2, hex8, parse_hex, parse_hex2};
use crate::{HashKey, Mono};

/// Length of a nonce.
pub const NONCE_LEN: usize = 12 + 8 + 2 * MAC_LEN;

/// Who a request comes from, as far as budgets and nonces tell senders apart: an IPv4 address, or the /64 of an IPv6
/// address, of which one subscriber has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u64);

impl Source {
    /// The source with that address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No IPv6 address that is in use begins with 32 zero bits (RFC 4291 §2.4).
            IpAddr::V4(address) => Self(u64::from(u32::from(address))),
            IpAddr::V6(address) => Self((u128::from(address) >> 64) as u64),
        }
    }

    /// It as a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What makes nonces and knows them again; one for all shards.
#[derive(Debug)]
pub struct Nonces {
    /// What `key` is made of.
    secret: Secret,
    key: Hmac<Sha256>,
    /// How long the server ran in earlier processes, in milliseconds.
    earlier_ms: u64,
    lifetime: Duration,
    spent: SpentCounts,
}

/// What a nonce turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// Ours, for this realm and source, and not too old.
    Fresh(NonceId),
    /// Ours, and too old.
    Expired,
    /// Not made by this process for this realm and source.
    Foreign,
}

/// A nonce of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceId {
    made_ms: u64,
    random: u32,
}

impl Nonces {
    /// Nonces that last for `lifetime`. The key is made of the secret key of the files and of `salt`, which differs from process
    /// to process. Counts of `slots` nonces are remembered.
    #[must_use]
    pub fn new(key: HashKey, salt: [u8; 32], lifetime: Duration, slots: usize) -> Self {
        let secret: [[u8; 8]; 2] = key.0.map(u64::to_le_bytes);
        let mut mac = keyed(secret.as_flattened());
        mac.update(b"nonces of digest authentication");
        mac.update(&salt);
        Self::with(Secret(mac.finalize().into_bytes().into()), lifetime, slots)
    }

    fn with(secret: Secret, lifetime: Duration, slots: usize) -> Self {
        let key = keyed(&secret.0);
        Self { secret, key, earlier_ms: 0, lifetime, spent: SpentCounts::new(slots) }
    }

    /// All that another process needs to know our nonces again and to take no count twice. Nothing may be issued or spent any
    /// more.
    #[must_use]
    pub fn bequeath(&self, now: Mono) -> NonceEstate {
        let mut bytes = self.secret.0.to_vec();
        bytes.extend_from_slice(&self.time_ms(now).to_le_bytes());
        bytes.extend_from_slice(&(self.spent.slots() as u64).to_le_bytes());
        for (slot, word) in self.spent.used() {
            bytes.extend_from_slice(&slot.to_le_bytes());
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        NonceEstate(bytes)
    }

    /// Goes on with what another process left. `None`: it cannot be read, or is of a table of another size, in which counts have
    /// other places; then nobody can tell what was used, so its nonces must not be known again.
    #[must_use]
    pub fn go_on(estate: &NonceEstate, now: Mono, lifetime: Duration, slots: usize) -> Option<Self> {
        let (secret, rest) = estate.0.split_first_chunk()?;
        let (time_ms, rest) = rest.split_first_chunk()?;
        let (of_slots, used) = rest.split_first_chunk()?;
        let (used, []) = used.as_chunks::<{ 4 + 8 }>() else { return None };
        if u64::from_le_bytes(*of_slots) != slots as u64 {
            return None;
        }
        let mut nonces = Self::with(Secret(*secret), lifetime, slots);
        // A process that has run longer than the server before goes ahead, which makes nonces expire early.
        nonces.earlier_ms = u64::from_le_bytes(*time_ms).saturating_sub(now.0 / 1000);
        for used in used {
            let (slot, word) = used.split_first_chunk()?;
            nonces.spent.restore(u32::from_le_bytes(*slot), u64::from_le_bytes(word.try_into().ok()?))?;
        }
        Some(nonces)
    }

    /// Milliseconds since the start of the server.
    const fn time_ms(&self, now: Mono) -> u64 {
        (now.0 / 1000).saturating_add(self.earlier_ms)
    }

    /// Makes a nonce for `realm`; `source` is the one that alone may use it, if that matters.
    #[must_use]
    pub fn issue(&self, now: Mono, random: u32, realm: &[u8], source: Option<Source>) -> [u8; NONCE_LEN] {
        let made_ms = self.time_ms(now);
        let mut text = [0; NONCE_LEN];
        text[..4].copy_from_slice(&hex8((made_ms >> 32) as u32)[4..]);
        text[4..12].copy_from_slice(&hex8(made_ms as u32));
        text[12..20].copy_from_slice(&hex8(random));
        let mac = self.mac(&text[..20], realm, source);
        for (digits, byte) in text[20..].chunks_exact_mut(2).zip(mac) {
            digits.copy_from_slice(&hex2(byte));
        }
        text
    }

    /// Looks at a nonce that somebody sent.
    #[must_use]
    pub fn examine(&self, now: Mono, nonce: &[u8], realm: &[u8], source: Option<Source>) -> Nonce {
        self.read(nonce, realm, source).map_or(Nonce::Foreign, |id| {
            let age_ms = self.time_ms(now).saturating_sub(id.made_ms);
            if u128::from(age_ms) < self.lifetime.as_millis() { Nonce::Fresh(id) } else { Nonce::Expired }
        })
    }

    fn read(&self, nonce: &[u8], realm: &[u8], source: Option<Source>) -> Option<NonceId> {
        if nonce.len() != NONCE_LEN {
            return None;
        }
        let made_ms = parse_hex(&nonce[..12])?;
        let random = parse_hex(&nonce[12..20])? as u32;
        let mut mac = [0; MAC_LEN];
        for (byte, digits) in mac.iter_mut().zip(nonce[20..].chunks_exact(2)) {
            *byte = parse_hex2([digits[0], digits[1]])?;
        }
        let ours: bool = self.mac(&nonce[..20], realm, source).ct_eq(&mac).into();
        ours.then_some(NonceId { made_ms, random })
    }

    /// Uses a nonce count. `false`: it was used before, or the nonce has been displaced by a newer one; whoever is refused
    /// so gets a fresh nonce.
    #[must_use]
    pub fn spend(&self, nonce: NonceId, count: u32) -> bool {
        self.spent.spend(nonce.random, nonce.made_ms, count)
    }

    /// A secret that nobody has, to be compared with where there is no user.
    #[must_use]
    pub fn decoy(&self, algorithm: super::Algorithm, username: &[u8]) -> super::Hash {
        let mac = self.key.clone().chain_update(b"decoy").chain_update(username).finalize().into_bytes();
        algorithm.hash(&[&mac])
    }

    fn mac(&self, head: &[u8], realm: &[u8], source: Option<Source>) -> [u8; MAC_LEN] {
        let mut mac = self.key.clone();
        mac.update(head);
        mac.update(&source.map_or([0xff; 8], |source| source.0.to_le_bytes()));
        mac.update(realm);
        let mut cut = [0; MAC_LEN];
        cut.copy_from_slice(&mac.finalize().into_bytes()[..MAC_LEN]);
        cut
    }
}

/// Nonces on their way from one process to another. Who has it can make nonces that are taken for ours.
#[derive(Clone, PartialEq, Eq)]
pub struct NonceEstate(Vec<u8>);

impl NonceEstate {
    /// It from bytes that [`Self::as_bytes`] gave.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// It as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// For a log, which is no place for the secret in it.
impl fmt::Debug for NonceEstate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NonceEstate({} bytes)", self.0.len())
    }
}

/// What no log may show.
struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Bytes of the proof: 2^128 guesses.
const MAC_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<Source> = Some(Source(7));

    fn nonces(salt: u8) -> Nonces {
        Nonces::new(HashKey([1, 2]), [salt; 32], Duration::from_secs(300), 64)
    }

    #[test]
    fn a_nonce_is_known_again_until_its_time_is_over() {
        let nonces = nonces(0);
        let made = Mono(5_000_000);
        let nonce = nonces.issue(made, 9, b"example.com", HERE);
        assert_eq!(nonce.len(), NONCE_LEN);
        let after = |secs| made + Duration::from_secs(secs);
        let id = NonceId { made_ms: 5000, random: 9 };
        assert_eq!(nonces.examine(made, &nonce, b"example.com", HERE), Nonce::Fresh(id));
        assert_eq!(nonces.examine(after(299), &nonce, b"example.com", HERE), Nonce::Fresh(id));
        assert_eq!(nonces.examine(after(300), &nonce, b"example.com", HERE), Nonce::Expired);
        assert!(nonces.spend(id, 1) && !nonces.spend(id, 1));
    }

    #[test]
    fn whatever_else_it_is_it_is_not_ours() {
        let ours = nonces(0);
        let now = Mono(5_000_000);
        let nonce = ours.issue(now, 9, b"example.com", HERE);
        let foreign = |nonces: &Nonces, nonce: &[u8], realm: &[u8], source| {
            assert_eq!(nonces.examine(now, nonce, realm, source), Nonce::Foreign);
        };
        foreign(&nonces(1), &nonce, b"example.com", HERE);
        foreign(&ours, &nonce, b"example.net", HERE);
        foreign(&ours, &nonce, b"example.com", Some(Source(8)));
        foreign(&ours, &nonce, b"example.com", None);
        foreign(&ours, b"", b"example.com", HERE);
        foreign(&ours, &nonce[..NONCE_LEN - 2], b"example.com", HERE);
        foreign(&ours, &nonce.to_ascii_uppercase(), b"example.com", HERE);
        for at in 0..NONCE_LEN {
            let mut other = nonce;
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            foreign(&ours, &other, b"example.com", HERE);
        }
    }

    #[test]
    fn another_process_knows_the_nonces_and_the_counts_that_were_used() {
        let before = nonces(0);
        let nonce = before.issue(Mono(5_000_000), 9, b"example.com", HERE);
        let id = NonceId { made_ms: 5000, random: 9 };
        assert!(before.spend(id, 1) && before.spend(id, 3));
        let estate = before.bequeath(Mono(105_000_000));
        assert_eq!(format!("{estate:?}"), format!("NonceEstate({} bytes)", 32 + 8 + 8 + 12));
        let lifetime = Duration::from_secs(300);
        // The process began two seconds before it got it.
        let now = Mono(2_000_000);
        let estate = NonceEstate::from_bytes(estate.as_bytes().to_vec());
        let after = Nonces::go_on(&estate, now, lifetime, 64).unwrap();
        assert_eq!(after.examine(now, &nonce, b"example.com", HERE), Nonce::Fresh(id));
        let later = |secs| now + Duration::from_secs(secs);
        assert_eq!(after.examine(later(199), &nonce, b"example.com", HERE), Nonce::Fresh(id));
        assert_eq!(after.examine(later(200), &nonce, b"example.com", HERE), Nonce::Expired);
        assert!(!after.spend(id, 1) && after.spend(id, 2) && !after.spend(id, 3) && after.spend(id, 4));
        let third = Nonces::go_on(&after.bequeath(later(10)), Mono(0), lifetime, 64).unwrap();
        assert_eq!(third.examine(Mono(0), &nonce, b"example.com", HERE), Nonce::Fresh(id));
        assert!(!third.spend(id, 2) && !third.spend(id, 4) && third.spend(id, 5));
        let young = Nonces::go_on(&estate, Mono(400_000_000), lifetime, 64).unwrap();
        assert_eq!(young.examine(Mono(400_000_000), &nonce, b"example.com", HERE), Nonce::Expired);
    }

    #[test]
    fn what_cannot_be_gone_on_with_is_refused() {
        let before = nonces(0);
        assert!(before.spend(NonceId { made_ms: 5000, random: 9 }, 1));
        let estate = before.bequeath(Mono(5_000_000));
        let go_on = |bytes: &[u8], slots| {
            let estate = NonceEstate::from_bytes(bytes.to_vec());
            Nonces::go_on(&estate, Mono(0), Duration::from_secs(300), slots)
        };
        assert!(go_on(estate.as_bytes(), 64).is_some());
        assert!(go_on(estate.as_bytes(), 128).is_none(), "counts would stand in other places");
        for len in 0..estate.as_bytes().len() {
            let whole = len == estate.as_bytes().len() - 12;
            assert_eq!(go_on(&estate.as_bytes()[..len], 64).is_some(), whole, "{len}");
        }
        let mut beyond = estate.as_bytes().to_vec();
        let slot = beyond.len() - 12;
        beyond[slot] = 64;
        assert!(go_on(&beyond, 64).is_none());
    }

    #[test]
    fn sources_are_addresses_and_prefixes() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
    }

    #[test]
    fn decoys_are_steady_and_differ_from_name_to_name() {
        let nonces = nonces(0);
        for algorithm in crate::auth::Algorithm::ALL {
            let bob = nonces.decoy(algorithm, b"bob");
            assert!(bob.matches(&nonces.decoy(algorithm, b"bob")));
            assert!(!bob.matches(&nonces.decoy(algorithm, b"eve")));
        }
    }
}

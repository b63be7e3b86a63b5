//! Who may do what: what the operator set under `[auth]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use comsipl_core::auth::{Algorithm, NonceEstate, Nonces};
use comsipl_core::{HashKey, Mono};

use crate::budget::{Allowance, Budgets};
use crate::reach::Reach;
use crate::settings::{Auth, Settings};

/// Who may do what. Ranges of addresses hold however requests are authenticated; the rest matters with [`Auth::Digest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The realm of all users (RFC 3261 §22.1); `None`: each user's own domain.
    pub realm: Option<String>,
    /// The algorithms offered, the strongest first (RFC 8760 §2.3).
    pub algorithms: Vec<Algorithm>,
    /// How long a nonce may be used.
    pub nonce_lifetime: Duration,
    /// Whether a nonce may be used only by the source that it was given to.
    pub nonce_bound: bool,
    /// Proxies that authenticate for us and are believed (RFC 3325 §3, "Spec(T)").
    pub trusted: Vec<IpRange>,
    /// If there are any, only these sources are heard.
    pub allow: Vec<IpRange>,
    /// Sources that are not heard, even if they are allowed.
    pub deny: Vec<IpRange>,
    /// Who may publish for others.
    pub grants: Vec<Grant>,
}

/// A user who may publish for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The canonical address-of-record of the user.
    pub user: String,
    /// For whom.
    pub publish_for: PublishFor,
}

/// For whom a user may publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishFor {
    /// For anyone.
    Anyone,
    /// For those with these canonical addresses-of-record.
    Users(Vec<String>),
}

impl Default for Access {
    fn default() -> Self {
        Self {
            realm: None,
            algorithms: Algorithm::ALL.to_vec(),
            nonce_lifetime: Duration::from_secs(300),
            nonce_bound: true,
            trusted: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            grants: Vec::new(),
        }
    }
}

impl Access {
    /// Whether there are sources that are not heard.
    #[must_use]
    pub const fn has_bounds(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    /// Whether a source is heard: what is denied is not, whatever else is said of it.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        !contains(&self.deny, source) && (self.allow.is_empty() || contains(&self.allow, source))
    }

    /// Whether a source is a proxy that is believed.
    #[must_use]
    pub fn trusts(&self, source: IpAddr) -> bool {
        self.trusted_range(source).is_some()
    }

    /// Which of the ranges of trusted proxies a source is in first.
    #[must_use]
    pub fn trusted_range(&self, source: IpAddr) -> Option<usize> {
        self.trusted.iter().position(|range| range.contains(source))
    }
}

fn contains(ranges: &[IpRange], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(address))
}

/// What all shards of a node share to know senders by.
#[derive(Debug)]
pub struct Gate {
    /// What challenges are made of; `None`: nothing is challenged.
    pub nonces: Option<Nonces>,
    /// What sources have done.
    pub budgets: Budgets,
    /// Which addresses have proved that they are there.
    pub reach: Reach,
}

impl Gate {
    /// A gate that nobody has come to yet. `salt` must differ from process to process.
    #[must_use]
    pub fn new(settings: &Settings, key: HashKey, salt: [u8; 32]) -> Self {
        Self::go_on(settings, key, salt, None, Mono(0))
    }

    /// The same, but it knows the nonces of another process again.
    #[must_use]
    pub fn go_on(
        settings: &Settings,
        key: HashKey,
        salt: [u8; 32],
        estate: Option<&NonceEstate>,
        now: Mono,
    ) -> Self {
        let challenges = settings.auth == Auth::Digest;
        let failures = |most| if challenges { most } else { 0 };
        let allowance = Allowance {
            requests_per_s: settings.requests_per_source,
            failures_per_min: failures(settings.auth_failures_per_minute),
            source_failures_per_min: failures(settings.auth_failures_per_source),
        };
        let lifetime = settings.access.nonce_lifetime;
        let nonces = challenges.then(|| {
            estate
                .and_then(|estate| Nonces::go_on(estate, now, lifetime, NONCES_REMEMBERED))
                .unwrap_or_else(|| Nonces::new(key, salt, lifetime, NONCES_REMEMBERED))
        });
        Self {
            nonces,
            budgets: Budgets::new(allowance, key),
            // With `unset` only this machine is listened to.
            reach: Reach::new(settings.auth != Auth::Unset, key),
        }
    }
}

/// Nonces whose counts are remembered, 8 bytes each. When more are in use at a time, some clients are asked once more.
const NONCES_REMEMBERED: usize = 1 << 20;

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRange {
    /// Its first address.
    address: IpAddr,
    /// How many leading bits count.
    bits: u8,
}

/// Why a text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRange {
    /// It is no address, or what follows `/` is no number of bits.
    NoRange,
    /// There are ones behind the bits that count: the nearest range is this one.
    LongAddress(IpRange),
}

impl IpRange {
    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits of it count.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether an address is in it. IPv4 addresses that are written as IPv6 ones are IPv4 addresses.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u32::from(own) ^ u32::from(other)).leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (u128::from(own) ^ u128::from(other)).leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }

    fn first_of(address: IpAddr, bits: u8) -> IpAddr {
        match address {
            IpAddr::V4(it) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((u32::from(it) & mask).into())
            }
            IpAddr::V6(it) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6((u128::from(it) & mask).into())
            }
        }
    }
}

impl FromStr for IpRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadRange::NoRange)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => {
                let bits = bits.parse().map_err(|_| BadRange::NoRange)?;
                if bits > most {
                    return Err(BadRange::NoRange);
                }
                bits
            }
        };
        let first = Self::first_of(address, bits);
        let range = Self { address: first, bits };
        if first == address { Ok(range) } else { Err(BadRange::LongAddress(range)) }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IpRange {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn ranges_hold_what_begins_alike() {
        for (text, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("10.0.0.0/8", "::ffff:10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("::1", "::1", "::2"),
        ] {
            assert!(range(text).contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range(text).contains(outside.parse().unwrap()), "{text} {outside}");
            assert_eq!(range(&range(text).to_string()), range(text));
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "/8", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "host"] {
            assert_eq!(text.parse::<IpRange>(), Err(BadRange::NoRange), "{text}");
        }
        assert_eq!("10.1.0.0/8".parse::<IpRange>(), Err(BadRange::LongAddress(range("10.0.0.0/8"))));
    }

    #[test]
    fn denial_comes_before_permission() {
        let mut access = Access::default();
        let admits = |access: &Access, text: &str| access.admits(text.parse().unwrap());
        assert!(admits(&access, "192.0.2.1") && !access.has_bounds());
        access.deny = vec![range("192.0.2.0/28")];
        assert!(!admits(&access, "192.0.2.1") && admits(&access, "192.0.2.16"));
        access.allow = vec![range("192.0.2.0/24")];
        assert!(!admits(&access, "192.0.2.1") && admits(&access, "192.0.2.16"));
        assert!(!admits(&access, "198.51.100.1") && access.has_bounds());
    }
}

//! The hash algorithms of digest authentication (RFC 7616 §6.1, RFC 8760 §2.1).

use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A hash algorithm that we offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256 (RFC 8760).
    Sha256,
    /// MD5, which phones older than RFC 8760 have alone (RFC 3261 §22.4).
    Md5,
}

impl Algorithm {
    /// All of them, the strongest first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Md5];

    /// Its name in the IANA registry, as it stands in the `algorithm` parameter.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    /// The algorithm with that name; without a name it is MD5 (RFC 7616 §3.3: "If this is not present, it is assumed to be
    /// 'MD5'").
    #[must_use]
    pub fn named(token: Option<&[u8]>) -> Option<Self> {
        let Some(token) = token else { return Some(Self::Md5) };
        Self::ALL.into_iter().find(|it| token.eq_ignore_ascii_case(it.token().as_bytes()))
    }

    /// The hash of the parts with a colon between each two, as all hashes of digest authentication are made.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> Hash {
        match self {
            Self::Sha256 => digest::<Sha256>(parts),
            Self::Md5 => digest::<Md5>(parts),
        }
    }

    /// The secret of a user: H(A1) with A1 as RFC 7616 §3.4.2 says.
    #[must_use]
    pub fn secret(self, username: &[u8], realm: &[u8], password: &[u8]) -> Hash {
        self.hash(&[username, realm, password])
    }
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Hash {
    let mut hasher = D::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            hasher.update(b":");
        }
        hasher.update(part);
    }
    let bytes = hasher.finalize();
    Hash::of_bytes(&bytes).expect("both algorithms have hashes of a length that fits")
}

/// What a hash algorithm gives. May be secret, so it is compared in constant time and never printed.
#[derive(Clone, Copy)]
pub struct Hash {
    bytes: [u8; Self::LEN_MAX],
    len: u8,
}

impl Hash {
    /// Bytes of the longest hash.
    pub const LEN_MAX: usize = 32;

    /// A hash that was stored; `None` if it has the length of no algorithm.
    #[must_use]
    pub fn of_bytes(stored: &[u8]) -> Option<Self> {
        if !matches!(stored.len(), 16 | 32) {
            return None;
        }
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..stored.len()].copy_from_slice(stored);
        Some(Self { bytes, len: stored.len() as u8 })
    }

    /// Reads a hash in hexadecimal digits of either case.
    #[must_use]
    pub fn of_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::LEN_MAX];
        let len = text.len() / 2;
        if !text.len().is_multiple_of(2) || len > Self::LEN_MAX {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = crate::uri::hex(digits[0])? << 4 | crate::uri::hex(digits[1])?;
        }
        Self::of_bytes(&bytes[..len])
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Writes it in lower-case hexadecimal digits (`LHEX`) and lends the text.
    #[must_use]
    pub fn hex<'t>(&self, text: &'t mut [u8; 2 * Self::LEN_MAX]) -> &'t [u8] {
        for (digits, byte) in text.chunks_exact_mut(2).zip(self.as_bytes()) {
            digits.copy_from_slice(&crate::token::hex2(*byte));
        }
        &text[..2 * usize::from(self.len)]
    }

    /// Whether two hashes are the same, in a time that does not depend on where they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standards() {
        let mut text = [0; 64];
        // RFC 1321 §A.5 and appendix B.1 of FIPS 180-2.
        assert_eq!(Algorithm::Md5.hash(&[b"abc"]).hex(&mut text), b"900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            Algorithm::Sha256.hash(&[b"abc"]).hex(&mut text),
            b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        // RFC 8760 §2.6 item 7 and RFC 3261 §22.4 item 7: the empty body.
        assert_eq!(
            Algorithm::Sha256.hash(&[b""]).hex(&mut text),
            b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(Algorithm::Md5.hash(&[b""]).hex(&mut text), b"d41d8cd98f00b204e9800998ecf8427e");
        assert!(Algorithm::Md5.hash(&[b"a", b"b"]).matches(&Algorithm::Md5.hash(&[b"a:b"])));
    }

    #[test]
    fn algorithms_are_known_by_name_without_case_and_by_silence() {
        assert_eq!(Algorithm::named(None), Some(Algorithm::Md5));
        assert_eq!(Algorithm::named(Some(b"md5")), Some(Algorithm::Md5));
        assert_eq!(Algorithm::named(Some(b"SHA-256")), Some(Algorithm::Sha256));
        for other in ["", "MD5-sess", "SHA-256-sess", "SHA-512-256", "SHA256", "AKAv1-MD5"] {
            assert_eq!(Algorithm::named(Some(other.as_bytes())), None, "{other}");
        }
    }

    #[test]
    fn hexadecimal_reads_back_and_nothing_else_is_read() {
        for algorithm in Algorithm::ALL {
            let hash = algorithm.hash(&[b"x"]);
            let mut text = [0; 64];
            let hex = hash.hex(&mut text).to_vec();
            assert!(Hash::of_hex(&hex).is_some_and(|read| read.matches(&hash)));
            assert!(Hash::of_hex(&hex.to_ascii_uppercase()).is_some_and(|read| read.matches(&hash)));
            assert!(Hash::of_hex(&hex[1..]).is_none() && Hash::of_hex(&hex[2..]).is_none());
            let mut odd = hex.clone();
            odd[5] = b'g';
            assert!(Hash::of_hex(&odd).is_none());
        }
        assert!(Hash::of_hex(b"").is_none());
        assert!(Hash::of_hex(&[b'0'; 66]).is_none());
        assert!(!Algorithm::Md5.hash(&[b"x"]).matches(&Algorithm::Sha256.hash(&[b"x"])));
        assert_eq!(format!("{:?}", Algorithm::Md5.hash(&[b"x"])), "Hash(secret)");
    }
}

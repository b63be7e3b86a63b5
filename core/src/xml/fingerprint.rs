//! Hash of a document's meaning: equal for two spellings of one document, different for two meanings.
//!
//! An element's hash covers its namespace and local name, its attributes in any order, its character data with
//! references resolved, and the hashes of its children in order. It does not see prefixes, namespace declarations,
//! comments, processing instructions, how an empty element is spelt, nor white space between elements. Time stamps
//! (`timestamp` of PIDF and of the data model) are not fed in at all.
//!
//! Words are mixed in by a multiplication to 128 bits whose halves are joined. What is multiplied depends on a secret
//! key, so that nobody can aim at a product of zero, which would forget everything before it.

/// Key of the hashes: of a node secret and kept with its files, as fingerprints are compared between runs.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    /// Joined with one factor of each product of texts.
    text: u64,
    /// Factor for numbers.
    number: u64,
    /// Factor for child elements.
    child: u64,
}

impl Key {
    /// The key made of 128 secret bits.
    pub(crate) const fn new(secret: [u64; 2]) -> Self {
        let text = fold(secret[0] ^ DIGITS[0], secret[1] ^ DIGITS[1]);
        // Odd factors lose nothing of what they are multiplied with.
        Self {
            text,
            number: fold(text ^ DIGITS[2], secret[0] ^ DIGITS[3]) | 1,
            child: fold(text ^ DIGITS[3], secret[1] ^ DIGITS[2]) | 1,
        }
    }

    /// Hash of one string.
    #[inline]
    pub(crate) fn of(self, text: &[u8]) -> u64 {
        self.add(START, text)
    }

    /// Hash of one attribute; the hashes of an element's attributes are summed up.
    #[inline]
    pub(crate) fn attribute(self, namespace: u64, local: &[u8], value: &[u8]) -> u64 {
        self.add(self.add(namespace, local), value)
    }

    /// Joins a number to `state`.
    #[inline]
    const fn number(self, state: u64, number: u64) -> u64 {
        fold(state ^ number, self.number)
    }

    /// Joins a text to `state`, told apart from what follows.
    #[inline]
    fn add(self, state: u64, text: &[u8]) -> u64 {
        let mut state = self.number(state, text.len() as u64);
        let mut rest = text;
        while let (true, Some(pair)) = (rest.len() > 16, rest.first_chunk::<16>()) {
            let low = u64::from_le_bytes(*pair.first_chunk().expect("8 of 16"));
            let high = u64::from_le_bytes(*pair.last_chunk().expect("8 of 16"));
            state = fold(low ^ state, high ^ self.text);
            rest = &rest[16..];
        }
        let (low, high) = ends(rest);
        fold(low ^ state, high ^ self.text)
    }
}

impl Default for Key {
    /// A key that everybody knows: for documents that are compared with those of the same sender only.
    fn default() -> Self {
        Self::new([0x636f_6d73_6970_6c2e, 0x7069_6466_2b78_6d6c])
    }
}

/// The hash of an element while it is read.
#[derive(Clone, Copy)]
pub(crate) struct Element(u64);

impl Element {
    /// The element `local` of the namespace with hash `namespace`; `attributes` is the sum of their hashes.
    #[inline]
    pub(crate) fn new(key: Key, namespace: u64, local: &[u8], attributes: u64) -> Self {
        Self(key.number(key.add(namespace, local), attributes))
    }

    /// The next character data.
    #[inline]
    pub(crate) fn text(&mut self, key: Key, text: &[u8]) {
        self.0 = key.add(self.0, text);
    }

    /// The next child element.
    #[inline]
    pub(crate) const fn child(&mut self, key: Key, hash: u64) {
        self.0 = fold(self.0 ^ hash, key.child);
    }

    /// The hash, everything being read.
    #[inline]
    pub(crate) const fn finish(self, key: Key) -> u64 {
        key.number(self.0, END)
    }
}

/// The hash of a document while its elements are chosen.
pub(crate) struct Document(u64);

impl Document {
    /// A document about `scheme:aor`.
    pub(crate) fn new(key: Key, scheme: &[u8], aor: &[u8]) -> Self {
        Self(key.add(key.add(START, scheme), aor))
    }

    /// The next child of the root, with the hash of its identifier if it has one.
    pub(crate) const fn child(&mut self, key: Key, id: u64, hash: u64) {
        self.0 = fold(key.number(self.0, id) ^ hash, key.child);
    }

    /// The fingerprint.
    pub(crate) const fn finish(self, key: Key) -> u64 {
        key.number(self.0, END)
    }
}

/// Both halves of the product, joined.
#[inline]
const fn fold(left: u64, right: u64) -> u64 {
    let product = left as u128 * right as u128;
    product as u64 ^ (product >> 64) as u64
}

/// The bytes of a text of at most 16 bytes in two words; only texts of one length are told apart.
#[inline]
fn ends(text: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        return (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)));
    }
    let [Some(first), Some(middle), Some(last)] = [text.first(), text.get(text.len() / 2), text.last()]
    else {
        return (0, 0);
    };
    (u64::from(*first), u64::from(*middle) << 8 | u64::from(*last))
}

/// Where the hash of a string begins.
const START: u64 = DIGITS[0];
/// Told last, so that a hash is not the state before the next child.
const END: u64 = DIGITS[1];
/// The digits of the fractional part of pi: numbers with nothing up their sleeve.
const DIGITS: [u64; 4] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn texts_of_all_lengths_and_bytes_are_told_apart() {
        let key = Key::default();
        let mut seen = BTreeSet::new();
        let mut count = 0;
        for len in 0..70 {
            let plain = vec![b'a'; len];
            assert!(seen.insert(key.of(&plain)));
            count += 1;
            for at in 0..len {
                for bit in 0..8 {
                    let mut other = plain.clone();
                    other[at] ^= 1 << bit;
                    assert!(seen.insert(key.of(&other)), "{len} {at} {bit}");
                    count += 1;
                }
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn every_bit_of_a_text_reaches_every_bit_of_its_hash() {
        let key = Key::default();
        for len in [1, 3, 4, 7, 8, 15, 16, 17, 33, 64] {
            let mut flips = [0_u32; 64];
            let mut trials = 0;
            for seed in 0..64_u8 {
                let text: Vec<u8> = (0..len).map(|n| seed.wrapping_mul(37).wrapping_add(n)).collect();
                let hash = key.of(&text);
                for at in 0..text.len() {
                    let mut other = text.clone();
                    other[at] ^= 1 << (seed % 8);
                    let changed = hash ^ key.of(&other);
                    flips.iter_mut().enumerate().for_each(|(bit, n)| *n += (changed >> bit & 1) as u32);
                    trials += 1;
                }
            }
            for (bit, flips) in flips.into_iter().enumerate() {
                let share = f64::from(flips) / f64::from(trials);
                assert!((0.2..0.8).contains(&share), "bit {bit} of texts of {len} bytes flips in {share}");
            }
        }
    }

    #[test]
    fn parts_are_told_apart() {
        let key = Key::default();
        assert_ne!(key.attribute(1, b"ab", b"c"), key.attribute(1, b"a", b"bc"));
        assert_ne!(key.attribute(1, b"a", b"b"), key.attribute(2, b"a", b"b"));
        let mut text = Element::new(key, 1, b"a", 0);
        text.text(key, b"");
        let mut child = Element::new(key, 1, b"a", 0);
        child.child(key, 0);
        let empty = Element::new(key, 1, b"a", 0);
        let all = [text, child, empty].map(|element| element.finish(key));
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        let order = |left, right| {
            let mut element = empty;
            element.child(key, left);
            element.child(key, right);
            element.finish(key)
        };
        assert_ne!(order(1, 2), order(2, 1));
    }

    #[test]
    fn another_key_gives_other_hashes() {
        assert_ne!(Key::default().of(b"a"), Key::new([1, 2]).of(b"a"));
        assert_ne!(Key::new([1, 2]).of(b"a"), Key::new([2, 1]).of(b"a"));
        assert_ne!(Key::new([0, 0]).of(b"a"), Key::new([0, 1]).of(b"a"));
    }
}

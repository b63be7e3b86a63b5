//! Hash of a document's meaning: equal for two spellings of one document, different for two meanings.
//!
//! An element's hash covers its namespace and local name, its attributes in any order, its character data with
//! references resolved, and the hashes of its children in order. It does not see prefixes, namespace declarations,
//! comments, processing instructions, how an empty element is spelt, nor white space between elements. Time stamps
//! (`timestamp` of PIDF and of the data model) are not fed in at all.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Key of the hashes. It is fixed and public: a fingerprint is compared between runs of the server, and a sender who
/// forges one only keeps watchers from news about himself.
const KEY: (u64, u64) = (0x636f_6d73_6970_6c2e, 0x7069_6466_2b78_6d6c);

/// Hash of one string.
pub(super) fn of(text: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
    hasher.write(text);
    hasher.finish()
}

/// Hash of one attribute; the hashes of an element's attributes are summed up.
pub(super) fn attribute(namespace: u64, local: &[u8], value: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
    hasher.write_u64(namespace);
    write(&mut hasher, local);
    write(&mut hasher, value);
    hasher.finish()
}

/// The hash of an element while it is read.
#[derive(Clone, Copy)]
pub(super) struct Element(SipHasher13);

impl Element {
    /// The element `local` of the namespace with hash `namespace`; `attributes` is the sum of their hashes.
    pub(super) fn new(namespace: u64, local: &[u8], attributes: u64) -> Self {
        let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
        hasher.write_u64(namespace);
        write(&mut hasher, local);
        hasher.write_u64(attributes);
        Self(hasher)
    }

    /// The next character data.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.0.write_u8(b't');
        write(&mut self.0, text);
    }

    /// The next child element.
    pub(super) fn child(&mut self, hash: u64) {
        self.0.write_u8(b'c');
        self.0.write_u64(hash);
    }

    /// The hash, everything being read.
    pub(super) fn finish(self) -> u64 {
        self.0.finish()
    }
}

/// The hash of a document while its elements are chosen.
pub(super) struct Document(SipHasher13);

impl Document {
    /// A document about `scheme:aor`.
    pub(super) fn new(scheme: &[u8], aor: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
        write(&mut hasher, scheme);
        write(&mut hasher, aor);
        Self(hasher)
    }

    /// The next child of the root, with its identifier if it has one.
    pub(super) fn child(&mut self, id: &[u8], hash: u64) {
        write(&mut self.0, id);
        self.0.write_u64(hash);
    }

    /// The fingerprint.
    pub(super) fn finish(self) -> u64 {
        self.0.finish()
    }
}

/// Feeds `text` so that it is told apart from what follows.
fn write(hasher: &mut SipHasher13, text: &[u8]) {
    hasher.write_u64(text.len() as u64);
    hasher.write(text);
}

//! What the words and bytes of a record mean, one file per kind of record.
//!
//! Texts and documents are opaque byte strings here. Decoding borrows from the record; neither direction
//! allocates.

mod binding;
mod flow;
mod presentity;
mod publication;
mod subscription;
mod texts;
mod user;

use std::fmt;

pub use binding::Binding;
pub use flow::Flow;
pub use presentity::Presentity;
pub use publication::Publication;
pub use subscription::{Subscription, USER_AGENT_MAX};
pub use user::User;

use crate::buf::Record;
use crate::error::Full;
use crate::kind::Kind;
use crate::layout::FIXED_WORDS;
use texts::{LENGTHS_MAX, TEXTS_MAX};

/// A type of record.
pub trait Schema<'a>: Sized {
    /// The kind of record it is stored as.
    const KIND: Kind;

    /// Packs it for [`Partition::put`](crate::Partition::put) and [`replace`](crate::Partition::replace).
    ///
    /// # Errors
    /// [`Full::TooLong`] if a text is longer than 65,535 bytes.
    fn encode(&self) -> Result<Encoded<'a>, Full>;

    /// The fixed words alone, for [`Partition::update_fixed`](crate::Partition::update_fixed).
    fn fixed_words(&self) -> [u64; FIXED_WORDS];

    /// Unpacks a record.
    ///
    /// # Errors
    /// [`DecodeError`]: the record is of another kind, or its words do not mean anything.
    fn decode(record: impl Into<Record<'a>>) -> Result<Self, DecodeError>;

    /// Unpacks the fixed words of a record of this kind; all texts and documents are empty. Together with
    /// [`fixed_words`](Self::fixed_words): changing a number without touching the texts.
    ///
    /// # Errors
    /// [`DecodeError`]: the words do not mean anything.
    fn decode_fixed(fixed: &[u64; FIXED_WORDS]) -> Result<Self, DecodeError>;
}

/// A packed record: fixed words, and the payload in parts.
#[derive(Clone, Debug)]
pub struct Encoded<'a> {
    kind: Kind,
    fixed: [u64; FIXED_WORDS],
    /// The lengths of the texts.
    lengths: [u8; LENGTHS_MAX],
    lengths_used: usize,
    texts: [&'a [u8]; TEXTS_MAX],
    texts_used: usize,
}

impl<'a> Encoded<'a> {
    /// The kind of record.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The fixed words.
    #[must_use]
    pub const fn fixed(&self) -> &[u64; FIXED_WORDS] {
        &self.fixed
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.lengths_used + self.texts[..self.texts_used].iter().map(|text| text.len()).sum::<usize>()
    }

    /// Lends the parts of the payload to `work`.
    pub fn with_parts<R>(&self, work: impl FnOnce(&[&[u8]]) -> R) -> R {
        let mut parts: [&[u8]; TEXTS_MAX + 1] = [&[]; TEXTS_MAX + 1];
        parts[0] = &self.lengths[..self.lengths_used];
        parts[1..=self.texts_used].copy_from_slice(&self.texts[..self.texts_used]);
        work(&parts[..=self.texts_used])
    }
}

/// Why a record could not be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It is of another kind.
    Kind {
        /// Kind of the record.
        found: Kind,
        /// Kind that was asked for.
        expected: Kind,
    },
    /// The lengths of its texts do not fit its payload.
    Texts,
    /// An address is neither IPv4 nor IPv6.
    Flow,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { found, expected } => write!(f, "expected a {expected}, found a {found}"),
            Self::Texts => f.write_str("the lengths of the texts do not fit the payload"),
            Self::Flow => f.write_str("an address is neither IPv4 nor IPv6"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A record of any kind, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyRecord<'a> {
    /// A watcher's subscription.
    Subscription(Subscription<'a>),
    /// The composed document of a presentity.
    Presentity(Presentity<'a>),
    /// One publication.
    Publication(Publication<'a>),
    /// One contact of a registered user.
    Binding(Binding<'a>),
    /// A user who may register.
    User(User<'a>),
}

impl<'a> AnyRecord<'a> {
    /// Unpacks a record of whatever kind it is.
    ///
    /// # Errors
    /// [`DecodeError`]: its words do not mean anything.
    pub fn decode(record: impl Into<Record<'a>>) -> Result<Self, DecodeError> {
        let record = record.into();
        Ok(match record.kind() {
            Kind::Subscription => Self::Subscription(Schema::decode(record)?),
            Kind::Presentity => Self::Presentity(Schema::decode(record)?),
            Kind::Publication => Self::Publication(Schema::decode(record)?),
            Kind::Binding => Self::Binding(Schema::decode(record)?),
            Kind::User => Self::User(Schema::decode(record)?),
        })
    }
}

/// A point in time in 48 bits (Unix milliseconds, until the year 10889), and 16 more bits. Later times are cut to that
/// year.
const fn pack_time(unix_ms: u64, more: u16) -> u64 {
    let time = if unix_ms > TIME_MAX { TIME_MAX } else { unix_ms };
    time | (more as u64) << 48
}

/// Time and bits of a [`pack_time`].
const fn unpack_time(word: u64) -> (u64, u16) {
    (word & TIME_MAX, (word >> 48) as u16)
}

const TIME_MAX: u64 = (1 << 48) - 1;

const fn pack_key(key: u128) -> [u64; 2] {
    [key as u64, (key >> 64) as u64]
}

fn unpack_key(words: &[u64]) -> u128 {
    crate::file::key_of(words)
}

fn expect(record: &Record<'_>, expected: Kind) -> Result<(), DecodeError> {
    let found = record.kind();
    if found == expected { Ok(()) } else { Err(DecodeError::Kind { found, expected }) }
}

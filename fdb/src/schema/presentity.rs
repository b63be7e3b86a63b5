//! The composed presence document of a presentity, as watchers are to see it.
//!
//! ```text
//! word 0, 1  key, by which it is indexed    word 4       changed at 0..48 | basic 48..56 | event 56..64
//! word 2     version                        word 5       first end 0..32 | 0
//! word 3     fingerprint                    word 6       unregistered at 0..48
//!                                           word 7..12   0
//!                                           payload: aor, note, document
//! ```
//!
//! Event 0 was written before there was a second event package, and means the package that was alone then; its documents had
//! no first end.

use super::{DecodeError, Encoded, Schema, expect, pack_key, pack_time, texts, unpack_key, unpack_time};
use crate::buf::Record;
use crate::error::Full;
use crate::kind::Kind;
use crate::layout::FIXED_WORDS;

/// What a presentity's watchers are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presentity<'a> {
    /// Its key, by which every thread finds it: [`Fdb::read_by_key`](crate::Fdb::read_by_key).
    pub key: u128,
    /// Grows by one with each change.
    pub version: u64,
    /// Hash of what the document means, the caller's.
    pub fingerprint: u64,
    /// Open, closed or unknown, the caller's number.
    pub basic: u8,
    /// Event package, the caller's number; 0: the first one there was.
    pub event: u8,
    /// A place in the document, the caller's.
    pub first_end: u32,
    /// When the version was made, Unix milliseconds (48 bits are kept).
    pub changed_at: u64,
    /// When the user's last binding ended, Unix milliseconds (48 bits are kept); 0: that is of no interest.
    pub unregistered_at: u64,
    /// Its address-of-record in canonical form.
    pub aor: &'a [u8],
    /// Its note.
    pub note: &'a [u8],
    /// The composed document.
    pub body: &'a [u8],
}

impl<'a> Schema<'a> for Presentity<'a> {
    const KIND: Kind = Kind::Presentity;

    fn encode(&self) -> Result<Encoded<'a>, Full> {
        Ok(Encoded::new(Self::KIND, self.fixed_words()).texts([self.aor, self.note])?.document(self.body))
    }

    fn fixed_words(&self) -> [u64; FIXED_WORDS] {
        let mut fixed = [0; FIXED_WORDS];
        fixed[..2].copy_from_slice(&pack_key(self.key));
        fixed[2] = self.version;
        fixed[3] = self.fingerprint;
        fixed[5] = self.first_end.into();
        fixed[4] = pack_time(self.changed_at, u16::from(self.event) << 8 | u16::from(self.basic));
        fixed[6] = pack_time(self.unregistered_at, 0);
        fixed
    }

    #[inline]
    fn decode(record: impl Into<Record<'a>>) -> Result<Self, DecodeError> {
        let record = record.into();
        expect(&record, Self::KIND)?;
        let ([aor, note], body) = texts::split(record.payload())?;
        Ok(Self { aor, note, body, ..Self::decode_fixed(record.fixed())? })
    }

    fn decode_fixed(fixed: &[u64; FIXED_WORDS]) -> Result<Self, DecodeError> {
        let (changed_at, event_and_basic) = unpack_time(fixed[4]);
        let [basic, event] = event_and_basic.to_le_bytes();
        Ok(Self {
            key: unpack_key(fixed),
            version: fixed[2],
            fingerprint: fixed[3],
            basic,
            event,
            first_end: fixed[5] as u32,
            changed_at,
            unregistered_at: unpack_time(fixed[6]).0,
            ..Self::default()
        })
    }
}

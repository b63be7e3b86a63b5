//! One publication of a presentity.
//!
//! ```text
//! word 0, 1  presentity                     word 5       expires at 0..48 | event 48..56
//! word 2     entity-tag                     word 6       published at
//! word 3     entity-tag before              word 7       number
//! word 4     hash of the request            word 8..12   0
//!                                           payload: aor, content type, document
//! ```

use super::{DecodeError, Encoded, Schema, expect, pack_key, pack_time, texts, unpack_key, unpack_time};
use crate::buf::Record;
use crate::error::Full;
use crate::kind::Kind;
use crate::layout::FIXED_WORDS;

/// Event state that one user agent published (RFC 3903 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publication<'a> {
    /// Key of whom it is about.
    pub presentity: u128,
    /// Its entity-tag (RFC 3903 §11.3.1).
    pub entity_tag: u64,
    /// The entity-tag before.
    pub previous_tag: u64,
    /// Hash of the request that made it, the caller's.
    pub request: u64,
    /// When it ends, Unix milliseconds (48 bits are kept).
    pub expires_at: u64,
    /// When it was made or changed, Unix milliseconds (48 bits are kept).
    pub published_at: u64,
    /// Number among the publications of its presentity, the caller's; it stays when the document changes.
    pub number: u32,
    /// Event package, the caller's number.
    pub event: u8,
    /// The presentity's address-of-record in canonical form.
    pub aor: &'a [u8],
    /// Type of the document.
    pub content_type: &'a [u8],
    /// The document.
    pub body: &'a [u8],
}

impl<'a> Schema<'a> for Publication<'a> {
    const KIND: Kind = Kind::Publication;

    fn encode(&self) -> Result<Encoded<'a>, Full> {
        let encoded = Encoded::new(Self::KIND, self.fixed_words());
        Ok(encoded.texts([self.aor, self.content_type])?.document(self.body))
    }

    fn fixed_words(&self) -> [u64; FIXED_WORDS] {
        let mut fixed = [0; FIXED_WORDS];
        fixed[..2].copy_from_slice(&pack_key(self.presentity));
        fixed[2] = self.entity_tag;
        fixed[3] = self.previous_tag;
        fixed[4] = self.request;
        fixed[5] = pack_time(self.expires_at, self.event.into());
        fixed[6] = pack_time(self.published_at, 0);
        fixed[7] = self.number.into();
        fixed
    }

    #[inline]
    fn decode(record: impl Into<Record<'a>>) -> Result<Self, DecodeError> {
        let record = record.into();
        expect(&record, Self::KIND)?;
        let ([aor, content_type], body) = texts::split(record.payload())?;
        Ok(Self { aor, content_type, body, ..Self::decode_fixed(record.fixed())? })
    }

    fn decode_fixed(fixed: &[u64; FIXED_WORDS]) -> Result<Self, DecodeError> {
        let (expires_at, event) = unpack_time(fixed[5]);
        Ok(Self {
            presentity: unpack_key(fixed),
            entity_tag: fixed[2],
            previous_tag: fixed[3],
            request: fixed[4],
            expires_at,
            published_at: unpack_time(fixed[6]).0,
            number: fixed[7] as u32,
            event: event as u8,
            ..Self::default()
        })
    }
}

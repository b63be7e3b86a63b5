//! A user who may register.
//!
//! ```text
//! word 0, 1  AoR key, by which it is indexed
//! word 2     flags
//! word 3..12 0                              payload: aor, HA1 by MD5, HA1 by SHA-256; document: more of the caller's
//! ```

use super::{DecodeError, Encoded, Schema, expect, pack_key, texts, unpack_key};
use crate::buf::Record;
use crate::error::Full;
use crate::kind::Kind;
use crate::layout::FIXED_WORDS;

/// A user with the secrets of digest authentication (RFC 7616 §3.4.2).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct User<'a> {
    /// Key of the address-of-record, by which every thread finds it: [`Fdb::read_by_key`](crate::Fdb::read_by_key).
    pub aor_key: u128,
    /// The caller's bits.
    pub flags: u64,
    /// The address-of-record in canonical form.
    pub aor: &'a [u8],
    /// H(A1) by MD5; empty: none.
    pub ha1_md5: &'a [u8],
    /// H(A1) by SHA-256; empty: none.
    pub ha1_sha256: &'a [u8],
    /// What else the caller keeps of the user, secrets perhaps.
    pub more: &'a [u8],
}

impl std::fmt::Debug for User<'_> {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("aor_key", &self.aor_key)
            .field("flags", &self.flags)
            .field("aor", &self.aor.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

impl<'a> Schema<'a> for User<'a> {
    const KIND: Kind = Kind::User;

    fn encode(&self) -> Result<Encoded<'a>, Full> {
        let texts = [self.aor, self.ha1_md5, self.ha1_sha256];
        Ok(Encoded::new(Self::KIND, self.fixed_words()).texts(texts)?.document(self.more))
    }

    fn fixed_words(&self) -> [u64; FIXED_WORDS] {
        let mut fixed = [0; FIXED_WORDS];
        fixed[..2].copy_from_slice(&pack_key(self.aor_key));
        fixed[2] = self.flags;
        fixed
    }

    #[inline]
    fn decode(record: impl Into<Record<'a>>) -> Result<Self, DecodeError> {
        let record = record.into();
        expect(&record, Self::KIND)?;
        let ([aor, ha1_md5, ha1_sha256], more) = texts::split(record.payload())?;
        Ok(Self { aor, ha1_md5, ha1_sha256, more, ..Self::decode_fixed(record.fixed())? })
    }

    fn decode_fixed(fixed: &[u64; FIXED_WORDS]) -> Result<Self, DecodeError> {
        Ok(Self { aor_key: unpack_key(fixed), flags: fixed[2], ..Self::default() })
    }
}

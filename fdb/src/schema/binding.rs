//! One contact of a registered user.
//!
//! ```text
//! word 0, 1  AoR key                        word 6       flow 0..40
//! word 2     reg-id | first registered      word 7, 8    peer address
//! word 3     expires at 0..48 | q           word 9, 10   our address
//! word 4     registered at                               (or connection and our address)
//! word 5     CSeq                           word 11      request
//!                                           payload: aor, contact, params, Call-ID, path, instance, User-Agent,
//!                                                    display name
//! ```

use super::{
    DecodeError, Encoded, Flow, Schema, expect, pack_key, pack_time, texts, unpack_key, unpack_time,
};
use crate::buf::Record;
use crate::error::Full;
use crate::kind::Kind;
use crate::layout::FIXED_WORDS;
use crate::record::{pair, unpair};

/// A binding of an address-of-record to a contact (RFC 3261 §10.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding<'a> {
    /// Key of the address-of-record.
    pub aor_key: u128,
    /// The `reg-id` of the contact (RFC 5626 §4.2); 0: it has none.
    pub reg_id: u32,
    /// Identity of the last REGISTER, the caller's hash: by it a retransmission is known after a restart.
    pub request: u64,
    /// When it ends, Unix milliseconds (48 bits are kept).
    pub expires_at: u64,
    /// When it was first registered, Unix seconds; 0: not known.
    pub first_registered_at: u32,
    /// When it was last registered, Unix milliseconds (48 bits are kept).
    pub registered_at: u64,
    /// CSeq of the last REGISTER.
    pub cseq: u32,
    /// Preference in thousandths (RFC 3261 §20.10).
    pub q: u16,
    /// Where the REGISTER came from.
    pub flow: Flow,
    /// The address-of-record in canonical form.
    pub aor: &'a [u8],
    /// The contact's URI.
    pub contact: &'a [u8],
    /// The contact's header parameters, kept word for word.
    pub params: &'a [u8],
    /// Call-ID of the last REGISTER.
    pub call_id: &'a [u8],
    /// The path vector (RFC 3327 §5.3).
    pub path: &'a [u8],
    /// The instance (RFC 5626 §4.1).
    pub instance: &'a [u8],
    /// The registering user agent.
    pub user_agent: &'a [u8],
    /// The contact's display name, as sent; it takes the rest of the payload, so that one that is not there costs nothing.
    pub display_name: &'a [u8],
}

impl Binding<'_> {
    /// [`Self::first_registered_at`] of the binding with these fixed words.
    #[must_use]
    #[inline]
    pub fn first_registered_at_of(fixed: &[u64; FIXED_WORDS]) -> u32 {
        unpair(fixed[2]).1
    }
}

impl<'a> Schema<'a> for Binding<'a> {
    const KIND: Kind = Kind::Binding;

    fn encode(&self) -> Result<Encoded<'a>, Full> {
        let texts =
            [self.aor, self.contact, self.params, self.call_id, self.path, self.instance, self.user_agent];
        Ok(Encoded::new(Self::KIND, self.fixed_words()).texts(texts)?.document(self.display_name))
    }

    #[inline(always)]
    fn fixed_words(&self) -> [u64; FIXED_WORDS] {
        let mut fixed = [0; FIXED_WORDS];
        fixed[..2].copy_from_slice(&pack_key(self.aor_key));
        fixed[2] = pair(self.reg_id, self.first_registered_at);
        fixed[3] = pack_time(self.expires_at, self.q);
        fixed[4] = pack_time(self.registered_at, 0);
        fixed[5] = self.cseq.into();
        fixed[6..11].copy_from_slice(&self.flow.pack());
        fixed[11] = self.request;
        fixed
    }

    #[inline(always)]
    fn decode(record: impl Into<Record<'a>>) -> Result<Self, DecodeError> {
        let record = record.into();
        expect(&record, Self::KIND)?;
        let ([aor, contact, params, call_id, path, instance, user_agent], display_name) =
            texts::split(record.payload())?;
        Ok(Self {
            aor,
            contact,
            params,
            call_id,
            path,
            instance,
            user_agent,
            display_name,
            ..Self::decode_fixed(record.fixed())?
        })
    }

    #[inline(always)]
    fn decode_fixed(fixed: &[u64; FIXED_WORDS]) -> Result<Self, DecodeError> {
        let (expires_at, q) = unpack_time(fixed[3]);
        let (reg_id, _) = unpair(fixed[2]);
        Ok(Self {
            aor_key: unpack_key(fixed),
            reg_id,
            first_registered_at: Self::first_registered_at_of(fixed),
            request: fixed[11],
            expires_at,
            registered_at: unpack_time(fixed[4]).0,
            cseq: fixed[5] as u32,
            q,
            flow: Flow::unpack(&fixed[6..])?,
            ..Self::default()
        })
    }
}

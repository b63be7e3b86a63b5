//! A watcher's subscription: a dialog, and the SUBSCRIBE that it stands on.
//!
//! ```text
//! word 0, 1  presentity                     word 7       flow 0..40 | event 40..48
//! word 2     local tag                      word 8, 9    peer address
//! word 3     expires at 0..48 | flags       word 10, 11  our address, or connection and our address
//! word 4     accepted at 0..48 | capitals
//! word 5     CSeq reserved | remote CSeq    payload: aor, local URI, remote URI, remote tag, Call-ID, remote target,
//! word 6     request                                 route set, event id, User-Agent
//! ```
//!
//! Capitals were always 0 before they were kept: the name in small letters, as it was written then in any case.

use super::{
    DecodeError, Encoded, Flow, Schema, expect, pack_key, pack_time, texts, unpack_key, unpack_time,
};
use crate::buf::Record;
use crate::error::Full;
use crate::kind::Kind;
use crate::layout::FIXED_WORDS;
use crate::record::{pair, unpair};

/// Bytes of a User-Agent that a subscription keeps.
pub const USER_AGENT_MAX: usize = 40;

/// A watcher's subscription (RFC 6665 §3.1): the dialog, and what was sent in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Key of whom it watches.
    pub presentity: u128,
    /// Our tag in the dialog.
    pub local_tag: u64,
    /// When it ends, Unix milliseconds (48 bits are kept).
    pub expires_at: u64,
    /// Up to where our CSeq numbers may have been used, as the caller counts.
    pub cseq_reserved: u32,
    /// CSeq of the last SUBSCRIBE accepted.
    pub remote_cseq: u32,
    /// When the last SUBSCRIBE was accepted, Unix milliseconds (48 bits are kept).
    pub accepted_at: u64,
    /// Where the watcher is reached.
    pub flow: Flow,
    /// Event package, the caller's number.
    pub event: u8,
    /// Which letters of the event package's name the watcher writes as capitals, the caller's bits.
    pub capitals: u16,
    /// The caller's bits.
    pub flags: u16,
    /// Identity of the last SUBSCRIBE accepted, the caller's hash: by it a retransmission is known after a restart.
    pub request: u64,
    /// Whom it watches, in canonical form.
    pub aor: &'a [u8],
    /// Our URI in the dialog; empty: `sip:` and `aor`. A URI that reads so is stored as an empty one.
    pub local_uri: &'a [u8],
    /// The watcher's URI in the dialog.
    pub remote_uri: &'a [u8],
    /// The watcher's tag in the dialog.
    pub remote_tag: &'a [u8],
    /// Call-ID of the dialog.
    pub call_id: &'a [u8],
    /// The watcher's Contact URI.
    pub remote_target: &'a [u8],
    /// The route set, as the caller writes it.
    pub route_set: &'a [u8],
    /// The `id` of its Event header.
    pub event_id: &'a [u8],
    /// The watcher's User-Agent; only the first [`USER_AGENT_MAX`] bytes are stored.
    pub user_agent: &'a [u8],
}

impl<'a> Schema<'a> for Subscription<'a> {
    const KIND: Kind = Kind::Subscription;

    fn encode(&self) -> Result<Encoded<'a>, Full> {
        let local_uri = match self.local_uri.strip_prefix(b"sip:") {
            Some(rest) if rest == self.aor => &[],
            _ => self.local_uri,
        };
        Encoded::new(Self::KIND, self.fixed_words()).texts([
            self.aor,
            local_uri,
            self.remote_uri,
            self.remote_tag,
            self.call_id,
            self.remote_target,
            self.route_set,
            self.event_id,
            shorten(self.user_agent),
        ])
    }

    fn fixed_words(&self) -> [u64; FIXED_WORDS] {
        let [key0, key1] = pack_key(self.presentity);
        let [flow, ip0, ip1, local0, local1] = self.flow.pack();
        [
            key0,
            key1,
            self.local_tag,
            pack_time(self.expires_at, self.flags),
            pack_time(self.accepted_at, self.capitals),
            pair(self.cseq_reserved, self.remote_cseq),
            self.request,
            flow | u64::from(self.event) << 40,
            ip0,
            ip1,
            local0,
            local1,
        ]
    }

    #[inline(always)]
    fn decode(record: impl Into<Record<'a>>) -> Result<Self, DecodeError> {
        let record = record.into();
        expect(&record, Self::KIND)?;
        let (
            [aor, local_uri, remote_uri, remote_tag, call_id, remote_target, route_set, event_id, user_agent],
            _,
        ) = texts::split(record.payload())?;
        Ok(Self {
            aor,
            local_uri,
            remote_uri,
            remote_tag,
            call_id,
            remote_target,
            route_set,
            event_id,
            user_agent,
            ..Self::decode_fixed(record.fixed())?
        })
    }

    #[inline(always)]
    fn decode_fixed(fixed: &[u64; FIXED_WORDS]) -> Result<Self, DecodeError> {
        let (expires_at, flags) = unpack_time(fixed[3]);
        let (accepted_at, capitals) = unpack_time(fixed[4]);
        let (cseq_reserved, remote_cseq) = unpair(fixed[5]);
        Ok(Self {
            presentity: unpack_key(fixed),
            local_tag: fixed[2],
            expires_at,
            cseq_reserved,
            remote_cseq,
            accepted_at,
            flow: Flow::unpack(&fixed[7..])?,
            event: (fixed[7] >> 40) as u8,
            capitals,
            flags,
            request: fixed[6],
            ..Self::default()
        })
    }
}

/// At most [`USER_AGENT_MAX`] bytes, not ending inside a UTF-8 character.
fn shorten(text: &[u8]) -> &[u8] {
    if text.len() <= USER_AGENT_MAX {
        return text;
    }
    let is_inside = |at: usize| text[at] & 0xc0 == 0x80;
    let end = (USER_AGENT_MAX - 3..=USER_AGENT_MAX).rev().find(|&at| !is_inside(at));
    &text[..end.unwrap_or(USER_AGENT_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::RecordBuf;
    use crate::layout::INLINE_BYTES;

    const LONGEST: &[u8] = &[b'x'; 100];

    /// The longest that a Linphone behind a proxy sends.
    fn linphone() -> Subscription<'static> {
        Subscription {
            presentity: u128::MAX - 5,
            local_tag: 0x0123_4567_89ab_cdef,
            expires_at: 1_700_000_000_123,
            cseq_reserved: u32::MAX,
            remote_cseq: 20,
            accepted_at: 1_699_999_999_999,
            flow: Flow {
                transport: 1,
                listener: 2,
                ip: "2001:db8::7".parse().expect("an address"),
                port: 5060,
                local_ip: "192.0.2.1".parse().ok(),
                connection: 0,
            },
            event: 7,
            capitals: 0xabcd,
            flags: 0x8001,
            request: 1 << 60,
            aor: &LONGEST[..56],
            local_uri: b"",
            remote_uri: &LONGEST[..60],
            remote_tag: b"HBXjpj6IT",
            call_id: &LONGEST[..40],
            remote_target: LONGEST,
            route_set: b"<sip:10.0.0.27;transport=udp;lr>",
            event_id: b"",
            user_agent: b"LinphoneAndroid/5.1.4 (moto g power 5G - 2023) LinphoneSDK/5.2.110",
        }
    }

    fn stored(encoded: &Encoded<'_>) -> RecordBuf {
        let payload = encoded.with_parts(|parts| parts.concat());
        let mut buf = RecordBuf::new();
        buf.kind = encoded.kind();
        buf.fixed = *encoded.fixed();
        buf.length = payload.len();
        buf.bytes = payload;
        buf
    }

    #[test]
    fn the_longest_of_a_linphone_fits_one_record() {
        let encoded = linphone().encode().expect("short texts");
        assert!(encoded.payload_len() <= INLINE_BYTES, "{} bytes", encoded.payload_len());
    }

    #[test]
    fn it_comes_back_as_it_was_but_for_the_end_of_the_user_agent() {
        let encoded = linphone().encode().expect("short texts");
        let buf = stored(&encoded);
        let expected = Subscription { user_agent: &linphone().user_agent[..40], ..linphone() };
        assert_eq!(Subscription::decode(&buf), Ok(expected));
    }

    #[test]
    fn a_local_uri_that_follows_from_the_aor_takes_no_room() {
        let subscription = Subscription { aor: b"51234@10.0.0.27", ..linphone() };
        let plain = Subscription { local_uri: b"sip:51234@10.0.0.27", ..subscription };
        let other = Subscription { local_uri: b"sips:51234@10.0.0.27", ..subscription };
        let decode = |record: Subscription<'_>| {
            let buf = stored(&record.encode().expect("short texts"));
            Subscription::decode(&buf).map(|record| record.local_uri.to_vec())
        };
        assert_eq!(decode(plain), Ok(Vec::new()));
        assert_eq!(decode(other), Ok(b"sips:51234@10.0.0.27".to_vec()));
    }

    #[test]
    fn a_number_changes_without_the_texts() {
        let fixed = linphone().fixed_words();
        let mut changed = Subscription::decode_fixed(&fixed).expect("whole");
        assert!(changed.call_id.is_empty());
        changed.cseq_reserved = 77;
        let expected = Subscription { cseq_reserved: 77, ..linphone() };
        assert_eq!(changed.fixed_words(), expected.fixed_words());
    }

    #[test]
    fn times_beyond_48_bits_are_cut() {
        let never = Subscription { expires_at: u64::MAX, ..linphone() };
        let decoded = Subscription::decode_fixed(&never.fixed_words()).expect("whole");
        assert_eq!((decoded.expires_at, decoded.flags), ((1 << 48) - 1, never.flags));
    }

    #[test]
    fn a_user_agent_is_not_cut_inside_a_character() {
        let text = format!("{}é and more", "x".repeat(39));
        assert_eq!(shorten(text.as_bytes()), "x".repeat(39).as_bytes());
        assert_eq!(shorten(&[0x80; 60]).len(), USER_AGENT_MAX);
        assert_eq!(shorten(b"short"), b"short");
    }

    #[test]
    fn another_kind_is_refused() {
        let mut buf = stored(&linphone().encode().expect("short texts"));
        buf.kind = Kind::Binding;
        let error = DecodeError::Kind { found: Kind::Binding, expected: Kind::Subscription };
        assert_eq!(Subscription::decode(&buf), Err(error));
    }
}

//! What a PUBLISH does to the publications of a presentity (RFC 3903 §6, steps 3 to 5).

use crate::expiry::Grant;
use crate::refusal::Refusal;

/// An entity tag of ours: 64 unguessable bits, 16 hexadecimal digits on the wire (a token, RFC 3903 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag(pub u64);

impl EntityTag {
    /// Reads a tag of ours; anything else was never ours and matches nothing.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() == 16 { crate::token::parse_hex(text).map(Self) } else { None }
    }

    /// The tag as it is written.
    #[must_use]
    pub fn text(self) -> [u8; 16] {
        crate::token::hex16(self.0)
    }
}

/// What of a stored publication the decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPublication {
    /// Its present entity tag.
    pub entity_tag: EntityTag,
    /// Its tag before the last success.
    pub previous_tag: EntityTag,
    /// Identity of the request that made the present tag (see [`PublishRequest::request`]).
    pub request: u64,
}

/// What of a PUBLISH the decision needs.
#[derive(Clone, Copy, Debug)]
pub struct PublishRequest<'a> {
    /// Value of SIP-If-Match.
    pub if_match: Option<&'a [u8]>,
    /// Value of Expires.
    pub expires_secs: Option<u32>,
    /// Whether there is a body (of a length above zero; baresip's refresh names a type and sends nothing).
    pub has_body: bool,
    /// Hash of its server transaction: the same for a retransmission, also across a restart.
    pub request: u64,
}

/// What is to be done. `stored` counts in the slice that was given to [`decide`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// A new publication.
    Create {
        /// Seconds granted.
        expires_secs: u32,
    },
    /// An initial publication that ends at once: answered, nothing is stored.
    Nothing,
    /// The same state lives longer.
    Refresh {
        /// Which one.
        stored: usize,
        /// Seconds granted.
        expires_secs: u32,
    },
    /// New state under a new tag.
    Modify {
        /// Which one.
        stored: usize,
        /// Seconds granted.
        expires_secs: u32,
    },
    /// The publication ends.
    Remove {
        /// Which one.
        stored: usize,
    },
    /// This very request was carried out before a restart and its answer was lost: the same answer again.
    Repeat {
        /// Which one.
        stored: usize,
    },
}

/// Decides on a PUBLISH whose Request-URI and event package are served.
///
/// # Errors
///
/// The [`Refusal`] of the first step of RFC 3903 §6 that fails.
pub fn decide(
    stored: &[StoredPublication],
    request: &PublishRequest<'_>,
    grant: Grant,
) -> Result<Publish, Refusal> {
    let Some(if_match) = request.if_match else {
        if let Some(stored) = stored.iter().position(|s| s.request == request.request) {
            return Ok(Publish::Repeat { stored });
        }
        let expires_secs = grant.grant(request.expires_secs)?;
        if !request.has_body {
            // RFC 3903 §6 step 5: "If the request has no message body and contained no entity-tag, the ESC SHOULD
            // reject the request with an appropriate response, such as 400".
            return Err(Refusal::BadRequest("Initial PUBLISH Without Body"));
        }
        return Ok(if expires_secs == 0 { Publish::Nothing } else { Publish::Create { expires_secs } });
    };
    if if_match.iter().any(|&b| matches!(b, b',' | b' ' | b'\t' | b'\r' | b'\n')) {
        // RFC 3903 §6 step 3: "the ESC checks whether the header field contains a single entity-tag. If not, the
        // request is invalid, and the ESC MUST return with a 400".
        return Err(Refusal::BadRequest("More Than One Entity-Tag"));
    }
    let tag = EntityTag::parse(if_match).ok_or(Refusal::ConditionalRequestFailed)?;
    let Some(index) = stored.iter().position(|s| s.entity_tag == tag) else {
        let repeated = stored.iter().position(|s| s.previous_tag == tag && s.request == request.request);
        return repeated.map(|stored| Publish::Repeat { stored }).ok_or(Refusal::ConditionalRequestFailed);
    };
    let expires_secs = grant.grant(request.expires_secs)?;
    Ok(match (expires_secs, request.has_body) {
        (0, _) => Publish::Remove { stored: index },
        // RFC 3903 §4.3 refreshes without a body; Linphone sends one with each refresh, which makes it a modify.
        (_, true) => Publish::Modify { stored: index, expires_secs },
        (_, false) => Publish::Refresh { stored: index, expires_secs },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExpiryPolicy;

    const GRANT: Grant = ExpiryPolicy { min_secs: 60, default_secs: 3600, max_secs: 7200 }.shortened(0);
    const STORED: [StoredPublication; 2] = [
        StoredPublication { entity_tag: EntityTag(1), previous_tag: EntityTag(0), request: 11 },
        StoredPublication { entity_tag: EntityTag(3), previous_tag: EntityTag(2), request: 33 },
    ];

    fn request<'a>(
        if_match: Option<&'a [u8]>,
        expires_secs: Option<u32>,
        has_body: bool,
    ) -> PublishRequest<'a> {
        PublishRequest { if_match, expires_secs, has_body, request: 99 }
    }

    #[test]
    fn the_four_kinds_of_publish() {
        let tag = EntityTag(3).text();
        let run = |r: PublishRequest<'_>| decide(&STORED, &r, GRANT);
        assert_eq!(run(request(None, None, true)), Ok(Publish::Create { expires_secs: 3600 }));
        assert_eq!(
            run(request(Some(&tag), Some(600), false)),
            Ok(Publish::Refresh { stored: 1, expires_secs: 600 })
        );
        assert_eq!(
            run(request(Some(&tag), Some(600), true)),
            Ok(Publish::Modify { stored: 1, expires_secs: 600 })
        );
        assert_eq!(run(request(Some(&tag), Some(0), false)), Ok(Publish::Remove { stored: 1 }));
        assert_eq!(run(request(Some(&tag), Some(0), true)), Ok(Publish::Remove { stored: 1 }));
        assert_eq!(run(request(None, Some(0), true)), Ok(Publish::Nothing));
    }

    #[test]
    fn refusals_come_in_the_order_of_the_steps() {
        let run = |r: PublishRequest<'_>| decide(&STORED, &r, GRANT);
        assert_eq!(
            run(request(Some(b"a, b"), Some(1), true)),
            Err(Refusal::BadRequest("More Than One Entity-Tag"))
        );
        let stale = EntityTag(2).text();
        assert_eq!(run(request(Some(&stale), Some(1), true)), Err(Refusal::ConditionalRequestFailed));
        assert_eq!(run(request(Some(b"not-ours"), Some(1), true)), Err(Refusal::ConditionalRequestFailed));
        let tag = EntityTag(3).text();
        assert_eq!(run(request(Some(&tag), Some(1), true)), Err(Refusal::IntervalTooBrief { min_secs: 60 }));
        assert_eq!(run(request(None, None, false)), Err(Refusal::BadRequest("Initial PUBLISH Without Body")));
    }

    #[test]
    fn a_request_carried_out_before_a_restart_is_answered_alike() {
        let previous = EntityTag(2).text();
        let mut again = request(Some(&previous), None, true);
        again.request = 33;
        assert_eq!(decide(&STORED, &again, GRANT), Ok(Publish::Repeat { stored: 1 }));
        let mut first = request(None, None, true);
        first.request = 11;
        assert_eq!(decide(&STORED, &first, GRANT), Ok(Publish::Repeat { stored: 0 }));
    }

    #[test]
    fn a_tag_reads_back_as_it_was_written() {
        for value in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(EntityTag::parse(&EntityTag(value).text()), Some(EntityTag(value)));
        }
        assert_eq!(EntityTag::parse(b"0123456789ABCDEF"), None, "a tag is compared byte by byte");
    }
}

//! Registrations that are bound to a flow (RFC 5626 §6).

use comsipl_core::header::{HeaderName, NameAddr};
use comsipl_core::msg::Message;
use comsipl_core::registrar::ContactWish;
use comsipl_core::{Refusal, Uri};

/// Checks a REGISTER with a `reg-id`; tells whether it registers a flow, and the phone wants to hear so. Where that cannot be,
/// the parameter is ignored.
///
/// # Errors
/// 400 for a flow beside other contacts, 439 where the first hop does not keep flows and the phone counts on it.
pub(super) fn check(message: &Message<'_>, wishes: &mut [ContactWish<'_>]) -> Result<bool, Refusal> {
    let ends = |wish: &&ContactWish<'_>| {
        wish.expires_secs.or_else(|| message.expires().and_then(Result::ok)) == Some(0)
    };
    if wishes.len() - wishes.iter().filter(ends).count() > 1 {
        // "if the Contact header field contains more than one header field value with a non-zero expiration and any of these
        // header field values contain a "reg-id" Contact header field parameter, the entire registration SHOULD be rejected
        // with a 400 (Bad Request) response."
        return Err(Refusal::BadRequest("A Flow Is Registered Alone"));
    }
    let wanted = message.supported("outbound");
    let is_first_hop = message.values(HeaderName::Via).nth(1).is_none();
    if !is_first_hop && !first_proxy_keeps_flows(message) {
        if wanted {
            return Err(Refusal::FirstHopLacksOutbound);
        }
        for wish in wishes {
            wish.reg_id = 0;
        }
        return Ok(false);
    }
    Ok(wanted)
}

/// Whether the first URI of the Path has `ob`.
fn first_proxy_keeps_flows(message: &Message<'_>) -> bool {
    let first = message.values(HeaderName::Path).next().and_then(|path| NameAddr::parse(path).ok());
    first.is_some_and(|path| Uri::parse(path.uri()).is_ok_and(|uri| uri.params.has("ob")))
}

//! OPTIONS (RFC 3261 §11.2) and CANCEL (RFC 6665 §4.6).

use comsipl_core::Refusal;
use comsipl_core::event::{ACCEPT, ALLOW_EVENTS};

use crate::reply::{ALLOW, Request, SUPPORTED};
use crate::shard::Shard;

impl Shard {
    /// Says what is served.
    pub(super) fn on_options(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        self.answer(request, 200, "OK", None, |writer| {
            writer
                .header("Allow", ALLOW.as_bytes())
                .header("Accept", ACCEPT.as_bytes())
                .header("Allow-Events", ALLOW_EVENTS.as_bytes())
                .header("Supported", SUPPORTED.as_bytes())
                .end_without_body();
        });
        Ok(())
    }

    /// Nothing here can be cancelled, because every request is answered at once.
    ///
    /// > If a User Agent Server (UAS) receives a CANCEL request that matches a known SUBSCRIBE or NOTIFY transaction, it
    /// > MUST respond to the CANCEL request, but otherwise ignore it. (RFC 6665 §4.6)
    pub(super) fn on_cancel(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        let known = ["SUBSCRIBE", "PUBLISH", "REGISTER", "OPTIONS"]
            .iter()
            .any(|method| self.transactions.find(request.transaction_as(&self.keys, method)).is_some());
        if !known {
            return Err(Refusal::NoSuchSubscription);
        }
        self.answer(request, 200, "OK", None, |writer| writer.end_without_body());
        Ok(())
    }
}

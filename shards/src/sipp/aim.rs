//! Where NOTIFYs go, and whether anybody there wants them: see [`Reach`](crate::reach::Reach).

use comsipl_core::auth::Source;
use comsipl_core::{Flow, Mono, Now, Refusal};

use crate::records;
use crate::reply::Request;
use crate::security::Event;
use crate::shard::Shard;

impl Shard {
    /// Whether NOTIFYs by a flow go to an address that nobody has proved to be at. `source`: where the request at hand
    /// came from, if it is the reason for the flow.
    pub(super) fn is_unproved(&self, now: Mono, flow: &Flow, source: Option<&Flow>) -> bool {
        if flow.transport.is_stream() || self.guard.gate.reach.is_proved(now, Source::of(flow.peer.ip())) {
            return false;
        }
        let ip = flow.peer.ip();
        let access = &self.settings.access;
        // A nonce that only its source may use has proved the source of this request.
        let has_nonce = self.guard.challenges
            && access.nonce_bound
            && source.is_some_and(|source| Source::of(source.peer.ip()) == Source::of(ip));
        let is_operators = access.trusts(ip) || self.is_outbound_proxy(ip);
        !has_nonce && !is_operators
    }

    /// Looks at where the NOTIFYs of a SUBSCRIBE are to go: says whether that is unproved. Pays for what was received.
    pub(crate) fn aim(&self, request: &Request<'_>, flow: &Flow) -> bool {
        let now = request.now.mono;
        let unproved = self.is_unproved(now, flow, Some(&request.flow));
        if unproved {
            let target = Source::of(flow.peer.ip());
            self.guard.gate.reach.earn(now, target, request.message.bytes().len());
        }
        unproved
    }

    /// Refuses a new subscription whose NOTIFYs would go to an unproved place where no more may be sent, and for which it has not paid
    /// itself. Refreshes and ends are always taken: they are what known watchers say, and each NOTIFY is looked at anyway.
    pub(crate) fn check_reach(&mut self, request: &Request<'_>, flow: &Flow) -> Result<(), Refusal> {
        let now = request.now.mono;
        if self.guard.gate.reach.has_room(now, Source::of(flow.peer.ip())) {
            return Ok(());
        }
        self.counters.subscribes_out_of_reach.up();
        let event = Event {
            event: "out_of_reach",
            source: request.flow.peer.ip(),
            user: request.message.from().uri(),
            method: request.message.cseq().method_text,
            reason: "target_never_answers",
        };
        self.guard.log.log(now, &event);
        Err(Refusal::OutOfReach { retry_after_secs: RETRY_AFTER_SECS + self.chance.below(RETRY_AFTER_SECS) })
    }

    /// The NOTIFYs of a subscription go by another flow from now on. What was known of the former way says nothing of this one, and
    /// whoever has seen our branches there cannot answer in the name of somebody else.
    pub(crate) fn aim_again(&mut self, now: Mono, id: u32, flow: &Flow) {
        let unproved = self.is_unproved(now, flow, None);
        let secret = self.chance.next_u64() as u32;
        let entry = &mut self.subscriptions[id];
        entry.unproved = unproved;
        entry.secret = secret;
    }

    /// A NOTIFY of a subscription was answered, whatever the answer, by somebody who has seen it.
    #[cold]
    pub(crate) fn prove_reached(&mut self, now: Now, id: u32) {
        if self.is_by_binding(id) {
            // It went somewhere else, which says nothing of the subscription's own address.
            return;
        }
        let entry = &mut self.subscriptions[id];
        entry.unproved = false;
        let partition = self.files.presence_partition(entry.partition);
        let stored = records::view_subscription(partition, entry.slot, &mut self.scratch.subscription);
        if let Some(stored) = stored.filter(|stored| !stored.flow.transport.is_stream()) {
            self.guard.gate.reach.prove(now.mono, Source::of(stored.flow.peer.ip()));
        }
    }
}

/// Least of what Retry-After says, in seconds; half of an allowance has come back by then.
const RETRY_AFTER_SECS: u32 = 30;

#[cfg(test)]
mod tests;

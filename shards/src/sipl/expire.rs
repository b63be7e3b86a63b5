//! What runs out by itself: publications, bindings and subscriptions. Only their owner ends them.

use comsipl_core::event::reg::ContactEvent;
use comsipl_core::event::winfo::WatcherEvent;
use comsipl_core::timer::Wheel;
use comsipl_core::{ExpiryPolicy, Now, UnixMillis};

use crate::records;
use crate::shard::Shard;
use crate::sipp::Phase;
use crate::watched::NONE;

/// Expiries carried out in one turn; the rest waits for the next.
const PER_TURN: usize = 256;

impl Shard {
    /// Ends what has run out; says whether more is due.
    pub(crate) fn expire(&mut self, now: Now) -> bool {
        let publications = self.expire_publications(now);
        let bindings = self.expire_bindings(now);
        let subscriptions = self.expire_subscriptions(now);
        publications || bindings || subscriptions
    }

    fn expire_publications(&mut self, now: Now) -> bool {
        for _ in 0..PER_TURN {
            let Some(number) = self.presentities.publication_expiry.pop_due(now.mono) else { return false };
            let publication = &self.presentities.publications[number];
            let left = beyond_the_wheel(publication.expires_at, self.settings.publication, now);
            if left > 0 {
                let again = now.mono + std::time::Duration::from_millis(left);
                self.presentities.publication_expiry.arm(number, again);
                continue;
            }
            self.counters.expired.up();
            self.end_publication(now, number);
        }
        true
    }

    fn expire_bindings(&mut self, now: Now) -> bool {
        for _ in 0..PER_TURN {
            let Some(number) = self.presentities.binding_expiry.pop_due(now.mono) else { return false };
            let binding = &self.presentities.bindings[number];
            let left = beyond_the_wheel(binding.expires_at, self.settings.registration, now);
            if left > 0 {
                let again = now.mono + std::time::Duration::from_millis(left);
                self.presentities.binding_expiry.arm(number, again);
                continue;
            }
            let key = self.presentities[binding.presentity].key;
            self.counters.expired.up();
            self.remove_binding(now, number, ContactEvent::Expired);
            self.registration_changed(now, key, true);
        }
        true
    }

    /// A subscription that is not refreshed ends with a NOTIFY that says so (RFC 6665 §4.2.1.4).
    fn expire_subscriptions(&mut self, now: Now) -> bool {
        for _ in 0..PER_TURN {
            let Some(id) = self.subscriptions.expiry.pop_due(now.mono) else { return false };
            self.counters.expired.up();
            let entry = &mut self.subscriptions[id];
            if entry.ending && entry.attempt != NONE {
                // A poll, or the end that the watcher asked for: its last NOTIFY is under way.
                continue;
            }
            entry.owed = true;
            self.subscription_ran_out(now, id);
            if self.subscriptions[id].unreachable {
                // Nobody can be told.
                self.drop_subscription(now, id);
                continue;
            }
            if !self.notify_if_free(now, id) && self.subscriptions.knows(id) && self.is_paused(id) {
                // The watcher asked for quiet beyond its subscription's end.
                self.drop_subscription(now, id);
            }
        }
        true
    }

    /// A subscription's time is over: its next NOTIFY is the last. Its record says so, because the clock that says it now may be
    /// set back before the watcher has answered, and a process that dies meanwhile leaves only the record.
    pub(crate) fn subscription_ran_out(&mut self, now: Now, id: u32) {
        self.end_subscription(now, id, WatcherEvent::Timeout);
        let entry = &self.subscriptions[id];
        records::end_subscription(self.files.presence_partition_mut(entry.partition), entry.slot);
    }

    fn is_paused(&self, id: u32) -> bool {
        let attempt = self.subscriptions[id].attempt;
        attempt != NONE && matches!(self.attempts[attempt].phase, Phase::Paused { .. })
    }
}

/// Milliseconds that are left where the timer has fired because its wheel spans less than what may be granted. Otherwise none are,
/// whatever the wall clock says, which may have been set back.
fn beyond_the_wheel(expires_at: UnixMillis, policy: ExpiryPolicy, now: Now) -> u64 {
    if u64::from(policy.max_secs) <= Wheel::SPAN_SECS {
        return 0;
    }
    expires_at.0.saturating_sub(now.wall.0)
}

//! Watchers whose connection is gone.
//!
//! A phone that came in over a connection is reached by that connection alone: nothing listens at the other end's port. When
//! the connection breaks, the subscription stays as it was granted (RFC 6665 §4.2.2 removes it for a NOTIFY that is refused
//! or times out; this one was not sent), and the newest state is owed until the phone comes back.

use comsipl_core::{Now, subscription};

use crate::shard::Shard;
use crate::sipp::branch::{Mark, check_of};

impl Shard {
    /// A NOTIFY could not be sent.
    pub(crate) fn on_unsent(&mut self, now: Now, mark: Mark) {
        if !self.subscriptions.knows(mark.id) {
            return;
        }
        let entry = &self.subscriptions[mark.id];
        let is_it = entry.partition == mark.partition
            && self.is_in_flight(mark.id)
            && check_of(entry.secret, self.attempts[entry.attempt].cseq) == mark.check;
        if !is_it {
            // It was given up meanwhile, or its subscription is gone.
            return;
        }
        self.counters.notifies_unsent.up();
        if entry.ending && !entry.owed {
            // It was the last one.
            self.drop_subscription(now, mark.id);
        } else if self.came_by_connection(mark.id) {
            self.lose_watcher(mark.id);
        } else {
            // RFC 3261 §8.1.3.1: a transport error "MUST be treated as a 503 (Service Unavailable) status code".
            let entry = &self.subscriptions[mark.id];
            let after = subscription::after_answer(503, None, entry.failures, entry.suspect);
            self.after_notify(now, mark.id, after);
        }
    }

    /// Ends what is under way for a watcher whom nothing leads to any more; the newest state is owed.
    fn lose_watcher(&mut self, id: u32) {
        self.end_attempt(id);
        self.subscriptions[id].owed = true;
        self.subscriptions.set_unreachable(id, true);
        self.mark_undelivered(id, true);
    }

    /// Whether a watcher is reached by the connection it opened.
    fn came_by_connection(&mut self, id: u32) -> bool {
        let entry = &self.subscriptions[id];
        let partition = self.files.presence_partition(entry.partition);
        crate::records::view_subscription(partition, entry.slot, &mut self.scratch.subscription)
            .is_some_and(|stored| stored.flow.connection.is_some())
    }
}

//! The answer to a NOTIFY, and what becomes of the subscription (RFC 6665 §4.2.2).

use comsipl_core::msg::{Message, Method, PlainAnswer};
use comsipl_core::subscription::{self, AfterNotify};
use comsipl_core::{HashKey, Now};

use crate::records;
use crate::recover::LATE;
use crate::reply::{contact_uri, usable};
use crate::resolve::names::Failure;
use crate::shard::Shard;
use crate::sipp::attempt::Phase;
use crate::sipp::branch::{BRANCH_LEN, Mark, branch_of, check_of, marked};
use crate::subscriptions::CSEQ_BLOCK;
use crate::watched::NONE;

impl Shard {
    /// Takes a 2xx that says nothing more, as nearly all answers are. Returns whether it answers a NOTIFY whose branch names
    /// its subscription; other answers need a closer look.
    pub(crate) fn on_plain_answer(&mut self, now: Now, answer: &PlainAnswer<'_>) -> bool {
        let id = marked(answer.branch).and_then(|mark| self.notify_marked(mark, answer.cseq));
        if let Some(id) = id {
            self.counters.notifies_delivered.up();
            // The proof of an address lasts as long as somebody is told there; with one answer of so many, as the record is written.
            if self.subscriptions[id].unproved || answer.cseq.is_multiple_of(CSEQ_BLOCK) {
                self.prove_reached(now, id);
            }
            self.after_notify(now, id, AfterNotify::Delivered);
        }
        id.is_some()
    }

    /// Takes an answer to one of our requests.
    pub(crate) fn on_answer(&mut self, now: Now, message: &Message<'_>, status: u16) {
        let Some(id) = self.notify_answered_by(message) else {
            self.counters.stray_answers.up();
            return;
        };
        if status < 200 {
            let attempt = self.subscriptions[id].attempt;
            self.attempts[attempt].transaction.on_provisional();
            return;
        }
        // Whoever refuses is there as well.
        if self.subscriptions[id].unproved || message.cseq().number.is_multiple_of(CSEQ_BLOCK) {
            self.prove_reached(now, id);
        }
        let entry = &self.subscriptions[id];
        let after = subscription::after_answer(status, message.retry_after(), entry.failures, entry.suspect);
        if after == AfterNotify::Delivered {
            self.counters.notifies_delivered.up();
            self.refresh_target_by_answer(now, id, message);
        } else {
            self.counters.notifies_refused.up();
            let unavailable = Failure::Unavailable { retry_after: message.retry_after() };
            if status == 503 && self.fail_over(now, id, unavailable) {
                return;
            }
        }
        self.after_notify(now, id, after);
    }

    /// Carries out what the outcome of a NOTIFY means.
    pub(crate) fn after_notify(&mut self, now: Now, id: u32, after: AfterNotify) {
        let entry = &self.subscriptions[id];
        if entry.ending && !entry.owed {
            // The last NOTIFY said `terminated`; whatever the watcher answers, nothing follows.
            self.drop_subscription(now, id);
            return;
        }
        match after {
            AfterNotify::Delivered => {
                let lasted = self.attempts[self.subscriptions[id].attempt].transaction.lasted(now.mono);
                self.end_attempt(id);
                let entry = &mut self.subscriptions[id];
                entry.failures = 0;
                entry.suspect = false;
                let is_owed = self.is_owed(id);
                // It may have been owed since that one left.
                self.mark_undelivered(id, is_owed && lasted > LATE);
                if is_owed {
                    self.send_notify(now, id);
                }
            }
            AfterNotify::Remove => {
                self.counters.watchers_lost.up();
                self.drop_subscription(now, id);
            }
            AfterNotify::Again { pause, wait_for_it } => {
                let entry = &mut self.subscriptions[id];
                entry.failures = entry.failures.saturating_add(1);
                // What the NOTIFY carried did not arrive.
                entry.owed = true;
                self.pause_attempt(now, id, pause, wait_for_it);
            }
            AfterNotify::Suspect { pause } => {
                let newer_is_owed = self.is_owed(id);
                let entry = &mut self.subscriptions[id];
                entry.suspect = true;
                entry.owed = true;
                if newer_is_owed {
                    self.mark_undelivered(id, true);
                    self.end_attempt(id);
                    self.send_notify(now, id);
                } else {
                    self.pause_attempt(now, id, pause, false);
                }
            }
        }
    }

    /// The subscription whose NOTIFY in flight this answers.
    fn notify_answered_by(&self, message: &Message<'_>) -> Option<u32> {
        let cseq = message.cseq();
        if cseq.method != Method::Notify {
            return None;
        }
        let branch = message.via().branch()?;
        if let Some(mark) = marked(branch) {
            return self.notify_marked(mark, cseq.number);
        }
        let tag = message.to().tag().unwrap_or_default();
        let partition = self.keys.call_id_partition(message.call_id());
        let dialog = dialog_hash(&self.keys, message.call_id(), tag);
        let profile = self.settings.profile;
        self.subscriptions.of_dialog(partition, dialog).find(|&id| {
            let mut expected = [0; BRANCH_LEN];
            let entry = &self.subscriptions[id];
            self.awaits_answer(id, cseq.number)
                && branch_of(profile, entry.partition, id, entry.secret, cseq.number, &mut expected) == branch
        })
    }

    /// The subscription that a branch of ours names, if its NOTIFY with this sequence number is in flight.
    fn notify_marked(&self, mark: Mark, cseq: u32) -> Option<u32> {
        if !self.subscriptions.knows(mark.id) {
            return None;
        }
        let entry = &self.subscriptions[mark.id];
        let ours = entry.partition == mark.partition && mark.check == check_of(entry.secret, cseq);
        (ours && self.awaits_answer(mark.id, cseq)).then_some(mark.id)
    }

    /// Whether a subscription's NOTIFY with this sequence number may be answered.
    fn awaits_answer(&self, id: u32, cseq: u32) -> bool {
        self.is_in_flight(id) && self.attempts[self.subscriptions[id].attempt].cseq == cseq
    }

    /// Whether a subscription has a NOTIFY that is sent and not answered.
    pub(crate) fn is_in_flight(&self, id: u32) -> bool {
        let attempt = self.subscriptions[id].attempt;
        attempt != NONE && self.attempts[attempt].phase == Phase::InFlight
    }

    /// NOTIFY is a target refresh request (RFC 6665 §4.4.1), so the Contact of its 2xx is the new remote target
    /// (RFC 3261 §12.2.1.2).
    fn refresh_target_by_answer(&mut self, now: Now, id: u32, message: &Message<'_>) {
        let Some(contact) = contact_uri(message).filter(|contact| usable(contact).is_some()) else { return };
        let entry = &self.subscriptions[id];
        let (partition, slot) = (entry.partition, entry.slot);
        let mut record = std::mem::take(&mut self.scratch.subscription);
        if let Some(stored) =
            records::read_subscription(self.files.presence_partition(partition), slot, &mut record)
            && stored.remote_target != contact
        {
            let mut moved = stored;
            moved.remote_target = contact;
            // A flow that did not follow the Contact (a NAT, a proxy) still does not.
            let followed = stored.route_set.is_empty()
                && stored.flow.connection.is_none()
                && !self.is_by_binding(id)
                && records::numeric(stored.remote_target) == Some(stored.flow.peer);
            if followed && let Some(peer) = records::numeric(contact) {
                moved.flow.peer = peer;
            }
            // Without room for a longer Contact the old one stays: the watcher still answers there.
            match records::update_subscription(self.files.presence_partition_mut(partition), slot, &moved) {
                Ok(()) if moved.flow != stored.flow => self.aim_again(now.mono, id, &moved.flow),
                Ok(()) => {}
                Err(_) => self.counters.refused_full.up(),
            }
        }
        self.scratch.subscription = record;
    }
}

/// Keyed hash of what names a dialog from the watcher's side.
pub(crate) fn dialog_hash(keys: &HashKey, call_id: &[u8], remote_tag: &[u8]) -> u64 {
    keys.of(&[call_id, remote_tag])
}

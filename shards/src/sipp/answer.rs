//! The answer to a NOTIFY, and what becomes of the subscription (RFC 6665 §4.2.2).

use comsipl_core::msg::{Message, Method};
use comsipl_core::subscription::{self, AfterNotify};
use comsipl_core::token::parse_hex;
use comsipl_core::{HashKey, Now};

use crate::records;
use crate::reply::{contact_uri, is_usable};
use crate::shard::Shard;
use crate::sipp::attempt::Phase;
use crate::sipp::notify::{BRANCH_LEN, branch_of};
use crate::watched::NONE;

impl Shard {
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
        let entry = &self.subscriptions[id];
        let after = subscription::after_answer(status, message.retry_after(), entry.failures, entry.suspect);
        if after == AfterNotify::Delivered {
            self.counters.notifies_delivered.up();
            self.refresh_target_by_answer(id, message);
        } else {
            self.counters.notifies_refused.up();
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
                self.end_attempt(id);
                let entry = &mut self.subscriptions[id];
                entry.failures = 0;
                entry.suspect = false;
                self.mark_undelivered(id, false);
                if self.is_owed(id) {
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
        if message.cseq().method != Method::Notify {
            return None;
        }
        let branch = message.via().branch()?;
        let id = match marked(branch) {
            Some((_, id)) => self.subscriptions.knows(id).then_some(id)?,
            None => {
                let tag = message.to().tag().unwrap_or_default();
                let partition = self.keys.call_id_partition(message.call_id());
                let dialog = dialog_hash(&self.keys, message.call_id(), tag);
                self.subscriptions
                    .of_dialog(partition, dialog)
                    .find(|&id| self.is_answer_to(id, message, branch))?
            }
        };
        self.is_answer_to(id, message, branch).then_some(id)
    }

    fn is_answer_to(&self, id: u32, message: &Message<'_>, branch: &[u8]) -> bool {
        let entry = &self.subscriptions[id];
        if entry.attempt == NONE {
            return false;
        }
        let attempt = &self.attempts[entry.attempt];
        let mut expected = [0; BRANCH_LEN];
        let profile = self.settings.profile;
        attempt.phase == Phase::InFlight
            && attempt.cseq == message.cseq().number
            && branch_of(profile, entry.partition, id, entry.secret, attempt.cseq, &mut expected) == branch
    }

    /// NOTIFY is a target refresh request (RFC 6665 §4.4.1), so the Contact of its 2xx is the new remote target
    /// (RFC 3261 §12.2.1.2).
    fn refresh_target_by_answer(&mut self, id: u32, message: &Message<'_>) {
        let Some(contact) = contact_uri(message).filter(|contact| is_usable(contact)) else { return };
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
                && records::numeric(stored.remote_target) == Some(stored.flow.peer);
            if followed && let Some(peer) = records::numeric(contact) {
                moved.flow.peer = peer;
            }
            // Without room for a longer Contact the old one stays: the watcher still answers there.
            if records::update_subscription(self.files.presence_partition_mut(partition), slot, &moved)
                .is_err()
            {
                self.counters.refused_full.up();
            }
        }
        self.scratch.subscription = record;
    }
}

/// Partition and subscription that a branch of ours names.
pub(crate) fn marked(branch: &[u8]) -> Option<(u8, u32)> {
    let mark = branch.strip_prefix(b"z9hG4bK~")?;
    if mark.len() != BRANCH_LEN - 8 {
        return None;
    }
    let partition = u8::try_from(parse_hex(&mark[..2])?).ok()?;
    let id = u32::try_from(parse_hex(&mark[2..10])?).ok()?;
    (usize::from(partition) < comsipl_core::PARTITIONS).then_some((partition, id))
}

/// Keyed hash of what names a dialog from the watcher's side.
pub(crate) fn dialog_hash(keys: &HashKey, call_id: &[u8], remote_tag: &[u8]) -> u64 {
    keys.of(&[call_id, remote_tag])
}

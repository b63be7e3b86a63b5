//! What the end of a registration means for a user's presence.
//!
//! A phone that is switched off takes its registration back, or lets it run out, and often leaves its publication behind. So
//! when the last binding of a user has ended, and neither a REGISTER nor a PUBLISH comes within a *hold-down*, watchers see
//! him `closed`, whatever is published. Within the hold-down nothing is told: a phone that changes its network registers
//! anew.
//!
//! | state | input | next | told |
//! |---|---|---|---|
//! | registered | the last binding ends | held | – |
//! | held | a binding comes, a PUBLISH succeeds | registered, or published only | – |
//! | held | the hold-down is over | offline | `closed` |
//! | offline | a binding comes, a PUBLISH succeeds | registered, or published only | what is published and registered |
//!
//! A user who had no registration (whose presence a PBX publishes, say) stands in none of these states. The moment at which
//! the last binding ended stands in the record of the user's document, before the binding's record goes, so that a crash
//! within the hold-down does not make him stay.

use comsipl_core::event::reg::ContactEvent;
use comsipl_core::{AorKey, Now, UnixMillis};

use crate::presentities::{HELD, OFFLINE};
use crate::records;
use crate::settings::Unregistered;
use crate::shard::Shard;
use crate::watched::NONE;

/// Hold-downs ended in one turn; the rest waits for the next.
const PER_TURN: usize = 256;

impl Shard {
    /// Ends a binding: record and memory. What `event` says of it is told to watchers of the registration.
    pub(crate) fn remove_binding(&mut self, now: Now, number: u32, event: ContactEvent) {
        let user = self.presentities.bindings[number].presentity;
        self.note_ended_contact(now, number, event);
        if self.presentities.bindings_of(user).all(|binding| binding == number) {
            self.hold_down(now, user);
        }
        let binding = self.presentities.remove_binding(number);
        let partition = self.presentities[user].key.partition();
        self.files.registered_partition_mut(partition).remove(binding.slot);
    }

    /// The last binding of a user ends: from now on the hold-down runs. Without a document there is nothing to hold.
    fn hold_down(&mut self, now: Now, user: u32) {
        let entry = &mut self.presentities[user];
        if self.settings.unregistered == Unregistered::Keep || entry.document == NONE {
            return;
        }
        entry.marks |= HELD;
        let (partition, document) = (entry.key.partition(), entry.document);
        self.presentities.hold_down.arm(user, now.mono + self.settings.offline_hold);
        records::set_unregistered_at(self.files.presence_partition_mut(partition), document, now.wall);
    }

    /// A binding or a publication shows that the user is there. Returns whether watchers saw him offline, so that his
    /// document has to be composed.
    pub(crate) fn is_back(&mut self, user: u32) -> bool {
        let entry = &mut self.presentities[user];
        if entry.marks & (HELD | OFFLINE) == 0 {
            return false;
        }
        let was_offline = entry.marks & OFFLINE != 0;
        entry.marks &= !(HELD | OFFLINE);
        let (partition, document) = (entry.key.partition(), entry.document);
        self.presentities.hold_down.cancel(user);
        if document != NONE {
            let files = self.files.presence_partition_mut(partition);
            records::set_unregistered_at(files, document, UnixMillis(0));
        }
        was_offline
    }

    /// Ends hold-downs that are over; says whether more are.
    pub(crate) fn end_hold_downs(&mut self, now: Now) -> bool {
        for _ in 0..PER_TURN {
            let Some(user) = self.presentities.hold_down.pop_due(now.mono) else { return false };
            let entry = &mut self.presentities[user];
            entry.marks = entry.marks & !HELD | OFFLINE;
            self.counters.taken_offline.up();
            self.state_of_user_changed(now, user, None);
        }
        true
    }

    /// Takes up what a document's record says of the end of its user's registration.
    pub(crate) fn take_hold_down(&mut self, now: Now, user: u32, unregistered_at: UnixMillis) {
        if unregistered_at.0 == 0 || self.settings.unregistered == Unregistered::Keep {
            return;
        }
        let over_at = unregistered_at.0.saturating_add(self.settings.offline_hold.as_millis() as u64);
        let left = over_at.saturating_sub(now.wall.0);
        let entry = &mut self.presentities[user];
        if left == 0 {
            entry.marks |= OFFLINE;
        } else {
            entry.marks |= HELD;
            // The wall clock may have been set back meanwhile.
            let left = std::time::Duration::from_millis(left).min(self.settings.offline_hold);
            self.presentities.hold_down.arm(user, now.mono + left);
        }
    }

    /// When the registration of a user in hold-down ended, for a document that takes the place of the one that says so.
    pub(crate) fn unregistered_at(&self, user: u32) -> UnixMillis {
        let entry = &self.presentities[user];
        if entry.marks & (HELD | OFFLINE) == 0 || entry.document == NONE {
            return UnixMillis(0);
        }
        records::unregistered_at(self.files.presence_partition(entry.key.partition()), entry.document)
    }

    /// A registration may say something of its user's presence, and of itself; and a user may be gone with it.
    pub(crate) fn registration_changed(&mut self, now: Now, key: AorKey, was_registered: bool) {
        let Some(user) = self.presentities.find(key) else { return };
        self.registration_told(now, user);
        let is_registered = self.presentities[user].first_binding != NONE;
        let was_offline = is_registered && self.is_back(user);
        let says_open = self.settings.registered_state == crate::settings::RegisteredState::Open;
        if was_offline || (was_registered != is_registered && says_open) {
            self.state_of_user_changed(now, user, None);
        } else {
            self.presentities.forget_if_empty(user);
        }
    }
}

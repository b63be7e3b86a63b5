//! The registrations that somebody watches (RFC 3680): the owner of the AoR composes their documents, while they are watched.

use comsipl_core::event::reg::{self, ContactEvent, ContactInfo};
use comsipl_core::event::{Composed, EventPackage, TOLD_FOR};
use comsipl_core::limits::BINDINGS_PER_AOR_MAX;
use comsipl_core::{AorKey, HashKey, Now, UnixMillis};

use super::gruu;
use crate::presentities::REGISTRATION_WATCHED;
use crate::records::{self, StoredBindingRecord};
use crate::shard::Shard;

/// A contact with texts of its own.
struct Contact {
    id: u64,
    event: ContactEvent,
    registered_at: UnixMillis,
    until: UnixMillis,
    cseq: u32,
    call_id: Box<[u8]>,
    uri: Box<[u8]>,
    params: Box<[u8]>,
    display_name: Box<[u8]>,
    pub_gruu: Vec<u8>,
}

impl Contact {
    fn info(&self) -> ContactInfo<'_> {
        ContactInfo {
            id: self.id,
            event: self.event,
            registered_at: self.registered_at,
            until: self.until,
            call_id: &self.call_id,
            cseq: self.cseq,
            uri: &self.uri,
            params: &self.params,
            display_name: &self.display_name,
            pub_gruu: &self.pub_gruu,
        }
    }
}

/// What is remembered of a watched registration beside its bindings.
#[derive(Default)]
pub(crate) struct WatchedRegistration {
    /// Canonical AoR, as soon as a binding has said it.
    aor: Vec<u8>,
    /// Contacts that have ended, for as long as that is told. Of more than [`BINDINGS_PER_AOR_MAX`] the oldest is forgotten: a
    /// document of full state without it says the same.
    ended: Vec<Contact>,
}

impl Shard {
    /// Somebody watches the registration of the user `key` from now on, or nobody does any more.
    pub(super) fn watch_registration(&mut self, key: AorKey, wanted: bool) {
        if wanted {
            let user = self.presentities.find_or_insert(key, EventPackage::PRESENCE);
            self.presentities[user].marks |= REGISTRATION_WATCHED;
            self.watched_registrations.entry(key).or_default();
        } else if let Some(user) = self.presentities.find(key) {
            self.presentities[user].marks &= !REGISTRATION_WATCHED;
            self.watched_registrations.remove(&key);
            self.presentities.forget_if_empty(user);
        }
    }

    /// Something happened to a binding of the user of number `user`.
    #[inline]
    pub(super) fn registration_told(&mut self, now: Now, user: u32) {
        let entry = &self.presentities[user];
        if entry.marks & REGISTRATION_WATCHED != 0 {
            let key = self.keys.resource(entry.key, EventPackage::registration());
            self.state_changed(now, key);
        }
    }

    /// Remembers a binding that is about to end, while somebody watches the registration.
    pub(super) fn note_ended_contact(&mut self, now: Now, number: u32, event: ContactEvent) {
        let binding = &self.presentities.bindings[number];
        let (user, slot) = (binding.presentity, binding.slot);
        let entry = &self.presentities[user];
        if entry.marks & REGISTRATION_WATCHED == 0 {
            return;
        }
        let key = entry.key;
        let files = self.files.registered_partition(key.partition());
        let stored = records::view_binding(files, slot, &mut self.scratch.document);
        let (Some(stored), Some(watched)) = (stored, self.watched_registrations.get_mut(&key)) else {
            return;
        };
        let until = UnixMillis(now.wall.0 + TOLD_FOR.as_millis() as u64);
        let contact = Contact { event, until, ..contact_of(&self.keys, &stored) };
        watched.aor.clear();
        watched.aor.extend_from_slice(stored.aor);
        watched.ended.retain(|ended| ended.until > now.wall && ended.id != contact.id);
        if watched.ended.len() >= BINDINGS_PER_AOR_MAX {
            watched.ended.remove(0);
        }
        watched.ended.push(contact);
    }

    /// Writes the document of the registration with the key `resource` into the scratch buffers; `None` while nobody watches it, and
    /// while there is nothing to tell.
    pub(super) fn compose_registration(&mut self, now: Now, resource: AorKey) -> Option<Composed> {
        let key = self.keys.user_of(resource, EventPackage::registration());
        let watched = self.watched_registrations.get_mut(&key)?;
        let mut contacts = Vec::new();
        if let Some(user) = self.presentities.find(key) {
            let files = self.files.registered_partition(key.partition());
            for number in self.presentities.bindings_of(user) {
                let slot = self.presentities.bindings[number].slot;
                let Some(stored) = records::view_binding(files, slot, &mut self.scratch.document) else {
                    self.counters.unreadable_records.up();
                    continue;
                };
                let mut contact = contact_of(&self.keys, &stored);
                watched.aor.clear();
                watched.aor.extend_from_slice(stored.aor);
                if contact.until > now.wall {
                    contacts.push(contact);
                } else {
                    // It ran out while the server was down, and its timer comes up in this turn.
                    contact.event = ContactEvent::Expired;
                    contact.until = UnixMillis(now.wall.0 + TOLD_FOR.as_millis() as u64);
                    watched.ended.retain(|ended| ended.id != contact.id);
                    watched.ended.push(contact);
                }
            }
        }
        let is_bound = |ended: &Contact| contacts.iter().any(|contact| contact.id == ended.id);
        watched.ended.retain(|ended| ended.until > now.wall && !is_bound(ended));
        if watched.aor.is_empty() {
            return None;
        }
        let scratch = &mut self.scratch;
        scratch.user.clear();
        scratch.user.extend_from_slice(&watched.aor);
        scratch.composed.clear();
        let id = self.compositor.registration_id(&watched.aor);
        let ended = watched.ended.iter().map(Contact::info);
        reg::write(&watched.aor, id, contacts.iter().map(Contact::info), ended, &mut scratch.composed);
        Some(self.compositor.with_moments(&scratch.composed))
    }
}

/// A contact as it is stored.
fn contact_of(keys: &HashKey, stored: &StoredBindingRecord<'_>) -> Contact {
    // RFC 3680 §5.1: "if the URI for two contacts differ …, the id attributes for those contacts MUST differ", and "if the URI for
    // two contacts are the same, their id attributes SHOULD be the same across notifications". With several flows (RFC 5626)
    // one URI may be bound more than once.
    let reg_id = stored.reg_id.to_le_bytes();
    let id = keys.of(&[b"contact", stored.aor, stored.contact, stored.instance, &reg_id]);
    let is_first = stored.first_registered_at.0 / 1000 == stored.registered_at.0 / 1000;
    Contact {
        id,
        event: if is_first { ContactEvent::Registered } else { ContactEvent::Refreshed },
        registered_at: stored.first_registered_at,
        until: stored.expires_at,
        cseq: stored.cseq,
        call_id: stored.call_id.into(),
        uri: stored.contact.into(),
        params: stored.params.into(),
        display_name: stored.display_name.into(),
        pub_gruu: gruu::public_of(stored.aor, stored.instance),
    }
}

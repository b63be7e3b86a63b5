//! REGISTER: the registrar (RFC 3261 §10.3).

use std::ops::Range;

use comsipl_core::header::{HeaderName, Params, preference, seconds};
use comsipl_core::limits::BINDINGS_PER_AOR_MAX;
use comsipl_core::msg::Contact;
use comsipl_core::registrar::{self, BindingChange, ContactWish, Contacts, RegisterRequest, StoredBinding};
use comsipl_core::token::push_number;
use comsipl_core::{AorKey, Refusal};
use smallvec::SmallVec;

use super::date::push_date;
use super::full;
use super::publish::expires_at_mono;
use crate::presentities::Binding;
use crate::records::{self, StoredBindingRecord};
use crate::reply::Request;
use crate::settings::RegisteredState;
use crate::shard::Shard;
use crate::watched::NONE;

/// Room on the stack for the bindings of one user; more go to the heap.
const CONTACTS: usize = 4;

/// What the decision needs of a stored binding, its texts as ranges of one buffer, because all bindings must be seen at
/// once and a record is read into the same buffer as the one before.
#[derive(Default)]
struct KeptBinding {
    contact: Range<usize>,
    call_id: Range<usize>,
    instance: Range<usize>,
    cseq: u32,
    reg_id: u32,
    request: u64,
}

impl KeptBinding {
    fn keep(stored: &StoredBindingRecord<'_>, texts: &mut Vec<u8>) -> Self {
        let mut keep = |text: &[u8]| {
            let start = texts.len();
            texts.extend_from_slice(text);
            start..texts.len()
        };
        Self {
            contact: keep(stored.contact),
            call_id: keep(stored.call_id),
            instance: keep(stored.instance),
            cseq: stored.cseq,
            reg_id: stored.reg_id,
            request: stored.request,
        }
    }

    fn of<'t>(&self, texts: &'t [u8]) -> StoredBinding<'t> {
        StoredBinding {
            contact: &texts[self.contact.clone()],
            call_id: &texts[self.call_id.clone()],
            cseq: self.cseq,
            instance: &texts[self.instance.clone()],
            reg_id: self.reg_id,
            request: self.request,
        }
    }
}

impl Shard {
    /// Takes a REGISTER.
    pub(super) fn on_register(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        let message = request.message;
        let key = self.aor_of(message.to().uri())?;
        self.check_owned(key.partition())?;
        let mut wishes: SmallVec<[ContactWish<'_>; CONTACTS]> = SmallVec::new();
        let (mut star, mut params): (bool, SmallVec<[&[u8]; CONTACTS]>) = (false, SmallVec::new());
        let mut qs: SmallVec<[u16; CONTACTS]> = SmallVec::new();
        for contact in message.contacts() {
            if wishes.len() > BINDINGS_PER_AOR_MAX {
                return Err(Refusal::Forbidden("Too Many Contacts"));
            }
            let contact = contact.map_err(|_| Refusal::BadRequest("Bad Contact"))?;
            match contact {
                Contact::Star => star = true,
                Contact::Addr { name_addr, params: parameters } => {
                    let named = parameters.find(["expires", "+sip.instance", "reg-id", "q"]);
                    let [expires, instance, reg_id, q] = named;
                    wishes.push(ContactWish {
                        contact: name_addr.uri(),
                        // A malformed value counts as 3600 (RFC 3261 §20.10).
                        expires_secs: expires.map(|secs| secs.and_then(seconds).unwrap_or(3600)),
                        instance: instance.flatten().unwrap_or_default(),
                        reg_id: reg_id.flatten().and_then(number).unwrap_or(0),
                    });
                    params.push(parameters.raw());
                    qs.push(q.flatten().and_then(preference).unwrap_or(1000));
                }
            }
        }
        let contacts = match (star, wishes.is_empty()) {
            (true, true) => Contacts::Star,
            (true, false) => Contacts::StarAndMore,
            (false, true) => Contacts::None,
            (false, false) => Contacts::Each(&wishes),
        };
        let user = self.presentities.find(key);
        let numbers: SmallVec<[u32; CONTACTS]> =
            user.map(|user| self.presentities.bindings_of(user).collect()).unwrap_or_default();
        let mut changes = std::mem::take(&mut self.scratch.changes);
        let decided = self.decide_registration(request, key, contacts, &numbers, &mut changes);
        let result = decided.and_then(|()| {
            self.carry_out_registration(request, key, &wishes, &params, &qs, &numbers, &changes)
        });
        self.scratch.changes = changes;
        result?;
        self.answer_register(request, key);
        Ok(())
    }

    /// Reads the stored bindings and decides.
    fn decide_registration(
        &mut self,
        request: &Request<'_>,
        key: AorKey,
        contacts: Contacts<'_>,
        numbers: &[u32],
        changes: &mut Vec<BindingChange>,
    ) -> Result<(), Refusal> {
        let texts = &mut self.scratch.texts;
        texts.clear();
        let mut record = std::mem::take(&mut self.scratch.document);
        let mut kept: SmallVec<[KeptBinding; CONTACTS]> = SmallVec::new();
        let partition = self.files.registered_partition(key.partition());
        for &binding in numbers {
            let slot = self.presentities.bindings[binding].slot;
            match records::view_binding(partition, slot, &mut record) {
                Some(stored) => kept.push(KeptBinding::keep(&stored, texts)),
                None => {
                    self.counters.unreadable_records.up();
                    kept.push(KeptBinding::default());
                }
            }
        }
        self.scratch.document = record;
        let texts = &self.scratch.texts;
        let stored: SmallVec<[StoredBinding<'_>; CONTACTS]> = kept.iter().map(|it| it.of(texts)).collect();
        let register = RegisterRequest {
            contacts,
            expires_secs: request.expires_secs(),
            call_id: request.message.call_id(),
            cseq: request.message.cseq().number,
            request: request.identity(),
        };
        registrar::decide(&stored, &register, self.settings.registration, changes)
    }

    /// Stores all changes, or none of them.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn carry_out_registration(
        &mut self,
        request: &Request<'_>,
        key: AorKey,
        wishes: &[ContactWish<'_>],
        params: &[&[u8]],
        qs: &[u16],
        numbers: &[u32],
        changes: &[BindingChange],
    ) -> Result<(), Refusal> {
        if changes.is_empty() {
            return Ok(());
        }
        let now = request.now;
        let message = request.message;
        let mut path = std::mem::take(&mut self.scratch.routes);
        path.clear();
        for line in message.lines(HeaderName::Path) {
            if !path.is_empty() {
                path.extend_from_slice(b", ");
            }
            path.extend_from_slice(line);
        }
        let record = |contact: usize, expires_secs: u32, aor, path| StoredBindingRecord {
            key,
            expires_at: now.wall.plus_secs(expires_secs),
            registered_at: now.wall,
            cseq: message.cseq().number,
            q: qs[contact],
            reg_id: wishes[contact].reg_id,
            request: request.identity(),
            flow: request.flow,
            aor,
            contact: wishes[contact].contact,
            params: params[contact],
            call_id: message.call_id(),
            path,
            instance: wishes[contact].instance,
            user_agent: message.user_agent().unwrap_or_default(),
        };
        // What may fail for want of room comes first: new records, then updates. A failure takes the new ones back, and
        // an update writes its longer chain before it touches the old record, so nothing is half done (RFC 3261 §10.3:
        // "all binding updates and additions succeed", or none).
        let mut added: SmallVec<[(u32, u32); CONTACTS]> = SmallVec::new();
        let mut failed = None;
        for change in changes {
            if let BindingChange::Add { contact, expires_secs } = *change {
                let partition = self.files.registered_partition_mut(key.partition());
                match records::insert_binding(
                    partition,
                    &record(contact, expires_secs, &self.scratch.aor, &path),
                ) {
                    Ok(slot) => added.push((slot, expires_secs)),
                    Err(what) => failed = Some(what),
                }
            }
        }
        if failed.is_none() {
            for change in changes {
                if let BindingChange::Update { stored, contact, expires_secs } = *change {
                    let slot = self.presentities.bindings[numbers[stored]].slot;
                    let partition = self.files.registered_partition_mut(key.partition());
                    let next = record(contact, expires_secs, &self.scratch.aor, &path);
                    if let Err(what) = records::update_binding(partition, slot, &next) {
                        failed = Some(what);
                        break;
                    }
                }
            }
        }
        self.scratch.routes = path;
        if let Some(what) = failed {
            for (slot, _) in added {
                self.files.registered_partition_mut(key.partition()).remove(slot);
            }
            return Err(full(self, what));
        }
        let user = self.presentities.find_or_insert(key);
        let was_registered = self.presentities[user].first_binding != NONE;
        for (slot, expires_secs) in added {
            let expires_at = now.wall.plus_secs(expires_secs);
            let binding = Binding { presentity: user, next: NONE, slot, expires_at };
            let number = self.presentities.insert_binding(binding);
            self.presentities.binding_expiry.arm(number, expires_at_mono(now, expires_secs));
        }
        for change in changes {
            match *change {
                BindingChange::Add { .. } => {}
                BindingChange::Update { stored, expires_secs, .. } => {
                    let number = numbers[stored];
                    self.presentities.bindings[number].expires_at = now.wall.plus_secs(expires_secs);
                    self.presentities.binding_expiry.arm(number, expires_at_mono(now, expires_secs));
                }
                BindingChange::Remove { stored } => self.remove_binding(numbers[stored]),
            }
        }
        self.registration_changed(now, key, was_registered);
        Ok(())
    }

    /// Ends a binding: record and memory.
    pub(crate) fn remove_binding(&mut self, number: u32) {
        let binding = self.presentities.remove_binding(number);
        let partition = self.presentities[binding.presentity].key.partition();
        self.files.registered_partition_mut(partition).remove(binding.slot);
    }

    /// A registration may say something of its user; and a user may be gone with it.
    pub(crate) fn registration_changed(&mut self, now: comsipl_core::Now, key: AorKey, was_registered: bool) {
        let Some(user) = self.presentities.find(key) else { return };
        let is_registered = self.presentities[user].first_binding != NONE;
        if was_registered != is_registered && self.settings.registered_state == RegisteredState::Open {
            self.state_changed(now, key);
        } else {
            self.presentities.forget_if_empty(user);
        }
    }

    /// Reads the AoR of a binding.
    pub(crate) fn aor_of_binding(&mut self, number: u32, aor: &mut Vec<u8>) -> Option<()> {
        let binding = &self.presentities.bindings[number];
        let partition = self.presentities[binding.presentity].key.partition();
        let mut record = std::mem::take(&mut self.scratch.document);
        let files = self.files.registered_partition(partition);
        let found = records::view_binding(files, binding.slot, &mut record).map(|stored| {
            aor.clear();
            aor.extend_from_slice(stored.aor);
        });
        self.scratch.document = record;
        found
    }

    /// 200 with all bindings (RFC 3261 §10.3 step 8) and the Path that was kept (RFC 3327 §5.3).
    fn answer_register(&mut self, request: &Request<'_>, key: AorKey) {
        let mut lines = std::mem::take(&mut self.scratch.texts);
        let mut record = std::mem::take(&mut self.scratch.document);
        lines.clear();
        if let Some(user) = self.presentities.find(key) {
            for number in self.presentities.bindings_of(user) {
                let binding = &self.presentities.bindings[number];
                let files = self.files.registered_partition(key.partition());
                let Some(stored) = records::view_binding(files, binding.slot, &mut record) else { continue };
                push_contact(&stored, binding.expires_at.secs_after(request.now.wall), &mut lines);
            }
        }
        self.answer(request, 200, "OK", None, |writer| {
            writer.buffer().extend_from_slice(&lines);
            for path in request.message.lines(HeaderName::Path) {
                writer.header("Path", path);
            }
            push_date(request.now.wall.0 / 1000, writer.buffer());
            writer.content_length(0).end();
        });
        self.scratch.texts = lines;
        self.scratch.document = record;
    }
}

/// One Contact line: URI, seconds left, and every parameter the phone sent, but its wish.
fn push_contact(stored: &StoredBindingRecord<'_>, left_secs: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Contact: <");
    out.extend_from_slice(stored.contact);
    out.extend_from_slice(b">;expires=");
    push_number(out, u64::from(left_secs));
    for param in Params::parsed_before(stored.params).iter() {
        if param.name.eq_ignore_ascii_case(b"expires") {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(param.name);
        if let Some(value) = param.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A small decimal number.
fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

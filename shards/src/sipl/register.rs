//! REGISTER: the registrar (RFC 3261 §10.3).

use std::ops::Range;

use comsipl_core::event::EventPackage;
use comsipl_core::event::reg::ContactEvent;
use comsipl_core::header::{HeaderName, Params, preference, seconds};
use comsipl_core::limits::BINDINGS_PER_AOR_MAX;
use comsipl_core::msg::{Contact, Message};
use comsipl_core::registrar::{self, BindingChange, ContactWish, Contacts, RegisterRequest, StoredBinding};
use comsipl_core::sips::{check_binding, is_sips};
use comsipl_core::token::push_number;
use comsipl_core::{AorKey, Refusal};
use comsipl_fdb::RecordBuf;
use smallvec::SmallVec;

use super::publish::expires_at_mono;
use super::{full, gruu, outbound};
use crate::note::{DeviceKey, Note};
use crate::presentities::Binding;
use crate::records::{self, StoredBindingRecord};
use crate::reply::Request;
use crate::shard::Shard;
use crate::sipp::{device_of, device_of_instance};
use crate::watched::NONE;

/// Room on the stack for the bindings of one user; more go to the heap.
const CONTACTS: usize = 4;

/// Devices that one REGISTER may bring a new connection to; each is a note to every shard. A phone that registers two contacts and
/// changes both names six. The subscriptions of more wait for their next SUBSCRIBE.
const RENEWED_DEVICES_MAX: usize = 8;

/// Devices of one REGISTER.
type Devices = SmallVec<[DeviceKey; CONTACTS]>;

/// What is stored of a contact beside what the decision looks at.
struct Aside<'a> {
    /// Its display name, as sent.
    display_name: &'a [u8],
    /// Its parameters, as sent.
    params: &'a [u8],
    /// Its preference in thousandths.
    q: u16,
}

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
        let mut asides: SmallVec<[Aside<'_>; CONTACTS]> = SmallVec::new();
        let mut star = false;
        let mut contacts = message.contacts();
        while let Some(contact) = contacts.next_finding(["expires", "+sip.instance", "reg-id", "q"]) {
            if wishes.len() > BINDINGS_PER_AOR_MAX {
                return Err(Refusal::Forbidden("Too Many Contacts"));
            }
            let (contact, named) = contact.map_err(|_| Refusal::BadRequest("Bad Contact"))?;
            match contact {
                Contact::Star => star = true,
                Contact::Addr { name_addr, params: parameters } => {
                    let [expires, instance, reg_id, q] = named;
                    let instance = instance.flatten().unwrap_or_default();
                    let reg_id = reg_id.flatten().and_then(number).unwrap_or(0);
                    wishes.push(ContactWish {
                        contact: name_addr.uri(),
                        // A malformed value counts as 3600 (RFC 3261 §20.10).
                        expires_secs: expires.map(|secs| secs.and_then(seconds).unwrap_or(3600)),
                        instance,
                        // RFC 5626 §6: "a reg-id but no instance-id […] simply ignores the reg-id parameter."
                        reg_id: if instance.is_empty() { 0 } else { reg_id },
                    });
                    let q = q.flatten().and_then(preference).unwrap_or(1000);
                    asides.push(Aside { display_name: name_addr.display(), params: parameters.raw(), q });
                }
            }
        }
        let mut outbound = false;
        if wishes.iter().any(|wish| wish.reg_id != 0) {
            outbound = outbound::check(message, &mut wishes)?;
        }
        if wishes.iter().any(|wish| is_sips(wish.contact)) {
            check_binding(message)?;
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
        let decided = self.decide_registration(request, key, contacts, &asides, &numbers, &mut changes);
        let refreshed = changes.iter().all(|change| matches!(change, BindingChange::Update { .. }));
        let mut same_texts = false;
        let result = decided.and_then(|same| {
            same_texts = same;
            if !same {
                // What is stored was found good then.
                self.check_gruus(&wishes, &changes)?;
            }
            self.carry_out_registration(request, key, &wishes, &asides, &numbers, &changes, same)
        });
        self.scratch.changes = changes;
        let renewed = result?;
        // A refresh leaves the user where he was.
        let user = if refreshed { user } else { self.presentities.find(key) };
        let only = if refreshed && same_texts {
            Some((wishes[0].contact, asides[0].params, wishes[0].instance))
        } else {
            None
        };
        self.answer_register(request, key, user, only, outbound);
        for device in renewed {
            for shard in 0..self.shards {
                let note = Note::FlowRenewed { watcher: key, device, flow: request.flow };
                self.post_to(request.now, shard, note);
            }
        }
        Ok(())
    }

    /// Reads the stored bindings and decides. Tells whether there is one binding and one contact, and all texts of the one are
    /// those of the other.
    fn decide_registration(
        &mut self,
        request: &Request<'_>,
        key: AorKey,
        contacts: Contacts<'_>,
        asides: &[Aside<'_>],
        numbers: &[u32],
        changes: &mut Vec<BindingChange>,
    ) -> Result<bool, Refusal> {
        let register = RegisterRequest {
            contacts,
            expires_secs: request.expires_secs(),
            call_id: request.message.call_id(),
            cseq: request.message.cseq().number,
            request: request.identity(),
        };
        let grant = self.settings.registration.shortened(self.draw_shortening(request.now));
        let partition = self.files.registered_partition(key.partition());
        let record = &mut self.scratch.document;
        if let [only] = *numbers {
            // One phone, as most users have it: looked at where it is stored.
            let slot = self.presentities.bindings[only].slot;
            let Some(stored) = records::view_binding(partition, slot, record) else {
                self.counters.unreadable_records.up();
                registrar::decide(&[KeptBinding::default().of(&[])], &register, grant, changes)?;
                return Ok(false);
            };
            let same_texts = match (contacts, asides) {
                (Contacts::Each([wish]), [aside]) => says_the_same(&stored, wish, aside, request.message),
                _ => false,
            };
            let stored = StoredBinding {
                contact: stored.contact,
                call_id: stored.call_id,
                cseq: stored.cseq,
                instance: stored.instance,
                reg_id: stored.reg_id,
                request: stored.request,
            };
            registrar::decide(&[stored], &register, grant, changes)?;
            return Ok(same_texts);
        }
        let texts = &mut self.scratch.texts;
        texts.clear();
        let mut kept: SmallVec<[KeptBinding; CONTACTS]> = SmallVec::new();
        for &binding in numbers {
            let slot = self.presentities.bindings[binding].slot;
            match records::view_binding(partition, slot, record) {
                Some(stored) => kept.push(KeptBinding::keep(&stored, texts)),
                None => {
                    self.counters.unreadable_records.up();
                    kept.push(KeptBinding::default());
                }
            }
        }
        let stored: SmallVec<[StoredBinding<'_>; CONTACTS]> = kept.iter().map(|it| it.of(texts)).collect();
        registrar::decide(&stored, &register, grant, changes)?;
        Ok(false)
    }

    /// Refuses what no GRUU can be bound to among the contacts that have an instance and do not end (RFC 5627 §5.1).
    fn check_gruus(&self, wishes: &[ContactWish<'_>], changes: &[BindingChange]) -> Result<(), Refusal> {
        for change in changes {
            if let BindingChange::Add { contact, .. } | BindingChange::Update { contact, .. } = *change
                && !wishes[contact].instance.is_empty()
            {
                gruu::check_contact(&self.scratch.aor, wishes[contact].contact)?;
            }
        }
        Ok(())
    }

    /// Stores all changes, or none of them. Gives the devices that have a new connection.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    fn carry_out_registration(
        &mut self,
        request: &Request<'_>,
        key: AorKey,
        wishes: &[ContactWish<'_>],
        asides: &[Aside<'_>],
        numbers: &[u32],
        changes: &[BindingChange],
        same_texts: bool,
    ) -> Result<Devices, Refusal> {
        if changes.is_empty() {
            return Ok(Devices::new());
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
            first_registered_at: now.wall,
            registered_at: now.wall,
            cseq: message.cseq().number,
            q: asides[contact].q,
            reg_id: wishes[contact].reg_id,
            request: request.identity(),
            flow: request.flow,
            aor,
            contact: wishes[contact].contact,
            params: asides[contact].params,
            call_id: message.call_id(),
            path,
            instance: wishes[contact].instance,
            user_agent: message.user_agent().unwrap_or_default(),
            display_name: asides[contact].display_name,
        };
        // What may fail for want of room comes first: new records, then updates. A failure takes the new ones back, and
        // an update writes its longer chain before it touches the old record, so nothing is half done (RFC 3261 §10.3:
        // "all binding updates and additions succeed", or none).
        let renewed = self.renewed_devices(request, key, wishes, numbers, changes);
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
        // What an update that fails later takes back: the records as they were. A single one either is stored or is not.
        let mut replaced: SmallVec<[(u32, RecordBuf); 1]> = SmallVec::new();
        if failed.is_none() {
            for change in changes {
                if let BindingChange::Update { stored, contact, expires_secs } = *change {
                    let slot = self.presentities.bindings[numbers[stored]].slot;
                    let partition = self.files.registered_partition_mut(key.partition());
                    if changes.len() > 1 {
                        let mut before = RecordBuf::default();
                        if partition.read(slot, &mut before).is_ok() {
                            replaced.push((slot, before));
                        }
                    }
                    let next = record(contact, expires_secs, &self.scratch.aor, &path);
                    if same_texts {
                        // A phone that says the same again: nothing but numbers is written.
                        records::update_binding_fixed(partition, slot, &next);
                    } else if let Err(what) = records::update_binding(partition, slot, &next) {
                        failed = Some(what);
                        break;
                    }
                }
            }
        }
        self.scratch.routes = path;
        if let Some(what) = failed {
            let partition = self.files.registered_partition_mut(key.partition());
            for (slot, _) in added {
                partition.remove(slot);
            }
            // Each needs no more room than what has taken its place; the last one in the list was not replaced at all.
            for (slot, before) in replaced.iter().rev() {
                let restored = records::binding(before)
                    .is_some_and(|before| records::update_binding(partition, *slot, &before).is_ok());
                debug_assert!(restored, "its room is free again");
            }
            return Err(full(self, what));
        }
        for change in changes {
            if let BindingChange::Update { stored, expires_secs, .. } = *change {
                let number = numbers[stored];
                self.presentities.bindings[number].expires_at = now.wall.plus_secs(expires_secs);
                self.presentities.binding_expiry.arm(number, expires_at_mono(now, expires_secs));
            }
        }
        if changes.iter().all(|change| matches!(change, BindingChange::Update { .. })) {
            if let [number, ..] = *numbers {
                self.registration_told(now, self.presentities.bindings[number].presentity);
            }
            return Ok(renewed);
        }
        let user = self.presentities.find_or_insert(key, EventPackage::PRESENCE);
        let was_registered = self.presentities[user].first_binding != NONE;
        for (slot, expires_secs) in added {
            let expires_at = now.wall.plus_secs(expires_secs);
            let binding = Binding { presentity: user, next: NONE, slot, expires_at };
            let number = self.presentities.insert_binding(binding);
            self.presentities.binding_expiry.arm(number, expires_at_mono(now, expires_secs));
        }
        for change in changes {
            if let BindingChange::Remove { stored } = *change {
                self.remove_binding(now, numbers[stored], ContactEvent::Unregistered);
            }
        }
        self.registration_changed(now, key, was_registered);
        Ok(renewed)
    }

    /// The devices that have a new connection by this request; each by what its subscriptions may name it. Nothing for
    /// datagrams, whose flows do not end.
    fn renewed_devices(
        &mut self,
        request: &Request<'_>,
        key: AorKey,
        wishes: &[ContactWish<'_>],
        numbers: &[u32],
        changes: &[BindingChange],
    ) -> Devices {
        let mut devices = Devices::new();
        if request.flow.connection.is_none() {
            return devices;
        }
        let mut add = |device: Option<DeviceKey>| {
            if let Some(device) = device
                && devices.len() < RENEWED_DEVICES_MAX
                && !devices.contains(&device)
            {
                devices.push(device);
            }
        };
        for change in changes {
            let contact = match *change {
                BindingChange::Add { contact, .. } => contact,
                BindingChange::Update { stored, contact, .. } => {
                    let slot = self.presentities.bindings[numbers[stored]].slot;
                    let partition = self.files.registered_partition(key.partition());
                    match records::view_binding(partition, slot, &mut self.scratch.document) {
                        Some(before) if before.flow.connection == request.flow.connection => continue,
                        Some(before) => add(device_of(&self.keys, before.contact)),
                        None => {}
                    }
                    contact
                }
                BindingChange::Remove { .. } => continue,
            };
            add(device_of(&self.keys, wishes[contact].contact));
            // The Contact of its subscriptions may be the public GRUU that it was given.
            let urn = gruu::urn_of(wishes[contact].instance);
            add(urn.map(|urn| device_of_instance(&self.keys, urn)));
        }
        devices
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

    /// 200 with all bindings (RFC 3261 §10.3 step 8) and the Path that was kept (RFC 3327 §5.3). `only` are URI, parameters
    /// and instance where there is one binding and they are known.
    fn answer_register(
        &mut self,
        request: &Request<'_>,
        key: AorKey,
        user: Option<u32>,
        only: Option<(&[u8], &[u8], &[u8])>,
        outbound: bool,
    ) {
        let message = request.message;
        let gruu = message.supported("gruu");
        let mut lines = std::mem::take(&mut self.scratch.texts);
        let mut date = std::mem::take(&mut self.scratch.date);
        lines.clear();
        let was_set = self.wall.was_set(request.now);
        if let Some(user) = user {
            let files = self.files.registered_partition(key.partition());
            let record = &mut self.scratch.document;
            for number in self.presentities.bindings_of(user) {
                let binding = &self.presentities.bindings[number];
                let left_secs = if was_set {
                    self.presentities.binding_expiry.secs_left(number, request.now.mono)
                } else {
                    binding.expires_at.secs_after(request.now.wall)
                };
                let told = match only {
                    Some(told) => Some(told),
                    None => records::view_binding(files, binding.slot, record)
                        .map(|stored| (stored.contact, stored.params, stored.instance)),
                };
                let Some((contact, params, instance)) = told else { continue };
                if gruu {
                    push_contact(contact, params, left_secs, gruu::OF_THE_PHONE, &mut lines);
                    gruu::push_public(&self.scratch.aor, instance, &mut lines);
                } else {
                    push_contact(contact, params, left_secs, &[], &mut lines);
                }
                lines.extend_from_slice(b"\r\n");
            }
        }
        let settings = std::rc::Rc::clone(&self.settings);
        let service_route = &settings.service_route;
        self.answer(request, 200, "OK", None, |writer| {
            writer.buffer().extend_from_slice(&lines);
            for path in request.message.lines(HeaderName::Path) {
                writer.header("Path", path);
            }
            if outbound {
                // RFC 5626 §6: "the registrar MUST include the outbound option-tag in a Require header field value".
                writer.header("Require", b"outbound");
            }
            if !service_route.is_empty() {
                writer.header("Service-Route", service_route.as_bytes());
            }
            writer.buffer().extend_from_slice(date.line(request.now.wall.0 / 1000));
            writer.end_without_body();
        });
        self.scratch.texts = lines;
        self.scratch.date = date;
    }
}

/// Whether a contact of a REGISTER brings no other texts than those stored. Path vectors are not compared: none is the same
/// as none.
fn says_the_same(
    stored: &StoredBindingRecord<'_>,
    wish: &ContactWish<'_>,
    aside: &Aside<'_>,
    message: &Message<'_>,
) -> bool {
    stored.contact == wish.contact
        && stored.params == aside.params
        && stored.display_name == aside.display_name
        && stored.call_id == message.call_id()
        && stored.instance == wish.instance
        && stored.user_agent == message.user_agent().unwrap_or_default()
        && stored.path.is_empty()
        && !message.has(HeaderName::Path)
}

/// One Contact line without its end: URI, seconds left, and every parameter the phone sent, but its wish and those named in
/// `without`.
fn push_contact(contact: &[u8], params: &[u8], left_secs: u32, without: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(b"Contact: <");
    out.extend_from_slice(contact);
    out.extend_from_slice(b">;expires=");
    push_number(out, u64::from(left_secs));
    let params = Params::parsed_before(params);
    // Without an `x` there is no `expires` among them; every other name that may be left out has a `g`, and most lists have
    // neither.
    let all_are_told =
        if without.is_empty() { params.are_tight_without(*b"x") } else { params.are_tight_without(*b"xg") };
    if all_are_told {
        out.extend_from_slice(params.raw());
    } else {
        push_params(params, without, out);
    }
}

/// Every parameter but `expires` and those named in `without`, without white space between them.
fn push_params(params: Params<'_>, without: &[&[u8]], out: &mut Vec<u8>) {
    for param in params {
        let is_named = |name: &&[u8]| param.name.eq_ignore_ascii_case(name);
        if is_named(&&b"expires"[..]) || without.iter().any(is_named) {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(param.name);
        if let Some(value) = param.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
}

/// A small decimal number.
fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use comsipl_core::msg;

    use super::*;

    fn contact_line(params: &[u8]) -> String {
        let mut out = Vec::new();
        push_contact(b"sip:a@192.0.2.1", params, 60, gruu::OF_THE_PHONE, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_contact_is_told_with_all_parameters_but_its_wish() {
        let told = |params: &[u8]| {
            let line = contact_line(params);
            line.strip_prefix("Contact: <sip:a@192.0.2.1>;expires=60").unwrap().to_owned()
        };
        assert_eq!(told(b""), "");
        assert_eq!(told(b";q=0.5;+sip.instance=\"<urn:uuid:1>\""), ";q=0.5;+sip.instance=\"<urn:uuid:1>\"");
        assert_eq!(told(b";q=0.5;Expires=7;text"), ";q=0.5;text");
        assert_eq!(told(b";eXpires;q=1"), ";q=1");
        assert_eq!(told(b" ; q = 0.5\r\n ;methods=\"A, B\""), ";q=0.5;methods=\"A, B\"");
        assert_eq!(told(b";q=1;pub-gruu=\"sip:x;gr=y\";temp-gruu=\"sip:z;gr\""), ";q=1");
    }

    #[test]
    fn a_phone_says_the_same_only_if_no_text_differs() {
        let head = "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=f\r\n\
                    To: <sip:a@h>\r\nCall-ID: c1\r\nCSeq: 2 REGISTER\r\nUser-Agent: phone\r\n";
        let plain = format!("{head}\r\n");
        let plain = msg::parse(plain.as_bytes()).unwrap();
        let by_path = format!("{head}Path: <sip:p;lr>\r\n\r\n");
        let by_path = msg::parse(by_path.as_bytes()).unwrap();
        let wish =
            ContactWish { contact: b"sip:a@192.0.2.1", expires_secs: None, instance: b"<urn:1>", reg_id: 1 };
        let aside = Aside { display_name: b"", params: b";q=1", q: 1000 };
        let flow = comsipl_core::Flow::udp(0, None, "192.0.2.1:5060".parse().unwrap());
        let stored = StoredBindingRecord {
            key: AorKey(1),
            expires_at: comsipl_core::UnixMillis(1),
            first_registered_at: comsipl_core::UnixMillis(0),
            registered_at: comsipl_core::UnixMillis(0),
            cseq: 1,
            q: 500,
            reg_id: 1,
            request: 7,
            flow,
            aor: b"a@h",
            contact: wish.contact,
            params: aside.params,
            call_id: b"c1",
            path: b"",
            instance: wish.instance,
            user_agent: b"phone",
            display_name: aside.display_name,
        };
        assert!(says_the_same(&stored, &wish, &aside, &plain));
        assert!(!says_the_same(&stored, &wish, &aside, &by_path));
        for differs in [
            StoredBindingRecord { contact: b"sip:a@192.0.2.2", ..stored },
            StoredBindingRecord { params: b";q=0.9", ..stored },
            StoredBindingRecord { call_id: b"c2", ..stored },
            StoredBindingRecord { path: b"<sip:p;lr>", ..stored },
            StoredBindingRecord { instance: b"<urn:2>", ..stored },
            StoredBindingRecord { user_agent: b"phone 2", ..stored },
            StoredBindingRecord { display_name: b"Alice", ..stored },
        ] {
            assert!(!says_the_same(&differs, &wish, &aside, &plain), "{differs:?}");
        }
    }
}

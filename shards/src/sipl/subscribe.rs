//! SUBSCRIBE: subscriptions and their refreshes (RFC 6665 §4.2.1).

use comsipl_core::aor::plain;
use comsipl_core::dialog::{NextHop, Target, next_hop, push_route_set};
use comsipl_core::event::winfo::WatcherEvent;
use comsipl_core::event::{ALLOW_EVENTS, Capitals, EventPackage, RequestedInfo};
use comsipl_core::limits::{ROUTE_SET_LEN_MAX, SUBSCRIPTIONS_PER_DIALOG_MAX};
use comsipl_core::locate::HopName;
use comsipl_core::quirks::Quirks;
use comsipl_core::sips::{check_target, makes_secure_dialog, sips_params};
use comsipl_core::{AorKey, ExpiryPolicy, Flow, Now, Profile, Refusal, Uri};
use smallvec::SmallVec;

use super::full;
use super::publish::expires_at_mono;
use crate::listeners::SentBy;
use crate::note::Note;
use crate::records::{self, StoredSubscription};
use crate::reply::{Request, contact_uri, usable};
use crate::resolve::Query;
use crate::settings::SipsRule;
use crate::shard::Shard;
use crate::sipp::{dialog_hash, names_instance};
use crate::subscriptions::{Subscription, reservation};
use crate::watched::BodyKind;

/// What the Event header field of a SUBSCRIBE asks for.
struct Wish<'a> {
    package: &'static EventPackage,
    capitals: Capitals,
    id: &'a [u8],
    info: RequestedInfo,
    expires_secs: u32,
}

/// Where the dialog of a SUBSCRIBE is, if it is anywhere.
#[derive(Clone, Copy)]
struct Place {
    /// The partition of its Call-ID.
    partition: u8,
    /// Hash of Call-ID and remote tag.
    dialog: u64,
}

/// What is known of the dialog of a SUBSCRIBE.
enum Found {
    /// The subscription it refreshes.
    Subscription(u32),
    /// The dialog, without a subscription for this package and `id`.
    Dialog {
        /// Any subscription in it.
        any: u32,
    },
    /// This very request was accepted before a restart and its answer was lost.
    Repeated(u32),
    /// Nothing.
    Nothing,
}

impl Shard {
    /// Takes a SUBSCRIBE.
    pub(super) fn on_subscribe(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        let message = request.message;
        let partition = self.keys.call_id_partition(message.call_id());
        self.check_owned(partition)?;
        let event = message.event().ok_or(Refusal::BadEvent)?;
        let package = EventPackage::by_name(event.package()).ok_or(Refusal::BadEvent)?;
        let in_dialog = message.to().tag().is_some();
        let from_tag = message.from().tag().unwrap_or_default();
        let place = Place { partition, dialog: dialog_hash(&self.keys, message.call_id(), from_tag) };
        let found = self.find_subscription(request, place, package, event.id().unwrap_or_default())?;
        if in_dialog && matches!(found, Found::Nothing) {
            return Err(Refusal::NoSuchSubscription);
        }
        let accept = message.accept();
        if accept.is_present() && !accept.allows(package.content_type) {
            return Err(Refusal::NotAcceptable);
        }
        if !message.body().is_empty() {
            // RFC 3261 §8.2.3: a body that is not understood is refused. Filters (RFC 4660) and lists (RFC 5367) ask for
            // something that a plain subscription would not give.
            return Err(Refusal::UnsupportedMediaType);
        }
        let policy = self.settings.subscription;
        let default_secs =
            package.default_expires_secs.map_or(policy.default_secs, |secs| policy.clamp(secs));
        let policy = ExpiryPolicy { default_secs, ..policy };
        let grant = policy.shortened(self.draw_shortening(request.now));
        let expires_secs = grant.grant(request.expires_secs())?;
        let info = event.param("requested-info").flatten().map_or(RequestedInfo::All, package.requested_info);
        let wish = Wish {
            package,
            capitals: Capitals::of(event.package()),
            id: event.id().unwrap_or_default(),
            info,
            expires_secs,
        };
        match found {
            Found::Subscription(id) => {
                if package.own_only {
                    let (user, _) = self.user_and_tag(id).ok_or(Refusal::NoSuchSubscription)?;
                    self.check_own(user, package)?;
                }
                self.refresh_subscription(request, id, &wish)
            }
            Found::Repeated(id) => self.repeat_subscription(request, id),
            Found::Dialog { any } => {
                let (user, tag) = self.user_and_tag(any).ok_or(Refusal::NoSuchSubscription)?;
                self.check_own(user, package)?;
                let key = self.keys.resource(user, package);
                let (dialog, cseq) = (self.subscriptions[any].dialog, self.subscriptions[any].cseq);
                let id = self.create_subscription(request, place, key, tag, cseq, &wish)?;
                // From here on they draw their sequence numbers together.
                for other in self.subscriptions.of_dialog(partition, dialog).collect::<SmallVec<[u32; 8]>>() {
                    self.subscriptions[other].shared_dialog = true;
                }
                self.send_notify(request.now, id);
                Ok(())
            }
            Found::Nothing => {
                let user = self.presentity_of(request)?;
                self.check_own(user, package)?;
                let key = self.keys.resource(user, package);
                let tag = records::dated_tag(request.now.wall, self.chance.next_u64());
                let id = self.create_subscription(request, place, key, tag, 0, &wish)?;
                self.send_notify(request.now, id);
                Ok(())
            }
        }
    }

    /// The user whom a SUBSCRIBE that makes a dialog is about, his AoR into the scratch buffer: the one of the Request-URI, or
    /// the one whose NOTIFYs had it for their Contact.
    fn presentity_of(&mut self, request: &Request<'_>) -> Result<AorKey, Refusal> {
        let text = request.message.request_uri();
        // What is an AoR to the letter has no parameters, as our Contact has.
        if let Some(aor) = plain(text) {
            return self.take_aor(aor);
        }
        if let Ok(uri) = Uri::parse(text)
            && let Some(domain) = self.listeners.domain_of_contact(&uri, &request.flow)
        {
            let at: &[u8] = if uri.user.is_some() { b"@" } else { b"" };
            let user = [b"sip:", uri.user.unwrap_or_default(), at, domain].concat();
            return self.aor_of(&user);
        }
        self.aor_of(text)
    }

    /// Refuses what only the user himself may watch to anybody else.
    fn check_own(&self, user: AorKey, package: &EventPackage) -> Result<(), Refusal> {
        if !package.own_only || !self.guard.challenges {
            return Ok(());
        }
        // From may be anonymous where a trusted proxy asserts who it is.
        if self.guard.sender == Some(user) { Ok(()) } else { Err(Refusal::Forbidden("Not Your Own")) }
    }

    /// Finds what a SUBSCRIBE refers to.
    fn find_subscription(
        &mut self,
        request: &Request<'_>,
        Place { partition, dialog }: Place,
        package: &EventPackage,
        event_id: &[u8],
    ) -> Result<Found, Refusal> {
        let message = request.message;
        let from_tag = message.from().tag().unwrap_or_default();
        let to_tag = message.to().tag();
        let identity = request.identity();
        let cseq = message.cseq().number;
        let mut any = None;
        let mut exact = None;
        let mut merged = false;
        let mut repeated = None;
        let mut out_of_order = false;
        let mut siblings = 0;
        let mut room = std::mem::take(&mut self.scratch.user);
        let from = message.from().uri();
        let mut record = std::mem::take(&mut self.scratch.subscription);
        for id in self.subscriptions.of_dialog(partition, dialog) {
            let entry = &self.subscriptions[id];
            let files = self.files.presence_partition(partition);
            let Some(stored) = records::view_subscription(files, entry.slot, &mut record) else { continue };
            if stored.call_id != message.call_id() || stored.remote_tag != from_tag {
                continue;
            }
            siblings += 1;
            // Only who proved to be the one in From comes here while requests are challenged. Somebody else's dialog is none of
            // his, even if he knows its identifiers. Phones write From as they did before.
            if self.guard.challenges && stored.remote_uri != from {
                let sender = self.keys.aor_of_uri(from, &mut room);
                if sender.is_none() || self.keys.aor_of_uri(stored.remote_uri, &mut room) != sender {
                    continue;
                }
            }
            let same_dialog = match to_tag {
                Some(tag) => records::tag_text(partition, stored.local_tag)[..] == *tag,
                // The customer's document: "The subscription is verified with these two values", Call-ID and the
                // watcher's tag; installed clients refresh without our tag.
                None => self.settings.profile == Profile::Comsipl,
            };
            if stored.request == identity {
                repeated = Some(id);
            } else if to_tag.is_none() && stored.remote_cseq == cseq && !entry.ending {
                merged = true;
            }
            // One that ends is over for the watcher, whether or not its last NOTIFY is answered.
            if same_dialog && !entry.ending {
                any = Some(id);
                out_of_order |= cseq <= stored.remote_cseq;
                if stored.package.number == package.number && stored.event_id == event_id {
                    exact = Some(id);
                }
            }
        }
        self.scratch.subscription = record;
        self.scratch.user = room;
        if let Some(id) = repeated {
            return Ok(Found::Repeated(id));
        }
        if merged {
            // RFC 3261 §8.2.2.2: no To tag, and From tag, Call-ID and CSeq of a request that came by another way.
            return Err(Refusal::MergedRequest);
        }
        if any.is_some() && out_of_order {
            // RFC 3261 §12.2.2: "If the remote sequence number is … lower than the remote sequence number, the request is
            // out of order and MUST be rejected with a 500".
            return Err(Refusal::OutOfOrder);
        }
        match (exact, any) {
            (Some(id), _) => Ok(Found::Subscription(id)),
            // All that share Call-ID and From tag are looked through for each SUBSCRIBE, so they must be few, whether they
            // are one dialog or several.
            _ if siblings >= SUBSCRIPTIONS_PER_DIALOG_MAX => {
                Err(Refusal::Forbidden("Too Many Subscriptions in One Dialog"))
            }
            (None, Some(any)) => Ok(Found::Dialog { any }),
            (None, None) => Ok(Found::Nothing),
        }
    }

    /// Stores a new subscription and answers; the caller sends the NOTIFY to the number returned.
    fn create_subscription(
        &mut self,
        request: &Request<'_>,
        Place { partition, dialog }: Place,
        key: AorKey,
        tag: u64,
        cseq: u32,
        wish: &Wish<'_>,
    ) -> Result<u32, Refusal> {
        let message = request.message;
        let now = request.now;
        let contact = contact_uri(message).ok_or(Refusal::BadRequest("One Contact Is Needed"))?;
        let uri = usable(contact).ok_or(Refusal::BadRequest("Bad Contact URI"))?;
        if self.settings.tls.sips == SipsRule::Strict {
            check_target(contact, request.flow.transport.is_secure())?;
        }
        let mut route_set = std::mem::take(&mut self.scratch.routes);
        route_set.clear();
        push_route_set(message, &mut route_set);
        if route_set.len() > ROUTE_SET_LEN_MAX {
            self.scratch.routes = route_set;
            return Err(Refusal::BadRequest("Route Set Too Long"));
        }
        let (flow, name) = self.flow_toward(request, None, &route_set, Some(&uri));
        let unproved = self.aim(request, &flow);
        if unproved
            && wish.expires_secs > 0
            && let Err(refusal) = self.check_reach(request, &flow)
        {
            self.scratch.routes = route_set;
            return Err(refusal);
        }
        let from_tag = message.from().tag().unwrap_or_default();
        let secret = self.chance.next_u64() as u32;
        let record = StoredSubscription {
            key,
            local_tag: tag,
            expires_at: now.wall.plus_secs(wish.expires_secs),
            cseq_reserved: reservation(cseq, self.start),
            remote_cseq: message.cseq().number,
            accepted_at: now.wall,
            flow,
            package: wish.package,
            capitals: wish.capitals,
            info: wish.info,
            undelivered: false,
            came_by_udp: flow.transport.is_stream() && !request.flow.transport.is_stream(),
            request: request.identity(),
            aor: &self.scratch.aor,
            local_uri: message.to().uri(),
            remote_uri: message.from().uri(),
            remote_tag: from_tag,
            call_id: message.call_id(),
            remote_target: contact,
            route_set: &route_set,
            event_id: wish.id,
            user_agent: message.user_agent().unwrap_or_default(),
        };
        let stored = records::insert_subscription(self.files.presence_partition_mut(partition), &record);
        self.scratch.routes = route_set;
        let slot = stored.map_err(|what| full(self, what))?;
        let quirks = Quirks::of(message.user_agent().unwrap_or_default());
        let watched = self.watch(now, key, wish.package);
        let id = self.subscriptions.insert(
            Subscription {
                dialog,
                watched,
                slot,
                secret,
                partition,
                cseq,
                owed: true,
                ending: wish.expires_secs == 0,
                epoch: self.watched[watched].epoch,
                body: BodyKind::of(wish.package, wish.info, quirks),
                message_len_max: quirks.message_len_max.unwrap_or(0),
                unproved,
                ..Subscription::default()
            },
            &mut self.watched,
        );
        self.follow_connection(id, &flow, message.from().uri());
        if let Some(name) = name {
            self.await_name(now, id, *name);
        } else if names_instance(&uri) {
            self.await_flow_of_gruu(now, id);
        }
        self.subscriptions.expiry.arm(id, expires_at_mono(now, wish.expires_secs));
        if wish.expires_secs > 0 {
            self.watcher_came(now, id);
        }
        self.answer_subscribe(request, partition, tag, wish.expires_secs);
        Ok(id)
    }

    /// The flow by which the NOTIFYs of a SUBSCRIBE's dialog go, and the name that must be looked up before that is known. `id`: the
    /// subscription that it refreshes.
    fn flow_toward(
        &self,
        request: &Request<'_>,
        id: Option<u32>,
        route_set: &[u8],
        contact: Option<&Uri<'_>>,
    ) -> (Flow, Option<Box<Query>>) {
        let source = &request.flow;
        let outbound_proxy = self.settings.outbound_proxy.as_ref();
        let via = request.message.via();
        let mut hop = next_hop(route_set, contact.map(Target::of), via, source, outbound_proxy.is_some());
        if hop == NextHop::OutboundProxy
            && let Some(proxy) = outbound_proxy
        {
            if let Some(name) = proxy.name() {
                return self.flow_by_name(request.now, id, &name, source);
            }
            hop =
                proxy.address().map_or(NextHop::Back, |(transport, address)| NextHop::To(transport, address));
        }
        if hop == NextHop::Back
            && !source.transport.is_stream()
            && let Some(name) = HopName::of(route_set, contact)
        {
            return self.flow_by_name(request.now, id, &name, source);
        }
        (self.listeners.toward(source, hop), None)
    }

    /// Finds or makes the entry of a watched resource; the first watcher on this shard tells the owner.
    fn watch(&mut self, now: Now, key: AorKey, package: &EventPackage) -> u32 {
        if let Some(id) = self.watched.find(key) {
            return id;
        }
        let id = self.watched.insert(key, package.number);
        let note = Note::Watch { key, shard: self.number(), package: package.number };
        self.post_to(now, self.shard_of(key.partition()), note);
        id
    }

    /// Refreshes or ends a subscription (RFC 6665 §4.2.1.4).
    fn refresh_subscription(
        &mut self,
        request: &Request<'_>,
        id: u32,
        wish: &Wish<'_>,
    ) -> Result<(), Refusal> {
        let message = request.message;
        let now = request.now;
        let entry = &self.subscriptions[id];
        let (partition, slot) = (entry.partition, entry.slot);
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(partition);
        let outcome = match records::read_subscription(files, slot, &mut record) {
            None => Err(Refusal::NoSuchSubscription),
            Some(stored) => {
                self.scratch.aor.clear();
                self.scratch.aor.extend_from_slice(stored.aor);
                let mut next = stored;
                next.expires_at = now.wall.plus_secs(wish.expires_secs);
                next.remote_cseq = message.cseq().number;
                next.accepted_at = now.wall;
                next.request = request.identity();
                next.info = wish.info;
                // SUBSCRIBE is a target refresh request (RFC 6665 §4.4.1); the route set stays (RFC 3261 §12.2).
                // One that cannot be used is not taken.
                let target = match contact_uri(message).and_then(usable) {
                    Some(uri) => {
                        next.remote_target = uri.raw();
                        Some(uri)
                    }
                    None => Uri::parse(stored.remote_target).ok(),
                };
                let name;
                (next.flow, name) = self.flow_toward(request, Some(id), stored.route_set, target.as_ref());
                next.came_by_udp = next.flow.transport.is_stream() && !request.flow.transport.is_stream();
                let other_flow = next.flow != stored.flow;
                let moved = next.remote_target != stored.remote_target || other_flow;
                let may_be_unproved = other_flow || self.subscriptions[id].unproved;
                let unproved = may_be_unproved && self.aim(request, &next.flow);
                let files = self.files.presence_partition_mut(partition);
                let written = if moved {
                    records::update_subscription(files, slot, &next)
                } else {
                    records::update_subscription_fixed(files, slot, &next);
                    Ok(())
                };
                match written {
                    Ok(()) => {
                        if other_flow {
                            self.aim_again(now.mono, id, &next.flow);
                        }
                        self.subscriptions[id].unproved = unproved;
                        // The watcher is who made the dialog, whatever From says now.
                        self.follow_connection(id, &next.flow, stored.remote_uri);
                        let body = BodyKind::of(wish.package, wish.info, Quirks::of(stored.user_agent));
                        let is_gruu = target.as_ref().is_some_and(names_instance);
                        Ok((moved, name, is_gruu, stored.local_tag, body))
                    }
                    Err(what) => Err(full(self, what)),
                }
            }
        };
        self.scratch.subscription = record;
        let (moved, name, is_gruu, tag, body) = outcome?;
        let moved = self.forget_bound_flow(id) || moved;
        let entry = &mut self.subscriptions[id];
        entry.owed = true;
        entry.suspect = false;
        entry.failures = 0;
        entry.body = body;
        self.subscriptions.set_unreachable(id, false);
        if name.is_none() {
            self.await_no_name(id);
        }
        if let Some(name) = name {
            self.await_name(now, id, *name);
        } else if is_gruu {
            self.await_flow_of_gruu(now, id);
        }
        self.subscriptions.expiry.arm(id, expires_at_mono(now, wish.expires_secs));
        if wish.expires_secs > 0 {
            self.watcher_refreshed(now, id);
        } else {
            self.end_subscription(now, id, WatcherEvent::Timeout);
        }
        self.answer_subscribe(request, partition, tag, wish.expires_secs);
        if moved || !self.is_in_flight(id) {
            // A NOTIFY under way to the old address may never be answered; the watcher is somewhere else now.
            self.end_attempt(id);
            self.send_notify(now, id);
        }
        Ok(())
    }

    /// The same answer and a NOTIFY again, after a restart that came between the two.
    fn repeat_subscription(&mut self, request: &Request<'_>, id: u32) -> Result<(), Refusal> {
        let entry = &self.subscriptions[id];
        let (partition, slot) = (entry.partition, entry.slot);
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(partition);
        let stored = records::view_subscription(files, slot, &mut record);
        let now = request.now;
        let timed = self.wall.was_set(now).then(|| self.subscriptions.expiry.secs_left(id, now.mono));
        let said = stored.map(|s| {
            self.scratch.aor.clear();
            self.scratch.aor.extend_from_slice(s.aor);
            (s.local_tag, timed.unwrap_or_else(|| s.expires_at.secs_after(now.wall)))
        });
        self.scratch.subscription = record;
        let (tag, left) = said.ok_or(Refusal::NoSuchSubscription)?;
        // Never longer than was asked for (RFC 6665 §3.1.1): the clock may have been set back by less than shows.
        let left = left.min(request.expires_secs().unwrap_or(u32::MAX));
        self.answer_subscribe(request, partition, tag, left);
        let entry = &self.subscriptions[id];
        if entry.unreachable || (entry.awaits_flow && request.flow.connection.is_some()) {
            // The process that accepted it held another connection.
            self.await_no_name(id);
            self.renew_flow(request.now, id, request.flow);
        } else if !self.subscriptions[id].ending {
            // One that ends has its last NOTIFY under way.
            self.subscriptions[id].owed = true;
            self.notify_if_free(request.now, id);
        }
        Ok(())
    }

    /// 200 with what was granted; our Contact is where the watcher's next SUBSCRIBE goes. The AoR of the presentity is in the
    /// scratch buffer.
    fn answer_subscribe(&mut self, request: &Request<'_>, partition: u8, tag: u64, expires_secs: u32) {
        let tag = records::tag_text(partition, tag);
        let listeners = std::rc::Rc::clone(&self.listeners);
        let mut sent_by = SentBy::new();
        let sent_by = listeners.sent_by(&request.flow, &mut sent_by);
        let aor = std::mem::take(&mut self.scratch.aor);
        let [user, address, params, domain] = listeners.contact(&request.flow, sent_by, &aor);
        let is_strict = self.settings.tls.sips == SipsRule::Strict;
        let may_be_sips = request.flow.transport.is_secure() || !is_strict;
        let (scheme, params) = if may_be_sips && makes_secure_dialog(request.message) {
            (&b"<sips:"[..], sips_params(params))
        } else {
            (&b"<sip:"[..], params)
        };
        // RFC 6665 §4.4.4: Allow-Events belongs into "all methods which initiate dialogs and their responses"; in an answer within a
        // dialog it would be bytes for nothing. Installed ComSIPL clients get what they know.
        let makes_dialog = request.message.to().tag().is_none() && self.settings.profile == Profile::Rfc;
        self.answer(request, 200, "OK", Some(&tag), |writer| {
            // RFC 3261 §12.1.1: the answer that makes a dialog repeats Record-Route.
            for route in request.message.lines(comsipl_core::header::HeaderName::RecordRoute) {
                writer.header("Record-Route", route);
            }
            // Texts of our own, which have no line ends to be unfolded.
            let line = writer.buffer();
            for part in [b"Contact: ", scheme, user, address, params, domain, b">\r\n"] {
                line.extend_from_slice(part);
            }
            if makes_dialog {
                for part in ["Allow-Events: ", ALLOW_EVENTS, "\r\n"] {
                    line.extend_from_slice(part.as_bytes());
                }
            }
            writer.number("Expires", u64::from(expires_secs)).end_without_body();
        });
        self.scratch.aor = aor;
    }

    /// The user whom a stored subscription watches, and our tag; his AoR goes to the scratch buffer.
    fn user_and_tag(&mut self, id: u32) -> Option<(AorKey, u64)> {
        let entry = &self.subscriptions[id];
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(entry.partition);
        let found = records::view_subscription(files, entry.slot, &mut record).map(|stored| {
            self.scratch.aor.clear();
            self.scratch.aor.extend_from_slice(stored.aor);
            (self.keys.user_of(stored.key, stored.package), stored.local_tag)
        });
        self.scratch.subscription = record;
        found
    }

    /// A subscription ends, for the reason `event`: its next NOTIFY is the last, if there is one. Every end passes here, whether
    /// the watcher asked for it, time has run out or the subscription is [dropped](Self::drop_subscription); one that ends already
    /// goes on doing so, and polls are born ending.
    pub(crate) fn end_subscription(&mut self, now: Now, id: u32, event: WatcherEvent) {
        if !std::mem::replace(&mut self.subscriptions[id].ending, true) {
            self.watcher_ended(now, id, event);
        }
    }

    /// Removes a subscription at once: record, memory, and what is under way for it.
    pub(crate) fn drop_subscription(&mut self, now: Now, id: u32) {
        self.end_attempt(id);
        self.forget_connection(id);
        self.forget_bound_flow(id);
        self.end_subscription(now, id, WatcherEvent::Deactivated);
        let subscription = self.subscriptions.remove(id, &mut self.watched);
        self.files.presence_partition_mut(subscription.partition).remove(subscription.slot);
        self.forget_if_unwatched(now, subscription.watched);
    }
}

//! Watchers by UDP whose registration leads to them better than the source of their SUBSCRIBE.
//!
//! Two kinds of NOTIFYs go by the flow that the watcher's device has registered, if there is one:
//!   * one that is too long for UDP, by the connection of a binding: "the request MUST be sent using an RFC 2914 congestion
//!     controlled transport protocol, such as TCP" (RFC 3261 §18.1.1). None is dialled for it, because phones seldom take any;
//!   * any whose Contact is a GRUU: that is processed "just like it was the AOR, but with only a subset of the contacts bound to
//!     the AOR" (RFC 5627 §6.1). A Contact with `ob` alone wants the flow of its SUBSCRIBE (RFC 5626 §4.3).
//!
//! The subscription's record keeps its own flow, and our Contact names that: when the other breaks, UDP goes on as before.
//!
//! | state | input | next |
//! |---|---|---|
//! | not asked | a NOTIFY too long for UDP, a SUBSCRIBE with a GRUU | asked, and the NOTIFY is owed meanwhile |
//! | asked | the flow is found, or there is none | known, or nothing |
//! | known | NOTIFY unsent or unanswered | known without a flow: UDP |
//! | known | the device registers on a new connection | known |
//! | any | SUBSCRIBE | not asked |
//!
//! A route set wins over all this ("the Path URI MUST be discarded", RFC 5627 §6.1), and so does whatever else leads to the watcher
//! but UDP. Bindings with a Path are left alone: their NOTIFYs would need its routes.

use std::collections::{BTreeMap, BTreeSet};

use comsipl_core::sips::is_sips;
use comsipl_core::{AorKey, Flow, Now, UnixMillis, Uri};

use super::{device_of, device_of_instance};
use crate::note::{DeviceKey, Note};
use crate::records;
use crate::shard::Shard;
use crate::sipl::urn_of;
use crate::watched::NONE;

/// Subscriptions of a shard that may have, or ask for, another flow; those of more go by UDP.
const BOUND_FLOWS_MAX: usize = 1 << 16;

/// Subscriptions of one device that go on by its new connection at once; those of more go by UDP.
const RENEWED_MAX: usize = 1024;

/// What a subscription knows of the flow that its watcher's device has registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// Nobody needed it.
    #[default]
    NotAsked,
    /// The registrar is asked.
    Asked,
    /// It is among the [`BoundFlows`].
    Known,
    /// There is none that is better than its own.
    Nothing,
}

/// How a NOTIFY is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By the flow of the subscription, unless it is too long for that and there may be another.
    Short,
    /// By the flow of the subscription, however long.
    Stored,
    /// By the flow of the binding.
    Bound,
}

/// The flow of one subscription's binding.
#[derive(Debug)]
struct BoundFlow {
    /// The watcher.
    watcher: AorKey,
    /// Its device.
    device: DeviceKey,
    /// Whether all NOTIFYs go by it; otherwise those that are too long for UDP.
    any: bool,
    /// Number of the question.
    question: u32,
    /// The flow; `None` before it is known, and after it has failed.
    flow: Option<Flow>,
}

/// The flows of bindings that a shard's subscriptions use beside their own; nothing for nearly all.
#[derive(Debug, Default)]
pub(crate) struct BoundFlows {
    each: BTreeMap<u32, BoundFlow>,
    by_device: BTreeSet<(DeviceKey, u32)>,
    questions: u32,
}

impl BoundFlows {
    /// A subscription asks; gives the number of the question, or `None` if too many do.
    fn ask(&mut self, id: u32, watcher: AorKey, device: DeviceKey, any: bool) -> Option<u32> {
        if self.each.len() >= BOUND_FLOWS_MAX {
            return None;
        }
        self.questions = self.questions.wrapping_add(1);
        let question = self.questions;
        self.remove(id);
        self.each.insert(id, BoundFlow { watcher, device, any, question, flow: None });
        self.by_device.insert((device, id));
        Some(question)
    }

    fn remove(&mut self, id: u32) {
        if let Some(gone) = self.each.remove(&id) {
            self.by_device.remove(&(gone.device, id));
        }
    }

    /// The flow of a subscription's binding.
    pub(super) fn of(&self, id: u32) -> Option<Flow> {
        self.each.get(&id)?.flow
    }

    /// The subscriptions of a watcher's device.
    fn of_device(&self, watcher: AorKey, device: DeviceKey) -> Vec<u32> {
        let of_device = self.by_device.range((device, 0)..=(device, u32::MAX)).map(|&(_, id)| id);
        of_device.filter(|id| self.each[id].watcher == watcher).take(RENEWED_MAX).collect()
    }
}

impl Shard {
    /// How the next NOTIFY of a subscription is written whose binding is known.
    #[cold]
    pub(super) fn way_if_bound(&self, id: u32) -> Way {
        match self.bound_flows.each.get(&id) {
            Some(BoundFlow { flow: Some(_), any: true, .. }) => Way::Bound,
            Some(BoundFlow { flow: Some(_), .. }) => Way::Short,
            _ => Way::Stored,
        }
    }

    /// How a NOTIFY is written that is too long for UDP; `None`: that is being asked, and it waits.
    #[cold]
    pub(super) fn way_of_long(&mut self, now: Now, id: u32) -> Option<Way> {
        if self.subscriptions[id].bound == Bound::NotAsked {
            self.ask_for_flow(now, id, false);
        }
        let entry = &mut self.subscriptions[id];
        match entry.bound {
            Bound::Known => Some(Way::Bound),
            Bound::Asked => {
                entry.awaits_flow = true;
                None
            }
            Bound::NotAsked | Bound::Nothing => Some(Way::Stored),
        }
    }

    /// Has the NOTIFYs of a subscription whose Contact is a GRUU wait for the flow of its binding.
    pub(crate) fn await_flow_of_gruu(&mut self, now: Now, id: u32) {
        self.ask_for_flow(now, id, true);
        let entry = &mut self.subscriptions[id];
        entry.awaits_flow |= entry.bound == Bound::Asked;
    }

    /// Asks the registrar for the flow of a subscription's device. `any`: for all NOTIFYs, and datagrams will do.
    fn ask_for_flow(&mut self, now: Now, id: u32, any: bool) {
        let entry = &self.subscriptions[id];
        let files = self.files.presence_partition(entry.partition);
        let stored = records::view_subscription(files, entry.slot, &mut self.scratch.subscription);
        let asked = stored
            .filter(|stored| {
                let is_its_own = stored.route_set.is_empty() && self.settings.outbound_proxy.is_none();
                is_its_own && !stored.flow.transport.is_stream() && !is_sips(stored.remote_target)
            })
            .and_then(|stored| {
                let device = device_of(&self.keys, stored.remote_target)?;
                Some((self.keys.aor_of_uri(stored.remote_uri, &mut self.scratch.user)?, device))
            });
        let Some((watcher, device)) = asked else {
            self.subscriptions[id].bound = Bound::Nothing;
            return;
        };
        let Some(question) = self.bound_flows.ask(id, watcher, device, any) else { return };
        self.subscriptions[id].bound = Bound::Asked;
        let note = Note::FlowWanted { watcher, device, any, shard: self.number(), id, question };
        self.post_to(now, self.shard_of(watcher.partition()), note);
    }

    /// The flow by which a device of a user of ours has registered last, if there is one that will do: a connection, or anything if
    /// `any` will.
    pub(crate) fn flow_of_device(&mut self, watcher: AorKey, device: DeviceKey, any: bool) -> Option<Flow> {
        let user = self.presentities.find(watcher)?;
        let files = self.files.registered_partition(watcher.partition());
        let mut newest: Option<(UnixMillis, Flow)> = None;
        // One that registers a flow for each transport has a Contact for each, and one instance.
        let mut devices = [Some(device), None];
        for round in 0..2 {
            for number in self.presentities.bindings_of(user) {
                let slot = self.presentities.bindings[number].slot;
                let Some(stored) = records::view_binding(files, slot, &mut self.scratch.document) else {
                    continue;
                };
                let instance = urn_of(stored.instance).map(|urn| device_of_instance(&self.keys, urn));
                let place = device_of(&self.keys, stored.contact);
                let is_it = [place, instance].iter().any(|it| it.is_some() && devices.contains(it));
                if round == 0 {
                    if is_it && instance.is_some() {
                        devices[1] = instance;
                    }
                    continue;
                }
                let will_do = stored.flow.connection.is_some() || any && !stored.flow.transport.is_stream();
                if is_it && will_do && stored.path.is_empty() {
                    newest = newest.max(Some((stored.registered_at, stored.flow)));
                }
            }
        }
        newest.map(|(_, flow)| flow)
    }

    /// The registrar says by which flow a subscription's device has registered.
    pub(crate) fn on_flow_found(&mut self, now: Now, id: u32, question: u32, flow: Option<Flow>) {
        let is_asked = self.bound_flows.each.get(&id).is_some_and(|it| it.question == question);
        if !is_asked || self.subscriptions[id].bound != Bound::Asked {
            return;
        }
        let entry = &self.subscriptions[id];
        let files = self.files.presence_partition(entry.partition);
        let stored = records::view_subscription(files, entry.slot, &mut self.scratch.subscription);
        let own = stored.map(|stored| stored.flow);
        // A datagram to somebody else than its own source must be wanted there.
        let better = flow.filter(|flow| Some(*flow) != own && !self.is_unproved(now.mono, flow, None));
        if better.is_none() {
            self.bound_flows.remove(id);
        } else if let Some(bound) = self.bound_flows.each.get_mut(&id) {
            bound.flow = better;
        }
        let entry = &mut self.subscriptions[id];
        entry.bound = if better.is_some() { Bound::Known } else { Bound::Nothing };
        if std::mem::take(&mut entry.awaits_flow) && self.is_owed(id) {
            self.notify_if_free(now, id);
        }
    }

    /// Forgets the flow of a subscription's binding; says whether a NOTIFY is under way by it, which cannot be sent again then.
    pub(crate) fn forget_bound_flow(&mut self, id: u32) -> bool {
        if std::mem::take(&mut self.subscriptions[id].bound) == Bound::NotAsked {
            return false;
        }
        let is_under_way = self.is_by_binding(id);
        if is_under_way || self.subscriptions[id].attempt == NONE {
            self.draw_secret(id);
        }
        self.bound_flows.remove(id);
        is_under_way
    }

    /// Has nobody who saw NOTIFYs by the flow of the binding answer those that follow by the subscription's own, whose address may have
    /// proved nothing yet.
    fn draw_secret(&mut self, id: u32) {
        if self.bound_flows.of(id).is_some() {
            self.subscriptions[id].secret = self.chance.next_u64() as u32;
        }
    }

    /// Whether a subscription has a NOTIFY under way by the flow of its binding.
    pub(super) fn is_by_binding(&self, id: u32) -> bool {
        let attempt = self.subscriptions[id].attempt;
        attempt != NONE && self.attempts[attempt].by_binding
    }

    /// A NOTIFY could not be sent, or was not answered: one that went by the flow of a binding goes by UDP now, and so do those that
    /// follow. Says whether it was one.
    pub(super) fn fall_back(&mut self, now: Now, id: u32) -> bool {
        if !self.is_by_binding(id) {
            return false;
        }
        self.draw_secret(id);
        if let Some(bound) = self.bound_flows.each.get_mut(&id) {
            bound.flow = None;
        }
        self.end_attempt(id);
        self.subscriptions[id].owed = true;
        self.send_notify(now, id);
        true
    }

    /// A device of `watcher` has registered on a new connection: what went by its former one goes by that. Says how many
    /// subscriptions it was.
    pub(super) fn renew_bound_flows(
        &mut self,
        now: Now,
        watcher: AorKey,
        device: DeviceKey,
        flow: Flow,
    ) -> usize {
        let ids = self.bound_flows.of_device(watcher, device);
        for &id in &ids {
            let Some(bound) = self.bound_flows.each.get_mut(&id) else { continue };
            if self.subscriptions[id].bound != Bound::Known || bound.flow == Some(flow) {
                continue;
            }
            bound.flow = Some(flow);
            if self.is_by_binding(id) && self.is_in_flight(id) {
                // The former connection may be gone without anybody's knowing.
                self.end_attempt(id);
                self.subscriptions[id].owed = true;
                self.send_notify(now, id);
            }
        }
        ids.len()
    }
}

/// Whether a Contact is a GRUU of a device: one that names its instance. What we make ourselves has a domain there.
pub(crate) fn names_instance(contact: &Uri<'_>) -> bool {
    let urn = contact.params.value("gr").and_then(|value| value.get(..4));
    urn.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"urn:"))
}

#[cfg(test)]
mod tests;

//! Watchers and their connections.
//!
//! A phone that came in over a connection is reached by that connection alone: nothing listens at the other end's port. When
//! the connection breaks, the subscription stays as it was granted (RFC 6665 §4.2.2 removes it for a NOTIFY that is refused
//! or times out; this one was not sent), and the newest state is owed until the phone comes back
//! (a connection that lives and only has no room is tried again after a pause instead):
//!   * by a SUBSCRIBE in the dialog, over whatever flow;
//!   * by a REGISTER over a new connection: the subscriptions of the same device go on over that (RFC 5626 §6 has it so for
//!     the binding, whose newest flow counts). The device is known by its Contact, or by its instance where the Contact is a
//!     public GRUU. The old connection need not be known to be dead.
//!
//! A proxy that record-routes is dialled instead, looked up if it has a name. Connections end with the process, so after a start all watchers that were
//! reached by one are unreachable.

use std::collections::VecDeque;

use comsipl_core::aor::canonical_into;
use comsipl_core::dialog::{NextHop, Target, first_route};
use comsipl_core::{AorKey, Flow, HashKey, Now, Transport, Uri, subscription};

use crate::note::DeviceKey;
use crate::records::{self, StoredSubscription};
use crate::resolve::names::Failure;
use crate::shard::Shard;
use crate::sipp::attempt::Phase;
use crate::sipp::branch::{Mark, check_of};
use crate::watched::NONE;

/// Subscriptions of one watcher that are looked at when one of its devices has a new connection; whoever has more is no
/// phone, and the others wait for their next SUBSCRIBE.
const RENEWED_MAX: usize = 4096;

/// Subscriptions looked at for new connections in one turn before the rest waits for the next: whoever makes many of one watcher
/// and changes his connection all the time does not hold up the others.
const RENEWED_PER_TURN: usize = 1024;
/// Devices with new connections that wait for their turn; beyond it their subscriptions wait for their next SUBSCRIBE.
const RENEWALS_MAX: usize = 16_384;

/// Devices that have new connections, and whose subscriptions have not been looked through yet.
#[derive(Default)]
pub(crate) struct Renewals {
    waiting: VecDeque<(AorKey, DeviceKey, Flow)>,
    /// Subscriptions looked at in this turn.
    looked_at: usize,
}

/// What is left when a NOTIFY could not be sent.
enum Way {
    /// Another flow leads to the watcher, and is stored.
    Other,
    /// The same way is tried again later: the address is dialled, or the connection has room then.
    Again,
    /// The watcher must come back.
    None,
}

impl Shard {
    /// A NOTIFY could not be sent. `lives`: its connection may live yet, and there only was no room for the one or the other.
    pub(crate) fn on_unsent(&mut self, now: Now, mark: Mark, lives: bool) {
        let id = mark.id;
        if !self.subscriptions.knows(id) {
            return;
        }
        let entry = &self.subscriptions[id];
        let is_it = entry.partition == mark.partition
            && self.is_in_flight(id)
            && check_of(entry.secret, self.attempts[entry.attempt].cseq) == mark.check;
        if !is_it {
            // It was given up meanwhile, or its subscription is gone.
            return;
        }
        self.counters.notifies_unsent.up();
        let is_last = entry.ending && !entry.owed;
        if !lives && self.fall_back(now, id) {
            return;
        }
        if !lives && self.fail_over(now, id, Failure::Transport) {
            return;
        }
        // A peer that is slow, or a lane to the holder of its connection that is full: the same way does later.
        let way = if lives { Way::Again } else { self.way_left(now, id) };
        match way {
            Way::Other => {
                self.end_attempt(id);
                self.subscriptions[id].owed = true;
                self.mark_undelivered(id, true);
                self.send_notify(now, id);
            }
            Way::Again if is_last => self.drop_subscription(now, id),
            // One that has run out meanwhile has no timer left, and nothing would bring it back.
            Way::None if self.subscriptions[id].ending => self.drop_subscription(now, id),
            Way::Again => {
                // RFC 3261 §8.1.3.1: a transport error is treated as a 503.
                let entry = &self.subscriptions[id];
                let after = subscription::after_answer(503, None, entry.failures, entry.suspect);
                self.after_notify(now, id, after);
            }
            Way::None => {
                self.end_attempt(id);
                self.subscriptions[id].owed = true;
                self.subscriptions.set_unreachable(id, true);
                self.mark_undelivered(id, true);
            }
        }
    }

    /// The way to a watcher whose present one has failed.
    fn way_left(&mut self, now: Now, id: u32) -> Way {
        let entry = &self.subscriptions[id];
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(entry.partition);
        let way = match records::read_subscription(files, entry.slot, &mut record) {
            Some(stored) if self.find_other_way(now, id, &stored) => Way::Other,
            Some(stored) if stored.flow.connection.is_none() => Way::Again,
            _ => Way::None,
        };
        self.scratch.subscription = record;
        way
    }

    /// Stores another flow to a watcher whose present one has failed, if there is any: the proxy that record-routed is
    /// dialled when its connection is gone, and UDP does where nobody takes the connection that a Contact asks for.
    pub(crate) fn find_other_way(&mut self, now: Now, id: u32, stored: &StoredSubscription<'_>) -> bool {
        let flow = if stored.flow.connection.is_some() {
            let route = first_route(stored.route_set).and_then(|route| Uri::parse(route).ok());
            let Some(Target { address: Some(address), transport, .. }) = route.map(|uri| Target::of(&uri))
            else {
                return false;
            };
            let transport = transport.unwrap_or(stored.flow.transport);
            if transport.is_web_socket() {
                return false;
            }
            self.listeners.toward(&stored.flow, NextHop::To(transport, address))
        } else if stored.came_by_udp && !stored.flow.transport.is_secure() {
            self.listeners.toward(&stored.flow, NextHop::To(Transport::Udp, stored.flow.peer))
        } else {
            return false;
        };
        let is_other = flow != stored.flow;
        if is_other {
            self.change_flow(now, id, stored, flow);
        }
        is_other
    }

    /// A device of `watcher` has registered on a new connection.
    pub(crate) fn on_flow_renewed(&mut self, now: Now, watcher: AorKey, device: DeviceKey, flow: Flow) {
        let Renewals { waiting, looked_at } = &mut self.renewals;
        if waiting.is_empty() && *looked_at < RENEWED_PER_TURN {
            self.renew_flows(now, watcher, device, flow);
        } else if waiting.len() < RENEWALS_MAX {
            // In order: of two connections of a device the newer one counts.
            waiting.push_back((watcher, device, flow));
        }
    }

    /// Begins a turn: looks through the subscriptions of the devices that wait; says whether more do.
    pub(crate) fn renew_waiting(&mut self, now: Now) -> bool {
        self.renewals.looked_at = 0;
        while self.renewals.looked_at < RENEWED_PER_TURN {
            let Some((watcher, device, flow)) = self.renewals.waiting.pop_front() else { return false };
            self.renew_flows(now, watcher, device, flow);
        }
        !self.renewals.waiting.is_empty()
    }

    /// Goes on over `flow` with the subscriptions of a device.
    fn renew_flows(&mut self, now: Now, watcher: AorKey, device: DeviceKey, flow: Flow) {
        let ids: Vec<u32> = self.subscriptions.of_watcher(watcher).take(RENEWED_MAX).collect();
        let bound = self.renew_bound_flows(now, watcher, device, flow);
        self.renewals.looked_at += 1 + ids.len() + bound;
        for id in ids {
            if !self.subscriptions.knows(id) {
                continue;
            }
            let entry = &self.subscriptions[id];
            let files = self.files.presence_partition(entry.partition);
            let record = &mut self.scratch.subscription;
            let Some(stored) = records::view_subscription(files, entry.slot, record) else { continue };
            let is_on_it = stored.flow.connection == flow.connection;
            // A proxy's connection is not the phone's.
            let is_routed = !stored.route_set.is_empty() && !entry.unreachable;
            let is_device = device_of(&self.keys, stored.remote_target) == Some(device)
                && self.keys.aor_of_uri(stored.remote_uri, &mut self.scratch.user) == Some(watcher);
            if is_device && !is_on_it && !is_routed {
                self.renew_flow(now, id, flow);
            }
        }
    }

    /// Goes on with a subscription over another flow. What was under way is sent anew.
    pub(crate) fn renew_flow(&mut self, now: Now, id: u32, flow: Flow) {
        let entry = &self.subscriptions[id];
        let (partition, slot, attempt) = (entry.partition, entry.slot, entry.attempt);
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(partition);
        if let Some(stored) = records::read_subscription(files, slot, &mut record) {
            self.change_flow(now, id, &stored, flow);
        }
        self.scratch.subscription = record;
        self.subscriptions.set_unreachable(id, false);
        let entry = &mut self.subscriptions[id];
        (entry.suspect, entry.failures) = (false, 0);
        if attempt != NONE {
            if self.attempts[attempt].phase == (Phase::Paused { wait_for_it: true }) {
                // The watcher asked for quiet, wherever it is.
                return;
            }
            entry.owed = true;
            self.end_attempt(id);
            self.mark_undelivered(id, true);
        }
        if self.is_owed(id) {
            self.send_notify(now, id);
        }
    }

    /// Stores the flow of a subscription.
    pub(crate) fn change_flow(&mut self, now: Now, id: u32, stored: &StoredSubscription<'_>, flow: Flow) {
        let entry = &self.subscriptions[id];
        let came_by_udp = stored.came_by_udp && flow.transport.is_stream() && flow.connection.is_none();
        let next = StoredSubscription { flow, came_by_udp, ..*stored };
        let partition = self.files.presence_partition_mut(entry.partition);
        records::update_subscription_fixed(partition, entry.slot, &next);
        self.aim_again(now.mono, id, &flow);
        self.follow_connection(id, &flow, stored.remote_uri);
    }

    /// Notes whether a subscription is reached by a connection now; `watcher` is the From URI of its SUBSCRIBE.
    pub(crate) fn follow_connection(&mut self, id: u32, flow: &Flow, watcher: &[u8]) {
        let connected = flow.connection.is_some();
        self.local_ips.note(flow);
        if connected != self.subscriptions[id].connected
            && let Some(watcher) = self.keys.aor_of_uri(watcher, &mut self.scratch.user)
        {
            self.subscriptions.set_connected(id, watcher, connected);
        }
    }

    /// A subscription ends.
    pub(crate) fn forget_connection(&mut self, id: u32) {
        let entry = &self.subscriptions[id];
        if !entry.connected {
            return;
        }
        let files = self.files.presence_partition(entry.partition);
        let record = &mut self.scratch.subscription;
        let stored = records::view_subscription(files, entry.slot, record);
        let watcher = stored.and_then(|s| self.keys.aor_of_uri(s.remote_uri, &mut self.scratch.user));
        match watcher {
            Some(watcher) => self.subscriptions.set_connected(id, watcher, false),
            None => self.subscriptions.forget_connected(id),
        }
    }
}

/// What tells the device of a Contact from the user's others: user, host and port of the URI; parameters such as `ob` come
/// and go. A public GRUU names the instance itself. `None`: it names no place.
pub(crate) fn device_of(keys: &HashKey, contact: &[u8]) -> Option<DeviceKey> {
    let uri = Uri::parse(contact).ok()?;
    if let Some(urn) = uri.params.value("gr") {
        return Some(device_of_instance(keys, urn));
    }
    let mut place = Vec::new();
    canonical_into(&uri, &mut place).ok()?;
    Some(DeviceKey(keys.of(&[b"contact", &place, &uri.port.unwrap_or(0).to_be_bytes()])))
}

/// The device whose instance has this URN; URNs of the kinds that phones have are the same in capitals and in small letters
/// (RFC 4122 §3: "case insensitive on input" for UUIDs).
pub(crate) fn device_of_instance(keys: &HashKey, urn: &[u8]) -> DeviceKey {
    DeviceKey(keys.of(&[b"instance", &urn.to_ascii_lowercase()]))
}

#[cfg(test)]
mod tests;

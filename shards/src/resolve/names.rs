//! What a shard knows of names, and the subscriptions that wait for one.

use std::collections::BTreeMap;

use comsipl_core::dialog::NextHop;
use comsipl_core::locate::HopName;
use comsipl_core::{Flow, Mono, Now, Uri};

use super::{Answer, Found, NEGATIVE_TTL, Query, TTL_MAX, TTL_MIN};
use crate::records::{self, StoredSubscription};
use crate::shard::Shard;
use crate::watched::NONE;

/// Most names that a shard remembers; beyond it those go first whose time is up first.
pub const CACHE_MAX: usize = 1024;
/// Most names that a shard waits for; beyond it sources stand in at once.
pub const WAITING_MAX: usize = 1024;

/// The names of a shard.
#[derive(Debug, Default)]
pub(crate) struct Names {
    cache: BTreeMap<Query, Cached>,
    waiting: BTreeMap<Query, Waiting>,
    /// Answers that have come and were not looked at.
    pub(crate) answers: Vec<Answer>,
}

#[derive(Debug)]
struct Cached {
    found: Option<Found>,
    until: Mono,
}

#[derive(Debug)]
struct Waiting {
    until: Mono,
    subscriptions: Vec<u32>,
}

impl Names {
    /// When the shard must look next.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        if !self.answers.is_empty() {
            return Some(Mono(0));
        }
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    fn remember(&mut self, now: Mono, answer: &Answer) {
        let ttl = match answer.found {
            Some(_) => answer.ttl.clamp(TTL_MIN, TTL_MAX),
            None => answer.ttl.min(NEGATIVE_TTL),
        };
        if self.cache.len() >= CACHE_MAX && !self.cache.contains_key(&answer.query) {
            self.cache.retain(|_, cached| cached.until > now);
            let first =
                self.cache.iter().min_by_key(|(_, cached)| cached.until).map(|(query, _)| query.clone());
            if let Some(first) = first.filter(|_| self.cache.len() >= CACHE_MAX) {
                self.cache.remove(&first);
            }
        }
        self.cache.insert(answer.query.clone(), Cached { found: answer.found, until: now + ttl });
    }
}

impl Shard {
    /// The flow to a next hop that is given by name, for a SUBSCRIBE that came on `source`, and what must be asked before
    /// it is known.
    #[cold]
    pub(crate) fn flow_by_name(
        &self,
        now: Now,
        name: &HopName<'_>,
        source: &Flow,
    ) -> (Flow, Option<Box<Query>>) {
        let Some(query) = Query::new(name, source.peer.is_ipv4()) else { return (*source, None) };
        match self.names.cache.get(&query) {
            Some(Cached { found: Some(found), until }) if *until > now.mono => {
                (self.listeners.toward(source, NextHop::To(found.transport, found.address)), None)
            }
            Some(Cached { found: None, until }) if *until > now.mono => (*source, None),
            _ => (*source, Some(Box::new(query))),
        }
    }

    /// Has the NOTIFYs of a subscription wait for a name. Its record names the source meanwhile.
    pub(crate) fn await_name(&mut self, now: Now, id: u32, query: Query) {
        let until = now.mono + self.settings.resolver.timeout;
        let names = &mut self.names;
        if !names.waiting.contains_key(&query) {
            if names.waiting.len() >= WAITING_MAX {
                self.counters.names_not_asked.up();
                self.subscriptions[id].awaits_name = false;
                return;
            }
            self.counters.names_asked.up();
            self.lookups.push(query.clone());
            names.waiting.insert(query.clone(), Waiting { until, subscriptions: Vec::new() });
        }
        let was_waiting = std::mem::replace(&mut self.subscriptions[id].awaits_name, true);
        let waiting = names.waiting.get_mut(&query).expect("just seen or made");
        if !was_waiting || !waiting.subscriptions.contains(&id) {
            waiting.subscriptions.push(id);
        }
    }

    /// Takes back what the caller could not hand to the resolver: the sources stand in.
    pub fn lookup_refused(&mut self, query: Query) {
        self.counters.names_not_asked.up();
        self.names.answers.push(Answer { query, found: None, ttl: std::time::Duration::ZERO });
    }

    /// Goes on with the subscriptions whose names are known now, or will not be.
    pub(crate) fn take_names(&mut self, now: Now) {
        if self.names.answers.is_empty() && self.names.waiting.is_empty() {
            return;
        }
        for answer in std::mem::take(&mut self.names.answers) {
            self.take_name(now, &answer);
        }
        let late = self.names.waiting.iter().filter(|(_, waiting)| waiting.until <= now.mono);
        for query in late.map(|(query, _)| query.clone()).collect::<Vec<_>>() {
            self.take_name(now, &Answer { query, found: None, ttl: NEGATIVE_TTL });
        }
    }

    fn take_name(&mut self, now: Now, answer: &Answer) {
        self.names.remember(now.mono, answer);
        if answer.found.is_none() {
            self.counters.names_not_found.up();
        }
        let Some(waiting) = self.names.waiting.remove(&answer.query) else { return };
        for id in waiting.subscriptions {
            if self.subscriptions.knows(id) && self.subscriptions[id].awaits_name {
                self.go_on_by_name(now, id, answer);
            }
        }
    }

    /// Stores the flow of a subscription that has waited for a name, and sends what is owed. One that waits for another name by
    /// now stays as it is; one whose Contact has changed without a SUBSCRIBE, by the answer to a NOTIFY, goes on as that left it.
    fn go_on_by_name(&mut self, now: Now, id: u32, answer: &Answer) {
        let entry = &self.subscriptions[id];
        let (partition, slot) = (entry.partition, entry.slot);
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(partition);
        let mut moved = false;
        if let Some(stored) = records::read_subscription(files, slot, &mut record) {
            let target = Uri::parse(stored.remote_target).ok();
            let name = HopName::of(stored.route_set, target.as_ref());
            let query = name.and_then(|name| Query::new(&name, stored.flow.peer.is_ipv4()));
            let is_it = query.as_ref() == Some(&answer.query);
            if let Some(found) = answer.found.filter(|_| is_it) {
                let flow = self.listeners.toward(&stored.flow, NextHop::To(found.transport, found.address));
                moved = flow != stored.flow;
                if moved {
                    let next = StoredSubscription { flow, came_by_udp: flow.transport.is_stream(), ..stored };
                    records::update_subscription_fixed(
                        self.files.presence_partition_mut(partition),
                        slot,
                        &next,
                    );
                    self.aim_again(now.mono, id, &flow);
                }
            }
        }
        self.scratch.subscription = record;
        if self.names.waiting.values().any(|waiting| waiting.subscriptions.contains(&id)) {
            return;
        }
        self.subscriptions[id].awaits_name = false;
        if moved && self.subscriptions[id].attempt != NONE {
            // What is under way goes to the source, and may never be answered.
            self.end_attempt(id);
            self.subscriptions[id].owed = true;
        }
        if self.is_owed(id) {
            self.notify_if_free(now, id);
        }
    }
}

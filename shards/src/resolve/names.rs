//! What a shard knows of names, and the subscriptions that wait for one.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use comsipl_core::dialog::NextHop;
use comsipl_core::locate::HopName;
use comsipl_core::{Flow, Mono, Now, Uri};

use super::failed::{FAILED_SPAN, Failed, Whose};
use super::{Answer, Found, NEGATIVE_TTL, Query, TTL_MAX, TTL_MIN};
use crate::records::{self, StoredSubscription};
use crate::shard::Shard;
use crate::watched::NONE;

/// Most names that a shard remembers; beyond it those go first whose time is up first.
pub const CACHE_MAX: usize = 1024;
/// Most names that a shard waits for; beyond it sources stand in at once.
pub const WAITING_MAX: usize = 1024;
/// Subscriptions that go on with a name in one turn, and so NOTIFYs that a turn may start beside those of the fan-out; the rest waits
/// for the next. All that are behind one proxy may wait for one name.
const PER_TURN: usize = 64;

/// The names of a shard.
#[derive(Debug, Default)]
pub(crate) struct Names {
    cache: BTreeMap<Query, Cached>,
    waiting: BTreeMap<Query, Waiting>,
    /// Which question a subscription waits for, by its number. Lists may have it from earlier questions, too.
    waits_for: BTreeMap<u32, u64>,
    /// Questions that are answered, or will not be, and whose subscriptions have not all gone on.
    settled: VecDeque<Settled>,
    /// Number of the question that was asked last.
    last_question: u64,
    failed: Failed,
    /// Answers that have come and were not looked at.
    pub(crate) answers: Vec<Answer>,
}

#[derive(Debug)]
struct Cached {
    found: Vec<Found>,
    until: Mono,
}

#[derive(Debug)]
struct Waiting {
    until: Mono,
    question: u64,
    subscriptions: Vec<u32>,
}

#[derive(Debug)]
struct Settled {
    answer: Answer,
    question: u64,
    subscriptions: std::vec::IntoIter<u32>,
}

/// Why a NOTIFY failed where its name led (RFC 3263 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made, or it broke.
    Transport,
    /// The answer was 503.
    Unavailable {
        /// For how long, in seconds, if it said so.
        retry_after: Option<u32>,
    },
    /// Timer F.
    Silence,
}

/// The place of a name that is tried next.
enum NextPlace {
    /// The flow of the subscription leads there.
    Stored,
    /// It must be asked for.
    Asked(Query),
}

impl Names {
    /// When the shard must look next.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        if !self.answers.is_empty() || !self.settled.is_empty() {
            return Some(Mono(0));
        }
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    fn remember(&mut self, now: Mono, answer: &Answer) {
        // Nothing is forgotten at once: who asks again for each NOTIFY that fails would not come to an end.
        let ttl_max = if answer.found.is_empty() { NEGATIVE_TTL } else { TTL_MAX };
        let ttl = answer.ttl.clamp(TTL_MIN, ttl_max);
        if self.cache.len() >= CACHE_MAX && !self.cache.contains_key(&answer.query) {
            self.cache.retain(|_, cached| cached.until > now);
            let first =
                self.cache.iter().min_by_key(|(_, cached)| cached.until).map(|(query, _)| query.clone());
            if let Some(first) = first.filter(|_| self.cache.len() >= CACHE_MAX) {
                self.cache.remove(&first);
            }
        }
        self.cache.insert(answer.query.clone(), Cached { found: answer.found.clone(), until: now + ttl });
    }

    /// Where a name is known to lead; `None`: it must be looked up.
    fn known(&self, now: Mono, query: &Query) -> Option<&[Found]> {
        self.cache.get(query).filter(|cached| cached.until > now).map(|cached| &cached.found[..])
    }

    /// Which of the places that a name leads to is tried: one that has not failed, or the first if all have.
    fn choose(&self, now: Mono, id: Option<u32>, places: &[Found]) -> Option<Found> {
        self.failed.first_good(now, id, places).or(places.first().copied())
    }
}

impl Shard {
    /// The flow to a next hop that is given by name, for a SUBSCRIBE that came on `source` and refreshes the subscription `id` if
    /// there is one, and what must be asked before it is known.
    #[cold]
    pub(crate) fn flow_by_name(
        &self,
        now: Now,
        id: Option<u32>,
        name: &HopName<'_>,
        source: &Flow,
    ) -> (Flow, Option<Box<Query>>) {
        let Some(query) = Query::new(name, source.peer.is_ipv4()) else { return (*source, None) };
        let Some(places) = self.names.known(now.mono, &query) else {
            return (*source, Some(Box::new(query)));
        };
        match self.names.choose(now.mono, id, places) {
            Some(found) => (self.listeners.toward(source, NextHop::To(found.transport, found.address)), None),
            None => (*source, None),
        }
    }

    /// Whether the operator's outbound proxy is there, as far as that is known.
    pub(crate) fn is_outbound_proxy(&self, ip: IpAddr) -> bool {
        let Some(proxy) = &self.settings.outbound_proxy else { return false };
        if let Some((_, address)) = proxy.address() {
            return address.ip() == ip;
        }
        let query = proxy.name().and_then(|name| Query::new(&name, ip.is_ipv4()));
        let cached = query.and_then(|query| self.names.cache.get(&query));
        cached.is_some_and(|cached| cached.found.iter().any(|found| found.address.ip() == ip))
    }

    /// What must be looked up to know where the NOTIFYs of a stored subscription go; `None`: that is given in numbers, or the
    /// connection of its watcher leads there.
    pub(crate) fn query_of(&self, stored: &StoredSubscription<'_>) -> Option<Query> {
        let target = Uri::parse(stored.remote_target).ok();
        // Who is reached by his own connection is reached by no other, but for a proxy that wants to stay.
        let is_own = stored.flow.connection.is_some();
        let name = match &self.settings.outbound_proxy {
            _ if is_own && stored.route_set.is_empty() => return None,
            Some(proxy) => proxy.name()?,
            None => HopName::of(stored.route_set, target.as_ref())?,
        };
        Query::new(&name, stored.flow.peer.is_ipv4())
    }

    /// A NOTIFY found no answer where its name led: goes on with the next place of the name. Returns whether it does;
    /// otherwise there is none, or only DNS may know one, and what failed is to be dealt with.
    ///
    /// > If a failure occurs, the client SHOULD create a new request, which is identical to the previous, but has a different
    /// > value of the Via branch ID than the previous […]. That request is sent to the next element in the list as
    /// > specified by RFC 2782. (RFC 3263 §4.3)
    #[cold]
    pub(crate) fn fail_over(&mut self, now: Now, id: u32, failure: Failure) -> bool {
        let entry = &self.subscriptions[id];
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(entry.partition);
        let next = records::read_subscription(files, entry.slot, &mut record)
            .and_then(|stored| self.next_place(now, id, &stored, failure));
        self.scratch.subscription = record;
        match next {
            None => return false,
            Some(NextPlace::Stored) => {}
            Some(NextPlace::Asked(query)) => {
                self.await_name(now, id, query);
                // Who asks for quiet has it until DNS names somebody else.
                let asks_for_quiet = matches!(failure, Failure::Unavailable { retry_after: Some(_) });
                if asks_for_quiet || !self.subscriptions[id].awaits_flow {
                    return false;
                }
            }
        }
        self.counters.notifies_failed_over.up();
        self.end_attempt(id);
        self.subscriptions[id].owed = true;
        // Trying the next place may take longer than what a start looks back.
        self.mark_undelivered(id, true);
        self.send_notify(now, id);
        true
    }

    /// Stores the place that is tried next, if there is one and it is known.
    fn next_place(
        &mut self,
        now: Now,
        id: u32,
        stored: &StoredSubscription<'_>,
        failure: Failure,
    ) -> Option<NextPlace> {
        let query = self.query_of(stored)?;
        let flow = stored.flow;
        let is_new = flow.connection.is_some() || {
            let (is_for_all, span) = match failure {
                Failure::Transport => (true, FAILED_SPAN),
                // RFC 3261 §21.5.4: "If no Retry-After is given, the client MUST act as if it had received a 500", which speaks of
                // one request. With it, "It SHOULD NOT forward any other requests to that server for the duration specified"; and
                // a proxy that passes on what a phone said would break §16.7: "forwarding a 503 means that the proxy knows it
                // cannot service any requests".
                Failure::Unavailable { retry_after: Some(secs) } => (true, Duration::from_secs(secs.into())),
                Failure::Unavailable { retry_after: None } | Failure::Silence => (false, FAILED_SPAN),
            };
            let place = (flow.transport, flow.peer);
            if is_for_all {
                self.names.failed.note(now.mono, place, Whose::All, span);
            }
            self.names.failed.note(now.mono, place, Whose::One(id), span)
        };
        match self.names.known(now.mono, &query) {
            Some(places) => {
                let found = self.names.failed.first_good(now.mono, Some(id), places)?;
                let next = self.listeners.toward(&flow, NextHop::To(found.transport, found.address));
                if next == flow {
                    return None;
                }
                self.change_flow(now, id, stored, next);
                Some(NextPlace::Stored)
            }
            // DNS may say something else by now. Not for a place that has failed this subscription again, though, which would
            // make it a loop; but what others ask anyway is known to all.
            None => (is_new || self.names.waiting.contains_key(&query)).then_some(NextPlace::Asked(query)),
        }
    }

    /// Has the NOTIFYs of a subscription wait for a name. Its record names the source meanwhile.
    pub(crate) fn await_name(&mut self, now: Now, id: u32, query: Query) {
        let until = now.mono + self.settings.resolver.timeout;
        let names = &mut self.names;
        if !names.waiting.contains_key(&query) {
            if names.waiting.len() >= WAITING_MAX {
                self.counters.names_not_asked.up();
                self.subscriptions[id].awaits_flow = false;
                return;
            }
            self.counters.names_asked.up();
            self.lookups.push(query.clone());
            names.last_question += 1;
            let waiting = Waiting { until, question: names.last_question, subscriptions: Vec::new() };
            names.waiting.insert(query.clone(), waiting);
        }
        self.subscriptions[id].awaits_flow = true;
        let waiting = names.waiting.get_mut(&query).expect("just seen or made");
        if names.waits_for.insert(id, waiting.question) != Some(waiting.question) {
            waiting.subscriptions.push(id);
        }
    }

    /// A subscription does not wait for a name any more.
    pub(crate) fn await_no_name(&mut self, id: u32) {
        self.subscriptions[id].awaits_flow = false;
        self.names.waits_for.remove(&id);
    }

    /// Takes back what the caller could not hand to the resolver: the sources stand in.
    pub fn lookup_refused(&mut self, query: Query) {
        self.counters.names_not_asked.up();
        self.names.answers.push(Answer { query, found: Vec::new(), ttl: TTL_MIN });
    }

    /// Goes on with the subscriptions whose names are known now, or will not be, within the bounds of a turn.
    pub(crate) fn take_names(&mut self, now: Now) {
        let names = &self.names;
        if names.answers.is_empty() && names.waiting.is_empty() && names.settled.is_empty() {
            return;
        }
        for answer in std::mem::take(&mut self.names.answers) {
            self.take_name(now, answer);
        }
        let late = self.names.waiting.iter().filter(|(_, waiting)| waiting.until <= now.mono);
        for query in late.map(|(query, _)| query.clone()).collect::<Vec<_>>() {
            self.take_name(now, Answer { query, found: Vec::new(), ttl: NEGATIVE_TTL });
        }
        let mut left = PER_TURN.min(self.settings.notifies_per_turn).max(1);
        while left > 0
            && let Some(mut settled) = self.names.settled.pop_front()
        {
            while left > 0
                && let Some(id) = settled.subscriptions.next()
            {
                left -= 1;
                // One that waits for another name by now stays as it is.
                if self.names.waits_for.get(&id) == Some(&settled.question) {
                    self.names.waits_for.remove(&id);
                    if self.subscriptions.knows(id) && self.subscriptions[id].awaits_flow {
                        self.go_on_by_name(now, id, &settled.answer);
                    }
                }
            }
            if settled.subscriptions.len() > 0 {
                self.names.settled.push_front(settled);
            }
        }
    }

    fn take_name(&mut self, now: Now, answer: Answer) {
        self.names.remember(now.mono, &answer);
        if answer.found.is_empty() {
            self.counters.names_not_found.up();
        }
        if let Some(Waiting { question, subscriptions, .. }) = self.names.waiting.remove(&answer.query) {
            let subscriptions = subscriptions.into_iter();
            self.names.settled.push_back(Settled { answer, question, subscriptions });
        }
    }

    /// Stores the flow of a subscription that has waited for a name, and sends what is owed. One whose Contact has changed without a
    /// SUBSCRIBE, by the answer to a NOTIFY, goes on as that left it.
    fn go_on_by_name(&mut self, now: Now, id: u32, answer: &Answer) {
        let entry = &self.subscriptions[id];
        let (partition, slot) = (entry.partition, entry.slot);
        let is_paused = entry.attempt != NONE && !self.is_in_flight(id);
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let files = self.files.presence_partition(partition);
        let mut moved = false;
        if let Some(stored) = records::read_subscription(files, slot, &mut record) {
            let is_it = self.query_of(&stored).as_ref() == Some(&answer.query);
            let names = &self.names;
            let found = if is_paused {
                // It was asked for quiet; a place that has failed, too, is not worth breaking it.
                names.failed.first_good(now.mono, Some(id), &answer.found)
            } else {
                names.choose(now.mono, Some(id), &answer.found)
            };
            if let Some(found) = found.filter(|_| is_it) {
                let flow = self.listeners.toward(&stored.flow, NextHop::To(found.transport, found.address));
                moved = flow != stored.flow;
                if moved {
                    let by_udp = stored.came_by_udp || !stored.flow.transport.is_stream();
                    let came_by_udp = by_udp && flow.transport.is_stream();
                    let next = StoredSubscription { flow, came_by_udp, ..stored };
                    records::update_subscription_fixed(
                        self.files.presence_partition_mut(partition),
                        slot,
                        &next,
                    );
                    self.aim_again(now.mono, id, &flow);
                    self.follow_connection(id, &flow, stored.remote_uri);
                }
            }
        }
        self.scratch.subscription = record;
        self.subscriptions[id].awaits_flow = false;
        if moved && self.subscriptions[id].attempt != NONE {
            // What is under way goes to the source, and may never be answered.
            self.end_attempt(id);
            self.subscriptions[id].owed = true;
            self.mark_undelivered(id, true);
        }
        if self.is_owed(id) {
            self.notify_if_free(now, id);
        }
    }
}

#[cfg(test)]
mod tests;

//! What the agents make of a datagram.

use super::Crowd;
use crate::agent::{Answer, Cause, Reaction, Told, Transaction};
use crate::audit::Verdict;
use crate::clock::{Nanos, SECOND};
use crate::ident::{Ident, Kind, fingerprint};
use crate::message::{self, USER_AGENT};
use crate::mmsg::Datagram;
use crate::net::Outlet;
use crate::stats::record;
use crate::told::Plain;
use comsipl_core::msg::{self, HeaderName, Message, Method};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

/// Most Record-Route values that are kept.
const ROUTES_MAX: usize = 16;

impl Crowd<'_> {
    /// Takes a datagram that the kernel received at `at`; what has to be answered is answered through `outlet`.
    pub fn on_datagram(&mut self, outlet: &mut Outlet<'_>, datagram: &Datagram<'_>, at: Nanos) {
        let counters = self.counters();
        counters.bytes_received.add(datagram.bytes.len() as u64);
        counters.truncated.add(u64::from(datagram.truncated));
        let plain = Plain::read(datagram.bytes);
        let status = plain.as_ref().map(|plain| self.on_plain(plain, at));
        match (status, &plain) {
            (Some(None), _) => return,
            (Some(Some(200)), Some(plain)) => {
                let received = self.received.from(datagram.source);
                return outlet.send(datagram.source, |out| plain.accept(out, received, ANSWER_END));
            }
            _ => {}
        }
        let Ok(message) = msg::parse(datagram.bytes) else {
            counters.malformed.add(1);
            return;
        };
        match (message.status(), message.method()) {
            (Some(status), _) => self.on_answer(&message, status, at),
            (_, Some(Method::Notify)) => {
                let status = status.unwrap_or_else(|| self.on_general(&message, at));
                if let Some(status) = status {
                    answer(outlet, &message, status, datagram.source);
                }
            }
            (_, Some(Method::Ack)) => {}
            (_, method) => {
                counters.other_requests.add(1);
                let status = if method == Some(Method::Options) { 200 } else { 405 };
                answer(outlet, &message, status, datagram.source);
            }
        }
    }

    fn on_answer(&mut self, message: &Message<'_>, status: u16, at: Nanos) {
        let counters = self.counters();
        if let Some(control) = &mut self.overload_control {
            control.learn(message.via(), at);
        }
        let cseq = message.cseq();
        // RFC 3261 §17.1.3: a response belongs to a transaction by the branch of its top Via and the method of CSeq.
        let Some((ident, local, running)) = self.agent(message.call_id()).and_then(|(ident, local)| {
            let running = self.requests(ident.kind, local).running;
            let branch = self.shared.style.salt.branch(ident, cseq.number);
            running
                .filter(|running| {
                    self.runs(ident, local, cseq.number)
                        && running.op.method() == cseq.method_text
                        && message.via().branch() == Some(&branch[..])
                })
                .map(|running| (ident, local, running))
        }) else {
            counters.stray_answers.add(1);
            return;
        };
        let (routes, routes_len) = routes(message);
        let contact = message.contacts().next().and_then(Result::ok);
        let answer = Answer {
            status,
            cseq: cseq.number,
            remote_tag: message.to().tag(),
            contact: contact.and_then(|contact| contact.uri()),
            routes: &routes[..routes_len],
            min_expires: message.min_expires(),
            retry_after: message.retry_after().filter(|_| !self.shared.plan.ignores_retry_after),
            entity_tag: message.entity_tag(),
        };
        self.take_answer(ident, local, running, &answer, at);
    }

    /// An agent takes an answer to its running request, the server's or one in its name.
    pub(super) fn take_answer(
        &mut self,
        ident: Ident,
        local: usize,
        running: Transaction,
        answer: &Answer<'_>,
        at: Nanos,
    ) {
        let counters = self.counters();
        let reaction = match ident.kind {
            Kind::Watcher => {
                let was_active = self.watchers[local].is_active();
                let reaction = self.watchers[local].on_answer(answer);
                self.note_activity(local, was_active);
                reaction
            }
            Kind::Presentity => {
                let reaction = self.presentities[local].on_answer(answer);
                self.post_state(local);
                reaction
            }
            Kind::Registrant => self.registrants[local].on_answer(answer),
        };
        let repeats = !self.shared.style.transport.is_reliable();
        if let Some(timings) = self.timings(running.sent) {
            let fate = &mut timings.fates[running.class as usize];
            match reaction {
                Reaction::Accepted => fate.admit(running.sent, at, repeats),
                Reaction::Later(_) | Reaction::Refused(500 | 503) => fate.refused += 1,
                _ => {}
            }
        }
        match reaction {
            Reaction::Stray => counters.stray_answers.add(1),
            Reaction::Provisional => {}
            Reaction::Accepted => {
                match ident.kind {
                    Kind::Watcher => counters.subscribed.add(1),
                    Kind::Presentity => counters.published.add(1),
                    Kind::Registrant => counters.registered.add(1),
                }
                if let Some(timings) = self.timings(running.intended) {
                    let histogram = match ident.kind {
                        Kind::Watcher => &mut timings.subscribe_answer,
                        Kind::Presentity => &mut timings.publish_answer,
                        Kind::Registrant => &mut timings.register_answer,
                    };
                    record(histogram, running.intended, at);
                }
            }
            Reaction::Again(cause) => {
                match cause {
                    Cause::TooBrief => counters.too_brief.add(1),
                    Cause::TagUnknown => counters.tag_unknown.add(1),
                    Cause::DialogUnknown => counters.dialog_unknown.add(1),
                }
                return self.start_again(ident.kind, local);
            }
            Reaction::Later(seconds) => {
                return self.rest(ident.kind, local, at + u64::from(seconds) * SECOND);
            }
            Reaction::Outrun => counters.tag_unknown.add(1),
            Reaction::Refused(_) => counters.refused.add(1),
        }
        if self.running(ident.kind, local).is_none() {
            self.finished(running.op, local);
        }
    }

    /// Takes a NOTIFY in the plain form; the status to answer it with, if the phone answers at all.
    fn on_plain(&mut self, plain: &Plain<'_>, at: Nanos) -> Option<u16> {
        let told = Told {
            cseq: plain.cseq,
            branch: fingerprint(plain.branch),
            local_tag: Some(plain.to_tag),
            remote_tag: Some(plain.from_tag),
            contact: Some(plain.contact),
            event_fits: plain.event == self.shared.style.package.as_bytes(),
            terminated: Some(plain.terminated),
            ..Told::default()
        };
        self.on_notify(plain.call_id, plain.body, told, at)
    }

    /// Takes a NOTIFY in any form.
    fn on_general(&mut self, message: &Message<'_>, at: Nanos) -> Option<u16> {
        let (routes, routes_len) = routes(message);
        let contact = message.contacts().next().and_then(Result::ok);
        let told = Told {
            cseq: message.cseq().number,
            branch: message.via().branch().map_or(0, fingerprint),
            local_tag: message.to().tag(),
            remote_tag: message.from().tag(),
            contact: contact.and_then(|contact| contact.uri()),
            routes: &routes[..routes_len],
            event_fits: message.event().is_some_and(|event| event.is(&self.shared.style.package)),
            terminated: message.subscription_state().map(|state| state.is("terminated")),
            ..Told::default()
        };
        self.on_notify(message.call_id(), message.body(), told, at)
    }

    /// Takes a NOTIFY, of which `told` says all but what follows from its Call-ID and body.
    fn on_notify(&mut self, call_id: &[u8], body: &[u8], mut told: Told<'_>, at: Nanos) -> Option<u16> {
        let counters = self.counters();
        self.last_notify = at;
        let agent = self.agent(call_id).filter(|(ident, _)| ident.kind == Kind::Watcher);
        let Some((ident, local)) = agent else {
            counters.unknown_dialog.add(1);
            return Some(481);
        };
        // A deaf phone still notices the NOTIFY of its own SUBSCRIBE, so that the generator knows when that is done.
        let is_deaf = self.shared.plan.deaf.contains(&ident.index);
        if is_deaf {
            counters.ignored.add(1);
            self.watchers[local].requests.running?;
        }
        let watcher = &self.watchers[local];
        let mut state = message::find_state(body, &self.finder);
        if state.is_some_and(|state| state.presentity != watcher.presentity) {
            counters.wrong_document.add(1);
            state = None;
        }
        told.generation = ident.generation;
        told.at = at;
        told.local_tag_fits = told.local_tag == Some(&self.shared.style.salt.tag(ident));
        told.state = state.map_or(0, |state| state.number);
        let was_active = watcher.is_active();
        let running = watcher.requests.running;
        let watcher = &mut self.watchers[local];
        let reaction = watcher.on_notify(&told);
        let presentity = watcher.presentity;
        self.note_activity(local, was_active);
        let Some(verdict) = reaction.verdict else {
            counters.unknown_dialog.add(1);
            return (!is_deaf).then_some(reaction.status);
        };
        counters.notifies.add(1);
        counters.superseded.add(u64::from(reaction.skipped));
        counters.ended_by_server.add(u64::from(reaction.ended_by_server));
        match verdict {
            Verdict::Fresh => {
                counters.fresh.add(1);
                counters.hasty.add(u64::from(self.watchers[local].is_hasty(at)));
            }
            Verdict::Repeated => counters.repeated.add(1),
            Verdict::Duplicate => counters.duplicates.add(1),
            Verdict::Stale => counters.stale.add(1),
            Verdict::Backward => counters.backward.add(1),
            Verdict::Final => counters.terminated.add(1),
            Verdict::Retransmission { .. } => {
                counters.notifies.sub(1);
                counters.notify_retransmissions.add(1);
            }
        }
        if let (Verdict::Fresh, Some(state)) = (verdict, state) {
            if self.is_audited(local) {
                self.post().tell(presentity, state.number);
            }
            let is_apart = self.shared.plan.apart.contains(&presentity);
            // The first NOTIFY of a subscription tells what was published long before.
            if let (None, Some(timings)) = (reaction.first_since, self.timings(state.intended)) {
                let apart = &mut timings.publish_notify_apart;
                let histogram = if is_apart { apart } else { &mut timings.publish_notify };
                record(histogram, state.intended, at);
            }
        }
        if let Some(intended) = reaction.first_since
            && let Some(timings) = self.timings(intended)
        {
            record(&mut timings.subscribe_notify, intended, at);
        }
        if let (Some(running), None) = (running, self.watchers[local].requests.running) {
            self.finished(running.op, local);
        }
        (!is_deaf).then_some(reaction.status)
    }

    /// Counts a subscription that has begun or ended.
    pub(super) fn note_activity(&self, local: usize, was_active: bool) {
        let watcher = &self.watchers[local];
        let watching = &self.shared.boards[watcher.presentity as usize].watching;
        match (was_active, watcher.is_active()) {
            (false, true) => {
                self.counters().active.add(1);
                if self.is_audited(local) {
                    watching.fetch_add(1, Ordering::Relaxed);
                }
            }
            (true, false) => {
                self.counters().active.sub(1);
                if self.is_audited(local) {
                    watching.fetch_sub(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

/// The end of every answer.
const ANSWER_END: &[u8] =
    concat!("\r\nUser-Agent: ", crate::message::user_agent!(), "\r\nContent-Length: 0\r\n\r\n").as_bytes();

/// Answers a request. A 2xx repeats Record-Route, since a NOTIFY may make the dialog (RFC 3261 §12.1.1).
fn answer(outlet: &mut Outlet<'_>, request: &Message<'_>, status: u16, source: SocketAddr) {
    let to = msg::response_destination(request.via(), source);
    outlet.send(to, |out| {
        let mut writer =
            msg::respond(out, request, status, msg::reason_phrase(status), Some(b"loadgen"), source);
        if status < 300 {
            for line in request.lines(HeaderName::RecordRoute) {
                writer.header("Record-Route", line);
            }
        }
        writer.header("User-Agent", USER_AGENT.as_bytes()).content_length(0).end();
    });
}

/// The values of Record-Route, and how many.
fn routes<'a>(message: &Message<'a>) -> ([&'a [u8]; ROUTES_MAX], usize) {
    let mut routes: [&[u8]; ROUTES_MAX] = [b""; ROUTES_MAX];
    let mut len = 0;
    if message.has(HeaderName::RecordRoute) {
        for (place, value) in routes.iter_mut().zip(message.values(HeaderName::RecordRoute)) {
            *place = value;
            len += 1;
        }
    }
    (routes, len)
}

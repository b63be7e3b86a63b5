//! One NOTIFY: made from the stored dialog and the shared body, sent, and sent again while nobody answers.

use comsipl_core::auth::Source;
use comsipl_core::transaction::{NotifyTransaction, TimerStep};
use comsipl_core::{
    Bodies, BodyId, Content, Flow, Mono, NotifyHead, Now, Outbox, Padding, Profile, SubscriptionStatus,
    subscription,
};
use smallvec::SmallVec;

use crate::counters::Counter;
use crate::listeners::{Listeners, SentBy};
use crate::local_ips::LocalIps;
use crate::reach::Reach;
use crate::records::{self, StoredSubscription};
use crate::resolve::names::Failure;
use crate::shard::Shard;
use crate::sipp::attempt::{Attempt, Phase};
use crate::sipp::bound::{Bound, Way};
use crate::sipp::branch::{BRANCH_LEN, branch_of};
use crate::subscriptions::{CSEQ_BLOCK, Subscription, reservation};
use crate::watched::{BodyKind, NONE};

/// Longest request that goes by UDP where the path's MTU is not known (RFC 3261 §18.1.1). A watcher whose Contact or route asks
/// for a connection is told over one in any case; others get longer ones by the connection of their binding, or else by UDP, in
/// fragments, and they are counted.
const UDP_LEN_MAX: usize = 1300;

/// Timers of NOTIFYs fired in one turn; the rest waits for the next.
const TIMERS_PER_TURN: usize = 512;

/// All of a NOTIFY's head that is none of the watcher's texts: what every one has takes half of it, our own address the rest.
const HEAD_REST_MAX: usize = 1024;

impl Shard {
    /// Sends the newest state to a watcher that has no NOTIFY under way; says whether a NOTIFY left, or nearly did.
    pub(crate) fn send_notify(&mut self, now: Now, id: u32) -> bool {
        debug_assert_eq!(self.subscriptions[id].attempt, NONE);
        if self.subscriptions[id].awaits_flow {
            self.subscriptions[id].owed = true;
            return false;
        }
        let is_bound = self.subscriptions[id].bound == Bound::Known;
        let way = if is_bound { self.way_if_bound(id) } else { Way::Short };
        self.start_notify(now, id, way).unwrap_or_else(|| {
            // Its record cannot be read: it cannot be served, and must not stay for ever.
            self.counters.unreadable_records.up();
            self.drop_subscription(now, id);
            false
        })
    }

    /// Whether a NOTIFY left; `None` if the subscription's record cannot be read.
    fn start_notify(&mut self, now: Now, id: u32, way: Way) -> Option<bool> {
        let Some(body) = self.body_for(now, id)? else {
            // The document is being written at this very moment, by a writer that has lost its core: with the next turn. Or the
            // owner has not said what there is to tell: when it does.
            let watched = self.subscriptions[id].watched;
            self.subscriptions[id].owed = true;
            if !self.watched[watched].awaited {
                self.queue(now, watched);
            }
            return Some(false);
        };
        let cseq = self.next_cseq(id)?;
        let timed = self.wall.was_set(now).then(|| self.subscriptions.expiry.secs_left(id, now.mono));
        let (entry, files) = (&mut self.subscriptions[id], &self.files);
        let partition = files.presence_partition(entry.partition);
        let stored = records::view_subscription(partition, entry.slot, &mut self.scratch.subscription)?;
        let left = timed.unwrap_or_else(|| stored.expires_at.secs_after(now.wall));
        // The clocks may say so before the timer does.
        let runs_out = left == 0 && !entry.ending;
        entry.owed = false;
        entry.epoch = self.watched[entry.watched].epoch;
        let status = if entry.ending || runs_out {
            SubscriptionStatus::TerminatedTimeout
        } else {
            SubscriptionStatus::Active { expires_secs: left }
        };
        let bound = if way == Way::Bound { self.bound_flows.of(id) } else { None };
        let is_stream = bound.as_ref().unwrap_or(&stored.flow).transport.is_stream();
        let (transaction, timer) = NotifyTransaction::start(now.mono, is_stream);
        self.bodies.retain(body);
        let mut attempt = Attempt {
            subscription: id,
            phase: Phase::InFlight,
            transaction,
            cseq,
            version: entry.version,
            status,
            body: Some(body),
            padding: 0,
            by_binding: bound.is_some(),
            sent: false,
        };
        let mut writer = NotifyWriter {
            profile: self.settings.profile,
            listeners: &self.listeners,
            local_ips: &self.local_ips,
            outbox: &mut self.outbox,
            bodies: &mut self.bodies,
            reach: &self.guard.gate.reach,
            withheld: &self.counters.notifies_withheld,
        };
        if let Some(padding) = writer.send(now.mono, entry, &stored, &attempt, bound, None) {
            attempt.padding = padding;
            attempt.sent = true;
            if self.outbox.newest_len() > UDP_LEN_MAX && !is_stream {
                let may_go_otherwise = way == Way::Short && !entry.unproved && entry.bound != Bound::Nothing;
                if may_go_otherwise {
                    self.outbox.take_back(&mut self.bodies);
                    self.bodies.release(body);
                    return self.start_long_notify(now, id, cseq);
                }
                self.counters.notifies_over_mtu.up();
            }
        }
        entry.version += 1;
        let attempt = self.attempts.insert(attempt);
        entry.attempt = attempt;
        self.attempt_timers.arm(attempt, timer);
        self.counters.notifies.up();
        if runs_out {
            self.subscription_ran_out(now, id);
        }
        Some(true)
    }

    /// The same for one that was found too long for UDP, written with this sequence number and taken back.
    #[cold]
    fn start_long_notify(&mut self, now: Now, id: u32, cseq: u32) -> Option<bool> {
        let entry = &mut self.subscriptions[id];
        entry.owed = true;
        if !entry.shared_dialog {
            // Nobody has seen the number; it is the next one again. Where others have it too, it is left out.
            entry.cseq = cseq - 1;
        }
        match self.way_of_long(now, id) {
            Some(way) => self.start_notify(now, id, way),
            // That was work, too, of which a turn takes so much.
            None => Some(true),
        }
    }

    /// The body that a watcher gets now, as [`Self::body_of`] has it; `None` outside if its record cannot be read.
    fn body_for(&mut self, now: Now, id: u32) -> Option<Option<BodyId>> {
        let entry = &self.subscriptions[id];
        let (kind, len_max) = (entry.body, entry.message_len_max);
        let cached = self.watched[entry.watched].bodies[kind as usize];
        if len_max == 0 && cached.is_some() {
            return Some(cached);
        }
        let body = self.body_of_kind(now, id, kind)?;
        match body {
            Some(found) if len_max != 0 => self.short_body_for(now, id, found),
            body => Some(body),
        }
    }

    /// The body that a watcher of short messages gets now instead of `body`, if that is too long for it.
    #[cold]
    fn short_body_for(&mut self, now: Now, id: u32, mut body: BodyId) -> Option<Option<BodyId>> {
        let entry = &self.subscriptions[id];
        let partition = self.files.presence_partition(entry.partition);
        let stored = records::view_subscription(partition, entry.slot, &mut self.scratch.subscription)?;
        let package = stored.package;
        let room = usize::from(entry.message_len_max).saturating_sub(head_len_max(&stored));
        let mut kind = entry.body;
        while self.bodies.get(body).len() > room && kind != BodyKind::Nothing {
            kind = kind.shorter(package);
            let Some(shorter) = self.body_of_kind(now, id, kind)? else { return Some(None) };
            body = shorter;
        }
        Some(Some(body))
    }

    /// The body of one kind that a watcher may get.
    fn body_of_kind(&mut self, now: Now, id: u32, kind: BodyKind) -> Option<Option<BodyId>> {
        let entry = &self.subscriptions[id];
        let watched = entry.watched;
        if let Some(body) = self.watched[watched].bodies[kind as usize] {
            return Some(Some(body));
        }
        let mut record = std::mem::take(&mut self.scratch.subscription);
        let partition = self.files.presence_partition(entry.partition);
        let body = records::read_subscription(partition, entry.slot, &mut record)
            .map(|stored| self.body_of(now, watched, kind, stored.package, stored.aor));
        self.scratch.subscription = record;
        body
    }

    /// The next sequence number of a subscription's dialog. The record says so before the NOTIFY leaves.
    fn next_cseq(&mut self, id: u32) -> Option<u32> {
        let entry = &self.subscriptions[id];
        let cseq = entry.cseq + 1;
        if entry.shared_dialog {
            self.raise_dialog_cseq(id, cseq);
        } else {
            self.raise_cseq(id, cseq);
        }
        (cseq < u32::MAX >> 1).then_some(cseq)
    }

    /// Has all subscriptions of a dialog go on above `cseq`, each by its own record: whichever of them is left when the others
    /// have ended, the dialog's numbers do not go back.
    #[cold]
    pub(crate) fn raise_dialog_cseq(&mut self, id: u32, cseq: u32) {
        let entry = &self.subscriptions[id];
        let of_dialog = self.subscriptions.of_dialog(entry.partition, entry.dialog);
        for other in of_dialog.collect::<SmallVec<[u32; 8]>>() {
            self.raise_cseq(other, cseq);
        }
    }

    /// Notes that a subscription has used `cseq`, and has its record say so before that is sent.
    fn raise_cseq(&mut self, id: u32, cseq: u32) {
        let entry = &mut self.subscriptions[id];
        let before = entry.cseq;
        if cseq <= before {
            // Another dialog with the same Call-ID and remote tag.
            return;
        }
        entry.cseq = cseq;
        if cseq | (CSEQ_BLOCK - 1) != before | (CSEQ_BLOCK - 1) {
            let reserved = reservation(cseq, self.start);
            let partition = self.files.presence_partition_mut(entry.partition);
            records::reserve_cseq(partition, entry.slot, reserved);
        }
    }

    /// Fires the timers of NOTIFYs under way; says whether more are due.
    pub(crate) fn fire_attempt_timers(&mut self, now: Now) -> bool {
        for _ in 0..TIMERS_PER_TURN {
            let Some(attempt) = self.attempt_timers.pop_due(now.mono) else { return false };
            let id = self.attempts[attempt].subscription;
            if let Phase::Paused { .. } = self.attempts[attempt].phase {
                self.end_attempt(id);
                self.send_notify(now, id);
                continue;
            }
            match self.attempts[attempt].transaction.on_timer(now.mono) {
                TimerStep::Retransmit { next } => {
                    self.attempt_timers.arm(attempt, next);
                    self.retransmit(now, id, attempt);
                }
                TimerStep::TimedOut if !self.attempts[attempt].sent => {
                    // Nobody has been silent; there was no room for it. As what a connection had no room for, it is tried later.
                    let entry = &self.subscriptions[id];
                    let after = subscription::after_answer(503, None, entry.failures, entry.suspect);
                    self.after_notify(now, id, after);
                }
                TimerStep::TimedOut => {
                    self.counters.notifies_timed_out.up();
                    if self.fall_back(now, id) {
                        continue;
                    }
                    // RFC 3263 §4.3: "without ever having received any response, provisional or final".
                    let is_silent = !self.attempts[attempt].transaction.has_been_heard();
                    if is_silent && self.fail_over(now, id, Failure::Silence) {
                        continue;
                    }
                    let after = subscription::after_silence(self.subscriptions[id].suspect);
                    self.after_notify(now, id, after);
                }
            }
        }
        true
    }

    /// Sends the same bytes again.
    fn retransmit(&mut self, now: Now, id: u32, number: u32) {
        let (entry, attempt) = (&self.subscriptions[id], &self.attempts[number]);
        let partition = self.files.presence_partition(entry.partition);
        if let Some(stored) =
            records::view_subscription(partition, entry.slot, &mut self.scratch.subscription)
        {
            let mut writer = NotifyWriter {
                profile: self.settings.profile,
                listeners: &self.listeners,
                local_ips: &self.local_ips,
                outbox: &mut self.outbox,
                bodies: &mut self.bodies,
                reach: &self.guard.gate.reach,
                withheld: &self.counters.notifies_withheld,
            };
            let bound = if attempt.by_binding { self.bound_flows.of(id) } else { None };
            if writer.send(now.mono, entry, &stored, attempt, bound, Some(attempt.padding)).is_none() {
                return;
            }
            self.attempts[number].sent = true;
            self.counters.notify_retransmissions.up();
        }
    }

    /// Ends what is under way for a subscription, whatever its phase.
    pub(crate) fn end_attempt(&mut self, id: u32) {
        let attempt = std::mem::replace(&mut self.subscriptions[id].attempt, NONE);
        if attempt == NONE {
            return;
        }
        self.attempt_timers.cancel(attempt);
        if let Some(body) = self.attempts.remove(attempt).body {
            self.bodies.release(body);
        }
    }

    /// Writes down, where it is not yet, whether a watcher lacks the newest state although it was tried: a pause may be
    /// longer than what a start looks back.
    pub(crate) fn mark_undelivered(&mut self, id: u32, undelivered: bool) {
        let entry = &mut self.subscriptions[id];
        if entry.marked_undelivered != undelivered {
            entry.marked_undelivered = undelivered;
            let (partition, slot) = (entry.partition, entry.slot);
            records::mark_undelivered(self.files.presence_partition_mut(partition), slot, undelivered);
        }
    }

    /// Puts a failed NOTIFY on pause.
    pub(crate) fn pause_attempt(&mut self, now: Now, id: u32, pause: std::time::Duration, wait_for_it: bool) {
        self.mark_undelivered(id, true);
        let attempt = self.subscriptions[id].attempt;
        let entry = &mut self.attempts[attempt];
        entry.phase = Phase::Paused { wait_for_it };
        if let Some(body) = entry.body.take() {
            self.bodies.release(body);
        }
        self.attempt_timers.arm(attempt, now.mono + pause);
    }
}

/// No head of a NOTIFY with the texts of this subscription is longer.
fn head_len_max(stored: &StoredSubscription<'_>) -> usize {
    let texts = [
        // The local URI may be made of the AoR; a strict router makes the target come twice.
        stored.aor,
        stored.aor,
        stored.local_uri,
        stored.remote_uri,
        stored.remote_tag,
        stored.call_id,
        stored.remote_target,
        stored.remote_target,
        stored.route_set,
        stored.event_id,
    ];
    HEAD_REST_MAX + texts.iter().map(|text| text.len()).sum::<usize>()
}

/// Where NOTIFYs are written, and what of the node they need.
struct NotifyWriter<'s> {
    profile: Profile,
    listeners: &'s Listeners,
    local_ips: &'s LocalIps,
    outbox: &'s mut Outbox,
    bodies: &'s mut Bodies,
    reach: &'s Reach,
    withheld: &'s Counter,
}

impl NotifyWriter<'_> {
    /// Writes a NOTIFY as [`Self::write`] does, unless it would go to an unproved place where no more may be sent. What is withheld
    /// is to us like what the network loses: Timer E tries again. In line, as [`Self::write`] is, because what they are given lies in
    /// registers then.
    #[inline(always)]
    fn send(
        &mut self,
        now: Mono,
        entry: &Subscription,
        stored: &StoredSubscription<'_>,
        attempt: &Attempt,
        bound: Option<Flow>,
        padding: Option<u8>,
    ) -> Option<u8> {
        let unproved = (entry.unproved && bound.is_none()).then(|| Source::of(stored.flow.peer.ip()));
        if unproved.is_some_and(|target| !self.reach.has_room(now, target)) {
            self.withheld.up();
            return None;
        }
        let padding = self.write(entry, stored, attempt, bound, padding);
        if let Some(target) = unproved {
            self.reach.spend(now, target, self.outbox.newest_len());
        }
        Some(padding)
    }

    /// Writes a NOTIFY, by the flow of the subscription or by the one of a binding: a new one, or again one with its `padding`.
    /// Returns its padding.
    #[inline(always)]
    fn write(
        &mut self,
        entry: &Subscription,
        stored: &StoredSubscription<'_>,
        attempt: &Attempt,
        bound: Option<Flow>,
        padding: Option<u8>,
    ) -> u8 {
        let profile = self.profile;
        let mut branch = [0; BRANCH_LEN];
        let id = attempt.subscription;
        let own = self.listeners.fit(self.local_ips.complete(stored.flow));
        let flow = bound.map_or(own, |bound| {
            // A stored connection by IPv6 may not know our address, which is the same by UDP.
            let local_ip = bound.local_ip.or(own.local_ip).filter(|ip| ip.is_ipv4() == bound.peer.is_ipv4());
            self.listeners.fit(Flow { local_ip, ..bound })
        });
        // What cannot be sent is reported by its branch, so over connections it names its subscription in either profile.
        let shape = if flow.transport.is_stream() { Profile::Rfc } else { profile };
        let branch = branch_of(shape, entry.partition, id, entry.secret, attempt.cseq, &mut branch);
        let tag = records::tag_text(entry.partition, stored.local_tag);
        let (mut sent_by, mut contact_address) = (SentBy::new(), SentBy::new());
        let sent_by = self.listeners.sent_by(&flow, &mut sent_by);
        let contact_address =
            if bound.is_none() { sent_by } else { self.listeners.sent_by(&own, &mut contact_address) };
        let package = stored.package;
        let body = attempt.body.expect("a NOTIFY in flight holds its body");
        let padding = match padding {
            Some(padding) => Padding::Exactly(padding),
            None if package.is_xml() => Padding::Fit(self.outbox.run_to(&flow)),
            None => Padding::Exactly(0),
        };
        let opening = package.opening.map(|text| (text, attempt.version));
        let len = self.bodies.get(body).len();
        let content = Content { kind: package.content_type, opening, len };
        let head = NotifyHead {
            aor: stored.aor,
            remote_target: stored.remote_target,
            route_set: stored.route_set,
            sent_by,
            contact_address,
            contact_params: self.listeners.contact_params(own.transport),
            transport: flow.transport.via_token(),
            branch,
            local_uri: stored.local_uri,
            local_tag: &tag,
            remote_uri: stored.remote_uri,
            remote_tag: stored.remote_tag,
            call_id: stored.call_id,
            cseq: attempt.cseq,
            event: package.name,
            capitals: stored.capitals,
            event_id: stored.event_id,
            status: attempt.status,
            content: (len > 0).then_some(content),
            padding,
        };
        let mut written = 0;
        self.outbox.send_with_body(flow, body, self.bodies, |out| {
            written = head.write(profile, out);
            written
        });
        written
    }
}

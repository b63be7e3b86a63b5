//! Simulated phones: pure state machines of what a watcher, a presentity and a registrant know.
//!
//! They are told answers and NOTIFYs and say what follows; sockets, timers and measurements are the engine's. At most
//! one request of an agent runs at a time (RFC 3903 §4 for PUBLISH; RFC 6665 dialogs keep it for SUBSCRIBE).
//!
//! | watcher | input | becomes |
//! |---|---|---|
//! | any | 2xx to SUBSCRIBE | active; finished once the NOTIFY has come too |
//! | no dialog | NOTIFY with our tag while SUBSCRIBE runs | dialog learned from it (RFC 6665 §4.4.1) |
//! | subscribing | 423 | again, asking for Min-Expires |
//! | in a dialog | 481 to SUBSCRIBE | again in a new dialog; to its end: done |
//! | any | NOTIFY `terminated` | ended |
//! | any | Timer F or N, other error | request given up |

use crate::audit::{Notice, Verdict, Watch};
use crate::clock::Nanos;
use crate::ident::{Ident, Kind};
use crate::message::{self, Inside, Request, State, Style};
use std::net::SocketAddr;

/// What an agent is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bind the address of record.
    Register,
    /// Remove the binding.
    Unregister,
    /// Subscribe, or refresh the subscription.
    Subscribe,
    /// End the subscription.
    Unsubscribe,
    /// Publish the next state.
    Publish,
    /// Remove the publication.
    Unpublish,
}

impl Op {
    /// Which agents do it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Register | Self::Unregister => Kind::Registrant,
            Self::Subscribe | Self::Unsubscribe => Kind::Watcher,
            Self::Publish | Self::Unpublish => Kind::Presentity,
        }
    }

    /// The method of the request, as in CSeq.
    pub fn method(self) -> &'static [u8] {
        match self.kind() {
            Kind::Registrant => b"REGISTER",
            Kind::Watcher => b"SUBSCRIBE",
            Kind::Presentity => b"PUBLISH",
        }
    }
}

/// A request that is not finished.
#[derive(Clone, Copy, Debug)]
pub struct Transaction {
    /// Its sequence number.
    pub cseq: u32,
    /// What it is for.
    pub op: Op,
    /// When it was meant to be sent first.
    pub intended: Nanos,
    /// Whether it is sent in a dialog.
    pub in_dialog: bool,
    /// Whether its final answer has come.
    pub answered: bool,
    /// Whether the NOTIFY that it asks for has come.
    pub notified: bool,
    /// How often the operation was begun again after a recoverable refusal.
    pub attempts: u8,
}

/// The parts of an answer that agents look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// Status code.
    pub status: u16,
    /// CSeq number.
    pub cseq: u32,
    /// Tag of To.
    pub remote_tag: Option<&'a [u8]>,
    /// URI of Contact.
    pub contact: Option<&'a [u8]>,
    /// Values of Record-Route, as received.
    pub routes: &'a [&'a [u8]],
    /// Min-Expires.
    pub min_expires: Option<u32>,
    /// SIP-ETag.
    pub entity_tag: Option<&'a [u8]>,
}

/// The parts of a NOTIFY that a watcher looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// Generation of the Call-ID.
    pub generation: u8,
    /// CSeq number.
    pub cseq: u32,
    /// Fingerprint of the topmost branch.
    pub branch: u32,
    /// Whether the tag of To is ours.
    pub local_tag_fits: bool,
    /// Tag of From.
    pub remote_tag: Option<&'a [u8]>,
    /// URI of Contact.
    pub contact: Option<&'a [u8]>,
    /// Values of Record-Route, as received.
    pub routes: &'a [&'a [u8]],
    /// Whether Event is the one subscribed to.
    pub event_fits: bool,
    /// Whether Subscription-State is terminated; none if the header is missing.
    pub terminated: Option<bool>,
    /// State in the document; 0 without one.
    pub state: u32,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It belongs to no running request.
    Stray,
    /// 1xx.
    Provisional,
    /// 2xx.
    Accepted,
    /// The same operation has to be started again, for this reason.
    Again(Cause),
    /// The request failed with this status.
    Refused(u16),
}

/// Why an operation is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// 423: the interval is longer now.
    TooBrief,
    /// 412: the entity tag is forgotten.
    TagUnknown,
    /// 481: the dialog is forgotten.
    DialogUnknown,
}

/// What a watcher makes of a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyReaction {
    /// The answer's status.
    pub status: u16,
    /// What it was; none if it was refused before it was looked at.
    pub verdict: Option<Verdict>,
    /// When the running SUBSCRIBE was meant to be sent, if this is the first NOTIFY since.
    pub first_since: Option<Nanos>,
    /// States between the last known and this one.
    pub skipped: u32,
    /// Whether the server ended the subscription on its own.
    pub ended_by_server: bool,
}

/// How often an operation is begun again before it counts as refused.
const ATTEMPTS_MAX: u8 = 3;
/// Longest interval that we accept to ask for after a 423, in seconds.
const EXPIRES_MAX: u32 = 7 * 86_400;

/// The other side of a dialog (RFC 3261 §12).
#[derive(Debug)]
struct Dialog {
    remote_tag: Box<[u8]>,
    target: Vec<u8>,
    /// Complete Route header lines.
    routes: Box<[u8]>,
    next_hop: Option<SocketAddr>,
}

impl Dialog {
    fn new<'a>(remote_tag: &[u8], target: &[u8], routes: impl Iterator<Item = &'a &'a [u8]>) -> Self {
        let mut lines = Vec::new();
        let mut next_hop = None;
        for route in routes {
            next_hop = next_hop.or_else(|| next_hop_of(route));
            lines.extend_from_slice(b"Route: ");
            lines.extend_from_slice(route);
            lines.extend_from_slice(b"\r\n");
        }
        Self {
            remote_tag: remote_tag.into(),
            next_hop: if lines.is_empty() { next_hop_of(target) } else { next_hop },
            target: target.to_vec(),
            routes: lines.into(),
        }
    }

    /// Target refresh (RFC 3261 §12.2.1.2).
    fn refresh_target(&mut self, target: &[u8]) {
        if self.target != target {
            self.target.clear();
            self.target.extend_from_slice(target);
            if self.routes.is_empty() {
                self.next_hop = next_hop_of(target);
            }
        }
    }
}

/// A phone that watches one presentity.
#[derive(Debug)]
pub struct Watcher {
    /// Whom it watches.
    pub presentity: u32,
    /// The request that runs.
    pub running: Option<Transaction>,
    /// What it was told.
    pub watch: Watch,
    generation: u8,
    cseq: u32,
    expires: u32,
    active: bool,
    /// SUBSCRIBEs whose NOTIFY has not come.
    owed: u8,
    dialog: Option<Box<Dialog>>,
}

impl Watcher {
    /// A phone that will ask for `expires` seconds.
    pub fn new(presentity: u32, expires: u32) -> Self {
        Self {
            presentity,
            running: None,
            watch: Watch::default(),
            generation: 0,
            cseq: 19,
            expires,
            active: false,
            owed: 0,
            dialog: None,
        }
    }

    /// Begins `op`; the request is then what [`Watcher::write`] writes. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unsubscribe && self.dialog.is_none() {
            return false;
        }
        self.begin(op, intended, 0);
        true
    }

    /// Begins the running operation again.
    pub fn start_again(&mut self) {
        if let Some(Transaction { op, intended, attempts, .. }) = self.running {
            self.begin(op, intended, attempts + 1);
        }
    }

    fn begin(&mut self, op: Op, intended: Nanos, attempts: u8) {
        self.cseq += 1;
        self.owed = self.owed.saturating_add(1);
        self.running = Some(Transaction {
            cseq: self.cseq,
            op,
            intended,
            in_dialog: self.dialog.is_some(),
            answered: false,
            notified: false,
            attempts,
        });
    }

    /// Writes the running request.
    pub fn write(&self, out: &mut Vec<u8>, style: &Style, index: u32, local: &str) {
        let Some(transaction) = self.running else { return };
        let from = self.ident(index);
        let expires = if transaction.op == Op::Unsubscribe { 0 } else { self.expires };
        let request = Request { from, local, cseq: transaction.cseq, expires };
        let inside = self.dialog.as_ref().filter(|_| transaction.in_dialog).map(|dialog| Inside {
            target: &dialog.target,
            remote_tag: &dialog.remote_tag,
            routes: &dialog.routes,
        });
        message::subscribe(out, style, request, self.presentity, inside);
    }

    /// Takes an answer to a SUBSCRIBE.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(transaction) = self.running.as_mut().filter(|running| running.cseq == answer.cseq) else {
            return Reaction::Stray;
        };
        if transaction.answered {
            return Reaction::Stray;
        }
        let op = transaction.op;
        match answer.status {
            ..200 => Reaction::Provisional,
            200..300 => {
                transaction.answered = true;
                if transaction.notified || op == Op::Unsubscribe {
                    self.running = None;
                }
                self.active = op == Op::Subscribe;
                match (&mut self.dialog, answer.remote_tag, answer.contact) {
                    (Some(dialog), Some(tag), Some(target)) if *dialog.remote_tag == *tag => {
                        dialog.refresh_target(target);
                    }
                    (dialog @ None, Some(tag), Some(target)) => {
                        // RFC 3261 §12.1.2: "The route set MUST be set to the list of URIs in the Record-Route header
                        // field from the response, taken in reverse order".
                        *dialog = Some(Box::new(Dialog::new(tag, target, answer.routes.iter().rev())));
                    }
                    _ => {}
                }
                Reaction::Accepted
            }
            423 if transaction.attempts < ATTEMPTS_MAX
                && answer.min_expires.is_some_and(|least| least > self.expires && least <= EXPIRES_MAX) =>
            {
                self.expires = answer.min_expires.unwrap_or(self.expires);
                self.owed = self.owed.saturating_sub(1);
                Reaction::Again(Cause::TooBrief)
            }
            481 if transaction.in_dialog => {
                let attempts = transaction.attempts;
                self.forget_dialog();
                if op == Op::Unsubscribe {
                    self.running = None;
                    Reaction::Accepted
                } else if attempts < ATTEMPTS_MAX {
                    Reaction::Again(Cause::DialogUnknown)
                } else {
                    self.running = None;
                    Reaction::Refused(481)
                }
            }
            status => {
                self.running = None;
                self.owed = self.owed.saturating_sub(1);
                Reaction::Refused(status)
            }
        }
    }

    /// Takes a NOTIFY.
    pub fn on_notify(&mut self, told: &Told<'_>) -> NotifyReaction {
        let mut reaction = NotifyReaction {
            status: 481,
            verdict: None,
            first_since: None,
            skipped: 0,
            ended_by_server: false,
        };
        let (Some(remote_tag), true) = (told.remote_tag, told.local_tag_fits) else { return reaction };
        let subscribing = self.running.is_some_and(|running| running.op == Op::Subscribe);
        match &mut self.dialog {
            _ if told.generation != self.generation => return reaction,
            Some(dialog) if *dialog.remote_tag != *remote_tag => return reaction,
            None if !subscribing => return reaction,
            _ if !told.event_fits => return NotifyReaction { status: 489, ..reaction },
            _ if told.terminated.is_none() => return NotifyReaction { status: 400, ..reaction },
            Some(dialog) => {
                if let Some(target) = told.contact {
                    dialog.refresh_target(target);
                }
            }
            dialog @ None => {
                let Some(target) = told.contact else { return NotifyReaction { status: 400, ..reaction } };
                *dialog = Some(Box::new(Dialog::new(remote_tag, target, told.routes.iter())));
            }
        }
        let terminated = told.terminated == Some(true);
        let before = self.watch.newest();
        let verdict = self.watch.observe(Notice {
            cseq: told.cseq,
            branch: told.branch,
            state: told.state,
            owed: self.owed > 0,
            terminated,
        });
        reaction.verdict = Some(verdict);
        reaction.status = match verdict {
            Verdict::Backward | Verdict::Retransmission { refused: true } => 500,
            _ => 200,
        };
        match verdict {
            Verdict::Retransmission { .. } | Verdict::Backward => return reaction,
            Verdict::Fresh if before > 0 => reaction.skipped = told.state - before - 1,
            Verdict::Repeated => self.owed -= 1,
            _ => {}
        }
        if let Some(running) = self.running.as_mut().filter(|running| running.op == Op::Subscribe) {
            if !running.notified {
                reaction.first_since = Some(running.intended);
                running.notified = true;
                if verdict != Verdict::Repeated {
                    self.owed = self.owed.saturating_sub(1);
                }
            }
            if running.answered {
                self.running = None;
            }
        }
        if terminated && self.active {
            reaction.ended_by_server = !self.running.is_some_and(|running| running.op == Op::Unsubscribe);
            self.active = false;
        }
        reaction
    }

    /// Timer F, or Timer N (RFC 6665 §4.1.2.4): the running request is given up.
    pub fn give_up(&mut self) {
        if self.running.take().is_some_and(|running| !running.notified) {
            self.owed = self.owed.saturating_sub(1);
        }
    }

    /// Whether it is subscribed.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Where its requests go; none for the configured server.
    pub fn next_hop(&self) -> Option<SocketAddr> {
        let in_dialog = self.running.is_some_and(|running| running.in_dialog);
        self.dialog.as_ref().filter(|_| in_dialog)?.next_hop
    }

    /// Its present name.
    pub fn ident(&self, index: u32) -> Ident {
        Ident { kind: Kind::Watcher, index, generation: self.generation }
    }

    /// The next SUBSCRIBE is an initial one with a new Call-ID.
    fn forget_dialog(&mut self) {
        self.dialog = None;
        self.active = false;
        self.owed = 0;
        self.generation = self.generation.wrapping_add(1);
        self.watch.new_dialog();
    }
}

/// A phone that publishes its state.
#[derive(Debug)]
pub struct Presentity {
    /// The request that runs.
    pub running: Option<Transaction>,
    cseq: u32,
    expires: u32,
    entity_tag: Vec<u8>,
    state: u32,
    accepted: u32,
    unsure: Option<u32>,
}

impl Presentity {
    /// A phone that will ask for `expires` seconds.
    pub fn new(expires: u32) -> Self {
        Self { running: None, cseq: 19, expires, entity_tag: Vec::new(), state: 0, accepted: 0, unsure: None }
    }

    /// Begins `op`: a new state with [`Op::Publish`]. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unpublish && self.entity_tag.is_empty() {
            return false;
        }
        self.state += u32::from(op == Op::Publish);
        self.begin(op, intended, 0);
        true
    }

    /// Begins the running operation again, with the same state.
    pub fn start_again(&mut self) {
        if let Some(Transaction { op, intended, attempts, .. }) = self.running {
            self.begin(op, intended, attempts + 1);
        }
    }

    fn begin(&mut self, op: Op, intended: Nanos, attempts: u8) {
        self.cseq += 1;
        self.running = Some(Transaction {
            cseq: self.cseq,
            op,
            intended,
            in_dialog: false,
            answered: false,
            notified: false,
            attempts,
        });
    }

    /// Writes the running request.
    pub fn write(&self, out: &mut Vec<u8>, scratch: &mut Vec<u8>, style: &Style, index: u32, local: &str) {
        let Some(transaction) = self.running else { return };
        let removes = transaction.op == Op::Unpublish;
        let from = Ident { kind: Kind::Presentity, index, generation: 0 };
        let expires = if removes { 0 } else { self.expires };
        let request = Request { from, local, cseq: transaction.cseq, expires };
        let tag = (!self.entity_tag.is_empty()).then_some(&self.entity_tag[..]);
        let state = State { presentity: index, number: self.state, intended: transaction.intended };
        message::publish(out, scratch, style, request, tag, (!removes).then_some(state));
    }

    /// Takes an answer to a PUBLISH.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(transaction) = self.running.filter(|running| running.cseq == answer.cseq) else {
            return Reaction::Stray;
        };
        match answer.status {
            ..200 => Reaction::Provisional,
            200..300 => {
                self.running = None;
                self.entity_tag.clear();
                if transaction.op == Op::Publish {
                    self.entity_tag.extend_from_slice(answer.entity_tag.unwrap_or_default());
                    self.accepted = self.state;
                    self.unsure = None;
                }
                Reaction::Accepted
            }
            412 if transaction.op == Op::Unpublish => {
                self.running = None;
                self.entity_tag.clear();
                Reaction::Accepted
            }
            412 if transaction.attempts < ATTEMPTS_MAX => {
                self.entity_tag.clear();
                Reaction::Again(Cause::TagUnknown)
            }
            423 if transaction.attempts < ATTEMPTS_MAX
                && answer.min_expires.is_some_and(|least| least > self.expires && least <= EXPIRES_MAX) =>
            {
                self.expires = answer.min_expires.unwrap_or(self.expires);
                Reaction::Again(Cause::TooBrief)
            }
            status => {
                self.running = None;
                if status >= 500 && transaction.op == Op::Publish {
                    self.unsure = Some(self.state);
                }
                Reaction::Refused(status)
            }
        }
    }

    /// Timer F: nobody knows whether the server has the state.
    pub fn give_up(&mut self) {
        if self.running.take().is_some_and(|running| running.op == Op::Publish) {
            self.unsure = Some(self.state);
        }
    }

    /// Number of the state that was published last, answered or not.
    pub fn state(&self) -> u32 {
        self.state
    }

    /// Number of the last state that the server accepted, and of a newer one that it may have.
    pub fn settled(&self) -> (u32, Option<u32>) {
        (self.accepted, self.unsure)
    }
}

/// A phone that registers.
#[derive(Debug)]
pub struct Registrant {
    /// The request that runs.
    pub running: Option<Transaction>,
    cseq: u32,
    expires: u32,
    bound: bool,
}

impl Registrant {
    /// A phone that will ask for `expires` seconds.
    pub fn new(expires: u32) -> Self {
        Self { running: None, cseq: 19, expires, bound: false }
    }

    /// Begins `op`. False if there is nothing to do.
    pub fn start(&mut self, op: Op, intended: Nanos) -> bool {
        if op == Op::Unregister && !self.bound {
            return false;
        }
        self.begin(op, intended, 0);
        true
    }

    /// Begins the running operation again.
    pub fn start_again(&mut self) {
        if let Some(Transaction { op, intended, attempts, .. }) = self.running {
            self.begin(op, intended, attempts + 1);
        }
    }

    fn begin(&mut self, op: Op, intended: Nanos, attempts: u8) {
        self.cseq += 1;
        self.running = Some(Transaction {
            cseq: self.cseq,
            op,
            intended,
            in_dialog: false,
            answered: false,
            notified: false,
            attempts,
        });
    }

    /// Writes the running request.
    pub fn write(&self, out: &mut Vec<u8>, style: &Style, index: u32, local: &str) {
        let Some(transaction) = self.running else { return };
        let from = Ident { kind: Kind::Registrant, index, generation: 0 };
        let expires = if transaction.op == Op::Unregister { 0 } else { self.expires };
        message::register(out, style, Request { from, local, cseq: transaction.cseq, expires });
    }

    /// Takes an answer to a REGISTER.
    pub fn on_answer(&mut self, answer: &Answer<'_>) -> Reaction {
        let Some(transaction) = self.running.filter(|running| running.cseq == answer.cseq) else {
            return Reaction::Stray;
        };
        match answer.status {
            ..200 => Reaction::Provisional,
            200..300 => {
                self.running = None;
                self.bound = transaction.op == Op::Register;
                Reaction::Accepted
            }
            423 if transaction.attempts < ATTEMPTS_MAX
                && answer.min_expires.is_some_and(|least| least > self.expires && least <= EXPIRES_MAX) =>
            {
                self.expires = answer.min_expires.unwrap_or(self.expires);
                Reaction::Again(Cause::TooBrief)
            }
            status => {
                self.running = None;
                Reaction::Refused(status)
            }
        }
    }

    /// Timer F.
    pub fn give_up(&mut self) {
        self.running = None;
    }
}

/// The address that a SIP URI, bare or in angle brackets, leads to; none unless its host is an IP address.
fn next_hop_of(uri: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(uri).ok()?;
    let text = text.split_once('<').map_or(text, |(_, inner)| inner);
    let text = text.trim_start().strip_prefix("sip:")?;
    let end = text.find(['>', ';', '?', ' ']).unwrap_or(text.len());
    let host_port = text[..end].rsplit('@').next()?;
    host_port.parse().ok().or_else(|| {
        let host = host_port.trim_start_matches('[').trim_end_matches(']');
        Some(SocketAddr::new(host.parse().ok()?, 5060))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Salt;

    fn style() -> Style {
        Style { domain: "example.com".into(), salt: Salt(1), wall_start_secs: 0 }
    }

    fn told(cseq: u32, state: u32) -> Told<'static> {
        Told {
            cseq,
            branch: cseq,
            local_tag_fits: true,
            remote_tag: Some(b"srv"),
            contact: Some(b"sip:10.0.0.9:5071"),
            event_fits: true,
            terminated: Some(false),
            state,
            ..Told::default()
        }
    }

    fn answer(status: u16, cseq: u32) -> Answer<'static> {
        let (remote_tag, contact) = (Some(&b"srv"[..]), Some(&b"sip:10.0.0.9:5071"[..]));
        Answer { status, cseq, remote_tag, contact, ..Answer::default() }
    }

    fn text(watcher: &Watcher) -> String {
        let mut out = Vec::new();
        watcher.write(&mut out, &style(), 3, "127.0.0.1:9");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_dialog_is_learned_from_the_200() {
        let mut watcher = Watcher::new(0, 600);
        watcher.start(Op::Subscribe, 5);
        assert!(text(&watcher).starts_with("SUBSCRIBE sip:p0000000@example.com"));
        let routes: [&[u8]; 2] = [b"<sip:10.0.0.1;lr>", b"<sip:10.0.0.2:5064;lr>"];
        assert_eq!(watcher.on_answer(&Answer { routes: &routes, ..answer(200, 20) }), Reaction::Accepted);
        assert!(watcher.is_active() && watcher.running.is_some());
        assert_eq!(watcher.on_notify(&told(1, 0)).first_since, Some(5));
        assert!(watcher.running.is_none());
        watcher.start(Op::Subscribe, 9);
        let text = text(&watcher);
        assert!(text.starts_with("SUBSCRIBE sip:10.0.0.9:5071 SIP/2.0"), "{text}");
        assert!(text.contains("Route: <sip:10.0.0.2:5064;lr>\r\nRoute: <sip:10.0.0.1;lr>\r\n"), "{text}");
        assert_eq!(watcher.next_hop(), Some("10.0.0.2:5064".parse().unwrap()));
    }

    #[test]
    fn the_dialog_is_learned_from_a_notify_that_overtakes_the_200() {
        let mut watcher = Watcher::new(0, 600);
        watcher.start(Op::Subscribe, 5);
        let initial = text(&watcher);
        let reaction = watcher.on_notify(&told(1, 4));
        assert_eq!((reaction.status, reaction.verdict), (200, Some(Verdict::Fresh)));
        assert_eq!(text(&watcher), initial, "a retransmission is the same request");
        assert!(!watcher.is_active());
        assert_eq!(watcher.on_answer(&answer(200, 20)), Reaction::Accepted);
        assert!(watcher.is_active() && watcher.running.is_none());
        assert_eq!(watcher.on_answer(&answer(200, 20)), Reaction::Stray);
    }

    #[test]
    fn strangers_are_answered_481() {
        let mut watcher = Watcher::new(0, 600);
        assert_eq!(watcher.on_notify(&told(1, 1)).status, 481, "nobody subscribed");
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 20));
        assert_eq!(watcher.on_notify(&Told { remote_tag: Some(b"other"), ..told(1, 1) }).status, 481);
        assert_eq!(watcher.on_notify(&Told { local_tag_fits: false, ..told(1, 1) }).status, 481);
        assert_eq!(watcher.on_notify(&Told { generation: 1, ..told(1, 1) }).status, 481);
        assert_eq!(watcher.on_notify(&Told { event_fits: false, ..told(1, 1) }).status, 489);
        assert_eq!(watcher.on_notify(&Told { terminated: None, ..told(1, 1) }).status, 400);
        assert_eq!(watcher.on_notify(&told(1, 1)).status, 200);
    }

    #[test]
    fn a_refused_interval_is_asked_for_longer() {
        let mut watcher = Watcher::new(0, 60);
        watcher.start(Op::Subscribe, 7);
        let brief = Answer { min_expires: Some(900), ..answer(423, 20) };
        assert_eq!(watcher.on_answer(&brief), Reaction::Again(Cause::TooBrief));
        watcher.start_again();
        assert!(text(&watcher).contains("CSeq: 21 SUBSCRIBE") && text(&watcher).contains("Expires: 900\r\n"));
        // A server that asks for the same again is not believed.
        assert_eq!(watcher.on_answer(&Answer { cseq: 21, ..brief }), Reaction::Refused(423));
        assert!(watcher.running.is_none());
    }

    #[test]
    fn a_lost_dialog_is_made_anew_with_another_call_id() {
        let mut watcher = Watcher::new(0, 600);
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 20));
        watcher.on_notify(&told(9, 1));
        watcher.start(Op::Subscribe, 0);
        assert_eq!(watcher.on_answer(&answer(481, 21)), Reaction::Again(Cause::DialogUnknown));
        watcher.start_again();
        assert_eq!(watcher.ident(3).generation, 1);
        assert!(text(&watcher).starts_with("SUBSCRIBE sip:p0000000@example.com"));
        let reaction = watcher.on_notify(&Told { generation: 1, ..told(1, 1) });
        assert_eq!(reaction.verdict, Some(Verdict::Repeated), "a lower CSeq is no step back in a new dialog");
    }

    #[test]
    fn the_end_of_a_subscription_is_ours_or_the_servers() {
        for ours in [true, false] {
            let mut watcher = Watcher::new(0, 600);
            watcher.start(Op::Subscribe, 0);
            watcher.on_answer(&answer(200, 20));
            watcher.on_notify(&told(1, 1));
            if ours {
                watcher.start(Op::Unsubscribe, 0);
                assert!(text(&watcher).contains("Expires: 0\r\n"));
            }
            let reaction = watcher.on_notify(&Told { terminated: Some(true), ..told(2, 0) });
            assert_eq!((reaction.status, reaction.ended_by_server), (200, !ours));
            assert!(!watcher.is_active());
        }
    }

    #[test]
    fn a_refresh_excuses_one_repeated_notify() {
        let mut watcher = Watcher::new(0, 600);
        watcher.start(Op::Subscribe, 0);
        watcher.on_answer(&answer(200, 20));
        assert_eq!(watcher.on_notify(&told(1, 0)).verdict, Some(Verdict::Repeated));
        watcher.on_notify(&told(2, 1));
        assert_eq!(watcher.on_notify(&told(3, 1)).verdict, Some(Verdict::Duplicate));
        watcher.start(Op::Subscribe, 0);
        assert_eq!(watcher.on_notify(&told(4, 1)).verdict, Some(Verdict::Repeated));
        assert_eq!(watcher.on_notify(&told(5, 1)).verdict, Some(Verdict::Duplicate));
    }

    #[test]
    fn skipped_states_are_counted_after_the_first() {
        let mut watcher = Watcher::new(0, 600);
        watcher.start(Op::Subscribe, 0);
        assert_eq!(watcher.on_notify(&told(1, 7)).skipped, 0);
        assert_eq!(watcher.on_notify(&told(2, 10)).skipped, 2);
    }

    fn published(presentity: &Presentity) -> String {
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        presentity.write(&mut out, &mut scratch, &style(), 0, "127.0.0.1:9");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_entity_tag_is_kept_and_forgotten_after_a_412() {
        let mut presentity = Presentity::new(600);
        presentity.start(Op::Publish, 0);
        assert!(!published(&presentity).contains("SIP-If-Match"));
        presentity.on_answer(&Answer { entity_tag: Some(b"e1"), ..answer(200, 20) });
        presentity.start(Op::Publish, 0);
        assert!(published(&presentity).contains("SIP-If-Match: e1\r\n"));
        assert_eq!(presentity.on_answer(&answer(412, 21)), Reaction::Again(Cause::TagUnknown));
        presentity.start_again();
        assert!(!published(&presentity).contains("SIP-If-Match"));
        assert_eq!(presentity.state(), 2, "it is still the same state");
        presentity.on_answer(&Answer { entity_tag: Some(b"e2"), ..answer(200, 22) });
        assert_eq!(presentity.settled(), (2, None));
    }

    #[test]
    fn a_state_without_an_answer_is_unsure() {
        let mut presentity = Presentity::new(600);
        presentity.start(Op::Publish, 0);
        presentity.on_answer(&answer(200, 20));
        presentity.start(Op::Publish, 0);
        presentity.give_up();
        assert_eq!(presentity.settled(), (1, Some(2)));
        presentity.start(Op::Publish, 0);
        assert_eq!(presentity.on_answer(&answer(403, 22)), Reaction::Refused(403));
        assert_eq!(presentity.settled(), (1, Some(2)));
    }

    #[test]
    fn nothing_is_removed_that_was_never_made() {
        assert!(!Presentity::new(1).start(Op::Unpublish, 0));
        assert!(!Registrant::new(1).start(Op::Unregister, 0));
        assert!(!Watcher::new(0, 1).start(Op::Unsubscribe, 0));
    }

    #[test]
    fn a_registration_is_refreshed_with_the_next_cseq() {
        let mut registrant = Registrant::new(600);
        for cseq in [20, 21] {
            assert!(registrant.start(Op::Register, 0));
            assert_eq!(registrant.on_answer(&answer(100, cseq)), Reaction::Provisional);
            assert_eq!(registrant.on_answer(&answer(200, cseq)), Reaction::Accepted);
            assert_eq!(registrant.on_answer(&answer(200, cseq)), Reaction::Stray);
        }
        assert!(registrant.start(Op::Unregister, 0));
    }

    #[test]
    fn next_hops_are_read_from_addresses_only() {
        for (uri, expected) in [
            ("sip:10.0.0.1", Some("10.0.0.1:5060")),
            ("<sip:a@10.0.0.1:99;lr>", Some("10.0.0.1:99")),
            ("sip:[2001:db8::1]:7;x", Some("[2001:db8::1]:7")),
            ("sip:[2001:db8::1]", Some("[2001:db8::1]:5060")),
            ("sip:example.com:5060", None),
            ("tel:1", None),
        ] {
            assert_eq!(next_hop_of(uri.as_bytes()), expected.map(|text| text.parse().unwrap()), "{uri}");
        }
    }
}

//! SIPL, the front service: takes REGISTER, PUBLISH and SUBSCRIBE, and answers whatever else comes.

mod authenticate;
mod compose;
mod date;
mod gruu;
mod options;
mod outbound;
mod publish;
mod reg;
mod register;
mod registered_state;
mod report;
mod subscribe;
mod winfo;

pub(crate) mod expire;

pub(crate) use authenticate::Guard;
pub(crate) use compose::Settling;
pub(crate) use date::DateLine;
pub(crate) use gruu::urn_of;
pub(crate) use reg::WatchedRegistration;
pub use report::Report;
pub(crate) use report::Reports;
pub(crate) use winfo::WatchedWatchers;

use comsipl_core::aor::{BadAor, canonical_into, plain};
use comsipl_core::msg::{self, Message, Method};
use comsipl_core::sips;
use comsipl_core::uri::Uri;
use comsipl_core::{AorKey, Flow, Now, Refusal, own_gruu};
use comsipl_fdb::Full;

use crate::reply::{Request, answer_again, answer_flow, transaction_key, unsupported};
use crate::settings::SipsRule;
use crate::shard::Shard;

impl Shard {
    /// Takes a datagram that this shard owns.
    pub fn on_datagram(&mut self, now: Now, flow: Flow, datagram: &[u8]) {
        if self.guard.has_bounds && !self.admits(now, flow) {
            return;
        }
        if msg::plain_answer(datagram).is_some_and(|answer| self.on_plain_answer(now, &answer)) {
            return;
        }
        if self.is_keep_alive(flow, datagram) {
            return;
        }
        // Looked at where it was made: it is too long to be moved for nothing.
        let parsed = msg::parse(datagram);
        let message = match &parsed {
            Ok(message) => message,
            Err(error) => {
                self.counters.malformed.up();
                // The sender is told once per datagram and nothing is kept: whoever sends rubbish costs no memory.
                let (code, reason) = (error.kind.status(), error.kind.reason_phrase());
                if let Some(via) = error.partial.via()
                    && error.partial.can_respond()
                {
                    self.outbox.send(answer_flow(&via, flow), |out| {
                        msg::respond_malformed(out, &error.partial, code, reason, flow.peer);
                    });
                }
                return;
            }
        };
        match message.status() {
            Some(status) => self.on_answer(now, message, status),
            None => self.on_request(now, flow, message),
        }
    }

    fn on_request(&mut self, now: Now, flow: Flow, message: &Message<'_>) {
        let Some(method) = message.method() else { return };
        if method == Method::Ack {
            // It belongs to an INVITE that we refused statelessly (RFC 3261 §8.2.7).
            return;
        }
        self.heed_wall_clock(now);
        if self.guard.gate.budgets.counts_requests() && !self.is_within_budget(now, flow, message) {
            return;
        }
        let transaction = transaction_key(&self.keys, message, message.cseq().method_text);
        // Over connections nothing is sent again and no answer is remembered.
        let answered = if flow.transport.is_stream() { None } else { self.transactions.find(transaction) };
        if let Some(answered) = answered {
            answer_again(&mut self.outbox, &answered, message, transaction);
            self.counters.retransmitted_requests.up();
            return;
        }
        let request = Request { now, flow, message, transaction };
        if self.guard.challenges && !self.is_authorized(&request, method) {
            return;
        }
        let result = if unsupported(message).next().is_some() && method != Method::Cancel {
            Err(Refusal::BadExtension)
        } else if let Err(refusal) = self.check_sips(&request, method) {
            Err(refusal)
        } else {
            match method {
                Method::Register => {
                    self.counters.registers.up();
                    self.on_register(&request)
                }
                Method::Publish => {
                    self.counters.publishes.up();
                    self.on_publish(&request)
                }
                Method::Subscribe => {
                    self.counters.subscribes.up();
                    self.on_subscribe(&request)
                }
                Method::Options => {
                    self.counters.other_requests.up();
                    self.on_options(&request)
                }
                Method::Cancel => {
                    self.counters.other_requests.up();
                    self.on_cancel(&request)
                }
                _ => {
                    self.counters.other_requests.up();
                    Err(Refusal::MethodNotAllowed)
                }
            }
        };
        if let Err(refusal) = result {
            self.refuse(&request, refusal);
        }
    }

    /// Empty datagrams, line ends and the like, with which phones keep their NAT bindings open. A double CRLF is
    /// answered with one (RFC 5626 §3.5.1 has it so on streams, and several phones expect it over UDP too).
    fn is_keep_alive(&mut self, flow: Flow, datagram: &[u8]) -> bool {
        if datagram.len() > 4 || !datagram.iter().all(|b| matches!(b, b'\r' | b'\n' | 0 | b' ')) {
            return false;
        }
        self.counters.keep_alives.up();
        if datagram == b"\r\n\r\n" {
            self.outbox.send(flow, |out| out.extend_from_slice(b"\r\n"));
        }
        true
    }

    /// The canonical AoR (into the scratch buffer) and its key, if this server is responsible for it.
    fn aor_of(&mut self, uri: &[u8]) -> Result<AorKey, Refusal> {
        if let Some(aor) = plain(uri) {
            return self.take_aor(aor);
        }
        let uri = Uri::parse(uri).map_err(|_| Refusal::BadRequest("Bad Request-URI"))?;
        self.scratch.aor.clear();
        canonical_into(&uri, &mut self.scratch.aor).map_err(|bad| match bad {
            BadAor::Scheme => Refusal::UnsupportedUriScheme,
            _ => Refusal::BadRequest("Bad Address"),
        })?;
        self.key_of_aor()
    }

    /// As [`Self::aor_of`], for an AoR that is in canonical form.
    fn take_aor(&mut self, aor: &[u8]) -> Result<AorKey, Refusal> {
        self.scratch.aor.clear();
        self.scratch.aor.extend_from_slice(aor);
        self.key_of_aor()
    }

    /// The key of the canonical AoR in the scratch buffer, if this server is responsible for it.
    fn key_of_aor(&self) -> Result<AorKey, Refusal> {
        let aor = &self.scratch.aor;
        let (_, host) = own_gruu(aor);
        if self.serves(host) { Ok(self.keys.aor(aor)) } else { Err(Refusal::NotFound) }
    }

    /// What `sips` URIs demand, unless an edge proxy has seen to it.
    fn check_sips(&self, request: &Request<'_>, method: Method) -> Result<(), Refusal> {
        match self.settings.tls.sips {
            SipsRule::Strict => sips::check(request.message, method, request.flow.transport.is_secure()),
            SipsRule::Edge => Ok(()),
        }
    }

    /// A request is brought to its owner by a look at a few of its bytes. Should that look and the parser ever read one
    /// differently, the request is refused, and nobody else's state is touched.
    fn check_owned(&self, partition: u8) -> Result<(), Refusal> {
        if self.files.owns(partition) { Ok(()) } else { Err(Refusal::BadRequest("Bad Request")) }
    }

    /// Whether the domain is ours; without configured domains every one is.
    fn serves(&self, host: &[u8]) -> bool {
        self.settings.domains.is_empty() || self.settings.domains.iter().any(|d| d.as_bytes() == host)
    }
}

/// A table or the disk is full: come back later, not all at once.
fn full(shard: &mut Shard, what: Full) -> Refusal {
    shard.note_full(what);
    shard.counters.refused_full.up();
    Refusal::Unavailable { retry_after_secs: 10 + shard.chance.below(50) }
}

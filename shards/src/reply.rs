//! Answering a request: written once, remembered for its retransmissions, sent the way it came.

use comsipl_core::event::{ALLOW_EVENTS, EventPackage};
use comsipl_core::header::Via;
use comsipl_core::limits::{CONTACT_LEN_MAX, UNSUPPORTED_LISTED_MAX};
use comsipl_core::msg::{self, Message, Method, Writer};
use comsipl_core::token::hex16;
use comsipl_core::transaction::{Answered, Kept, TransactionKey};
use comsipl_core::{Flow, HashKey, Now, Outbox, Refusal, SERVER_LINE, Uri};

use crate::shard::Shard;

/// Methods served.
pub const ALLOW: &str = "REGISTER, PUBLISH, SUBSCRIBE, OPTIONS";
/// Extensions served.
pub const SUPPORTED: &str = "path, outbound, gruu";
/// The same one by one.
const EXTENSIONS: [&[u8]; 3] = [b"path", b"outbound", b"gruu"];

/// A request on its way through SIPL.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The clocks.
    pub now: Now,
    /// Where it came from.
    pub flow: Flow,
    /// What it says.
    pub message: &'a Message<'a>,
    /// Its server transaction.
    pub transaction: TransactionKey,
}

impl Request<'_> {
    /// Its server transaction for another method (RFC 3261 §9.2: CANCEL names the transaction it cancels).
    #[must_use]
    pub fn transaction_as(&self, keys: &HashKey, method: &str) -> TransactionKey {
        transaction_key(keys, self.message, method.as_bytes())
    }

    /// Hash by which a request is known again after a restart, when the remembered answers are gone.
    #[must_use]
    pub const fn identity(&self) -> u64 {
        self.transaction.0 as u64
    }

    /// Seconds of the Expires header field, if there is a legible one. An illegible one counts as absent, as
    /// RFC 3261 §20.10 says of the Contact parameter.
    #[must_use]
    pub fn expires_secs(&self) -> Option<u32> {
        self.message.expires().and_then(Result::ok)
    }
}

/// Identity of a server transaction (RFC 3261 §17.2.3): branch, sent-by and method; for a branch without the magic cookie
/// (RFC 2543), the fields that the section lists instead.
#[must_use]
pub fn transaction_key(keys: &HashKey, message: &Message<'_>, method: &[u8]) -> TransactionKey {
    let via = message.via();
    match branch_key(keys, via, method) {
        Some(key) => key,
        None => {
            let cseq = message.cseq().number.to_be_bytes();
            let to_tag = message.to().tag().unwrap_or_default();
            let from_tag = message.from().tag().unwrap_or_default();
            keys.transaction(&[
                message.request_uri(),
                to_tag,
                from_tag,
                message.call_id(),
                &cseq,
                via.raw(),
                method,
            ])
        }
    }
}

/// Identity of a server transaction by its topmost Via, if its branch has the magic cookie.
pub(crate) fn branch_key(keys: &HashKey, via: &Via<'_>, method: &[u8]) -> Option<TransactionKey> {
    let branch = via.branch().filter(|branch| branch.starts_with(b"z9hG4bK"))?;
    let port = via.port().unwrap_or(0).to_be_bytes();
    Some(keys.transaction(&[branch, via.host(), &port, method]))
}

impl Shard {
    /// Answers a request and remembers the answer. `more` adds headers of its own and must end the head.
    pub(crate) fn answer(
        &mut self,
        request: &Request<'_>,
        status: u16,
        reason: &str,
        to_tag: Option<&[u8]>,
        more: impl FnOnce(&mut Writer<'_>),
    ) {
        let parts = self.write_answer(request, status, reason, to_tag, more);
        // RFC 6026 and §17.2.1 keep INVITE apart; we answer it statelessly. RFC 3261 §17.2.2: Timer J is "zero seconds for
        // reliable transports".
        // While requests are challenged, other methods come from people who have not proven anything, and nothing that would be
        // forgotten for theirs is remembered for them.
        let method = request.message.method();
        let is_challenged = matches!(method, Some(Method::Register | Method::Publish | Method::Subscribe));
        if method != Some(Method::Invite)
            && (is_challenged || !self.guard.challenges)
            && !request.flow.transport.is_stream()
            && let Some(answer) = self.outbox.newest_head()
        {
            let kept = Kept {
                start: &answer[..parts.start_end],
                has_vias: parts.tells_feedback,
                to_tag: to_tag.unwrap_or_default(),
                rest: &answer[parts.rest_begin..],
            };
            self.transactions.remember(request.transaction, request.flow, &kept, request.now.mono);
        }
    }

    /// Answers a request statelessly (RFC 3261 §8.2.7): whoever sends it again is answered anew.
    pub(crate) fn answer_unremembered(
        &mut self,
        request: &Request<'_>,
        status: u16,
        reason: &str,
        more: impl FnOnce(&mut Writer<'_>),
    ) {
        self.write_answer(request, status, reason, None, more);
    }

    /// Writes an answer to the outbox; tells what it is made of.
    fn write_answer(
        &mut self,
        request: &Request<'_>,
        status: u16,
        reason: &str,
        to_tag: Option<&[u8]>,
        more: impl FnOnce(&mut Writer<'_>),
    ) -> AnswerParts {
        let message = request.message;
        let source = request.flow.peer;
        let flow = answer_flow(message.via(), request.flow);
        // RFC 3261 §8.2.6.2: every answer but 100 has a To tag; a retransmission must get the same one.
        let made = tag_of(request.transaction);
        let to_tag = to_tag.unwrap_or(&made);
        let feedback = self.feedback();
        let mut parts = AnswerParts::default();
        self.outbox.send(flow, |out| {
            let begin = out.len();
            Writer::new(out).status_line(status, reason);
            parts.start_end = out.len() - begin;
            parts.tells_feedback = msg::push_vias(out, message, source, feedback);
            if parts.tells_feedback {
                parts.start_end = out.len() - begin;
            }
            let mut writer = msg::push_ids(out, message, Some(to_tag));
            parts.rest_begin = writer.buffer().len() - begin;
            writer.buffer().extend_from_slice(SERVER_LINE.as_bytes());
            more(&mut writer);
        });
        if (200..300).contains(&status) {
            self.counters.answered_ok.up();
        } else {
            self.counters.refused.up();
        }
        parts
    }

    /// Refuses a request, with the headers that go with the reason.
    pub(crate) fn refuse(&mut self, request: &Request<'_>, refusal: Refusal) {
        let method = request.message.method();
        self.answer(request, refusal.status(), refusal.reason(), None, |writer| {
            match refusal {
                Refusal::MethodNotAllowed => {
                    writer.header("Allow", ALLOW.as_bytes());
                }
                Refusal::IntervalTooBrief { min_secs } => {
                    writer.number("Min-Expires", u64::from(min_secs));
                }
                Refusal::BadEvent => {
                    writer.header("Allow-Events", ALLOW_EVENTS.as_bytes());
                }
                Refusal::UnsupportedMediaType => {
                    // RFC 3261 §21.4.13: the types that this request may carry; a SUBSCRIBE may carry none.
                    let event = request.message.event().filter(|_| method == Some(Method::Publish));
                    let package = event.and_then(|event| EventPackage::by_name(event.package()));
                    let accept = package.map_or("", |package| package.content_type);
                    writer.header("Accept", accept.as_bytes());
                    if request.message.content_encoding().next().is_some() {
                        // RFC 3261 §8.2.3: the encodings understood are listed.
                        writer.header("Accept-Encoding", b"identity");
                    }
                }
                Refusal::BadExtension => {
                    for tag in unsupported(request.message).take(UNSUPPORTED_LISTED_MAX) {
                        writer.header("Unsupported", tag);
                    }
                }
                Refusal::SipsNotAllowed => {
                    // RFC 5630 §9.1: warn-code, a pseudonym of ours (RFC 3261 §20.43), text.
                    writer.header("Warning", b"380 comsipl \"SIPS Not Allowed\"");
                }
                Refusal::Unavailable { retry_after_secs } | Refusal::OutOfReach { retry_after_secs } => {
                    writer.number("Retry-After", u64::from(retry_after_secs));
                }
                _ => {}
            }
            writer.end_without_body();
        });
    }
}

/// What an answer is made of: bytes of its own up to `start_end` and from `rest_begin` on; between them what it repeats of its
/// request.
#[derive(Clone, Copy, Default)]
struct AnswerParts {
    start_end: usize,
    /// Whether the Vias tell about an overload, and so belong to the bytes of its own.
    tells_feedback: bool,
    rest_begin: usize,
}

/// Gives a repeated request the answer that it was given first, to the same place.
pub(crate) fn answer_again(
    outbox: &mut Outbox,
    answered: &Answered<'_>,
    message: &Message<'_>,
    transaction: TransactionKey,
) {
    let Answered { kept, flow } = *answered;
    let made = tag_of(transaction);
    let to_tag = if kept.to_tag.is_empty() { &made[..] } else { kept.to_tag };
    outbox.send(answer_flow(message.via(), flow), |out| {
        out.extend_from_slice(kept.start);
        if !kept.has_vias {
            msg::push_vias(out, message, flow.peer, None);
        }
        msg::push_ids(out, message, Some(to_tag));
        out.extend_from_slice(kept.rest);
    });
}

/// The To tag of an answer that makes no dialog.
fn tag_of(transaction: TransactionKey) -> [u8; 16] {
    hex16((transaction.0 >> 64) as u64)
}

/// Where the answer to a request goes that came on `flow` with this topmost Via.
///
/// > If the "sent-protocol" is a reliable transport protocol […] the response MUST be sent using the existing connection to
/// > the source of the original request that created the transaction, if that connection is still open. (RFC 3261 §18.2.2)
///
/// Nobody waits for one whose connection is gone: a client gives its transaction up then (RFC 3261 §17.1.4).
#[must_use]
pub fn answer_flow(via: &Via<'_>, flow: Flow) -> Flow {
    if flow.transport.is_stream() {
        return flow;
    }
    Flow { peer: msg::response_destination(via, flow.peer), ..flow }
}

/// Required extensions that we do not serve (RFC 3261 §8.2.2.3).
pub fn unsupported<'a>(message: &'a Message<'a>) -> impl Iterator<Item = &'a [u8]> {
    message.require().filter(|tag| !EXTENSIONS.iter().any(|served| tag.eq_ignore_ascii_case(served)))
}

/// The Contact URI of a message that must have exactly one (RFC 3261 §8.1.1.8).
#[must_use]
pub fn contact_uri<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let mut contacts = message.contacts();
    let first = contacts.next()?.ok()?.uri()?;
    contacts.next().is_none().then_some(first)
}

/// A Contact URI that may become our Request-URI: well-formed, and of a length that may be stored and sent again.
#[must_use]
pub fn usable(contact: &[u8]) -> Option<Uri<'_>> {
    if contact.len() > CONTACT_LEN_MAX {
        return None;
    }
    Uri::parse(contact).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::engine::{Engine, by_udp, publish, subscribe};

    /// Delivers the request twice, the second time from another port and when other clients are told of an overload; tells the
    /// answer to the first.
    fn answered_twice(request: &str) -> String {
        let mut engine = Engine::new();
        let request = request.replace('\n', "\r\n");
        let deliver = |engine: &mut Engine, flow| {
            engine.shard.on_datagram(engine.now, flow, request.as_bytes());
            let outbox = &engine.shard.outbox;
            let answer = outbox.messages().first().expect("an answer");
            let (flow, head) = (answer.flow, outbox.head(answer).to_vec());
            engine.turn();
            (flow, String::from_utf8(head).unwrap())
        };
        let first = deliver(&mut engine, by_udp());
        engine.pass(Duration::from_secs(31));
        let levels = std::sync::Arc::clone(&engine.shard.overload.levels);
        levels.tell(0, comsipl_core::overload::WHOLE / 2, engine.now.wall);
        levels.tell(0, comsipl_core::overload::WHOLE, engine.now.wall);
        let again = deliver(&mut engine, Flow { peer: "192.0.2.9:1024".parse().unwrap(), ..by_udp() });
        assert_eq!(again, first);
        assert_eq!(engine.shard.counters().retransmitted_requests.get(), 1);
        first.1
    }

    #[test]
    fn a_repeated_request_gets_the_same_bytes_to_the_same_place() {
        let register = |via: &str, more: &str| {
            format!(
                "REGISTER sip:example.com SIP/2.0\n{via}\nFrom: <sip:alice@example.com>;tag=a\n\
                 To: \"Alice\" <sip:alice@example.com>\nCall-ID: r1\nCSeq: 0007 REGISTER\n{more}\
                 Contact: <sip:alice@192.0.2.7>\nContent-Length: 0\n\n"
            )
        };
        let told = answered_twice(&register("Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKa;rport", ""));
        assert!(told.contains(";branch=z9hG4bKa;received=192.0.2.7;rport=5060\r\n"), "{told}");
        // Answered at the port of the Via, with `received` for the name.
        let told = answered_twice(&register("v: SIP/2.0/UDP phone.example.com:5070;branch=z9hG4bKb", ""));
        assert!(told.contains(";received=192.0.2.7\r\n"), "{told}");
        let folded =
            "Via: SIP/2.0/UDP 192.0.2.7\n ;branch=z9hG4bKc , SIP/2.0/UDP 10.0.0.1\nVia: SIP/2.0/TCP 10.0.0.2";
        assert!(answered_twice(&register(folded, "Subject: a\n b\n")).starts_with("SIP/2.0 200 OK\r\n"));
        let told = answered_twice(&register("Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKd;oc", ""));
        assert!(told.contains(";oc=0;"), "{told}");
        // RFC 2543 knew no cookie.
        assert!(
            answered_twice(&register("Via: SIP/2.0/UDP 192.0.2.7", "")).starts_with("SIP/2.0 200 OK\r\n")
        );
        let refused = register("Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKe", "Require: magic\n");
        assert!(answered_twice(&refused).contains("\r\nUnsupported: magic\r\n"));
    }

    #[test]
    fn a_repeated_request_that_makes_a_dialog_gets_the_same_tag() {
        let told = answered_twice(&subscribe("UDP"));
        assert!(
            told.starts_with("SIP/2.0 200 OK\r\n") && told.contains("\r\nTo: <sip:alice@example.com>;tag=")
        );
        assert!(answered_twice(&publish(1, "open")).contains("\r\nSIP-ETag: "));
    }
}

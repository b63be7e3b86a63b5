//! The phones of a scenario: their addresses, their lines and what they remember of a conversation.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::{ConnectionId, Transport};

use crate::world::Bytes;
use crate::world::sip_text::{SipText, uri_of};

/// A phone at an address.
#[derive(Debug)]
pub(super) struct Phone {
    /// Its name in the scenario.
    pub name: String,
    /// Where its datagrams come from and where it can be reached.
    pub at: SocketAddr,
    /// The address it writes into its messages; differs from `at` behind a NAT.
    pub via: SocketAddr,
    /// What it speaks.
    pub over: Transport,
    /// The connection it opened last, if it speaks over one.
    pub connection: Option<ConnectionId>,
    /// What it takes connections by at its address, if it does.
    pub listens: Option<Transport>,
    /// Its lines, by name.
    pub lines: BTreeMap<String, Line>,
    /// What has come and has not been looked at yet, oldest first.
    pub inbox: VecDeque<Received>,
    /// The status with which NOTIFYs are answered as they come.
    pub answers: Option<u16>,
}

/// A message that has come.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// When it came.
    pub at: Duration,
    /// The listener it came from.
    pub from: SocketAddr,
    /// The connection that brought it.
    pub connection: Option<ConnectionId>,
    /// The datagram.
    pub bytes: Bytes,
    /// The datagram, taken apart.
    pub text: SipText,
    /// Whether the phone has answered it by itself.
    pub answered: bool,
}

/// One conversation of a phone.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Tag of its From header fields.
    pub tag: String,
    /// Call-IDs by method.
    call_ids: BTreeMap<String, String>,
    /// Last CSeq number by Call-ID.
    cseqs: BTreeMap<String, u32>,
    /// The last request it sent.
    pub last_sent: Option<Bytes>,
    /// The last message of each kind (method or status) that was looked at.
    pub last_seen: BTreeMap<String, Bytes>,
    /// Requests that were looked at and not answered yet, oldest first.
    pub unanswered: VecDeque<Received>,
    /// The dialog of its subscription.
    pub dialog: Option<Dialog>,
    /// The challenges that came last, in their order.
    pub challenges: Vec<String>,
    /// How often it used each nonce.
    pub nonce_counts: BTreeMap<String, u32>,
}

/// What a watcher keeps of a dialog (RFC 3261 §12.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialog {
    /// Value of From in its requests.
    pub local: String,
    /// Value of To in its requests, with the tag.
    pub remote: String,
    /// Where its requests are addressed.
    pub target: String,
    /// Values of Route, in the order in which they are written.
    pub routes: Vec<String>,
    /// Its Call-ID.
    pub call_id: String,
}

impl Phone {
    /// A phone that has not said anything yet.
    pub fn new(name: &str, at: SocketAddr, via: SocketAddr, over: Transport) -> Self {
        let lines = BTreeMap::from([(String::new(), Line::new(name, ""))]);
        Self {
            name: name.to_owned(),
            at,
            via,
            over,
            connection: None,
            listens: None,
            lines,
            inbox: VecDeque::new(),
            answers: None,
        }
    }

    /// Whether it hears what comes by a connection, or by none.
    pub fn hears(&self, connection: Option<ConnectionId>) -> bool {
        match connection {
            None => !self.over.is_stream(),
            Some(_) => self.connection == connection || self.listens.is_some(),
        }
    }

    /// A line, made on first use.
    pub fn line(&mut self, name: &str) -> &mut Line {
        let phone = &self.name;
        self.lines.entry(name.to_owned()).or_insert_with(|| Line::new(phone, name))
    }

    /// The name of the line that a message belongs to: the one that knows its Call-ID, or else the unnamed one.
    pub fn line_of(&self, message: &SipText) -> &str {
        let call_id = message.header("Call-ID").unwrap_or("");
        let knows = |line: &Line| line.cseqs.contains_key(call_id);
        self.lines.iter().find(|(_, line)| knows(line)).map_or("", |(name, _)| name)
    }

    /// Takes the oldest message for `line` out of the inbox.
    pub fn take(&mut self, line: &str) -> Option<Received> {
        let at = self.inbox.iter().position(|r| self.line_of(&r.text) == line)?;
        self.inbox.remove(at)
    }
}

impl Line {
    fn new(phone: &str, line: &str) -> Self {
        Self { tag: format!("{phone}{line}-tag"), ..Self::default() }
    }

    /// The Call-ID of requests with `method` that name none.
    pub fn call_id(&mut self, phone: &str, line: &str, method: &str) -> String {
        let fresh = || format!("{}{line}@{phone}", method.to_lowercase());
        self.call_ids.entry(method.to_owned()).or_insert_with(fresh).clone()
    }

    /// The next CSeq number of a Call-ID.
    pub fn next_cseq(&mut self, call_id: &str) -> u32 {
        let cseq = self.cseqs.entry(call_id.to_owned()).or_insert(0);
        *cseq += 1;
        *cseq
    }

    /// Notes what was sent: later requests of the Call-ID go on from its CSeq.
    pub fn on_sent(&mut self, bytes: Bytes) {
        if let Some(sent) = SipText::read(&bytes) {
            if let (Some(call_id), Some(cseq)) = (sent.header("Call-ID"), sent.cseq()) {
                let known = self.cseqs.entry(call_id.to_owned()).or_insert(cseq);
                *known = cseq.max(*known);
            }
            if sent.method() == Some("SUBSCRIBE") && self.dialog.is_none() {
                let of = |name: &str| sent.header(name).unwrap_or("").to_owned();
                self.dialog = Some(Dialog {
                    local: of("From"),
                    remote: of("To"),
                    target: sent.request_uri().unwrap_or("").to_owned(),
                    routes: Vec::new(),
                    call_id: of("Call-ID"),
                });
            } else if sent.method() == Some("SUBSCRIBE") && sent.param("To", "tag").is_none() {
                self.dialog = None;
                return self.on_sent(bytes);
            }
        }
        self.last_sent = Some(bytes);
    }

    /// Notes what came: the dialog's remote tag, route set and target, and what must still be answered.
    pub fn on_seen(&mut self, received: &Received) {
        let text = &received.text;
        if text.status() == Some(401) {
            self.challenges = text.all("WWW-Authenticate").map(str::to_owned).collect();
        }
        if let Some(dialog) = &mut self.dialog {
            let same_call = text.header("Call-ID") == Some(&dialog.call_id);
            let accepted = text.status() == Some(200) && text.cseq_method() == Some("SUBSCRIBE");
            let notified = text.method() == Some("NOTIFY");
            if same_call && (accepted || notified) {
                let remote = if accepted { "To" } else { "From" };
                dialog.remote = text.header(remote).unwrap_or("").to_owned();
                let mut routes: Vec<String> =
                    text.values("Record-Route").into_iter().map(str::to_owned).collect();
                if accepted {
                    routes.reverse();
                    dialog.routes = routes;
                }
                if let Some(contact) = text.header("Contact") {
                    dialog.target = uri_of(contact).to_owned();
                }
            }
        }
        let known = |r: &Received| r.bytes == received.bytes;
        if text.method().is_some() && !received.answered && !self.unanswered.iter().any(known) {
            self.unanswered.push_back(received.clone());
        }
        self.last_seen.insert(kind_of(text), Bytes::clone(&received.bytes));
    }
}

/// The method of a request, the status of a response.
pub(super) fn kind_of(message: &SipText) -> String {
    message.method().map_or_else(|| format!("{:?}", message.status()), str::to_owned)
}

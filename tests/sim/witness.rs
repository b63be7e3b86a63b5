//! Watches everything on the wire and complains when a law is broken.
//!
//! Laws:
//!   * the CSeq of a dialog's NOTIFYs only grows, also over crashes; what bears the same number is the same bytes;
//!   * at most one NOTIFY of a dialog to an address is unanswered, and none is sent again once it is answered, or over a
//!     connection at all;
//!   * after a NOTIFY that says `terminated` there is no other;
//!   * an entity tag is accepted once;
//!   * a request is answered, and all answers to it are the same bytes as long as one process lives (64*T1 at least).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::time::Duration;

use comsipl_tests::world::sip_text::SipText;
use comsipl_tests::world::{Bytes, Happening};

/// A dialog as the wire shows it: Call-ID, the server's tag, the watcher's tag, the Event with its id.
type Dialog = (String, String, String, String);

/// A request as the wire shows it: top branch, method, Call-ID, CSeq.
type Request = (String, String, String, String);

/// What has been seen so far.
#[derive(Default)]
pub struct Witness {
    dialogs: BTreeMap<Dialog, Notified>,
    requests: BTreeMap<Request, Asked>,
    /// When a SUBSCRIBE was answered 200 last, by Call-ID.
    granted: BTreeMap<String, Duration>,
    /// The requests that entity tags were accepted of, and when.
    accepted: BTreeMap<String, (Request, Duration)>,
    /// Counts processes of the server.
    life: u32,
}

/// The NOTIFYs of a dialog.
struct Notified {
    to: SocketAddr,
    cseq: u32,
    bytes: Bytes,
    first_sent: Duration,
    /// When it was sent or answered last.
    touched: Duration,
    life: u32,
    answered: bool,
    terminated: bool,
    troubled: bool,
    /// A power cut may have taken what the server knew of it.
    forgotten: bool,
}

/// A request and its answers.
struct Asked {
    first_taken: Duration,
    life: u32,
    answer: Option<Bytes>,
    /// Its SIP-If-Match.
    entity_tag: Option<String>,
}

impl Witness {
    /// Takes note of something that happened.
    ///
    /// # Errors
    ///
    /// The law that was broken.
    pub fn see(&mut self, now: Duration, happening: &Happening) -> Result<(), String> {
        match happening {
            Happening::Crashed => {
                self.life += 1;
                // What was on its way is owed by the next process; what may have been given up is not.
                for dialog in self.dialogs.values_mut().filter(|dialog| !dialog.answered) {
                    dialog.troubled |= now.saturating_sub(dialog.first_sent) > NEARLY_TIMER_F;
                }
            }
            Happening::DiedWith { bytes } => {
                let text = SipText::read(bytes).ok_or("the server wrote what cannot be read")?;
                if let Some(before) = self.dialogs.get_mut(&dialog_key(&text)) {
                    before.touched = now;
                }
            }
            // What was accepted since may not have been, as far as the files know.
            Happening::PowerFailed { synced_at } => {
                self.accepted.retain(|_, (_, at)| *at < *synced_at);
                let young = self.dialogs.values_mut().filter(|dialog| dialog.first_sent >= *synced_at);
                young.for_each(|dialog| dialog.forgotten = true);
            }
            Happening::Restarted
            | Happening::Refused { .. }
            | Happening::ClockSet { .. }
            | Happening::PhoneGot { .. } => {}
            Happening::ServerSent { to, bytes, .. } => {
                let text = SipText::read(bytes).ok_or("the server sent what cannot be read")?;
                check_length(&text)?;
                if text.method().is_some() {
                    self.see_notify(now, *to, bytes, &text)?;
                } else {
                    self.see_answer(now, bytes, &text)?;
                }
            }
            Happening::ServerTook { bytes, .. } => {
                let Some(text) = SipText::read(bytes) else { return Ok(()) };
                if text.method().is_some() {
                    let life = self.life;
                    let entity_tag = text.header("SIP-If-Match").map(str::to_owned);
                    let fresh = Asked { first_taken: now, life, answer: None, entity_tag };
                    match self.requests.entry(request_key(&text)) {
                        Entry::Occupied(mut asked) if asked.get().life != life => {
                            asked.insert(fresh);
                        }
                        Entry::Occupied(_) => {}
                        Entry::Vacant(place) => {
                            place.insert(fresh);
                        }
                    }
                } else if text.status().is_some_and(|status| status >= 200) {
                    self.see_answer_to_notify(now, &text);
                }
            }
        }
        Ok(())
    }

    /// Whether the server may have given the dialog up because a NOTIFY was not answered in time.
    pub fn is_troubled(&self, now: Duration, call_id: &str, watcher_tag: &str) -> bool {
        self.dialogs.iter().filter(|((call, _, tag, _), _)| call == call_id && tag == watcher_tag).any(
            |(_, d)| {
                let is_old = now.saturating_sub(d.first_sent) > NEARLY_TIMER_F;
                d.troubled || (!d.answered && d.life == self.life && is_old)
            },
        )
    }

    /// Whether the server has told a dialog something since a moment, or was about to, or heard that it arrived.
    pub fn notified_since(&self, since: Duration, call_id: &str, watcher_tag: &str) -> bool {
        self.dialogs
            .iter()
            .any(|((call, _, tag, _), d)| call == call_id && tag == watcher_tag && d.touched >= since)
    }

    /// Complains about requests that were taken and never answered.
    ///
    /// # Errors
    ///
    /// The request.
    pub fn check_all_answered(&self) -> Result<(), String> {
        match self
            .requests
            .iter()
            .find(|(key, asked)| asked.life == self.life && asked.answer.is_none() && key.1 != "ACK")
        {
            Some((key, _)) => Err(format!("a request was never answered: {key:?}")),
            None => Ok(()),
        }
    }

    fn see_notify(
        &mut self,
        now: Duration,
        to: SocketAddr,
        bytes: &Bytes,
        text: &SipText,
    ) -> Result<(), String> {
        if text.method() != Some("NOTIFY") {
            return Err(format!("the server sent a request of its own: {}", text.start));
        }
        let key = dialog_key(text);
        let cseq = text.cseq().ok_or("a NOTIFY without CSeq")?;
        let state = text.header("Subscription-State").unwrap_or("");
        let terminated = state.starts_with("terminated");
        if !terminated && text.param("Subscription-State", "expires").is_none() {
            return Err(format!("{key:?}: active without expires: {state}"));
        }
        let life = self.life;
        let fresh = Notified {
            to,
            cseq,
            bytes: Bytes::clone(bytes),
            first_sent: now,
            touched: now,
            life,
            answered: false,
            terminated,
            troubled: false,
            forgotten: false,
        };
        let Some(before) = self.dialogs.get_mut(&key) else {
            self.dialogs.insert(key, fresh);
            return Ok(());
        };
        before.touched = now;
        if cseq < before.cseq {
            return Err(format!("{key:?}: CSeq went back from {} to {cseq}", before.cseq));
        }
        if cseq == before.cseq {
            if text.header("Via").is_some_and(|via| !via.starts_with("SIP/2.0/UDP")) {
                return Err(format!("{key:?}: NOTIFY {cseq} was sent again over a connection"));
            }
            if *bytes != before.bytes {
                return Err(format!("{key:?}: NOTIFY {cseq} was sent again with other bytes"));
            }
            if before.answered {
                return Err(format!("{key:?}: NOTIFY {cseq} was sent again though it was answered"));
            }
            if before.life != life {
                return Err(format!("{key:?}: NOTIFY {cseq} of the process before was sent again"));
            }
            return Ok(());
        }
        let silent = now.saturating_sub(before.first_sent) > NEARLY_TIMER_F;
        // One that went into a connection that is gone is given up when the watcher comes back by another.
        if before.life == life && !before.answered && !silent && before.to == to {
            return Err(format!("{key:?}: NOTIFY {cseq} though {} is not answered", before.cseq));
        }
        // A SUBSCRIBE that is sent again to a new process is answered again, and every 200 has its NOTIFY.
        let asked_again = self.granted.get(&key.0).is_some_and(|at| *at > before.first_sent);
        // And one that was lost with its connection is said again over the next.
        let elsewhere = before.to != to;
        let may_end_again = terminated && (before.life != life || asked_again || elsewhere);
        if before.terminated && !before.forgotten && !may_end_again {
            return Err(format!("{key:?}: NOTIFY {cseq} after terminated"));
        }
        let troubled = before.troubled || (before.life == life && !before.answered);
        *before = Notified { troubled, ..fresh };
        Ok(())
    }

    fn see_answer_to_notify(&mut self, now: Duration, text: &SipText) {
        if text.cseq_method() != Some("NOTIFY") {
            return;
        }
        let (call_id, cseq) = (text.header("Call-ID").unwrap_or(""), text.cseq());
        for (key, notified) in &mut self.dialogs {
            let same = key.0 == call_id
                && text.param("From", "tag") == Some(&key.1)
                && Some(notified.cseq) == cseq
                && notified.life == self.life;
            if same {
                (notified.answered, notified.touched) = (true, now);
            }
        }
    }

    fn see_answer(&mut self, now: Duration, bytes: &Bytes, text: &SipText) -> Result<(), String> {
        let key = request_key(text);
        let Some(asked) = self.requests.get_mut(&key) else {
            return Err(format!("an answer to nothing: {} {key:?}", text.start));
        };
        if text.param("To", "tag").is_none() {
            return Err(format!("an answer without a To tag: {} {key:?}", text.start));
        }
        let forgotten = now.saturating_sub(asked.first_taken) >= TIMER_J;
        if key.1 == "SUBSCRIBE" && text.status() == Some(200) && (asked.answer.is_none() || forgotten) {
            self.granted.insert(key.2.clone(), now);
        }
        if let (Some(200), Some(tag)) = (text.status(), &asked.entity_tag) {
            let (first, _) = self.accepted.entry(tag.clone()).or_insert_with(|| (key.clone(), now));
            if *first != key {
                return Err(format!("entity tag {tag} was accepted of {first:?} and of {key:?}"));
            }
        }
        match &asked.answer {
            Some(before) if before != bytes && !forgotten => {
                let before = SipText::read(before).map(|b| b.start).unwrap_or_default();
                Err(format!("two answers to {key:?}: {before}, {}", text.start))
            }
            _ => {
                asked.answer = Some(Bytes::clone(bytes));
                Ok(())
            }
        }
    }
}

/// The dialog of a NOTIFY.
fn dialog_key(text: &SipText) -> Dialog {
    let of = |name: &str| text.header(name).unwrap_or("").to_owned();
    let tag = |name: &str| text.param(name, "tag").unwrap_or("").to_owned();
    (of("Call-ID"), tag("From"), tag("To"), of("Event"))
}

fn request_key(text: &SipText) -> Request {
    let branch = text.param("Via", "branch").unwrap_or("").to_owned();
    let method = text.cseq_method().unwrap_or("").to_owned();
    let of = |name: &str| text.header(name).unwrap_or("").to_owned();
    (branch, method, of("Call-ID"), of("CSeq"))
}

/// Content-Length says how long the body is.
fn check_length(text: &SipText) -> Result<(), String> {
    match text.header("Content-Length") {
        Some(length) if length.parse() == Ok(text.body.len()) => Ok(()),
        length => Err(format!("{}: Content-Length {length:?}, the body has {}", text.start, text.body.len())),
    }
}

/// A NOTIFY that was not answered for so long may be given up: Timer F is 32 s.
const NEARLY_TIMER_F: Duration = Duration::from_millis(31_900);

/// As long as this a server remembers its answers.
const TIMER_J: Duration = Duration::from_secs(32);

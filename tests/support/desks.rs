//! Desks: threads with one UDP socket each that publish, subscribe and register without pause, repeat what is not answered, as
//! phones do, and check everything they are told, while a test does something to the server in the middle of it.
//!
//! After each such round:
//!   * every subscription that was answered 200 still gets NOTIFYs, each with a CSeq above all before it;
//!   * every entity tag that was answered is still good: a 412 can only meet a request that was interrupted;
//!   * every registration that was answered is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::client::phone::{Message, Phone, Request};
use crate::client::process::PATIENCE;
use crate::server::Server;

/// What happens to the server in each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is killed and started again: requests under way are interrupted, and repeated until they are answered.
    Kill,
    /// Another process takes over: nothing is interrupted, and each request is answered after one repetition at the latest.
    TakeOver,
}

/// What the desks have seen in all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Final answers.
    pub answers: u64,
    /// NOTIFYs, repetitions included.
    pub notifies: u64,
    /// Requests that were sent before a kill and answered after it.
    pub interrupted: u64,
    /// Of these, those that were answered 412.
    pub conditional_failed: u64,
    /// Requests that had to be repeated.
    pub repeated: u64,
    /// The longest time that an answer took.
    pub slowest: Duration,
}

/// Runs `rounds` rounds against `server`.
///
/// # Errors
/// Whatever a desk has found wrong.
pub fn run(server: &mut Server, change: Change, rounds: u32, seed: u64) -> Result<Seen> {
    let mut chance = Chance(seed);
    let shared = Arc::new(Shared::default());
    let (reports, inbox) = channel();
    for number in 0..DESKS {
        let mut desk =
            Desk::new(number, server, Chance(chance.next()), Arc::clone(&shared), reports.clone())?;
        (desk.change, desk.rounds) = (change, rounds);
        thread::spawn(move || desk.work());
    }
    drop(reports);

    for round in 1..=rounds {
        await_answers(&inbox, 200 + chance.below(3000))?;
        match change {
            Change::Kill => {
                // The life changes before the kill and after it: a request that was sent in one life and answered in another
                // one was interrupted, and one that was sent after the second change was not.
                shared.life.fetch_add(1, Ordering::SeqCst);
                server.kill()?;
                shared.life.fetch_add(1, Ordering::SeqCst);
                server.restart()?;
            }
            Change::TakeOver => server.take_over()?,
        }
        await_answers(&inbox, 200 + chance.below(1000))?;

        shared.finals.store(round, Ordering::SeqCst);
        for phase in [PUBLISHED, SATISFIED] {
            for _ in 0..DESKS {
                await_report(&inbox, phase)?;
            }
            shared.phase.store(u64::from(round) * 2 + u64::from(phase == SATISFIED), Ordering::SeqCst);
        }
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    Ok(Seen {
        answers: count(&shared.answers),
        notifies: count(&shared.notifies),
        interrupted: count(&shared.interrupted),
        conditional_failed: count(&shared.conditional_failed),
        repeated: count(&shared.repeated),
        slowest: Duration::from_micros(count(&shared.slowest_us)),
    })
}

const DESKS: usize = 8;
/// Presentities of a desk.
const USERS: usize = 3;
/// Most subscriptions of a desk.
const DIALOGS_MAX: usize = 12;

/// What the desks and the test share.
#[derive(Default)]
struct Shared {
    /// Changes before and after each kill.
    life: AtomicU32,
    /// The round whose last documents are to be published; the load rests until `phase` follows.
    finals: AtomicU32,
    /// `2 * round` when every desk has published its last documents of a round, one more when all have seen them.
    phase: AtomicU64,
    answers: AtomicU64,
    notifies: AtomicU64,
    interrupted: AtomicU64,
    conditional_failed: AtomicU64,
    repeated: AtomicU64,
    slowest_us: AtomicU64,
}

/// What a desk tells the test.
enum Report {
    /// A request was answered.
    Answered,
    /// The desk has reached this point of the end of a round.
    Reached(&'static str),
    /// Something is wrong.
    Failed(anyhow::Error),
}

const PUBLISHED: &str = "all last documents published";
const SATISFIED: &str = "all last documents seen";

fn await_answers(inbox: &Receiver<Report>, count: u64) -> Result<()> {
    let deadline = Instant::now() + 2 * PATIENCE;
    for answered in 0..count {
        let left = deadline.saturating_duration_since(Instant::now());
        let report =
            inbox.recv_timeout(left).with_context(|| format!("only {answered} of {count} answers"))?;
        match report {
            Report::Answered => {}
            Report::Reached(point) => bail!("a desk is ahead: {point}"),
            Report::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

fn await_report(inbox: &Receiver<Report>, wanted: &str) -> Result<()> {
    loop {
        match inbox.recv_timeout(2 * PATIENCE).context("the desks are stuck")? {
            Report::Answered => {}
            Report::Reached(point) if point == wanted => return Ok(()),
            Report::Reached(point) => bail!("{point} instead of {wanted}"),
            Report::Failed(error) => return Err(error),
        }
    }
}

/// A thread with one socket, some presentities and some subscriptions.
struct Desk {
    number: usize,
    phone: Phone,
    chance: Chance,
    change: Change,
    rounds: u32,
    shared: Arc<Shared>,
    reports: Sender<Report>,
    users: Vec<User>,
    dialogs: BTreeMap<String, Dialog>,
    /// Numbers branches, Call-IDs and documents.
    serial: u64,
}

/// A presentity: a registration and a publication.
struct User {
    uri: String,
    cseq: u32,
    /// The entity tag of the last answer; `None`: not published.
    entity_tag: Option<String>,
    registered: bool,
}

/// A subscription.
struct Dialog {
    watcher: String,
    presentity: String,
    cseq: u32,
    /// To tag and Contact of the 200; `None`: not answered yet.
    established: Option<(String, String)>,
    /// By the server's tag: the last NOTIFY.
    seen: BTreeMap<String, Message>,
}

impl Desk {
    fn new(
        number: usize,
        server: &Server,
        chance: Chance,
        shared: Arc<Shared>,
        reports: Sender<Report>,
    ) -> Result<Self> {
        let users = (0..USERS)
            .map(|user| User { uri: uri(number, user), cseq: 0, entity_tag: None, registered: false })
            .collect();
        let phone = Phone::new(server.address())?;
        Ok(Self {
            number,
            phone,
            chance,
            change: Change::Kill,
            rounds: 0,
            shared,
            reports,
            users,
            dialogs: BTreeMap::new(),
            serial: 0,
        })
    }

    fn work(mut self) {
        if let Err(error) = self.try_work() {
            let _ = self.reports.send(Report::Failed(error.context(format!("desk {}", self.number))));
        }
    }

    fn try_work(&mut self) -> Result<()> {
        for round in 1..=self.rounds {
            while self.shared.finals.load(Ordering::SeqCst) < round {
                self.do_something()?;
            }
            let last = format!("last of round {round}");
            for user in 0..USERS {
                self.publish(user, Some(&last), 3600)?;
                self.query_registration(user)?;
            }
            self.reach(PUBLISHED, u64::from(round) * 2)?;
            let deadline = Instant::now() + PATIENCE;
            while let Some((call_id, dialog)) =
                self.dialogs.iter().find(|(_, dialog)| !dialog.has_seen(&last))
            {
                ensure!(
                    Instant::now() < deadline,
                    "the subscription {call_id} of {} to {} was not told {last:?}; it saw {:#?}",
                    dialog.watcher,
                    dialog.presentity,
                    dialog.seen
                );
                self.listen(Instant::now() + TICK)?;
            }
            self.reach(SATISFIED, u64::from(round) * 2 + 1)?;
        }
        Ok(())
    }

    /// Reports and waits for all others, answering NOTIFYs meanwhile.
    fn reach(&mut self, point: &'static str, phase: u64) -> Result<()> {
        let _ = self.reports.send(Report::Reached(point));
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.shared.phase.load(Ordering::SeqCst) < phase {
            ensure!(Instant::now() < deadline, "the others never reached: {point}");
            self.listen(Instant::now() + TICK)?;
        }
        Ok(())
    }

    fn do_something(&mut self) -> Result<()> {
        let user = self.chance.index(USERS);
        match self.chance.below(100) {
            0..45 => {
                self.serial += 1;
                let note = format!("{} at desk {}", self.serial, self.number);
                self.publish(user, Some(&note), 3600)
            }
            45..60 => self.publish(user, None, 3600),
            60..65 => self.publish(user, None, 0),
            65..72 => self.register(user),
            72..85 if self.dialogs.len() < DIALOGS_MAX => self.subscribe(),
            72..97 => self.refresh_subscription(600),
            _ => self.refresh_subscription(0),
        }
    }

    /// Publishes a note, or refreshes without one; initial, if need be.
    fn publish(&mut self, user: usize, note: Option<&str>, expires_secs: u32) -> Result<()> {
        let User { uri, cseq, entity_tag, .. } = &mut self.users[user];
        *cseq += 1;
        let (uri, cseq, entity_tag) = (uri.clone(), *cseq, entity_tag.clone());
        let body = match (note, &entity_tag) {
            (Some(note), _) => document(&uri, note),
            (None, None) if expires_secs == 0 => return Ok(()),
            (None, None) => document(&uri, "back again"),
            (None, Some(_)) => String::new(),
        };
        let expires = format!("Expires: {expires_secs}");
        let condition = entity_tag.as_ref().map(|tag| format!("SIP-If-Match: {tag}"));
        let mut headers = vec!["Event: presence", &expires];
        headers.extend(condition.as_deref());
        if !body.is_empty() {
            headers.push("Content-Type: application/pidf+xml");
        }
        let call_id = format!("publications-of-{}", &uri[4..]);
        let request = Request {
            method: "PUBLISH",
            uri: &uri,
            branch: &self.branch(),
            from: (&uri, "publisher"),
            to: (&uri, None),
            call_id: &call_id,
            cseq,
            headers: &headers,
            body: &body,
        };
        let (answer, interrupted) = self.ask(&request)?;
        match answer.status() {
            Some(200) => {
                let granted =
                    (expires_secs > 0).then(|| answer.need("SIP-ETag").map(str::to_owned)).transpose()?;
                self.users[user].entity_tag = granted;
                Ok(())
            }
            // The crash took the answer after the server had done the work: the tag was replaced.
            Some(412) if interrupted && entity_tag.is_some() => {
                self.shared.conditional_failed.fetch_add(1, Ordering::SeqCst);
                self.users[user].entity_tag = None;
                self.publish(user, note, expires_secs)
            }
            _ => bail!(
                "{}\n--- was answered (interrupted: {interrupted})\n{}",
                request.text(&self.phone),
                answer.text()
            ),
        }
    }

    fn register(&mut self, user: usize) -> Result<()> {
        let contact = format!("Contact: <sip:phone@{}>", self.phone.address());
        let answer = self.ask_registrar(user, &[&contact, "Expires: 3600"])?;
        ensure!(answer.header("Contact").is_some(), "no binding in {}", answer.text());
        self.users[user].registered = true;
        Ok(())
    }

    fn query_registration(&mut self, user: usize) -> Result<()> {
        let answer = self.ask_registrar(user, &[])?;
        let bound =
            answer.header("Contact").is_some_and(|value| value.contains(&self.phone.address().to_string()));
        ensure!(bound == self.users[user].registered, "the registration is lost: {}", answer.text());
        Ok(())
    }

    fn ask_registrar(&mut self, user: usize, headers: &[&str]) -> Result<Message> {
        self.users[user].cseq += 1;
        let (uri, cseq) = (self.users[user].uri.clone(), self.users[user].cseq);
        let request = Request {
            method: "REGISTER",
            uri: "sip:example.org",
            branch: &self.branch(),
            from: (&uri, "registrant"),
            to: (&uri, None),
            call_id: &format!("registrations-of-{}", &uri[4..]),
            cseq,
            headers,
            body: "",
        };
        let (answer, _) = self.ask(&request)?;
        ensure!(answer.status() == Some(200), "{}", answer.text());
        Ok(answer)
    }

    fn subscribe(&mut self) -> Result<()> {
        self.serial += 1;
        let call_id = format!("subscription-{}-of-desk-{}", self.serial, self.number);
        let watcher = self.users[self.chance.index(USERS)].uri.clone();
        let presentity = uri(self.chance.index(DESKS), self.chance.index(USERS));
        let dialog = Dialog { watcher, presentity, cseq: 0, established: None, seen: BTreeMap::new() };
        self.dialogs.insert(call_id.clone(), dialog);
        self.ask_notifier(&call_id, 600)
    }

    fn refresh_subscription(&mut self, expires_secs: u32) -> Result<()> {
        if self.dialogs.is_empty() {
            return Ok(());
        }
        let chosen = self.chance.index(self.dialogs.len());
        let call_id = self.dialogs.keys().nth(chosen).cloned().context("no such dialog")?;
        self.ask_notifier(&call_id, expires_secs)
    }

    fn ask_notifier(&mut self, call_id: &str, expires_secs: u32) -> Result<()> {
        let branch = self.branch();
        let dialog = self.dialogs.get_mut(call_id).context("no such dialog")?;
        dialog.cseq += 1;
        let (watcher, presentity, cseq) = (dialog.watcher.clone(), dialog.presentity.clone(), dialog.cseq);
        let established = dialog.established.clone();
        let request = Request {
            method: "SUBSCRIBE",
            uri: established.as_ref().map_or(&presentity, |(_, target)| target),
            branch: &branch,
            from: (&watcher, "watcher"),
            to: (&presentity, established.as_ref().map(|(tag, _)| tag.as_str())),
            call_id,
            cseq,
            headers: &[
                "Event: presence",
                &format!("Expires: {expires_secs}"),
                &format!("Contact: <sip:phone@{}>", self.phone.address()),
            ],
            body: "",
        };
        let (answer, interrupted) = self.ask(&request)?;
        match answer.status() {
            Some(200) if expires_secs > 0 => {
                let tag = answer.tag("To").context("no tag in To")?.to_owned();
                let target = answer.contact().context("no Contact")?.to_owned();
                if let Some((before, _)) = &established {
                    ensure!(*before == tag, "another tag: {}", answer.text());
                }
                self.dialogs.get_mut(call_id).context("no such dialog")?.established = Some((tag, target));
            }
            Some(200) => drop(self.dialogs.remove(call_id)),
            // The crash took the answer after the subscription had ended.
            Some(481) if expires_secs == 0 && interrupted => drop(self.dialogs.remove(call_id)),
            _ => bail!(
                "{}\n--- was answered (interrupted: {interrupted})\n{}",
                request.text(&self.phone),
                answer.text()
            ),
        }
        Ok(())
    }

    /// Sends a request, repeats it until its final answer comes, and answers the NOTIFYs that come meanwhile. Returns
    /// the answer, and whether a crash may have interrupted the request.
    fn ask(&mut self, request: &Request<'_>) -> Result<(Message, bool)> {
        let text = request.text(&self.phone);
        let life = self.shared.life.load(Ordering::SeqCst);
        let deadline = Instant::now() + PATIENCE;
        // RFC 3261 §17.1.2.2: the intervals double up to T2. Where the server is killed again and again both are shorter.
        let [mut interval, longest] = match self.change {
            Change::Kill => [100, 400].map(Duration::from_millis),
            Change::TakeOver => [500, 4000].map(Duration::from_millis),
        };
        let begin = Instant::now();
        for sent in 1.. {
            ensure!(Instant::now() < deadline, "no answer to\n{text}");
            if self.change == Change::TakeOver {
                ensure!(
                    sent <= 2,
                    "no answer {:?} after the first and a repetition of\n{text}",
                    begin.elapsed()
                );
            }
            self.shared.repeated.fetch_add(u64::from(sent == 2), Ordering::SeqCst);
            self.phone.send(&text);
            let repeat = Instant::now() + interval;
            interval = (interval * 2).min(longest);
            while let Some(message) = self.phone.receive(repeat)? {
                if message.status().is_none() {
                    self.take_notify(&message)?;
                } else if message.header("Call-ID") == Some(request.call_id)
                    && message.method() == request.method
                    && message.cseq()? == request.cseq
                {
                    let interrupted = life != self.shared.life.load(Ordering::SeqCst);
                    self.shared.interrupted.fetch_add(u64::from(interrupted), Ordering::SeqCst);
                    self.shared.answers.fetch_add(1, Ordering::SeqCst);
                    self.shared.slowest_us.fetch_max(begin.elapsed().as_micros() as u64, Ordering::SeqCst);
                    let _ = self.reports.send(Report::Answered);
                    return Ok((message, interrupted));
                }
                // Anything else is the answer to a repetition of an earlier request.
            }
        }
        unreachable!("the deadline ends it")
    }

    fn listen(&mut self, deadline: Instant) -> Result<()> {
        while let Some(message) = self.phone.receive(deadline)? {
            if message.status().is_none() {
                self.take_notify(&message)?;
            }
        }
        Ok(())
    }

    fn take_notify(&mut self, notify: &Message) -> Result<()> {
        ensure!(notify.method() == "NOTIFY", "not a NOTIFY: {}", notify.text());
        let tag = notify.tag("From").context("NOTIFY without a From tag")?;
        let Some(dialog) = self.dialogs.get_mut(notify.need("Call-ID")?) else {
            // The last one of a subscription that is over.
            self.phone.send(&notify.ok());
            return Ok(());
        };
        if let Some(before) = dialog.seen.get(tag) {
            let (old, new) = (before.cseq()?, notify.cseq()?);
            if old == new {
                // RFC 3261 §17.1.2.2: a retransmission is the same request, byte for byte.
                assert_eq!(before.text(), notify.text(), "another NOTIFY with the same CSeq");
            }
            ensure!(new >= old, "CSeq goes back from\n{}\n--- to\n{}", before.text(), notify.text());
        }
        self.shared.notifies.fetch_add(1, Ordering::SeqCst);
        dialog.seen.insert(tag.to_owned(), notify.clone());
        match &dialog.established {
            // A dialog of a SUBSCRIBE whose answer the crash took: this phone knows the one that was answered.
            Some((ours, _)) if ours != tag => {
                let gone = notify.ok().replacen("200 OK", "481 Subscription Does Not Exist", 1);
                self.phone.send(&gone);
            }
            _ => self.phone.send(&notify.ok()),
        }
        Ok(())
    }

    fn branch(&mut self) -> String {
        self.serial += 1;
        format!("-desk{}-{}", self.number, self.serial)
    }
}

impl Dialog {
    /// Whether the newest NOTIFY of the dialog says so.
    fn has_seen(&self, note: &str) -> bool {
        self.established
            .as_ref()
            .and_then(|(tag, _)| self.seen.get(tag))
            .is_some_and(|notify| notify.body().contains(note))
    }
}

/// How often a resting desk looks whether the others are ready.
const TICK: Duration = Duration::from_millis(20);

fn uri(desk: usize, user: usize) -> String {
    format!("sip:desk{desk}-user{user}@example.org")
}

fn document(uri: &str, note: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"{uri}\">\n\
         <tuple id=\"phone\"><status><basic>open</basic></status><note>{note}</note></tuple>\n\
         </presence>\n"
    )
}

/// SplitMix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }
}

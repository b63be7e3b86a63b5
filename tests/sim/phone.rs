//! A simulated phone: it registers, publishes and watches, sends its requests again until they are answered, and knows
//! what it was told.
//!
//! What a phone knows of the server's state is known only within bounds: a request takes effect somewhere between its
//! first sending and its answer. [`Window`] keeps both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::ConnectionId;
use comsipl_tests::world::Bytes;
use comsipl_tests::world::sip_text::SipText;

/// A span of time that ends somewhere between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// It does not end before.
    pub earliest: Duration,
    /// It does not end after.
    pub latest: Duration,
}

impl Window {
    fn of(transaction: &Transaction, now: Duration, expires: Duration) -> Self {
        let mut window = Self { earliest: transaction.started + expires, latest: now + expires };
        window.shift(transaction.clock_step);
        window
    }

    /// Surely not over yet.
    pub fn surely_runs(&self, now: Duration) -> bool {
        now + Duration::from_secs(1) < self.earliest
    }

    /// Surely over, and everyone has had time to notice.
    pub fn surely_over(&self, now: Duration) -> bool {
        now > self.latest + Duration::from_secs(4)
    }

    /// The server's clock was set by so much while it was down: what it stored ends earlier or later.
    fn shift(&mut self, step: ClockStep) {
        self.earliest = self.earliest.saturating_sub(step.forward);
        self.latest += step.back;
    }
}

/// How far the server's clock was set, in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockStep {
    /// Forward.
    pub forward: Duration,
    /// Back.
    pub back: Duration,
}

impl ClockStep {
    /// A step of so many milliseconds.
    pub fn of(millis: i64) -> Self {
        let span = Duration::from_millis(millis.unsigned_abs());
        if millis > 0 {
            Self { forward: span, back: Duration::ZERO }
        } else {
            Self { forward: Duration::ZERO, back: span }
        }
    }
}

/// A state that a phone has published and that was replaced or taken back.
#[derive(Debug)]
struct Past {
    etag: String,
    token: String,
    ends: Window,
    replaced: Duration,
}

/// What a phone has published.
#[derive(Debug)]
pub struct Live {
    /// The entity tag to use next.
    pub etag: String,
    /// The mark by which the document is known again.
    pub token: String,
    /// When it ends unless refreshed.
    pub ends: Window,
    /// When the phone heard that it is stored.
    acked: Duration,
    /// A power cut may have taken it: nobody knows until it is refreshed.
    pub is_shaky: bool,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first SUBSCRIBE is not answered yet.
    Starting,
    /// It was answered 200.
    Live,
    /// The phone has asked for its end, or has polled.
    Ending,
    /// The phone does not want to hear of it any more.
    Over,
}

/// What is published of a user, and watched: every second one tells his calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    Presence,
    Dialog,
}

impl Package {
    /// The package of the user of that number.
    pub fn of(user: usize) -> Self {
        if user.is_multiple_of(2) { Self::Presence } else { Self::Dialog }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Dialog => "dialog",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Presence => "application/pidf+xml",
            Self::Dialog => "application/dialog-info+xml",
        }
    }
}

/// A subscription of a phone.
#[derive(Debug)]
pub struct Watch {
    /// Whom it watches: the number of the user.
    pub whom: usize,
    /// Call-ID of its dialog.
    pub call_id: String,
    /// The phone's own tag.
    pub tag: String,
    /// The server's tag, once known.
    pub server_tag: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// When it ends unless refreshed.
    pub ends: Window,
    /// Marks in the newest document, sorted.
    pub tokens: Vec<String>,
    /// Basic states in the newest document.
    pub basics: Vec<String>,
    /// Version of the newest document, where the package has versions.
    version: Option<u64>,
    /// Whether any document has come.
    pub told: bool,
    /// When the phone last did something that delays the truth: no answer, or an answer that asks for patience.
    pub trouble: Duration,
    /// A power cut may have taken it, or have put it back to what it was before: nobody knows until it is refreshed.
    pub is_shaky: bool,
    /// When a SUBSCRIBE of it was answered last, or given up that may have been carried out.
    acked: Duration,
    cseq: u32,
    notified: u32,
    answers: BTreeMap<u32, u16>,
    failures: u32,
}

/// What a request is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// The first PUBLISH, a modification or a refresh (no token).
    Publish { token: Option<String>, expires: Duration },
    /// Taking the publication back.
    Unpublish,
    /// Trying an entity tag that was replaced.
    Stale,
    /// Registering (or, with zero, unregistering) the phone's contact.
    Register { expires: Duration },
    /// Asking for the user's bindings.
    Query,
    /// SUBSCRIBE for the watch with this number.
    Subscribe { watch: usize, expires: Duration },
}

/// A client transaction (RFC 3261 §17.1.2).
#[derive(Debug)]
struct Transaction {
    branch: String,
    bytes: Bytes,
    purpose: Purpose,
    started: Duration,
    again_at: Duration,
    interval: Duration,
    /// Crashes of the server when it began.
    crashes: u32,
    /// Nothing is sent again then.
    over_connection: bool,
    /// How far the server's clock was set since it began.
    clock_step: ClockStep,
    /// The power failed since it began: its answer may be older than that.
    power_failed: bool,
}

impl Transaction {
    /// Timer E has fired: sends the request again, unless a connection brings it there.
    fn send_again(&mut self, now: Duration, out: &mut Vec<Bytes>) {
        if self.over_connection {
            self.again_at = self.started + TIMER_F;
            return;
        }
        out.push(Bytes::clone(&self.bytes));
        self.interval = (self.interval * 2).min(T2);
        self.again_at = (now + self.interval).min(self.started + TIMER_F);
    }
}

/// A phone.
pub struct Phone {
    /// Its number, which is also in its marks and tags.
    pub number: usize,
    /// Number of its user.
    pub user: usize,
    /// Its address; one that speaks over connections gets a new one with each.
    pub at: SocketAddr,
    /// Whether it speaks over connections.
    pub streams: bool,
    /// Its connection, if it has one.
    pub connection: Option<ConnectionId>,
    /// Whether it has registered on that, so that its subscriptions go on over it.
    pub is_bound_here: bool,
    /// Its publication.
    pub live: Option<Live>,
    /// Marks that may be visible for a while, because an answer was lost for good.
    pub ghosts: Vec<(String, Duration)>,
    /// When its binding ends; `None`: it has none.
    pub bound: Option<Window>,
    /// The binding may or may not be there until then.
    pub maybe_bound: Duration,
    /// Its subscriptions, old ones included.
    pub watches: Vec<Watch>,
    /// Until then it neither hears nor answers.
    pub mute_until: Duration,
    /// What the registrar listed last.
    pub listed: Option<Vec<String>>,
    transactions: Vec<Transaction>,
    used_tags: Vec<String>,
    /// Tags of publications whose fate is not known.
    lost_tags: Vec<String>,
    /// What a power cut may bring back.
    past: Vec<Past>,
    /// When a REGISTER was answered last, or given up that may have been carried out.
    registered: Duration,
    made: u32,
    publish_cseq: u32,
    register_cseq: u32,
}

/// How a phone treats a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers 200.
    Good,
    /// Does not answer this one.
    Silent,
    /// Answers 500.
    Failing,
    /// Answers 503 with Retry-After.
    Busy,
    /// Has forgotten the dialog: 481.
    Forgetful,
}

impl Phone {
    /// A phone of `user` that has done nothing yet.
    pub fn new(number: usize, user: usize, streams: bool) -> Self {
        Self {
            number,
            user,
            at: home(number),
            streams,
            connection: None,
            is_bound_here: false,
            live: None,
            ghosts: Vec::new(),
            bound: None,
            maybe_bound: Duration::ZERO,
            watches: Vec::new(),
            mute_until: Duration::ZERO,
            listed: None,
            transactions: Vec::new(),
            used_tags: Vec::new(),
            lost_tags: Vec::new(),
            past: Vec::new(),
            registered: Duration::ZERO,
            made: 0,
            publish_cseq: 0,
            register_cseq: 0,
        }
    }

    /// The contact it registers.
    pub fn contact(&self) -> String {
        let transport = if self.streams { ";transport=tcp" } else { "" };
        format!("sip:u{}@{}{transport}", self.user, home(self.number))
    }

    /// Its connection is gone: what is under way may have been carried out or not.
    pub fn disconnected(&mut self, now: Duration) {
        self.connection = None;
        self.is_bound_here = false;
        for transaction in std::mem::take(&mut self.transactions) {
            if let Purpose::Subscribe { watch, .. } = transaction.purpose {
                // If it is carried out when the phone has registered on another connection, the subscription follows it back
                // to this one, until the silence of that has been noticed.
                self.watches[watch].trouble = now;
            }
            self.give_up(now, transaction);
        }
    }

    /// The server's clock was set while it was down.
    pub fn clock_stepped(&mut self, step: ClockStep) {
        let watches = self.watches.iter_mut().map(|watch| &mut watch.ends);
        let pasts = self.past.iter_mut().map(|past| &mut past.ends);
        let live = self.live.iter_mut().map(|live| &mut live.ends);
        watches.chain(pasts).chain(live).chain(&mut self.bound).for_each(|window| window.shift(step));
        self.ghosts.iter_mut().for_each(|(_, until)| *until += step.back);
        self.maybe_bound += step.back;
        for transaction in &mut self.transactions {
            transaction.clock_step.forward += step.forward;
            transaction.clock_step.back += step.back;
        }
    }

    /// The server's files are what was on disk, and that was all of them last at `synced_at`. What was answered before and not
    /// changed since is there; of what was changed since, any state since may be. `notified_since`: whether the server has
    /// told a dialog something since.
    pub fn power_failed(
        &mut self,
        now: Duration,
        synced_at: Duration,
        notified_since: impl Fn(&str, &str) -> bool,
    ) {
        // An old entity tag may be good again, so nothing follows from an answer.
        self.transactions.retain(|transaction| !matches!(transaction.purpose, Purpose::Stale));
        self.transactions.iter_mut().for_each(|transaction| transaction.power_failed = true);
        let is_publishing = self.is_busy(&Purpose::Unpublish);
        if let Some(live) = &mut self.live {
            live.is_shaky |= is_publishing || live.acked >= synced_at;
        }
        for past in self.past.drain(..).filter(|past| past.replaced >= synced_at) {
            self.ghosts.push((past.token, past.ends.latest));
            self.lost_tags.push(past.etag);
        }
        let is_rebound = self.registered >= synced_at || self.is_busy(&Purpose::Query);
        if is_rebound {
            self.bound = None;
            self.maybe_bound = now + LONGEST;
        }
        for index in 0..self.watches.len() {
            let is_asking = self.is_busy(&Purpose::Subscribe { watch: index, expires: Duration::ZERO });
            let watch = &mut self.watches[index];
            watch.is_shaky |= is_asking
                || watch.acked >= synced_at
                || notified_since(&watch.call_id, &watch.tag)
                // Its subscriptions follow a device to its connection.
                || (self.streams && is_rebound);
        }
    }

    /// Whether a request of the same kind is under way.
    pub fn is_busy(&self, purpose: &Purpose) -> bool {
        self.transactions.iter().any(|t| lane(&t.purpose) == lane(purpose))
    }

    /// Whether any request is under way.
    pub fn is_waiting(&self) -> bool {
        !self.transactions.is_empty()
    }

    /// The marks of publications that are under way.
    pub fn pending_tokens(&self) -> impl Iterator<Item = String> {
        self.transactions.iter().filter_map(|t| match &t.purpose {
            Purpose::Publish { token, .. } => token.clone(),
            _ => None,
        })
    }

    /// When it next wants to send something again.
    pub fn wakes_at(&self) -> Option<Duration> {
        self.transactions.iter().map(|t| t.again_at).min()
    }

    /// Publishes a new state, or the first one. `same_id`: with a tuple id that other phones use too.
    pub fn publish(&mut self, now: Duration, crashes: u32, expires: u32, same_id: bool) -> Bytes {
        self.made += 1;
        let token = format!("d{}v{}", self.number, self.made);
        let id = if same_id { "t".to_owned() } else { format!("t{}", self.number) };
        let user = self.user;
        let package = Package::of(user);
        let body = match package {
            Package::Presence => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
                 entity=\"sip:u{user}@example.com\"><tuple id=\"{id}\"><status><basic>open</basic></status>\
                 <note>{token}</note></tuple></presence>\r\n"
            ),
            Package::Dialog => format!(
                "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" xmlns:x=\"urn:x\" version=\"0\" \
                 state=\"full\" entity=\"sip:u{user}@example.com\"><dialog id=\"{id}\"><state>early</state>\
                 <x:note>{token}</x:note></dialog></dialog-info>\r\n"
            ),
        };
        let matching = self.if_match();
        let purpose =
            Purpose::Publish { token: Some(token), expires: Duration::from_secs(u64::from(expires)) };
        let extra = format!("{matching}Expires: {expires}\r\nContent-Type: {}\r\n", package.content_type());
        self.send_publish(now, crashes, purpose, &extra, &body)
    }

    /// Refreshes the publication.
    pub fn refresh(&mut self, now: Duration, crashes: u32, expires: u32) -> Bytes {
        let purpose = Purpose::Publish { token: None, expires: Duration::from_secs(u64::from(expires)) };
        let extra = format!("{}Expires: {expires}\r\n", self.if_match());
        self.send_publish(now, crashes, purpose, &extra, "")
    }

    /// Takes the publication back.
    pub fn unpublish(&mut self, now: Duration, crashes: u32) -> Bytes {
        let extra = format!("{}Expires: 0\r\n", self.if_match());
        self.send_publish(now, crashes, Purpose::Unpublish, &extra, "")
    }

    /// Tries an old entity tag, if there was any.
    pub fn try_old_tag(&mut self, now: Duration, crashes: u32, pick: u32) -> Option<Bytes> {
        let current = self.live.as_ref().map(|l| l.etag.as_str());
        let is_old = |t: &&String| Some(t.as_str()) != current && !self.lost_tags.contains(*t);
        let old: Vec<&String> = self.used_tags.iter().filter(is_old).collect();
        let tag = old.get(pick as usize % old.len().max(1))?;
        let extra = format!("SIP-If-Match: {tag}\r\nExpires: 600\r\n");
        Some(self.send_publish(now, crashes, Purpose::Stale, &extra, ""))
    }

    /// Registers for so long; zero ends the registration.
    pub fn register(&mut self, now: Duration, crashes: u32, expires: u32) -> Bytes {
        let purpose = Purpose::Register { expires: Duration::from_secs(u64::from(expires)) };
        let extra = format!("Contact: <{}>;expires={expires}\r\n", self.contact());
        self.send_register(now, crashes, purpose, &extra)
    }

    /// Asks for the bindings of its user.
    pub fn query(&mut self, now: Duration, crashes: u32) -> Bytes {
        self.listed = None;
        self.send_register(now, crashes, Purpose::Query, "")
    }

    /// Subscribes to a user on a new dialog; zero seconds: polls.
    pub fn subscribe(&mut self, now: Duration, crashes: u32, whom: usize, expires: u32) -> Bytes {
        let number = self.watches.len();
        self.watches.push(Watch {
            whom,
            call_id: format!("w{number}@d{}", self.number),
            tag: format!("d{}w{number}", self.number),
            server_tag: None,
            stage: if expires == 0 { Stage::Ending } else { Stage::Starting },
            ends: Window::default(),
            tokens: Vec::new(),
            basics: Vec::new(),
            version: None,
            told: false,
            trouble: Duration::ZERO,
            is_shaky: false,
            acked: Duration::ZERO,
            cseq: 0,
            notified: 0,
            answers: BTreeMap::new(),
            failures: 0,
        });
        self.send_subscribe(now, crashes, number, expires)
    }

    /// Refreshes a subscription; zero seconds: ends it.
    pub fn resubscribe(&mut self, now: Duration, crashes: u32, watch: usize, expires: u32) -> Bytes {
        if expires == 0 {
            self.watches[watch].stage = Stage::Ending;
        }
        self.send_subscribe(now, crashes, watch, expires)
    }

    /// Sends again what is due, and gives up what nobody answered for 64*T1.
    pub fn on_time(&mut self, now: Duration, out: &mut Vec<Bytes>) {
        let mut index = 0;
        while let Some(transaction) = self.transactions.get_mut(index) {
            if now < transaction.again_at {
                index += 1;
            } else if now >= transaction.started + TIMER_F {
                let transaction = self.transactions.remove(index);
                self.give_up(now, transaction);
            } else {
                transaction.send_again(now, out);
                index += 1;
            }
        }
    }

    /// Takes a message of the server; answers go to `out`.
    ///
    /// # Errors
    ///
    /// What the server should not have said.
    pub fn on_message(
        &mut self,
        now: Duration,
        crashes: u32,
        text: &SipText,
        manner: Manner,
        out: &mut Vec<Bytes>,
    ) -> Result<(), String> {
        // An answer over a connection comes once; a phone that slept finds it there.
        if now < self.mute_until && !(self.streams && text.method().is_none()) {
            if let Some(watch) = self.watch_of(text) {
                self.watches[watch].trouble = now;
            }
            return Ok(());
        }
        if text.method().is_some() {
            self.on_notify(now, text, manner, out)
        } else {
            self.on_answer(now, crashes, text)
        }
    }

    fn watch_of(&self, text: &SipText) -> Option<usize> {
        let (call_id, tag) = (text.header("Call-ID")?, text.param("To", "tag")?);
        self.watches.iter().position(|w| w.call_id == call_id && w.tag == tag)
    }

    fn on_notify(
        &mut self,
        now: Duration,
        text: &SipText,
        manner: Manner,
        out: &mut Vec<Bytes>,
    ) -> Result<(), String> {
        let cseq = text.cseq().ok_or("a NOTIFY without CSeq")?;
        let Some(watch) = self.watch_of(text) else {
            return Err(format!("phone {} was never interested in {}", self.number, text.start));
        };
        let asking = self.is_busy(&Purpose::Subscribe { watch, expires: Duration::ZERO });
        let watch = &mut self.watches[watch];
        let server_tag = text.param("From", "tag");
        let foreign = watch.server_tag.is_some() && watch.server_tag.as_deref() != server_tag;
        if watch.stage == Stage::Over || foreign {
            let status = watch.answers.get(&cseq).copied().filter(|_| !foreign).unwrap_or(481);
            out.push(answer(text, status));
            return Ok(());
        }
        if let Some(&status) = watch.answers.get(&cseq) {
            out.push(answer(text, status));
            return Ok(());
        }
        if cseq <= watch.notified {
            out.push(answer(text, 500));
            return Ok(());
        }
        let package = Package::of(watch.whom);
        if text.header("Event") != Some(package.name()) {
            return Err(format!("Event is {:?}", text.header("Event")));
        }
        let status = match manner {
            Manner::Silent => {
                watch.trouble = now;
                return Ok(());
            }
            Manner::Failing if watch.failures < FAILURES_IN_A_ROW_MAX => 500,
            Manner::Busy if watch.failures < FAILURES_IN_A_ROW_MAX => 503,
            Manner::Forgetful => 481,
            Manner::Good | Manner::Failing | Manner::Busy => 200,
        };
        if package == Package::Dialog {
            // RFC 4235 §4.1: one more for each document; after a restart it may have skipped some.
            let version = version_of(text).ok_or("dialog information without a version")?;
            if watch.version.is_some_and(|before| version <= before) {
                return Err(format!("{}: version {version} follows {:?}", watch.call_id, watch.version));
            }
            watch.version = Some(version);
        }
        watch.server_tag = server_tag.map(str::to_owned);
        watch.notified = cseq;
        watch.answers.insert(cseq, status);
        out.push(answer(text, status));
        let terminated = text.header("Subscription-State").is_some_and(|s| s.starts_with("terminated"));
        match status {
            200 => {
                watch.failures = 0;
                watch.told = true;
                watch.tokens = text.elements("note").into_iter().filter(|n| n.starts_with('d')).collect();
                watch.tokens.sort();
                watch.basics = text.elements("basic");
            }
            481 => watch.stage = Stage::Over,
            _ => {
                watch.failures += 1;
                watch.trouble = now;
            }
        }
        if terminated {
            // A refresh that is under way may have been granted already, for a shorter time.
            if watch.stage == Stage::Live && watch.ends.surely_runs(now) && !asking && !watch.is_shaky {
                return Err(format!("{} was terminated out of the blue", watch.call_id));
            }
            watch.stage = Stage::Over;
        }
        Ok(())
    }

    fn on_answer(&mut self, now: Duration, crashes: u32, text: &SipText) -> Result<(), String> {
        let branch = text.param("Via", "branch").unwrap_or("");
        let Some(at) = self.transactions.iter().position(|t| t.branch == branch) else { return Ok(()) };
        let transaction = self.transactions.remove(at);
        let status = text.status().unwrap_or(0);
        let crashed = crashes != transaction.crashes;
        let odd =
            || Err(format!("phone {}: {:?} was answered {}", self.number, transaction.purpose, text.start));
        match (&transaction.purpose, status) {
            (Purpose::Publish { token, expires }, 200) => {
                let etag = text.header("SIP-ETag").ok_or("200 without SIP-ETag")?.to_owned();
                if self.used_tags.contains(&etag) {
                    return Err(format!("entity tag {etag} was given out twice"));
                }
                self.used_tags.push(etag.clone());
                let granted = text.header("Expires").and_then(|e| e.parse().ok()).map(Duration::from_secs);
                if !is_granted(granted, *expires, crashed) {
                    return Err(format!("asked for {expires:?}, granted {granted:?}"));
                }
                let before = self.live.as_ref().map(|l| l.token.clone());
                self.put_aside(now, transaction.power_failed);
                let token = token.clone().or(before).ok_or("a refresh of nothing")?;
                let ends = Window::of(&transaction, now, *expires);
                self.live = Some(Live { etag, token, ends, acked: now, is_shaky: transaction.power_failed });
            }
            // Carried out and not heard of, it may have run out while it was asked for again.
            (Purpose::Publish { expires, .. }, 412) => match &self.live {
                Some(live)
                    if live.ends.surely_runs(now)
                        && now + transaction.clock_step.forward < transaction.started + *expires
                        && !live.is_shaky =>
                {
                    return Err(format!("{} was refused before its time: 412", live.etag));
                }
                Some(_) => self.ran_out(now, transaction.power_failed),
                None => return odd(),
            },
            (Purpose::Unpublish, 200) => self.put_aside(now, transaction.power_failed),
            // The process that carried it out may have died with the answer.
            (Purpose::Unpublish, 412) => match &self.live {
                Some(live) if live.ends.surely_runs(now) && !crashed && !live.is_shaky => return odd(),
                _ => self.ran_out(now, transaction.power_failed),
            },
            (Purpose::Stale, 412) => {}
            (Purpose::Register { expires }, 200) => {
                let listed = contacts(text);
                let there = listed.contains(&self.contact());
                if there == expires.is_zero() {
                    return Err(format!("registered for {expires:?}, and the answer lists {listed:?}"));
                }
                self.registered = now;
                self.is_bound_here = there;
                if transaction.power_failed {
                    self.bound = None;
                    self.maybe_bound = now + (*expires).max(LONGEST);
                } else {
                    self.bound = there.then(|| Window::of(&transaction, now, *expires));
                    self.maybe_bound = Duration::ZERO;
                }
            }
            // RFC 3261 §10.3: with the same Call-ID and CSeq it is out of order when a new process sees it again.
            (Purpose::Register { expires }, 500) if crashed => {
                self.bound = None;
                self.maybe_bound = now + (*expires).max(LONGEST);
            }
            (Purpose::Query, 200) => self.listed = Some(contacts(text)),
            (Purpose::Subscribe { watch, expires }, 200) => {
                let granted = text.header("Expires").and_then(|e| e.parse().ok()).map(Duration::from_secs);
                if !is_granted(granted, *expires, crashed) {
                    return Err(format!("asked for {expires:?}, granted {granted:?}"));
                }
                let watch = &mut self.watches[*watch];
                let tag = text.param("To", "tag").map(str::to_owned);
                if watch.server_tag.is_some() && watch.server_tag != tag && !crashed {
                    return Err(format!("{}: 200 and NOTIFY have different tags", watch.call_id));
                }
                if watch.server_tag != tag {
                    watch.server_tag = tag;
                    // Another dialog, with counts of its own.
                    watch.notified = 0;
                    watch.version = None;
                    watch.told = false;
                    watch.answers.clear();
                }
                watch.ends = Window::of(&transaction, now, *expires);
                (watch.acked, watch.is_shaky) = (now, transaction.power_failed);
                if watch.stage == Stage::Starting {
                    watch.stage = Stage::Live;
                }
            }
            (Purpose::Subscribe { watch, expires }, 481) => {
                let over = matches!(self.watches[*watch].stage, Stage::Over);
                let runs = self.watches[*watch].ends.surely_runs(now) && !self.watches[*watch].is_shaky;
                self.watches[*watch].stage = Stage::Over;
                if runs && !over && !(crashed && expires.is_zero()) {
                    let watch = &self.watches[*watch];
                    return Err(format!("481 {} {}", watch.call_id, watch.tag));
                }
            }
            _ => return odd(),
        }
        Ok(())
    }

    /// Nobody answered: from here on both outcomes are possible.
    fn give_up(&mut self, now: Duration, transaction: Transaction) {
        let if_done = |expires| Window::of(&transaction, now, expires);
        match &transaction.purpose {
            Purpose::Publish { token, expires } => {
                let until = if_done(*expires).latest;
                if let Some(live) = self.live.take() {
                    self.lost_tags.push(live.etag);
                    self.ghosts.push((live.token, live.ends.latest.max(until)));
                }
                if let Some(token) = token {
                    self.ghosts.push((token.clone(), until));
                }
            }
            Purpose::Unpublish => {
                if let Some(live) = self.live.take() {
                    self.lost_tags.push(live.etag);
                    self.ghosts.push((live.token, live.ends.latest));
                }
            }
            Purpose::Register { expires } => {
                self.bound = None;
                self.maybe_bound = if_done((*expires).max(LONGEST)).latest;
                self.registered = now;
            }
            Purpose::Subscribe { watch, expires } => {
                let watch = &mut self.watches[*watch];
                watch.acked = now;
                match watch.stage {
                    Stage::Starting => watch.stage = Stage::Over,
                    Stage::Ending => watch.ends.earliest = transaction.started,
                    Stage::Live => {
                        let if_done = if_done(*expires);
                        watch.ends.earliest = watch.ends.earliest.min(if_done.earliest);
                        watch.ends.latest = watch.ends.latest.max(if_done.latest);
                    }
                    Stage::Over => {}
                }
            }
            Purpose::Stale | Purpose::Query => {}
        }
    }

    /// What is published is replaced or taken back.
    fn put_aside(&mut self, now: Duration, power_failed: bool) {
        if let Some(Live { etag, token, ends, .. }) = self.live.take() {
            if power_failed {
                self.ghosts.push((token, ends.latest));
                self.lost_tags.push(etag);
                return;
            }
            self.past.push(Past { etag, token, ends, replaced: now });
        }
    }

    /// What is published is not there any more. A power cut may take back that it ran out, and a clock that is set back then
    /// leaves it some time. What has not run out was taken by an earlier power cut, and does not come back.
    fn ran_out(&mut self, now: Duration, power_failed: bool) {
        if self.live.as_ref().is_some_and(|live| live.ends.surely_runs(now)) {
            self.live = None;
        } else {
            self.put_aside(now, power_failed);
        }
    }

    fn if_match(&self) -> String {
        self.live.as_ref().map(|live| format!("SIP-If-Match: {}\r\n", live.etag)).unwrap_or_default()
    }

    fn send_publish(
        &mut self,
        now: Duration,
        crashes: u32,
        purpose: Purpose,
        extra: &str,
        body: &str,
    ) -> Bytes {
        self.publish_cseq += 1;
        let (user, number, cseq) = (self.user, self.number, self.publish_cseq);
        let head = format!(
            "From: <sip:u{user}@example.com>;tag=p{number}\r\nTo: <sip:u{user}@example.com>\r\n\
             Call-ID: publish@d{number}\r\nCSeq: {cseq} PUBLISH\r\nEvent: {}\r\n{extra}",
            Package::of(user).name()
        );
        self.start(now, crashes, purpose, &format!("PUBLISH sip:u{user}@example.com"), &head, body)
    }

    fn send_register(&mut self, now: Duration, crashes: u32, purpose: Purpose, extra: &str) -> Bytes {
        self.register_cseq += 1;
        let (user, number, cseq) = (self.user, self.number, self.register_cseq);
        let head = format!(
            "From: <sip:u{user}@example.com>;tag=r{number}\r\nTo: <sip:u{user}@example.com>\r\n\
             Call-ID: register@d{number}\r\nCSeq: {cseq} REGISTER\r\n{extra}"
        );
        self.start(now, crashes, purpose, "REGISTER sip:example.com", &head, "")
    }

    fn send_subscribe(&mut self, now: Duration, crashes: u32, number: usize, expires: u32) -> Bytes {
        let (user, contact) = (self.user, self.contact());
        let watch = &mut self.watches[number];
        let package = Package::of(watch.whom);
        watch.cseq += 1;
        let to_tag = watch.server_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let head = format!(
            "From: <sip:u{user}@example.com>;tag={}\r\nTo: <sip:u{}@example.com>{to_tag}\r\nCall-ID: {}\r\n\
             CSeq: {} SUBSCRIBE\r\nContact: <{contact}>\r\nEvent: {}\r\nExpires: {expires}\r\n\
             Accept: {}\r\n",
            watch.tag,
            watch.whom,
            watch.call_id,
            watch.cseq,
            package.name(),
            package.content_type()
        );
        let target = if watch.server_tag.is_some() {
            format!("SUBSCRIBE sip:{}", comsipl_tests::world::SERVER)
        } else {
            format!("SUBSCRIBE sip:u{}@example.com", watch.whom)
        };
        let purpose = Purpose::Subscribe { watch: number, expires: Duration::from_secs(u64::from(expires)) };
        self.start(now, crashes, purpose, &target, &head, "")
    }

    fn start(
        &mut self,
        now: Duration,
        crashes: u32,
        purpose: Purpose,
        start: &str,
        head: &str,
        body: &str,
    ) -> Bytes {
        self.made += 1;
        let branch = format!("z9hG4bK-d{}-{}", self.number, self.made);
        let bytes: Bytes = format!(
            "{start} SIP/2.0\r\nVia: SIP/2.0/{} {};branch={branch};rport\r\nMax-Forwards: 70\r\n{head}\
             Content-Length: {}\r\n\r\n{body}",
            if self.streams { "TCP" } else { "UDP" },
            home(self.number),
            body.len()
        )
        .into_bytes()
        .into();
        self.transactions.push(Transaction {
            branch,
            bytes: Bytes::clone(&bytes),
            purpose,
            started: now,
            again_at: now + T1,
            interval: T1,
            crashes,
            over_connection: self.streams,
            clock_step: ClockStep::default(),
            power_failed: false,
        });
        bytes
    }
}

/// The version of a document.
fn version_of(text: &SipText) -> Option<u64> {
    let (_, rest) = text.body.split_once("dialog-info\" version=\"")?;
    rest.split('"').next()?.parse().ok()
}

/// The address that a phone knows of itself.
fn home(number: usize) -> SocketAddr {
    let host = u8::try_from(10 + number).expect("few phones");
    SocketAddr::from(([192, 0, 2, host], 5060))
}

/// Requests of one lane come one after the other.
fn lane(purpose: &Purpose) -> usize {
    match purpose {
        Purpose::Publish { .. } | Purpose::Unpublish | Purpose::Stale => 0,
        Purpose::Register { .. } | Purpose::Query => 1,
        Purpose::Subscribe { watch, .. } => 2 + watch,
    }
}

/// The URIs of the Contact header fields.
fn contacts(text: &SipText) -> Vec<String> {
    let uri = |v: &str| comsipl_tests::world::sip_text::uri_of(v).to_owned();
    text.values("Contact").into_iter().map(uri).collect()
}

/// What is granted is what was asked for (it lies within the server's bounds), or what is left of it when the process died
/// with the first answer.
fn is_granted(granted: Option<Duration>, asked: Duration, crashed: bool) -> bool {
    granted == Some(asked) || (crashed && granted.is_some_and(|granted| granted < asked))
}

/// An answer to a NOTIFY.
fn answer(request: &SipText, status: u16) -> Bytes {
    let mut out = format!("SIP/2.0 {status} Said\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        for value in request.all(name) {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if status == 503 {
        out.push_str("Retry-After: 7\r\n");
    }
    out.push_str("Content-Length: 0\r\n\r\n");
    out.into_bytes().into()
}

/// First interval of retransmission (RFC 3261 §17.1.1.1).
const T1: Duration = Duration::from_millis(500);
/// Longest interval of retransmission (RFC 3261 §17.1.2.2).
const T2: Duration = Duration::from_secs(4);
/// How long an answer is waited for: 64*T1.
const TIMER_F: Duration = Duration::from_secs(32);
/// Longest expiry that phones ask for.
pub const LONGEST: Duration = Duration::from_secs(900);
/// Failures in a row after which a phone pulls itself together, so that pauses stay short.
const FAILURES_IN_A_ROW_MAX: u32 = 2;

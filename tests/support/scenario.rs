//! Plays scenario files: readable conversations between phones and the server, in virtual time.
//!
//! `tests/scenarios/README.md` describes the format.

mod compose;
mod digest;
mod expect;
mod pattern;
mod phone;
mod syntax;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use comsipl_core::auth::Algorithm;
use comsipl_core::{ConnectionId, Transport};
use comsipl_shards::access::{Access, Grant, PublishFor};
use comsipl_shards::settings::{Auth, ExpiryPolicy, Profile, RegisteredState, Settings, Unregistered};

use crate::validity::{Bodies, PIDF_OF_THE_COMSIPL_PROFILE, Versions};
use crate::world::sip_text::SipText;
use crate::world::{Bytes, Crash, Happening, Power, SERVER, Setup, World, listeners_of_all};
use pattern::{Variables, expand, matches};
use phone::{Phone, Received, kind_of};
use syntax::{Expected, PROMPTLY, Step, Verb, When, Who};

/// Plays the scenario file at `path`.
///
/// # Errors
///
/// A report for the reader: file and line, what was expected, what came, and the last messages.
pub fn play(path: &Path) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    play_text(&name, &text)
}

fn play_text(name: &str, text: &str) -> Result<(), String> {
    if !["# RFC ", "# ComSIPL "].iter().any(|source| text.starts_with(source)) {
        return Err(format!("{name}:1: the first line must name the text that the scenario proves"));
    }
    let steps = syntax::parse(text).map_err(|(line, why)| format!("{name}:{line}: {why}"))?;
    let mut stage = Stage::default();
    for step in &steps {
        // A panic of the engine is a report like any other: the reader wants to know what led to it.
        let played = catch_unwind(AssertUnwindSafe(|| stage.play(step)))
            .unwrap_or_else(|panic| Err((step.line, said(panic.as_ref()))));
        played.map_err(|(line, why)| stage.report(name, line, &step.text, &why))?;
    }
    stage.finish().map_err(|why| stage.report(name, text.lines().count(), "the end", &why))
}

/// A line of the file and what went wrong there.
type Fault = (usize, String);

/// Everyone who takes part, and the world they are in.
struct Stage {
    setup: Setup,
    /// Made by the first step that needs it, so that settings can come before.
    world: Option<World>,
    phones: BTreeMap<String, Phone>,
    variables: Variables,
    branches: u32,
    /// The moment that `after` counts from: the end of the step before.
    since: Duration,
    /// What the server has said.
    bodies: Bodies,
    versions: Versions,
    /// The first version that does not follow the one before.
    gap: Option<String>,
}

impl Default for Stage {
    fn default() -> Self {
        let settings = Settings { listen: listeners_of_all(), auth: Auth::None, ..Setup::default().settings };
        let variables = Variables::from([
            ("server".to_owned(), SERVER.to_string()),
            ("server.ip".to_owned(), SERVER.ip().to_string()),
        ]);
        Self {
            setup: Setup { settings, ..Setup::default() },
            world: None,
            phones: BTreeMap::new(),
            variables,
            branches: 0,
            since: Duration::ZERO,
            bodies: Bodies::default(),
            versions: Versions::default(),
            gap: None,
        }
    }
}

impl Stage {
    fn play(&mut self, step: &Step) -> Result<(), Fault> {
        let fault = |why: String| (step.line, why);
        if !step.block.is_empty()
            && !matches!(
                step.verb,
                Verb::Request { .. } | Verb::Response { .. } | Verb::Raw { .. } | Verb::Expect { .. }
            )
        {
            return Err(fault("nothing may be indented below this step".to_owned()));
        }
        match &step.verb {
            Verb::Settings(pairs) => {
                if self.world.is_some() {
                    return Err(fault("settings come first".to_owned()));
                }
                for (name, value) in pairs {
                    set(&mut self.setup.settings, name, value).map_err(fault)?;
                }
            }
            Verb::Shards(count) => {
                if self.world.is_some() {
                    return Err(fault("shards come first".to_owned()));
                }
                self.setup.shards = *count;
            }
            Verb::Phone { name, at, via, over } => self.add_phone(name, *at, via.unwrap_or(*at), *over),
            Verb::Closes { phone } => {
                self.settle();
                let id = self.take_connection(phone).map_err(fault)?;
                self.world().close(id);
                self.settle();
            }
            Verb::CutOff { phone } => {
                self.settle();
                let id = self.take_connection(phone).map_err(fault)?;
                self.world().cut(id);
            }
            Verb::Connects { phone, from } => {
                self.settle();
                if let Some(from) = from {
                    self.tell_address(phone, *from);
                    self.phone(phone).at = *from;
                }
                self.connect(phone).map_err(fault)?;
            }
            Verb::Listens { phone, over, listens } => {
                let at = self.phone(phone).at;
                self.phone(phone).listens = listens.then_some(*over);
                self.world().listen(*over, at, *listens);
            }
            Verb::User { aor, secret } => {
                self.world().put_user(aor, secret).map_err(fault)?;
            }
            Verb::Name { host, entry } => self.world().put_name(host, entry.clone()),
            Verb::Moves { phone, to } => {
                let mut moved = self.phones.remove(phone).ok_or_else(|| fault(format!("who is {phone}?")))?;
                (moved.at, moved.via) = (*to, *to);
                self.tell_address(phone, *to);
                self.phones.insert(phone.clone(), moved);
            }
            Verb::Answers { phone, status } => self.phone(phone).answers = *status,
            Verb::Forgets { phone } => {
                self.settle();
                let phone = self.phone(phone);
                phone.inbox.clear();
                phone.lines.values_mut().for_each(|line| line.unanswered.clear());
            }
            Verb::Request { who, method, uri } => self.send_request(who, method, uri.as_deref(), step)?,
            Verb::Response { who, status } => self.send_response(who, *status, step)?,
            Verb::Again { who } => {
                let again = self.phone(&who.phone).line(&who.line).last_sent.clone();
                let again = again.ok_or_else(|| fault(format!("{} has sent nothing yet", who.name())))?;
                self.send(who, None, again).map_err(fault)?;
            }
            Verb::Raw { who } => {
                self.phone(&who.phone);
                let bytes: Bytes = compose::raw(&step.block, &self.variables)?.into();
                self.send(who, None, Bytes::clone(&bytes)).map_err(fault)?;
                self.phone(&who.phone).line(&who.line).on_sent(bytes);
            }
            Verb::Expect { who, what, again, when } => self.expect(who, what, *again, *when, step)?,
            Verb::TimePasses(span) => {
                let until = self.world().now() + *span;
                self.advance(until);
            }
            Verb::Nothing(span) => {
                self.check_silence().map_err(fault)?;
                let until = self.world().now() + *span;
                self.advance(until);
                self.check_silence().map_err(fault)?;
            }
            Verb::Clock(millis) => {
                self.settle();
                self.world().set_wall_clock(*millis);
            }
            Verb::Turns(takes) => {
                self.settle();
                self.world().set_turn(*takes);
            }
            Verb::Crash { machine, before_send, down, shards, clock_ms } => {
                let crash = Crash {
                    down: *down,
                    shards: *shards,
                    power: if *machine { Power::FailsAndAllIsLost } else { Power::Stays },
                    clock_step_ms: *clock_ms,
                };
                if *before_send {
                    self.world().crash_before_next_send(crash);
                } else {
                    self.settle();
                    self.world().crash(crash);
                    let until = self.world().now() + *down;
                    self.advance(until);
                }
            }
            Verb::Sync => {
                self.settle();
                self.world().sync();
            }
            Verb::Set { name, value } => {
                let value = expand(value, &self.variables).map_err(fault)?;
                self.variables.insert(name.clone(), value);
            }
            Verb::Check { left, equal, right } => {
                let left = expand(left, &self.variables).map_err(fault)?;
                let right = expand(right, &self.variables).map_err(fault)?;
                if (left == right) != *equal {
                    return Err(fault(format!("they are {left} and {right}")));
                }
            }
            Verb::Takes(percent) => {
                self.settle();
                self.world().take_percent(*percent);
            }
            Verb::Records(pairs) => {
                self.settle();
                let used = self.world().records_in_use();
                for (file, wanted) in pairs {
                    let found = match file.as_str() {
                        "presence" => used.presence,
                        "registered" => used.registered,
                        _ => return Err(fault(format!("there is no file {file}"))),
                    };
                    if found != *wanted {
                        return Err(fault(format!("{file} has {found} records in use")));
                    }
                }
            }
        }
        self.since = self.world.as_ref().map_or(Duration::ZERO, World::now);
        Ok(())
    }

    fn send_request(&mut self, who: &Who, method: &str, uri: Option<&str>, step: &Step) -> Result<(), Fault> {
        self.branches += 1;
        let branch = self.branches;
        self.phone(&who.phone);
        let phone = self.phones.get_mut(&who.phone).expect("just made");
        let bytes: Bytes =
            compose::request(phone, &who.line, method, uri, step, &self.variables, branch)?.into();
        phone.line(&who.line).on_sent(Bytes::clone(&bytes));
        self.send(who, None, bytes).map_err(|why| (step.line, why))
    }

    fn send_response(&mut self, who: &Who, status: u16, step: &Step) -> Result<(), Fault> {
        let line = self.phone(&who.phone).line(&who.line);
        let tag = line.tag.clone();
        let nothing = || (step.line, format!("{} has nothing to answer", who.name()));
        let request =
            if status < 200 { line.unanswered.front().cloned() } else { line.unanswered.pop_front() };
        let request = request.ok_or_else(nothing)?;
        let bytes = compose::response(&request.text, status, &tag, &step.block, &self.variables)?;
        self.send(who, Some(request.connection), bytes.into()).map_err(|why| (step.line, why))
    }

    /// Sends a request of a phone, or an answer by the way the request came: `answers` is its connection.
    fn send(&mut self, who: &Who, answers: Option<Option<ConnectionId>>, bytes: Bytes) -> Result<(), String> {
        let (at, over) = (self.phone(&who.phone).at, self.phone(&who.phone).over);
        let by = match answers {
            Some(by) => by,
            None if over.is_stream() => {
                if self.phone(&who.phone).connection.is_none() {
                    self.connect(&who.phone)?;
                }
                self.phone(&who.phone).connection
            }
            None => None,
        };
        match by {
            Some(id) if self.world().is_open(id) => self.world().write(id, bytes),
            Some(_) => return Err(format!("{} has lost its connection", who.name())),
            None => {
                let to = self.setup.settings.listen[0].address;
                self.world().send(at, to, bytes);
            }
        }
        Ok(())
    }

    /// Opens a phone's connection.
    fn connect(&mut self, name: &str) -> Result<(), String> {
        let (at, over) = (self.phone(name).at, self.phone(name).over);
        let id = self.world().connect(at, over);
        self.phone(name).connection = Some(id.ok_or("nobody takes the connection")?);
        Ok(())
    }

    /// The connection that a phone has, which it is about to lose.
    fn take_connection(&mut self, name: &str) -> Result<ConnectionId, String> {
        self.phone(name).connection.ok_or_else(|| format!("{name} has no connection"))
    }

    fn expect(
        &mut self,
        who: &Who,
        what: &Expected,
        again: bool,
        when: When,
        step: &Step,
    ) -> Result<(), Fault> {
        let fault = |why: String| (step.line, why);
        let deadline = self.since + when.latest;
        let received = loop {
            if let Some(received) = self.phone(&who.phone).take(&who.line) {
                break received;
            }
            if !self.advance_one(deadline) {
                return Err(fault("nothing came".to_owned()));
            }
        };
        let came = || {
            let span = received.at.checked_sub(self.since).unwrap_or_default();
            format!("this came after {span:?}:\n{}", shown(&received.bytes))
        };
        // What came while another step was waiting came early enough, unless the step says `after`.
        let early = !when.earliest.is_zero() && received.at < self.since + when.earliest;
        if early || received.at > deadline {
            return Err(fault(format!("at the wrong time, {}", came())));
        }
        if !what.is(&received.text) {
            return Err(fault(came()));
        }
        let report = came();
        if again {
            let before =
                self.phone(&who.phone).line(&who.line).last_seen.get(&kind_of(&received.text)).cloned();
            let before = before.ok_or_else(|| fault("no such message came before".to_owned()))?;
            if before != received.bytes {
                let before = shown(&before);
                return Err(fault(format!("not the same as before, {report}\nbefore:\n{before}")));
            }
        }
        if let Expected::Request(_, Some(uri)) = what {
            let actual = received.text.request_uri().unwrap_or("");
            if !matches(uri, actual, &mut self.variables).map_err(fault)? {
                return Err(fault(format!("the Request-URI is {actual}, {report}")));
            }
        }
        for line in &step.block {
            expect::check(&line.text, &received.text, &mut self.variables)
                .map_err(|why| (line.line, format!("`{}`: {why}\n{report}", line.text)))?;
        }
        self.phone(&who.phone).line(&who.line).on_seen(&received);
        Ok(())
    }

    /// What was expected and what came, for the reader.
    fn report(&self, name: &str, line: usize, step: &str, why: &str) -> String {
        let story = self.world.as_ref().map(World::story).unwrap_or_default();
        format!("tests/scenarios/{name}:{line}: {step}\n{why}\n\nWhat happened:\n{story}")
    }

    fn finish(&mut self) -> Result<(), String> {
        self.settle();
        self.check_silence()?;
        self.gap.take().map_or(Ok(()), Err)?;
        self.bodies.check()
    }

    /// Lets everything happen that happens at once.
    fn settle(&mut self) {
        let until = self.world().now() + PROMPTLY;
        self.advance(until);
    }

    fn check_silence(&self) -> Result<(), String> {
        for phone in self.phones.values() {
            if let Some(received) = phone.inbox.front() {
                return Err(format!("{} got something unexpected:\n{}", phone.name, shown(&received.bytes)));
            }
        }
        Ok(())
    }

    fn advance(&mut self, until: Duration) {
        while self.advance_one(until) {}
    }

    /// Lets one thing happen; false: nothing does until then.
    fn advance_one(&mut self, until: Duration) -> bool {
        let Some(happening) = self.world().next(until) else { return false };
        match &happening {
            Happening::ServerSent { bytes, .. } => self.remember_body(bytes),
            Happening::Crashed => self.versions.on_restart(),
            _ => {}
        }
        if let Happening::PhoneGot { from, to, connection, bytes } = happening {
            let at = self.world().now();
            let variables = Variables::new();
            let hears = |p: &&mut Phone| p.at == to && p.hears(connection);
            let Some(phone) = self.phones.values_mut().find(hears) else { return true };
            let unreadable = || SipText {
                start: String::from_utf8_lossy(&bytes).into_owned(),
                headers: Vec::new(),
                body: String::new(),
            };
            let text = SipText::read(&bytes).unwrap_or_else(unreadable);
            let mut received = Received { at, from, connection, bytes, text, answered: false };
            let answer = match (phone.answers, received.text.method()) {
                (Some(status), Some("NOTIFY")) => {
                    received.answered = true;
                    let tag = format!("{}-tag", phone.name);
                    compose::response(&received.text, status, &tag, &[], &variables).ok()
                }
                _ => None,
            };
            let (source, target) = (phone.at, received.from);
            phone.inbox.push_back(received);
            match (answer, connection) {
                (Some(answer), None) => self.world().send(source, target, answer),
                (Some(answer), Some(id)) => self.world().write(id, answer),
                (None, _) => {}
            }
        }
        true
    }

    /// Every body that the server sends must be valid, whether a phone looks at it or not.
    fn remember_body(&mut self, bytes: &[u8]) {
        if let Some(message) = SipText::read(bytes)
            && !message.body.is_empty()
        {
            let content_type = match message.header("Content-Type") {
                Some("application/pidf+xml") if self.setup.settings.profile == Profile::Comsipl => {
                    PIDF_OF_THE_COMSIPL_PROFILE
                }
                other => other.unwrap_or("no Content-Type"),
            };
            self.bodies.add(content_type, &message.body, || format!("in\n{}", shown(bytes)));
            if let Err(gap) = self.versions.look_at(&message) {
                self.gap.get_or_insert_with(|| format!("{gap}\nin\n{}", shown(bytes)));
            }
        }
    }

    fn world(&mut self) -> &mut World {
        let setup = &self.setup;
        self.world.get_or_insert_with(|| World::new(setup.clone()))
    }

    /// A phone; the first use of a name gives it the next free address.
    fn phone(&mut self, name: &str) -> &mut Phone {
        if !self.phones.contains_key(name) {
            let host = u8::try_from(self.phones.len() + 1).expect("few phones");
            let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 5060);
            self.add_phone(name, at, at, Transport::Udp);
        }
        self.phones.get_mut(name).expect("just added")
    }

    fn add_phone(&mut self, name: &str, at: SocketAddr, via: SocketAddr, over: Transport) {
        self.tell_address(name, at);
        self.phones.insert(name.to_owned(), Phone::new(name, at, via, over));
    }

    fn tell_address(&mut self, name: &str, at: SocketAddr) {
        self.variables.insert(name.to_owned(), at.to_string());
        self.variables.insert(format!("{name}.ip"), at.ip().to_string());
        self.variables.insert(format!("{name}.port"), at.port().to_string());
    }
}

/// Applies one pair of a `settings` step.
fn set(settings: &mut Settings, name: &str, value: &str) -> Result<(), String> {
    let number = || value.parse::<u32>().map_err(|_| format!("{name} is a number"));
    let percent = |number: u32| u8::try_from(number).map_err(|_| format!("{name} is a number of percent"));
    if let Some(name) = name.strip_prefix("auth.") {
        return set_access(&mut settings.access, name, value);
    }
    if let Some((policy, bound)) = name.split_once('.') {
        let policy: &mut ExpiryPolicy = match policy {
            "registration" => &mut settings.registration,
            "publication" => &mut settings.publication,
            "subscription" => &mut settings.subscription,
            _ => return Err(format!("there is no setting {name}")),
        };
        match bound {
            "min_secs" => policy.min_secs = number()?,
            "default_secs" => policy.default_secs = number()?,
            "max_secs" => policy.max_secs = number()?,
            _ => return Err(format!("there is no setting {name}")),
        }
        return Ok(());
    }
    match (name, value) {
        ("auth", "digest") => settings.auth = Auth::Digest,
        ("auth", "none") => settings.auth = Auth::None,
        ("auth_failures_per_minute", _) => settings.auth_failures_per_minute = number()?,
        ("auth_failures_per_source_minute", _) => settings.auth_failures_per_source = number()?,
        ("requests_per_source_s", _) => settings.requests_per_source = number()?,
        ("profile", "comsipl") => settings.profile = Profile::Comsipl,
        ("profile", "rfc") => settings.profile = Profile::Rfc,
        ("registered_state", "open") => settings.registered_state = RegisteredState::Open,
        ("registered_state", "closed") => settings.registered_state = RegisteredState::Closed,
        ("registered_note", note) => settings.registered_note = note.replace('_', " "),
        ("unregistered", "offline") => settings.unregistered = Unregistered::Offline,
        ("unregistered", "keep") => settings.unregistered = Unregistered::Keep,
        ("offline_hold_s", _) => settings.offline_hold = Duration::from_secs(number()?.into()),
        ("domains", domains) => settings.domains = domains.split(',').map(str::to_owned).collect(),
        ("advertise", host) => settings.advertise = Some(host.to_owned()),
        ("service_route", route) => settings.service_route = route.to_owned(),
        ("outbound_proxy", proxy) => {
            let proxy =
                comsipl_shards::config::parse_outbound_proxy(proxy).map_err(|error| error.to_string())?;
            settings.outbound_proxy = Some(proxy);
        }
        ("notify_interval_ms", _) => settings.notify_interval = Duration::from_millis(number()?.into()),
        ("overload", "uncontrolled") => settings.overload.is_controlled = false,
        ("expires_spread_percent", _) => settings.overload.expires_spread_percent = percent(number()?)?,
        ("expires_spread_after_start_percent", _) => {
            settings.overload.expires_spread_after_start_percent = percent(number()?)?;
        }
        ("notifies_per_turn", _) => settings.notifies_per_turn = number()? as usize,
        ("presence_records_max", _) => settings.presence_records_max = number()?,
        ("registered_records_max", _) => settings.registered_records_max = number()?,
        _ => return Err(format!("there is no setting {name}={value}")),
    }
    Ok(())
}

/// Applies one `auth.…` pair of a `settings` step.
fn set_access(access: &mut Access, name: &str, value: &str) -> Result<(), String> {
    let ranges = || {
        let range = |text: &str| text.parse().map_err(|_| format!("{text} is no range"));
        value.split(',').map(range).collect::<Result<Vec<_>, _>>()
    };
    match name {
        "realm" => access.realm = Some(value.to_owned()),
        "algorithms" => {
            let named =
                |text: &str| Algorithm::named(Some(text.as_bytes())).ok_or(format!("what is {text}?"));
            access.algorithms = value.split(',').map(named).collect::<Result<_, _>>()?;
        }
        "nonce_lifetime_s" => {
            let secs = value.parse().map_err(|_| format!("{name} is a number"))?;
            access.nonce_lifetime = Duration::from_secs(secs);
        }
        "nonce_bound" => access.nonce_bound = value == "true",
        "trusted" => access.trusted = ranges()?,
        "allow" => access.allow = ranges()?,
        "deny" => access.deny = ranges()?,
        "grant" => {
            let (user, users) = value.split_once('/').ok_or("a grant is written USER/USER,USER or USER/*")?;
            let publish_for = match users {
                "*" => PublishFor::Anyone,
                users => PublishFor::Users(users.split(',').map(str::to_owned).collect()),
            };
            access.grants.push(Grant { user: user.to_owned(), publish_for });
        }
        _ => return Err(format!("there is no setting auth.{name}")),
    }
    Ok(())
}

/// A message, indented, for a report.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// What a panic said.
#[must_use]
pub fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("of unknown kind"))
}

//! Who sends a request, and whether that user may (RFC 3261 §22, RFC 8760; RFC 3325 behind a trusted proxy).
//!
//! Comes before the method's own work. REGISTER, PUBLISH and SUBSCRIBE are challenged; OPTIONS tells nothing that needs
//! a password, CANCEL and ACK must not be challenged (RFC 3261 §22.1), and other methods are refused anyhow.
//!
//! An answer to somebody who has not proven anything is not remembered: whoever floods us with requests costs no memory, and a
//! request sent again gets a challenge again.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use comsipl_core::aor::{canonical_into, canonical_of_user};
use comsipl_core::auth::{
    Algorithm, BadCredentials, Challenge, Credentials, Nonce, Nonces, Protection, Source, asserted_identity,
    asserts_identity,
};
use comsipl_core::header::HeaderName;
use comsipl_core::msg::{Message, Method};
use comsipl_core::quirks::Quirks;
use comsipl_core::uri::Uri;
use comsipl_core::{AorKey, Flow, HashKey, Mono, Now, Refusal};
use comsipl_fdb::RecordBuf;

use crate::access::{Gate, PublishFor};
use crate::budget::Spending;
use crate::reply::Request;
use crate::security::{Event, SecurityLog};
use crate::settings::{Auth, Settings};
use crate::shard::Shard;
use crate::users::{self, Known, Username};

/// What a shard needs to know senders by.
pub(crate) struct Guard {
    /// There are sources that are not heard.
    pub(super) has_bounds: bool,
    /// Requests are challenged.
    pub(crate) challenges: bool,
    pub(crate) gate: Rc<SharedGate>,
    pub(crate) log: SecurityLog,
    /// Who may publish for whom, sorted; `None`: for anyone.
    grants: Vec<(AorKey, Option<AorKey>)>,
    record: RecordBuf,
    /// The domain of the request's user.
    host: Vec<u8>,
    /// The canonical address-of-record of somebody.
    aor: Vec<u8>,
    username: Vec<u8>,
    /// Who sent the request at hand, if anybody has proved it.
    pub(super) sender: Option<AorKey>,
}

/// The gate of all shards, as one of them holds it. Requests hold on to this, so that they do not all count at one place.
pub(crate) struct SharedGate(Arc<Gate>);

impl Deref for SharedGate {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.0
    }
}

/// Who sent a request.
#[derive(Clone, Copy)]
struct Sender {
    key: AorKey,
    /// A trusted proxy asserts it in P-Asserted-Identity, so From may be anonymous.
    is_asserted: bool,
}

/// What is done with a request whose sender is not known.
enum Turned {
    /// Nothing: the source has lost its right to an answer.
    Away,
    /// 401.
    Challenged { stale: bool },
    /// Another refusal, not remembered.
    Refused(Refusal),
}

impl Guard {
    pub(crate) fn new(settings: &Settings, keys: &HashKey, gate: Arc<Gate>, now: Mono) -> Self {
        let key = |aor: &String| keys.aor(aor.as_bytes());
        let mut grants: Vec<_> = settings
            .access
            .grants
            .iter()
            .flat_map(|grant| {
                let targets = match &grant.publish_for {
                    PublishFor::Anyone => vec![None],
                    PublishFor::Users(users) => users.iter().map(|user| Some(key(user))).collect(),
                };
                targets.into_iter().map(move |target| (key(&grant.user), target))
            })
            .collect();
        grants.sort_unstable();
        Self {
            has_bounds: settings.access.has_bounds(),
            challenges: settings.auth == Auth::Digest,
            gate: Rc::new(SharedGate(gate)),
            log: SecurityLog::new(now),
            grants,
            record: RecordBuf::default(),
            host: Vec::new(),
            aor: Vec::new(),
            username: Vec::new(),
            sender: None,
        }
    }

    fn may_publish(&self, user: AorKey, target: AorKey) -> bool {
        user == target
            || self.grants.binary_search(&(user, None)).is_ok()
            || self.grants.binary_search(&(user, Some(target))).is_ok()
    }

    /// Sets `aor` to the canonical form of the address-of-record that `uri` names.
    fn canonical(&mut self, uri: &[u8]) -> Option<()> {
        self.aor.clear();
        canonical_into(&Uri::parse(uri).ok()?, &mut self.aor).ok()
    }
}

impl Shard {
    /// Whether a source is heard. What is dropped is counted and logged, and not answered.
    #[cold]
    pub(super) fn admits(&mut self, now: Now, flow: Flow) -> bool {
        let source = flow.peer.ip();
        if self.settings.access.admits(source) {
            return true;
        }
        self.counters.sources_denied.up();
        let event = Event { event: "acl_denied", source, user: b"", method: b"", reason: "denied" };
        self.guard.log.log(now.mono, &event);
        false
    }

    /// Whether a source may send one more request now. What is beyond is dropped.
    #[cold]
    pub(super) fn is_within_budget(&mut self, now: Now, flow: Flow, message: &Message<'_>) -> bool {
        let source = flow.peer.ip();
        if self.settings.access.trusts(source) {
            return true;
        }
        let spending = self.guard.gate.budgets.request(now.mono, Source::of(source));
        if spending == Spending::Within {
            return true;
        }
        self.counters.requests_over_budget.up();
        if spending == Spending::Last {
            let method = message.cseq().method_text;
            self.guard
                .log
                .log(now.mono, &Event { event: "flood", source, user: b"", method, reason: "rate" });
        }
        false
    }

    /// Whether the request goes on to its method; else it is answered or dropped.
    #[cold]
    pub(super) fn is_authorized(&mut self, request: &Request<'_>, method: Method) -> bool {
        self.guard.sender = None;
        if !matches!(method, Method::Register | Method::Publish | Method::Subscribe) {
            return true;
        }
        let identified = if self.settings.access.trusts(request.flow.peer.ip()) {
            self.believe(request).map_err(Turned::Refused)
        } else {
            self.identify(request, method)
        };
        match identified {
            Ok(sender) => match self.authorize(request, method, sender) {
                Ok(()) => {
                    self.guard.sender = Some(sender.key);
                    true
                }
                Err(refusal) => {
                    self.refuse(request, refusal);
                    false
                }
            },
            Err(Turned::Away) => {
                self.counters.blocked_requests.up();
                false
            }
            Err(Turned::Refused(refusal)) => {
                self.answer_unremembered(request, refusal.status(), refusal.reason(), |writer| {
                    writer.end_without_body();
                });
                false
            }
            Err(Turned::Challenged { stale }) => {
                self.challenge(request, method, stale);
                false
            }
        }
    }

    /// The sender whom a trusted proxy names: in P-Asserted-Identity (RFC 3325 §5), else in From. An assertion of which we know
    /// nobody (a telephone number alone) leaves From unproven: the proxy says that the sender is somebody else.
    fn believe(&mut self, request: &Request<'_>) -> Result<Sender, Refusal> {
        let asserted = asserted_identity(request.message);
        if asserted.is_none() && asserts_identity(request.message) {
            return Err(Refusal::Forbidden("Unknown Identity"));
        }
        let uri = asserted.map_or(request.message.from().uri(), |uri| uri.raw());
        self.guard.canonical(uri).ok_or(Refusal::Forbidden("Unknown Identity"))?;
        Ok(Sender { key: self.keys.aor(&self.guard.aor), is_asserted: asserted.is_some() })
    }

    /// The sender whom the credentials prove.
    fn identify(&mut self, request: &Request<'_>, method: Method) -> Result<Sender, Turned> {
        let source = Source::of(request.flow.peer.ip());
        let gate = Rc::clone(&self.guard.gate);
        if gate.budgets.is_blocked(request.now.mono, source) {
            return Err(Turned::Away);
        }
        let Some(nonces) = &gate.nonces else {
            // Without nonces nobody can prove anything; the node makes them whenever it challenges.
            return Err(Turned::Refused(Refusal::Forbidden("Authentication Is Not Possible")));
        };
        self.find_host(request.message, method);
        let settings = Rc::clone(&self.settings);
        let realm = settings.access.realm.as_ref().map_or(&self.guard.host[..], |realm| realm.as_bytes());
        let (credentials, algorithm) =
            match find_credentials(request.message, realm, &settings.access.algorithms) {
                Ok(Some(found)) => found,
                Ok(None) => return Err(Turned::Challenged { stale: false }),
                Err(why) => {
                    self.tell_failure(request, b"", "malformed");
                    return Err(Turned::Refused(Refusal::BadRequest(why)));
                }
            };
        let Some(protection) = credentials.protection.filter(|it| it.qop.eq_ignore_ascii_case(b"auth"))
        else {
            // RFC 8760 §2.6: "a UAC MUST send the "qop" parameter"; without it there is no nonce count, and what was sent
            // once could be sent again by anybody.
            return Err(Turned::Challenged { stale: false });
        };
        let bound_to = settings.access.nonce_bound.then_some(source);
        let nonce = nonces.examine(request.now.mono, credentials.nonce, realm, bound_to);
        if nonce == Nonce::Foreign {
            // Whether the rest is right is not even looked at: the answer would tell a guesser, who had no nonce of ours and
            // perhaps not even the address that he writes from.
            return Err(Turned::Challenged { stale: true });
        }
        if !credentials.is_about(request.message.request_uri(), &mut self.guard.aor) {
            self.tell_failure(request, credentials.username, "other_uri");
            return Err(Turned::Refused(Refusal::BadRequest("The Digest Is About Another URI")));
        }
        self.guard.username.clear();
        credentials.username_into(&mut self.guard.username);
        let sender = self.prove(request, nonces, &credentials, &protection, algorithm)?;
        match nonce {
            Nonce::Fresh(id) if nonces.spend(id, protection.count) => {
                Ok(Sender { key: sender, is_asserted: false })
            }
            Nonce::Fresh(_) => {
                self.counters.nonce_counts_replayed.up();
                self.tell_failure(request, credentials.username, "replayed");
                Err(Turned::Challenged { stale: true })
            }
            Nonce::Expired | Nonce::Foreign => Err(Turned::Challenged { stale: true }),
        }
    }

    /// Checks the response against the secret of the user. A user who is not there costs the same time as a wrong password and
    /// gets the same answer.
    fn prove(
        &mut self,
        request: &Request<'_>,
        nonces: &Nonces,
        credentials: &Credentials<'_>,
        protection: &Protection<'_>,
        algorithm: Algorithm,
    ) -> Result<AorKey, Turned> {
        let (key, known) = self.find_user(request, algorithm);
        let (secret, reason) = match known {
            Known::Secret(secret) => (Some(secret), "wrong_password"),
            Known::NoUser => (None, "unknown_user"),
            Known::NoSecret => (None, "no_secret_for_algorithm"),
            Known::OtherRealm => (None, "secret_for_other_realm"),
        };
        let source = Source::of(request.flow.peer.ip());
        if self.guard.gate.budgets.is_blocked_for(request.now.mono, source, key) {
            return Err(Turned::Away);
        }
        let guard = &mut self.guard;
        let decoy = nonces.decoy(algorithm, &guard.username);
        let method = request.message.cseq().method_text;
        let proven = credentials.prove(protection, algorithm, &secret.unwrap_or(decoy), method);
        if proven && secret.is_some() {
            return Ok(key);
        }
        self.counters.auth_failures.up();
        match self.guard.gate.budgets.failure(request.now.mono, source, key) {
            Spending::Within => {
                self.tell_failure(request, credentials.username, reason);
                Err(Turned::Challenged { stale: false })
            }
            Spending::Last => {
                self.tell_failure(request, credentials.username, "too_many");
                Err(Turned::Refused(Refusal::Forbidden("Too Many Failures")))
            }
            Spending::Beyond => Err(Turned::Away),
        }
    }

    /// The user whom the credentials name: by the user part of an address in our domain, by the whole address, or by a name of his own,
    /// and then it is the user whose request this is. Without a user, the key is that of the first.
    fn find_user(&mut self, request: &Request<'_>, algorithm: Algorithm) -> (AorKey, Known) {
        let guard = &mut self.guard;
        let settings = &self.settings;
        let realm = settings.access.realm.as_ref().map_or(&guard.host[..], |realm| realm.as_bytes());
        let (registered, keys) = (&self.files.registered_file, &self.keys);
        let mut look = |aor: &[u8], username: Username<'_>| {
            let key = keys.aor(aor);
            let record = &mut guard.record;
            (key, users::secret_of(registered, keys, key, username, realm, algorithm, record))
        };
        let (name, aor) = (&guard.username[..], &mut guard.aor);
        aor.clear();
        let first = match canonical_of_user(name, &guard.host, aor) {
            Ok(()) => look(aor, Username::User),
            Err(_) => (keys.aor(name), Known::NoUser),
        };
        if !matches!(first.1, Known::NoUser) {
            return first;
        }
        if let Some(at) = name.iter().rposition(|&byte| byte == b'@')
            && name[at + 1..].eq_ignore_ascii_case(&guard.host)
        {
            aor.clear();
            if canonical_of_user(&name[..at], &guard.host, aor).is_ok() {
                let found = look(aor, Username::Address);
                if !matches!(found.1, Known::NoUser) {
                    return found;
                }
            }
        }
        let own = own_uri(request.message, request.message.cseq().method);
        aor.clear();
        if Uri::parse(own).is_ok_and(|uri| canonical_into(&uri, aor).is_ok()) {
            let found = look(aor, Username::Own(name));
            if !matches!(found.1, Known::NoUser) {
                return found;
            }
        }
        first
    }

    /// Whether a known sender may do what the request asks.
    fn authorize(&mut self, request: &Request<'_>, method: Method, sender: Sender) -> Result<(), Refusal> {
        let message = request.message;
        let (uri, event, reason, phrase) = match method {
            // RFC 3261 §10.3 step 4: "The registrar SHOULD determine if the authenticated user is authorized to modify
            // registrations for this address-of-record."
            Method::Register => (message.to().uri(), "register_denied", "other_user", "Not Your Address"),
            Method::Publish => (message.request_uri(), "publish_denied", "not_granted", "Not Your Presence"),
            _ => (message.from().uri(), "spoofed_from", "other_user", "Not Your From"),
        };
        if self.guard.canonical(uri).is_none() {
            // What is wrong with the address is for the method to say; a From is of nobody's concern then.
            return if method == Method::Subscribe { Err(Refusal::Forbidden(phrase)) } else { Ok(()) };
        }
        let target = self.keys.aor(&self.guard.aor);
        let may = match method {
            Method::Publish => self.guard.may_publish(sender.key, target),
            // RFC 3323 §4.1.1.3: who wants privacy writes this; the proxy knows better and says so.
            Method::Subscribe if sender.is_asserted => {
                target == sender.key || self.guard.aor.ends_with(b"@anonymous.invalid")
            }
            _ => target == sender.key,
        };
        if may {
            return Ok(());
        }
        self.counters.forbidden.up();
        let source = request.flow.peer.ip();
        let method = message.cseq().method_text;
        let event = Event { event, source, user: &self.guard.aor, method, reason };
        self.guard.log.log(request.now.mono, &event);
        Err(Refusal::Forbidden(phrase))
    }

    /// 401 with a fresh nonce, and with the algorithms by which the user could prove himself.
    fn challenge(&mut self, request: &Request<'_>, method: Method, stale: bool) {
        let gate = Rc::clone(&self.guard.gate);
        let Some(nonces) = &gate.nonces else { return };
        let settings = Rc::clone(&self.settings);
        let host = std::mem::take(&mut self.guard.host);
        let realm = settings.access.realm.as_ref().map_or(&host[..], |realm| realm.as_bytes());
        let source = settings.access.nonce_bound.then(|| Source::of(request.flow.peer.ip()));
        let nonce = nonces.issue(request.now.mono, self.chance.next_u64() as u32, realm, source);
        self.counters.challenged.up();
        // The User-Agent proves nothing, but whoever could change it on its way could as well take a challenge out.
        let md5_alone = Quirks::of(request.message.user_agent().unwrap_or_default()).md5_alone;
        let offered = &settings.access.algorithms[..];
        let mut only = (md5_alone && offered.contains(&Algorithm::Md5)).then_some(Algorithm::Md5);
        if only.is_none()
            && offered.len() > 1
            && self.guard.canonical(own_uri(request.message, method)).is_some()
        {
            // RFC 8760 §2.4: a phone answers the topmost challenge that it supports, and is not told to try the next one when that
            // fails. A user who came with a hash of MD5 alone could never get in by SHA-256.
            let key = self.keys.aor(&self.guard.aor);
            only = users::only_algorithm_of(&self.files.registered_file, key, &mut self.guard.record);
        }
        let algorithms = only.as_ref().map_or(offered, std::slice::from_ref);
        self.answer_unremembered(request, 401, "Unauthorized", |writer| {
            Challenge { realm, nonce: &nonce, stale }.write(writer, algorithms);
            writer.end_without_body();
        });
        self.guard.host = host;
    }

    /// Finds the domain whose user sends the request: that of To for REGISTER (RFC 3261 §10.2: the user who is registered), that
    /// of From for the others; where we serve none of these, the first that we serve.
    fn find_host(&mut self, message: &Message<'_>, method: Method) {
        for uri in [own_uri(message, method), message.request_uri()] {
            if self.guard.canonical(uri).is_some() {
                let guard = &mut self.guard;
                let user = guard.aor.iter().rposition(|&byte| byte == b'@').map_or(0, |at| at + 1);
                guard.host.clear();
                guard.host.extend_from_slice(&guard.aor[user..]);
                if self.serves(&self.guard.host) {
                    return;
                }
            }
        }
        let first = self.settings.domains.first().map_or("localhost", String::as_str);
        self.guard.host.clear();
        self.guard.host.extend_from_slice(first.as_bytes());
    }

    fn tell_failure(&mut self, request: &Request<'_>, user: &[u8], reason: &'static str) {
        let source = request.flow.peer.ip();
        let method = request.message.cseq().method_text;
        self.guard.log.log(request.now.mono, &Event { event: "auth_failed", source, user, method, reason });
    }
}

/// The URI of the user whose request this must be: that of To for REGISTER (RFC 3261 §10.2), that of From for the others.
fn own_uri<'a>(message: &Message<'a>, method: Method) -> &'a [u8] {
    if method == Method::Register { message.to().uri() } else { message.from().uri() }
}

/// The credentials for our realm with an algorithm that we offer; other realms and schemes are for others (RFC 3261 §22.3: a
/// request may carry credentials of several). An error says what is wrong if there are none of ours that can be read.
fn find_credentials<'a>(
    message: &Message<'a>,
    realm: &[u8],
    offered: &[Algorithm],
) -> Result<Option<(Credentials<'a>, Algorithm)>, &'static str> {
    let mut wrong = None;
    for value in message.lines(HeaderName::Authorization).take(AUTHORIZATIONS_MAX) {
        match Credentials::parse(value) {
            Ok(credentials) if credentials.realm == realm => {
                let algorithm = Algorithm::named(credentials.algorithm).filter(|it| offered.contains(it));
                if let Some(algorithm) = algorithm {
                    return Ok(Some((credentials, algorithm)));
                }
            }
            Ok(_) | Err(BadCredentials::OtherScheme) => {}
            Err(BadCredentials::Malformed) => wrong = Some("Bad Authorization"),
            Err(BadCredentials::HiddenUsername) => wrong = Some("Hidden User Names Are Not Served"),
        }
    }
    wrong.map_or(Ok(None), Err)
}

/// Most Authorization header fields that are looked at; a proxy chain has one for each realm.
const AUTHORIZATIONS_MAX: usize = 8;

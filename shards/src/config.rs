//! The configuration file: TOML in, [`Settings`] out, and every mistake shown where it stands.
//!
//! A file names only what differs from the defaults. Whatever is wrong with it — a key nobody knows, a value of the
//! wrong kind, bounds in the wrong order — is an error with file, line, caret, what was expected and what to do.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use comsipl_fdb::RECORDS_MAX_LIMIT;
use toml::Spanned;

use crate::settings::{
    Auth, ExpiryPolicy, Listen, OutboundProxy, Profile, RECOVERY_MAX, RegisteredState, SandboxMode, Settings,
    Unregistered,
};

mod auth;
pub use auth::{is_realm, parse_user};
mod error;
pub use error::{ConfigError, Mistake};
mod file;
mod listen;
mod outbound_proxy;
pub use outbound_proxy::{ProxyError, parse_outbound_proxy};
mod overload;
pub use listen::{ListenError, parse_listen};
mod print;
mod tls;
pub use print::to_toml;

use file::{Expiries, File, Registration};

/// Most listeners of a node: one a protocol and an interface is plenty, and a flow names its listener by 8 bits.
pub const LISTENERS_MAX: usize = 16;

/// Most shards of a node: there are so many partitions to deal out.
pub const SHARDS_MAX: usize = comsipl_core::PARTITIONS;

/// Longest time for which a change is kept from watchers, in milliseconds: a restart composes again what changed within
/// the 32 seconds before it.
const NOTIFY_INTERVAL_MS_MAX: i64 = 30_000;

/// Reads a configuration file on top of `settings`.
///
/// # Errors
/// [`ConfigError`] says what is wrong and where.
pub fn read_file(path: &Path, settings: &mut Settings) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_path_buf(), error })?;
    read_text(&text, settings).map_err(|mistake| ConfigError::Mistake {
        path: path.to_path_buf(),
        text,
        mistake: Box::new(mistake),
    })
}

/// Reads the text of a configuration file on top of `settings`, which is left as it was if the text is wrong.
///
/// # Errors
/// [`Mistake`] says what is wrong and where.
pub fn read_text(text: &str, settings: &mut Settings) -> Result<(), Mistake> {
    let file: File = toml::from_str(text).map_err(|error| Mistake {
        span: error.span().unwrap_or(0..0),
        what: error.message().to_owned(),
        help:
            "every option is described in deploy/config/comsipl.toml, and `comsipl check-config FILE` prints \
               those in force"
                .to_owned(),
    })?;
    let mut read = settings.clone();
    file.apply(&mut read)?;
    *settings = read;
    Ok(())
}

/// Refuses listeners that others can reach as long as nobody has written out that requests are not authenticated.
///
/// # Errors
/// The first such listener.
pub fn check_exposure(settings: &Settings) -> Result<(), Exposed> {
    match settings.auth {
        Auth::None | Auth::Digest => Ok(()),
        Auth::Unset => match settings.listen.iter().find(|listen| !listen.address.ip().is_loopback()) {
            Some(&listen) => Err(Exposed { listen }),
            None => Ok(()),
        },
    }
}

/// A listener that others can reach, while requests are not authenticated and nobody wrote that this is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The listener.
    pub listen: Listen,
}

impl std::fmt::Display for Exposed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let listen = self.listen;
        write!(
            f,
            "refusing to listen on {listen}: it can be reached from other machines, and requests are not \
             authenticated, so anyone there could publish and watch as anyone\n  \
             help: have them authenticated by `auth = \"digest\"` under [server] or by `--auth digest`; or listen on a \
             loopback address such as udp:127.0.0.1:5060; or, where a proxy or a firewall decides \
             who may reach this server, say so by `auth = \"none\"` under [server] or by `--auth none`"
        )
    }
}

impl std::error::Error for Exposed {}

impl File {
    /// Checks what the file says and puts it into `settings`.
    fn apply(self, settings: &mut Settings) -> Result<(), Mistake> {
        let server = self.server;
        if let Some(listen) = server.listen {
            settings.listen = check_listen(&listen)?;
        }
        if let Some(advertise) = server.advertise {
            settings.advertise = check_advertise(&advertise)?;
        }
        if let Some(proxy) = server.outbound_proxy {
            settings.outbound_proxy = check_outbound_proxy(&proxy)?;
        }
        if let Some(domains) = server.domains {
            settings.domains = domains
                .iter()
                .map(|it| check_at(it, parse_domain(it.get_ref())))
                .collect::<Result<_, _>>()?;
        }
        if let Some(shards) = server.shards {
            settings.shards = check_shards(&shards)?;
        }
        if let Some(pin) = server.pin {
            settings.pin = pin;
        }
        if let Some(profile) = server.profile {
            settings.profile = check_word(&profile, &PROFILES)?;
        }
        if let Some(auth) = server.auth {
            settings.auth = check_word(&auth, &AUTHS)?;
        }
        if let Some(sandbox) = server.sandbox {
            settings.sandbox = check_word(&sandbox, &SANDBOX_MODES)?;
        }
        let storage = self.storage;
        if let Some(data_dir) = storage.data_dir {
            if data_dir.get_ref().is_empty() {
                return Err(mistake(
                    &data_dir,
                    "a directory is expected, found nothing",
                    "write `data_dir = \"./comsipl-data\"`",
                ));
            }
            settings.data_dir = PathBuf::from(data_dir.into_inner());
        }
        if let Some(millis) = storage.sync_interval_ms {
            let millis = check_range(&millis, 10, 3_600_000, "milliseconds")?;
            settings.sync_interval = Duration::from_millis(millis);
        }
        if let Some(millis) = storage.recovery_max_ms {
            let most = RECOVERY_MAX.as_millis() as i64;
            settings.recovery_max = Duration::from_millis(check_range(&millis, 100, most, "milliseconds")?);
        }
        let records =
            |value: &Spanned<i64>| check_range(value, 64, RECORDS_MAX_LIMIT.into(), "records a partition");
        if let Some(value) = storage.presence_records_max {
            settings.presence_records_max = records(&value)? as u32;
        }
        if let Some(value) = storage.registered_records_max {
            settings.registered_records_max = records(&value)? as u32;
        }
        let Registration { min_expires, default_expires, max_expires, service_route } = self.registration;
        if let Some(routes) = service_route {
            settings.service_route = check_service_route(&routes)?;
        }
        for (expiries, policy) in [
            (Expiries { min_expires, default_expires, max_expires }, &mut settings.registration),
            (self.publication, &mut settings.publication),
            (self.subscription, &mut settings.subscription),
        ] {
            expiries.apply(policy)?;
        }
        if let Some(state) = self.presence.registered_state {
            settings.registered_state = check_word(&state, &REGISTERED_STATES)?;
        }
        if let Some(note) = self.presence.registered_note {
            settings.registered_note = check_note(&note)?;
        }
        if let Some(what) = self.presence.unregistered {
            settings.unregistered = check_word(&what, &UNREGISTERED)?;
        }
        if let Some(secs) = self.presence.offline_hold_s {
            settings.offline_hold = Duration::from_secs(check_range(&secs, 0, 3600, "seconds")?);
        }
        if let Some(millis) = self.presence.notify_interval_ms {
            let millis = check_range(&millis, 0, NOTIFY_INTERVAL_MS_MAX, "milliseconds")?;
            settings.notify_interval = Duration::from_millis(millis);
        }
        if let Some(servers) = &self.resolver.nameservers {
            settings.resolver.nameservers = servers.iter().map(check_nameserver).collect::<Result<_, _>>()?;
        }
        if let Some(millis) = self.resolver.timeout_ms {
            settings.resolver.timeout =
                Duration::from_millis(check_range(&millis, 10, 30_000, "milliseconds")?);
        }
        self.auth.apply(&mut settings.access)?;
        self.tls.apply(&mut settings.tls)?;
        self.websocket.apply(&mut settings.web_socket, &settings.tls)?;
        self.overload.apply(&mut settings.overload)?;
        let limits = self.limits;
        if let Some(count) = limits.auth_failures_per_minute {
            settings.auth_failures_per_minute =
                check_range(&count, 0, 1_000_000, "failures a minute")? as u32;
        }
        if let Some(count) = limits.auth_failures_per_source_minute {
            settings.auth_failures_per_source =
                check_range(&count, 0, 1_000_000, "failures a minute")? as u32;
        }
        if let Some(count) = limits.requests_per_source_s {
            settings.requests_per_source = check_range(&count, 0, 1_000_000, "requests a second")? as u32;
        }
        if let Some(mib) = limits.transaction_memory_mib {
            settings.transaction_memory = (check_range(&mib, 1, 1 << 20, "MiB a shard")? << 20) as usize;
        }
        if let Some(count) = limits.notifies_per_turn {
            settings.notifies_per_turn = check_range(&count, 1, 65_536, "NOTIFYs a turn")? as usize;
        }
        if let Some(micros) = limits.busy_wait_us {
            settings.busy_wait = Duration::from_micros(check_range(&micros, 0, 10_000, "microseconds")?);
        }
        if let Some(kib) = limits.socket_buffer_kib {
            settings.socket_buffer = (check_range(&kib, 64, 1 << 20, "KiB a socket")? << 10) as usize;
        }
        let streams = &mut settings.streams;
        for (value, limit, unit) in [
            (&limits.connections_max, &mut streams.connections_max, "connections"),
            (
                &limits.connections_per_source_max,
                &mut streams.connections_per_source_max,
                "connections a source",
            ),
        ] {
            if let Some(value) = value {
                *limit = check_range(value, 1, 1 << 24, unit)? as usize;
            }
        }
        if let Some(kib) = limits.stream_out_buffer_kib {
            // The longest message must fit.
            streams.out_buffer = (check_range(&kib, 128, 1 << 20, "KiB a connection")? << 10) as usize;
        }
        for (value, span, longest) in [
            (&limits.stream_idle_secs, &mut streams.idle, 604_800),
            (&limits.stream_message_secs, &mut streams.message, 600),
            (&limits.stream_handshake_secs, &mut streams.handshake, 600),
        ] {
            if let Some(value) = value {
                *span = Duration::from_secs(check_range(value, 1, longest, "seconds")?);
            }
        }
        Ok(())
    }
}

impl Expiries {
    /// Checks one section of expiries together with the values it leaves as they are.
    fn apply(self, policy: &mut ExpiryPolicy) -> Result<(), Mistake> {
        let seconds =
            |value: &Spanned<i64>| check_range(value, 1, i64::from(u32::MAX), "seconds").map(|it| it as u32);
        let mut new = *policy;
        if let Some(value) = &self.min_expires {
            new.min_secs = seconds(value)?;
        }
        if let Some(value) = &self.default_expires {
            new.default_secs = seconds(value)?;
        }
        if let Some(value) = &self.max_expires {
            new.max_secs = seconds(value)?;
        }
        let ExpiryPolicy { min_secs, default_secs, max_secs } = new;
        let order = "min_expires <= default_expires <= max_expires is expected";
        let written = |values: [&Option<Spanned<i64>>; 2]| {
            values.into_iter().flatten().next().map_or(0..0, Spanned::span)
        };
        if min_secs > default_secs {
            return Err(Mistake {
                span: written([&self.min_expires, &self.default_expires]),
                what: format!(
                    "{order}, found min_expires {min_secs} above default_expires {default_secs} (seconds)"
                ),
                help: "lower min_expires or raise default_expires; one that is not written has its default"
                    .to_owned(),
            });
        }
        if default_secs > max_secs {
            return Err(Mistake {
                span: written([&self.max_expires, &self.default_expires]),
                what: format!(
                    "{order}, found default_expires {default_secs} above max_expires {max_secs} (seconds)"
                ),
                help: "raise max_expires or lower default_expires; one that is not written has its default"
                    .to_owned(),
            });
        }
        *policy = new;
        Ok(())
    }
}

/// A domain as `--domain` and the file name it: a host, in lower case.
///
/// # Errors
/// What is expected instead.
pub fn parse_domain(text: &str) -> Result<String, &'static str> {
    let domain = text.to_ascii_lowercase();
    if is_host(&domain) { Ok(domain) } else { Err(DOMAIN_EXPECTED) }
}

/// The first address that stands in the list for the second time; `None`: all differ.
#[must_use]
pub fn first_duplicate(listen: &[Listen]) -> Option<Listen> {
    // Port 0 may be asked for more than once: the kernel chooses different ports.
    let repeated = |(index, it): &(usize, &Listen)| it.address.port() != 0 && listen[..*index].contains(*it);
    listen.iter().enumerate().find(repeated).map(|(_, it)| *it)
}

fn check_listen(list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<Listen>, Mistake> {
    let values = list.get_ref();
    if values.is_empty() || values.len() > LISTENERS_MAX {
        return Err(mistake(
            list,
            format!("1 to {LISTENERS_MAX} addresses are expected, found {}", values.len()),
            "write for example `listen = [\"udp:127.0.0.1:5060\"]`",
        ));
    }
    let mut listen = Vec::new();
    for value in values {
        let address =
            parse_listen(value.get_ref()).map_err(|error| mistake(value, error.to_string(), error.help()))?;
        listen.push(address);
        if first_duplicate(&listen).is_some() {
            return Err(mistake(value, format!("{address} stands here twice"), "remove one of them"));
        }
    }
    Ok(listen)
}

fn check_advertise(value: &Spanned<String>) -> Result<Option<String>, Mistake> {
    let text = value.get_ref();
    if text.is_empty() {
        return Ok(None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text.as_str(), None),
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    if is_host(&host.to_ascii_lowercase()) && port_ok {
        Ok(Some(text.clone()))
    } else {
        Err(mistake(
            value,
            format!("`host` or `host:port` is expected, found \"{text}\""),
            "write a host name, an IPv4 address or an IPv6 address in brackets; or \"\" for the address that phones \
             have reached us on",
        ))
    }
}

fn check_nameserver(value: &Spanned<String>) -> Result<SocketAddr, Mistake> {
    let text = value.get_ref();
    let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
    address.ok().filter(|it| it.port() != 0 && !it.ip().is_unspecified()).ok_or_else(|| {
        mistake(
            value,
            format!("the address of a name server is expected, found \"{text}\""),
            "write for example `nameservers = [\"127.0.0.1:5353\"]`; or [] for those of the system",
        )
    })
}

fn check_outbound_proxy(value: &Spanned<String>) -> Result<Option<OutboundProxy>, Mistake> {
    match value.get_ref().as_str() {
        "" => Ok(None),
        text => {
            let proxy = parse_outbound_proxy(text);
            proxy.map(Some).map_err(|error| mistake(value, error.to_string(), error.help()))
        }
    }
}

/// `<sip:…;lr>, <sip:…;lr>` (RFC 3608 §6.3: "such route elements MUST include the loose-routing indicator parameter ";lr"").
fn check_service_route(value: &Spanned<String>) -> Result<String, Mistake> {
    let text = value.get_ref();
    let is_route = |route: &str| {
        let uri = route.trim().strip_prefix('<').and_then(|route| route.strip_suffix('>'));
        let uri = uri.and_then(|uri| comsipl_core::Uri::parse(uri.as_bytes()).ok());
        uri.is_some_and(|uri| uri.is_sip() && uri.lr())
    };
    if text.is_empty() || text.split(',').all(is_route) {
        return Ok(text.clone());
    }
    Err(mistake(
        value,
        format!("routes in angle brackets, each with `lr`, are expected, found \"{text}\""),
        "write for example `service_route = \"<sip:proxy.example.com;lr>\"`; or \"\" for none",
    ))
}

fn check_shards(value: &Spanned<toml::Value>) -> Result<Option<usize>, Mistake> {
    match value.get_ref() {
        toml::Value::String(word) if word == "auto" => Ok(None),
        toml::Value::Integer(count) if (1..=SHARDS_MAX as i64).contains(count) => Ok(Some(*count as usize)),
        other => Err(mistake(
            value,
            format!("a whole number from 1 to {SHARDS_MAX}, or \"auto\", is expected, found {other}"),
            "write `shards = \"auto\"` for one shard a core",
        )),
    }
}

/// Looks up one of a few words.
fn check_word<T: Copy>(value: &Spanned<String>, words: &[(&str, T)]) -> Result<T, Mistake> {
    let text = value.get_ref();
    words.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let expected: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        mistake(
            value,
            format!("{} is expected, found \"{text}\"", expected.join(" or ")),
            "deploy/config/comsipl.toml says what each of them means",
        )
    })
}

/// A note for people.
fn check_note(value: &Spanned<String>) -> Result<String, Mistake> {
    let text = value.get_ref();
    if text.len() <= NOTE_LEN_MAX {
        return Ok(text.clone());
    }
    Err(mistake(
        value,
        format!("a note of at most {NOTE_LEN_MAX} bytes is expected, this one has {}", text.len()),
        "it goes out with every document about a registered user, so a few words are best",
    ))
}

/// A whole number within bounds.
fn check_range(value: &Spanned<i64>, min: i64, max: i64, unit: &str) -> Result<u64, Mistake> {
    let number = *value.get_ref();
    if (min..=max).contains(&number) {
        Ok(number.unsigned_abs())
    } else {
        let nearest = number.clamp(min, max);
        Err(mistake(
            value,
            format!("{min} to {max} {unit} is expected, found {number}"),
            format!("the nearest possible value is {nearest}"),
        ))
    }
}

fn check_at<T>(value: &Spanned<String>, result: Result<T, &'static str>) -> Result<T, Mistake> {
    result.map_err(|expected| {
        mistake(value, format!("{expected} is expected, found \"{}\"", value.get_ref()), DOMAIN_HELP)
    })
}

fn mistake<T>(value: &Spanned<T>, what: impl Into<String>, help: impl Into<String>) -> Mistake {
    Mistake { span: value.span(), what: what.into(), help: help.into() }
}

/// Whether `text`, in lower case, may be a host: a name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label_ok)
}

const DOMAIN_EXPECTED: &str = "a host name or an IP address";
const DOMAIN_HELP: &str =
    "write only what stands behind the @ of your users' addresses: no user, no port, no scheme";

/// How the profiles are written.
const PROFILES: [(&str, Profile); 2] = [("rfc", Profile::Rfc), ("comsipl", Profile::Comsipl)];
/// How the ways of authentication are written.
const AUTHS: [(&str, Auth); 3] = [("unset", Auth::Unset), ("none", Auth::None), ("digest", Auth::Digest)];
/// How the kinds of sandbox are written.
const SANDBOX_MODES: [(&str, SandboxMode); 3] =
    [("on", SandboxMode::On), ("required", SandboxMode::Required), ("off", SandboxMode::Off)];
/// How the states of a registered user are written.
const REGISTERED_STATES: [(&str, RegisteredState); 2] =
    [("closed", RegisteredState::Closed), ("open", RegisteredState::Open)];
/// How the meanings of a registration's end are written.
const UNREGISTERED: [(&str, Unregistered); 2] =
    [("offline", Unregistered::Offline), ("keep", Unregistered::Keep)];
/// Longest note in bytes: it is in every document about a registered user.
const NOTE_LEN_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_changes_nothing() {
        assert_eq!(read("").unwrap(), Settings::default());
    }

    #[test]
    fn what_is_written_is_read() {
        let settings = read(
            r#"
            [server]
            listen = ["udp:0.0.0.0:5060", "[::1]:0", "udp:[::1]:0"]
            advertise = "sip.example.net:5070"
            domains = ["Example.NET", "10.0.0.27"]
            shards = 3
            pin = false
            profile = "comsipl"
            auth = "none"
            sandbox = "required"
            [storage]
            data_dir = "/var/lib/comsipl"
            sync_interval_ms = 250
            recovery_max_ms = 20000
            presence_records_max = 4096
            registered_records_max = 8192
            [registration]
            min_expires = 1
            [subscription]
            default_expires = 600
            max_expires = 900
            [presence]
            registered_state = "open"
            registered_note = "On the phone"
            unregistered = "keep"
            offline_hold_s = 7
            [limits]
            transaction_memory_mib = 2
            notifies_per_turn = 10
            busy_wait_us = 7
            socket_buffer_kib = 128
            "#,
        )
        .unwrap();
        let expected = Settings {
            listen: ["0.0.0.0:5060", "[::1]:0", "[::1]:0"].map(|it| parse_listen(it).unwrap()).to_vec(),
            advertise: Some("sip.example.net:5070".to_owned()),
            data_dir: PathBuf::from("/var/lib/comsipl"),
            shards: Some(3),
            pin: false,
            domains: vec!["example.net".to_owned(), "10.0.0.27".to_owned()],
            auth: Auth::None,
            sandbox: SandboxMode::Required,
            profile: Profile::Comsipl,
            registered_state: RegisteredState::Open,
            registered_note: "On the phone".to_owned(),
            unregistered: Unregistered::Keep,
            offline_hold: Duration::from_secs(7),
            registration: ExpiryPolicy { min_secs: 1, default_secs: 3600, max_secs: 7200 },
            subscription: ExpiryPolicy { min_secs: 60, default_secs: 600, max_secs: 900 },
            sync_interval: Duration::from_millis(250),
            recovery_max: Duration::from_secs(20),
            presence_records_max: 4096,
            registered_records_max: 8192,
            transaction_memory: 2 << 20,
            notifies_per_turn: 10,
            busy_wait: Duration::from_micros(7),
            socket_buffer: 128 << 10,
            ..Settings::default()
        };
        assert_eq!(settings, expected);
        assert_eq!(read(&to_toml(&expected)).unwrap(), expected, "printed settings read back");
    }

    #[test]
    fn each_mistake_is_shown_where_it_stands() {
        for (text, under_caret, what) in [
            ("[server]\nlisten = [\"udp:127.0.0.1\"]", "\"udp:127.0.0.1\"", "port"),
            ("[server]\nlisten = [\"sctp:127.0.0.1:5060\"]", "\"sctp:127.0.0.1:5060\"", "udp"),
            ("[server]\nlisten = [\"localhost:5060\"]", "\"localhost:5060\"", "IP address"),
            ("[server]\nlisten = []", "[]", "1 to 16 addresses"),
            ("[server]\nlisten = [\"[::1]:5060\", \"udp:[::1]:5060\"]", "\"udp:[::1]:5060\"", "twice"),
            ("[server]\nshards = 65", "65", "1 to 64"),
            ("[server]\nshards = 0", "0", "\"auto\""),
            ("[server]\nprofile = \"rcf\"", "\"rcf\"", "\"rfc\" or \"comsipl\""),
            ("[server]\nauth = \"\"", "\"\"", "\"none\""),
            ("[server]\nsandbox = \"yes\"", "\"yes\"", "\"required\""),
            ("[server]\ndomains = [\"sip:example.net\"]", "\"sip:example.net\"", "host name"),
            ("[server]\nadvertise = \"a:b:c\"", "\"a:b:c\"", "`host:port`"),
            ("[server]\nadvertise = \"host:0\"", "\"host:0\"", "`host:port`"),
            ("[server]\npin = 1", "1", "expected a boolean"),
            ("[server]\nlistening = 1", "listening", "unknown field `listening`"),
            ("[servers]", "servers", "unknown field `servers`"),
            ("[storage]\ndata_dir = \"\"", "\"\"", "a directory"),
            ("[storage]\nsync_interval_ms = 0", "0", "10 to 3600000"),
            ("[storage]\nrecovery_max_ms = 30001", "30001", "100 to 30000"),
            ("[registration]\nmin_expires = 0", "0", "1 to 4294967295 seconds"),
            ("[registration]\nmin_expires = -1", "-1", "found -1"),
            ("[publication]\nmin_expires = 3601", "3601", "default_expires 3600"),
            ("[subscription]\nmax_expires = 3599", "3599", "above max_expires 3599"),
            ("[subscription]\ndefault_expires = 7201", "7201", "above max_expires 7200"),
            ("[limits]\nnotifies_per_turn = \"many\"", "\"many\"", "expected i64"),
            ("[limits]\nnotifies_per_turn = 0", "0", "1 to 65536"),
            ("[limits]\nbusy_wait_us = -1", "-1", "0 to 10000"),
        ] {
            let mistake = read(text).expect_err(text);
            assert_eq!(&text[mistake.span.clone()], under_caret, "{text}");
            assert!(mistake.what.contains(what), "{text}: {}", mistake.what);
            assert!(!mistake.help.is_empty());
        }
    }

    #[test]
    fn a_wrong_file_changes_nothing() {
        let mut settings = Settings::default();
        read_text("[server]\npin = false\nshards = 99", &mut settings).unwrap_err();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn the_shipped_file_says_the_defaults_and_has_every_key() {
        let text = include_str!("../../deploy/config/comsipl.toml");
        assert_eq!(read(text).unwrap(), Settings::default());
        let shipped: toml::Table = toml::from_str(text).unwrap();
        let all: toml::Table = toml::from_str(&to_toml(&Settings::default())).unwrap();
        assert_eq!(shipped, all, "the same keys with the same values");
    }

    #[test]
    fn only_loopback_is_served_without_the_word() {
        let mut settings = Settings::default();
        for (listen, exposed) in [
            ("127.0.0.1:0", false),
            ("127.9.9.9:0", false),
            ("[::1]:0", false),
            ("0.0.0.0:0", true),
            ("[::]:0", true),
        ] {
            settings.auth = Auth::Unset;
            settings.listen = ["127.0.0.1:5060", listen].map(|it| parse_listen(it).unwrap()).to_vec();
            assert_eq!(check_exposure(&settings).is_err(), exposed, "{listen}");
            for auth in [Auth::None, Auth::Digest] {
                settings.auth = auth;
                assert_eq!(check_exposure(&settings), Ok(()));
            }
        }
    }

    fn read(text: &str) -> Result<Settings, Mistake> {
        let mut settings = Settings::default();
        read_text(text, &mut settings).map(|()| settings)
    }
}

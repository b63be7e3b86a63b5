//! One shard over files of its own, driven by hand.

use std::sync::Arc;
use std::time::Duration;

use comsipl_core::{ConnectionId, Flow, HashKey, Listen, Mono, Now, Transport, UnixMillis};
use tempfile::TempDir;

use crate::access::{Access, Gate, IpRange};
use crate::node::{Coming, NodeFiles};
use crate::overload::Levels;
use crate::settings::{Auth, OverloadSettings, Settings};
use crate::shard::{Shard, ShardStart};

/// The shard, its clocks and its files.
pub(crate) struct Engine {
    pub(crate) shard: Shard,
    pub(crate) now: Now,
    settings: Settings,
    dir: TempDir,
}

impl Engine {
    /// A shard over new files that listens by UDP and TCP.
    pub(crate) fn new() -> Self {
        Self::with(Auth::default(), &[])
    }

    /// The same where proxies are believed that send from these addresses.
    pub(crate) fn trusting(proxies: &[IpRange]) -> Self {
        Self::with(Auth::default(), proxies)
    }

    /// The same where nobody need say who he is, and so whoever is told must prove that he is there.
    pub(crate) fn open_to_all() -> Self {
        Self::with(Auth::None, &[])
    }

    fn with(auth: Auth, proxies: &[IpRange]) -> Self {
        let listen = [Transport::Udp, Transport::Tcp];
        let listen =
            listen.map(|transport| Listen { transport, address: "198.51.100.1:5060".parse().unwrap() });
        let dir = TempDir::new().unwrap();
        let settings = Settings {
            data_dir: dir.path().to_owned(),
            presence_records_max: 512,
            registered_records_max: 512,
            listen: listen.to_vec(),
            overload: OverloadSettings::EXACT,
            auth,
            access: Access { trusted: proxies.to_vec(), ..Access::default() },
            ..Settings::default()
        };
        let now = Now { mono: Mono(0), wall: UnixMillis(1_700_000_000_000) };
        Self { shard: open(&settings, now), now, settings, dir }
    }

    /// The process ended, and another one over its files. `before` has the shard as it was, to leave the files as it likes.
    pub(crate) fn restart(self, before: impl FnOnce(&mut Shard)) -> Self {
        let Self { mut shard, now, settings, dir } = self;
        before(&mut shard);
        drop(shard);
        let now = Now { mono: Mono(0), ..now };
        Self { shard: open(&settings, now), now, settings, dir }
    }

    /// Brings a message, written with `\n` for its line ends; tells what the turn sends.
    pub(crate) fn deliver(&mut self, flow: Flow, message: &str) -> Vec<String> {
        self.take(flow, message);
        self.turn()
    }

    /// Brings a message amid a turn.
    pub(crate) fn take(&mut self, flow: Flow, message: &str) {
        self.shard.on_datagram(self.now, flow, message.replace('\n', "\r\n").as_bytes());
    }

    /// Lets time pass and ends a turn; tells what it sends.
    pub(crate) fn pass(&mut self, span: Duration) -> Vec<String> {
        self.now.mono = self.now.mono + span;
        self.now.wall.0 += u64::try_from(span.as_millis()).unwrap();
        self.turn()
    }

    /// Ends a turn; tells what it sends.
    pub(crate) fn turn(&mut self) -> Vec<String> {
        self.shard.on_turn_end(self.now);
        self.sent()
    }

    /// What is sent so far in a turn.
    pub(crate) fn sent(&mut self) -> Vec<String> {
        let shard = &mut self.shard;
        let text = |message| {
            let parts = shard.outbox.parts(message, &shard.bodies).concat();
            String::from_utf8(parts).unwrap()
        };
        let sent = shard.outbox.messages().iter().map(text).collect();
        shard.outbox.clear(&mut shard.bodies);
        sent
    }
}

fn open(settings: &Settings, now: Now) -> Shard {
    let mut files = NodeFiles::open(settings, 1, Coming::Alone).unwrap();
    let start = ShardStart {
        connections: Arc::default(),
        index: 0,
        shards: 1,
        listeners: settings.listen.clone(),
        settings: Arc::new(settings.clone()),
        files: files.take_shard().unwrap(),
        seed: [7; 32],
        gate: Arc::new(Gate::new(settings, HashKey(files.hash_key()), [9; 32])),
        levels: Arc::new(Levels::new(1, now.wall)),
        start: 1,
        last_alive_ms: files.recovered().presence.last_heartbeat_ms,
        owes_all: false,
    };
    Shard::open(start, now)
}

/// A phone's datagrams.
pub(crate) fn by_udp() -> Flow {
    Flow::udp(0, None, "192.0.2.7:5060".parse().unwrap())
}

/// A phone's connection; the `n`th.
pub(crate) fn by_tcp(n: u32) -> Flow {
    let connection = Some(ConnectionId::new(0, n, 1));
    Flow { transport: Transport::Tcp, listener: 1, connection, ..by_udp() }
}

/// A SUBSCRIBE of bob to alice's presence for an hour, by the transport of that name.
pub(crate) fn subscribe(transport: &str) -> String {
    format!(
        "SUBSCRIBE sip:alice@example.com SIP/2.0\nVia: SIP/2.0/{transport} 192.0.2.7:5060;branch=z9hG4bKs1\n\
         Max-Forwards: 70\nFrom: <sip:bob@example.com>;tag=b\nTo: <sip:alice@example.com>\nCall-ID: c1\n\
         CSeq: 1 SUBSCRIBE\nContact: <sip:bob@192.0.2.7:5060;transport={transport}>\nEvent: presence\n\
         Expires: 3600\nContent-Length: 0\n\n"
    )
}

/// A PUBLISH of alice's: an `n`th publication with the tuple `n` and that basic state.
pub(crate) fn publish(n: u32, basic: &str) -> String {
    let body = format!(
        "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:alice@example.com\">\
         <tuple id=\"t{n}\"><status><basic>{basic}</basic></status></tuple></presence>"
    );
    format!(
        "PUBLISH sip:alice@example.com SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.8:5060;branch=z9hG4bKp{n}\n\
         Max-Forwards: 70\nFrom: <sip:alice@example.com>;tag=a\nTo: <sip:alice@example.com>\nCall-ID: p{n}\n\
         CSeq: 1 PUBLISH\nEvent: presence\nExpires: 3600\nContent-Type: application/pidf+xml\nContent-Length: {}\n\n{body}",
        body.len()
    )
}

/// The value of a message's header field.
pub(crate) fn field<'m>(message: &'m str, name: &str) -> &'m str {
    let of_line = |line: &'m str| line.strip_prefix(name)?.strip_prefix(": ");
    message.split("\r\n").find_map(of_line).unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// The 200 to a NOTIFY.
pub(crate) fn ok(notify: &str) -> String {
    let copied =
        |line: &&str| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|it| line.starts_with(it));
    let copied: Vec<&str> = notify.split("\r\n").filter(copied).collect();
    format!("SIP/2.0 200 OK\n{}\nContent-Length: 0\n\n", copied.join("\n"))
}

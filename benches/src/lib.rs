//! What the benches share: one shard of the real engine, its sockets replaced by memory.
//!
//! The same engine, the same files (on a memory file system where there is one), the same messages; only the kernel's
//! sockets are left out, so that a figure says what our own code costs.

pub mod mmsg;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use comsipl_core::{Flow, Mono, Now, Transport, UnixMillis};
use comsipl_shards::node::NodeFiles;
use comsipl_shards::settings::Settings;
use comsipl_shards::shard::{Shard, ShardStart};
use tempfile::TempDir;

/// The address of the shard under test.
pub const SERVER: &str = "127.0.0.1:5060";

/// One shard, driven by hand.
pub struct OneShard {
    /// The engine.
    pub shard: Shard,
    now: Now,
    /// Answers to the NOTIFYs of the last turn: arena and where each lies and comes from.
    answers: Vec<u8>,
    waiting: Vec<(Flow, Range<usize>)>,
    /// NOTIFYs sent so far.
    pub notifies: u64,
    _files: NodeFiles,
    _dir: TempDir,
}

impl OneShard {
    /// A shard over new files with room for `records` records a partition.
    ///
    /// # Panics
    /// If the files cannot be made.
    #[must_use]
    pub fn new(records: u32) -> Self {
        Self::one_of(1, records)
    }

    /// The first of `shards` shards, the others missing; see [`Self::new`].
    ///
    /// # Panics
    /// If the files cannot be made.
    #[must_use]
    pub fn one_of(shards: usize, records: u32) -> Self {
        let dir =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a place for files");
        let settings = Settings {
            data_dir: dir.path().to_owned(),
            presence_records_max: records,
            registered_records_max: records,
            ..Settings::default()
        };
        let mut files = NodeFiles::open(&settings, shards).expect("new files");
        let now = Now { mono: Mono(0), wall: UnixMillis(1_700_000_000_000) };
        let start = ShardStart {
            index: 0,
            shards,
            listeners: settings.listen.clone(),
            settings: Arc::new(settings),
            files: files.take_shard().expect("one shard"),
            seed: [7; 32],
            last_alive_ms: 0,
        };
        Self {
            shard: Shard::open(start, now),
            now,
            answers: Vec::new(),
            waiting: Vec::new(),
            notifies: 0,
            _files: files,
            _dir: dir,
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, millis: u64) {
        self.now.mono = Mono(self.now.mono.0 + millis * 1000);
        self.now.wall = UnixMillis(self.now.wall.0 + millis);
    }

    /// The clocks.
    #[must_use]
    pub const fn now(&self) -> Now {
        self.now
    }

    /// Brings a datagram from a phone.
    pub fn deliver(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.shard.on_datagram(self.now, flow(from), datagram);
    }

    /// Ends the turn: timers and fan-out run, then the outbox is taken. NOTIFYs wait for [`Self::answer`].
    /// Returns how many messages left.
    pub fn end_turn(&mut self) -> usize {
        self.shard.on_turn_end(self.now);
        for message in self.shard.outbox.messages() {
            let head = self.shard.outbox.head(message);
            if head.starts_with(b"NOTIFY ") {
                self.notifies += 1;
                let start = self.answers.len();
                push_answer(head, &mut self.answers);
                self.waiting.push((message.flow, start..self.answers.len()));
            }
        }
        let sent = self.shard.outbox.len();
        self.shard.outbox.clear(&mut self.shard.bodies);
        sent
    }

    /// Answers every NOTIFY that was sent, as phones do; says how many.
    pub fn answer(&mut self) -> usize {
        let count = self.waiting.len();
        for (flow, range) in self.waiting.drain(..) {
            self.shard.on_datagram(self.now, flow, &self.answers[range]);
        }
        self.answers.clear();
        count
    }

    /// Turns and answers until nothing is left to do now.
    pub fn settle(&mut self) {
        loop {
            let sent = self.end_turn();
            let answered = self.answer();
            if sent == 0 && answered == 0 && self.shard.deadline() != Some(Mono(0)) {
                return;
            }
        }
    }

    /// Entity tag in the newest 200 of the outbox; for a PUBLISH that was just delivered.
    #[must_use]
    pub fn newest_entity_tag(&self) -> Option<String> {
        let head = std::str::from_utf8(self.shard.outbox.newest_head()?).ok()?;
        head.split("\r\n").find_map(|line| line.strip_prefix("SIP-ETag: ")).map(str::to_owned)
    }

    /// To tag in the newest answer of the outbox; for a SUBSCRIBE that was just delivered (before its NOTIFY: the first).
    #[must_use]
    pub fn first_to_tag(&self) -> Option<String> {
        let message = self.shard.outbox.messages().first()?;
        let head = std::str::from_utf8(self.shard.outbox.head(message)).ok()?;
        let to = head.split("\r\n").find(|line| line.starts_with("To: "))?;
        to.split(";tag=").nth(1).map(str::to_owned)
    }
}

/// The flow of a phone.
#[must_use]
pub const fn flow(peer: SocketAddr) -> Flow {
    Flow { transport: Transport::Udp, listener: 0, local_ip: None, peer }
}

/// The address of phone number `n`.
#[must_use]
pub fn phone(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, (n >> 14) as u8, 1 + (n >> 20) as u8], 10_000 + (n & 0x3fff) as u16))
}

/// 200 to a NOTIFY.
fn push_answer(head: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"SIP/2.0 200 OK\r\n");
    for line in head.split_inclusive(|&b| b == b'\n') {
        let kept = [&b"Via:"[..], b"From:", b"To:", b"Call-ID:", b"CSeq:"];
        if kept.iter().any(|name| line.starts_with(name)) {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// A REGISTER of phone `n` as a Linphone sends it.
#[must_use]
pub fn register(n: usize, cseq: u32) -> Vec<u8> {
    let at = phone(n);
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK.reg{n}x{cseq};rport\r\n\
         From: <sip:user{n}@example.com>;tag=rT{n}\r\nTo: sip:user{n}@example.com\r\nCSeq: {cseq} REGISTER\r\n\
         Call-ID: reg-{n}\r\nMax-Forwards: 70\r\nSupported: replaces, outbound, gruu, path, record-aware\r\n\
         Accept: application/sdp, text/plain, application/vnd.gsma.rcs-ft-http+xml\r\n\
         Contact: <sip:user{n}@{at};transport=udp>;+sip.instance=\"<urn:uuid:8f2c6b1e-0000-4000-8000-{n:012}>\"\r\n\
         Expires: 3600\r\nUser-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A SUBSCRIBE of watcher `n` to `presentity`; `to_tag` for a refresh.
#[must_use]
pub fn subscribe(n: usize, presentity: usize, cseq: u32, to_tag: Option<&str>) -> Vec<u8> {
    let at = phone(n);
    let tag = to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
    let uri = if to_tag.is_some() { SERVER.to_owned() } else { format!("user{presentity}@example.com") };
    format!(
        "SUBSCRIBE sip:{uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK.s{n}x{presentity}x{cseq};rport\r\n\
         From: <sip:watcher{n}@example.com>;tag=wT{n}\r\nTo: <sip:user{presentity}@example.com>{tag}\r\n\
         CSeq: {cseq} SUBSCRIBE\r\nCall-ID: c{n}x{presentity}\r\nMax-Forwards: 70\r\n\
         Supported: replaces, outbound, gruu, path, record-aware\r\nEvent: presence\r\nExpires: 3600\r\n\
         Accept: application/pidf+xml\r\n\
         Contact: <sip:watcher{n}@{at};transport=udp>;+sip.instance=\"<urn:uuid:8f2c6b1e-0000-4000-8000-{n:012}>\"\r\n\
         User-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A PUBLISH of `presentity` that says `note`; `if_match` for all but the first.
#[must_use]
pub fn publish(presentity: usize, cseq: u32, if_match: Option<&str>, note: Option<&str>) -> Vec<u8> {
    let at = phone(presentity);
    let condition = if_match.map(|tag| format!("SIP-If-Match: {tag}\r\n")).unwrap_or_default();
    let body = note.map(|note| document(presentity, note)).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/pidf+xml\r\n" };
    format!(
        "PUBLISH sip:user{presentity}@example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP {at};branch=z9hG4bK.p{presentity}x{cseq};rport\r\n\
         From: <sip:user{presentity}@example.com>;tag=pT{presentity}\r\nTo: sip:user{presentity}@example.com\r\n\
         CSeq: {cseq} PUBLISH\r\nCall-ID: p{presentity}\r\nMax-Forwards: 70\r\n\
         Supported: replaces, outbound, gruu, path, record-aware\r\nEvent: presence\r\n{condition}Expires: 3600\r\n\
         {kind}User-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A document as a Linphone writes it.
#[must_use]
pub fn document(presentity: usize, note: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <presence xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
         xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
         xmlns:pidfonline=\"http://www.linphone.org/xsds/pidfonline.xsd\" \
         entity=\"sip:user{presentity}@example.com\" xmlns=\"urn:ietf:params:xml:ns:pidf\">\n \
         <tuple id=\"n5z2og\">\n  <status>\n   <basic>open</basic>\n   <pidfonline:online/>\n  </status>\n  \
         <contact priority=\"0.8\">sip:user{presentity}@example.com</contact>\n  <note>{note}</note>\n  \
         <timestamp>2023-12-17T16:45:04Z</timestamp>\n </tuple>\n</presence>\n"
    )
}

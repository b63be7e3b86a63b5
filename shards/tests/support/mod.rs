//! A node with TLS and WebSocket listeners, and the messages of phones.

pub mod ca;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use comsipl_shards::metrics::{NetCounters, NetFigures};
use comsipl_shards::node::{Node, NodeFailure, Reloader, Running, Stopper};
use comsipl_shards::settings::{Auth, IdentityFiles, Listen, Settings};
use tempfile::TempDir;

use ca::{Ca, Identity};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A node that is waited for, as the program does, and what it needs.
pub struct Server {
    pub ca: Ca,
    pub folder: TempDir,
    pub addresses: Vec<Listen>,
    pub reloader: Reloader,
    counters: Vec<std::sync::Arc<crossbeam::utils::CachePadded<NetCounters>>>,
    stopper: Stopper,
    waiting: JoinHandle<Result<(), NodeFailure>>,
}

impl Server {
    /// Listens on these transports of a loopback address, with a certificate for it and for `sip.example`.
    pub fn start(transports: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
        let root = folder.path().join("ca.pem");
        std::fs::write(&root, &ca.pem).unwrap();
        let (certificate, key) = ca.issue(&NAMES).write(folder.path(), "server");
        let listen = |it: &&str| comsipl_shards::config::parse_listen(&format!("{it}:127.0.0.1:0")).unwrap();
        let mut settings = Settings {
            listen: transports.iter().map(listen).collect(),
            data_dir: folder.path().join("data"),
            shards: Some(2),
            auth: Auth::None,
            ..Settings::default()
        };
        settings.tls.identities = vec![IdentityFiles { certificate, key }];
        settings.tls.client_ca = Some(root.clone());
        settings.tls.trust = Some(root);
        change(&mut settings);
        let node: Running = Node::open(settings).unwrap().start().unwrap();
        Self {
            ca,
            folder,
            addresses: node.addresses().to_vec(),
            reloader: node.reloader(),
            counters: node.counters().to_vec(),
            stopper: node.stopper(),
            waiting: std::thread::spawn(move || node.wait().map(drop)),
        }
    }

    /// A connection to a listener.
    pub fn connect(&self, listener: usize) -> TcpStream {
        let stream = TcpStream::connect(self.addresses[listener].address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Puts another certificate into the place of the server's.
    pub fn replace_certificate(&self, identity: &Identity) {
        let (certificate, key) = identity.write(self.folder.path(), "next");
        std::fs::rename(certificate, self.folder.path().join("server.pem")).unwrap();
        std::fs::rename(key, self.folder.path().join("server.key")).unwrap();
    }

    /// The sum over all shards.
    pub fn figures(&self) -> NetFigures {
        let each = self.counters.iter().map(|it| NetCounters::snapshot(it));
        each.fold(NetFigures::default(), NetFigures::plus)
    }

    pub fn stop(self) {
        self.stopper.stop();
        self.waiting.join().unwrap().unwrap();
    }
}

/// The hosts of the server's certificate.
pub const NAMES: [&str; 2] = ["sip.example", "127.0.0.1"];

/// Asks again until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::yield_now();
    }
}

/// What messages of a phone say of it.
#[derive(Clone, Copy)]
pub struct Phone {
    /// The token of its Via.
    pub transport: &'static str,
    /// The host and port of its Via and Contact.
    pub host: &'static str,
    /// Parameters of its Contact.
    pub contact_params: &'static str,
    /// Of its messages, with a body or without.
    pub content_length: bool,
}

impl Phone {
    pub fn register(&self, user: &str, cseq: u32) -> String {
        self.request(
            "REGISTER",
            "sip:example.com",
            user,
            cseq,
            &format!("{}Expires: 600\r\n", self.contact(user)),
        )
    }

    pub fn subscribe(&self, user: &str, cseq: u32) -> String {
        let more = format!("{}Event: presence\r\nExpires: 600\r\n", self.contact(user));
        self.request("SUBSCRIBE", &format!("sip:{user}@example.com"), user, cseq, &more)
    }

    /// 200 to a request.
    pub fn answer(&self, request: &str) -> String {
        let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let lines = request.split("\r\n").filter(|line| copied.iter().any(|name| line.starts_with(name)));
        let mut answer = "SIP/2.0 200 OK\r\n".to_owned();
        for line in lines {
            answer.push_str(line);
            answer.push_str("\r\n");
        }
        answer + "Content-Length: 0\r\n\r\n"
    }

    fn contact(&self, user: &str) -> String {
        format!("Contact: <sip:{user}@{}{}>\r\n", self.host, self.contact_params)
    }

    fn request(&self, method: &str, uri: &str, user: &str, cseq: u32, more: &str) -> String {
        let Self { transport, host, content_length, .. } = self;
        let length = if *content_length { "Content-Length: 0\r\n" } else { "" };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {host};branch=z9hG4bK-{method}-{user}-{cseq}\r\n\
             From: <sip:{user}@example.com>;tag=1\r\nTo: <sip:{user}@example.com>\r\nCall-ID: {method}-{user}\r\n\
             CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n{more}{length}\r\n"
        )
    }
}

/// Reads one message of a stream, which begins with `start`.
pub fn expect(stream: &mut impl Read, start: &str) -> String {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            break at + 4;
        }
        read_byte(stream, &mut bytes);
    };
    let head = String::from_utf8(bytes.clone()).unwrap();
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.expect("a message on a stream has its length").parse().unwrap();
    while bytes.len() < head_len + length {
        read_byte(stream, &mut bytes);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with(start), "{start} is expected, found {text}");
    text
}

fn read_byte(stream: &mut impl Read, bytes: &mut Vec<u8>) {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    bytes.push(byte[0]);
}

/// Whether a connection ends, by an end or a reset.
pub fn ends(stream: &mut impl Read) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

/// The address of a listener, for those who need no connection.
pub fn address_of(server: &Server, listener: usize) -> SocketAddr {
    server.addresses[listener].address
}

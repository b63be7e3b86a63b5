//! SIP over TCP, by real sockets: framing, connections between shards, and peers that do not behave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use comsipl_shards::metrics::{NetCounters, NetFigures};
use comsipl_shards::node::{Node, Running};
use comsipl_shards::settings::{Auth, Settings, StreamLimits};
use tempfile::TempDir;

/// RFC 3261 §18.3: "In the case of stream-oriented transports such as TCP, the Content-Length header field indicates the size
/// of the body."
#[test]
fn messages_are_found_however_the_stream_is_cut() {
    let server = Server::start(4, StreamLimits::default());
    for size in [1, 2, 7, 100, usize::MAX] {
        let mut phone = server.phone();
        let mut stream = Vec::new();
        for user in 0..5 {
            stream.extend(register(&phone, user, 1));
            stream.extend(b"\r\n");
        }
        for piece in stream.chunks(size.min(stream.len())) {
            phone.write(piece);
        }
        let mut answered: Vec<_> = (0..5).map(|_| phone.expect("SIP/2.0 200 ").call_id()).collect();
        answered.sort();
        assert_eq!(answered, ["call-0", "call-1", "call-2", "call-3", "call-4"], "by {size}");
    }
    assert_eq!(server.figures().tcp_messages_in, 25);
    assert!(server.figures().handed_over > 0, "some belong to other shards");
    server.stop();
}

/// RFC 3261 §18.2.2: "the response MUST be sent using the existing connection to the source of the original request", whichever
/// shard answers it.
#[test]
fn answers_and_notifies_come_by_the_connection_of_the_request() {
    let server = Server::start(4, StreamLimits::default());
    for number in 0..40 {
        let mut watcher = server.phone();
        let mut phone = server.phone();
        watcher.write(&subscribe(&watcher, number, number, ""));
        watcher.expect("SIP/2.0 200 ");
        let notify = watcher.expect("NOTIFY ");
        assert!(notify.text.contains("closed"), "{}", notify.text);
        watcher.answer(&notify);
        phone.write(&publish(&phone, number, 1));
        phone.expect("SIP/2.0 200 ");
        let notify = watcher.expect("NOTIFY ");
        assert!(notify.text.contains("open"), "{}", notify.text);
        assert!(notify.text.contains("Via: SIP/2.0/TCP "), "{}", notify.text);
        watcher.answer(&notify);
    }
    server.stop();
}

/// RFC 5626 §4.4.1: "the client 'ping' is a double-CRLF sequence, and the server 'pong' is a single CRLF".
#[test]
fn a_ping_gets_a_pong() {
    let server = Server::start(1, StreamLimits::default());
    let mut phone = server.phone();
    phone.write(b"\r\n\r\n");
    assert_eq!(phone.read_exactly(2), b"\r\n");
    phone.write(b"\r\n");
    phone.write(&register(&phone, 1, 1));
    phone.expect("SIP/2.0 200 ");
    server.stop();
}

/// A node and what it needs.
struct Server {
    _folder: TempDir,
    node: Running,
}

impl Server {
    fn start(shards: usize, streams: StreamLimits) -> Self {
        Self::listening(&["tcp:127.0.0.1:0", "udp:127.0.0.1:0"], shards, streams)
    }

    fn listening(listen: &[&str], shards: usize, streams: StreamLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            listen: listen.iter().map(|it| comsipl_shards::config::parse_listen(it).unwrap()).collect(),
            data_dir: folder.path().join("data"),
            shards: Some(shards),
            auth: Auth::None,
            streams,
            ..Settings::default()
        };
        let node = Node::open(settings).unwrap().start().unwrap();
        Self { _folder: folder, node }
    }

    /// The address of the first listener.
    fn address(&self) -> SocketAddr {
        self.node.addresses()[0].address
    }

    fn phone(&self) -> Phone {
        Phone::over(TcpStream::connect(self.address()).unwrap())
    }

    /// The sum over all shards.
    fn figures(&self) -> NetFigures {
        let each = self.node.counters().iter().map(|it| NetCounters::snapshot(it));
        each.fold(NetFigures::default(), NetFigures::plus)
    }

    fn stop(self) {
        self.node.stop().unwrap();
    }
}

/// A connection of a client.
struct Phone {
    stream: TcpStream,
    read: Vec<u8>,
}

/// A message as the client got it.
struct Got {
    text: String,
}

impl Phone {
    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn read_exactly(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len {
            assert!(self.read_some() > 0, "the server has closed");
        }
        self.read.drain(..len).collect()
    }

    fn read_some(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let len = self.stream.read(&mut buffer).expect("something in time");
        self.read.extend_from_slice(&buffer[..len]);
        len
    }

    /// The next message, which must begin as said.
    fn expect(&mut self, start: &str) -> Got {
        let head_len = loop {
            let end = self.read.windows(4).position(|it| it == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            assert!(self.read_some() > 0, "the server has closed instead of sending {start}");
        };
        let head = String::from_utf8(self.read[..head_len].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let text = String::from_utf8(self.read_exactly(head_len + length.parse::<usize>().unwrap())).unwrap();
        assert!(text.starts_with(start), "{start} is expected, not {text}");
        Got { text }
    }

    /// Answers a NOTIFY with 200.
    fn answer(&mut self, request: &Got) {
        self.write(&ok(request));
    }
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{name} in {}", self.text))
    }

    fn call_id(&self) -> String {
        self.header("Call-ID").to_owned()
    }
}

fn ok(request: &Got) -> Vec<u8> {
    let lines =
        ["Via", "From", "To", "Call-ID", "CSeq"].map(|it| format!("{it}: {}\r\n", request.header(it)));
    format!("SIP/2.0 200 OK\r\n{}Content-Length: 0\r\n\r\n", lines.concat()).into_bytes()
}

fn request(phone: &Phone, method: &str, user: usize, cseq: usize, more: &str, body: &str) -> Vec<u8> {
    let local = phone.local();
    let port = local.port();
    format!(
        "{method} sip:user{user}@example.net SIP/2.0\r\n\
         Via: SIP/2.0/TCP {local};branch=z9hG4bK-{method}-{user}-{cseq}-{port};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:user{user}@example.net>;tag=t{user}\r\n\
         To: <sip:user{user}@example.net>\r\n\
         Call-ID: call-{user}\r\n\
         CSeq: {cseq} {method}\r\n\
         Contact: <sip:user{user}@{local};transport=tcp>\r\n\
         Expires: 600\r\n\
         {more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn register(phone: &Phone, user: usize, cseq: usize) -> Vec<u8> {
    let text = String::from_utf8(request(phone, "REGISTER", user, cseq, "", "")).unwrap();
    text.replacen(&format!("sip:user{user}@"), "sip:", 1).into_bytes()
}

/// A SUBSCRIBE of a watcher with a dialog of its own.
fn subscribe(phone: &Phone, watcher: usize, user: usize, more: &str) -> Vec<u8> {
    let more = format!("Event: presence\r\n{more}");
    let text = String::from_utf8(request(phone, "SUBSCRIBE", user, 1, &more, "")).unwrap();
    text.replace("Call-ID: call-", &format!("Call-ID: watcher-{watcher}-")).into_bytes()
}

/// A PUBLISH of a document that differs from those with another number.
fn publish(phone: &Phone, user: usize, number: usize) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:user{user}@example.net\">\
         <tuple id=\"t{number}\"><status><basic>open</basic></status><note>{number}</note></tuple></presence>"
    );
    let more = "Event: presence\r\nContent-Type: application/pidf+xml\r\n";
    request(phone, "PUBLISH", user, number, more, &body)
}

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

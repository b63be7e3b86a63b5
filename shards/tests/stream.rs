//! SIP over TCP, by real sockets: framing, connections between shards, and peers that do not behave.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use comsipl_shards::metrics::{NetCounters, NetFigures};
use comsipl_shards::node::{Node, Running};
use comsipl_shards::settings::{Auth, Settings, StreamLimits};
use socket2::{Domain, SockRef, Socket, Type};
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
        watcher.expect_notify("<basic>closed");
        phone.write(&publish(&phone, number, 1));
        phone.expect("SIP/2.0 200 ");
        let notify = watcher.expect_notify("<basic>open");
        assert!(notify.text.contains("Via: SIP/2.0/TCP "), "{}", notify.text);
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

/// RFC 3261 §18.3 with §20.15: without a Content-Type there is no body, so the end is known without a Content-Length.
#[test]
fn a_publication_is_taken_back_without_a_content_length() {
    let server = Server::start(2, StreamLimits::default());
    let mut phone = server.phone();
    phone.write(&publish(&phone, 1, 1));
    let tag = phone.expect("SIP/2.0 200 ").header("SIP-ETag").to_owned();
    let more = format!("Event: presence\r\nSIP-If-Match: {tag}\r\n");
    let removal = String::from_utf8(request(&phone, "PUBLISH", 1, 2, &more, "")).unwrap();
    let removal = removal.replace("Expires: 600", "Expires: 0").replace("Content-Length: 0\r\n", "");
    phone.write(removal.as_bytes());
    assert_eq!(phone.expect("SIP/2.0 200 ").header("Expires"), "0");
    server.stop();
}

#[test]
fn a_stream_that_cannot_be_followed_is_answered_and_closed() {
    let server = Server::start(2, StreamLimits::default());
    let other = String::from_utf8(register(&server.phone(), 9, 1)).unwrap();
    let long_head = other.replace("Expires", &format!("Subject: {}\r\nExpires", "x".repeat(20_000)));
    for (text, status) in [
        (
            other.replace("Content-Length: 0", "Content-Length: 1\r\nl: 2"),
            "SIP/2.0 400 Conflicting Content-Length\r\n",
        ),
        (other.replace("Content-Length: 0", "Content-Type: a/b"), "SIP/2.0 400 Missing Content-Length\r\n"),
        (
            other.replace("Content-Length: 0", "Content-Length: 70000"),
            "SIP/2.0 413 Request Entity Too Large\r\n",
        ),
        (long_head, "SIP/2.0 513 Message Too Large\r\n"),
        ("\x16\x03\x01\x02\x00\x01".to_owned(), ""),
        ("GET / HTTP/1.1\r\nContent-Type: a/b\r\n\r\n".to_owned(), ""),
    ] {
        let mut phone = server.phone();
        phone.write(&register(&phone, 1, 1));
        phone.expect("SIP/2.0 200 ");
        phone.write(text.as_bytes());
        let answer = phone.expect_close();
        assert!(answer.starts_with(status), "{status} is expected, not {answer}");
        assert_eq!(answer.is_empty(), status.is_empty(), "{answer}");
    }
    server.wait_for("all are closed", |it| it.closed_broken == 6);
    assert_eq!(server.figures().stream_broken, 6);
    server.stop();
}

/// A program may close its side behind its last request and wait for the answer.
#[test]
fn a_peer_that_sends_nothing_more_is_answered() {
    let server = Server::start(4, StreamLimits::default());
    let mut phones: Vec<_> = (0..20).map(|_| server.phone()).collect();
    for (user, phone) in phones.iter_mut().enumerate() {
        phone.write(&register(phone, user, 1));
        phone.stream.shutdown(Shutdown::Write).unwrap();
    }
    for phone in &mut phones {
        phone.expect("SIP/2.0 200 ");
    }
    for phone in &mut phones {
        assert_eq!(phone.expect_close(), "");
    }
    server.stop();
}

#[test]
fn a_message_that_is_never_complete_ends_its_connection() {
    let span = Duration::from_millis(300);
    let server = Server::start(1, StreamLimits { message: span, ..StreamLimits::default() });
    let (mut slow, mut other) = (server.phone(), server.phone());
    let message = register(&slow, 1, 1);
    let began = Instant::now();
    slow.write(&message[..100]);
    assert_eq!(slow.expect_close(), "");
    assert!(began.elapsed() >= span);
    other.write(&register(&other, 2, 1));
    other.expect("SIP/2.0 200 ");
    assert_eq!((server.figures().closed_slow_message, server.figures().connections_open()), (1, 1));
    server.stop();
}

#[test]
fn a_silent_connection_is_closed() {
    let span = Duration::from_millis(300);
    let server = Server::start(1, StreamLimits { idle: span, ..StreamLimits::default() });
    let mut phone = server.phone();
    phone.write(&register(&phone, 1, 1));
    phone.expect("SIP/2.0 200 ");
    let began = Instant::now();
    assert_eq!(phone.expect_close(), "");
    assert!(began.elapsed() >= span / 2);
    assert_eq!(server.figures().closed_idle, 1);
    server.stop();
}

/// What the kernel and the server keep for one who does not read is bounded, and nobody else waits for it.
#[test]
fn a_slow_reader_is_closed_and_delays_nobody() {
    const DIALOGS: usize = 600;
    let limits =
        StreamLimits { out_buffer: 128 << 10, message: Duration::from_secs(1), ..StreamLimits::default() };
    let server = Server::start(2, limits);
    let mut other = server.phone();
    other.write(&subscribe(&other, 9_999, 1, ""));
    other.expect("SIP/2.0 200 ");
    other.expect_notify("<basic>closed");

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address().into()).unwrap();
    let mut slow = Phone::over(socket.into());
    for watcher in 0..DIALOGS {
        slow.write(&subscribe(&slow, watcher, 1, ""));
        slow.expect("SIP/2.0 200 ");
        slow.expect_notify("<basic>closed");
    }
    // From here on it reads nothing; one change fills what the kernel has for it (4 MiB), and what we have.
    let mut phone = server.phone();
    for number in 1..=3 {
        let document = String::from_utf8(publish(&phone, 1, number)).unwrap();
        let (head, body) = document.split_once("\r\n\r\n").unwrap();
        let body = body.replace("<note>", &format!("<note>{}", "x".repeat(15_000)));
        let lines: Vec<_> = head.lines().filter(|line| !line.starts_with("Content-Length")).collect();
        let head = lines.join("\r\n");
        phone.write(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        phone.expect("SIP/2.0 200 ");
        other.expect_notify(&format!("{number}</note>"));
    }
    server.wait_for("the slow reader is closed", |it| it.closed_slow_reader == 1);
    assert!(server.figures().stream_unsent > 0, "the owners are told");
    server.stop();
}

/// Nothing is lost between shards however much comes at once: a peer that is too fast is held up.
#[test]
fn a_torrent_of_requests_is_answered_to_the_last() {
    const REQUESTS: usize = 20_000;
    let limits = StreamLimits { out_buffer: 64 << 20, ..StreamLimits::default() };
    let server = Server::start(4, limits);
    let mut phone = server.phone();
    let mut writer = Phone::over(phone.stream.try_clone().unwrap());
    let writing = std::thread::spawn(move || {
        let requests: Vec<u8> = (0..REQUESTS).flat_map(|user| register(&writer, user, 1)).collect();
        writer.write(&requests);
    });
    let mut answered = vec![false; REQUESTS];
    for _ in 0..REQUESTS {
        let call_id = phone.expect("SIP/2.0 200 ").call_id();
        let user: usize = call_id.strip_prefix("call-").unwrap().parse().unwrap();
        assert!(!std::mem::replace(&mut answered[user], true), "{user} is answered once");
    }
    writing.join().unwrap();
    assert!(answered.iter().all(|it| *it));
    assert_eq!((server.figures().hand_over_dropped, server.figures().stream_unsent), (0, 0));
    server.stop();
}

#[test]
fn connections_are_bounded_in_all_and_from_one_source() {
    let limits =
        StreamLimits { connections_max: 4, connections_per_source_max: 2, ..StreamLimits::default() };
    let server = Server::start(2, limits);
    let from = |source: &str| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&server.address().into()).unwrap();
        Phone::over(socket.into())
    };
    let serves = |mut phone: Phone| {
        phone.write(b"\r\n\r\n");
        assert_eq!(phone.read_exactly(2), b"\r\n");
        phone
    };
    let mut open: Vec<_> = ["127.0.0.1", "127.0.0.1", "127.0.0.2"].map(|it| serves(from(it))).into();
    assert_eq!(from("127.0.0.1").expect_close(), "");
    open.push(serves(from("127.0.0.3")));
    assert_eq!(from("127.0.0.4").expect_close(), "");
    let figures = server.figures();
    assert_eq!((figures.refused_per_source_max, figures.refused_connections_max), (1, 1));
    open.remove(0);
    server.wait_for("one is closed", |it| it.closed_by_peer == 1);
    open.push(serves(from("127.0.0.1")));
    assert_eq!(server.figures().connections_open(), 4);
    server.stop();
}

/// RFC 3261 §18.1.1: "If a request is destined to an IP address, port, and transport to which an existing connection is open, it
/// is RECOMMENDED that this connection be used to send the request".
#[test]
fn a_contact_that_asks_for_tcp_is_dialled_once() {
    let server = Server::start(2, StreamLimits::default());
    let udp_address = server.node.addresses()[1].address;
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.set_read_timeout(Some(PATIENCE)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut publisher = server.phone();
    let contact = listener.local_addr().unwrap();
    let text = String::from_utf8(subscribe(&publisher, 1, 1, "")).unwrap();
    let (publishes_from, comes_from) = (publisher.local().to_string(), phone.local_addr().unwrap());
    let text = text.replace(&format!("TCP {publishes_from}"), &format!("UDP {comes_from}"));
    let text = text.replace(&publishes_from, &contact.to_string());
    phone.send_to(text.as_bytes(), udp_address).unwrap();
    let mut buffer = [0; 4096];
    let len = phone.recv(&mut buffer).unwrap();
    assert!(buffer[..len].starts_with(b"SIP/2.0 200 "), "{}", buffer[..len].escape_ascii());
    let mut watcher = Phone::over(accept(&listener));
    watcher.expect_notify("<basic>closed");
    for number in 1..=3 {
        publisher.write(&publish(&publisher, 1, number));
        publisher.expect("SIP/2.0 200 ");
        watcher.expect_notify(&format!("<note>{number}</note>"));
    }
    assert_eq!(server.figures().connections_dialled, 1);
    server.stop();
}

/// What changed while a watcher's connection was gone reaches it by the next one.
#[test]
fn a_watcher_that_comes_back_is_told_what_it_missed() {
    let server = Server::start(4, StreamLimits::default());
    let mut publisher = server.phone();
    let mut watcher = server.phone();
    watcher.write(&subscribe(&watcher, 1, 1, ""));
    let tag = watcher.expect("SIP/2.0 200 ").header("To").rsplit(";tag=").next().unwrap().to_owned();
    watcher.expect_notify("<basic>closed");
    drop(watcher);
    server.wait_for("the watcher is gone", |it| it.closed_by_peer == 1);
    publisher.write(&publish(&publisher, 1, 1));
    publisher.expect("SIP/2.0 200 ");
    server.wait_for("its NOTIFY is not sent", |it| it.stream_unsent > 0);
    let mut watcher = server.phone();
    let text = String::from_utf8(subscribe(&watcher, 1, 1, "")).unwrap();
    let text = text.replace("CSeq: 1 ", "CSeq: 2 ").replace("z9hG4bK-1", "z9hG4bK-2");
    let to = "To: <sip:user1@example.net>";
    watcher.write(text.replace(to, &format!("{to};tag={tag}")).as_bytes());
    watcher.expect("SIP/2.0 200 ");
    watcher.expect_notify("<note>1</note>");
    server.stop();
}

#[test]
fn a_source_that_is_not_heard_gets_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Server::settings(&folder, &["tcp:127.0.0.1:0"], 1, StreamLimits::default());
    settings.access.deny = vec!["127.0.0.2/32".parse().unwrap()];
    let server = Server { node: Node::open(settings).unwrap().start().unwrap(), _folder: folder };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&server.address().into()).unwrap();
    assert_eq!(Phone::over(socket.into()).expect_close(), "");
    let mut other = server.phone();
    other.write(&register(&other, 1, 1));
    other.expect("SIP/2.0 200 ");
    assert_eq!((server.figures().refused_source, server.figures().connections_accepted), (1, 1));
    server.stop();
}

#[test]
fn a_reset_in_the_middle_of_a_message_is_nobody_elses_matter() {
    let server = Server::start(2, StreamLimits::default());
    let mut other = server.phone();
    for number in 0..20 {
        let mut phone = server.phone();
        let message = publish(&phone, 1, 1);
        phone.write(&message[..message.len() - number * 20 - 1]);
        SockRef::from(&phone.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(phone);
        other.write(&register(&other, number, 1));
        other.expect("SIP/2.0 200 ");
    }
    server.wait_for("only one is left", |it| it.connections_open() == 1);
    assert_eq!(server.node.engine_counters().iter().map(|it| it.publishes.get()).sum::<u64>(), 0);
    server.stop();
}

#[test]
fn watchers_are_told_the_address_that_they_reached() {
    let listen = ["tcp:0.0.0.0:0", "tcp:[::]:0"];
    let server = Server::listening(&listen, 2, StreamLimits::default());
    let ports: Vec<_> = server.node.addresses().iter().map(|it| it.address.port()).collect();
    for (number, (ip, port)) in
        [("127.0.0.1", ports[0]), ("127.1.2.3", ports[0]), ("::1", ports[1])].into_iter().enumerate()
    {
        let address = SocketAddr::new(ip.parse().unwrap(), port);
        let mut phone = Phone::over(TcpStream::connect(address).unwrap());
        phone.write(&subscribe(&phone, number, number, ""));
        phone.expect("SIP/2.0 200 ");
        let notify = phone.expect_notify("<basic>closed");
        assert!(notify.header("Via").starts_with(&format!("SIP/2.0/TCP {address};")), "{}", notify.text);
    }
    server.stop();
}

#[test]
fn a_node_that_stops_sends_its_answers_and_says_good_bye() {
    let server = Server::start(4, StreamLimits::default());
    let mut phones: Vec<_> = (0..20).map(|_| server.phone()).collect();
    for (user, phone) in phones.iter_mut().enumerate() {
        phone.write(&register(phone, user, 1));
        phone.expect("SIP/2.0 200 ");
    }
    server.stop();
    for phone in &mut phones {
        assert_eq!(phone.stream.read(&mut [0; 1]).unwrap(), 0, "an orderly end");
    }
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
        let settings = Self::settings(&folder, listen, shards, streams);
        let node = Node::open(settings).unwrap().start().unwrap();
        Self { _folder: folder, node }
    }

    fn settings(folder: &TempDir, listen: &[&str], shards: usize, streams: StreamLimits) -> Settings {
        Settings {
            listen: listen.iter().map(|it| comsipl_shards::config::parse_listen(it).unwrap()).collect(),
            data_dir: folder.path().join("data"),
            shards: Some(shards),
            auth: Auth::None,
            streams,
            ..Settings::default()
        }
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

    /// Waits until the figures are as wanted.
    fn wait_for(&self, what: &str, is_so: impl Fn(&NetFigures) -> bool) {
        let began = Instant::now();
        while !is_so(&self.figures()) {
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}", self.figures());
            std::thread::yield_now();
        }
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

    /// Answers NOTIFYs until one says `what`, and returns that.
    fn expect_notify(&mut self, what: &str) -> Got {
        loop {
            let notify = self.expect("NOTIFY ");
            self.write(&ok(&notify));
            if notify.text.contains(what) {
                return notify;
            }
        }
    }

    /// Waits until the server closes the connection, and returns what it sent before.
    fn expect_close(&mut self) -> String {
        loop {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => self.read.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the server does not close: {error}"),
            }
        }
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
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

/// The next connection that the server opens.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let began = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) => assert!(began.elapsed() < PATIENCE, "the server does not connect: {error}"),
        }
        std::thread::yield_now();
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
    let text = text.replace("branch=z9hG4bK", &format!("branch=z9hG4bK-{watcher}"));
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

//! A new process takes over from the one that serves: with its sockets, connections and files, and nobody notices; or it fails
//! to, and nobody notices either.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use comsipl_shards::control::Request as Ask;
use comsipl_shards::deadline::Deadline;
use comsipl_shards::restart::courier::Courier;
use comsipl_shards::restart::{FORMAT, Message as Said};
use comsipl_tests::client::phone::{Message, Phone, Request};
use comsipl_tests::client::process::{Input, PATIENCE, Process};
use comsipl_tests::desks::{self, Change};
use comsipl_tests::server::{Server, Start, binary};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;

#[path = "take_over/dying.rs"]
mod dying;
#[path = "take_over/nonces.rs"]
mod nonces;
#[path = "take_over/service_manager.rs"]
mod service_manager;

/// Phones by UDP that publish, subscribe and register all the while: each request is answered after one repetition at the
/// latest (the desks see to that), no entity tag and no dialog is lost, and CSeq only grows.
#[test]
fn phones_notice_nothing() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into();
    let mut server = Server::start_with_shards("", 2)?;
    let seen = desks::run(&mut server, Change::TakeOver, 3, seed)?;
    eprintln!("three times taken over: {seen:?}");
    ensure!(seen.notifies > 0 && seen.interrupted == 0 && seen.conditional_failed == 0, "{seen:?}");
    server.stop()?;
    server.verify_files()
}

/// The connections of phones go on with what was begun on them, and NOTIFYs come by them; the sockets are the same.
#[test]
fn connections_go_on() -> Result<()> {
    let start = Start { transports: vec![Transport::Udp, Transport::Tcp, Transport::Ws], ..Start::default() };
    let mut server = Server::start_with("", start)?;
    let mut publisher = Publisher::new(&server)?;
    let mut anna = Watcher::subscribe("anna", Line::tcp(&server)?)?;
    let mut berta = Watcher::subscribe("berta", Line::web_socket(&server)?)?;
    publisher.publish("before", &mut [&mut anna, &mut berta])?;
    let listening = listening_inodes(&server)?;
    ensure!(listening.len() == 2 * 3, "two shards and three listeners: {listening:?}");
    let connections: BTreeSet<_> =
        inodes_of(server.process()?.id())?.difference(&listening).copied().collect();
    for round in 1..=2 {
        let register = anna.line.request("REGISTER", "sip:example.org", "anna", None, round, "");
        let (begun, rest) = register.split_at(register.len() / 2);
        anna.line.write(begun)?;
        // An answer says that all before it was read, up to the half of a message.
        anna.line.await_pong_of(&mut berta)?;
        server.take_over()?;
        let inodes = inodes_of(server.process()?.id())?;
        ensure!(listening_inodes(&server)? == listening, "other sockets listen now");
        ensure!(inodes.is_superset(&listening), "the new process has {inodes:?}, not all of {listening:?}");
        let kept = connections.intersection(&inodes).count();
        ensure!(kept == 2, "{kept} of two connections are kept");
        anna.line.write(rest)?;
        anna.await_answer("REGISTER", round)?;
        publisher.publish(&format!("in round {round}"), &mut [&mut anna, &mut berta])?;
        anna.refresh()?;
        berta.refresh()?;
    }
    server.stop()?;
    server.verify_files()
}

/// Whoever asks to take over may die at any step; the server serves on, or again.
#[test]
fn a_new_process_that_dies_changes_nothing() -> Result<()> {
    let start = Start { transports: vec![Transport::Udp, Transport::Tcp], ..Start::default() };
    let mut server = Server::start_with("", start)?;
    let mut publisher = Publisher::new(&server)?;
    let mut anna = Watcher::subscribe("anna", Line::tcp(&server)?)?;
    publisher.publish("before", &mut [&mut anna])?;
    let listening = listening_inodes(&server)?;

    drop(ask_to_take_over(&server)?);
    server.process()?.expect("that it serves on", |line| line.contains("this one serves on"))?;
    publisher.publish("after the first", &mut [&mut anna])?;

    let (mut courier, last) = ask_to_take_over(&server)?;
    courier.send(&Said::Release, &[], &[], &last)?;
    let connections = courier.receive::<Said>(&last)?;
    ensure!(matches!(&connections.text, Said::Connections { connections } if connections.len() == 1));
    ensure!(courier.receive::<Said>(&last)?.text == Said::Released { synced: true });
    // Nobody serves now. What comes meanwhile waits.
    let refresh = anna.subscribe_again();
    anna.line.write(&refresh)?;
    drop((courier, connections));
    server.process()?.expect("that it serves again", |line| line.contains("goes on in its place"))?;
    server.process()?.expect("that it is ready", |line| line.contains("ready: listening on "))?;
    anna.await_answer("SUBSCRIBE", 2)?;
    publisher.publish("after the second", &mut [&mut anna])?;
    ensure!(listening_inodes(&server)? == listening, "other sockets listen now");

    // What happened before is no reason to refuse one that does better.
    server.take_over()?;
    publisher.publish("after the third", &mut [&mut anna])?;
    anna.refresh()?;
    server.stop()?;
    server.verify_files()
}

#[test]
fn what_cannot_be_taken_over_is_refused_before_anything_is_touched() -> Result<()> {
    let mut server = Server::start("")?;
    let mut publisher = Publisher::new(&server)?;
    publisher.publish("before", &mut [])?;
    for (more, status, reason) in [
        (&["--shards", "3"][..], 3, "it has 2 shards and this one is to have 3"),
        (&["--shards", "2", "--no-take-over"], 3, "Address already in use"),
        (
            &[
                "--shards",
                "2",
                "--listen",
                "tls:127.0.0.1:0",
                "--tls-certificate",
                "none.pem",
                "--tls-key",
                "none.key",
            ],
            3,
            "none.pem",
        ),
    ] {
        let mut args = server.args();
        let shards = args.iter().position(|it| it == "--shards").context("they have shards")?;
        args.drain(shards..shards + 2);
        let mut command = Command::new(binary()?);
        command.args(args).args(more);
        let mut process = Process::spawn("comsipl", command, Input::None)?;
        let found = process.wait()?.code();
        let text = process.lines().join("\n");
        ensure!(found == Some(status), "{more:?}: {found:?} {text}");
        ensure!(text.contains(reason) && text.contains("help: "), "{more:?}: {text}");
        publisher.publish(reason, &mut [])?;
    }
    server.stop()
}

/// Asks as a new process does, and takes what is offered first.
fn ask_to_take_over(server: &Server) -> Result<(Courier, Deadline<'static>)> {
    let deadline = Deadline::of(PATIENCE);
    let socket = UnixStream::connect(server.data_dir().join("control.sock"))?;
    let mut courier = Courier::new(socket, Vec::new())?;
    courier.send_line(&Ask::TakeOver { format: FORMAT, shards: 2 }, &deadline)?;
    let line = String::from_utf8(courier.receive_line(&deadline)?)?;
    ensure!(line.contains(r#""answer":"take-over""#), "{line}");
    let sockets = courier.receive::<Said>(&deadline)?;
    ensure!(matches!(sockets.text, Said::Sockets { last: true, .. }), "{sockets:?}");
    Ok((courier, deadline))
}

/// A phone by UDP whose state watchers are told.
pub struct Publisher {
    phone: Phone,
    cseq: u32,
    entity_tag: Option<String>,
}

/// Whom it publishes for.
const PRESENTITY: &str = "sip:carl@example.org";

impl Publisher {
    /// Has not published yet.
    pub fn new(server: &Server) -> Result<Self> {
        Ok(Self { phone: Phone::new(server.address())?, cseq: 0, entity_tag: None })
    }

    /// Publishes a note, which modifies what it published before, and waits until all `watchers` are told.
    pub fn publish(&mut self, note: &str, watchers: &mut [&mut Watcher]) -> Result<()> {
        self.cseq += 1;
        let condition = self.entity_tag.as_ref().map(|it| format!("SIP-If-Match: {it}"));
        let mut headers = vec!["Event: presence", "Expires: 3600", "Content-Type: application/pidf+xml"];
        headers.extend(condition.as_deref());
        let body = format!(
            "<?xml version=\"1.0\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"{PRESENTITY}\"><tuple id=\"t\">\
             <status><basic>open</basic></status><note>{note}</note></tuple></presence>"
        );
        let request = Request {
            method: "PUBLISH",
            uri: PRESENTITY,
            branch: &format!("publish-{}", self.cseq),
            from: (PRESENTITY, "publisher"),
            to: (PRESENTITY, None),
            call_id: "publications",
            cseq: self.cseq,
            headers: &headers,
            body: &body,
        };
        let text = request.text(&self.phone);
        let begin = Instant::now();
        self.phone.send(&text);
        let first = self.phone.receive(begin + Duration::from_millis(500))?;
        let answer = match first {
            Some(answer) => answer,
            None => {
                self.phone.send(&text);
                self.phone.receive(Instant::now() + PATIENCE)?.context("no answer to a PUBLISH")?
            }
        };
        ensure!(answer.status() == Some(200), "{}", answer.text());
        self.entity_tag = Some(answer.need("SIP-ETag")?.to_owned());
        watchers.iter_mut().try_for_each(|watcher| watcher.await_note(note))
    }
}

/// A phone that watches over a connection.
pub struct Watcher {
    user: &'static str,
    line: Line,
    cseq: u32,
    /// The server's tag, and where it wants refreshes.
    dialog: Option<(String, String)>,
    /// CSeq of the last NOTIFY.
    told: u32,
}

impl Watcher {
    fn subscribe(user: &'static str, line: Line) -> Result<Self> {
        let mut watcher = Self { user, line, cseq: 0, dialog: None, told: 0 };
        watcher.refresh()?;
        Ok(watcher)
    }

    /// Subscribes, in the dialog if there is one.
    fn refresh(&mut self) -> Result<()> {
        let request = self.subscribe_again();
        self.line.write(&request)?;
        self.await_answer("SUBSCRIBE", self.cseq)
    }

    fn subscribe_again(&mut self) -> String {
        self.cseq += 1;
        let more = "Event: presence\r\nExpires: 600\r\n";
        let (tag, target) = match &self.dialog {
            Some((tag, target)) => (Some(tag.as_str()), target.as_str()),
            None => (None, PRESENTITY),
        };
        self.line.request("SUBSCRIBE", target, self.user, tag, self.cseq, more)
    }

    fn await_answer(&mut self, method: &str, cseq: u32) -> Result<()> {
        loop {
            let message = self.line.receive()?;
            let Some(status) = message.status() else {
                self.take_notify(&message)?;
                continue;
            };
            ensure!(message.method() == method && message.cseq()? == cseq, "{}", message.text());
            ensure!(status == 200, "{}", message.text());
            if method == "SUBSCRIBE" {
                let tag = message.tag("To").context("no tag")?.to_owned();
                let target = message.contact().context("no Contact")?.to_owned();
                if let Some((before, _)) = &self.dialog {
                    ensure!(*before == tag, "another dialog: {}", message.text());
                }
                self.dialog = Some((tag, target));
            }
            return Ok(());
        }
    }

    fn await_note(&mut self, note: &str) -> Result<()> {
        loop {
            let message = self.line.receive()?;
            self.take_notify(&message)?;
            if message.body().contains(&format!("<note>{note}</note>")) {
                return Ok(());
            }
        }
    }

    fn take_notify(&mut self, notify: &Message) -> Result<()> {
        ensure!(notify.method() == "NOTIFY", "{}", notify.text());
        let cseq = notify.cseq()?;
        ensure!(cseq > self.told, "CSeq after {}: {}", self.told, notify.text());
        self.told = cseq;
        self.line.write(&notify.ok())
    }
}

/// A connection.
enum Line {
    Tcp(TcpStream),
    WebSocket(Box<tungstenite::WebSocket<TcpStream>>),
}

impl Line {
    fn tcp(server: &Server) -> Result<Self> {
        Ok(Self::Tcp(connect(server, Transport::Tcp)?))
    }

    fn web_socket(server: &Server) -> Result<Self> {
        let stream = connect(server, Transport::Ws)?;
        let mut request = "ws://sip.example/".into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("sip"));
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self::WebSocket(Box::new(socket)))
    }

    fn request(
        &self,
        method: &str,
        uri: &str,
        user: &str,
        to_tag: Option<&str>,
        cseq: u32,
        more: &str,
    ) -> String {
        let (token, word) = match self {
            Self::Tcp(_) => ("TCP", "tcp"),
            Self::WebSocket(_) => ("WS", "ws"),
        };
        let to = if method == "SUBSCRIBE" { PRESENTITY } else { "sip:anna@example.org" };
        let tag = to_tag.map(|it| format!(";tag={it}")).unwrap_or_default();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{token} phone.invalid;branch=z9hG4bK{method}{user}{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@example.org>;tag=1\r\nTo: <{to}>{tag}\r\nCall-ID: {method}-{user}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:{user}@phone.invalid;transport={word}>\r\n{more}Content-Length: 0\r\n\r\n"
        )
    }

    fn write(&mut self, text: &str) -> Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(text.as_bytes())?,
            Self::WebSocket(socket) => socket.send(tungstenite::Message::text(text))?,
        }
        Ok(())
    }

    /// The next message.
    fn receive(&mut self) -> Result<Message> {
        match self {
            Self::Tcp(stream) => {
                let mut bytes = Vec::new();
                loop {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).context("the connection has ended, or nothing comes")?;
                    bytes.push(byte[0]);
                    if bytes.ends_with(b"\r\n\r\n") {
                        let head = String::from_utf8(bytes.clone())?;
                        let length = head.split("\r\n").find_map(|it| it.strip_prefix("Content-Length: "));
                        let mut body = vec![0; length.context("no length")?.parse()?];
                        stream.read_exact(&mut body)?;
                        bytes.extend_from_slice(&body);
                        return Message::read(&bytes);
                    }
                }
            }
            Self::WebSocket(socket) => loop {
                let message = socket.read().context("the WebSocket has ended, or nothing comes")?;
                if message.is_text() || message.is_binary() {
                    return Message::read(&message.into_data());
                }
            },
        }
    }

    /// Waits until the server has had time to read what was written: until somebody else was answered.
    fn await_pong_of(&self, other: &mut Watcher) -> Result<()> {
        other.refresh()
    }
}

fn connect(server: &Server, transport: Transport) -> Result<TcpStream> {
    let stream = TcpStream::connect(server.address_of(transport))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The sockets of a process.
pub fn inodes_of(pid: u32) -> Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        match std::fs::read_link(entry?.path()) {
            Ok(target) => {
                let target = target.to_string_lossy().into_owned();
                let inode = target.strip_prefix("socket:[").and_then(|it| it.strip_suffix(']'));
                inodes.extend(inode.and_then(|it| it.parse::<u64>().ok()));
            }
            // Closed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(inodes)
}

/// The sockets that listen at the addresses of `server`, as the kernel lists them.
pub fn listening_inodes(server: &Server) -> Result<BTreeSet<u64>> {
    let addresses = server.addresses();
    let mut inodes = BTreeSet::new();
    for (table, state) in [("udp", "07"), ("tcp", "0A")] {
        for line in std::fs::read_to_string(format!("/proc/net/{table}"))?.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let port = fields[1].rsplit_once(':').and_then(|(_, it)| u16::from_str_radix(it, 16).ok());
            let wanted = addresses.iter().any(|(transport, address)| {
                transport.is_stream() == (table == "tcp") && Some(address.port()) == port
            });
            if wanted && fields[3] == state {
                inodes.insert(fields[9].parse()?);
            }
        }
    }
    Ok(inodes)
}

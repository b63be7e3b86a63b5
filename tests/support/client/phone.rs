//! A phone made of a UDP socket and text: it writes what a test tells it to write and reads what really came.
//!
//! It shares no code with the server, so that a misunderstanding of the server's parser is not mirrored here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::process::PATIENCE;

/// A UDP socket on loopback and the server that it talks to.
#[derive(Debug)]
pub struct Phone {
    socket: UdpSocket,
    server: SocketAddr,
    /// NOTIFYs that came while something else was waited for, answered.
    kept: RefCell<VecDeque<Message>>,
    serial: Cell<u32>,
}

/// How long to wait for an answer before a request is repeated (RFC 3261 §17.1.2.1: T1).
const T1: Duration = Duration::from_millis(500);

impl Phone {
    /// Opens a socket on a free port of loopback.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(server: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        Ok(Self { socket, server, kept: RefCell::default(), serial: Cell::default() })
    }

    /// Where it receives.
    ///
    /// # Panics
    /// Never: a bound socket has an address.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("the socket is bound")
    }

    /// Sends one datagram. A server that is down at the moment is no error: the network may lose anything.
    pub fn send(&self, datagram: &str) {
        let _ = self.socket.send_to(datagram.as_bytes(), self.server);
    }

    /// Sends a request, again and again, until its final answer comes. NOTIFYs that come meanwhile are answered and kept for
    /// [`Phone::notified`].
    ///
    /// # Errors
    /// When none comes in time.
    pub fn ask(&self, request: &str) -> Result<Message> {
        let branch = Message::read(request.as_bytes())?.need("Via")?.to_owned();
        let branch = branch.split(";branch=").nth(1).and_then(|it| it.split(';').next()).unwrap_or_default();
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            self.send(request);
            let again = Instant::now() + T1;
            while let Some(message) = self.receive(again)? {
                match message.status() {
                    Some(200..) if message.need("Via")?.contains(branch) => return Ok(message),
                    Some(_) => {}
                    None => self.take(message),
                }
            }
        }
        bail!("no answer within {PATIENCE:?} to\n{request}")
    }

    /// The next NOTIFY that is as `wanted`; those before it are dropped. All are answered.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn notified(&self, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            while let Some(message) = self.kept.borrow_mut().pop_front() {
                if wanted(&message) {
                    return Ok(message);
                }
            }
            match self.receive(give_up)? {
                Some(message) if message.status().is_none() => self.take(message),
                Some(_) => {}
                None => bail!("no such NOTIFY within {PATIENCE:?}"),
            }
        }
    }

    /// A number that this phone has not had before.
    pub fn serial(&self) -> u32 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    /// Answers a NOTIFY and keeps it.
    fn take(&self, notify: Message) {
        self.send(&notify.ok());
        self.kept.borrow_mut().push_back(notify);
    }

    /// The next datagram that comes before `deadline`.
    ///
    /// # Errors
    /// When what comes is no SIP message.
    pub fn receive(&self, deadline: Instant) -> Result<Option<Message>> {
        let mut buffer = [0; 65_536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buffer) {
                Ok(len) => return Message::read(&buffer[..len]).map(Some),
                // ConnectionRefused: a port unreachable that came back while the server was down.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A request to be written. What it leaves out has the customary value.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Request-URI.
    pub uri: &'a str,
    /// Top Via's branch, without its magic cookie.
    pub branch: &'a str,
    /// From: URI and tag.
    pub from: (&'a str, &'a str),
    /// To: URI and, inside a dialog, tag.
    pub to: (&'a str, Option<&'a str>),
    /// Call-ID.
    pub call_id: &'a str,
    /// Number of the CSeq.
    pub cseq: u32,
    /// Further header lines, each whole.
    pub headers: &'a [&'a str],
    /// Body; its Content-Type is one of `headers`.
    pub body: &'a str,
}

impl Request<'_> {
    /// The request as `phone` sends it.
    pub fn text(&self, phone: &Phone) -> String {
        let Self { method, uri, branch, from: (from, from_tag), to: (to, to_tag), call_id, cseq, .. } = self;
        let mut text = format!(
            "{method} {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {};branch=z9hG4bK{branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <{from}>;tag={from_tag}\r\n\
             To: <{to}>",
            phone.address()
        );
        if let Some(tag) = to_tag {
            let _ = write!(text, ";tag={tag}");
        }
        let _ = write!(text, "\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n");
        for header in self.headers {
            let _ = write!(text, "{header}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n{}", self.body.len(), self.body);
        text
    }
}

/// A SIP message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    text: String,
    /// Length of the head with its empty line.
    head_len: usize,
}

impl Message {
    /// Reads a message that is there whole.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(datagram: &[u8]) -> Result<Self> {
        let text = String::from_utf8(datagram.to_vec()).context("a SIP message that is not UTF-8")?;
        let head_len = text.find("\r\n\r\n").with_context(|| format!("no end of the head in {text:?}"))? + 4;
        let message = Self { text, head_len };
        let length: usize = message.need("Content-Length")?.parse()?;
        ensure!(length == message.body().len(), "Content-Length is wrong in {:?}", message.text);
        Ok(message)
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Request line or status line.
    pub fn start_line(&self) -> &str {
        self.text.split("\r\n").next().unwrap_or_default()
    }

    /// Status code of a response; `None`: it is a request.
    pub fn status(&self) -> Option<u16> {
        self.start_line().strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// Method of a request, also of the request that a response answers.
    pub fn method(&self) -> &str {
        match self.status() {
            Some(_) => {
                self.header("CSeq").and_then(|value| value.split_whitespace().nth(1)).unwrap_or_default()
            }
            None => self.start_line().split(' ').next().unwrap_or_default(),
        }
    }

    /// Value of the first header of that name, in whatever case. Compact forms are not known here.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// As [`Message::header`], for one that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.header(name).with_context(|| format!("no {name} in {}", self.text))
    }

    /// Names and values in the order of the message.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text[..self.head_len]
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
    }

    /// The body.
    pub fn body(&self) -> &str {
        &self.text[self.head_len..]
    }

    /// Number of the CSeq.
    ///
    /// # Errors
    /// When there is none.
    pub fn cseq(&self) -> Result<u32> {
        Ok(self.need("CSeq")?.split_whitespace().next().context("empty CSeq")?.parse()?)
    }

    /// The tag of `From` or `To`.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.header(name)?.split(";tag=").nth(1).map(|rest| rest.split(';').next().unwrap_or(rest))
    }

    /// The URI of `Contact`.
    pub fn contact(&self) -> Option<&str> {
        let value = self.header("Contact")?;
        value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(uri, _)| uri)
    }

    /// The 200 (OK) to this request, as a phone answers a NOTIFY.
    pub fn ok(&self) -> String {
        let mut answer = "SIP/2.0 200 OK\r\n".to_owned();
        for (name, value) in self.headers() {
            if ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|copied| name.eq_ignore_ascii_case(copied))
            {
                let _ = write!(answer, "{name}: {value}\r\n");
            }
        }
        answer.push_str("Content-Length: 0\r\n\r\n");
        answer
    }
}

//! A presence server of one thread that does the least that SIP allows: the counterpart that shows how fast the
//! generator itself is on a machine, and that errs on demand so that the audit can be tested.
//!
//! It keeps everything in memory, never expires anything, does not retransmit, and trusts what it gets.

use crate::message::Transport;
use crate::mmsg::Datagram;
use crate::net::{Outlet, Sockets};
use crate::stream::Connection;
use anyhow::Context as _;
use comsipl_core::msg::{self, Message, Method};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the notifier does wrong, each to every n-th; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Requests that get lost.
    pub lose_request: u32,
    /// Requests that are answered 503 with a Retry-After of no time.
    pub busy: u32,
    /// NOTIFYs of a state change that are sent twice.
    pub repeat_notify: u32,
    /// NOTIFYs of a state change that get lost for good.
    pub lose_notify: u32,
    /// NOTIFYs that are followed by another one with the same document.
    pub duplicate_notify: u32,
    /// NOTIFYs that are followed by one with the document before.
    pub stale_notify: u32,
    /// PUBLISHes whose entity tag is not found.
    pub forget_tag: u32,
    /// Whether any entity tag will do.
    pub ignore_tags: bool,
    /// Least interval granted, in seconds.
    pub min_expires: u32,
    /// Whether the NOTIFY of a SUBSCRIBE overtakes its 200.
    pub notify_first: bool,
}

/// A running notifier; it ends when this is dropped.
#[derive(Debug)]
pub struct Notifier {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Starts one at a port of loopback that the system chooses.
    pub fn start(faults: Faults) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("notifier".into()).spawn(move || {
            let opened = Sockets::open(1, IpAddr::V4(Ipv4Addr::LOCALHOST), false);
            let mut sockets = match opened {
                Ok(sockets) => sockets,
                Err(error) => return drop(tell.send(Err(error))),
            };
            let local = sockets.address(0);
            drop(tell.send(Ok(local)));
            serve(&mut sockets, Server::new(local, Transport::Udp, faults), &stopped);
        })?;
        let address = told.recv().context("the notifier's thread ended")??;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Starts one over TCP, for a single connection: who is told goes by the connection of the one who tells.
    pub fn start_tcp(faults: Faults) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("notifier".into()).spawn(move || {
            let stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) if stopped.load(Ordering::Relaxed) => return,
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            let Ok(mut sockets) = Connection::of(stream).and_then(|it| Sockets::over(vec![it])) else {
                return;
            };
            serve(&mut sockets, Server::new(address, Transport::Tcp, faults), &stopped);
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Answers until it is stopped.
fn serve(sockets: &mut Sockets, mut server: Server, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        while sockets.receive(|outlet, datagram| server.take(outlet, &datagram)).is_some() {
            sockets.flush(|_| ());
        }
        if sockets.wait(Duration::from_millis(20), false).is_err() {
            break;
        }
    }
}

/// What the notifier knows.
struct Server {
    local: SocketAddr,
    transport: Transport,
    faults: Faults,
    subscriptions: Vec<Subscription>,
    by_call_id: BTreeMap<Vec<u8>, usize>,
    presentities: BTreeMap<Vec<u8>, Presentity>,
    tags: u64,
    requests: u32,
    refusals: u32,
    publishes: u32,
    notifies: u32,
}

/// A dialog with a watcher.
struct Subscription {
    to: SocketAddr,
    presentity: Vec<u8>,
    /// The request up to the branch, from there to the number of CSeq, and from there to Event.
    parts: [Vec<u8>; 3],
    cseq: u32,
    ended: bool,
}

/// A published state and who watches it.
#[derive(Default)]
struct Presentity {
    tag: Vec<u8>,
    document: Vec<u8>,
    before: Vec<u8>,
    watchers: Vec<usize>,
}

impl Server {
    fn new(local: SocketAddr, transport: Transport, faults: Faults) -> Self {
        Self {
            local,
            transport,
            faults,
            subscriptions: Vec::new(),
            by_call_id: BTreeMap::new(),
            presentities: BTreeMap::new(),
            tags: 0,
            requests: 0,
            refusals: 0,
            publishes: 0,
            notifies: 0,
        }
    }

    fn take(&mut self, outlet: &mut Outlet<'_>, datagram: &Datagram<'_>) {
        let Ok(message) = msg::parse(datagram.bytes) else { return };
        let Some(method) = message.method() else { return };
        if every(&mut self.requests, self.faults.lose_request) {
            return;
        }
        if every(&mut self.refusals, self.faults.busy) {
            return answer(outlet, &message, datagram.source, 503, &[("Retry-After", b"0")]);
        }
        let expires = message.expires().and_then(Result::ok).unwrap_or(3600);
        if expires > 0 && expires < self.faults.min_expires {
            let least = self.faults.min_expires.to_string();
            return answer(outlet, &message, datagram.source, 423, &[("Min-Expires", least.as_bytes())]);
        }
        match method {
            Method::Register => answer(outlet, &message, datagram.source, 200, &[("Expires", b"3600")]),
            Method::Publish => self.publish(outlet, &message, datagram.source, expires),
            Method::Subscribe => self.subscribe(outlet, &message, datagram.source, expires),
            _ => answer(outlet, &message, datagram.source, 405, &[]),
        }
    }

    fn publish(&mut self, outlet: &mut Outlet<'_>, message: &Message<'_>, source: SocketAddr, expires: u32) {
        let presentity = self.presentities.entry(message.to().uri().to_vec()).or_default();
        if let Some(tag) = message.if_match()
            && (tag != presentity.tag && !self.faults.ignore_tags
                || every(&mut self.publishes, self.faults.forget_tag))
        {
            return answer(outlet, message, source, 412, &[]);
        }
        self.tags += 1;
        presentity.tag = format!("t{}", self.tags).into_bytes();
        if expires > 0 && !message.body().is_empty() {
            presentity.before = std::mem::replace(&mut presentity.document, message.body().to_vec());
        }
        let expires = expires.to_string();
        answer(
            outlet,
            message,
            source,
            200,
            &[("SIP-ETag", &presentity.tag), ("Expires", expires.as_bytes())],
        );
        let Presentity { document, before, watchers, .. } = &*presentity;
        for &watcher in watchers {
            let subscription = &mut self.subscriptions[watcher];
            self.notifies = self.notifies.wrapping_add(1);
            let hits = |every: u32| every > 0 && self.notifies.is_multiple_of(every);
            subscription.cseq += 1;
            if subscription.ended || hits(self.faults.lose_notify) {
                continue;
            }
            subscription.notify(outlet, document);
            if hits(self.faults.repeat_notify) {
                subscription.notify(outlet, document);
            }
            if hits(self.faults.duplicate_notify) {
                subscription.cseq += 1;
                subscription.notify(outlet, document);
            }
            if hits(self.faults.stale_notify) {
                subscription.cseq += 1;
                subscription.notify(outlet, before);
            }
        }
    }

    fn subscribe(
        &mut self,
        outlet: &mut Outlet<'_>,
        message: &Message<'_>,
        source: SocketAddr,
        expires: u32,
    ) {
        let index = match self.by_call_id.get(message.call_id()) {
            Some(&index) => index,
            None if message.to().tag().is_some() => return answer(outlet, message, source, 481, &[]),
            None => self.admit(message, source),
        };
        let contact = format!("<sip:{}>", self.local);
        let granted = expires.to_string();
        let headers = [("Contact", contact.as_bytes()), ("Expires", granted.as_bytes())];
        if !self.faults.notify_first {
            answer(outlet, message, source, 200, &headers);
        }
        let subscription = &mut self.subscriptions[index];
        subscription.ended = expires == 0;
        subscription.cseq += 1;
        let document = self.presentities.get(&subscription.presentity).map_or(&b""[..], |p| &p.document);
        subscription.notify(outlet, document);
        if self.faults.notify_first {
            answer(outlet, message, source, 200, &headers);
        }
    }

    /// Makes a subscription.
    fn admit(&mut self, message: &Message<'_>, source: SocketAddr) -> usize {
        let index = self.subscriptions.len();
        let contact = message.contacts().next().and_then(Result::ok);
        let target = contact.and_then(|contact| contact.uri()).unwrap_or_default();
        let mut parts: [Vec<u8>; 3] = Default::default();
        parts[0].extend_from_slice(b"NOTIFY ");
        parts[0].extend_from_slice(target);
        write_to(
            &mut parts[0],
            format_args!(
                " SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bK{index}x",
                self.transport.via(),
                self.local
            ),
        );
        write_to(&mut parts[1], format_args!(";rport\r\nMax-Forwards: 70\r\nFrom: <"));
        parts[1].extend_from_slice(message.to().uri());
        parts[1].extend_from_slice(b">;tag=notifier\r\nTo: ");
        parts[1].extend_from_slice(message.from().raw());
        parts[1].extend_from_slice(b"\r\nCall-ID: ");
        parts[1].extend_from_slice(message.call_id());
        parts[1].extend_from_slice(b"\r\nCSeq: ");
        write_to(
            &mut parts[2],
            format_args!(" NOTIFY\r\nContact: <sip:{}>\r\nEvent: presence\r\n", self.local),
        );
        let presentity = message.to().uri().to_vec();
        self.presentities.entry(presentity.clone()).or_default().watchers.push(index);
        self.by_call_id.insert(message.call_id().to_vec(), index);
        self.subscriptions.push(Subscription { to: source, presentity, parts, cseq: 0, ended: false });
        index
    }
}

impl Subscription {
    /// Sends a NOTIFY with the present CSeq; its branch depends on the CSeq only.
    fn notify(&self, outlet: &mut Outlet<'_>, document: &[u8]) {
        outlet.send(self.to, |out| {
            out.extend_from_slice(&self.parts[0]);
            crate::message::decimal(out, u64::from(self.cseq));
            out.extend_from_slice(&self.parts[1]);
            crate::message::decimal(out, u64::from(self.cseq));
            out.extend_from_slice(&self.parts[2]);
            out.extend_from_slice(if self.ended {
                b"Subscription-State: terminated;reason=timeout\r\n"
            } else {
                b"Subscription-State: active;expires=3600\r\n"
            });
            if !document.is_empty() {
                out.extend_from_slice(b"Content-Type: application/pidf+xml\r\n");
            }
            out.extend_from_slice(b"Content-Length: ");
            crate::message::decimal(out, document.len() as u64);
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(document);
        });
    }
}

/// Counts, and tells whether it is the turn of the `n`-th; never for 0.
fn every(count: &mut u32, n: u32) -> bool {
    *count = count.wrapping_add(1);
    n > 0 && count.is_multiple_of(n)
}

fn answer(
    outlet: &mut Outlet<'_>,
    request: &Message<'_>,
    source: SocketAddr,
    status: u16,
    headers: &[(&str, &[u8])],
) {
    outlet.send(source, |out| {
        let mut writer =
            msg::respond(out, request, status, msg::reason_phrase(status), Some(b"notifier"), source);
        for (name, value) in headers {
            writer.header(name, value);
        }
        writer.content_length(0).end();
    });
}

fn write_to(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes all that is written");
}

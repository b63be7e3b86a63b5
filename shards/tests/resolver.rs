//! The resolver's thread against a DNS server on loopback (RFC 3263 §4.1, §4.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use comsipl_core::Transport;
use comsipl_core::Uri;
use comsipl_core::locate::HopName;
use comsipl_shards::bus::Wake;
use comsipl_shards::mailbox::{Command, Mailbox};
use comsipl_shards::resolve::thread::Resolver;
use comsipl_shards::resolve::{Answer, Query, ResolverSettings};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NAPTR, SRV};
use hickory_proto::rr::{Name, RData, Record};

/// A DNS server whose zone is written below. It keeps silent about names in `silent.test`.
struct Dns {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answer(&buffer[..len]) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn zone() -> Vec<(&'static str, RData)> {
    let v4 = |last| RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
    let naptr = |order, service: &str, to: &str| {
        let service = service.as_bytes().into();
        RData::NAPTR(NAPTR::new(order, 50, (*b"s").into(), service, Box::default(), name(to)))
    };
    let srv = |priority, weight, port, to: &str| RData::SRV(SRV::new(priority, weight, port, name(to)));
    vec![
        ("host.test.", v4(1)),
        ("host.test.", RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
        // By NAPTR, in another domain, TLS before TCP before UDP.
        ("naptr.test.", naptr(90, "SIP+D2T", "_sip._tcp.servers.test.")),
        ("naptr.test.", naptr(50, "SIPS+D2T", "_sips._tcp.servers.test.")),
        ("naptr.test.", naptr(100, "SIP+D2U", "_sip._udp.servers.test.")),
        ("naptr.test.", naptr(10, "E2U+sip", "nowhere.test.")),
        ("_sips._tcp.servers.test.", srv(1, 1, 5071, "tls.servers.test.")),
        ("_sip._tcp.servers.test.", srv(1, 1, 5072, "tcp.servers.test.")),
        ("_sip._udp.servers.test.", srv(1, 1, 5073, "udp.servers.test.")),
        ("tls.servers.test.", v4(11)),
        ("tcp.servers.test.", v4(12)),
        ("udp.servers.test.", v4(13)),
        // By SRV alone. The one of the best priority has no address.
        ("srv.test.", v4(20)),
        ("_sip._tcp.srv.test.", srv(1, 1, 5080, "gone.srv.test.")),
        ("_sip._tcp.srv.test.", srv(2, 1, 5081, "second.srv.test.")),
        ("second.srv.test.", v4(21)),
        // Two of the same priority, of which only one has a weight.
        ("_sip._udp.weights.test.", srv(1, 0, 5090, "light.weights.test.")),
        ("_sip._udp.weights.test.", srv(1, 65535, 5091, "heavy.weights.test.")),
        ("light.weights.test.", v4(30)),
        ("heavy.weights.test.", v4(31)),
        // A row of servers, of which the first has two addresses and the second none; and one with a spare that is silent.
        ("_sip._udp.row.test.", srv(3, 1, 5063, "third.row.test.")),
        ("_sip._udp.row.test.", srv(1, 1, 5061, "first.row.test.")),
        ("_sip._udp.row.test.", srv(2, 0, 5062, "gone.row.test.")),
        ("first.row.test.", v4(50)),
        ("first.row.test.", v4(51)),
        ("third.row.test.", v4(53)),
        ("_sip._udp.quiet.test.", srv(1, 1, 5061, "first.row.test.")),
        ("_sip._udp.quiet.test.", srv(2, 1, 5062, "spare.silent.test.")),
        // No service here, but an address.
        ("closed.test.", v4(40)),
        ("_sip._udp.closed.test.", srv(0, 0, 0, ".")),
    ]
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let asked = question.name().to_ascii().to_ascii_lowercase();
    if asked.ends_with("silent.test.") {
        return None;
    }
    let zone = zone();
    let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
    message.add_query(question.clone());
    for (owner, data) in zone.iter().filter(|(owner, _)| *owner == asked) {
        if data.record_type() == question.query_type() {
            message.add_answer(Record::from_rdata(name(owner), 77, data.clone()));
        }
    }
    if !zone.iter().any(|(owner, _)| owner.ends_with(&asked)) {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.to_vec().ok()
}

struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(&self) -> std::io::Result<()> {
        let _ = self.0.send(());
        Ok(())
    }
}

struct Asker {
    _dns: Dns,
    resolver: Resolver,
    mailbox: Arc<Mailbox>,
    rings: Receiver<()>,
}

impl Asker {
    fn new(ways: &[Transport], timeout: Duration) -> Self {
        let dns = Dns::start();
        let (ring, rings) = channel();
        let mailbox = Arc::new(Mailbox::new(Arc::new(Bell(ring))));
        let settings = ResolverSettings { nameservers: vec![dns.address], timeout };
        let resolver = Resolver::start(&settings, ways.to_vec(), vec![Arc::clone(&mailbox)]).unwrap();
        Self { _dns: dns, resolver, mailbox, rings }
    }

    /// Where a URI leads, as transport and address, and for how many seconds.
    fn ask(&self, uri: &str, ipv4: bool) -> Option<(Transport, String, u64)> {
        let answer = self.answer(uri, ipv4);
        let found = answer.found.first()?;
        Some((found.transport, found.address.to_string(), answer.ttl.as_secs()))
    }

    /// All places that a URI leads to, in their order.
    fn places(&self, uri: &str) -> Vec<String> {
        self.answer(uri, true).found.iter().map(|found| found.address.to_string()).collect()
    }

    fn answer(&self, uri: &str, ipv4: bool) -> Answer {
        let parsed = Uri::parse(uri.as_bytes()).unwrap();
        let query = Query::new(&HopName::of(b"", Some(&parsed)).unwrap(), ipv4).unwrap();
        self.resolver.lookups().ask(0, query.clone()).unwrap();
        self.rings.recv_timeout(Duration::from_secs(20)).expect("an answer");
        let mut answers: Vec<Answer> = Vec::new();
        self.mailbox.take(|command| match command {
            Command::Resolved(answer) => answers.push(answer),
            other => panic!("{other:?}"),
        });
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(answer.query, query);
        answer.clone()
    }

    fn leads(&self, uri: &str, transport: Transport, address: &str) {
        let found = self.ask(uri, true).unwrap_or_else(|| panic!("{uri} leads nowhere"));
        assert_eq!((found.0, found.1.as_str()), (transport, address), "{uri}");
        assert!((70..=77).contains(&found.2), "{uri}: {} s", found.2);
    }
}

const PATIENT: Duration = Duration::from_secs(10);
const ALL: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

#[test]
fn the_uri_decides_which_records_are_asked_for() {
    let asker = Asker::new(&ALL, PATIENT);
    // A port: addresses alone.
    asker.leads("sip:b@host.test:5066", Transport::Udp, "192.0.2.1:5066");
    asker.leads("sip:b@srv.test:5066;transport=tcp", Transport::Tcp, "192.0.2.20:5066");
    // A transport: its SRV records, then addresses with its default port.
    asker.leads("sip:b@srv.test;transport=tcp", Transport::Tcp, "192.0.2.21:5081");
    asker.leads("sip:b@srv.test;transport=udp", Transport::Udp, "192.0.2.20:5060");
    asker.leads("sip:b@srv.test;transport=tls", Transport::Tls, "192.0.2.20:5061");
    // Neither: NAPTR, then SRV, then addresses.
    asker.leads("sip:b@naptr.test", Transport::Tls, "192.0.2.11:5071");
    asker.leads("sip:b@srv.test", Transport::Tcp, "192.0.2.21:5081");
    asker.leads("sip:b@host.test", Transport::Udp, "192.0.2.1:5060");
    asker.leads("sips:b@naptr.test", Transport::Tls, "192.0.2.11:5071");
    asker.leads("sips:b@host.test", Transport::Tls, "192.0.2.1:5061");
    let ipv6 = asker.ask("sip:b@host.test", false).unwrap();
    assert_eq!((ipv6.0, ipv6.1.as_str()), (Transport::Udp, "[::1]:5060"));
}

#[test]
fn services_by_transports_that_we_lack_are_passed_over() {
    let asker = Asker::new(&ALL[..2], PATIENT);
    asker.leads("sip:b@naptr.test", Transport::Tcp, "192.0.2.12:5072");
    assert_eq!(asker.ask("sip:b@host.test;transport=tls", true), None);
    let asker = Asker::new(&ALL[..1], PATIENT);
    asker.leads("sip:b@naptr.test", Transport::Udp, "192.0.2.13:5073");
}

#[test]
fn weights_share_out_what_has_the_same_priority() {
    let asker = Asker::new(&ALL, PATIENT);
    let heavy = (0..50).filter(|_| {
        let found = asker.ask("sip:b@weights.test", true).unwrap();
        found.1 == "192.0.2.31:5091"
    });
    // The other has a chance of 1 in 65536 each time.
    assert!(heavy.count() >= 49);
}

/// RFC 3263 §4.3: all of a name are in the answer, in the order in which they are tried. A spare of which the name server says
/// nothing does not hold the others up.
#[test]
fn all_places_of_a_name_come_in_their_order() {
    let asker = Asker::new(&ALL, PATIENT);
    let mut row = asker.places("sip:b@row.test");
    // Which of one server's addresses comes first, DNS may change.
    row[..2].sort_unstable();
    assert_eq!(row, ["192.0.2.50:5061", "192.0.2.51:5061", "192.0.2.53:5063"]);
    assert_eq!(asker.places("sip:b@first.row.test:5099").len(), 2);
    let began = std::time::Instant::now();
    assert_eq!(asker.places("sip:b@quiet.test").len(), 2);
    assert!(began.elapsed() < PATIENT / 2);
}

#[test]
fn names_that_lead_nowhere_are_told_so() {
    let asker = Asker::new(&ALL, PATIENT);
    assert_eq!(asker.ask("sip:b@nothing.test", true), None);
    assert_eq!(asker.ask("sip:b@closed.test", true), None);
    assert_eq!(asker.ask("sip:b@weights.test:5060", true), None);
    asker.leads("sip:b@host.test", Transport::Udp, "192.0.2.1:5060");
}

#[test]
fn silence_ends_with_the_time_limit() {
    let asker = Asker::new(&ALL, Duration::from_millis(200));
    assert_eq!(asker.ask("sip:b@silent.test", true), None);
}

//! Dialling, and what is told of messages that cannot be sent: the connections of one shard without an engine.

mod handshakes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use rustls::crypto::aws_lc_rs;
use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use comsipl_core::Transport;

use super::*;
use crate::access::Access;
use crate::clock::Clock;
use crate::config::{parse_listen, parse_outbound_proxy};
use crate::testing::ca::Ca;
use crate::testing::with_tls;
use crate::tls::Tls;

#[test]
fn a_message_without_a_connection_opens_one_and_the_next_goes_by_it() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut shard = OneShard::new(&[], StreamLimits::default());
    let flow = to(peer.local_addr().unwrap());
    for number in 0..3 {
        shard.streams.send(shard.clock.mono(), &flow, &[notify(number).as_bytes(), b"body"]);
    }
    assert_eq!(shard.counters.connections_dialled.get(), 1, "one for all");
    let (mut accepted, _) = peer.accept().unwrap();
    let expected = format!("{}body{}body{}body", notify(0), notify(1), notify(2));
    assert_eq!(shard.read_from(&mut accepted, expected.len()), expected);

    accepted.write_all(b"SIP/2.0 200 OK\r\nl: 0\r\n\r\n").unwrap();
    let (flow, answer) = shard.next_message();
    assert_eq!(answer, "SIP/2.0 200 OK\r\nl: 0\r\n\r\n");
    assert_eq!((flow.transport, flow.peer), (Transport::Tcp, peer.local_addr().unwrap()));
    assert!(flow.connection.is_some_and(|id| id.shard() == 5));
    shard.streams.send(shard.clock.mono(), &flow, &[b"by name"]);
    assert_eq!(shard.read_from(&mut accepted, 7), "by name");
    assert_eq!(shard.unsent(), []);
    assert_eq!(shard.streams.len(), 1);
}

#[test]
fn what_waits_for_a_connection_that_is_refused_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut shard = OneShard::new(&[], StreamLimits::default());
    for number in 0..3 {
        shard.streams.send(shard.clock.mono(), &to(nobody), &[notify(number).as_bytes()]);
    }
    shard.streams.send(shard.clock.mono(), &to(nobody), &[b"SIP/2.0 200 OK\r\n\r\n"]);
    shard.turn_until("the refusal", |it| it.streams.is_empty());
    let noted: Vec<_> = (0..3).map(note).collect();
    assert_eq!(shard.unsent(), noted);
    assert_eq!(shard.counters.dials_failed.get(), 1);
    // What is no stream cannot even be dialled.
    let flow = Flow { transport: Transport::Udp, ..to(nobody) };
    shard.streams.send(shard.clock.mono(), &flow, &[notify(7).as_bytes()]);
    assert_eq!(shard.unsent(), [note(7)]);
}

/// Ports of one host that do not answer are not all tried at a time, and a host that does answers is reached meanwhile.
#[test]
fn one_host_does_not_take_all_dials() {
    let good = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut shard = OneShard::new(&[], StreamLimits::default());
    let now = shard.clock.mono();
    for port in 1..=40 {
        // Nobody looks at the poll meanwhile, so that none is known to have failed.
        shard.streams.send(
            now,
            &to(SocketAddr::from(([127, 0, 0, 2], port))),
            &[notify(port.into()).as_bytes()],
        );
    }
    assert_eq!((shard.streams.len(), shard.counters.dials_failed.get()), (16, 24));
    // They have not failed, and what is sent there is sent again later.
    assert_eq!(shard.unsent(), (17..=40).map(refused).collect::<Vec<_>>());
    shard.streams.send(now, &to(good.local_addr().unwrap()), &[b"others"]);
    let (mut accepted, _) = good.accept().unwrap();
    assert_eq!(shard.read_from(&mut accepted, 6), "others");
    shard.turn_until("the refusals", |it| it.streams.len() == 1);
    shard.streams.send(now, &to(SocketAddr::from(([127, 0, 0, 2], 41))), &[notify(41).as_bytes()]);
    assert_eq!(shard.streams.len(), 2, "there is room again");
}

/// A watcher who names many ports of the operator's proxies does not keep anything from these.
#[test]
fn what_the_operator_has_named_is_dialled_as_long_as_anything_is() {
    let (one, range) = (|text: &str| parse_outbound_proxy(text).ok(), "127.0.0.2/32".parse().unwrap());
    for (trusted, outbound_proxy, dialled) in [
        (vec![range], None, 20),
        (vec![], one("tcp:127.0.0.2:5060"), 20),
        (vec![], one("tcp:127.0.0.3:5060"), 16),
        // The NOTIFYs name another address, so it is the proxy's that this one is.
        (vec![], one("tcp:proxy.example"), 20),
        (vec![], None, 16),
    ] {
        let mut shard = OneShard::new(&[], StreamLimits::default());
        let access = Access { trusted, ..Access::default() };
        shard.streams.settings = Rc::new(Settings { access, outbound_proxy, ..Settings::default() });
        for port in 1..=20 {
            let peer = to(SocketAddr::from(([127, 0, 0, 2], port)));
            shard.streams.send(shard.clock.mono(), &peer, &[notify(port.into()).as_bytes()]);
        }
        assert_eq!(shard.streams.len(), dialled, "{:?}", shard.streams.settings.outbound_proxy);
    }
}

/// Anybody could take all dials by requests whose answers found their connections gone and a port in Via that lets nobody in.
#[test]
fn answers_do_not_take_the_dials_of_requests() {
    let good = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], StreamLimits::default());
    let (peer, gone) = shard.reach();
    drop(peer);
    shard.turn_until("the end", |it| it.streams.is_empty());
    let now = shard.clock.mono();
    for host in 1..=40 {
        for port in 1..=4 {
            let gone = Flow { peer: SocketAddr::from(([127, 0, 1, host], 5060)), ..gone };
            shard.streams.send(now, &gone, &[answer_to(&format!("x:{port}")).as_bytes()]);
        }
        assert_eq!(shard.streams.len(), 64.min(2 * usize::from(host)));
    }
    assert_eq!(shard.unsent(), []);
    for port in 1..=3 {
        let same = to(SocketAddr::from(([127, 0, 1, 1], 4 + port)));
        shard.streams.send(now, &same, &[notify(port.into()).as_bytes()]);
    }
    shard.streams.send(now, &to(good.local_addr().unwrap()), &[b"others"]);
    assert_eq!((shard.streams.len(), shard.unsent()), (68, vec![]));
    shard.turn_until("the refusals", |it| it.streams.len() == 1);
    let (mut accepted, _) = good.accept().unwrap();
    assert_eq!(shard.read_from(&mut accepted, 6), "others");
    let gone = Flow { peer: SocketAddr::from(([127, 0, 1, 41], 5060)), ..gone };
    shard.streams.send(now, &gone, &[answer_to("x:1").as_bytes()]);
    assert_eq!(shard.streams.len(), 2, "there is room again");
}

#[test]
fn a_connection_that_is_gone_is_told_and_its_name_means_no_other() {
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], StreamLimits::default());
    let mut first = TcpStream::connect(shard.address).unwrap();
    first.write_all(b"OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n").unwrap();
    let (gone, _) = shard.next_message();
    drop(first);
    shard.turn_until("the end", |it| it.streams.is_empty());
    let mut second = TcpStream::connect(shard.address).unwrap();
    second.write_all(b"OPTIONS sip:b SIP/2.0\r\nl: 0\r\n\r\n").unwrap();
    let (other, _) = shard.next_message();
    assert_eq!(gone.connection.unwrap().slot(), other.connection.unwrap().slot(), "the slot is used again");
    shard.streams.send(shard.clock.mono(), &gone, &[notify(1).as_bytes()]);
    assert_eq!(shard.unsent(), [note(1)]);
    shard.streams.send(shard.clock.mono(), &other, &[notify(2).as_bytes()]);
    assert_eq!(shard.read_from(&mut second, notify(2).len()), notify(2));
}

/// RFC 3261 §18.2.2, RFC 3581 §4: "received" says where a connection is opened for an answer whose own is gone, and the sent-by value
/// at which port; not so for requests of ours, nor for browsers.
#[test]
fn an_answer_without_its_connection_goes_to_the_port_of_its_via() {
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], StreamLimits::default());
    let (peer, gone) = shard.reach();
    drop(peer);
    shard.turn_until("the end", |it| it.streams.is_empty());
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = proxy.local_addr().unwrap().port();
    let answer = answer_to(&format!("proxy.example:{port};rport={};received=127.0.0.1", gone.peer.port()));
    shard.send(&gone, &[notify(1).as_bytes()]);
    let web = Flow { transport: Transport::Ws, ..gone };
    shard.send(&web, &[answer.as_bytes()]);
    assert_eq!((shard.unsent(), shard.counters.connections_dialled.get()), (vec![note(1)], 0));
    for _ in 0..2 {
        shard.send(&gone, &[answer.as_bytes()]);
    }
    let (mut accepted, _) = proxy.accept().unwrap();
    assert_eq!(shard.read_from(&mut accepted, 2 * answer.len()), answer.repeat(2));
    assert_eq!(shard.counters.connections_dialled.get(), 1, "one for both");
}

#[test]
fn a_half_closed_connection_takes_answers_and_no_requests() {
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], StreamLimits::default());
    let mut peer = TcpStream::connect(shard.address).unwrap();
    peer.write_all(b"OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let (flow, _) = shard.next_message();
    let slot = flow.connection.unwrap().slot();
    shard.turn_until("the half end", |it| {
        it.streams.table[slot].as_deref().is_some_and(|it| matches!(it.phase, Phase::Answering { .. }))
    });
    shard.streams.send(shard.clock.mono(), &flow, &[notify(1).as_bytes()]);
    assert_eq!(shard.unsent(), [note(1)]);
    shard.streams.send(shard.clock.mono(), &flow, &[b"SIP/2.0 200 OK\r\n\r\n"]);
    assert_eq!(shard.read_from(&mut peer, 18), "SIP/2.0 200 OK\r\n\r\n");
    shard.turn_until("the whole end", |it| it.streams.is_empty());
}

#[test]
fn what_a_slow_reader_did_not_get_is_told() {
    let message = Duration::from_millis(200);
    let limits = StreamLimits { out_buffer: 100_000, message, ..StreamLimits::default() };
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], limits);
    let (_peer, flow) = shard.reach();
    let body = vec![b'x'; 60_000];
    let mut sent = 0;
    while shard.counters.stream_unsent.get() == 0 {
        shard.send(&flow, &[notify(sent).as_bytes(), &body]);
        sent += 1;
        assert!(sent < 10_000, "somebody takes it all");
    }
    assert_eq!(shard.unsent(), [Note::Unsent { partition: 7, id: sent - 1, check: 0xabcd, lives: true }]);
    assert_eq!(shard.streams.len(), 1, "the connection goes on");
    let began = Instant::now();
    shard.turn_until("the end of patience", |it| it.streams.is_empty());
    assert!(began.elapsed() > message / 2);
    assert_eq!(shard.counters.closed_slow_reader.get(), 1);
    let unsent = shard.unsent();
    assert!(unsent.contains(&note(sent - 2)), "the one that waited");
    assert!(unsent.len() < 100 && (unsent.len() as u32) < sent, "not those that are on their way");
}

#[test]
fn a_reader_that_was_refused_something_and_reads_again_stays() {
    let message = Duration::from_millis(200);
    let limits = StreamLimits { out_buffer: 100_000, message, ..StreamLimits::default() };
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], limits);
    let (mut peer, flow) = shard.reach();
    let body = vec![b'x'; 60_000];
    let mut sent: usize = 0;
    while shard.counters.stream_unsent.get() == 0 {
        shard.send(&flow, &[notify(1).as_bytes(), &body]);
        sent += 1;
    }
    let len = (sent - 1) * (notify(1).len() + body.len());
    let reader = std::thread::spawn(move || {
        peer.read_exact(&mut vec![0; len]).unwrap();
        peer
    });
    shard.turn_until("all is read", |_| reader.is_finished());
    let mut peer = reader.join().unwrap();
    let began = Instant::now();
    shard.turn_until("its time", |_| began.elapsed() > 2 * message);
    assert_eq!((shard.streams.len(), shard.counters.closed_slow_reader.get()), (1, 0));
    shard.send(&flow, &[b"again"]);
    assert_eq!(shard.read_from(&mut peer, 5), "again");
}

/// More than the buffer of a connection, all in one turn.
#[test]
fn large_notifies_of_one_turn_reach_a_willing_reader() {
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], StreamLimits::default());
    let (mut peer, flow) = shard.reach();
    std::thread::spawn(move || std::io::copy(&mut peer, &mut std::io::sink()));
    let body = vec![b'x'; 20_000];
    for number in 0..64 {
        shard.streams.send(shard.clock.mono(), &flow, &[notify(number).as_bytes(), &body]);
    }
    shard.turn();
    assert_eq!((shard.streams.len(), shard.counters.closed_slow_reader.get()), (1, 0));
    assert_eq!(shard.unsent(), []);
}

#[test]
fn what_finds_no_room_while_connecting_is_refused_and_dials_no_other() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut shard = OneShard::new(&[], StreamLimits::default());
    let flow = to(peer.local_addr().unwrap());
    let body = vec![b'x'; 900];
    for number in 0..3000 {
        shard.streams.send(shard.clock.mono(), &flow, &[notify(number).as_bytes(), &body]);
    }
    let figures = &shard.counters;
    assert_eq!((figures.connections_dialled.get(), figures.closed_slow_reader.get()), (1, 0));
    let unsent = shard.unsent();
    assert!(unsent.len() > 1000 && unsent.iter().all(|it| matches!(it, Note::Unsent { lives: true, .. })));
    let (mut accepted, _) = peer.accept().unwrap();
    assert_eq!(shard.read_from(&mut accepted, notify(0).len()), notify(0), "what was taken comes");
}

/// A peer for which something always waits, because it reads no faster than we write.
#[test]
fn what_is_noted_of_a_backlog_is_bounded_by_it() {
    let limits = StreamLimits { out_buffer: 64 << 20, ..StreamLimits::default() };
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], limits);
    let (mut peer, flow) = shard.reach();
    let slot = flow.connection.unwrap().slot();
    let head = notify(1);
    let body = vec![b'x'; 1000 - head.len()];
    let send = |shard: &mut OneShard, count: usize| {
        for _ in 0..count {
            shard.streams.send(shard.clock.mono(), &flow, &[head.as_bytes(), &body]);
        }
    };
    send(&mut shard, 20_000);
    shard.turn();
    let mut room = vec![0; 1_000_000];
    for _ in 0..40 {
        peer.read_exact(&mut room).unwrap();
        send(&mut shard, 1000);
        shard.turn();
    }
    let noted = shard.streams.table[slot].as_deref().unwrap().unwritten.len();
    assert!((1..=20_000).contains(&noted), "{noted} of 60000");
}

#[test]
fn messages_that_are_not_taken_come_again_in_order() {
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], StreamLimits::default());
    let mut peer = TcpStream::connect(shard.address).unwrap();
    let texts: Vec<String> = (0..50).map(|n| format!("OPTIONS sip:{n} SIP/2.0\r\nl: 0\r\n\r\n")).collect();
    peer.write_all(texts.concat().as_bytes()).unwrap();
    let (mut taken, mut asked) = (Vec::new(), 0);
    let began = Instant::now();
    while taken.len() < texts.len() {
        assert!(began.elapsed() < PATIENCE);
        shard.poll();
        let now = shard.clock.mono();
        // Every third finds room.
        shard.streams.take(now, |_, bytes| {
            asked += 1;
            let room = asked % 3 == 0;
            if room {
                taken.push(String::from_utf8(bytes.to_vec()).unwrap());
            }
            room
        });
    }
    assert_eq!(taken, texts);
    assert!(shard.counters.stream_hand_over_waits.get() > 0);
    assert!(!shard.streams.is_blocked());
}

/// A request that came whole is handed over before the end of its connection, however late its owner has room.
#[test]
fn what_is_held_is_handed_over_before_a_broken_stream_ends() {
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0"], StreamLimits::default());
    let mut peer = TcpStream::connect(shard.address).unwrap();
    let whole = "OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n";
    let broken = "OPTIONS sip:b SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n";
    peer.write_all(format!("{whole}{broken}").as_bytes()).unwrap();
    let began = Instant::now();
    while !shard.streams.is_blocked() {
        assert!(began.elapsed() < PATIENCE);
        shard.poll();
        let now = shard.clock.mono();
        shard.streams.take(now, |_, _| false);
        shard.streams.flush(now);
    }
    let (_, message) = shard.next_message();
    assert_eq!(message, whole);
    shard.turn_until("the end", |it| it.counters.stream_broken.get() == 1);
    shard.turn();
    peer.read_to_end(&mut Vec::new()).unwrap();
}

/// RFC 5922 §7.3: "the client MUST compare the original domain portion of the SIP AUS used as input to the RFC 3263 server location
/// procedures to the SIP domain identities obtained from the certificate", and close the connection if none is the same. The
/// name goes into the handshake, too, for servers of several domains.
#[test]
fn a_proxy_that_is_dialled_by_name_must_have_a_certificate_for_it() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let [ours, a, b] = [&["us.example"], &["a.example"], &["127.0.0.1"]].map(|names| ca.issue(names));
    let settings = with_tls(folder.path(), &ca, &[ours]);
    let tls = Some(Arc::new(Tls::open(&settings).unwrap().unwrap()));
    let mut shard = OneShard::new(&[], StreamLimits::default());
    shard.streams.layers = LayerSettings { tls, ..LayerSettings::default() };
    for (identity, uri, route, asked) in [
        (&a, "sip:b@a.example", "", Some("a.example")),
        (&a, "sip:b@192.0.2.1", "Route: <sip:a.example;transport=tls;lr>\r\n", Some("a.example")),
        (&b, "sip:b@127.0.0.1", "", None),
        (&a, "sip:b@other.example", "", Some("other.example")),
        (&a, "sip:b@127.0.0.1", "", None),
        (&b, "sip:b@a.example", "", Some("a.example")),
    ] {
        let accepts = identity.chain() == a.chain() && asked == Some("a.example")
            || identity.chain() == b.chain() && asked.is_none();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let flow = Flow { transport: Transport::Tls, ..to(listener.local_addr().unwrap()) };
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain(), identity.key())
            .unwrap();
        let head = notify(1).replace("sip:b@192.0.2.2", uri).replace("l: 4", &format!("{route}l: 0"));
        let expected = head.clone();
        let proxy = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
            let mut read = vec![0; expected.len()];
            let result = stream.read_exact(&mut read);
            (result.is_ok_and(|()| read == expected.as_bytes()), stream.conn.server_name().map(str::to_owned))
        });
        shard.send(&flow, &[head.as_bytes()]);
        shard.turn_until("the proxy has read it or not", |_| proxy.is_finished());
        assert_eq!(proxy.join().unwrap(), (accepts, asked.map(str::to_owned)), "{uri} {route}");
        shard.turn_until("the end", |it| it.streams.is_empty());
        // What was read is told of only where the proxy did not read it.
        assert_eq!(shard.unsent(), if accepts { vec![] } else { vec![note(1)] }, "{uri} {route}");
    }
    // No certificate can have such a name, and that of the address would not be for it.
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let flow = Flow { transport: Transport::Tls, ..to(somebody.local_addr().unwrap()) };
    let head = notify(1).replace("192.0.2.2", &format!("{}.example", "a".repeat(64)));
    let dialled = shard.counters.connections_dialled.get();
    shard.send(&flow, &[head.as_bytes()]);
    assert_eq!((shard.unsent(), shard.counters.connections_dialled.get()), (vec![note(1)], dialled));
}

/// The connections of one shard and what drives them.
struct OneShard {
    poll: Poll,
    events: Events,
    streams: Streams,
    clock: Clock,
    counters: Arc<CachePadded<NetCounters>>,
    /// Where it listens, if it does.
    address: SocketAddr,
    messages: VecDeque<(Flow, String)>,
}

impl OneShard {
    fn new(listen: &[&str], limits: StreamLimits) -> Self {
        let (poll, clock) = (Poll::new().unwrap(), Clock::start());
        let counters = Arc::new(CachePadded::new(NetCounters::default()));
        let bound: Vec<_> =
            listen.iter().map(|it| bind::bind_streams(parse_listen(it).unwrap(), 1).unwrap()).collect();
        let listeners: Vec<_> = bound.iter().map(|it| it.listen).collect();
        let address = listeners.first().map_or_else(|| "127.0.0.1:1".parse().unwrap(), |it| it.address);
        let streams = Streams::new(StreamsStart {
            carried: Vec::new(),
            shard: 5,
            sockets: (0..).zip(bound.into_iter().flat_map(|it| it.sockets)).collect(),
            listeners,
            registry: poll.registry().try_clone().unwrap(),
            admission: Arc::new(Admission::new(100, 100)),
            settings: Rc::new(Settings { streams: limits, ..Settings::default() }),
            layers: LayerSettings::default(),
            counters: Arc::clone(&counters),
            now: clock.mono(),
            generations: Generations::beginning_at(1),
        });
        Self {
            poll,
            events: Events::with_capacity(16),
            streams: streams.unwrap(),
            clock,
            counters,
            address,
            messages: VecDeque::new(),
        }
    }

    /// A peer with its connection.
    fn reach(&mut self) -> (TcpStream, Flow) {
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.write_all(b"OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n").unwrap();
        (peer, self.next_message().0)
    }

    /// Sends and flushes, as a turn does.
    fn send(&mut self, flow: &Flow, parts: &[&[u8]]) {
        let now = self.clock.mono();
        self.streams.send(now, flow, parts);
        self.streams.flush(now);
    }

    fn poll(&mut self) {
        self.poll.poll(&mut self.events, Some(Duration::from_millis(1))).unwrap();
        for event in &self.events {
            self.streams.on_event(self.clock.mono(), event);
        }
    }

    fn turn(&mut self) {
        self.poll();
        let now = self.clock.mono();
        let messages = &mut self.messages;
        self.streams.take(now, |flow, bytes| {
            messages.push_back((*flow, String::from_utf8(bytes.to_vec()).unwrap()));
            true
        });
        let now = self.clock.mono();
        self.streams.flush(now);
        self.streams.fire_timers(now);
    }

    fn turn_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "{what}");
            self.turn();
        }
    }

    fn next_message(&mut self) -> (Flow, String) {
        self.turn_until("a message", |it| !it.messages.is_empty());
        self.messages.pop_front().unwrap()
    }

    fn read_from(&mut self, peer: &mut TcpStream, len: usize) -> String {
        let mut bytes = vec![0; len];
        self.turn();
        self.turn();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn unsent(&mut self) -> Vec<Note> {
        self.streams.take_unsent().collect()
    }
}

/// A flow to somebody to whom there is no connection yet.
fn to(peer: SocketAddr) -> Flow {
    Flow { transport: Transport::Tcp, listener: 0, local_ip: None, peer, connection: None }
}

/// The head of a NOTIFY of ours, of subscription `id`.
fn notify(id: u32) -> String {
    format!(
        "NOTIFY sip:b@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK~07{id:08x}0000abcd\r\nl: 4\r\n\r\n"
    )
}

/// An answer to a request with this in its Via.
fn answer_to(sent_by: &str) -> String {
    format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP {sent_by};branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
         To: <sip:a@h>;tag=2\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

fn note(id: u32) -> Note {
    Note::Unsent { partition: 7, id, check: 0xabcd, lives: false }
}

/// Of one that was not tried.
fn refused(id: u32) -> Note {
    Note::Unsent { partition: 7, id, check: 0xabcd, lives: true }
}

const PATIENCE: Duration = Duration::from_secs(30);

//! Requests over real sockets: whichever shard a datagram reaches, its answer comes from where it was sent to.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use comsipl_shards::node::{Node, Running};
use comsipl_shards::settings::{Auth, Settings};
use tempfile::TempDir;

#[test]
fn every_user_is_answered_by_the_shard_that_owns_it() {
    let (_folder, node) = start(&["127.0.0.1:0", "[::1]:0"], 4);
    for address in node.addresses().iter().map(|it| it.address) {
        for number in 0..200 {
            let client = client(address.ip());
            client.send_to(&register(&client, address, number, number), address).unwrap();
            expect_ok(&client, address, number);
        }
    }
    let of_all = |count: fn(&comsipl_shards::metrics::NetCounters) -> u64| -> u64 {
        node.counters().iter().map(|counters| count(counters)).sum()
    };
    // The kernel spreads by address and port, we by user: of four shards, three in four are not the owner.
    let handed_over = of_all(|it| it.handed_over.get());
    assert!((200..400).contains(&handed_over), "{handed_over} of 400 handed over");
    assert_eq!(of_all(|it| it.hand_over_dropped.get()), 0);
    assert_eq!(of_all(|it| it.datagrams_in.get()), 400);
    let shards_at_work = node.engine_counters().iter().filter(|it| it.registers.get() > 0).count();
    assert_eq!(shards_at_work, 4);
    node.stop().unwrap();
}

#[test]
fn one_sender_keeps_all_shards_at_work() {
    // Behind a proxy all traffic has one source address, so one socket receives it all.
    let (_folder, node) = start(&["127.0.0.1:0"], 3);
    let address = node.addresses()[0].address;
    let client = client(address.ip());
    const BURST: usize = 50;
    for burst in 0..20 {
        for number in 0..BURST {
            client.send_to(&register(&client, address, burst * BURST + number, 1), address).unwrap();
        }
        for _ in 0..BURST {
            let (text, from) = receive(&client);
            assert_eq!(from, address);
            assert!(text.starts_with("SIP/2.0 200 "), "{text}");
        }
    }
    let registers: Vec<_> = node.engine_counters().iter().map(|it| it.registers.get()).collect();
    assert_eq!(registers.iter().sum::<u64>(), 1000);
    assert!(registers.iter().all(|&count| count > 100), "{registers:?}");
    node.stop().unwrap();
}

#[test]
fn on_a_wildcard_listener_the_answer_comes_from_the_address_asked() {
    let (_folder, node) = start(&["0.0.0.0:0", "[::]:0"], 2);
    let ports: Vec<_> = node.addresses().iter().map(|it| it.address.port()).collect();
    for (port, ip) in
        [(ports[0], "127.0.0.1"), (ports[0], "127.0.0.2"), (ports[0], "127.1.2.3"), (ports[1], "::1")]
    {
        let address = SocketAddr::new(ip.parse().unwrap(), port);
        for number in 0..20 {
            let client = client(if address.is_ipv4() { "127.0.0.1".parse().unwrap() } else { address.ip() });
            client.send_to(&register(&client, address, number, 1), address).unwrap();
            expect_ok(&client, address, number);
        }
    }
    node.stop().unwrap();
}

fn start(listen: &[&str], shards: usize) -> (TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        listen: listen.iter().map(|it| comsipl_shards::config::parse_listen(it).unwrap()).collect(),
        data_dir: folder.path().join("data"),
        shards: Some(shards),
        auth: Auth::None,
        ..Settings::default()
    };
    let node = Node::open(settings).unwrap().start().unwrap();
    (folder, node)
}

fn client(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn register(client: &UdpSocket, server: SocketAddr, user: usize, cseq: usize) -> Vec<u8> {
    let ours = client.local_addr().unwrap();
    let domain = "example.net";
    format!(
        "REGISTER sip:{domain} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {ours};branch=z9hG4bK-{user}-{cseq};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:user{user}@{domain}>;tag=t{user}\r\n\
         To: <sip:user{user}@{domain}>\r\n\
         Call-ID: call-{user}@{server}\r\n\
         CSeq: {} REGISTER\r\n\
         Contact: <sip:user{user}@{ours}>\r\n\
         Expires: 600\r\n\
         Content-Length: 0\r\n\r\n",
        cseq + 1
    )
    .into_bytes()
}

fn expect_ok(client: &UdpSocket, server: SocketAddr, user: usize) {
    let (text, from) = receive(client);
    assert_eq!(from, server);
    assert!(text.starts_with("SIP/2.0 200 "), "{text}");
    assert!(text.contains(&format!("call-{user}@")), "{text}");
}

fn receive(client: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 4096];
    let (len, from) = client.recv_from(&mut buffer).expect("an answer");
    (String::from_utf8_lossy(&buffer[..len]).into_owned(), from)
}

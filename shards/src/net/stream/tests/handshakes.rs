//! How many handshakes a turn takes up.

use super::*;

/// Those beyond wait for the next turns, in their order, and messages of others do not wait with them.
#[test]
fn a_turn_takes_up_so_many_handshakes_and_leaves_time_for_messages() {
    let mut shard = OneShard::new(&["tcp:127.0.0.1:0", "ws:127.0.0.1:0"], StreamLimits::default());
    let (mut phone, flow) = shard.reach();
    let count = 2 * HANDSHAKES_PER_TURN + 3;
    let web = shard.streams.listeners[1].address;
    let mut browsers: Vec<_> = (0..count).map(|_| TcpStream::connect(web).unwrap()).collect();
    shard.turn_until("all are accepted", |it| it.streams.len() == count + 1 && it.streams.ready.is_empty());
    assert_eq!(opening(&shard), count);

    browsers.iter_mut().for_each(|it| it.write_all(UPGRADE.as_bytes()).unwrap());
    poll_until_queued(&mut shard, count);
    phone.write_all(b"OPTIONS sip:b SIP/2.0\r\nl: 0\r\n\r\n").unwrap();
    poll_until_queued(&mut shard, count + 1);
    assert_eq!(shard.streams.ready.back(), Some(&flow.connection.unwrap().slot()), "the message is the last");

    shard.turn();
    assert_eq!(opening(&shard), count - HANDSHAKES_PER_TURN);
    assert_eq!(shard.messages.pop_front().map(|(from, _)| from), Some(flow), "in the first of the turns");
    shard.turn();
    assert_eq!(opening(&shard), count - 2 * HANDSHAKES_PER_TURN);
    assert!(shard.streams.has_work(), "the others do not wait for the poll");
    shard.turn();
    assert_eq!(opening(&shard), 0);
    for browser in &mut browsers {
        assert_eq!(shard.read_from(browser, 12), "HTTP/1.1 101");
    }
}

/// What a client sends behind a handshake that was refused is thrown away, which costs none.
#[test]
fn refused_handshakes_take_nothing_of_what_a_turn_has_for_others() {
    let mut shard = OneShard::new(&["ws:127.0.0.1:0"], StreamLimits::default());
    let count = HANDSHAKES_PER_TURN;
    let mut refused: Vec<_> = (0..count).map(|_| TcpStream::connect(shard.address).unwrap()).collect();
    refused.iter_mut().for_each(|it| it.write_all(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap());
    let mut browser = TcpStream::connect(shard.address).unwrap();
    shard.turn_until("all but one are refused", |it| draining(it) == count && it.streams.len() == count + 1);
    shard.turn_until("nothing is left to read", |it| it.streams.ready.is_empty());

    refused.iter_mut().for_each(|it| it.write_all(b"more").unwrap());
    poll_until_queued(&mut shard, count);
    browser.write_all(UPGRADE.as_bytes()).unwrap();
    poll_until_queued(&mut shard, count + 1);
    shard.turn();
    assert_eq!(draining(&shard), count, "their time is not over");
    assert_eq!(opening(&shard), 0);
    assert_eq!(shard.read_from(&mut browser, 12), "HTTP/1.1 101");
}

/// How many connections have not ended their handshakes.
fn opening(shard: &OneShard) -> usize {
    connections(shard).filter(|it| it.is_handshaking()).count()
}

/// How many connections were refused and wait for their ends.
fn draining(shard: &OneShard) -> usize {
    connections(shard).filter(|it| matches!(it.phase, Phase::Draining { .. })).count()
}

fn connections(shard: &OneShard) -> impl Iterator<Item = &Connection> {
    let table = &shard.streams.table;
    (0..table.high_water() as u32).filter_map(|slot| table[slot].as_deref())
}

/// Lets the poll say what has come, without a turn, until so many connections are to be read.
fn poll_until_queued(shard: &mut OneShard, count: usize) {
    let began = Instant::now();
    while shard.streams.ready.len() < count {
        assert!(began.elapsed() < PATIENCE, "{} of {count} are to be read", shard.streams.ready.len());
        shard.poll();
    }
}

/// What a browser asks for (RFC 7118 §4.1).
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: sip.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n";

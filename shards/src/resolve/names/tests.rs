use comsipl_core::Transport;

use super::*;
use crate::note::Note;
use crate::testing::engine::{Engine, by_tcp, by_udp, ok, publish, subscribe};

/// The `n`th SUBSCRIBE of a watcher behind a proxy that record-routes by a name.
fn subscribe_by_proxy(transport: &str, n: u32, params: &str) -> String {
    let routed = format!("Record-Route: <sip:proxy.example.net;lr{params}>\nEvent:");
    let own = [
        ("Event:", routed),
        ("Call-ID: c1", format!("Call-ID: c{n}")),
        ("z9hG4bKs1", format!("z9hG4bKs{n}")),
    ];
    own.iter().fold(subscribe(transport), |text, (from, to)| text.replace(from, to))
}

fn notifies(sent: Vec<String>) -> Vec<String> {
    sent.into_iter().filter(|it| it.starts_with("NOTIFY ")).collect()
}

/// The holder of its connection says that a NOTIFY found none; what is sent in its place.
fn unsent(engine: &mut Engine, notify: &str) -> Vec<String> {
    let note = Note::unsent(notify.as_bytes(), false).expect("a NOTIFY of ours");
    engine.shard.on_note(engine.now, note);
    notifies(engine.turn())
}

/// Takes the only question of a shard.
fn question(engine: &mut Engine) -> Query {
    let asked = std::mem::take(&mut engine.shard.lookups);
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked.into_iter().next().unwrap()
}

/// DNS says where a name leads, by TCP, for a minute.
fn found(engine: &mut Engine, query: Query, addresses: &[&str]) {
    let place = |address: &&str| Found { transport: Transport::Tcp, address: address.parse().unwrap() };
    let found = addresses.iter().map(place).collect();
    engine.shard.names.answers.push(Answer { query, found, ttl: Duration::from_secs(60) });
}

/// Without anybody to ask, a NOTIFY for a connection that is gone was sent and asked about for ever, as fast as a core can.
#[test]
fn where_nobody_looks_up_names_a_proxy_whose_connection_is_gone_is_unreachable() {
    let mut engine = Engine::new();
    let sent = engine.deliver(by_tcp(1), &subscribe_by_proxy("TCP", 1, ""));
    let mut sent = notifies(sent);
    for round in 0..3 {
        let Some(notify) = sent.pop() else { break };
        sent = unsent(&mut engine, &notify);
        if let Some(query) = engine.shard.lookups.pop() {
            assert_eq!(round, 0, "it is not asked for again");
            engine.shard.lookup_refused(query);
            sent = notifies(engine.turn());
        }
    }
    assert_eq!(sent, [""; 0]);
    assert_eq!(engine.shard.subscriptions.unreachable(), 1);
}

/// Only the first one asked, and the others waited for minutes to be sent to the failed place again.
#[test]
fn all_whose_proxy_takes_no_connection_wait_for_what_dns_says() {
    let mut engine = Engine::new();
    let mut first = Vec::new();
    for n in 1..=3 {
        let sent = engine.deliver(by_udp(), &subscribe_by_proxy("UDP", n, ";transport=tcp"));
        first.extend(notifies(sent));
        if n == 1 {
            let query = question(&mut engine);
            found(&mut engine, query, &["192.0.2.201:5060"]);
            first.extend(notifies(engine.turn()));
        }
    }
    assert_eq!(first.len(), 3);
    for notify in first {
        engine.deliver(by_udp(), &ok(&notify));
    }
    engine.pass(Duration::from_secs(100));
    let changed = notifies(engine.deliver(by_udp(), &publish(1, "open")));
    assert_eq!(changed.len(), 3);
    for notify in changed {
        assert_eq!(unsent(&mut engine, &notify), [""; 0]);
    }
    let query = question(&mut engine);
    found(&mut engine, query, &["192.0.2.201:5060", "192.0.2.202:5060"]);
    engine.shard.on_turn_end(engine.now);
    let peers = engine.shard.outbox.messages().iter().map(|it| it.flow.peer.to_string());
    assert_eq!(peers.collect::<Vec<_>>(), ["192.0.2.202:5060"; 3]);
}

/// All watchers behind one proxy may wait for one name, as after a restart.
#[test]
fn a_turn_goes_on_with_so_many_of_a_name() {
    let mut engine = Engine::new();
    let most = PER_TURN + 10;
    for n in 1..=most as u32 {
        let sent = engine.deliver(by_udp(), &subscribe_by_proxy("UDP", n, ";transport=tcp"));
        assert_eq!(notifies(sent).len(), 0);
    }
    let query = question(&mut engine);
    found(&mut engine, query, &["192.0.2.201:5060"]);
    assert_eq!(notifies(engine.turn()).len(), PER_TURN);
    assert_eq!(engine.shard.deadline(), Some(Mono(0)), "at once");
    assert_eq!(notifies(engine.turn()).len(), 10);
    assert_eq!(engine.turn().len(), 0);
    assert!(engine.shard.names.waits_for.is_empty() && engine.shard.names.settled.is_empty());
}

/// A proxy that asks for quiet has it, unless DNS knows another place; nobody is told the same thing again at once.
#[test]
fn who_asks_for_quiet_and_is_the_only_place_has_it() {
    let mut engine = Engine::new();
    engine.deliver(by_udp(), &subscribe_by_proxy("UDP", 1, ";transport=tcp"));
    let query = question(&mut engine);
    found(&mut engine, query, &["192.0.2.201:5060"]);
    let first = notifies(engine.turn());
    engine.deliver(by_udp(), &ok(&first[0]));
    engine.pass(Duration::from_secs(100));
    let changed = notifies(engine.deliver(by_udp(), &publish(1, "open")));
    let busy = |notify: &str| {
        ok(notify)
            .replace("200 OK", "503 Service Unavailable")
            .replace("Content-Length", "Retry-After: 60\nContent-Length")
    };
    assert_eq!(notifies(engine.deliver(by_udp(), &busy(&changed[0]))), [""; 0]);
    let query = question(&mut engine);
    found(&mut engine, query, &["192.0.2.201:5060"]);
    assert_eq!(notifies(engine.turn()), [""; 0]);
    assert_eq!(notifies(engine.pass(Duration::from_secs(59))), [""; 0]);
    let again = notifies(engine.pass(Duration::from_secs(2)));
    assert_eq!(again.len(), 1);
    engine.deliver(by_udp(), &ok(&again[0]));
    engine.pass(Duration::from_secs(100));

    let changed = notifies(engine.deliver(by_udp(), &publish(2, "closed")));
    engine.deliver(by_udp(), &busy(&changed[0]));
    let query = question(&mut engine);
    found(&mut engine, query, &["192.0.2.201:5060", "192.0.2.202:5060"]);
    engine.shard.on_turn_end(engine.now);
    let peers = engine.shard.outbox.messages().iter().map(|it| it.flow.peer.to_string());
    assert_eq!(peers.collect::<Vec<_>>(), ["192.0.2.202:5060"]);
}

/// The connection by which a SUBSCRIBE is repeated after a restart is where its watcher is, whatever a name says later.
#[test]
fn a_repeated_subscribe_brings_its_connection_although_a_name_is_asked_for() {
    let mut engine = Engine::new();
    let message = subscribe_by_proxy("TCP", 1, "");
    engine.deliver(by_tcp(1), &message);
    let mut engine = engine.restart(|_| ());
    engine.turn();
    question(&mut engine);
    let sent = notifies(engine.deliver(by_tcp(2), &message));
    assert_eq!(sent.len(), 1);
    engine.deliver(by_tcp(2), &ok(&sent[0]));
    assert_eq!(engine.shard.counters.notifies_delivered.get(), 1);
}

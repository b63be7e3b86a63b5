use comsipl_core::Flow;

use crate::note::Note;
use crate::testing::engine::{Engine, by_tcp, by_udp, field, ok, publish, subscribe};

/// A REGISTER of bob's phone, whose instance is 1.
fn register(cseq: u32) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\nVia: SIP/2.0/TCP 192.0.2.7:5060;branch=z9hG4bKr{cseq}\nMax-Forwards: 70\n\
         From: <sip:bob@example.com>;tag=r\nTo: <sip:bob@example.com>\nCall-ID: r1\nCSeq: {cseq} REGISTER\n\
         Contact: <sip:bob@192.0.2.7:5060;transport=tcp>;+sip.instance=\"<urn:uuid:1>\"\nContent-Length: 0\n\n"
    )
}

/// A PUBLISH of alice's with a document that is too long for UDP.
fn publish_long(n: u32) -> String {
    let note = format!("</status><note>{}</note>", "far away ".repeat(150));
    let text = publish(n, "open").replace("</status>", &note);
    let (head, body) = text.split_once("\n\n").unwrap();
    let (head, _) = head.rsplit_once("Content-Length").unwrap();
    format!("{head}Content-Length: {}\n\n{body}", body.len())
}

/// The NOTIFY that leaves when this comes.
fn notify_after(engine: &mut Engine, flow: Flow, message: &str) -> String {
    let sent = engine.deliver(flow, message);
    sent.into_iter().find(|it| it.starts_with("NOTIFY ")).expect("the state is told")
}

fn is_by(notify: &str, transport: &str) -> bool {
    notify.contains(&format!("\r\nVia: SIP/2.0/{transport} 198.51.100.1:5060;"))
}

fn cseq(notify: &str) -> u32 {
    field(notify, "CSeq").split(' ').next().unwrap().parse().unwrap()
}

/// RFC 3261 §18.1.1; without a connection UDP does, as §18.1.1 has it where none is taken, and that is counted.
#[test]
fn only_what_goes_by_udp_is_counted_as_too_long_for_it() {
    let mut engine = Engine::new();
    let first = notify_after(&mut engine, by_udp(), &subscribe("UDP"));
    engine.deliver(by_udp(), &ok(&first));
    let by_datagram = notify_after(&mut engine, by_udp(), &publish_long(1));
    assert!(is_by(&by_datagram, "UDP") && by_datagram.len() > 1300);
    assert_eq!(cseq(&by_datagram), cseq(&first) + 1, "no number is left out");
    assert_eq!(engine.shard.counters.notifies_over_mtu.get(), 1);

    let mut engine = Engine::new();
    engine.deliver(by_tcp(1), &register(1));
    let first = notify_after(&mut engine, by_udp(), &subscribe("UDP"));
    engine.deliver(by_udp(), &ok(&first));
    let by_connection = notify_after(&mut engine, by_udp(), &publish_long(1));
    assert!(is_by(&by_connection, "TCP"));
    assert_eq!(cseq(&by_connection), cseq(&first) + 1);
    assert_eq!(engine.shard.counters.notifies_over_mtu.get(), 0);
    // The connection is gone.
    let note = Note::unsent(by_connection.as_bytes(), false).unwrap();
    engine.shard.on_note(engine.now, note);
    let again = engine.turn().remove(0);
    assert!(is_by(&again, "UDP") && again.contains("far away"));
    assert_eq!(engine.shard.counters.notifies_over_mtu.get(), 1);
    engine.deliver(by_udp(), &ok(&again));
    assert_eq!(engine.shard.counters.stray_answers.get(), 0);
}

/// A phone that has registered says where its SUBSCRIBE came from as little as any other: the answers that come by its connection
/// prove nothing of that source, and what it has seen there is of no use for answering in its name.
#[test]
fn answers_by_the_connection_do_not_prove_the_source() {
    let mut engine = Engine::new();
    engine.deliver(by_tcp(1), &register(1));
    let gruu =
        subscribe("UDP").replace("sip:bob@192.0.2.7:5060;transport=UDP", "sip:bob@example.com;gr=urn:uuid:1");
    let first = notify_after(&mut engine, by_udp(), &gruu);
    assert!(is_by(&first, "TCP"));
    let ids: Vec<u32> = (0..engine.shard.subscriptions.high_water() as u32).collect();
    let [id] = ids[..] else { panic!("there is one subscription: {ids:?}") };
    engine.shard.subscriptions[id].unproved = true;
    engine.deliver(by_tcp(1), &ok(&first));
    assert_eq!(engine.shard.counters.notifies_delivered.get(), 1);
    assert!(engine.shard.subscriptions[id].unproved);
    let secret = engine.shard.subscriptions[id].secret;
    let second = notify_after(&mut engine, by_udp(), &publish(1, "open"));
    assert_eq!(engine.shard.subscriptions[id].secret, secret);
    engine.shard.on_note(engine.now, Note::unsent(second.as_bytes(), false).unwrap());
    assert!(is_by(&engine.turn().remove(0), "UDP"));
    assert_ne!(engine.shard.subscriptions[id].secret, secret);
}

/// Whoever asks is answered, and an answer to an earlier question is not taken.
#[test]
fn an_answer_belongs_to_its_question() {
    let mut engine = Engine::new();
    engine.deliver(by_tcp(1), &register(1));
    let first = notify_after(&mut engine, by_udp(), &subscribe("UDP"));
    engine.deliver(by_udp(), &ok(&first));
    assert!(is_by(&notify_after(&mut engine, by_udp(), &publish_long(1)), "TCP"));
    let id = 0; // the only one
    let known = engine.shard.bound_flows.of(id);
    assert_eq!(known, Some(by_tcp(1)));
    let late = Note::FlowFound { id, question: 0, flow: Some(by_tcp(9)) };
    engine.shard.on_note(engine.now, late);
    assert_eq!(engine.shard.bound_flows.of(id), known);
    engine.shard.drop_subscription(engine.now, id);
    assert!(engine.shard.bound_flows.each.is_empty() && engine.shard.bound_flows.by_device.is_empty());
}

use std::time::Duration;

use crate::note::Note;
use crate::testing::engine::{Engine, by_tcp, by_udp, ok, publish, subscribe};

/// A watcher over a connection that does not answer its first NOTIFY, and that NOTIFY.
fn watched_by_tcp() -> (Engine, String) {
    let mut engine = Engine::new();
    let sent = engine.deliver(by_tcp(1), &subscribe("TCP"));
    let notify = sent.into_iter().find(|it| it.starts_with("NOTIFY ")).expect("the state is told");
    (engine, notify)
}

/// The holder of its connection says that a NOTIFY was not sent.
fn unsent(engine: &mut Engine, notify: &str, lives: bool) -> Vec<String> {
    let note = Note::unsent(notify.as_bytes(), lives).expect("a NOTIFY of ours");
    engine.shard.on_note(engine.now, note);
    engine.turn()
}

/// RFC 3261 §8.1.3.1: a transport error is treated as a 503; the same connection does a while later.
#[test]
fn a_notify_for_which_there_was_no_room_is_tried_again_by_the_same_connection() {
    let (mut engine, notify) = watched_by_tcp();
    assert!(unsent(&mut engine, &notify, true).is_empty());
    assert_eq!(engine.shard.subscriptions.unreachable(), 0);
    assert!(engine.pass(Duration::from_secs(4)).is_empty(), "the pause of a 503 is longer");
    let again = engine.pass(Duration::from_secs(2)).remove(0);
    assert!(
        again.starts_with("NOTIFY sip:bob@192.0.2.7:5060;transport=TCP SIP/2.0\r\nVia: SIP/2.0/TCP "),
        "{again}"
    );
    assert!(again.contains("\r\nCSeq: 2 NOTIFY\r\n"), "{again}");
    // Whoever speaks of the first one speaks of the past.
    assert!(unsent(&mut engine, &notify, true).is_empty());
    assert_eq!(engine.shard.counters.notifies_unsent.get(), 1);
}

/// A newer state need not wait for the end of that pause.
#[test]
fn a_newer_state_ends_the_pause_of_a_full_connection() {
    let (mut engine, notify) = watched_by_tcp();
    unsent(&mut engine, &notify, true);
    let sent = engine.deliver(by_udp(), &publish(1, "open"));
    assert!(sent.iter().any(|it| it.starts_with("NOTIFY ") && it.contains(">open<")), "{sent:?}");
}

/// A subscription ran out while its NOTIFY was under way, and then it turned out that its connection had been gone: nothing would
/// have brought it back, because its timer had fired and its watcher was nowhere.
#[test]
fn a_subscription_that_has_run_out_ends_with_its_connection() {
    let (mut engine, notify) = watched_by_tcp();
    engine.deliver(by_tcp(1), &ok(&notify));
    engine.pass(Duration::from_secs(3595));
    let sent = engine.deliver(by_udp(), &publish(1, "open"));
    let notify = sent.into_iter().find(|it| it.starts_with("NOTIFY ")).expect("the change is told");
    engine.pass(Duration::from_secs(6));
    assert_eq!(engine.shard.subscriptions.len(), 1, "its last NOTIFY waits for the answer to this one");
    unsent(&mut engine, &notify, false);
    assert_eq!(engine.shard.subscriptions.len(), 0);
    assert_eq!(engine.shard.subscriptions.unreachable(), 0);
}

use std::time::Duration;

use comsipl_core::Mono;
use comsipl_core::auth::Source;

use crate::testing::engine::{Engine, by_udp, field, ok, subscribe};

fn notifies(sent: Vec<String>) -> Vec<String> {
    sent.into_iter().filter(|it| it.starts_with("NOTIFY ")).collect()
}

/// Our tag in the NOTIFY behind an answer.
fn our_tag(sent: &[String]) -> String {
    field(&sent[1], "From").split(";tag=").nth(1).expect("our tag").to_owned()
}

/// A watcher who has not answered yet, where nothing more may be sent for five minutes; and our tag.
fn out_of_reach() -> (Engine, String) {
    let mut engine = Engine::open_to_all();
    let sent = engine.deliver(by_udp(), &subscribe("UDP"));
    assert_eq!(sent.len(), 2);
    let tag = our_tag(&sent);
    let address = Source::of(by_udp().peer.ip());
    engine.shard.guard.gate.reach.spend(engine.now.mono, address, 700_000);
    (engine, tag)
}

/// A SUBSCRIBE within the dialog, with a Contact that makes the NOTIFY a new one.
fn within(tag: &str, expires: u32) -> String {
    let own = [
        ("To: <sip:alice@example.com>", format!("To: <sip:alice@example.com>;tag={tag}")),
        ("CSeq: 1", "CSeq: 2".to_owned()),
        ("z9hG4bKs1", "z9hG4bKs2".to_owned()),
        ("sip:bob@192.0.2.7", "sip:robert@192.0.2.7".to_owned()),
        ("Expires: 3600", format!("Expires: {expires}")),
    ];
    own.iter().fold(subscribe("UDP"), |text, (from, to)| text.replace(from, to))
}

fn answered(sent: &[String], status: u16) -> bool {
    sent.len() == 1 && sent[0].starts_with(&format!("SIP/2.0 {status} "))
}

#[test]
fn what_was_withheld_each_time_is_no_silence_of_the_watcher() {
    let (mut engine, tag) = out_of_reach();
    let sent = engine.deliver(by_udp(), &within(&tag, 3600));
    assert!(answered(&sent, 200), "accepted, and told later: {sent:?}");
    for _ in 0..200 {
        assert_eq!(notifies(engine.pass(Duration::from_secs(1))), [""; 0]);
        assert_eq!(engine.shard.subscriptions.len(), 1, "nobody has been silent");
    }
    assert_eq!(engine.shard.counters.notifies_timed_out.get(), 0);
    let told = (0..600).map(|_| notifies(engine.pass(Duration::from_secs(1)))).find(|it| !it.is_empty());
    engine.deliver(by_udp(), &ok(&told.expect("when there is room")[0]));
    assert_eq!(engine.shard.counters.notifies_delivered.get(), 1);
}

#[test]
fn a_known_watcher_may_refresh_and_end_whatever_was_sent() {
    for expires in [3600, 0] {
        let (mut engine, tag) = out_of_reach();
        let sent = engine.deliver(by_udp(), &within(&tag, expires));
        assert!(answered(&sent, 200), "{sent:?}");
    }
}

#[test]
fn a_new_watcher_out_of_reach_is_told_of_this_one_request() {
    let (mut engine, _) = out_of_reach();
    let other = subscribe("UDP").replace("Call-ID: c1", "Call-ID: c2").replace("z9hG4bKs1", "z9hG4bKs2");
    let sent = engine.deliver(by_udp(), &other);
    assert!(answered(&sent, 500) && sent[0].contains("\r\nRetry-After: "), "{sent:?}");
    assert_eq!(engine.shard.subscriptions.len(), 1);
}

#[test]
fn a_refusal_proves_who_sends_it() {
    let mut engine = Engine::open_to_all();
    let notify = notifies(engine.deliver(by_udp(), &subscribe("UDP"))).remove(0);
    let address = Source::of(by_udp().peer.ip());
    assert!(!engine.shard.guard.gate.reach.is_proved(engine.now.mono, address));
    engine.deliver(by_udp(), &ok(&notify).replace("200 OK", "500 Oops"));
    assert!(engine.shard.guard.gate.reach.is_proved(engine.now.mono, address));
}

#[test]
fn who_is_told_again_and_again_stays_proved() {
    let mut engine = Engine::open_to_all();
    let sent = engine.deliver(by_udp(), &subscribe("UDP"));
    let (tag, address) = (our_tag(&sent), Source::of(by_udp().peer.ip()));
    let mut notify = notifies(sent).remove(0);
    for n in 2..=64 {
        engine.deliver(by_udp(), &ok(&notify));
        engine.pass(Duration::from_secs(50));
        let refresh = within(&tag, 3600).replace("CSeq: 2", &format!("CSeq: {n}"));
        let refresh = refresh.replace("z9hG4bKs2", &format!("z9hG4bKs{n}"));
        notify = notifies(engine.deliver(by_udp(), &refresh)).remove(0);
    }
    let proved_until = Mono(0) + crate::reach::PROOF_LASTS;
    engine.deliver(by_udp(), &ok(&notify));
    assert!(engine.now.mono < proved_until);
    assert!(engine.shard.guard.gate.reach.is_proved(proved_until, address));
}

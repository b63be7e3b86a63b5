use super::*;
use crate::metrics::ENGINE_GAUGES;
use crate::subscriptions::CSEQ_BLOCK;
use crate::testing::engine::{Engine, by_udp, ok, subscribe};

/// A shard with one subscription, whose first NOTIFY is answered.
fn watched() -> Engine {
    let mut engine = Engine::new();
    let sent = engine.deliver(by_udp(), &subscribe("UDP"));
    engine.deliver(by_udp(), &ok(&sent[1]));
    assert_eq!(engine.shard.audit_all(), Findings::default());
    engine
}

#[test]
fn a_subscription_that_nothing_frees_is_found() {
    let mut engine = watched();
    engine.shard.subscriptions.expiry.cancel(0);
    let expected = Findings { subscriptions_never_freed: 1, ..Findings::default() };
    assert_eq!(engine.shard.audit_all(), expected);
}

#[test]
fn a_watcher_whom_nobody_tells_is_found() {
    let mut engine = watched();
    engine.shard.subscriptions[0].owed = true;
    let expected = Findings { watchers_never_told: 1, ..Findings::default() };
    assert_eq!(engine.shard.audit_all(), expected);
}

#[test]
fn a_number_that_the_record_does_not_know_is_found() {
    let mut engine = watched();
    engine.shard.subscriptions[0].cseq += CSEQ_BLOCK;
    let expected = Findings { numbers_never_reserved: 1, ..Findings::default() };
    assert_eq!(engine.shard.audit_all(), expected);
}

#[test]
fn a_notify_without_a_timer_is_found() {
    let mut engine = Engine::new();
    engine.deliver(by_udp(), &subscribe("UDP"));
    engine.shard.attempt_timers.cancel(0);
    let expected = Findings { notifies_never_ended: 1, ..Findings::default() };
    assert_eq!(engine.shard.audit_all(), expected);
}

#[test]
fn a_user_of_whom_nothing_is_known_is_found() {
    let mut engine = watched();
    let key = engine.shard.keys.aor(b"nobody@example.com");
    engine.shard.presentities.find_or_insert(key, 0);
    let expected = Findings { presentities_never_freed: 1, ..Findings::default() };
    assert_eq!(engine.shard.audit_all(), expected);
}

#[test]
fn what_is_found_is_told_when_all_was_seen_and_taken_back_when_it_is_gone() {
    let mut engine = watched();
    let told = |engine: &Engine| engine.shard.counters.watchers_never_told.get();
    engine.shard.subscriptions[0].owed = true;
    engine.pass(PAUSE);
    engine.pass(PAUSE);
    assert_eq!(told(&engine), 1);
    engine.shard.subscriptions[0].owed = false;
    engine.pass(PAUSE);
    engine.pass(PAUSE);
    assert_eq!(told(&engine), 0);
}

#[test]
fn what_was_found_are_gauges() {
    let counters = Engine::new().shard.counters;
    for (name, _) in counters.each().filter(|(name, _)| is_finding(name)) {
        assert!(ENGINE_GAUGES.contains(&name), "{name}");
    }
    assert_eq!(counters.each().filter(|(name, _)| is_finding(name)).count(), 7);
}

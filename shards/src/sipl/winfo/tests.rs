use super::*;
use crate::testing::engine::Engine;

/// Nobody watches, which is said twice, and then somebody does again: the first word must not end what he watches.
#[test]
fn whoever_watches_again_is_not_forgotten_when_an_earlier_time_is_up() {
    let mut engine = Engine::new();
    let key = AorKey(7);
    let half = LINGER / 2;
    engine.shard.watch_watchers(engine.now, key);
    engine.shard.unwatch_watchers(engine.now, key);
    engine.pass(half);
    engine.shard.unwatch_watchers(engine.now, key);
    engine.shard.watch_watchers(engine.now, key);
    engine.pass(LINGER);
    assert!(engine.shard.watched_watchers.of.contains_key(&key), "somebody wants to know");
    assert!(engine.shard.watched_watchers.lingering.is_empty());
}

/// A shard that says that nobody watches there, where nobody did, says nothing new.
#[test]
fn the_end_of_watching_counts_once() {
    let mut engine = Engine::new();
    let user = AorKey(7);
    let package = EventPackage::presence_winfo();
    let key = engine.shard.keys.resource(user, package);
    engine.shard.on_note(engine.now, Note::Watch { key, shard: 0, package: package.number });
    engine.shard.on_note(engine.now, Note::Unwatch { key, shard: 0 });
    let until = engine.shard.watched_watchers.deadline();
    engine.pass(LINGER / 2);
    engine.shard.on_note(engine.now, Note::Unwatch { key, shard: 0 });
    assert!(until.is_some());
    assert_eq!(engine.shard.watched_watchers.deadline(), until);
}

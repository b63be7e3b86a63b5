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

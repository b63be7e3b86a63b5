//! A node as a whole: it starts, it works, it ends, and it says why.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::sample::without_processor;
use super::shard_thread::report_end;
use super::*;

#[test]
fn who_shares_a_processor_is_kept_waiting_for_it() {
    let cpu = usable_cpus().unwrap()[0];
    let begin = std::sync::Barrier::new(2);
    let spin = || {
        let mut set = CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set).unwrap();
        begin.wait();
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end {}
        without_processor(rustix::thread::gettid())
    };
    let waited = std::thread::scope(|scope| {
        let threads = [scope.spawn(spin), scope.spawn(spin)];
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Duration>()
    });
    // Each of two wants all of the same tenth of a second.
    assert!(waited >= Duration::from_millis(50), "{waited:?}");
}

#[test]
fn a_node_starts_takes_datagrams_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(&folder, 3);
    let [Listen { address, .. }] = *running.addresses() else { panic!("one listener") };
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let counters: Vec<_> = running.counters().to_vec();
    client.send_to(b"\r\n\r\n", address).unwrap();
    let counted = || counters.iter().map(|it| it.datagrams_in.get()).sum::<u64>();
    let patience = Instant::now() + Duration::from_secs(10);
    while counted() == 0 {
        assert!(Instant::now() < patience, "the datagram is not taken");
        std::thread::yield_now();
    }
    assert_eq!(running.engine_counters().len(), 3);
    running.stop().unwrap();
    client.send_to(b"late", address).ok();
    start(&folder, 2).stop().expect("files and threads were let go of");
}

#[test]
fn an_idle_shard_makes_no_turn() {
    let folder = tempfile::tempdir().unwrap();
    let idle = start(&folder, 4);
    let other = tempfile::tempdir().unwrap();
    // Time passes while another node starts and stops.
    for _ in 0..10 {
        start(&other, 2).stop().unwrap();
    }
    let turns: Vec<_> = idle.counters().iter().map(|it| it.turns.get()).collect();
    assert_eq!(turns, [0; 4]);
}

#[test]
fn a_stopper_stops_from_anywhere_and_more_than_once() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(&folder, 1);
    let stopper = running.stopper();
    let again = stopper.clone();
    std::thread::spawn(move || stopper.stop());
    running.wait().unwrap();
    again.stop();
}

#[test]
fn dropping_a_node_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    drop(start(&folder, 2));
    drop(start(&folder, 2));
}

/// Watchers are owed what changed shortly before the last heartbeat; one of a process that told nobody would end that too early.
#[test]
fn a_node_that_may_not_serve_leaves_no_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    start(&folder, 2).stop().unwrap();
    let settings = settings(&folder, 2);
    let last =
        || NodeFiles::open(&settings, 2, Coming::Alone).unwrap().recovered().presence.last_heartbeat_ms;
    let before = last();
    assert_ne!(before, 0);
    let refuse = || {
        std::thread::sleep(Duration::from_millis(20)); // Some intervals of syncing, in which nothing is to happen.
        Err(StartError::TakeOver { why: "no".to_owned() })
    };
    let mut quickly = settings.clone();
    quickly.sync_interval = Duration::from_millis(1);
    assert!(matches!(Node::open(quickly).unwrap().start_if(refuse), Err(StartError::TakeOver { .. })));
    assert_eq!(last(), before);
}

#[test]
fn a_panicking_shard_ends_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(&folder, 2);
    let events = running.events.clone();
    std::thread::spawn(move || report_end(1, &events, || panic!("on purpose"))).join().unwrap();
    match running.wait() {
        Err(NodeFailure::ShardPanicked { index: 1, message }) => assert_eq!(message, "on purpose"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failing_shard_ends_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(&folder, 2);
    report_end(0, &running.events, || Err(std::io::ErrorKind::OutOfMemory.into()));
    assert!(matches!(running.wait(), Err(NodeFailure::ShardFailed { index: 0, .. })));
    let running = start(&folder, 2);
    report_end(0, &running.events, || Ok(Vec::new()));
    assert!(matches!(running.wait(), Err(NodeFailure::ShardLeft { index: 0 })), "nobody asked it to end");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let exposed =
        Settings { listen: vec![crate::config::parse_listen("0.0.0.0:0").unwrap()], ..settings(&folder, 1) };
    assert!(matches!(Node::open(exposed), Err(StartError::Exposed(_))));
    let foreign = Settings {
        listen: vec![crate::config::parse_listen("127.0.0.1:0").unwrap()],
        ..settings(&folder, 1)
    };
    std::fs::write(folder.path().join("file"), "").unwrap();
    let no_dir = Settings { data_dir: folder.path().join("file/dir"), ..foreign };
    assert!(matches!(Node::open(no_dir), Err(StartError::DataDir { .. })));
}

fn start(folder: &TempDir, shards: usize) -> Running {
    Node::open(settings(folder, shards)).unwrap().start().unwrap()
}

fn settings(folder: &TempDir, shards: usize) -> Settings {
    Settings {
        listen: vec![crate::config::parse_listen("127.0.0.1:0").unwrap()],
        data_dir: folder.path().join("data"),
        shards: Some(shards),
        ..Settings::default()
    }
}

//! Thousands of connections at a time; alone in its process, because it counts the descriptors.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use comsipl_shards::node::Node;
use comsipl_shards::settings::{Auth, Settings, StreamLimits};

const WANTED: usize = 5_000;

#[test]
fn connections_come_and_go_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        listen: vec![comsipl_shards::config::parse_listen("tcp:127.0.0.1:0").unwrap()],
        data_dir: folder.path().join("data"),
        shards: Some(4),
        auth: Auth::None,
        streams: StreamLimits { connections_per_source_max: WANTED, ..StreamLimits::default() },
        ..Settings::default()
    };
    let node = Node::open(settings).unwrap().start().unwrap();
    // The node has raised the limit as far as it goes. Both ends of each connection are ours.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = WANTED.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(500) / 2);
    if count < WANTED {
        eprintln!("the limit of {limit} open files allows {count} connections instead of {WANTED}");
    }
    assert!(count >= 100, "raise the limit of open files (ulimit -n)");
    let address = node.addresses()[0].address;
    let open = || node.counters().iter().map(|it| it.snapshot().connections_open()).sum::<u64>();
    let before = descriptors();
    for round in 0..2 {
        let mut phones: Vec<_> = (0..count).map(|_| TcpStream::connect(address).unwrap()).collect();
        for phone in &mut phones {
            phone.set_read_timeout(Some(PATIENCE)).unwrap();
            phone.write_all(b"\r\n\r\n").unwrap();
        }
        for phone in &mut phones {
            phone.read_exact(&mut [0; 2]).expect("a pong");
        }
        assert_eq!(open(), count as u64, "round {round}");
        assert_eq!(descriptors(), before + 2 * count);
        drop(phones);
        let began = Instant::now();
        while open() > 0 {
            assert!(began.elapsed() < PATIENCE, "{} connections are left", open());
            std::thread::yield_now();
        }
        assert_eq!(descriptors(), before, "round {round}");
    }
    node.stop().unwrap();
}

/// How many descriptors this process has open.
fn descriptors() -> usize {
    // One of them is that of the directory itself, every time.
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

//! Runs of the load generator against a node, over the transports that it speaks.

use std::net::SocketAddr;

use clap::Parser as _;
use comsipl_core::Transport;
use comsipl_loadgen::cli::Cli;
use comsipl_loadgen::report::Report;
use comsipl_loadgen::run;
use comsipl_shards::config::parse_listen;
use comsipl_shards::node::Node;
use comsipl_shards::settings::Settings;

/// Runs a command line of the generator against two shards that listen over both transports.
fn measure(transport: Transport, line: &str) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let listen = ["udp:127.0.0.1:0", "tcp:127.0.0.1:0"].map(|it| parse_listen(it).unwrap());
    let settings = Settings {
        listen: listen.to_vec(),
        data_dir: folder.path().join("data"),
        shards: Some(2),
        ..Settings::default()
    };
    let running = Node::open(settings).unwrap().start().unwrap();
    let target: SocketAddr = running.addresses().iter().find(|it| it.transport == transport).unwrap().address;
    let target = target.to_string();
    let words = ["comsipl-loadgen"].into_iter().chain(line.split_whitespace());
    let report = run::run(&Cli::parse_from(words.chain(["--target", &target, "--quiet"])).command).unwrap();
    running.stop().unwrap();
    report
}

#[test]
fn phones_that_share_connections_are_told_everything() {
    // Subscriptions belong to shards by their Call-ID, connections to shards by chance: half of all NOTIFYs cross over.
    let report = measure(
        Transport::Tcp,
        "fanout --presentities 10 --watchers 20 --rate 100 --duration 0.5 --threads 2 --transport tcp \
         --connections 5",
    );
    assert!(report.passed, "{report}");
    assert_eq!(report.total.published, 10 + 50 + 10, "first states, changes, and removals");
    assert_eq!(report.percentiles.publish_notify.count, 50 * 20);
    let total = report.total;
    assert_eq!((total.retransmissions_sent, total.notify_retransmissions), (0, 0), "RFC 3261 §17.1.2.2");
    assert_eq!((total.malformed, total.connections_lost, total.send_errors), (0, 0, 0));
}

#[test]
fn each_phone_may_have_a_connection_of_its_own() {
    let report = measure(
        Transport::Tcp,
        "subscribe --presentities 4 --watchers 25 --rate 200 --duration 0.5 --keep --transport tcp --connections 100",
    );
    assert!(report.passed, "{report}");
    // Of all the run: what is answered after the half second is no part of the measured time.
    assert_eq!((report.sockets, report.total.subscribed), (100, 100));
    assert_eq!(report.percentiles.subscribe_notify.count, 100);
    let report = measure(Transport::Tcp, "register --users 200 --transport tcp --connections 200");
    assert!(report.passed, "{report}");
    assert_eq!((report.total.registered, report.total.retransmissions_sent), (400, 0));
}

#[test]
fn phones_whose_server_was_away_connect_again() {
    let folder = tempfile::tempdir().unwrap();
    let listen = |port: u16| parse_listen(&format!("tcp:127.0.0.1:{port}")).unwrap();
    let node = |port: u16| {
        let settings = Settings {
            listen: vec![listen(port)],
            data_dir: folder.path().join("data"),
            shards: Some(2),
            ..Settings::default()
        };
        Node::open(settings).unwrap().start().unwrap()
    };
    let running = node(0);
    let target = running.addresses()[0].address;
    let line = format!(
        "comsipl-loadgen register --users 20 --rate 20 --duration 3 --keep --transport tcp --connections 4 \
         --target {target} --quiet"
    );
    let phones = std::thread::spawn(move || run::run(&Cli::parse_from(line.split_whitespace()).command));
    let registers = |running: &comsipl_shards::node::Running| -> u64 {
        let counters = running.engine_counters().iter().flat_map(|it| it.each());
        counters.filter(|(name, _)| *name == "registers").map(|(_, value)| value).sum()
    };
    while registers(&running) < 20 {
        std::thread::yield_now();
    }
    running.stop().unwrap();
    let running = node(target.port());
    let report = phones.join().unwrap().unwrap();
    running.stop().unwrap();
    // All, and once more whoever came back so early that the kernel still took it for the server that ended.
    assert!((4..=8).contains(&report.total.connections_lost), "{report}");
    assert!(report.passed, "{report}");
    assert_eq!((report.total.registered, report.total.timed_out), (60, 0), "{report}");
}

#[test]
fn the_same_over_udp_is_told_by_datagrams() {
    let report = measure(Transport::Udp, "fanout --presentities 10 --watchers 20 --rate 100 --duration 0.5");
    assert!(report.passed, "{report}");
    assert_eq!(report.percentiles.publish_notify.count, 50 * 20);
}

/// Under load, and over both transports, one process after another takes over, and no phone notices.
#[test]
fn phones_whose_server_is_succeeded_notice_nothing() {
    // An address of this test's alone, because the port is to be free again and again.
    for (port, transport, more) in [(5061, "udp", ""), (5062, "tcp", "--transport tcp --connections 100")] {
        let folder = tempfile::tempdir().unwrap();
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = format!("127.79.{high}.{low}:{port}");
        let server = format!(
            "{} serve --listen {transport}:{address} --data-dir {} --shards 2 --log warn --log-format json",
            comsipl_tests::server::binary().unwrap().display(),
            folder.path().display()
        );
        let line = format!(
            "comsipl-loadgen run take-over --scale 0.1 --stretch 0.1 --quiet --target {address} {more} --server-command"
        );
        let words = line.split_whitespace().chain([server.as_str()]);
        let report = run::run(&Cli::parse_from(words).command).unwrap();
        assert!(report.passed, "{report}");
        assert!(report.total.published > 80 && report.audit.is_some(), "{report}");
    }
}

/// Strangers send 20,000 damaged messages; whoever had subscribed before is told of everything all the same.
#[test]
fn earlier_subscriptions_survive_hostile_datagrams() {
    let report = measure(
        Transport::Udp,
        "hostile --count 20000 --rate 10000 --ports 32 --presentities 10 --watchers 10 --seed 7",
    );
    assert!(report.passed, "{report}");
    let hostile = report.hostile.as_ref().unwrap();
    assert_eq!((hostile.sent, hostile.malformed, hostile.send_errors), (20_000, 0, 0), "{report}");
    // Both are many: what is refused with a reason, and what is granted because the damage did no harm.
    let answers = |status: u16| hostile.answers.get(&status).copied().unwrap_or_default();
    assert!(answers(200) > 1_000 && answers(400) > 1_000, "{report}");
    assert!(hostile.silent() > 1_000 && hostile.notifies > 100, "{report}");
    assert_eq!(report.audit.unwrap().watchers, 100);
}

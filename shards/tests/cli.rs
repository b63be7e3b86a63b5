//! The command line as scripts see it: the real binary, its output and its exit codes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

#[test]
fn it_says_where_it_listens_and_stops_quickly_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(folder.path(), &["--shards", "2"]);
        assert_eq!(server.ready, format!("ready: listening on udp:{}", server.address()));
        assert_ne!(server.address().port(), 0);
        let start = server.output.join("\n");
        for part in [
            "listening on",
            "data in",
            "shards          2",
            "presence_w.fdb",
            "Linphone",
            "comsipl fdb inspect",
        ] {
            assert!(start.contains(part), "{part} in {start}");
        }
        let (code, took) = server.stop(signal);
        assert_eq!(code, Some(0), "{:?}", server.output);
        assert!(took < Duration::from_secs(1), "{took:?}");
        for file in ["presence_w.fdb", "registered.fdb"] {
            assert!(folder.path().join("data").join(file).is_file());
        }
    }
}

#[test]
fn a_log_that_nobody_takes_ends_no_server() {
    for format in ["human", "json"] {
        let folder = tempfile::tempdir().unwrap();
        // Each write fails as on a full disk.
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command =
            serve(folder.path(), &["--listen", "udp:127.0.0.1:0", "--log-format", format, "--log", "debug"]);
        let mut server = command.stderr(full).stdout(Stdio::null()).spawn().unwrap();
        let data = folder.path().join("data");
        let status = || Command::new(COMSIPL).arg("status").arg("--data-dir").arg(&data).output().unwrap();
        let give_up = Instant::now() + PATIENCE;
        while !status().status.success() {
            assert_eq!(server.try_wait().unwrap(), None, "it goes on");
            assert!(Instant::now() < give_up, "it serves");
        }
        kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn no_command_is_serve() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(COMSIPL);
    command.args(["--listen", "udp:[::1]:0", "--listen", "127.0.0.1:0"]).current_dir(folder.path());
    let mut server = Server::spawn(command);
    let addresses: Vec<_> = server.ready.split_whitespace().skip(3).collect();
    assert_eq!(addresses.len(), 2, "{}", server.ready);
    assert!(addresses[0].starts_with("udp:[::1]:") && addresses[1].starts_with("udp:127.0.0.1:"));
    assert!(folder.path().join("comsipl-data/presence_w.fdb").is_file(), "the default directory");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_restart_finds_the_files_closed_cleanly_and_a_kill_does_not() {
    let folder = tempfile::tempdir().unwrap();
    Server::start(folder.path(), &[]).stop(Signal::TERM);
    let mut second = Server::start(folder.path(), &[]);
    assert!(second.output.iter().any(|line| line.contains("closed cleanly") && !line.contains("not closed")));
    second.stop(Signal::KILL);
    let third = Server::start(folder.path(), &["--shards", "3"]);
    assert!(third.output.iter().any(|line| line.contains("not closed cleanly")), "{:?}", third.output);
}

#[test]
fn two_servers_share_neither_files_nor_address() {
    let folder = tempfile::tempdir().unwrap();
    let first = Server::start(folder.path(), &[]);
    let same_dir = run(serve(folder.path(), &["--listen", "127.0.0.1:0", "--no-take-over"]));
    assert_eq!(same_dir.status.code(), Some(3));
    assert!(stderr(&same_dir).contains("presence_w.fdb") || stderr(&same_dir).contains("registered.fdb"));
    assert!(stderr(&same_dir).contains("another"), "{}", stderr(&same_dir));

    let other = tempfile::tempdir().unwrap();
    let same_address = run(serve(other.path(), &["--listen", &first.address().to_string()]));
    assert_eq!(same_address.status.code(), Some(3));
    assert!(stderr(&same_address).contains("cannot listen on udp:127.0.0.1:"), "{}", stderr(&same_address));
    assert!(stderr(&same_address).contains("help:"));
}

#[test]
fn other_machines_are_let_in_only_by_word() {
    let folder = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "udp:[::]:0", "192.0.2.1:5060"] {
        let refused = run(serve(folder.path(), &["--listen", listen]));
        assert_eq!(refused.status.code(), Some(2), "{listen}");
        let message = stderr(&refused);
        assert!(message.contains("refusing to listen") && message.contains("--auth none"), "{message}");
        assert!(!folder.path().join("data").exists(), "nothing was touched");
    }
    let mut server = Server::spawn(serve(folder.path(), &["--listen", "0.0.0.0:0", "--auth", "none"]));
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
    let file = folder.path().join("comsipl.toml");
    fs::write(&file, "[server]\nlisten = [\"udp:0.0.0.0:0\"]\nauth = \"none\"\n").unwrap();
    let mut server = Server::spawn(serve(folder.path(), &["--config", file.to_str().unwrap()]));
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}

#[test]
fn mistakes_in_the_file_are_shown_with_line_and_caret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("comsipl.toml");
    for (text, line, caret, what) in [
        ("[server]\nshard = 4\n", "2 | shard = 4", "  | ^^^^^\n", "unknown field `shard`, expected"),
        (
            "[limits]\n\nnotifies_per_turn = 0\n",
            "3 | notifies_per_turn = 0",
            "  |                     ^\n",
            "1 to 65536",
        ),
        ("[storage\n", "1 | [storage", "  |         ^\n", "expected `]`"),
    ] {
        fs::write(&file, text).unwrap();
        let path = file.to_str().unwrap();
        let mut check = Command::new(COMSIPL);
        check.args(["check-config", path]);
        for command in [check, serve(folder.path(), &["--config", path])] {
            let refused = run(command);
            let message = stderr(&refused);
            assert_eq!(refused.status.code(), Some(2), "{message}");
            for part in [line, caret, what, path, "help:"] {
                assert!(message.contains(part), "{part} in\n{message}");
            }
        }
    }
    let missing = run(serve(folder.path(), &["--config", "no-such-file.toml"]));
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("no-such-file.toml"));
}

#[test]
fn check_config_prints_what_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("comsipl.toml");
    fs::write(&file, "[registration]\nmin_expires = 7\n").unwrap();
    let mut command = Command::new(COMSIPL);
    let checked = run_ref(command.arg("check-config").arg(&file));
    assert_eq!(checked.status.code(), Some(0));
    let printed = String::from_utf8(checked.stdout).unwrap();
    assert!(printed.contains("[registration]\nmin_expires = 7\ndefault_expires = 3600\n"), "{printed}");
}

#[test]
fn options_override_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("comsipl.toml");
    fs::write(&file, "[server]\nlisten = [\"udp:0.0.0.0:5060\"]\nshards = 5\ndomains = [\"a.example\"]\n")
        .unwrap();
    let options = [
        "--config",
        file.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--shards",
        "2",
        "--domain",
        "B.example",
    ];
    let server = Server::spawn(serve(folder.path(), &options));
    let start = server.output.join("\n");
    assert!(start.contains("shards          2") && start.contains("domains         b.example"), "{start}");
}

#[test]
fn the_files_can_be_looked_into_while_they_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let _server = Server::start(folder.path(), &[]);
    for name in ["presence_w.fdb", "registered.fdb"] {
        let file = folder.path().join("data").join(name);
        for args in [&["verify"][..], &["verify", "--json"], &["inspect"], &["inspect", "--json"]] {
            let mut command = Command::new(COMSIPL);
            let output = run_ref(command.arg("fdb").args(args).arg(&file));
            assert_eq!(output.status.code(), Some(0), "{args:?} {}", stderr(&output));
        }
    }
    let mut command = Command::new(COMSIPL);
    let output = run_ref(command.args(["fdb", "verify", "/no/such/file"]));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn help_and_version_are_no_errors() {
    for (args, part) in [
        (&["--version"][..], "comsipl 0."),
        (&["--help"], "Exit codes"),
        (&["serve", "--help"], "--data-dir"),
        (&["fdb", "inspect", "--help"], "Examples"),
    ] {
        let output = run_ref(Command::new(COMSIPL).args(args));
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{args:?}");
    }
    let output = run_ref(Command::new(COMSIPL).arg("--no-such-option"));
    assert_eq!(output.status.code(), Some(2));
    let output = run_ref(Command::new(COMSIPL).args(["--log", "loud=very"]));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn the_log_can_be_json_and_the_ready_line_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--log-format", "json"]);
    assert!(server.ready.starts_with("ready: listening on udp:127.0.0.1:"));
    server.stop(Signal::TERM);
    for line in server.output.iter().filter(|line| !line.starts_with("ready")) {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(event["level"], "INFO");
    }
    assert!(server.output.len() >= 3, "{:?}", server.output);
}

#[test]
fn any_datagram_at_all_leaves_it_alive() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--shards", "2"]);
    for number in 0..200_usize {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let junk: Vec<u8> = (0..number * 300).map(|i| (i * 31 + number) as u8).collect();
        client.send_to(&junk, server.address()).unwrap();
        client.send_to(b"\r\n\r\n", server.address()).unwrap();
    }
    assert_eq!(server.stop(Signal::TERM).0, Some(0), "{:?}", server.output);
}

#[test]
fn the_sandbox_is_there_unless_it_is_turned_off() {
    let folder = tempfile::tempdir().unwrap();
    // `Seccomp:` of each thread (proc(5)): 0 without filters, 2 with.
    let filters = |server: &Server| -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap();
        let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).unwrap();
        let of = |status: String| status.lines().find(|it| it.starts_with("Seccomp:")).unwrap().to_owned();
        threads.map(|thread| of(status(thread.unwrap()))).collect()
    };
    let own = fs::read_to_string("/proc/self/status").unwrap();
    if !own.contains("Seccomp:\t0") {
        return eprintln!("SKIPPED: this test runs in a sandbox itself, which the server cannot leave");
    }
    let mut server = Server::start(folder.path(), &["--shards", "2"]);
    assert!(server.output.iter().any(|it| it.contains("system calls: its own only")), "{:?}", server.output);
    let found = filters(&server);
    assert!(found.len() > 3 && found.iter().all(|it| it == "Seccomp:\t2"), "every thread: {found:?}");
    assert_eq!(server.stop(Signal::TERM).0, Some(0));

    let file = folder.path().join("comsipl.toml");
    fs::write(&file, "[server]\nsandbox = \"off\"\n").unwrap();
    for off in [&["--no-sandbox"][..], &["--config", file.to_str().unwrap()]] {
        let mut server = Server::start(folder.path(), off);
        assert!(server.output.iter().any(|it| it.ends_with("sandbox         off")), "{:?}", server.output);
        assert!(filters(&server).iter().all(|it| it == "Seccomp:\t0"));
        assert_eq!(server.stop(Signal::TERM).0, Some(0));
    }
}

#[test]
fn a_server_without_descriptors_waits_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--shards", "1", "--listen", "tcp:127.0.0.1:0"]);
    let address = server.ready.split("tcp:").nth(1).unwrap().trim().to_owned();
    let process = Pid::from_child(&server.child);
    let proc = format!("/proc/{}", process.as_raw_nonzero());
    // So many that there are numbers for two more.
    let open = |number: &u64| fs::symlink_metadata(format!("{proc}/fd/{number}")).is_ok();
    let third_free = (0..).filter(|number| !open(number)).nth(2);
    let usual = rustix::process::getrlimit(Resource::Nofile);
    let limit = |current| {
        prlimit(Some(process), Resource::Nofile, Rlimit { current, ..usual }).unwrap();
    };
    limit(third_free);
    let mut phones: Vec<_> = (0..5).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let line = server.lines.recv_timeout(PATIENCE).unwrap();
    assert!(line.contains("cannot be accepted") && line.contains("LimitNOFILE"), "{line}");
    // A second in which it neither says so again nor tries all the time (at 100 ticks a second).
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    assert!(server.lines.recv_timeout(Duration::from_secs(1)).is_err());
    assert!(ticks() - before < 30, "{} of 100 ticks", ticks() - before);
    // Whoever needs no descriptor of his own notices nothing.
    let by_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    by_udp.set_read_timeout(Some(PATIENCE)).unwrap();
    by_udp.send_to(&options(by_udp.local_addr().unwrap()), server.address()).unwrap();
    let mut answer = [0; 2048];
    let length = by_udp.recv(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"SIP/2.0 200 "), "{}", String::from_utf8_lossy(&answer[..length]));
    limit(usual.current);
    for phone in &mut phones {
        phone.set_read_timeout(Some(PATIENCE)).unwrap();
        phone.write_all(b"\r\n\r\n").unwrap();
        phone.read_exact(&mut [0; 2]).expect("a pong");
    }
}

/// An OPTIONS of a phone at this address.
fn options(from: SocketAddr) -> Vec<u8> {
    format!(
        "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKoptions\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.com>;tag=1\r\nTo: <sip:127.0.0.1>\r\nCall-ID: options\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// The binary under test.
const COMSIPL: &str = env!("CARGO_BIN_EXE_comsipl");

/// Longest that anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
struct Server {
    child: Child,
    lines: Receiver<String>,
    /// What it has said so far on standard error.
    output: Vec<String>,
    ready: String,
}

impl Server {
    /// Starts one on a free port of loopback, its files in `folder/data`, and waits until it is ready.
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = serve(folder, &["--listen", "udp:127.0.0.1:0"]);
        command.args(args);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        let mut server = Self { child, lines, output: Vec::new(), ready: String::new() };
        while !server.ready.starts_with("ready") {
            server.ready = match server.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(error) => panic!("not ready ({error}): {:#?}", server.output),
            };
            server.output.push(server.ready.clone());
        }
        server
    }

    fn address(&self) -> SocketAddr {
        let after = self.ready.split("udp:").nth(1).unwrap();
        after.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Sends a signal and waits for the end.
    fn stop(&mut self, signal: Signal) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = self.child.wait().unwrap();
        let took = begin.elapsed();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.output.push(line);
        }
        (status.code(), took)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `comsipl serve` with its files in `folder/data`.
fn serve(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(COMSIPL);
    command.arg("serve").arg("--data-dir").arg(folder.join("data")).args(args).current_dir(folder);
    command.env_remove("COMSIPL_LOG");
    command
}

fn run(mut command: Command) -> Output {
    run_ref(&mut command)
}

fn run_ref(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

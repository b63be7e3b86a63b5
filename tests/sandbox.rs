//! What the server can still do in its sandbox, which is all that it is for, and what whoever takes it over cannot.
//!
//! The sandbox holds for a process until its end, so each test of it runs this program again as a process of its own.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use comsipl_core::Transport;
use comsipl_shards::sandbox::Sandbox;
use comsipl_shards::settings::{SandboxMode, Settings};
use comsipl_tests::client::authority::Authority;
use comsipl_tests::client::phone::{Message, Phone, Request};
use comsipl_tests::client::process::PATIENCE;
use comsipl_tests::server::{EXACT_GRANTS, Server, Start};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

#[test]
fn all_that_a_server_does_is_done_in_it() -> Result<()> {
    let names = NameServer::start()?;
    let authority = Authority::new()?;
    let config = format!(
        "[server]\nsandbox = \"on\"\n{}[resolver]\nnameservers = [\"{}\"]\n{EXACT_GRANTS}",
        authority.server_config(),
        names.address
    );
    let transports = vec![Transport::Udp, Transport::Tcp, Transport::Tls];
    let mut server = Server::start_with(&config, Start { transports, ..Start::default() })?;
    if std::env::var_os("COMSIPL_TEST_TARGET").is_none() {
        let said = server.lines();
        ensure!(said.iter().any(|it| it.contains("system calls: its own only")), "{said:#?}");
    }

    // By UDP, to a watcher whose Contact is a name: new files grow, a name is looked up, the fan-out reaches a second shard.
    let phone = Phone::new(server.address())?;
    for user in ["alice", "bob", "carol", "dave"] {
        let contact = format!("Contact: <sip:{user}@{}>", phone.address());
        answered(&phone, &request("REGISTER", user, &[&contact], ""))?;
        let watcher = Phone::new(server.address())?;
        let contact = format!("Contact: <sip:{user}@watchers.example:{}>", watcher.address().port());
        answered(&watcher, &request("SUBSCRIBE", user, &[&contact, "Event: presence"], ""))?;
        notified(&watcher, "closed")?;
        let more = ["Event: presence", "Content-Type: application/pidf+xml"];
        answered(&phone, &request("PUBLISH", user, &more, &document(user)))?;
        notified(&watcher, "open")?;
    }
    ensure!(names.asked() > 0, "no name was looked up");

    // By connections.
    let mut stream = TcpStream::connect(server.address_of(Transport::Tcp))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    register_by(&mut stream, "TCP")?;
    let mut stream = by_tls(&server, &authority)?;
    register_by(&mut stream, "TLS")?;
    // A tool, by the control socket.
    server.add_user("erin@example.com", "a long enough password")?;

    // A renewed certificate, whose files take the place of the old ones under their names.
    let renewed = Authority::new()?;
    ensure!(by_tls(&server, &renewed).is_err(), "nobody vouches for the old certificate there");
    authority.replace_server(&renewed)?;
    let process = server.process()?;
    let id = rustix::process::Pid::from_raw(process.id().cast_signed()).context("a process has a number")?;
    rustix::process::kill_process(id, Signal::HUP)?;
    process.expect("certificates were read again", |line| line.contains("read again; new connections"))?;
    register_by(&mut by_tls(&server, &renewed)?, "TLS")?;

    // A second start opens what the first one has made.
    server.kill()?;
    server.restart()?;
    answered(&phone, &request("OPTIONS", "alice", &[], ""))?;
    server.stop()?;
    server.verify_files()
}

#[test]
fn whoever_takes_it_over_gets_no_further() {
    if let Some(home) = std::env::var_os(CHILD) {
        return look_around(Path::new(&home));
    }
    let home = tempfile::tempdir().expect("a folder");
    let status = again("whoever_takes_it_over_gets_no_further", home.path());
    assert!(status.success(), "{status}");
}

#[test]
fn it_ends_with_the_first_attempt_to_run_another_program() {
    if let Some(home) = std::env::var_os(CHILD) {
        let sandbox = enter(Path::new(&home), SandboxMode::On);
        assert!(sandbox.to_string().contains(CALLS), "{sandbox}");
        // Does not come back, and does not run either.
        let error = Command::new("true").exec();
        panic!("{error}");
    }
    if is_in_a_sandbox() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let status = again("it_ends_with_the_first_attempt_to_run_another_program", home.path());
    const SIGSYS: i32 = 31;
    assert_eq!(status.signal(), Some(SIGSYS), "{status}");
}

#[test]
fn a_kernel_without_it_is_no_reason_not_to_start_unless_it_is_required() {
    if let Some(home) = std::env::var_os(CHILD) {
        // Within the sandbox there is none to be had: the system calls for it are gone.
        enter(Path::new(&home), SandboxMode::On);
        let second = enter(Path::new(&home), SandboxMode::On).to_string();
        assert!(second.starts_with("files: all (") && second.contains("system calls: all ("), "{second}");
        let refused =
            Sandbox::enter(&settings(Path::new(&home), SandboxMode::Required)).expect_err("required");
        assert!(refused.to_string().contains("help:"), "{refused}");
        assert_eq!(enter(Path::new(&home), SandboxMode::Off).to_string(), "off");
        return;
    }
    if is_in_a_sandbox() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let name = "a_kernel_without_it_is_no_reason_not_to_start_unless_it_is_required";
    let status = again(name, home.path());
    assert!(status.success(), "{status}");
}

/// What the code of somebody else would try, from within the process.
fn look_around(home: &Path) {
    std::fs::write(home.join("secret"), "of others").expect("outside");
    // Had before, they are kept.
    let mut before = std::fs::File::open(home.join("secret")).expect("opened before");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number");
    let peer = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let reached = peer.local_addr().expect("its address");

    let sandbox = enter(home, SandboxMode::On).to_string();
    println!("{sandbox}");
    let mut text = String::new();
    before.read_to_string(&mut text).expect("what was open stays open");
    // Its own files, threads, sockets, and the time that its threads waited.
    let own = home.join("data/own");
    std::fs::write(&own, "text").expect("its own folder");
    assert_eq!(std::fs::read_to_string(&own).expect("its own file"), "text");
    std::fs::remove_file(&own).expect("its own file");
    assert_eq!(std::thread::spawn(|| 7).join().ok(), Some(7), "threads");
    UdpSocket::bind("127.0.0.1:0").expect("datagrams");
    TcpStream::connect(reached).expect("connections");
    let thread = rustix::thread::gettid();
    std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("how long it waited");
    std::fs::read_to_string("/etc/hosts").expect("names");

    if sandbox.contains("files: its own only") {
        let denied = |what: &str, error: Option<std::io::Error>| {
            let kind = error.map(|it| it.kind());
            assert_eq!(kind, Some(std::io::ErrorKind::PermissionDenied), "{what}");
        };
        for path in ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/environ", "/bin/sh"] {
            denied(path, std::fs::File::open(path).err());
        }
        denied("a secret beside its folder", std::fs::File::open(home.join("secret")).err());
        denied("a new file there", std::fs::write(home.join("new"), "").err());
        denied("an old one there", std::fs::remove_file(home.join("secret")).err());
        assert!(std::fs::create_dir(home.join("data/folder")).is_err(), "a folder");
        denied("the folder of all", std::fs::read_dir("/").err());
        // A link out of its own folder leads nowhere, whether it may be made or not.
        let link = home.join("data/link");
        assert!(std::os::unix::fs::symlink("/etc/passwd", link).is_err());
        if !sandbox.contains("as far as") {
            denied("a back door", TcpListener::bind(taken).err());
        }
    } else {
        println!("SKIPPED: this kernel has no Landlock");
    }
    if sandbox.contains(CALLS) {
        assert!(Command::new("/bin/true").spawn().is_err(), "a new process");
        for family in [AddressFamily::NETLINK, AddressFamily::PACKET, AddressFamily::VSOCK] {
            assert!(socket_with(family, SocketType::RAW, SocketFlags::empty(), None).is_err(), "{family:?}");
        }
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            assert!(
                socket_with(family, SocketType::RAW, SocketFlags::empty(), None).is_err(),
                "raw {family:?}"
            );
        }
        let page = memmap2::MmapMut::map_anon(4096).expect("memory");
        assert!(page.make_exec().is_err(), "memory that can be run");
        let fifo = rustix::fs::mknodat(
            rustix::fs::CWD,
            home.join("data/fifo"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        );
        assert!(fifo.is_err(), "a fifo");
        assert!(rustix::process::kill_process(rustix::process::getpid(), Signal::CONT).is_err(), "a signal");
    } else {
        println!("SKIPPED: there are no filters of system calls here");
    }
}

fn enter(home: &Path, mode: SandboxMode) -> Sandbox {
    std::fs::create_dir_all(home.join("data")).unwrap_or_default();
    Sandbox::enter(&settings(home, mode)).expect("not required")
}

fn settings(home: &Path, sandbox: SandboxMode) -> Settings {
    Settings { data_dir: home.join("data"), sandbox, ..Settings::default() }
}

/// Runs one test of this program as a process of its own; what it says is told if it ends otherwise than well.
fn again(test: &str, home: &Path) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().expect("a test has a program"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, home);
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    if !status.success() {
        println!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    }
    status
}

/// Whether there are filters already, so that what a test looks for may not come from ours.
fn is_in_a_sandbox() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is = !status.contains("Seccomp:\t0");
    if is {
        println!("SKIPPED: this test runs in a sandbox itself");
    }
    is
}

/// Names the folder of a process that is a test's, and says that it is one.
const CHILD: &str = "COMSIPL_SANDBOX_HOME";
/// What is told of system calls when all filters are in force.
const CALLS: &str = "system calls: its own only";

/// A request to the server on behalf of `user`, with a Call-ID of its own for each method.
fn request<'a>(method: &'a str, user: &'a str, headers: &'a [&'a str], body: &'a str) -> Wanted<'a> {
    Wanted { method, user, headers, body }
}

struct Wanted<'a> {
    method: &'a str,
    user: &'a str,
    headers: &'a [&'a str],
    body: &'a str,
}

/// Sends a request until its final answer comes, which must be good.
fn answered(phone: &Phone, wanted: &Wanted<'_>) -> Result<Message> {
    let uri = format!("sip:{}@example.com", wanted.user);
    let branch = format!("{}{}", wanted.method, wanted.user);
    let request = Request {
        method: wanted.method,
        uri: &uri,
        branch: &branch,
        from: (&uri, "1"),
        to: (&uri, None),
        call_id: &branch,
        cseq: 1,
        headers: wanted.headers,
        body: wanted.body,
    };
    let answer = phone.ask(&request.text(phone))?;
    ensure!(answer.status() == Some(200), "{}", answer.text());
    Ok(answer)
}

/// Waits for a NOTIFY that says `what`.
fn notified(phone: &Phone, what: &str) -> Result<()> {
    phone.notified(|it| it.body().contains(&format!("<basic>{what}</basic>"))).map(|_| ())
}

fn document(user: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:{user}@example.com\">\
         <tuple id=\"a\"><status><basic>open</basic></status></tuple></presence>"
    )
}

/// Registers over a connection.
fn register_by(stream: &mut (impl std::io::Read + std::io::Write), transport: &str) -> Result<()> {
    let request = format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/{transport} client.invalid;branch=z9hG4bKs{transport}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:frank@example.com>;tag=1\r\nTo: <sip:frank@example.com>\r\n\
         Call-ID: frank{transport}\r\nCSeq: 1 REGISTER\r\nContact: <sip:frank@client.invalid>\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"SIP/2.0 200 ", "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// A connection to a server that `authority` vouches for.
fn by_tls(server: &Server, authority: &Authority) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1")?;
    let stream = TcpStream::connect(server.address_of(Transport::Tls))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream);
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(stream)
}

/// A name server to which every name is loopback.
struct NameServer {
    address: SocketAddr,
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

impl NameServer {
    fn start() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        let asked = Arc::default();
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let _ = socket.send_to(&name_answer(&query[..length]), from);
                std::sync::atomic::AtomicUsize::fetch_add(&count, 1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        Ok(Self { address, asked })
    }

    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The answer to a query (RFC 1035 §4.1): an address to a question for one, and otherwise that there is nothing.
fn name_answer(query: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    const A: [u8; 2] = [0, 1];
    // The name ends with an empty label; type and class follow.
    let name = query[HEADER..].iter().position(|&it| it == 0).map_or(0, |at| at + 1);
    let question = &query[HEADER..HEADER + name + 4];
    let is_address = question[name..name + 2] == A;
    let mut answer = query[..2].to_vec();
    // A response, authoritative, with recursion; one question, and an answer or none.
    answer.extend([0x85, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        // The name of the question; an address; of the internet; for a minute; of four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

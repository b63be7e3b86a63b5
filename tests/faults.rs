//! The machine and the network at their worst, against the real binary, and the outcome that is promised for each.
//!
//! | fault | outcome | where |
//! |---|---|---|
//! | the disk is full | 503 with Retry-After for what needs room; refreshes, changes and NOTIFYs go on; it is over when there is room | here |
//! | no memory beyond what the bounds add up to | what is beyond a bound is refused; the process never asks for more | here |
//! | 5 % of all datagrams lost, doubled, overtaken | every watcher ends with the newest state, and no change is told twice or backwards | here |
//! | no file descriptors | connections wait at the door; UDP goes on; no processor time is lost | `shards/tests/cli.rs` |
//! | the wall clock is set | what was granted lasts as long as it said | `tests/scenarios/clock_set_*.sip` |
//! | a power cut, a kill, flipped bits | | `fdb`, `tests/crash.rs` |

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser as _;
use comsipl_loadgen::cli::Cli;
use comsipl_tests::client::phone::{Message, Phone, Request};
use comsipl_tests::server::{EXACT_GRANTS, Server, binary};
use rustix::process::{Pid, Resource, Rlimit, geteuid, prlimit};

/// A disk is emulated by a file system in memory of the process's own, which is where a mapped file without room behind it would
/// end the process by a signal.
#[test]
fn a_full_disk_holds_back_what_is_new_and_nothing_else() -> Result<()> {
    let Some(unshare) = unshare()? else { return Ok(()) };
    let mut server = Server::start(EXACT_GRANTS)?;
    server.stop()?;
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", r#"mount -t tmpfs -o size=48m tmpfs "$0" && exec "$@""#]);
    command.arg(server.data_dir()).arg(binary()?).args(server.args());
    server.run_command(command)?;
    let filler = seen_by(&mut server)?.join("filler");

    let (alice, bob) = (Phone::new(server.address())?, Phone::new(server.address())?);
    let mut watched = Dialog::begin(&bob, "alice")?;
    bob.notified(|it| it.body().contains("closed"))?;
    ensure!(register(&alice, "alice", 1)?.status() == Some(200));
    let mut published = publish(&alice, "alice", None, "before")?;
    bob.notified(|it| it.body().contains("before"))?;

    fill(&filler)?;
    let stranger = Phone::new(server.address())?;
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for number in 0..USERS {
        let user = format!("new{number}");
        for answer in [
            publish(&stranger, &user, None, "new")?,
            register(&stranger, &user, 1)?,
            Dialog::begin(&stranger, &user)?.answer,
        ] {
            if answer.status() == Some(200) {
                continue;
            }
            ensure!(answer.status() == Some(503), "{}", answer.text());
            answer.need("Retry-After")?;
            refused.entry(answer.method().to_owned()).or_default().push(user.clone());
        }
    }
    // Two users have room in two or three partitions of 64.
    for method in ["PUBLISH", "REGISTER", "SUBSCRIBE"] {
        let count = refused.get(method).map_or(0, Vec::len);
        ensure!(count > USERS / 2, "{count} of {USERS} {method} refused: {refused:?}");
    }

    // Whoever was there before notices nothing.
    for round in 0..20 {
        let note = format!("round {round}");
        published = publish(&alice, "alice", published.header("SIP-ETag"), &note)?;
        ensure!(published.status() == Some(200), "{}", published.text());
        bob.notified(|it| it.body().contains(&note))?;
        let registered = register(&alice, "alice", 2 + round)?;
        ensure!(registered.status() == Some(200), "{}", registered.text());
        let refreshed = watched.refresh(&bob)?;
        ensure!(refreshed.status() == Some(200), "{}", refreshed.text());
    }

    // There is room again.
    std::fs::remove_file(&filler)?;
    for user in &refused["PUBLISH"] {
        let answer = publish(&stranger, user, None, "at last")?;
        ensure!(answer.status() == Some(200), "{}", answer.text());
    }
    for user in &refused["SUBSCRIBE"] {
        let answer = Dialog::begin(&stranger, user)?.answer;
        ensure!(answer.status() == Some(200), "{}", answer.text());
    }
    server.stop()
}

/// The limit is on what the process may write to (RLIMIT_DATA), and stands a little above what it has when it is ready. An allocation
/// beyond it fails, which ends a process.
#[test]
fn memory_is_bounded_by_the_settings() -> Result<()> {
    let config = format!(
        "{EXACT_GRANTS}[storage]\npresence_records_max = 64\nregistered_records_max = 64\n\
         [limits]\ntransaction_memory_mib = 1\nsocket_buffer_kib = 8192\n"
    );
    let mut server = Server::start(&config)?;
    let (alice, bob) = (Phone::new(server.address())?, Phone::new(server.address())?);
    Dialog::begin(&bob, "alice")?;
    let published = publish(&alice, "alice", None, "before")?;
    bob.notified(|it| it.body().contains("before"))?;

    let process = server.process()?.id();
    let had = writable_bytes(process)?;
    let limit = Some(had + GROWTH_MAX);
    let pid = Pid::from_raw(process.cast_signed()).context("a process has a number")?;
    prlimit(Some(pid), Resource::Data, Rlimit { current: limit, maximum: limit })?;

    // More of each kind of record than there is room for (an extent of 512 for each of 64 partitions is the least that a file may
    // have), and many times the answers that are remembered.
    let stranger = Phone::new(server.address())?;
    let mut answers: BTreeMap<(String, u16), usize> = BTreeMap::new();
    let mut sent = 0;
    for first in (0..FLOOD).step_by(WINDOW) {
        for number in first..first + WINDOW {
            let user = format!("flood{number}");
            for request in [
                Wanted::publish(&user, None, "flood"),
                Wanted::register(&stranger, &user, 1),
                Wanted::subscribe(&stranger, &user),
            ] {
                stranger.send(&request.text(&stranger));
                sent += 1;
            }
        }
        let give_up = Instant::now() + Duration::from_millis(300);
        let mut left = 3 * WINDOW;
        while left > 0
            && let Some(message) = stranger.receive(give_up)?
        {
            match message.status() {
                Some(status) => {
                    *answers.entry((message.method().to_owned(), status)).or_default() += 1;
                    left -= 1;
                }
                None => stranger.send(&message.ok()),
            }
        }
    }
    println!(
        "{sent} requests: {answers:?}; {} MiB of {} more",
        (writable_bytes(process)? - had) >> 20,
        GROWTH_MAX >> 20
    );
    for method in ["PUBLISH", "REGISTER", "SUBSCRIBE"] {
        let of = |status| answers.get(&(method.to_owned(), status)).copied().unwrap_or_default();
        ensure!(of(200) > 100 && of(503) > 100, "{method}: {answers:?}");
    }
    ensure!(answers.keys().all(|(_, status)| [200, 500, 503].contains(status)), "{answers:?}");

    // Those of before are served as ever.
    let changed = publish(&alice, "alice", published.header("SIP-ETag"), "after")?;
    ensure!(changed.status() == Some(200), "{}", changed.text());
    bob.notified(|it| it.body().contains("after"))?;
    server.stop()
}

/// The phones of the load generator lose, double and hold back what they send and receive; its audit compares what each watcher shows
/// at the end with what was published last.
#[test]
fn a_lossy_network_changes_nothing_in_the_end() -> Result<()> {
    let server = Server::start(EXACT_GRANTS)?;
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/faults/lossy.toml");
    let target = server.address().to_string();
    let line = ["comsipl-loadgen", "run", profile, "--target", &target, "--seed", "5", "--quiet"];
    let report = comsipl_loadgen::run::run(&Cli::parse_from(line).command)?;
    // Stale and doubled states, and watchers that show another state than the last, make it fail.
    ensure!(report.passed, "{report}");
    let total = report.total;
    ensure!(
        total.retransmissions_sent > 20 && total.notify_retransmissions > 50,
        "a lossy network: {report}"
    );
    ensure!((total.stale, total.duplicates, total.malformed) == (0, 0, 0), "{report}");
    ensure!(report.audit.is_some_and(|audit| audit.watchers == 200), "{report}");
    Ok(())
}

/// Options of unshare(1) for a mount of one's own; `None`, with a message, where that is not allowed.
fn unshare() -> Result<Option<Vec<&'static str>>> {
    let mut options = vec!["--mount", "--propagation", "private"];
    if !geteuid().is_root() {
        options.extend(["--user", "--map-root-user"]);
    }
    let mount = ["sh", "-c", "mount -t tmpfs tmpfs /mnt"];
    let output = Command::new("unshare").args(&options).args(mount).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(Some(options)),
        Ok(output) => {
            println!("SKIPPED: no mount of our own: {}", String::from_utf8_lossy(&output.stderr));
            Ok(None)
        }
        Err(error) => Err(error).context("unshare(1)"),
    }
}

/// The data directory as the server itself sees it.
fn seen_by(server: &mut Server) -> Result<PathBuf> {
    let root = PathBuf::from(format!("/proc/{}/root", server.process()?.id()));
    Ok(root.join(server.data_dir().strip_prefix("/")?))
}

/// Takes all the room that is left.
fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for block in [1 << 20, 4096] {
        let zeros = vec![0; block];
        while file.write(&zeros).is_ok_and(|written| written > 0) {}
    }
    ensure!(file.metadata()?.len() > 1 << 20, "there was room");
    Ok(())
}

/// Memory of a process that it may write to and shares with nobody (`VmData` in proc(5)).
fn writable_bytes(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).context("no VmData")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib << 10)
}

/// A request that is sent until it is answered.
struct Wanted {
    method: &'static str,
    user: String,
    call_id: String,
    cseq: u32,
    to_tag: Option<String>,
    headers: Vec<String>,
    body: String,
}

impl Wanted {
    fn new(method: &'static str, user: &str, call_id: String, cseq: u32, headers: Vec<String>) -> Self {
        Self { method, user: user.to_owned(), call_id, cseq, to_tag: None, headers, body: String::new() }
    }

    fn register(phone: &Phone, user: &str, cseq: u32) -> Self {
        let headers = vec![format!("Contact: <sip:{user}@{}>", phone.address()), "Expires: 600".to_owned()];
        Self::new("REGISTER", user, format!("register-{user}"), cseq, headers)
    }

    fn subscribe(phone: &Phone, user: &str) -> Self {
        let headers = ["Event: presence", "Expires: 600"].map(str::to_owned).into_iter();
        let contact = format!("Contact: <sip:watcher@{}>", phone.address());
        Self::new("SUBSCRIBE", user, format!("subscribe-{user}"), 1, headers.chain([contact]).collect())
    }

    fn publish(user: &str, etag: Option<&str>, note: &str) -> Self {
        let mut headers: Vec<_> = ["Event: presence", "Expires: 600", "Content-Type: application/pidf+xml"]
            .map(str::to_owned)
            .into();
        headers.extend(etag.map(|etag| format!("SIP-If-Match: {etag}")));
        let body = format!(
            "<?xml version=\"1.0\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:{user}@example.com\">\
             <tuple id=\"a\"><status><basic>open</basic></status><note>{note}</note></tuple></presence>"
        );
        let call_id = format!("publish-{user}-{}", note.replace(' ', "-"));
        Self { body, ..Self::new("PUBLISH", user, call_id, 1, headers) }
    }

    fn text(&self, phone: &Phone) -> String {
        let uri = format!("sip:{}@example.com", self.user);
        let headers: Vec<_> = self.headers.iter().map(String::as_str).collect();
        Request {
            method: self.method,
            uri: &uri,
            branch: &format!("{}-{}", self.call_id, self.cseq),
            from: ("sip:watcher@example.com", "1"),
            to: (&uri, self.to_tag.as_deref()),
            call_id: &self.call_id,
            cseq: self.cseq,
            headers: &headers,
            body: &self.body,
        }
        .text(phone)
    }

    fn ask(&self, phone: &Phone) -> Result<Message> {
        phone.ask(&self.text(phone))
    }
}

fn register(phone: &Phone, user: &str, cseq: u32) -> Result<Message> {
    Wanted::register(phone, user, cseq).ask(phone)
}

fn publish(phone: &Phone, user: &str, etag: Option<&str>, note: &str) -> Result<Message> {
    Wanted::publish(user, etag, note).ask(phone)
}

/// A subscription.
struct Dialog {
    request: Wanted,
    answer: Message,
}

impl Dialog {
    fn begin(phone: &Phone, user: &str) -> Result<Self> {
        let mut request = Wanted::subscribe(phone, user);
        // A second attempt is another dialog.
        request.call_id = format!("{}-{}", request.call_id, phone.serial());
        let answer = request.ask(phone)?;
        Ok(Self { request, answer })
    }

    fn refresh(&mut self, phone: &Phone) -> Result<Message> {
        self.request.to_tag = self.answer.tag("To").map(str::to_owned);
        self.request.cseq += 1;
        self.request.ask(phone)
    }
}

/// Users who come when the disk is full.
const USERS: usize = 96;
/// What the bounds of the memory test allow a process beyond what it has when it is ready: two shards with 1 MiB of answers each,
/// tables for 32,768 records in each of two files, buffers.
const GROWTH_MAX: u64 = 32 << 20;
/// Users of the flood.
const FLOOD: usize = 42_000;
/// Of them so many at a time.
const WINDOW: usize = 50;

//! Two questions that the load generator does not ask: is the server there, and what does a SUBSCRIBE in a dialog that it
//! does not know cost it (a phone that outlived a restart of its server sends just those).

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use comsipl_loadgen::Usage;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(about = "Is the server there, and what do strangers cost it?")]
struct Options {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Waits until OPTIONS is answered, and prints how many milliseconds that took
    Ready {
        /// The server
        #[arg(long)]
        target: SocketAddr,
        /// Give up after so many seconds
        #[arg(long, default_value_t = 20.0)]
        patience: f64,
    },
    /// Sends SUBSCRIBEs in dialogs that nobody knows, as fast as they are answered, and prints JSON
    Strangers {
        /// The server
        #[arg(long)]
        target: SocketAddr,
        /// Its process
        #[arg(long)]
        server_pid: u32,
        /// Seconds
        #[arg(long, default_value_t = 5.0)]
        duration: f64,
        /// Sockets, each of which has eight requests unanswered
        #[arg(long, default_value_t = 16)]
        sockets: usize,
    },
}

/// What strangers cost.
#[derive(Serialize)]
struct Report {
    sent: u64,
    /// Answers by status.
    answers: BTreeMap<u16, u64>,
    answers_per_sec: f64,
    /// Processor time of the server for each answer.
    server_us_per_answer: Option<f64>,
    /// Whether all were answered, and by 481 (RFC 6665 §4.2.1.1 with RFC 3261 §12.2.2).
    passed: bool,
}

fn main() -> anyhow::Result<()> {
    match Options::parse().question {
        Question::Ready { target, patience } => {
            let took = ready(target, Duration::from_secs_f64(patience))?;
            println!("{:.1}", took.as_secs_f64() * 1e3);
        }
        Question::Strangers { target, server_pid, duration, sockets } => {
            let report = strangers(target, server_pid, Duration::from_secs_f64(duration), sockets)?;
            println!("{}", serde_json::to_string(&report)?);
        }
    }
    Ok(())
}

/// Asks by OPTIONS (RFC 3261 §11) every few milliseconds until any answer comes.
fn ready(target: SocketAddr, patience: Duration) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let socket = connect(target)?;
    socket.set_read_timeout(Some(ASK_EVERY))?;
    let mut answer = [0; DATAGRAM_MAX];
    for n in 0.. {
        let id = Id { socket: std::process::id() as usize, n };
        // Before the server listens there is an ICMP error for each request, at the send or at the receive after it.
        socket.send(&request("OPTIONS", &id, &socket, target, "", "")?).ok();
        if socket.recv(&mut answer).is_ok() {
            return Ok(start.elapsed());
        }
        anyhow::ensure!(start.elapsed() < patience, "{target} did not answer for {patience:?}");
        thread::sleep(Duration::from_millis(1));
    }
    unreachable!("the numbers do not end")
}

/// The flood: each socket sends eight requests and waits for their answers, over and over.
fn strangers(
    target: SocketAddr,
    server_pid: u32,
    duration: Duration,
    sockets: usize,
) -> anyhow::Result<Report> {
    let used = || Usage::of_tree(server_pid).context("the server is gone");
    let before = used()?;
    let start = Instant::now();
    let tallies = thread::scope(|scope| {
        let threads: Vec<_> = (0..sockets)
            .map(|socket| scope.spawn(move || stranger(target, socket, start + duration)))
            .collect();
        let join =
            |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("a stranger does not panic");
        threads.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
    })?;
    let elapsed = start.elapsed();
    let server = used()?.since(before);
    let mut answers: BTreeMap<u16, u64> = BTreeMap::new();
    let mut sent = 0;
    for tally in tallies {
        sent += tally.sent;
        for (status, count) in tally.answers {
            *answers.entry(status).or_default() += count;
        }
    }
    let answered: u64 = answers.values().sum();
    Ok(Report {
        sent,
        passed: answered == sent && answers.keys().all(|&status| status == 481),
        answers,
        answers_per_sec: answered as f64 / elapsed.as_secs_f64(),
        server_us_per_answer: (answered > 0).then(|| server.total_secs() * 1e6 / answered as f64),
    })
}

/// What one socket saw.
#[derive(Default)]
struct Tally {
    sent: u64,
    answers: BTreeMap<u16, u64>,
}

/// One socket's share of the flood.
fn stranger(target: SocketAddr, number: usize, end: Instant) -> anyhow::Result<Tally> {
    let socket = connect(target)?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    let mut tally = Tally::default();
    let mut answer = [0; DATAGRAM_MAX];
    while Instant::now() < end {
        for _ in 0..BURST {
            let id = Id { socket: number, n: tally.sent };
            let more = "Event: presence\r\nExpires: 3600\r\nAccept: application/pidf+xml\r\n";
            socket.send(&request("SUBSCRIBE", &id, &socket, target, &format!(";tag=nobody{id}"), more)?)?;
            tally.sent += 1;
        }
        for _ in 0..BURST {
            let Ok(len) = socket.recv(&mut answer) else { break };
            let status = answer[..len]
                .strip_prefix(b"SIP/2.0 ")
                .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
            *tally.answers.entry(status.context("what came is no answer")?).or_default() += 1;
        }
    }
    Ok(tally)
}

/// What tells requests apart.
struct Id {
    socket: usize,
    n: u64,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.socket, self.n)
    }
}

/// A request as a phone would send it.
fn request(
    method: &str,
    id: &Id,
    socket: &UdpSocket,
    target: SocketAddr,
    to_tag: &str,
    more: &str,
) -> anyhow::Result<Vec<u8>> {
    let local = socket.local_addr()?;
    let branch = format!("z9hG4bK.{id}x{}", local.port());
    Ok(format!(
        "{method} sip:{target} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch={branch};rport\r\n\
         From: <sip:stranger@{target}>;tag=f{id}\r\nTo: <sip:{target}>{to_tag}\r\nCSeq: 2 {method}\r\n\
         Call-ID: stranger-{id}-{}\r\nMax-Forwards: 70\r\nContact: <sip:stranger@{local}>\r\n{more}\
         Content-Length: 0\r\n\r\n",
        local.port()
    )
    .into_bytes())
}

/// A socket of its own towards the server.
fn connect(target: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket)
}

/// How long an answer to OPTIONS is waited for before it is sent again.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Requests that a socket has unanswered.
const BURST: u32 = 8;
/// An answer that takes longer is counted as lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Longest answer.
const DATAGRAM_MAX: usize = 4096;

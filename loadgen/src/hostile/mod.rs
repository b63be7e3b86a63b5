//! Hostile datagrams beside good phones: real messages, damaged by chance, from many source ports at a bounded rate.
//!
//! Whoever sends them is a stranger: his users are none of the run's, and he knows neither Call-IDs nor tags nor branches of the
//! good phones. What he is told is counted, never answered, so his subscriptions are dead watchers besides.

mod mutate;
mod originals;

use crate::chance::Chance;
use crate::clock::{Clock, nanos};
use crate::shared::{STOP, Shared};
use anyhow::Context as _;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The phase in which they are sent.
pub const PHASE: &str = "hostile";
/// Datagrams that leave by one socket before its answers are read.
const BATCH: u64 = 16;
/// How long answers are waited for when the last one has left.
const LINGER: Duration = Duration::from_millis(500);
/// How often a thread that has nothing to do looks again.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// How many datagrams.
    pub count: u64,
    /// How many a second at most.
    pub rate: f64,
    /// From how many source ports.
    pub ports: u16,
    /// How many MB the server's memory may grow by: answers are kept for 64*T1, and what strangers were granted until it
    /// expires.
    pub growth_max_mb: u64,
}

/// How far it is, for all threads.
#[derive(Debug, Default)]
pub struct Board {
    /// Datagrams sent.
    pub sent: AtomicU64,
    /// Whether the last one has left and its answer was waited for.
    pub is_over: AtomicBool,
}

/// What became of an attack.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Datagrams sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Datagrams that the kernel refused to send.
    pub send_errors: u64,
    /// Seconds from the first to the last.
    pub secs: f64,
    /// The seed that makes them again.
    pub seed: u64,
    /// How often each kind of damage was done; a datagram may have several.
    pub damage: BTreeMap<&'static str, u64>,
    /// Answers by their status.
    pub answers: BTreeMap<u16, u64>,
    /// NOTIFYs for subscriptions that were granted nevertheless, retransmissions included.
    pub notifies: u64,
    /// Keep-alives that were answered.
    pub pongs: u64,
    /// What came back and is no SIP message.
    pub malformed: u64,
}

impl Outcome {
    /// Answers of any status.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Datagrams that nothing came back for.
    pub fn silent(&self) -> u64 {
        self.sent.saturating_sub(self.answered() + self.pongs)
    }
}

/// Waits for its phase and sends; returns at once when the run ends before.
pub fn run(shared: &Shared, source: IpAddr, seed: u64) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome { seed, ..Outcome::default() };
    let stage = shared.plan.phases.iter().position(|phase| phase.name == PHASE).map(|at| at + 1);
    let (Some(attack), Some(stage)) = (shared.plan.attack, stage) else { return Ok(outcome) };
    let sockets = open(attack.ports, source, shared)?;
    loop {
        match shared.stage.load(Ordering::Acquire) {
            STOP => return Ok(outcome),
            now if now >= stage => break,
            _ => thread::sleep(LOOK_EVERY),
        }
    }
    send_all(shared, attack, &sockets, &mut outcome);
    let end = shared.clock.now() + nanos(LINGER);
    while shared.clock.now() < end {
        sockets.iter().for_each(|socket| take_answers(socket, &mut outcome));
        thread::sleep(LOOK_EVERY);
    }
    shared.attack.is_over.store(true, Ordering::Release);
    Ok(outcome)
}

fn open(ports: u16, source: IpAddr, shared: &Shared) -> anyhow::Result<Vec<UdpSocket>> {
    (0..ports)
        .map(|_| {
            let socket = UdpSocket::bind((source, 0)).with_context(|| format!("cannot bind to {source}"))?;
            socket.connect(shared.target)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect()
}

fn send_all(shared: &Shared, attack: Attack, sockets: &[UdpSocket], outcome: &mut Outcome) {
    let locals: Vec<String> = sockets
        .iter()
        .map(|it| it.local_addr().map_or_else(|_| String::new(), |at| at.to_string()))
        .collect();
    let mut chance = Chance::new(outcome.seed);
    let mut datagram = Vec::new();
    let start = shared.clock.now();
    for (number, turn) in
        (0..attack.count).zip((0..sockets.len()).cycle().flat_map(|it| [it; BATCH as usize]))
    {
        if number % BATCH == 0 {
            if shared.stage.load(Ordering::Relaxed) == STOP {
                break;
            }
            keep_pace(&shared.clock, start, number as f64 / attack.rate);
        }
        originals::write(&mut datagram, &shared.style, &locals[turn], &mut chance);
        mutate::damage(&mut datagram, &shared.style, &locals[turn], &mut chance, &mut outcome.damage);
        match sockets[turn].send(&datagram) {
            Ok(_) => {
                outcome.sent += 1;
                outcome.sent_bytes += datagram.len() as u64;
                shared.attack.sent.store(outcome.sent, Ordering::Relaxed);
            }
            Err(_) => outcome.send_errors += 1,
        }
        if number % BATCH == BATCH - 1 {
            take_answers(&sockets[turn], outcome);
        }
    }
    outcome.secs = crate::report::secs(shared.clock.now().saturating_sub(start));
}

/// Sleeps until so many seconds after the start.
fn keep_pace(clock: &Clock, start: u64, secs: f64) {
    let due = start + nanos(Duration::from_secs_f64(secs));
    let now = clock.now();
    if due > now {
        thread::sleep(Duration::from_nanos(due - now));
    }
}

/// Reads and counts what has come to a socket.
fn take_answers(socket: &UdpSocket, outcome: &mut Outcome) {
    let mut room = [0; 65_536];
    loop {
        match socket.recv(&mut room) {
            Ok(len) => count(&room[..len], outcome),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing more, or the server is gone: that shows in the good phones.
            Err(_) => break,
        }
    }
}

/// Counts one datagram of the server.
fn count(bytes: &[u8], outcome: &mut Outcome) {
    if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
        outcome.pongs += 1;
        return;
    }
    let parsed = comsipl_core::msg::parse(bytes);
    match parsed.as_ref().map(|message| message.status()) {
        Ok(Some(status)) => *outcome.answers.entry(status).or_default() += 1,
        Ok(None) => outcome.notifies += 1,
        // A CSeq that is out of range must be repeated as it came.
        Err(error) if error.partial.via().is_none() && status_of(bytes).is_some() => {
            *outcome.answers.entry(status_of(bytes).unwrap_or_default()).or_default() += 1;
        }
        Err(_) => outcome.malformed += 1,
    }
}

/// The status in a status line.
fn status_of(bytes: &[u8]) -> Option<u16> {
    std::str::from_utf8(bytes.strip_prefix(b"SIP/2.0 ")?.get(..3)?).ok()?.parse().ok()
}

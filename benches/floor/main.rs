//! The machine's own limit: what the kernel takes of a server's processor time for the datagrams alone.
//!
//! A NOTIFY is a datagram of some 800 bytes to one of many sockets, and its 200 one of some 350 back. Here a bare server
//! sends such datagrams and takes the answers, 64 a system call, and does nothing else. What this costs is the floor:
//! no server over UDP on this machine does it for less, and a server's own cost is a ratio to it.
//!
//! Only the server's thread is measured, and of it only the calls that move datagrams, by its processor time clock.
//! Waiting costs nothing here, so the floor is a little lower than what any real server can reach.
//!
//! With `--threads N`, N servers with clients of their own do the same at once: how much less than N times the rate of one
//! they reach is the machine's part in how a server scales, and no server does better.
//!
//! Last, the time that it takes to wake a thread that sleeps on another processor: a round trip of one byte has two of these
//! in it, and a server that sleeps cannot answer sooner than one; and what the machine takes away from a loop that never sleeps.

mod gaps;
mod wake;

use anyhow::Context as _;
use clap::Parser;
use comsipl_benches::mmsg::{self, BATCH_LEN, RecvBatch, SendBatch};
use comsipl_benches::processor::pin;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::Serialize;
use socket2::{Domain, SockRef, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What the machine itself takes to send datagrams and to receive their answers.
#[derive(Parser)]
struct Options {
    /// Bytes of a datagram to a client
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    send_bytes: u16,
    /// Bytes of its answer
    #[arg(long, default_value_t = 350, value_parser = clap::value_parser!(u16).range(1..=1_400))]
    answer_bytes: u16,
    /// Seconds to measure each of the two
    #[arg(long, default_value_t = 2.0)]
    duration: f64,
    /// Servers at once, with clients of their own, to see how the machine scales
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Run the server on this processor; of several servers the first, the others on the next ones
    #[arg(long)]
    server_cpu: Option<usize>,
    /// Run the clients on this processor; of several servers those of the first, the others on the next ones
    #[arg(long)]
    client_cpu: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    send_bytes: u16,
    answer_bytes: u16,
    /// To 64 sockets, a datagram each.
    distinct: Cost,
    /// To one socket, by generic segmentation.
    segmented: Cost,
    /// Several servers at once, if they were asked for.
    scaling: Option<Scaling>,
    /// Waking a thread.
    wake: Wake,
    /// What the machine takes away.
    gaps: Gaps,
}

/// What becomes of the rate when several servers run at once, each to 64 sockets.
#[derive(Serialize)]
struct Scaling {
    threads: u8,
    /// Datagrams per second that one server alone sends and has answered.
    one_per_sec: f64,
    /// All of them at once.
    all_per_sec: f64,
    /// The latter of the former: at best as many as there are threads.
    ratio: f64,
    /// Processor time for one datagram and its answer when all run, in microseconds.
    both_us: f64,
}

/// How long a byte takes to a thread that sleeps, and back to one that does.
#[derive(Serialize)]
struct Wake {
    round_trip_p50_us: f64,
    round_trip_p99_us: f64,
}

/// What is lost to a loop that only reads the clock, on each processor at once.
#[derive(Serialize)]
struct Gaps {
    /// Of its time.
    lost_percent: f64,
    /// How late it is for who comes at any moment and needs two processors, one after the other, but for a hundredth of the moments.
    late_p99_us: f64,
}

/// Processor time of the server for one datagram, in microseconds.
#[derive(Serialize)]
struct Cost {
    send_us: f64,
    receive_us: f64,
    both_us: f64,
    /// Answered datagrams per second.
    per_sec: f64,
    /// Datagrams sent.
    sent: u64,
    /// Of these, those whose answers never came.
    lost: u64,
    /// Answers that a system call took, in the mean.
    receive_batch: f64,
}

/// How the server sends a batch.
enum Outlet {
    /// A datagram to each client.
    Distinct(SendBatch),
    /// One buffer that the kernel cuts into datagrams for one client.
    Segmented(Vec<u8>, SocketAddrV4),
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let distinct = measure(&options, BATCH_LEN, 0)?;
    let report = Report {
        send_bytes: options.send_bytes,
        answer_bytes: options.answer_bytes,
        segmented: measure(&options, 1, 0)?,
        scaling: (options.threads > 1).then(|| scale(&options, &distinct)).transpose()?,
        distinct,
        wake: wake::measure(options.server_cpu, options.client_cpu, WAKE_ROUNDS)?,
        gaps: gaps::measure(&options.processors(), Duration::from_secs_f64(options.duration))?,
    };
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

impl Options {
    /// Where servers and clients run.
    fn processors(&self) -> Vec<Option<usize>> {
        let numbers = 0..usize::from(self.threads);
        numbers.flat_map(|n| [self.server_cpu, self.client_cpu].map(|cpu| cpu.map(|cpu| cpu + n))).collect()
    }
}

impl Report {
    fn print(&self) {
        for (name, cost) in
            [("to 64 sockets", &self.distinct), ("to one socket by UDP_SEGMENT", &self.segmented)]
        {
            println!(
                "{name}: {:.2} µs = {:.2} to send {} bytes + {:.2} to receive {} \
                 ({:.0}/s, {} sent, {} lost, {:.0} a receive)",
                cost.both_us,
                cost.send_us,
                self.send_bytes,
                cost.receive_us,
                self.answer_bytes,
                cost.per_sec,
                cost.sent,
                cost.lost,
                cost.receive_batch,
            );
        }
        if let Some(scaling) = &self.scaling {
            println!(
                "{} servers at once: {:.0}/s, {:.2} times the {:.0}/s of one; {:.2} µs",
                scaling.threads, scaling.all_per_sec, scaling.ratio, scaling.one_per_sec, scaling.both_us
            );
        }
        println!(
            "waking a thread and being woken: {:.1} µs, p99 {:.1} µs",
            self.wake.round_trip_p50_us, self.wake.round_trip_p99_us
        );
        println!(
            "a loop on each processor loses {:.2}% of its time; who needs two of them is late by p99 {:.0} µs",
            self.gaps.lost_percent, self.gaps.late_p99_us
        );
    }
}

/// Several servers at once beside what one alone did.
fn scale(options: &Options, one: &Cost) -> anyhow::Result<Scaling> {
    let costs = thread::scope(|scope| {
        let servers: Vec<_> = (0..usize::from(options.threads))
            .map(|number| scope.spawn(move || measure(options, BATCH_LEN, number)))
            .collect();
        servers
            .into_iter()
            .map(|it| it.join().expect("the servers do not panic"))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let all_per_sec: f64 = costs.iter().map(|cost| cost.per_sec).sum();
    Ok(Scaling {
        threads: options.threads,
        one_per_sec: one.per_sec,
        all_per_sec,
        ratio: all_per_sec / one.per_sec,
        both_us: costs.iter().map(|cost| cost.both_us).sum::<f64>() / costs.len() as f64,
    })
}

/// Sends to `sockets` clients, who answer, for the time that was asked for. `number`: of the server, if there are several.
fn measure(options: &Options, sockets: usize, number: usize) -> anyhow::Result<Cost> {
    let server = open()?;
    let clients = (0..sockets)
        .map(|_| {
            let client = open()?;
            client.connect(server.local_addr()?)?;
            Ok(client)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let addresses = clients.iter().map(address).collect::<anyhow::Result<Vec<_>>>()?;
    let outlet = if let [client] = addresses[..] {
        mmsg::segment(server.as_fd(), options.send_bytes).context("UDP_SEGMENT")?;
        Outlet::Segmented(vec![b'x'; usize::from(options.send_bytes) * SEGMENTS], client)
    } else {
        Outlet::Distinct(SendBatch::new(usize::from(options.send_bytes), &addresses))
    };
    let to_server = address(&server)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            pin(options.client_cpu.map(|cpu| cpu + number))?;
            answer(&clients, to_server, usize::from(options.answer_bytes), &is_over)
        });
        let cost = pin(options.server_cpu.map(|cpu| cpu + number))
            .and_then(|()| serve(&server, outlet, Duration::from_secs_f64(options.duration)));
        is_over.store(true, Ordering::Relaxed);
        answering.join().expect("the clients do not panic")?;
        cost
    })
}

/// What the server's thread has done since it was warm.
#[derive(Default)]
struct Tally {
    since: Option<Instant>,
    sending: Duration,
    receiving: Duration,
    sent: u64,
    received: u64,
    receives: u64,
    lost: u64,
}

/// The server: keeps up to [`WINDOW`] datagrams unanswered.
fn serve(server: &UdpSocket, mut outlet: Outlet, duration: Duration) -> anyhow::Result<Cost> {
    let mut inlet = RecvBatch::new();
    let mut tally = Tally::default();
    let mut unanswered = 0;
    let mut last_received = Instant::now();
    // The first tenth warms up sockets, caches and clocks.
    let warm_at = last_received + duration / 10;
    let end = last_received + duration;
    let mut is_warm = false;
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        if !is_warm && now >= warm_at {
            is_warm = true;
            tally = Tally { since: Some(now), ..Tally::default() };
        }
        let mut is_idle = true;
        let mut before = processor_time();
        if unanswered + BATCH_LEN <= WINDOW {
            let count = outlet.send(server)?;
            let after = processor_time();
            tally.sending += after - before;
            tally.sent += count as u64;
            before = after;
            unanswered += count;
            is_idle = false;
        }
        let count = inlet.recv(server.as_fd())?;
        if count > 0 {
            tally.receiving += processor_time() - before;
            tally.received += count as u64;
            tally.receives += 1;
            unanswered = unanswered.saturating_sub(count);
            last_received = now;
            is_idle = false;
        } else if now - last_received > LOST_AFTER {
            tally.lost += unanswered as u64;
            unanswered = 0;
            last_received = now;
        }
        if is_idle {
            thread::sleep(REST);
        }
    }
    tally.cost()
}

impl Tally {
    /// For one datagram.
    fn cost(&self) -> anyhow::Result<Cost> {
        anyhow::ensure!(self.sent > 0 && self.received > 0, "no answer came");
        let send_us = self.sending.as_secs_f64() * 1e6 / self.sent as f64;
        let receive_us = self.receiving.as_secs_f64() * 1e6 / self.received as f64;
        Ok(Cost {
            send_us,
            receive_us,
            both_us: send_us + receive_us,
            per_sec: self.since.map_or(0.0, |since| self.received as f64 / since.elapsed().as_secs_f64()),
            sent: self.sent,
            lost: self.lost,
            receive_batch: self.received as f64 / self.receives as f64,
        })
    }
}

impl Outlet {
    /// Sends a batch; how many datagrams left.
    fn send(&mut self, server: &UdpSocket) -> anyhow::Result<usize> {
        match self {
            Self::Distinct(batch) => Ok(batch.send(server.as_fd(), BATCH_LEN)?),
            Self::Segmented(bytes, client) => {
                server.send_to(bytes, *client)?;
                Ok(SEGMENTS)
            }
        }
    }
}

/// The clients: each datagram is answered. They never sleep, so that waking them is not in the server's cost, and are in no epoll, in whose
/// list the server would enter them.
fn answer(
    clients: &[UdpSocket],
    server: SocketAddrV4,
    answer_len: usize,
    is_over: &AtomicBool,
) -> anyhow::Result<()> {
    let mut states: Vec<_> = clients.iter().map(|client| PollFd::new(client, PollFlags::IN)).collect();
    let mut inlet = RecvBatch::new();
    let mut outlet = SendBatch::new(answer_len, &[server; BATCH_LEN]);
    while !is_over.load(Ordering::Relaxed) {
        let ready = poll(&mut states, Some(&Timespec::default()))?;
        let waiting = states.iter().zip(clients).filter(|(state, _)| !state.revents().is_empty());
        for (_, client) in waiting {
            let count = inlet.recv(client.as_fd())?;
            // An answer that the kernel refuses is a lost one, and the server counts those.
            outlet.send(client.as_fd(), count).ok();
        }
        if ready == 0 {
            thread::yield_now();
        }
    }
    Ok(())
}

/// A socket on loopback with room for everything that may be on its way.
fn open() -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES)?;
    SockRef::from(&socket).set_send_buffer_size(BUFFER_BYTES)?;
    Ok(socket.into())
}

/// Where a socket is.
fn address(socket: &UdpSocket) -> anyhow::Result<SocketAddrV4> {
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => anyhow::bail!("{address} is not of IPv4"),
    }
}

/// What this thread has used of its processor so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Datagrams that may be unanswered: enough that neither side waits for the other, little enough for every buffer.
const WINDOW: usize = 1024;
/// Datagrams of one segmented send: as many as a batch, which is also the kernel's own bound (`UDP_MAX_SEGMENTS`).
const SEGMENTS: usize = BATCH_LEN;
/// How long the server rests when it can neither send nor receive.
const REST: Duration = Duration::from_micros(50);
/// Answers that have not come while none came for so long are lost.
const LOST_AFTER: Duration = Duration::from_millis(100);
/// Round trips of the waking.
const WAKE_ROUNDS: usize = 20_000;
/// Buffers of each socket.
const BUFFER_BYTES: usize = 4 << 20;

//! The machine's own limit: what the kernel takes of a server's processor time for the datagrams alone.
//!
//! A NOTIFY is a datagram of some 800 bytes to one of many sockets, and its 200 one of some 350 back. Here a bare server
//! sends such datagrams and takes the answers, 64 a system call, and does nothing else. What this costs is the floor:
//! no server over UDP on this machine does it for less, and a server's own cost is a ratio to it.
//!
//! Only the server's thread is measured, and of it only the calls that move datagrams, by its processor time clock.
//! Waiting costs nothing here, so the floor is a little lower than what any real server can reach.

use anyhow::Context as _;
use clap::Parser;
use comsipl_benches::mmsg::{self, BATCH_LEN, RecvBatch, SendBatch};
use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_setaffinity};
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
    /// Run the server on this processor
    #[arg(long)]
    server_cpu: Option<usize>,
    /// Run the clients on this processor
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
}

/// Processor time of the server for one datagram, in microseconds.
#[derive(Serialize)]
struct Cost {
    send_us: f64,
    receive_us: f64,
    both_us: f64,
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
    let report = Report {
        send_bytes: options.send_bytes,
        answer_bytes: options.answer_bytes,
        distinct: measure(&options, BATCH_LEN)?,
        segmented: measure(&options, 1)?,
    };
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        for (name, cost) in
            [("to 64 sockets", &report.distinct), ("to one socket by UDP_SEGMENT", &report.segmented)]
        {
            println!(
                "{name}: {:.2} µs = {:.2} to send {} bytes + {:.2} to receive {} ({} sent, {} lost, {:.0} a receive)",
                cost.both_us,
                cost.send_us,
                options.send_bytes,
                cost.receive_us,
                options.answer_bytes,
                cost.sent,
                cost.lost,
                cost.receive_batch,
            );
        }
    }
    Ok(())
}

/// Sends to `sockets` clients, who answer, for the time that was asked for.
fn measure(options: &Options, sockets: usize) -> anyhow::Result<Cost> {
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
            pin(options.client_cpu)?;
            answer(&clients, to_server, usize::from(options.answer_bytes), &is_over)
        });
        let cost = pin(options.server_cpu)
            .and_then(|()| serve(&server, outlet, Duration::from_secs_f64(options.duration)));
        is_over.store(true, Ordering::Relaxed);
        answering.join().expect("the clients do not panic")?;
        cost
    })
}

/// What the server's thread has done since it was warm.
#[derive(Default)]
struct Tally {
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
            tally = Tally::default();
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

/// The clients: each datagram is answered. They wait as programs with many sockets do, by epoll, but never sleep, so that
/// waking them is not in the server's cost.
fn answer(
    clients: &[UdpSocket],
    server: SocketAddrV4,
    answer_len: usize,
    is_over: &AtomicBool,
) -> anyhow::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (i, client) in clients.iter().enumerate() {
        epoll::add(&poll, client, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
    }
    let mut inlet = RecvBatch::new();
    let mut outlet = SendBatch::new(answer_len, &[server; BATCH_LEN]);
    let mut events = Vec::with_capacity(BATCH_LEN);
    while !is_over.load(Ordering::Relaxed) {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()))?;
        for event in &events {
            let client = &clients[event.data.u64() as usize];
            let count = inlet.recv(client.as_fd())?;
            // An answer that the kernel refuses is a lost one, and the server counts those.
            outlet.send(client.as_fd(), count).ok();
        }
        if events.is_empty() {
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

/// Keeps this thread on a processor.
fn pin(cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    anyhow::ensure!(cpu < CpuSet::MAX_CPU, "there is no processor {cpu}");
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {cpu}"))
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
/// Buffers of each socket.
const BUFFER_BYTES: usize = 4 << 20;

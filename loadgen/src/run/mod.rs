//! Runs: sets up the threads, has them led through the phases, and gathers what they found.

mod conductor;
mod plans;
mod status;
mod summary;

use crate::cli::{Command, Common};
use crate::clock::{Clock, nanos};
use crate::engine;
use crate::hostile;
use crate::ident::{Salt, mix};
use crate::message::{Style, Transport};
use crate::net::Sockets;
use crate::pace::Rate;
use crate::report::Report;
use crate::scenario::Plan;
use crate::scenario::profile::{self, Profile, Size};
use crate::server::Server;
use crate::shared::{Board, Post, STOP, Shared};
use crate::stream;
use anyhow::{Context as _, bail, ensure};
use conductor::Conductor;
use plans::{plan, shape};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs a command to its end.
pub fn run(command: &Command) -> anyhow::Result<Report> {
    let (common, rate) = command.measurement().context("this command measures nothing")?;
    if let Command::Run { profile, scale, slice, stretch, server_command, .. } = command {
        let size = Size { scale: *scale, stretch: *stretch, slice: *slice };
        return run_profile(profile, size, server_command.as_deref(), common);
    }
    if let Command::Soak { duration, scale, server_command, common } = command {
        let (_, text) = profile::find(SOAK)?;
        let whole = Profile::parse(&text)?.longest().context("the profile has no end")?;
        let size = Size { scale: *scale, stretch: duration.div_duration_f64(whole), slice: None };
        return run_profile(SOAK, size, server_command.as_deref(), common);
    }
    run_plan(plan(command, common)?, rate, None, common)
}

/// The profile that `soak` runs.
const SOAK: &str = "soak";

/// Runs a profile.
fn run_profile(
    profile: &str,
    size: Size,
    server_command: Option<&str>,
    common: &Common,
) -> anyhow::Result<Report> {
    let (name, text) = profile::find(profile)?;
    let profile = Profile::parse(&text).with_context(|| format!("profile {name}"))?;
    ensure!(!profile.restarts() || server_command.is_some(), "profile {name} needs --server-command");
    ensure!(
        server_command.is_none() || common.server_pid.is_none(),
        "--server-command starts a server, and --server-pid is another"
    );
    ensure!(
        !profile.needs_server() || server_command.is_some() || common.server_pid.is_some(),
        "profile {name} needs --server-pid or --server-command"
    );
    let shape = shape(common);
    let contacts_seed = common.seed.unwrap_or(1);
    let plan = profile.plan(&name, &shape, size, contacts_seed).with_context(|| format!("profile {name}"))?;
    profile.check_expiry(&plan, plan.expires.unwrap_or(common.expires))?;
    // The rate of the last measured phase, unless it is a closed loop.
    let measured = plan.phases.iter().rev().find(|phase| phase.measured);
    let rate =
        measured.into_iter().flat_map(|phase| &phase.works).try_fold(0.0, |sum, work| match work.rate {
            Rate::PerSecond(rate) => Some(sum + rate),
            Rate::Max => None,
        });
    let server =
        server_command.map(|command| Server::start(command, common.target, common.transport)).transpose()?;
    run_plan(plan, rate.map_or(Rate::Max, Rate::PerSecond), server, common)
}

/// Descriptors that a run needs beside its connections.
const DESCRIPTORS_ASIDE: u64 = 64;

/// Runs a plan, against a server of our own if there is one.
fn run_plan(plan: Plan, rate: Rate, server: Option<Server>, common: &Common) -> anyhow::Result<Report> {
    let is_relieved = common.behind_proxy && common.threads > 1;
    ensure!(
        !is_relieved || common.threads == 2,
        "--behind-proxy has one socket, which one thread reads; a second one sends, and there is nothing for more to do"
    );
    let threads = if common.behind_proxy { 1 } else { usize::from(common.threads) };
    let is_stream = common.transport == Transport::Tcp;
    ensure!(!is_stream || !is_relieved, "--behind-proxy over tcp has one thread");
    ensure!(is_stream || common.connections.is_none(), "--connections are for --transport tcp");
    ensure!(!is_stream || !plan.link.is_bad(), "a bad network is played with datagrams, over UDP");
    let shared_by_all = usize::from(common.sockets);
    let wanted = common.connections.map_or(shared_by_all, |it| it as usize);
    let sockets = if common.behind_proxy { 1 } else { wanted.max(threads) };
    if is_stream {
        stream::allow_descriptors(sockets as u64 + DESCRIPTORS_ASIDE)?;
    }
    let source = match common.source {
        Some(source) => source,
        None => Sockets::source_for(common.target)?,
    };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = common.seed.unwrap_or_else(|| nanos(wall) ^ u64::from(std::process::id()) << 32);
    let domain = common.domain.clone().unwrap_or_else(|| match common.target {
        std::net::SocketAddr::V4(target) => target.ip().to_string(),
        std::net::SocketAddr::V6(target) => format!("[{}]", target.ip()),
    });
    let shared = Shared {
        clock: Clock::start(),
        target: common.target,
        style: Style {
            transport: common.transport,
            domain: domain.into(),
            package: plan.package.clone().into(),
            salt: Salt(mix(seed)),
            users: plan.users,
            takes_part: common.overload_control,
            wall_start_secs: wall.as_secs(),
        },
        expires: plan.expires.unwrap_or(common.expires),
        stage: AtomicUsize::new(0),
        stage_start: AtomicU64::new(0),
        boards: (0..plan.presentities).map(|_| Board::default()).collect(),
        attack: hostile::Board::default(),
        posts: (0..threads).map(|_| Post::new(plan.presentities)).collect(),
        plan,
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let shared = &shared;
                let share = (thread..sockets).step_by(threads).count();
                let cpu_of = |thread| common.cpus.iter().cycle().nth(thread).copied();
                let (cpu, relief_cpu) = (cpu_of(thread), cpu_of(thread + 1));
                thread::Builder::new().name(format!("phones-{thread}")).spawn_scoped(scope, move || {
                    if let Some(cpu) = cpu {
                        pin(cpu)?;
                    }
                    let mut sockets = match common.transport {
                        Transport::Udp => Sockets::open(share, source, common.behind_proxy)?,
                        Transport::Tcp => Sockets::connect(share, common.source, common.target)?,
                    };
                    if common.poll {
                        sockets.poll()?;
                    }
                    if is_relieved {
                        sockets.relieve(move || relief_cpu.map_or(Ok(()), pin))?;
                    }
                    engine::run(shared, thread, sockets)
                })
            })
            .collect::<Result<_, _>>()
            .context("cannot start a thread")?;
        let strangers = shared.plan.attack.is_some().then(|| {
            let shared = &shared;
            let name = thread::Builder::new().name("strangers".into());
            name.spawn_scoped(scope, move || hostile::run(shared, source, seed))
        });
        let strangers = strangers.transpose().context("cannot start a thread")?;
        let mut conductor = Conductor::new(&shared, common, server);
        let conducted = conductor.conduct(|| workers.iter().any(thread::ScopedJoinHandle::is_finished));
        shared.stage.store(STOP, Ordering::Release);
        let mut harvests = Vec::with_capacity(threads);
        for worker in workers {
            match worker.join() {
                Ok(harvest) => harvests.push(harvest?),
                Err(_) => bail!("a thread of the generator panicked"),
            }
        }
        let hostile = match strangers.map(thread::ScopedJoinHandle::join) {
            None => None,
            Some(Ok(outcome)) => Some(outcome?),
            Some(Err(_)) => bail!("a thread of the generator panicked"),
        };
        conducted?;
        Ok(conductor.report(rate, wall.as_secs(), sockets, &harvests, hostile))
    })
}

/// Binds the calling thread, and those that it starts, to a processor.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    ensure!(cpu < rustix::thread::CpuSet::MAX_CPU, "there is no processor {cpu}");
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {cpu}"))
}

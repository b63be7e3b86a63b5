//! The conductor: sets up the threads, leads them through the phases, and gathers what they found.

use crate::audit::Tally;
use crate::cli::{Audience, Command, Common};
use crate::clock::{Clock, Nanos, SECOND, nanos};
use crate::engine::{self, Harvest};
use crate::expect::Facts;
use crate::ident::{Salt, mix};
use crate::message::Style;
use crate::net::Sockets;
use crate::pace::Rate;
use crate::process::Usage;
use crate::progress::Progress;
use crate::report::{self, AllPercentiles, Curve, Generator, LATENESS, PhaseReport, Rates, Report, Verdict};
use crate::scenario::profile::{self, Profile, Size};
use crate::scenario::{self, PerAgent, Phase, Plan};
use crate::series::{Point, Series};
use crate::server::Server;
use crate::shared::{Board, Post, STOP, Shared};
use crate::stats::{Counts, Timings};
use crate::terminal::Grouped;
use anyhow::{Context as _, bail, ensure};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the conductor looks at its threads.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A phase in which nothing was finished or received for so long is broken off: a little more than Timer F.
const STALL_MAX: Nanos = 35 * SECOND;

/// Runs a command to its end.
pub fn run(command: &Command) -> anyhow::Result<Report> {
    let (common, rate) = command.measurement().context("this command measures nothing")?;
    if let Command::Run { profile, scale, slice, stretch, server_command, .. } = command {
        let size = Size { scale: *scale, stretch: *stretch, slice: *slice };
        return run_profile(profile, size, server_command.as_deref(), common);
    }
    run_plan(plan(command, common)?, rate, None, common)
}

/// Runs a profile.
fn run_profile(
    profile: &str,
    size: Size,
    server_command: Option<&str>,
    common: &Common,
) -> anyhow::Result<Report> {
    let (name, text) = profile::find(profile)?;
    let profile = Profile::parse(&text).with_context(|| format!("profile {name}"))?;
    ensure!(!profile.kills() || server_command.is_some(), "profile {name} needs --server-command");
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
    let server = server_command.map(|command| Server::start(command, common.target)).transpose()?;
    run_plan(plan, rate.map_or(Rate::Max, Rate::PerSecond), server, common)
}

/// Runs a plan, against a server of our own if there is one.
fn run_plan(plan: Plan, rate: Rate, server: Option<Server>, common: &Common) -> anyhow::Result<Report> {
    let threads = usize::from(common.threads);
    ensure!(!common.behind_proxy || threads == 1, "--behind-proxy has one socket, and so one thread");
    let sockets = if common.behind_proxy { 1 } else { usize::from(common.sockets).max(threads) };
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
            domain: domain.into(),
            package: plan.package.clone().into(),
            salt: Salt(mix(seed)),
            users: plan.users,
            wall_start_secs: wall.as_secs(),
        },
        expires: plan.expires.unwrap_or(common.expires),
        stage: AtomicUsize::new(0),
        stage_start: AtomicU64::new(0),
        boards: (0..plan.presentities).map(|_| Board::default()).collect(),
        posts: (0..threads).map(|_| Post::new(plan.presentities)).collect(),
        plan,
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let shared = &shared;
                let share = (thread..sockets).step_by(threads).count();
                let cpu = (!common.cpus.is_empty()).then(|| common.cpus[thread % common.cpus.len()]);
                thread::Builder::new().name(format!("phones-{thread}")).spawn_scoped(scope, move || {
                    if let Some(cpu) = cpu {
                        pin(cpu)?;
                    }
                    engine::run(shared, thread, Sockets::open(share, source, common.behind_proxy)?)
                })
            })
            .collect::<Result<_, _>>()
            .context("cannot start a thread")?;
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
        conducted?;
        Ok(conductor.report(rate, wall.as_secs(), sockets, &harvests))
    })
}

/// What the command line says to all plans.
fn shape(flags: &Common) -> scenario::Common {
    scenario::Common {
        window: flags.window.into(),
        settle: nanos(flags.settle),
        keep: flags.keep,
        arrivals: flags.arrivals,
    }
}

/// The plan of a command.
fn plan(command: &Command, flags: &Common) -> anyhow::Result<Plan> {
    let common = shape(flags);
    let total = |audience: &Audience| {
        ensure!(
            audience.presentities.checked_mul(audience.watchers).is_some(),
            "{} × {} subscriptions are too many",
            audience.presentities,
            audience.watchers
        );
        Ok(())
    };
    let duration = match *command {
        Command::Register { duration, .. } | Command::Subscribe { duration, .. } => {
            duration.unwrap_or_default()
        }
        Command::Publish { duration, .. } | Command::Fanout { duration, .. } => duration,
        _ => Duration::ZERO,
    };
    // Phones refresh only when a plan tells them to, so nothing may expire meanwhile.
    ensure!(
        (duration + flags.settle).as_secs_f64() < 0.8 * f64::from(flags.expires),
        "--duration and --settle together must be less than 80% of --expires, which is {} s",
        flags.expires
    );
    Ok(match *command {
        Command::Register { users, rate, duration, .. } => {
            scenario::register(&common, users, rate, duration.map(nanos))
        }
        Command::Subscribe { audience, rate, duration, .. } => {
            total(&audience)?;
            let (presentities, watchers) = (audience.presentities, audience.watchers);
            scenario::subscribe(&common, presentities, watchers, rate, duration.map(nanos))
        }
        Command::Publish { presentities, rate, duration, .. } => {
            scenario::publish(&common, presentities, rate, nanos(duration))
        }
        Command::Fanout { audience, rate, duration, .. } => {
            total(&audience)?;
            scenario::fanout(&common, audience.presentities, audience.watchers, rate, nanos(duration))
        }
        _ => bail!("this command has no plan"),
    })
}

/// Binds the calling thread, and those that it starts, to a processor.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    ensure!(cpu < rustix::thread::CpuSet::MAX_CPU, "there is no processor {cpu}");
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {cpu}"))
}

/// What is read at the beginning and at the end of a phase.
#[derive(Clone)]
struct Snapshot {
    at: Nanos,
    counts: Counts,
    idle: Vec<u64>,
    server: Option<Usage>,
    own: Usage,
}

/// The measured phase.
struct Measured {
    from: Snapshot,
    to: Snapshot,
}

/// Leads through the phases.
struct Conductor<'s> {
    shared: &'s Shared,
    common: &'s Common,
    progress: Progress,
    series: Series,
    phases: Vec<PhaseReport>,
    measured: Vec<Measured>,
    /// The server that we started.
    server: Option<Server>,
    /// What its killed processes had used.
    gone: Usage,
}

impl<'s> Conductor<'s> {
    fn new(shared: &'s Shared, common: &'s Common, server: Option<Server>) -> Self {
        let progress = Progress::new(common.quiet);
        Self {
            shared,
            common,
            progress,
            series: Series::new(),
            phases: Vec::new(),
            measured: Vec::new(),
            server,
            gone: Usage::default(),
        }
    }

    fn conduct(&mut self, has_failed: impl Fn() -> bool) -> anyhow::Result<()> {
        if let Some(pid) = self.common.server_pid {
            ensure!(Usage::of_tree(pid).is_some(), "there is no process {pid}");
        }
        for (i, phase) in self.shared.plan.phases.iter().enumerate() {
            let before = self.counts();
            self.take_point(self.shared.clock.now(), before);
            let snapshot = phase.measured.then(|| self.snapshot());
            let start = self.shared.clock.now() + SECOND / 1_000;
            self.shared.stage_start.store(start, Ordering::Relaxed);
            self.shared.stage.store(i + 1, Ordering::Release);
            let stalled = self.attend(phase, i + 1, start, snapshot, &has_failed)?;
            let secs = report::secs(self.shared.clock.now().saturating_sub(start));
            let counts = self.counts().since(before);
            let (name, start_secs) = (phase.name.clone(), report::secs(start));
            let measured = phase.measured;
            self.phases.push(PhaseReport {
                name,
                start_secs,
                secs,
                measured,
                stalled,
                counts,
                percentiles: None,
            });
        }
        self.take_point(self.shared.clock.now(), self.counts());
        Ok(())
    }

    /// Waits until all threads have finished the phase; whether it was broken off.
    fn attend(
        &mut self,
        phase: &Phase,
        stage: usize,
        start: Nanos,
        mut snapshot: Option<Snapshot>,
        has_failed: &impl Fn() -> bool,
    ) -> anyhow::Result<bool> {
        self.progress.begin(phase, &self.shared.plan, self.counts());
        // A timed phase is measured to the end of its time, not to the last straggler.
        let end = phase.works.iter().map(|work| match work.amount {
            PerAgent::For(time) => start + time,
            PerAgent::Once => Nanos::MAX,
        });
        let end = end.max().unwrap_or(Nanos::MAX);
        let mut last = (self.shared.clock.now(), self.counts());
        let mut kill_at = phase.kill_after.map(|after| start + after);
        let stalled = loop {
            let now = self.shared.clock.now();
            let is_done = (now >= end || end == Nanos::MAX)
                && self.shared.posts.iter().all(|post| post.finished.load(Ordering::Acquire) == stage);
            if (is_done || now >= end)
                && let Some(mut from) = snapshot.take()
            {
                from.at = start;
                let to = self.snapshot();
                self.measured.push(Measured { from, to });
            }
            if is_done {
                break false;
            }
            if kill_at.is_some_and(|at| now >= at) {
                kill_at = None;
                self.kill()?;
            }
            let counts = self.counts();
            if self.series.is_due(now) {
                self.take_point(now, counts);
            }
            // Who was told to come again later is not stuck.
            if counts.resting > 0
                || (Counts { unfinished: 0, ..counts }) != (Counts { unfinished: 0, ..last.1 })
            {
                last = (now, counts);
            } else if now - last.0 > STALL_MAX {
                break true;
            }
            if has_failed() {
                break true;
            }
            self.progress.show(counts);
            thread::sleep(LOOK_EVERY.min(Duration::from_nanos(end.saturating_sub(now).max(1))));
        };
        if let Some(mut from) = snapshot {
            from.at = start;
            let to = self.snapshot();
            self.measured.push(Measured { from, to });
        }
        self.progress.end(self.counts());
        Ok(stalled)
    }

    /// Kills our server and starts it again.
    fn kill(&mut self) -> anyhow::Result<()> {
        // What a process has used is known until it is waited for; the last hundredth of a second is lost.
        let used = self.server_usage(Usage::glance).unwrap_or_default();
        let server = self.server.as_mut().context("there is no server to kill")?;
        self.gone = used;
        server.kill_and_start()
    }

    /// What the server has used, by `measure`.
    fn server_usage(&self, measure: impl Fn(u32) -> Option<Usage>) -> Option<Usage> {
        let pid = self.server.as_ref().map(Server::pid).or(self.common.server_pid)?;
        let usage = measure(pid)?;
        let Usage { user_secs, system_secs, .. } = self.gone;
        Some(Usage {
            user_secs: usage.user_secs + user_secs,
            system_secs: usage.system_secs + system_secs,
            ..usage
        })
    }

    fn take_point(&mut self, now: Nanos, counts: Counts) {
        let server = self.server_usage(Usage::glance);
        let own = Usage::glance(std::process::id()).unwrap_or_default();
        self.series.push(now, Point::of(now, &counts, server, own));
    }

    fn counts(&self) -> Counts {
        self.shared.counts()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            at: self.shared.clock.now(),
            counts: self.counts(),
            idle: self.shared.posts.iter().map(|post| post.idle.load(Ordering::Relaxed)).collect(),
            server: self.server_usage(Usage::of_tree),
            own: Usage::of_tree(std::process::id()).unwrap_or_default(),
        }
    }

    fn report(mut self, rate: Rate, started_unix_secs: u64, sockets: usize, harvests: &[Harvest]) -> Report {
        let shared = self.shared;
        let plan = &shared.plan;
        let mut timings: Vec<_> = self.measured.iter().map(|_| Timings::new()).collect();
        let mut audit: Option<Tally> = None;
        for harvest in harvests {
            for (all, one) in timings.iter_mut().zip(&harvest.timings) {
                all.merge(one);
            }
            if let Some(tally) = harvest.tally {
                audit.get_or_insert_default().merge(tally);
            }
        }
        let mut measured_phases: Vec<_> = self.phases.iter_mut().filter(|phase| phase.measured).collect();
        for (phase, timings) in measured_phases.iter_mut().zip(&timings) {
            phase.percentiles = Some(AllPercentiles::of(timings));
        }
        let earlier = measured_phases.iter().map(|phase| phase.name.clone()).zip(&timings);
        let earlier = earlier.take(timings.len().saturating_sub(1));
        let first = plan.latencies.first();
        let mut curves: Vec<_> = earlier
            .filter_map(|(name, timings)| {
                let first = first?;
                Some(Curve::of(format!("{} in “{name}”", first.name()), first.histogram(timings)))
            })
            .collect();
        let timings = timings.pop().unwrap_or_else(Timings::new);
        let main = plan.latencies.iter().map(|latencies| (latencies.name(), latencies.histogram(&timings)));
        let main = main.chain([(LATENESS, &timings.lateness)]);
        // The main one first, since its colour is the one that all pages have for it.
        curves.splice(0..0, main.map(|(name, histogram)| Curve::of(name, histogram)));
        let Measured { from, to } = self.measured.pop().unwrap_or_else(|| {
            let now = self.snapshot();
            Measured { from: now.clone(), to: now }
        });
        let measured = to.counts.since(from.counts);
        let elapsed = to.at.saturating_sub(from.at).max(1);
        let measured_secs = report::secs(elapsed);
        let per_sec = |count: u64| count as f64 / measured_secs;
        let total = shared.counts();
        let idle: u64 = from.idle.iter().zip(&to.idle).map(|(from, to)| to - from).sum();
        let own = to.own.since(from.own);
        let work_secs = measured_secs * from.idle.len() as f64 - report::secs(idle);
        let ran = own.total_secs() / work_secs.max(1e-9);
        let busy = from.idle.iter().zip(&to.idle).map(|(from, to)| 1.0 - (to - from) as f64 / elapsed as f64);
        let busy = busy.fold(0.0, f64::max);
        let percentiles = AllPercentiles::of(&timings);
        let kernel_drops = self.shared.posts.iter().map(|post| post.dropped.load(Ordering::Relaxed)).sum();
        let server = from.server.zip(to.server).map(|(from, to)| to.since(from));
        let cost =
            |count: u64| server.filter(|_| count > 0).map(|server| server.total_secs() * 1e6 / count as f64);
        let operations = measured.registered + measured.subscribed + measured.published;
        let series = self.series.into_points();
        let mut verdicts = verdicts(audit.as_ref(), &total, &self.phases);
        let mut unjudged = Vec::new();
        let facts = Facts { phases: &self.phases, total, series: &series };
        for expect in &plan.expects {
            match expect.judge(&facts) {
                Some(verdict) => verdicts.push(verdict),
                None => unjudged.push(expect.to_string()),
            }
        }
        Report {
            command: plan.name.clone(),
            arguments: std::env::args().skip(1).collect(),
            version: env!("CARGO_PKG_VERSION"),
            started_unix_secs,
            rate,
            registrants: plan.registrants,
            presentities: plan.presentities,
            watchers: plan.watchers,
            slice: plan.slice,
            threads: self.shared.posts.len(),
            sockets,
            measured_secs,
            rates: Rates {
                registers_per_sec: per_sec(measured.registered),
                subscribes_per_sec: per_sec(measured.subscribed),
                publishes_per_sec: per_sec(measured.published),
                notifies_per_sec: per_sec(measured.notifies),
            },
            generator: Generator {
                usage: own,
                busy,
                ran,
                kernel_drops,
                doubts: report::doubts(rate, &percentiles.lateness, busy, ran, kernel_drops),
            },
            server,
            server_us_per_notify: cost(measured.notifies),
            server_us_per_operation: cost(operations),
            percentiles,
            measured,
            total,
            audit,
            passed: verdicts.iter().all(|verdict| verdict.passed),
            verdicts,
            unjudged,
            latencies: plan.latencies,
            phases: self.phases,
            curves,
            series,
        }
    }
}

/// What every run has to show.
fn verdicts(audit: Option<&Tally>, total: &Counts, phases: &[PhaseReport]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut claim = |claim: &str, passed: bool, found: String| {
        verdicts.push(Verdict { claim: claim.into(), passed, found });
    };
    if let Some(audit) = audit {
        let Tally { watchers, behind, lost_subscriptions, .. } = audit;
        let found = format!(
            "{} watchers, {} of them behind, {} lost their subscription",
            Grouped(*watchers),
            Grouped(*behind),
            Grouped(*lost_subscriptions)
        );
        claim("Every watcher shows what was published last", audit.passes(), found);
    }
    let requests = Grouped(total.requests_sent);
    let found = format!("{} of {requests} requests given up", Grouped(total.timed_out));
    claim("Every request is answered", total.timed_out == 0, found);
    let found = format!("{} of {requests} requests refused", Grouped(total.refused));
    claim("No request is refused", total.refused == 0, found);
    let found = format!("{} malformed, {} wrong documents", total.malformed, total.wrong_document);
    claim("All that comes back is well-formed and right", total.malformed + total.wrong_document == 0, found);
    let stalled: Vec<_> = phases.iter().filter(|phase| phase.stalled).map(|phase| &*phase.name).collect();
    let found = if stalled.is_empty() { "none broken off".into() } else { stalled.join(", ") };
    claim("No phase is broken off", stalled.is_empty(), found);
    verdicts
}

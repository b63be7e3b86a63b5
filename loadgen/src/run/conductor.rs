//! Leads the threads through the phases, and takes down what they and the server use.

use super::status::ServerStatus;
use crate::cli::Common;
use crate::clock::{Nanos, SECOND};
use crate::hostile;
use crate::process::Usage;
use crate::progress::Progress;
use crate::report::{self, PhaseReport};
use crate::scenario::{PerAgent, Phase};
use crate::series::{Point, Series};
use crate::server::Server;
use crate::shared::Shared;
use crate::stats::Counts;
use anyhow::{Context as _, ensure};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How often the conductor looks at its threads.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A phase in which nothing was finished or received for so long is broken off: a little more than Timer F.
const STALL_MAX: Nanos = 35 * SECOND;

/// What is read at the beginning and at the end of a phase.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) at: Nanos,
    pub(super) counts: Counts,
    pub(super) idle: Vec<u64>,
    pub(super) server: Option<Usage>,
    pub(super) own: Usage,
}

/// The measured phase.
pub(super) struct Measured {
    pub(super) from: Snapshot,
    pub(super) to: Snapshot,
}

/// How far the conductor's thread steps back behind those that measure, which may run on the same processors (nice(2)): of this
/// thread alone.
const STEP_BACK: i32 = 10;

/// Leads through the phases.
pub(super) struct Conductor<'s> {
    pub(super) shared: &'s Shared,
    pub(super) common: &'s Common,
    pub(super) progress: Progress,
    pub(super) series: Series,
    pub(super) phases: Vec<PhaseReport>,
    pub(super) measured: Vec<Measured>,
    /// The server that we started.
    pub(super) server: Option<Server>,
    /// What its processes had used that are gone.
    pub(super) gone: Usage,
    /// What the server says of itself, if it can be asked.
    pub(super) status: Option<ServerStatus>,
}

impl<'s> Conductor<'s> {
    /// Before the first phase.
    pub(super) fn new(shared: &'s Shared, common: &'s Common, server: Option<Server>) -> Self {
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
            status: common.server_status.as_deref().map(ServerStatus::new),
        }
    }

    /// Leads through all phases; an error is the server's or the machine's.
    pub(super) fn conduct(&mut self, has_failed: impl Fn() -> bool) -> anyhow::Result<()> {
        // A server that is started again later would inherit it. Whoever may not step back goes on as before.
        if self.server.is_none() {
            let _ = rustix::process::setpriority_process(None, STEP_BACK);
        }
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
            let timed_secs = phase.timed().map_or(secs, |time| report::secs(time).min(secs));
            self.phases.push(PhaseReport {
                name,
                start_secs,
                secs,
                timed_secs,
                measured,
                stalled,
                counts,
                percentiles: None,
                classes: Vec::new(),
            });
        }
        self.take_point(self.shared.clock.now(), self.counts());
        if let Some(status) = &mut self.status {
            status.ask();
        }
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
        let mut take_over_at = phase.take_over_every.map(|every| start + every);
        let stalled = loop {
            let now = self.shared.clock.now();
            let strangers_go_on =
                phase.name == hostile::PHASE && !self.shared.attack.is_over.load(Ordering::Acquire);
            let is_done = (now >= end || end == Nanos::MAX)
                && !strangers_go_on
                && self.shared.posts.iter().all(|post| post.finished.load(Ordering::Acquire) == stage);
            if (is_done || now >= end && !strangers_go_on)
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
                self.restart(Server::kill_and_start)?;
            }
            if let (Some(at), Some(every)) = (take_over_at, phase.take_over_every)
                && now >= at
            {
                take_over_at = Some(at + every).filter(|&at| at < end);
                self.restart(Server::take_over)?;
            }
            let counts = self.counts();
            if self.series.is_due(now) {
                self.take_point(now, counts);
            }
            if let Some(status) = &mut self.status {
                status.ask_now_and_then();
            }
            // Who was told to come again later is not stuck.
            if counts.resting > 0
                || strangers_go_on && now < end
                || (Counts { unfinished: 0, ..counts }) != (Counts { unfinished: 0, ..last.1 })
            {
                last = (now, counts);
            } else if now - last.0 > STALL_MAX {
                break true;
            }
            if has_failed() {
                break true;
            }
            let hostile = self.shared.attack.sent.load(Ordering::Relaxed);
            self.progress.show(counts, hostile);
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

    /// Has another process take the place of our server's.
    fn restart(&mut self, how: impl FnOnce(&mut Server) -> anyhow::Result<()>) -> anyhow::Result<()> {
        // What a process has used is known until it is waited for; the last hundredth of a second is lost.
        let used = self.server_usage(Usage::glance).unwrap_or_default();
        let server = self.server.as_mut().context("there is no server of ours")?;
        self.gone = used;
        how(server)
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

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            at: self.shared.clock.now(),
            counts: self.counts(),
            idle: self.shared.posts.iter().map(|post| post.idle.load(Ordering::Relaxed)).collect(),
            server: self.server_usage(Usage::of_tree),
            own: Usage::of_tree(std::process::id()).unwrap_or_default(),
        }
    }
}

//! What a run found, put together at its end.

use super::conductor::{Conductor, Measured};
use super::status::ServerStatus;
use crate::audit::Tally;
use crate::class::ClassReport;
use crate::engine::Harvest;
use crate::expect::Facts;
use crate::hostile;
use crate::pace::Rate;
use crate::report::{self, AllPercentiles, Curve, Generator, LATENESS, PhaseReport, Rates, Report, Verdict};
use crate::series::Point;
use crate::stats::{Counts, Timings};
use crate::terminal::Grouped;
use std::sync::atomic::Ordering;

impl Conductor<'_> {
    /// The report of the whole run.
    pub(super) fn report(
        mut self,
        rate: Rate,
        started_unix_secs: u64,
        sockets: usize,
        harvests: &[Harvest],
        hostile: Option<hostile::Outcome>,
    ) -> Report {
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
            phase.classes = ClassReport::table(&timings.fates);
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
        let mut verdicts = verdicts(audit.as_ref(), &total, &self.phases, plan.overloads);
        if let (Some(outcome), Some(attack)) = (&hostile, plan.attack) {
            verdicts.extend(hostile_verdicts(outcome, attack));
            verdicts.extend(growth(&series, attack));
        }
        verdicts.extend(self.status.as_ref().map(ServerStatus::verdict));
        let general = verdicts.len();
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
            overloads: plan.overloads,
            threads: self.shared.posts.len(),
            transport: self.shared.style.transport,
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
            hostile,
            passed: verdicts.iter().all(|verdict| verdict.passed),
            claims: verdicts.len() - general,
            verdicts,
            unjudged,
            latencies: plan.latencies,
            phases: self.phases,
            curves,
            series,
        }
    }
}

/// What a run with strangers has to show besides.
fn hostile_verdicts(outcome: &hostile::Outcome, attack: hostile::Attack) -> [Verdict; 2] {
    let found = format!(
        "{} sent, {} refused by the kernel; {} answered, {} silently dropped",
        Grouped(outcome.sent),
        Grouped(outcome.send_errors),
        Grouped(outcome.answered()),
        Grouped(outcome.silent())
    );
    let sent = Verdict {
        claim: format!("{} hostile datagrams reach the server", Grouped(attack.count)),
        found,
        passed: outcome.sent == attack.count,
    };
    let passed = outcome.malformed == 0;
    let found = format!("{} malformed", Grouped(outcome.malformed));
    [sent, Verdict { claim: "What strangers are told is well-formed".into(), found, passed }]
}

/// Whether the server's memory stayed within bounds; nothing if it was not looked at.
fn growth(series: &[Point], attack: hostile::Attack) -> Option<Verdict> {
    let memory = || series.iter().filter_map(|point| point.server_memory_bytes);
    let (first, most) = (memory().next()?, memory().max()?);
    let grown = (most - first) as f64 / 1e6;
    Some(Verdict {
        claim: format!("The server's memory grows by at most {} MB", attack.growth_max_mb),
        found: format!(
            "{:.0} MB at first, {:.0} MB at most: {grown:+.0} MB",
            first as f64 / 1e6,
            most as f64 / 1e6
        ),
        passed: grown <= attack.growth_max_mb as f64,
    })
}

/// What every run has to show.
fn verdicts(audit: Option<&Tally>, total: &Counts, phases: &[PhaseReport], overloads: bool) -> Vec<Verdict> {
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
    if !overloads {
        let found = format!("{} of {requests} requests refused", Grouped(total.refused));
        claim("No request is refused", total.refused == 0, found);
    }
    let found = format!("{} malformed, {} wrong documents", total.malformed, total.wrong_document);
    claim("All that comes back is well-formed and right", total.malformed + total.wrong_document == 0, found);
    let stalled: Vec<_> = phases.iter().filter(|phase| phase.stalled).map(|phase| &*phase.name).collect();
    let found = if stalled.is_empty() { "none broken off".into() } else { stalled.join(", ") };
    claim("No phase is broken off", stalled.is_empty(), found);
    verdicts
}

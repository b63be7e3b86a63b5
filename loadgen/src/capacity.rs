//! The search for the highest rate that a server holds.
//!
//! A closed loop tells where to look. Then trials at fixed rates narrow the gap between a rate that holds and one that
//! does not. A rate that does not hold gets a second trial: on a shared machine a single one may fail for reasons of
//! the machine. A rate holds if every request is answered at the first attempt, nothing is dropped, no NOTIFY comes
//! twice, the audit passes, the operations are done at that rate, and the 99th percentile of all latencies is under the
//! limit.

use crate::cli::{Audience, Capacity, Command, Common};
use crate::html;
use crate::pace::Rate;
use crate::plot::{Axis, Line, Plot, escape};
use crate::report::Report;
use crate::run;
use crate::terminal::{Grouped, Micros};
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Most rates that are tried.
const RATES_MAX: usize = 20;
/// Share of the asked rate that has to be done in the time of the trial; the rest may be under way at its end.
const DONE_MIN: f64 = 0.98;

/// What is searched for.
#[derive(Clone, Debug)]
pub struct Search {
    /// What to do.
    pub what: Capacity,
    /// Phones that register.
    pub users: u32,
    /// Who watches whom.
    pub audience: Audience,
    /// Most that the 99th percentiles may be.
    pub limit: Duration,
    /// Length of a trial.
    pub duration: Duration,
    /// When the gap is narrow enough, in percent.
    pub precision: f64,
    /// What all runs have in common.
    pub common: Common,
}

/// A rate that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Operations per second asked for.
    pub rate: f64,
    /// Operations per second done.
    pub done_per_sec: f64,
    /// The highest of the 99th percentiles, in microseconds.
    pub p99_us: u64,
    /// Processors that the server used.
    pub server_cores: Option<f64>,
    /// Why the rate does not hold; empty if it does.
    pub reasons: Vec<String>,
    /// Whether the generator may be the reason.
    pub generator_doubted: bool,
}

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What was searched for.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Version of the generator.
    pub version: &'static str,
    /// Phones that register.
    pub registrants: u32,
    /// Phones that publish.
    pub presentities: u32,
    /// Subscriptions.
    pub watchers: u32,
    /// The limit of the 99th percentiles in microseconds.
    pub limit_us: u64,
    /// The closed loop's rate, where the search began.
    pub closed_loop_per_sec: f64,
    /// The highest rate that held; 0 if none did.
    pub capacity_per_sec: f64,
    /// NOTIFYs per second at that rate.
    pub notifies_per_sec: f64,
    /// Whether the rates beyond may have failed because of the generator: then the capacity is at least this.
    pub generator_limited: bool,
    /// All trials in their order.
    pub trials: Vec<Trial>,
    /// The run at the capacity.
    pub best: Option<Report>,
}

impl Search {
    /// The run at one rate.
    fn command(&self, rate: Rate) -> Command {
        let common = Common { quiet: true, json: None, html: None, keep: false, ..self.common.clone() };
        let (audience, duration, users) = (self.audience, self.duration, self.users);
        match self.what {
            Capacity::Register => Command::Register { users, rate, duration: Some(duration), common },
            Capacity::Subscribe => Command::Subscribe { audience, rate, duration: Some(duration), common },
            Capacity::Publish => {
                Command::Publish { presentities: audience.presentities, rate, duration, common }
            }
            Capacity::Fanout => Command::Fanout { audience, rate, duration, common },
        }
    }

    /// Operations per second that a run did.
    fn done(&self, report: &Report) -> f64 {
        match self.what {
            Capacity::Register => report.rates.registers_per_sec,
            Capacity::Subscribe => report.rates.subscribes_per_sec,
            Capacity::Publish | Capacity::Fanout => report.rates.publishes_per_sec,
        }
    }

    /// Judges a run at `rate`.
    fn judge(&self, rate: f64, report: &Report) -> Trial {
        let limit_us = u64::try_from(self.limit.as_micros()).unwrap_or(u64::MAX);
        let done_per_sec = self.done(report);
        let mut reasons: Vec<_> = report
            .verdicts
            .iter()
            .filter(|verdict| !verdict.passed)
            .map(|verdict| format!("not so: {} ({})", verdict.claim, verdict.found))
            .collect();
        let mut p99_us = 0;
        for latencies in report.latencies {
            let percentiles = report.percentiles.get(*latencies);
            p99_us = p99_us.max(percentiles.p99_us);
            if percentiles.p99_us > limit_us {
                reasons.push(format!("{} p99 {}", latencies.name(), Micros(percentiles.p99_us)));
            }
        }
        if done_per_sec < DONE_MIN * rate {
            reasons.push(format!("{} per second done", Grouped(done_per_sec.round() as u64)));
        }
        for (count, what) in [
            (report.total.retransmissions_sent, "requests sent again"),
            (report.total.notify_retransmissions, "NOTIFYs received again"),
            (report.generator.kernel_drops, "datagrams dropped at our sockets"),
        ] {
            if count > 0 {
                reasons.push(format!("{} {what}", Grouped(count)));
            }
        }
        Trial {
            rate,
            done_per_sec,
            p99_us,
            server_cores: report.server.map(|server| server.total_secs() / report.measured_secs),
            generator_doubted: !report.generator.doubts.is_empty(),
            reasons,
        }
    }

    /// Searches; `tell` hears of every trial.
    pub fn run(&self, mut tell: impl FnMut(&Trial)) -> anyhow::Result<Found> {
        let ceiling = run::run(&self.command(Rate::Max))?;
        let closed_loop_per_sec = self.done(&ceiling);
        let mut gap = Gap::new(closed_loop_per_sec, self.precision / 100.0);
        let mut trials = Vec::new();
        let mut best = None;
        let mut generator_limited = false;
        for _ in 0..RATES_MAX {
            let Some(rate) = gap.next() else { break };
            let mut holds = false;
            for _ in 0..2 {
                let report = run::run(&self.command(Rate::PerSecond(rate)))?;
                let trial = self.judge(rate, &report);
                tell(&trial);
                holds = trial.reasons.is_empty();
                let doubted = trial.generator_doubted;
                trials.push(trial);
                if holds {
                    best = Some(report);
                    break;
                }
                generator_limited = doubted;
            }
            gap.learn(rate, holds);
        }
        Ok(Found {
            command: format!("capacity {}", format!("{:?}", self.what).to_lowercase()),
            arguments: std::env::args().skip(1).collect(),
            version: env!("CARGO_PKG_VERSION"),
            registrants: ceiling.registrants,
            presentities: ceiling.presentities,
            watchers: ceiling.watchers,
            limit_us: u64::try_from(self.limit.as_micros()).unwrap_or(u64::MAX),
            closed_loop_per_sec,
            capacity_per_sec: gap.holds,
            notifies_per_sec: best.as_ref().map_or(0.0, |best| best.rates.notifies_per_sec),
            generator_limited,
            trials,
            best,
        })
    }
}

/// What is known of the capacity.
#[derive(Debug)]
struct Gap {
    /// The highest rate that held.
    holds: f64,
    /// The lowest rate that did not.
    fails: Option<f64>,
    /// What to try first.
    first: f64,
    /// Share of the rate at which the gap is narrow enough.
    precision: f64,
}

impl Gap {
    /// Nothing but the rate of a closed loop.
    fn new(closed_loop: f64, precision: f64) -> Self {
        Self { holds: 0.0, fails: None, first: closed_loop * 0.6, precision }
    }

    /// The next rate to try; none when enough is known.
    fn next(&self) -> Option<f64> {
        let rate = match self.fails {
            None if self.holds == 0.0 => self.first,
            None => self.holds * 1.3,
            Some(fails) if fails - self.holds <= self.precision * fails => return None,
            Some(fails) => f64::midpoint(self.holds, fails),
        };
        // A rate below one operation per second is no capacity.
        (rate >= 1.0).then(|| if rate < 100.0 { rate } else { rate.round() })
    }

    /// Learns what became of a rate.
    fn learn(&mut self, rate: f64, holds: bool) {
        if holds {
            self.holds = self.holds.max(rate);
        } else {
            self.fails = Some(self.fails.map_or(rate, |fails| fails.min(rate)));
        }
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = Grouped(self.rate.round() as u64);
        write!(f, "  {rate:>10} per second, p99 {:>9}", Micros(self.p99_us))?;
        if let Some(cores) = self.server_cores {
            write!(f, ", server {cores:.2} cores")?;
        }
        match &self.reasons[..] {
            [] => write!(f, "  holds"),
            reasons => write!(f, "  no: {}", reasons.join("; ")),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(best) = &self.best {
            write!(f, "{best}")?;
        }
        let at_least = if self.generator_limited { "at least " } else { "" };
        write!(f, "  CAPACITY    {at_least}{} per second", Grouped(self.capacity_per_sec.round() as u64))?;
        if self.notifies_per_sec > 0.0 {
            write!(f, ", {} NOTIFYs per second", Grouped(self.notifies_per_sec.round() as u64))?;
        }
        writeln!(f, " without loss and p99 under {}", Micros(self.limit_us))?;
        if self.generator_limited {
            writeln!(f, "  BOTTLENECK  beyond, the generator may have been the reason")?;
        }
        Ok(())
    }
}

impl Found {
    /// Whether a rate holds at all.
    pub fn passed(&self) -> bool {
        self.best.is_some()
    }

    /// The search as a page.
    pub fn page(&self) -> String {
        let mut body = String::new();
        let at_least = if self.generator_limited { "at least " } else { "" };
        let _ = write!(
            body,
            "<h1>{}: {at_least}{} per second</h1><p class=sub>without loss and with all p99 under {}{}</p>",
            escape(&self.command),
            Grouped(self.capacity_per_sec.round() as u64),
            Micros(self.limit_us),
            if self.generator_limited { "; beyond, the generator may have been the reason" } else { "" }
        );
        let mut points: Vec<_> =
            self.trials.iter().map(|trial| (trial.rate, trial.p99_us.max(1) as f64)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let (Some(&(highest, _)), limit) = (points.last(), self.limit_us as f64) {
            let least = points.iter().map(|point| point.1).fold(limit, f64::min);
            let greatest = points.iter().map(|point| point.1).fold(limit, f64::max);
            let x = Axis { label: "operations per second", ..Axis::linear("", highest) };
            let limit_line = Line {
                name: "limit".into(),
                colour: 4,
                dashed: true,
                points: vec![(0.0, limit), (x.to, limit)],
            };
            let line = Line { name: "p99".into(), colour: 0, dashed: false, points };
            let y = Axis::micros("p99", least, greatest);
            body.push_str(&Plot { x, y, lines: vec![line, limit_line], bands: Vec::new() }.html());
        }
        body.push_str("<table><tr><th>per second<th>done<th>p99<th>server cores<th class=wide>holds</tr>");
        for trial in &self.trials {
            let cores = trial.server_cores.map_or("–".into(), |cores| format!("{cores:.2}"));
            let (class, holds) = match &trial.reasons[..] {
                [] => ("good wide", "yes".into()),
                reasons => ("bad wide", escape(&reasons.join("; "))),
            };
            let _ = write!(
                body,
                "<tr><th>{}<td>{}<td>{}<td>{cores}<td class=\"{class}\">{holds}",
                Grouped(trial.rate.round() as u64),
                Grouped(trial.done_per_sec.round() as u64),
                Micros(trial.p99_us)
            );
        }
        body.push_str("</table>");
        if let Some(best) = &self.best {
            body.push_str("<hr>");
            body.push_str(&html::body(best));
        }
        html::document(&format!("{} · comsipl-loadgen", self.command), &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The capacity found when rates up to `capacity` hold, and how many were tried.
    fn search(closed_loop: f64, capacity: f64) -> (f64, usize) {
        let mut gap = Gap::new(closed_loop, 0.05);
        let mut tried = 0;
        while let Some(rate) = gap.next() {
            gap.learn(rate, rate <= capacity);
            tried += 1;
            assert!(tried < RATES_MAX, "{gap:?}");
        }
        (gap.holds, tried)
    }

    #[test]
    fn the_capacity_is_found_wherever_it_lies() {
        for capacity in [130.0, 1_000.0, 5_500.0, 9_000.0, 25_000.0] {
            let (found, _) = search(10_000.0, capacity);
            assert!(found <= capacity && found >= capacity * 0.94, "{found} of {capacity}");
        }
        assert_eq!(search(10_000.0, 0.0).0, 0.0, "a server that holds nothing");
        assert_eq!(search(0.0, 0.0), (0.0, 0), "a server that does nothing");
    }

    #[test]
    fn a_good_guess_needs_few_trials() {
        let (_, tried) = search(10_000.0, 8_000.0);
        assert!(tried <= 6, "{tried}");
    }
}

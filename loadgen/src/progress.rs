//! Progress bars with live rates.

use crate::agent::Op;
use crate::scenario::{PerAgent, Phase, Plan};
use crate::stats::Counts;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// How often the rates are taken anew.
const RATES_EVERY: Duration = Duration::from_millis(500);

/// The bar of the running phase.
pub struct Progress {
    quiet: bool,
    bar: ProgressBar,
    ops: Vec<Op>,
    /// For a timed phase its milliseconds.
    time_ms: Option<u64>,
    start: Instant,
    before: Counts,
    last: (Instant, Counts),
}

impl Progress {
    /// No bar yet; never one when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            quiet,
            bar: ProgressBar::hidden(),
            ops: Vec::new(),
            time_ms: None,
            start: now,
            before: Counts::default(),
            last: (now, Counts::default()),
        }
    }

    /// Shows a bar for `phase`.
    pub fn begin(&mut self, phase: &Phase, plan: &Plan, counts: Counts) {
        self.ops = phase.works.iter().map(|work| work.op).collect();
        self.time_ms = phase.works.iter().find_map(|work| match work.amount {
            PerAgent::For(time) => Some(time / 1_000_000),
            PerAgent::Once => None,
        });
        self.start = Instant::now();
        self.before = counts;
        self.last = (self.start, counts);
        if self.quiet {
            return;
        }
        let agents = |op: &Op| match op.kind() {
            crate::ident::Kind::Watcher => plan.watchers,
            crate::ident::Kind::Presentity => plan.presentities,
            crate::ident::Kind::Registrant => plan.registrants,
        };
        let len = self.time_ms.unwrap_or_else(|| self.ops.iter().map(|op| u64::from(agents(op))).sum());
        let template = if len > 0 {
            "{prefix:>14} {bar:30} {percent:>3}% {msg}"
        } else {
            "{prefix:>14} {spinner} {msg}"
        };
        let style = ProgressStyle::with_template(template).expect("a constant template");
        self.bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr_with_hz(5));
        self.bar.set_style(style);
        self.bar.set_prefix(phase.name.to_string());
    }

    /// Brings the bar up to date; `hostile` datagrams were sent so far.
    pub fn show(&mut self, counts: Counts, hostile: u64) {
        let now = Instant::now();
        if self.quiet || now - self.last.0 < RATES_EVERY {
            return;
        }
        let secs = (now - self.last.0).as_secs_f64();
        let grown = counts.since(self.last.1);
        let rate = |count: u64| (count as f64 / secs).round();
        let done = grown.registered + grown.subscribed + grown.published;
        let hostile = if hostile > 0 { format!("{hostile} hostile, ") } else { String::new() };
        self.bar.set_message(format!(
            "{hostile}{} requests/s, {} NOTIFY/s, {} active, {} unfinished",
            rate(done),
            rate(grown.notifies),
            counts.active,
            counts.unfinished
        ));
        self.bar.set_position(self.position(counts));
        self.last = (now, counts);
    }

    /// Takes the bar away and leaves a line with the phase's rates.
    pub fn end(&mut self, counts: Counts) {
        if self.quiet {
            return;
        }
        let secs = self.start.elapsed().as_secs_f64();
        let grown = counts.since(self.before);
        let done = grown.registered + grown.subscribed + grown.published;
        self.bar.set_style(ProgressStyle::with_template("{prefix:>14} {msg}").expect("a constant template"));
        self.bar.finish_with_message(format!(
            "{secs:.2} s, {done} requests ({:.0}/s), {} NOTIFYs ({:.0}/s)",
            done as f64 / secs,
            grown.notifies,
            grown.notifies as f64 / secs
        ));
    }

    fn position(&self, counts: Counts) -> u64 {
        if let Some(limit) = self.time_ms {
            return (self.start.elapsed().as_millis() as u64).min(limit);
        }
        let grown = counts.since(self.before);
        grown.registered + grown.subscribed + grown.published
    }
}

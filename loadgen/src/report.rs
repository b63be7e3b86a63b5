//! What a run found: for the terminal and as JSON.

use crate::audit::Tally;
use crate::clock::Nanos;
use crate::pace::Rate;
use crate::process::Usage;
use crate::series::Point;
use crate::stats::{Counts, Timings};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// Which latencies a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latencies {
    /// REGISTER until 200.
    RegisterAnswer,
    /// SUBSCRIBE until 200.
    SubscribeAnswer,
    /// SUBSCRIBE until the first NOTIFY.
    SubscribeNotify,
    /// PUBLISH until 200.
    PublishAnswer,
    /// PUBLISH until the NOTIFY of a watcher.
    PublishNotify,
    /// The same for presentities that are set apart.
    PublishNotifyApart,
}

/// What the lateness is called.
pub const LATENESS: &str = "sent late by";

impl Latencies {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::RegisterAnswer => "REGISTER → 200",
            Self::SubscribeAnswer => "SUBSCRIBE → 200",
            Self::SubscribeNotify => "SUBSCRIBE → NOTIFY",
            Self::PublishAnswer => "PUBLISH → 200",
            Self::PublishNotify => "PUBLISH → NOTIFY",
            Self::PublishNotifyApart => "… of those set apart",
        }
    }

    /// Its distribution.
    pub fn histogram(self, timings: &Timings) -> &Histogram<u64> {
        match self {
            Self::RegisterAnswer => &timings.register_answer,
            Self::SubscribeAnswer => &timings.subscribe_answer,
            Self::SubscribeNotify => &timings.subscribe_notify,
            Self::PublishAnswer => &timings.publish_answer,
            Self::PublishNotify => &timings.publish_notify,
            Self::PublishNotifyApart => &timings.publish_notify_apart,
        }
    }
}

/// Something that a run has to show.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What should be so.
    pub claim: String,
    /// What was found.
    pub found: String,
    /// Whether it is so.
    pub passed: bool,
}

/// A distribution from its least value to its greatest.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// What was measured.
    pub name: String,
    /// Shares of the measured values and the microseconds that they do not exceed, both rising.
    pub points: Vec<(f64, u64)>,
}

impl Curve {
    /// Of a histogram of microseconds.
    pub fn of(name: impl Into<String>, histogram: &Histogram<u64>) -> Self {
        let steps = histogram.iter_quantiles(8);
        let points = steps.map(|step| (step.quantile_iterated_to(), step.value_iterated_to())).collect();
        Self { name: name.into(), points }
    }
}

/// The percentiles of a distribution, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// The least.
    pub min_us: u64,
    /// The mean.
    pub mean_us: f64,
    /// Half are not more.
    pub p50_us: u64,
    /// 90 of 100 are not more.
    pub p90_us: u64,
    /// 99 of 100 are not more.
    pub p99_us: u64,
    /// 999 of 1,000 are not more.
    pub p999_us: u64,
    /// 9,999 of 10,000 are not more.
    pub p9999_us: u64,
    /// The greatest.
    pub max_us: u64,
}

impl Percentiles {
    /// Of a histogram of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min_us: histogram.min(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max(),
        }
    }
}

/// All distributions of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AllPercentiles {
    /// Intended time of a REGISTER until its 200.
    pub register_answer: Percentiles,
    /// Intended time of a SUBSCRIBE until its 200.
    pub subscribe_answer: Percentiles,
    /// Intended time of a SUBSCRIBE until its first NOTIFY.
    pub subscribe_notify: Percentiles,
    /// Intended time of a PUBLISH until its 200.
    pub publish_answer: Percentiles,
    /// Intended time of a PUBLISH until a watcher's NOTIFY.
    pub publish_notify: Percentiles,
    /// The same for presentities that are set apart.
    pub publish_notify_apart: Percentiles,
    /// How late requests were handed to the kernel.
    pub lateness: Percentiles,
}

impl AllPercentiles {
    /// One of them.
    pub fn get(&self, latencies: Latencies) -> &Percentiles {
        match latencies {
            Latencies::RegisterAnswer => &self.register_answer,
            Latencies::SubscribeAnswer => &self.subscribe_answer,
            Latencies::SubscribeNotify => &self.subscribe_notify,
            Latencies::PublishAnswer => &self.publish_answer,
            Latencies::PublishNotify => &self.publish_notify,
            Latencies::PublishNotifyApart => &self.publish_notify_apart,
        }
    }

    /// Of what all threads measured.
    pub fn of(timings: &Timings) -> Self {
        Self {
            register_answer: Percentiles::of(&timings.register_answer),
            subscribe_answer: Percentiles::of(&timings.subscribe_answer),
            subscribe_notify: Percentiles::of(&timings.subscribe_notify),
            publish_answer: Percentiles::of(&timings.publish_answer),
            publish_notify: Percentiles::of(&timings.publish_notify),
            publish_notify_apart: Percentiles::of(&timings.publish_notify_apart),
            lateness: Percentiles::of(&timings.lateness),
        }
    }
}

/// Rates over the measured phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rates {
    /// REGISTERs answered 2xx.
    pub registers_per_sec: f64,
    /// SUBSCRIBEs answered 2xx.
    pub subscribes_per_sec: f64,
    /// PUBLISHes answered 2xx.
    pub publishes_per_sec: f64,
    /// NOTIFYs received and answered, repetitions not among them.
    pub notifies_per_sec: f64,
}

/// One phase of a run.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: Cow<'static, str>,
    /// When it began, in seconds since the run did.
    pub start_secs: f64,
    /// How long it took.
    pub secs: f64,
    /// Whether its latencies are measured; rates and latencies of the run are those of the last such phase.
    pub measured: bool,
    /// Whether it was broken off because nothing happened any more.
    pub stalled: bool,
    /// What was counted.
    pub counts: Counts,
    /// Its latencies, if it is measured.
    pub percentiles: Option<AllPercentiles>,
}

/// What the generator itself needed, and whether it was in the way.
#[derive(Clone, Debug, Serialize)]
pub struct Generator {
    /// Processor time in the measured phase.
    pub usage: Usage,
    /// The busiest thread's share of time with something to do, in the measured phase.
    pub busy: f64,
    /// Processor time of all threads for each second that they had something to do; less than 1 when others used the
    /// processors.
    pub ran: f64,
    /// Datagrams that the kernel dropped at our sockets, in the whole run.
    pub kernel_drops: u64,
    /// Why the figures may say more about the generator than about the server.
    pub doubts: Vec<String>,
}

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The command, or the profile.
    pub command: Cow<'static, str>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Version of the generator.
    pub version: &'static str,
    /// When it began, in seconds since 1970.
    pub started_unix_secs: u64,
    /// The rate that was asked for.
    pub rate: Rate,
    /// Phones that register.
    pub registrants: u32,
    /// Phones that publish.
    pub presentities: u32,
    /// Subscriptions.
    pub watchers: u32,
    /// Threads of the generator.
    pub threads: usize,
    /// Sockets of the generator.
    pub sockets: usize,
    /// Length of the measured phase.
    pub measured_secs: f64,
    /// Rates over the measured phase.
    pub rates: Rates,
    /// Counted in the measured phase.
    pub measured: Counts,
    /// Counted in the whole run.
    pub total: Counts,
    /// Measured from the intended times of the measured phase.
    pub percentiles: AllPercentiles,
    /// Processor time of the server in the measured phase, and its memory at the end of it.
    pub server: Option<Usage>,
    /// Its processor time for each NOTIFY of the measured phase, in microseconds.
    pub server_us_per_notify: Option<f64>,
    /// Its processor time for each operation of the measured phase (REGISTER, SUBSCRIBE or PUBLISH answered).
    pub server_us_per_operation: Option<f64>,
    /// The generator itself.
    pub generator: Generator,
    /// The audit; none for commands without watchers.
    pub audit: Option<Tally>,
    /// Whether the run as a whole is right: the audit passes and nothing was refused, given up or foreign.
    pub passed: bool,
    /// What `passed` consists of.
    pub verdicts: Vec<Verdict>,
    /// What the run says nothing about.
    pub unjudged: Vec<String>,
    /// The phases.
    pub phases: Vec<PhaseReport>,
    /// The latency distributions that the run is about, and the lateness.
    pub curves: Vec<Curve>,
    /// What was counted and used over time.
    pub series: Vec<Point>,
    /// Which percentiles the summary shows.
    #[serde(skip)]
    pub latencies: &'static [Latencies],
}

impl Report {
    /// The measured phases before the last.
    pub fn earlier(&self) -> impl Iterator<Item = &PhaseReport> {
        let last = self.phases.iter().rposition(|phase| phase.measured).unwrap_or(0);
        self.phases[..last].iter().filter(|phase| phase.measured)
    }
}

/// Half a second of lateness for one request in a hundred would still be a wrong picture of a phone; ten milliseconds
/// is what a busy phone needs anyway.
const LATENESS_MAX_US: u64 = 10_000;
/// Share of time with something to do beyond which queueing in the generator shows.
const BUSY_MAX: f64 = 0.9;
/// Share of the time with something to do below which a thread was kept from doing it.
const RAN_MIN: f64 = 0.7;

/// Why the figures may say more about the generator than about the server.
///
/// `busy` is the busiest thread's share of time with something to do, `ran` the processor time that the threads got for
/// each second of it.
pub fn doubts(rate: Rate, lateness: &Percentiles, busy: f64, ran: f64, kernel_drops: u64) -> Vec<String> {
    let mut doubts = Vec::new();
    if matches!(rate, Rate::PerSecond(_)) && lateness.p99_us > LATENESS_MAX_US {
        doubts.push(format!("1% of the requests left more than {} late", Micros(lateness.p99_us)));
    }
    if busy > BUSY_MAX {
        doubts.push(format!("its busiest thread had something to do {:.0}% of the time", busy * 100.0));
    }
    if busy > RAN_MIN && ran < RAN_MIN {
        doubts.push(format!(
            "its threads got a processor for only {:.0}% of that; the machine is shared",
            ran * 100.0
        ));
    }
    if kernel_drops > 0 {
        doubts.push(format!("the kernel dropped {kernel_drops} datagrams at its sockets"));
    }
    doubts
}

/// Nanoseconds as seconds.
pub fn secs(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

/// Microseconds in a readable unit.
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            us @ ..1_000 => format!("{us} µs"),
            us @ ..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
            us => format!("{:.2} s", us as f64 / 1e6),
        };
        f.pad(&text)
    }
}

/// A number with its thousands apart.
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.measured;
        writeln!(f, "comsipl-loadgen {} · {:.2} s measured", self.command, self.measured_secs)?;
        writeln!(
            f,
            "  agents      {} registering, {} publishing, {} watching, on {} sockets and {} threads",
            Grouped(self.registrants.into()),
            Grouped(self.presentities.into()),
            Grouped(self.watchers.into()),
            self.sockets,
            self.threads
        )?;
        writeln!(f, "\n  {:<14}{:>14}{:>14}", "", "count", "per second")?;
        for (name, count, rate) in [
            ("REGISTER", counts.registered, self.rates.registers_per_sec),
            ("SUBSCRIBE", counts.subscribed, self.rates.subscribes_per_sec),
            ("PUBLISH", counts.published, self.rates.publishes_per_sec),
            ("NOTIFY", counts.notifies, self.rates.notifies_per_sec),
        ] {
            if count > 0 {
                writeln!(f, "  {name:<14}{:>14}{:>14}", Grouped(count), Grouped(rate.round() as u64))?;
            }
        }
        writeln!(
            f,
            "\n  {:<20}{:>10}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "latency", "count", "p50", "p90", "p99", "p99.9", "max"
        )?;
        let all = &self.percentiles;
        let rows = self.latencies.iter().map(|latencies| (latencies.name(), *all.get(*latencies)));
        for (name, percentiles) in rows.chain([(LATENESS, all.lateness)]) {
            write!(f, "  {name:<20}{:>10}", Grouped(percentiles.count))?;
            let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = percentiles;
            for us in [p50_us, p90_us, p99_us, p999_us, max_us] {
                write!(f, "{:>11}", Micros(us))?;
            }
            writeln!(f)?;
        }
        for phase in self.earlier() {
            let (Some(first), Some(percentiles)) = (self.latencies.first(), phase.percentiles) else {
                continue;
            };
            let Percentiles { count, p50_us, p90_us, p99_us, p999_us, max_us, .. } = *percentiles.get(*first);
            write!(f, "  {:<20}{:>10}", format!("… in `{}`", phase.name), Grouped(count))?;
            for us in [p50_us, p90_us, p99_us, p999_us, max_us] {
                write!(f, "{:>11}", Micros(us))?;
            }
            writeln!(f)?;
        }
        if let Some(server) = self.server {
            write!(
                f,
                "\n  server      {:.2} s user, {:.2} s system, {:.2} cores; {:.0} MB in {} processes",
                server.user_secs,
                server.system_secs,
                server.total_secs() / self.measured_secs,
                server.memory_bytes as f64 / 1e6,
                server.processes
            )?;
            if let Some(us) = self.server_us_per_notify {
                write!(f, "; {us:.2} µs for a NOTIFY")?;
            } else if let Some(us) = self.server_us_per_operation {
                write!(f, "; {us:.2} µs for an operation")?;
            }
        }
        let own = &self.generator.usage;
        writeln!(
            f,
            "\n  generator   {:.2} s user, {:.2} s system, {:.0}% busy; {:.0} MB",
            own.user_secs,
            own.system_secs,
            self.generator.busy * 100.0,
            own.memory_bytes as f64 / 1e6
        )?;
        for doubt in &self.generator.doubts {
            writeln!(f, "  BOTTLENECK  the generator: {doubt}")?;
        }
        let total = &self.total;
        let troubles = [
            ("refused", total.refused),
            ("given up (Timer F)", total.timed_out),
            ("sent again (Timer E)", total.retransmissions_sent),
            ("NOTIFYs received again", total.notify_retransmissions),
            ("412", total.tag_unknown),
            ("423", total.too_brief),
            ("481", total.dialog_unknown),
            ("late answers", total.stray_answers),
            ("NOTIFYs of no dialog", total.unknown_dialog),
            ("ended by the server", total.ended_by_server),
            ("malformed", total.malformed),
            ("truncated", total.truncated),
            ("wrong documents", total.wrong_document),
            ("send errors", total.send_errors),
            ("had to wait for their turn", total.queued),
            ("NOTIFYs ignored by the deaf", total.ignored),
            ("lost on the way", total.link_lost),
            ("doubled on the way", total.link_doubled),
            ("held back on the way", total.link_delayed),
        ];
        let troubles: Vec<_> = troubles
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {}", Grouped(*count)))
            .collect();
        if !troubles.is_empty() {
            writeln!(f, "  whole run   {}", troubles.join(", "))?;
        }
        for phase in self.phases.iter().filter(|phase| phase.stalled) {
            writeln!(f, "  STALLED     {} was broken off after {:.1} s", phase.name, phase.secs)?;
        }
        if let Some(audit) = self.audit {
            writeln!(
                f,
                "  audit       {} watchers: {} behind ({} of them turned back), {} lost their subscription",
                Grouped(audit.watchers),
                Grouped(audit.behind),
                Grouped(audit.turned_back),
                Grouped(audit.lost_subscriptions)
            )?;
            writeln!(
                f,
                "              {} superseded, {} duplicates, {} stale, {} out of order, {} CSeq numbers never seen",
                Grouped(total.superseded),
                Grouped(total.duplicates),
                Grouped(total.stale),
                Grouped(total.backward),
                Grouped(audit.missing_cseqs)
            )?;
        }
        for claim in &self.unjudged {
            writeln!(f, "  NOT JUDGED  {claim}")?;
        }
        for verdict in self.verdicts.iter().filter(|verdict| !verdict.passed) {
            writeln!(f, "  NOT SO      {}: {}", verdict.claim, verdict.found)?;
        }
        writeln!(f, "  {}", if self.passed { "PASSED" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(Grouped(1_234_567).to_string(), "1,234,567");
        assert_eq!(Grouped(12).to_string(), "12");
        assert_eq!(format!("{:>8}", Grouped(1_000)), "   1,000");
        assert_eq!(Micros(999).to_string(), "999 µs");
        assert_eq!(Micros(1_500).to_string(), "1.50 ms");
        assert_eq!(Micros(2_000_000).to_string(), "2.00 s");
    }

    #[test]
    fn lateness_is_a_doubt_in_the_open_loop_only() {
        let mut histogram = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        histogram.record(20_000).unwrap();
        let late = Percentiles::of(&histogram);
        assert_eq!(doubts(Rate::PerSecond(1.0), &late, 0.5, 1.0, 0).len(), 1);
        assert_eq!(doubts(Rate::Max, &late, 0.5, 1.0, 0).len(), 0);
        assert_eq!(doubts(Rate::Max, &late, 0.95, 1.0, 3).len(), 2);
        assert_eq!(doubts(Rate::Max, &late, 0.8, 0.4, 0).len(), 1, "starved");
        assert_eq!(doubts(Rate::Max, &late, 0.1, 0.4, 0).len(), 0, "little to do needs little time");
    }
}

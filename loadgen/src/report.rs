//! What a run found, as it is written as JSON.

use crate::audit::Tally;
use crate::class::ClassReport;
use crate::clock::Nanos;
use crate::hostile;
use crate::message::Transport;
use crate::pace::Rate;
use crate::process::Usage;
use crate::series::Point;
use crate::stats::{Counts, Timings};
use crate::terminal::Micros;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Which latencies a command is about, or a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
        let mut points: Vec<_> =
            steps.map(|step| (step.quantile_iterated_to(), step.value_iterated_to())).collect();
        // The steps end where the greatest value is reached; it holds up to the last of all values.
        let last = 1.0 - 1.0 / histogram.len().max(1) as f64;
        let place = points.partition_point(|(share, _)| *share < 1.0);
        if histogram.len() > 1 && place.checked_sub(1).is_none_or(|before| points[before].0 < last) {
            points.insert(place, (last, histogram.max()));
        }
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
    /// How long work was begun in it: to the end of its time, if it has one.
    pub timed_secs: f64,
    /// Whether its latencies are measured; rates and latencies of the run are those of the last such phase.
    pub measured: bool,
    /// Whether it was broken off because nothing happened any more.
    pub stalled: bool,
    /// What was counted.
    pub counts: Counts,
    /// Its latencies, if it is measured.
    pub percentiles: Option<AllPercentiles>,
    /// What became of requests by what they are worth, if it is measured.
    pub classes: Vec<ClassReport>,
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
    /// The part of all phones that was simulated.
    pub slice: f64,
    /// Whether more was offered than the server could do.
    pub overloads: bool,
    /// Threads of the generator.
    pub threads: usize,
    /// What carried the messages.
    pub transport: Transport,
    /// Sockets of the generator, over TCP its connections.
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
    /// What strangers sent and were told.
    pub hostile: Option<hostile::Outcome>,
    /// Whether the run as a whole is right: the audit passes and nothing was refused, given up or foreign.
    pub passed: bool,
    /// What `passed` consists of; what the profile claims comes last.
    pub verdicts: Vec<Verdict>,
    /// How many of the verdicts are about claims of the profile.
    pub claims: usize,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_reaches_to_the_last_value() {
        let mut histogram = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        histogram.record_n(100, 900).unwrap();
        histogram.record_n(5_000, 100).unwrap();
        let points = Curve::of("latency", &histogram).points;
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{points:?}");
        assert!(points.iter().any(|(share, us)| (share - 0.999).abs() < 1e-9 && *us >= 5_000), "{points:?}");
        assert!(points.iter().all(|(share, us)| *share > 0.9 || *us <= 100), "{points:?}");
        assert!(Curve::of("nothing", &Histogram::new(3).unwrap()).points.len() <= 1);
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

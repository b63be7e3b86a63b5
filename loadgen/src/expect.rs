//! What a profile's run has to show.

use crate::class::ClassReport;
use crate::report::{AllPercentiles, Latencies, PhaseReport, Verdict};
use crate::series::Point;
use crate::stats::Counts;
use crate::terminal::Micros;
use serde::Deserialize;
use std::fmt;

/// One claim of a profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Expect {
    /// A percentile of a latency in a measured phase is at most so much.
    Latency {
        /// The phase.
        phase: String,
        /// Which latency.
        of: Latencies,
        /// Which percentile, from 0 to 100.
        percentile: Percentile,
        /// In milliseconds.
        at_most_ms: f64,
        /// What that means, for reports.
        claim: Option<String>,
    },
    /// A percentile of a latency in a phase is at most so many times that in an earlier one, or so much more.
    Unmoved {
        /// The phase.
        phase: String,
        /// The earlier one.
        than: String,
        /// Which latency.
        of: Latencies,
        /// Which percentile.
        percentile: Percentile,
        /// So many times.
        at_most_times: f64,
        /// In milliseconds, which a small one may grow by in any case.
        at_most_ms_more: f64,
    },
    /// A phase takes at most so long.
    Within {
        /// The phase.
        phase: String,
        /// Seconds.
        at_most_secs: f64,
        /// What that means, for reports.
        claim: Option<String>,
    },
    /// A counter of the whole run is at most so much.
    Count {
        /// Its name as in the JSON.
        counter: String,
        /// So much.
        at_most: u64,
        /// What that means, for reports.
        claim: Option<String>,
    },
    /// The server's memory does not grow in a phase, judged by the straight line that fits its second half best.
    Memory {
        /// The phase.
        phase: String,
        /// Percent of the memory in an hour.
        at_most_percent_per_hour: f64,
        /// What the line may rise in any case, in MB: what a server touches for the first time is no leak, and an hour
        /// is not foretold from a minute.
        at_most_mb: f64,
    },
    /// As much is admitted in a phase as in another: so many percent at least, per second.
    Goodput {
        /// The phase.
        phase: String,
        /// The other, in which the server did what it could.
        of: String,
        /// Percent.
        at_least_percent: f64,
    },
    /// A percentile of what is admitted in a phase, from the first sending to the 2xx, is at most so much in every class.
    Admitted {
        /// The phase.
        phase: String,
        /// In milliseconds, of the 99th percentile.
        p99_at_most_ms: f64,
    },
    /// At most so many percent of the requests are refused in a phase.
    Refused {
        /// The phase.
        phase: String,
        /// Percent.
        at_most_percent: f64,
    },
    /// In a phase no class is admitted less than one that is worth less and sent in the same moments, by more than two percent.
    Order {
        /// The phase.
        phase: String,
    },
    /// The server has as many descriptors open at every time in a phase.
    Descriptors {
        /// The phase.
        phase: String,
    },
}

/// A percentile that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Percentile {
    /// Half.
    #[serde(rename = "p50")]
    P50,
    /// 99 of 100.
    #[serde(rename = "p99")]
    P99,
    /// 999 of 1,000.
    #[serde(rename = "p99.9")]
    P999,
    /// All.
    #[serde(rename = "max")]
    Max,
}

/// What is known when claims are judged.
pub struct Facts<'a> {
    /// The phases.
    pub phases: &'a [PhaseReport],
    /// Counted in the whole run.
    pub total: Counts,
    /// Over time.
    pub series: &'a [Point],
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency { claim: Some(claim), .. }
            | Self::Within { claim: Some(claim), .. }
            | Self::Count { claim: Some(claim), .. } => f.write_str(claim),
            Self::Latency { phase, of, percentile, at_most_ms, .. } => {
                write!(f, "{phase}: {} {percentile} at most {at_most_ms} ms", name_of(*of))
            }
            Self::Unmoved { phase, than, of, percentile, at_most_times, at_most_ms_more } => write!(
                f,
                "{phase}: {} {percentile} at most {at_most_times} times that in `{than}`, or {at_most_ms_more} ms more",
                name_of(*of)
            ),
            Self::Within { phase, at_most_secs, .. } => write!(f, "{phase}: at most {at_most_secs} s"),
            Self::Count { counter, at_most: 0, .. } => write!(f, "No {}", counter.replace('_', " ")),
            Self::Count { counter, at_most, .. } => {
                write!(f, "At most {at_most} {}", counter.replace('_', " "))
            }
            Self::Memory { phase, at_most_percent_per_hour, at_most_mb } => write!(
                f,
                "{phase}: the server's memory does not grow (by {at_most_percent_per_hour}% in an hour, or {at_most_mb} MB)"
            ),
            Self::Goodput { phase, of, at_least_percent } => {
                write!(
                    f,
                    "{phase}: at least {at_least_percent}% of what is done in `{of}` is done when it is sent first"
                )
            }
            Self::Admitted { phase, p99_at_most_ms } => {
                write!(
                    f,
                    "{phase}: p99 of what is admitted at most {p99_at_most_ms} ms in every class, of ends and refreshes from the first sending"
                )
            }
            Self::Refused { phase, at_most_percent } => {
                write!(f, "{phase}: at most {at_most_percent}% is refused")
            }
            Self::Order { phase } => {
                write!(f, "{phase}: of what is sent together, what is worth less is done at once less")
            }
            Self::Descriptors { phase } => write!(f, "{phase}: the server's descriptors stay as many"),
        }
    }
}

impl Expect {
    /// The phase that it speaks of.
    pub fn phase(&self) -> Option<&str> {
        match self {
            Self::Latency { phase, .. }
            | Self::Within { phase, .. }
            | Self::Memory { phase, .. }
            | Self::Unmoved { phase, .. }
            | Self::Goodput { phase, .. }
            | Self::Admitted { phase, .. }
            | Self::Refused { phase, .. }
            | Self::Order { phase }
            | Self::Descriptors { phase } => Some(phase),
            Self::Count { .. } => None,
        }
    }

    /// Whether it needs the process of the server.
    pub fn needs_server(&self) -> bool {
        matches!(self, Self::Memory { .. } | Self::Descriptors { .. })
    }

    /// Whether the run shows it; none if it says nothing about that.
    pub fn judge(&self, facts: &Facts<'_>) -> Option<Verdict> {
        let phase = self.phase().map(|name| facts.phases.iter().find(|phase| phase.name == name));
        let phase = match phase {
            Some(phase) => Some(phase?),
            None => None,
        };
        let claim = self.to_string();
        Some(match self {
            Self::Latency { of, percentile, at_most_ms, .. } => {
                let phase = phase?;
                let (count, us) = find(*of, phase.percentiles.as_ref()?, *percentile);
                let found = if count == 0 { "nothing measured".into() } else { Micros(us).to_string() };
                let passed = count > 0 && us as f64 <= at_most_ms * 1e3;
                Verdict { claim, found, passed }
            }
            Self::Unmoved { than, of, percentile, at_most_times, at_most_ms_more, .. } => {
                let than = facts.phases.iter().find(|phase| phase.name == *than)?;
                let (count_before, before) = find(*of, than.percentiles.as_ref()?, *percentile);
                let (count, now) = find(*of, phase?.percentiles.as_ref()?, *percentile);
                let (before_us, now_us) = (before as f64, now as f64);
                let most = (before_us * at_most_times).max(before_us + at_most_ms_more * 1e3);
                let found = format!("{} before, {} now", Micros(before), Micros(now));
                Verdict { claim, found, passed: count > 0 && count_before > 0 && now_us <= most }
            }
            Self::Within { at_most_secs, .. } => {
                let phase = phase?;
                Verdict { claim, found: format!("{:.2} s", phase.secs), passed: phase.secs <= *at_most_secs }
            }
            Self::Count { counter, at_most, .. } => {
                let counts = serde_json::to_value(facts.total).ok()?;
                let count = counts.get(counter)?.as_u64()?;
                Verdict { claim, found: count.to_string(), passed: count <= *at_most }
            }
            Self::Memory { at_most_percent_per_hour, at_most_mb, .. } => {
                let points = facts.within(phase?, 0.5, |point| point.server_memory_bytes);
                let percent = slope(&points)?;
                let (first, last) = (points.first()?.0, points.last()?.0);
                let mean = points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
                let mb = percent / 100.0 * mean * (last - first) / 3_600.0 / 1e6;
                Verdict {
                    claim,
                    found: format!(
                        "{mb:+.2} MB in the second half, {:.0} s; that is {percent:+.2}% in an hour",
                        last - first
                    ),
                    passed: percent <= *at_most_percent_per_hour || mb <= *at_most_mb,
                }
            }
            Self::Goodput { of, at_least_percent, .. } => {
                let done = done_per_sec(phase?);
                let could = done_per_sec(facts.phases.iter().find(|phase| phase.name == *of)?);
                let percent = done / could.max(1.0) * 100.0;
                let found = format!("{done:.0} requests per second, {percent:.0}% of {could:.0}");
                Verdict { claim, found, passed: percent >= *at_least_percent }
            }
            Self::Admitted { p99_at_most_ms, .. } => {
                let worst = phase?
                    .classes
                    .iter()
                    .filter(|row| row.admitted > 0)
                    .max_by_key(|row| row.wait_p99_us())?;
                let found = format!("{} of {}", Micros(worst.wait_p99_us()), worst.class.name());
                Verdict { claim, found, passed: worst.wait_p99_us() as f64 <= p99_at_most_ms * 1e3 }
            }
            Self::Refused { at_most_percent, .. } => {
                let classes = &phase?.classes;
                let sum = |of: fn(&ClassReport) -> u64| classes.iter().map(of).sum::<u64>();
                let (refused, offered) = (sum(|row| row.refused), sum(|row| row.offered));
                let passed = offered > 0 && refused as f64 <= offered as f64 * at_most_percent / 100.0;
                Verdict { claim, found: format!("{refused} of {offered}"), passed }
            }
            Self::Order { .. } => {
                let compared = || {
                    phase
                        .into_iter()
                        .flat_map(|phase| &phase.classes)
                        .filter_map(|row| Some((row, row.ahead_of_next?)))
                };
                let found =
                    compared().map(|(row, ahead)| format!("{} {:+.1}%", row.class.name(), ahead * 100.0));
                let found = found.collect::<Vec<_>>().join(", ");
                let passed = compared().count() > 0 && compared().all(|(_, ahead)| ahead >= -0.02);
                Verdict { claim, found, passed }
            }
            Self::Descriptors { .. } => {
                let points = facts.within(phase?, 0.0, |point| point.server_descriptors);
                let least = points.iter().map(|point| point.1).reduce(f64::min)?;
                let most = points.iter().map(|point| point.1).fold(least, f64::max);
                let found = if least == most { format!("{least}") } else { format!("{least} to {most}") };
                Verdict { claim, found, passed: least == most && most > 0.0 }
            }
        })
    }
}

impl Facts<'_> {
    /// A value over time, in a phase after a share of it.
    fn within(
        &self,
        phase: &PhaseReport,
        after: f64,
        value: impl Fn(&Point) -> Option<u64>,
    ) -> Vec<(f64, f64)> {
        let (from, to) = (phase.start_secs + phase.secs * after, phase.start_secs + phase.secs);
        let points = self.series.iter().filter(|point| (from..=to).contains(&point.at_secs));
        points.filter_map(|point| Some((point.at_secs, value(point)? as f64))).collect()
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
        })
    }
}

/// Requests of a second of a phase that were answered 2xx before they were sent again.
fn done_per_sec(phase: &PhaseReport) -> f64 {
    phase.classes.iter().map(|row| row.at_once).sum::<u64>() as f64 / phase.timed_secs.max(1e-9)
}

/// What a latency is called in a claim, which stands alone.
fn name_of(of: Latencies) -> &'static str {
    match of {
        Latencies::PublishNotifyApart => "PUBLISH → NOTIFY of those set apart",
        other => other.name(),
    }
}

/// How many of a latency were measured, and a percentile of them in microseconds.
fn find(of: Latencies, all: &AllPercentiles, percentile: Percentile) -> (u64, u64) {
    let found = all.get(of);
    let us = match percentile {
        Percentile::P50 => found.p50_us,
        Percentile::P99 => found.p99_us,
        Percentile::P999 => found.p999_us,
        Percentile::Max => found.max_us,
    };
    (found.count, us)
}

/// Growth in percent of the mean for each hour, of the straight line with the least squares; none without a line.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (mean_at, mean_value) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
    let product: f64 = points.iter().map(|(at, value)| (at - mean_at) * (value - mean_value)).sum();
    (points.len() >= 10 && spread > 0.0 && mean_value > 0.0)
        .then(|| product / spread * 3_600.0 / mean_value * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_percent_per_hour() {
        let points: Vec<_> = (0..20).map(|i| (f64::from(i) * 360.0, 1_000.0 + f64::from(i) - 9.5)).collect();
        assert!((slope(&points).unwrap() - 1.0).abs() < 1e-9, "ten of a thousand each hour");
        assert_eq!(slope(&points[..5]), None, "too few to tell");
    }

    #[test]
    fn counters_and_times_are_judged() {
        let phase = PhaseReport {
            name: "return".into(),
            start_secs: 3.0,
            secs: 12.5,
            timed_secs: 12.5,
            measured: true,
            stalled: false,
            counts: Counts::default(),
            percentiles: None,
            classes: Vec::new(),
        };
        let total = Counts { stale: 3, ..Counts::default() };
        let series: Vec<_> = (0..40).map(point).collect();
        let facts = Facts { phases: &[phase], total, series: &series };
        // Memory grows by 1 MB a second.
        fn point(i: u32) -> Point {
            let usage = crate::process::Usage {
                memory_bytes: 100_000_000 + u64::from(i) * 500_000,
                descriptors: 9,
                ..Default::default()
            };
            let at = u64::from(i) * crate::clock::SECOND / 2;
            Point::of(at, &Counts::default(), Some(usage), crate::process::Usage::default())
        }
        let judge = |text: &str| {
            #[derive(Deserialize)]
            struct One {
                expect: Expect,
            }
            toml::from_str::<One>(&format!("expect = {text}")).unwrap().expect.judge(&facts)
        };
        assert!(!judge("{ kind = 'within', phase = 'return', at_most_secs = 12 }").unwrap().passed);
        assert!(judge("{ kind = 'within', phase = 'return', at_most_secs = 13 }").unwrap().passed);
        let stale = judge("{ kind = 'count', counter = 'stale', at_most = 0 }").unwrap();
        assert_eq!((&*stale.claim, &*stale.found, stale.passed), ("No stale", "3", false));
        assert!(judge("{ kind = 'count', counter = 'stale', at_most = 3 }").unwrap().passed);
        let memory = "{ kind = 'memory', phase = 'return', at_most_percent_per_hour = 0.1, at_most_mb = ";
        let grown = judge(&format!("{memory} 5 }}")).unwrap();
        assert!(!grown.passed && grown.found.starts_with("+6."), "{}", grown.found);
        assert!(judge(&format!("{memory} 7 }}")).unwrap().passed, "as much as it may touch anew");
        let descriptors = judge("{ kind = 'descriptors', phase = 'return' }").unwrap();
        assert_eq!((&*descriptors.found, descriptors.passed), ("9", true));
    }
}

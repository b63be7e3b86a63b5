//! Two runs side by side, from their JSON.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is.
    More,
    /// Less is.
    Less,
}

/// What is compared: its name, where it stands in the JSON, and which way is better.
const FIGURES: &[(&str, &str, Better)] = &[
    ("REGISTER per second", "/rates/registers_per_sec", Better::More),
    ("SUBSCRIBE per second", "/rates/subscribes_per_sec", Better::More),
    ("PUBLISH per second", "/rates/publishes_per_sec", Better::More),
    ("NOTIFY per second", "/rates/notifies_per_sec", Better::More),
    ("REGISTER → 200, p50 µs", "/percentiles/register_answer/p50_us", Better::Less),
    ("REGISTER → 200, p99 µs", "/percentiles/register_answer/p99_us", Better::Less),
    ("SUBSCRIBE → 200, p50 µs", "/percentiles/subscribe_answer/p50_us", Better::Less),
    ("SUBSCRIBE → 200, p99 µs", "/percentiles/subscribe_answer/p99_us", Better::Less),
    ("SUBSCRIBE → NOTIFY, p50 µs", "/percentiles/subscribe_notify/p50_us", Better::Less),
    ("SUBSCRIBE → NOTIFY, p99 µs", "/percentiles/subscribe_notify/p99_us", Better::Less),
    ("PUBLISH → 200, p50 µs", "/percentiles/publish_answer/p50_us", Better::Less),
    ("PUBLISH → 200, p99 µs", "/percentiles/publish_answer/p99_us", Better::Less),
    ("PUBLISH → NOTIFY, p50 µs", "/percentiles/publish_notify/p50_us", Better::Less),
    ("PUBLISH → NOTIFY, p99 µs", "/percentiles/publish_notify/p99_us", Better::Less),
    ("PUBLISH → NOTIFY, p99.9 µs", "/percentiles/publish_notify/p999_us", Better::Less),
    ("PUBLISH → NOTIFY, max µs", "/percentiles/publish_notify/max_us", Better::Less),
    ("capacity per second", "/capacity_per_sec", Better::More),
    ("server µs for a NOTIFY", "/server_us_per_notify", Better::Less),
    ("server µs for an operation", "/server_us_per_operation", Better::Less),
    ("server memory, bytes", "/server/memory_bytes", Better::Less),
    ("sent late by, p99 µs", "/percentiles/lateness/p99_us", Better::Less),
    ("requests sent again", "/total/retransmissions_sent", Better::Less),
    ("requests given up", "/total/timed_out", Better::Less),
    ("requests refused", "/total/refused", Better::Less),
    ("NOTIFYs received again", "/total/notify_retransmissions", Better::Less),
    ("watchers behind", "/audit/behind", Better::Less),
    ("subscriptions lost", "/audit/lost_subscriptions", Better::Less),
];

/// What should be the same in both for the figures to be comparable.
const CIRCUMSTANCES: &[(&str, &str)] = &[
    ("command", "/command"),
    ("version of the generator", "/version"),
    ("rate asked for", "/rate"),
    ("registering phones", "/registrants"),
    ("publishing phones", "/presentities"),
    ("watching phones", "/watchers"),
    ("sockets", "/sockets"),
    ("threads", "/threads"),
];

/// Differences below this share are called equal: runs of the same kind differ as much by chance.
const EQUAL: f64 = 0.02;

/// One figure of both runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// In the first run.
    pub a: f64,
    /// In the second run.
    pub b: f64,
    /// The second for each of the first; none when the first is 0.
    pub ratio: Option<f64>,
    /// Which way is better.
    pub better: Better,
}

/// Two runs side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Why the figures may not be comparable.
    pub warnings: Vec<String>,
    /// The figures that both runs have, without those that are 0 in both.
    pub rows: Vec<Row>,
}

/// Reads two reports and compares them.
pub fn files(a: &Path, b: &Path) -> anyhow::Result<Comparison> {
    let read = |path: &Path| -> anyhow::Result<Value> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not the JSON of a run", path.display()))?;
        anyhow::ensure!(value.get("command").is_some(), "{} is not the JSON of a run", path.display());
        Ok(value)
    };
    Ok(compare(&read(a)?, &read(b)?))
}

/// Compares two reports.
pub fn compare(a: &Value, b: &Value) -> Comparison {
    let mut warnings = Vec::new();
    for (name, pointer) in CIRCUMSTANCES {
        let (a, b) = (a.pointer(pointer), b.pointer(pointer));
        if let (Some(a), Some(b)) = (a, b)
            && a != b
        {
            warnings.push(format!("{name}: {a} in A, {b} in B"));
        }
    }
    for (letter, run) in [('A', a), ('B', b)] {
        if run.get("passed") == Some(&Value::Bool(false)) {
            warnings.push(format!("{letter} failed"));
        }
        for doubt in run.pointer("/generator/doubts").and_then(Value::as_array).into_iter().flatten() {
            warnings.push(format!("generator of {letter}: {}", doubt.as_str().unwrap_or_default()));
        }
    }
    let figure = |run: &Value, pointer: &str| run.pointer(pointer).and_then(Value::as_f64);
    let rows = FIGURES.iter().filter_map(|&(name, pointer, better)| {
        let (a, b) = (figure(a, pointer)?, figure(b, pointer)?);
        (a != 0.0 || b != 0.0).then(|| Row { name, a, b, ratio: (a != 0.0).then(|| b / a), better })
    });
    Comparison { warnings, rows: rows.collect() }
}

impl Row {
    /// What the second run is compared with the first.
    fn judgement(&self) -> &'static str {
        let ratio = self.ratio.unwrap_or(f64::INFINITY);
        let is_more = match self.better {
            _ if (ratio - 1.0).abs() < EQUAL => return "",
            Better::More => ratio > 1.0,
            Better::Less => ratio < 1.0,
        };
        if is_more { "better" } else { "worse" }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "  NOTE  {warning}")?;
        }
        writeln!(f, "  {:<28}{:>14}{:>14}{:>9}", "", "A", "B", "B / A")?;
        for row in &self.rows {
            let ratio = row.ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
            let line = format!(
                "  {:<28}{:>14}{:>14}{ratio:>9}  {}",
                row.name,
                plain(row.a),
                plain(row.b),
                row.judgement()
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number as short as it may be.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1_000.0 {
        crate::terminal::Grouped(value.round() as u64).to_string()
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ratios_have_a_direction() {
        let a = json!({"command": "fanout", "passed": true, "rates": {"notifies_per_sec": 1000.5},
                       "percentiles": {"publish_notify": {"p99_us": 100, "p50_us": 50}}, "total": {"timed_out": 0}});
        let b = json!({"command": "fanout", "passed": false, "rates": {"notifies_per_sec": 2001.0},
                       "percentiles": {"publish_notify": {"p99_us": 300, "p50_us": 50}}, "total": {"timed_out": 3}});
        let compared = compare(&a, &b);
        assert_eq!(compared.warnings, ["B failed"]);
        let judged: Vec<_> = compared.rows.iter().map(|row| (row.name, row.judgement())).collect();
        assert_eq!(
            judged,
            [
                ("NOTIFY per second", "better"),
                ("PUBLISH → NOTIFY, p50 µs", ""),
                ("PUBLISH → NOTIFY, p99 µs", "worse"),
                ("requests given up", "worse")
            ]
        );
        assert_eq!(compared.rows[0].ratio, Some(2.0));
        assert_eq!(compared.rows[3].ratio, None, "nothing is a multiple of zero");
        assert!(compared.to_string().contains("2.00  better"), "{compared}");
    }

    #[test]
    fn runs_of_different_kinds_are_told_apart() {
        let compared = compare(
            &json!({"command": "fanout", "rate": "max"}),
            &json!({"command": "publish", "rate": 5.0}),
        );
        assert_eq!(compared.warnings.len(), 2);
        assert!(compared.rows.is_empty());
    }
}

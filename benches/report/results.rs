//! What run.sh left: one figure a line, and under which conditions they were taken.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Everything that was measured.
pub struct Results {
    /// The figures, in the order in which they were taken.
    pub figures: Vec<Figure>,
    /// The machine's floor, once a round.
    pub floors: Vec<Floor>,
    /// Where, and how.
    pub conditions: Conditions,
    /// Load averages when the rounds began.
    pub loads: Vec<String>,
}

/// A figure of one run.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Figure {
    /// What was asked.
    pub question: String,
    /// Whom.
    pub server: String,
    /// In which round.
    pub round: u32,
    /// Operations per second, bytes or milliseconds, as the question says.
    pub rate: Option<f64>,
    /// Microseconds of the server's processors for one operation.
    pub us: Option<f64>,
    /// Median latency in microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile of it.
    pub p99_us: Option<f64>,
    /// What was wrong.
    pub trouble: Option<String>,
    /// Why the generator may have been in the way.
    pub doubts: Option<String>,
}

/// The machine's floor.
#[derive(Deserialize)]
pub struct Floor {
    /// To many sockets.
    pub distinct: Cost,
    /// To one socket.
    pub segmented: Cost,
    /// Several at once.
    pub scaling: Option<Scaling>,
    /// Waking a thread.
    pub wake: Wake,
    /// What the machine takes away.
    pub gaps: Gaps,
}

/// Microseconds for a datagram and its answer.
#[derive(Deserialize)]
pub struct Cost {
    /// To send.
    pub send_us: f64,
    /// To receive.
    pub receive_us: f64,
    /// Both.
    pub both_us: f64,
}

/// How the machine scales.
#[derive(Deserialize)]
pub struct Scaling {
    /// Servers at once.
    pub threads: u32,
    /// Rate of all of them, of that of one.
    pub ratio: f64,
    /// Microseconds for a datagram and its answer then.
    pub both_us: f64,
}

/// How long waking takes.
#[derive(Deserialize)]
pub struct Wake {
    /// There and back, in the middle.
    pub round_trip_p50_us: f64,
    /// 99th percentile of it.
    pub round_trip_p99_us: f64,
}

/// What a loop loses that never sleeps.
#[derive(Deserialize)]
pub struct Gaps {
    /// Of its time.
    pub lost_percent: f64,
    /// How late it is for who needs two processors, at the 99th percentile.
    pub late_p99_us: f64,
}

/// Where, when and how; as run.sh says it.
#[derive(Deserialize)]
pub struct Conditions {
    pub command: String,
    pub date: String,
    pub commit: String,
    pub cpu: String,
    pub kernel: String,
    pub memory_gib: String,
    pub processors: String,
    pub server_cpus: String,
    pub load_cpus: String,
    pub share: u32,
    pub kamailio: String,
    pub kamailio_processes: u32,
    pub kamailio_db_processes: u32,
    pub postgres: String,
    pub socket_buffer_kib: u32,
    pub rounds: u32,
    pub seconds: f64,
    pub celebrity: String,
    pub held: u64,
    pub holding: u64,
    pub limit_ms: u32,
}

impl Results {
    /// Reads the folder.
    ///
    /// # Errors
    /// A file is not there or not legible.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let words = |name: &str| anyhow::Ok(text(name)?.lines().map(str::to_owned).collect::<Vec<_>>());
        Ok(Self {
            figures: json_lines(&text("results.jsonl")?)?,
            floors: json_lines(&text("floor.jsonl")?)?,
            conditions: serde_json::from_str(&text("conditions.json")?)?,
            loads: words("loads")?,
        })
    }

    /// The figures of one question to one server.
    pub fn runs<'a>(&'a self, question: &'a str, server: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.question == question && figure.server == server)
    }

    /// The middle of one figure over the rounds.
    pub fn middle(&self, question: &str, server: &str, of: Of) -> Option<f64> {
        median(self.runs(question, server).filter_map(of).collect())
    }

    /// The middle of something of the floor.
    pub fn floor(&self, of: impl Fn(&Floor) -> Option<f64>) -> Option<f64> {
        median(self.floors.iter().filter_map(of).collect())
    }
}

/// One of the numbers of a figure.
pub type Of = fn(&Figure) -> Option<f64>;

/// The middle; of an even number the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn json_lines<T: DeserializeOwned>(text: &str) -> anyhow::Result<Vec<T>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}

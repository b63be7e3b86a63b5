//! Plays seeds on several threads and says which of them failed.
//!
//! | variable | plays |
//! |---|---|
//! | – | the seeds from zero up to the number that the test asks for |
//! | `COMSIPL_SIM_SEED=n` | one seed |
//! | `COMSIPL_SIM_SEEDS=n`, `COMSIPL_SIM_SEEDS=n..m` | the first n, or those from n up to m without m |
//! | `COMSIPL_SIM_THREADS=n` | on so many threads; otherwise on as many as there are processors |

use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much of a run is kept for the report of its failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// All: one seed is looked at.
    Whole,
    /// The last messages.
    End,
}

/// Plays what the environment says, or the first `usual` seeds.
///
/// # Panics
/// If a seed fails: says which, and the story of the first.
pub fn play_all(usual: u64, play: impl Fn(u64, Story) -> Result<(), String> + Sync) {
    let seeds = asked("COMSIPL_SIM_SEED", one).or_else(|| asked("COMSIPL_SIM_SEEDS", range));
    let seeds = seeds.unwrap_or(0..usual);
    let threads = asked("COMSIPL_SIM_THREADS", |text| text.parse().ok());
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let story = if seeds.end - seeds.start == 1 { Story::Whole } else { Story::End };

    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report { seeds: seeds.clone(), failures: Vec::new(), said: Instant::now() });
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || report.lock().expect("no panic while held").is_full() {
                        break;
                    }
                    let result = play(seed, story);
                    report.lock().expect("no panic while held").take(seed, result, started.elapsed());
                }
            });
        }
    });
    let mut failures = report.into_inner().expect("no panic while held").failures;
    failures.sort();
    if let Some((seed, why)) = failures.first() {
        let all: String = failures
            .iter()
            .map(|(seed, why)| format!("\n  COMSIPL_SIM_SEED={seed}: {}", first_line(why)))
            .collect();
        panic!("of the seeds {seeds:?} {} failed:{all}\n\nseed {seed}: {why}", failures.len());
    }
}

/// What has come of the seeds so far.
struct Report {
    seeds: Range<u64>,
    failures: Vec<(u64, String)>,
    /// When something was said on the terminal last.
    said: Instant,
}

impl Report {
    fn is_full(&self) -> bool {
        self.failures.len() >= FAILURES_MAX
    }

    /// Takes what came of a seed; those before it have been played, or nearly.
    fn take(&mut self, seed: u64, result: Result<(), String>, spent: Duration) {
        if let Err(why) = result {
            self.say(format_args!("seed {seed} fails: {}", first_line(&why)));
            self.failures.push((seed, why));
        }
        if self.said.elapsed() >= PROGRESS_EVERY {
            self.said = Instant::now();
            let (played, all) = (seed + 1 - self.seeds.start, self.seeds.end - self.seeds.start);
            let left = spent.mul_f64((all - played) as f64 / played as f64).as_secs();
            let failed = self.failures.len();
            self.say(format_args!("{played} of {all} seeds, {failed} failed; about {left} s to go"));
        }
    }

    /// Says something at once, past the test harness, which keeps what is printed until the end.
    fn say(&self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(std::io::stderr(), "{what}");
    }
}

/// What the environment says, if it says anything.
fn asked<T>(name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(read(&text).unwrap_or_else(|| panic!("{name}={text} cannot be understood")))
}

fn one(text: &str) -> Option<Range<u64>> {
    let seed = text.parse().ok()?;
    Some(seed..seed + 1)
}

fn range(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => Some(0..text.parse().ok()?),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// After so many failures it ends.
const FAILURES_MAX: usize = 32;
/// How often it says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

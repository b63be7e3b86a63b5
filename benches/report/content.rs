//! What the report says: one content, rendered as Markdown and as a page.

use crate::bars::{Bars, short};
use crate::results::{Figure, Of, Results};
use crate::{speed, state};

/// The report.
pub struct Report {
    /// Its name.
    pub title: String,
    /// What writes it.
    pub command: String,
    /// What it consists of.
    pub blocks: Vec<Block>,
}

/// A part of the report; texts are Markdown.
pub enum Block {
    /// The title of a section.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// Some points.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// A picture.
    Picture(Picture),
}

/// A table.
pub struct Table {
    /// The titles of its columns.
    pub head: Vec<String>,
    /// The rest.
    pub rows: Vec<Vec<String>>,
}

/// A picture, which is also a file.
pub struct Picture {
    /// Its file name.
    pub file: &'static str,
    /// What it shows.
    pub bars: Bars,
}

impl Report {
    /// The pictures.
    pub fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.blocks
            .iter()
            .filter_map(|block| if let Block::Picture(picture) = block { Some(picture) } else { None })
    }
}

/// The whole report.
pub fn report(results: &Results) -> Report {
    let conditions = &results.conditions;
    let mut blocks = vec![
        Block::Text(format!(
            "Written by `{}` on {}, commit {}.",
            conditions.command, conditions.date, conditions.commit
        )),
        Block::List(circumstances(results)),
    ];
    blocks.extend(speed::processor_time(results));
    blocks.extend(speed::rates(results));
    blocks.extend(speed::capacities(results));
    blocks.extend(speed::latencies(results));
    blocks.extend(speed::one_processor(results));
    blocks.extend(speed::scaling(results));
    blocks.extend(state::held(results));
    blocks.extend(state::databases(results));
    blocks.extend(troubles(results));
    Report { title: "Side by side".to_owned(), command: conditions.command.clone(), blocks }
}

fn circumstances(results: &Results) -> Vec<String> {
    let it = &results.conditions;
    vec![
        format!(
            "Machine: {}, {} processors, {} GiB, {}. Server on processors {}, load generator on {}; load average when the \
             rounds began: {}. Where other work shares the machine, rates say less than processor time for each operation.",
            it.cpu,
            it.processors,
            it.memory_gib,
            it.kernel,
            it.server_cpus,
            it.load_cpus,
            results.loads.join("; ")
        ),
        format!(
            "Kamailio {} with {} processes, everything in shared memory ([kamailio.cfg](peers/kamailio.cfg)). ComSIPL with {} \
             shards, its files on disk as always. Receive buffers of both: {} KiB.",
            it.kamailio, it.kamailio_processes, it.share, it.socket_buffer_kib
        ),
        format!(
            "{} round(s) in turns, each question to a server just started; medians (least–greatest). What takes long is asked \
             once. A timed question lasts {} s, at the highest rate that the generator's closed loop sustains (256 \
             requests under way; its threads never sleep, because waking them would cost the server), unless it says \
             otherwise.",
            it.rounds, it.seconds
        ),
        "✗: at least one of these runs failed its audit; see [What was not right](#what-was-not-right)."
            .to_owned(),
    ]
}

fn troubles(results: &Results) -> Vec<Block> {
    let listed = |of: fn(&Figure) -> &Option<String>| {
        let figures = results.figures.iter();
        figures
            .filter_map(move |it| {
                let text = of(it).as_ref().filter(|text| !text.is_empty())?;
                Some(format!("{}, {}, round {}: {text}", server_name(&it.server), it.question, it.round))
            })
            .collect::<Vec<_>>()
    };
    let wrong = listed(|figure| &figure.trouble);
    let doubts = listed(|figure| &figure.doubts);
    let mut blocks = vec![Block::Heading("What was not right".to_owned())];
    blocks.push(match &wrong[..] {
        [] => Block::Text("Every run passed its audit.".to_owned()),
        _ => Block::List(wrong),
    });
    if doubts.is_empty() {
        blocks.push(Block::Text("The generator was never in the way.".to_owned()));
    } else {
        blocks.push(Block::Text(
            "Where the generator says that it may have been in the way (then the rate is its own or the machine's; the \
             processor time of the server stands):"
                .to_owned(),
        ));
        blocks.push(Block::List(doubts));
    }
    blocks
}

impl Results {
    /// A figure as it stands in a table.
    pub fn cell(&self, question: &str, server: &str, of: Of) -> String {
        let mut out = shown(self.middle(question, server, of));
        if self.runs(question, server).any(|figure| figure.trouble.is_some()) {
            out.push_str(" ✗");
        }
        out
    }

    /// Processor time as it stands in a table, with the least and the greatest of several.
    pub fn us_cell(&self, question: &str, server: &str) -> String {
        let values: Vec<f64> = self.runs(question, server).filter_map(US).collect();
        let cell = self.cell(question, server, US);
        if values.len() < 2 {
            return cell;
        }
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = values.iter().copied().fold(0.0, f64::max);
        format!("{cell} ({}–{})", short(least), short(greatest))
    }
}

fn server_name(server: &str) -> &str {
    match server {
        "kamailio" => "Kamailio",
        "comsipl" => "ComSIPL",
        "one-shard" => "ComSIPL with one shard",
        "one-processor" => "Kamailio on one processor",
        "durable" => "Kamailio on PostgreSQL",
        "relaxed" => "Kamailio on PostgreSQL, relaxed",
        other => other,
    }
}

/// A table with these titles.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> Block {
    Block::Table(Table { head: head.iter().map(|&title| title.to_owned()).collect(), rows })
}

/// A figure, or that there is none.
pub fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), short)
}

/// How many times `b` is in `a`.
pub fn times(a: Option<f64>, b: Option<f64>) -> String {
    match (a, b) {
        (Some(a), Some(b)) if b > 0.0 => format!("{} ×", short(a / b)),
        _ => "–".to_owned(),
    }
}

/// Operations per second, or what else the question asks for.
pub const RATE: Of = |figure| figure.rate;
/// Processor time.
pub const US: Of = |figure| figure.us;
/// Median latency.
pub const P50: Of = |figure| figure.p50_us;
/// 99th percentile of latencies.
pub const P99: Of = |figure| figure.p99_us;
/// Requests, as run.sh names them.
pub const REQUESTS: [&str; 3] = ["REGISTER", "SUBSCRIBE", "PUBLISH"];
/// The usual fan-out.
pub const FANOUT: &str = "100 × 100";
/// The same behind a proxy.
pub const FANOUT_PROXY: &str = "100 × 100, one proxy";

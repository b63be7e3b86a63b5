//! What the report says of rates, processor time and latencies.

use crate::bars::{Bars, Pair, grouped, short};
use crate::content::{
    Block, FANOUT, FANOUT_PROXY, P50, P99, Picture, RATE, REQUESTS, US, shown, table, times,
};
use crate::results::{Floor, Results, Wake};

/// Processor time for each operation.
pub fn processor_time(results: &Results) -> Vec<Block> {
    let floor = results.floor(|floor| Some(floor.distinct.both_us));
    let segmented = results.floor(|floor| Some(floor.segmented.both_us));
    let strangers =
        format!("SUBSCRIBE of an unknown dialog, {} subscriptions", grouped(results.conditions.held));
    let mut rows = Vec::new();
    let mut pairs = Vec::new();
    for (name, question) in asked(results).chain([(strangers, "strangers".to_owned())]) {
        let us = |server| results.middle(&question, server, US);
        rows.push(vec![
            name.clone(),
            results.us_cell(&question, "kamailio"),
            results.us_cell(&question, "comsipl"),
            times(us("kamailio"), us("comsipl")),
            of_floor(results, &question, us("comsipl")),
        ]);
        let pair = Pair { name, kamailio: us("kamailio"), comsipl: us("comsipl") };
        if question != "strangers" && !pair.is_empty() {
            pairs.push(pair);
        }
    }
    let part = |of: &dyn Fn(&Floor) -> f64| shown(results.floor(|floor| Some(of(floor))));
    vec![
        Block::Heading("Processor time of the server for one operation".to_owned()),
        Block::Text(
            "User and system, in microseconds. For a NOTIFY: its sending, the 200 to it, and its share of the PUBLISH."
                .to_owned(),
        ),
        Block::Picture(Picture {
            file: "cpu.svg",
            bars: Bars {
                title: "Processor time of the server for one operation".to_owned(),
                note: note(results),
                unit: "microseconds, less is better",
                less_is_better: true,
                pairs,
            },
        }),
        table(&["", "Kamailio", "ComSIPL", "Kamailio / ComSIPL", "ComSIPL / floor"], rows),
        Block::Text(format!(
            "Floor of this run, what the kernel alone takes for 800 bytes out and 350 back: **{} µs** to 64 sockets ({} to \
             send, {} to receive), {} µs to one socket by UDP_SEGMENT (`cargo run --release -p comsipl-benches --bin floor`).",
            shown(floor),
            part(&|floor| floor.distinct.send_us),
            part(&|floor| floor.distinct.receive_us),
            shown(segmented),
        )),
    ]
}

/// Rates in a closed loop.
pub fn rates(results: &Results) -> Vec<Block> {
    let mut rows = Vec::new();
    let mut pairs = Vec::new();
    for (name, question) in asked(results) {
        let rate = |server| results.middle(&question, server, RATE);
        let p99 = |server| latency(results.middle(&question, server, P99));
        rows.push(vec![
            name.clone(),
            results.cell(&question, "kamailio", RATE),
            p99("kamailio"),
            results.cell(&question, "comsipl", RATE),
            p99("comsipl"),
            times(rate("comsipl"), rate("kamailio")),
        ]);
        let pair = Pair { name, kamailio: rate("kamailio"), comsipl: rate("comsipl") };
        if !pair.is_empty() {
            pairs.push(pair);
        }
    }
    vec![
        Block::Heading("Rates".to_owned()),
        Block::Text(format!(
            "Operations per second on {} processor(s) in a closed loop, and the 99th percentile of the full window: until the \
             answer, until the first NOTIFY of a SUBSCRIBE, from PUBLISH to NOTIFY.",
            results.conditions.share
        )),
        Block::Picture(Picture {
            file: "rates.svg",
            bars: Bars {
                title: format!("Operations per second on {} processors", results.conditions.share),
                note: note(results),
                unit: "operations per second, more is better",
                less_is_better: false,
                pairs,
            },
        }),
        table(&["", "Kamailio", "p99", "ComSIPL", "p99", "ComSIPL / Kamailio"], rows),
    ]
}

/// Rates that are held without loss and with low latencies.
pub fn capacities(results: &Results) -> Vec<Block> {
    let rows = ["REGISTER", "SUBSCRIBE", "PUBLISH", "NOTIFY, 100 × 100"].map(|what| {
        let question = format!("capacity: {what}");
        let rate = |server| results.middle(&question, server, RATE);
        let p99 = |server| latency(results.middle(&question, server, P99));
        vec![
            what.to_owned(),
            results.cell(&question, "kamailio", RATE),
            p99("kamailio"),
            results.cell(&question, "comsipl", RATE),
            p99("comsipl"),
            times(rate("comsipl"), rate("kamailio")),
        ]
    });
    vec![
        Block::Heading("Capacity".to_owned()),
        Block::Text(format!(
            "The highest rate, in an open loop, at which nothing is lost, no request is repeated, the audit passes and no \
             latency has a 99th percentile above {} ms (`comsipl-loadgen capacity`); SUBSCRIBE: refreshes. The p99 is that of \
             the run at this rate.",
            results.conditions.limit_ms
        )),
        table(&["per second", "Kamailio", "p99", "ComSIPL", "p99", "ComSIPL / Kamailio"], rows.into()),
    ]
}

/// How long a change takes to its watchers.
pub fn latencies(results: &Results) -> Vec<Block> {
    let rows = HALF_BUSY.map(|question| {
        let cells = ["kamailio", "comsipl"].into_iter().flat_map(|server| {
            [
                results.cell(question, server, RATE),
                latency(results.middle(question, server, P50)),
                latency(results.middle(question, server, P99)),
            ]
        });
        [question.to_owned()].into_iter().chain(cells).collect()
    });
    let wake = |of: &dyn Fn(&Wake) -> f64| latency(results.floor(|floor| Some(of(&floor.wake))));
    vec![
        Block::Heading("From PUBLISH to NOTIFY".to_owned()),
        Block::Text(format!(
            "Presentities × watchers of each, in an open loop at half the rate of the closed one: NOTIFYs per second, and \
             the time from when the PUBLISH was to leave until a watcher has the NOTIFY. The machine takes {} (p99 {}) to \
             wake a thread on another processor and to be woken by it, without any server. A loop that only reads the clock, one on \
             each processor, loses {} % of its time; who comes at any moment and needs two of them, as a PUBLISH does that goes from \
             one shard to another, is late by {} at the 99th percentile for that alone.",
            wake(&|wake| wake.round_trip_p50_us),
            wake(&|wake| wake.round_trip_p99_us),
            shown(results.floor(|floor| Some(floor.gaps.lost_percent))),
            latency(results.floor(|floor| Some(floor.gaps.late_p99_us)))
        )),
        table(&["", "Kamailio: NOTIFY/s", "p50", "p99", "ComSIPL: NOTIFY/s", "p50", "p99"], rows.into()),
    ]
}

/// Both on one processor, where the generator has more than the server.
pub fn one_processor(results: &Results) -> Vec<Block> {
    if ON_ONE_PROCESSOR.iter().all(|question| results.runs(question, "one-shard").next().is_none()) {
        return Vec::new();
    }
    let rows = ON_ONE_PROCESSOR.map(|question| {
        let us = |server| results.middle(question, server, US);
        let cells = ["one-processor", "one-shard"]
            .into_iter()
            .flat_map(|server| [results.cell(question, server, RATE), results.us_cell(question, server)]);
        [named(question)]
            .into_iter()
            .chain(cells)
            .chain([
                times(us("one-processor"), us("one-shard")),
                of_floor(results, question, us("one-shard")),
            ])
            .collect()
    });
    vec![
        Block::Heading("On one processor".to_owned()),
        Block::Text(
            "The same questions to Kamailio with two processes and to ComSIPL with one shard, each on one processor. The \
             generator has as many as before, so it is in the way less often: a server that waits for its load is dearer than \
             one that is busy. Per second, and microseconds of the server's processor for one operation."
                .to_owned(),
        ),
        table(&["", "Kamailio", "µs", "ComSIPL", "µs", "Kamailio / ComSIPL, µs", "ComSIPL / floor"], rows.into()),
    ]
}

/// One processor beside several.
pub fn scaling(results: &Results) -> Vec<Block> {
    if results.runs(FANOUT, "one-shard").next().is_none() {
        return Vec::new();
    }
    let rows = ON_ONE_PROCESSOR.map(|question| {
        let rate = |server| results.middle(question, server, RATE);
        vec![
            named(question),
            results.cell(question, "one-shard", RATE),
            results.cell(question, "comsipl", RATE),
            times(rate("comsipl"), rate("one-shard")),
            results.cell(question, "one-processor", RATE),
            results.cell(question, "kamailio", RATE),
            times(rate("kamailio"), rate("one-processor")),
        ]
    });
    let shards = results.conditions.share;
    let machine = results
        .floors
        .iter()
        .find_map(|floor| floor.scaling.as_ref())
        .map_or_else(String::new, |scaling| {
            format!(
                " The machine itself: {} bare senders at once do {} × what one does, at {} µs a datagram and its answer \
                 (`floor --threads {}`, which has the clients on processors of their own, too).",
                scaling.threads,
                shown(results.floor(|floor| floor.scaling.as_ref().map(|scaling| scaling.ratio))),
                shown(results.floor(|floor| floor.scaling.as_ref().map(|scaling| scaling.both_us))),
                scaling.threads
            )
        });
    let several = format!("on {shards}");
    let ratio = format!("{shards} / 1");
    vec![
        Block::Heading("One processor and several".to_owned()),
        Block::Text(format!(
            "ComSIPL with a shard for each processor, and Kamailio with two processes for each, against the same generator, \
             which has as many for both: per second.{machine}"
        )),
        table(&["", "ComSIPL on 1", &several, &ratio, "Kamailio on 1", &several, &ratio], rows.into()),
    ]
}

/// What both were asked, by name: requests and fan-outs.
fn asked(results: &Results) -> impl Iterator<Item = (String, String)> {
    let fanouts = ["1 × 1000", "1000 × 10", FANOUT, FANOUT_PROXY, &results.conditions.celebrity];
    REQUESTS.into_iter().chain(fanouts).map(|question| (named(question), question.to_owned()))
}

/// A question as it stands in a table.
fn named(question: &str) -> String {
    match question {
        "SUBSCRIBE" => "SUBSCRIBE with its NOTIFY".to_owned(),
        request if REQUESTS.contains(&request) => request.to_owned(),
        fanout => format!("NOTIFY, {fanout}"),
    }
}

/// Processor time as a multiple of what the kernel takes for the same datagrams; empty for what has no floor.
fn of_floor(results: &Results, question: &str, us: Option<f64>) -> String {
    let least = match question {
        "strangers" | "REGISTER" | "SUBSCRIBE" | "PUBLISH" => return String::new(),
        FANOUT_PROXY => results.floor(|floor| Some(floor.segmented.both_us)),
        _ => results.floor(|floor| Some(floor.distinct.both_us)),
    };
    times(us, least)
}

/// What stands below a picture, which is seen without its page.
fn note(results: &Results) -> String {
    let it = &results.conditions;
    format!(
        "{}, server on {} of {} processors; {}, commit {}",
        it.cpu, it.share, it.processors, it.date, it.commit
    )
}

/// Microseconds in their natural unit.
fn latency(us: Option<f64>) -> String {
    match us {
        None => "–".to_owned(),
        Some(us) if us < 1e3 => format!("{} µs", short(us)),
        Some(us) if us < 1e6 => format!("{} ms", short(us / 1e3)),
        Some(us) => format!("{} s", short(us / 1e6)),
    }
}

/// What is asked of servers on one processor, too.
const ON_ONE_PROCESSOR: [&str; 5] = ["REGISTER", "SUBSCRIBE", "PUBLISH", FANOUT, FANOUT_PROXY];
/// Questions about latency, as run.sh names them.
const HALF_BUSY: [&str; 4] = [
    "100 × 100, half of its own rate",
    "100 × 100, half of Kamailio's rate",
    "1000 × 10, half of its own rate",
    "1000 × 10, half of Kamailio's rate",
];

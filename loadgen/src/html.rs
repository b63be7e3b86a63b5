//! A run as one page that needs nothing else.

use crate::message::Transport;
use crate::plot::{Axis, Band, Line, Plot, escape};
use crate::report::{LATENESS, Latencies, Percentiles, PhaseReport, Report};
use crate::series::Point;
use crate::terminal::{Grouped, Micros};
use std::fmt::Write as _;

/// The looks.
const STYLE: &str = include_str!("html/style.css");

/// The page of a run.
pub fn page(report: &Report) -> String {
    document(&format!("{} · comsipl-loadgen", report.command), &body(report))
}

/// What stands on the page of a run.
pub fn body(report: &Report) -> String {
    let mut body = String::new();
    head(&mut body, report);
    verdicts(&mut body, report);
    tiles(&mut body, report);
    latencies(&mut body, report);
    classes(&mut body, report);
    over_time(&mut body, report);
    tables(&mut body, report);
    body
}

/// A page around `body`.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><title>{}</title><style>{STYLE}</style>\
         <main>{body}</main></html>\n",
        escape(title)
    )
}

fn head(out: &mut String, report: &Report) {
    let (class, word) = if report.passed { ("good", "PASSED") } else { ("bad", "FAILED") };
    let mut agents = Vec::new();
    for (count, what) in [
        (report.registrants, "registering"),
        (report.presentities, "publishing"),
        (report.watchers, "watching"),
    ] {
        if count > 0 {
            agents.push(format!("{} {what}", Grouped(count.into())));
        }
    }
    let _ = write!(
        out,
        "<h1>{} <b class={class}>{word}</b></h1><p class=sub>{} · {} {} · {} · {:.1} s measured · {}</p>\
         <pre>comsipl-loadgen {}</pre>",
        escape(&report.command),
        agents.join(", "),
        report.sockets,
        if report.transport == Transport::Tcp { "connections" } else { "sockets" },
        if report.threads == 1 { "1 thread".into() } else { format!("{} threads", report.threads) },
        report.measured_secs,
        date_time(report.started_unix_secs),
        escape(&report.arguments.join(" "))
    );
}

fn verdicts(out: &mut String, report: &Report) {
    out.push_str("<ul class=verdicts>");
    for verdict in &report.verdicts {
        let (class, sign) = if verdict.passed { ("good", "✓") } else { ("bad", "✗") };
        let _ = write!(
            out,
            "<li><b class={class}>{sign}</b> {} <small>{}</small></li>",
            escape(&verdict.claim),
            escape(&verdict.found)
        );
    }
    for doubt in &report.generator.doubts {
        let _ = write!(
            out,
            "<li><b class=doubt>!</b> The generator may have been the bottleneck <small>{}</small></li>",
            escape(doubt)
        );
    }
    for claim in &report.unjudged {
        let _ = write!(out, "<li><b class=doubt>?</b> {} <small>not judged</small></li>", escape(claim));
    }
    out.push_str("</ul>");
}

fn tiles(out: &mut String, report: &Report) {
    let rates = &report.rates;
    let mut tiles = Vec::new();
    for (name, rate) in [
        ("NOTIFY per second", rates.notifies_per_sec),
        ("PUBLISH per second", rates.publishes_per_sec),
        ("SUBSCRIBE per second", rates.subscribes_per_sec),
        ("REGISTER per second", rates.registers_per_sec),
    ] {
        if rate > 0.0 {
            tiles.push((name.to_string(), Grouped(rate.round() as u64).to_string()));
        }
    }
    if let Some(&first) = report.latencies.first() {
        let percentiles = report.percentiles.get(first);
        if percentiles.count > 0 {
            tiles.push((format!("{}, p50", first.name()), Micros(percentiles.p50_us).to_string()));
            tiles.push((format!("{}, p99", first.name()), Micros(percentiles.p99_us).to_string()));
        }
    }
    if let Some(server) = report.server {
        let cores = server.total_secs() / report.measured_secs;
        tiles.push(("processors used by the server".into(), format!("{cores:.2}")));
        if let Some(us) = report.server_us_per_notify {
            tiles.push(("server time for each NOTIFY, all else included".into(), format!("{us:.2} µs")));
        } else if let Some(us) = report.server_us_per_operation {
            tiles.push(("server time for each operation".into(), format!("{us:.2} µs")));
        }
        tiles.push(("server memory".into(), format!("{:.0} MB", server.memory_bytes as f64 / 1e6)));
    }
    out.push_str("<div class=tiles>");
    if report.slice < 1.0 {
        tiles.push(("of the phones, the slice simulated".into(), format!("{}%", report.slice * 100.0)));
    }
    for (name, value) in tiles {
        let _ = write!(out, "<div><b>{value}</b>{}</div>", escape(&name));
    }
    out.push_str("</div>");
}

fn latencies(out: &mut String, report: &Report) {
    let lines: Vec<Line> = (0..)
        .zip(&report.curves)
        .filter(|(_, curve)| !curve.points.is_empty())
        .map(|(colour, curve)| Line {
            name: curve.name.clone(),
            colour: if curve.name == LATENESS { 5 } else { colour },
            dashed: curve.name == LATENESS,
            points: curve.points.iter().filter_map(|&(share, us)| place(share, us)).collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return;
    }
    let points = || lines.iter().flat_map(|line| &line.points);
    let y = Axis::micros(
        "latency",
        points().map(|point| point.1).fold(f64::MAX, f64::min),
        points().map(|point| point.1).fold(0.0, f64::max),
    );
    let x = Axis::percentiles(points().map(|point| point.0).fold(0.0, f64::max));
    out.push_str("<h2>Latency</h2><p>So much of all took at most so long.</p>");
    out.push_str(&Plot { x, y, lines, bands: Vec::new() }.html());
    out.push_str("<table><tr><th><th>count<th>mean<th>p50<th>p90<th>p99<th>p99.9<th>p99.99<th>max</tr>");
    let all = &report.percentiles;
    let rows = report.latencies.iter().map(|latencies: &Latencies| (latencies.name(), all.get(*latencies)));
    for (name, row) in rows.chain([(LATENESS, &all.lateness)]) {
        let Percentiles { count, mean_us, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us, .. } = *row;
        let _ = write!(out, "<tr><th>{name}<td>{}", Grouped(count));
        for us in [mean_us.round() as u64, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us] {
            let _ = write!(out, "<td>{}", Micros(us));
        }
    }
    for phase in report.earlier() {
        let (Some(first), Some(percentiles)) = (report.latencies.first(), phase.percentiles) else {
            continue;
        };
        let Percentiles { count, mean_us, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us, .. } =
            *percentiles.get(*first);
        let _ = write!(
            out,
            "<tr><th>{} <small>in “{}”</small><td>{}",
            first.name(),
            escape(&phase.name),
            Grouped(count)
        );
        for us in [mean_us.round() as u64, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us] {
            let _ = write!(out, "<td>{}", Micros(us));
        }
    }
    out.push_str("</table>");
}

/// What became of requests by what they are worth, in each measured phase.
fn classes(out: &mut String, report: &Report) {
    for phase in report.phases.iter().filter(|phase| report.overloads && !phase.classes.is_empty()) {
        let _ = write!(
            out,
            "<h2>Requests in “{}”</h2><table><tr><th><th>offered<th>admitted<th>at once<th>refused<th>of those withheld<th>given up<th>p50<th>p99<th>from the first sending</tr>",
            escape(&phase.name)
        );
        for row in &phase.classes {
            let _ = write!(out, "<tr><th>{}", row.class.name());
            for count in [row.offered, row.admitted, row.at_once, row.refused, row.withheld, row.given_up] {
                let _ = write!(out, "<td>{}", Grouped(count));
            }
            for us in [row.p50_us, row.p99_us, row.first_p99_us] {
                let _ = write!(out, "<td>{}", Micros(us));
            }
        }
        out.push_str("</table>");
    }
}

/// Where a share of all values lies in the percentile plot; none for the last one, which has no end.
fn place(share: f64, us: u64) -> Option<(f64, f64)> {
    (share < 1.0).then(|| (1.0 / (1.0 - share), us.max(1) as f64))
}

fn over_time(out: &mut String, report: &Report) {
    let Some(end) = report.series.last().map(|point| point.at_secs).filter(|&end| end > 0.0) else { return };
    let bands: Vec<_> = report
        .phases
        .iter()
        .map(|phase| Band {
            name: phase.name.to_string(),
            from: phase.start_secs,
            to: phase.start_secs + phase.secs,
            strong: phase.measured,
        })
        .collect();
    let plot = |out: &mut String, title: &str, y: &'static str, lines: Vec<Line>| {
        let top = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max);
        if top > 0.0 {
            let plot = Plot { x: Axis::time(end), y: Axis::linear(y, top), lines, bands: bands.clone() };
            let _ = write!(out, "<h2>{title}</h2>{}", plot.html());
        }
    };
    let line = |colour: usize, name: &str, points: Vec<(f64, f64)>| {
        let is_flat = points.iter().all(|point| point.1 <= 0.0);
        (!is_flat).then(|| Line { name: name.into(), colour, dashed: false, points })
    };
    // Phases begin at a point of their own, so points may lie too near for a rate: such are skipped.
    let grown = |apart_secs: f64, value: &dyn Fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
        let mut points = report.series.iter().filter_map(|point| Some((point.at_secs, value(point)?)));
        let Some(mut last) = points.next() else { return Vec::new() };
        let mut rates = Vec::new();
        for (at, value) in points.filter(|(_, value)| value.is_finite()) {
            let secs = at - last.0;
            if secs >= apart_secs {
                rates.push((f64::midpoint(last.0, at), (value - last.1).max(0.0) / secs));
                last = (at, value);
            }
        }
        rates
    };
    const RATE_SECS: f64 = 0.02;
    const CPU_SECS: f64 = 0.2;
    let lines = [
        line(0, "NOTIFY", grown(RATE_SECS, &|point| Some(point.notifies as f64))),
        line(1, "PUBLISH", grown(RATE_SECS, &|point| Some(point.published as f64))),
        line(2, "SUBSCRIBE", grown(RATE_SECS, &|point| Some(point.subscribed as f64))),
        line(3, "REGISTER", grown(RATE_SECS, &|point| Some(point.registered as f64))),
        line(4, "sent again", grown(RATE_SECS, &|point| Some(point.retransmissions as f64))),
    ];
    let lines: Vec<Line> = lines.into_iter().flatten().collect();
    let measured = report.phases.iter().rev().find(|phase| phase.measured);
    plot(out, "Rates", "per second", lines.clone());
    if let Some(part) = measured.and_then(|phase| apart(phase, &lines)) {
        let _ = write!(
            out,
            "<h2>Rates in “{}”</h2>{}",
            escape(&measured.map_or("".into(), |p| p.name.clone())),
            part.html()
        );
    }
    let lines = [
        line(0, "server", grown(CPU_SECS, &|point| point.server_cpu_secs)),
        line(5, "generator", grown(CPU_SECS, &|point| Some(point.own_cpu_secs))),
    ];
    plot(out, "Processors", "processors in use", lines.into_iter().flatten().collect());
    let at = |value: &dyn Fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
        report.series.iter().filter_map(|point| Some((point.at_secs, value(point)?))).collect()
    };
    let memory = at(&|point| Some(point.server_memory_bytes? as f64 / 1e6));
    plot(out, "Memory of the server", "MB", line(0, "resident", memory).into_iter().collect());
}

/// The rates of the measured phase by themselves, where those of other phases are so high that nothing is seen of it.
fn apart(phase: &PhaseReport, lines: &[Line]) -> Option<Plot> {
    let (from, to) = (phase.start_secs, phase.start_secs + phase.secs);
    let top =
        |lines: &[Line]| lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max);
    let inside: Vec<Line> = lines
        .iter()
        .map(|line| Line {
            points: line.points.iter().copied().filter(|point| (from..=to).contains(&point.0)).collect(),
            ..line.clone()
        })
        .filter(|line| line.points.iter().any(|point| point.1 > 0.0))
        .collect();
    let highest = top(&inside);
    (highest > 0.0 && highest < top(lines) / 4.0).then(|| Plot {
        x: Axis::time_between(from, to),
        y: Axis::linear("per second", highest),
        lines: inside,
        bands: Vec::new(),
    })
}

fn tables(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Phases</h2><table><tr><th><th>seconds<th>REGISTER<th>SUBSCRIBE<th>PUBLISH<th>NOTIFY<th>sent again<th>given up</tr>",
    );
    for phase in &report.phases {
        let counts = &phase.counts;
        let name = escape(&phase.name);
        let name = if phase.measured { format!("<b>{name}</b> (measured)") } else { name };
        let _ = write!(out, "<tr><th>{name}<td>{:.2}", phase.secs);
        for count in [
            counts.registered,
            counts.subscribed,
            counts.published,
            counts.notifies,
            counts.retransmissions_sent,
            counts.timed_out,
        ] {
            let _ = write!(out, "<td>{}", Grouped(count));
        }
    }
    out.push_str("</table><h2>All that was counted</h2><div class=columns>");
    let total = serde_json::to_value(report.total).unwrap_or_default();
    for (name, count) in total.as_object().into_iter().flatten() {
        let count = count.as_u64().unwrap_or(0);
        if count > 0 {
            let _ = write!(out, "<p>{}<b>{}</b></p>", name.replace('_', " "), Grouped(count));
        }
    }
    out.push_str("</div>");
    if let Some(hostile) = &report.hostile {
        let _ = write!(
            out,
            "<h2>Hostile datagrams</h2><p>{} of {:.0} MB in {:.1} s, seed {}: {} answered, {} in silence; \
             {} NOTIFYs to strangers.</p><div class=columns>",
            Grouped(hostile.sent),
            hostile.sent_bytes as f64 / 1e6,
            hostile.secs,
            hostile.seed,
            Grouped(hostile.answered()),
            Grouped(hostile.silent()),
            Grouped(hostile.notifies)
        );
        for (status, count) in &hostile.answers {
            let _ = write!(out, "<p>answered {status}<b>{}</b></p>", Grouped(*count));
        }
        for (kind, count) in &hostile.damage {
            let _ = write!(out, "<p>{kind}<b>{}</b></p>", Grouped(*count));
        }
        out.push_str("</div>");
    }
    if let Some(audit) = report.audit {
        let _ = write!(
            out,
            "<h2>Audit</h2><p>{} watchers: {} behind ({} of them turned back), {} lost their subscription; \
             {} CSeq numbers never seen.</p>",
            Grouped(audit.watchers),
            Grouped(audit.behind),
            Grouped(audit.turned_back),
            Grouped(audit.lost_subscriptions),
            Grouped(audit.missing_cseqs)
        );
    }
    let own = &report.generator;
    let _ = write!(
        out,
        "<p class=sub>The generator used {:.2} s of processor time in the measured phase, its busiest thread had \
         something to do {:.0}% of the time, and the kernel dropped {} datagrams at its sockets. Version {}.</p>",
        own.usage.total_secs(),
        own.busy * 100.0,
        Grouped(own.kernel_drops),
        report.version
    );
}

/// Seconds since 1970 in UTC.
fn date_time(secs: u64) -> String {
    let mut out = Vec::new();
    crate::message::date_time(&mut out, secs);
    String::from_utf8_lossy(&out).replace('T', " ").replace('Z', " UTC")
}

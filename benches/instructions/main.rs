//! Instructions for each operation of the engine, counted by callgrind.
//!
//! A count is the same tomorrow and under any load, so it can be checked where time cannot: in CI, and on a machine that
//! others use. Only the engine is counted ([`comsipl_benches::one_shard::engine_work`]), in user mode: not the harness, not
//! the kernel. It says nothing of caches; benches by time do.
//!
//! ```text
//! instructions                  counts all operations and shows them beside the record
//! instructions publish turn     these only
//! instructions --check          fails if an operation takes more than the record allows
//! instructions --record         writes benches/instructions.toml
//! instructions --profile turn   where the instructions of an operation go
//! ```

mod callgrind;
mod operation;
mod record;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Parser;
use serde::Serialize;

use callgrind::Count;
use operation::{OPERATIONS, Operation};
use record::{Conditions, Record};

/// Counts the instructions that the engine takes for each operation, by valgrind's callgrind.
#[derive(Parser)]
struct Options {
    /// Operations to count; all if none is named
    #[arg(value_parser = find)]
    operations: Vec<&'static Operation>,
    /// Fail if an operation takes more than the record and its margin allow
    #[arg(long, conflicts_with_all = ["record", "profile"])]
    check: bool,
    /// Write what is counted into the record
    #[arg(long, conflicts_with = "profile")]
    record: bool,
    /// Show where the instructions of one operation go, and keep callgrind's file of it
    #[arg(long, value_name = "OPERATION", value_parser = find, conflicts_with = "operations")]
    profile: Option<&'static Operation>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Do the operation itself: what runs below callgrind
    #[arg(long, hide = true, value_parser = find)]
    run: Option<&'static Operation>,
}

/// An operation beside its record.
#[derive(Serialize)]
struct Row {
    operation: &'static str,
    meaning: &'static str,
    instructions: f64,
    recorded: Option<u64>,
    /// How much more than recorded; less if negative.
    change_percent: Option<f64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match (options.run, options.profile) {
        (Some(operation), _) => {
            callgrind::run_below(operation);
            Ok(true)
        }
        (None, Some(operation)) => callgrind::profile(operation).map(|text| {
            print!("{text}");
            true
        }),
        (None, None) => count(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// `false`: an operation takes more than it may.
fn count(options: &Options) -> anyhow::Result<bool> {
    let operations: Vec<&'static Operation> =
        if options.operations.is_empty() { OPERATIONS.iter().collect() } else { options.operations.clone() };
    let counts = count_all(&operations)?;
    let here = Conditions::here(&counts[0])?;
    let record = Record::read()?;
    let difference = record.as_ref().and_then(|record| record.conditions.difference(&here));
    let margin = if difference.is_some() { MARGIN_ELSEWHERE_PERCENT } else { MARGIN_PERCENT };
    let rows: Vec<Row> =
        operations.iter().zip(&counts).map(|(it, count)| row(it, count, record.as_ref())).collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print_table(&rows);
    }
    if options.record {
        let counts =
            rows.iter().map(|row| (row.operation.to_owned(), row.instructions.round() as u64)).collect();
        Record::write(record, here, counts, rows.len() == OPERATIONS.len())?;
        eprintln!("recorded in {}", record::path().display());
        return Ok(true);
    }
    if let Some(difference) = difference {
        eprintln!("recorded elsewhere ({difference}), so the margin is {margin:.0} %");
    }
    let named = |which: &dyn Fn(&Row) -> bool| {
        rows.iter().filter(|row| which(row)).map(|row| row.operation).collect::<Vec<_>>().join(", ")
    };
    let worse = named(&|row| row.change_percent.is_none_or(|change| change > margin));
    let better = named(&|row| row.change_percent.is_some_and(|change| change < -margin));
    if !better.is_empty() {
        eprintln!("better by more than {margin:.0} %, to be recorded: {better}");
    }
    if !worse.is_empty() {
        eprintln!("worse than recorded by more than {margin:.0} %, or not recorded: {worse}");
    }
    Ok(!options.check || worse.is_empty())
}

/// Counts as many at a time as there are processors.
fn count_all(operations: &[&'static Operation]) -> anyhow::Result<Vec<Count>> {
    let next = AtomicUsize::new(0);
    let count_some = || {
        let mut counts = Vec::new();
        while let Some(operation) = operations.get(next.fetch_add(1, Ordering::Relaxed)) {
            counts.push(callgrind::count(operation)?);
        }
        anyhow::Ok(counts)
    };
    let mut counts = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..thread::available_parallelism()?.get()).map(|_| scope.spawn(count_some)).collect();
        let mut counts = Vec::new();
        for thread in threads {
            counts.extend(thread.join().expect("counting does not panic")?);
        }
        anyhow::Ok(counts)
    })?;
    let place = |name: &str| operations.iter().position(|operation| operation.name == name);
    counts.sort_by_key(|count| place(count.operation));
    Ok(counts)
}

fn row(operation: &Operation, count: &Count, record: Option<&Record>) -> Row {
    let recorded = record.and_then(|record| record.instructions.get(operation.name).copied());
    Row {
        operation: operation.name,
        meaning: operation.meaning,
        instructions: count.instructions,
        recorded,
        change_percent: recorded.map(|recorded| (count.instructions / recorded as f64 - 1.0) * 100.0),
    }
}

fn print_table(rows: &[Row]) {
    println!("{:<20} {:>12} {:>9} {:>7}  one is", "operation", "instructions", "recorded", "change");
    for row in rows {
        let recorded = row.recorded.map_or_else(|| "–".to_owned(), |recorded| recorded.to_string());
        let change = row.change_percent.map_or_else(|| "–".to_owned(), |change| format!("{change:+.1} %"));
        println!(
            "{:<20} {:>12.0} {recorded:>9} {change:>7}  {}",
            row.operation, row.instructions, row.meaning
        );
    }
}

/// The operation of that name.
fn find(name: &str) -> Result<&'static Operation, String> {
    let names = || OPERATIONS.iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
    OPERATIONS.iter().find(|it| it.name == name).ok_or_else(|| format!("there are: {}", names()))
}

/// What a count may differ from its record under the same conditions, in percent. The files' keys are drawn anew for
/// each run, so counts differ a little.
const MARGIN_PERCENT: f64 = 3.0;
/// The same where another processor, compiler or valgrind counts than recorded: other instructions do the same.
const MARGIN_ELSEWHERE_PERCENT: f64 = 15.0;

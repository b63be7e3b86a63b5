//! The command `comsipl-loadgen`.

use anyhow::Context as _;
use clap::Parser as _;
use comsipl_loadgen::cli::{Cli, Command};
use comsipl_loadgen::notifier::{Faults, Notifier};
use comsipl_loadgen::{compare, run};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let right = match &cli.command {
        Command::Notifier { cpu } => notify(*cpu),
        Command::Compare { a, b, json } => side_by_side(a, b, *json),
        command => measure(command),
    };
    match right {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("comsipl-loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the notifier until the input ends.
fn notify(cpu: Option<usize>) -> anyhow::Result<bool> {
    if let Some(cpu) = cpu {
        run::pin(cpu)?;
    }
    let notifier = Notifier::start(Faults::default())?;
    println!("{} {}", notifier.address(), std::process::id());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(true)
}

/// Prints the comparison of two runs.
fn side_by_side(a: &Path, b: &Path, json: bool) -> anyhow::Result<bool> {
    let comparison = compare::files(a, b)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&comparison)?);
    } else {
        print!("{comparison}");
    }
    Ok(true)
}

/// Runs the command and tells what it found; whether all was right.
fn measure(command: &Command) -> anyhow::Result<bool> {
    let report = run::run(command)?;
    print!("{report}");
    if let Some((common, _)) = command.measurement() {
        if let Some(path) = &common.json {
            write(path, &serde_json::to_vec_pretty(&report)?)?;
        }
        if let Some(path) = &common.html {
            write(path, comsipl_loadgen::page(&report).as_bytes())?;
        }
    }
    Ok(report.passed)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

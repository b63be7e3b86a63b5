//! The command `comsipl-loadgen`.

use anyhow::Context as _;
use clap::Parser as _;
use comsipl_loadgen::capacity::Search;
use comsipl_loadgen::cli::{Cli, Command};
use comsipl_loadgen::notifier::{Faults, Notifier};
use comsipl_loadgen::{compare, profile, run};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let right = match &cli.command {
        Command::Notifier { cpu } => notify(*cpu),
        Command::Compare { a, b, json } => side_by_side(a, b, *json),
        Command::Capacity { what, users, audience, limit, duration, precision, common } => search(&Search {
            what: *what,
            users: *users,
            audience: *audience,
            limit: *limit,
            duration: *duration,
            precision: *precision,
            common: common.clone(),
        }),
        Command::Profiles { name } => profiles(name.as_deref()),
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

/// Lists the profiles, or prints one.
fn profiles(name: Option<&str>) -> anyhow::Result<bool> {
    if let Some(name) = name {
        let (_, text) = profile::find(name)?;
        print!("{text}");
        return Ok(true);
    }
    for (name, text) in profile::SHIPPED {
        let profile = profile::Profile::parse(text)?;
        println!("{name:<15}{}", profile.about.lines().next().unwrap_or_default());
    }
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

/// Searches for the highest rate that holds; whether there is one.
fn search(search: &Search) -> anyhow::Result<bool> {
    let found = search.run(|trial| {
        if !search.common.quiet {
            eprintln!("{trial}");
        }
    })?;
    print!("{found}");
    if let Some(path) = &search.common.json {
        write(path, &serde_json::to_vec_pretty(&found)?)?;
    }
    if let Some(path) = &search.common.html {
        write(path, found.page().as_bytes())?;
    }
    Ok(found.passed())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

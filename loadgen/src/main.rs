//! The command `comsipl-loadgen`.

use clap::Parser as _;
use comsipl_loadgen::cli::{Cli, Command};
use comsipl_loadgen::notifier::{Faults, Notifier};
use comsipl_loadgen::run;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match measure(&cli) {
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

/// Runs the command and tells what it found; whether all was right.
fn measure(cli: &Cli) -> anyhow::Result<bool> {
    if let Command::Notifier { cpu } = cli.command {
        return notify(cpu);
    }
    let report = run::run(&cli.command)?;
    print!("{report}");
    if let Some(path) = cli.command.measurement().and_then(|(common, _)| common.json.as_ref()) {
        let json = serde_json::to_vec_pretty(&report)?;
        anyhow::Context::with_context(std::fs::write(path, json), || {
            format!("cannot write {}", path.display())
        })?;
    }
    Ok(report.passed)
}

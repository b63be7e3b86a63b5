//! The command `comsipl-loadgen`.

use clap::Parser as _;
use comsipl_loadgen::{cli::Cli, run};
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

/// Runs the command and tells what it found; whether all was right.
fn measure(cli: &Cli) -> anyhow::Result<bool> {
    let report = run::run(&cli.command)?;
    print!("{report}");
    if let Some(path) = &cli.command.common().json {
        let json = serde_json::to_vec_pretty(&report)?;
        anyhow::Context::with_context(std::fs::write(path, json), || {
            format!("cannot write {}", path.display())
        })?;
    }
    Ok(report.passed)
}

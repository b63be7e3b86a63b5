//! Writes the report of `peers/run.sh` from its results: REPORT.md, REPORT.html and the pictures in plots/.
//!
//! ```text
//! report RESULTS INTO     RESULTS: the folder that run.sh filled; INTO: where the report goes
//! ```

mod bars;
mod content;
mod markdown;
mod page;
mod results;
mod speed;
mod state;

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use results::Results;

/// Writes the report of a run side by side.
#[derive(Parser)]
struct Options {
    /// Folder with the results of run.sh
    results: PathBuf,
    /// Folder that the report is written to
    into: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let results = Results::read(&options.results)?;
    let report = content::report(&results);
    let plots = options.into.join("plots");
    fs::create_dir_all(&plots).with_context(|| plots.display().to_string())?;
    for picture in report.pictures() {
        fs::write(plots.join(picture.file), picture.bars.svg())?;
    }
    fs::write(options.into.join("REPORT.md"), markdown::text(&report))?;
    fs::write(options.into.join("REPORT.html"), page::html(&report))?;
    Ok(())
}

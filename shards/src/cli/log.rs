//! The log of the process, on standard error.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For reading.
    Human,
    /// One JSON object a line, for collectors. The line `ready` stays as it is.
    Json,
}

/// A filter that cannot be understood.
#[derive(Debug)]
pub struct BadFilter {
    filter: String,
    error: tracing_subscriber::filter::ParseError,
}

impl std::fmt::Display for BadFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "a level (error, warn, info, debug, trace) or a filter such as `info,comsipl_shards=debug` is expected for \
             --log or COMSIPL_LOG, found \"{}\": {}",
            self.filter, self.error
        )
    }
}

/// Starts the log of the process.
pub fn start(filter: &str, format: LogFormat) -> Result<(), BadFilter> {
    let env_filter =
        EnvFilter::builder().parse(filter).map_err(|error| BadFilter { filter: filter.to_owned(), error })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        .with_writer(std::io::stderr)
        // It would tell on standard error that standard error takes nothing, and panic over that: a full disk under the log, or a
        // collector that has gone, would end the server. Lines that cannot be written are lost.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A log that somebody else in the process has started already stays.
    let _ = match format {
        LogFormat::Human => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

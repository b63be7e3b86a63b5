//! `comsipl status`: what a running server does and has.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use jiff::SignedDuration;

use super::{Exit, complain, settings_of};
use crate::audit::is_finding;
use crate::control::{Answer, Client, Request, SOCKET_NAME, Status};
use crate::metrics::ENGINE_GAUGES;
use crate::settings::Settings;

/// Options of `comsipl status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Configuration file of the server: where its files are.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the server's files. [default: ./comsipl-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print all counters as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Asks the server and prints what it says. A finding is a failure, so that whoever watches the server by this command hears of it.
pub(super) fn run(args: StatusArgs) -> Exit {
    let settings = match settings_of(args.config.as_deref(), args.data_dir) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error);
            return Exit::Misused;
        }
    };
    let status = match ask(&settings) {
        Ok(status) => status,
        Err(why) => {
            complain(&why);
            return Exit::Failed;
        }
    };
    let text = if args.json {
        let text = serde_json::to_string_pretty(&status).expect("names and numbers are JSON");
        text + "\n"
    } else {
        told(&status)
    };
    // To a closed pipe there is nothing to say.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if status.findings.is_empty() { Exit::Done } else { Exit::Failed }
}

fn ask(settings: &Settings) -> Result<Status, String> {
    let path = settings.data_dir.join(SOCKET_NAME);
    let mut client = Client::connect(&path).map_err(|error| format!("{error} on {}", path.display()))?;
    match client.ask(&Request::Status) {
        Ok(Answer::Status(status)) => Ok(status),
        Ok(_) => Err("the server answers something else; use the program of the server's version".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The status for people: what there is, what has happened, and what is wrong.
fn told(status: &Status) -> String {
    let Status { version, pid, uptime_secs, shards, .. } = status;
    let up = SignedDuration::from_secs(i64::try_from(*uptime_secs).unwrap_or(i64::MAX));
    let mut text = format!("ComSIPL {version}, process {pid}, up {up:#}, shards: {shards}\n\n");
    let is_gauge = |name: &str| ENGINE_GAUGES.contains(&name);
    let there_is = status.engine.iter().filter(|(name, _)| is_gauge(name) && !is_finding(name));
    text += &section("at present", there_is);
    let all = status.engine.iter().chain(&status.net);
    text += &section("since the start", all.filter(|(name, value)| !is_gauge(name) && **value != 0));
    text += &section("WRONG", status.findings.iter());
    text += if status.findings.is_empty() {
        "Nothing is wrong with the server's tables.\n"
    } else {
        "This is a mistake of ComSIPL. Restarting it helps for now; please report these lines.\n"
    };
    text
}

/// A table of counters; nothing if there are none.
fn section<'a>(heading: &str, rows: impl Iterator<Item = (&'a String, &'a u64)>) -> String {
    let rows: Vec<_> = rows.map(|(name, value)| [name.replace('_', " "), value.to_string()]).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([heading, ""]).add_rows(rows);
    table.column_mut(1).expect("there are two").set_cell_alignment(CellAlignment::Right);
    format!("{table}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let count = |name: &str| (name.to_owned(), 7);
        let mut status = Status {
            version: "1.2.3".to_owned(),
            pid: 44,
            uptime_secs: 90_061,
            shards: 2,
            engine: [count("subscriptions"), count("notifies"), count("watchers_never_told")].into(),
            net: [count("datagrams_in")].into(),
            findings: [count("watchers_never_told")].into(),
        };
        let text = told(&status);
        let lines: Vec<_> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            "ComSIPL 1.2.3, process 44, up 25h 1m 1s, shards: 2",
            "notifies 7",
            "datagrams in 7",
            "watchers never told 7",
        ] {
            assert_eq!(lines.iter().filter(|it| *it == line).count(), 1, "{line} once in {lines:#?}");
        }
        status.findings.clear();
        let text = told(&status);
        assert!(
            text.ends_with("Nothing is wrong with the server's tables.\n") && !text.contains("never"),
            "{text}"
        );
    }
}

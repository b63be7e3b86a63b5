//! SIPp with our own scenarios, `tests/real/sipp/*.xml`.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::process::{Input, Process};
use crate::server::workspace;

/// Runs the scenario once against `server`. Returns what its `<log>` actions wrote, one string each.
///
/// # Errors
/// When the call fails: the error holds SIPp's own account and the first messages of the call.
pub fn run(scenario: &str, server: SocketAddr) -> Result<Vec<String>> {
    let home = tempfile::Builder::new().prefix("comsipl-sipp-").tempdir()?;
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("sipp");
    command
        .arg(server.to_string())
        .arg("-sf")
        .arg(workspace().join("tests/real/sipp").join(scenario))
        .args(["-i", "127.0.0.1", "-p", &port.to_string()])
        .args(["-m", "1", "-nostdin", "-timeout", "25", "-timeout_error", "-recv_timeout", "10000"])
        .args(["-trace_msg", "-message_file", "messages", "-trace_err", "-error_file", "errors"])
        .args(["-trace_logs", "-log_file", "logs"])
        .current_dir(home.path())
        .env("TERM", "dumb");
    let mut process = Process::spawn("sipp", command, Input::None)?;
    let status = process.wait()?;
    let read = |name: &str| {
        let mut text = String::new();
        // Never more than this: a call that goes in circles writes millions of lines.
        let file =
            File::open(home.path().join(name)).map(|file| file.take(QUOTED_MAX).read_to_string(&mut text));
        if let Ok(Err(error)) = file {
            text = error.to_string();
        }
        text
    };
    ensure!(
        status.success(),
        "sipp {scenario}: {status}\n{}\n{}\n{}",
        read("errors"),
        read("messages"),
        process.lines().join("\n")
    );
    Ok(read("logs").lines().map(str::to_owned).collect())
}

/// How much of a file of SIPp is read, bytes.
const QUOTED_MAX: u64 = 32 << 10;

/// The value that a scenario logged as `name=value`.
///
/// # Errors
/// When it logged no such line.
pub fn logged<'a>(lines: &'a [String], name: &str) -> Result<&'a str> {
    lines
        .iter()
        .find_map(|line| line.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
        .with_context(|| format!("the scenario did not log {name}: {lines:?}"))
}

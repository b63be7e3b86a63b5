//! What the server says of itself: the findings of its own look at its tables.

use crate::report::Verdict;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often the server is asked while a phase goes on.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// The part of a status that is judged.
#[derive(Deserialize)]
struct Status {
    findings: BTreeMap<String, u64>,
}

/// A command that prints the server's status as JSON, and what it has said so far.
pub(super) struct ServerStatus {
    command: String,
    asked: Instant,
    times: u32,
    /// The most of each finding.
    findings: BTreeMap<String, u64>,
    /// The first time that the command told nothing.
    failure: Option<String>,
}

impl ServerStatus {
    /// Nothing asked yet.
    pub(super) fn new(command: &str) -> Self {
        Self {
            command: command.into(),
            asked: Instant::now(),
            times: 0,
            findings: BTreeMap::new(),
            failure: None,
        }
    }

    /// Asks if it was not asked for a while.
    pub(super) fn ask_now_and_then(&mut self) {
        if self.asked.elapsed() >= ASK_EVERY {
            self.ask();
        }
    }

    /// Asks. A finding makes the command fail as well, so its exit status says nothing more than its output.
    pub(super) fn ask(&mut self) {
        self.asked = Instant::now();
        self.times += 1;
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", &self.command]).stdin(Stdio::null()).output();
        let status = output.map_err(|error| error.to_string()).and_then(|output| {
            serde_json::from_slice::<Status>(&output.stdout).map_err(|error| {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.lines().next().unwrap_or_default();
                format!("`{}` prints no status: {error}; {said}", self.command)
            })
        });
        match status {
            Ok(status) => {
                for (name, found) in status.findings {
                    let most = self.findings.entry(name).or_default();
                    *most = found.max(*most);
                }
            }
            Err(why) => {
                self.failure.get_or_insert(why);
            }
        }
    }

    /// What it comes to.
    pub(super) fn verdict(&self) -> Verdict {
        let findings = self.findings.iter().filter(|(_, found)| **found != 0);
        let findings: Vec<_> =
            findings.map(|(name, found)| format!("{found} {}", name.replace('_', " "))).collect();
        let passed = findings.is_empty() && self.failure.is_none() && self.times > 0;
        let found = match &self.failure {
            _ if !findings.is_empty() => findings.join(", "),
            Some(why) => why.clone(),
            None => format!("nothing, asked {} times", self.times),
        };
        Verdict { claim: "The server finds nothing wrong with its own tables".into(), found, passed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(command: &str) -> Verdict {
        let mut status = ServerStatus::new(command);
        status.ask();
        status.verdict()
    }

    #[test]
    fn a_server_without_findings_passes() {
        let verdict = verdict(r#"echo '{"version": "1", "findings": {}}'"#);
        assert!(verdict.passed, "{}", verdict.found);
    }

    #[test]
    fn a_finding_is_told_also_if_it_is_gone_later() {
        let mut status = ServerStatus::new(r#"echo '{"findings": {"watchers_never_told": 2}}'; exit 1"#);
        status.ask();
        status.command = r#"echo '{"findings": {}}'"#.into();
        status.ask();
        let verdict = status.verdict();
        assert!(!verdict.passed && verdict.found == "2 watchers never told", "{}", verdict.found);
    }

    #[test]
    fn a_server_that_says_nothing_does_not_pass() {
        let verdict = verdict("echo 'no server runs' >&2; exit 1");
        assert!(!verdict.passed && verdict.found.ends_with("no server runs"), "{}", verdict.found);
        assert!(!ServerStatus::new("true").verdict().passed, "never asked");
    }
}

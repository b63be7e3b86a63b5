//! Web phones: SIP.js and JsSIP in Node, behind `tests/real/web/phone.js`.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::process::{Input, Process};
use super::proof;
use super::road::Road;
use crate::server::workspace;

/// A running web phone. Dropping it kills the process.
pub struct WebPhone {
    process: Process,
}

/// Which library a web phone is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// SIP.js, which registers, subscribes and publishes.
    SipJs,
    /// JsSIP, which registers and subscribes.
    JsSip,
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SipJs => "sip.js",
            Self::JsSip => "jssip",
        })
    }
}

impl WebPhone {
    /// Starts it and waits until it is registered.
    ///
    /// # Errors
    /// When it does not start or does not register.
    pub fn start(library: Library, user: &str, domain: &str, road: &Road<'_>) -> Result<Self> {
        let config = json!({
            "library": library.to_string(),
            "url": format!("{}://{}", road.transport.word(), road.host_port()),
            "uri": format!("sip:{user}@{domain}"),
            "user": user,
            "password": road.password.unwrap_or_default(),
            "contactName": format!("{user}-{}", library.to_string().replace('.', "")),
        });
        let mut command = Command::new("node");
        command.arg(workspace().join("tests/real/web/phone.js")).arg(config.to_string());
        if let Some(trust) = road.trust {
            command.env("NODE_EXTRA_CA_CERTS", trust);
        }
        let process = Process::spawn(&format!("{library} of {user}"), command, Input::Pipe)?;
        let mut phone = Self { process };
        phone.await_registration()?;
        Ok(phone)
    }

    /// Waits until it says that it is registered (again).
    ///
    /// # Errors
    /// When it does not in time, or is refused.
    pub fn await_registration(&mut self) -> Result<()> {
        self.event("registered", |_| true).map(drop)
    }

    /// Subscribes to `event` of `uri`.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn watch(&mut self, event: &str, uri: &str, accept: &str) -> Result<()> {
        self.order(&json!({ "do": "watch", "event": event, "uri": uri, "accept": accept }))
    }

    /// Publishes, or modifies what it has published, and waits for the answer.
    ///
    /// # Errors
    /// When it does not obey, or the server does not accept the publication.
    pub fn publish(&mut self, event: &str, content_type: &str, body: &str) -> Result<()> {
        let mark = self.process.mark();
        self.order(&json!({ "do": "publish", "event": event, "type": content_type, "body": body }))?;
        self.await_publication(mark)
    }

    /// Takes back what it has published, and waits for the answer.
    ///
    /// # Errors
    /// As [`WebPhone::publish`].
    pub fn unpublish(&mut self, event: &str) -> Result<()> {
        let mark = self.process.mark();
        self.order(&json!({ "do": "unpublish", "event": event }))?;
        self.await_publication(mark)
    }

    /// Breaks its connection without a word, and waits until it has made another and registered over it.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn break_connection(&mut self) -> Result<()> {
        self.drop_connection()?;
        self.await_registration()
    }

    /// Breaks its connection without a word; it makes another and registers over it.
    ///
    /// # Errors
    /// When it does not obey.
    pub fn drop_connection(&mut self) -> Result<()> {
        self.order(&json!({ "do": "drop" }))
    }

    /// Waits for the next NOTIFY of `event` whose body contains `text`. Returns its body.
    ///
    /// # Errors
    /// When there is none in time, or the subscription is over.
    pub fn expect(&mut self, event: &str, text: &str) -> Result<String> {
        let found = self.event("notified", |it| {
            it["event"] == event && it["body"].as_str().is_some_and(|body| body.contains(text))
        })?;
        let state = found["state"].as_str().unwrap_or_default();
        ensure!(state.starts_with("active;expires="), "Subscription-State is {state:?}");
        Ok(found["body"].as_str().unwrap_or_default().to_owned())
    }

    /// Every SIP message so far that it sent (`sent`) or received (`got`).
    pub fn messages(&self, way: &str) -> Vec<String> {
        let text = |it: Value| it["text"].as_str().map(str::to_owned);
        let lines = self.process.lines();
        lines.iter().filter_map(|line| read(line)).filter(|it| it["said"] == way).filter_map(text).collect()
    }

    /// Whether it has sent a request of that method with credentials.
    pub fn has_proved(&self, method: &str) -> bool {
        let sent = self.messages("sent");
        proof::is_given(
            &sent.iter().flat_map(|text| text.lines()).map(str::to_owned).collect::<Vec<_>>(),
            method,
        )
    }

    fn await_publication(&self, mark: usize) -> Result<()> {
        let answer = self.process.expect_since(mark, "an answer to its PUBLISH", |line| {
            read(line).is_some_and(|it| it["said"] == "got" && is_answer_to(&it["text"], "PUBLISH"))
        })?;
        ensure!(answer.contains("SIP/2.0 200 ") && answer.contains("SIP-ETag"), "{answer}");
        Ok(())
    }

    fn order(&mut self, command: &Value) -> Result<()> {
        let mark = self.process.mark();
        self.process.send(&command.to_string())?;
        let wanted =
            |it: &Value| it["said"] == "error" || (it["said"] == "done" && it["do"] == command["do"]);
        let line = self.process.expect_since(mark, &format!("done with {command}"), |line| {
            read(line).is_some_and(|it| wanted(&it))
        })?;
        ensure!(read(&line).is_some_and(|it| it["said"] == "done"), "{line}");
        Ok(())
    }

    /// Waits for an event (see `phone.js`).
    fn event(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let line = self.process.expect(what, |line| {
            read(line).is_some_and(|it| it["said"] == "error" || (it["said"] == what && wanted(&it)))
        })?;
        let event = read(&line).context("just read")?;
        if event["said"] == "error" {
            bail!("waiting for {what}: {line}");
        }
        Ok(event)
    }
}

/// A line of the program; what its libraries print besides is none.
fn read(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

/// Whether a SIP message is a final answer, other than a challenge, to a request of that method.
fn is_answer_to(text: &Value, method: &str) -> bool {
    text.as_str().is_some_and(|text| {
        let challenge = text.starts_with("SIP/2.0 401 ");
        text.starts_with("SIP/2.0 ")
            && !challenge
            && text.lines().any(|line| line.starts_with("CSeq:") && line.trim_end().ends_with(method))
    })
}

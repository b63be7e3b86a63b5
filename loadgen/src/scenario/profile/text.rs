//! The parts of a profile as they are written.

use super::Size;
use crate::agent::Op;
use crate::clock::{Nanos, nanos};
use crate::pace::{Arrivals, Rate};
use crate::scenario::contacts::Contacts;
use crate::scenario::{Common, Ends, PerAgent, Phase, Work};
use anyhow::{bail, ensure};
use serde::Deserialize;
use std::ops::Range;
use std::time::Duration;

/// Phones that publish or register.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What it is called.
    pub name: String,
    /// How many there are.
    pub count: u32,
    /// Their latencies are measured by themselves.
    #[serde(default)]
    pub apart: bool,
    /// The number does not grow with `--scale`.
    #[serde(default)]
    pub fixed: bool,
}

/// Phones that watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchers {
    /// What it is called.
    pub name: String,
    /// The presentities that they watch.
    pub of: Vec<String>,
    /// Watchers of each presentity.
    pub each: Option<u32>,
    /// Users with contacts instead.
    pub contacts: Option<Contacts>,
    /// Their number grows with `--scale`, rather than that of the presentities.
    #[serde(default)]
    pub scaled: bool,
    /// They never answer a NOTIFY, and are not audited.
    #[serde(default)]
    pub deaf: bool,
    /// They ask now and then instead of subscribing, and are not audited.
    #[serde(default)]
    pub polls: bool,
    /// They come and go, and are not audited.
    #[serde(default)]
    pub visits: bool,
}

/// A part of a run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseText {
    /// What it is called.
    pub name: String,
    /// Whether its rates and latencies are measured.
    #[serde(default)]
    pub measured: bool,
    /// All phones lose what they know at its beginning.
    #[serde(default)]
    pub forget: bool,
    /// The server is killed and started again so long after its beginning.
    pub kill_after: Option<Span>,
    /// Another process takes over from the server so often, while works go on for a time.
    pub take_over_every: Option<Span>,
    /// Works go on for so long; without, each phone does its work once.
    #[serde(rename = "for")]
    pub lasts: Option<Span>,
    /// Wait until every watcher shows what was published last, at most so long.
    pub settle: Option<Span>,
    /// What is done in it.
    #[serde(default)]
    pub works: Vec<WorkText>,
}

/// What phones do in a phase.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkText {
    /// What they do.
    #[serde(rename = "do")]
    pub op: OpText,
    /// The group that does it.
    pub who: String,
    /// How they lie in time, if not as all works of the profile do.
    pub arrivals: Option<Arrivals>,
    /// So many in a second.
    pub rate: Option<f64>,
    /// Each phone once in this time.
    pub every: Option<Span>,
    /// All of them, spread over this time, and once each.
    pub over: Option<Span>,
}

/// What a phone does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpText {
    /// Register, or refresh the binding.
    Register,
    /// Publish the next state.
    Publish,
    /// Subscribe, or refresh the subscription.
    Subscribe,
    /// Ask once.
    Poll,
    /// Publish two states at once.
    Race,
    /// Publish the same state again.
    Refresh,
    /// Publish the states of a call.
    Call,
    /// Come or go.
    Visit,
}

/// A length of time such as `500ms`, `30s`, `15m` or `72h`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
        let parsed = units.iter().find_map(|(unit, secs)| {
            let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
            Duration::try_from_secs_f64(number * secs).ok()
        });
        parsed
            .filter(|span| !span.is_zero())
            .map(Self)
            .ok_or(format!("`{text}` is no time such as 30s or 15m"))
    }
}

impl PhaseText {
    /// The phase; `find` tells the numbers of the phones that are to do something.
    pub fn phase(
        &self,
        common: &Common,
        size: Size,
        find: impl Fn(OpText, &str) -> anyhow::Result<Range<u32>>,
    ) -> anyhow::Result<Phase> {
        let stretched = |span: Span| nanos(span.0.mul_f64(size.stretch)).max(1);
        let amount = self.lasts.map_or(PerAgent::Once, |lasts| PerAgent::For(stretched(lasts)));
        let mut works = Vec::with_capacity(self.works.len());
        for work in &self.works {
            let agents = find(work.op, &work.who)?;
            let count = f64::from(agents.end - agents.start);
            let in_time = |span: Nanos| Rate::PerSecond(count * 1e9 / span as f64);
            let (rate, amount) = match (work.rate, work.every, work.over) {
                (None, None, None) => (Rate::Max, amount),
                (Some(rate), None, None) if rate > 0.0 => (Rate::PerSecond(rate * size.scale), amount),
                (None, Some(every), None) => (in_time(nanos(every.0)), amount),
                (None, None, Some(over)) => (in_time(stretched(over)), PerAgent::Once),
                _ => bail!("phase `{}`: give one of `rate`, `every` and `over`", self.name),
            };
            let op = match work.op {
                OpText::Register => Op::Register,
                OpText::Publish => Op::Publish,
                OpText::Subscribe => Op::Subscribe,
                OpText::Poll => Op::Poll,
                OpText::Race => Op::Race,
                OpText::Refresh => Op::Refresh,
                OpText::Call => Op::Call,
                OpText::Visit => Op::Visit,
            };
            let arrivals = work.arrivals.unwrap_or(common.arrivals);
            works.push(Work { amount, agents, arrivals, ..common.work(op, rate) });
        }
        let ends = self.settle.map_or(Ends::Done, |settle| Ends::Settled(nanos(settle.0)));
        ensure!(
            self.take_over_every.is_none() || self.lasts.is_some(),
            "phase `{}`: `take_over_every` needs `for`",
            self.name
        );
        ensure!(!works.is_empty() || self.settle.is_some(), "phase `{}` has nothing to do", self.name);
        Ok(Phase {
            measured: self.measured,
            ends,
            forgets: self.forget,
            kill_after: self.kill_after.map(stretched),
            take_over_every: self.take_over_every.map(stretched),
            ..Phase::new(self.name.clone(), works)
        })
    }
}

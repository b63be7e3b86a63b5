//! Mistakes in a profile that would make its run mean nothing.

use super::Profile;
use super::text::OpText;
use crate::clock::nanos;
use crate::expect::Expect;
use crate::scenario::{PerAgent, Plan};
use anyhow::{Context as _, ensure};
use std::time::Duration;

impl Profile {
    /// Fails if something would expire in a run of this length that nobody refreshes.
    pub fn check_expiry(&self, plan: &Plan, expires: u32) -> anyhow::Result<()> {
        let limit = nanos(Duration::from_secs(expires.into())) / 10 * 8;
        for (text, phase) in self.phases.iter().zip(&plan.phases) {
            let lasts = phase.works.iter().filter_map(|work| match work.amount {
                PerAgent::For(time) => Some(time),
                PerAgent::Once => None,
            });
            if lasts.max().is_none_or(|lasts| lasts < limit) {
                continue;
            }
            let is_refreshed = |op: OpText, who: &str| {
                let is_kept = |done: OpText| match op {
                    OpText::Publish => matches!(done, OpText::Publish | OpText::Refresh | OpText::Race),
                    op => done == op,
                };
                let mut works = text.works.iter().filter(|work| is_kept(work.op) && work.who == who);
                works.any(|work| work.every.is_some_and(|every| nanos(every.0) <= limit / 8 * 9))
            };
            let groups = self.presentities.iter().map(|group| (OpText::Publish, &group.name));
            let groups = groups.chain(self.registrants.iter().map(|group| (OpText::Register, &group.name)));
            let subscribing = self.watchers.iter().filter(|group| !group.polls && !group.visits);
            for (op, who) in groups.chain(subscribing.map(|group| (OpText::Subscribe, &group.name))) {
                let ever = self.phases.iter().flat_map(|phase| &phase.works);
                let mut ever = ever.filter(|work| work.op == op && work.who == *who);
                ensure!(
                    ever.next().is_none() || is_refreshed(op, who),
                    "phase `{}` is longer than 80% of {expires} s, and `{who}` do not {op:?} every so often in it",
                    text.name
                );
            }
        }
        Ok(())
    }

    /// Fails if a claim is about something that is not there.
    pub(super) fn check_claims(&self) -> anyhow::Result<()> {
        for expect in &self.expects {
            if let Some(name) = expect.phase() {
                let found = self.phases.iter().find(|phase| phase.name == name);
                let found =
                    found.with_context(|| format!("a claim is about a phase `{name}` that is not there"))?;
                let timed = matches!(expect, Expect::Latency { .. });
                ensure!(
                    !timed || found.measured,
                    "a claim is about latencies of `{name}`, which is not measured"
                );
            }
            if let Expect::Count { counter, .. } = expect {
                let counts = serde_json::to_value(crate::stats::Counts::default())?;
                ensure!(counts.get(counter).is_some(), "there is no counter `{counter}`");
            }
        }
        Ok(())
    }
}

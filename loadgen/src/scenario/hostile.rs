//! `hostile`: earlier subscriptions while strangers send what they should not.

use super::{Common, Finish, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::nanos;
use crate::expect::Expect;
use crate::hostile::{Attack, PHASE};
use crate::pace::Rate;
use crate::report::Latencies;
use std::time::Duration;

/// State changes a second of the good phones meanwhile.
const PUBLISHES_PER_SEC: f64 = 20.0;
/// An attack that lasts so long must leave the server's memory level in its second half: answers are kept for 32 s and what most
/// strangers ask for expires after 60, so by then there is as much of everything as there will ever be.
const LONG: Duration = Duration::from_secs(240);
/// What the memory may rise by for each datagram of that half, bytes: nothing that a datagram might leave behind is so small. It rises
/// a little because buffers and partitions go on to meet larger documents and fuller moments than before.
const RISE_MAX: f64 = 16.0;

/// All `watchers` of all `presentities` subscribe and are told of a first state; states go on to change while the attack runs;
/// then every presentity publishes once more, and all watchers must be told.
pub fn hostile(common: &Common, presentities: u32, watchers: u32, attack: Attack) -> Plan {
    let time = Duration::from_secs_f64((attack.count as f64 / attack.rate).max(0.1));
    let rate = Rate::PerSecond(PUBLISHES_PER_SEC);
    let work = Work { amount: PerAgent::For(nanos(time)), ..common.work(Op::Publish, rate) };
    let mut phases = vec![
        common.sweep("subscribe", Op::Subscribe, Finish::Answered),
        common.sweep("first PUBLISH", Op::Publish, Finish::Answered),
        common.settle("first settle"),
        Phase { measured: true, ..Phase::new(PHASE, vec![work]) },
        common.sweep("once more", Op::Publish, Finish::Told),
        common.settle("settle"),
    ];
    phases.extend(common.clean_up(&[Op::Unsubscribe, Op::Unpublish]));
    let at_most_mb = attack.count as f64 / 2.0 * RISE_MAX / 1e6;
    let level = Expect::Memory { phase: PHASE.into(), at_most_percent_per_hour: 0.0, at_most_mb };
    Plan {
        presentities,
        watchers: presentities * watchers,
        phases,
        attack: Some(attack),
        expects: (time >= LONG).then_some(level).into_iter().collect(),
        latencies: &[Latencies::PublishNotify, Latencies::PublishAnswer],
        ..Plan::empty("hostile")
    }
}

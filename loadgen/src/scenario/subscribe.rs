//! `subscribe`: subscriptions per second, each with its 200 and its first NOTIFY.

use super::{Common, Finish, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::Nanos;
use crate::pace::Rate;
use crate::report::Latencies;

/// `presentities` publish first; then each of their `watchers` subscribes once, or all of them again and again
/// (refreshes in their dialogs) for `duration`.
pub fn subscribe(
    common: &Common,
    presentities: u32,
    watchers: u32,
    rate: Rate,
    duration: Option<Nanos>,
) -> Plan {
    let amount = duration.map_or(PerAgent::Once, PerAgent::For);
    let work = Work { amount, ..common.work(Op::Subscribe, rate) };
    let mut phases = vec![
        common.sweep("first PUBLISH", Op::Publish, Finish::Answered),
        Phase { measured: true, ..Phase::new("subscribe", vec![work]) },
        common.settle("settle"),
    ];
    phases.extend(common.clean_up(&[Op::Unsubscribe, Op::Unpublish]));
    Plan {
        presentities,
        watchers: presentities * watchers,
        phases,
        latencies: &[Latencies::SubscribeAnswer, Latencies::SubscribeNotify],
        ..Plan::empty("subscribe")
    }
}

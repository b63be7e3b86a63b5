//! `fanout`: NOTIFYs per second, and how long a state change takes to its watchers.

use super::{Common, Ends, Finish, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::Nanos;
use crate::pace::Rate;
use crate::report::Latencies;

/// All `watchers` of all `presentities` subscribe; every presentity publishes once, and the watchers are told; then
/// states change for `duration`. In the closed loop a change is finished when all watchers were told.
pub fn fanout(common: &Common, presentities: u32, watchers: u32, rate: Rate, duration: Nanos) -> Plan {
    let work = Work {
        op: Op::Publish,
        rate,
        window: common.window,
        amount: PerAgent::For(duration),
        finish: Finish::Told,
    };
    let mut phases = vec![
        common.sweep("subscribe", Op::Subscribe, Finish::Answered),
        common.sweep("first PUBLISH", Op::Publish, Finish::Told),
        common.settle("first settle"),
        Phase { name: "fan-out", works: vec![work], measured: true, ends: Ends::Done },
        common.settle("settle"),
    ];
    phases.extend(common.clean_up(&[Op::Unsubscribe, Op::Unpublish]));
    Plan {
        name: "fanout",
        registrants: 0,
        presentities,
        watchers: presentities * watchers,
        phases,
        latencies: &[Latencies::PublishNotify, Latencies::PublishAnswer],
    }
}

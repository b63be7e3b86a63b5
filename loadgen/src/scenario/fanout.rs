//! `fanout`: NOTIFYs per second, and how long a state change takes to its watchers.

use super::{Common, Finish, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::Nanos;
use crate::pace::Rate;
use crate::report::Latencies;

/// Most NOTIFYs that the closed loop wants at once: about what the socket of a server with a receive buffer of 4 MB can
/// take of our answers.
const NOTIFIES_MAX: u64 = 1_024;

/// All `watchers` of all `presentities` subscribe; every presentity publishes once, and the watchers are told; then
/// states change for `duration`. In the closed loop a change is finished when all watchers were told.
pub fn fanout(common: &Common, presentities: u32, watchers: u32, rate: Rate, duration: Nanos) -> Plan {
    let window = common.window.min(NOTIFIES_MAX / u64::from(watchers)).max(1);
    let (subscribe_window, common) = (common.window, &Common { window, ..*common });
    let work =
        Work { amount: PerAgent::For(duration), finish: Finish::Told, ..common.work(Op::Publish, rate) };
    let mut phases = vec![
        Common { window: subscribe_window, ..*common }.sweep("subscribe", Op::Subscribe, Finish::Answered),
        common.sweep("first PUBLISH", Op::Publish, Finish::Told),
        common.settle("first settle"),
        Phase { measured: true, ..Phase::new("fan-out", vec![work]) },
        common.settle("settle"),
    ];
    phases.extend(common.clean_up(&[Op::Unsubscribe, Op::Unpublish]));
    Plan {
        presentities,
        watchers: presentities * watchers,
        phases,
        latencies: &[Latencies::PublishNotify, Latencies::PublishAnswer],
        ..Plan::empty("fanout")
    }
}

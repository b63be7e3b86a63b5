//! `publish`: publications per second without anybody watching.

use super::{Common, Finish, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::Nanos;
use crate::pace::Rate;
use crate::report::Latencies;

/// All `presentities` publish once; then they change their states for `duration`.
pub fn publish(common: &Common, presentities: u32, rate: Rate, duration: Nanos) -> Plan {
    let work = Work { amount: PerAgent::For(duration), ..common.work(Op::Publish, rate) };
    let mut phases = vec![
        common.sweep("first PUBLISH", Op::Publish, Finish::Answered),
        Phase { measured: true, ..Phase::new("publish", vec![work]) },
    ];
    phases.extend(common.clean_up(&[Op::Unpublish]));
    Plan { presentities, phases, latencies: &[Latencies::PublishAnswer], ..Plan::empty("publish") }
}

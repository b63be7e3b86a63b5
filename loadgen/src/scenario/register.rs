//! `register`: bindings per second.

use super::{Common, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::Nanos;
use crate::pace::Rate;
use crate::report::Latencies;

/// Each of `users` registers once, or all of them again and again for `duration`.
pub fn register(common: &Common, users: u32, rate: Rate, duration: Option<Nanos>) -> Plan {
    let amount = duration.map_or(PerAgent::Once, PerAgent::For);
    let work = Work { amount, ..common.work(Op::Register, rate) };
    let mut phases = vec![Phase { measured: true, ..Phase::new("register", vec![work]) }];
    phases.extend(common.clean_up(&[Op::Unregister]));
    Plan { registrants: users, phases, latencies: &[Latencies::RegisterAnswer], ..Plan::empty("register") }
}

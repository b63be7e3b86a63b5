//! `register`: bindings per second.

use super::{Common, Ends, Finish, PerAgent, Phase, Plan, Work};
use crate::agent::Op;
use crate::clock::Nanos;
use crate::pace::Rate;
use crate::report::Latencies;

/// Each of `users` registers once, or all of them again and again for `duration`.
pub fn register(common: &Common, users: u32, rate: Rate, duration: Option<Nanos>) -> Plan {
    let amount = duration.map_or(PerAgent::Once, PerAgent::For);
    let work = Work { op: Op::Register, rate, window: common.window, amount, finish: Finish::Answered };
    let mut phases =
        vec![Phase { name: "register".into(), works: vec![work], measured: true, ends: Ends::Done }];
    phases.extend(common.clean_up(&[Op::Unregister]));
    Plan {
        name: "register".into(),
        registrants: users,
        presentities: 0,
        watchers: 0,
        phases,
        latencies: &[Latencies::RegisterAnswer],
    }
}

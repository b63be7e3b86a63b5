//! What a run does: agents, and phases in which they work. Each command makes such a plan; the engine knows none of
//! them.

mod fanout;
mod publish;
mod register;
mod subscribe;

pub use fanout::fanout;
pub use publish::publish;
pub use register::register;
pub use subscribe::subscribe;

use crate::agent::Op;
use crate::clock::{Nanos, SECOND};
use crate::pace::{Amount, Rate};
use crate::report::Latencies;
use std::borrow::Cow;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command's name.
    pub name: Cow<'static, str>,
    /// How many phones register.
    pub registrants: u32,
    /// How many phones publish or are watched.
    pub presentities: u32,
    /// How many subscriptions there are in all. Watcher `i` watches presentity `i % presentities`.
    pub watchers: u32,
    /// What happens, one after the other.
    pub phases: Vec<Phase>,
    /// Which latencies are the point of this run.
    pub latencies: &'static [Latencies],
}

/// A part of a run.
#[derive(Clone, Debug)]
pub struct Phase {
    /// For progress bars and reports.
    pub name: Cow<'static, str>,
    /// What is started, side by side.
    pub works: Vec<Work>,
    /// Whether this is the phase whose rates and latencies are reported.
    pub measured: bool,
    /// When it is over.
    pub ends: Ends,
}

/// When a phase is over, apart from the bound on how long it may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// All operations are started and finished.
    Done,
    /// Every watcher shows the newest document, or this long has passed. The audit is taken then.
    Settled(Nanos),
    /// No NOTIFY has come for this long.
    Quiet(Nanos),
}

/// Operations of one sort.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// What each agent of the kind does, in turn.
    pub op: Op,
    /// How fast.
    pub rate: Rate,
    /// Most unfinished operations at [`Rate::Max`], over all threads.
    pub window: u64,
    /// How many.
    pub amount: PerAgent,
    /// When an operation counts as finished in the closed loop.
    pub finish: Finish,
}

/// How many operations a [`Work`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerAgent {
    /// One for each agent.
    Once,
    /// One after the other, from the first agent again after the last, for this long.
    For(Nanos),
}

impl PerAgent {
    /// The amount for a thread with `agents` agents.
    pub fn amount(self, agents: usize) -> Amount {
        match self {
            Self::Once => Amount::Count(agents as u64),
            Self::For(time) => Amount::Time(time),
        }
    }
}

/// When an operation is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// When it is answered, and a SUBSCRIBE has had its NOTIFY.
    Answered,
    /// When also all watchers of the presentity were told the state.
    Told,
}

/// What the commands have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// Most unfinished operations of a closed loop.
    pub window: u64,
    /// How long to wait for the last documents.
    pub settle: Nanos,
    /// Leave subscriptions, publications and bindings behind.
    pub keep: bool,
}

impl Common {
    /// As fast as possible, once for each agent.
    fn sweep(&self, name: &'static str, op: Op, finish: Finish) -> Phase {
        let work = Work { op, rate: Rate::Max, window: self.window, amount: PerAgent::Once, finish };
        Phase { name: name.into(), works: vec![work], measured: false, ends: Ends::Done }
    }

    /// Waits until every watcher shows the newest document.
    fn settle(&self, name: &'static str) -> Phase {
        Phase { name: name.into(), works: Vec::new(), measured: false, ends: Ends::Settled(self.settle) }
    }

    /// Undoes what the agents did, unless it is to be kept, and waits for the last NOTIFYs.
    fn clean_up(&self, ops: &[Op]) -> Vec<Phase> {
        if self.keep {
            return Vec::new();
        }
        let mut phases: Vec<_> = ops
            .iter()
            .map(|&op| {
                let name = match op {
                    Op::Unregister => "unregister",
                    Op::Unsubscribe => "unsubscribe",
                    _ => "unpublish",
                };
                self.sweep(name, op, Finish::Answered)
            })
            .collect();
        if ops.contains(&Op::Unsubscribe) {
            let ends = Ends::Quiet(SECOND / 5);
            phases.push(Phase { name: "last NOTIFYs".into(), works: Vec::new(), measured: false, ends });
        }
        phases
    }
}

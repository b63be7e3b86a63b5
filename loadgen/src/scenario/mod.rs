//! What a run does: agents, and phases in which they work. Each command makes such a plan; the engine knows none of
//! them.

mod contacts;
mod fanout;
mod hostile;
pub mod profile;
mod publish;
mod register;
mod subscribe;

pub use fanout::fanout;
pub use hostile::hostile;
pub use publish::publish;
pub use register::register;
pub use subscribe::subscribe;

use crate::agent::Op;
use crate::clock::{Nanos, SECOND};
use crate::expect::Expect;
use crate::hostile::Attack;
use crate::link::Link;
use crate::pace::{Amount, Arrivals, Rate};
use crate::report::Latencies;
use std::borrow::Cow;
use std::ops::Range;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command's name.
    pub name: Cow<'static, str>,
    /// How many phones register.
    pub registrants: u32,
    /// How many phones publish or are watched.
    pub presentities: u32,
    /// How many subscriptions there are in all.
    pub watchers: u32,
    /// Whom each watcher watches, and as which user; watcher `i` watches presentity `i % presentities` without this.
    pub contacts: Option<Box<[Contact]>>,
    /// Whether all phones of one number are one user with one address.
    pub users: bool,
    /// So many watchers, the first ones, are to be told everything and are audited; the others are deaf or poll.
    pub audited: u32,
    /// Watchers that never answer a NOTIFY.
    pub deaf: Range<u32>,
    /// Presentities whose latencies are measured by themselves.
    pub apart: Range<u32>,
    /// The event package that is published and watched.
    pub package: Cow<'static, str>,
    /// The part of all phones that is simulated.
    pub slice: f64,
    /// Seconds to ask for in Expires, where the plan decides.
    pub expires: Option<u32>,
    /// The network between the phones and the server.
    pub link: Link,
    /// Whether more is offered than the server can do: refusals are no failure, and a phone that is busy when its turn comes
    /// lets it pass.
    pub overloads: bool,
    /// Whether a phone that is refused for a while does not come again.
    pub ignores_retry_after: bool,
    /// What strangers send in the phase of that name.
    pub attack: Option<Attack>,
    /// What the run has to show besides what every run has.
    pub expects: Vec<Expect>,
    /// What happens, one after the other.
    pub phases: Vec<Phase>,
    /// Which latencies are the point of this run.
    pub latencies: &'static [Latencies],
}

/// Whom a watcher watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The presentity.
    pub presentity: u32,
    /// The user who watches.
    pub owner: u32,
}

impl Plan {
    /// A run without agents.
    pub fn empty(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            registrants: 0,
            presentities: 0,
            watchers: 0,
            contacts: None,
            users: false,
            audited: u32::MAX,
            deaf: 0..0,
            apart: 0..0,
            package: PRESENCE.into(),
            slice: 1.0,
            expires: None,
            link: Link::default(),
            overloads: false,
            ignores_retry_after: false,
            attack: None,
            expects: Vec::new(),
            phases: Vec::new(),
            latencies: &[],
        }
    }

    /// Whom watcher `index` watches, and the number in its own address.
    pub fn contact(&self, index: u32) -> Contact {
        match &self.contacts {
            Some(contacts) => contacts[index as usize],
            None => Contact { presentity: index % self.presentities, owner: index },
        }
    }
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
    /// Whether all phones lose what they know at its beginning, as after a loss of power.
    pub forgets: bool,
    /// How long after its beginning the server is killed and started again.
    pub kill_after: Option<Nanos>,
    /// How often another process takes over from the server.
    pub take_over_every: Option<Nanos>,
}

impl Phase {
    /// A phase that is over when its works are.
    pub fn new(name: impl Into<Cow<'static, str>>, works: Vec<Work>) -> Self {
        let ends = Ends::Done;
        Self {
            name: name.into(),
            works,
            measured: false,
            ends,
            forgets: false,
            kill_after: None,
            take_over_every: None,
        }
    }

    /// For how long work is begun in it, if that is given.
    pub fn timed(&self) -> Option<Nanos> {
        let times = self.works.iter().map(|work| match work.amount {
            PerAgent::For(time) => Some(time),
            PerAgent::Once => None,
        });
        times.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
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
#[derive(Clone, Debug)]
pub struct Work {
    /// What each agent of the kind does, in turn.
    pub op: Op,
    /// How fast.
    pub rate: Rate,
    /// How they lie in time at a rate.
    pub arrivals: Arrivals,
    /// Most unfinished operations at [`Rate::Max`], over all threads.
    pub window: u64,
    /// How many.
    pub amount: PerAgent,
    /// When an operation counts as finished in the closed loop.
    pub finish: Finish,
    /// Which agents of the kind, as far as there are any.
    pub agents: Range<u32>,
}

/// The event package of RFC 3856.
pub const PRESENCE: &str = "presence";

/// All agents of a kind.
pub const ALL: Range<u32> = 0..u32::MAX;

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
    /// How operations lie in time at a rate.
    pub arrivals: Arrivals,
    /// Whether phones do not come again that are refused for a while.
    pub ignores_retry_after: bool,
}

impl Common {
    /// An operation of all agents, once each.
    fn work(&self, op: Op, rate: Rate) -> Work {
        let Self { window, arrivals, .. } = *self;
        let (amount, finish) = (PerAgent::Once, Finish::Answered);
        Work { op, rate, arrivals, window, amount, finish, agents: ALL }
    }

    /// As fast as possible, once for each agent.
    fn sweep(&self, name: &'static str, op: Op, finish: Finish) -> Phase {
        Phase::new(name, vec![Work { finish, ..self.work(op, Rate::Max) }])
    }

    /// Waits until every watcher shows the newest document.
    fn settle(&self, name: &'static str) -> Phase {
        Phase { ends: Ends::Settled(self.settle), ..Phase::new(name, Vec::new()) }
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
            phases.push(Phase { ends, ..Phase::new("last NOTIFYs", Vec::new()) });
        }
        phases
    }
}

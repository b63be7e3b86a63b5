//! SIPP, the service broker: tells watchers by NOTIFY what became of the presentities they watch.

mod aim;
mod answer;
mod attempt;
mod behind;
mod body;
mod bound;
mod branch;
mod due;
mod fanout;
mod notify;
mod unreachable;

pub(crate) use answer::dialog_hash;
pub(crate) use attempt::{Attempt, Phase};
pub(crate) use behind::Behind;
pub(crate) use body::CACHED_MAX;
pub use bound::Bound;
pub(crate) use bound::{BoundFlows, names_instance};
pub(crate) use branch::{Mark, marked};
pub(crate) use due::Due;
pub use due::Queued;
pub(crate) use unreachable::{Renewals, device_of, device_of_instance};

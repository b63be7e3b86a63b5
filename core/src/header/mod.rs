//! Typed header values (RFC 3261 §20, RFC 3903, RFC 6665), borrowed from the message they stand in.

pub(crate) mod chunk;
mod contact;
pub use contact::{Contact, Contacts, NamedParams, preference, seconds};
mod cseq;
pub use cseq::CSeq;
mod event;
pub use event::Event;
pub(crate) mod line;
mod media_type;
pub use media_type::{Accept, AcceptRange, MediaType};
mod name;
pub use name::HeaderName;
mod name_addr;
pub use name_addr::NameAddr;
mod params;
pub use params::{Param, ParamIter, Params, unquote, unquote_into};
pub(crate) mod scan;
mod span;
mod subscription_state;
pub use subscription_state::SubscriptionState;
mod values;
pub(crate) use values::Index;
pub use values::{Addrs, Lines, Values};
mod via;
pub use via::{Rport, Via};

/// A header value or parameter that does not follow its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue;

impl std::fmt::Display for BadValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the value does not follow its grammar")
    }
}

impl std::error::Error for BadValue {}

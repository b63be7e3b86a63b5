//! SIP messages (RFC 3261 §7): reading them as borrowed views of a datagram, and writing them.

mod answer;
pub use answer::{PlainAnswer, plain_answer};
mod error;
pub use error::{Malformed, ParseError, Partial};
mod message;
pub use message::{Message, Start};
mod method;
pub use method::Method;
mod parse;
pub use parse::parse;
pub mod peek;
mod reason;
pub use reason::reason_phrase;
mod respond;
pub(crate) use answer::plain_branch;
pub(crate) use respond::push_via_line;
pub use respond::{push_ids, push_vias, respond, respond_malformed, response_destination};
mod write;
pub use write::Writer;
pub(crate) use write::{push_number, push_unfolded};

pub use crate::header::{BadValue, CSeq, Contact, Contacts, Event, HeaderName, MediaType, NameAddr, Via};

//! The SIP presence protocol of ComSIPL, without any input or output.
//!
//! Everything here takes `(now, input)` and returns decisions or writes effects into an [`Outbox`]; nothing opens,
//! sleeps, spawns, reads a clock or draws a random number by itself.

#![forbid(unsafe_code)]

pub mod aor;
pub use aor::Aor;
pub mod auth;
mod body;
pub use body::{Bodies, BodyId};
mod chance;
pub use chance::Chance;
pub mod chunked;
pub mod dialog;
pub mod dialog_info;
pub mod event;
mod expiry;
pub use expiry::{ExpiryPolicy, Grant};
mod flow;
pub use flow::{ConnectionId, Flow, Listen, Transport};
pub mod framing;
pub mod header;
mod key;
pub use key::{AorKey, HashKey, PARTITIONS};
pub mod limits;
pub mod locate;
pub mod msg;
mod notify;
pub use notify::{Content, NotifyHead, Profile, SERVER_LINE, SubscriptionStatus, own_gruu};
mod outbox;
pub mod overload;
pub use outbox::{Outbox, Outgoing};
mod padding;
pub use padding::{PADDED_LEN_MAX, Padding, Run};
pub mod pidf;
pub mod publication;
pub mod quirks;
mod refusal;
pub use refusal::Refusal;
pub mod registrar;
pub mod sips;
pub mod subscription;
mod time;
pub use time::{Mono, Now, UnixMillis};
pub mod timer;
pub mod token;
pub mod transaction;
pub mod uri;
pub use uri::Uri;
mod xml;

//! Simulated phones: pure state machines of what a watcher, a presentity and a registrant know.
//!
//! They are told answers and NOTIFYs and say what follows; sockets, timers and measurements are the engine's. At most
//! one request of an agent runs at a time (RFC 3903 §4 for PUBLISH; RFC 6665 dialogs keep it for SUBSCRIBE).
//!
//! | watcher | input | becomes |
//! |---|---|---|
//! | any | 2xx to SUBSCRIBE | active; finished once the NOTIFY has come too |
//! | no dialog | NOTIFY with our tag while SUBSCRIBE runs | dialog learned from it (RFC 6665 §4.4.1) |
//! | subscribing | 423 | again, asking for Min-Expires |
//! | in a dialog | 481 to SUBSCRIBE | again in a new dialog; to its end: done |
//! | any | NOTIFY `terminated` | ended |
//! | any | 500 or 503 with Retry-After | rests as long, then again |
//! | any | Timer F or N, other error | request given up |

mod dialog;
mod presentity;
pub use presentity::Presentity;
mod registrant;
pub use registrant::Registrant;
mod request;
pub use request::{Requests, Transaction};
mod watcher;
pub use watcher::Watcher;

use crate::audit::Verdict;
use crate::clock::Nanos;
use crate::ident::Kind;

/// What an agent is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bind the address of record.
    Register,
    /// Remove the binding.
    Unregister,
    /// Subscribe, or refresh the subscription.
    Subscribe,
    /// End the subscription.
    Unsubscribe,
    /// Publish the next state.
    Publish,
    /// Remove the publication.
    Unpublish,
    /// Ask for the state once: a SUBSCRIBE for no time (RFC 6665 §4.4.3).
    Poll,
    /// Publish the next two states at once, both for the entity tag that is known: the server must take one and answer
    /// the other 412 (RFC 3903 §4.2), and the newest state is then published for the tag of the one it took.
    Race,
    /// Publish the known state again, in a document with another time stamp, as Linphone refreshes its publication: it
    /// is no news for anybody.
    Refresh,
    /// Publish the four states of a call, one after the other: the first now, the others after seconds.
    Call,
    /// Come or go: subscribe, or end the subscription that there is.
    Visit,
}

impl Op {
    /// How many there are.
    pub const COUNT: usize = Self::Visit as usize + 1;

    /// Which agents do it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Register | Self::Unregister => Kind::Registrant,
            Self::Subscribe | Self::Unsubscribe | Self::Poll | Self::Visit => Kind::Watcher,
            Self::Publish | Self::Unpublish | Self::Race | Self::Refresh | Self::Call => Kind::Presentity,
        }
    }

    /// The method of the request, as in CSeq.
    pub fn method(self) -> &'static [u8] {
        match self.kind() {
            Kind::Registrant => b"REGISTER",
            Kind::Watcher => b"SUBSCRIBE",
            Kind::Presentity => b"PUBLISH",
        }
    }
}

/// The parts of an answer that agents look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// Status code.
    pub status: u16,
    /// CSeq number.
    pub cseq: u32,
    /// Tag of To.
    pub remote_tag: Option<&'a [u8]>,
    /// URI of Contact.
    pub contact: Option<&'a [u8]>,
    /// Values of Record-Route, as received.
    pub routes: &'a [&'a [u8]],
    /// Min-Expires.
    pub min_expires: Option<u32>,
    /// Retry-After, in seconds.
    pub retry_after: Option<u32>,
    /// SIP-ETag.
    pub entity_tag: Option<&'a [u8]>,
}

/// The parts of a NOTIFY that a watcher looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// Generation of the Call-ID.
    pub generation: u8,
    /// CSeq number.
    pub cseq: u32,
    /// Fingerprint of the topmost branch.
    pub branch: u32,
    /// Tag of To.
    pub local_tag: Option<&'a [u8]>,
    /// Whether it is ours.
    pub local_tag_fits: bool,
    /// Tag of From.
    pub remote_tag: Option<&'a [u8]>,
    /// URI of Contact.
    pub contact: Option<&'a [u8]>,
    /// Values of Record-Route, as received.
    pub routes: &'a [&'a [u8]],
    /// Whether Event is the one subscribed to.
    pub event_fits: bool,
    /// Whether Subscription-State is terminated; none if the header is missing.
    pub terminated: Option<bool>,
    /// When it was received.
    pub at: Nanos,
    /// State in the document; 0 without one.
    pub state: u32,
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It belongs to no running request.
    Stray,
    /// 1xx.
    Provisional,
    /// 2xx.
    Accepted,
    /// 412 to one of two PUBLISHes that raced, as there has to be.
    Outrun,
    /// The same operation has to be started again, for this reason.
    Again(Cause),
    /// The same operation has to be started again after so many seconds.
    Later(u32),
    /// The request failed with this status.
    Refused(u16),
}

/// Why an operation is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// 423: the interval is longer now.
    TooBrief,
    /// 412: the entity tag is forgotten.
    TagUnknown,
    /// 481: the dialog is forgotten.
    DialogUnknown,
}

/// What a watcher makes of a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyReaction {
    /// The answer's status.
    pub status: u16,
    /// What it was; none if it was refused before it was looked at.
    pub verdict: Option<Verdict>,
    /// When the running SUBSCRIBE was meant to be sent, if this is the first NOTIFY since.
    pub first_since: Option<Nanos>,
    /// States between the last known and this one.
    pub skipped: u32,
    /// Whether the server ended the subscription on its own.
    pub ended_by_server: bool,
}

/// What the tests of all agents need.
#[cfg(test)]
mod support {
    use super::Answer;

    /// An answer of a server.
    pub fn answer(status: u16, cseq: u32) -> Answer<'static> {
        let (remote_tag, contact) = (Some(&b"srv"[..]), Some(&b"sip:10.0.0.9:5071"[..]));
        Answer { status, cseq, remote_tag, contact, ..Answer::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_that_was_never_made() {
        assert!(!Presentity::new(1).start(Op::Unpublish, 0));
        assert!(!Registrant::new(1).start(Op::Unregister, 0));
        assert!(!Watcher::new(0, 0, 1).start(Op::Unsubscribe, 0));
    }
}

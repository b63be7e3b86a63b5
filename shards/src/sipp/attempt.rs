//! A NOTIFY on its way: in flight, or waiting to be tried again.
//!
//! | state | input | next |
//! |---|---|---|
//! | in flight | Timer E | in flight, same bytes sent again |
//! | in flight | answer, Timer F | ended, or paused (see `comsipl_core::subscription`) |
//! | paused | pause over, or a newer state where the pause allows it | ended, a new NOTIFY leaves |
//!
//! The bytes are not kept: the record, the shared body, its padding, the sequence number and the seconds said at first make the same
//! bytes again. A change of the dialog's texts ends the attempt, so a retransmission never differs.

use comsipl_core::BodyId;
use comsipl_core::SubscriptionStatus;
use comsipl_core::transaction::NotifyTransaction;

use crate::watched::NONE;

/// Whether the NOTIFY may be answered yet, or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sent and not answered.
    InFlight,
    /// Failed; to be tried again when the timer fires.
    Paused {
        /// A newer state does not shorten the pause.
        wait_for_it: bool,
    },
}

/// One NOTIFY that is not done.
#[derive(Debug)]
pub struct Attempt {
    /// Its subscription.
    pub subscription: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Timers E and F.
    pub transaction: NotifyTransaction,
    /// Its sequence number.
    pub cseq: u32,
    /// Version of its document, where the event package has versions.
    pub version: u32,
    /// What it says of the subscription.
    pub status: SubscriptionStatus,
    /// Its body, held.
    pub body: Option<BodyId>,
    /// Bytes of padding behind the body.
    pub padding: u8,
    /// It went by the flow of a binding; see [`Bound`](super::Bound).
    pub by_binding: bool,
    /// Whether it was ever sent. What is withheld every time, because of [`Reach`](crate::reach::Reach), nobody can answer.
    pub sent: bool,
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            subscription: NONE,
            phase: Phase::InFlight,
            transaction: NotifyTransaction::default(),
            cseq: 0,
            version: 0,
            status: SubscriptionStatus::TerminatedTimeout,
            body: None,
            padding: 0,
            by_binding: false,
            sent: false,
        }
    }
}

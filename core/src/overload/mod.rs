//! Overload control: what is taken and what is refused when more comes than can be done (RFC 7339; RFC 6357 for the thinking).
//!
//! A refusal costs as well, so what is offered beyond capacity must be known by a look ([`Offer`]), refused without state, and
//! refused in an order: what ends or keeps up what is there before what is new ([`Class`]). How much is taken is decided by
//! [`Control`] from what was measured in a short while; [`Cut`] says what that means for each class; [`Feedback`] tells clients
//! that take part (`oc` in their Via) to send less.

mod control;
pub use control::{Control, Measured, Signals};
mod cut;
pub use cut::{Cut, Mix};
mod fates;
pub use fates::{Fate, Fates};
mod feedback;
pub use feedback::{Feedback, VALIDITY_MS};
mod kept_out;
pub use kept_out::{KeptOut, Kind};
mod offer;
pub use offer::Offer;
mod refusal;
pub use refusal::Refused;

/// A part of a whole, in 65,536ths.
pub type Share = u32;

/// The whole.
pub const WHOLE: Share = 1 << 16;

/// What a message is worth when not everything can be done, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An answer to a NOTIFY of ours. Without it the NOTIFY is sent again, ten times.
    Answer,
    /// What makes less work from now on: Expires 0 to what is there, and CANCEL.
    End,
    /// A SUBSCRIBE in a dialog. Refused, a lamp goes dark that was lit.
    Refresh,
    /// A REGISTER of a user who has a registration, and OPTIONS, by which proxies ask whether we live.
    Reregister,
    /// A REGISTER of a user who has none.
    Register,
    /// A PUBLISH.
    Publish,
    /// A SUBSCRIBE that makes a dialog.
    Subscribe,
    /// A SUBSCRIBE that makes a dialog and ends it at once, and what is not served or cannot be read.
    Poll,
}

impl Class {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Answer,
        Self::End,
        Self::Refresh,
        Self::Reregister,
        Self::Register,
        Self::Publish,
        Self::Subscribe,
        Self::Poll,
    ];

    /// Whether it is taken however much there is.
    #[must_use]
    pub const fn is_always_taken(self) -> bool {
        matches!(self, Self::Answer | Self::End)
    }
}

//! What is kept out of the sockets, by a program that the kernel runs, so that it costs this server nothing.

use super::{Share, WHOLE};

/// What such a program can tell of a request from a few bytes in fixed places, in the order in which they are kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SUBSCRIBE that makes a dialog, and what is not served.
    New,
    /// A PUBLISH; one that ends something looks like any other.
    Publish,
    /// A REGISTER.
    Register,
    /// A SUBSCRIBE in a dialog, known by the Request-URI, which we have made.
    InDialog,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::New, Self::Publish, Self::Register, Self::InDialog];
}

/// The part of each kind that is kept out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptOut([Share; Kind::ALL.len()]);

impl KeptOut {
    /// Nothing is kept out.
    pub const NONE: Self = Self([0; Kind::ALL.len()]);

    /// The highest level.
    pub const LEVEL_MAX: Share = WHOLE * Kind::ALL.len() as Share;

    /// What is kept out at a level: from each whole of it a kind more, up to [`KEPT_OUT_MAX`], so that some of all are told when
    /// to come again and it is seen how many there are.
    #[must_use]
    pub fn of(level: Share) -> Self {
        Self(Kind::ALL.map(|kind| level.saturating_sub(WHOLE * kind as Share).min(KEPT_OUT_MAX)))
    }

    /// The part of a kind that is kept out.
    #[must_use]
    pub const fn share_of(&self, kind: Kind) -> Share {
        self.0[kind as usize]
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// Most of a kind that is kept out.
const KEPT_OUT_MAX: Share = WHOLE - WHOLE / 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_work_is_kept_out_first_and_nothing_wholly() {
        let shares = |level| Kind::ALL.map(|kind| KeptOut::of(level).share_of(kind));
        assert!(KeptOut::of(0).is_none());
        assert_eq!(shares(WHOLE / 2), [WHOLE / 2, 0, 0, 0]);
        assert_eq!(shares(2 * WHOLE + WHOLE / 4), [KEPT_OUT_MAX, KEPT_OUT_MAX, WHOLE / 4, 0]);
        assert_eq!(shares(KeptOut::LEVEL_MAX), [KEPT_OUT_MAX; 4]);
    }
}

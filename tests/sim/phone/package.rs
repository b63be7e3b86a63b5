//! What is published of a user.

/// What is published of a user, and watched: every second one tells his calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    Presence,
    Dialog,
}

impl Package {
    /// The package of the user of that number.
    pub fn of(user: usize) -> Self {
        if user.is_multiple_of(2) { Self::Presence } else { Self::Dialog }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Dialog => "dialog",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Presence => "application/pidf+xml",
            Self::Dialog => "application/dialog-info+xml",
        }
    }
}

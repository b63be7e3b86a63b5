//! What an operator may set under `[overload]`.

/// What happens when more comes than can be done, and what keeps it from coming all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadSettings {
    /// Granted times are shortened by a random part of them, up to so many percent, so that clients that came together do not
    /// refresh together.
    pub expires_spread_percent: u8,
    /// The same within the first minutes after a start, when many clients come together.
    pub expires_spread_after_start_percent: u8,
}

impl OverloadSettings {
    /// Everything is granted as it is asked for, for tests that look at it.
    pub const EXACT: Self = Self { expires_spread_percent: 0, expires_spread_after_start_percent: 0 };
}

impl Default for OverloadSettings {
    fn default() -> Self {
        Self { expires_spread_percent: 10, expires_spread_after_start_percent: 25 }
    }
}

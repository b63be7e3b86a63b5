//! What an operator may set under `[overload]`.

use std::time::Duration;

/// What happens when more comes than can be done, and what keeps it from coming all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadSettings {
    /// Whether requests are refused when more come than can be done, and clients told to send less (RFC 7339).
    pub is_controlled: bool,
    /// How long what waits may take before that.
    pub target: Duration,
    /// Granted times are shortened by a random part of them, up to so many percent, so that clients that came together do not
    /// refresh together.
    pub expires_spread_percent: u8,
    /// The same within the first minutes after a start, when many clients come together.
    pub expires_spread_after_start_percent: u8,
}

impl OverloadSettings {
    /// Everything is granted as it is asked for, for tests that look at it.
    pub const EXACT: Self = Self {
        is_controlled: true,
        target: TARGET,
        expires_spread_percent: 0,
        expires_spread_after_start_percent: 0,
    };
}

impl Default for OverloadSettings {
    fn default() -> Self {
        Self { expires_spread_percent: 10, expires_spread_after_start_percent: 25, ..Self::EXACT }
    }
}

/// Far below the half second after which clients send again (T1, RFC 3261 §17.1.1.1), and thousands of requests.
const TARGET: Duration = Duration::from_millis(20);

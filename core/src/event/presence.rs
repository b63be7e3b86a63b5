//! The `presence` package (RFC 3856) with PIDF bodies (RFC 3863).

use super::{Compose, EventPackage, RequestedInfo};
use crate::pidf;

impl EventPackage {
    /// Number of the package that a user's own key stands for.
    pub const PRESENCE: u8 = 1;
}

/// Its default expiry of 3600 seconds (RFC 3856 §6.4) and its least interval (§6.10) are those of the settings.
pub(super) const PACKAGE: EventPackage = EventPackage {
    name: "presence",
    number: EventPackage::PRESENCE,
    content_type: pidf::CONTENT_TYPE,
    template: false,
    own_only: false,
    compose: Compose::Pidf,
    opening: None,
    default_expires_secs: None,
    interval: None,
    requested_info,
};

/// `basic` (also `status` and `state`) asks for the basic state; anything else, for all of it.
fn requested_info(value: &[u8]) -> RequestedInfo {
    let basic = ["basic", "status", "state"].iter().any(|word| word.as_bytes().eq_ignore_ascii_case(value));
    if basic { RequestedInfo::Basic } else { RequestedInfo::All }
}

//! The `presence` package (RFC 3856) with PIDF bodies (RFC 3863).

use super::{EventPackage, RequestedInfo};
use crate::pidf::{self, Composer};

/// Its default expiry of 3600 seconds (RFC 3856 §6.4) is that of the settings.
pub(super) const PACKAGE: EventPackage =
    EventPackage { name: "presence", number: 1, content_type: pidf::CONTENT_TYPE, check, requested_info };

/// A document must be PIDF that we can compose with others.
fn check(composer: &mut Composer, body: &[u8]) -> Result<(), &'static str> {
    composer.read(body).map(|_| ()).map_err(|_| "Bad PIDF Document")
}

/// `basic` (also `status` and `state`) asks for the basic state; anything else, for all of it.
fn requested_info(value: &[u8]) -> RequestedInfo {
    let basic = ["basic", "status", "state"].iter().any(|word| word.as_bytes().eq_ignore_ascii_case(value));
    if basic { RequestedInfo::Basic } else { RequestedInfo::All }
}

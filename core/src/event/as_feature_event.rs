//! The `as-feature-event` package: do-not-disturb and call forwarding kept alike by phone and application server.
//!
//! No RFC describes it; the name and the body type are those of the application servers and phones that have it. What is
//! published is carried as it is.

use std::time::Duration;

use super::newest::{Newest, as_published, nothing};
use super::{Compose, EventPackage, everything};

/// Expiry and interval are those of the packages that RFCs describe for phones.
pub(super) const PACKAGE: EventPackage = EventPackage {
    name: "as-feature-event",
    number: 5,
    content_type: "application/x-as-feature-event+xml",
    template: false,
    own_only: false,
    compose: Compose::Newest(&Newest { rewrite: as_published, without_publication: nothing }),
    opening: None,
    default_expires_secs: Some(3600),
    interval: Some(Duration::from_secs(1)),
    requested_info: everything,
};

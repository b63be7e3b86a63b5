//! The `conference` package (RFC 4575): a focus publishes the state of its conference, which is carried as it is.
//!
//! A conference document carries its own version and may tell changes only; both are the business of the focus and the
//! watchers, so nothing of it is read here.

use std::time::Duration;

use super::newest::{Newest, as_published, nothing};
use super::{Compose, EventPackage, everything};

/// Default expiry: RFC 4575 §3.3; least interval: §3.9.
pub(super) const PACKAGE: EventPackage = EventPackage {
    name: "conference",
    number: 4,
    content_type: "application/conference-info+xml",
    template: false,
    own_only: false,
    compose: Compose::Newest(&Newest { rewrite: as_published, without_publication: nothing }),
    opening: None,
    default_expires_secs: Some(3600),
    interval: Some(Duration::from_secs(5)),
    requested_info: everything,
};

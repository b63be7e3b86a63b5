//! The `dialog` package (RFC 4235): which calls a user has.
//!
//! A subscription to single dialogs (`call-id`, `to-tag` and `from-tag` on the Event header field, §3.2) is told of all:
//! the parameters choose what a notification is about, and full state holds what they choose.

use std::time::Duration;

use super::{Compose, EventPackage, everything};
use crate::dialog_info;

/// Default expiry: RFC 4235 §3.4; least interval: §3.10; versions: §4.1.
pub(super) const PACKAGE: EventPackage = EventPackage {
    name: "dialog",
    number: 2,
    content_type: dialog_info::CONTENT_TYPE,
    template: false,
    own_only: false,
    compose: Compose::DialogInfo,
    opening: Some(dialog_info::OPENING),
    default_expires_secs: Some(3600),
    interval: Some(Duration::from_secs(1)),
    requested_info: everything,
};

//! Event packages (RFC 6665 §7.2): what may be published and subscribed to.
//!
//! A package is one file here and one line in [`PACKAGES`]. A *resource* is one user's state in one package; it has a key
//! of its own ([`HashKey::resource`](crate::HashKey::resource)), so what is kept by key is kept for every package alike.

mod as_feature_event;
mod capitals;
mod compositor;
mod conference;
mod dialog;
mod message_summary;
pub mod moments;
mod newest;
mod presence;
pub mod reg;
pub mod winfo;

use std::time::Duration;

pub use capitals::Capitals;
pub use compositor::{Composed, Compositor};
pub use newest::Newest;

/// How much of a state a watcher asked for with `requested-info` on its Event header field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedInfo {
    /// Everything that is published.
    #[default]
    All,
    /// The basic state only.
    Basic,
}

/// How long a contact or a watcher that is no more is told as `terminated`: as long as a NOTIFY may be on its way, because one
/// that is in flight keeps the next from leaving.
pub const TOLD_FOR: Duration = crate::transaction::TIMER_F;

/// How the document of a resource is made, and of what.
#[derive(Clone, Copy, Debug)]
pub enum Compose {
    /// All publications become one PIDF document.
    Pidf,
    /// All dialogs that are published become one document of dialog information.
    DialogInfo,
    /// The newest publication is told.
    Newest(&'static Newest),
    /// Of the user's bindings ([`reg::write`]).
    Registration,
    /// Of those who watch the user's presence ([`winfo::write`]).
    Watchers,
}

/// A package's constant facts.
#[derive(Debug)]
pub struct EventPackage {
    /// Name as we write it; names are compared without case (the customer's document writes `Presence`).
    pub name: &'static str,
    /// Number in stored records; never used again for another package.
    pub number: u8,
    /// Body type of its NOTIFYs and PUBLISHes.
    pub content_type: &'static str,
    /// A template applied to another package (RFC 6665 §7.2); such are not listed in `Allow-Events`.
    pub template: bool,
    /// With authentication on, nobody but the user himself may subscribe to it.
    pub own_only: bool,
    /// How documents are made.
    pub compose: Compose,
    /// The beginning of each document, up to the number of its version: `0` in the first NOTIFY of a subscription, and one
    /// more in each that follows. `None`: the package's documents carry no version. What is stored and shared of a
    /// document begins behind the number.
    pub opening: Option<&'static str>,
    /// Expiry of a SUBSCRIBE that names none, in seconds; `None`: that of the settings.
    pub default_expires_secs: Option<u32>,
    /// Least time between two documents of a resource; `None`: that of the settings.
    pub interval: Option<Duration>,
    /// Reads the value of `requested-info`.
    pub requested_info: fn(&[u8]) -> RequestedInfo,
}

/// All packages served, by their numbers.
pub static PACKAGES: &[EventPackage] = &[
    presence::PACKAGE,
    dialog::PACKAGE,
    message_summary::PACKAGE,
    conference::PACKAGE,
    as_feature_event::PACKAGE,
    reg::PACKAGE,
    winfo::PACKAGE,
];

/// `Allow-Events` of our answers: the names of [`PACKAGES`], all of them.
///
/// > The "Allow-Events" header field does not include a list of the event template-packages supported by an
/// > implementation. (RFC 6665 §4.4.4)
pub const ALLOW_EVENTS: &str = "presence, dialog, message-summary, conference, as-feature-event, reg";

/// `Accept` of our answers: the body types of [`PACKAGES`].
pub const ACCEPT: &str = "application/pidf+xml, application/dialog-info+xml, application/simple-message-summary, \
                          application/conference-info+xml, application/x-as-feature-event+xml";

impl EventPackage {
    /// The package of RFC 3856, which a resource has whose package nobody has named.
    #[must_use]
    pub fn presence() -> &'static Self {
        &PACKAGES[0]
    }

    /// The package of RFC 3680.
    #[must_use]
    pub fn registration() -> &'static Self {
        &reg::PACKAGE
    }

    /// The package of RFC 3857 for watchers of presence.
    #[must_use]
    pub fn presence_winfo() -> &'static Self {
        &winfo::PACKAGE
    }

    /// The package of that name.
    #[must_use]
    pub fn by_name(name: &[u8]) -> Option<&'static Self> {
        PACKAGES.iter().find(|package| package.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The package with that number in a stored record.
    #[must_use]
    pub fn by_number(number: u8) -> Option<&'static Self> {
        PACKAGES.iter().find(|package| package.number == number)
    }

    /// Whether its state is published (RFC 3903); otherwise the server makes it by itself.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        matches!(self.compose, Compose::Pidf | Compose::DialogInfo | Compose::Newest(_))
    }

    /// Whether its stored documents hold [`moments`] and become what they say when they are read.
    #[must_use]
    pub const fn has_moments(&self) -> bool {
        matches!(self.compose, Compose::Registration | Compose::Watchers)
    }

    /// Whether its documents are XML, behind which white space may follow.
    #[must_use]
    pub fn is_xml(&self) -> bool {
        self.content_type.ends_with("+xml")
    }
}

/// Packages whose SUBSCRIBEs ask for all there is.
fn everything(_value: &[u8]) -> RequestedInfo {
    RequestedInfo::All
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of a document's elements, in order; the document is well-formed.
    pub(super) fn elements(document: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(document).unwrap();
        let elements = document.descendants().filter(roxmltree::Node::is_element);
        elements.map(|element| element.tag_name().name().to_owned()).collect()
    }

    #[test]
    fn names_are_found_without_case() {
        assert_eq!(EventPackage::by_name(b"Presence").map(|p| p.name), Some("presence"));
        assert!(EventPackage::by_name(b"ua-profile").is_none());
        assert_eq!(EventPackage::presence().number, EventPackage::PRESENCE);
        assert_eq!(
            EventPackage::by_name(b"reg").map(|p| p.number),
            Some(EventPackage::registration().number)
        );
        let winfo = EventPackage::by_name(b"presence.winfo").map(|p| p.number);
        assert_eq!(winfo, Some(EventPackage::presence_winfo().number));
        // RFC 3857 §4.6: "by default, a server does not authorize any subscriptions to foo.winfo.winfo.winfo"; nobody uses
        // what is one level higher either.
        assert!(EventPackage::by_name(b"presence.winfo.winfo").is_none());
    }

    #[test]
    fn the_header_texts_name_every_package() {
        let names: Vec<&str> = PACKAGES.iter().filter(|p| !p.template).map(|p| p.name).collect();
        assert_eq!(ALLOW_EVENTS, names.join(", "));
        let types: Vec<&str> = PACKAGES.iter().filter(|p| p.is_published()).map(|p| p.content_type).collect();
        assert_eq!(ACCEPT, types.join(", "));
    }

    #[test]
    fn numbers_are_unique() {
        for (i, package) in PACKAGES.iter().enumerate() {
            assert!(PACKAGES[i + 1..].iter().all(|other| other.number != package.number));
        }
    }

    #[test]
    fn names_fit_the_capitals_that_are_kept() {
        assert!(PACKAGES.iter().all(|package| package.name.len() <= Capitals::NAME_MAX));
    }
}

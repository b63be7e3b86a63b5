//! Event packages (RFC 6665 §7.2): what may be published and subscribed to.
//!
//! A package is one file here and one line in [`PACKAGES`].

mod presence;

use crate::pidf::Composer;

/// How much of a state a watcher asked for with `requested-info` on its Event header field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedInfo {
    /// Everything that is published.
    #[default]
    All,
    /// The basic state only.
    Basic,
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
    /// Checks a published body with buffers that are used again; the error says in a few words what is wrong.
    pub check: fn(&mut Composer, &[u8]) -> Result<(), &'static str>,
    /// Reads the value of `requested-info`.
    pub requested_info: fn(&[u8]) -> RequestedInfo,
}

/// All packages served.
pub static PACKAGES: &[EventPackage] = &[presence::PACKAGE];

/// `Allow-Events` of our answers: the names of [`PACKAGES`] (RFC 6665 §4.4.4: complete if present).
pub const ALLOW_EVENTS: &str = "presence";

/// `Accept` of our answers: the body types of [`PACKAGES`].
pub const ACCEPT: &str = "application/pidf+xml";

impl EventPackage {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_case() {
        assert_eq!(EventPackage::by_name(b"Presence").map(|p| p.name), Some("presence"));
        assert!(EventPackage::by_name(b"presence.winfo").is_none());
    }

    #[test]
    fn the_header_texts_name_every_package() {
        let names: Vec<&str> = PACKAGES.iter().map(|p| p.name).collect();
        assert_eq!(ALLOW_EVENTS, names.join(", "));
        let mut types: Vec<&str> = PACKAGES.iter().map(|p| p.content_type).collect();
        types.dedup();
        assert_eq!(ACCEPT, types.join(", "));
    }

    #[test]
    fn numbers_are_unique() {
        for (i, package) in PACKAGES.iter().enumerate() {
            assert!(PACKAGES[i + 1..].iter().all(|other| other.number != package.number));
        }
    }
}

//! Presence documents: PIDF (RFC 3863) with the data model (RFC 4479) and its extensions (RFC 4480, RFC 5196).
//!
//! [`check`] is the gate: a body that it passes is well-formed XML in UTF-8 with correct namespaces, without a document
//! type, within bounds, and a `presence` with an `entity`. Only such bodies are stored. [`Composer`] makes one document
//! of all live publications of a presentity; the `write_*` functions make the documents that need no publication.
//!
//! Copied is what was published, byte for byte; see [`Composer`] for the few exceptions.

mod compose;
mod document;
mod write;

#[cfg(test)]
mod tests;

pub use crate::xml::malformed::Malformed;
pub use compose::{Composer, EntityScheme, Published, Summary};
pub use write::{write_bare, write_basic, write_comsipl, write_registered};

/// Media type of the documents (RFC 3863 §5.1).
pub const CONTENT_TYPE: &str = "application/pidf+xml";

/// Availability for communication (RFC 3863 §4.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Basic {
    /// Ready to accept.
    Open,
    /// Unable to accept.
    Closed,
    /// Not said, or said in a word that PIDF does not know.
    #[default]
    Unknown,
}

impl Basic {
    /// The state in the letters of the schema; empty for [`Basic::Unknown`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Unknown => "",
        }
    }

    /// Reads the content of `basic`, without white space around it.
    ///
    /// RFC 3863 knows `open` and `closed` only; phones in the field also send `Open`, `Close` and the like.
    fn read(word: &[u8]) -> Self {
        if word.eq_ignore_ascii_case(b"open") {
            Self::Open
        } else if word.eq_ignore_ascii_case(b"closed") || word.eq_ignore_ascii_case(b"close") {
            Self::Closed
        } else {
            Self::Unknown
        }
    }

    /// The state of a presentity one part of which is in state `self`, another in state `other`: open wins, then
    /// closed.
    const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Open, _) | (_, Self::Open) => Self::Open,
            (Self::Closed, _) | (_, Self::Closed) => Self::Closed,
            _ => Self::Unknown,
        }
    }
}

/// Checks a published document and reads its state: open if any tuple is open.
///
/// For many documents [`Composer::read`] does the same without allocating anew.
///
/// # Errors
/// The first fault found; the publication is refused with 400.
pub fn check(body: &[u8]) -> Result<Basic, Malformed> {
    Composer::default().read(body).map(|summary| summary.basic)
}

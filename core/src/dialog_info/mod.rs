//! Dialog information (RFC 4235): which calls somebody has.
//!
//! Phones and call servers publish documents of all their dialogs; watchers get one document of all the dialogs of a user.
//! Only full state is published:
//!
//! * RFC 3903 §4.4 has a modification *replace* the event state of its entity-tag, so a document with `state="partial"`
//!   would need another meaning of PUBLISH than every other package has. It is refused, and not taken for full state,
//!   which would end calls that go on.
//! * Watchers get full state each time (RFC 4235 §3.7 only recommends less): a lamp that missed a NOTIFY is right again
//!   with the next, and one body serves all watchers.
//!
//! A user who has published no dialogs has none, whether he is registered or not: RFC 4235 tells calls, and an idle phone
//! has no calls. Whether somebody can be reached is what presence is for.

mod compose;
mod document;
#[cfg(test)]
mod tests;

pub use compose::{Composer, Summary};

use crate::xml::namespace::DIALOG_INFO;
use crate::xml::text::escape_uri;

/// Media type of the documents (RFC 4235 §8.1).
pub const CONTENT_TYPE: &str = "application/dialog-info+xml";

/// What each document begins with, up to the number of its version (RFC 4235 §4.1).
pub const OPENING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                           <dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"";

/// What each document ends with.
const END: &[u8] = b"</dialog-info>\n";

/// A dialog that is over, for phones that want to see one while there is none. Asterisk has always told idle phones so,
/// and phones that care for nothing else know this form. The `id` is mandatory (RFC 4235 §4.1.1); Grandstream phones
/// insist on it.
const IDLE_DIALOG: &[u8] = b"<dialog id=\"idle\"><state>terminated</state></dialog>\n";

/// Writes the document of a user without dialogs, but for [`OPENING`] and version, into `out`, which is emptied first.
/// `aor` is canonical, without scheme.
pub fn write_none(aor: &[u8], out: &mut Vec<u8>) {
    out.clear();
    write_root(aor, out);
    out.extend_from_slice(END);
}

/// Writes, into `out`, the document `composed` for phones that want to see a dialog even while there is none. What is
/// composed of dialogs stays as it is; `first_end` is as [`Summary`] has it.
pub fn write_never_empty(aor: &[u8], composed: &[u8], first_end: u32, out: &mut Vec<u8>) {
    out.clear();
    if first_end != 0 {
        out.extend_from_slice(composed);
        return;
    }
    write_root(aor, out);
    let rest = composed.strip_prefix(&out[..]).unwrap_or(END);
    out.extend_from_slice(IDLE_DIALOG);
    out.extend_from_slice(rest);
}

/// Writes, into `out`, the document `composed` with its first dialog alone, for phones that cannot take more. The first is
/// the one that tells most: dialogs stand in the order of their states.
pub fn write_single(composed: &[u8], first_end: u32, out: &mut Vec<u8>) {
    out.clear();
    match composed.get(..first_end as usize) {
        Some(first) if first_end != 0 => {
            out.extend_from_slice(first);
            out.extend_from_slice(END);
        }
        _ => out.extend_from_slice(composed),
    }
}

/// The root's start tag behind the version.
fn write_root(aor: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\" state=\"full\" entity=\"sip:");
    escape_uri(aor, out);
    out.extend_from_slice(b"\">\n");
}

/// State of a dialog (RFC 4235 §3.7.1), that which tells most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Confirmed,
    Early,
    Proceeding,
    Trying,
    Terminated,
}

impl State {
    fn read(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"confirmed" => Self::Confirmed,
            b"early" => Self::Early,
            b"proceeding" => Self::Proceeding,
            b"trying" => Self::Trying,
            b"terminated" => Self::Terminated,
            _ => return None,
        })
    }
}

/// Why a document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not well-formed, or not dialog information.
    Malformed,
    /// It tells changes only.
    Partial,
    /// A dialog has no `id` (RFC 4235 §4.1.1) or no state that exists (§4.1.2).
    Dialog,
}

impl Refused {
    /// The reason in a few words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "Bad Dialog Information",
            Self::Partial => "Partial Dialog Information",
            Self::Dialog => "Dialog Without Id or State",
        }
    }
}

const _: () = assert!(DIALOG_INFO.len() == 34, "the namespace in OPENING");

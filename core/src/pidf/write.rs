//! Documents that are made, not copied: presentities without publications, basic state only, and the plain shape of
//! the profile `comsipl`.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::Basic;
use super::compose::{EntityScheme, Summary};
use crate::xml::fingerprint::{Document, Key};
use crate::xml::namespace::PIDF;
use crate::xml::scan::USUAL_DECLARATION;
use crate::xml::text::{escape, escape_uri};

/// The document of a presentity about whom nothing is published, into `out`, which is emptied first.
///
/// One tuple with `basic` and the AoR as contact (RFC 3863 §4.1.2: tuples with `basic` should have one), under an
/// identifier that is always the same for the AoR; no tuple for [`Basic::Unknown`]. `aor` is canonical, without
/// scheme.
pub fn write_bare(aor: &[u8], basic: Basic, out: &mut Vec<u8>) -> Summary {
    write_presence(aor, basic, true, out);
    let key = Key::default();
    let fingerprint = bare_hash(aor, basic, key).finish(key);
    Summary { basic, fingerprint, tuples: usize::from(basic != Basic::Unknown) }
}

/// The document of a user who has published nothing and is open because he is registered, into `out`, which is emptied
/// first: that of [`write_bare`] with `note`, plain text for people, unless it is empty.
pub fn write_registered(aor: &[u8], note: &[u8], out: &mut Vec<u8>) -> Summary {
    let bare = write_bare(aor, Basic::Open, out);
    if note.is_empty() {
        return bare;
    }
    // RFC 3863 §4.1.1: notes follow the tuples.
    out.truncate(out.len() - PRESENCE_END.len());
    out.extend_from_slice(b"<note>");
    escape(note, out);
    out.extend_from_slice(b"</note>\n");
    out.extend_from_slice(PRESENCE_END);
    let key = Key::default();
    let mut hash = bare_hash(aor, Basic::Open, key);
    hash.child(key, key.of(b"note"), key.of(note));
    Summary { fingerprint: hash.finish(key), ..bare }
}

/// What a bare document says, to which more may be added.
fn bare_hash(aor: &[u8], basic: Basic, key: Key) -> Document {
    let mut hash = Document::new(key, EntityScheme::Sip.as_str().as_bytes(), aor);
    hash.child(key, key.of(&tuple_id(aor)), key.of(basic.as_str().as_bytes()));
    hash
}

/// The document that tells the basic state only, into `out`, which is emptied first: one tuple, nothing that tells
/// devices, places or notes; no tuple for [`Basic::Unknown`]. `aor` is canonical, without scheme.
pub fn write_basic(aor: &[u8], basic: Basic, out: &mut Vec<u8>) {
    write_presence(aor, basic, false, out);
}

/// The document of the profile `comsipl`, into `out`, which is emptied first: `entity` with the scheme `pres`, one
/// tuple, the note inside of `status`.
///
/// `note` is plain text; without one it is `available` for open, `offline` for closed, `unknown` for
/// [`Basic::Unknown`], which has no `basic`; an empty one leaves the element out. Without `tuple_id` the identifier is derived from the AoR: 7 of the
/// characters a-z and 0-9. `aor` is canonical, without scheme.
///
/// Lines end with CR LF, the last one too: of all ways to end lines this is the one by which the example document of
/// the profile has the `Content-Length: 253` of its example (235 characters in 9 lines; LF would make it 244).
pub fn write_comsipl(
    aor: &[u8],
    basic: Basic,
    note: Option<&[u8]>,
    tuple_id: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    let note = note.unwrap_or(match basic {
        Basic::Open => b"available",
        Basic::Closed => b"offline",
        Basic::Unknown => b"unknown",
    });
    out.clear();
    out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<presence xmlns=\"");
    out.extend_from_slice(PIDF.as_bytes());
    out.extend_from_slice(b"\" entity=\"");
    out.extend_from_slice(EntityScheme::Pres.as_str().as_bytes());
    escape_uri(aor, out);
    out.extend_from_slice(b"\">\r\n  <tuple id=\"");
    match tuple_id {
        Some(id) => escape(id, out),
        None => out.extend_from_slice(&self::tuple_id(aor)),
    }
    out.extend_from_slice(b"\">\r\n    <status>\r\n");
    if basic != Basic::Unknown {
        out.extend_from_slice(b"      <basic>");
        out.extend_from_slice(basic.as_str().as_bytes());
        out.extend_from_slice(b"</basic>\r\n");
    }
    if !note.is_empty() {
        out.extend_from_slice(b"      <note>");
        escape(note, out);
        out.extend_from_slice(b"</note>\r\n");
    }
    out.extend_from_slice(b"    </status>\r\n  </tuple>\r\n</presence>\r\n");
}

/// Appends the beginning of a document up to and including `entity`: what follows is an attribute or `>`.
///
/// RFC 3863 §4.1: "It MUST have the XML declaration".
pub(super) fn presence(scheme: EntityScheme, aor: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(USUAL_DECLARATION);
    out.extend_from_slice(b"\n<presence xmlns=\"");
    out.extend_from_slice(PIDF.as_bytes());
    out.extend_from_slice(b"\" entity=\"");
    out.extend_from_slice(scheme.as_str().as_bytes());
    escape_uri(aor, out);
    out.push(b'"');
}

/// Writes a document with at most one tuple.
fn write_presence(aor: &[u8], basic: Basic, contact: bool, out: &mut Vec<u8>) {
    out.clear();
    presence(EntityScheme::Sip, aor, out);
    out.extend_from_slice(b">\n");
    if basic != Basic::Unknown {
        out.extend_from_slice(b"<tuple id=\"");
        out.extend_from_slice(&tuple_id(aor));
        out.extend_from_slice(b"\"><status><basic>");
        out.extend_from_slice(basic.as_str().as_bytes());
        out.extend_from_slice(b"</basic></status>");
        if contact {
            out.extend_from_slice(b"<contact>");
            out.extend_from_slice(EntityScheme::Sip.as_str().as_bytes());
            escape_uri(aor, out);
            out.extend_from_slice(b"</contact>");
        }
        out.extend_from_slice(b"</tuple>\n");
    }
    out.extend_from_slice(PRESENCE_END);
}

/// The end of a document with at most one tuple.
const PRESENCE_END: &[u8] = b"</presence>\n";

/// An identifier for the tuple of `aor`: a letter and six letters or digits.
fn tuple_id(aor: &[u8]) -> [u8; 7] {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // Of this hash and under this key since the first version: another identifier is a new tuple to every watcher.
    let mut hasher = SipHasher13::new_with_keys(0x636f_6d73_6970_6c2e, 0x7069_6466_2b78_6d6c);
    hasher.write(aor);
    let mut rest = hasher.finish();
    let mut id = [0; 7];
    for (n, letter) in id.iter_mut().enumerate() {
        // An identifier is an XML name (xs:ID), so it starts with a letter.
        let choices = if n == 0 { 26 } else { 36 };
        *letter = LETTERS[(rest % choices) as usize];
        rest /= choices;
    }
    id
}

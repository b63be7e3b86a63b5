//! Whole documents: what is refused, what is composed, and what their fingerprints say.

mod composing;
mod oracle;
mod random;
mod reading;
mod tokens;
mod writing;

use super::{Composer, Published, Summary};

/// The document of a phone running Linphone: 489 bytes, as its `Content-Length` says.
const LINPHONE: &str = concat!(
    r#"<?xml version="1.0" encoding="UTF-8"?>"#,
    "\n",
    r#"<presence xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" "#,
    r#"xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" "#,
    r#"xmlns:pidfonline="http://www.linphone.org/xsds/pidfonline.xsd" "#,
    r#"entity="sip:51234@10.0.0.27" "#,
    r#"xmlns="urn:ietf:params:xml:ns:pidf">"#,
    "\n",
    r#" <tuple id="n5z2og">"#,
    "\n  <status>\n   <basic>open</basic>\n   <pidfonline:online/>\n  </status>\n",
    r#"  <contact priority="0.8">sip:51234@10.0.0.27</contact>"#,
    "\n  <timestamp>2023-12-17T16:45:04Z</timestamp>\n </tuple>\n</presence>\n",
);

/// The same document with its root's attributes on lines of their own.
const LINPHONE_WRAPPED: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" 
          xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" 
          xmlns:pidfonline="http://www.linphone.org/xsds/pidfonline.xsd" 
          entity="sip:51234@10.0.0.27" 
          xmlns="urn:ietf:params:xml:ns:pidf">
 <tuple id="n5z2og">
  <status>
   <basic>open</basic>
   <pidfonline:online/>
  </status>
  <contact priority="0.8">sip:51234@10.0.0.27</contact>
  <timestamp>2023-12-17T16:45:04Z</timestamp>
 </tuple>
</presence>

"#;

/// A document about `sip:a@b` with `inner` in its root.
fn document(inner: &str) -> String {
    document_with("", inner)
}

/// A document about `sip:a@b` with `attributes` on its root.
fn document_with(attributes: &str, inner: &str) -> String {
    format!(
        r#"<?xml version="1.0"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:a@b" {attributes}>{inner}</presence>"#
    )
}

/// A composition, its summary and its note.
struct Composed {
    text: String,
    summary: Summary,
    note: String,
}

/// Composes documents of publications 1, 2, …, each changed after the one before, and checks what must hold of every
/// composition.
fn compose(bodies: &[&str]) -> Composed {
    let published: Vec<_> = bodies
        .iter()
        .zip(1..)
        .map(|(body, number)| Published { number, published_at_ms: 1000 * number, body: body.as_bytes() })
        .collect();
    compose_published(&published)
}

/// Composes `published` and checks what must hold of every composition.
fn compose_published(published: &[Published<'_>]) -> Composed {
    let mut composer = Composer::default();
    let composed = compose_with(&mut composer, published);
    oracle::check_schema(&composed.text);
    oracle::check_kept(published, &composed.text);

    let mut backwards = published.to_vec();
    backwards.reverse();
    let other = compose_with(&mut composer, &backwards);
    assert_eq!(other.text, composed.text, "the order of the arguments does not matter");
    assert_eq!(other.summary, composed.summary);

    let again = [Published { number: 77, published_at_ms: 1, body: composed.text.as_bytes() }];
    let again = compose_with(&mut composer, &again);
    assert_eq!(again.text, composed.text, "a composition of a composition is the same");
    assert_eq!(again.summary, composed.summary);
    assert_eq!(again.note, composed.note);
    composed
}

/// Composes without any check.
fn compose_with(composer: &mut Composer, published: &[Published<'_>]) -> Composed {
    let mut out = b"left over".to_vec();
    let mut note = b"left over".to_vec();
    let summary = composer.compose(b"a@b", published, &mut out, &mut note).expect("documents are legal");
    Composed { text: String::from_utf8(out).unwrap(), summary, note: String::from_utf8(note).unwrap() }
}

//! Presence documents (RFC 3863) are read, compared with other readers of XML, and composed.

use comsipl_core::pidf::{Composer, Published, Summary};

use super::{parts, published};

/// Whose documents they are.
const AOR: &[u8] = b"alice@example.com";

/// Checks one or several documents of a user.
pub fn hold(bytes: &[u8]) {
    let mut composer = Composer::default();
    let mut accepted: Vec<&[u8]> = Vec::new();
    for document in parts(bytes) {
        if composer.read(document).is_ok() {
            other_readers_accept(document);
            accepted.push(document);
        }
    }
    // The server lets a user have sixteen.
    accepted.truncate(4);
    if accepted.is_empty() {
        return;
    }
    let [forth, back] = published(&accepted);
    let (summary, composed, note) = compose(&mut composer, &forth);
    assert_eq!(compose(&mut composer, &back), (summary, composed.clone(), note), "in another order");
    other_readers_accept(&composed);

    let again = composer.read(&composed).unwrap_or_else(|bad| panic!("{bad:?}: {}", composed.escape_ascii()));
    assert_eq!((again.basic, again.tuples), (summary.basic, summary.tuples), "{}", composed.escape_ascii());
    // A composition of a composition has nothing left to put in order.
    let alone = |body| [Published { number: 1, published_at_ms: 1_000, body }];
    let (second, of_composed, _) = compose(&mut composer, &alone(&composed));
    let (third, again, _) = compose(&mut composer, &alone(&of_composed));
    assert_eq!((third, again.escape_ascii().to_string()), (second, of_composed.escape_ascii().to_string()));
}

fn compose(composer: &mut Composer, published: &[Published<'_>]) -> (Summary, Vec<u8>, Vec<u8>) {
    let (mut out, mut note) = (Vec::new(), Vec::new());
    let summary =
        composer.compose(AOR, published, &mut out, &mut note).expect("documents that were read before");
    (summary, out, note)
}

/// A document that is accepted is well-formed to others as well: `roxmltree` builds a tree of it, and `quick-xml` comes to its
/// end.
pub fn other_readers_accept(document: &[u8]) {
    let text = std::str::from_utf8(document).expect("what is accepted is UTF-8");
    if let Err(error) = roxmltree::Document::parse(text) {
        panic!("roxmltree: {error}: {text:?}");
    }
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().check_comments = true;
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Eof) => break,
            Ok(_) => {}
            Err(error) => panic!("quick-xml: {error}: {text:?}"),
        }
    }
}

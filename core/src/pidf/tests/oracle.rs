//! Compositions read by another parser: they are valid, and everything published is in them.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::{Document, Node};

use super::Published;

pub(super) const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";

/// Panics unless `text` is well-formed with correct namespaces and keeps the order and the identifiers of the schema
/// (RFC 3863 §4.4).
pub(super) fn check_schema(text: &str) {
    assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"), "{text}");
    let document = Document::parse(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let root = document.root_element();
    assert!(is(root, "presence"), "{text}");
    assert!(root.has_attribute("entity"), "{text}");
    let rank = |child: Node<'_, '_>| match () {
        () if is(child, "tuple") => 0,
        () if is(child, "note") => 1,
        () => 2,
    };
    assert!(elements(root).is_sorted_by_key(rank), "order of the root's children:\n{text}");
    let mut ids = BTreeSet::new();
    for child in elements(root).filter(|&child| is(child, "tuple") || is_data(child)) {
        let id = child.attribute("id").unwrap_or_else(|| panic!("no id:\n{text}"));
        assert!(ids.insert(id), "{id} is used twice:\n{text}");
    }
    for tuple in elements(root).filter(|&child| is(child, "tuple")) {
        let rank = |child: Node<'_, '_>| match () {
            () if is(child, "status") => 0,
            () if is(child, "contact") => 2,
            () if is(child, "note") => 3,
            () if is(child, "timestamp") => 4,
            () => 1,
        };
        assert!(elements(tuple).is_sorted_by_key(rank), "order of a tuple's children:\n{text}");
        for status in elements(tuple).filter(|&child| is(child, "status")) {
            for (place, child) in elements(status).enumerate() {
                if is(child, "basic") {
                    assert_eq!(place, 0, "basic comes first:\n{text}");
                    assert!(matches!(child.text(), Some("open" | "closed")), "{text}");
                } else {
                    assert_ne!(child.tag_name().namespace(), Some(PIDF), "{text}");
                }
            }
        }
    }
}

/// Panics unless `text` has all that `published` say, and nothing else.
pub(super) fn check_kept(published: &[Published<'_>], text: &str) {
    let mut expected = BTreeMap::<String, usize>::new();
    for published in published {
        let body = std::str::from_utf8(published.body).unwrap();
        let document = Document::parse(body.trim_start_matches('\u{feff}')).unwrap();
        for child in elements(document.root_element()) {
            *expected.entry(meaning(child)).or_default() += 1;
        }
    }
    let document = Document::parse(text).unwrap();
    let mut found = BTreeMap::<String, usize>::new();
    for child in elements(document.root_element()) {
        *found.entry(meaning(child)).or_default() += 1;
    }
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        found.keys().collect::<Vec<_>>(),
        "children of the root of\n{text}"
    );
    for (meaning, count) in expected {
        if meaning.starts_with(&format!("<{{{PIDF}}}tuple")) {
            assert_eq!(found[&meaning], count, "{meaning}\nin\n{text}");
        }
    }
}

/// A canonical spelling of a child of the root without its `id` and its time stamps, `basic` in the letters of the
/// schema, and the notes of `status` moved out.
fn meaning(child: Node<'_, '_>) -> String {
    let mut out = String::new();
    let told_apart = is(child, "tuple") || is_data(child);
    open(child, told_apart, &mut out);
    let mut leaving: Vec<_> = elements(child)
        .filter(|&part| is(child, "tuple") && is(part, "status"))
        .flat_map(elements)
        .filter(|&part| is(part, "note"))
        .collect();
    for part in content(child) {
        if let Some(part) = part.element() {
            let stamp = part.tag_name().name() == "timestamp" && told_apart;
            if is(child, "tuple") && is(part, "note") {
                leaving.drain(..).for_each(|note| write(note, &mut out));
            }
            if is(child, "tuple") && is(part, "status") {
                open(part, false, &mut out);
                for part in elements(part).filter(|&part| !is(part, "note")) {
                    if is(part, "basic") {
                        let text: String =
                            part.children().filter(Node::is_text).filter_map(|it| it.text()).collect();
                        let word = text.trim().to_ascii_lowercase();
                        let word = if word == "close" { "closed" } else { &word };
                        out.push_str(&format!("basic={word};"));
                    } else {
                        write(part, &mut out);
                    }
                }
                out.push_str("</>");
            } else if !stamp {
                write(part, &mut out);
            }
        } else {
            out.push_str(&format!("{:?}", part.text));
        }
    }
    leaving.into_iter().for_each(|note| write(note, &mut out));
    out.push_str("</>");
    out
}

/// A canonical spelling of an element.
fn write(node: Node<'_, '_>, out: &mut String) {
    open(node, false, out);
    for part in content(node) {
        match part.element() {
            Some(element) => write(element, out),
            None => out.push_str(&format!("{:?}", part.text)),
        }
    }
    out.push_str("</>");
}

/// A canonical spelling of a start tag. A language that only the root gives is given here on the notes.
fn open(node: Node<'_, '_>, without_id: bool, out: &mut String) {
    out.push_str(&format!("<{{{}}}{}", node.tag_name().namespace().unwrap_or(""), node.tag_name().name()));
    let mut attributes: Vec<_> = node
        .attributes()
        .filter(|it| !(without_id && it.namespace().is_none() && it.name() == "id"))
        .map(|it| format!(" {{{}}}{}={:?}", it.namespace().unwrap_or(""), it.name(), it.value()))
        .collect();
    let xml = "http://www.w3.org/XML/1998/namespace";
    let is_note = node.tag_name().name() == "note"
        && (is(node, "note") || node.tag_name().namespace() == Some(DATA_MODEL));
    let given = |it: Node<'_, '_>| it.attribute((xml, "lang")).map(str::to_owned);
    if is_note
        && node.ancestors().filter(Node::is_element).filter_map(given).count() == 1
        && let Some(language) = given(node.document().root_element())
    {
        attributes.push(format!(" {{{xml}}}lang={language:?}"));
    }
    attributes.sort();
    attributes.iter().for_each(|attribute| out.push_str(attribute));
    out.push('>');
}

/// A part of an element's content: an element, or text between tags.
struct Part<'a, 'input> {
    node: Option<Node<'a, 'input>>,
    text: String,
}

impl<'a, 'input> Part<'a, 'input> {
    fn element(&self) -> Option<Node<'a, 'input>> {
        self.node
    }
}

/// The content of an element without comments and without white space between elements.
fn content<'a, 'input>(node: Node<'a, 'input>) -> Vec<Part<'a, 'input>> {
    let mut parts: Vec<Part<'a, 'input>> = Vec::new();
    for child in node.children() {
        if child.is_element() {
            parts.push(Part { node: Some(child), text: String::new() });
        } else if child.is_text() {
            let text = child.text().unwrap();
            match parts.last_mut() {
                Some(last) if last.node.is_none() => last.text.push_str(text),
                _ => parts.push(Part { node: None, text: text.to_owned() }),
            }
        }
    }
    if elements(node).next().is_some() {
        let is_blank = |text: &str| text.trim_matches([' ', '\t', '\r', '\n']).is_empty();
        parts.retain(|part| part.node.is_some() || !is_blank(&part.text));
    }
    parts
}

/// The child elements.
pub(super) fn elements<'a, 'input>(node: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(Node::is_element)
}

/// True for the element `local` of PIDF.
fn is(node: Node<'_, '_>, local: &str) -> bool {
    node.has_tag_name((PIDF, local))
}

/// True for persons and devices.
fn is_data(node: Node<'_, '_>) -> bool {
    node.has_tag_name((DATA_MODEL, "person")) || node.has_tag_name((DATA_MODEL, "device"))
}

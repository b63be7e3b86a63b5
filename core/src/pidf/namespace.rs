//! Namespace declarations in scope (Namespaces in XML 1.0).

use super::bounds;
use super::fingerprint;
use super::malformed::Malformed;
use super::scan::{Attribute, QName, Span};
use super::text::attribute_value;

/// Namespace of PIDF (RFC 3863 §4.1.1).
pub(super) const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
/// Namespace of the presence data model (RFC 4479 §5).
const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// Namespace that the prefix `xml` is bound to.
const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Namespace that the prefix `xmlns` is bound to.
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// A namespace as far as composition must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// `urn:ietf:params:xml:ns:pidf`.
    Pidf,
    /// `urn:ietf:params:xml:ns:pidf:data-model`.
    DataModel,
    /// Any other, or none.
    Other,
}

/// A namespace, resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Namespace {
    /// Hash of its name; zero for none.
    pub(super) hash: u64,
    /// Which one it is.
    pub(super) known: Known,
    /// Depth of the element that declares it, 1 for the root; 0 when nothing does.
    pub(super) depth: usize,
}

impl Namespace {
    /// No namespace, with nothing declared.
    const NONE: Self = Self { hash: 0, known: Known::Other, depth: 0 };
}

/// One declaration in scope.
struct Binding {
    /// The declared prefix, empty for the default namespace.
    prefix: Span,
    /// What it stands for.
    namespace: Namespace,
}

/// The declarations in scope, innermost last.
#[derive(Default)]
pub(super) struct Bindings {
    list: Vec<Binding>,
    value: Vec<u8>,
}

impl Bindings {
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// How many are in scope; see [`Bindings::leave`].
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Leaves an element: only the first `len` stay in scope.
    pub(super) fn leave(&mut self, len: usize) {
        self.list.truncate(len);
    }

    /// Takes the declarations among the attributes of an element at `depth`.
    pub(super) fn enter(
        &mut self,
        text: &str,
        attributes: &[Attribute],
        depth: usize,
    ) -> Result<(), Malformed> {
        for attribute in attributes {
            let Some(prefix) = attribute.declares(text) else { continue };
            let at = attribute.span().start as usize;
            let value = attribute_value(attribute.value.of(text), &mut self.value);
            let is_xml = value == XML.as_bytes();
            // Namespaces in XML §3: `xml` may be declared as what it is; `xmlns` must not be declared; neither of
            // their namespaces may have another prefix; and no prefix may be undeclared.
            let legal = match prefix.of(text) {
                "" => !is_xml && value != XMLNS.as_bytes(),
                "xml" => is_xml,
                "xmlns" => false,
                _ => !is_xml && value != XMLNS.as_bytes() && !value.is_empty(),
            };
            if !legal {
                return Err(Malformed::Namespace(at));
            }
            if self.list.len() == bounds::BINDINGS_MAX {
                return Err(Malformed::TooManyNamespaces(at));
            }
            let known = if value == PIDF.as_bytes() {
                Known::Pidf
            } else if value == DATA_MODEL.as_bytes() {
                Known::DataModel
            } else {
                Known::Other
            };
            let hash = if value.is_empty() { 0 } else { fingerprint::of(value) };
            self.list.push(Binding { prefix, namespace: Namespace { hash, known, depth } });
        }
        Ok(())
    }

    /// Hash of what `prefix`, just declared, stands for.
    pub(super) fn declared(&self, text: &str, prefix: Span) -> u64 {
        self.find(text, prefix.of(text)).map_or(0, |namespace| namespace.hash)
    }

    /// The namespace of an element.
    pub(super) fn element(&self, text: &str, name: QName) -> Result<Namespace, Malformed> {
        match name.prefix.of(text) {
            "" => Ok(self.find(text, "").unwrap_or(Namespace::NONE)),
            "xmlns" => Err(Malformed::Namespace(name.prefix.start as usize)),
            prefix => self.prefixed(text, prefix, name),
        }
    }

    /// The namespace of an attribute; the default namespace does not apply (Namespaces in XML §6.2).
    pub(super) fn attribute(&self, text: &str, name: QName) -> Result<Namespace, Malformed> {
        match name.prefix.of(text) {
            "" => Ok(Namespace::NONE),
            prefix => self.prefixed(text, prefix, name),
        }
    }

    /// The namespace that a prefix stands for.
    fn prefixed(&self, text: &str, prefix: &str, name: QName) -> Result<Namespace, Malformed> {
        if let Some(found) = self.find(text, prefix) {
            return Ok(found);
        }
        if prefix == "xml" {
            return Ok(Namespace { hash: xml_hash(), ..Namespace::NONE });
        }
        Err(Malformed::Namespace(name.prefix.start as usize))
    }

    /// The innermost declaration of `prefix`.
    fn find(&self, text: &str, prefix: &str) -> Option<Namespace> {
        self.list.iter().rev().find(|binding| binding.prefix.of(text) == prefix).map(|found| found.namespace)
    }
}

/// Hash of the name of PIDF's namespace.
pub(super) fn pidf_hash() -> u64 {
    fingerprint::of(PIDF.as_bytes())
}

/// Hash of the name of XML's own namespace.
pub(super) fn xml_hash() -> u64 {
    fingerprint::of(XML.as_bytes())
}

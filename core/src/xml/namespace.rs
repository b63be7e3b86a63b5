//! Namespace declarations in scope (Namespaces in XML 1.0).
//!
//! A namespace is known by the hash of its name, made once where it is declared.

use super::bounds;
use super::fingerprint::Key;
use super::malformed::Malformed;
use super::scan::{Attribute, QName, Span};

/// Namespace of PIDF (RFC 3863 §4.1.1).
pub(crate) const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
/// Namespace of the presence data model (RFC 4479 §5).
const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// Namespace of dialog information (RFC 4235 §4).
pub(crate) const DIALOG_INFO: &str = "urn:ietf:params:xml:ns:dialog-info";
/// Namespace that the prefix `xml` is bound to.
const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Namespace that the prefix `xmlns` is bound to.
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// A namespace as far as composition must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// `urn:ietf:params:xml:ns:pidf`.
    Pidf,
    /// `urn:ietf:params:xml:ns:pidf:data-model`.
    DataModel,
    /// `urn:ietf:params:xml:ns:dialog-info`.
    DialogInfo,
    /// Any other, or none.
    Other,
}

/// A namespace, resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namespace {
    /// Hash of its name; zero for none.
    pub(crate) hash: u64,
    /// Which one it is.
    pub(crate) known: Known,
    /// Depth of the element that declares it, 1 for the root; 0 when nothing does.
    pub(crate) depth: u8,
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
pub(crate) struct Bindings {
    list: Vec<Binding>,
    /// Where in the list the default namespace is declared.
    default: Option<u8>,
    value: Vec<u8>,
}

const _: () = assert!(bounds::BINDINGS_MAX <= u8::MAX as usize);
const _: () = assert!(bounds::DEPTH_MAX <= u8::MAX as usize);

impl Bindings {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.default = None;
    }

    /// How many are in scope; see [`Bindings::leave`].
    pub(crate) const fn len(&self) -> u8 {
        self.list.len() as u8
    }

    /// True when a default namespace is declared, be it none.
    pub(crate) const fn has_default(&self) -> bool {
        self.default.is_some()
    }

    /// Leaves an element: only the first `len` stay in scope.
    #[inline]
    pub(crate) fn leave(&mut self, len: u8) {
        if len < self.len() {
            self.list.truncate(len.into());
            self.default = self.list.iter().rposition(|it| it.prefix.is_empty()).map(|at| at as u8);
        }
    }

    /// Takes a declaration of an element at `depth`, and gives what it declares.
    pub(crate) fn enter(
        &mut self,
        key: Key,
        text: &[u8],
        attribute: &Attribute,
        depth: u8,
    ) -> Result<Namespace, Malformed> {
        let prefix = attribute.declared();
        let at = attribute.span().start as usize;
        let value = attribute.value(text, &mut self.value);
        let is_xml = value == XML.as_bytes();
        // Namespaces in XML §3: `xml` may be declared as what it is; `xmlns` must not be declared; neither of their
        // namespaces may have another prefix; and no prefix may be undeclared.
        let legal = match prefix.of(text) {
            b"" => !is_xml && value != XMLNS.as_bytes(),
            b"xml" => is_xml,
            b"xmlns" => false,
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
        } else if value == DIALOG_INFO.as_bytes() {
            Known::DialogInfo
        } else {
            Known::Other
        };
        let hash = if value.is_empty() { 0 } else { key.of(value) };
        let namespace = Namespace { hash, known, depth };
        if prefix.is_empty() {
            self.default = Some(self.len());
        }
        self.list.push(Binding { prefix, namespace });
        Ok(namespace)
    }

    /// The namespace of an element.
    #[inline]
    pub(crate) fn element(&self, key: Key, text: &[u8], name: QName) -> Result<Namespace, Malformed> {
        if !name.has_prefix() {
            return Ok(self.default.map_or(Namespace::NONE, |at| self.list[usize::from(at)].namespace));
        }
        // `xmlns` is never declared, and so it is never found.
        self.prefixed(key, text, name)
    }

    /// The namespace of an attribute; the default namespace does not apply (Namespaces in XML §6.2).
    #[inline]
    pub(crate) fn attribute(&self, key: Key, text: &[u8], name: QName) -> Result<Namespace, Malformed> {
        if name.has_prefix() { self.prefixed(key, text, name) } else { Ok(Namespace::NONE) }
    }

    /// The namespace that a prefix stands for.
    fn prefixed(&self, key: Key, text: &[u8], name: QName) -> Result<Namespace, Malformed> {
        let prefix = name.prefix().of(text);
        if let Some(found) = self.list.iter().rev().find(|binding| binding.prefix.of(text) == prefix) {
            return Ok(found.namespace);
        }
        if prefix == b"xml" {
            return Ok(Namespace { hash: xml_hash(key), ..Namespace::NONE });
        }
        Err(Malformed::Namespace(name.start as usize))
    }
}

/// Hash of the name of PIDF's namespace.
pub(crate) fn pidf_hash(key: Key) -> u64 {
    key.of(PIDF.as_bytes())
}

/// Hash of the name of XML's own namespace.
pub(crate) fn xml_hash(key: Key) -> u64 {
    key.of(XML.as_bytes())
}

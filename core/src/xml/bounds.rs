//! Bounds of one document beyond its length; past each of them the document is malformed (400).

/// Deepest nesting of elements, the root being 1. Published documents reach 6; a recursive reader of a watcher is
/// safe with 16.
pub(crate) const DEPTH_MAX: usize = 16;

/// Most attributes of one element, namespace declarations included. Some watchers check attributes pair by pair.
pub(crate) const ATTRIBUTES_MAX: usize = 32;

/// Most namespace declarations in scope at one place; each prefix is searched among them.
pub(crate) const BINDINGS_MAX: usize = 64;

/// Most child elements of the root; each is remembered while a document is composed.
pub(crate) const CHILDREN_MAX: usize = 256;

/// Most prefixes gathered on the root of a composed document, so that together with `xmlns` and `entity` it keeps
/// [`ATTRIBUTES_MAX`]. Prefixes beyond are declared on the elements that use them.
pub(crate) const ROOT_PREFIXES_MAX: usize = 24;

const _: () = assert!(ROOT_PREFIXES_MAX + 2 <= ATTRIBUTES_MAX);
const _: () = assert!(ATTRIBUTES_MAX <= u32::BITS as usize, "a u32 has a bit for every declaration of a tag");

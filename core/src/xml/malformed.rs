//! Why a document was refused, and where.

use std::fmt;

use super::bounds;

/// The fault of a document that cannot be published: what is wrong and at which byte.
///
/// The sender gets 400; the text of [`Display`](fmt::Display) fits a reason phrase or a `Warning`, and quotes nothing
/// of the document. Positions count bytes from the start of the document, a byte order mark not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The document is longer than [`DOCUMENT_LEN_MAX`](crate::limits::DOCUMENT_LEN_MAX); holds its length.
    TooLong(usize),
    /// Not UTF-8 at this byte.
    NotUtf8(usize),
    /// The XML declaration names an encoding other than UTF-8.
    Encoding(usize),
    /// A character that XML does not allow (XML 1.0 §2.2).
    Character(usize),
    /// A document type declaration; none is accepted, so that no entity can be defined.
    Doctype(usize),
    /// The XML declaration is wrong or not at the start.
    Declaration(usize),
    /// Markup that is not XML.
    Syntax(usize),
    /// A name with a forbidden character, or with more than one colon.
    Name(usize),
    /// An attribute without value, without quotes, or with `<` in its value.
    Attribute(usize),
    /// Two attributes of one name in one start tag.
    DuplicateAttribute(usize),
    /// A reference to anything but a legal character or one of the five entities of XML.
    Reference(usize),
    /// A prefix without declaration, or an illegal declaration (Namespaces in XML §3).
    Namespace(usize),
    /// An end tag that closes nothing or something else.
    EndTag(usize),
    /// The document ends inside of an element.
    Unclosed(usize),
    /// Something other than comments and white space outside of the root element.
    OutsideRoot(usize),
    /// There is no root element.
    NoRoot,
    /// The root is not `presence` of `urn:ietf:params:xml:ns:pidf` (RFC 3863 §4.1.1).
    NotPresence(usize),
    /// The root has no `entity` (RFC 3863 §4.1.1: "The <presence> element MUST have an 'entity' attribute").
    NoEntity(usize),
    /// Elements are nested too deep.
    TooDeep(usize),
    /// An element has too many attributes.
    TooManyAttributes(usize),
    /// Too many namespace declarations are in scope at once.
    TooManyNamespaces(usize),
    /// The root has too many child elements.
    TooManyChildren(usize),
}

impl Malformed {
    /// The byte at which the fault was noticed; for [`Malformed::TooLong`] the length of the document.
    #[must_use]
    pub const fn position(self) -> usize {
        match self {
            Self::TooLong(at)
            | Self::NotUtf8(at)
            | Self::Encoding(at)
            | Self::Character(at)
            | Self::Doctype(at)
            | Self::Declaration(at)
            | Self::Syntax(at)
            | Self::Name(at)
            | Self::Attribute(at)
            | Self::DuplicateAttribute(at)
            | Self::Reference(at)
            | Self::Namespace(at)
            | Self::EndTag(at)
            | Self::Unclosed(at)
            | Self::OutsideRoot(at)
            | Self::NotPresence(at)
            | Self::NoEntity(at)
            | Self::TooDeep(at)
            | Self::TooManyAttributes(at)
            | Self::TooManyNamespaces(at)
            | Self::TooManyChildren(at) => at,
            Self::NoRoot => 0,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(len) => return write!(f, "document of {len} bytes is too long"),
            Self::NoRoot => return f.write_str("document has no root element"),
            Self::TooDeep(_) => write!(f, "elements nested deeper than {}", bounds::DEPTH_MAX)?,
            Self::TooManyAttributes(_) => write!(f, "more than {} attributes", bounds::ATTRIBUTES_MAX)?,
            Self::TooManyNamespaces(_) => {
                write!(f, "more than {} namespace declarations", bounds::BINDINGS_MAX)?;
            }
            Self::TooManyChildren(_) => write!(f, "more than {} elements in presence", bounds::CHILDREN_MAX)?,
            Self::NotUtf8(_) => f.write_str("not UTF-8")?,
            Self::Encoding(_) => f.write_str("declared encoding is not UTF-8")?,
            Self::Character(_) => f.write_str("character not allowed in XML")?,
            Self::Doctype(_) => f.write_str("document type declaration not allowed")?,
            Self::Declaration(_) => f.write_str("bad XML declaration")?,
            Self::Syntax(_) => f.write_str("bad XML")?,
            Self::Name(_) => f.write_str("bad XML name")?,
            Self::Attribute(_) => f.write_str("bad attribute")?,
            Self::DuplicateAttribute(_) => f.write_str("attribute given twice")?,
            Self::Reference(_) => f.write_str("unknown entity or character reference")?,
            Self::Namespace(_) => f.write_str("namespace prefix not declared or badly declared")?,
            Self::EndTag(_) => f.write_str("end tag does not match")?,
            Self::Unclosed(_) => f.write_str("element not closed")?,
            Self::OutsideRoot(_) => f.write_str("content outside of the root element")?,
            Self::NotPresence(_) => f.write_str("root is not a PIDF presence element")?,
            Self::NoEntity(_) => f.write_str("presence has no entity")?,
        }
        write!(f, " at byte {}", self.position())
    }
}

impl std::error::Error for Malformed {}

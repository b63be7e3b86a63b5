//! Tokens of a document, checked to be XML.
//!
//! quick-xml finds the tokens; it is lenient by design, and what is copied to watchers must be read by strict parsers,
//! so names, attributes, references, comments and the XML declaration are checked here. What holds across tokens (end
//! tags, namespaces, the one root) is checked by the reader of the document.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::bounds;
use super::malformed::Malformed;
use super::text::{BYTE_ORDER_MARK, is_space, reference};
use crate::limits::DOCUMENT_LEN_MAX;

/// A range of bytes in the text of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte.
    pub(super) start: u32,
    /// Byte behind the last.
    pub(super) end: u32,
}

impl Span {
    /// The range `start..end`; documents are far shorter than 4 GiB.
    pub(super) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes of the range.
    pub(super) fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }
}

/// A name, split at its colon.
#[derive(Clone, Copy, Debug)]
pub(super) struct QName {
    /// The prefix, empty if there is none.
    pub(super) prefix: Span,
    /// The part behind the colon.
    pub(super) local: Span,
}

impl QName {
    /// The whole name as written.
    pub(super) const fn span(self) -> Span {
        Span { start: self.prefix.start, end: self.local.end }
    }
}

/// An attribute of a start tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute {
    /// Its name as written.
    pub(super) name: QName,
    /// Its value as written, without the quotes; references are legal.
    pub(super) value: Span,
}

impl Attribute {
    /// The attribute as written, from its name to its closing quote.
    pub(super) const fn span(self) -> Span {
        Span { start: self.name.prefix.start, end: self.value.end + 1 }
    }

    /// The prefix that a namespace declaration declares (empty for the default namespace), or `None` for other
    /// attributes.
    pub(super) fn declares(&self, text: &str) -> Option<Span> {
        if self.name.prefix.of(text) == "xmlns" {
            Some(self.name.local)
        } else if self.name.span().of(text) == "xmlns" {
            Some(Span { start: self.name.local.end, end: self.name.local.end })
        } else {
            None
        }
    }
}

/// What the scanner found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Token {
    /// A start tag, or an empty-element tag. Its attributes are in the scanner's caller's list.
    Start { name: QName, empty: bool },
    /// An end tag, with the name as written.
    End(Span),
    /// Character data without references.
    Text,
    /// The content of a CDATA section.
    CData(Span),
    /// A reference, resolved.
    Reference(char),
    /// A comment, a processing instruction or the XML declaration.
    Aside,
    /// The end of the document.
    Done,
}

/// Checks that `body` is text that XML allows and of legal length, and takes off a byte order mark.
pub(super) fn text_of(body: &[u8]) -> Result<&str, Malformed> {
    if body.len() > DOCUMENT_LEN_MAX {
        return Err(Malformed::TooLong(body.len()));
    }
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.starts_with(BYTE_ORDER_MARK) {
        // A second mark is a character in front of the root. quick-xml would skip it without counting it.
        return Err(Malformed::OutsideRoot(0));
    }
    let text = std::str::from_utf8(body).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))?;
    if let Some(at) = body.iter().position(|&byte| byte < b' ' && !is_space(byte)) {
        return Err(Malformed::Character(at));
    }
    // UTF-8 has no surrogates, so beside the controls only U+FFFE and U+FFFF are left.
    let mut from = 0;
    while let Some(at) = memchr::memchr(0xef, &body[from..]) {
        let at = from + at;
        if matches!(body[at..], [0xef, 0xbf, 0xbe | 0xbf, ..]) {
            return Err(Malformed::Character(at));
        }
        from = at + 1;
    }
    Ok(text)
}

/// Finds the tokens of a text.
pub(super) struct Scanner<'a> {
    reader: Reader<&'a [u8]>,
    text: &'a str,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`, which [`text_of`] has checked.
    pub(super) fn new(text: &'a str) -> Self {
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        // The reader of the document compares end tags itself.
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        Self { reader, text }
    }

    /// The next token and where it stands. Fills `attributes` for a start tag.
    pub(super) fn next(&mut self, attributes: &mut Vec<Attribute>) -> Result<(Token, Span), Malformed> {
        let start = self.reader.buffer_position() as usize;
        let event = self.reader.read_event().map_err(|_| self.fault(start))?;
        let end = self.reader.buffer_position() as usize;
        let span = Span::new(start, end);
        let token = match event {
            Event::Start(_) => self.start_tag(span, false, attributes)?,
            Event::Empty(_) => self.start_tag(span, true, attributes)?,
            Event::End(_) => {
                let name = &self.text[start + 2..end - 1];
                Token::End(Span::new(start + 2, start + 2 + name.trim_end_matches(is_space_char).len()))
            }
            Event::Text(_) => {
                let raw = &self.text.as_bytes()[start..end];
                // XML 1.0 §2.4: "]]>" stands in no content but as the end of a CDATA section.
                if memchr::memchr_iter(b'>', raw).any(|at| raw[..at].ends_with(b"]]")) {
                    return Err(Malformed::Syntax(start));
                }
                Token::Text
            }
            Event::CData(_) => Token::CData(Span::new(start + "<![CDATA[".len(), end - "]]>".len())),
            Event::GeneralRef(_) => {
                let name = &self.text[start + 1..end - 1];
                Token::Reference(reference(name).ok_or(Malformed::Reference(start))?)
            }
            Event::Comment(_) => {
                let comment = &self.text[start + "<!--".len()..end - "-->".len()];
                // XML 1.0 §2.5: a comment holds no "--" and does not end with "-".
                if comment.contains("--") || comment.ends_with('-') {
                    return Err(Malformed::Syntax(start));
                }
                Token::Aside
            }
            Event::PI(_) => {
                let content = &self.text[start + "<?".len()..end - "?>".len()];
                let target = content.split(is_space_char).next().unwrap_or_default();
                if target.eq_ignore_ascii_case("xml") || !is_ncname(target) {
                    return Err(Malformed::Name(start));
                }
                Token::Aside
            }
            Event::Decl(_) => {
                self.declaration(span, attributes)?;
                Token::Aside
            }
            Event::DocType(_) => return Err(Malformed::Doctype(start)),
            Event::Eof => Token::Done,
        };
        Ok((token, span))
    }

    /// Checks a start tag and lists its attributes.
    fn start_tag(
        &self,
        span: Span,
        empty: bool,
        attributes: &mut Vec<Attribute>,
    ) -> Result<Token, Malformed> {
        let start = span.start as usize + 1;
        let end = span.end as usize - if empty { 2 } else { 1 };
        let inner = &self.text.as_bytes()[start..end];
        let name_len = inner.iter().position(|&byte| is_space(byte)).unwrap_or(inner.len());
        let name = self.name(start, start + name_len)?;
        self.attributes(start + name_len, end, attributes)?;
        Ok(Token::Start { name, empty })
    }

    /// Checks the XML declaration (XML 1.0 §2.8).
    fn declaration(&self, span: Span, attributes: &mut Vec<Attribute>) -> Result<(), Malformed> {
        let at = span.start as usize;
        let wrong = Malformed::Declaration(at);
        if at != 0 {
            return Err(wrong);
        }
        self.attributes("<?xml".len(), span.end as usize - "?>".len(), attributes).map_err(|_| wrong)?;
        let mut pairs = attributes
            .iter()
            .map(|attribute| (attribute.name.span().of(self.text), attribute.value.of(self.text)))
            .peekable();
        let Some(("version", version)) = pairs.next() else { return Err(wrong) };
        let minor = version.strip_prefix("1.").ok_or(wrong)?;
        // XML 1.1 allows characters that a reader of 1.0 refuses; what is copied must suit both.
        if minor.is_empty() || !minor.bytes().all(|digit| digit.is_ascii_digit()) || minor == "1" {
            return Err(wrong);
        }
        if let Some((_, encoding)) = pairs.next_if(|pair| pair.0 == "encoding")
            && !["utf-8", "utf8", "us-ascii"].iter().any(|name| encoding.eq_ignore_ascii_case(name))
        {
            return Err(Malformed::Encoding(at));
        }
        let standalone = pairs.next_if(|pair| pair.0 == "standalone");
        if standalone.is_some_and(|pair| !matches!(pair.1, "yes" | "no")) || pairs.next().is_some() {
            return Err(wrong);
        }
        Ok(())
    }

    /// Lists the attributes in `start..end`, which begins behind a name.
    fn attributes(&self, start: usize, end: usize, list: &mut Vec<Attribute>) -> Result<(), Malformed> {
        let bytes = &self.text.as_bytes()[..end];
        let skip = |from: usize| bytes[from..].iter().position(|&b| !is_space(b)).map_or(end, |n| from + n);
        list.clear();
        let mut at = start;
        loop {
            let name_start = skip(at);
            if name_start == end {
                return Ok(());
            }
            if name_start == at {
                return Err(Malformed::Attribute(at));
            }
            let name_len = bytes[name_start..].iter().position(|&b| b == b'=' || is_space(b));
            let name_end = name_start + name_len.ok_or(Malformed::Attribute(name_start))?;
            let name = self.name(name_start, name_end)?;
            let equals = skip(name_end);
            if bytes.get(equals) != Some(&b'=') {
                return Err(Malformed::Attribute(equals));
            }
            let open = skip(equals + 1);
            let Some(&quote @ (b'"' | b'\'')) = bytes.get(open) else {
                return Err(Malformed::Attribute(open));
            };
            let len = memchr::memchr(quote, &bytes[open + 1..]).ok_or(Malformed::Attribute(open))?;
            let value = Span::new(open + 1, open + 1 + len);
            self.check_value(value)?;
            if list.len() == bounds::ATTRIBUTES_MAX {
                return Err(Malformed::TooManyAttributes(name_start));
            }
            list.push(Attribute { name, value });
            at = open + 1 + len + 1;
        }
    }

    /// Checks the value of an attribute: no `<`, and references that resolve.
    fn check_value(&self, value: Span) -> Result<(), Malformed> {
        let raw = value.of(self.text);
        for at in memchr::memchr2_iter(b'<', b'&', raw.as_bytes()) {
            let position = value.start as usize + at;
            if raw.as_bytes()[at] == b'<' {
                return Err(Malformed::Attribute(position));
            }
            let name = raw[at + 1..].split_once(';').ok_or(Malformed::Reference(position))?.0;
            reference(name).ok_or(Malformed::Reference(position))?;
        }
        Ok(())
    }

    /// Checks the name in `start..end` and splits it (Namespaces in XML §4).
    fn name(&self, start: usize, end: usize) -> Result<QName, Malformed> {
        let name = &self.text[start..end];
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        if !is_ncname(local) || !(is_ncname(prefix) || local.len() == name.len()) {
            return Err(Malformed::Name(start));
        }
        Ok(QName { prefix: Span::new(start, start + prefix.len()), local: Span::new(end - local.len(), end) })
    }

    /// The fault at which quick-xml stopped.
    fn fault(&self, start: usize) -> Malformed {
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        match rest {
            [b'<', b'!', b'D' | b'd', ..] => Malformed::Doctype(start),
            [b'&', ..] => Malformed::Reference(start),
            _ => Malformed::Syntax(start),
        }
    }
}

/// True for a name without a colon (XML 1.0 §2.3, Namespaces in XML §3).
fn is_ncname(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}

/// True for `NameStartChar` without the colon.
const fn is_name_start(char: char) -> bool {
    matches!(char,
        'A'..='Z' | '_' | 'a'..='z'
        | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
        | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}'
        | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

/// True for `NameChar` without the colon.
const fn is_name_char(char: char) -> bool {
    is_name_start(char)
        || matches!(char,
            '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// [`is_space`] for characters.
const fn is_space_char(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r' | '\n')
}

//! Tokens of a document, checked to be XML.
//!
//! What is copied to watchers must be read by strict parsers, so names, attributes, references, comments and the XML
//! declaration are checked here to the letter. What holds across tokens (end tags, namespaces, the one root) is checked
//! by the reader of the document.
//!
//! Every byte is looked at once: names by a table, character data and values eight bytes at a time. Behind the text
//! stand zeros ([`PADDING`]), which no text has, so that a loop ends without asking where the text does.

use super::bounds;
use super::malformed::Malformed;
use super::text::{BYTE_ORDER_MARK, attribute_value, entity, is_space};
use crate::limits::DOCUMENT_LEN_MAX;

/// Zeros behind the text of a [`Scanner`].
pub(crate) const PADDING: usize = 16;

/// A range of bytes in the text of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte.
    pub(crate) start: u32,
    /// Byte behind the last.
    pub(crate) end: u32,
}

impl Span {
    /// The range `start..end`; documents are far shorter than 4 GiB.
    #[inline]
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes of the range.
    #[inline]
    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }

    /// True when there is nothing in it.
    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// A name, split at its colon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QName {
    /// First byte.
    pub(crate) start: u32,
    /// First byte of the part behind the colon; `start` if there is no colon.
    local: u32,
    /// Byte behind the last.
    pub(crate) end: u32,
}

impl QName {
    /// The prefix, empty if there is none.
    #[inline]
    pub(crate) const fn prefix(self) -> Span {
        Span { start: self.start, end: if self.has_prefix() { self.local - 1 } else { self.start } }
    }

    /// True when there is a prefix.
    #[inline]
    pub(crate) const fn has_prefix(self) -> bool {
        self.local != self.start
    }

    /// The part behind the colon.
    #[inline]
    pub(crate) const fn local(self) -> Span {
        Span { start: self.local, end: self.end }
    }

    /// The whole name as written.
    #[inline]
    pub(crate) const fn span(self) -> Span {
        Span { start: self.start, end: self.end }
    }
}

/// An attribute of a start tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute {
    /// Its name as written.
    pub(crate) name: QName,
    /// Its value as written, without the quotes; references are legal.
    pub(crate) raw: Span,
    /// True when the value is what is written: no references, no white space but blanks.
    pub(crate) plain: bool,
    /// True for a namespace declaration.
    pub(crate) declares: bool,
}

impl Attribute {
    /// The attribute as written, from its name to its closing quote.
    pub(crate) const fn span(self) -> Span {
        Span { start: self.name.start, end: self.raw.end + 1 }
    }

    /// Its value as it is read; `scratch` is for one that is not written so.
    #[inline]
    pub(crate) fn value<'a>(&self, text: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let raw = self.raw.of(text);
        if self.plain { raw } else { attribute_value(raw, scratch) }
    }

    /// The prefix that a namespace declaration declares, empty for the default namespace.
    #[inline]
    pub(crate) const fn declared(&self) -> Span {
        debug_assert!(self.declares);
        if self.name.has_prefix() {
            self.name.local()
        } else {
            Span { start: self.name.end, end: self.name.end }
        }
    }
}

/// What the scanner found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    /// A start tag, or an empty-element tag. Its attributes are in the scanner's caller's list.
    Start { name: QName, empty: bool },
    /// An end tag, with the name as written, which may be no name at all.
    End(Span),
    /// Character data without references: whether it is nothing but white space, and whether its line ends are what
    /// they are to be (no carriage return).
    Text { blank: bool, plain: bool },
    /// The content of a CDATA section.
    CData(Span),
    /// A reference, resolved.
    Reference(char),
    /// A comment, a processing instruction or the XML declaration.
    Aside,
    /// The end of the document.
    Done,
}

/// Checks that `body` is text that XML allows and of legal length, and appends it to `texts` without a byte order mark
/// and with the [`PADDING`] that a scanner wants behind it. Returns its length.
pub(crate) fn append_text(body: &[u8], texts: &mut Vec<u8>) -> Result<usize, Malformed> {
    if body.len() > DOCUMENT_LEN_MAX {
        return Err(Malformed::TooLong(body.len()));
    }
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if body.starts_with(BYTE_ORDER_MARK) {
        // A second mark is a character in front of the root.
        return Err(Malformed::OutsideRoot(0));
    }
    let (is_ascii, is_legal) = survey(body);
    if !is_ascii {
        std::str::from_utf8(body).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))?;
    }
    if !is_legal && let Some(at) = body.iter().position(|&byte| is_control(byte)) {
        return Err(Malformed::Character(at));
    }
    // UTF-8 has no surrogates, so beside the controls only U+FFFE and U+FFFF are left.
    let mut from = if is_ascii { body.len() } else { 0 };
    while let Some(at) = memchr::memchr(0xef, &body[from..]) {
        let at = from + at;
        if matches!(body[at..], [0xef, 0xbf, 0xbe | 0xbf, ..]) {
            return Err(Malformed::Character(at));
        }
        from = at + 1;
    }
    texts.extend_from_slice(body);
    texts.extend_from_slice(&[0; PADDING]);
    Ok(body.len())
}

/// Finds the tokens of a text.
pub(crate) struct Scanner<'a> {
    /// The text and its padding.
    text: &'a [u8],
    /// Where the next token begins.
    at: usize,
    /// Where the text ends.
    end: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of the `len` bytes of `text` that [`append_text`] has checked and padded.
    pub(crate) fn new(text: &'a [u8], len: usize) -> Self {
        debug_assert!(text[len..].iter().take(PADDING).eq(&[0; PADDING]));
        Self { text, at: 0, end: len }
    }

    /// The next token and where it stands. Fills `attributes` for a start tag.
    #[inline]
    pub(crate) fn next(&mut self, attributes: &mut Vec<Attribute>) -> Result<(Token, Span), Malformed> {
        let start = self.at;
        let (token, end) = match self.text[start] {
            b'<' => match self.text[start + 1] {
                b'/' => self.end_tag(start)?,
                b'!' | b'?' => self.aside(start, attributes)?,
                _ => self.start_tag(start, attributes)?,
            },
            b'&' => {
                let (char, end) = self.reference(start)?;
                (Token::Reference(char), end)
            }
            _ if start == self.end => (Token::Done, start),
            _ => self.character_data(start)?,
        };
        self.at = end;
        Ok((token, Span::new(start, end)))
    }

    /// A start tag or an empty-element tag.
    #[inline]
    fn start_tag(&self, start: usize, attributes: &mut Vec<Attribute>) -> Result<(Token, usize), Malformed> {
        attributes.clear();
        let name = self.name(start + 1)?;
        let mut at = name.end as usize;
        if self.text[at] != b'>' {
            at = self.attributes(at, attributes)?;
        }
        match (self.text[at], self.text[at + 1]) {
            (b'>', _) => Ok((Token::Start { name, empty: false }, at + 1)),
            (b'/', b'>') => Ok((Token::Start { name, empty: true }, at + 2)),
            _ => Err(Malformed::Syntax(start)),
        }
    }

    /// An end tag.
    #[inline]
    fn end_tag(&self, start: usize) -> Result<(Token, usize), Malformed> {
        let name_start = start + 2;
        let mut name_end = name_start;
        while self.class(name_end) & (NAME | COLON | HIGH) != 0 {
            name_end += 1;
        }
        let at = self.skip_spaces(name_end);
        if self.text[at] != b'>' {
            return Err(Malformed::Syntax(start));
        }
        Ok((Token::End(Span::new(name_start, name_end)), at + 1))
    }

    /// Character data up to the next markup.
    #[inline]
    fn character_data(&self, start: usize) -> Result<(Token, usize), Malformed> {
        let mut at = start;
        let mut seen = 0;
        loop {
            let class = self.class(at);
            if class & SPACE == 0 {
                break;
            }
            seen |= class;
            at += 1;
        }
        let mut plain = seen & RETURN == 0;
        let blank = matches!(self.text[at], b'<' | b'&' | 0);
        if blank {
            return Ok((Token::Text { blank, plain }, at));
        }
        loop {
            let word = self.word(at);
            // `<` and `>` differ in one bit.
            let stops = equal(word | repeat(b'<' ^ b'>'), b'>') | equal(word, b'&') | below(word, b'\r' + 1);
            if stops == 0 {
                at += 8;
                continue;
            }
            at += first(stops);
            match self.text[at] {
                b'<' | b'&' | 0 => return Ok((Token::Text { blank, plain }, at)),
                // XML 1.0 §2.4: "]]>" stands in no content but as the end of a CDATA section.
                b'>' if self.text[start..at].ends_with(b"]]") => return Err(Malformed::Syntax(start)),
                b'\r' => plain = false,
                _ => {}
            }
            at += 1;
        }
    }

    /// A comment, a CDATA section, a processing instruction or the XML declaration: what begins with `<!` or `<?`.
    #[cold]
    fn aside(&self, start: usize, attributes: &mut Vec<Attribute>) -> Result<(Token, usize), Malformed> {
        let rest = &self.text[start..self.end];
        if start == 0 && rest.starts_with(USUAL_DECLARATION) {
            return Ok((Token::Aside, USUAL_DECLARATION.len()));
        }
        if let Some(comment) = rest.strip_prefix(b"<!--") {
            // XML 1.0 §2.5: a comment holds no "--" and does not end with "-".
            let len = memchr::memmem::find(comment, b"--").ok_or(Malformed::Syntax(start))?;
            if comment.get(len + 2) != Some(&b'>') {
                return Err(Malformed::Syntax(start));
            }
            return Ok((Token::Aside, start + b"<!--".len() + len + b"-->".len()));
        }
        if let Some(section) = rest.strip_prefix(b"<![CDATA[") {
            let len = memchr::memmem::find(section, b"]]>").ok_or(Malformed::Syntax(start))?;
            let content = start + b"<![CDATA[".len();
            return Ok((Token::CData(Span::new(content, content + len)), content + len + b"]]>".len()));
        }
        let Some(instruction) = rest.strip_prefix(b"<?") else {
            let is_doctype = matches!(rest, [_, _, b'D' | b'd', ..]);
            return Err(if is_doctype { Malformed::Doctype(start) } else { Malformed::Syntax(start) });
        };
        let len = memchr::memmem::find(instruction, b"?>").ok_or(Malformed::Syntax(start))?;
        let target = instruction[..len].split(|&byte| is_space(byte)).next().unwrap_or_default();
        if target == b"xml" {
            return Ok((Token::Aside, self.declaration(start, attributes)?));
        }
        if target.eq_ignore_ascii_case(b"xml") || !is_ncname(target) {
            return Err(Malformed::Name(start));
        }
        Ok((Token::Aside, start + b"<?".len() + len + b"?>".len()))
    }

    /// Checks the XML declaration (XML 1.0 §2.8) and says where it ends.
    fn declaration(&self, start: usize, attributes: &mut Vec<Attribute>) -> Result<usize, Malformed> {
        let wrong = Malformed::Declaration(start);
        if start != 0 {
            return Err(wrong);
        }
        attributes.clear();
        let end = self.attributes(b"<?xml".len(), attributes).map_err(|_| wrong)?;
        if !self.text[end..].starts_with(b"?>") {
            return Err(wrong);
        }
        let mut pairs = attributes
            .iter()
            .map(|attribute| (attribute.name.span().of(self.text), attribute.raw.of(self.text)))
            .peekable();
        let Some((b"version", version)) = pairs.next() else { return Err(wrong) };
        let minor = version.strip_prefix(b"1.").ok_or(wrong)?;
        // XML 1.1 allows characters that a reader of 1.0 refuses; what is copied must suit both.
        if minor.is_empty() || !minor.iter().all(u8::is_ascii_digit) || minor == b"1" {
            return Err(wrong);
        }
        if let Some((_, encoding)) = pairs.next_if(|pair| pair.0 == b"encoding")
            && !["utf-8", "utf8", "us-ascii"]
                .iter()
                .any(|name| encoding.eq_ignore_ascii_case(name.as_bytes()))
        {
            return Err(Malformed::Encoding(start));
        }
        let standalone = pairs.next_if(|pair| pair.0 == b"standalone");
        if standalone.is_some_and(|pair| !matches!(pair.1, b"yes" | b"no")) || pairs.next().is_some() {
            return Err(wrong);
        }
        Ok(end + b"?>".len())
    }

    /// Lists the attributes from `at` on, which is behind a name, and says where what is no attribute begins.
    fn attributes(&self, mut at: usize, list: &mut Vec<Attribute>) -> Result<usize, Malformed> {
        loop {
            let start = self.skip_spaces(at);
            if matches!(self.text[start], b'>' | b'/' | b'?') {
                return Ok(start);
            }
            if start == at {
                return Err(Malformed::Attribute(at));
            }
            let name = self.name(start)?;
            let equals = self.skip_spaces(name.end as usize);
            if self.text[equals] != b'=' {
                return Err(Malformed::Attribute(equals));
            }
            let open = self.skip_spaces(equals + 1);
            let (value, plain) = self.value(open)?;
            if list.len() == bounds::ATTRIBUTES_MAX {
                return Err(Malformed::TooManyAttributes(start));
            }
            let declares = self.is_declaration(name);
            list.push(Attribute { name, raw: value, plain, declares });
            at = value.end as usize + 1;
        }
    }

    /// True for the name of a namespace declaration (Namespaces in XML §3).
    #[inline]
    fn is_declaration(&self, name: QName) -> bool {
        const XMLNS: u64 = u64::from_le_bytes(*b"xmlns\0\0\0");
        let len = if name.has_prefix() { name.local - 1 } else { name.end } - name.start;
        len == 5 && self.word(name.start as usize) & 0xff_ffff_ffff == XMLNS
    }

    /// The value of an attribute, which begins with a quote at `open`: no `<`, and references that resolve. Says also
    /// whether it is what is written.
    #[inline]
    fn value(&self, open: usize) -> Result<(Span, bool), Malformed> {
        let quote = self.text[open];
        if !matches!(quote, b'"' | b'\'') {
            return Err(Malformed::Attribute(open));
        }
        let mut at = open + 1;
        let mut plain = true;
        loop {
            let word = self.word(at);
            let stops = equal(word, quote) | equal(word, b'<') | equal(word, b'&') | below(word, b' ');
            if stops == 0 {
                at += 8;
                continue;
            }
            at += first(stops);
            match self.text[at] {
                b'<' => return Err(Malformed::Attribute(at)),
                b'&' => {
                    at = self.reference(at)?.1;
                    plain = false;
                }
                0 => return Err(Malformed::Attribute(open)),
                byte if byte == quote => return Ok((Span::new(open + 1, at), plain)),
                _ => {
                    at += 1;
                    plain = false;
                }
            }
        }
    }

    /// The reference at `start`, and where it ends.
    #[cold]
    fn reference(&self, start: usize) -> Result<(char, usize), Malformed> {
        let rest = &self.text[start + 1..self.end];
        let len =
            rest.iter().position(|&byte| !matches!(byte, b'#' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'));
        let len = len.filter(|&len| rest[len] == b';').ok_or(Malformed::Reference(start))?;
        let char = entity(&rest[..len]).ok_or(Malformed::Reference(start))?;
        Ok((char, start + 1 + len + 1))
    }

    /// Checks the name at `start` and splits it (Namespaces in XML §4).
    #[inline]
    fn name(&self, start: usize) -> Result<QName, Malformed> {
        let mut local = start;
        let mut at = self.skip_name(start);
        if self.text[at] == b':' {
            local = at + 1;
            at = self.skip_name(local);
        }
        let starts = self.class(start) & self.class(local) & NAME_START != 0;
        if !starts || self.class(at) & (HIGH | COLON) != 0 {
            return self.foreign_name(start);
        }
        Ok(QName { start: start as u32, local: local as u32, end: at as u32 })
    }

    /// [`Self::name`] for a name with characters beyond ASCII, or none at all.
    #[cold]
    fn foreign_name(&self, start: usize) -> Result<QName, Malformed> {
        let mut end = start;
        while self.class(end) & (NAME | COLON | HIGH) != 0 {
            end += 1;
        }
        let name = &self.text[start..end];
        let colon = memchr::memchr(b':', name);
        let (prefix, local) = colon.map_or((None, name), |at| (Some(&name[..at]), &name[at + 1..]));
        if !is_ncname(local) || !prefix.is_none_or(is_ncname) {
            return Err(Malformed::Name(start));
        }
        Ok(QName { start: start as u32, local: (end - local.len()) as u32, end: end as u32 })
    }

    /// Where the part of a name in ASCII that begins at `at` ends.
    #[inline]
    fn skip_name(&self, mut at: usize) -> usize {
        loop {
            // Names are letters, and now and then something else.
            let others = !letters(self.word(at)) & repeat(0x80);
            if others == 0 {
                at += 8;
                continue;
            }
            at += first(others);
            if self.class(at) & NAME == 0 {
                return at;
            }
            at += 1;
        }
    }

    /// Where the white space that begins at `at` ends.
    #[inline]
    fn skip_spaces(&self, mut at: usize) -> usize {
        while self.class(at) & SPACE != 0 {
            at += 1;
        }
        at
    }

    /// The class of the byte at `at`.
    #[inline]
    fn class(&self, at: usize) -> u8 {
        CLASSES[usize::from(self.text[at])]
    }

    /// The eight bytes at `at`, the first in the lowest bits.
    #[inline]
    fn word(&self, at: usize) -> u64 {
        // Zero stops every search; the padding keeps it from being needed.
        self.text[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// How nearly all documents begin, and ours.
pub(crate) const USUAL_DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>";

/// A byte of a name in ASCII that is no colon.
const NAME: u8 = 1;
/// A byte of these that a name may begin with.
const NAME_START: u8 = 2;
/// The colon.
const COLON: u8 = 4;
/// White space.
const SPACE: u8 = 8;
/// The carriage return, which is white space too.
const RETURN: u8 = 16;
/// A byte of a character beyond ASCII.
const HIGH: u8 = 32;

/// The class of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => NAME | NAME_START,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            b':' => COLON,
            b'\r' => SPACE | RETURN,
            b' ' | b'\t' | b'\n' => SPACE,
            0x80.. => HIGH,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Eight times `byte`.
#[inline]
const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of the first byte of `word` that is `byte` is set, and nothing below it.
#[inline]
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ repeat(byte), 1)
}

/// The high bit of the first byte of `word` that is below `bound` (at most 128) is set, and nothing below it.
#[inline]
const fn below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(repeat(bound)) & !word & repeat(0x80)
}

/// The high bits of the bytes of `word` that are letters of ASCII are set, and nothing else.
#[inline]
const fn letters(word: u64) -> u64 {
    // Seven bits and at most seven more stay within their byte.
    let small = (word | repeat(b'a' ^ b'A')) & repeat(0x7f);
    let from_a = small.wrapping_add(repeat(0x80 - b'a'));
    let beyond_z = small.wrapping_add(repeat(0x7f - b'z'));
    from_a & !beyond_z & !word & repeat(0x80)
}

/// Number of the byte whose high bit is the first that is set.
#[inline]
const fn first(bits: u64) -> usize {
    (bits.trailing_zeros() / 8) as usize
}

/// Whether all of `body` is ASCII, and whether it has none of the control characters that XML forbids.
///
/// Bytes are not told apart before the end, so that the compiler makes wide instructions of it.
fn survey(body: &[u8]) -> (bool, bool) {
    let (mut all, mut control) = (0, false);
    for &byte in body {
        all |= byte;
        control |= is_control(byte);
    }
    (all < 0x80, !control)
}

/// True for the control characters that XML does not allow (XML 1.0 §2.2).
#[inline]
const fn is_control(byte: u8) -> bool {
    (byte < b' ') & (byte != b'\t') & (byte != b'\n') & (byte != b'\r')
}

/// True for a name without a colon (XML 1.0 §2.3, Namespaces in XML §3).
fn is_ncname(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_searched_as_their_bytes_are() {
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            // Bytes beside those that are looked for, so that borrows and carries show.
            let bytes: [u8; 8] = std::array::from_fn(|_| {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let near = b"<>&\r\"'@AZ[`az{\0\x0e\x7f\x80\xff"[(seed >> 40) as usize % 19];
                near.wrapping_add((seed >> 60) as u8 % 3).wrapping_sub(1)
            });
            let word = u64::from_le_bytes(bytes);
            let place = |bits: u64| (bits != 0).then(|| first(bits));
            for byte in [b'<', b'&', b'"', 0] {
                assert_eq!(place(equal(word, byte)), bytes.iter().position(|&b| b == byte), "{bytes:x?}");
            }
            for bound in [1, 14, 32, 128] {
                assert_eq!(place(below(word, bound)), bytes.iter().position(|&b| b < bound), "{bytes:x?}");
            }
            let expected = bytes.map(|b| u8::from(b.is_ascii_alphabetic()) << 7);
            assert_eq!(letters(word), u64::from_le_bytes(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn classes_are_those_of_xml() {
        for byte in 0..=u8::MAX {
            let class = CLASSES[usize::from(byte)];
            let char = char::from(byte);
            assert_eq!(class & NAME != 0, byte.is_ascii() && is_name_char(char), "{char:?}");
            assert_eq!(class & NAME_START != 0, byte.is_ascii() && is_name_start(char), "{char:?}");
            assert_eq!(class & SPACE != 0, is_space(byte), "{char:?}");
            assert_eq!(class & HIGH != 0, !byte.is_ascii(), "{char:?}");
        }
    }
}

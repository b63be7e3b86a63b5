//! Character data: references, escapes and white space.

/// What some senders put in front of a document in UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// True for the white space of XML (XML 1.0 §2.3).
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// True when `bytes` holds nothing but white space.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| is_space(byte))
}

/// `bytes` without white space around it.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| !is_space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// True for a character that a document may hold (XML 1.0 §2.2).
pub(crate) const fn is_char(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// The character that `&name;` stands for: one of the five entities of XML, or a character reference.
///
/// Other entities would need a document type, and none is accepted.
pub(crate) fn entity(name: &[u8]) -> Option<char> {
    match name {
        b"lt" => return Some('<'),
        b"gt" => return Some('>'),
        b"amp" => return Some('&'),
        b"apos" => return Some('\''),
        b"quot" => return Some('"'),
        _ => {}
    }
    let number = name.strip_prefix(b"#")?;
    let (digits, radix) = number.strip_prefix(b"x").map_or((number, 10), |hex| (hex, 16));
    if digits.is_empty() {
        return None;
    }
    let mut code = 0_u32;
    for &digit in digits {
        code = code.checked_mul(radix)?.checked_add(char::from(digit).to_digit(radix)?)?;
    }
    char::from_u32(code).filter(|&char| is_char(char))
}

/// The value of an attribute whose references have been checked: references replaced and white space made blank
/// (XML 1.0 §3.3.3). Borrows `raw` when there is nothing to replace.
pub(crate) fn attribute_value<'a>(raw: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let is_special = |byte: &u8| matches!(byte, b'&' | b'\t' | b'\r' | b'\n');
    if !raw.iter().any(is_special) {
        return raw;
    }
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = rest.iter().position(is_special) {
        scratch.extend_from_slice(&rest[..at]);
        let tail = &rest[at + 1..];
        if rest[at] == b'&' {
            let end = tail.iter().position(|&byte| byte == b';').unwrap_or(tail.len());
            push_char(scratch, entity(&tail[..end]).unwrap_or(char::REPLACEMENT_CHARACTER));
            rest = tail.get(end + 1..).unwrap_or_default();
        } else {
            scratch.push(b' ');
            // A line end of two characters is one.
            rest = if rest[at] == b'\r' { tail.strip_prefix(b"\n").unwrap_or(tail) } else { tail };
        }
    }
    scratch.extend_from_slice(rest);
    scratch
}

/// Appends character data with its line ends made `\n` (XML 1.0 §2.11).
pub(crate) fn push_lines(run: &mut Vec<u8>, raw: &[u8]) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\r', rest) {
        run.extend_from_slice(&rest[..at]);
        run.push(b'\n');
        rest = &rest[at + 1..];
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    run.extend_from_slice(rest);
}

/// Appends `char` in UTF-8.
pub(crate) fn push_char(run: &mut Vec<u8>, char: char) {
    run.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends `text` as character data that is safe in elements and in attributes.
///
/// What is not UTF-8 or not allowed in XML becomes U+FFFD, because a watcher would refuse the whole document for it.
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '&' => out.extend_from_slice(b"&amp;"),
                '<' => out.extend_from_slice(b"&lt;"),
                '>' => out.extend_from_slice(b"&gt;"),
                '"' => out.extend_from_slice(b"&quot;"),
                '\'' => out.extend_from_slice(b"&apos;"),
                // A literal carriage return would be read as a line feed.
                '\r' => out.extend_from_slice(b"&#13;"),
                _ => push_char(out, if is_char(char) { char } else { char::REPLACEMENT_CHARACTER }),
            }
        }
        if !chunk.invalid().is_empty() {
            push_char(out, char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Appends the part of a URI behind its scheme, safe in elements and in attributes.
///
/// Escapes of the URI stay as they are; bytes that no URI may hold unescaped (RFC 3986 §2) and XML cannot or may not
/// carry as they are become percent-escapes.
pub(crate) fn escape_uri(uri: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if uri
        .iter()
        .all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\''))
    {
        return out.extend_from_slice(uri);
    }
    for &byte in uri {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\'' => out.extend_from_slice(b"&apos;"),
            b'!'..=b'~' => out.push(byte),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

/// True when `prefix:` occurs in an element, in a name or in content that may be a qualified name.
pub(crate) fn mentions(element: &[u8], prefix: &[u8]) -> bool {
    memchr::memmem::find_iter(element, prefix).any(|at| element.get(at + prefix.len()) == Some(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_the_five_entities_and_legal_characters() {
        assert_eq!(entity(b"amp"), Some('&'));
        assert_eq!(entity(b"#65"), Some('A'));
        assert_eq!(entity(b"#0000000065"), Some('A'));
        assert_eq!(entity(b"#x1F600"), Some('\u{1f600}'));
        for bad in
            ["", "nbsp", "#", "#x", "#0", "#8", "#xD800", "#xFFFF", "#x110000", "#-65", "#+65", "#6F", "#X41"]
        {
            assert_eq!(entity(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(entity(b"#4294967361"), None, "65 and 2 to the power of 32");
    }

    #[test]
    fn attribute_values_are_normalised() {
        let mut scratch = Vec::new();
        assert_eq!(attribute_value(b"plain", &mut scratch), b"plain");
        assert_eq!(attribute_value(b"a\r\nb\tc\rd&lt;&#x20AC;", &mut scratch), "a b c d<\u{20ac}".as_bytes());
    }

    #[test]
    fn escapes_keep_a_document_well_formed() {
        let mut out = Vec::new();
        escape(b"a<b>&\"'\r\x01\xff", &mut out);
        assert_eq!(out, "a&lt;b&gt;&amp;&quot;&apos;&#13;\u{fffd}\u{fffd}".as_bytes());
        out.clear();
        escape_uri("a&b%41 \u{e4}\x00".as_bytes(), &mut out);
        assert_eq!(out, b"a&amp;b%41%20%C3%A4%00");
    }
}

//! Character data: references, escapes and white space.

/// What some senders put in front of a document in UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// True for the white space of XML (XML 1.0 §2.3).
pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// True when `bytes` holds nothing but white space.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| is_space(byte))
}

/// `bytes` without white space around it.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| !is_space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// True for a character that a document may hold (XML 1.0 §2.2).
pub(super) const fn is_char(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// The character that `&name;` stands for: one of the five entities of XML, or a character reference.
///
/// Other entities would need a document type, and none is accepted.
pub(super) fn reference(name: &str) -> Option<char> {
    match name {
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "amp" => return Some('&'),
        "apos" => return Some('\''),
        "quot" => return Some('"'),
        _ => {}
    }
    let number = name.strip_prefix('#')?;
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
    // `from_str_radix` takes a sign, which XML does not.
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let code = u32::from_str_radix(digits, radix).ok()?;
    char::from_u32(code).filter(|&char| is_char(char))
}

/// The value of an attribute whose references have been checked: references replaced and white space made blank
/// (XML 1.0 §3.3.3). Borrows `raw` when there is nothing to replace.
pub(super) fn attribute_value<'a>(raw: &'a str, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if !raw.bytes().any(|byte| matches!(byte, b'&' | b'\t' | b'\r' | b'\n')) {
        return raw.as_bytes();
    }
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\t', '\r', '\n']) {
        scratch.extend_from_slice(&rest.as_bytes()[..at]);
        let tail = &rest[at + 1..];
        if rest.as_bytes()[at] == b'&' {
            let (name, after) = tail.split_once(';').unwrap_or((tail, ""));
            push_char(scratch, reference(name).unwrap_or(char::REPLACEMENT_CHARACTER));
            rest = after;
        } else {
            scratch.push(b' ');
            // A line end of two characters is one.
            rest = if rest.as_bytes()[at] == b'\r' { tail.strip_prefix('\n').unwrap_or(tail) } else { tail };
        }
    }
    scratch.extend_from_slice(rest.as_bytes());
    scratch
}

/// Appends character data with its line ends made `\n` (XML 1.0 §2.11).
pub(super) fn push_lines(run: &mut Vec<u8>, raw: &[u8]) {
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
pub(super) fn push_char(run: &mut Vec<u8>, char: char) {
    run.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends `text` as character data that is safe in elements and in attributes.
///
/// What is not UTF-8 or not allowed in XML becomes U+FFFD, because a watcher would refuse the whole document for it.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
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
pub(super) fn escape_uri(uri: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_the_five_entities_and_legal_characters() {
        assert_eq!(reference("amp"), Some('&'));
        assert_eq!(reference("#65"), Some('A'));
        assert_eq!(reference("#x1F600"), Some('\u{1f600}'));
        for bad in
            ["", "nbsp", "#", "#x", "#0", "#8", "#xD800", "#xFFFF", "#x110000", "#-65", "#+65", "#6F", "#X41"]
        {
            assert_eq!(reference(bad), None, "{bad}");
        }
    }

    #[test]
    fn attribute_values_are_normalised() {
        let mut scratch = Vec::new();
        assert_eq!(attribute_value("plain", &mut scratch), b"plain");
        assert_eq!(attribute_value("a\r\nb\tc\rd&lt;&#x20AC;", &mut scratch), "a b c d<\u{20ac}".as_bytes());
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

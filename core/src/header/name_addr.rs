//! `From`, `To`, `Route`, `Contact` …: a URI with an optional display name and parameters (RFC 3261 §20.10).

use super::BadValue;
use super::chunk::{below, equal, find};
use super::params::{Param, Params, scan};
use super::scan::{bare_end, bracket_end, quoted_end, skip_space, trim_end, value_end};
use super::span::Span;

/// `"Display" <uri>;params` or `uri;params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    raw: &'a [u8],
    display: Span,
    uri: Span,
    /// Empty without a tag.
    tag: Span,
    /// Where the parameters begin.
    params_at: u16,
}

impl<'a> NameAddr<'a> {
    /// Parses a value that holds exactly one.
    ///
    /// Without angle brackets everything from the first `;` belongs to the header, and `?` and `,` are refused
    /// (RFC 3261 §20.10).
    ///
    /// # Errors
    /// [`BadValue`] when the value is not one name-addr or addr-spec with parameters, or has two tags or an empty one.
    // Called: the parser has more values than registers when this is inlined.
    #[inline(never)]
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        let (parsed, end) = Self::parse_at(value, 0)?;
        if end == value.len() { Ok(parsed) } else { Err(BadValue) }
    }

    /// Parses the one that begins at `at`; also gives the position of the comma behind it, or of the end.
    #[inline(always)]
    pub(crate) fn parse_at(bytes: &'a [u8], at: usize) -> Result<(Self, usize), BadValue> {
        Self::parse_each(bytes, at, |_| {})
    }

    /// [`Self::parse_at`] that shows every parameter to `each`.
    #[inline(always)]
    pub(super) fn parse_each(
        bytes: &'a [u8],
        at: usize,
        mut each: impl FnMut(Param<'a>),
    ) -> Result<(Self, usize), BadValue> {
        let start = skip_space(bytes, at);
        let (display_end, left) = match bytes.get(start).ok_or(BadValue)? {
            b'<' => (start, Some(start)),
            b'"' => {
                let end = quoted_end(bytes, start)?;
                (end, Some(skip_space(bytes, end)))
            }
            _ => {
                let end = bare_end(bytes, start);
                let text_end = start + trim_end(&bytes[start..end]).len();
                match bytes.get(end) {
                    Some(b'<') => (text_end, Some(end)),
                    _ => (text_end, None),
                }
            }
        };
        let (display_end, uri, uri_end, end) = match left {
            Some(left) => {
                if bytes.get(left) != Some(&b'<') {
                    return Err(BadValue);
                }
                let end = bracket_end(bytes, left + 1);
                if bytes.get(end) != Some(&b'>') || end == left + 1 {
                    return Err(BadValue);
                }
                (display_end, left + 1, end, end + 1)
            }
            None => {
                if !is_addr_spec(&bytes[start..display_end]) {
                    return Err(BadValue);
                }
                (start, start, display_end, display_end)
            }
        };
        let mut tag = Span::default();
        if let Some((from, to)) = only_tag(bytes, end) {
            // In nearly every From, and in every To of a dialog.
            each(Param { name: b"tag", value: Some(&bytes[from..to]) });
            let parsed = Self {
                raw: &bytes[start..to],
                display: Span::new(start, start, display_end)?,
                uri: Span::new(start, uri, uri_end)?,
                tag: Span::new(start, from, to)?,
                params_at: Span::new(start, end, end)?.end() as u16,
            };
            return Ok((parsed, to));
        }
        let after = scan(bytes, end, |param| {
            if param.name == b"tag" || (param.name.len() == 3 && param.name.eq_ignore_ascii_case(b"tag")) {
                match param.value {
                    Some((from, to)) if from != to && tag.is_empty() => tag = Span::new(start, from, to)?,
                    _ => return Err(BadValue),
                }
            }
            each(Param { name: param.name, value: param.value.map(|(from, to)| &bytes[from..to]) });
            Ok(())
        })?;
        let raw = trim_end(&bytes[start..after]);
        let parsed = Self {
            raw,
            display: Span::new(start, start, display_end)?,
            uri: Span::new(start, uri, uri_end)?,
            tag,
            params_at: Span::new(start, end, end)?.end() as u16,
        };
        Ok((parsed, after))
    }

    /// The bytes in the message, without white space around them.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Display name as written, with its quotes; empty when there is none. May hold any bytes.
    #[must_use]
    pub fn display(&self) -> &'a [u8] {
        self.display.of(self.raw)
    }

    /// The URI without angle brackets. It holds no white space and no control characters, but it is checked no further:
    /// see [`crate::Uri::parse`].
    #[must_use]
    pub fn uri(&self) -> &'a [u8] {
        self.uri.of(self.raw)
    }

    /// The header parameters.
    #[must_use]
    pub fn params(&self) -> Params<'a> {
        Params(&self.raw[usize::from(self.params_at)..])
    }

    /// The `tag` parameter; never empty.
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.tag.of_some(self.raw)
    }
}

/// Where the value of the tag lies, if a tag is all that stands from `at` to the end, without white space.
#[inline(always)]
fn only_tag(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let value = bytes.get(at..)?.strip_prefix(b";tag=")?;
    (!value.is_empty() && value_end(value, 0) == value.len()).then(|| (at + b";tag=".len(), bytes.len()))
}

/// Whether `text` looks like a URI that needs no angle brackets: with a scheme, without white space and `?`.
fn is_addr_spec(text: &[u8]) -> bool {
    let colon = find(text, 0, |word| equal(word, b':'));
    let bad = find(text, 0, |word| below(word, b'!') | equal(word, b'?') | equal(word, b'>'));
    colon < text.len() && bad == text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_tag_is_not_a_tag() {
        let from = NameAddr::parse(br#""x;tag=fake\" <sip:no@no>" <sip:a@h;tag=uri> ; tag = real"#).unwrap();
        assert_eq!(from.tag(), Some(&b"real"[..]));
        assert_eq!(from.uri(), b"sip:a@h;tag=uri");
        assert_eq!(from.display(), br#""x;tag=fake\" <sip:no@no>""#);
    }

    #[test]
    fn addr_spec_parameters_belong_to_the_header() {
        let to = NameAddr::parse(b"sip:51234@10.0.0.27;tag=t;x").unwrap();
        assert_eq!(to.uri(), b"sip:51234@10.0.0.27");
        assert_eq!(to.tag(), Some(&b"t"[..]));
        assert!(to.params().has("x"));
        assert_eq!(NameAddr::parse(b"sip:a@h?Route=x"), Err(BadValue));
    }

    #[test]
    fn display_names_may_be_bare_words_and_any_bytes() {
        let from = NameAddr::parse(b"Caf\xe9 \xff\xfe <sip:a@h>").unwrap();
        assert_eq!(from.display(), b"Caf\xe9 \xff\xfe");
        assert_eq!(from.uri(), b"sip:a@h");
    }

    #[test]
    fn broken_ones_are_refused() {
        for value in [
            &b""[..],
            b"<>",
            b"<sip:a@h",
            b"\"open <sip:a@h>",
            b"\"x\" sip:a@h",
            b"< sip:a@h >",
            b"<sip:a@h> junk",
            b"Bell, Alexander <sip:a@h>",
            b"<sip:a@h>;tag=",
            b"<sip:a@h>;tag",
            b"<sip:a@h>;tag=a;tag=b",
            b"no-scheme",
            b"sip:a b@h",
            b"<sip:a@h>, <sip:b@h>",
        ] {
            assert_eq!(NameAddr::parse(value), Err(BadValue), "{}", value.escape_ascii());
        }
    }
}

//! `From`, `To`, `Route`, `Contact` …: a URI with an optional display name and parameters (RFC 3261 §20.10).

use super::BadValue;
use super::params::{Params, scan};
use super::scan::{URI, WS, all, bare_end, bracket_end, quoted_end, skip, trim_end};

/// `"Display" <uri>;params` or `uri;params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    raw: &'a [u8],
    display: &'a [u8],
    uri: &'a [u8],
    params: Params<'a>,
    tag: Option<&'a [u8]>,
}

impl<'a> NameAddr<'a> {
    /// Parses a value that holds exactly one.
    ///
    /// Without angle brackets everything from the first `;` belongs to the header, and `?` and `,` are refused
    /// (RFC 3261 §20.10).
    ///
    /// # Errors
    /// [`BadValue`] when the value is not one name-addr or addr-spec with parameters, or has two tags or an empty one.
    #[inline(always)]
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        let (parsed, end) = Self::parse_at(value, 0)?;
        if end == value.len() { Ok(parsed) } else { Err(BadValue) }
    }

    /// Parses the one that begins at `at`; also gives the position of the comma behind it, or of the end.
    #[inline(always)]
    pub(crate) fn parse_at(bytes: &'a [u8], at: usize) -> Result<(Self, usize), BadValue> {
        let start = skip(bytes, at, WS);
        let (display, left) = match bytes.get(start).ok_or(BadValue)? {
            b'<' => (&bytes[start..start], Some(start)),
            b'"' => {
                let end = quoted_end(bytes, start)?;
                (&bytes[start..end], Some(skip(bytes, end, WS)))
            }
            _ => {
                let end = bare_end(bytes, start);
                let text = trim_end(&bytes[start..end]);
                match bytes.get(end) {
                    Some(b'<') => (text, Some(end)),
                    _ => (text, None),
                }
            }
        };
        let (display, uri, end) = match left {
            Some(left) => {
                if bytes.get(left) != Some(&b'<') {
                    return Err(BadValue);
                }
                let end = bracket_end(bytes, left + 1);
                if bytes.get(end) != Some(&b'>') || end == left + 1 {
                    return Err(BadValue);
                }
                (display, &bytes[left + 1..end], end + 1)
            }
            None => {
                if !all(display, URI) || !display.contains(&b':') || display.contains(&b'?') {
                    return Err(BadValue);
                }
                (&bytes[start..start], display, start + display.len())
            }
        };
        let mut tag = None;
        let after = scan(bytes, end, |name, value| {
            if name.len() == 3 && name.eq_ignore_ascii_case(b"tag") {
                match value {
                    Some(value) if !value.is_empty() && tag.is_none() => tag = Some(value),
                    _ => return Err(BadValue),
                }
            }
            Ok(())
        })?;
        let raw = trim_end(&bytes[start..after]);
        let params = Params(raw.get(end - start..).unwrap_or_default());
        Ok((Self { raw, display, uri, params, tag }, after))
    }

    /// The bytes in the message, without white space around them.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Display name as written, with its quotes; empty when there is none. May hold any bytes.
    #[must_use]
    pub const fn display(&self) -> &'a [u8] {
        self.display
    }

    /// The URI without angle brackets. It holds no white space and no control characters, but it is checked no further:
    /// see [`crate::Uri::parse`].
    #[must_use]
    pub const fn uri(&self) -> &'a [u8] {
        self.uri
    }

    /// The header parameters.
    #[must_use]
    pub const fn params(&self) -> Params<'a> {
        self.params
    }

    /// The `tag` parameter; never empty.
    #[must_use]
    pub const fn tag(&self) -> Option<&'a [u8]> {
        self.tag
    }
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

//! Parameters of a header value or of a URI: `;name=value;flag` (RFC 3261 §7.3.1, §25.1 `generic-param`).

use super::BadValue;
use super::scan::{TOKEN, position, quoted_end, skip, skip_space, tight_end, value_end};

/// Parameters as they stand in the message, beginning at the first `;` (or empty).
///
/// Names are compared without case (RFC 3261 §7.3.1). White space around `;` and `=` is no part of names and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(pub(crate) &'a [u8]);

impl<'a> Params<'a> {
    /// Parameters that fill `raw` from its first `;` to its end; empty is fine.
    ///
    /// # Errors
    /// [`BadValue`] when `raw` is anything else than a list of parameters.
    pub fn parse(raw: &'a [u8]) -> Result<Self, BadValue> {
        let end = scan(raw, 0, |_| Ok(()))?;
        if end == raw.len() { Ok(Self(raw)) } else { Err(BadValue) }
    }

    /// Parameters of a URI: no white space, no quotes; each has a name.
    pub(crate) fn parse_uri(raw: &'a [u8]) -> Result<Self, BadValue> {
        let Some((b';', rest)) = raw.split_first() else {
            return if raw.is_empty() { Ok(Self(raw)) } else { Err(BadValue) };
        };
        // `paramchar` (RFC 3261 §25.1) holds `[ ] / : & + $` beside the token characters; what stands before `=` is a
        // name to us only if it is a token.
        if position(raw, b',').is_some() {
            return Err(BadValue);
        }
        let mut rest = rest;
        loop {
            let name = skip(rest, 0, TOKEN);
            let end = match rest.get(name) {
                _ if name == 0 => return Err(BadValue),
                None => return Ok(Self(raw)),
                Some(b';') => name,
                Some(b'=') => match position(&rest[name..], b';') {
                    Some(len) => name + len,
                    None => return Ok(Self(raw)),
                },
                Some(_) => return Err(BadValue),
            };
            rest = &rest[end + 1..];
        }
    }

    /// The bytes in the message.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first parameter called `name`: `None` if there is none, `Some(None)` if it has no value, else its value with
    /// its quotes, if it has any (see [`unquote`]).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.iter().find(|param| param.name.eq_ignore_ascii_case(name.as_bytes())).map(|param| param.value)
    }

    /// The value of the first parameter called `name`, if it is there and has one.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.get(name).flatten()
    }

    /// Whether a parameter is called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Takes a list that was [parsed](Self::parse) before it was stored. Should it be none after all, it ends where it stops
    /// being one.
    #[must_use]
    pub const fn parsed_before(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// Whether they hold neither white space nor one of `letters`, in either case: then they may be repeated as they stand, and
    /// no name has any of the letters.
    #[must_use]
    pub fn are_tight_without<const N: usize>(&self, letters: [u8; N]) -> bool {
        tight_end(self.0, letters) == self.0.len()
    }

    /// All parameters in order.
    #[must_use]
    pub const fn iter(&self) -> ParamIter<'a> {
        ParamIter { raw: self.0, at: 0 }
    }
}

impl<'a> IntoIterator for Params<'a> {
    type Item = Param<'a>;
    type IntoIter = ParamIter<'a>;

    fn into_iter(self) -> ParamIter<'a> {
        self.iter()
    }
}

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// Name as written.
    pub name: &'a [u8],
    /// Value as written, with its quotes if it is a quoted string; `None` without `=`.
    pub value: Option<&'a [u8]>,
}

impl<'a> Param<'a> {
    /// Puts the value where its name stands among `names`, unless one is there.
    #[inline(always)]
    pub(super) fn note<const N: usize>(self, names: [&str; N], found: &mut [Option<Option<&'a [u8]>>; N]) {
        for (name, found) in names.iter().zip(found) {
            if found.is_none()
                && self.name.len() == name.len()
                && (self.name == name.as_bytes() || self.name.eq_ignore_ascii_case(name.as_bytes()))
            {
                *found = Some(self.value);
            }
        }
    }
}

/// Iterates over [`Params`].
#[derive(Clone, Debug)]
pub struct ParamIter<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Iterator for ParamIter<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        match one(self.raw, self.at) {
            Ok(Some(found)) => {
                self.at = found.end;
                Some(Param { name: found.name, value: found.value.map(|(start, end)| &self.raw[start..end]) })
            }
            // The list was checked when the value was parsed.
            Ok(None) | Err(BadValue) => {
                self.at = self.raw.len();
                None
            }
        }
    }
}

/// A parameter and where it lies.
pub(super) struct Found<'a> {
    pub(super) name: &'a [u8],
    /// Start and end of the value, if there is a `=`.
    pub(super) value: Option<(usize, usize)>,
    /// Where reading goes on.
    end: usize,
}

/// Reads parameters from `at` to a comma or the end of `bytes` and returns that position; `each` sees every one of them.
#[inline(always)]
pub(super) fn scan<'a>(
    bytes: &'a [u8],
    mut at: usize,
    mut each: impl FnMut(Found<'a>) -> Result<(), BadValue>,
) -> Result<usize, BadValue> {
    while let Some(found) = one(bytes, at)? {
        at = found.end;
        each(found)?;
    }
    Ok(skip_space(bytes, at))
}

/// The parameter that begins at `at`; `None` at a comma or at the end.
#[inline(always)]
fn one(bytes: &[u8], at: usize) -> Result<Option<Found<'_>>, BadValue> {
    let at = skip_space(bytes, at);
    match bytes.get(at) {
        None | Some(b',') => return Ok(None),
        Some(b';') => {}
        Some(_) => return Err(BadValue),
    }
    let start = skip_space(bytes, at + 1);
    let end = skip(bytes, start, TOKEN);
    if start == end {
        return Err(BadValue);
    }
    let name = &bytes[start..end];
    let equals = skip_space(bytes, end);
    if bytes.get(equals) != Some(&b'=') {
        return Ok(Some(Found { name, value: None, end }));
    }
    let start = skip_space(bytes, equals + 1);
    let end = match bytes.get(start) {
        Some(b'"') => quoted_end(bytes, start)?,
        _ => value_end(bytes, start),
    };
    Ok(Some(Found { name, value: Some((start, end)), end }))
}

/// The text of a parameter value or display name without its quotes; escapes stay as they are.
#[must_use]
pub fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

/// Appends the text of a parameter value or display name to `out`, without quotes and with escapes resolved.
pub fn unquote_into(value: &[u8], out: &mut Vec<u8>) {
    let [b'"', inner @ .., b'"'] = value else {
        out.extend_from_slice(value);
        return;
    };
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => out.extend(bytes.next()),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ignore_case_and_white_space_is_no_part_of_them() {
        let params = Params::parse(b" ; Branch = z9 ;\r\n rport;x=\"a;b=\\\"c\"").unwrap();
        assert_eq!(params.get("branch"), Some(Some(&b"z9"[..])));
        assert_eq!(params.get("RPORT"), Some(None));
        assert_eq!(params.value("x"), Some(&b"\"a;b=\\\"c\""[..]));
        assert_eq!(params.get("b"), None);
        assert_eq!(params.iter().count(), 3);
    }

    #[test]
    fn empty_names_and_trailing_text_are_refused() {
        assert!(Params::parse(b"").unwrap().is_empty());
        assert_eq!(Params::parse(b";;a"), Err(BadValue));
        assert_eq!(Params::parse(b";"), Err(BadValue));
        assert_eq!(Params::parse(b";a=b c"), Err(BadValue));
        assert_eq!(Params::parse(b";a=\"open"), Err(BadValue));
        assert_eq!(Params::parse(b";a,b"), Err(BadValue));
    }

    #[test]
    fn unquoting_resolves_escapes() {
        let mut out = Vec::new();
        unquote_into(br#""a\"b\\c""#, &mut out);
        assert_eq!(out, br#"a"b\c"#);
        assert_eq!(unquote(b"\"a\""), b"a");
        assert_eq!(unquote(b"a"), b"a");
        assert_eq!(unquote(b"\""), b"\"");
    }
}

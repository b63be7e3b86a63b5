//! Media types: `Content-Type` and `Accept` (RFC 3261 §20.1, §20.15).

use super::BadValue;
use super::params::Params;
use super::scan::{TOKEN, skip, skip_space};
use super::values::Values;

/// `type/subtype;params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    params: Params<'a>,
}

impl<'a> MediaType<'a> {
    /// Parses one media type or, with `*`, one range of them.
    ///
    /// # Errors
    /// [`BadValue`] unless it is `token/token` with parameters.
    #[inline]
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        let kind_end = skip(value, 0, TOKEN);
        let slash = skip_space(value, kind_end);
        if kind_end == 0 || value.get(slash) != Some(&b'/') {
            return Err(BadValue);
        }
        let start = skip_space(value, slash + 1);
        let end = skip(value, start, TOKEN);
        if start == end {
            return Err(BadValue);
        }
        let params = Params::parse(&value[end..])?;
        Ok(Self { kind: &value[..kind_end], subtype: &value[start..end], params })
    }

    /// The part before the slash as written.
    #[must_use]
    pub const fn kind(&self) -> &'a [u8] {
        self.kind
    }

    /// The part behind the slash as written.
    #[must_use]
    pub const fn subtype(&self) -> &'a [u8] {
        self.subtype
    }

    /// Whether this is `name` (`"application/pidf+xml"`), compared without case and without parameters.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let same = |ours: &[u8], theirs: &[u8]| ours == theirs || ours.eq_ignore_ascii_case(theirs);
        let at = self.kind.len();
        // `kind` is a token, so the first slash of a name that fits stands behind it.
        match (name.as_bytes().get(..at), name.as_bytes().get(at..)) {
            (Some(kind), Some([b'/', subtype @ ..])) => same(self.kind, kind) && same(self.subtype, subtype),
            _ => false,
        }
    }

    /// The value of a parameter, with its quotes if it has any.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a [u8]> {
        self.params.value(name)
    }

    /// All parameters.
    #[must_use]
    pub const fn params(&self) -> Params<'a> {
        self.params
    }
}

/// One element of an Accept header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptRange<'a> {
    /// The media range, `*` for any type or subtype.
    pub range: MediaType<'a>,
    /// Preference in thousandths; 1000 when there is no `q` or a malformed one.
    pub q: u16,
}

/// All Accept headers of a message.
#[derive(Clone, Debug)]
pub struct Accept<'a> {
    present: bool,
    values: Values<'a>,
}

impl<'a> Accept<'a> {
    /// The ranges in `values`; `present` tells an empty header from none.
    pub(crate) const fn new(present: bool, values: Values<'a>) -> Self {
        Self { present, values }
    }

    /// Whether the message has an Accept header. Without one the event package's default counts (RFC 6665 §4.4.3 and
    /// the package); an empty one accepts nothing (RFC 3261 §20.1).
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.present
    }

    /// The ranges in order; malformed elements are left out.
    pub fn ranges(&self) -> impl Iterator<Item = AcceptRange<'a>> + use<'a> {
        self.values.clone().filter_map(|value| {
            let range = MediaType::parse(value).ok()?;
            let q = range.param("q").and_then(|q| thousandths(q).ok()).unwrap_or(1000);
            Some(AcceptRange { range, q })
        })
    }

    /// How much `media_type` is wanted, in thousandths; 0 when it is not. The most specific range decides
    /// (RFC 9110 §12.5.1).
    #[must_use]
    pub fn q(&self, media_type: &str) -> u16 {
        let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
        let mut best = (0, 0);
        for AcceptRange { range, q } in self.ranges() {
            let rank = if range.is(media_type) {
                3
            } else if range.subtype == b"*" && range.kind.eq_ignore_ascii_case(kind.as_bytes()) {
                2
            } else if range.subtype == b"*" && range.kind == b"*" {
                1
            } else {
                continue;
            };
            debug_assert!(!subtype.is_empty(), "a media type has a subtype");
            best = best.max((rank, q));
        }
        best.1
    }

    /// Whether `media_type` (`"application/pidf+xml"`) is wanted. False when there is no Accept header at all: ask
    /// [`Self::is_present`] first.
    #[must_use]
    pub fn allows(&self, media_type: &str) -> bool {
        // The usual one, alone on its line, is not taken apart. Whatever else is accepted, nothing is more specific.
        self.values.first_line() == Some(media_type.as_bytes()) || self.q(media_type) > 0
    }
}

/// A `qvalue` (RFC 3261 §25.1) in thousandths.
pub(crate) fn thousandths(q: &[u8]) -> Result<u16, BadValue> {
    let (whole, fraction) = match q {
        [whole] => (*whole, &[][..]),
        [whole, b'.', fraction @ ..] => (*whole, fraction),
        _ => return Err(BadValue),
    };
    if !matches!(whole, b'0' | b'1') || fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return Err(BadValue);
    }
    let digit = |i: usize| fraction.get(i).map_or(0, |digit| u16::from(digit - b'0'));
    let value = u16::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    if value > 1000 { Err(BadValue) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_subtype_ignore_case() {
        let media = MediaType::parse(b"Application / PIDF+xml ;charset=\"utf-8\"").unwrap();
        assert!(media.is("application/pidf+xml"));
        assert!(!media.is("application/pidf"));
        assert_eq!(media.param("Charset"), Some(&b"\"utf-8\""[..]));
        for value in [&b""[..], b"text", b"text/", b"/plain", b"text/plain junk"] {
            assert_eq!(MediaType::parse(value), Err(BadValue));
        }
    }

    #[test]
    fn q_is_read_in_thousandths() {
        assert_eq!(thousandths(b"1"), Ok(1000));
        assert_eq!(thousandths(b"0.7"), Ok(700));
        assert_eq!(thousandths(b"0.025"), Ok(25));
        assert_eq!(thousandths(b"1."), Ok(1000));
        for q in [&b""[..], b"2", b"1.001", b"0.1234", b"-1", b".5"] {
            assert_eq!(thousandths(q), Err(BadValue));
        }
    }
}

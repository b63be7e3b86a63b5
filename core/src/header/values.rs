//! Headers that may stand on several lines and hold several values on each (RFC 3261 §7.3.1).

use super::scan::{WS, element_end, skip, trim_end};
use super::{BadValue, HeaderName, NameAddr};

/// Where one header line lies in its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Which header it is.
    pub name: HeaderName,
    /// Length of the name as written.
    pub name_len: u8,
    /// Start of the name.
    pub name_start: u16,
    /// Start of the value, without white space.
    pub value_start: u16,
    /// End of the value, without white space.
    pub value_end: u16,
}

const _: () = assert!(size_of::<Line>() == 8);

impl Line {
    /// The name as written.
    pub(crate) fn name_text<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.name_start as usize..][..self.name_len as usize]
    }

    /// The value, folds included.
    #[inline]
    pub(crate) fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.value_start as usize..self.value_end as usize]
    }
}

/// The raw values of all lines of one header, in order; each may hold several comma-separated values.
#[derive(Clone, Debug)]
pub struct Lines<'m, 'a> {
    bytes: &'a [u8],
    lines: std::slice::Iter<'m, Line>,
    name: HeaderName,
}

impl<'m, 'a> Lines<'m, 'a> {
    /// The lines of header `name` among `lines`, whose spans point into `bytes`.
    pub(crate) fn new(bytes: &'a [u8], lines: &'m [Line], name: HeaderName) -> Self {
        Self { bytes, lines: lines.iter(), name }
    }
}

impl<'a> Iterator for Lines<'_, 'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let name = self.name;
        self.lines.find(|line| line.name == name).map(|line| line.value(self.bytes))
    }
}

/// The comma-separated values of one header across all its lines, without white space around them. Commas in quotes and
/// angle brackets do not separate; empty elements are left out.
#[derive(Clone, Debug)]
pub struct Values<'m, 'a> {
    lines: Lines<'m, 'a>,
    /// What is left of the present line.
    rest: &'a [u8],
}

impl<'m, 'a> Values<'m, 'a> {
    /// The values on `lines`.
    pub(crate) const fn new(lines: Lines<'m, 'a>) -> Self {
        Self { lines, rest: &[] }
    }
}

impl<'a> Iterator for Values<'_, 'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while self.rest.is_empty() {
                self.rest = self.lines.next()?;
                if self.rest.is_empty() {
                    continue;
                }
            }
            let start = skip(self.rest, 0, WS);
            let end = element_end(self.rest, start);
            let value = trim_end(&self.rest[start..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !value.is_empty() {
                return Some(value);
            }
        }
    }
}

/// The values of a Route, Record-Route, Path or Service-Route header, across lines and commas.
#[derive(Clone, Debug)]
pub struct Addrs<'m, 'a>(pub(crate) Values<'m, 'a>);

impl<'a> Iterator for Addrs<'_, 'a> {
    type Item = Result<NameAddr<'a>, BadValue>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(NameAddr::parse)
    }
}

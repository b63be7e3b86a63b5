//! Headers that may stand on several lines and hold several values on each (RFC 3261 §7.3.1).

use super::line::{Line, folded_end, is_empty_line};
use super::scan::{element_end, skip_space, trim_end};
use super::{BadValue, HeaderName, NameAddr};

/// Where the first line of each header lies in its message.
#[derive(Clone)]
pub(crate) struct Index {
    /// Start and end of the first value of each header; an absent header has zeros.
    first: [(u16, u16); HeaderName::COUNT],
    /// One bit for each header of which there is more than one line.
    repeated: u64,
}

impl Index {
    /// The index of a message without headers.
    pub(crate) const fn new() -> Self {
        Self { first: [(0, 0); HeaderName::COUNT], repeated: 0 }
    }

    /// Notes a line, and tells whether it is the first of its header.
    #[inline]
    pub(crate) fn add(&mut self, line: &Line) -> bool {
        let first = &mut self.first[line.name as usize];
        if first.1 != 0 {
            self.repeated |= 1 << line.name as u64;
            return false;
        }
        // A message is no longer than 65,535 bytes, so its positions fit.
        *first = (line.value_start as u16, line.value_end as u16);
        true
    }

    /// Whether the header is there.
    #[inline]
    pub(crate) const fn has(&self, name: HeaderName) -> bool {
        self.first[name as usize].1 != 0
    }

    /// The value on the first line of a header.
    #[inline(always)]
    pub(crate) fn first<'a>(&self, bytes: &'a [u8], name: HeaderName) -> Option<&'a [u8]> {
        let (start, end) = self.first[name as usize];
        if end == 0 { None } else { Some(&bytes[usize::from(start)..usize::from(end)]) }
    }

    /// Whether the header is on more than one line.
    #[inline]
    pub(crate) const fn is_repeated(&self, name: HeaderName) -> bool {
        self.repeated & (1 << name as u64) != 0
    }

    /// The values on all lines of a header.
    pub(crate) fn lines<'a>(&self, bytes: &'a [u8], name: HeaderName) -> Lines<'a> {
        let more = self.is_repeated(name);
        Lines {
            bytes,
            name,
            first: self.first(bytes, name),
            at: usize::from(self.first[name as usize].1),
            more,
        }
    }
}

/// The raw values of all lines of one header, in order; each may hold several comma-separated values.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    name: HeaderName,
    /// The first value, until it was given.
    first: Option<&'a [u8]>,
    /// The end of the value given last.
    at: usize,
    /// Whether there may be further lines.
    more: bool,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.more { self.find_next() } else { None }
    }
}

impl<'a> Lines<'a> {
    /// Reads on behind the value given last: the lines of headers that have only one are never read twice.
    fn find_next(&mut self) -> Option<&'a [u8]> {
        // The parser has read all these lines before, so an error cannot occur.
        let mut at = folded_end(self.bytes, self.at).ok()?.1;
        while !is_empty_line(self.bytes, at).ok()? {
            let line = Line::read(self.bytes, at).ok()?;
            if line.name == self.name {
                self.at = line.value_end;
                return Some(&self.bytes[line.value_start..line.value_end]);
            }
            at = line.next;
        }
        self.more = false;
        None
    }
}

/// The comma-separated values of one header across all its lines, without white space around them. Commas in quotes and
/// angle brackets do not separate; empty elements are left out.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    lines: Lines<'a>,
    /// What is left of the present line.
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    /// The values on `lines`.
    pub(crate) const fn new(lines: Lines<'a>) -> Self {
        Self { lines, rest: &[] }
    }

    /// The first line, as long as no value was taken.
    pub(crate) const fn first_line(&self) -> Option<&'a [u8]> {
        self.lines.first
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while self.rest.is_empty() {
                self.rest = self.lines.next()?;
                if self.rest.is_empty() {
                    continue;
                }
            }
            let start = skip_space(self.rest, 0);
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
pub struct Addrs<'a>(pub(crate) Values<'a>);

impl<'a> Iterator for Addrs<'a> {
    type Item = Result<NameAddr<'a>, BadValue>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(NameAddr::parse)
    }
}

//! Header lines: name, colon, value, folds, CRLF (RFC 3261 §7.3.1).

use super::HeaderName;
use super::chunk::{Block, Marks, Positions, below, equal, find, first};
use super::scan::{TOKEN, WS, is, skip, skip_space};
use crate::msg::Malformed;

/// One header line, as positions in the message. All fit 16 bits, as a message does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Which header it is.
    pub name: HeaderName,
    /// End of the name; it starts where the line does.
    pub name_end: usize,
    /// Start of the value, behind white space.
    pub value_start: usize,
    /// End of the value, in front of white space.
    pub value_end: usize,
    /// Start of the next line.
    pub next: usize,
    /// Whether there is a fold in it.
    pub folded: bool,
}

impl Line {
    /// Reads the line at `at`, which is not the empty line that ends the head.
    #[inline(always)]
    pub(crate) fn read(bytes: &[u8], at: usize) -> Result<Self, Malformed> {
        // The end is looked for from the start of the line, not from the colon, so that neither waits for the other.
        let first_end = line_end(bytes, at)?;
        let (end, next) = after_folds(bytes, first_end)?;
        Self::of(bytes, at, end, next, end != first_end)
    }

    /// The line from `at` to the CRLF at `end`, behind all folds if it is `folded`; the next one begins at `next`.
    #[inline(always)]
    fn of(bytes: &[u8], at: usize, end: usize, next: usize, folded: bool) -> Result<Self, Malformed> {
        match usual(bytes, at, end) {
            Some((name, name_end)) => {
                Ok(Self { name, name_end, value_start: name_end + 2, value_end: end, next, folded })
            }
            None => Self::unusual(bytes, at, end, next, folded),
        }
    }

    /// [`Self::of`] for lines of any kind.
    #[cold]
    fn unusual(bytes: &[u8], at: usize, end: usize, next: usize, folded: bool) -> Result<Self, Malformed> {
        let mut end = end;
        let (name, name_end, value_at) = header_name(&bytes[..end], at)?;
        let value_start = skip_space(bytes, value_at).min(end);
        // Only white space is left out: other control characters keep their place at the end of a value.
        while end > value_start && is(bytes[end - 1], WS) {
            end -= 1;
        }
        Ok(Self { name, name_end, value_start, value_end: end, next, folded })
    }
}

/// The lines of a head one after another, all ends found in one pass.
pub(crate) struct HeadLines<'b, F> {
    bytes: &'b [u8],
    /// Where CR, LF, NUL and other characters up to CR stand.
    ends: Positions<'b, F>,
    /// Where the next line begins.
    at: usize,
    /// Whether there was a fold in any header line.
    folded: bool,
}

/// The lines from `at` on.
#[inline(always)]
pub(crate) fn head_lines(bytes: &[u8], at: usize) -> HeadLines<'_, impl Fn(Block) -> Marks + Copy> {
    HeadLines { bytes, ends: Positions::new(bytes, at, |block| below(block, b'\r' + 1)), at, folded: false }
}

impl<F: Fn(Block) -> Marks + Copy> HeadLines<'_, F> {
    /// The end of the start line, which is not folded.
    #[inline(always)]
    pub(crate) fn start_line_end(&mut self) -> Result<usize, Malformed> {
        let end = self.crlf()?;
        self.at = end + 2;
        Ok(end)
    }

    /// The next header line; `None` at the empty one that ends the head.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Malformed> {
        let at = self.at;
        let mut end = self.crlf()?;
        if end == at {
            return Ok(None);
        }
        let folded = matches!(self.bytes.get(end + 2), Some(b' ' | b'\t'));
        if folded {
            end = last_end(self.bytes, end)?;
            self.ends.go_on_at(end + 2);
            self.folded = true;
        }
        self.at = end + 2;
        Line::of(self.bytes, at, end, self.at, folded).map(Some)
    }

    /// Whether there was a fold in any header line.
    #[inline(always)]
    pub(crate) const fn folded(&self) -> bool {
        self.folded
    }

    /// Where the line after the one given last begins.
    #[inline(always)]
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// The position of the next CRLF.
    #[inline(always)]
    fn crlf(&mut self) -> Result<usize, Malformed> {
        loop {
            let at = self.ends.next().ok_or(Malformed::Unterminated)?;
            match self.bytes.get(at..) {
                Some([b'\r', b'\n', ..]) => {
                    self.ends.pass_neighbour();
                    return Ok(at);
                }
                Some([b'\r' | b'\n' | 0, ..]) => return Err(Malformed::LineBreak),
                // Of the other characters up to CR, only tabs occur in practice.
                _ => {}
            }
        }
    }
}

/// Those lines of a head whose names begin with certain letters. The others are passed over: only their first byte is looked at,
/// and nobody looks for characters that may not stand in a line.
pub(crate) struct SomeLines<'b, F> {
    bytes: &'b [u8],
    /// Where LF stands.
    ends: Positions<'b, F>,
    letters: u32,
    /// Where the next line begins.
    at: usize,
}

/// The lines behind the start line whose names begin with one of `letters`, in either case.
#[inline(always)]
pub(crate) fn some_lines<'b>(
    bytes: &'b [u8],
    letters: &[u8],
) -> SomeLines<'b, impl Fn(Block) -> Marks + Copy + use<'b>> {
    // The empty line that ends the head begins with CR.
    let letters = letters.iter().fold(letter(b'\r'), |all, &one| all | letter(one));
    let mut ends = Positions::new(bytes, 0, |block| equal(block, b'\n'));
    let at = ends.next().map_or(bytes.len(), |end| end + 1);
    SomeLines { bytes, ends, letters, at }
}

impl<F: Fn(Block) -> Marks + Copy> SomeLines<'_, F> {
    /// The next such line; `None` at the empty one that ends the head.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Malformed> {
        loop {
            let at = self.at;
            let first = *self.bytes.get(at).ok_or(Malformed::Unterminated)?;
            let end = self.ends.next().ok_or(Malformed::Unterminated)?;
            self.at = end + 1;
            if self.letters & letter(first) == 0 {
                continue;
            }
            match first {
                b'\r' if end == at + 1 => return Ok(None),
                // The rest of a folded line.
                b' ' | b'\t' => {}
                _ if matches!(self.bytes.get(end + 1), Some(b' ' | b'\t')) => {
                    return Line::read(self.bytes, at).map(Some);
                }
                _ if self.bytes[end - 1] != b'\r' || end == at => return Err(Malformed::LineBreak),
                _ => return Line::of(self.bytes, at, end - 1, end + 1, false).map(Some),
            }
        }
    }
}

/// A bit for each letter, whatever its case. Some other bytes share one with a letter; their lines are read and then found to be
/// others.
#[inline(always)]
const fn letter(byte: u8) -> u32 {
    1 << (byte & 31)
}

/// The position of the CRLF that ends the line from `at` on.
#[inline(always)]
pub(crate) fn line_end(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let mut at = at;
    loop {
        // One comparison finds CR, LF and NUL; of the other characters up to CR, only tabs occur in practice.
        at = find(bytes, at, |word| below(word, b'\r' + 1));
        match bytes.get(at..) {
            Some([b'\r', b'\n', ..]) => return Ok(at),
            Some([b'\r' | b'\n' | 0, ..]) => return Err(Malformed::LineBreak),
            Some([_, ..]) => at += 1,
            Some([]) | None => return Err(Malformed::Unterminated),
        }
    }
}

/// The position of the CRLF that ends the value from `at` on, folds passed over, and the start of the next line.
#[inline(always)]
pub(crate) fn folded_end(bytes: &[u8], at: usize) -> Result<(usize, usize), Malformed> {
    let end = line_end(bytes, at)?;
    after_folds(bytes, end)
}

/// [`folded_end`] for a value whose first line ends at `end`.
#[inline(always)]
fn after_folds(bytes: &[u8], mut end: usize) -> Result<(usize, usize), Malformed> {
    while let Some(b' ' | b'\t') = bytes.get(end + 2) {
        end = line_end(bytes, end + 3)?;
    }
    Ok((end, end + 2))
}

/// The position of the CRLF that ends a value whose first line, one of several, ends at `end`.
#[cold]
fn last_end(bytes: &[u8], end: usize) -> Result<usize, Malformed> {
    after_folds(bytes, end).map(|(end, _)| end)
}

/// Whether the line at `at` is the empty one that ends the head; an error if nothing is there.
#[inline]
pub(crate) fn is_empty_line(bytes: &[u8], at: usize) -> Result<bool, Malformed> {
    match bytes.get(at..) {
        Some([b'\r', b'\n', ..]) => Ok(true),
        Some([_, ..]) => Ok(false),
        Some([]) | None => Err(Malformed::Unterminated),
    }
}

/// The header of a line that is written as nearly everybody writes one, and the end of its name: a name that is known and not
/// long, a colon, one space, and a value with no white space behind it.
#[inline(always)]
fn usual(bytes: &[u8], at: usize, end: usize) -> Option<(HeaderName, usize)> {
    let chunk = bytes.get(at..)?.first_chunk()?;
    let len = first(chunk, |word| equal(word, b':'));
    let name = HeaderName::of_chunk(chunk, len)?;
    // A colon behind the end is another line's.
    let line = bytes.get(at..end)?;
    let (value_first, value_last) = (line.get(len + 2)?, line.last()?);
    let is_usual = line[len + 1] == b' ' && *value_first >= b'!' && *value_last >= b'!';
    is_usual.then_some((name, at + len))
}

/// Reads the header name at `at` and its colon: the header, the end of its name, and the position behind the colon.
fn header_name(bytes: &[u8], at: usize) -> Result<(HeaderName, usize, usize), Malformed> {
    let end = skip(bytes, at, TOKEN);
    let mut colon = end;
    // RFC 3261 §25.1 `HCOLON`: spaces and tabs, but no fold, may stand in front of the colon.
    while let Some(b' ' | b'\t') = bytes.get(colon) {
        colon += 1;
    }
    match bytes.get(colon) {
        Some(b':') if end != at => Ok((HeaderName::of(&bytes[at..end]), end, colon + 1)),
        _ => Err(Malformed::HeaderLine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_belong_to_the_value_and_white_space_around_it_does_not() {
        let bytes = b"Subject \t:\r\n one\r\n\ttwo \r\n \r\nTo: x\r\n\r\n";
        let line = Line::read(bytes, 0).unwrap();
        assert_eq!(line.name, HeaderName::Subject);
        assert_eq!(&bytes[line.value_start..line.value_end], b"one\r\n\ttwo");
        assert_eq!(&bytes[line.next..line.next + 2], b"To");
        let line = Line::read(bytes, line.next).unwrap();
        assert_eq!(is_empty_line(bytes, line.next), Ok(true));
    }

    #[test]
    fn lines_are_found_by_their_letters() {
        let bytes =
            b"X y\r\nVia: 1\r\nUser-Agent: x\r\n v: 2\r\n6: 3\r\nv: 4\r\n\tv: 5\r\nnonsense\r\nTo:\r\n\r\n";
        let mut lines = some_lines(bytes, b"Vt");
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.name, &bytes[line.value_start..line.value_end]));
        }
        let via = HeaderName::Via;
        let all: [(HeaderName, &[u8]); 4] =
            [(via, b"1"), (HeaderName::Other, b"3"), (via, b"4\r\n\tv: 5"), (HeaderName::To, b"")];
        assert_eq!(found, all);
        for len in 0..bytes.len() {
            let mut lines = some_lines(&bytes[..len], b"Vt");
            assert!(std::iter::from_fn(|| lines.next().transpose()).any(|line| line.is_err()), "{len}");
        }
    }

    #[test]
    fn lines_of_all_lengths_are_read_alike_one_by_one_and_in_one_pass() {
        for len in 0..140 {
            let long = "x".repeat(len);
            let head =
                format!("To: {long}\r\nFrom: a\r\n {long}\r\n\tb\r\nX-{long}:\r\nVia: {long} \r\n\r\nbody");
            let bytes = head.as_bytes();
            let mut lines = head_lines(bytes, 0);
            let mut at = 0;
            while let Some(line) = lines.next().unwrap() {
                let alone = Line::read(bytes, at).unwrap();
                assert_eq!(format!("{line:?}"), format!("{alone:?}"));
                at = line.next;
            }
            assert_eq!((lines.at(), &bytes[at..]), (at, &b"\r\n\r\nbody"[2..]), "{len}");
        }
    }

    #[test]
    fn a_name_that_only_begins_like_another_is_not_it() {
        // Sixteen bytes are looked up together. A name of sixteen, with a further letter in front of its colon, was taken for
        // the header whose name it begins with.
        for (text, name) in [
            (&b"Content-Encoding: gzip\r\n\r\n"[..], HeaderName::ContentEncoding),
            (b"Content-Encodingx: gzip\r\n\r\n", HeaderName::Other),
            (b"Content-Encodings : gzip\r\n\r\n", HeaderName::Other),
            (b"WWW-Authenticatex: a\r\n\r\n", HeaderName::Other),
            (b"WWW-Authenticate : a\r\n\r\n", HeaderName::WwwAuthenticate),
            (b"Content-Encodin: gzip, long enough\r\n\r\n", HeaderName::Other),
            (b"Expiresx: 1, and long enough\r\n\r\n", HeaderName::Other),
        ] {
            let line = Line::read(text, 0).unwrap();
            assert_eq!(line.name, name, "{}", text.escape_ascii());
        }
        let long: [u8; 16] = *b"Content-Encoding";
        assert_eq!(HeaderName::of_chunk(&long, 16), Some(HeaderName::ContentEncoding));
        assert_eq!(HeaderName::of_chunk(&long, 17), None);
        assert_eq!(HeaderName::of_chunk(&long, 0), None);
        assert_eq!(HeaderName::of(b"Content-Encodingx"), HeaderName::Other);
    }

    #[test]
    fn empty_values_are_values() {
        for text in [&b"To:\r\n\r\n"[..], b"To: \r\n\r\n", b"To:\r\n \r\n\r\n", b"To:\r\nVia: x\r\n\r\n"] {
            let line = Line::read(text, 0).unwrap();
            assert_eq!(line.value_start, line.value_end, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn broken_lines_are_told_apart() {
        for (text, kind) in [
            (&b"To"[..], Malformed::Unterminated),
            (b"To: x", Malformed::Unterminated),
            (b"To: x\r", Malformed::LineBreak),
            (b"To: x\ny\r\n", Malformed::LineBreak),
            (b"To: x\ry\r\n", Malformed::LineBreak),
            (b"To: x\0\r\n", Malformed::LineBreak),
            (b"To x\r\n", Malformed::HeaderLine),
            (b": x\r\n", Malformed::HeaderLine),
            (b" To: x\r\n", Malformed::HeaderLine),
            (b"To\r\n : x\r\n", Malformed::HeaderLine),
            (b"Call\rID: xxxxxxxxxxxxxxx\r\n", Malformed::LineBreak),
            (b"Call\r\n ID: xxxxxxxxxxxxxxx\r\n", Malformed::HeaderLine),
        ] {
            assert_eq!(Line::read(text, 0).unwrap_err(), kind, "{}", text.escape_ascii());
        }
    }
}

//! Character data between two tags.

use super::scan::Span;
use super::text::{is_blank, is_space, push_char, push_lines};

/// The character data since the last tag, references resolved and line ends made `\n`. Nearly always it stands in the
/// text as it is to be read; then it is not copied.
#[derive(Default)]
pub(crate) struct Run {
    /// All of it, if it stands in the text in one piece.
    piece: Span,
    /// All of it otherwise.
    copied: Vec<u8>,
    /// True once there is something that is not white space.
    marked: bool,
}

impl Run {
    /// Begins anew.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.piece = Span::default();
        self.copied.clear();
        self.marked = false;
    }

    /// Takes the text in `span`: whether it is white space only, and whether it has no carriage return.
    #[inline]
    pub(crate) fn push(&mut self, text: &[u8], span: Span, blank: bool, plain: bool) {
        self.marked |= !blank;
        if plain && self.piece.is_empty() && self.copied.is_empty() {
            self.piece = span;
        } else {
            self.copy(text);
            push_lines(&mut self.copied, span.of(text));
        }
    }

    /// Takes the content of a CDATA section.
    #[cold]
    pub(crate) fn push_section(&mut self, text: &[u8], span: Span) {
        self.push(text, span, is_blank(span.of(text)), false);
    }

    /// Takes a reference.
    #[cold]
    pub(crate) fn push_char(&mut self, text: &[u8], char: char) {
        self.marked |= !u8::try_from(char).is_ok_and(is_space);
        self.copy(text);
        push_char(&mut self.copied, char);
    }

    /// All of it.
    #[inline]
    pub(crate) fn of<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        if self.copied.is_empty() { self.piece.of(text) } else { &self.copied }
    }

    /// True when there is nothing but white space.
    #[inline]
    pub(crate) const fn is_blank(&self) -> bool {
        !self.marked
    }

    /// Copies what stands in the text.
    #[cold]
    fn copy(&mut self, text: &[u8]) {
        self.copied.extend_from_slice(self.piece.of(text));
        self.piece = Span::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_one_run() {
        let text = b"one\r\ntwo <three>";
        let span = |piece: &str| {
            let at = memchr::memmem::find(text, piece.as_bytes()).unwrap();
            Span::new(at, at + piece.len())
        };
        let mut run = Run::default();
        assert!(run.is_blank() && run.of(text).is_empty());
        run.push(text, span("two"), false, true);
        assert_eq!((run.of(text), run.is_blank()), (&b"two"[..], false));
        run.push_char(text, '\u{e4}');
        run.push_section(text, span("<three>"));
        run.push(text, span("one\r\ntwo"), false, false);
        assert_eq!(run.of(text), "two\u{e4}<three>one\ntwo".as_bytes());
        run.clear();
        run.push(text, span(" "), true, true);
        run.push_char(text, '\t');
        assert_eq!((run.of(text), run.is_blank()), (&b" \t"[..], true));
        run.push_char(text, '\u{a0}');
        assert!(!run.is_blank(), "XML knows four white spaces");
        run.clear();
        assert!(run.is_blank() && run.of(text).is_empty());
    }
}

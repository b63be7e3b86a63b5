//! Writing messages into a buffer.

use crate::header::scan::line_break;

/// Appends a message to a buffer, line by line.
///
/// No value can end its line: CR and LF in what is written become one space, so a fold is undone and a line break that
/// slipped into a value is harmless.
#[derive(Debug)]
pub struct Writer<'v> {
    out: &'v mut Vec<u8>,
}

impl<'v> Writer<'v> {
    /// A writer that appends to `out`.
    pub const fn new(out: &'v mut Vec<u8>) -> Self {
        Self { out }
    }

    /// `METHOD uri SIP/2.0`.
    pub fn request_line(&mut self, method: &str, uri: &[u8]) -> &mut Self {
        self.out.extend_from_slice(method.as_bytes());
        self.out.push(b' ');
        push_unfolded(self.out, uri);
        self.out.extend_from_slice(b" SIP/2.0\r\n");
        self
    }

    /// `SIP/2.0 code reason`.
    pub fn status_line(&mut self, code: u16, reason: &str) -> &mut Self {
        debug_assert!((100..700).contains(&code), "a status code has three digits");
        let mut start = *b"SIP/2.0 000 ";
        for (at, digit) in [code / 100 % 10, code / 10 % 10, code % 10].into_iter().enumerate() {
            start[8 + at] = b'0' + digit as u8;
        }
        self.out.extend_from_slice(&start);
        push_unfolded(self.out, reason.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// One header line.
    pub fn header(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.header_parts(name, &[value])
    }

    /// One header line whose value is the parts behind one another.
    pub fn header_parts(&mut self, name: &str, parts: &[&[u8]]) -> &mut Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        for part in parts {
            push_unfolded(self.out, part);
        }
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// One header line whose value is a number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        push_number(self.out, value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `CSeq: number METHOD`.
    pub fn cseq(&mut self, number: u32, method: &str) -> &mut Self {
        self.out.extend_from_slice(b"CSeq: ");
        push_number(self.out, u64::from(number));
        self.out.push(b' ');
        self.out.extend_from_slice(method.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `Content-Length: len`.
    pub fn content_length(&mut self, len: usize) -> &mut Self {
        self.number("Content-Length", len as u64)
    }

    /// The empty line that ends the head.
    pub fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    /// Content-Length of a message without body, and the empty line.
    pub fn end_without_body(&mut self) {
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }

    /// Content-Length, the empty line and the body itself.
    pub fn body(&mut self, body: &[u8]) {
        self.content_length(body.len()).end();
        self.out.extend_from_slice(body);
    }

    /// The buffer, for values that are written piece by piece between `name: ` and CRLF.
    pub const fn buffer(&mut self) -> &mut Vec<u8> {
        self.out
    }
}

/// Appends `number` in decimal digits.
#[inline]
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `value` with every run of CR, LF and the white space behind it made one space.
#[inline]
pub(crate) fn push_unfolded(out: &mut Vec<u8>, value: &[u8]) {
    match line_break(value) {
        None => out.extend_from_slice(value),
        Some(_) => push_unfolding(out, value),
    }
}

/// [`push_unfolded`] for a value with a line break in it.
#[cold]
fn push_unfolding(out: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        if !matches!(out.last(), Some(b' ' | b'\t')) {
            out.push(b' ');
        }
        let after = &rest[at..];
        let white = after.iter().position(|byte| !matches!(byte, b'\r' | b'\n' | b' ' | b'\t'));
        rest = &after[white.unwrap_or(after.len())..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_line_by_line() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer
            .request_line("NOTIFY", b"sip:a@h")
            .cseq(7, "NOTIFY")
            .header_parts("Event", &[b"presence", b";id=", b"1"]);
        writer.number("Max-Forwards", 70).body(b"hi");
        assert_eq!(
            out.escape_ascii().to_string(),
            "NOTIFY sip:a@h SIP/2.0\\r\\nCSeq: 7 NOTIFY\\r\\nEvent: presence;id=1\\r\\nMax-Forwards: 70\\r\\n\
             Content-Length: 2\\r\\n\\r\\nhi"
        );
    }

    #[test]
    fn no_value_can_end_its_line() {
        let mut out = Vec::new();
        Writer::new(&mut out).header("Subject", b"one\r\n two\r\n\t three\nVia: x\r");
        assert_eq!(out, b"Subject: one two three Via: x \r\n");
    }
}

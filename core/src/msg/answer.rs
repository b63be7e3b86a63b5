//! The answer that nearly every NOTIFY gets, read at a fraction of what the parser takes.

use crate::header::chunk::{Block, Marks, Positions, equal, find};
use crate::header::scan::value_end;

/// A 2xx to a NOTIFY that says nothing more; see [`plain_answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainAnswer<'a> {
    /// The branch of the topmost Via.
    pub branch: &'a [u8],
    /// The sequence number in CSeq.
    pub cseq: u32,
}

/// Reads a 2xx to a NOTIFY without Contact and without body, written as nearly everybody writes one. `None` is not a verdict:
/// [`parse`](super::parse()) decides then.
///
/// Header fields that say nothing about a NOTIFY's fate are not looked at, so this may read an answer that the parser refuses;
/// what both read they read alike. Whoever matches the branch knows that the answer is to his request.
#[must_use]
pub fn plain_answer(bytes: &[u8]) -> Option<PlainAnswer<'_>> {
    let [b'0'..=b'9', b'0'..=b'9', b' ', ..] = bytes.strip_prefix(b"SIP/2.0 2")? else { return None };
    let mut lines = Lines::of(bytes);
    lines.next()?;
    let branch = branch_of(lines.next()?)?;
    let mut cseq = None;
    loop {
        let line = lines.next()?;
        match line.first()? | SMALL {
            b'c' => match small(*line.first_chunk()?) {
                CSEQ if cseq.is_none() => cseq = Some(notify_number(&line[5..])?),
                CSEQ | CONTACT => return None,
                CONTENT if !is_harmless_content(line) => return None,
                _ => {}
            },
            // Contact and Content-Length in short; nothing else that is usual in an answer begins so. A folded line may say
            // anything.
            b'm' | b'l' | b' ' | TAB => return None,
            EMPTY if line == b"\r\n" && lines.at == bytes.len() => break,
            EMPTY => return None,
            _ => {}
        }
    }
    Some(PlainAnswer { branch, cseq: cseq? })
}

/// The branch of the topmost Via of a response, if that is the first line and nothing in it needs a closer look.
pub(super) fn first_branch(bytes: &[u8]) -> Option<&[u8]> {
    let status_len = find(bytes, 0, |block| equal(block, b'\n')) + 1;
    let [.., b'\r', b'\n'] = bytes.strip_prefix(b"SIP/2.0 ").and(bytes.get(..status_len))? else {
        return None;
    };
    let rest = &bytes[status_len..];
    let line_len = find(rest, 0, |block| equal(block, b'\n')) + 1;
    if matches!(rest.get(line_len)?, b' ' | b'\t') {
        return None;
    }
    branch_of(&rest[..line_len])
}

/// The branch of the topmost Via that a line with its end has, if it stands there as nearly everybody writes it.
#[inline(always)]
fn branch_of(line: &[u8]) -> Option<&[u8]> {
    branch_behind(line.strip_prefix(b"Via: SIP/2.0/")?)
}

/// The branch of the first Via of a value that is given with the end of its line, if it stands there as nearly everybody writes it.
pub(crate) fn plain_branch(value: &[u8]) -> Option<&[u8]> {
    branch_behind(value.strip_prefix(b"SIP/2.0/")?)
}

/// The branch in what follows `SIP/2.0/`.
#[inline(always)]
fn branch_behind(via: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        at = find(via, at, |block| equal(block, b';') | equal(block, b'"') | equal(block, b','));
        let param = via.get(at..)?;
        if let Some(branch) = param.strip_prefix(b";branch=") {
            let len = value_end(branch, 0);
            let ends = len > 0 && matches!(branch.get(len..)?, [b';', ..] | [b'\r', b'\n']);
            return ends.then(|| &branch[..len]);
        }
        if param.first() != Some(&b';') {
            return None;
        }
        at += 1;
    }
}

/// Lines that end in CRLF, with their ends.
struct Lines<'a, F> {
    bytes: &'a [u8],
    ends: Positions<'a, F>,
    /// Where the next one begins.
    at: usize,
}

impl<'a> Lines<'a, fn(Block) -> Marks> {
    /// The lines of `bytes`.
    #[inline(always)]
    fn of(bytes: &'a [u8]) -> Lines<'a, impl Fn(Block) -> Marks + Copy> {
        Lines { bytes, ends: Positions::new(bytes, 0, |block| equal(block, b'\n')), at: 0 }
    }
}

impl<'a, F: Fn(Block) -> Marks + Copy> Iterator for Lines<'a, F> {
    type Item = &'a [u8];

    #[inline(always)]
    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.bytes.get(self.at..=self.ends.next()?)?;
        self.at += line.len();
        line.ends_with(b"\r\n").then_some(line)
    }
}

/// Five letters made small. (`map` of an array is sometimes called, which takes more than this.)
#[inline(always)]
const fn small([a, b, c, d, e]: [u8; 5]) -> [u8; 5] {
    [a | SMALL, b | SMALL, c | SMALL, d | SMALL, e | SMALL]
}

/// The number in ` 17 NOTIFY\r\n`.
fn notify_number(value: &[u8]) -> Option<u32> {
    let value = value.strip_prefix(b" ").unwrap_or(value);
    let digits = value.iter().position(|byte| !byte.is_ascii_digit())?;
    if digits == 0 || digits > 9 || value[digits..] != *b" NOTIFY\r\n" {
        return None;
    }
    Some(value[..digits].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// Whether a line that begins like Content-Length says that there is no body, or is another one.
fn is_harmless_content(line: &[u8]) -> bool {
    if line == b"Content-Length: 0\r\n" {
        return true;
    }
    let Some(rest) = line.get(5..) else { return false };
    let length = rest.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"nt-length"));
    if !length {
        return true;
    }
    rest[9..] == *b": 0\r\n"
}

/// Makes a letter small.
const SMALL: u8 = 0x20;
/// What that makes of a tab, and of the first byte of an empty line.
const TAB: u8 = b'\t' | SMALL;
const EMPTY: u8 = b'\r' | SMALL;
/// Beginnings of lines, in small letters; the colon has that bit already.
const CSEQ: [u8; 5] = *b"cseq:";
const CONTACT: [u8; 5] = *b"conta";
const CONTENT: [u8; 5] = *b"conte";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::{Method, parse};

    const PLAIN: &str = "SIP/2.0 200 Ok\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK~0a0000002a12345678;rport=5060\r\n\
        From: <sip:user@example.com>;tag=~0a0123456789abcdef\r\nTo: \"W, 1\" <sip:watcher@example.com>;tag=wT1\r\n\
        Call-ID: abc@def\r\nCSeq: 17 NOTIFY\r\nUser-Agent: LinphoneAndroid/5.1.4 (pixel) LinphoneSDK/5.2.110\r\n\
        Supported: replaces, outbound, gruu, path\r\nContent-Length: 0\r\n\r\n";

    fn changed(from: &str, to: &str) -> String {
        assert!(PLAIN.contains(from), "{from}");
        PLAIN.replace(from, to)
    }

    #[test]
    fn a_plain_answer_is_read_as_the_parser_reads_it() {
        let two_vias = changed("From:", "Via: SIP/2.0/UDP other;branch=b\r\nFrom:");
        let without_length = changed("Content-Length: 0\r\n", "");
        let param_first = changed(";branch", ";received=192.0.2.7;branch");
        for text in [PLAIN, &two_vias, &without_length, &param_first, &changed("200 Ok", "202 ")] {
            let read = plain_answer(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            let message = parse(text.as_bytes()).unwrap();
            assert!(matches!(message.status(), Some(200..300)));
            assert_eq!(Some(read.branch), message.via().branch());
            assert_eq!((read.cseq, Method::Notify), (message.cseq().number, message.cseq().method));
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser() {
        for text in [
            changed("200", "100"),
            changed("200", "481"),
            changed("200", "2000"),
            changed("SIP/2.0 200", "sip/2.0 200"),
            changed("SIP/2.0 200 Ok", "NOTIFY sip:a@b SIP/2.0"),
            changed("SIP/2.0 200", "\r\nSIP/2.0 200"),
            changed("From:", "Contact: <sip:a@b>\r\nFrom:"),
            changed("From:", "cONTACT : <sip:a@b>\r\nFrom:"),
            changed("From:", "m: <sip:a@b>\r\nFrom:"),
            changed("From:", "CSeq: 17 NOTIFY\r\nFrom:"),
            changed("From:", "l: 3\r\nFrom:"),
            changed("From:", "content-length: 3\r\nFrom:"),
            changed("Content-Length: 0\r\n\r\n", "Content-Length: 1\r\n\r\nx"),
            changed("Content-Length: 0\r\n\r\n", "\r\nx"),
            changed("branch=", "brunch="),
            changed("UDP 192.0.2.1", "UDP\r\n 192.0.2.1"),
            changed(";rport=5060", ";rport=5060\r\n ;x"),
            changed(";branch", ";x=\";branch=y\";branch"),
            changed(";rport", ",SIP/2.0/UDP other;rport"),
            changed("12345678;", "12345678\";"),
            changed("Via:", "Vio:"),
            changed("17 NOTIFY", "NOTIFY"),
            changed("17 NOTIFY", "17 PUBLISH"),
            changed("17 NOTIFY", "17 NOTIFYING"),
            changed("17 NOTIFY", "17 NOTIFY\r\n X"),
            changed("17 NOTIFY", "99999999999 NOTIFY"),
            changed("CSeq", "CSeg"),
            changed("path\r\n", "path\n"),
        ] {
            assert_eq!(plain_answer(text.as_bytes()), None, "{text}");
        }
        for len in 0..PLAIN.len() {
            assert_eq!(plain_answer(&PLAIN.as_bytes()[..len]), None, "{len}");
        }
    }
}

//! The answer that nearly every NOTIFY gets, read at a fraction of what the parser takes.

use crate::header::scan::{TOKEN, skip};

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
    let branch = first_branch(bytes)?;
    let mut cseq = None;
    let mut rest = after_line(bytes)?;
    loop {
        let next = after_line(rest);
        match rest.first()? | SMALL {
            b'c' => match rest.first_chunk::<5>()?.map(|byte| byte | SMALL) {
                CSEQ if cseq.is_none() => cseq = Some(notify_number(&rest[5..])?),
                CSEQ | CONTACT => return None,
                CONTENT if !is_harmless_content(rest) => return None,
                _ => {}
            },
            // Contact and Content-Length in short; nothing else that is usual in an answer begins so.
            b'm' | b'l' => return None,
            b'-' if rest == b"\r\n" => break,
            b'-' => return None,
            _ => {}
        }
        rest = next?;
    }
    Some(PlainAnswer { branch, cseq: cseq? })
}

/// The branch of the topmost Via of a response, if that is the first line and nothing in it needs a closer look.
pub(super) fn first_branch(bytes: &[u8]) -> Option<&[u8]> {
    let via = after_line(bytes.strip_prefix(b"SIP/2.0 ")?)?.strip_prefix(b"Via: SIP/2.0/")?;
    let end = memchr::memchr3(b'\n', b'"', b',', via)?;
    let line = via[..end].strip_suffix(b"\r")?;
    if matches!(via.get(end + 1)?, b' ' | b'\t') {
        return None;
    }
    let mut from = 0;
    loop {
        let param = from + memchr::memchr(b';', &line[from..])?;
        if let Some(branch) = line[param..].strip_prefix(b";branch=") {
            let len = skip(branch, 0, TOKEN);
            let ends = len > 0 && matches!(branch.get(len), None | Some(b';'));
            return ends.then(|| &branch[..len]);
        }
        from = param + 1;
    }
}

/// What stands behind the first line of `bytes`; `None` if that does not end in CRLF.
fn after_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', bytes)?;
    (end > 0 && bytes[end - 1] == b'\r').then(|| &bytes[end + 1..])
}

/// The number in ` 17 NOTIFY\r\n`.
fn notify_number(value: &[u8]) -> Option<u32> {
    let value = value.strip_prefix(b" ").unwrap_or(value);
    let digits = value.iter().position(|byte| !byte.is_ascii_digit())?;
    if digits == 0 || digits > 9 || !value[digits..].starts_with(b" NOTIFY\r\n") {
        return None;
    }
    // A folded line may go on.
    if matches!(value.get(digits + 9), Some(b' ' | b'\t')) {
        return None;
    }
    Some(value[..digits].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// Whether a line that begins like Content-Length says that there is no body, or is another one.
fn is_harmless_content(line: &[u8]) -> bool {
    let Some(rest) = line.get(5..) else { return false };
    let length = rest.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"nt-length"));
    if !length {
        return true;
    }
    matches!(rest[9..].strip_prefix(b": 0\r\n"), Some([next, ..]) if !matches!(next, b' ' | b'\t'))
}

/// Makes a letter small.
const SMALL: u8 = 0x20;
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

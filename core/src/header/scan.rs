//! Reading bytes by their class: the smallest steps of the SIP grammar (RFC 3261 §25.1).
//!
//! Every function takes the whole slice and a position and never reads past the end. The message parser has already
//! made sure that CR and LF occur in a header value only as part of a fold, so here they are white space like any other.

use std::net::Ipv4Addr;

use super::BadValue;
use super::chunk::{Positions, below, equal, find, within};

/// A `token` character.
pub(crate) const TOKEN: u8 = 1;
/// White space inside a header value: space, tab, and the CR LF of a fold.
pub(crate) const WS: u8 = 2;
/// `unreserved` and `user-unreserved` (RFC 3261 §25.1): what stands in a user part without an escape.
pub(crate) const USER: u8 = 4;
/// A character of a host name; `_` is not in the grammar but in the field.
pub(crate) const HOST: u8 = 8;
/// A decimal digit.
pub(crate) const DIGIT: u8 = 16;
/// What stands in a parameter of a URI without an escape: `paramchar` but for `%` (RFC 3261 §25.1).
const PARAM: u8 = 32;
/// Which classes each byte belongs to.
static CLASS: [u8; 256] = classes();

/// Builds [`CLASS`].
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric() || in_set(b, b"-.!%*_+`'~") {
            class |= TOKEN;
        }
        if in_set(b, b" \t\r\n") {
            class |= WS;
        }
        if b.is_ascii_alphanumeric() || in_set(b, b"-._") {
            class |= HOST;
        }
        // `param-unreserved` and `unreserved`.
        if b.is_ascii_alphanumeric() || in_set(b, b"-_.!~*'()[]/:&+$") {
            class |= PARAM;
        }
        // `mark` and `user-unreserved`.
        if b.is_ascii_alphanumeric() || in_set(b, b"-_.!~*'()&=+$,;?/") {
            class |= USER;
        }
        if b.is_ascii_digit() {
            class |= DIGIT;
        }
        table[i] = class;
        i += 1;
    }
    table
}

/// Whether `byte` is one of `set`.
const fn in_set(byte: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == byte {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether `byte` is of one of the classes in `class`.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

/// The first position from `at` on whose byte is not of `class`, or the end.
#[inline]
pub(crate) fn skip(bytes: &[u8], at: usize, class: u8) -> usize {
    let Some(rest) = bytes.get(at..) else { return at };
    let mut at = at;
    // Four at a time: that many need one look at what is left.
    let (fours, _) = rest.as_chunks::<4>();
    for four in fours {
        for &byte in four {
            if !is(byte, class) {
                return at;
            }
            at += 1;
        }
    }
    while let Some(&byte) = bytes.get(at) {
        if !is(byte, class) {
            break;
        }
        at += 1;
    }
    at
}

/// The first position from `at` on that is no white space, or the end. Most often that is `at` itself.
#[inline(always)]
pub(crate) fn skip_space(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        None | Some(b'!'..) => at,
        _ => skip(bytes, at, WS),
    }
}

/// The first position from `at` on of a character up to the space, or the end.
#[inline]
pub(crate) fn word_end(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |word| below(word, b'!'))
}

/// Whether `value` is one word: not empty, and without white space. All that RFC 3261 §25.1 `callid` means to us.
#[inline]
pub(crate) fn is_word(value: &[u8]) -> bool {
    !value.is_empty() && word_end(value, 0) == value.len()
}

/// The end of the unquoted parameter value at `at`: wider than `token`, for IPv6 references and base64 without quotes.
#[inline]
pub(crate) fn value_end(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |word| below(word, b'!') | equal(word, b';') | equal(word, b',') | equal(word, b'"'))
}

/// The end of the text without quotes at `at`: a display name, or a URI without angle brackets.
#[inline]
pub(crate) fn bare_end(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |word| equal(word, b'<') | equal(word, b';') | equal(word, b',') | equal(word, b'"'))
}

/// The position of the bracket that closes the URI at `at`, or of a space or control character in it, or the end.
#[inline]
pub(crate) fn bracket_end(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |word| below(word, b'!') | equal(word, b'>'))
}

/// The first position from `at` on whose byte may not stand in a URI, or the end; bytes from 0x80 up are let through.
#[inline]
pub(crate) fn uri_end(bytes: &[u8], at: usize) -> usize {
    find(bytes, at, |block| {
        below(block, b'!') | equal(block, b'"') | equal(block, b'<') | equal(block, b'>') | equal(block, 0x7f)
    })
}

/// The first position from the start of white space, a control character or one of `letters` in either case, or the end.
#[inline]
pub(crate) fn tight_end<const N: usize>(bytes: &[u8], letters: [u8; N]) -> usize {
    find(bytes, 0, |block| {
        letters.iter().fold(below(block, b'!'), |marks, letter| {
            marks | equal(block, letter.to_ascii_lowercase()) | equal(block, letter.to_ascii_uppercase())
        })
    })
}

/// Whether `host` is of [`HOST`] without capital letters, with no dot at either end and no two side by side.
#[inline]
pub(crate) fn is_small_name(host: &[u8]) -> bool {
    let odd = |block| {
        !(within(block, b'a'..=b'z') | within(block, b'0'..=b'9') | equal(block, b'-') | equal(block, b'_'))
    };
    let mut label = 0;
    for at in Positions::new(host, 0, odd) {
        if at == label || host.get(at) != Some(&b'.') {
            return false;
        }
        label = at + 1;
    }
    label != host.len()
}

/// Whether `bytes`, at least one, may be the value of a parameter of a URI as they stand.
#[inline]
pub(crate) fn is_param_value(bytes: &[u8]) -> bool {
    // From `-` to `:` and small letters is nearly all that a URN has; only what is not among them is looked up.
    let mut at = 0;
    loop {
        at = find(bytes, at, |block| !(within(block, b'-'..=b':') | within(block, b'a'..=b'z')));
        match bytes.get(at) {
            Some(&byte) if is(byte, PARAM) => at += 1,
            Some(_) => return false,
            None => return !bytes.is_empty(),
        }
    }
}

/// The first position of a byte that ends a URI for [`uri_end`], of an escape, or of `?`; or the end.
#[inline]
pub(crate) fn odd_end(bytes: &[u8]) -> usize {
    find(bytes, 0, |block| {
        below(block, b'#')
            | equal(block, b'%')
            | equal(block, b'<')
            | equal(block, b'>')
            | equal(block, b'?')
            | equal(block, 0x7f)
    })
}

/// The first position of CR or LF.
#[inline]
pub(crate) fn line_break(bytes: &[u8]) -> Option<usize> {
    let at = find(bytes, 0, |block| equal(block, b'\r') | equal(block, b'\n'));
    (at < bytes.len()).then_some(at)
}

/// The first position of `byte`.
#[inline]
pub(crate) fn position(bytes: &[u8], byte: u8) -> Option<usize> {
    let at = find(bytes, 0, |block| equal(block, byte));
    (at < bytes.len()).then_some(at)
}

/// Whether two of `byte` stand side by side.
#[inline]
pub(crate) fn has_pair(bytes: &[u8], byte: u8) -> bool {
    let mut at = 0;
    loop {
        at = find(bytes, at, |block| equal(block, byte));
        match bytes.get(at + 1) {
            None => return false,
            Some(&next) if next == byte => return true,
            Some(_) => at += 2,
        }
    }
}

/// Whether there is nothing but decimal digits and dots.
#[inline]
pub(crate) fn all_digits_and_dots(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == b'.' || byte.is_ascii_digit())
}

/// The IPv4 address that `bytes` are: four numbers without leading zeros, dots between them, as
/// [`std::net::Ipv4Addr`] reads it.
pub(crate) fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    let digit = |at: usize| bytes.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10);
    let mut octets = [0; 4];
    let mut at = 0;
    for (n, octet) in octets.iter_mut().enumerate() {
        if n > 0 {
            if bytes.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let first = digit(at)?;
        at += 1;
        *octet = match (first, digit(at)) {
            (_, None) => first,
            (0, Some(_)) => return None,
            (_, Some(second)) => {
                at += 1;
                match digit(at) {
                    None => first * 10 + second,
                    Some(third) => {
                        at += 1;
                        u8::try_from(u16::from(first) * 100 + u16::from(second * 10 + third)).ok()?
                    }
                }
            }
        };
    }
    (at == bytes.len()).then(|| Ipv4Addr::from(octets))
}

/// Whether all of `bytes`, at least one, are of `class`.
pub(crate) fn all(bytes: &[u8], class: u8) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is(byte, class))
}

/// `bytes` without white space at both ends.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(&bytes[skip_space(bytes, 0)..])
}

/// `bytes` without white space at the end.
#[inline]
pub(crate) fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes {
        if !is(*last, WS) {
            break;
        }
        bytes = rest;
    }
    bytes
}

/// The position behind the quoted string that begins at `at` (RFC 3261 §25.1 `quoted-string`).
pub(crate) fn quoted_end(bytes: &[u8], at: usize) -> Result<usize, BadValue> {
    debug_assert_eq!(bytes.get(at), Some(&b'"'));
    let mut at = at + 1;
    loop {
        at = find(bytes, at, |word| equal(word, b'"') | equal(word, b'\\'));
        match bytes.get(at).ok_or(BadValue)? {
            b'"' => return Ok(at + 1),
            _ => at += 2,
        }
    }
}

/// The end of the element that begins at `at` in a comma-separated list: the next comma outside quotes and angle
/// brackets, or the end of `bytes`. A quote or bracket left open reaches to the end.
pub(crate) fn element_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    loop {
        at = find(bytes, at, |word| equal(word, b',') | equal(word, b'"') | equal(word, b'<'));
        match bytes.get(at) {
            Some(b'"') => match quoted_end(bytes, at) {
                Ok(end) => at = end,
                Err(BadValue) => return bytes.len(),
            },
            Some(b'<') => match memchr::memchr(b'>', &bytes[at..]) {
                Some(len) => at += len + 1,
                None => return bytes.len(),
            },
            Some(_) | None => return at,
        }
    }
}

/// Whether `token`, compared without case, is one of the tokens in `list`, which are separated by commas.
#[inline]
pub(crate) fn has_token(list: &[u8], token: &[u8]) -> bool {
    let Some(first) = token.first() else { return false };
    let (lower, upper) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
    let mut at = 0;
    loop {
        at = find(list, at, |block| equal(block, lower) | equal(block, upper));
        let Some((found, after)) = list.get(at..).and_then(|rest| rest.split_at_checked(token.len())) else {
            return false;
        };
        if (found == token || found.eq_ignore_ascii_case(token))
            && matches!(after.get(skip_space(after, 0)), None | Some(b','))
            && matches!(trim_end(&list[..at]).last(), None | Some(b','))
        {
            return true;
        }
        at += 1;
    }
}

/// The unsigned decimal number that `bytes` are. Nothing but digits; a value beyond `u32` becomes `u32::MAX`.
#[inline]
pub(crate) fn number_saturating(bytes: &[u8]) -> Result<u32, BadValue> {
    if bytes.len() <= SHORT_NUMBER {
        return short_number(bytes);
    }
    let mut value: u32 = 0;
    for &byte in bytes {
        if !is(byte, DIGIT) {
            return Err(BadValue);
        }
        value = value.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
    }
    Ok(value)
}

/// The unsigned decimal number that `bytes` are, if it fits `u32`.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> Result<u32, BadValue> {
    if bytes.len() <= SHORT_NUMBER {
        return short_number(bytes);
    }
    let mut value: u64 = 0;
    for &byte in bytes {
        if !is(byte, DIGIT) {
            return Err(BadValue);
        }
        value = value * 10 + u64::from(byte - b'0');
        if value > u64::from(u32::MAX) {
            return Err(BadValue);
        }
    }
    Ok(value as u32)
}

/// As many digits fit `u32` whatever they are.
pub(crate) const SHORT_NUMBER: usize = 9;

/// The unsigned decimal number that at most [`SHORT_NUMBER`] bytes are.
#[inline]
fn short_number(bytes: &[u8]) -> Result<u32, BadValue> {
    let (mut value, mut all_digits) = (0, !bytes.is_empty());
    for &byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        all_digits &= digit < 10;
        value = value * 10 + u32::from(digit & 15);
    }
    if all_digits { Ok(value) } else { Err(BadValue) }
}

/// The port number that `bytes` are: 1 to 65535.
pub(crate) fn port(bytes: &[u8]) -> Result<u16, BadValue> {
    match u16::try_from(number(bytes)?) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(BadValue),
    }
}

/// The port number whose digits begin at `at`, 1 to 65535, and their end.
#[inline]
pub(crate) fn port_at(bytes: &[u8], at: usize) -> Result<(u16, usize), BadValue> {
    let (mut value, mut end) = (0, at);
    while let Some(digit) = bytes.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        value = (value * 10 + u32::from(digit)).min(1 << 16);
        end += 1;
    }
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok((port, end)),
        _ => Err(BadValue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_string_ends_at_its_first_unescaped_quote() {
        assert_eq!(quoted_end(br#""a\"b" c"#, 0), Ok(6));
        assert_eq!(quoted_end(br#""a\\" c"#, 0), Ok(5));
        assert_eq!(quoted_end(br#""a\"#, 0), Err(BadValue));
        assert_eq!(quoted_end(br#"""#, 0), Err(BadValue));
    }

    #[test]
    fn commas_in_quotes_and_brackets_do_not_end_an_element() {
        let list = br#""a,b" <sip:x,y@h>;q=1 , next"#;
        assert_eq!(element_end(list, 0), 22);
        assert_eq!(element_end(b"\"open, quote", 0), 12);
        assert_eq!(element_end(b"<open, bracket", 0), 14);
    }

    #[test]
    fn a_port_is_read_alike_where_its_end_is_not_known() {
        for text in ["5060", "1", "65535", "65536", "0", "", "00000000005060", "4294967297", "42949672961"] {
            let expected = port(text.as_bytes()).map(|port| (port, text.len() + 1));
            for rest in ["", ";x", " 1", "a"] {
                assert_eq!(port_at(format!(":{text}{rest}").as_bytes(), 1), expected, "{text}{rest}");
            }
        }
    }

    #[test]
    fn names_in_small_letters_have_whole_labels() {
        for host in [&b"h"[..], b"example.com", b"a-b_c.0.d9", &[&b"x.y"[..]; 20].concat()] {
            assert!(is_small_name(host), "{}", host.escape_ascii());
        }
        for host in
            [&b""[..], b".", b".h", b"h.", b"a..b", b"a.B", b"a:1", b"a b", b"a.\xe9", b"example.com,"]
        {
            assert!(!is_small_name(host), "{}", host.escape_ascii());
        }
    }

    #[test]
    fn a_token_is_found_whole_and_without_case() {
        for list in [&b"gruu"[..], b" Path,\tGRUU\r\n , x", b"a,,gruu", b"x,gruu,"] {
            assert!(has_token(list, b"gruu"), "{}", list.escape_ascii());
        }
        for list in [&b""[..], b"gruus", b"a gruu", b"gru,u", b"\"gruu\"", b"xgruu,", b",,"] {
            assert!(!has_token(list, b"gruu"), "{}", list.escape_ascii());
        }
    }

    #[test]
    fn values_of_parameters_need_no_escape() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$".contains(&byte);
            for text in [&[byte][..], &[b'a', byte], &[&[b'0'; 40][..], &[byte], &[b':'; 7]].concat()] {
                assert_eq!(is_param_value(text), expected, "{byte}");
            }
        }
        assert!(!is_param_value(b""));
    }

    #[test]
    fn addresses_are_read_as_the_library_reads_them() {
        for text in [
            "1.2.3.4",
            "255.255.255.255",
            "0.0.0.0",
            "256.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.",
            ".1.2.3",
            "1..2.3",
            "1.2.3.4 ",
            "",
            "1.2.3.400",
            "1.2.3.4000",
            "00.0.0.0",
            "99999999999.1.1.1",
            "a.b.c.d",
            "1.2.3.4.",
        ] {
            assert_eq!(ipv4(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn numbers_are_digits_only_and_bounded() {
        assert_eq!(number(b"4294967295"), Ok(u32::MAX));
        assert_eq!(number(b"4294967296"), Err(BadValue));
        assert_eq!(number(b"999999999"), Ok(999_999_999));
        assert_eq!(number(b"00000000000000000007"), Ok(7));
        assert_eq!(number_saturating(b"4294967295"), Ok(u32::MAX));
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
            for bad in [&[byte][..], &[b'9', byte, b'9'], &[byte; 9], &[byte; 10]] {
                assert_eq!((number(bad), number_saturating(bad)), (Err(BadValue), Err(BadValue)), "{byte}");
            }
        }
        assert_eq!(number_saturating(b"99999999999999999999"), Ok(u32::MAX));
        assert_eq!(number(b"-1"), Err(BadValue));
        assert_eq!(number(b""), Err(BadValue));
        assert_eq!(port(b"0"), Err(BadValue));
        assert_eq!(port(b"65535"), Ok(65_535));
        assert_eq!(port(b"65536"), Err(BadValue));
    }
}

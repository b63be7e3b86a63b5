//! `CSeq`: number and method of a request within its dialog (RFC 3261 §20.16).

use super::BadValue;
use super::scan::{DIGIT, SHORT_NUMBER, TOKEN, number, skip, skip_space};
use crate::msg::Method;

/// The value of a CSeq header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Sequence number, below 2^31 (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// The method, [`Method::Other`] if we know no name for it.
    pub method: Method,
    /// The method as written.
    pub method_text: &'a [u8],
}

impl<'a> CSeq<'a> {
    /// Parses a CSeq value.
    ///
    /// # Errors
    /// [`BadValue`] unless it is a number below 2^31, white space and a method.
    #[inline]
    pub fn parse(value: &'a [u8]) -> Result<Self, BadValue> {
        let (digits, method_text) = Self::split(value)?;
        let number = number(digits)?;
        if number > NUMBER_MAX {
            return Err(BadValue);
        }
        Ok(Self { number, method: Method::of(method_text), method_text })
    }

    /// Parses the CSeq value of a request of `method`, whose name is `method_text`, as nearly everybody writes it: a number of at
    /// most nine digits, one space, the name. `None` is not a verdict: [`Self::parse`] decides then.
    #[inline]
    pub(crate) fn parse_of(value: &'a [u8], method: Method, method_text: &[u8]) -> Option<Self> {
        let (digits, rest) = value.split_at_checked(value.len().checked_sub(method_text.len() + 1)?)?;
        let (b' ', text) = rest.split_first()? else { return None };
        if text != method_text || digits.len() > SHORT_NUMBER {
            return None;
        }
        Some(Self { number: number(digits).ok()?, method, method_text: text })
    }

    /// The digits, however many, and the method.
    #[inline]
    pub(crate) fn split(value: &[u8]) -> Result<(&[u8], &[u8]), BadValue> {
        let digits = skip(value, 0, DIGIT);
        let start = skip_space(value, digits);
        let end = skip(value, start, TOKEN);
        if digits == 0 || start == digits || end == start || end != value.len() {
            return Err(BadValue);
        }
        Ok((&value[..digits], &value[start..]))
    }
}

/// Greatest sequence number (RFC 3261 §8.1.1.5: "MUST be less than 2**31").
const NUMBER_MAX: u32 = (1 << 31) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_method_with_white_space_between() {
        let cseq = CSeq::parse(b"0009\r\n  INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
        assert_eq!(CSeq::parse(b"2147483647 X").unwrap().method, Method::Other);
    }

    #[test]
    fn what_is_read_at_once_is_read_alike() {
        for value in [&b"1 INVITE"[..], b"0 INVITE", b"007 INVITE", b"999999999 INVITE"] {
            assert_eq!(CSeq::parse_of(value, Method::Invite, b"INVITE"), CSeq::parse(value).ok());
        }
        for value in
            [&b""[..], b"INVITE", b" INVITE", b"1INVITE", b"1  INVITE", b"1 INVITe", b"1000000000 INVITE"]
        {
            assert_eq!(CSeq::parse_of(value, Method::Invite, b"INVITE"), None, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn broken_ones_are_refused() {
        for value in
            [&b""[..], b"1", b"INVITE", b"1INVITE", b"2147483648 INVITE", b"-1 INVITE", b"1 INVITE x", b"1 "]
        {
            assert_eq!(CSeq::parse(value), Err(BadValue), "{}", value.escape_ascii());
        }
    }
}

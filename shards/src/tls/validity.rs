//! From when until when a certificate is valid (RFC 5280 §4.1.2.5), read from its DER.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// Reads it; `None` if this is not the DER of a certificate.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
        let (SEQUENCE, mut fields, _) = element(certificate)? else { return None };
        if let (VERSION, _, rest) = element(fields)? {
            fields = rest;
        }
        // Serial number, signature algorithm and issuer stand before the validity.
        for expected in [INTEGER, SEQUENCE, SEQUENCE] {
            let (tag, _, rest) = element(fields)?;
            fields = (tag == expected).then_some(rest)?;
        }
        let (SEQUENCE, times, _) = element(fields)? else { return None };
        let (tag, text, rest) = element(times)?;
        let not_before = time(tag, text)?;
        let (tag, text, _) = element(rest)?;
        Some(Self { not_before, not_after: time(tag, text)? })
    }
}

/// Takes one element apart: its tag, its contents, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first & LONG != 0 {
        let (digits, after) = rest.split_at_checked(usize::from(first & !LONG))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        len = digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit));
        rest = after;
    }
    let (contents, rest) = rest.split_at_checked(len)?;
    Some((tag, contents, rest))
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = text.strip_suffix(b"Z")?;
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let two = |at: usize| text.get(at..at + 2).map(|it| i16::from((it[0] - b'0') * 10 + (it[1] - b'0')));
    let (year, at) = match (tag, text.len()) {
        // RFC 5280 §4.1.2.5.1: "Where YY is greater than or equal to 50, the year SHALL be interpreted as 19YY".
        (UTC_TIME, 12) => (two(0).map(|year| if year >= 50 { 1900 + year } else { 2000 + year })?, 2),
        (GENERALIZED_TIME, 14) => (two(0)? * 100 + two(2)?, 4),
        _ => return None,
    };
    let part = |index: usize| two(at + 2 * index).map(|it| it as i8);
    let time = DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

/// Tags of ASN.1 that are met on the way.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
/// In the first byte of a length: so many bytes of length follow.
const LONG: u8 = 0x80;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        for (years, expected) in [
            ((2024, 2049), ("2024-02-03T00:00:00Z", "2049-04-05T00:00:00Z")),
            ((1999, 2050), ("1999-02-03T00:00:00Z", "2050-04-05T00:00:00Z")),
        ] {
            let mut params = CertificateParams::new(["host.example".to_owned()]).unwrap();
            params.not_before = date_time_ymd(years.0, 2, 3);
            params.not_after = date_time_ymd(years.1, 4, 5);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let validity = Validity::of(certificate.der()).unwrap();
            assert_eq!(validity.not_before.to_string(), expected.0);
            assert_eq!(validity.not_after.to_string(), expected.1);
        }
    }

    #[test]
    fn whatever_else_is_no_certificate() {
        let certificate = rcgen::generate_simple_self_signed(["host.example".to_owned()]).unwrap().cert;
        let der = certificate.der();
        for len in 0..der.len() {
            assert_eq!(Validity::of(&der[..len]), None);
        }
        // Whatever single byte is changed, nothing panics.
        for at in 0..der.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.to_vec();
                changed[at] = value;
                let _ = Validity::of(&changed);
            }
        }
    }
}

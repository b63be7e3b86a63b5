//! Numbers as tokens: tags, entity tags and branches.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The 16 hexadecimal digits of `value`.
#[must_use]
pub const fn hex16(value: u64) -> [u8; 16] {
    let mut out = [0; 16];
    let mut i = 0;
    while i < 16 {
        out[i] = DIGITS[((value >> (60 - 4 * i)) & 15) as usize];
        i += 1;
    }
    out
}

/// The 8 hexadecimal digits of `value`.
#[must_use]
pub const fn hex8(value: u32) -> [u8; 8] {
    let mut out = [0; 8];
    let mut i = 0;
    while i < 8 {
        out[i] = DIGITS[((value >> (28 - 4 * i)) & 15) as usize];
        i += 1;
    }
    out
}

/// The two hexadecimal digits of `value`.
#[must_use]
pub const fn hex2(value: u8) -> [u8; 2] {
    [DIGITS[(value >> 4) as usize], DIGITS[(value & 15) as usize]]
}

/// Reads lower-case hexadecimal digits, at most 16 of them.
#[must_use]
pub fn parse_hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u64::from(digit))
    })
}

/// Appends a decimal number.
pub fn push_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_reads_back() {
        for value in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(parse_hex(&hex16(value)), Some(value));
            assert_eq!(parse_hex(&hex8(value as u32)), Some(value & 0xffff_ffff));
        }
        assert_eq!(&hex2(0x3f), b"3f");
        assert_eq!(parse_hex(b"3F"), None);
        assert_eq!(parse_hex(b""), None);
    }
}

//! Numbers as tokens: tags, entity tags and branches.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The 16 hexadecimal digits of `value`.
#[must_use]
pub const fn hex16(value: u64) -> [u8; 16] {
    let (high, low) = (hex8((value >> 32) as u32), hex8(value as u32));
    let mut out = [0; 16];
    let mut i = 0;
    while i < 8 {
        out[i] = high[i];
        out[i + 8] = low[i];
        i += 1;
    }
    out
}

/// The 8 hexadecimal digits of `value`: all of them at once, a nibble a byte.
#[must_use]
pub const fn hex8(value: u32) -> [u8; 8] {
    let x = value as u64;
    let x = ((x & 0xffff_0000) << 16) | (x & 0xffff);
    let x = ((x & 0x0000_ff00_0000_ff00) << 8) | (x & 0x0000_00ff_0000_00ff);
    let x = ((x & 0x00f0_00f0_00f0_00f0) << 4) | (x & 0x000f_000f_000f_000f);
    let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (x + 0x3030_3030_3030_3030 + letters * (b'a' - b'9' - 1) as u64).to_be_bytes()
}

/// Reads what [`hex8`] writes, and nothing else.
#[must_use]
pub fn parse_hex8(text: [u8; 8]) -> Option<u32> {
    let x = u64::from_be_bytes(text);
    let letters = (x >> 6) & 0x0101_0101_0101_0101;
    let x = (x & 0x0f0f_0f0f_0f0f_0f0f).wrapping_add(letters * 9);
    let x = (x | (x >> 4)) & 0x00ff_00ff_00ff_00ff;
    let x = (x | (x >> 8)) & 0x0000_ffff_0000_ffff;
    let value = (x | (x >> 16)) as u32;
    (hex8(value) == text).then_some(value)
}

/// The two hexadecimal digits of `value`.
#[must_use]
pub const fn hex2(value: u8) -> [u8; 2] {
    [DIGITS[(value >> 4) as usize], DIGITS[(value & 15) as usize]]
}

/// Reads what [`hex2`] writes, and nothing else.
#[must_use]
pub fn parse_hex2(text: [u8; 2]) -> Option<u8> {
    parse_hex(&text).map(|value| value as u8)
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
        for value in (0..=u32::MAX).step_by(0xf_fff1) {
            assert_eq!(hex8(value), *format!("{value:08x}").as_bytes());
            assert_eq!(parse_hex8(hex8(value)), Some(value));
        }
        assert_eq!(hex16(0x0123_4567_89ab_cdef), *b"0123456789abcdef");
        assert_eq!(parse_hex2(*b"3f"), Some(0x3f));
        for at in 0..8 {
            for byte in 0..=255 {
                let mut text = *b"0a1b2c3d";
                text[at] = byte;
                let expected = parse_hex(&text).map(|value| value as u32);
                assert_eq!(parse_hex8(text), expected, "{}", text.escape_ascii());
            }
        }
        assert_eq!(&hex2(0x3f), b"3f");
        assert_eq!(parse_hex(b"3F"), None);
        assert_eq!(parse_hex(b""), None);
    }
}

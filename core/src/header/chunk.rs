//! Looking at sixteen bytes at a time.
//!
//! Lines, names and the longer runs within values are found with these; a loop over single bytes takes about twice as
//! long for a whole message, and so does a call of `memchr` for each line, as lines are short.
//!
//! A *mark* is the highest bit of a byte in a word, set where the byte is one that is looked for. Marks are exact: no
//! carry crosses from one byte into the next.

/// Bytes that are looked at together.
const CHUNK: usize = 16;

/// One of these in each byte makes a number for each byte.
const ONES: u64 = u64::from_le_bytes([1; 8]);

/// The highest bit of each byte.
const HIGHS: u64 = ONES << 7;

/// Marks the bytes of `word` that are `byte`.
#[inline(always)]
pub(crate) const fn equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (ONES * byte as u64);
    !(((difference & !HIGHS) + !HIGHS) | difference) & HIGHS
}

/// Marks the bytes of `word` below `limit`, which is at most 0x80.
#[inline(always)]
pub(crate) const fn below(word: u64, limit: u8) -> u64 {
    !(((word & !HIGHS) + ONES * (0x80 - limit) as u64) | word) & HIGHS
}

/// The first position of a mark in `chunk`, or its length if there is none.
#[inline(always)]
pub(crate) fn first(chunk: &[u8; CHUNK], marks: impl Fn(u64) -> u64) -> usize {
    let (low, high) = halves(chunk);
    position(marks(low), marks(high))
}

/// The first position of a mark in `bytes` from `at` on, or the end if there is none.
#[inline(always)]
pub(crate) fn find(bytes: &[u8], at: usize, marks: impl Fn(u64) -> u64) -> usize {
    let mut at = at;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let (low, high) = halves(chunk);
        let (low, high) = (marks(low), marks(high));
        if low | high != 0 {
            return at + position(low, high);
        }
        at += CHUNK;
    }
    if at >= bytes.len() {
        return bytes.len();
    }
    match bytes.last_chunk() {
        // The last sixteen bytes are looked at together, and the marks in front of `at` dropped.
        Some(chunk) => {
            let (low, high) = halves(chunk);
            let seen = CHUNK - (bytes.len() - at);
            let marks = (u128::from(marks(low)) | u128::from(marks(high)) << 64) >> (8 * seen);
            (at + marks.trailing_zeros() as usize / 8).min(bytes.len())
        }
        None => {
            let is_marked = |byte: &u8| marks(u64::from(*byte)) & 0x80 != 0;
            bytes[at..].iter().position(is_marked).map_or(bytes.len(), |found| at + found)
        }
    }
}

/// The chunk as two little-endian words.
#[inline(always)]
fn halves(chunk: &[u8; CHUNK]) -> (u64, u64) {
    let all = u128::from_le_bytes(*chunk);
    (all as u64, (all >> 64) as u64)
}

/// The position of the lowest mark in two words of marks.
#[inline(always)]
fn position(low: u64, high: u64) -> usize {
    let bit = if low != 0 { low.trailing_zeros() } else { 64 + high.trailing_zeros() };
    bit as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_exact() {
        for byte in 0..=255u8 {
            for neighbour in
                [0, 1, b'\r', b':', b';', 0x7f, 0x80, 0xff, byte.wrapping_sub(1), byte.wrapping_add(1)]
            {
                let word =
                    u64::from_le_bytes([byte, neighbour, byte, neighbour, neighbour, byte, byte, neighbour]);
                let expected = |is: fn(u8) -> bool| {
                    let mark = |byte| if is(byte) { 0x80 } else { 0 };
                    u64::from_le_bytes(word.to_le_bytes().map(mark))
                };
                assert_eq!(equal(word, b':'), expected(|byte| byte == b':'), "{word:016x}");
                assert_eq!(equal(word, 0), expected(|byte| byte == 0), "{word:016x}");
                assert_eq!(below(word, b'!'), expected(|byte| byte < b'!'), "{word:016x}");
                assert_eq!(below(word, 14), expected(|byte| byte < 14), "{word:016x}");
            }
        }
    }

    #[test]
    fn searching_finds_the_first_in_slices_of_any_length() {
        for len in 0..50 {
            let mut bytes = vec![b'x'; len];
            for start in 0..=len + 1 {
                assert_eq!(find(&bytes, start, |word| equal(word, b':')), len);
            }
            for at in 0..len {
                bytes[at] = b':';
                for start in 0..=len {
                    let expected = if start <= at { at } else { len };
                    assert_eq!(find(&bytes, start, |word| equal(word, b':')), expected, "{len} {at} {start}");
                }
                bytes[at] = b'x';
            }
        }
    }
}

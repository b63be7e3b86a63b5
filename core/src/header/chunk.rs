//! Looking at sixteen bytes at a time.
//!
//! Lines, names and the longer runs within values are found with these; a loop over single bytes takes some times as long
//! for a whole message, and so does a call of `memchr` for each line, as lines are short.

use std::ops::{BitOr, Not, RangeInclusive};

use wide::u8x16;

/// Bytes that are looked at together.
const CHUNK: usize = 16;

/// Sixteen bytes, in one register of the processor.
#[derive(Clone, Copy)]
pub(crate) struct Block(u8x16);

/// Some of the bytes of a block: all bits of those, none of the others.
#[derive(Clone, Copy)]
pub(crate) struct Marks(u8x16);

/// Marks the bytes that are `byte`.
#[inline(always)]
pub(crate) fn equal(block: Block, byte: u8) -> Marks {
    Marks(block.0.simd_eq(u8x16::splat(byte)))
}

/// Marks the bytes below `limit`, which is 1 at least.
#[inline(always)]
pub(crate) fn below(block: Block, limit: u8) -> Marks {
    Marks(block.0.min(u8x16::splat(limit - 1)).simd_eq(block.0))
}

/// Marks the bytes in `range`, which is not empty.
#[inline(always)]
pub(crate) fn within(block: Block, range: RangeInclusive<u8>) -> Marks {
    let from_start = block.0 - u8x16::splat(*range.start());
    Marks(from_start.min(u8x16::splat(range.end() - range.start())).simd_eq(from_start))
}

impl Not for Marks {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl BitOr for Marks {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Marks {
    /// The first mark from position `from` on (at most [`CHUNK`]), counted from there; at least `CHUNK` if there is none.
    #[inline(always)]
    fn first_from(self, from: usize) -> usize {
        // One bit a byte; the one that stands for "none" is so far up that shifting does not bring it among them.
        let bits = u64::from(self.0.to_bitmask()) | 1 << (2 * CHUNK);
        (bits >> from).trailing_zeros() as usize
    }
}

/// The first position of a mark in `chunk`, or at least its length if there is none.
#[inline(always)]
pub(crate) fn first(chunk: &[u8; CHUNK], marks: impl Fn(Block) -> Marks) -> usize {
    // One bit a byte; the last one stands for "none".
    (bits_of_chunk(chunk, marks) | 1 << 31).trailing_zeros() as usize
}

/// The first position of a mark in `bytes` from `at` on, or the end if there is none.
#[inline(always)]
pub(crate) fn find(bytes: &[u8], at: usize, marks: impl Fn(Block) -> Marks) -> usize {
    let Some(rest) = bytes.get(at..) else { return bytes.len() };
    let (chunks, rest) = rest.as_chunks::<CHUNK>();
    let mut at = at;
    for chunk in chunks {
        let bits = marks(Block(u8x16::new(*chunk))).0.to_bitmask();
        if bits != 0 {
            return at + bits.trailing_zeros() as usize;
        }
        at += CHUNK;
    }
    if rest.is_empty() {
        return bytes.len();
    }
    let found = match bytes.last_chunk::<CHUNK>() {
        // The last sixteen bytes are looked at together, and the marks in front of `at` dropped.
        Some(chunk) => {
            let marks = marks(Block(u8x16::new(*chunk)));
            marks.first_from(CHUNK - rest.len())
        }
        None => marks(Block(u8x16::new(short(rest).to_le_bytes()))).first_from(0),
    };
    (at + found).min(bytes.len())
}

/// How many marks there are in `bytes`.
#[inline(always)]
pub(crate) fn count(bytes: &[u8], marks: impl Fn(Block) -> Marks) -> usize {
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    let whole: u32 = chunks.iter().map(|chunk| bits_of_chunk(chunk, &marks).count_ones()).sum();
    (whole + bits_of_last(rest, &marks).count_ones()) as usize
}

/// The positions of all marks in a text, in their order; four times sixteen bytes are looked at together.
pub(crate) struct Positions<'b, F> {
    bytes: &'b [u8],
    marks: F,
    /// One bit for each mark not yet given of the bytes that were looked at last, and where those begin.
    bits: u64,
    base: usize,
    /// Where the next look begins.
    next: usize,
}

impl<'b, F: Fn(Block) -> Marks + Copy> Positions<'b, F> {
    /// The positions in `bytes` from `start` on.
    #[inline(always)]
    pub(crate) const fn new(bytes: &'b [u8], start: usize, marks: F) -> Self {
        Self { bytes, marks, bits: 0, base: start, next: start }
    }

    /// Passes over the mark next to the one that was given last.
    #[inline(always)]
    pub(crate) const fn pass_neighbour(&mut self) {
        if self.bits == 0 {
            // It is the first of those that come next.
            self.next += 1;
        } else {
            self.bits &= self.bits - 1;
        }
    }

    /// Passes over all marks in front of `at`.
    #[inline(always)]
    pub(crate) const fn go_on_at(&mut self, at: usize) {
        self.bits = 0;
        self.next = at;
    }

    /// Looks at the next bytes, as long as there are any.
    #[inline(always)]
    fn look(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.next..)?;
        if rest.is_empty() {
            return None;
        }
        self.base = self.next;
        self.next += WIDE;
        self.bits = if let Some(wide) = rest.first_chunk() {
            bits_of(wide, self.marks)
        } else if let Some(wide) = self.bytes.last_chunk() {
            // The last bytes are looked at together, and the marks in front of `base` dropped.
            bits_of(wide, self.marks) >> (WIDE - rest.len())
        } else {
            bits_of_few(rest, self.marks)
        };
        Some(())
    }
}

/// One bit for each mark of so many bytes.
#[inline(always)]
fn bits_of(bytes: &[u8; WIDE], marks: impl Fn(Block) -> Marks) -> u64 {
    let (chunks, _) = bytes.as_chunks::<CHUNK>();
    chunks.iter().rev().fold(0, |bits, chunk| bits << CHUNK | u64::from(bits_of_chunk(chunk, &marks)))
}

/// [`bits_of`] for fewer bytes. Apart from the rest, as a message has more, and its lines want the registers for themselves.
#[inline(never)]
fn bits_of_few(bytes: &[u8], marks: impl Fn(Block) -> Marks) -> u64 {
    let mut bits = 0;
    let (chunks, last) = bytes.as_chunks::<CHUNK>();
    for (n, chunk) in chunks.iter().enumerate() {
        bits |= u64::from(bits_of_chunk(chunk, &marks)) << (n * CHUNK);
    }
    bits | u64::from(bits_of_last(last, &marks)) << (chunks.len() * CHUNK)
}

/// One bit for each mark of a chunk.
#[inline(always)]
fn bits_of_chunk(chunk: &[u8; CHUNK], marks: impl Fn(Block) -> Marks) -> u32 {
    marks(Block(u8x16::new(*chunk))).0.to_bitmask()
}

/// The same for less than a chunk; what stands behind the end is dropped, whatever marks it has.
#[inline(always)]
fn bits_of_last(last: &[u8], marks: impl Fn(Block) -> Marks) -> u32 {
    bits_of_chunk(&short(last).to_le_bytes(), marks) & ((1 << last.len()) - 1)
}

impl<F: Fn(Block) -> Marks + Copy> Iterator for Positions<'_, F> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.bits == 0 {
            self.look()?;
        }
        let at = self.base + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(at)
    }
}

/// Bytes that [`Positions`] looks at together.
const WIDE: usize = 4 * CHUNK;

/// At most sixteen bytes, zeros behind them.
#[inline(always)]
fn short(bytes: &[u8]) -> u128 {
    let len = bytes.len();
    if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u128::from(u64::from_le_bytes(*low))
            | u128::from(u64::from_le_bytes(*high)) << (8 * (len - 8));
    }
    if let (Some(low), Some(high)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u128::from(u32::from_le_bytes(*low))
            | u128::from(u32::from_le_bytes(*high)) << (8 * (len - 4));
    }
    let byte = |at: usize| bytes.get(at).map_or(0, |&byte| u128::from(byte) << (8 * at));
    byte(0) | byte(1) | byte(2)
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
                let bytes: [u8; CHUNK] =
                    std::array::from_fn(|i| if [0, 2, 5, 6, 9, 15].contains(&i) { byte } else { neighbour });
                let block = Block(u8x16::new(bytes));
                let check = |marks: Marks, is: fn(u8) -> bool| {
                    for from in 0..=CHUNK {
                        let found = marks.first_from(from);
                        match bytes[from..].iter().position(|&byte| is(byte)) {
                            Some(expected) => assert_eq!(found, expected, "{bytes:?} {from}"),
                            None => {
                                assert!(found >= CHUNK - from && from + found >= CHUNK, "{bytes:?} {from}")
                            }
                        }
                    }
                };
                check(equal(block, b':'), |byte| byte == b':');
                check(equal(block, 0), |byte| byte == 0);
                check(equal(block, 0xff), |byte| byte == 0xff);
                check(!equal(block, 0xff), |byte| byte != 0xff);
                check(within(block, b'-'..=b':'), |byte| (b'-'..=b':').contains(&byte));
                check(within(block, 0..=13), |byte| byte < 14);
                check(within(block, 0x80..=0xff), |byte| byte >= 0x80);
                check(below(block, b'!'), |byte| byte < b'!');
                check(below(block, 14), |byte| byte < 14);
                check(below(block, 1), |byte| byte == 0);
                check(equal(block, b';') | below(block, 14), |byte| byte == b';' || byte < 14);
            }
        }
    }

    #[test]
    fn positions_are_those_of_all_marks_in_slices_of_any_length() {
        for len in 0..200 {
            for (step, first) in [(1, 0), (2, 1), (7, 3), (16, 15), (63, 0), (64, 63), (300, 0)] {
                let mut bytes = vec![b'x'; len];
                let expected: Vec<usize> = (first..len).step_by(step).collect();
                expected.iter().for_each(|&at| bytes[at] = 0);
                for start in [0, 1, 20, 64, 65, 128] {
                    let found: Vec<usize> = Positions::new(&bytes, start, |block| equal(block, 0)).collect();
                    let expected: Vec<usize> = expected.iter().copied().filter(|&at| at >= start).collect();
                    assert_eq!(found, expected, "{len} {step} {first} {start}");
                }
            }
        }
    }

    #[test]
    fn marks_are_counted_in_slices_of_any_length() {
        for len in 0..70 {
            for step in [1, 2, 7, 16, 100] {
                let bytes: Vec<u8> = (0..len).map(|at| if at % step == 0 { b';' } else { 0 }).collect();
                let expected = bytes.iter().filter(|&&byte| byte == b';').count();
                assert_eq!(count(&bytes, |block| equal(block, b';')), expected, "{len} {step}");
                assert_eq!(count(&bytes, |block| equal(block, 0)), len - expected, "{len} {step}");
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

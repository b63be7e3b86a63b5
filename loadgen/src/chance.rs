//! Numbers that a seed determines.

use crate::ident::mix;

/// A generator of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next part of 1, which itself never comes.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / PARTS
    }

    /// The next part of 1, but never 0, for its logarithm is taken.
    pub fn part_above_zero(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / PARTS
    }

    /// The next number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number from 1 up to `bound`, a power of two, small ones more often than great ones.
    pub fn up_to(&mut self, bound: usize) -> usize {
        let bits = self.below(bound.ilog2() as usize + 1);
        1 + self.below(1 << bits)
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of these.
    pub fn pick<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.below(of.len())]
    }
}

/// So many parts of 1 a floating-point number tells apart.
const PARTS: f64 = (1u64 << 53) as f64;

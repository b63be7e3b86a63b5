//! Where a part of a value lies, in four bytes instead of a slice's sixteen.

use super::BadValue;

/// Start and length within a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u16,
    len: u16,
}

impl Span {
    /// The span from `start` to `end` in the bytes from which values are read, within a value that begins at `base`.
    ///
    /// # Errors
    /// [`BadValue`] beyond 65,535 bytes; no value in a message is that long.
    #[inline(always)]
    pub(super) fn new(base: usize, start: usize, end: usize) -> Result<Self, BadValue> {
        debug_assert!(base <= start && start <= end);
        if end - base > usize::from(u16::MAX) {
            return Err(BadValue);
        }
        Ok(Self { start: (start - base) as u16, len: (end - start) as u16 })
    }

    /// Whether nothing lies there.
    #[inline(always)]
    pub(super) const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Position behind it.
    #[inline(always)]
    pub(super) const fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// The bytes that lie there in `value`.
    #[inline(always)]
    pub(super) fn of(self, value: &[u8]) -> &[u8] {
        &value[self.start as usize..self.end()]
    }

    /// The bytes that lie there, if any do.
    #[inline(always)]
    pub(super) fn of_some(self, value: &[u8]) -> Option<&[u8]> {
        if self.is_empty() { None } else { Some(self.of(value)) }
    }
}

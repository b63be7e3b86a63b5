//! A vector that grows without moving what it holds.
//!
//! Doubling a plain `Vec` of a million entries copies tens of megabytes in the middle of a turn; this one adds a chunk.

use std::ops::{Index, IndexMut};

/// Entries a chunk.
const CHUNK: usize = 1024;

/// A growable array in chunks of 1024 entries; an index stays valid and cheap for ever.
#[derive(Debug)]
pub struct Chunked<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    len: usize,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T: Default> Chunked<T> {
    /// Appends a default entry and returns its index.
    pub fn push_default(&mut self) -> usize {
        if self.len == self.chunks.len() * CHUNK {
            let chunk: Box<[T]> = (0..CHUNK).map(|_| T::default()).collect();
            self.chunks.push(chunk.try_into().unwrap_or_else(|_| unreachable!("so many were collected")));
        }
        self.len += 1;
        self.len - 1
    }
}

impl<T> Chunked<T> {
    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunked<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}

/// A [`Chunked`] whose entries are handed out and taken back by number.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Chunked<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Chunked::default(), free: Vec::new() }
    }
}

impl<T: Default> Slab<T> {
    /// Keeps `value` and returns its number.
    pub fn insert(&mut self, value: T) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            u32::try_from(self.entries.push_default())
                .expect("records are numbered with 32 bits, so are their states")
        });
        self.entries[id as usize] = value;
        id
    }

    /// Takes the entry back and returns what it held. The number is handed out again later.
    pub fn remove(&mut self, id: u32) -> T {
        self.free.push(id);
        std::mem::take(&mut self.entries[id as usize])
    }

    /// Entries in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// One more than the highest number handed out so far.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.entries.len()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: u32) -> &T {
        &self.entries[id as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.entries[id as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_entries_stay_in_place() {
        let mut slab = Slab::default();
        let ids: Vec<u32> = (0..3000u64).map(|n| slab.insert(n)).collect();
        assert!(ids.iter().all(|&id| slab[id] == u64::from(id)));
        assert_eq!(slab.remove(7), 7);
        assert_eq!(slab.insert(99), 7);
        assert_eq!((slab.in_use(), slab.high_water()), (3000, 3000));
    }
}

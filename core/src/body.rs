//! Message bodies that many NOTIFYs share.
//!
//! A body is encoded once per presentity and shard; every NOTIFY that carries it, and every NOTIFY in flight that may have
//! to be sent again byte for byte, holds a reference. Buffers are used again, so that a change of state allocates nothing
//! once the pool is warm.
//!
//! Invariants:
//!   * a slot with `holders == 0` is on the free list and nowhere else;
//!   * the bytes of a slot with `holders > 0` never change.

/// Names a body in [`Bodies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyId(u32);

/// One shared body and how many hold it.
#[derive(Debug, Default)]
struct Slot {
    holders: u32,
    bytes: Vec<u8>,
}

/// The pool of shared bodies of one shard.
#[derive(Debug, Default)]
pub struct Bodies {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Bodies {
    /// A new body written by `write`, held once by the caller.
    pub fn insert(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> BodyId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1)
                .expect("bodies are bounded by subscriptions, which fit 32 bits")
        });
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.holders, 0);
        slot.holders = 1;
        slot.bytes.clear();
        write(&mut slot.bytes);
        BodyId(index)
    }

    /// One more holder of `id`.
    pub fn retain(&mut self, id: BodyId) {
        let slot = &mut self.slots[id.0 as usize];
        debug_assert!(slot.holders > 0, "retained after its last release");
        slot.holders += 1;
    }

    /// One holder less; the last one gives the buffer back.
    pub fn release(&mut self, id: BodyId) {
        let slot = &mut self.slots[id.0 as usize];
        debug_assert!(slot.holders > 0, "released twice");
        slot.holders -= 1;
        if slot.holders == 0 {
            if slot.bytes.capacity() > BUFFER_KEPT_MAX {
                slot.bytes = Vec::new();
            }
            self.free.push(id.0);
        }
    }

    /// The bytes of a held body.
    #[must_use]
    pub fn get(&self, id: BodyId) -> &[u8] {
        debug_assert!(self.slots[id.0 as usize].holders > 0, "read after its last release");
        &self.slots[id.0 as usize].bytes
    }

    /// How many bodies are held at present.
    #[must_use]
    pub fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Buffers beyond this are given back to the allocator. Usual documents fit; if larger buffers stayed, each slot would in the end
/// have one as large as the largest document that it ever held, and memory would grow for hours with nothing more in it.
const BUFFER_KEPT_MAX: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_lives_until_its_last_holder_lets_go() {
        let mut bodies = Bodies::default();
        let first = bodies.insert(|out| out.extend_from_slice(b"open"));
        bodies.retain(first);
        bodies.release(first);
        assert_eq!(bodies.get(first), b"open");
        bodies.release(first);
        assert_eq!(bodies.held(), 0);
        let second = bodies.insert(|out| out.extend_from_slice(b"closed"));
        assert_eq!(second, first, "the buffer is used again");
        assert_eq!(bodies.get(second), b"closed");
    }

    #[test]
    fn a_large_document_leaves_no_large_buffer_behind() {
        let mut bodies = Bodies::default();
        let large = bodies.insert(|out| out.resize(50_000, b'x'));
        assert_eq!(bodies.get(large).len(), 50_000);
        bodies.release(large);
        assert_eq!(bodies.slots[0].bytes.capacity(), 0);
        let usual = bodies.insert(|out| out.resize(900, b'x'));
        bodies.release(usual);
        assert!(bodies.slots[0].bytes.capacity() >= 900, "usual ones cost no allocation");
    }
}

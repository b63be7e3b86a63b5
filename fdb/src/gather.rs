//! A payload in several parts, taken piece by piece.

/// What is left of a payload.
pub(crate) struct Gather<'a> {
    parts: &'a [&'a [u8]],
    taken: usize,
}

impl<'a> Gather<'a> {
    pub(crate) const fn new(parts: &'a [&'a [u8]]) -> Self {
        Self { parts, taken: 0 }
    }

    /// Copies as much as `bytes` holds and gives what was filled.
    #[inline]
    pub(crate) fn fill<'b>(&mut self, bytes: &'b mut [u8]) -> &'b [u8] {
        let mut filled = 0;
        while let [part, rest @ ..] = self.parts {
            let piece = &part[self.taken..];
            let count = piece.len().min(bytes.len() - filled);
            bytes[filled..filled + count].copy_from_slice(&piece[..count]);
            filled += count;
            if count < piece.len() {
                self.taken += count;
                break;
            }
            self.parts = rest;
            self.taken = 0;
        }
        &bytes[..filled]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_out_as_one_payload_in_pieces() {
        let parts: [&[u8]; 5] = [b"ab", b"", b"cdefg", b"h", b""];
        for size in 1..10 {
            let mut gather = Gather::new(&parts);
            let mut all = Vec::new();
            let mut bytes = vec![0; size];
            loop {
                let piece = gather.fill(&mut bytes);
                all.extend_from_slice(piece);
                if piece.len() < size {
                    break;
                }
            }
            assert_eq!(all, b"abcdefgh");
            assert!(gather.fill(&mut bytes).is_empty());
        }
    }
}

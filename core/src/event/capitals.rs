//! How a watcher wrote the name of its event package.
//!
//! > For the purposes of matching NOTIFY requests with SUBSCRIBE requests, the event-type portion of the "Event" header
//! > field is compared byte by byte (RFC 6665 §8.2.1)
//!
//! Names are found without case here, so a NOTIFY repeats the name as its SUBSCRIBE had it: JsSIP and SIP.js compare to
//! the byte, and so may anyone. Names differ in their case alone, so one bit a letter says it all.

/// Which letters of a package's name stand as capitals; none is the name as the table has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capitals(pub u16);

impl Capitals {
    /// Longest name that is told apart.
    pub const NAME_MAX: usize = u16::BITS as usize;

    /// How `written` has the name that differs from it in case alone.
    #[must_use]
    pub fn of(written: &[u8]) -> Self {
        let capitals = written.iter().take(Self::NAME_MAX).enumerate();
        Self(capitals.fold(0, |bits, (at, letter)| bits | u16::from(letter.is_ascii_uppercase()) << at))
    }

    /// Appends `name` as it was written.
    #[inline]
    pub fn push(self, name: &str, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(name.as_bytes());
        if self.0 != 0 {
            for (at, letter) in out[start..].iter_mut().take(Self::NAME_MAX).enumerate() {
                if self.0 >> at & 1 != 0 {
                    letter.make_ascii_uppercase();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_as_it_was_written() {
        for written in ["presence", "Presence", "PRESENCE", "pReSeNcE", "As-Feature-Event", "MESSAGE-SUMMARY"]
        {
            let mut out = b"Event: ".to_vec();
            Capitals::of(written.as_bytes()).push(&written.to_ascii_lowercase(), &mut out);
            assert_eq!(out, [b"Event: ", written.as_bytes()].concat());
        }
    }
}

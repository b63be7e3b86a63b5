//! The payload of a record: the lengths of its texts, the texts, and a document that takes the rest.
//!
//! A length below 255 is one byte; a longer one is 255 and two bytes, low one first.

use super::{DecodeError, Encoded};
use crate::error::Full;
use crate::kind::Kind;
use crate::layout::FIXED_WORDS;

/// Most texts of a record, a document included.
pub(super) const TEXTS_MAX: usize = 10;
/// Most bytes of the lengths.
pub(super) const LENGTHS_MAX: usize = TEXTS_MAX * 3;

const LONG: u8 = 255;

impl<'a> Encoded<'a> {
    pub(super) const fn new(kind: Kind, fixed: [u64; FIXED_WORDS]) -> Self {
        Self {
            kind,
            fixed,
            lengths: [0; LENGTHS_MAX],
            lengths_used: 0,
            texts: [&[]; TEXTS_MAX],
            texts_used: 0,
        }
    }

    /// Adds the texts, in the order in which [`split`] gives them back.
    pub(super) fn texts<const N: usize>(mut self, texts: [&'a [u8]; N]) -> Result<Self, Full> {
        for text in texts {
            let length = u16::try_from(text.len()).map_err(|_| Full::TooLong)?;
            match u8::try_from(length) {
                Ok(short) if short != LONG => self.length(&[short]),
                _ => {
                    let [low, high] = length.to_le_bytes();
                    self.length(&[LONG, low, high]);
                }
            }
            self.text(text);
        }
        Ok(self)
    }

    /// Adds the document, last.
    pub(super) fn document(mut self, document: &'a [u8]) -> Self {
        self.text(document);
        self
    }

    fn length(&mut self, bytes: &[u8]) {
        self.lengths[self.lengths_used..self.lengths_used + bytes.len()].copy_from_slice(bytes);
        self.lengths_used += bytes.len();
    }

    fn text(&mut self, text: &'a [u8]) {
        self.texts[self.texts_used] = text;
        self.texts_used += 1;
    }
}

/// The `N` texts of a payload, and what follows them.
pub(super) fn split<const N: usize>(payload: &[u8]) -> Result<([&[u8]; N], &[u8]), DecodeError> {
    let mut texts: [&[u8]; N] = [&[]; N];
    if let Some((lengths, mut rest)) = payload.split_first_chunk::<N>()
        && !lengths.contains(&LONG)
    {
        // All are short, as in nearly every record.
        for (text, length) in texts.iter_mut().zip(lengths) {
            (*text, rest) = rest.split_at_checked(usize::from(*length)).ok_or(DecodeError::Texts)?;
        }
        return Ok((texts, rest));
    }
    let mut rest = payload;
    let mut lengths = [0; N];
    for length in &mut lengths {
        (*length, rest) = match rest {
            [LONG, low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), rest),
            [LONG, ..] | [] => return Err(DecodeError::Texts),
            [short, rest @ ..] => (usize::from(*short), rest),
        };
    }
    for (text, length) in texts.iter_mut().zip(lengths) {
        (*text, rest) = rest.split_at_checked(length).ok_or(DecodeError::Texts)?;
    }
    Ok((texts, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(encoded: &Encoded<'_>) -> Vec<u8> {
        let payload = encoded.with_parts(|parts| parts.concat());
        assert_eq!(payload.len(), encoded.payload_len());
        payload
    }

    #[test]
    fn texts_of_all_lengths_come_back() {
        let long = vec![b'x'; 65_535];
        for length in [0, 1, 254, 255, 256, 65_535] {
            let encoded = Encoded::new(Kind::User, [0; FIXED_WORDS])
                .texts([b"a", &long[..length], b""])
                .expect("short enough")
                .document(b"rest");
            let payload = payload(&encoded);
            let (texts, rest) = split::<3>(&payload).expect("whole");
            assert_eq!((texts, rest), ([&b"a"[..], &long[..length], b""], &b"rest"[..]));
        }
    }

    #[test]
    fn a_text_beyond_16_bits_is_refused() {
        let long = vec![0; 65_536];
        assert!(matches!(Encoded::new(Kind::User, [0; FIXED_WORDS]).texts([&long]), Err(Full::TooLong)));
    }

    #[test]
    fn payloads_cut_short_are_refused() {
        let encoded =
            Encoded::new(Kind::User, [0; FIXED_WORDS]).texts([&[b'x'; 300], b"ab"]).expect("short enough");
        let payload = payload(&encoded);
        for length in 0..payload.len() {
            assert_eq!(split::<2>(&payload[..length]), Err(DecodeError::Texts));
        }
        assert!(split::<2>(&payload).is_ok());
    }
}

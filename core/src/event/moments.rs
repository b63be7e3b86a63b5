//! Documents that speak of time: seconds left, seconds since, and what is told for a while only.
//!
//! Such a document is kept with the moments themselves and gets its seconds when it is read, so that a watcher who asks an
//! hour later is not told what was true an hour ago, and nothing has to be written as time goes by. Moments stand between
//! control characters, which are in no XML document (XML 1.0 §2.2), so whatever phones sent cannot be taken for one:
//!
//! ```text
//! 01 moment                 seconds from the moment to now
//! 02 moment                 seconds from now to the moment
//! 03 moment A 04 B 05       A up to the moment, B from then on
//! ```
//!
//! A moment is 16 hexadecimal digits, Unix milliseconds.

use crate::token::{hex16, parse_hex, push_number};
use crate::{HashKey, UnixMillis};

const SINCE: u8 = 1;
const UNTIL: u8 = 2;
const WHILE: u8 = 3;
const ELSE: u8 = 4;
const END: u8 = 5;
const MOMENT_LEN: usize = 16;

/// Appends the seconds since `moment`, to be counted when the document is read.
pub fn push_since(out: &mut Vec<u8>, moment: UnixMillis) {
    out.push(SINCE);
    out.extend_from_slice(&hex16(moment.0));
}

/// Appends the seconds until `moment`, to be counted when the document is read.
pub fn push_until(out: &mut Vec<u8>, moment: UnixMillis) {
    out.push(UNTIL);
    out.extend_from_slice(&hex16(moment.0));
}

/// Appends what `before` writes, for readers before `moment`, and what `after` writes, for those from then on. Neither may
/// do the same within.
pub fn push_while(
    out: &mut Vec<u8>,
    moment: UnixMillis,
    before: impl FnOnce(&mut Vec<u8>),
    after: impl FnOnce(&mut Vec<u8>),
) {
    out.push(WHILE);
    out.extend_from_slice(&hex16(moment.0));
    before(out);
    out.push(ELSE);
    after(out);
    out.push(END);
}

/// Appends the document `kept` as it reads at `now`.
pub fn render(kept: &[u8], now: UnixMillis, out: &mut Vec<u8>) {
    // False within A once its moment is over, and within B until it comes.
    let mut told = true;
    let mut rest = kept;
    while let Some(at) = rest.iter().position(|byte| (SINCE..=END).contains(byte)) {
        let (text, mark) = rest.split_at(at);
        if told {
            out.extend_from_slice(text);
        }
        rest = &mark[1..];
        match mark[0] {
            ELSE => told = !told,
            END => told = true,
            kind => {
                let Some((digits, after)) = rest.split_at_checked(MOMENT_LEN) else { return };
                rest = after;
                let moment = parse_hex(digits).unwrap_or(0);
                match kind {
                    WHILE => told = now.0 < moment,
                    _ if !told => {}
                    SINCE => push_number(out, now.0.saturating_sub(moment) / 1000),
                    // Rounded up: what has not quite run out is still there.
                    _ => push_number(out, moment.saturating_sub(now.0).div_ceil(1000)),
                }
            }
        }
    }
    if told {
        out.extend_from_slice(rest);
    }
}

/// Hash of what the document `kept` means: moments do not count, nor does what is told for a while only. So a watcher that
/// refreshes, or a contact that is forgotten after its end was told, is no news.
#[must_use]
pub fn meaning(kept: &[u8], key: &HashKey, scratch: &mut Vec<u8>) -> u64 {
    scratch.clear();
    let mut counts = true;
    let mut rest = kept;
    while let Some(at) = rest.iter().position(|byte| (SINCE..=END).contains(byte)) {
        let (text, mark) = rest.split_at(at);
        if counts {
            scratch.extend_from_slice(text);
        }
        rest = &mark[1..];
        match mark[0] {
            ELSE | END => counts = true,
            kind => {
                counts &= kind != WHILE;
                rest = rest.get(MOMENT_LEN..).unwrap_or_default();
            }
        }
    }
    if counts {
        scratch.extend_from_slice(rest);
    }
    key.of(&[scratch])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept() -> Vec<u8> {
        let mut out = b"a ".to_vec();
        push_since(&mut out, UnixMillis(10_000));
        out.push(b' ');
        push_while(
            &mut out,
            UnixMillis(20_000),
            |out| {
                out.extend_from_slice(b"still ");
                push_until(out, UnixMillis(20_000));
            },
            |out| out.extend_from_slice(b"over"),
        );
        out.extend_from_slice(b" z");
        out
    }

    fn read_at(kept: &[u8], now: u64) -> String {
        let mut out = Vec::new();
        render(kept, UnixMillis(now), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn seconds_are_those_of_the_reader() {
        assert_eq!(read_at(&kept(), 9_000), "a 0 still 11 z");
        assert_eq!(read_at(&kept(), 19_999), "a 9 still 1 z");
        assert_eq!(read_at(&kept(), 20_000), "a 10 over z");
        assert_eq!(read_at(&kept(), 70_500), "a 60 over z");
    }

    #[test]
    fn moments_and_what_is_told_for_a_while_are_no_news() {
        let (key, mut scratch) = (HashKey([1, 2]), Vec::new());
        let mut later = b"a ".to_vec();
        push_since(&mut later, UnixMillis(11_000));
        later.extend_from_slice(b" over z");
        let before = meaning(&kept(), &key, &mut scratch);
        assert_eq!(meaning(&later, &key, &mut scratch), before);
        later.push(b'!');
        assert_ne!(meaning(&later, &key, &mut scratch), before);
    }

    proptest! {
        #[test]
        fn damaged_documents_are_read_without_harm(damaged in prop::collection::vec(0u8..8, 0..80), now: u64) {
            let mut out = Vec::new();
            render(&damaged, UnixMillis(now), &mut out);
            let _ = meaning(&damaged, &HashKey([1, 2]), &mut out);
        }
    }
}

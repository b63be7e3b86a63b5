//! Padding: NOTIFYs that follow one another to one next hop get the same length.
//!
//! Behind a proxy all watchers share an address, and the kernel takes a train of datagrams for one address as a single
//! large buffer that it cuts itself (`UDP_SEGMENT`, udp(7)); that costs a fifth of sending them one by one. But it cuts at
//! equal lengths. Heads differ by a few bytes, so spaces after the document fill up the difference: white space behind the
//! root element is part of every XML document's grammar (XML 1.0 §2.1, `Misc*`), and Content-Length counts it.

/// Messages to one address before padding begins: a phone with a few subscriptions of its own is not padded.
const RUN_MIN: u32 = 4;

/// Lengths are rounded up to a multiple of this when a train must grow, so that it does not grow with each message.
const STEP: usize = 32;

/// Most bytes of padding; what is shorter by more begins a train of its own.
pub(crate) const PADDING_MAX: usize = 128;

/// Longer datagrams are not padded: they would not fit the usual link (1,500 bytes) and cannot travel in trains.
pub const PADDED_LEN_MAX: usize = 1400;

const SPACES: [u8; PADDING_MAX] = [b' '; PADDING_MAX];

/// The bytes of a padding.
pub(crate) fn spaces(len: u8) -> &'static [u8] {
    &SPACES[..usize::from(len).min(PADDING_MAX)]
}

/// How a message that can be padded is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// By this many bytes: a retransmission is the same bytes again.
    Exactly(u8),
    /// So that the length fits the messages before it.
    Fit(Run),
}

/// The messages at the end of an outbox that go to one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub count: u32,
    /// Length of the last one, in bytes.
    pub len: u32,
}

impl Padding {
    /// Bytes to add to a message whose body is `body` bytes and whose whole length would be `natural`.
    pub(crate) fn of(self, natural: usize, body: usize) -> u8 {
        let target = match self {
            Self::Exactly(padding) => return padding,
            Self::Fit(run) => run.target(natural),
        };
        let mut padding = target - natural;
        // One digit more in Content-Length is a byte of padding less.
        if padding > 0 && digits(body + padding) > digits(body) {
            padding -= 1;
            if digits(body + padding) == digits(body) {
                return 0; // no padding reaches this length
            }
        }
        u8::try_from(padding).expect("a target is at most PADDING_MAX away")
    }
}

impl Run {
    /// The length that a message of `natural` bytes should get behind this run.
    pub(crate) fn target(self, natural: usize) -> usize {
        let before = self.len as usize;
        if self.count < RUN_MIN || natural > PADDED_LEN_MAX {
            natural
        } else if natural <= before && before - natural <= PADDING_MAX {
            before
        } else {
            natural.next_multiple_of(STEP).min(PADDED_LEN_MAX)
        }
    }
}

/// Decimal digits of a length.
fn digits(number: usize) -> u32 {
    number.checked_ilog10().map_or(1, |log| log + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_settles_on_the_longest_length() {
        let mut run = Run { count: RUN_MIN, len: 700 };
        let mut lengths = Vec::new();
        for natural in [701, 699, 703, 704, 690, 705, 701, 736] {
            let len = natural + usize::from(Padding::Fit(run).of(natural, 300));
            lengths.push(len);
            run = Run { count: run.count + 1, len: len as u32 };
        }
        assert_eq!(lengths, [704, 704, 704, 704, 704, 736, 736, 736]);
    }

    #[test]
    fn a_few_messages_to_one_address_are_left_alone() {
        for count in 0..RUN_MIN {
            assert_eq!(Padding::Fit(Run { count, len: 704 }).of(701, 300), 0);
        }
    }

    #[test]
    fn what_is_much_shorter_or_too_long_for_a_link_is_not_drawn_out() {
        let run = Run { count: 100, len: 1400 };
        assert_eq!(Padding::Fit(run).of(1200, 500), 16, "a run of its own");
        assert_eq!(Padding::Fit(run).of(1401, 800), 0);
        let shorter = Run { count: 100, len: 1380 };
        assert_eq!(Padding::Fit(shorter).of(1385, 800), 15, "to the longest that travels in a train");
    }

    #[test]
    fn a_longer_content_length_is_counted() {
        let run = Run { count: 100, len: 800 };
        // Three bytes of padding would be four digits instead of three: two do.
        assert_eq!(Padding::Fit(run).of(797, 998), 2);
        // One byte is what the fourth digit takes, and zero is one too few.
        assert_eq!(Padding::Fit(run).of(799, 999), 0);
    }

    #[test]
    fn a_retransmission_is_padded_as_the_first_time() {
        assert_eq!(Padding::Exactly(17).of(500, 200), 17);
    }
}

//! Which part of each class is taken when only a part of all requests can be.

use super::{Class, Share, WHOLE};

const CLASSES: usize = Class::ALL.len();

/// How many messages of each class came lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix([u32; CLASSES]);

impl Mix {
    /// One more.
    pub fn count(&mut self, class: Class) {
        let count = &mut self.0[class as usize];
        *count = count.saturating_add(1);
    }

    /// Lets what came before count half.
    pub fn age(&mut self) {
        self.0.iter_mut().for_each(|count| *count /= 2);
    }
}

/// The part of each class that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut([Share; CLASSES]);

impl Cut {
    /// Everything is taken.
    pub const NONE: Self = Self([WHOLE; CLASSES]);

    /// Takes `share` of the requests of `mix`, those of the first classes first. Answers are no requests, and like ends are
    /// taken in any case; a class of which nothing came is treated as one of which a little came.
    #[must_use]
    pub fn of(share: Share, mix: &Mix) -> Self {
        if share >= WHOLE {
            return Self::NONE;
        }
        let counts =
            || Class::ALL.iter().skip(1).map(|&class| (class, u64::from(mix.0[class as usize].max(1))));
        let all: u64 = counts().map(|(_, count)| count).sum();
        let mut room = all * u64::from(share);
        let mut cut = Self::NONE;
        for (class, count) in counts() {
            let wanted = count * u64::from(WHOLE);
            let taken = wanted.min(room);
            room -= taken;
            if !class.is_always_taken() {
                cut.0[class as usize] = (taken / count) as Share;
            }
        }
        cut
    }

    /// What one of both takes.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|class| self.0[class].max(other.0[class])))
    }

    /// Whether a message is taken whose lot is `lot`, any 16 bits that its repetitions share.
    #[must_use]
    pub const fn takes(&self, class: Class, lot: u16) -> bool {
        (lot as Share) < self.0[class as usize]
    }

    /// The part of a class that is taken.
    #[must_use]
    pub const fn share_of(&self, class: Class) -> Share {
        self.0[class as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mix(counts: [u32; CLASSES]) -> Mix {
        Mix(counts)
    }

    #[test]
    fn the_last_classes_go_first() {
        let even = mix([0, 1000, 1000, 1000, 1000, 1000, 1000, 1000]);
        let half = Cut::of(WHOLE / 2, &even);
        assert_eq!(half.share_of(Class::Reregister), WHOLE);
        assert_eq!(half.share_of(Class::Register), WHOLE / 2);
        assert_eq!(half.share_of(Class::Publish), 0);
        let nothing = Cut::of(0, &even);
        assert!(nothing.takes(Class::Answer, u16::MAX) && nothing.takes(Class::End, u16::MAX));
        assert!(!nothing.takes(Class::Refresh, 0));
        let only_registers = Cut::of(WHOLE / 4, &mix([0, 0, 0, 0, 1_000_000, 0, 0, 0]));
        assert!(only_registers.share_of(Class::Register).abs_diff(WHOLE / 4) < 16);
        assert_eq!(only_registers.share_of(Class::Refresh), WHOLE, "hardly any came");
    }

    proptest! {
        #[test]
        fn no_class_is_taken_less_than_one_behind_it(share in 0..=WHOLE, counts: [u16; CLASSES]) {
            let cut = Cut::of(share, &mix(counts.map(u32::from)));
            for pair in Class::ALL.windows(2) {
                prop_assert!(cut.share_of(pair[0]) >= cut.share_of(pair[1]), "{cut:?}");
            }
        }

        #[test]
        fn a_greater_share_takes_no_class_less(a in 0..=WHOLE, b in 0..=WHOLE, counts: [u16; CLASSES]) {
            let mix = mix(counts.map(u32::from));
            let (less, more) = (Cut::of(a.min(b), &mix), Cut::of(a.max(b), &mix));
            for class in Class::ALL {
                prop_assert!(less.share_of(class) <= more.share_of(class));
            }
            prop_assert_eq!(less.or(&more), more);
        }

        #[test]
        fn what_is_taken_of_all_is_the_share(share in 0..=WHOLE, counts: [u16; CLASSES]) {
            let mut counts = counts.map(|count| u32::from(count) + 1);
            counts[Class::End as usize] = 1;
            let all: u64 = counts[1..].iter().map(|&count| u64::from(count)).sum();
            let cut = Cut::of(share, &mix(counts));
            let taken: f64 = Class::ALL[1..]
                .iter()
                .map(|&class| f64::from(counts[class as usize]) * f64::from(cut.share_of(class)) / f64::from(WHOLE))
                .sum();
            let wanted = all as f64 * f64::from(share) / f64::from(WHOLE);
            prop_assert!((taken - wanted).abs() <= 2.0, "{taken} of {wanted}");
        }
    }
}

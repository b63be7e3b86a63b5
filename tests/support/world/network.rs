//! The network between phones and server: what it loses, doubles, delays and so puts out of order.

use std::time::Duration;

use comsipl_core::Chance;

/// How a network treats each datagram, independently of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Of a thousand datagrams, how many are lost.
    pub loss_permille: u32,
    /// Of a thousand datagrams that are not lost, how many arrive twice.
    pub duplicate_permille: u32,
    /// Shortest time on the way.
    pub delay_min: Duration,
    /// Longest time on the way. Two datagrams whose delays differ enough arrive out of order.
    pub delay_max: Duration,
}

impl Network {
    /// Delivers everything once, in order, at once.
    pub const PERFECT: Self = Self {
        loss_permille: 0,
        duplicate_permille: 0,
        delay_min: Duration::ZERO,
        delay_max: Duration::ZERO,
    };

    /// The delays after which copies of one datagram arrive: none if it is lost, two if it is doubled.
    pub(super) fn fates(&self, chance: &mut Chance) -> Vec<Duration> {
        if chance.below(1000) < self.loss_permille {
            return Vec::new();
        }
        let copies = if chance.below(1000) < self.duplicate_permille { 2 } else { 1 };
        (0..copies).map(|_| self.delay(chance)).collect()
    }

    /// The delay of a message in a connection: what is lost on the way is sent again below, which takes its time.
    pub(super) fn stream_delay(&self, chance: &mut Chance) -> Duration {
        let mut delay = self.delay(chance);
        while chance.below(1000) < self.loss_permille {
            delay += STREAM_RETRANSMISSION;
        }
        delay
    }

    fn delay(&self, chance: &mut Chance) -> Duration {
        let spread =
            u32::try_from(self.delay_max.saturating_sub(self.delay_min).as_micros()).unwrap_or(u32::MAX);
        let extra = if spread == 0 { 0 } else { chance.below(spread) };
        self.delay_min + Duration::from_micros(u64::from(extra))
    }
}

/// How long a connection waits before it sends again what was lost (RFC 6298 §2: at least a second, less in practice).
const STREAM_RETRANSMISSION: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_perfect_network_delivers_once_and_at_once() {
        let mut chance = Chance::from_seed([1; 32]);
        for _ in 0..100 {
            assert_eq!(Network::PERFECT.fates(&mut chance), [Duration::ZERO]);
        }
    }

    #[test]
    fn a_bad_network_loses_doubles_and_delays() {
        let bad = Network {
            loss_permille: 300,
            duplicate_permille: 300,
            delay_min: Duration::from_millis(1),
            delay_max: Duration::from_millis(9),
        };
        let mut chance = Chance::from_seed([2; 32]);
        let fates: Vec<_> = (0..1000).map(|_| bad.fates(&mut chance)).collect();
        let of_len = |len| fates.iter().filter(|f| f.len() == len).count();
        assert!((250..350).contains(&of_len(0)), "{} lost", of_len(0));
        assert!((150..270).contains(&of_len(2)), "{} doubled", of_len(2));
        assert!(fates.iter().flatten().all(|d| (bad.delay_min..bad.delay_max).contains(d)));
    }
}

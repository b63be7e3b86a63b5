//! Whether who is told by UDP can be reached where he says, so that nobody has us flood somebody else.
//!
//! A datagram proves nothing of its source, and a Contact may name any address. A SUBSCRIBE of 600 bytes brings a NOTIFY of a
//! thousand or more, eleven times while nobody answers (RFC 3261 §17.1.2.2). Who answers one has proved that he is there: its
//! branch has a number in it that nobody else can know. Until an address has done so, what it is sent is bounded, in the way
//! of RFC 9000 §8.1: by a multiple of what came for it, and an allowance that fills again slowly.
//!
//! | address | its NOTIFYs | a SUBSCRIBE for it |
//! |---|---|---|
//! | proved within [`PROOF_LASTS`] | are sent | is taken |
//! | not proved, within its allowance | are sent and counted | is taken, and adds [`EARNED`] times its bytes |
//! | not proved, beyond it | are not sent; Timer E tries again | adds as much, and is refused (500, Retry-After) if that is not enough |
//!
//! A refresh and an end are taken in any case: a known watcher may not answer for a while.
//!
//! All shards share one table of fixed size ([`Meters`]). Proved addresses stay longest in it. Who is forgotten because very many
//! come has his whole allowance again, and the sum of all is bounded by what is received and what the machine can send.

use std::time::Duration;

use comsipl_core::auth::{Meter, Meters, Source};
use comsipl_core::{HashKey, Mono};

/// Addresses that are remembered, 8 bytes each.
pub const ADDRESSES_MAX: usize = 1 << 18;

/// How long an address that was proved is not asked for another proof. Subscriptions that were proved stay so.
pub const PROOF_LASTS: Duration = Duration::from_secs(3600);

/// How many bytes of NOTIFYs each byte of a SUBSCRIBE pays for. With the answer to it, which is about as long, that makes the three
/// times of RFC 9000 §8.1.
pub const EARNED: u64 = 2;

/// How many bytes an address may be sent before it has proved anything, besides what is paid for: the first NOTIFYs of a proxy with
/// a hundred watchers, or all the repetitions to a phone that is asleep.
pub const ALLOWANCE: u64 = 128_000;

/// How many bytes of the allowance come back in a second.
pub const REFILL_PER_S: u64 = 2_000;

/// Which addresses have proved that they are there, and what others were sent.
#[derive(Debug)]
pub struct Reach {
    /// `None`: nobody needs to prove anything.
    meters: Option<Meters>,
    key: HashKey,
}

impl Reach {
    /// A table in which nobody has proved anything; `is_wanted`: whether anybody need.
    #[must_use]
    pub fn new(is_wanted: bool, key: HashKey) -> Self {
        Self { meters: is_wanted.then(|| Meters::new(ADDRESSES_MAX)), key }
    }

    /// Whether an address has proved that it is there.
    #[must_use]
    pub fn is_proved(&self, now: Mono, address: Source) -> bool {
        self.meters.as_ref().is_none_or(|meters| meters.read(self.whose(address), now.0).marked)
    }

    /// An address has proved that it is there.
    pub fn prove(&self, now: Mono, address: Source) {
        if let Some(meters) = &self.meters {
            let level = PROOF_LASTS.as_micros() as u64;
            meters.change(self.whose(address), now.0, |_| (Meter { level, marked: true }, ()));
        }
    }

    /// Whether an address may be sent something.
    #[must_use]
    pub fn has_room(&self, now: Mono, address: Source) -> bool {
        let full = |meter: Meter| !meter.marked && meter.level >= ALLOWANCE * MICROS_PER_BYTE;
        self.meters.as_ref().is_none_or(|meters| !full(meters.read(self.whose(address), now.0)))
    }

    /// So many bytes came for an address.
    pub fn earn(&self, now: Mono, address: Source, bytes: usize) {
        let earned = EARNED * bytes as u64 * MICROS_PER_BYTE;
        self.add(now, address, |level| level.saturating_sub(earned));
    }

    /// So many bytes are sent to an address.
    pub fn spend(&self, now: Mono, address: Source, bytes: usize) {
        self.add(now, address, |level| level.saturating_add(bytes as u64 * MICROS_PER_BYTE));
    }

    fn add(&self, now: Mono, address: Source, next: impl Fn(u64) -> u64) {
        if let Some(meters) = &self.meters {
            meters.change(self.whose(address), now.0, |meter| {
                let level = if meter.marked { meter.level } else { next(meter.level) };
                (Meter { level, ..meter }, ())
            });
        }
    }

    fn whose(&self, address: Source) -> u64 {
        self.key.of(&[b"reach", &address.number().to_le_bytes()])
    }
}

/// How long a byte of the allowance takes to come back.
const MICROS_PER_BYTE: u64 = 1_000_000 / REFILL_PER_S;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(1_000_000);

    fn reach() -> Reach {
        Reach::new(true, HashKey([1, 2]))
    }

    fn address(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    /// How many messages of a thousand bytes an address is sent that never answers.
    fn sent(reach: &Reach, now: Mono, n: u8) -> u64 {
        let mut sent = 0;
        while reach.has_room(now, address(n)) && sent < 10_000 {
            reach.spend(now, address(n), 1000);
            sent += 1;
        }
        sent
    }

    #[test]
    fn who_never_answers_is_sent_the_allowance_and_what_was_paid_for() {
        let reach = reach();
        assert!(!reach.is_proved(NOW, address(1)));
        assert_eq!(sent(&reach, NOW, 1), ALLOWANCE / 1000);
        assert!(reach.has_room(NOW, address(2)), "others do not mind");
        reach.earn(NOW, address(1), 1000);
        assert_eq!(sent(&reach, NOW, 1), EARNED);
        assert_eq!(sent(&reach, NOW + Duration::from_secs(10), 1), REFILL_PER_S * 10 / 1000);
        assert_eq!(
            sent(&reach, NOW + Duration::from_secs(1000), 1),
            ALLOWANCE / 1000,
            "and no more after a pause"
        );
    }

    #[test]
    fn who_sends_much_saves_nothing() {
        let reach = reach();
        reach.earn(NOW, address(1), 1 << 30);
        assert_eq!(sent(&reach, NOW, 1), ALLOWANCE / 1000);
    }

    #[test]
    fn who_has_proved_to_be_there_is_free_for_a_while() {
        let reach = reach();
        sent(&reach, NOW, 1);
        reach.prove(NOW, address(1));
        assert!(reach.is_proved(NOW, address(1)));
        assert_eq!(sent(&reach, NOW, 1), 10_000);
        reach.earn(NOW, address(1), 1 << 30);
        assert!(reach.is_proved(NOW + (PROOF_LASTS - Duration::from_micros(1)), address(1)));
        assert!(!reach.is_proved(NOW + PROOF_LASTS, address(1)));
        assert_eq!(sent(&reach, NOW + PROOF_LASTS, 1), ALLOWANCE / 1000);
    }

    #[test]
    fn nobody_is_bounded_where_nobody_need_prove_anything() {
        let reach = Reach::new(false, HashKey([1, 2]));
        assert!(reach.is_proved(NOW, address(1)));
        assert_eq!(sent(&reach, NOW, 1), 10_000);
    }
}

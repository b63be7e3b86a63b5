//! Places that NOTIFYs could not be brought to, so that the next place of their name is tried (RFC 3263 §4.3).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::transaction::TIMER_F;
use comsipl_core::{Mono, Transport};

use super::{Found, TARGETS_MAX};

/// What a shard knows of places that failed, for a while.
#[derive(Debug, Default)]
pub(crate) struct Failed {
    until: BTreeMap<(Place, Whose), Mono>,
}

type Place = (Transport, SocketAddr);

/// Who has found a place failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// Everybody: it takes no connection, or says itself that it cannot serve (503).
    All,
    /// The subscription with this number: nothing answered, which may as well be the watcher behind a proxy that is well, since
    /// no proxy says 408 for him (RFC 4320 §4.2).
    One(u32),
}

impl Failed {
    /// A place has failed, for `span` at most [`FAILED_SPAN`]; says whether that was not known.
    pub(crate) fn note(&mut self, now: Mono, place: Place, whose: Whose, span: Duration) -> bool {
        if self.until.len() >= FAILED_MAX {
            self.until.retain(|_, until| *until > now);
            let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            if let Some(first) = first.filter(|_| self.until.len() >= FAILED_MAX) {
                self.until.remove(&first);
            }
        }
        let before = self.until.insert((place, whose), now + span.min(FAILED_SPAN));
        before.is_none_or(|until| until <= now)
    }

    /// The first of the places that has not failed, as far as the subscription `id` goes; `None`: all have.
    pub(crate) fn first_good(&self, now: Mono, id: Option<u32>, places: &[Found]) -> Option<Found> {
        places.iter().find(|found| !self.has_failed(now, id, (found.transport, found.address))).copied()
    }

    fn has_failed(&self, now: Mono, id: Option<u32>, place: Place) -> bool {
        let has = |whose| self.until.get(&(place, whose)).is_some_and(|until| *until > now);
        !self.until.is_empty() && (has(Whose::All) || id.is_some_and(|id| has(Whose::One(id))))
    }
}

/// How long a place is left alone: as long as it takes to try all of a name, so that this comes to an end.
pub(crate) const FAILED_SPAN: Duration = TIMER_F.saturating_mul(TARGETS_MAX as u32);

/// Most failures that a shard remembers; beyond it those go first whose time is up first, and are tried again too soon.
const FAILED_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_failed_gives_way_to_the_next_for_a_while() {
        let place = |last: u8| (Transport::Udp, SocketAddr::from(([192, 0, 2, last], 5060)));
        let places = [1, 2].map(|last| Found { transport: Transport::Udp, address: place(last).1 });
        let mut failed = Failed::default();
        let at = |secs| Mono(0) + Duration::from_secs(secs);
        let good = |failed: &Failed, secs, id| failed.first_good(at(secs), id, &places).map(|it| it.address);
        assert_eq!(good(&failed, 0, None), Some(place(1).1));
        assert!(failed.note(at(0), place(1), Whose::One(7), FAILED_SPAN));
        assert_eq!(good(&failed, 0, Some(7)), Some(place(2).1));
        assert_eq!((good(&failed, 0, Some(8)), good(&failed, 0, None)), (Some(place(1).1), Some(place(1).1)));
        assert!(failed.note(at(0), place(2), Whose::All, Duration::from_secs(5)));
        assert!(!failed.note(at(1), place(2), Whose::All, Duration::from_secs(5)), "known");
        assert_eq!(good(&failed, 5, Some(7)), None);
        assert_eq!(good(&failed, 6, Some(7)), Some(place(2).1), "Retry-After is over");
        assert_eq!(good(&failed, 256, Some(7)), Some(place(1).1));
        assert!(failed.note(at(256), place(1), Whose::One(7), FAILED_SPAN), "it has failed anew");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut failed = Failed::default();
        for number in 0..FAILED_MAX as u32 + 100 {
            let place = (Transport::Tcp, SocketAddr::from((number.to_be_bytes(), 5060)));
            failed.note(Mono(number.into()), place, Whose::All, FAILED_SPAN);
            let found = Found { transport: place.0, address: place.1 };
            assert_eq!(failed.first_good(Mono(number.into()), None, &[found]), None, "the newest is known");
        }
        assert_eq!(failed.until.len(), FAILED_MAX);
    }
}

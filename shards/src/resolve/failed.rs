//! Places that NOTIFYs could not be brought to, so that the next place of their name is tried (RFC 3263 §4.3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::transaction::TIMER_F;
use comsipl_core::{Mono, Transport};

use super::{Found, TARGETS_MAX};

/// What a shard knows of places that failed, for a while.
#[derive(Debug, Default)]
pub(crate) struct Failed {
    for_all: Until<Place>,
    for_one: Until<(Place, u32)>,
}

/// What counts until a moment. Beyond the bound that goes first whose time is up first.
#[derive(Debug)]
struct Until<K> {
    of: BTreeMap<K, Mono>,
    by_time: BTreeSet<(Mono, K)>,
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
    /// A place has failed, for `span` at most [`FAILED_SPAN`]; says whether that was not known. What one subscription has found is
    /// tried again when its time is up, however often it failed meanwhile, where there was nowhere else to go.
    pub(crate) fn note(&mut self, now: Mono, place: Place, whose: Whose, span: Duration) -> bool {
        let until = now + span.min(FAILED_SPAN);
        match whose {
            Whose::All => {
                let is_new = !self.for_all.has(now, place);
                self.for_all.insert(place, until, FAILED_FOR_ALL_MAX);
                is_new
            }
            Whose::One(id) => {
                let is_new = !self.for_one.has(now, (place, id));
                if is_new {
                    self.for_one.insert((place, id), until, FAILED_FOR_ONE_MAX);
                }
                is_new
            }
        }
    }

    /// The first of the places that has not failed, as far as the subscription `id` goes; `None`: all have.
    pub(crate) fn first_good(&self, now: Mono, id: Option<u32>, places: &[Found]) -> Option<Found> {
        places.iter().find(|found| !self.has_failed(now, id, (found.transport, found.address))).copied()
    }

    fn has_failed(&self, now: Mono, id: Option<u32>, place: Place) -> bool {
        self.for_all.has(now, place) || id.is_some_and(|id| self.for_one.has(now, (place, id)))
    }
}

impl<K> Default for Until<K> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Until<K> {
    fn has(&self, now: Mono, key: K) -> bool {
        self.of.get(&key).is_some_and(|until| *until > now)
    }

    fn insert(&mut self, key: K, until: Mono, most: usize) {
        if let Some(before) = self.of.insert(key, until) {
            self.by_time.remove(&(before, key));
        }
        self.by_time.insert((until, key));
        if self.of.len() > most
            && let Some((_, first)) = self.by_time.pop_first()
        {
            self.of.remove(&first);
        }
    }
}

/// How long a place is left alone: as long as it takes to try all of a name, so that this comes to an end.
pub(crate) const FAILED_SPAN: Duration = TIMER_F.saturating_mul(TARGETS_MAX as u32);

/// Most places that a shard remembers to have failed for everybody; beyond it some are tried again too soon.
const FAILED_FOR_ALL_MAX: usize = 4096;
/// Most that it remembers to have failed for one subscription, so that what one phone does not answer takes nothing from what all know.
const FAILED_FOR_ONE_MAX: usize = 16_384;

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
    fn a_place_that_fails_again_is_not_new_to_who_found_it_and_has_its_time() {
        let place = (Transport::Udp, SocketAddr::from(([192, 0, 2, 1], 5060)));
        let found = [Found { transport: place.0, address: place.1 }];
        let mut failed = Failed::default();
        let at = |secs| Mono(0) + Duration::from_secs(secs);
        assert!(failed.note(at(0), place, Whose::One(7), FAILED_SPAN));
        assert!(!failed.note(at(200), place, Whose::One(7), FAILED_SPAN));
        assert!(failed.note(at(200), place, Whose::One(8), FAILED_SPAN), "another one has not found it yet");
        assert_eq!(failed.first_good(at(255), Some(7), &found), None);
        assert_eq!(failed.first_good(at(256), Some(7), &found), Some(found[0]));
        assert_eq!(failed.first_good(at(256), Some(8), &found), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let place = |number: u32| (Transport::Tcp, SocketAddr::from((number.to_be_bytes(), 5060)));
        let found = |place: Place| [Found { transport: place.0, address: place.1 }];
        let mut failed = Failed::default();
        for number in 0..FAILED_FOR_ALL_MAX as u32 + 100 {
            let now = Mono(number.into());
            failed.note(now, place(number), Whose::All, FAILED_SPAN);
            assert_eq!(failed.first_good(now, None, &found(place(number))), None, "the newest is known");
        }
        for id in 0..FAILED_FOR_ONE_MAX as u32 + 100 {
            let now = Mono(1_000_000 + u64::from(id));
            failed.note(now, place(0), Whose::One(id), FAILED_SPAN);
            assert_eq!(failed.first_good(now, Some(id), &found(place(0))), None, "the newest is known");
        }
        let last = found(place(FAILED_FOR_ALL_MAX as u32));
        assert_eq!(failed.first_good(Mono(2_000_000), None, &last), None, "what all know is apart");
        assert_eq!(failed.for_all.of.len(), FAILED_FOR_ALL_MAX);
        assert_eq!(failed.for_all.by_time.len(), FAILED_FOR_ALL_MAX);
        assert_eq!(failed.for_one.of.len(), FAILED_FOR_ONE_MAX);
        assert_eq!(failed.for_one.by_time.len(), FAILED_FOR_ONE_MAX);
    }
}

//! Knowing that all shards are at rest: that nothing is under way between them any more.
//!
//! A shard that has nothing to take is not at rest, because what it has handed over to another comes back as an answer, for a
//! connection that it holds. So shards that end go through rounds together. In each, a shard takes what is there for it,
//! publishes what that leads to, and arrives. What was published before the last one arrived is there in the next round; so
//! when nobody has taken anything in a round, nothing is under way.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What the shards share.
#[derive(Debug, Default)]
pub struct Rest {
    /// How often a shard has arrived, in all rounds.
    arrivals: AtomicUsize,
    /// The last round in which a shard took something.
    busy: AtomicUsize,
}

/// Where one shard is.
#[derive(Debug)]
pub struct Rounds {
    shards: usize,
    number: usize,
    /// Whether it took something since it arrived last. What it took before the first round counts as well.
    busy: bool,
    arrived: bool,
}

impl Rounds {
    /// Before the first round of so many shards.
    #[must_use]
    pub const fn new(shards: usize) -> Self {
        Self { shards, number: 1, busy: true, arrived: false }
    }

    /// The shard takes something.
    pub const fn take(&mut self) {
        self.busy = true;
    }

    /// The shard has nothing to take, and has published all that it had to. Returns whether that is so of all.
    pub fn is_over(&mut self, rest: &Rest) -> bool {
        if !self.arrived {
            if self.busy {
                rest.busy.fetch_max(self.number, Ordering::Relaxed); // published by the arrival
            }
            rest.arrivals.fetch_add(1, Ordering::AcqRel); // pairs with the load below, of this shard and of others
            (self.arrived, self.busy) = (true, false);
        }
        // Nobody arrives in a round before all have arrived in the one before.
        if rest.arrivals.load(Ordering::Acquire) < self.number * self.shards {
            return false;
        }
        if rest.busy.load(Ordering::Relaxed) < self.number {
            return true;
        }
        self.number += 1;
        self.arrived = false;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    #[test]
    fn one_shard_alone_rests_after_a_round_without_anything() {
        let rest = Rest::default();
        let mut rounds = Rounds::new(1);
        assert!(!rounds.is_over(&rest), "it may have told itself something");
        rounds.take();
        assert!(!rounds.is_over(&rest));
        assert!(rounds.is_over(&rest));
    }

    #[test]
    fn who_is_done_waits_for_what_comes_back() {
        let rest = Rest::default();
        let (mut asks, mut answers) = (Rounds::new(2), Rounds::new(2));
        assert!(!asks.is_over(&rest) && !asks.is_over(&rest), "the other has not arrived");
        assert!(!answers.is_over(&rest), "it has taken a request and answered it");
        assert!(!asks.is_over(&rest));
        asks.take();
        assert!(!answers.is_over(&rest));
        assert!(!asks.is_over(&rest) && !asks.is_over(&rest), "it took the answer in this round");
        assert!(!answers.is_over(&rest));
        assert!(answers.is_over(&rest) && asks.is_over(&rest));
    }

    /// Tokens that are passed on so often; none is left behind.
    #[test]
    fn nothing_is_left_behind_however_often_it_is_passed_on() {
        const SHARDS: usize = 4;
        for round in 0..200 {
            let rest = Rest::default();
            let (senders, inboxes): (Vec<Sender<usize>>, Vec<Receiver<usize>>) =
                (0..SHARDS).map(|_| channel()).unzip();
            let left: usize = std::thread::scope(|scope| {
                let work = |(index, inbox): (usize, Receiver<usize>)| {
                    let (senders, rest) = (senders.clone(), &rest);
                    scope.spawn(move || {
                        let mut rounds = Rounds::new(SHARDS);
                        senders[(index + 1) % SHARDS].send(round % 7).unwrap();
                        let mut ended = 0;
                        loop {
                            match inbox.try_recv() {
                                Ok(0) => {
                                    rounds.take();
                                    ended += 1;
                                }
                                Ok(hops) => {
                                    rounds.take();
                                    senders[(index + hops) % SHARDS].send(hops - 1).unwrap();
                                }
                                Err(_) if rounds.is_over(rest) => return ended,
                                Err(_) => std::thread::yield_now(),
                            }
                        }
                    })
                };
                let threads: Vec<_> = inboxes.into_iter().enumerate().map(work).collect();
                SHARDS - threads.into_iter().map(|it| it.join().unwrap()).sum::<usize>()
            });
            assert_eq!(left, 0, "tokens are under way still");
        }
    }
}

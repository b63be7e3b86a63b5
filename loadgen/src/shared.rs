//! What the threads of a run share: the plan, the clock of its phases, and a board for each presentity.

use crate::clock::{Clock, Nanos};
use crate::message::Style;
use crate::scenario::Plan;
use crate::stats::{Counters, Counts};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The stage of a run that is over.
pub const STOP: usize = usize::MAX;

/// What all threads see.
pub struct Shared {
    /// The run's time line.
    pub clock: Clock,
    /// The server.
    pub target: SocketAddr,
    /// What requests have in common.
    pub style: Style,
    /// Interval that phones ask for, in seconds.
    pub expires: u32,
    /// What happens.
    pub plan: Plan,
    /// The running phase, counted from 1; 0 before the first, [`STOP`] after the last.
    pub stage: AtomicUsize,
    /// When the running phase began.
    pub stage_start: AtomicU64,
    /// What the world knows of each presentity.
    pub boards: Box<[Board]>,
    /// What the world knows of each thread.
    pub posts: Box<[Post]>,
}

/// What watchers of all threads know of a presentity.
#[derive(Debug, Default)]
pub struct Board {
    /// Number of the newest state in the upper half, how many watchers were told it in the lower.
    told: AtomicU64,
    /// The last state that the server accepted.
    pub accepted: AtomicU32,
    /// A newer state that the server may have; 0 if there is none.
    pub unsure: AtomicU32,
    /// Active subscriptions.
    pub watching: AtomicU32,
}

/// What the world knows of a thread.
#[derive(Debug, Default)]
pub struct Post {
    /// Its counters.
    pub counters: Counters,
    /// The last phase that it has finished.
    pub finished: AtomicUsize,
    /// Nanoseconds that it had nothing to do.
    pub idle: AtomicU64,
    /// Datagrams that the kernel dropped at its sockets.
    pub dropped: AtomicU64,
}

impl Board {
    /// A new state is on its way.
    pub fn publish(&self, state: u32) {
        self.told.store(u64::from(state) << 32, Ordering::Relaxed);
    }

    /// One more watcher was told `state`.
    pub fn tell(&self, state: u32) {
        let mut told = self.told.load(Ordering::Relaxed);
        while told >> 32 == u64::from(state) {
            match self.told.compare_exchange_weak(told, told + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => told = now,
            }
        }
    }

    /// Whether all watchers were told the newest state.
    pub fn all_told(&self) -> bool {
        self.told.load(Ordering::Relaxed) as u32 >= self.watching.load(Ordering::Relaxed)
    }

    /// The accepted state, and one that may have been.
    pub fn settled(&self) -> (u32, Option<u32>) {
        let unsure = self.unsure.load(Ordering::Relaxed);
        (self.accepted.load(Ordering::Relaxed), (unsure > 0).then_some(unsure))
    }
}

impl Shared {
    /// What all threads have counted so far.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for post in &self.posts {
            sum.merge(post.counters.read());
        }
        sum
    }

    /// When the running phase began.
    pub fn start(&self) -> Nanos {
        self.stage_start.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_counts_only_those_told_of_the_newest_state() {
        let board = Board::default();
        board.watching.store(2, Ordering::Relaxed);
        board.publish(4);
        board.tell(4);
        board.publish(5);
        board.tell(4);
        board.tell(5);
        assert!(!board.all_told());
        board.tell(5);
        assert!(board.all_told());
    }
}

//! What the threads of a run share: the plan, the clock of its phases, and a board for each presentity.

use crate::clock::{Clock, Nanos};
use crate::hostile;
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
    /// How far the strangers are.
    pub attack: hostile::Board,
    /// What the world knows of each thread.
    pub posts: Box<[Post]>,
}

/// What watchers of all threads know of a presentity.
#[derive(Debug, Default)]
pub struct Board {
    /// Number of the newest state, answered or not.
    pub newest: AtomicU32,
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
    /// How many of its watchers were told of a state of each presentity: the state's number in the upper half, how
    /// many in the lower. Only this thread writes there, so that threads do not wait for each other.
    pub told: Box<[AtomicU64]>,
    /// Nanoseconds that it had nothing to do.
    pub idle: AtomicU64,
    /// Datagrams that the kernel dropped at its sockets.
    pub dropped: AtomicU64,
}

impl Board {
    /// The accepted state, and one that may have been.
    pub fn settled(&self) -> (u32, Option<u32>) {
        let unsure = self.unsure.load(Ordering::Relaxed);
        (self.accepted.load(Ordering::Relaxed), (unsure > 0).then_some(unsure))
    }
}

impl Post {
    /// Of a thread whose watchers watch some of so many presentities.
    pub fn new(presentities: u32) -> Self {
        Self { told: (0..presentities).map(|_| AtomicU64::new(0)).collect(), ..Self::default() }
    }

    /// One more watcher of this thread was told `state`.
    pub fn tell(&self, presentity: u32, state: u32) {
        let told = &self.told[presentity as usize];
        let before = told.load(Ordering::Relaxed);
        let first = u64::from(state) << 32;
        if before < first {
            told.store(first | 1, Ordering::Relaxed);
        } else if before >> 32 == u64::from(state) {
            told.store(before + 1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// Whether all watchers of a presentity were told its newest state.
    pub fn all_told(&self, presentity: u32) -> bool {
        let board = &self.boards[presentity as usize];
        let newest = board.newest.load(Ordering::Relaxed);
        let told = self.posts.iter().map(|post| post.told[presentity as usize].load(Ordering::Relaxed));
        let told = told.filter(|told| told >> 32 == u64::from(newest)).map(|told| told & 0xffff_ffff);
        told.sum::<u64>() >= u64::from(board.watching.load(Ordering::Relaxed))
    }

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
    fn only_those_told_of_the_newest_state_count() {
        let post = Post::new(3);
        let told = || post.told[1].load(Ordering::Relaxed);
        post.tell(1, 4);
        post.tell(1, 4);
        assert_eq!(told(), 4 << 32 | 2);
        post.tell(1, 5);
        post.tell(1, 4);
        assert_eq!(told(), 5 << 32 | 1);
    }
}

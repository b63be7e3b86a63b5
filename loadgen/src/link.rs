//! A bad network between the phones and the server, played by the generator's own sockets.

use crate::chance::Chance;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How bad the network is, in both directions. The shares are of all datagrams, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Share that is lost.
    pub loss: f64,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share that is overtaken by others.
    pub reorder: f64,
    /// Milliseconds that an overtaken datagram is held back.
    pub held_ms: u64,
}

impl Link {
    /// Whether there is anything bad about it.
    pub fn is_bad(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder > 0.0
    }

    /// Whether the shares are shares.
    pub fn is_sound(&self) -> bool {
        let all = [self.loss, self.duplicate, self.reorder];
        all.iter().all(|share| (0.0..=1.0).contains(share)) && all.iter().sum::<f64>() <= 1.0
    }
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Lost,
    /// It arrives.
    Once,
    /// It arrives twice.
    Twice,
    /// It arrives after others that were sent later.
    Later,
}

/// A datagram that is held back.
pub struct Held {
    due: Instant,
    /// The socket that it goes out by or comes in by.
    pub socket: usize,
    /// The other side.
    pub peer: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What a thread's bad network has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Datagrams lost.
    pub lost: u64,
    /// Datagrams doubled.
    pub doubled: u64,
    /// Datagrams held back.
    pub delayed: u64,
}

/// A bad network at work.
pub struct Weather {
    link: Link,
    chance: Chance,
    /// What it has done.
    pub done: Done,
    /// Towards the server. All are held equally long, so they are due in their order.
    outward: VecDeque<Held>,
    /// Towards the phones.
    inward: VecDeque<Held>,
}

impl Weather {
    /// The network `link`; the same `seed` makes the same fates.
    pub fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            chance: Chance::new(seed),
            done: Done::default(),
            outward: VecDeque::new(),
            inward: VecDeque::new(),
        }
    }

    /// Decides what becomes of the next datagram.
    pub fn fate(&mut self) -> Fate {
        let chance = self.chance.part();
        let Link { loss, duplicate, reorder, .. } = self.link;
        if chance < loss {
            self.done.lost += 1;
            Fate::Lost
        } else if chance < loss + duplicate {
            self.done.doubled += 1;
            Fate::Twice
        } else if chance < loss + duplicate + reorder {
            self.done.delayed += 1;
            Fate::Later
        } else {
            Fate::Once
        }
    }

    /// Holds back a datagram on its way out.
    pub fn hold_outward(&mut self, socket: usize, peer: SocketAddr, bytes: Vec<u8>) {
        let due = self.due();
        self.outward.push_back(Held { due, socket, peer, bytes });
    }

    /// Holds back a datagram on its way in.
    pub fn hold_inward(&mut self, socket: usize, peer: SocketAddr, bytes: Vec<u8>) {
        let due = self.due();
        self.inward.push_back(Held { due, socket, peer, bytes });
    }

    /// The next datagram on its way out that has been held long enough.
    pub fn release_outward(&mut self) -> Option<Held> {
        release(&mut self.outward)
    }

    /// The next datagram on its way in that has been held long enough.
    pub fn release_inward(&mut self) -> Option<Held> {
        release(&mut self.inward)
    }

    fn due(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.link.held_ms)
    }
}

fn release(held: &mut VecDeque<Held>) -> Option<Held> {
    held.front().is_some_and(|first| first.due <= Instant::now()).then(|| held.pop_front())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_have_their_shares() {
        let link = Link { loss: 0.05, duplicate: 0.02, reorder: 0.03, held_ms: 0 };
        let mut weather = Weather::new(link, 1);
        let lost = (0..100_000).filter(|_| weather.fate() == Fate::Lost).count();
        assert!((4_500..5_500).contains(&lost), "{lost}");
        let Done { lost: counted, doubled, delayed } = weather.done;
        assert_eq!(counted, lost as u64);
        assert!((1_700..2_300).contains(&doubled) && (2_600..3_400).contains(&delayed), "{:?}", weather.done);
    }

    #[test]
    fn what_is_held_comes_out_in_its_order() {
        let mut weather = Weather::new(Link { reorder: 1.0, ..Link::default() }, 1);
        let peer = "127.0.0.1:1".parse().unwrap();
        weather.hold_inward(0, peer, vec![1]);
        weather.hold_inward(1, peer, vec![2]);
        assert!(weather.release_outward().is_none());
        assert_eq!(weather.release_inward().unwrap().bytes, [1]);
        assert_eq!(weather.release_inward().unwrap().socket, 1);
        assert!(weather.release_inward().is_none());
    }

    #[test]
    fn shares_are_shares() {
        assert!(Link { loss: 0.5, duplicate: 0.5, ..Link::default() }.is_sound());
        assert!(!Link { loss: 0.6, duplicate: 0.5, ..Link::default() }.is_sound());
        assert!(!Link { loss: -0.1, ..Link::default() }.is_sound());
        assert!(!Link::default().is_bad());
    }
}

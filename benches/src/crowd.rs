//! Phones around one shard: who has published what, and who watches whom.

use std::net::SocketAddr;

use crate::message::{PROXY, by_proxy, phone, publish, subscribe};
use crate::one_shard::OneShard;

/// A shard and the phones that use it; phones remember what they need for their next request.
pub struct Crowd {
    /// The shard.
    pub world: OneShard,
    /// Of each presentity: the entity tag of its publication and the number of the request that got it.
    publications: Vec<(String, u32)>,
    /// Of each subscription: watcher, presentity, the server's tag and the number of the request.
    subscriptions: Vec<(usize, usize, String, u32)>,
    /// Whether everybody's requests come through a proxy.
    by_proxy: bool,
}

/// What a PUBLISH brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Another document.
    Changed,
    /// No body: the publication lives on.
    Refreshed,
}

impl Crowd {
    /// `presentities` with a document each, watched by nobody.
    ///
    /// # Panics
    /// If one is not accepted.
    #[must_use]
    pub fn new(presentities: usize, by_proxy: bool) -> Self {
        let mut crowd = Self {
            world: OneShard::new(RECORDS),
            publications: Vec::with_capacity(presentities),
            subscriptions: Vec::new(),
            by_proxy,
        };
        for presentity in 0..presentities {
            let message = publish(presentity, 1, None, Some("state 1"));
            crowd.deliver(phone(presentity), &message);
            let tag = crowd.world.newest_entity_tag().expect("a first PUBLISH is accepted");
            crowd.publications.push((tag, 1));
            if presentity % TURN == TURN - 1 {
                crowd.world.settle();
            }
        }
        crowd.world.settle();
        crowd
    }

    /// As [`Self::new`], each presentity watched by `watchers` of its own.
    ///
    /// # Panics
    /// If one is not accepted.
    #[must_use]
    pub fn watched(presentities: usize, watchers: usize, by_proxy: bool) -> Self {
        let mut crowd = Self::new(presentities, by_proxy);
        for watcher in 0..presentities * watchers {
            crowd.subscribe(watcher, watcher / watchers);
            if watcher % TURN == TURN - 1 {
                crowd.world.settle();
            }
        }
        crowd.world.settle();
        crowd
    }

    /// Brings the PUBLISH of a presentity; the turn is not over then.
    ///
    /// # Panics
    /// If it is not accepted.
    pub fn publish(&mut self, presentity: usize, news: News) {
        let (tag, cseq) = &mut self.publications[presentity];
        *cseq += 1;
        let note = (news == News::Changed).then(|| format!("state {cseq}"));
        let message = publish(presentity, *cseq, Some(tag), note.as_deref());
        self.deliver(phone(presentity), &message);
        self.publications[presentity].0 = self.world.newest_entity_tag().expect("a PUBLISH is accepted");
    }

    /// Brings the first SUBSCRIBE of a watcher; the turn is not over then.
    ///
    /// # Panics
    /// If it is not accepted.
    pub fn subscribe(&mut self, watcher: usize, presentity: usize) {
        let message = subscribe(watcher, presentity, 1, None);
        self.deliver(phone(watcher), &message);
        let tag = self.world.newest_to_tag().expect("a SUBSCRIBE is accepted");
        self.subscriptions.push((watcher, presentity, tag, 1));
    }

    /// Brings the next SUBSCRIBE of a subscription; the turn is not over then.
    pub fn refresh(&mut self, subscription: usize) {
        let (watcher, presentity, tag, cseq) = &mut self.subscriptions[subscription];
        *cseq += 1;
        let (watcher, message) = (*watcher, subscribe(*watcher, *presentity, *cseq, Some(tag)));
        self.deliver(phone(watcher), &message);
    }

    /// The documents of `presentities` change in one turn, and all their watchers are told.
    pub fn change(&mut self, presentities: impl Iterator<Item = usize>) {
        for presentity in presentities {
            self.publish(presentity, News::Changed);
        }
        self.world.settle();
    }

    fn deliver(&mut self, from: SocketAddr, message: &[u8]) {
        if self.by_proxy {
            self.world.deliver(PROXY, &by_proxy(message));
        } else {
            self.world.deliver(from, message);
        }
    }
}

/// Requests that a turn brings when it is busy: one receive batch.
pub const TURN: usize = 64;
/// Records of a partition of each file.
const RECORDS: u32 = 1 << 16;

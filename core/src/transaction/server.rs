//! Server transactions: a retransmitted request gets the same answer and has no second effect (RFC 3261 §17.2.2).
//!
//! | state | input | output | next |
//! |---|---|---|---|
//! | – | request | the answer, remembered | completed |
//! | completed | the same request | the same bytes again | completed |
//! | completed | Timer J (64*T1) | – | ended |
//!
//! Every answer is made within the turn of its request, so *trying* and *proceeding* last no time. All transactions live
//! equally long, so they end in the order in which they began: a ring of bytes and a ring of entries are all the memory
//! there is, and no timer runs. When the ring is full before 64*T1 are over, the oldest answers are forgotten early and
//! counted; what keeps state (dialog, entity tag, binding) is then still guarded by CSeq and entity tag.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::TIMER_J;
use crate::flow::Flow;
use crate::time::Mono;

/// Identity of a server transaction: the keyed hash of branch, sent-by and method (RFC 3261 §17.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionKey(pub u128);

/// A remembered answer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: TransactionKey,
    ends: Mono,
    start: u32,
    len: u32,
    flow: Flow,
}

/// A remembered answer and where it went.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The answer, byte for byte.
    pub bytes: &'a [u8],
    /// The flow it was sent on.
    pub flow: Flow,
}

/// The answers given within the last 64*T1.
#[derive(Debug)]
pub struct ServerTransactions {
    entries: VecDeque<Entry>,
    /// Number of the oldest entry; entry `n` of the ring has number `first + n`.
    first: u64,
    /// Entry numbers by key.
    index: HashTable<u64>,
    bytes: Vec<u8>,
    capacity: usize,
    /// Where the next answer goes.
    head: usize,
    forgotten_early: u64,
}

impl ServerTransactions {
    /// Room for `capacity` bytes of answers. The system gives zeroed memory page by page as it is used, and the ring turns
    /// early while traffic is light, so a quiet server stays small.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(64 * 1024, u32::MAX as usize);
        Self {
            entries: VecDeque::new(),
            first: 0,
            index: HashTable::new(),
            bytes: vec![0; capacity],
            capacity,
            head: 0,
            forgotten_early: 0,
        }
    }

    /// The answer given to this transaction, if it is remembered.
    #[must_use]
    pub fn find(&self, key: TransactionKey) -> Option<Answered<'_>> {
        let number = *self.index.find(hash(key), |&n| self.entry(n).key == key)?;
        let entry = self.entry(number);
        Some(Answered { bytes: &self.bytes[entry.start as usize..][..entry.len as usize], flow: entry.flow })
    }

    /// Remembers the answer to a transaction that [`Self::find`] did not find.
    pub fn remember(&mut self, key: TransactionKey, flow: Flow, answer: &[u8], now: Mono) {
        self.expire(now);
        let len = answer.len();
        if len > self.capacity / 4 {
            self.forgotten_early += 1;
            return;
        }
        if self.may_turn_early(len) {
            self.head = 0;
        } else if self.head + len > self.capacity {
            // The rest of the buffer is too short: entries that still lie there are the oldest, they go first.
            while self.entries.front().is_some_and(|e| e.start as usize >= self.head) {
                self.drop_oldest(true);
            }
            self.head = 0;
        }
        let end = self.head + len;
        while self.entries.front().is_some_and(|e| {
            let (start, stop) = (e.start as usize, (e.start + e.len) as usize);
            start < end && stop > self.head
        }) {
            self.drop_oldest(true);
        }
        self.bytes[self.head..end].copy_from_slice(answer);
        let number = self.first + self.entries.len() as u64;
        self.entries.push_back(Entry {
            key,
            ends: now + TIMER_J,
            start: u32::try_from(self.head).expect("capacity is below 4 GiB"),
            len: u32::try_from(len).expect("an answer is far below 4 GiB"),
            flow,
        });
        let (entries, first) = (&self.entries, self.first);
        self.index.insert_unique(hash(key), number, |&n| hash(entries[(n - first) as usize].key));
        self.head = end;
    }

    /// Forgets what is older than Timer J.
    pub fn expire(&mut self, now: Mono) {
        while self.entries.front().is_some_and(|entry| entry.ends <= now) {
            self.drop_oldest(false);
        }
    }

    /// Answers remembered at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Answers that had to be forgotten before 64*T1 were over, since the start.
    #[must_use]
    pub const fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }

    /// Whether the free space before the oldest answer is larger than all that lies behind it: going on there keeps the
    /// used part of the ring at twice what is alive.
    fn may_turn_early(&self, len: usize) -> bool {
        let Some(oldest) = self.entries.front() else { return true };
        let oldest = oldest.start as usize;
        oldest < self.head && oldest >= len + (self.head - oldest)
    }

    fn drop_oldest(&mut self, early: bool) {
        let Some(entry) = self.entries.pop_front() else { return };
        let number = self.first;
        self.first += 1;
        self.forgotten_early += u64::from(early);
        if let Ok(found) = self.index.find_entry(hash(entry.key), |&n| n == number) {
            found.remove();
        }
    }

    fn entry(&self, number: u64) -> &Entry {
        &self.entries[(number - self.first) as usize]
    }
}

/// The key is a keyed hash already; its low half serves the table.
const fn hash(key: TransactionKey) -> u64 {
    key.0 as u64
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::flow::Transport;

    fn flow() -> Flow {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5061));
        Flow { transport: Transport::Udp, listener: 0, local_ip: None, peer }
    }

    #[test]
    fn an_answer_is_given_again_for_64_t1_and_then_forgotten() {
        let mut transactions = ServerTransactions::new(1 << 20);
        transactions.remember(TransactionKey(7), flow(), b"SIP/2.0 200 OK", Mono(0));
        let again = transactions.find(TransactionKey(7)).map(|a| a.bytes.to_vec());
        assert_eq!(again.as_deref(), Some(&b"SIP/2.0 200 OK"[..]));
        transactions.expire(Mono(31_999_999));
        assert!(transactions.find(TransactionKey(7)).is_some());
        transactions.expire(Mono(32_000_000));
        assert!(transactions.find(TransactionKey(7)).is_none());
        assert_eq!(transactions.forgotten_early(), 0);
    }

    #[test]
    fn light_traffic_uses_little_of_the_ring() {
        let mut transactions = ServerTransactions::new(16 << 20);
        let mut highest = 0;
        for n in 0..100_000u64 {
            // One answer of 400 bytes a second: 32 of them are alive at a time.
            transactions.remember(TransactionKey(u128::from(n)), flow(), &[7; 400], Mono(n * 1_000_000));
            highest = highest.max(transactions.head);
            assert!(transactions.find(TransactionKey(u128::from(n.saturating_sub(31)))).is_some());
        }
        assert_eq!(transactions.forgotten_early(), 0);
        assert!(highest <= 3 * 33 * 400, "{highest} bytes of the ring were used");
    }

    #[test]
    fn a_full_ring_forgets_the_oldest_and_never_mixes_answers() {
        let mut transactions = ServerTransactions::new(64 * 1024);
        for n in 0..5000u32 {
            let answer = vec![(n % 251) as u8; 100 + (n % 300) as usize];
            transactions.remember(TransactionKey(u128::from(n)), flow(), &answer, Mono(u64::from(n)));
            let oldest = n + 1 - u32::try_from(transactions.len()).unwrap();
            for check in [oldest, oldest.midpoint(n), n] {
                let found = transactions.find(TransactionKey(u128::from(check))).unwrap();
                assert_eq!(found.bytes.len(), 100 + (check % 300) as usize);
                assert!(found.bytes.iter().all(|&b| b == (check % 251) as u8));
            }
        }
        assert_eq!(transactions.forgotten_early() as usize + transactions.len(), 5000);
    }
}

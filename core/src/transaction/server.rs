//! Server transactions: a retransmitted request gets the same answer and has no second effect (RFC 3261 §17.2.2).
//!
//! | state | input | output | next |
//! |---|---|---|---|
//! | – | request | the answer, remembered | completed |
//! | completed | the same request | the same bytes again | completed |
//! | completed | Timer J (64*T1) | – | ended |
//!
//! Every answer is made within the turn of its request, so *trying* and *proceeding* last no time. All transactions live
//! equally long, so they end in the order in which they began: a queue of entries and chunks of bytes that are filled one
//! after another are all there is, and no timer runs. A chunk is used again when its last answer has ended. When all chunks
//! are full before 64*T1 are over, the oldest answers are forgotten early and counted; what keeps state (dialog, entity tag,
//! binding) then still knows the request again.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::TIMER_J;
use crate::flow::Flow;
use crate::limits::MESSAGE_LEN_MAX;
use crate::time::Mono;

/// Identity of a server transaction: the keyed hash of branch, sent-by and method (RFC 3261 §17.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionKey(pub u128);

/// A remembered answer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: TransactionKey,
    ends: Mono,
    /// Number of the chunk that holds the answer.
    chunk: u64,
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
    /// Chunks in use, the oldest first; the last one is being filled.
    chunks: VecDeque<Box<[u8]>>,
    /// Number of the oldest chunk in use.
    first_chunk: u64,
    /// Bytes used of the last chunk.
    used: usize,
    /// Chunks that may be used again.
    spare: Vec<Box<[u8]>>,
    chunks_max: usize,
    forgotten_early: u64,
}

impl ServerTransactions {
    /// Room for about `capacity` bytes of answers, taken as it is needed.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            index: HashTable::new(),
            chunks: VecDeque::new(),
            first_chunk: 0,
            used: CHUNK_LEN,
            spare: Vec::new(),
            chunks_max: (capacity / CHUNK_LEN).max(2),
            forgotten_early: 0,
        }
    }

    /// The answer given to this transaction, if it is remembered.
    #[must_use]
    pub fn find(&self, key: TransactionKey) -> Option<Answered<'_>> {
        let number = *self.index.find(hash(key), |&n| self.entry(n).key == key)?;
        let entry = self.entry(number);
        let chunk = &self.chunks[(entry.chunk - self.first_chunk) as usize];
        Some(Answered { bytes: &chunk[entry.start as usize..][..entry.len as usize], flow: entry.flow })
    }

    /// Remembers the answer to a transaction that [`Self::find`] did not find.
    pub fn remember(&mut self, key: TransactionKey, flow: Flow, answer: &[u8], now: Mono) {
        self.expire(now);
        let len = answer.len();
        if len > MESSAGE_LEN_MAX {
            // It could not be sent either.
            self.forgotten_early += 1;
            return;
        }
        if self.used + len > CHUNK_LEN {
            self.begin_chunk();
        }
        let start = self.used;
        self.used += len;
        let chunk = self.chunks.back_mut().expect("a chunk has begun");
        chunk[start..start + len].copy_from_slice(answer);
        let number = self.first + self.entries.len() as u64;
        self.entries.push_back(Entry {
            key,
            ends: now + TIMER_J,
            chunk: self.first_chunk + self.chunks.len() as u64 - 1,
            start: u32::try_from(start).expect("a chunk is far below 4 GiB"),
            len: u32::try_from(len).expect("an answer is far below 4 GiB"),
            flow,
        });
        let (entries, first) = (&self.entries, self.first);
        self.index.insert_unique(hash(key), number, |&n| hash(entries[(n - first) as usize].key));
    }

    /// Forgets what is older than Timer J.
    pub fn expire(&mut self, now: Mono) {
        while self.entries.front().is_some_and(|entry| entry.ends <= now) {
            self.drop_oldest(false);
        }
        self.free_chunks();
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

    /// Takes a chunk to fill; when none may be had, the oldest one's answers go.
    fn begin_chunk(&mut self) {
        if self.chunks.len() == self.chunks_max {
            let oldest = self.first_chunk;
            while self.entries.front().is_some_and(|entry| entry.chunk == oldest) {
                self.drop_oldest(true);
            }
            self.free_chunks();
        }
        let chunk = self.spare.pop().unwrap_or_else(|| vec![0; CHUNK_LEN].into_boxed_slice());
        self.chunks.push_back(chunk);
        self.used = 0;
    }

    /// Sets chunks free that hold no answer any more; the one being filled stays.
    fn free_chunks(&mut self) {
        let in_use = self.entries.front().map_or(u64::MAX, |entry| entry.chunk);
        while self.chunks.len() > 1 && self.first_chunk < in_use {
            let chunk = self.chunks.pop_front().expect("there are two at least");
            self.first_chunk += 1;
            // A burst is not paid for ever: as many are kept as are in use, and a few.
            if self.spare.len() < self.chunks.len() + SPARE_MIN {
                self.spare.push(chunk);
            }
        }
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

/// Bytes of one chunk: some hundreds of answers, and more than the longest message.
const CHUNK_LEN: usize = 256 * 1024;
/// Spare chunks kept whatever is in use.
const SPARE_MIN: usize = 4;

const _: () = assert!(CHUNK_LEN >= MESSAGE_LEN_MAX);

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
    fn light_traffic_uses_little_memory_and_growing_traffic_forgets_nothing() {
        let mut transactions = ServerTransactions::new(64 << 20);
        let mut n = 0u128;
        for (seconds, rate) in [(100, 100), (40, 1000), (40, 5000)] {
            for second in 0..seconds * rate {
                n += 1;
                let now =
                    Mono(transactions.entries.back().map_or(0, |e| e.ends.0 - 32_000_000) + 1_000_000 / rate);
                transactions.remember(TransactionKey(n), flow(), &[7; 400], now);
                if second % 97 == 0 {
                    let alive = n - (u128::from(rate) * 31).min(n - 1);
                    assert!(transactions.find(TransactionKey(alive)).is_some() || second < rate * 32);
                }
            }
            let alive = transactions.entries.len() * 400;
            assert!(transactions.chunks.len() * CHUNK_LEN <= alive + 2 * CHUNK_LEN + alive / 100);
        }
        assert_eq!(transactions.forgotten_early(), 0);
    }

    #[test]
    fn full_chunks_forget_the_oldest_and_never_mix_answers() {
        let mut transactions = ServerTransactions::new(3 * CHUNK_LEN);
        for n in 0..20_000u32 {
            let answer = vec![(n % 251) as u8; 100 + (n % 300) as usize];
            transactions.remember(TransactionKey(u128::from(n)), flow(), &answer, Mono(u64::from(n)));
            let oldest = n + 1 - u32::try_from(transactions.len()).unwrap();
            for check in [oldest, oldest.midpoint(n), n] {
                let found = transactions.find(TransactionKey(u128::from(check))).unwrap();
                assert_eq!(found.bytes.len(), 100 + (check % 300) as usize);
                assert!(found.bytes.iter().all(|&b| b == (check % 251) as u8));
            }
        }
        assert!(transactions.forgotten_early() > 0 && transactions.chunks.len() == 3);
        assert_eq!(transactions.forgotten_early() as usize + transactions.len(), 20_000);
    }
}

//! Server transactions: a retransmitted request gets the same answer and has no second effect (RFC 3261 §17.2.2).
//!
//! | state | input | output | next |
//! |---|---|---|---|
//! | – | request | the answer, remembered | completed |
//! | completed | the same request | the same bytes again | completed |
//! | completed | Timer J (64*T1) | – | ended |
//!
//! Every answer is made within the turn of its request, so *trying* and *proceeding* last no time. All transactions live
//! equally long, so they end in the order in which they began: a queue of chunks, each with the answers that began one after
//! another, is all there is, and no timer runs. A chunk is used again when its last answer has ended. When all chunks
//! are full before 64*T1 are over, the oldest answers are forgotten early and counted; what keeps state (dialog, entity tag,
//! binding) then still knows the request again.
//!
//! Of an answer that is kept which the repeated request does not say itself, less than half of most: memory that is not touched
//! costs nothing, and what 32 seconds bring is far more than any cache holds.
//!
//! Nothing here grows by moving all that it holds: chunks are added, and the index is many tables that grow one after
//! another, each with the hashes of its entries beside it. One table for all would stop a shard for tens of milliseconds when
//! it doubles.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

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
    /// Where it begins in the chunk's bytes: [`Kept::start`], then [`Kept::to_tag`], then [`Kept::rest`], with these lengths.
    at: u32,
    start_len: u16,
    to_tag_len: u16,
    rest_len: u16,
    has_vias: bool,
    /// The flow of the request, which is no connection.
    listener: u8,
    local_ip: Option<IpAddr>,
    peer: SocketAddr,
}

const _: () = assert!(size_of::<Entry>() <= 96, "there are a million of them");

/// Answers that were given one after another.
#[derive(Debug)]
struct Chunk {
    bytes: Box<[u8]>,
    /// Bytes used.
    used: usize,
    entries: Vec<Entry>,
    /// How many of them, from the first, have ended.
    ended: usize,
}

/// An entry of the index: eight bytes, because a million of them are looked at in no order.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Half of the key's hash; the table was chosen by the other half.
    tag: u32,
    /// The chunk's number, counted from the start, wraps above [`ENTRY_BITS`]; below: which of the chunk's entries.
    at: u32,
}

impl Place {
    const fn new(tag: u32, chunk: u32, entry: usize) -> Self {
        Self { tag, at: (chunk << ENTRY_BITS) | entry as u32 }
    }

    /// How many chunks it is behind the first one.
    const fn chunk_after(self, first: u32) -> usize {
        ((self.at >> ENTRY_BITS).wrapping_sub(first) & (u32::MAX >> ENTRY_BITS)) as usize
    }

    const fn entry(self) -> usize {
        (self.at & ((1 << ENTRY_BITS) - 1)) as usize
    }

    const fn hash(self) -> u64 {
        spread(self.tag)
    }
}

/// What is remembered of an answer: what a repetition of its request does not say itself. Together they make the same bytes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// The status line, and the Vias behind it where they say more than those of the request and its source.
    pub start: &'a [u8],
    /// Whether they do.
    pub has_vias: bool,
    /// The tag that To was given; empty: one that is made of the transaction.
    pub to_tag: &'a [u8],
    /// All that follows what a response repeats of its request.
    pub rest: &'a [u8],
}

impl Kept<'_> {
    const fn len(&self) -> usize {
        self.start.len() + self.to_tag.len() + self.rest.len()
    }
}

/// A remembered answer and by which flow its request came.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// What the repeated request does not say itself.
    pub kept: Kept<'a>,
    /// The flow by which the request came first.
    pub flow: Flow,
}

/// The answers given within the last 64*T1.
#[derive(Debug)]
pub struct ServerTransactions {
    /// Where each answer is, by key.
    index: Index,
    /// Chunks in use, the oldest first; the last one is being filled.
    chunks: VecDeque<Chunk>,
    /// Number of the oldest chunk in use.
    first_chunk: u32,
    /// Chunks that may be used again.
    spare: Vec<Chunk>,
    chunks_max: usize,
    len: usize,
    forgotten_early: u64,
}

impl ServerTransactions {
    /// Room for about `capacity` bytes of answers, taken as it is needed.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            index: Index::new(),
            chunks: VecDeque::new(),
            first_chunk: 0,
            spare: Vec::new(),
            chunks_max: (capacity / CHUNK_LEN).clamp(2, CHUNKS_MAX),
            len: 0,
            forgotten_early: 0,
        }
    }

    /// The answer given to this transaction, if it is remembered.
    #[must_use]
    pub fn find(&self, key: TransactionKey) -> Option<Answered<'_>> {
        let tag = tag(key);
        let mut found = None;
        self.index.tables[table(key)].find(spread(tag), |place| {
            // Only what has the tag is looked at, so a request that is new costs one look at the table.
            place.tag == tag && {
                let chunk = &self.chunks[place.chunk_after(self.first_chunk)];
                found = Some((chunk, &chunk.entries[place.entry()]));
                found.is_some_and(|(_, entry)| entry.key == key)
            }
        })?;
        let (chunk, entry) = found?;
        let bytes = &chunk.bytes[entry.at as usize..];
        let (start, bytes) = bytes.split_at(usize::from(entry.start_len));
        let (to_tag, bytes) = bytes.split_at(usize::from(entry.to_tag_len));
        let rest = &bytes[..usize::from(entry.rest_len)];
        Some(Answered {
            kept: Kept { start, has_vias: entry.has_vias, to_tag, rest },
            flow: Flow::udp(entry.listener, entry.local_ip, entry.peer),
        })
    }

    /// Remembers the answer to a transaction that [`Self::find`] did not find, whose request came by `flow`: a datagram, because
    /// what comes by connections is not sent again.
    pub fn remember(&mut self, key: TransactionKey, flow: Flow, answer: &Kept<'_>, now: Mono) {
        debug_assert!(!flow.transport.is_stream());
        self.expire(now);
        let len = answer.len();
        if len > MESSAGE_LEN_MAX {
            // It could not be sent either.
            self.forgotten_early += 1;
            return;
        }
        if !self.chunks.back().is_some_and(|chunk| chunk.has_room(len)) {
            self.begin_chunk();
        }
        let number = self.first_chunk.wrapping_add(self.chunks.len() as u32).wrapping_sub(1);
        let chunk = self.chunks.back_mut().expect("a chunk has begun");
        let at = chunk.used;
        for part in [answer.start, answer.to_tag, answer.rest] {
            chunk.bytes[chunk.used..][..part.len()].copy_from_slice(part);
            chunk.used += part.len();
        }
        let len_of = |part: &[u8]| u16::try_from(part.len()).expect("the whole was found to fit");
        let place = Place::new(tag(key), number, chunk.entries.len());
        chunk.entries.push(Entry {
            key,
            ends: now + TIMER_J,
            at: u32::try_from(at).expect("a chunk is far below 4 GiB"),
            start_len: len_of(answer.start),
            to_tag_len: len_of(answer.to_tag),
            rest_len: len_of(answer.rest),
            has_vias: answer.has_vias,
            listener: flow.listener,
            local_ip: flow.local_ip,
            peer: flow.peer,
        });
        self.len += 1;
        self.index.insert(table(key), place, self.len);
    }

    /// Forgets what is older than Timer J.
    pub fn expire(&mut self, now: Mono) {
        while self.oldest().is_some_and(|entry| entry.ends <= now) {
            self.drop_oldest();
        }
    }

    /// Answers remembered at present.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
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
            while self.first_chunk == oldest && self.oldest().is_some() {
                self.drop_oldest();
                self.forgotten_early += 1;
            }
        }
        let chunk = self.spare.pop().unwrap_or_else(|| Chunk {
            bytes: vec![0; CHUNK_LEN].into_boxed_slice(),
            used: 0,
            entries: Vec::with_capacity(CHUNK_ENTRIES_USUAL),
            ended: 0,
        });
        self.chunks.push_back(chunk);
        self.free_chunks();
    }

    /// Sets chunks free that hold no answer any more; the one being filled stays.
    fn free_chunks(&mut self) {
        while self.chunks.len() > 1
            && let Some(mut chunk) = self.chunks.pop_front_if(|chunk| chunk.ended == chunk.entries.len())
        {
            self.first_chunk = self.first_chunk.wrapping_add(1);
            // A burst is not paid for ever: as many are kept as are in use, and a few.
            if self.spare.len() < self.chunks.len() + SPARE_MIN {
                chunk.entries.clear();
                (chunk.used, chunk.ended) = (0, 0);
                self.spare.push(chunk);
            }
        }
    }

    /// The entry that ends next.
    fn oldest(&self) -> Option<&Entry> {
        let chunk = self.chunks.front()?;
        chunk.entries.get(chunk.ended)
    }

    /// Forgets the entry that ends next.
    fn drop_oldest(&mut self) {
        let Some(chunk) = self.chunks.front_mut() else { return };
        let Some(entry) = chunk.entries.get(chunk.ended) else { return };
        let key = entry.key;
        let place = Place::new(tag(key), self.first_chunk, chunk.ended);
        chunk.ended += 1;
        self.len -= 1;
        let is_it = |it: &Place| it.at == place.at;
        if let Ok(found) = self.index.tables[table(key)].find_entry(place.hash(), is_it) {
            found.remove();
        }
        if chunk.ended == chunk.entries.len() {
            self.free_chunks();
        }
    }
}

/// Where the answers are.
#[derive(Debug)]
struct Index {
    tables: Box<[HashTable<Place>]>,
    /// How many entries each table has room for, or will have when it is its turn.
    room: usize,
    /// How many tables, from the first, have that room.
    grown: usize,
    /// Insertions until the next one gets it.
    pause: usize,
}

impl Index {
    fn new() -> Self {
        Self {
            tables: (0..TABLES).map(|_| HashTable::with_capacity(TABLE_LEN_MIN)).collect(),
            room: TABLE_LEN_MIN,
            grown: TABLES,
            pause: 0,
        }
    }

    /// Adds a place, which is the `len`th. Tables are kept half empty, so that the fullest of them does not grow before its
    /// turn.
    fn insert(&mut self, table: usize, place: Place, len: usize) {
        if self.grown == TABLES && len > TABLES * self.room / 2 {
            self.room *= 2;
            self.grown = 0;
        }
        if self.grown < TABLES {
            if self.pause == 0 {
                let table = &mut self.tables[self.grown];
                table.reserve(self.room.saturating_sub(table.len()), |place| place.hash());
                self.grown += 1;
                self.pause = self.room / GROWTH_SPREAD;
            } else {
                self.pause -= 1;
            }
        }
        self.tables[table].insert_unique(place.hash(), place, |place| place.hash());
    }
}

impl Chunk {
    fn has_room(&self, len: usize) -> bool {
        self.used + len <= CHUNK_LEN && self.entries.len() < CHUNK_ENTRIES_MAX
    }
}

/// Bytes of one chunk: about a thousand answers, and more than the longest message.
const CHUNK_LEN: usize = 256 * 1024;
/// Answers of one chunk, however short.
const CHUNK_ENTRIES_MAX: usize = 2048;
/// Answers of one chunk if they have the usual length.
const CHUNK_ENTRIES_USUAL: usize = 1280;
/// Tables of the index: when one doubles, so few entries move that nobody waits.
const TABLES: usize = 64;
/// Entries that a table has room for at first.
const TABLE_LEN_MIN: usize = 56;
/// While the tables double one after another, each of them takes this part of the new room in.
const GROWTH_SPREAD: usize = 32;
/// Spare chunks kept whatever is in use.
const SPARE_MIN: usize = 4;

/// Bits that count the entries of a chunk.
const ENTRY_BITS: u32 = CHUNK_ENTRIES_MAX.ilog2();
/// Most chunks: no two in use have the same number, and half a terabyte is enough.
const CHUNKS_MAX: usize = 1 << (u32::BITS - ENTRY_BITS);

const _: () = assert!(MESSAGE_LEN_MAX <= u16::MAX as usize);
const _: () = assert!(CHUNK_LEN >= MESSAGE_LEN_MAX && CHUNK_ENTRIES_MAX.is_power_of_two());

/// The key is a keyed hash already; four bytes of it tell entries of a table apart.
const fn tag(key: TransactionKey) -> u32 {
    key.0 as u32
}

/// A tag over all the bits that a table looks at.
const fn spread(tag: u32) -> u64 {
    (tag as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The table that holds a key; by bits that the tables themselves do not use.
const fn table(key: TransactionKey) -> usize {
    (key.0 >> 40) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    /// An answer of which only the rest is remembered.
    fn rest(rest: &[u8]) -> Kept<'_> {
        Kept { start: b"", has_vias: false, to_tag: b"", rest }
    }

    fn flow() -> Flow {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5061));
        Flow::udp(0, None, peer)
    }

    #[test]
    fn an_answer_is_given_again_for_64_t1_and_then_forgotten() {
        let mut transactions = ServerTransactions::new(1 << 20);
        let answer = Kept { start: b"SIP/2.0 200 OK\r\n", has_vias: false, to_tag: b"tag", rest: b"\r\n" };
        transactions.remember(TransactionKey(7), flow(), &answer, Mono(0));
        let again = transactions.find(TransactionKey(7)).map(|it| (it.kept, it.flow));
        assert_eq!(again, Some((answer, flow())));
        transactions.expire(Mono(31_999_999));
        assert!(transactions.find(TransactionKey(7)).is_some());
        transactions.expire(Mono(32_000_000));
        assert!(transactions.find(TransactionKey(7)).is_none());
        assert_eq!(transactions.forgotten_early(), 0);
    }

    #[test]
    fn light_traffic_uses_little_memory_and_growing_traffic_forgets_nothing() {
        let mut transactions = ServerTransactions::new(64 << 20);
        let (mut n, mut last) = (0u128, Mono(0));
        for (seconds, rate) in [(100, 100), (40, 1000), (40, 5000)] {
            for second in 0..seconds * rate {
                n += 1;
                let now = last + Duration::from_micros(1_000_000 / rate);
                last = now;
                transactions.remember(TransactionKey(n), flow(), &rest(&[7; 400]), now);
                if second % 97 == 0 {
                    let alive = n - (u128::from(rate) * 31).min(n - 1);
                    assert!(transactions.find(TransactionKey(alive)).is_some() || second < rate * 32);
                }
            }
            let alive = transactions.len() * 400;
            assert!(transactions.chunks.len() * CHUNK_LEN <= alive + 2 * CHUNK_LEN + alive / 100);
        }
        assert_eq!(transactions.forgotten_early(), 0);
    }

    #[test]
    fn full_chunks_forget_the_oldest_and_never_mix_answers() {
        let mut transactions = ServerTransactions::new(3 * CHUNK_LEN);
        for n in 0..20_000u32 {
            let answer = vec![(n % 251) as u8; 100 + (n % 300) as usize];
            transactions.remember(TransactionKey(u128::from(n)), flow(), &rest(&answer), Mono(u64::from(n)));
            let oldest = n + 1 - u32::try_from(transactions.len()).unwrap();
            for check in [oldest, oldest.midpoint(n), n] {
                let found = transactions.find(TransactionKey(u128::from(check))).unwrap();
                assert_eq!(found.kept.rest.len(), 100 + (check % 300) as usize);
                assert!(found.kept.rest.iter().all(|&b| b == (check % 251) as u8));
            }
        }
        assert!(transactions.forgotten_early() > 0 && transactions.chunks.len() == 3);
        assert_eq!(transactions.forgotten_early() as usize + transactions.len(), 20_000);
    }
}

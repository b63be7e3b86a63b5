//! One fate per transaction: what was taken stays taken, what was refused stays refused.
//!
//! How much is taken changes from step to step, and a client sends again what was not answered (Timer E). Without a memory a
//! request that was refused in silence would be taken seconds later, when its sender has lost patience and the share has risen a
//! little; and one that was taken, and whose 200 was lost, would be refused while its transaction holds the answer. So while
//! something is refused the fate of each transaction is written down: 31 bits of its hash and one for the fate, in rows of a
//! cache line, in two generations. A generation ends when it is three quarters full or as old as transactions become; what is
//! asked about is written into the younger one again, so what still repeats is not forgotten.
//!
//! Bounds: [`ROWS`] rows a generation, 8 MiB in all. Beyond them the older half is forgotten: its transactions are then judged
//! anew, by the same lot as before. Two transactions of one row share a fate by accident once in two thousand million pairs.

use crate::time::Mono;
use crate::transaction::TIMER_F;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its request was taken.
    Taken,
    /// It was refused, with or without an answer.
    Refused,
}

/// The fates of the transactions that were judged lately, for as long as one may be repeated (Timer F). At first nothing is
/// remembered, and no memory taken.
#[derive(Debug, Default)]
pub struct Fates {
    /// The younger generation and the older; empty while nothing is remembered.
    young: Vec<Row>,
    old: Vec<Row>,
    /// Entries of the younger one, and when it began.
    len: usize,
    began: Mono,
    /// When something was written last.
    last: Mono,
}

/// Entries that share a cache line; zero: none.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Row([u32; ROW_LEN]);

impl Fates {
    /// The fate of the transaction with this hash, if it is known.
    pub fn find(&mut self, hash: u64) -> Option<Fate> {
        let (row, mark) = place(hash);
        if let Some(fate) = find_in(&self.young, row, mark) {
            return Some(fate);
        }
        let fate = find_in(&self.old, row, mark)?;
        self.put(row, mark | u32::from(fate == Fate::Taken));
        Some(fate)
    }

    /// Writes down the fate of a transaction that [`Self::find`] did not find.
    pub fn note(&mut self, now: Mono, hash: u64, fate: Fate) {
        if self.young.is_empty() || self.len >= LEN_MAX || now.since(self.began) >= TIMER_F {
            // Zeroed pages come from the system as they are touched, so a new generation is no work at once.
            self.old = std::mem::replace(&mut self.young, vec![Row([0; ROW_LEN]); ROWS]);
            (self.len, self.began) = (0, now);
        }
        self.last = now;
        let (row, mark) = place(hash);
        self.put(row, mark | u32::from(fate == Fate::Taken));
    }

    /// Whether anything is remembered; what is older than transactions become is forgotten, and its memory given back.
    pub fn remembers(&mut self, now: Mono) -> bool {
        if !self.young.is_empty() && now.since(self.last) >= TIMER_F {
            *self = Self::default();
        }
        !self.young.is_empty()
    }

    fn put(&mut self, row: usize, entry: u32) {
        let row = &mut self.young[row].0;
        let free = row.iter().position(|&it| it == 0);
        self.len += usize::from(free.is_some());
        // A full row loses one of its entries.
        row[free.unwrap_or(entry as usize / 2 % ROW_LEN)] = entry;
    }
}

fn find_in(rows: &[Row], row: usize, mark: u32) -> Option<Fate> {
    let Row(row) = rows.get(row)?;
    // All at once: half of those that are looked for are not there.
    let entry = row.iter().fold(0, |found, &it| if it & !1 == mark { it } else { found });
    match entry {
        0 => None,
        it if it & 1 == 1 => Some(Fate::Taken),
        _ => Some(Fate::Refused),
    }
}

/// The row of a hash and what marks it there, which is even and not zero.
const fn place(hash: u64) -> (usize, u32) {
    // The lot is drawn from the lowest bits, and those that are refused have it in common that theirs are high.
    let row = (hash >> 16) as usize % ROWS;
    let mark = ((hash >> 33) as u32) << 1;
    (row, if mark == 0 { 2 } else { mark })
}

/// Rows of a generation.
const ROWS: usize = 1 << 16;
const ROW_LEN: usize = 16;
/// Entries of a generation before the next begins, so that hardly any row is full.
const LEN_MAX: usize = ROWS * ROW_LEN / 4 * 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Chance;

    #[test]
    fn a_fate_is_kept_as_long_as_its_transaction_lasts() {
        let mut fates = Fates::default();
        assert!(!fates.remembers(Mono(0)) && fates.find(7 << 33).is_none());
        fates.note(Mono(0), 7 << 33, Fate::Taken);
        fates.note(Mono(0), 8 << 33, Fate::Refused);
        for secs in [0, 31] {
            assert!(fates.remembers(Mono(secs * 1_000_000)));
            assert_eq!(fates.find(7 << 33), Some(Fate::Taken));
            assert_eq!(fates.find(8 << 33), Some(Fate::Refused));
            assert_eq!(fates.find(9 << 33), None);
        }
        assert!(!fates.remembers(Mono(32_000_000)));
        assert_eq!(fates.find(7 << 33), None);
        assert_eq!(fates.young.capacity() + fates.old.capacity(), 0, "the memory is given back");
    }

    #[test]
    fn what_is_repeated_outlives_its_generation() {
        let mut fates = Fates::default();
        let at = |secs: u64| Mono(secs * 1_000_000);
        fates.note(at(0), 7 << 33, Fate::Refused);
        for secs in [20, 40, 60, 80, 100] {
            fates.note(at(secs), secs << 33, Fate::Taken);
            assert_eq!(fates.find(7 << 33), Some(Fate::Refused), "{secs}");
        }
        fates.note(at(132), 132 << 33, Fate::Taken);
        fates.note(at(164), 164 << 33, Fate::Taken);
        assert_eq!(fates.find(7 << 33), None, "it was asked about 64 seconds ago");
    }

    #[test]
    fn it_is_bounded_and_keeps_the_newest() {
        let mut fates = Fates::default();
        let mut chance = Chance::from_seed([7; 32]);
        let mut hash = || u64::from(chance.below(u32::MAX)) << 32 | u64::from(chance.below(u32::MAX));
        let hashes: Vec<u64> = (0..3 * LEN_MAX).map(|_| hash()).collect();
        for (number, &hash) in hashes.iter().enumerate() {
            let fate = if number % 3 == 0 { Fate::Taken } else { Fate::Refused };
            fates.note(Mono(number as u64), hash, fate);
        }
        assert!(fates.len <= LEN_MAX && fates.old.len() + fates.young.len() <= 2 * ROWS);
        let newest = hashes.len() - LEN_MAX;
        let kept = hashes[newest..].iter().filter(|&&hash| fates.find(hash).is_some()).count();
        assert!(kept as f64 > 0.95 * LEN_MAX as f64, "{kept}");
        let strangers = (0..100_000).filter(|_| fates.find(hash()).is_some()).count();
        assert!(strangers < 5, "{strangers}");
    }
}

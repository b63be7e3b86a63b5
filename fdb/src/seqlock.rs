//! The sequence lock: one writer, any number of readers that copy and look whether they were disturbed.
//!
//! A record is words that are each stored and loaded alone (relaxed), so a reader that races with the writer gets a
//! mixture, never undefined behaviour; the sequence tells it so. The shape is that of portable-atomic's fallback.
//!
//! ```text
//!  writer                         reader
//!  sequence := odd                before := sequence; odd: again
//!  fence(Release)      (a)        fence(Acquire)        (c)
//!  words := …                     copy words
//!  fence(Release)      (b)        fence(Acquire)        (d)
//!  sequence := next even          after := sequence; before != after: again
//! ```
//!
//! * A reader that copied any new word sees, by (a) and (d), the odd sequence or a later one, and tries again.
//! * A reader that saw the even sequence sees, by (b) and (c), every word stored before it.
//!
//! The sequence only grows, also over restarts, so an equal sequence means an unchanged record.
//!
//! Only plain loads are made of what a reader maps read-only: a relaxed load and a fence, never an acquire load, which
//! Rust does not promise to work on read-only memory.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A word that can be loaded, and the fences that go with it.
pub(crate) trait Load {
    /// Relaxed load.
    fn get(&self) -> u64;
    /// `fence(Acquire)`.
    fn acquire();
}

/// A word that can also be stored.
pub(crate) trait Word: Load {
    /// Relaxed store.
    fn set(&self, value: u64);
    /// `fence(Release)`.
    fn release();
    /// What this thread, the only writer, stored last.
    #[inline]
    fn own(&self) -> u64 {
        self.get()
    }
}

/// Changes a record: `change` stores its words.
///
/// The caller is the only writer, and the sequence is even. A release fence is the first thing done, so that everything
/// stored before (the redo image, a new chain) is stored before this record looks torn.
#[inline]
pub(crate) fn write<W: Word>(sequence: &W, change: impl FnOnce()) {
    let before = sequence.own();
    debug_assert!(before.is_multiple_of(2), "two writers, or recovery did not run");
    W::release();
    sequence.set(before.wrapping_add(1));
    W::release(); // (a)
    change();
    W::release(); // (b)
    sequence.set(before.wrapping_add(2));
}

/// One try to copy a record: `copy` loads its words. Gives the sequence and the copy, or `None` if a writer was at it.
#[inline]
pub(crate) fn read<W: Load, T>(sequence: &W, copy: impl FnOnce() -> T) -> Option<(u64, T)> {
    let before = sequence.get();
    if !before.is_multiple_of(2) {
        return None;
    }
    W::acquire(); // (c)
    let copied = copy();
    unchanged(sequence, before).then_some((before, copied))
}

/// Whether the sequence is still `before` after all that was loaded so far.
#[inline]
pub(crate) fn unchanged<W: Load>(sequence: &W, before: u64) -> bool {
    W::acquire(); // (d)
    sequence.get() == before
}

impl Load for AtomicU64 {
    #[inline]
    fn get(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    #[inline]
    fn acquire() {
        fence(Ordering::Acquire);
    }
}

impl Word for AtomicU64 {
    #[inline]
    fn set(&self, value: u64) {
        #[cfg(test)]
        crate::kill::point();
        self.store(value, Ordering::Relaxed);
    }

    #[inline]
    fn release() {
        fence(Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn record(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn an_undisturbed_read_gives_what_was_written() {
        let record = record(4);
        write(&record[0], || {
            for word in &record[1..] {
                Word::set(word, 7);
            }
        });
        let (sequence, sum) =
            read(&record[0], || record[1..].iter().map(Load::get).sum::<u64>()).expect("no writer");
        assert_eq!((sequence, sum), (2, 21));
        assert!(unchanged(&record[0], 2));
    }

    #[test]
    fn a_read_during_a_write_is_refused() {
        let record = record(2);
        write(&record[0], || assert!(read(&record[0], || ()).is_none()));
        let overtaken = read(&record[0], || write(&record[0], || Word::set(&record[1], 1)));
        assert!(overtaken.is_none());
    }

    /// Small enough for Miri, which checks every interleaving it happens upon for data races.
    #[test]
    fn readers_never_copy_a_mixture() {
        const ROUNDS: u64 = if cfg!(miri) { 40 } else { 20_000 };
        let record = record(9);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let copy = read(&record[0], || {
                            let mut copy = [0; 8];
                            for (to, from) in copy.iter_mut().zip(&record[1..]) {
                                *to = Load::get(from);
                            }
                            copy
                        });
                        if let Some((sequence, copy)) = copy {
                            assert!(copy.iter().all(|&word| word == sequence / 2), "{sequence}: {copy:?}");
                        }
                    }
                });
            }
            for round in 1..=ROUNDS {
                write(&record[0], || {
                    for word in &record[1..] {
                        Word::set(word, round);
                    }
                });
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

/// Words for model checks, with all their fences or, to see that the check notices, without some.
#[cfg(all(test, feature = "loom"))]
pub(crate) mod modelled {
    use super::{Load, Ordering, Word};
    use loom::sync::atomic::{AtomicU64, fence};
    use std::marker::PhantomData;
    use std::sync::atomic::AtomicU64 as Plain;

    /// Which fences a modelled word really has.
    pub(crate) trait Fences: Send + Sync + 'static {
        const RELEASE: bool;
        const ACQUIRE: bool;
    }
    /// All of them.
    pub(crate) struct Both;
    /// A mistake that the model must catch.
    pub(crate) struct NoRelease;
    /// A mistake that the model must catch.
    pub(crate) struct NoAcquire;
    impl Fences for Both {
        const RELEASE: bool = true;
        const ACQUIRE: bool = true;
    }
    impl Fences for NoRelease {
        const RELEASE: bool = false;
        const ACQUIRE: bool = true;
    }
    impl Fences for NoAcquire {
        const RELEASE: bool = true;
        const ACQUIRE: bool = false;
    }

    /// A word whose every possible value loom tries.
    pub(crate) struct Modelled<F> {
        word: AtomicU64,
        /// The writer's own loads go here: loom 0.7 remembers only the last access to an atomic, so a load by the writer
        /// would hide from it that the store after it races with an earlier load by a reader.
        own: Plain,
        fences: PhantomData<F>,
    }

    impl<F: Fences> Modelled<F> {
        pub(crate) fn new() -> Self {
            Self::holding(0)
        }

        pub(crate) fn holding(value: u64) -> Self {
            Self { word: AtomicU64::new(value), own: Plain::new(value), fences: PhantomData }
        }
    }

    impl<F: Fences> Load for Modelled<F> {
        fn get(&self) -> u64 {
            self.word.load(Ordering::Relaxed)
        }
        fn acquire() {
            if F::ACQUIRE {
                fence(Ordering::Acquire);
            }
        }
    }

    impl<F: Fences> Word for Modelled<F> {
        fn set(&self, value: u64) {
            self.own.store(value, Ordering::Relaxed);
            self.word.store(value, Ordering::Relaxed);
        }

        fn own(&self) -> u64 {
            self.own.load(Ordering::Relaxed)
        }
        fn release() {
            if F::RELEASE {
                fence(Ordering::Release);
            }
        }
    }
}

/// The protocol under every interleaving and every value that the memory model allows:
/// `cargo test -p comsipl-fdb --release --features loom loom`.
#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::modelled::{Both, Fences, Modelled, NoAcquire, NoRelease};
    use super::*;
    use loom::sync::Arc;

    /// One writer, two versions of two words; a reader must see both words of one version.
    fn model<F: Fences>() {
        loom::model(|| {
            let record: Arc<[Modelled<F>; 3]> = Arc::new(std::array::from_fn(|_| Modelled::new()));
            let writer = {
                let record = Arc::clone(&record);
                loom::thread::spawn(move || {
                    for version in 1..=2 {
                        write(&record[0], || {
                            record[1].set(version);
                            record[2].set(version);
                        });
                    }
                })
            };
            if let Some((sequence, (a, b))) = read(&record[0], || (record[1].get(), record[2].get())) {
                assert_eq!((a, b), (sequence / 2, sequence / 2));
            }
            writer.join().expect("the writer does not panic");
        });
    }

    #[test]
    fn loom_finds_no_torn_read() {
        model::<Both>();
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn loom_catches_missing_release_fences() {
        model::<NoRelease>();
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn loom_catches_missing_acquire_fences() {
        model::<NoAcquire>();
    }

    /// A head names one of two chain records. The writer fills the free one, turns the head to it, then reuses the old
    /// one for something else. A reader that finds the head's sequence unchanged at the end has the head's chain.
    fn chain_model<F: Fences>() {
        loom::model(|| {
            let head: Arc<[Modelled<F>; 2]> = Arc::new(std::array::from_fn(|_| Modelled::new()));
            let chain: Arc<[[Modelled<F>; 2]; 2]> =
                Arc::new(std::array::from_fn(|_| std::array::from_fn(|_| Modelled::new())));
            let writer = {
                let (head, chain) = (Arc::clone(&head), Arc::clone(&chain));
                loom::thread::spawn(move || {
                    write(&chain[1][0], || chain[1][1].set(1));
                    write(&head[0], || head[1].set(1));
                    write(&chain[0][0], || chain[0][1].set(99));
                })
            };
            if let Some((version, at)) = read(&head[0], || head[1].get()) {
                let link = &chain[usize::from(at == 1)];
                let content = read(&link[0], || link[1].get());
                if let Some((_, content)) = content
                    && unchanged(&head[0], version)
                {
                    assert_eq!(content, at);
                }
            }
            writer.join().expect("the writer does not panic");
        });
    }

    #[test]
    fn loom_finds_no_stray_chain() {
        chain_model::<Both>();
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn loom_catches_a_chain_without_release_fences() {
        chain_model::<NoRelease>();
    }
}

//! Waking a sleeping shard exactly when it sleeps.
//!
//! A shard that is awake looks at its queues in every turn, so it needs no wake-up; a wake-up costs a system call. The
//! flag tells writers which of the two it is.
//!
//! Why no wake-up is lost. The shard, before it sleeps: (1) sets the flag, (2) fence, (3) looks at its queues once more
//! and does not sleep if one holds something. A writer: (a) puts an item in, (b) fence, (c) takes the flag and wakes if
//! it was set. The two fences are sequentially consistent, so one comes first. If (2) is before (b), then (c) sees what
//! (1) wrote and the writer wakes. If (b) is before (2), then (3) sees what (a) wrote and the shard does not sleep.
//! A wake-up that comes before the sleep is kept by the descriptor behind it and ends that sleep at once.
//! Several writers may see the flag, only the one who takes it wakes; a wake-up too many costs one empty turn.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether a shard sleeps or is about to.
#[derive(Debug)]
pub struct SleepFlag(AtomicBool);

impl SleepFlag {
    /// The flag of a shard that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Says that the owner is about to sleep. The owner must look at all its queues after this and call
    /// [`Self::stay_awake`] if it does not sleep after all.
    pub fn prepare_sleep(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fence in `take_sleeper`
    }

    /// Says that the owner is awake.
    pub fn stay_awake(&self) {
        // Relaxed: whoever reads the old value wakes once too often.
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the caller, who has put something into one of the owner's queues, must wake it.
    #[must_use]
    pub fn take_sleeper(&self) -> bool {
        fence(Ordering::SeqCst); // pairs with the fence in `prepare_sleep`
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

impl Default for SleepFlag {
    fn default() -> Self {
        Self::new()
    }
}

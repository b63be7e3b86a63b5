//! A shard's mailbox: commands of other threads than shards, which the shard carries out between its messages.
//!
//! Each partition has one writer, so whoever wants something written asks its shard. The mailbox is bounded and never waited
//! for: a writer that finds it full is told so at once, and a shard that finds it empty has done one load.
//!
//! Why no command is left lying: a writer (a) puts it into the queue, (b) sets the flag, (c) wakes the shard. The shard takes
//! the flag first and then what is in the queue. A command that it misses was put in after that, so (b) sets the flag once
//! more, and (c), which comes later still, ends the sleep that the shard may have begun meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::bus::Wake;
use crate::resolve::Answer;
use crate::users::UserCommand;

/// Most commands that wait for a shard; beyond it the writer is told that the shard is busy.
pub const COMMANDS_MAX: usize = 128;

/// What another thread wants of a shard. What comes of it goes back by the way that the command brings along.
#[derive(Debug)]
pub enum Command {
    /// Users to be stored or removed.
    Users(UserCommand),
    /// What came of a name that the shard asked for.
    Resolved(Answer),
    /// To panic.
    #[cfg(debug_assertions)]
    Panic,
}

/// The commands that wait for one shard.
pub struct Mailbox {
    queue: ArrayQueue<Command>,
    filled: AtomicBool,
    waker: Arc<dyn Wake>,
}

impl Mailbox {
    /// An empty mailbox of the shard that `waker` wakes.
    #[must_use]
    pub fn new(waker: Arc<dyn Wake>) -> Self {
        Self { queue: ArrayQueue::new(COMMANDS_MAX), filled: AtomicBool::new(false), waker }
    }

    /// Puts a command in and wakes the shard.
    ///
    /// # Errors
    /// The command, if the mailbox is full.
    pub fn post(&self, command: Command) -> Result<(), Command> {
        self.queue.push(command)?;
        self.filled.store(true, Ordering::Release); // pairs with the swap in `take`
        if let Err(error) = self.waker.wake() {
            // The command is carried out when something else wakes the shard.
            tracing::warn!(%error, "a shard could not be woken for a command");
        }
        Ok(())
    }

    /// Takes out what is in. Only the shard calls this, once a turn.
    #[inline]
    pub fn take(&self, work: impl FnMut(Command)) {
        if self.is_filled() {
            self.take_all(work);
        }
    }

    #[cold]
    fn take_all(&self, mut work: impl FnMut(Command)) {
        self.filled.swap(false, Ordering::Acquire); // pairs with the store in `post`
        // No more than there is room for, so that a turn ends however fast others write.
        for _ in 0..COMMANDS_MAX {
            match self.queue.pop() {
                Some(command) => work(command),
                None => return,
            }
        }
        self.filled.store(true, Ordering::Relaxed);
    }

    /// Whether a command waits.
    #[inline]
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    use super::*;

    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(&self) -> std::io::Result<()> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    fn command() -> Command {
        Command::Users(UserCommand { changes: Vec::new(), answer: channel().0 })
    }

    fn taken(mailbox: &Mailbox) -> usize {
        let mut count = 0;
        mailbox.take(|_| count += 1);
        count
    }

    #[test]
    fn commands_are_taken_once_and_the_shard_is_woken() {
        let bell = Arc::new(Bell(AtomicUsize::new(0)));
        let mailbox = Mailbox::new(Arc::clone(&bell) as Arc<dyn Wake>);
        assert_eq!(taken(&mailbox), 0);
        mailbox.post(command()).unwrap();
        mailbox.post(command()).unwrap();
        assert_eq!((taken(&mailbox), taken(&mailbox)), (2, 0));
        assert_eq!(bell.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_full_mailbox_says_so_and_loses_nothing() {
        let mailbox = Mailbox::new(Arc::new(Bell(AtomicUsize::new(0))));
        for _ in 0..COMMANDS_MAX {
            mailbox.post(command()).unwrap();
        }
        assert!(mailbox.post(command()).is_err());
        assert_eq!(taken(&mailbox), COMMANDS_MAX);
        mailbox.post(command()).unwrap();
        assert_eq!(taken(&mailbox), 1);
        assert_eq!(taken(&mailbox), 0);
        assert!(!mailbox.is_filled());
    }

    #[test]
    fn commands_of_several_threads_all_arrive() {
        let mailbox = Mailbox::new(Arc::new(Bell(AtomicUsize::new(0))));
        let mut count = 0;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        while mailbox.post(command()).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while count < 2000 {
                count += taken(&mailbox);
                std::thread::yield_now();
            }
        });
        assert_eq!(count, 2000);
    }
}

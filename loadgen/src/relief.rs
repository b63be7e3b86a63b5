//! A second thread that sends for the one socket of a proxy.
//!
//! All phones behind a proxy share a socket, and what they know of each other lies with the thread that reads it. Sending is more
//! than half of that thread's work, and it is work that another can do: whole queues of datagrams go to it and come back
//! empty. While it has enough to do, the first thread sends by itself. So datagrams may overtake each other, as on any network;
//! none that follow one another in a dialog do, because phones wait for the answer to one request before the next.

use crate::mmsg::{SendQueue, Sender};
use anyhow::Context as _;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::{self, JoinHandle};

/// Fewer datagrams than these are sent sooner than handed over.
const WORTH_IT: usize = 8;
/// Queues that wait for the second thread at most, beside the one that it works on.
const WAITING_MAX: usize = 1;

/// The first thread's end.
pub struct Relief {
    /// None only while it ends.
    full: Option<SyncSender<SendQueue>>,
    empty: Receiver<SendQueue>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Relief {
    /// Starts the second thread for `socket`. `begin` runs on it first; one that `polls` never sleeps.
    pub fn start(
        socket: UdpSocket,
        polls: bool,
        begin: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (full, taken) = sync_channel(WAITING_MAX);
        let (back, empty) = channel();
        let refused = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&refused);
        let (ready, begun) = channel();
        let thread = thread::Builder::new().name("phones-sends".into()).spawn(move || {
            let result = begin();
            let is_ready = result.is_ok();
            // Whoever waits for this is there until it has it.
            let _ = ready.send(result);
            let mut sender = Sender::new();
            while is_ready && let Ok(mut queue) = next(&taken, polls) {
                while queue.len() > 0 {
                    counted.fetch_add(sender.flush(socket.as_fd(), &mut queue), Ordering::Relaxed);
                }
                let _ = back.send(queue);
            }
        });
        let thread = thread.context("cannot start a thread")?;
        begun.recv().context("the sending thread ended")??;
        Ok(Self { full: Some(full), empty, refused, thread: Some(thread) })
    }

    /// Takes over what waits in `queue`, and leaves it empty; or leaves it as it is where that is not worth it, or where enough
    /// is taken over already.
    pub fn take(&mut self, queue: &mut SendQueue) {
        if queue.len() < WORTH_IT {
            return;
        }
        let Some(full) = &self.full else { return };
        let empty = self.empty.try_recv().unwrap_or_default();
        match full.try_send(std::mem::replace(queue, empty)) {
            Ok(()) => {}
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => *queue = back,
        }
    }

    /// How many datagrams the kernel refused the second thread since this was last asked.
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Relief {
    fn drop(&mut self) {
        // What was handed over is still sent.
        self.full = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The next queue; an error when there will be none.
fn next(taken: &Receiver<SendQueue>, polls: bool) -> Result<SendQueue, RecvError> {
    if !polls {
        return taken.recv();
    }
    loop {
        match taken.try_recv() {
            Ok(queue) => return Ok(queue),
            Err(TryRecvError::Empty) => std::hint::spin_loop(),
            Err(TryRecvError::Disconnected) => return Err(RecvError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn all_that_is_taken_over_is_sent_by_the_same_socket() {
        for polls in [false, true] {
            let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut relief = Relief::start(socket.try_clone().unwrap(), polls, || Ok(())).unwrap();
            let (mut sender, mut queue) = (Sender::new(), SendQueue::default());
            let to = peer.local_addr().unwrap();
            let mut bytes = [0; 8];
            for round in 0..50_u8 {
                (0..20).for_each(|i| queue.push(to, |out| out.extend([round, i])));
                relief.take(&mut queue);
                assert!([0, 20].contains(&queue.len()), "the whole, or nothing");
                assert_eq!(sender.flush(socket.as_fd(), &mut queue), 0);
                let mut got = BTreeSet::new();
                for _ in 0..20 {
                    let (len, from) = peer.recv_from(&mut bytes).unwrap();
                    assert_eq!((len, bytes[0], from), (2, round, socket.local_addr().unwrap()));
                    got.insert(bytes[1]);
                }
                assert_eq!(got.len(), 20);
            }
            queue.push(to, |out| out.push(1));
            relief.take(&mut queue);
            assert_eq!(queue.len(), 1, "one is sent sooner than handed over");
            assert_eq!(relief.take_refused(), 0);
        }
    }

    #[test]
    fn a_thread_that_cannot_begin_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error =
            Relief::start(socket, false, || anyhow::bail!("no such processor")).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "no such processor");
    }
}

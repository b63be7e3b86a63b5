//! How much waits in a socket, from what the kernel reports.
//!
//! The kernel gives the room of what was taken back late: when the reader has taken all that it moved out of the queue at once,
//! or a quarter of the buffer (`udp_rmem_release` in its `net/ipv4/udp.c`). Until then it reports that as waiting, which can be as
//! much as waits indeed, or a tenth of a second of work. What was taken is known here, and a report that is less than the one
//! before says that room was given back. That is seen only if the kernel is asked whenever something was left in the socket.

/// What waits in one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// The last report of the kernel, bytes.
    reported: u64,
    /// Memory of what was taken since room was given back.
    taken: u64,
}

impl Queued {
    /// Datagrams of so much [memory](memory_of) were taken.
    #[inline]
    pub const fn take(&mut self, memory: u64) {
        self.taken += memory;
    }

    /// There was nothing left.
    #[inline]
    pub fn empty(&mut self) {
        *self = Self::default();
    }

    /// The kernel reports so much now.
    #[inline]
    pub const fn report(&mut self, reported: u64) {
        if reported < self.reported {
            self.taken = 0;
        }
        self.reported = reported;
    }

    /// Memory of the datagrams that wait, bytes.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.reported.saturating_sub(self.taken)
    }
}

/// What the kernel reckons for `count` datagrams of `bytes` in all: a buffer whose length is a power of two, in which there are
/// headers and its own notes, and what it knows of it. Some drivers take other buffers.
#[inline]
#[must_use]
pub const fn memory_of(count: u64, bytes: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    count * ((bytes / count + IN_BUFFER).next_power_of_two() + BESIDE_BUFFER)
}

/// Bytes in the buffer of a datagram that are not its own.
const IN_BUFFER: u64 = 412;

/// Bytes that the kernel counts beside the buffer.
const BESIDE_BUFFER: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: u64 = 700;
    const MEMORY: u64 = 2304;

    /// The kernel's side of a socket.
    #[derive(Default)]
    struct Kernel {
        queue: u64,
        /// What the reader has moved out of the queue, and what of the room of that was not given back.
        moved: u64,
        withheld: u64,
        buffer: u64,
    }

    impl Kernel {
        fn take(&mut self, count: u64) -> u64 {
            let mut taken = 0;
            while taken < count && self.queue + self.moved > 0 {
                if self.moved == 0 {
                    self.moved = std::mem::take(&mut self.queue);
                }
                self.moved -= 1;
                taken += 1;
                self.withheld += MEMORY;
                if self.moved == 0 || self.withheld >= self.buffer / 4 {
                    self.withheld = 0;
                }
            }
            taken
        }

        fn reports(&self) -> u64 {
            (self.queue + self.moved) * MEMORY + self.withheld
        }
    }

    #[test]
    fn what_was_taken_does_not_wait_whatever_the_kernel_says() {
        // How many come while a batch is taken, at first and then; the most that a report is beside the truth, in batches.
        for (comes, then) in [(64, 64), (192, 64), (192, 10), (130, 64), (70, 60)] {
            let mut kernel = Kernel { buffer: 64 << 20, ..Kernel::default() };
            let (mut queued, mut overstated) = (Queued::default(), 0);
            for turn in 0..600 {
                kernel.queue += if turn < 100 { comes } else { then };
                let count = kernel.take(64);
                queued.take(memory_of(count, count * PAYLOAD));
                if count < 64 {
                    queued.empty();
                } else {
                    queued.report(kernel.reports());
                }
                let waits = (kernel.queue + kernel.moved) * MEMORY;
                overstated = overstated.max(kernel.reports() - waits);
                let error = queued.waiting().abs_diff(waits) / MEMORY / 64;
                assert!(error <= 4, "{comes}, {then}: {error} batches after turn {turn}");
            }
            assert!(comes == 64 || overstated > 300_000, "{comes}, {then}: {overstated} bytes");
        }
    }

    #[test]
    fn a_buffer_is_a_power_of_two() {
        assert_eq!(memory_of(64, 64 * PAYLOAD), 64 * MEMORY);
        assert_eq!(memory_of(1, 300), 1280);
        assert_eq!(memory_of(0, 0), 0);
    }
}

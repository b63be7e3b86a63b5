//! What a thread counts and measures.

use crate::class::{Class, Fate};
use crate::clock::Nanos;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread counts up and any thread may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more. Only the owning thread may call it: it is a plain read and write.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Counts `n` less. Only the owning thread may call it.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets the number. Only the owning thread may call it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares the counters of a thread and a plain copy of their values.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one thread, readable by others while it runs.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        /// The values of the counters at one time, or their growth over a while.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// The values now.
            pub fn read(&self) -> Counts { Counts { $($name: self.$name.get(),)* } }
        }

        impl Counts {
            /// The growth since `before`.
            pub fn since(self, before: Self) -> Self { Self { $($name: self.$name.wrapping_sub(before.$name),)* } }

            /// Adds another thread's.
            pub fn merge(&mut self, other: Self) { $(self.$name = self.$name.wrapping_add(other.$name);)* }
        }
    };
}

counters! {
    /// Requests sent, retransmissions not among them.
    requests_sent,
    /// Requests sent again by Timer E.
    retransmissions_sent,
    /// Requests that one repetition did not bring an answer to, and which were sent for a third time.
    sent_thrice,
    /// REGISTERs answered 2xx.
    registered,
    /// SUBSCRIBEs answered 2xx.
    subscribed,
    /// PUBLISHes answered 2xx.
    published,
    /// Requests answered with a final error that was not recovered from.
    refused,
    /// Requests refused for a while (500 or 503 with Retry-After), and sent anew after it.
    deferred,
    /// Requests that were withheld because the server asked to be sent less (RFC 7339), and refused to their phones with 503.
    withheld,
    /// Requests given up by Timer F.
    timed_out,
    /// 423 answers, recovered from by asking for Min-Expires.
    too_brief,
    /// 412 answers, recovered from by an initial PUBLISH.
    tag_unknown,
    /// 481 answers to requests in a dialog.
    dialog_unknown,
    /// Answers that match no running request: late repetitions.
    stray_answers,
    /// NOTIFYs received, repetitions not among them.
    notifies,
    /// NOTIFYs with news.
    fresh,
    /// States that were superseded before this watcher was told.
    superseded,
    /// NOTIFYs with news that came within a second after the one before (RFC 4235 §3.10 forbids that to `dialog`).
    hasty,
    /// NOTIFYs that repeat the known state in answer to a SUBSCRIBE.
    repeated,
    /// NOTIFYs that repeat the known state for no reason.
    duplicates,
    /// NOTIFYs with an older state under a higher CSeq.
    stale,
    /// NOTIFYs that came after one with a higher CSeq, or with its CSeq.
    backward,
    /// NOTIFYs that were received again.
    notify_retransmissions,
    /// NOTIFYs that ended a subscription.
    terminated,
    /// Subscriptions ended by the server, not by us.
    ended_by_server,
    /// NOTIFYs about somebody else.
    wrong_document,
    /// NOTIFYs that fit no dialog of this run, answered 481.
    unknown_dialog,
    /// Other requests received.
    other_requests,
    /// Datagrams that are not SIP.
    malformed,
    /// Datagrams that were longer than the receive buffer.
    truncated,
    /// Datagrams that the kernel refused to send.
    send_errors,
    /// Connections that the server closed, or that broke.
    connections_lost,
    /// Operations that had to wait because the one before of the same agent was not finished.
    queued,
    /// Operations of the running phase that are not finished.
    unfinished,
    /// Phones that were refused for a while and have not come again.
    resting,
    /// NOTIFYs that a deaf phone left unanswered.
    ignored,
    /// Datagrams, of both directions, that the generator's own bad network lost.
    link_lost,
    /// Datagrams that it doubled.
    link_doubled,
    /// Datagrams that it held back until others had passed.
    link_delayed,
    /// Bytes received.
    bytes_received,
    /// Subscriptions that are active now.
    active,
}

/// The distributions that a thread measures, in microseconds.
#[derive(Clone, Debug)]
pub struct Timings {
    /// Intended time of a REGISTER until its 200.
    pub register_answer: Histogram<u64>,
    /// Intended time of a SUBSCRIBE until its 200.
    pub subscribe_answer: Histogram<u64>,
    /// Intended time of a SUBSCRIBE until its first NOTIFY.
    pub subscribe_notify: Histogram<u64>,
    /// Intended time of a PUBLISH until its 200.
    pub publish_answer: Histogram<u64>,
    /// Intended time of a PUBLISH until a watcher's NOTIFY.
    pub publish_notify: Histogram<u64>,
    /// The same for the presentities that are set apart, which are not in the one before.
    pub publish_notify_apart: Histogram<u64>,
    /// How long after its intended time a request was handed to the kernel, unless it had to wait for an answer. The
    /// kernel's own time counts as the network's.
    pub lateness: Histogram<u64>,
    /// What became of requests, by their class.
    pub fates: [Fate; Class::ALL.len()],
}

impl Timings {
    /// Nothing measured.
    pub fn new() -> Self {
        let empty = || {
            // Up to ten minutes with three digits.
            Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are valid")
        };
        Self {
            register_answer: empty(),
            subscribe_answer: empty(),
            subscribe_notify: empty(),
            publish_answer: empty(),
            publish_notify: empty(),
            publish_notify_apart: empty(),
            lateness: empty(),
            fates: Class::ALL.map(|_| Fate::new()),
        }
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.register_answer += &other.register_answer;
        self.subscribe_answer += &other.subscribe_answer;
        self.subscribe_notify += &other.subscribe_notify;
        self.publish_answer += &other.publish_answer;
        self.publish_notify += &other.publish_notify;
        self.publish_notify_apart += &other.publish_notify_apart;
        self.lateness += &other.lateness;
        self.fates.iter_mut().zip(&other.fates).for_each(|(all, one)| all.merge(one));
    }
}

/// Records the time from `from` to `to`.
pub fn record(histogram: &mut Histogram<u64>, from: Nanos, to: Nanos) {
    histogram.saturating_record(to.saturating_sub(from).div_ceil(1_000));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_difference() {
        let counters = Counters::default();
        counters.notifies.add(3);
        let before = counters.read();
        counters.notifies.add(4);
        counters.active.add(2);
        counters.active.sub(1);
        let growth = counters.read().since(before);
        assert_eq!((growth.notifies, growth.active, growth.stale), (4, 1, 0));
    }

    #[test]
    fn times_round_up_and_never_underflow() {
        let mut timings = Timings::new();
        record(&mut timings.lateness, 5_000, 5_001);
        record(&mut timings.lateness, 5_000, 4_000);
        assert_eq!((timings.lateness.min(), timings.lateness.max()), (0, 1));
    }
}

//! What a shard counts. Written by the shard alone, read by anyone at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread raises and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more. Only the owning shard calls this, so a plain load and store do, and no bus lock is taken.
    #[inline]
    pub fn up(&self) {
        self.add(1);
    }

    /// `n` more; see [`Self::up`].
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the value: for gauges.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares the counters once: the struct and the list of names and values.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// The engine's counters of one shard. Gauges say so.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Every counter with its name, in declaration order.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$((stringify!($name), self.$name.get())),+].into_iter()
            }
        }
    };
}

/// The counters of several shards together, with their names.
#[must_use]
pub fn sum(shards: &[Arc<Counters>]) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    for counters in shards {
        if sums.is_empty() {
            sums = counters.each().collect();
        } else {
            for (sum, (_, value)) in sums.iter_mut().zip(counters.each()) {
                sum.1 = sum.1.wrapping_add(value);
            }
        }
    }
    sums
}

counters! {
    /// REGISTER requests handled (retransmissions not included).
    registers,
    /// PUBLISH requests handled.
    publishes,
    /// SUBSCRIBE requests handled.
    subscribes,
    /// OPTIONS and all other requests handled.
    other_requests,
    /// Requests answered with 2xx.
    answered_ok,
    /// Requests answered with 3xx to 6xx.
    refused,
    /// Requests answered with 503 because a table, the file or the disk is full.
    refused_full,
    /// SUBSCRIBEs in their dialogs that were refused because more came than could be done.
    refused_refreshes,
    /// REGISTERs of registered users, and OPTIONS, refused for that.
    refused_reregisters,
    /// REGISTERs of other users refused for that.
    refused_registers,
    /// PUBLISHes refused for that.
    refused_publishes,
    /// SUBSCRIBEs that make a dialog refused for that.
    refused_subscribes,
    /// Polls, and what is not served, refused for that.
    refused_polls,
    /// Repetitions of all these, which were refused as well.
    refused_again,
    /// How many of these and their repetitions were dropped, because answering them would have taken too much time.
    refused_unanswered,
    /// Shards that do not take everything at present (gauge).
    shards_refusing,
    /// Requests answered with 401.
    challenged,
    /// Credentials that proved nothing: a wrong password, or no such user.
    auth_failures,
    /// Credentials whose nonce count was used before.
    nonce_counts_replayed,
    /// Requests of sources that failed to authenticate too often, dropped.
    blocked_requests,
    /// Requests of known users for what they may not do, answered with 403.
    forbidden,
    /// Messages of sources that are not heard, dropped.
    sources_denied,
    /// Requests beyond what a source may send, dropped.
    requests_over_budget,
    /// SUBSCRIBEs answered with 500 because their NOTIFYs would go to an address that has never answered and was sent enough.
    subscribes_out_of_reach,
    /// Retransmitted requests, answered with the same bytes.
    retransmitted_requests,
    /// Datagrams that are not SIP messages (keep-alives not included).
    malformed,
    /// Keep-alives.
    keep_alives,
    /// NOTIFYs sent for the first time.
    notifies,
    /// NOTIFYs sent again by Timer E.
    notify_retransmissions,
    /// NOTIFYs, first or again, that were not sent to an address that has never answered and was sent enough.
    notifies_withheld,
    /// NOTIFYs answered with 2xx.
    notifies_delivered,
    /// NOTIFYs answered otherwise.
    notifies_refused,
    /// NOTIFYs never answered (Timer F).
    notifies_timed_out,
    /// NOTIFYs longer than the 1300 bytes that UDP is meant for (RFC 3261 §18.1.1), sent by UDP all the same.
    notifies_over_mtu,
    /// NOTIFYs whose connection was gone or could not be made.
    notifies_unsent,
    /// NOTIFYs that were sent to the next place of a name, because one before it failed (RFC 3263 §4.3).
    notifies_failed_over,
    /// Names of Contact and Route that the resolver was asked for.
    names_asked,
    /// Names that led nowhere, or of which nothing was heard in time; sources of SUBSCRIBEs stood in.
    names_not_found,
    /// Names that were not asked for, because too many were being looked up.
    names_not_asked,
    /// Answers that meet no NOTIFY in flight.
    stray_answers,
    /// Changes of a presentity's document.
    changes,
    /// PUBLISHes that changed nothing but time stamps, or nothing at all.
    changes_suppressed,
    /// Changes that are told together with a later one, because watchers were told a moment before.
    changes_held,
    /// Users who were taken offline because their registration had ended.
    taken_offline,
    /// Watchers whom a winfo document could not list, because there were too many, each time it was made.
    watchers_unlisted,
    /// Subscriptions removed because their watcher is gone.
    watchers_lost,
    /// Subscriptions, publications and bindings that ran out.
    expired,
    /// Answers forgotten before 64*T1 because the memory for them was used up.
    answers_forgotten_early,
    /// Stored records that could not be read back.
    unreadable_records,
    /// Subscriptions at present (gauge).
    subscriptions,
    /// Subscriptions whose watcher's connection is gone and who has not come back yet, at present (gauge).
    watchers_unreachable,
    /// Publications at present (gauge).
    publications,
    /// Bindings at present (gauge).
    bindings,
    /// NOTIFYs in flight at present (gauge).
    notifies_in_flight,
    /// Users of whom something is known at present (gauge).
    presentities,
    /// Presentities watched from this shard at present (gauge).
    presentities_watched,
    /// Presentities with watchers that wait to be told, at present (gauge).
    presentities_due,
    /// Those of them that wait because of a start, which tells again what may not have been told before it, at present (gauge).
    presentities_left_over,
    /// Subscriptions that nothing will ever free (gauge). This and the following are what the shard's last look at its own tables has
    /// found ([`Findings`](crate::audit::Findings)), and zero unless there is a mistake in it.
    subscriptions_never_freed,
    /// Watchers who lack the newest state and will never be told (gauge).
    watchers_never_told,
    /// Dialogs whose CSeq numbers a start would give again (gauge).
    numbers_never_reserved,
    /// NOTIFYs under way that will never end (gauge).
    notifies_never_ended,
    /// Publications that will never expire (gauge).
    publications_never_freed,
    /// Bindings that will never expire (gauge).
    bindings_never_freed,
    /// Users of whom nothing is known, and who are kept (gauge).
    presentities_never_freed,
}

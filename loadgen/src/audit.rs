//! The state audit: does every watcher end up with what its presentity published last, and what went wrong on the way?
//!
//! | NOTIFY | is | answered |
//! |---|---|---|
//! | same CSeq and branch as one of the last eight | [`Verdict::Retransmission`] | as before |
//! | CSeq not higher than the highest one | [`Verdict::Backward`] | 500 (RFC 3261 §12.2.2) |
//! | newer state than any before | [`Verdict::Fresh`] | 200 |
//! | same state, owed by our SUBSCRIBE (RFC 6665 §4.2.2), or none yet | [`Verdict::Repeated`] | 200 |
//! | same state, owed by nothing | [`Verdict::Duplicate`] | 200 |
//! | older state under a higher CSeq | [`Verdict::Stale`] | 200 |
//!
//! What a phone shows is the document of its highest CSeq, be it stale or not; that is what the audit compares.

/// How many NOTIFYs a watcher remembers to know a retransmission by.
const REMEMBERED: usize = 8;

/// What one watcher has been told.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// State of the document that the phone shows; 0 before the first.
    shown: u32,
    /// Newest state that was ever received.
    newest: u32,
    cseq: Option<u32>,
    /// CSeq numbers below the highest that never came.
    missing: u32,
    /// CSeq and fingerprint of the branch.
    recent: [(u32, u32); REMEMBERED],
    /// Which of them were refused, by bits.
    refused: u8,
    recent_next: u8,
}

/// The parts of a NOTIFY that the audit looks at.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// Its CSeq number.
    pub cseq: u32,
    /// Fingerprint of its topmost branch.
    pub branch: u32,
    /// The state number in its document; 0 without one.
    pub state: u32,
    /// Whether a SUBSCRIBE of ours asked for a NOTIFY and has not got it.
    pub owed: bool,
    /// Whether the subscription ends with it; its document, if any, is then not judged.
    pub terminated: bool,
}

/// What a NOTIFY turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// News.
    Fresh,
    /// Known state that we had asked for.
    Repeated,
    /// Known state that nobody had asked for.
    Duplicate,
    /// Older state presented as newer.
    Stale,
    /// A request that came after a later one.
    Backward,
    /// The same request again.
    Retransmission {
        /// Whether it was refused the first time.
        refused: bool,
    },
    /// The end of the subscription.
    Final,
}

impl Watch {
    /// Judges a NOTIFY and remembers it.
    pub fn observe(&mut self, notice: Notice) -> Verdict {
        match self.cseq {
            Some(highest) if notice.cseq <= highest => {
                let name = (notice.cseq, notice.branch);
                if let Some(at) = self.recent.iter().position(|&recent| recent == name) {
                    return Verdict::Retransmission { refused: self.refused >> at & 1 == 1 };
                }
                // It is late, not lost.
                if notice.cseq < highest {
                    self.missing = self.missing.saturating_sub(1);
                }
                self.remember(notice, true);
                return Verdict::Backward;
            }
            Some(highest) => self.missing = self.missing.saturating_add(notice.cseq - highest - 1),
            None => {}
        }
        self.cseq = Some(notice.cseq);
        self.remember(notice, false);
        if notice.terminated {
            return Verdict::Final;
        }
        self.shown = notice.state;
        match notice.state.cmp(&self.newest) {
            std::cmp::Ordering::Greater => {
                self.newest = notice.state;
                Verdict::Fresh
            }
            std::cmp::Ordering::Less => Verdict::Stale,
            std::cmp::Ordering::Equal if notice.owed => Verdict::Repeated,
            std::cmp::Ordering::Equal => Verdict::Duplicate,
        }
    }

    /// Forgets the dialog, not the documents: the next NOTIFY belongs to a new one.
    pub fn new_dialog(&mut self) {
        self.cseq = None;
        self.recent = Default::default();
        self.refused = 0;
    }

    /// State of the document that the phone shows; 0 before the first.
    pub fn shown(&self) -> u32 {
        self.shown
    }

    /// Newest state that was ever received; 0 before the first.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// How many NOTIFYs never came, judged by the gaps in their CSeq.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    fn remember(&mut self, notice: Notice, refused: bool) {
        self.recent[usize::from(self.recent_next)] = (notice.cseq, notice.branch);
        self.refused = self.refused & !(1 << self.recent_next) | u8::from(refused) << self.recent_next;
        self.recent_next = (self.recent_next + 1) % REMEMBERED as u8;
    }
}

/// What the watchers of a run have at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Subscriptions that were judged.
    pub watchers: u64,
    /// Watchers that show an older document than the last one published, or none.
    pub behind: u64,
    /// Watchers that were told the last state and then shown an older one.
    pub turned_back: u64,
    /// Watchers whose subscription was lost before the end.
    pub lost_subscriptions: u64,
    /// NOTIFYs that never came, judged by the gaps in the CSeq of each dialog.
    pub missing_cseqs: u64,
}

impl Tally {
    /// Adds a watcher whose presentity published `published` last. `unsure` is a newer state whose PUBLISH was never
    /// answered: the server may or may not have it.
    pub fn add(&mut self, watch: &Watch, subscribed: bool, published: u32, unsure: Option<u32>) {
        self.watchers += 1;
        self.missing_cseqs += u64::from(watch.missing());
        if !subscribed {
            self.lost_subscriptions += 1;
        } else if watch.shown() != published && Some(watch.shown()) != unsure {
            self.behind += 1;
            self.turned_back += u64::from(watch.newest() >= published);
        }
    }

    /// Adds another thread's watchers.
    pub fn merge(&mut self, other: Tally) {
        self.watchers += other.watchers;
        self.behind += other.behind;
        self.turned_back += other.turned_back;
        self.lost_subscriptions += other.lost_subscriptions;
        self.missing_cseqs += other.missing_cseqs;
    }

    /// Whether every watcher is subscribed and shows the last document.
    pub fn passes(&self) -> bool {
        self.behind == 0 && self.lost_subscriptions == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(cseq: u32, branch: u32, state: u32) -> Notice {
        Notice { cseq, branch, state, owed: false, terminated: false }
    }

    #[test]
    fn states_in_order_are_fresh_and_pass() {
        let mut watch = Watch::default();
        assert_eq!(watch.observe(Notice { owed: true, ..notice(1, 1, 0) }), Verdict::Repeated);
        assert_eq!(watch.observe(notice(2, 2, 1)), Verdict::Fresh);
        // A superseded state may be skipped.
        assert_eq!(watch.observe(notice(3, 3, 4)), Verdict::Fresh);
        let mut tally = Tally::default();
        tally.add(&watch, true, 4, None);
        assert!(tally.passes());
        assert_eq!(tally, Tally { watchers: 1, ..Tally::default() });
    }

    #[test]
    fn a_retransmission_is_neither_duplicate_nor_backward() {
        let mut watch = Watch::default();
        watch.observe(notice(5, 50, 1));
        watch.observe(notice(6, 60, 2));
        assert_eq!(watch.observe(notice(5, 50, 1)), Verdict::Retransmission { refused: false });
        assert_eq!(watch.observe(notice(6, 60, 2)), Verdict::Retransmission { refused: false });
        assert_eq!(watch.shown(), 2);
    }

    #[test]
    fn the_first_notify_with_cseq_zero_is_no_retransmission() {
        let mut watch = Watch::default();
        assert_eq!(watch.observe(notice(0, 0, 1)), Verdict::Fresh);
    }

    #[test]
    fn the_same_state_under_a_new_cseq_is_a_duplicate_unless_owed() {
        let mut watch = Watch::default();
        watch.observe(notice(1, 1, 3));
        assert_eq!(watch.observe(notice(2, 2, 3)), Verdict::Duplicate);
        assert_eq!(watch.observe(Notice { owed: true, ..notice(3, 3, 3) }), Verdict::Repeated);
    }

    #[test]
    fn older_state_under_a_higher_cseq_is_shown_and_fails() {
        let mut watch = Watch::default();
        watch.observe(notice(1, 1, 3));
        assert_eq!(watch.observe(notice(2, 2, 2)), Verdict::Stale);
        assert_eq!((watch.shown(), watch.newest()), (2, 3));
        let mut tally = Tally::default();
        tally.add(&watch, true, 3, None);
        assert_eq!((tally.behind, tally.turned_back, tally.passes()), (1, 1, false));
    }

    #[test]
    fn a_lower_cseq_is_refused_again_and_again() {
        let mut watch = Watch::default();
        watch.observe(notice(1, 1, 1));
        watch.observe(notice(4, 4, 4));
        assert_eq!(watch.missing(), 2);
        assert_eq!(watch.observe(notice(3, 3, 3)), Verdict::Backward);
        assert_eq!(watch.observe(notice(3, 3, 3)), Verdict::Retransmission { refused: true });
        assert_eq!(watch.observe(notice(4, 5, 4)), Verdict::Backward);
        assert_eq!((watch.missing(), watch.shown()), (1, 4));
    }

    #[test]
    fn the_last_notify_of_a_subscription_shows_nothing() {
        let mut watch = Watch::default();
        watch.observe(notice(1, 1, 7));
        assert_eq!(watch.observe(Notice { terminated: true, ..notice(2, 2, 0) }), Verdict::Final);
        assert_eq!(watch.shown(), 7);
    }

    #[test]
    fn an_unanswered_publish_leaves_both_states_right() {
        let mut watch = Watch::default();
        watch.observe(notice(1, 1, 7));
        let mut tally = Tally::default();
        tally.add(&watch, true, 6, Some(7));
        tally.add(&watch, true, 7, Some(8));
        assert!(tally.passes());
        tally.add(&watch, true, 8, Some(9));
        assert!(!tally.passes());
        tally = Tally::default();
        tally.add(&watch, false, 7, None);
        assert!(!tally.passes());
    }
}

//! What a phone knows of the server's state, and within which bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::request::Transaction;

/// A span of time that ends somewhere between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// It does not end before.
    pub earliest: Duration,
    /// It does not end after.
    pub latest: Duration,
}

impl Window {
    pub(super) fn of(transaction: &Transaction, now: Duration, expires: Duration) -> Self {
        let mut window = Self { earliest: transaction.started + expires, latest: now + expires };
        window.shift(transaction.clock_step);
        window
    }

    /// Surely not over yet.
    pub fn surely_runs(&self, now: Duration) -> bool {
        now + Duration::from_secs(1) < self.earliest
    }

    /// Surely over, and everyone has had time to notice.
    pub fn surely_over(&self, now: Duration) -> bool {
        now > self.latest + Duration::from_secs(4)
    }

    /// The server's clock was set by so much while it was down: what it stored ends earlier or later.
    pub(super) fn shift(&mut self, step: ClockStep) {
        self.earliest = self.earliest.saturating_sub(step.forward);
        self.latest += step.back;
    }
}

/// How far the server's clock was set, in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockStep {
    /// Forward.
    pub forward: Duration,
    /// Back.
    pub back: Duration,
}

impl ClockStep {
    /// A step of so many milliseconds.
    pub fn of(millis: i64) -> Self {
        let span = Duration::from_millis(millis.unsigned_abs());
        if millis > 0 {
            Self { forward: span, back: Duration::ZERO }
        } else {
            Self { forward: Duration::ZERO, back: span }
        }
    }
}

/// A state that a phone has published and that was replaced or taken back.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) etag: String,
    pub(super) token: String,
    pub(super) ends: Window,
    pub(super) replaced: Duration,
}

/// What a phone has published.
#[derive(Debug)]
pub struct Live {
    /// The entity tag to use next.
    pub etag: String,
    /// The mark by which the document is known again.
    pub token: String,
    /// When it ends unless refreshed.
    pub ends: Window,
    /// When the phone heard that it is stored.
    pub(super) acked: Duration,
    /// A power cut may have taken it: nobody knows until it is refreshed.
    pub is_shaky: bool,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first SUBSCRIBE is not answered yet.
    Starting,
    /// It was answered 200.
    Live,
    /// The phone has asked for its end, or has polled.
    Ending,
    /// The phone does not want to hear of it any more.
    Over,
}

/// A subscription of a phone.
#[derive(Debug)]
pub struct Watch {
    /// Whom it watches: the number of the user.
    pub whom: usize,
    /// Call-ID of its dialog.
    pub call_id: String,
    /// The phone's own tag.
    pub tag: String,
    /// The server's tag, once known.
    pub server_tag: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// When it ends unless refreshed.
    pub ends: Window,
    /// Marks in the newest document, sorted.
    pub tokens: Vec<String>,
    /// Basic states in the newest document.
    pub basics: Vec<String>,
    /// Version of the newest document, where the package has versions.
    pub(super) version: Option<u64>,
    /// Whether any document has come.
    pub told: bool,
    /// When the phone last did something that delays the truth: no answer, or an answer that asks for patience.
    pub trouble: Duration,
    /// A power cut may have taken it, or have put it back to what it was before: nobody knows until it is refreshed.
    pub is_shaky: bool,
    /// When a SUBSCRIBE of it was answered last, or given up that may have been carried out.
    pub(super) acked: Duration,
    pub(super) cseq: u32,
    pub(super) notified: u32,
    pub(super) answers: BTreeMap<u32, u16>,
    pub(super) failures: u32,
}

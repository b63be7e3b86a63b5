//! A request of a phone, until it is answered.

use std::time::Duration;

use comsipl_tests::world::Bytes;

use super::known::ClockStep;

/// What a request is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// The first PUBLISH, a modification or a refresh (no token).
    Publish { token: Option<String>, expires: Duration },
    /// Taking the publication back.
    Unpublish,
    /// Trying an entity tag that was replaced.
    Stale,
    /// Registering (or, with zero, unregistering) the phone's contact.
    Register { expires: Duration },
    /// Asking for the user's bindings.
    Query,
    /// SUBSCRIBE for the watch with this number.
    Subscribe { watch: usize, expires: Duration },
}

/// A client transaction (RFC 3261 §17.1.2).
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) branch: String,
    pub(super) bytes: Bytes,
    pub(super) purpose: Purpose,
    pub(super) started: Duration,
    pub(super) again_at: Duration,
    pub(super) interval: Duration,
    /// Crashes of the server when it began.
    pub(super) crashes: u32,
    /// Nothing is sent again then.
    pub(super) over_connection: bool,
    /// How far the server's clock was set since it began.
    pub(super) clock_step: ClockStep,
    /// The power failed since it began: its answer may be older than that.
    pub(super) power_failed: bool,
}

impl Transaction {
    /// Timer E has fired: sends the request again, unless a connection brings it there.
    pub(super) fn send_again(&mut self, now: Duration, out: &mut Vec<Bytes>) {
        if self.over_connection {
            self.again_at = self.started + TIMER_F;
            return;
        }
        out.push(Bytes::clone(&self.bytes));
        self.interval = (self.interval * 2).min(T2);
        self.again_at = (now + self.interval).min(self.started + TIMER_F);
    }
}

/// Requests of one lane come one after the other.
pub(super) fn lane(purpose: &Purpose) -> usize {
    match purpose {
        Purpose::Publish { .. } | Purpose::Unpublish | Purpose::Stale => 0,
        Purpose::Register { .. } | Purpose::Query => 1,
        Purpose::Subscribe { watch, .. } => 2 + watch,
    }
}

/// First interval of retransmission (RFC 3261 §17.1.1.1).
pub(super) const T1: Duration = Duration::from_millis(500);
/// Longest interval of retransmission (RFC 3261 §17.1.2.2).
pub(super) const T2: Duration = Duration::from_secs(4);
/// How long an answer is waited for: 64*T1.
pub(super) const TIMER_F: Duration = Duration::from_secs(32);

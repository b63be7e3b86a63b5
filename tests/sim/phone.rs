//! A simulated phone: it registers, publishes and watches, sends its requests again until they are answered, and knows
//! what it was told.
//!
//! What a phone knows of the server's state is known only within bounds: a request takes effect somewhere between its
//! first sending and its answer. [`Window`] keeps both.

mod hears;
mod known;
mod package;
mod request;
mod says;

use std::net::SocketAddr;
use std::time::Duration;

use comsipl_core::ConnectionId;
use comsipl_tests::world::Bytes;

pub use known::{ClockStep, Live, Stage, Watch, Window};
pub use package::Package;
pub use request::Purpose;

use known::Past;
use request::{TIMER_F, Transaction, lane};

/// A phone.
pub struct Phone {
    /// Its number, which is also in its marks and tags.
    pub number: usize,
    /// Number of its user.
    pub user: usize,
    /// Its address; one that speaks over connections gets a new one with each.
    pub at: SocketAddr,
    /// Whether it speaks over connections.
    pub streams: bool,
    /// Its connection, if it has one.
    pub connection: Option<ConnectionId>,
    /// Whether it has registered on that, so that its subscriptions go on over it.
    pub is_bound_here: bool,
    /// Its publication.
    pub live: Option<Live>,
    /// Marks that may be visible for a while, because an answer was lost for good.
    pub ghosts: Vec<(String, Duration)>,
    /// When its binding ends; `None`: it has none.
    pub bound: Option<Window>,
    /// The binding may or may not be there until then.
    pub maybe_bound: Duration,
    /// Its subscriptions, old ones included.
    pub watches: Vec<Watch>,
    /// Until then it neither hears nor answers.
    pub mute_until: Duration,
    /// What the registrar listed last.
    pub listed: Option<Vec<String>>,
    transactions: Vec<Transaction>,
    used_tags: Vec<String>,
    /// Tags of publications whose fate is not known.
    lost_tags: Vec<String>,
    /// What a power cut may bring back.
    past: Vec<Past>,
    /// When a REGISTER was answered last, or given up that may have been carried out.
    registered: Duration,
    made: u32,
    publish_cseq: u32,
    register_cseq: u32,
}

/// How a phone treats a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers 200.
    Good,
    /// Does not answer this one.
    Silent,
    /// Answers 500.
    Failing,
    /// Answers 503 with Retry-After.
    Busy,
    /// Has forgotten the dialog: 481.
    Forgetful,
}

impl Phone {
    /// A phone of `user` that has done nothing yet.
    pub fn new(number: usize, user: usize, streams: bool) -> Self {
        Self {
            number,
            user,
            at: home(number),
            streams,
            connection: None,
            is_bound_here: false,
            live: None,
            ghosts: Vec::new(),
            bound: None,
            maybe_bound: Duration::ZERO,
            watches: Vec::new(),
            mute_until: Duration::ZERO,
            listed: None,
            transactions: Vec::new(),
            used_tags: Vec::new(),
            lost_tags: Vec::new(),
            past: Vec::new(),
            registered: Duration::ZERO,
            made: 0,
            publish_cseq: 0,
            register_cseq: 0,
        }
    }

    /// The contact it registers.
    pub fn contact(&self) -> String {
        let transport = if self.streams { ";transport=tcp" } else { "" };
        format!("sip:u{}@{}{transport}", self.user, home(self.number))
    }

    /// Its connection is gone: what is under way may have been carried out or not.
    pub fn disconnected(&mut self, now: Duration) {
        self.connection = None;
        self.is_bound_here = false;
        for transaction in std::mem::take(&mut self.transactions) {
            if let Purpose::Subscribe { watch, .. } = transaction.purpose {
                // If it is carried out when the phone has registered on another connection, the subscription follows it back
                // to this one, until the silence of that has been noticed.
                self.watches[watch].trouble = now;
            }
            self.give_up(now, transaction);
        }
    }

    /// The server's clock was set while it was down.
    pub fn clock_stepped(&mut self, step: ClockStep) {
        let watches = self.watches.iter_mut().map(|watch| &mut watch.ends);
        let pasts = self.past.iter_mut().map(|past| &mut past.ends);
        let live = self.live.iter_mut().map(|live| &mut live.ends);
        watches.chain(pasts).chain(live).chain(&mut self.bound).for_each(|window| window.shift(step));
        self.ghosts.iter_mut().for_each(|(_, until)| *until += step.back);
        self.maybe_bound += step.back;
        for transaction in &mut self.transactions {
            transaction.clock_step.forward += step.forward;
            transaction.clock_step.back += step.back;
        }
    }

    /// The server's files are what was on disk, and that was all of them last at `synced_at`. What was answered before and not
    /// changed since is there; of what was changed since, any state since may be. `notified_since`: whether the server has
    /// told a dialog something since.
    pub fn power_failed(
        &mut self,
        now: Duration,
        synced_at: Duration,
        notified_since: impl Fn(&str, &str) -> bool,
    ) {
        // An old entity tag may be good again, so nothing follows from an answer.
        self.transactions.retain(|transaction| !matches!(transaction.purpose, Purpose::Stale));
        self.transactions.iter_mut().for_each(|transaction| transaction.power_failed = true);
        let is_publishing = self.is_busy(&Purpose::Unpublish);
        if let Some(live) = &mut self.live {
            live.is_shaky |= is_publishing || live.acked >= synced_at;
        }
        for past in self.past.drain(..).filter(|past| past.replaced >= synced_at) {
            self.ghosts.push((past.token, past.ends.latest));
            self.lost_tags.push(past.etag);
        }
        let is_rebound = self.registered >= synced_at || self.is_busy(&Purpose::Query);
        if is_rebound {
            self.bound = None;
            self.maybe_bound = now + LONGEST;
        }
        for index in 0..self.watches.len() {
            let is_asking = self.is_busy(&Purpose::Subscribe { watch: index, expires: Duration::ZERO });
            let watch = &mut self.watches[index];
            watch.is_shaky |= is_asking
                || watch.acked >= synced_at
                || notified_since(&watch.call_id, &watch.tag)
                // Its subscriptions follow a device to its connection.
                || (self.streams && is_rebound);
        }
    }

    /// Whether a request of the same kind is under way.
    pub fn is_busy(&self, purpose: &Purpose) -> bool {
        self.transactions.iter().any(|t| lane(&t.purpose) == lane(purpose))
    }

    /// Whether any request is under way.
    pub fn is_waiting(&self) -> bool {
        !self.transactions.is_empty()
    }

    /// The marks of publications that are under way.
    pub fn pending_tokens(&self) -> impl Iterator<Item = String> {
        self.transactions.iter().filter_map(|t| match &t.purpose {
            Purpose::Publish { token, .. } => token.clone(),
            _ => None,
        })
    }

    /// When it next wants to send something again.
    pub fn wakes_at(&self) -> Option<Duration> {
        self.transactions.iter().map(|t| t.again_at).min()
    }

    /// Sends again what is due, and gives up what nobody answered for 64*T1.
    pub fn on_time(&mut self, now: Duration, out: &mut Vec<Bytes>) {
        let mut index = 0;
        while let Some(transaction) = self.transactions.get_mut(index) {
            if now < transaction.again_at {
                index += 1;
            } else if now >= transaction.started + TIMER_F {
                let transaction = self.transactions.remove(index);
                self.give_up(now, transaction);
            } else {
                transaction.send_again(now, out);
                index += 1;
            }
        }
    }
}

/// The address that a phone knows of itself.
fn home(number: usize) -> SocketAddr {
    let host = u8::try_from(10 + number).expect("few phones");
    SocketAddr::from(([192, 0, 2, host], 5060))
}

/// Longest expiry that phones ask for.
pub const LONGEST: Duration = Duration::from_secs(900);

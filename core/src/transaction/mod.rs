//! Non-INVITE transactions (RFC 3261 §17.1.2 and §17.2.2, with the corrections of RFC 4320).

mod client;
mod server;
pub use client::{NotifyTransaction, TimerStep};
pub use server::{Answered, Kept, ServerTransactions, TransactionKey};

use std::time::Duration;

/// T1: estimate of the round-trip time (RFC 3261 §17.1.1.1).
pub const T1: Duration = Duration::from_millis(500);
/// T2: longest interval between retransmissions of a non-INVITE request (RFC 3261 §17.1.2.2).
pub const T2: Duration = Duration::from_secs(4);
/// Timer F: how long a client waits for an answer, 64*T1 (RFC 3261 §17.1.2.2).
pub const TIMER_F: Duration = Duration::from_secs(32);
/// Timer J: how long a server remembers its answer over UDP, 64*T1 (RFC 3261 §17.2.2). Over connections it is zero: nothing
/// is remembered.
pub const TIMER_J: Duration = Duration::from_secs(32);

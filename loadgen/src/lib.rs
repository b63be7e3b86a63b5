//! A load generator for SIP presence servers: hundreds of thousands of simulated phones on a few sockets, which
//! register, publish and subscribe as Linphone does, answer every NOTIFY, and audit what they were told.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | `scenario` | what a command or a [`profile`] means: agents and phases |
//! | `expect` | what a profile's run has to show |
//! | [`run`](mod@run) | the conductor: threads, phases, snapshots, the report |
//! | `engine`, `crowd` | one thread: its loop, its agents' operations, what goes out and comes in |
//! | `agent`, `audit`, `message`, `told`, `ident` | a phone: what it knows, was told, writes, reads, and is called |
//! | `pace`, `retransmit`, `clock`, `chance` | when something is due, and what chance makes of it |
//! | `net`, `mmsg`, `link` | sockets and batches, and a bad network |
//! | [`hostile`] | strangers who send what they should not |
//! | `server` | a server to kill |
//! | [`notifier`] | the least presence server, to measure and to test the generator |
//! | `class`, `overload` | what requests are worth when a server cannot do all; a proxy that sends less at its word |
//! | `stats`, `series`, `process`, [`report`], `terminal`, `progress` | counting, measuring, telling |
//! | `html`, `plot` | a run as a page |
//! | [`compare`], [`capacity`] | two runs side by side, many runs in search of the highest rate |

#![deny(unsafe_code)]

mod agent;
mod audit;
pub mod capacity;
mod chance;
mod class;
pub mod cli;
mod clock;
pub mod compare;
mod crowd;
mod engine;
mod expect;
pub mod hostile;
mod html;
mod ident;
mod link;
mod message;
mod mmsg;
mod net;
pub mod notifier;
mod overload;
mod pace;
mod plot;
mod process;
mod progress;
mod relief;
pub mod report;
mod retransmit;
pub mod run;
mod scenario;
mod series;
mod server;
mod shared;
mod stats;
mod stream;
mod terminal;
mod told;

pub use audit::Tally;
pub use class::{Class, ClassReport};
pub use html::page;
pub use pace::Rate;
pub use process::Usage;
pub use scenario::profile;
pub use stats::Counts;

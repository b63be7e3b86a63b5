//! The ComSIPL server as a library: the engine of a shard, and what joins it to sockets, files and threads.

#![deny(unsafe_code)]

pub mod bus;
pub mod clock;
pub mod config;
pub mod event_loop;
pub mod metrics;
pub mod net;
pub mod note;
pub mod settings;
pub mod shard;
pub mod sleep;
mod sync;

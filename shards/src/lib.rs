//! The ComSIPL server as a library: the engine of a shard, and what joins it to sockets, files and threads.

#![deny(unsafe_code)]

pub mod access;
pub mod ahead;
pub mod audit;
pub mod budget;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod counters;
pub mod deadline;
pub mod event_loop;
mod index;
pub mod listeners;
pub mod load;
mod local_ips;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod node;
pub mod note;
pub mod overload;
mod presentities;
pub mod reach;
pub mod records;
mod recover;
mod reply;
pub mod resolve;
pub mod rest;
pub mod restart;
mod route;
pub mod sandbox;
pub mod security;
pub mod settings;
pub mod shard;
pub mod shard_files;
mod sipl;
pub use sipl::Report;
mod sipp;
pub mod sleep;
pub mod spans;
mod subscriptions;
mod sync;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod users;
pub mod wait;
mod wall;
mod watched;

//! What the benches share: one shard of the real engine with its sockets replaced by memory, the phones around it, and the
//! bare system calls of the floor.

pub mod crowd;
pub mod digest;
pub mod message;
pub mod mmsg;
pub mod one_shard;
pub mod processor;
pub mod record_file;

pub use digest::Registrants;
pub use message::{document, flow, options, phone, publish, register, subscribe};
pub use one_shard::OneShard;

/// The address of the shard under test.
pub const SERVER: &str = "127.0.0.1:5060";

//! Support for the tests of ComSIPL.

pub mod client;
pub mod scenario;
pub mod server;
pub mod world;

//! Support for the tests of ComSIPL.

pub mod client;
pub mod coverage;
pub mod desks;
pub mod scenario;
pub mod server;
pub mod validity;
pub mod world;

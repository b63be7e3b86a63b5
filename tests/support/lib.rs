//! Support for the tests of ComSIPL.

pub mod scenario;
pub mod world;

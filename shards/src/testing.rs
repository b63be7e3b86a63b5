//! What tests of several modules need.

#[path = "../tests/support/ca.rs"]
pub(crate) mod ca;

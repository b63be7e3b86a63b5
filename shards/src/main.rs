//! The ComSIPL server.
fn main() {}

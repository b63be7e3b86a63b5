//! Connections: what lies between a socket and the messages on it ([`layer`]), and what waits to be written
//! ([`out_buffer`]).

pub mod layer;
pub mod out_buffer;

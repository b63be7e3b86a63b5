//! Odd messages, in the spirit of RFC 4475 and RFC 5118: what is legal must be read, what is not must be refused, and
//! only what may be answered is answered.
//!
//! The messages are our own; the comment at each names the section whose trap it sets.

mod answers;
mod legal;
mod malformed;
mod speech;

//! Timers.

mod wheel;
pub use wheel::Wheel;

//! The atomics of [`sleep`](crate::sleep); its model check compiles the same file with loom's in their place.

pub use std::sync::atomic::{AtomicBool, Ordering, fence};

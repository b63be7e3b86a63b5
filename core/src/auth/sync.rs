//! The atomics of [`replay`](super::replay); its model check compiles the same file with loom's in their place.

pub use std::sync::atomic::{AtomicU64, Ordering};

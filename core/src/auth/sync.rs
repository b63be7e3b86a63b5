//! The atomics of [`replay`](super::replay) and [`meters`](super::meters); their model checks compile the same files with
//! loom's in their place.

pub use std::sync::atomic::{AtomicU64, Ordering};

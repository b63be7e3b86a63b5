//! Test hook: the process "dies" before a chosen store, and the mapping stays as it was at that instant.

use std::cell::Cell;

thread_local! {
    static STORES_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What a killed thread unwinds with.
pub(crate) struct Killed;

/// Called before every store to a mapping.
pub(crate) fn point() {
    STORES_LEFT.with(|left| match left.get() {
        Some(0) => {
            left.set(None);
            std::panic::resume_unwind(Box::new(Killed));
        }
        Some(n) => left.set(Some(n - 1)),
        None => {}
    });
}

/// Runs `work` and kills it before store number `stores` (from 0). `false`: it was finished before.
pub(crate) fn after<R>(stores: u64, work: impl FnOnce() -> R) -> bool {
    STORES_LEFT.with(|left| left.set(Some(stores)));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    STORES_LEFT.with(|left| left.set(None));
    match outcome {
        Ok(_) => false,
        Err(payload) if payload.is::<Killed>() => true,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

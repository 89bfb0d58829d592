//! Atomics and the lock of cells: the real ones, or under `--cfg loom` those of the model checker, which tries every order of their
//! steps (`policy/tests/quota_orders.rs`).

#[cfg(not(loom))]
pub(super) use parking_lot::Mutex;
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(super) use modelled::Mutex;

#[cfg(loom)]
mod modelled {
    use loom::sync::MutexGuard;

    /// A lock that no panic poisons, as the real one is.
    #[derive(Debug, Default)]
    pub(in super::super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in super::super) fn lock(&self) -> MutexGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }
}

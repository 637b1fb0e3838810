//! Locking without poisoning. In a release build, a panic aborts the program, so no thread sees
//! what a panicked one left behind; in a test, the panic itself should be reported, not a second
//! one.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks a mutex.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// The result of a lock or wait, poisoned or not.
pub fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}

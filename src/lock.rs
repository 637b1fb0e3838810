//! Locks without poison. A panic ends a released program as a whole, so nobody sees what a thread
//! that panicked has left; in a test, the panic itself is what is to be seen, not a second one.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks a mutex.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// What was locked, or waited for.
pub fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}

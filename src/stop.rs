//! How a pass ends before its work is done: whoever sees the reason first tells it here, and
//! everything that waits wakes up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why a pass ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal asked for it.
    Signal(i32),
    /// Whoever read our standard output has closed it.
    OutputClosed,
    /// This machine can't go on: the disk is full, say.
    LocalFailure,
}

/// Whether, and why, a pass is to end early. The first cause counts.
#[derive(Debug, Default)]
pub struct Stop {
    cause: Mutex<Option<Cause>>,
    told: Condvar,
    /// The same, to be looked at often.
    stopped: AtomicBool,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, Option<Cause>> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pass.
    pub fn stop(&self, cause: Cause) {
        self.lock().get_or_insert(cause);
        self.stopped.store(true, Ordering::Relaxed);
        self.told.notify_all();
    }

    /// Whether the pass is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Why it is to end, if it is.
    pub fn cause(&self) -> Option<Cause> {
        *self.lock()
    }

    /// Sleeps until then, or until the pass is to end.
    pub fn sleep_until(&self, until: Instant) {
        let duration = until.saturating_duration_since(Instant::now());
        if duration > Duration::ZERO {
            let running = |cause: &mut Option<Cause>| cause.is_none();
            drop(self.told.wait_timeout_while(self.lock(), duration, running));
        }
    }
}

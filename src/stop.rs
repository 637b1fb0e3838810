//! Stops a pass early. The first thread that notices a reason reports it here, and everything that
//! waits wakes up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Why a pass stops early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal.
    Signal(i32),
    /// The reader of our standard output has closed it.
    OutputClosed,
    /// This machine can't continue, for example because the disk is full.
    LocalFailure,
    /// The pass has reached its time limit (`--max-duration`).
    MaxDuration,
}

/// Whether the pass is over, and why.
#[derive(Debug, Default)]
struct State {
    cause: Option<Cause>,
    /// Whether the pass is over, early or not.
    ended: bool,
}

/// Whether a pass is to stop early, and why. The first cause counts.
#[derive(Debug, Default)]
pub struct Stop {
    state: Mutex<State>,
    changed: Condvar,
    /// A copy of `ended` that is cheap to read.
    stopped: AtomicBool,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Stops the pass early.
    pub fn stop(&self, cause: Cause) {
        self.lock().cause.get_or_insert(cause);
        self.end();
    }

    /// Stops the pass early unless it has already ended. Returns whether it did.
    pub fn expire(&self, cause: Cause) -> bool {
        let mut state = self.lock();
        if state.ended {
            return false;
        }
        state.cause.get_or_insert(cause);
        drop(state);
        self.end();
        true
    }

    /// Wakes and stops everything that is still running, as the pass is over or must stop.
    pub fn end(&self) {
        self.lock().ended = true;
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Whether to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Why the pass stops early, if it does.
    pub fn cause(&self) -> Option<Cause> {
        self.lock().cause
    }

    /// Sleeps until then, or until the pass stops.
    pub fn sleep_until(&self, until: Instant) {
        let duration = until.saturating_duration_since(Instant::now());
        if duration > Duration::ZERO {
            let running = |state: &mut State| !state.ended;
            drop(self.changed.wait_timeout_while(self.lock(), duration, running));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts_and_a_pass_that_has_ended_does_not_expire() {
        let stop = Stop::default();
        assert!(stop.expire(Cause::MaxDuration) && stop.is_stopped());
        stop.stop(Cause::LocalFailure);
        assert_eq!(stop.cause(), Some(Cause::MaxDuration));

        let stop = Stop::default();
        stop.end();
        assert!(!stop.expire(Cause::MaxDuration));
        assert_eq!((stop.is_stopped(), stop.cause()), (true, None));
    }
}

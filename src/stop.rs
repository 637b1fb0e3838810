//! How a pass ends before it is done: whoever sees the reason first reports it here, and everything
//! that waits wakes up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Why a pass ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal asked for it.
    Signal(i32),
    /// Whoever read our standard output has closed it.
    OutputClosed,
    /// This machine can't go on: the disk is full, say.
    LocalFailure,
    /// It has taken as long as it may (`--max-duration`).
    MaxDuration,
}

#[derive(Debug, Default)]
struct State {
    cause: Option<Cause>,
    ended: bool,
}

/// Whether, and why, a pass is to end early. The first cause counts.
#[derive(Debug, Default)]
pub struct Stop {
    state: Mutex<State>,
    told: Condvar,
    /// The same, to be looked at often.
    stopped: AtomicBool,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends the pass early.
    pub fn stop(&self, cause: Cause) {
        self.lock().cause.get_or_insert(cause);
        self.end();
    }

    /// The same if the pass is not through by now; says whether that is so.
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

    /// Wakes up and ends whatever is still at work: the pass is through, or to end early.
    pub fn end(&self) {
        self.lock().ended = true;
        self.stopped.store(true, Ordering::Relaxed);
        self.told.notify_all();
    }

    /// Whether the pass is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Why it is to end early, if it is.
    pub fn cause(&self) -> Option<Cause> {
        self.lock().cause
    }

    /// Sleeps until then, or until the pass is to end.
    pub fn sleep_until(&self, until: Instant) {
        let duration = until.saturating_duration_since(Instant::now());
        if duration > Duration::ZERO {
            let running = |state: &mut State| !state.ended;
            drop(self.told.wait_timeout_while(self.lock(), duration, running));
        }
    }
}

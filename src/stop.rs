//! How work ends before it is done. The whole pass: whoever sees the reason first tells it here, and
//! everything that waits wakes up. And one worker's part, which nobody needs any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pass early.
    pub fn stop(&self, cause: Cause) {
        self.lock().cause.get_or_insert(cause);
        self.end();
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

/// Tells a worker that its work is not needed any more.
#[derive(Clone, Debug, Default)]
pub struct Superseded(Arc<AtomicBool>);

impl Superseded {
    /// Whether it is not needed any more.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Tells the worker.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl PartialEq for Superseded {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Superseded {}

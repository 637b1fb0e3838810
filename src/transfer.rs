//! The progress of a transfer. The worker that receives it writes it; the scheduler reads it to
//! decide whether to request the same file from another node.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::lock::{lock, unpoisoned};

/// How long to wait until the worker of the previous transfer has put aside what it received. That
/// transfer is moving, so this takes a single read.
const HANDED_OVER_WITHIN: Duration = Duration::from_millis(500);

/// A handle to a transfer. Clones refer to the same transfer.
#[derive(Clone, Debug)]
pub struct Transfer(Arc<State>);

/// What all handles to a transfer share.
#[derive(Debug)]
struct State {
    begun: Instant,
    /// [`UNKNOWN`] until the node announces it.
    length: AtomicU64,
    received: AtomicU64,
    /// In microseconds after `begun`; [`UNKNOWN`] until it happens.
    first_byte: AtomicU64,
    /// When the latest byte arrived, in the same way.
    moved: AtomicU64,
    takes_ranges: AtomicBool,
    superseded: AtomicBool,
    forbidden: AtomicBool,
    handed_over: AtomicBool,
    /// Whether the worker has put aside what it received.
    is_left: Mutex<bool>,
    left: Condvar,
    /// The transfer that this one continues.
    before: Option<Transfer>,
}

const UNKNOWN: u64 = u64::MAX;

impl Transfer {
    /// A transfer that begins now.
    pub fn new(now: Instant) -> Transfer {
        Transfer::begin(now, None)
    }

    /// A transfer that continues another one of the same file, which is cancelled for it.
    pub fn after(before: Transfer, now: Instant) -> Transfer {
        before.0.handed_over.store(true, Ordering::Relaxed);
        before.supersede();
        Transfer::begin(now, Some(before))
    }

    fn begin(now: Instant, before: Option<Transfer>) -> Transfer {
        Transfer(Arc::new(State {
            begun: now,
            length: AtomicU64::new(UNKNOWN),
            received: AtomicU64::new(0),
            first_byte: AtomicU64::new(UNKNOWN),
            moved: AtomicU64::new(UNKNOWN),
            takes_ranges: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            forbidden: AtomicBool::new(false),
            handed_over: AtomicBool::new(false),
            is_left: Mutex::new(false),
            left: Condvar::new(),
            before,
        }))
    }

    /// When it started.
    pub fn begun(&self) -> Instant {
        self.0.begun
    }

    /// How many bytes it will receive if it completes, once that is known. A resumed transfer
    /// receives only the rest of the file.
    pub fn length(&self) -> Option<u64> {
        Some(self.0.length.load(Ordering::Relaxed)).filter(|length| *length != UNKNOWN)
    }

    /// How many bytes it has received so far.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// When its first byte arrived.
    pub fn first_byte_at(&self) -> Option<Instant> {
        self.at(&self.0.first_byte)
    }

    /// When its latest byte arrived.
    pub fn moved_at(&self) -> Option<Instant> {
        self.at(&self.0.moved)
    }

    fn at(&self, micros: &AtomicU64) -> Option<Instant> {
        let micros = Some(micros.load(Ordering::Relaxed)).filter(|micros| *micros != UNKNOWN);
        Some(self.0.begun + Duration::from_micros(micros?))
    }

    /// Notes how many bytes to expect.
    pub fn expect(&self, length: Option<u64>) {
        self.0.length.store(length.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// Notes whether the node can send a file from any byte on.
    pub fn note_ranges(&self, takes_ranges: bool) {
        self.0.takes_ranges.store(takes_ranges, Ordering::Relaxed);
    }

    /// Whether the node can send a file from any byte on, as far as is known.
    pub fn takes_ranges(&self) -> bool {
        self.0.takes_ranges.load(Ordering::Relaxed)
    }

    /// Notes that this many bytes have arrived.
    pub fn receive(&self, bytes: u64, now: Instant) {
        let now = now.saturating_duration_since(self.0.begun).as_micros();
        let now = u64::try_from(now).unwrap_or(UNKNOWN - 1);
        self.0.received.fetch_add(bytes, Ordering::Relaxed);
        self.0.moved.store(now, Ordering::Relaxed);
        let first = &self.0.first_byte;
        let _ = first.compare_exchange(UNKNOWN, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether it is no longer needed.
    pub fn is_superseded(&self) -> bool {
        self.0.superseded.load(Ordering::Relaxed)
    }

    /// Tells the worker that it is no longer needed.
    pub fn supersede(&self) {
        self.0.superseded.store(true, Ordering::Relaxed);
    }

    /// Whether its file was deleted on purpose.
    pub fn is_forbidden(&self) -> bool {
        self.0.forbidden.load(Ordering::Relaxed)
    }

    /// Tells the worker that its file was deleted on purpose.
    pub fn forbid(&self) {
        self.0.forbidden.store(true, Ordering::Relaxed);
        self.supersede();
    }
}

/// Handing over.
impl Transfer {
    /// Whether it continues another transfer.
    pub fn is_second(&self) -> bool {
        self.0.before.is_some()
    }

    /// Whether another transfer continues this one.
    pub fn is_handed_over(&self) -> bool {
        self.0.handed_over.load(Ordering::Relaxed)
    }

    /// Notes that the worker has put aside what it received, and is done with this transfer.
    pub fn leave(&self) {
        *lock(&self.0.is_left) = true;
        // Whoever waits has handed it over before taking the lock above, so that is seen here.
        if self.is_handed_over() {
            self.0.left.notify_all();
        }
    }

    /// Waits briefly until the transfer that this one continues has put aside what it received.
    pub fn await_before(&self) {
        if let Some(before) = &self.0.before {
            let is_left = lock(&before.0.is_left);
            let wait = |is_left: &mut bool| !*is_left;
            let waited = before.0.left.wait_timeout_while(is_left, HANDED_OVER_WITHIN, wait);
            drop(unpoisoned(waited));
        }
    }
}

impl PartialEq for Transfer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Transfer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_one_transfer() {
        let now = Instant::now();
        let (worker, scheduler) = (Transfer::new(now), Transfer::new(now));
        assert_ne!(worker, scheduler);
        let scheduler = worker.clone();
        assert_eq!(worker, scheduler);
        assert_eq!((scheduler.length(), scheduler.first_byte_at()), (None, None));
        worker.expect(Some(10));
        worker.receive(4, now);
        let first = scheduler.first_byte_at().unwrap();
        worker.receive(3, now);
        assert_eq!((scheduler.length(), scheduler.received()), (Some(10), 7));
        assert_eq!(scheduler.first_byte_at(), Some(first));
        assert!(scheduler.moved_at().unwrap() >= first);
        scheduler.supersede();
        assert!(worker.is_superseded());
    }

    #[test]
    fn a_continuation_waits_until_the_first_transfer_ends() {
        let now = Instant::now();
        let first = Transfer::new(now);
        let second = Transfer::after(first.clone(), now);
        assert!(first.is_superseded() && first.is_handed_over() && !first.is_second());
        assert!(second.is_second() && !second.is_superseded());
        // A stuck transfer delays it only briefly.
        second.await_before();
        first.leave();
        let begun = Instant::now();
        second.await_before();
        assert!(begun.elapsed() < HANDED_OVER_WITHIN);
    }

    #[test]
    fn the_end_of_the_first_transfer_wakes_its_continuation() {
        const TRIES: u32 = 20;
        let begun = Instant::now();
        for _ in 0..TRIES {
            let first = Transfer::new(begun);
            let second = Transfer::after(first.clone(), begun);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| second.await_before());
                // It waits now, or will find that there is nothing to wait for.
                std::thread::yield_now();
                first.leave();
                waiting.join().unwrap();
            });
        }
        assert!(begun.elapsed() < HANDED_OVER_WITHIN * TRIES / 2);
    }
}

//! Ends responses that are too slow. The watch sits below everything that decodes them, since a
//! response that never yields a byte above (endless empty blocks, chunks, trailers) must end too.
//!
//! A wait in which nothing arrives for the whole timeout is silence. So is a trickle of fewer than
//! [`SLOW_RATE`] bytes per second, measured over one timeout of waiting for heads, listings and the
//! bodies of errors, and over [`SLOW_FOR`] for a file, which may be slow as long as it moves. Only
//! time spent waiting for the node counts, so a rate limit on our side makes no node look slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::{NodeError, Trouble};
use crate::durations::limit;
use crate::lock::lock;

/// A response is slow below this many bytes per second. At this rate even a small segment of 20 kB
/// takes 20 s, ten times as long as it plays.
pub const SLOW_RATE: u64 = 1000;
/// How long a file may be slow before its transfer is ended; the same as curl's default for
/// `--speed-time`.
pub const SLOW_FOR: Duration = Duration::from_secs(30);

/// When a byte last arrived from a node.
#[derive(Debug)]
pub struct Heard {
    begun: Instant,
    /// In microseconds after `begun`; 0 means never.
    at: AtomicU64,
}

impl Heard {
    /// Nothing has arrived yet.
    pub fn new() -> Heard {
        Heard { begun: Instant::now(), at: AtomicU64::new(0) }
    }

    /// When the last byte arrived, if any did.
    pub fn last(&self) -> Option<Instant> {
        let at = Some(self.at.load(Ordering::Relaxed)).filter(|at| *at > 0);
        Some(self.begun + Duration::from_micros(at?))
    }

    /// Notes that a byte has just arrived.
    pub fn now(&self) {
        let at = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.at.fetch_max(at.max(1), Ordering::Relaxed);
    }
}

/// The watch on one connection, shared by all its layers.
#[derive(Clone, Debug)]
pub struct Watch {
    heard: Arc<Heard>,
    timeout: Duration,
    max_response: u64,
    received: Arc<Mutex<Received>>,
}

impl Watch {
    /// Allows waits of at most `timeout`, and responses of at most `max_response` bytes.
    pub fn new(heard: Arc<Heard>, timeout: Duration, max_response: u64) -> Watch {
        let received = Arc::new(Mutex::new(Received::new(timeout)));
        Watch { heard, timeout, max_response, received }
    }

    /// The longest wait for a byte.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        lock(&self.received)
    }

    /// A request was sent: the head of a response comes next.
    pub fn expect_head(&self) {
        *self.lock() = Received::new(self.timeout);
    }

    /// A body comes next. It may be slow for `patience`, and always for at least the timeout.
    pub fn expect_body(&self, patience: Duration) {
        let mut received = self.lock();
        received.patience = patience.max(self.timeout);
        (received.waited, received.bytes) = (Duration::ZERO, 0);
    }

    /// Notes that this many bytes arrived after this long a wait.
    ///
    /// # Errors
    ///
    /// Fails if the response is now too slow or too long.
    pub fn came(&self, bytes: u64, waited: Duration) -> Result<(), NodeError> {
        self.heard.now();
        let mut received = self.lock();
        received.length += bytes;
        if received.length > self.max_response {
            let what = format!("the response is longer than {} MiB", self.max_response >> 20);
            return Err(NodeError::answered(Trouble::Refused, what));
        }
        // A wait longer than the timeout means that this process was stopped.
        let waited = if waited > self.timeout { Duration::ZERO } else { waited };
        if received.is_too_slow(bytes, waited) {
            let patience = limit(received.patience);
            let rate = HumanCount(SLOW_RATE);
            let what = format!("slower than {rate} bytes per second for {patience}");
            return Err(NodeError::new(Trouble::Silent, what));
        }
        Ok(())
    }
}

/// What has arrived of a response.
#[derive(Debug)]
struct Received {
    length: u64,
    /// How long a trickle is tolerated.
    patience: Duration,
    /// Time spent waiting since the rate was last checked.
    waited: Duration,
    /// Bytes that arrived since then.
    bytes: u64,
}

impl Received {
    fn new(patience: Duration) -> Received {
        Received { length: 0, patience, waited: Duration::ZERO, bytes: 0 }
    }

    fn is_too_slow(&mut self, bytes: u64, waited: Duration) -> bool {
        // Thinking before the first byte is not a trickle.
        if self.length > bytes {
            self.waited += waited;
        }
        self.bytes += bytes;
        if self.waited < self.patience {
            return false;
        }
        let slow = (self.bytes as f64) < SLOW_RATE as f64 * self.waited.as_secs_f64();
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn watch() -> Watch {
        Watch::new(Arc::new(Heard::new()), seconds(5), 1 << 20)
    }

    /// Sends this many bytes after each of these waits; returns which of them the watch tolerates.
    fn tolerated(watch: &Watch, bytes: u64, waits: &[u64]) -> Vec<bool> {
        waits.iter().map(|wait| watch.came(bytes, seconds(*wait)).is_ok()).collect()
    }

    #[test]
    fn a_head_may_be_late_but_not_trickle() {
        let watch = watch();
        watch.expect_head();
        assert_eq!(tolerated(&watch, 1, &[4, 2, 2, 2]), [true, true, true, false]);
        watch.expect_head();
        assert_eq!(tolerated(&watch, 200, &[4, 4, 0]), [true, true, true]);
    }

    #[test]
    fn a_file_may_be_slow_for_half_a_minute() {
        let watch = watch();
        let every_four_seconds = [4; 8];
        let slow = [true, true, true, true, true, true, true, false];
        tolerated(&watch, 1, &[0]);
        watch.expect_body(SLOW_FOR);
        assert_eq!(tolerated(&watch, 1, &every_four_seconds), slow);
        // Just fast enough.
        watch.expect_body(SLOW_FOR);
        assert!(tolerated(&watch, 4000, &[4; 200]).iter().all(|tolerated| *tolerated));
        // The body of an error gets one timeout only.
        watch.expect_body(Duration::ZERO);
        assert_eq!(tolerated(&watch, 1, &[4, 4]), [true, false]);
    }

    #[test]
    fn a_response_may_not_be_too_long() {
        let watch = watch();
        watch.expect_head();
        assert_eq!(tolerated(&watch, 1 << 19, &[0, 0, 0]), [true, true, false]);
        watch.expect_head();
        assert_eq!(tolerated(&watch, 1 << 19, &[0, 0]), [true, true]);
    }

    #[test]
    fn an_arriving_byte_is_noted() {
        let watch = watch();
        assert_eq!(watch.heard.last(), None);
        tolerated(&watch, 1, &[0]);
        assert!(watch.heard.last().unwrap().elapsed() < seconds(60));
    }
}

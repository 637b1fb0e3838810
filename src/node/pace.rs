//! How fast answers come, watched below everything that decodes them, since what never yields a
//! byte above (endless empty blocks, chunks, trailers) must end too.
//!
//! A wait in which nothing came for the whole timeout is silence. So is a drip: fewer than
//! [`SLOW_RATE`] bytes a second over one timeout of waiting, for heads, listings, and the bodies of
//! errors; for a file that is wanted over [`SLOW_FOR`], as it may be slow as long as it moves. Only
//! time spent waiting for the node counts: a limit on our side makes no node slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::lock::lock;

use super::{NodeError, Trouble};

/// A slow answer is one of fewer bytes than this a second.
pub const SLOW_RATE: u64 = 1000;
/// How long a file that is wanted may be slow.
pub const SLOW_FOR: Duration = Duration::from_secs(30);

/// When a byte last came from a node.
#[derive(Debug)]
pub struct Heard {
    begun: Instant,
    /// In microseconds after that; 0 is never.
    at: AtomicU64,
}

impl Heard {
    /// Never yet.
    pub fn new() -> Heard {
        Heard { begun: Instant::now(), at: AtomicU64::new(0) }
    }

    /// When it was.
    pub fn last(&self) -> Option<Instant> {
        let at = Some(self.at.load(Ordering::Relaxed)).filter(|at| *at > 0);
        Some(self.begun + Duration::from_micros(at?))
    }

    /// That it is now.
    pub fn now(&self) {
        let at = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.at.fetch_max(at.max(1), Ordering::Relaxed);
    }
}

/// The watch on one connection, shared by all of its layers.
#[derive(Clone, Debug)]
pub struct Watch {
    heard: Arc<Heard>,
    timeout: Duration,
    max_answer: u64,
    answer: Arc<Mutex<Answer>>,
}

impl Watch {
    /// Waits of at most this long, and answers of at most so many bytes.
    pub fn new(heard: Arc<Heard>, timeout: Duration, max_answer: u64) -> Watch {
        let answer = Arc::new(Mutex::new(Answer::new(timeout)));
        Watch { heard, timeout, max_answer, answer }
    }

    /// The longest wait for a byte.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        lock(&self.answer)
    }

    /// Something was asked: the head of an answer comes next.
    pub fn expect_head(&self) {
        *self.lock() = Answer::new(self.timeout);
    }

    /// The body comes next, and may be slow for so long; never less than the timeout.
    pub fn expect_body(&self, patience: Duration) {
        let mut answer = self.lock();
        answer.patience = patience.max(self.timeout);
        (answer.waited, answer.bytes) = (Duration::ZERO, 0);
    }

    /// So many bytes came after such a wait. Fails if they are too few or too many.
    pub fn came(&self, bytes: u64, waited: Duration) -> Result<(), NodeError> {
        self.heard.now();
        let mut answer = self.lock();
        answer.length += bytes;
        if answer.length > self.max_answer {
            let what = format!("the answer is longer than {} MiB", self.max_answer >> 20);
            return Err(NodeError::answered(Trouble::Refused, what));
        }
        // No wait is longer than the timeout, but for a process that was stopped.
        let waited = if waited > self.timeout { Duration::ZERO } else { waited };
        if answer.is_too_slow(bytes, waited) {
            let patience = humantime::format_duration(answer.patience);
            let what = format!("slower than {SLOW_RATE} bytes per second for {patience}");
            return Err(NodeError::new(Trouble::Silent, what));
        }
        Ok(())
    }
}

/// What came of an answer.
#[derive(Debug)]
struct Answer {
    length: u64,
    /// How long a drip is borne.
    patience: Duration,
    /// Since that was last looked at.
    waited: Duration,
    bytes: u64,
}

impl Answer {
    fn new(patience: Duration) -> Answer {
        Answer { length: 0, patience, waited: Duration::ZERO, bytes: 0 }
    }

    fn is_too_slow(&mut self, bytes: u64, waited: Duration) -> bool {
        // To think before the first byte is no drip.
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

    /// Whether a byte, or so many, after such waits are borne, in turn.
    fn borne(watch: &Watch, bytes: u64, waits: &[u64]) -> Vec<bool> {
        waits.iter().map(|wait| watch.came(bytes, seconds(*wait)).is_ok()).collect()
    }

    #[test]
    fn a_head_may_come_late_but_not_drip() {
        let watch = watch();
        watch.expect_head();
        assert_eq!(borne(&watch, 1, &[4, 2, 2, 2]), [true, true, true, false]);
        watch.expect_head();
        assert_eq!(borne(&watch, 200, &[4, 4, 0]), [true, true, true]);
    }

    #[test]
    fn a_file_that_is_wanted_is_slow_by_what_it_moves_in_half_a_minute() {
        let watch = watch();
        let every_four_seconds = [4; 8];
        let slow = [true, true, true, true, true, true, true, false];
        borne(&watch, 1, &[0]);
        watch.expect_body(SLOW_FOR);
        assert_eq!(borne(&watch, 1, &every_four_seconds), slow);
        // Barely enough.
        watch.expect_body(SLOW_FOR);
        assert!(borne(&watch, 4000, &[4; 200]).iter().all(|borne| *borne));
        // Nobody wants it.
        watch.expect_body(Duration::ZERO);
        assert_eq!(borne(&watch, 1, &[4, 4]), [true, false]);
    }

    #[test]
    fn an_answer_has_a_longest_length() {
        let watch = watch();
        watch.expect_head();
        assert_eq!(borne(&watch, 1 << 19, &[0, 0, 0]), [true, true, false]);
        watch.expect_head();
        assert_eq!(borne(&watch, 1 << 19, &[0, 0]), [true, true]);
    }

    #[test]
    fn a_byte_is_heard() {
        let watch = watch();
        assert_eq!(watch.heard.last(), None);
        borne(&watch, 1, &[0]);
        assert!(watch.heard.last().unwrap().elapsed() < seconds(60));
    }
}

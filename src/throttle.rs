//! Limits the rate at which bytes are fetched.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Delays all workers together to keep to a rate limit.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// When the bytes taken so far are paid for.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    /// A limit of this many bytes per second.
    pub fn new(bytes_per_second: u64) -> Throttle {
        Throttle { bytes_per_second: bytes_per_second.max(1), paid: Mutex::new(None) }
    }

    /// Takes this many bytes. Returns when the next may be taken.
    pub fn take(&self, bytes: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid = lock(&self.paid);
        let until = paid.map_or(now, |paid| paid.max(now)) + cost;
        *paid = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_keeps_to_its_rate() {
        let throttle = Throttle::new(1000);
        let now = Instant::now();
        let seconds = Duration::from_secs;
        assert_eq!(throttle.take(1000, now), now + seconds(1));
        assert_eq!(throttle.take(2000, now), now + seconds(3));
        // Unused time is not saved up.
        assert_eq!(throttle.take(1000, now + seconds(10)), now + seconds(11));
    }
}

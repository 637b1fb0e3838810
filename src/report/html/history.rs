//! The bytes over time, in a bounded number of steps of equal length.

use std::time::{Duration, Instant};

/// The most steps. When there would be more, pairs of steps are merged.
const MOST: usize = 120;
const FIRST_STEP: Duration = Duration::from_secs(1);

/// The bytes that landed in each step of a pass.
#[derive(Clone, Debug)]
pub struct History {
    begun: Instant,
    step: Duration,
    bytes: Vec<u64>,
}

impl History {
    /// For a pass that begins at this time.
    pub fn new(begun: Instant) -> History {
        History { begun, step: FIRST_STEP, bytes: Vec::new() }
    }

    /// Adds bytes that landed at this time.
    pub fn add(&mut self, at: Instant, bytes: u64) {
        let since = at.saturating_duration_since(self.begun);
        let index = loop {
            let index = (since.as_nanos() / self.step.as_nanos()) as usize;
            if index < MOST {
                break index;
            }
            self.bytes = self.bytes.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.step *= 2;
        };
        if self.bytes.len() <= index {
            self.bytes.resize(index + 1, 0);
        }
        self.bytes[index] += bytes;
    }

    /// The length of a step.
    pub fn step(&self) -> Duration {
        self.step
    }

    /// The bytes of each step, up to the last in which something landed.
    pub fn bytes(&self) -> &[u64] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_to_stay_few_without_losing_bytes() {
        let begun = Instant::now();
        let mut history = History::new(begun);
        for second in 0..1000 {
            history.add(begun + Duration::from_secs(second), 10);
        }
        assert_eq!(history.step(), Duration::from_secs(16));
        assert_eq!(history.bytes().len(), 63);
        assert_eq!((history.bytes()[0], history.bytes()[62]), (160, 80));
        history.add(begun + Duration::from_secs(1_000_000), 1);
        assert!(history.bytes().len() <= MOST);
        assert_eq!(history.bytes().iter().sum::<u64>(), 10_001);
    }
}

//! The speed of a pass, and an estimate of the time left.

use std::time::{Duration, Instant};

use crate::schedule::Counts;

/// The rates are averages over this long: enough to smooth over the gaps between files, and short
/// enough to show within seconds that a node has become slow.
const RATE_OVER: Duration = Duration::from_secs(10);

/// The counts at a point in time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The point in time.
    pub at: Instant,
    /// How many files are settled.
    pub settled: u64,
    /// How many listings have ended.
    pub listed: u64,
    /// The bytes from all nodes.
    pub bytes: u64,
    /// The bytes from each node.
    pub bytes_of: Vec<u64>,
    /// The files from each node.
    pub files_of: Vec<u64>,
}

/// The samples of the last [`RATE_OVER`], oldest first.
#[derive(Debug, Default)]
pub struct Rates {
    samples: Vec<Sample>,
}

impl Rates {
    /// Adds a sample, and drops those that are too old.
    pub fn add(&mut self, sample: Sample) {
        let now = sample.at;
        self.samples.push(sample);
        self.samples.retain(|sample| now.duration_since(sample.at) <= RATE_OVER);
    }

    /// Growth per second over the last [`RATE_OVER`]; zero if the value shrank.
    pub fn of(&self, what: impl Fn(&Sample) -> u64) -> f64 {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) if last.at > first.at => {
                what(last).saturating_sub(what(first)) as f64 / (last.at - first.at).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// The time left at the current speed; `None` if there is no end in sight.
    pub fn left(&self, counts: Counts) -> Option<Duration> {
        let for_files = seconds_for(counts.left(), self.of(|sample| sample.settled))?;
        let for_listings = seconds_for(counts.to_list as f64, self.of(|sample| sample.listed))?;
        Duration::try_from_secs_f64(for_files.max(for_listings)).ok()
    }
}

/// How many seconds the work takes, or `None` if it would take forever.
fn seconds_for(work: f64, rate: f64) -> Option<f64> {
    let seconds = if work > 0.0 { work / rate } else { 0.0 };
    seconds.is_finite().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut rates = Rates::default();
        let begun = Instant::now();
        for (second, settled) in [(0, 0), (5, 1000), (10, 1010), (15, 1020)] {
            let (bytes_of, files_of) = (Vec::new(), Vec::new());
            let at = begun + Duration::from_secs(second);
            rates.add(Sample { at, settled, listed: 0, bytes: 0, bytes_of, files_of });
        }
        assert_eq!(rates.of(|sample| sample.settled), 2.0);
        let counts = Counts { wanted: 1030, settled: 1020, ..Counts::default() };
        assert_eq!(rates.left(counts), Some(Duration::from_secs(5)));
    }
}

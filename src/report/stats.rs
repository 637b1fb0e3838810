//! A line with the progress of a pass, for where there is no bar (`--stats`, SIGUSR1).

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};

use crate::durations::took;
use crate::schedule::{Counts, Standing};

/// The state of a pass at a point in time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The point in time.
    pub at: Instant,
    /// Whether the pass is still checking the files that are here.
    pub is_checking: bool,
    /// The counts of files and listings.
    pub counts: Counts,
    /// How many bytes were fetched.
    pub bytes: u64,
}

/// The line for a pass that begins in this time (`--jitter`).
pub fn waiting(left: Duration) -> String {
    format!("waiting: the pass begins in {}", took(left))
}

/// Composes the lines. The rate in each is the average since the previous line.
#[derive(Debug)]
pub struct Stats {
    begun: Instant,
    last: Option<Now>,
}

impl Stats {
    /// For a pass that began at this time.
    pub fn new(begun: Instant) -> Stats {
        Stats { begun, last: None }
    }

    /// The line for now; `nodes` are their names and standings.
    pub fn line<'a>(
        &mut self,
        now: Now,
        nodes: impl IntoIterator<Item = (&'a str, Standing)>,
    ) -> String {
        let Counts { wanted, settled, listed, to_list } = now.counts;
        // Hours that are not listed yet may add files.
        let more = if to_list > 0 { "+" } else { "" };
        let done = if now.is_checking { "checked" } else { "done" };
        let files = format!("{} of {}{more} files {done}", HumanCount(settled), HumanCount(wanted));
        let mut parts = vec![files];
        if !now.is_checking {
            let rate = HumanBytes(self.bytes_per_second(&now));
            parts.push(format!("{} at {rate}/s", HumanBytes(now.bytes)));
        }
        parts.extend(self.left(&now).map(|left| format!("about {} left", took(left))));
        if to_list > 0 {
            let all = HumanCount(listed + to_list);
            parts.push(format!("{} of {all} listings", HumanCount(listed)));
        }
        let troubles = nodes.into_iter().filter_map(|(node, standing)| match standing {
            Standing::GivenUp => Some(format!("node {node} given up")),
            Standing::Resting(until) => {
                let pause = took(until.saturating_duration_since(now.at));
                Some(format!("node {node} failed, retry in {pause}"))
            }
            Standing::Busy | Standing::Idle => None,
        });
        let troubles: Vec<String> = troubles.collect();
        self.last = Some(now);
        let parts = parts.join(", ");
        if troubles.is_empty() { parts } else { format!("{parts}; {}", troubles.join(", ")) }
    }

    fn bytes_per_second(&self, now: &Now) -> u64 {
        let (since, bytes) = self.last.map_or((self.begun, 0), |last| (last.at, last.bytes));
        let took = now.at.saturating_duration_since(since).as_secs_f64();
        if took > 0.0 { (now.bytes.saturating_sub(bytes) as f64 / took) as u64 } else { 0 }
    }

    /// The time left at the average speed so far.
    fn left(&self, now: &Now) -> Option<Duration> {
        let Counts { settled, listed, to_list, .. } = now.counts;
        let took = now.at.saturating_duration_since(self.begun).as_secs_f64();
        let time = |left: f64, done: u64| match done {
            _ if left == 0.0 => Some(0.0),
            0 => None,
            done => Some(left * took / done as f64),
        };
        let left = time(now.counts.left(), settled)?.max(time(to_list as f64, listed)?);
        Duration::try_from_secs_f64(left).ok().filter(|left| *left > Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_progress_rate_and_failing_nodes() {
        let begun = Instant::now();
        let mut stats = Stats::new(begun);
        let after = |seconds: u64, counts: Counts, bytes: u64| Now {
            at: begun + Duration::from_secs(seconds),
            is_checking: false,
            counts,
            bytes,
        };
        let counts = Counts { wanted: 1000, settled: 100, listed: 2, to_list: 2 };
        let now = after(10, counts, 10 << 20);
        let resting = Standing::Resting(now.at + Duration::from_secs(3));
        assert_eq!(
            stats.line(now, [("a", Standing::Busy), ("b", resting), ("c", Standing::GivenUp)]),
            "100 of 1,000+ files done, 10.00 MiB at 1.00 MiB/s, about 3 min 10 s left, \
             2 of 4 listings; node b failed, retry in 3.0 s, node c given up"
        );
        let counts = Counts { wanted: 1000, settled: 1000, listed: 4, to_list: 0 };
        assert_eq!(
            stats.line(after(20, counts, 30 << 20), [("a", Standing::Idle)]),
            "1,000 of 1,000 files done, 30.00 MiB at 2.00 MiB/s"
        );
        let checking = Now { is_checking: true, ..after(0, Counts::default(), 0) };
        assert_eq!(stats.line(checking, []), "0 of 0 files checked");
    }
}

//! What a pass does at intervals: print a line with its progress, write its metrics, and end when
//! it has taken too long (`--max-duration`).

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Pass, lock};
use crate::config::Config;
use crate::error::LocalError;
use crate::progress::Phase;
use crate::report::{Now, UnderWay};
use crate::stop::Cause;

/// The metrics of a running pass are written at least this often, which is often enough for a
/// scraper.
const METRICS_EVERY: Duration = Duration::from_secs(60);

impl Pass {
    /// Starts the thread that does this, if the configuration needs it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn keep_watch(self: &Arc<Self>) -> Result<(), LocalError> {
        let Config { max_duration, stats, metrics_file, .. } = &self.config;
        if max_duration.is_none() && stats.is_none() && metrics_file.is_none() {
            return Ok(());
        }
        let pass = self.clone();
        let started = thread::Builder::new().spawn(move || pass.watch());
        started.map(drop).map_err(|e| {
            LocalError::new("starting a thread to watch", "how long the pass takes".as_ref(), e)
        })
    }

    fn watch(&self) {
        let begun = self.begun;
        let every = self.config.stats.unwrap_or(METRICS_EVERY).min(METRICS_EVERY);
        let deadline = self.config.max_duration.and_then(|longest| begun.checked_add(longest));
        let mut stats = self.config.stats.and_then(|every| begun.checked_add(every));
        let mut metrics = begun + every;
        loop {
            let next = [deadline, stats].into_iter().flatten().fold(metrics, Instant::min);
            self.stop.sleep_until(next);
            if self.stop.is_stopped() {
                return;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                if self.stop.expire(Cause::MaxDuration) {
                    self.end(Cause::MaxDuration);
                }
                return;
            }
            if let Some((at, every)) = stats.zip(self.config.stats).filter(|(at, _)| now >= *at) {
                stats = following(at, every, now);
                if !self.progress.is_shown() {
                    self.show_stats();
                }
            }
            if now >= metrics {
                metrics = now + every;
                self.measure_under_way();
            }
        }
    }

    /// Prints a line with the progress to standard error.
    pub(super) fn show_stats(&self) {
        let now = self.now();
        let scheduler = self.scheduler();
        let standings: Vec<_> =
            (0..self.nodes.len()).map(|id| scheduler.standing(id, now.at)).collect();
        drop(scheduler);
        let names = self.config.nodes.iter().map(|node| node.name.as_str());
        let line = lock(&self.stats).line(now, names.zip(standings));
        self.report.show(&line);
    }

    /// Writes the metrics of the running pass.
    pub(super) fn measure_under_way(&self) {
        let now = self.now();
        self.report.measure_under_way(UnderWay { started: self.started, now }, &self.stop);
    }

    fn now(&self) -> Now {
        let (phase, checked) = self.progress.counts();
        let is_checking = phase == Phase::Checking;
        let counts = if is_checking { checked } else { self.scheduler().counts() };
        Now { at: Instant::now(), is_checking, counts, bytes: self.report.bytes() }
    }
}

/// The time after `at` in a series with this interval.
fn following(at: Instant, every: Duration, now: Instant) -> Option<Instant> {
    // Times missed while the machine was suspended are skipped.
    at.checked_add(every).filter(|next| *next > now).or(now.checked_add(every))
}

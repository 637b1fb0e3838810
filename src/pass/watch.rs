//! What a pass does at intervals: print a line with its progress, write its metrics and its HTML
//! report, and end when it has taken too long (`--max-duration`).

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Pass, lock};
use crate::config::Config;
use crate::error::LocalError;
use crate::progress::Phase;
use crate::report::{Now, RunningPass, Stats, waiting};
use crate::stop::Cause;

/// The metrics and the HTML report of a running pass are written at least this often, which is
/// often enough for a scraper.
const METRICS_EVERY: Duration = Duration::from_secs(60);
/// The pause after writing the HTML report, as a multiple of the time that it took. A report reads
/// every selected hour, so a slow one is written less often.
const PAGE_REST: u32 = 20;

impl Pass {
    /// Starts the threads that do this, if the configuration needs it.
    ///
    /// # Errors
    ///
    /// Fails if a thread can't be started.
    pub(super) fn keep_watch(self: &Arc<Self>) -> Result<(), LocalError> {
        let Config { max_duration, stats, metrics_file, report, .. } = &self.config;
        if max_duration.is_some() || stats.is_some() || metrics_file.is_some() {
            self.start_to(Pass::watch)?;
        }
        if report.is_some() {
            self.start_to(Pass::keep_showing)?;
        }
        Ok(())
    }

    fn start_to(
        self: &Arc<Self>,
        watch: impl Fn(&Pass) + Send + 'static,
    ) -> Result<(), LocalError> {
        let pass = self.clone();
        let started = thread::Builder::new().spawn(move || watch(&pass));
        started.map(drop).map_err(|e| {
            LocalError::new("starting a thread to watch", "how long the pass takes".as_ref(), e)
        })
    }

    /// How often the files about the running pass are written.
    fn every(&self) -> Duration {
        self.config.stats.unwrap_or(METRICS_EVERY).min(METRICS_EVERY)
    }

    /// Writes the HTML report at intervals.
    fn keep_showing(&self) {
        let mut next = self.begun + self.every();
        loop {
            self.stop.sleep_until(next);
            if self.stop.is_stopped() {
                return;
            }
            let begun = Instant::now();
            self.write_page_so_far();
            next = Instant::now() + self.every().max(begun.elapsed() * PAGE_REST);
        }
    }

    /// Writes the HTML report of the running pass, if there is one and the pass has begun.
    pub(super) fn write_page_so_far(&self) {
        let Some(&started) = self.started.get().filter(|_| self.config.report.is_some()) else {
            return;
        };
        let measured = self.measure_so_far();
        let now = self.now();
        // Its rate is that of the whole pass, not the one since the last status line.
        let summary = self.stats_line(&mut Stats::new(self.begun), now);
        let running = RunningPass { started, now };
        self.report.write_page_so_far(running, measured, &summary, &self.stop);
    }

    fn watch(&self) {
        let begun = self.begun;
        let every = self.every();
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
                self.write_metrics_so_far();
            }
        }
    }

    /// Prints a line with the progress to standard error.
    pub(super) fn show_stats(&self) {
        if let (Phase::Waiting { until }, _) = self.progress.counts() {
            let left = until.saturating_duration_since(Instant::now());
            return self.report.show(&waiting(left));
        }
        let line = self.stats_line(&mut lock(&self.stats), self.now());
        self.report.show(&line);
    }

    fn stats_line(&self, stats: &mut Stats, now: Now) -> String {
        let scheduler = self.scheduler();
        let standings: Vec<_> =
            (0..self.nodes.len()).map(|id| scheduler.standing(id, now.at)).collect();
        drop(scheduler);
        let names = self.config.nodes.iter().map(|node| node.name.as_str());
        stats.line(now, names.zip(standings))
    }

    /// Writes the metrics of the running pass. A pass that has not begun has none.
    pub(super) fn write_metrics_so_far(&self) {
        let Some(&started) = self.started.get() else {
            return;
        };
        let now = self.now();
        self.report.write_metrics_so_far(RunningPass { started, now }, &self.stop);
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

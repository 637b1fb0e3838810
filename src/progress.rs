//! The progress bar, and the terminal that it shares with everything else that is written there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::style::ProgressTracker;
use indicatif::{
    HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use std::time::Instant;

/// How often the bar is drawn, at most.
const DRAWS_PER_SECOND: u8 = 10;
/// How far back the rate looks.
const RATE_OVER: Duration = Duration::from_secs(5);

/// A bar of segments done and wanted on standard error, or nothing at all.
#[derive(Clone)]
pub struct Progress {
    multi: MultiProgress,
    bar: ProgressBar,
    bytes: Arc<AtomicU64>,
}

impl Progress {
    /// A bar, or none.
    pub fn new(shown: bool) -> Progress {
        let target = match shown {
            true => ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND),
            false => ProgressDrawTarget::hidden(),
        };
        let multi = MultiProgress::with_draw_target(target);
        let bytes = Arc::new(AtomicU64::new(0));
        let bar = multi.add(ProgressBar::new(0).with_style(style(&bytes)));
        if shown {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        bar.set_message("fetched");
        Progress { multi, bar, bytes }
    }

    /// Begins to count anew; `done` says what is done to the segments.
    pub fn begin(&self, done: &'static str) {
        self.bytes.store(0, Ordering::Relaxed);
        self.bar.reset();
        self.bar.set_length(0);
        self.bar.set_message(done);
    }

    /// So many more segments are wanted.
    pub fn want(&self, segments: u64) {
        self.bar.inc_length(segments);
    }

    /// One of them is settled.
    pub fn settle(&self) {
        self.bar.inc(1);
    }

    /// So many more bytes of segments have come.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes to the terminal without tearing the bar.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        self.multi.suspend(write)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

fn style(bytes: &Arc<AtomicU64>) -> ProgressStyle {
    let template = "{spinner} {pos}/{len} {msg}  {so_far}  {rate}  {left} left  {bar:20}";
    let so_far = SoFar(bytes.clone());
    let rate = Rate { bytes: bytes.clone(), samples: Vec::new() };
    let left = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let left = state.eta().as_secs();
        let _ = match (state.pos(), left / 3600, left / 60 % 60, left % 60) {
            (0, ..) => out.write_str("?"),
            (_, 0, 0, seconds) => write!(out, "{seconds}s"),
            (_, 0, minutes, seconds) => write!(out, "{minutes}m{seconds:02}s"),
            (_, hours, minutes, _) => write!(out, "{hours}h{minutes:02}m"),
        };
    };
    ProgressStyle::with_template(template)
        .expect("the template is a constant")
        .with_key("so_far", so_far)
        .with_key("rate", rate)
        .with_key("left", left)
        .progress_chars("=> ")
}

#[derive(Clone)]
struct SoFar(Arc<AtomicU64>);

impl ProgressTracker for SoFar {
    fn clone_box(&self) -> Box<dyn ProgressTracker> {
        Box::new(self.clone())
    }

    fn tick(&mut self, _: &ProgressState, _: Instant) {}

    fn reset(&mut self, _: &ProgressState, _: Instant) {}

    fn write(&self, _: &ProgressState, out: &mut dyn fmt::Write) {
        let _ = write!(out, "{}", HumanBytes(self.0.load(Ordering::Relaxed)));
    }
}

/// Bytes per second over the last few seconds.
#[derive(Clone)]
struct Rate {
    bytes: Arc<AtomicU64>,
    samples: Vec<(Instant, u64)>,
}

impl ProgressTracker for Rate {
    fn clone_box(&self) -> Box<dyn ProgressTracker> {
        Box::new(self.clone())
    }

    fn tick(&mut self, _: &ProgressState, now: Instant) {
        self.samples.push((now, self.bytes.load(Ordering::Relaxed)));
        let recent = |sample: &(Instant, u64)| now.duration_since(sample.0) <= RATE_OVER;
        self.samples.retain(recent);
    }

    fn reset(&mut self, _: &ProgressState, _: Instant) {
        self.samples.clear();
    }

    fn write(&self, _: &ProgressState, out: &mut dyn fmt::Write) {
        let rate = match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) if last.0 > first.0 => {
                (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()
            }
            _ => 0.0,
        };
        let _ = write!(out, "{}/s", HumanBytes(rate as u64));
    }
}

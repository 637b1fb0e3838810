//! The progress bar on standard error: takes reports from a pass and draws at a steady rate. `view`
//! lays out the lines, `rates` computes speed and time left, `terminal` is what the bar is drawn
//! on.

mod rates;
mod terminal;
mod view;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::style::ProgressTracker;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use crate::lock::lock;
use crate::schedule::{Counts, Standing};

use terminal::Terminal;
use view::View;
pub use view::{Look, Phase};

/// How often the bar is redrawn: smooth to the eye, and cheap over a slow SSH connection.
const DRAWS_PER_SECOND: u8 = 10;

/// A progress bar on standard error, which may be hidden.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
    view: Arc<Mutex<View>>,
}

impl Progress {
    /// Starts a bar for a pass over the nodes with these names. Unless `shown`, nothing is drawn.
    pub fn new(shown: bool, look: Look, names: Vec<String>) -> Progress {
        let target = if shown {
            let terminal = Box::new(Terminal::new());
            ProgressDrawTarget::term_like_with_hz(terminal, DRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        let view = Arc::new(Mutex::new(View::new(look, names, Instant::now())));
        let lines = Lines { view: view.clone(), ticks: 0 };
        let style = ProgressStyle::with_template("{lines}").expect("the template is a constant");
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style.with_key("lines", lines));
        if shown {
            keep_drawing(&bar);
        }
        Progress { bar, shown, view }
    }

    /// Whether the bar is drawn.
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// Starts a phase and resets the counts.
    pub fn begin(&self, phase: Phase) {
        let mut view = self.view();
        let names = std::mem::take(&mut view.names);
        *view = View::new(view.look, names, Instant::now());
        view.phase = phase;
    }

    /// The current phase, and the counts last reported to the bar. While fetching, the scheduler
    /// updates them only if the bar is shown.
    pub fn counts(&self) -> (Phase, Counts) {
        let view = self.view();
        (view.phase, view.counts)
    }

    /// Adds files to be done.
    pub fn want(&self, files: u64) {
        self.view().counts.wanted += files;
    }

    /// Counts one file as done.
    pub fn settle(&self) {
        self.view().counts.settled += 1;
    }

    /// Replaces the counts, and the standing of each node.
    pub fn update(&self, counts: Counts, standings: impl Iterator<Item = Standing>) {
        let now = Instant::now();
        let mut view = self.view();
        view.counts = counts;
        for (node, standing) in view.nodes.iter_mut().zip(standings) {
            if !matches!((node.standing, standing), (Standing::Busy, Standing::Busy)) {
                node.heard = now;
            }
            node.standing = standing;
        }
    }

    /// Adds bytes received from a node, or read from the local disk (`None`).
    pub fn add_bytes(&self, node: Option<usize>, bytes: u64) {
        if self.shown {
            let mut view = self.view();
            view.bytes += bytes;
            if let Some(node) = node {
                view.nodes[node].bytes += bytes;
                view.nodes[node].heard = Instant::now();
            }
        }
    }

    /// Notes that a node has answered, with this many files; zero for a listing.
    pub fn node_answered(&self, node: usize, files: u64) {
        if self.shown {
            let mut view = self.view();
            view.nodes[node].files += files;
            view.nodes[node].heard = Instant::now();
        }
    }

    /// Writes to the terminal without tearing the bar.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bar.suspend(write)
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }
}

/// Redraws a bar at a steady rate until it is finished. indicatif's own ticker aborts the program if
/// its thread can't be started.
fn keep_drawing(bar: &ProgressBar) {
    let bar = bar.downgrade();
    let draw = move || {
        while let Some(bar) = bar.upgrade().filter(|bar| !bar.is_finished()) {
            bar.tick();
            drop(bar);
            thread::sleep(Duration::from_secs(1) / u32::from(DRAWS_PER_SECOND));
        }
    };
    // If no thread can be started, no bar is drawn. The pass then fails for the same reason.
    let _ = thread::Builder::new().spawn(draw);
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

/// Draws the view each time the bar ticks.
#[derive(Clone)]
struct Lines {
    view: Arc<Mutex<View>>,
    ticks: usize,
}

impl ProgressTracker for Lines {
    fn clone_box(&self) -> Box<dyn ProgressTracker> {
        Box::new(self.clone())
    }

    fn tick(&mut self, _: &ProgressState, now: Instant) {
        self.ticks += 1;
        lock(&self.view).sample(now);
    }

    fn reset(&mut self, _: &ProgressState, _: Instant) {}

    fn write(&self, _: &ProgressState, out: &mut dyn fmt::Write) {
        let terminal = Terminal::new();
        let (width, height) = (terminal.width().into(), terminal.height().into());
        let lines = lock(&self.view).lines(width, height, self.ticks, Instant::now());
        let _ = out.write_str(&lines.join("\n"));
    }
}

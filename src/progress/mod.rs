//! The bar on standard error: what a pass reports for it, and when it is drawn. `view` has what it
//! shows, `rates` how fast the pass comes on, `terminal` where it is drawn.

mod rates;
mod terminal;
mod view;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::style::ProgressTracker;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use crate::lock::lock;
use crate::schedule::{Counts, Standing};

use terminal::Terminal;
use view::View;
pub use view::{Look, Phase};

/// How often the bar is drawn, at most.
const DRAWS_PER_SECOND: u8 = 10;
/// A bar on standard error, or nothing at all.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
    view: Arc<Mutex<View>>,
}

impl Progress {
    /// A bar for a pass over the nodes of these names, or none.
    pub fn new(shown: bool, look: Look, names: Vec<String>) -> Progress {
        let target = match shown {
            true => {
                let terminal = Box::new(Terminal::new());
                ProgressDrawTarget::term_like_with_hz(terminal, DRAWS_PER_SECOND)
            }
            false => ProgressDrawTarget::hidden(),
        };
        let view = Arc::new(Mutex::new(View::new(look, names, Instant::now())));
        let lines = Lines { view: view.clone(), ticks: 0 };
        let style = ProgressStyle::with_template("{lines}").expect("the template is a constant");
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style.with_key("lines", lines));
        if shown {
            bar.enable_steady_tick(Duration::from_secs(1) / u32::from(DRAWS_PER_SECOND));
        }
        Progress { bar, shown, view }
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// Begins to count anew.
    pub fn begin(&self, phase: Phase) {
        let mut view = self.view();
        let names = std::mem::take(&mut view.names);
        *view = View::new(view.look, names, Instant::now());
        view.phase = phase;
    }

    /// What is done to the files, and how far that has come as far as it was reported here.
    pub fn counts(&self) -> (Phase, Counts) {
        let view = self.view();
        (view.phase, view.counts)
    }

    /// So many more files are wanted.
    pub fn want(&self, files: u64) {
        self.view().counts.wanted += files;
    }

    /// One of them is settled.
    pub fn settle(&self) {
        self.view().counts.settled += 1;
    }

    /// How far the pass has come, and how it goes with each node.
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

    /// So many more bytes have come, from a node or from this machine's own disk.
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

    /// A node has given a file, or a listing.
    pub fn node_gave(&self, node: usize, files: u64) {
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

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

/// Draws the view at each tick of the bar.
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

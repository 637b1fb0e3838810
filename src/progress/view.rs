//! The state that the bar shows, and the lines that it is drawn as.

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use console::{measure_text_width, truncate_str};
use indicatif::{HumanBytes, HumanCount};

use super::rates::{Rates, Sample};
use crate::durations::limit;
use crate::schedule::{Counts, Standing};

/// A busy node is shown as silent after this long without a byte. Gaps between files are shorter.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// A node is shown as slow if its rate in bytes and that in files, multiplied by this, are still below
/// those of the fastest node.
const SLOWER_BY: f64 = 4.0;
/// A node's name is shortened to this many columns, so that a node's line fits into 80.
const LONGEST_NAME: usize = 24;
/// The bar's width in columns. One that would be narrower says too little and is left out; a wider
/// one says no more.
const BAR_WIDTH: RangeInclusive<usize> = 10..=50;
const SPINNER: [&str; 4] = ["|", "/", "-", "\\"];
/// Blocks from zero to seven eighths full.
const BLOCKS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Colours.
    pub colour: bool,
    /// Characters outside ASCII.
    pub unicode: bool,
}

impl Look {
    /// Draws a bar of `width` columns, filled to `share` (0 to 1).
    fn bar(self, share: f64, width: usize) -> String {
        let eighths = (share.clamp(0.0, 1.0) * (width * 8) as f64) as usize;
        let (whole, part) = (eighths / 8, BLOCKS[eighths % 8]);
        let (full, columns) = if self.unicode {
            ("█".repeat(whole) + part, whole + usize::from(!part.is_empty()))
        } else {
            ("=".repeat(whole), whole)
        };
        let (on, off) = if self.colour { ("\x1b[32m", "\x1b[m") } else { ("", "") };
        format!("[{on}{full}{off}{}]", " ".repeat(width - columns))
    }
}

/// What the pass is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting until the pass begins.
    Waiting { until: Instant },
    /// Checking the files that are here.
    Checking,
    /// Fetching those that are missing.
    Fetching,
}

/// Everything that the bar shows.
#[derive(Debug)]
pub struct View {
    /// What the pass is doing.
    pub phase: Phase,
    /// How to draw it.
    pub look: Look,
    /// The names of the nodes.
    pub names: Vec<String>,
    /// What there is to show of each node.
    pub nodes: Vec<NodeView>,
    /// The files and listings, in all and done.
    pub counts: Counts,
    /// The bytes received, or read from the local disk.
    pub bytes: u64,
    rates: Rates,
}

/// What the bar shows of one node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// How many files it has sent.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Its condition.
    pub standing: Standing,
    /// When it last sent something, or was last given something to do.
    pub heard: Instant,
}

impl View {
    /// The view at the start of a pass.
    pub fn new(look: Look, names: Vec<String>, now: Instant) -> View {
        let node = NodeView { files: 0, bytes: 0, standing: Standing::Idle, heard: now };
        View {
            phase: Phase::Fetching,
            look,
            nodes: vec![node; names.len()],
            names,
            counts: Counts::default(),
            bytes: 0,
            rates: Rates::default(),
        }
    }

    /// Samples the counts, for the rates.
    pub fn sample(&mut self, now: Instant) {
        self.rates.add(Sample {
            at: now,
            settled: self.counts.settled,
            listed: self.counts.listed,
            bytes: self.bytes,
            bytes_of: self.nodes.iter().map(|node| node.bytes).collect(),
            files_of: self.nodes.iter().map(|node| node.files).collect(),
        });
    }

    /// Lays out the lines for a terminal of this size.
    pub fn lines(&self, width: usize, height: usize, ticks: usize, now: Instant) -> Vec<String> {
        if height < 2 {
            // Replacing a bar takes the row below it.
            return Vec::new();
        }
        if let Phase::Waiting { until } = self.phase {
            let left = short(until.saturating_duration_since(now));
            let line = format!("{} waiting: the pass begins in {left}", spinner(ticks));
            return vec![truncate_str(&line, width, "").into_owned()];
        }
        let mut lines = vec![self.line(width, ticks)];
        if self.nodes.len() > 1 && height > 2 && self.phase == Phase::Fetching {
            let room = height - 2;
            let shown = if self.nodes.len() > room { room - 1 } else { self.nodes.len() };
            let columns = self.names.iter().map(|name| measure_text_width(name)).max();
            let columns = columns.unwrap_or_default().min(LONGEST_NAME);
            lines.extend((0..shown).map(|node| self.node_line(node, columns, now)));
            if shown < self.nodes.len() {
                lines.push(format!("  and {} more nodes", self.nodes.len() - shown));
            }
        }
        lines.iter().map(|line| truncate_str(line, width, "").into_owned()).collect()
    }

    fn line(&self, width: usize, ticks: usize) -> String {
        let Counts { wanted, settled, listed, to_list } = self.counts;
        // Hours that are not listed yet may add files.
        let more = if to_list > 0 { "+" } else { "" };
        let files = format!("{}/{}{more}", HumanCount(settled), HumanCount(wanted));
        let so_far = match (self.phase, wanted, listed) {
            (Phase::Checking, ..) => format!("{files} checked"),
            (Phase::Fetching, 0, 0) => "listing the hours".into(),
            (Phase::Fetching, 0, _) => "nothing missing so far".into(),
            (Phase::Fetching | Phase::Waiting { .. }, ..) => format!("{files} fetched"),
        };
        let mut line = format!("{} {so_far}", spinner(ticks));
        let mut parts = Vec::new();
        if self.bytes > 0 {
            let rate = self.rates.of(|sample| sample.bytes) as u64;
            parts.push(format!("{}  {}/s", HumanBytes(self.bytes), HumanBytes(rate)));
        }
        if let Some(left) = self.rates.left(self.counts).filter(|_| wanted > settled || to_list > 0)
        {
            parts.push(format!("{} left", short(left)));
        }
        if to_list > 0 {
            let listings = listed + to_list;
            parts.push(format!("listed {}/{}", HumanCount(listed), HumanCount(listings)));
        }
        for part in parts {
            if line.len() + 2 + part.len() <= width {
                line.push_str("  ");
                line.push_str(&part);
            }
        }
        let room = width.saturating_sub(line.len() + 4).min(*BAR_WIDTH.end());
        if wanted > 0 && room >= *BAR_WIDTH.start() {
            // Without an estimate of what the hours still to be listed add, the bar would run
            // backwards as they come in.
            let share = settled as f64 / self.counts.expected();
            let _ = write!(line, "  {}", self.look.bar(share, room));
        }
        line
    }

    fn node_line(&self, id: usize, columns: usize, now: Instant) -> String {
        let node = &self.nodes[id];
        let name = truncate_str(&self.names[id], columns, "~");
        let pad = " ".repeat(columns.saturating_sub(measure_text_width(&name)));
        let rate = self.rates.of(|sample| sample.bytes_of[id]);
        let silent = now.duration_since(node.heard);
        let state = match node.standing {
            Standing::GivenUp => "given up".into(),
            Standing::Resting(at) => {
                format!("failed, retry in {}", short(at.saturating_duration_since(now)))
            }
            Standing::Busy if silent >= SILENT_AFTER => {
                format!("silent for {}", short(silent))
            }
            Standing::Busy if self.is_slow(id) => format!("slow, {}/s", HumanBytes(rate as u64)),
            Standing::Busy => format!("{}/s", HumanBytes(rate as u64)),
            Standing::Idle => "idle".into(),
        };
        let (files, bytes) =
            (HumanCount(node.files).to_string(), HumanBytes(node.bytes).to_string());
        let kind = if node.files == 1 { "file " } else { "files" };
        format!("  {name}{pad}  {files:>7} {kind}  {bytes:>10}  {state}")
    }

    /// Whether a node is much slower than the fastest one. A node that sends small files, such as
    /// chat, has a low rate in bytes and may still be as fast as the others.
    fn is_slow(&self, id: usize) -> bool {
        let is_slow_in = |counts: fn(&Sample) -> &[u64]| {
            let rate = |node: usize| self.rates.of(|sample| counts(sample)[node]);
            let fastest = (0..self.nodes.len()).map(rate).fold(0.0, f64::max);
            rate(id) * SLOWER_BY < fastest
        };
        is_slow_in(|sample| &sample.bytes_of) && is_slow_in(|sample| &sample.files_of)
    }
}

fn spinner(ticks: usize) -> &'static str {
    SPINNER[ticks % SPINNER.len()]
}

/// In whole seconds.
fn short(time: Duration) -> String {
    limit(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view sampled twice, ten seconds apart.
    fn view(names: &[&str]) -> (View, Instant) {
        let begun = Instant::now();
        let now = begun + Duration::from_secs(10);
        let names = names.iter().map(|name| name.to_string()).collect();
        let mut view = View::new(Look::default(), names, begun);
        view.sample(begun);
        view.counts = Counts { wanted: 1200, settled: 600, listed: 1, to_list: 0 };
        view.bytes = 600 << 20;
        for (n, node) in view.nodes.iter_mut().enumerate() {
            node.files = 1 << (4 * n);
            node.bytes = (1 << 20) << (4 * n);
            node.standing = Standing::Busy;
            node.heard = now;
        }
        view.sample(now);
        (view, now)
    }

    fn first_line(view: &View, width: usize) -> String {
        view.lines(width, 24, 0, Instant::now()).remove(0)
    }

    #[test]
    fn the_line_shows_as_much_as_fits() {
        let (mut view, _) = view(&["a"]);
        for (width, line) in [
            (20, "| 600/1,200 fetched"),
            (50, "| 600/1,200 fetched  600.00 MiB  60.00 MiB/s"),
            (77, "| 600/1,200 fetched  600.00 MiB  60.00 MiB/s  10 s left  [=========         ]"),
        ] {
            assert_eq!(first_line(&view, width), line);
        }
        let wide = first_line(&view, 197);
        assert!(wide.ends_with(&format!("[{:50}]", "=".repeat(25))), "{wide}");
        assert!(view.lines(5, 24, 0, Instant::now()).iter().all(|line| line.len() <= 5));
        assert!(view.lines(77, 1, 0, Instant::now()).is_empty());
        // Hours that are not listed yet are expected to lack as many files.
        view.counts.to_list = 2;
        let line = first_line(&view, 197);
        let shown = "600/1,200+ fetched  600.00 MiB  60.00 MiB/s  50 s left  listed 1/3";
        assert!(line.contains(shown), "{line}");
        view.counts = Counts { wanted: 0, settled: 0, listed: 1, to_list: 2 };
        let line = first_line(&view, 197);
        assert!(line.starts_with("| nothing missing so far"), "{line}");
    }

    #[test]
    fn before_the_pass_there_is_one_line() {
        let (mut view, now) = view(&["a", "b"]);
        view.phase = Phase::Waiting { until: now + Duration::from_secs(192) };
        assert_eq!(view.lines(77, 24, 0, now), ["| waiting: the pass begins in 3 min 12 s"]);
        assert_eq!(view.lines(9, 24, 1, now + Duration::from_secs(200)), ["/ waiting"]);
    }

    #[test]
    fn the_rate_of_a_falling_count_is_zero() {
        let (mut view, now) = view(&["a"]);
        view.counts = Counts { wanted: 1200, settled: 1300, listed: 0, to_list: 1 };
        view.bytes = 0;
        view.sample(now);
        view.counts.settled = 100;
        view.sample(now + Duration::from_secs(1));
        assert_eq!(view.rates.of(|sample| sample.bytes), 0.0);
        assert_eq!(view.rates.of(|sample| sample.listed), 0.0);
        assert_eq!(view.rates.left(view.counts), None);
        view.counts.settled = 1300;
        assert!(first_line(&view, 100).contains("1,300/1,200+ fetched"));
    }

    #[test]
    fn the_bar_uses_what_the_terminal_can_show() {
        for (look, share, bar) in [
            ((false, false), 0.5, "[==  ]"),
            ((false, false), 2.0, "[====]"),
            ((false, true), 0.0, "[    ]"),
            ((false, true), 0.5, "[██  ]"),
            ((false, true), 0.66, "[██▋ ]"),
            ((true, true), 1.0, "[\x1b[32m████\x1b[m]"),
            ((true, false), 0.25, "[\x1b[32m=\x1b[m   ]"),
        ] {
            let (colour, unicode) = look;
            let drawn = Look { colour, unicode }.bar(share, 4);
            assert_eq!((&*drawn, measure_text_width(&drawn)), (bar, 6));
        }
    }

    #[test]
    fn each_of_several_nodes_has_a_line_with_its_state() {
        let (mut view, now) =
            view(&["a.example", "b", "a name that is longer than thirty columns"]);
        let lines = |view: &View| view.lines(77, 24, 0, now)[1..].to_vec();
        let expected = [
            "  a.example                       1 file     1.00 MiB  slow, 102.40 KiB/s",
            "  b                              16 files   16.00 MiB  slow, 1.60 MiB/s",
            "  a name that is longer t~      256 files  256.00 MiB  25.60 MiB/s",
        ];
        assert_eq!(lines(&view), expected);
        // Small files make no node slow.
        view.nodes[1].files = 70;
        view.sample(now);
        assert!(lines(&view)[1].ends_with("MiB  1.60 MiB/s"), "{:?}", lines(&view));
        view.names.truncate(2);
        view.nodes.truncate(2);
        view.nodes[0].standing = Standing::GivenUp;
        view.nodes[1].heard = now - Duration::from_secs(70);
        assert!(lines(&view)[0].ends_with("given up"));
        assert!(lines(&view)[1].ends_with("silent for 1 min 10 s"));
        view.nodes[0].standing = Standing::Resting(now + Duration::from_secs(4));
        view.nodes[1].standing = Standing::Idle;
        assert!(lines(&view)[0].ends_with("failed, retry in 4 s"));
        assert!(lines(&view)[1].ends_with("idle"));
    }

    #[test]
    fn nodes_that_do_not_fit_the_terminal_are_counted() {
        let names: Vec<String> = (0..40).map(|n| format!("node{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (mut view, now) = view(&names[..10]);
        view.names.extend(names[10..].iter().map(|name| name.to_string()));
        view.nodes.resize(40, view.nodes[0].clone());
        view.rates = Rates::default();
        let lines = view.lines(77, 24, 0, now);
        assert_eq!(lines.len(), 23);
        assert_eq!(lines[22], "  and 19 more nodes");
        // With a single node, the first line says it all.
        view.nodes.truncate(1);
        assert_eq!(view.lines(77, 24, 0, now).len(), 1);
    }
}

//! Reports a pass. Everything that happens is reported here once, as an [`Event`]. Each reporter
//! turns events into what its readers need.

mod compare;
mod event;
mod figures;
mod file;
mod files;
mod html;
mod human;
mod json;
pub mod log;
mod map;
mod metrics;
pub mod out;
mod stats;
mod status;
mod style;
mod tally;
mod words;

use std::io;
use std::path::Path;
use std::sync::Mutex;

use crate::coverage::Findings;
use crate::error::plain;
use crate::hour::Hour;
use crate::lock::lock;
use crate::progress::Progress;
use crate::segment::{Collection, SegmentName};
use crate::stop::{Cause, Stop};
use crate::target::{Place, Target};

pub use event::{Event, Request};
use figures::End;
pub use figures::{Figures, Measured, RunningPass};
pub use files::Files;
pub use html::{About, Html};
use human::Human;
pub use metrics::Metrics;
pub use stats::{Now, Stats, waiting};
pub use status::{Left, Status};
pub use style::{MapStyle, Output, Paths, Style};
use tally::{NodeTally, Tally};

/// A node that answers 404 for this many segments that it lists, and delivers none, is set up
/// wrongly. One or two may be gone for good reasons.
const SUSPICIOUSLY_GONE: u64 = 3;

/// Collects the events of a pass from all its threads.
#[derive(Debug)]
pub struct Report {
    inner: Mutex<Inner>,
    /// Held while the metrics or the HTML report are written.
    writes_files: Mutex<()>,
    names: Vec<String>,
    style: Style,
    progress: Progress,
}

/// What all threads change.
#[derive(Debug)]
struct Inner {
    /// Set when the pass is over: later events are dropped.
    closed: bool,
    /// Set when standard output can't be written, which was reported. Nothing more is written to it
    /// then.
    mute: Option<Cause>,
    tally: Tally,
    human: Human,
    files: Files,
    /// For the coverage: what was fetched of each collection, and what nodes have.
    findings: Vec<(Collection, Findings)>,
}

impl Report {
    /// A report for a pass over the nodes with these names; `optional` says which are optional.
    pub fn new(
        names: Vec<String>,
        optional: Vec<bool>,
        style: Style,
        files: Files,
        progress: Progress,
    ) -> Report {
        let tally = Tally::new(names.len());
        let human = Human::new(names.clone(), optional, style);
        let inner = Inner { closed: false, mute: None, tally, human, files, findings: Vec::new() };
        let inner = Mutex::new(inner);
        Report { inner, writes_files: Mutex::default(), names, style, progress }
    }

    /// Starts to note what is fetched of these collections, for the coverage.
    pub fn track(&self, collections: &[Collection]) {
        let findings = collections.iter().map(|c| (c.clone(), Findings::default()));
        lock(&self.inner).findings = findings.collect();
    }

    /// Reports an event. Stops the pass if standard output can't be written. Events after the end
    /// of the report are dropped, neither counted nor shown. Returns whether the event was in time.
    pub fn emit(&self, event: Event<'_>, stop: &Stop) -> bool {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return false;
        }
        self.note(&mut inner, &event);
        let printed = match self.style.output {
            // What follows a torn line would be read as the rest of it.
            _ if inner.mute.is_some() => Ok(()),
            Output::Json => match json::line(&event, &self.names, self.style.dry_run) {
                Some(line) => self.print(&line, "\n"),
                None => Ok(()),
            },
            Output::Text { paths: Some(paths), .. } => match (printable(&event), paths) {
                (Some(path), Paths::Lines) => self.print(&path, "\n"),
                (Some(path), Paths::NulTerminated) => self.print(&path, "\0"),
                (None, _) => Ok(()),
            },
            Output::Text { paths: None, .. } => Ok(()),
        };
        if let Err(e) = printed {
            let cause = cause_of(&e);
            inner.mute = Some(cause);
            stop.stop(cause);
        }
        true
    }

    /// Checks that standard output can be written, if it is needed. If not, reports that, and the
    /// pass should not start.
    pub fn can_print(&self) -> bool {
        let prints = self.style.output != Output::Text { paths: None, map: false, table: false };
        match out::check() {
            Err(e) if prints => {
                lock(&self.inner).mute = Some(cause_of(&e));
                false
            }
            _ => true,
        }
    }

    fn note(&self, inner: &mut Inner, event: &Event<'_>) {
        inner.tally.count(event);
        inner.human.log(event);
        inner.files.count(event);
        match event {
            Event::Landed { node, .. } => self.progress.node_answered(*node, 1),
            Event::Listed { node, .. } => self.progress.node_answered(*node, 0),
            _ => {}
        }
        self.note_for_map(&mut inner.findings, event);
    }

    /// Notes what the map shows as fetched, and how far the stream extends. A file that has
    /// vanished from all nodes proves neither.
    fn note_for_map(&self, mapped: &mut [(Collection, Findings)], event: &Event<'_>) {
        let (Event::Landed { target, .. }
        | Event::WouldLand { target, .. }
        | Event::FileFailed { target, .. }) = event
        else {
            return;
        };
        let Target::Segment(Place { collection, hour }, name) = target else {
            return;
        };
        if let Some((_, findings)) = mapped.iter_mut().find(|(c, _)| c == collection) {
            match event {
                Event::Landed { .. } => findings.add(*hour, name),
                Event::WouldLand { .. } => findings.would_add(*hour, name),
                _ => findings.add_elsewhere(*hour, name),
            }
        }
    }

    fn print(&self, text: &str, end: &str) -> io::Result<()> {
        let line = format!("{text}{end}");
        self.progress.suspend(|| out::print(line.as_bytes()))
    }

    /// Reports nodes that sent wrong content, or that delivered none of the segments that they
    /// list.
    pub fn judge_nodes(&self, stop: &Stop) {
        let nodes = lock(&self.inner).tally.nodes.clone();
        for (node, NodeTally { gone, landed, wrong, .. }) in nodes.into_iter().enumerate() {
            if gone >= SUSPICIOUSLY_GONE && landed == 0 {
                self.emit(Event::GivesNothing { node, gone }, stop);
            }
            if wrong > 0 {
                self.emit(Event::SendsWrong { node, files: wrong }, stop);
            }
        }
    }

    /// Notes segments that nodes list in hours next to the selected ones.
    pub fn found_beside(&self, collection: &Collection, found: &[(Hour, SegmentName)]) {
        let mapped = &mut lock(&self.inner).findings;
        if let Some((_, findings)) = mapped.iter_mut().find(|(c, _)| c == collection) {
            found.iter().for_each(|(hour, name)| findings.add_beside(*hour, name));
        }
    }

    /// What was noted of each collection, for the coverage.
    pub fn findings(&self) -> Vec<(Collection, Findings)> {
        lock(&self.inner).findings.clone()
    }

    /// Drops later events, so that the results agree with what was reported.
    pub fn close(&self) {
        lock(&self.inner).closed = true;
    }

    /// How many bytes were fetched.
    pub fn bytes(&self) -> u64 {
        lock(&self.inner).tally.bytes
    }

    /// Prints a line with the progress to standard error.
    pub fn show(&self, line: &str) {
        log::print(line);
    }

    /// Writes the metrics of a running pass. A failure is only logged, because it is retried at the
    /// next interval and reported if it fails at the end.
    pub fn write_metrics_so_far(&self, running: RunningPass, stop: &Stop) {
        let _turn = lock(&self.writes_files);
        let Some(mut taken) = self.with_metrics(Metrics::take) else {
            return;
        };
        if let Err(e) = taken.write_so_far(running, stop) {
            ::log::info!("writing the metrics file {}: {e}", taken.path().display());
        }
        self.with_metrics(|metrics| metrics.put_back(taken));
    }

    /// Calls `change` with the metrics, if there are any.
    fn with_metrics<R>(&self, change: impl FnOnce(&mut Metrics) -> R) -> Option<R> {
        let mut inner = lock(&self.inner);
        inner.files.metrics.as_mut().map(change)
    }

    /// Writes the HTML report of a running pass: its present coverage, and a line with its
    /// progress. A failure is only logged, as for the metrics.
    pub fn write_page_so_far(
        &self,
        running: RunningPass,
        measured: Vec<Measured>,
        summary: &str,
        stop: &Stop,
    ) {
        let _turn = lock(&self.writes_files);
        let mut inner = lock(&self.inner);
        let Inner { closed: false, tally, files: Files { page: Some(page), .. }, .. } = &mut *inner
        else {
            return;
        };
        let text = page.page_so_far(running, measured, summary, tally);
        let file = page.file().clone();
        // Writing may take a while, and must not block the workers.
        drop(inner);
        if let Err(e) = html::write(&file, &text, stop) {
            ::log::info!("writing the report {}: {e}", file.path().display());
        }
    }

    /// Ends the report of a pass that did not start because another one holds the lock. Under cron
    /// that is normal, so it is reported only on a terminal, in JSON and in the files.
    pub fn finish_locked(&self, archive: &Path, figures: &Figures, stop: &Stop) -> Status {
        self.progress.finish();
        let mut inner = lock(&self.inner);
        inner.closed = true;
        let mut status = Status::Locked;
        let dry_run = self.style.dry_run;
        let held = format!("another pass with --lock is running on {}", archive.display());
        let Inner { tally, files, .. } = &mut *inner;
        files.write_locked_out(End { tally, status, summary: &held, figures, dry_run }, stop);
        if self.style.output == Output::Json {
            let outcome = json::Outcome { status, left: &Left::default(), figures };
            let line = json::summary(tally, &self.names, outcome, dry_run);
            if let Err(e) = self.print(&line, "\n") {
                status = cause_of(&e).into();
            }
        }
        if self.style.summary {
            log::print(&held);
        }
        log::close();
        status
    }

    /// Ends the report, and returns the outcome. Nothing is printed or counted after this, even if
    /// threads still report events.
    pub fn finish(&self, mut left: Left, figures: Figures, stop: &Stop) -> Status {
        self.progress.finish();
        let _turn = lock(&self.writes_files);
        let mut inner = lock(&self.inner);
        inner.closed = true;
        let Inner { tally, human, files, mute, .. } = &mut *inner;
        match *mute {
            Some(Cause::LocalFailure) => left.failed_here = true,
            closed => left.cause = left.cause.or(closed),
        }
        human.conclude(left.status(), &figures);
        let dry_run = self.style.dry_run;
        let mut write = |left: &Left| {
            let (status, summary) = (left.status(), &human.account(tally, left, &figures));
            files.write(End { tally, status, summary, figures: &figures, dry_run }, stop)
        };
        // A file that can't be written, and a signal that arrives while a file is locked by another
        // process, change the outcome. The files then need to be written again.
        loop {
            let written = left.status();
            left.failed_here |= !write(&left);
            left.cause = left.cause.or(stop.cause());
            if left.status() == written {
                break;
            }
        }
        let printed = match left.status() {
            Status::OutputClosed => Ok(()),
            _ if mute.is_some() => Ok(()),
            _ => match self.final_output(tally, &left, &figures) {
                text if text.is_empty() => Ok(()),
                text => self.print(&text, ""),
            },
        };
        if let Err(e) = printed {
            match cause_of(&e) {
                Cause::LocalFailure => left.failed_here = true,
                closed => left.cause = Some(closed),
            }
            // A failure here has been reported.
            let _ = write(&left);
        }
        human.sum_up(tally, &left, &figures);
        log::close();
        left.status()
    }

    /// The text for standard output at the end of a pass.
    fn final_output(&self, tally: &Tally, left: &Left, figures: &Figures) -> String {
        let dry_run = self.style.dry_run;
        match self.style.output {
            Output::Json => {
                let outcome = json::Outcome { status: left.status(), left, figures };
                json::summary(tally, &self.names, outcome, dry_run) + "\n"
            }
            Output::Text { map, table, .. } => {
                let mut text = String::new();
                if map {
                    text.push_str(&map::maps(&figures.measured, self.style.map, dry_run));
                }
                if table {
                    let (compared, style) = (&figures.compared, self.style.map);
                    text.push_str(&compare::tables(compared, &self.names, style));
                }
                text
            }
        }
    }
}

/// The path to print for an event, if any (`--print`).
fn printable(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Landed { target, .. }
        | Event::TombstoneCreated { target, .. }
        | Event::WouldLand { target, .. } => Some(target.path()),
        Event::Deleted { place, dry_run: true, .. } => Some(format!("{place}/")),
        _ => None,
    }
}

/// Why the pass ends when standard output can't be written. Reports it, unless the reader closed
/// it.
fn cause_of(error: &io::Error) -> Cause {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Cause::OutputClosed;
    }
    ::log::error!("writing to standard output: {}", plain(error));
    Cause::LocalFailure
}

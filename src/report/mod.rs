//! What came of a pass. Whatever happens in it is told here as an [`Event`], once; the reporters
//! make of it what their readers need.

mod human;
mod json;
pub mod log;
mod map;
mod metrics;
mod status;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::coverage::{Coverage, Findings};
use crate::error::{LocalError, plain};
use crate::hour::Hour;
use crate::node::Trouble;
use crate::plan::Skip;
use crate::progress::Progress;
use crate::schedule::NodeId;
use crate::segment::{Collection, Medium};
use crate::stop::{Cause, Stop};
use crate::target::Target;

use human::Human;
pub use metrics::Metrics;
pub use status::Status;

/// So many segments that are gone, and none that is not, are no accident.
const SUSPICIOUSLY_GONE: u64 = 3;

/// An hour of a collection.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The collection.
    pub collection: &'a Collection,
    /// The hour.
    pub hour: Hour,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.hour)
    }
}

/// Something that happened in a pass. The fields are named after what they hold.
#[derive(Debug)]
pub enum Event<'a> {
    /// A node has listed the hours of a collection: so many, of which so many are selected.
    HoursListed {
        node: NodeId,
        collection: &'a Collection,
        hours: usize,
        selected: usize,
        took: Duration,
    },
    /// A node has listed an hour (whose place it is) or an extra directory: so many names, of which
    /// so many are here, so many to be fetched.
    Listed {
        node: NodeId,
        what: &'a str,
        place: Option<Place<'a>>,
        names: usize,
        here: usize,
        wanted: usize,
        took: Duration,
    },
    /// A node can't list extra files.
    NoExtras { node: NodeId },
    /// A listed name is not fetched; not told of those that are here. `None` is no Unicode.
    Skipped { node: NodeId, within: &'a str, name: Option<&'a str>, why: Skip },
    /// A file was fetched, and is here to stay; so many bytes, in that time.
    Landed { node: NodeId, target: &'a Target, bytes: u64, took: Duration, repaired: bool },
    /// A tombstone that a node lists was created.
    Buried { node: NodeId, target: &'a Target },
    /// In a dry run: this would have been fetched, or created.
    WouldLand { target: &'a Target, is_tombstone: bool },
    /// A wanted file is not fetched after all: another writer was quicker, or it was deleted.
    Dropped { target: &'a Target, why: Skip },
    /// A try failed, after that time; there may be others. Without a target it was a listing.
    TryFailed {
        node: NodeId,
        what: &'a str,
        target: Option<&'a Target>,
        why: &'a str,
        trouble: Trouble,
        took: Duration,
    },
    /// A node has no segment (of video) that it lists.
    SegmentGone { node: NodeId },
    /// A node has sent wrong content for so many files, which were had from another one.
    SendsWrong { node: NodeId, files: u64 },
    /// All segments that a node was asked for are gone from it, and there were some.
    GivesNothing { node: NodeId, gone: u64 },
    /// No node could give this file; the last that failed, and how.
    FileFailed { node: NodeId, target: &'a Target, why: &'a str },
    /// Each node that listed this file says now that it's gone.
    FileVanished { target: &'a Target, medium: Medium },
    /// A node could not give this listing.
    ListingFailed { node: NodeId, what: &'a str, why: &'a str },
    /// A node is not asked any more in this pass.
    NodeGivenUp { node: NodeId, why: &'a str },
    /// A file that is here doesn't have the content that its name says, or can't be read.
    Corrupt { target: &'a Target, why: &'a str },
    /// A corrupt file is still here after the pass.
    NotRepaired { path: &'a str },
    /// The segments of an hour were deleted for their age, or in a dry run would be; so many. What
    /// else lies there stays.
    Deleted { place: Place<'a>, segments: u64, left: u64, dry_run: bool },
    /// An hour was not deleted though it's old enough.
    NotDeleted { place: Place<'a>, why: &'a str },
    /// A node has segments that have not happened yet by our clock.
    FromTheFuture { node: NodeId, place: Place<'a> },
    /// This machine failed at something.
    LocalFailed { error: &'a LocalError },
}

/// What there is to count in a pass.
#[derive(Clone, Debug, Default)]
struct Tally {
    landed: u64,
    bytes: u64,
    nodes: Vec<NodeTally>,
    give_nothing: u64,
    tombstones: u64,
    would_fetch: u64,
    near_duplicates: u64,
    failed: u64,
    vanished: u64,
    listings_failed: u64,
    corrupt: u64,
    repaired: u64,
    deleted: u64,
    local_failures: u64,
    /// Holes that remain, if that is a failure.
    holes: u64,
}

/// What there is to count of one node.
#[derive(Clone, Debug, Default)]
struct NodeTally {
    landed: u64,
    bytes: u64,
    /// Requests that failed, but for what was gone.
    errors: u64,
    /// Segments listed but gone.
    gone: u64,
    /// Files sent with wrong content that were not lost for it.
    wrong: u64,
    given_up: bool,
    /// What requests took, one after the other.
    listing: Duration,
    fetching: Duration,
}

impl Tally {
    fn count(&mut self, event: &Event<'_>) {
        match event {
            Event::HoursListed { node, took, .. } | Event::Listed { node, took, .. } => {
                self.nodes[*node].listing += *took;
            }
            Event::Landed { node, bytes, repaired, took, .. } => {
                self.landed += 1;
                self.bytes += bytes;
                self.repaired += u64::from(*repaired);
                let node = &mut self.nodes[*node];
                node.landed += 1;
                node.bytes += bytes;
                node.fetching += *took;
            }
            Event::Buried { .. } => self.tombstones += 1,
            Event::WouldLand { is_tombstone: true, .. } => self.tombstones += 1,
            Event::WouldLand { .. } => self.would_fetch += 1,
            Event::Skipped { why: Skip::NearDuplicate(_), .. } => self.near_duplicates += 1,
            Event::TryFailed { node, target, trouble, took, .. } => {
                let node = &mut self.nodes[*node];
                node.errors += u64::from(*trouble != Trouble::Gone);
                node.wrong += u64::from(*trouble == Trouble::Corrupt);
                match target {
                    Some(_) => node.fetching += *took,
                    None => node.listing += *took,
                }
            }
            Event::FileFailed { node, .. } => {
                self.failed += 1;
                let node = &mut self.nodes[*node];
                node.wrong = node.wrong.saturating_sub(1);
            }
            Event::FileVanished { .. } => self.vanished += 1,
            Event::ListingFailed { .. } => self.listings_failed += 1,
            Event::NodeGivenUp { node, .. } => self.nodes[*node].given_up = true,
            Event::SegmentGone { node } => self.nodes[*node].gone += 1,
            // If other nodes gave all that was wanted, nothing is missing.
            Event::GivesNothing { .. } if self.vanished > 0 => self.give_nothing += 1,
            Event::Corrupt { .. } => self.corrupt += 1,
            Event::Deleted { segments, .. } => self.deleted += segments,
            Event::LocalFailed { .. } => self.local_failures += 1,
            _ => {}
        }
    }

    fn status(&self, any_answered: bool, cause: Option<Cause>) -> Status {
        let incomplete = self.failed > 0
            || self.listings_failed > 0
            || self.give_nothing > 0
            || self.holes > 0
            || self.nodes.iter().any(|node| node.given_up)
            || self.corrupt > self.repaired;
        match cause {
            Some(cause) => cause.into(),
            None if self.local_failures > 0 => Status::LocalFailure,
            None if !any_answered => Status::NoNode,
            None if incomplete => Status::Incomplete,
            None => Status::Complete,
        }
    }
}

/// How the paths of segments are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Each ended by a newline.
    Lines,
    /// Each ended by a NUL.
    NulTerminated,
}

/// What is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The paths of what lands, the map of what is covered, or both; mostly nothing.
    Text { paths: Option<Paths>, map: bool },
    /// JSON Lines.
    Json,
}

/// What a map may be drawn with.
#[derive(Clone, Copy, Debug)]
pub struct MapStyle {
    /// Colours.
    pub colour: bool,
    /// Characters besides ASCII.
    pub unicode: bool,
}

/// How a pass is to be reported.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// What is printed on standard output.
    pub output: Output,
    /// How a map is drawn.
    pub map: MapStyle,
    /// Whether it's a failure if holes remain.
    pub fail_on_holes: bool,
    /// Whether a summary line is wanted on standard error.
    pub summary: bool,
    /// Whether nothing is fetched.
    pub dry_run: bool,
    /// Whether all that is fetched are segments.
    pub only_segments: bool,
}

/// What was found out about a collection at the end.
#[derive(Debug)]
pub struct Measured {
    /// Which one.
    pub collection: Collection,
    /// What is covered of it; nothing can be said of chat.
    pub coverage: Option<Coverage>,
}

/// What is known of a pass only at its end.
#[derive(Debug)]
pub struct Figures {
    /// When it began.
    pub started: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// What is covered, if that was to be found out and the pass did not end before.
    pub measured: Vec<Measured>,
}

/// Takes the events of a pass from all its threads.
#[derive(Debug)]
pub struct Report {
    inner: Mutex<Inner>,
    names: Vec<String>,
    style: Style,
    progress: Progress,
}

#[derive(Debug)]
struct Inner {
    tally: Tally,
    human: Human,
    metrics: Option<Metrics>,
    /// What was fetched, by collection, if that is to be shown.
    fetched: Vec<(Collection, Findings)>,
}

impl Report {
    /// A report on a pass over the nodes of these names. If there is to be a map of what was
    /// fetched, it's of these collections.
    pub fn new(
        names: Vec<String>,
        style: Style,
        metrics: Option<Metrics>,
        mapped: Vec<Collection>,
        progress: Progress,
    ) -> Report {
        let tally = Tally { nodes: vec![NodeTally::default(); names.len()], ..Tally::default() };
        let human = Human::new(names.clone(), style);
        let fetched = mapped.into_iter().map(|c| (c, Findings::default())).collect();
        let inner = Mutex::new(Inner { tally, human, metrics, fetched });
        Report { inner, names, style, progress }
    }

    /// Reports an event. If nobody reads our output any more, or it can't be written, the pass is
    /// told to stop.
    pub fn tell(&self, event: Event<'_>, stop: &Stop) {
        let mut inner = lock(&self.inner);
        self.note(&mut inner, &event);
        let printed = match self.style.output {
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
        match printed {
            Err(e) if !stop.is_stopped() => stop.stop(cause_of(&e)),
            // Nobody needs to be told twice.
            Ok(()) | Err(_) => {}
        }
    }

    fn note(&self, inner: &mut Inner, event: &Event<'_>) {
        inner.tally.count(event);
        inner.human.log(event);
        if let Some(metrics) = &mut inner.metrics {
            metrics.count(event);
        }
        match event {
            Event::Landed { node, .. } => self.progress.node_gave(*node, 1),
            Event::Listed { node, .. } => self.progress.node_gave(*node, 0),
            _ => {}
        }
        self.note_for_map(&mut inner.fetched, event);
    }

    /// Notes what the map is to show as fetched, and how far the stream goes.
    fn note_for_map(&self, mapped: &mut [(Collection, Findings)], event: &Event<'_>) {
        let (target, is_here) = match event {
            Event::Landed { target, .. } | Event::WouldLand { target, is_tombstone: false } => {
                (target, true)
            }
            Event::FileFailed { target, .. } | Event::FileVanished { target, .. } => {
                (target, false)
            }
            _ => return,
        };
        let Target::Segment(place, name) = target else {
            return;
        };
        if let Some((_, fetched)) = mapped.iter_mut().find(|(c, _)| *c == place.collection) {
            if is_here {
                fetched.add(place.hour, name);
            }
            if !is_here || self.style.dry_run {
                fetched.add_elsewhere(place.hour, name);
            }
        }
    }

    fn print(&self, text: &str, end: &str) -> io::Result<()> {
        let line = format!("{text}{end}");
        self.progress.suspend(|| {
            let mut out = io::stdout().lock();
            out.write_all(line.as_bytes())?;
            out.flush()
        })
    }

    /// Ends the report of a pass that did not begin because another one holds the lock: to be
    /// expected from cron, so only told to a person, and to a program that wants to be told.
    pub fn finish_locked(&self, archive: &Path, figures: &Figures) -> Status {
        self.progress.finish();
        let status = Status::Locked;
        if self.style.summary {
            log::tell(&format!("another pass with --lock is at work on {}", archive.display()));
        }
        let Output::Json = self.style.output else {
            return status;
        };
        let (tally, dry_run) = (&lock(&self.inner).tally, self.style.dry_run);
        match self.print(&json::summary(tally, &self.names, status, figures, dry_run), "\n") {
            Ok(()) => status,
            Err(e) => cause_of(&e).into(),
        }
    }

    /// Tells of the nodes that send wrong content, or list segments and give none of them. A
    /// segment or two may be gone with good reason, but if all are, the node is set up wrongly.
    pub fn judge_nodes(&self, stop: &Stop) {
        let nodes = lock(&self.inner).tally.nodes.clone();
        for (node, NodeTally { gone, landed, wrong, .. }) in nodes.into_iter().enumerate() {
            if gone >= SUSPICIOUSLY_GONE && landed == 0 {
                self.tell(Event::GivesNothing { node, gone }, stop);
            }
            if wrong > 0 {
                self.tell(Event::SendsWrong { node, files: wrong }, stop);
            }
        }
    }

    /// What was fetched of each of the collections that are to be mapped.
    pub fn fetched(&self) -> Vec<(Collection, Findings)> {
        lock(&self.inner).fetched.clone()
    }

    /// Ends the report, and says how the pass went.
    pub fn finish(&self, any_answered: bool, stop: &Stop, figures: Figures) -> Status {
        self.progress.finish();
        let mut inner = lock(&self.inner);
        let Inner { tally, human, metrics, .. } = &mut *inner;
        if self.style.fail_on_holes {
            let coverages = figures.measured.iter().filter_map(|m| m.coverage.as_ref());
            tally.holes = coverages.map(|coverage| coverage.holes.len() as u64).sum();
        }
        let mut status = tally.status(any_answered, stop.cause());
        if let Some(metrics) = metrics
            && let Err(e) = metrics.write(tally, status, &figures, self.style.dry_run)
        {
            ::log::error!("writing the metrics file {}: {e}", metrics.path().display());
            status = status.or_local_failure();
        }
        let text = match self.style.output {
            Output::Json => {
                let (names, dry_run) = (&self.names, self.style.dry_run);
                json::summary(tally, names, status, &figures, dry_run) + "\n"
            }
            Output::Text { map: true, .. } => {
                map::maps(&figures.measured, self.style.map, self.style.dry_run)
            }
            Output::Text { .. } => String::new(),
        };
        if status != Status::OutputClosed
            && let Err(e) = self.print(&text, "")
        {
            status = match Status::from(cause_of(&e)) {
                Status::LocalFailure => status.or_local_failure(),
                closed => closed,
            };
        }
        human.finish(tally, status, &figures);
        status
    }
}

/// What is printed of an event if paths are.
fn printable(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Landed { target, .. }
        | Event::Buried { target, .. }
        | Event::WouldLand { target, .. } => Some(target.path()),
        Event::Deleted { place, dry_run: true, .. } => Some(format!("{place}/")),
        _ => None,
    }
}

/// What it means for a pass that standard output can't be written.
fn cause_of(error: &io::Error) -> Cause {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Cause::OutputClosed;
    }
    ::log::error!("writing to standard output: {}", plain(error));
    Cause::LocalFailure
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_from_what_happened_worst_first() {
        let tally = Tally::default();
        let failed = Tally { failed: 1, ..Tally::default() };
        let listing = Tally { listings_failed: 1, ..Tally::default() };
        let nodes = vec![NodeTally { given_up: true, ..NodeTally::default() }];
        let given_up = Tally { nodes, ..Tally::default() };
        let holes = Tally { holes: 1, ..Tally::default() };
        let corrupt = Tally { corrupt: 2, repaired: 1, ..Tally::default() };
        let nothing = Tally { give_nothing: 1, ..Tally::default() };
        let vanished = Tally { vanished: 1, ..Tally::default() };
        let local = Tally { local_failures: 1, failed: 1, ..Tally::default() };
        for (tally, any_answered, cause, code) in [
            (&tally, true, None, 0),
            (&vanished, true, None, 0),
            (&failed, true, None, 3),
            (&listing, true, None, 3),
            (&corrupt, true, None, 3),
            (&nothing, true, None, 3),
            (&holes, true, None, 3),
            (&given_up, true, None, 3),
            (&given_up, false, None, 4),
            (&local, true, None, 1),
            (&local, false, None, 1),
            (&tally, true, Some(Cause::LocalFailure), 1),
            (&failed, true, Some(Cause::Signal(2)), 130),
            (&local, true, Some(Cause::Signal(15)), 143),
            (&tally, true, Some(Cause::OutputClosed), 141),
        ] {
            assert_eq!(tally.status(any_answered, cause).code(), code, "{tally:?}");
        }
    }
}

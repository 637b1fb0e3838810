//! What came of a pass. Whatever happens in it is told here as an [`Event`], once; the reporters
//! make of it what their readers need.

mod human;
pub mod log;
mod status;

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::archive::LocalError;
use crate::hour::Hour;
use crate::node::Trouble;
use crate::plan::Skip;
use crate::progress::Progress;
use crate::schedule::NodeId;
use crate::segment::{Collection, Medium};
use crate::stop::{Cause, Stop};
use crate::target::Target;

use human::Human;
pub use human::Paths;
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
    HoursListed { node: NodeId, collection: &'a Collection, hours: usize, selected: usize },
    /// A node has listed an hour or an extra directory: so many names, of which so many are here,
    /// so many to be fetched.
    Listed { node: NodeId, what: &'a str, names: usize, here: usize, wanted: usize },
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
    /// A try failed; there may be others.
    TryFailed { node: NodeId, what: &'a str, why: &'a str, trouble: Trouble },
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
    /// Files landed, by node.
    landed_by: Vec<u64>,
    /// Segments listed but gone, by node.
    gone_from: Vec<u64>,
    give_nothing: u64,
    /// Files sent with wrong content that were not lost for it, by node.
    wrong_from: Vec<u64>,
    tombstones: u64,
    would_fetch: u64,
    near_duplicates: u64,
    failed: u64,
    vanished: u64,
    listings_failed: u64,
    given_up: Vec<NodeId>,
    corrupt: u64,
    repaired: u64,
    deleted: u64,
    local_failures: u64,
}

impl Tally {
    fn count(&mut self, event: &Event<'_>) {
        match event {
            Event::Landed { node, bytes, repaired, .. } => {
                self.landed += 1;
                self.bytes += bytes;
                self.landed_by[*node] += 1;
                self.repaired += u64::from(*repaired);
            }
            Event::Buried { .. } => self.tombstones += 1,
            Event::WouldLand { is_tombstone: true, .. } => self.tombstones += 1,
            Event::WouldLand { .. } => self.would_fetch += 1,
            Event::Skipped { why: Skip::NearDuplicate(_), .. } => self.near_duplicates += 1,
            Event::TryFailed { node, trouble: Trouble::Corrupt, .. } => self.wrong_from[*node] += 1,
            Event::FileFailed { node, .. } => {
                self.failed += 1;
                self.wrong_from[*node] = self.wrong_from[*node].saturating_sub(1);
            }
            Event::FileVanished { .. } => self.vanished += 1,
            Event::ListingFailed { .. } => self.listings_failed += 1,
            Event::NodeGivenUp { node, .. } => self.given_up.push(*node),
            Event::SegmentGone { node } => self.gone_from[*node] += 1,
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
            || !self.given_up.is_empty()
            || self.corrupt > self.repaired;
        match cause {
            Some(Cause::Signal(signal)) => Status::Signal(signal),
            Some(Cause::LocalFailure) => Status::LocalFailure,
            Some(Cause::OutputClosed) => Status::OutputClosed,
            None if self.local_failures > 0 => Status::LocalFailure,
            None if !any_answered => Status::NoNode,
            None if incomplete => Status::Incomplete,
            None => Status::Complete,
        }
    }
}

/// How a pass is to be reported.
#[derive(Clone, Debug)]
pub struct Style {
    /// What is printed on standard output.
    pub paths: Option<Paths>,
    /// Whether a summary line is wanted on standard error.
    pub summary: bool,
    /// Whether nothing is fetched.
    pub dry_run: bool,
}

/// Takes the events of a pass from all its threads.
#[derive(Debug)]
pub struct Report {
    inner: Mutex<(Tally, Human)>,
    progress: Progress,
}

impl Report {
    /// A report on a pass over the nodes of these names.
    pub fn new(node_names: Vec<String>, style: Style, progress: Progress) -> Report {
        let tally = Tally {
            landed_by: vec![0; node_names.len()],
            gone_from: vec![0; node_names.len()],
            wrong_from: vec![0; node_names.len()],
            ..Tally::default()
        };
        let human = Human::new(node_names, style, progress.clone());
        Report { inner: Mutex::new((tally, human)), progress }
    }

    /// Reports an event. If nobody reads our output any more, or it can't be written, the pass is
    /// told to stop.
    pub fn tell(&self, event: Event<'_>, stop: &Stop) {
        let mut inner = lock(&self.inner);
        let (tally, human) = &mut *inner;
        tally.count(&event);
        match event {
            Event::Landed { .. }
            | Event::Dropped { .. }
            | Event::WouldLand { is_tombstone: false, .. }
            | Event::FileFailed { .. }
            | Event::FileVanished { .. } => self.progress.settle(),
            _ => {}
        }
        if let Err(e) = human.tell(&event) {
            stop.stop(match e.kind() {
                std::io::ErrorKind::BrokenPipe => Cause::OutputClosed,
                _ => {
                    ::log::error!("writing to standard output: {e}");
                    Cause::LocalFailure
                }
            });
        }
    }

    /// Tells that another pass holds the lock: to be expected from cron, so only to a person.
    pub fn tell_of_lock(&self, archive: &Path) {
        self.progress.finish();
        if lock(&self.inner).1.wants_summary() {
            log::tell(&format!("another pass with --lock is at work on {}", archive.display()));
        }
    }

    /// Tells of the nodes that send wrong content, or list segments and give none of them. A segment or two may be gone
    /// with good reason, but if all are, the node is set up wrongly.
    pub fn judge_nodes(&self) {
        let mut inner = lock(&self.inner);
        let (tally, human) = &mut *inner;
        for node in 0..tally.gone_from.len() {
            let (gone, landed) = (tally.gone_from[node], tally.landed_by[node]);
            if gone >= SUSPICIOUSLY_GONE && landed == 0 {
                let event = Event::GivesNothing { node, gone };
                tally.count(&event);
                human.log(&event);
            }
            let files = tally.wrong_from[node];
            if files > 0 {
                human.log(&Event::SendsWrong { node, files });
            }
        }
    }

    /// Ends the report, and says how the pass went.
    pub fn finish(&self, any_answered: bool, stop: &Stop, took: Duration) -> Status {
        self.progress.finish();
        let mut inner = lock(&self.inner);
        let (tally, human) = &mut *inner;
        let status = tally.status(any_answered, stop.cause());
        human.finish(tally, status, took);
        status
    }
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
        let given_up = Tally { given_up: vec![0], ..Tally::default() };
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

//! What came of a pass. Whatever happens in it is told here as an [`Event`], once; the reporters
//! make of it what their readers need.

mod human;
pub mod log;
mod status;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::archive::LocalError;
use crate::hour::Hour;
use crate::plan::Skip;
use crate::progress::Progress;
use crate::schedule::NodeId;
use crate::segment::{Collection, SegmentName};
use crate::stop::{Cause, Stop};

use human::Human;
pub use human::Paths;
pub use status::Status;

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
#[allow(missing_docs)]
pub enum Event<'a> {
    /// A node has listed the hours of a collection: so many, of which so many are selected.
    HoursListed {
        node: NodeId,
        collection: &'a Collection,
        hours: usize,
        selected: usize,
    },
    /// A node lists something that is no hour. `None` is a name that is no Unicode.
    NoHour {
        node: NodeId,
        collection: &'a Collection,
        name: Option<&'a str>,
    },
    /// A node has listed an hour: so many names, of which so many are here, so many to be fetched.
    Listed {
        node: NodeId,
        place: Place<'a>,
        names: usize,
        here: usize,
        wanted: usize,
    },
    /// A listed name is not fetched; not told of those that are here. `None` as above.
    Skipped {
        node: NodeId,
        place: Place<'a>,
        name: Option<&'a str>,
        why: Skip,
    },
    /// A segment was fetched, and is here to stay; so many bytes, in that time.
    Landed {
        node: NodeId,
        place: Place<'a>,
        name: &'a SegmentName,
        bytes: u64,
        took: Duration,
    },
    /// In a dry run: this would have been fetched.
    WouldFetch {
        place: Place<'a>,
        name: &'a SegmentName,
    },
    /// Another writer has brought the segment while it was wanted.
    WasHere {
        place: Place<'a>,
        name: &'a SegmentName,
    },
    /// A try failed; there may be others.
    TryFailed {
        node: NodeId,
        what: &'a str,
        why: &'a str,
    },
    /// No node could give this segment; the last that failed, and how.
    SegmentFailed {
        node: NodeId,
        place: Place<'a>,
        name: &'a SegmentName,
        why: &'a str,
    },
    /// Each node that listed this segment says now that it's gone.
    SegmentVanished {
        place: Place<'a>,
        name: &'a SegmentName,
    },
    /// A node could not list this: the hours of a collection, or the segments of an hour.
    ListingFailed {
        node: NodeId,
        collection: &'a Collection,
        hour: Option<Hour>,
        why: &'a str,
    },
    /// A node is not asked any more in this pass.
    NodeGivenUp { node: NodeId, why: &'a str },
    /// This machine failed at something.
    LocalFailed { error: &'a LocalError },
}

/// What there is to count in a pass.
#[derive(Clone, Debug, Default)]
struct Tally {
    landed: u64,
    bytes: u64,
    /// Segments landed, by node.
    landed_by: Vec<u64>,
    would_fetch: u64,
    failed: u64,
    vanished: u64,
    listings_failed: u64,
    given_up: Vec<NodeId>,
    local_failures: u64,
}

impl Tally {
    fn count(&mut self, event: &Event<'_>) {
        match event {
            Event::Landed { node, bytes, .. } => {
                self.landed += 1;
                self.bytes += bytes;
                self.landed_by[*node] += 1;
            }
            Event::WouldFetch { .. } => self.would_fetch += 1,
            Event::SegmentFailed { .. } => self.failed += 1,
            Event::SegmentVanished { .. } => self.vanished += 1,
            Event::ListingFailed { .. } => self.listings_failed += 1,
            Event::NodeGivenUp { node, .. } => self.given_up.push(*node),
            Event::LocalFailed { .. } => self.local_failures += 1,
            _ => {}
        }
    }

    fn status(&self, any_answered: bool, cause: Option<Cause>) -> Status {
        let incomplete = self.failed > 0 || self.listings_failed > 0 || !self.given_up.is_empty();
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
            ..Tally::default()
        };
        let human = Human::new(node_names, style, progress.clone());
        Report {
            inner: Mutex::new((tally, human)),
            progress,
        }
    }

    /// Reports an event. If nobody reads our output any more, or it can't be written, the pass is
    /// told to stop.
    pub fn tell(&self, event: Event<'_>, stop: &Stop) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (tally, human) = &mut *inner;
        tally.count(&event);
        match event {
            Event::Landed { .. }
            | Event::WasHere { .. }
            | Event::WouldFetch { .. }
            | Event::SegmentFailed { .. }
            | Event::SegmentVanished { .. } => self.progress.settle(),
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

    /// Ends the report, and says how the pass went.
    pub fn finish(&self, any_answered: bool, stop: &Stop, took: Duration) -> Status {
        self.progress.finish();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (tally, human) = &mut *inner;
        let status = tally.status(any_answered, stop.cause());
        human.finish(tally, status, took);
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_follows_from_what_happened_worst_first() {
        let tally = Tally::default();
        let failed = Tally {
            failed: 1,
            ..Tally::default()
        };
        let listing = Tally {
            listings_failed: 1,
            ..Tally::default()
        };
        let given_up = Tally {
            given_up: vec![0],
            ..Tally::default()
        };
        let vanished = Tally {
            vanished: 1,
            ..Tally::default()
        };
        let local = Tally {
            local_failures: 1,
            failed: 1,
            ..Tally::default()
        };
        for (tally, any_answered, cause, code) in [
            (&tally, true, None, 0),
            (&vanished, true, None, 0),
            (&failed, true, None, 3),
            (&listing, true, None, 3),
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

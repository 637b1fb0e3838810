//! What can happen in a pass, as values: which node, which directory, which file, which error. Each
//! reporter puts them into words of its own.

use std::time::Duration;

use crate::error::LocalError;
use crate::node::NodeError;
use crate::plan::Skip;
use crate::retention::Refusal;
use crate::schedule::{GivenUp, Loss, NodeId, NodeSet};
use crate::segment::Collection;
use crate::target::{Directory, Place, Target};
use crate::verify::Damage;

/// What a node was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// To list a directory.
    List(&'a Directory),
    /// To send a file.
    Fetch(&'a Target),
}

/// Something that happened in a pass. The fields are named after what they hold.
#[derive(Debug)]
pub enum Event<'a> {
    /// A node listed the hours of a collection.
    HoursListed {
        node: NodeId,
        collection: &'a Collection,
        hours: usize,
        selected: usize,
        took: Duration,
    },
    /// A node listed an hour or an extra directory: the names in it, how many of them are here, and
    /// how many are to be fetched.
    Listed {
        node: NodeId,
        directory: &'a Directory,
        names: usize,
        here: usize,
        wanted: usize,
        took: Duration,
    },
    /// A node is too old to list extra files.
    NoExtras { node: NodeId },
    /// A listed name is not fetched; not reported for files that are already here. `None` is not
    /// Unicode.
    Skipped { node: NodeId, directory: &'a Directory, name: Option<&'a str>, why: &'a Skip },
    /// A file was fetched, and is here to stay; `repaired` if it replaced a corrupt one.
    Landed { node: NodeId, target: &'a Target, bytes: u64, took: Duration, repaired: bool },
    /// A tombstone that a node lists was created.
    Buried { node: NodeId, target: &'a Target },
    /// A segment that was here before the pass has a tombstone now, which this node lists: it stays,
    /// and other programs take it for deleted. In a dry run, it would have one.
    Hidden { node: NodeId, target: &'a Target },
    /// A segment that this pass had fetched was removed again: it was deleted on purpose, as this node
    /// listed only then, or this node gave what others list as deleted.
    Removed { node: NodeId, target: &'a Target },
    /// In a dry run: this file would have been fetched, or this tombstone created; `repairs` if it
    /// would have replaced a corrupt one. Its size is known of some nodes. These nodes have it, which is
    /// not noted of a tombstone.
    WouldLand { target: &'a Target, bytes: Option<u64>, repairs: bool, nodes: Option<NodeSet> },
    /// A wanted file is not fetched after all: another writer was quicker, or it was deleted.
    Dropped { target: &'a Target, why: &'a Skip },
    /// One request failed; others may follow.
    TryFailed { node: NodeId, request: Request<'a>, error: &'a NodeError, took: Duration },
    /// A node sent wrong content for so many files that another node then gave.
    SendsWrong { node: NodeId, files: u64 },
    /// A node gave none of the segments that it lists, and there were several.
    GivesNothing { node: NodeId, gone: u64 },
    /// No node could give this file; `excused` if only an optional one has it, which is dead.
    FileFailed { target: &'a Target, loss: &'a Loss, excused: bool },
    /// A line of a list of files (`--files-from`) is of no use: it is not a path of an archive, or
    /// there is no such file.
    NotFound { text: &'a str, path: Option<&'a str>, why: &'a str, line: &'a str },
    /// Every node that listed this file has deleted or renamed it since.
    FileVanished { target: &'a Target },
    /// A node could not list this directory.
    ListingFailed { node: NodeId, directory: &'a Directory, error: &'a NodeError },
    /// A node is not asked any more, but for a probe now and then.
    NodeGivenUp { node: NodeId, why: &'a GivenUp },
    /// A node that had been given up answers again.
    #[allow(dead_code, reason = "told once nodes are probed again")]
    NodeBack { node: NodeId },
    /// A segment that is here does not have the content that its name says, or can't be read.
    Corrupt { target: &'a Target, damage: &'a Damage },
    /// A corrupt segment is still here at the end of the pass.
    NotRepaired { target: &'a Target },
    /// The segments of an hour were deleted for their age; in a dry run, would be. What else lies
    /// there stays.
    Deleted { place: &'a Place, segments: u64, left: u64, dry_run: bool },
    /// An hour was not deleted although it is old enough, or none at all was.
    NotDeleted { place: Option<&'a Place>, why: &'a Refusal },
    /// A node has segments that have not happened yet by our clock.
    FromTheFuture { node: NodeId, place: &'a Place },
    /// This machine failed at something.
    LocalFailed { error: &'a LocalError },
}

//! The events of a pass, as values: which node, which directory, which file, which error. Each
//! reporter words them for its own readers.

use std::time::Duration;

use crate::error::LocalError;
use crate::node::NodeError;
use crate::plan::Skip;
use crate::retention::Refusal;
use crate::schedule::{GivenUp, Loss, NodeId, NodeSet};
use crate::segment::Collection;
use crate::target::{Directory, Place, Target};
use crate::verify::Damage;

/// A request to a node.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// To list a directory.
    List(&'a Directory),
    /// To send a file.
    Fetch(&'a Target),
}

/// Something that happened in a pass. The field names say what they hold.
#[derive(Debug)]
pub enum Event<'a> {
    /// The pass waits this long before it begins.
    Waiting { pause: Duration },
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
    /// A file was fetched and is safely in the archive; `repaired` if it replaced a corrupt one.
    Landed { node: NodeId, target: &'a Target, bytes: u64, took: Duration, repaired: bool },
    /// A tombstone that a node lists was created.
    TombstoneCreated { node: NodeId, target: &'a Target },
    /// A segment that was here before the pass now has a tombstone, which this node lists. The file
    /// stays, but other programs take it for deleted. In a dry run, it would have one.
    Hidden { node: NodeId, target: &'a Target },
    /// A segment that this pass had fetched was removed again, because it was deleted on purpose.
    /// `node` either listed the tombstone after the segment had landed, or delivered the segment
    /// while another node listed its tombstone.
    Removed { node: NodeId, target: &'a Target },
    /// In a dry run: this file would have been fetched, or this tombstone created; `repairs` if it
    /// would have replaced a corrupt one. `bytes` is `None` unless a node tells the size without
    /// sending the file. `nodes` are those that have it; `None` for a tombstone.
    WouldLand { target: &'a Target, bytes: Option<u64>, repairs: bool, nodes: Option<NodeSet> },
    /// A wanted file is not fetched after all: another writer was faster, or it was deleted.
    Dropped { target: &'a Target, why: &'a Skip },
    /// A request failed; it may be retried.
    TryFailed { node: NodeId, request: Request<'a>, error: &'a NodeError, took: Duration },
    /// A node sent wrong content for this many files, and another node provided the right content.
    SendsWrong { node: NodeId, files: u64 },
    /// A node answered 404 for several segments that it lists, and delivered none.
    GivesNothing { node: NodeId, gone: u64 },
    /// No node could provide this file; `excused` if only a dead optional node has it.
    FileFailed { target: &'a Target, loss: &'a Loss, excused: bool },
    /// A line of a list of files (`--files-from`) is not a path in an archive, or no node has the
    /// file.
    NotFound { text: &'a str, path: Option<&'a str>, why: &'a str, line: &'a str },
    /// Every node that listed this file has since deleted or renamed it.
    FileVanished { target: &'a Target },
    /// A node could not list this directory.
    ListingFailed { node: NodeId, directory: &'a Directory, error: &'a NodeError },
    /// A node is no longer asked, except for an occasional probe.
    NodeGivenUp { node: NodeId, why: &'a GivenUp },
    /// A node that was given up answers again.
    NodeBack { node: NodeId },
    /// The content of a segment here does not match its hash, or can't be read.
    Corrupt { target: &'a Target, damage: &'a Damage },
    /// A corrupt segment is still here at the end of the pass.
    NotRepaired { target: &'a Target },
    /// The segments of an hour were deleted because of their age; in a dry run, they would be.
    /// Other files there stay.
    Deleted { place: &'a Place, segments: u64, left: u64, dry_run: bool },
    /// An hour was not deleted although it is old enough. If `place` is `None`, no hour was.
    NotDeleted { place: Option<&'a Place>, why: &'a Refusal },
    /// By our clock, a node has segments from the future.
    FromTheFuture { node: NodeId, place: &'a Place },
    /// Something failed on this machine.
    LocalFailed { error: &'a LocalError },
}

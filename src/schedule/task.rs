//! What the scheduler and its callers exchange: tasks and verdicts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::files::{FileId, Look, Loss, WouldLand};
use super::health::GivenUp;
use super::nodes::{NodeId, NodeSet};
use super::unit::{Item, List, Unit};
use crate::node::NodeError;
use crate::transfer::Transfer;

/// A file to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Its unit.
    pub unit: Unit,
    /// Its name.
    pub item: Item,
    /// The look at the archive that found it missing.
    pub look: Look,
    /// Its progress, and whether it is still needed.
    pub transfer: Transfer,
    pub(super) file: FileId,
    pub(super) number: u64,
}

/// A task for a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// List the hours of a collection.
    ListHours(usize),
    /// List a unit, or only the names after `after`. The archive must be looked at during this
    /// look; all workers that list the unit during it may share the result.
    ListUnit { unit: Unit, after: Option<Item>, look: Look },
    /// List a unit to see which of these names it still has.
    ListAgain { unit: Unit, names: Arc<HashSet<Item>> },
    /// Fetch a file.
    Fetch(Fetch),
}

impl Task {
    /// The listing that this task performs, if any.
    pub fn list(&self) -> Option<List> {
        match self {
            Task::ListHours(collection) => Some(List::Hours(*collection)),
            Task::ListUnit { unit, .. } => Some(List::Unit(*unit)),
            Task::ListAgain { unit, .. } => Some(List::Again(*unit)),
            Task::Fetch(_) => None,
        }
    }
}

/// What a worker should do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Do this, and report the result.
    Do(Task),
    /// Nothing at the moment: ask again after the next report, or at this time.
    Wait(Option<Instant>),
    /// Nothing: the pass is over.
    Finished,
}

/// A final result, to be reported to the user.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The node was given up. It only gets a probe now and then.
    NodeGivenUp(NodeId, GivenUp),
    /// The node responds again.
    NodeBack(NodeId),
    /// This listing could not be fetched from the node.
    ListingFailed(NodeId, List, NodeError),
    /// No node could deliver this file.
    FileMissing(Unit, Item, Loss),
    /// Every node that listed this file has deleted or renamed it since.
    FileVanished(Unit, Item),
    /// In a dry run: these files of a unit would have landed. They are kept until
    /// [`Scheduler::reported`](super::Scheduler::reported) is called.
    WouldLand(Unit, Vec<WouldLand>),
    /// A file in this unit turned out to be deleted on purpose. These nodes list it.
    Deleted(Unit, NodeSet),
}

/// A name that turned out not to be wanted, after the look at the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// It is a near duplicate of a file that is or was wanted: of this one, as [`Unit::path_of`]
    /// writes it.
    NearDuplicate(Item, String),
    /// It was deleted on purpose.
    Deleted(Item),
}

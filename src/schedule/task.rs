//! What goes between the scheduler and those who ask it: tasks, answers, and what became final.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::files::{FileId, Look, Loss, WouldLand};
use super::health::GivenUp;
use super::nodes::NodeId;
use super::unit::{Item, List, Unit};
use crate::node::NodeError;
use crate::transfer::Transfer;

/// A file to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The unit that it lies in.
    pub unit: Unit,
    /// Its name.
    pub item: Item,
    /// The look at what is here that found it missing.
    pub look: Look,
    /// How far it has come, and whether anybody still needs it.
    pub transfer: Transfer,
    pub(super) file: FileId,
    pub(super) number: u64,
}

/// Something for a worker to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// List the hours of a collection.
    ListHours(usize),
    /// List a unit: of what comes after this name if there is one. What is here must be looked up
    /// during this look; all who list the unit in it may share what was found.
    ListUnit { unit: Unit, after: Option<Item>, look: Look },
    /// List a unit to see which of these names are still in it.
    ListAgain { unit: Unit, names: Arc<HashSet<Item>> },
    /// Fetch a file.
    Fetch(Fetch),
}

impl Task {
    /// The listing that it is.
    pub fn list(&self) -> Option<List> {
        match self {
            Task::ListHours(collection) => Some(List::Hours(*collection)),
            Task::ListUnit { unit, .. } => Some(List::Unit(*unit)),
            Task::ListAgain { unit, .. } => Some(List::Again(*unit)),
            Task::Fetch(_) => None,
        }
    }
}

/// The answer to a worker that asks what is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Do this, and report.
    Do(Task),
    /// Nothing at present: ask again when something was reported, or at this time.
    Wait(Option<Instant>),
    /// Nothing any more.
    Finished,
}

/// Something final, for the person who runs the pass.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The node is not asked any more, but for a probe now and then.
    NodeGivenUp(NodeId, GivenUp),
    /// It answers again.
    NodeBack(NodeId),
    /// The node could not give this listing.
    ListingFailed(NodeId, List, NodeError),
    /// Nobody could give this file.
    FileMissing(Unit, Item, Loss),
    /// Every node that listed this file has deleted or renamed it since.
    FileVanished(Unit, Item),
    /// In a dry run: these files of a unit would have landed. Each counts as kept until it is said to
    /// be reported.
    WouldLand(Unit, Vec<WouldLand>),
}

/// A name that is not wanted after all, since the look at what is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// It is wanted by another name, or was: this one, while that is known.
    NearDuplicate(Item, Option<Item>),
    /// It was deleted on purpose.
    Deleted(Item),
}

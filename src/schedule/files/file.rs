//! The state of a wanted file and of an open unit.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::node::NodeError;
use crate::schedule::nodes::{NodeId, NodeSet};
use crate::schedule::twins::TwinsId;
use crate::schedule::unit::{Item, Unit};
use crate::segment::SegmentName;

/// The number of a wanted file.
pub type FileId = u64;

/// Why a listed file is missing in the end.
#[derive(Clone, Debug)]
pub enum Loss {
    /// The last node that failed to deliver it, and the failure.
    Failed(NodeId, NodeError),
    /// The node that has it was given up.
    GivenUp(NodeId),
    /// The node says that it is gone, but still lists it.
    Withheld(NodeId),
}

/// The outcome for a file that no node delivered.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is missing.
    Missing(Loss),
    /// Every node that listed it has deleted or renamed it since.
    Vanished,
}

/// The state of a wanted file.
#[derive(Clone, Debug)]
pub enum State {
    /// Waiting for a worker, or with one.
    Open,
    /// Waiting for the outcome of a twin.
    Held,
    /// Every node that listed it now says that it is gone, which is still to be confirmed.
    Gone,
    /// None of the nodes that have listed it so far could deliver it.
    Lost(Fate),
}

/// A wanted file. A pass keeps thousands, so what only a few of them have is boxed.
#[derive(Debug)]
pub struct File {
    /// The unit that it is in.
    pub unit: Unit,
    /// Its name there.
    pub item: Item,
    /// What becomes of it.
    pub state: State,
    /// The group of its twins, if it may have any.
    pub twins: Option<TwinsId>,
    /// The nodes known to have it, including those that were given up.
    pub holders: NodeSet,
    /// The nodes that said it is gone.
    pub gone: NodeSet,
    /// Of those, the nodes that have listed its unit again since.
    pub asked_again: NodeSet,
    /// A node that said it is gone, but then listed it again.
    pub withheld_by: Option<NodeId>,
    /// The nodes that failed to deliver it in this round.
    pub tried: NodeSet,
    /// The nodes that are sending it now.
    pub fetchers: NodeSet,
    /// The nodes in whose queues it is.
    pub queued: NodeSet,
    /// How many rounds of attempts have failed.
    pub rounds: u32,
    /// The last failure other than that it is gone.
    pub failure: Option<Box<(NodeId, NodeError)>>,
    /// The loss of a twin that is no longer kept.
    pub inherited: Option<Box<Loss>>,
}

impl File {
    /// A file without holders yet.
    pub fn new(unit: Unit, item: Item, twins: Option<TwinsId>) -> File {
        File {
            unit,
            item,
            state: State::Held,
            twins,
            holders: NodeSet::default(),
            gone: NodeSet::default(),
            asked_again: NodeSet::default(),
            withheld_by: None,
            tried: NodeSet::default(),
            fetchers: NodeSet::default(),
            queued: NodeSet::default(),
            rounds: 0,
            failure: None,
            inherited: None,
        }
    }

    /// Whether it is open, or held by a twin that is.
    pub fn is_in_motion(&self) -> bool {
        matches!(self.state, State::Open | State::Held)
    }

    /// Whether it can be requested from this node now.
    pub fn is_free_for(&self, node: NodeId) -> bool {
        matches!(self.state, State::Open)
            && self.fetchers.is_empty()
            && self.holders.without(self.tried).contains(node)
    }
}

/// A file that landed, or would have in a dry run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// The nodes known to have it.
    pub holders: NodeSet,
    /// Its size in bytes, if it was known before the file arrived.
    pub bytes: Option<u64>,
    /// Whether a twin landed instead of the file itself.
    pub by_twin: bool,
}

/// A unit that has unsettled files or is being listed.
#[derive(Debug)]
pub struct OpenUnit {
    /// The files that are not settled.
    pub wanted: HashMap<Item, FileId>,
    /// What landed while a node was listing the unit. A worker that looked at the archive before
    /// that still reports it as missing.
    pub done: HashMap<Item, Done>,
    /// The segments that were deleted on purpose, according to a node or to the disk.
    pub deleted: HashSet<SegmentName>,
    /// For each node, the files that may be requested from it, in order.
    pub queues: Vec<VecDeque<FileId>>,
    /// How many nodes are listing it at the moment.
    pub listings: usize,
    /// The look at the archive that these listings share, or the last one.
    pub look: Look,
    /// How many of its files are open or held.
    pub moving: usize,
    /// The nodes that must list it again, to confirm that files are gone.
    pub confirming: NodeSet,
}

/// A period in which at least one node is listing a unit. Whatever lands in it is remembered, so a
/// single look at the archive serves all nodes that list the unit in this period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Distinguishes it from other looks.
    pub number: u64,
    /// When it began.
    pub since: Instant,
}

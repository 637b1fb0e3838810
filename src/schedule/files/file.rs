//! What is known of a file that is wanted, and of a unit that is open.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::node::NodeError;
use crate::schedule::nodes::{NodeId, NodeSet};
use crate::schedule::twins::TwinsId;
use crate::schedule::unit::{Item, Unit};
use crate::segment::SegmentName;

/// A file that was wanted, by number.
pub type FileId = u64;

/// Why a file that nodes list is missing in the end.
#[derive(Clone, Debug)]
pub enum Loss {
    /// The last node that failed to give it, and how.
    Failed(NodeId, NodeError),
    /// The node that has it was given up.
    GivenUp(NodeId),
    /// The node says that it is gone, and lists it all the same.
    Withheld(NodeId),
}

/// What became of a file that nobody could give.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is missing.
    Missing(Loss),
    /// Every node that listed it has deleted or renamed it since.
    Vanished,
}

/// What is becoming of a file.
#[derive(Clone, Debug)]
pub enum State {
    /// Waiting for a worker, or with one.
    Open,
    /// Waiting for what becomes of a twin.
    Held,
    /// Every node that listed it has said that it's gone: to be confirmed.
    Gone,
    /// Nobody could give it, of those that have listed it so far.
    Lost(Fate),
}

/// A file that is wanted.
#[derive(Debug)]
pub struct File {
    pub unit: Unit,
    pub item: Item,
    pub state: State,
    pub twins: Option<TwinsId>,
    /// The nodes that have it, as far as is known. Those that are given up stay in it.
    pub holders: NodeSet,
    /// The nodes that said it is gone, and those of them that have listed its unit again since.
    pub gone: NodeSet,
    pub asked_again: NodeSet,
    /// One that said it is gone, and listed it again.
    pub withheld_by: Option<NodeId>,
    /// Those that failed to give it in this round of tries.
    pub tried: NodeSet,
    /// Those that are giving it now.
    pub fetchers: NodeSet,
    /// Those in whose queues it waits.
    pub queued: NodeSet,
    /// How many rounds of tries have failed.
    pub rounds: u32,
    /// The last failure that says more than that it's gone.
    pub failure: Option<(NodeId, NodeError)>,
    /// How a twin is missing that is not kept any more.
    pub inherited: Option<Loss>,
}

impl File {
    /// One that nobody has yet.
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

    /// Whether it waits for a worker, or is with one, or waits for a twin that does.
    pub fn is_in_motion(&self) -> bool {
        matches!(self.state, State::Open | State::Held)
    }

    /// Whether this node can be asked for it now.
    pub fn is_free_for(&self, node: NodeId) -> bool {
        matches!(self.state, State::Open)
            && self.fetchers.is_empty()
            && self.holders.without(self.tried).contains(node)
    }
}

/// What is known of a file that landed, or in a dry run would have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// The nodes that have it, as far as is known.
    pub holders: NodeSet,
    /// Its size, where that was known before it came.
    pub bytes: Option<u64>,
    /// Whether a twin landed, and not the file itself.
    pub by_twin: bool,
}

/// A unit of which something is not settled, or that is being listed.
#[derive(Debug)]
pub struct OpenUnit {
    /// What is not settled.
    pub wanted: HashMap<Item, FileId>,
    /// What landed while somebody was listing the unit: who looked before that still reports it.
    pub done: HashMap<Item, Done>,
    /// The segments that were deleted on purpose, as a node has it.
    pub deleted: HashSet<SegmentName>,
    /// For each node, the files that it may be asked for, in order.
    pub queues: Vec<VecDeque<FileId>>,
    /// How many nodes are listing it right now.
    pub listings: usize,
    pub look: Look,
    /// How many of its files are in motion.
    pub moving: usize,
    /// Who is to list it again, to see what it still lists of what it said is gone.
    pub confirming: NodeSet,
}

/// A time in which a unit is listed without a break. Whatever lands in it is remembered, so one look
/// at what is here serves all who list the unit in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Tells it from others.
    pub number: u64,
    /// When it began.
    pub since: Instant,
}

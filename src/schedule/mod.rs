//! Decides what each worker does next. The scheduler is a plain state machine: workers report what
//! happened, and ask what to do next. It does no I/O and has no clock of its own.
//!
//! It keeps only what is in progress, so its size doesn't grow with the archive. Its parts are
//! independent of each other: [`Files`] holds the wanted files, [`Health`] the condition of a node,
//! [`Listings`] what a node has still to list, and [`InFlight`] the fetches under way. This module
//! combines them.

mod failed;
mod files;
mod happened;
mod health;
mod in_flight;
mod listings;
mod next;
mod nodes;
#[cfg(test)]
mod simulation;
mod task;
#[cfg(test)]
mod tests;
mod twins;
mod unit;

use std::time::{Duration, Instant};

use files::{Fate, Files, Settled};
use health::{Health, Rules};
use in_flight::InFlight;
use listings::Listings;

pub use files::{Look, Loss, WouldLand};
pub use health::GivenUp;
pub use nodes::{MAX_NODES, NodeId, NodeSet};
pub use task::{Fetch, Next, Task, Unwanted, Verdict};
pub use unit::{Item, List, Unit};

/// The parameters of a pass.
pub struct Policy {
    /// How often to retry a request that failed temporarily.
    pub retries: u32,
    /// How long to wait before the n-th retry, n from 1.
    pub backoff: Box<dyn FnMut(u32) -> Duration + Send>,
    /// Concurrent requests per node.
    pub jobs: Box<dyn Fn(NodeId) -> usize + Send>,
    /// Concurrent listings per node.
    pub listings: usize,
    /// How long a node may stay silent.
    pub timeout: Duration,
    /// No more units are opened while this many files are kept.
    pub max_files: usize,
    /// Whether a file that landed is found on disk from then on. In a dry run it isn't, so each
    /// unit stays open until every node has listed it.
    pub lands_on_disk: bool,
    /// Whether a file that one node is still sending may be requested from a second node.
    pub hedges: bool,
}

/// The progress of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many files have been wanted so far. It never decreases.
    pub wanted: u64,
    /// How many of these are settled: here, missing for good, or no longer wanted. It never
    /// decreases.
    pub settled: u64,
    /// How many listings of hours and extra directories have ended, for all nodes together: to
    /// their end, or with a failure after all retries. A listing in several parts counts once, and
    /// listing again to confirm what is gone doesn't count.
    pub listed: u64,
    /// How many listings are still to be done, as far as is known.
    pub to_list: u64,
}

impl Counts {
    /// How many files there will be, if the hours still to be listed lack as many as the listed ones
    /// on average.
    pub fn expected(&self) -> f64 {
        let per_listing =
            if self.listed > 0 { self.wanted as f64 / self.listed as f64 } else { 0.0 };
        self.wanted as f64 + self.to_list as f64 * per_listing
    }

    /// How many of these are left to do.
    pub fn left(&self) -> f64 {
        self.expected() - self.settled.min(self.wanted) as f64
    }
}

/// What is not done at the end of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Listings that could not be fetched.
    pub unlisted: u64,
    /// Nodes that were given up and did not come back.
    pub given_up: u64,
    /// Whether any node has sent anything.
    pub any_answered: bool,
}

/// The condition of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Requests are under way.
    Busy,
    /// It has nothing to do at the moment.
    Idle,
    /// It failed, and gets no requests until then.
    Resting(Instant),
    /// It is given up.
    GivenUp,
}

/// What is known of a node.
#[derive(Debug)]
struct NodeState {
    health: Health,
    listings: Listings,
    in_flight: usize,
    /// Files that it lists but does not send, since the last file that it sent.
    withheld: usize,
}

/// The state of a pass that determines what to do next.
pub struct Scheduler {
    nodes: Vec<NodeState>,
    files: Files,
    fetches: InFlight,
    policy: Policy,
    /// What a node that was given up is asked, to see whether it is back.
    probe: List,
    verdicts: Vec<Verdict>,
    listed: u64,
    changed: bool,
    was_full: bool,
    finished: bool,
}

impl Scheduler {
    /// A pass over this many nodes (at most [`MAX_NODES`]), collections and extra directories.
    pub fn new(nodes: usize, collections: usize, extras: usize, policy: Policy) -> Scheduler {
        let Policy { retries, timeout, lands_on_disk, .. } = policy;
        // A pass may have extra directories only.
        let probe = if collections > 0 { List::Hours(0) } else { List::Again(Unit::Extras(0)) };
        let node = |id| NodeState {
            health: Health::new(Rules { retries, jobs: (policy.jobs)(id), timeout }),
            listings: Listings::new(collections, extras),
            in_flight: 0,
            withheld: 0,
        };
        Scheduler {
            nodes: (0..nodes).map(node).collect(),
            files: Files::new(nodes, retries, lands_on_disk),
            fetches: InFlight::new(nodes),
            policy,
            probe,
            verdicts: Vec::new(),
            listed: 0,
            changed: false,
            was_full: false,
            finished: nodes == 0 || collections + extras == 0,
        }
    }

    /// The progress of the pass.
    pub fn counts(&self) -> Counts {
        let (wanted, settled) = self.files.progress();
        let alive = self.nodes.iter().filter(|node| !node.health.is_given_up());
        let to_list = alive.map(|node| node.listings.to_list()).sum::<usize>() as u64;
        Counts { wanted, settled, listed: self.listed, to_list }
    }

    /// What is not done at the end of the pass, by the nodes for which `counts` is true.
    pub fn undone(&self, counts: impl Fn(NodeId) -> bool) -> Undone {
        let nodes = self.nodes.iter().enumerate().filter(|(id, _)| counts(*id));
        let nodes: Vec<&NodeState> = nodes.map(|(_, node)| node).collect();
        let count = |of: fn(&NodeState) -> u64| nodes.iter().map(|node| of(node)).sum();
        Undone {
            unlisted: count(|node| node.listings.failed()),
            given_up: count(|node| node.health.is_given_up().into()),
            any_answered: self.nodes.iter().any(|node| node.health.has_spoken()),
        }
    }

    /// Which nodes are given up.
    pub fn given_up(&self) -> Vec<bool> {
        self.nodes.iter().map(|node| node.health.is_given_up()).collect()
    }

    /// The condition of a node.
    pub fn standing(&self, id: NodeId, now: Instant) -> Standing {
        let node = &self.nodes[id];
        match node.health.not_before(now) {
            _ if node.health.is_given_up() => Standing::GivenUp,
            Some(at) => Standing::Resting(at),
            None if node.in_flight == 0 => Standing::Idle,
            None => Standing::Busy,
        }
    }

    /// Whether the pass is over.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The verdicts since the last call.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    /// The last verdicts of a pass that stops early: in a dry run, what would have landed in units
    /// that not all nodes have listed.
    pub fn take_last_verdicts(&mut self) -> Vec<Verdict> {
        let would_land = self.files.take_all_that_would_land();
        would_land.into_iter().map(|(unit, files)| Verdict::WouldLand(unit, files)).collect()
    }

    /// Whether anything has changed for waiting workers since the last call.
    pub fn take_changed(&mut self) -> bool {
        let news = self.files.take_news();
        std::mem::take(&mut self.changed) || news
    }

    fn is_full(&self) -> bool {
        self.files.len() >= self.policy.max_files
    }

    /// Whether a dry run remembers so much that no more units may be opened.
    fn is_crowded(&self) -> bool {
        self.files.len() + self.files.remembered() >= self.policy.max_files
    }

    /// A request of a node has ended.
    fn release(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        node.in_flight -= 1;
        // Wakes workers that wait for the end of the pass, or for their turn at a busy node.
        self.changed |= node.in_flight == 0 || node.health.limit() < (self.policy.jobs)(id);
    }

    /// Settles what can be settled, and finishes the pass when nothing is left to do.
    fn settle(&mut self) {
        let full = self.is_full();
        let nodes = &self.nodes;
        // A node that was given up may come back and list what it has not listed yet.
        let comes_back = self.policy.lands_on_disk;
        let is_through = |node: &NodeState, unit| {
            node.health.is_given_up() && !comes_back || node.listings.is_done_with(unit)
        };
        let through = |unit| nodes.iter().all(|node| is_through(node, unit));
        let settled = self.files.settle(through, full);
        self.note(settled);
        // There may be room for more units now.
        let full = self.is_crowded();
        self.changed |= self.was_full && !full;
        self.was_full = full;
        let is_idle = |node: &NodeState| {
            node.health.is_given_up() || node.in_flight == 0 && node.listings.is_idle()
        };
        if !self.finished && self.files.is_idle() && self.nodes.iter().all(is_idle) {
            let settled = self.files.settle_all();
            self.note(settled);
            self.finished = true;
            self.changed = true;
        }
    }

    fn note(&mut self, settled: Settled) {
        for (node, unit) in settled.confirm {
            self.nodes[node].listings.confirm(unit);
            self.changed = true;
        }
        for (node, unit) in settled.to_relist {
            self.nodes[node].listings.add(unit);
        }
        for (unit, files) in settled.would_land {
            self.changed = true;
            self.verdicts.push(Verdict::WouldLand(unit, files));
        }
        for (unit, nodes) in self.files.take_deleted() {
            self.verdicts.push(Verdict::Deleted(unit, nodes));
        }
        for settled in settled.files {
            let (unit, item) = (settled.unit, settled.item);
            self.changed = true;
            self.verdicts.push(match settled.fate {
                Fate::Missing(loss) => Verdict::FileMissing(unit, item, loss),
                Fate::Vanished => Verdict::FileVanished(unit, item),
            });
        }
    }
}

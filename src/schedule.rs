//! What a node's worker does next. The scheduler is a plain state machine: it is told what
//! happened and asked what is next. It does no I/O and has no clock of its own.
//!
//! It keeps what is in motion and forgets the rest, so its size doesn't grow with the archive: an
//! hour is open from the first listing of it until all that is wanted of it is settled. A node
//! that lists the hour later opens it anew, with what has landed by then found on the disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use indexmap::map::Entry;

use crate::hour::Hour;
use crate::node::{NodeError, Trouble};
use crate::segment::SegmentName;

/// A node, by its place in the list of nodes.
pub type NodeId = usize;

/// How many nodes a pass can have.
pub const MAX_NODES: usize = 128;

/// A node that fails this many requests in a row is given up, even if it answers each of them. It
/// is generous: with a part of its disk broken, a node still has the rest to give.
const GIVE_UP_AFTER: u32 = 100;

/// An hour of a collection (by its place in the list of collections). Newer hours sort first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    newest_first: Reverse<Hour>,
    /// Which collection.
    pub collection: usize,
}

impl Unit {
    /// This hour of that collection.
    pub fn new(hour: Hour, collection: usize) -> Unit {
        Unit {
            newest_first: Reverse(hour),
            collection,
        }
    }

    /// Which hour.
    pub fn hour(&self) -> Hour {
        self.newest_first.0
    }
}

/// A listing that a node is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// The hours of a collection.
    Hours(usize),
    /// The segments of an hour.
    Segments(Unit),
}

/// Something for a worker to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Ask for a listing.
    List(List),
    /// Fetch a segment.
    Fetch(Unit, SegmentName),
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

/// Something final, to be told to the person who runs the pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The node is not asked any more in this pass.
    NodeGivenUp(NodeId, String),
    /// The node could not give this listing.
    ListingFailed(NodeId, List, String),
    /// No node could give this segment; the last that failed, and how.
    SegmentFailed(Unit, SegmentName, NodeId, String),
    /// Each node that listed this segment says that it's gone.
    SegmentVanished(Unit, SegmentName),
}

/// How failures are met.
pub struct Policy {
    /// How many further tries a request gets that failed in passing.
    pub retries: u32,
    /// How long to wait before the n-th further try, n from 1.
    pub backoff: Box<dyn FnMut(u32) -> Duration + Send>,
    /// Whether what landed is found on the disk by whoever looks there later. In a dry run it
    /// isn't, so each hour stays open until every node has listed it.
    pub lands_on_disk: bool,
}

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NodeSet(u128);

impl NodeSet {
    fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << node;
    }

    fn remove(&mut self, node: NodeId) {
        self.0 &= !(1 << node);
    }

    fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node) != 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn and(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & other.0)
    }

    fn without(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..MAX_NODES).filter(move |&node| self.contains(node))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Wanted: waiting for a worker, or with one.
    Open,
    /// It is here, or nothing more is to be done about it.
    Done,
    /// It could not be had, from the nodes that have listed it so far.
    Lost,
}

/// A segment that was wanted when it was listed.
#[derive(Debug)]
struct Wanted {
    state: State,
    /// The nodes that have it, as far as is known.
    holders: NodeSet,
    /// Those that failed to give it in this round of tries.
    tried: NodeSet,
    /// Those that are giving it now.
    fetchers: NodeSet,
    /// How many rounds of tries have failed.
    rounds: u32,
    /// The last failure that says more than that it's gone.
    failure: Option<(NodeId, String)>,
}

impl Wanted {
    fn of(holder: NodeId) -> Wanted {
        let mut holders = NodeSet::default();
        holders.insert(holder);
        Wanted {
            state: State::Open,
            holders,
            tried: NodeSet::default(),
            fetchers: NodeSet::default(),
            rounds: 0,
            failure: None,
        }
    }

    fn is_free_for(&self, node: NodeId) -> bool {
        self.state == State::Open
            && self.fetchers.is_empty()
            && self.holders.without(self.tried).contains(node)
    }
}

/// An open hour.
#[derive(Debug)]
struct OpenHour {
    segments: IndexMap<SegmentName, Wanted>,
    /// For each node, the segments that it may be asked for, in order. Some entries are stale:
    /// what was taken by another node meanwhile is passed over when its turn comes.
    queues: Vec<VecDeque<usize>>,
    /// How many nodes are listing it right now.
    listings: usize,
    open: usize,
    lost: usize,
}

impl OpenHour {
    fn new(nodes: usize) -> OpenHour {
        OpenHour {
            segments: IndexMap::new(),
            queues: vec![VecDeque::new(); nodes],
            listings: 0,
            open: 0,
            lost: 0,
        }
    }
}

#[derive(Debug, Default)]
struct NodeState {
    given_up: bool,
    answered: bool,
    hours_to_list: VecDeque<usize>,
    to_list: BTreeSet<Unit>,
    /// The listings under way.
    listing: Vec<List>,
    /// Listings that failed in passing, and when to try them again.
    again: Vec<(Instant, List)>,
    tries: HashMap<List, u32>,
    /// The hours in which something may be in the node's queue.
    ready: BTreeSet<Unit>,
    /// Segments to try again, and when.
    delayed: Vec<(Instant, Unit, usize)>,
    in_flight: usize,
    /// Incidents in a row in which the node as a whole failed, and when the last began.
    strikes: u32,
    struck: Option<Instant>,
    not_before: Option<Instant>,
    failures_in_a_row: u32,
    last_success: Option<Instant>,
}

impl NodeState {
    fn is_idle(&self) -> bool {
        self.in_flight == 0
            && self.hours_to_list.is_empty()
            && self.to_list.is_empty()
            && self.again.is_empty()
    }

    /// Whether the node has listed this hour, or has nothing of it to list.
    fn is_through_with(&self, unit: Unit) -> bool {
        let hours = List::Hours(unit.collection);
        let pending = |list| self.listing.contains(&list) || self.again.iter().any(|a| a.1 == list);
        !self.hours_to_list.contains(&unit.collection)
            && !self.to_list.contains(&unit)
            && !pending(hours)
            && !pending(List::Segments(unit))
    }
}

/// The state of a pass, as far as it decides what is done next.
pub struct Scheduler {
    nodes: Vec<NodeState>,
    alive: NodeSet,
    hours: BTreeMap<Unit, OpenHour>,
    policy: Policy,
    verdicts: Vec<Verdict>,
    changed: bool,
}

impl Scheduler {
    /// A pass over so many nodes (at most [`MAX_NODES`]) and collections.
    pub fn new(nodes: usize, collections: usize, policy: Policy) -> Scheduler {
        assert!(nodes <= MAX_NODES, "a NodeSet holds {MAX_NODES}");
        let mut alive = NodeSet::default();
        (0..nodes).for_each(|node| alive.insert(node));
        let node = || NodeState {
            hours_to_list: (0..collections).collect(),
            ..Default::default()
        };
        Scheduler {
            nodes: (0..nodes).map(|_| node()).collect(),
            alive,
            hours: BTreeMap::new(),
            policy,
            verdicts: Vec::new(),
            changed: false,
        }
    }

    /// What a worker of this node does next.
    pub fn next(&mut self, id: NodeId, now: Instant) -> Next {
        if self.nodes[id].given_up || self.is_finished() {
            return Next::Finished;
        }
        if let Some(at) = self.nodes[id].not_before.filter(|at| *at > now) {
            return Next::Wait(Some(at));
        }
        self.end_delays(id, now);
        let task = self.next_hours_to_list(id, now);
        let task = task.or_else(|| self.next_segment(id));
        match task.or_else(|| self.next_segments_to_list(id, now)) {
            Some(task) => {
                self.nodes[id].in_flight += 1;
                Next::Do(task)
            }
            None => {
                let node = &self.nodes[id];
                let delayed = node.delayed.iter().map(|delayed| delayed.0);
                Next::Wait(delayed.chain(node.again.iter().map(|again| again.0)).min())
            }
        }
    }

    /// Whether nothing is left to be done.
    pub fn is_finished(&self) -> bool {
        let idle = |node: &NodeState| node.given_up || node.is_idle();
        self.hours.is_empty() && self.nodes.iter().all(idle)
    }

    /// What became final since this was last asked.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    /// Whether waiting workers may find something new since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether any node has answered anything.
    pub fn any_answered(&self) -> bool {
        self.nodes.iter().any(|node| node.answered)
    }

    fn next_hours_to_list(&mut self, id: NodeId, now: Instant) -> Option<Task> {
        let is_hours = |list: &List| matches!(list, List::Hours(_));
        let again = self.take_again(id, now, is_hours);
        let list = again.or_else(|| self.nodes[id].hours_to_list.pop_front().map(List::Hours))?;
        Some(self.start_listing(id, list))
    }

    fn next_segments_to_list(&mut self, id: NodeId, now: Instant) -> Option<Task> {
        let again = self.take_again(id, now, |_| true);
        let list = again.or_else(|| self.nodes[id].to_list.pop_first().map(List::Segments))?;
        Some(self.start_listing(id, list))
    }

    fn take_again(&mut self, id: NodeId, now: Instant, which: fn(&List) -> bool) -> Option<List> {
        let again = &mut self.nodes[id].again;
        let due = again
            .iter()
            .position(|(at, list)| *at <= now && which(list))?;
        Some(again.swap_remove(due).1)
    }

    fn start_listing(&mut self, id: NodeId, list: List) -> Task {
        self.nodes[id].listing.push(list);
        if let List::Segments(unit) = list {
            let nodes = self.nodes.len();
            let hour = self
                .hours
                .entry(unit)
                .or_insert_with(|| OpenHour::new(nodes));
            hour.listings += 1;
        }
        Task::List(list)
    }

    fn end_delays(&mut self, id: NodeId, now: Instant) {
        let due = self.nodes[id]
            .delayed
            .extract_if(.., |delayed| delayed.0 <= now);
        for (_, unit, index) in due.collect::<Vec<_>>() {
            self.enqueue_first(id, unit, index);
        }
    }

    fn enqueue_first(&mut self, id: NodeId, unit: Unit, index: usize) {
        if let Some(hour) = self.hours.get_mut(&unit) {
            hour.queues[id].push_front(index);
            self.nodes[id].ready.insert(unit);
            self.changed = true;
        }
    }

    fn next_segment(&mut self, id: NodeId) -> Option<Task> {
        while let Some(&unit) = self.nodes[id].ready.first() {
            if let Some(hour) = self.hours.get_mut(&unit) {
                while let Some(index) = hour.queues[id].pop_front() {
                    match hour.segments.get_index_mut(index) {
                        Some((name, wanted)) if wanted.is_free_for(id) => {
                            wanted.fetchers.insert(id);
                            return Some(Task::Fetch(unit, name.clone()));
                        }
                        _ => {}
                    }
                }
            }
            self.nodes[id].ready.pop_first();
        }
        None
    }

    /// A node has answered with the hours of a collection; those that are selected.
    pub fn hours_listed(
        &mut self,
        id: NodeId,
        collection: usize,
        hours: impl IntoIterator<Item = Hour>,
        now: Instant,
    ) {
        if !self.end(id, Some(List::Hours(collection))) {
            return;
        }
        self.succeeded(id, now);
        let units = hours.into_iter().map(|hour| Unit::new(hour, collection));
        self.nodes[id].to_list.extend(units);
        self.changed = true;
        self.close_settled_hours();
    }

    /// A node has listed an hour, and of that these are wanted, in this order: they were not here
    /// when that was looked up, which must have been after the task was given out. Says how many
    /// of them were not wanted before.
    pub fn segments_listed(
        &mut self,
        id: NodeId,
        unit: Unit,
        wanted: Vec<SegmentName>,
        now: Instant,
    ) -> usize {
        if !self.end(id, Some(List::Segments(unit))) {
            return 0;
        }
        self.succeeded(id, now);
        let Some(hour) = self.hours.get_mut(&unit) else {
            return 0;
        };
        let mut new = 0;
        for name in wanted {
            let index = match hour.segments.entry(name) {
                Entry::Vacant(vacant) => {
                    new += 1;
                    hour.open += 1;
                    let index = vacant.index();
                    vacant.insert(Wanted::of(id));
                    index
                }
                Entry::Occupied(mut known) => {
                    let index = known.index();
                    let known = known.get_mut();
                    match known.state {
                        State::Open => known.holders.insert(id),
                        State::Done => continue,
                        State::Lost => {
                            *known = Wanted {
                                failure: known.failure.take(),
                                ..Wanted::of(id)
                            };
                            hour.lost -= 1;
                            hour.open += 1;
                        }
                    }
                    index
                }
            };
            hour.queues[id].push_back(index);
        }
        if !hour.queues[id].is_empty() {
            self.nodes[id].ready.insert(unit);
            self.changed = true;
        }
        self.close_if_settled(unit);
        new
    }

    /// A node has done its part for this segment: it is here now, or nothing more is to be done
    /// about it in this pass.
    pub fn segment_done(&mut self, id: NodeId, unit: Unit, name: &SegmentName, now: Instant) {
        if self.end(id, None) {
            self.succeeded(id, now);
        }
        let Some(hour) = self.hours.get_mut(&unit) else {
            return;
        };
        let Some(wanted) = hour.segments.get_mut(name) else {
            return;
        };
        wanted.fetchers.remove(id);
        match std::mem::replace(&mut wanted.state, State::Done) {
            State::Open => hour.open -= 1,
            State::Lost => hour.lost -= 1,
            State::Done => {}
        }
        self.close_if_settled(unit);
    }

    /// A task of this node failed. `begun` is when it was given out.
    pub fn failed(
        &mut self,
        id: NodeId,
        task: &Task,
        error: &NodeError,
        begun: Instant,
        now: Instant,
    ) {
        let list = match task {
            Task::List(list) => Some(*list),
            Task::Fetch(..) => None,
        };
        if !self.end(id, list) {
            return;
        }
        if let Task::Fetch(unit, name) = task {
            self.fetch_failed(id, *unit, name, error, now);
        }
        self.judge_node(id, error, begun, now);
        // That a node was given up says enough of its listings.
        if let (Task::List(list), false) = (task, self.nodes[id].given_up) {
            self.listing_failed(id, *list, error, now);
        }
        self.close_settled_hours();
    }

    /// Notes that a task is over; says whether its node still counts.
    fn end(&mut self, id: NodeId, list: Option<List>) -> bool {
        let node = &mut self.nodes[id];
        if node.given_up {
            return false;
        }
        node.in_flight -= 1;
        self.changed |= node.in_flight == 0;
        if let Some(list) = list {
            node.listing.retain(|under_way| *under_way != list);
            self.stop_listing(list);
        }
        true
    }

    fn stop_listing(&mut self, list: List) {
        if let List::Segments(unit) = list
            && let Some(hour) = self.hours.get_mut(&unit)
        {
            hour.listings -= 1;
        }
    }

    fn succeeded(&mut self, id: NodeId, now: Instant) {
        self.nodes[id].answered = true;
        self.did_well(id, now);
    }

    fn did_well(&mut self, id: NodeId, now: Instant) {
        let node = &mut self.nodes[id];
        node.strikes = 0;
        node.failures_in_a_row = 0;
        node.last_success = Some(now);
    }

    fn listing_failed(&mut self, id: NodeId, list: List, error: &NodeError, now: Instant) {
        let tries = self.nodes[id].tries.entry(list).or_default();
        *tries += 1;
        let tries = *tries;
        if is_lasting(error.trouble) || tries > self.policy.retries {
            self.verdicts
                .push(Verdict::ListingFailed(id, list, error.to_string()));
            return;
        }
        let at = now + (self.policy.backoff)(tries);
        self.nodes[id].again.push((at, list));
    }

    fn fetch_failed(
        &mut self,
        id: NodeId,
        unit: Unit,
        name: &SegmentName,
        error: &NodeError,
        now: Instant,
    ) {
        let Some(hour) = self.hours.get_mut(&unit) else {
            return;
        };
        let Some((index, _, wanted)) = hour.segments.get_full_mut(name) else {
            return;
        };
        wanted.fetchers.remove(id);
        wanted.tried.insert(id);
        if is_lasting(error.trouble) {
            wanted.holders.remove(id);
        }
        if error.trouble != Trouble::Gone {
            wanted.failure = Some((id, error.to_string()));
        }
        self.offer(unit, index, now);
    }

    /// Offers a segment that was not had to the nodes that may still give it: first to those that
    /// have not been asked in this round, then after a while to all of them again.
    fn offer(&mut self, unit: Unit, index: usize, now: Instant) {
        let Some(hour) = self.hours.get_mut(&unit) else {
            return;
        };
        let Some((_, wanted)) = hour.segments.get_index_mut(index) else {
            return;
        };
        if wanted.state != State::Open || !wanted.fetchers.is_empty() {
            return;
        }
        let holders = wanted.holders.and(self.alive);
        let untried = holders.without(wanted.tried);
        if !untried.is_empty() {
            untried
                .iter()
                .for_each(|node| self.enqueue_first(node, unit, index));
            return;
        }
        wanted.rounds += 1;
        if holders.is_empty() || wanted.rounds > self.policy.retries {
            wanted.state = State::Lost;
            hour.open -= 1;
            hour.lost += 1;
            return;
        }
        wanted.tried = NodeSet::default();
        let at = now + (self.policy.backoff)(wanted.rounds);
        holders
            .iter()
            .for_each(|node| self.nodes[node].delayed.push((at, unit, index)));
        self.changed = true;
    }

    /// Draws from a failure what it means for the node as a whole.
    fn judge_node(&mut self, id: NodeId, error: &NodeError, begun: Instant, now: Instant) {
        // If the node did well meanwhile, it was not the node but this request.
        let did_well = self.nodes[id]
            .last_success
            .is_some_and(|success| success > begun);
        match error.trouble {
            Trouble::Unusable => self.give_up(id, error.to_string(), now),
            Trouble::Gone => self.did_well(id, now),
            Trouble::Busy(pause) => self.strike(id, error, pause, begun, now),
            Trouble::Unreachable if !did_well => self.strike(id, error, None, begun, now),
            // Silence costs the pass a whole timeout each time: that is borne again only if there
            // is nobody else to work with meanwhile.
            Trouble::Silent if !did_well && self.another_answered(id) => {
                self.give_up(id, error.to_string(), now);
            }
            Trouble::Silent if !did_well => self.strike(id, error, None, begun, now),
            _ => {
                let node = &mut self.nodes[id];
                node.failures_in_a_row += 1;
                if node.failures_in_a_row >= GIVE_UP_AFTER {
                    let why =
                        format!("{GIVE_UP_AFTER} requests in a row failed, the last: {error}");
                    self.give_up(id, why, now);
                }
            }
        }
    }

    fn another_answered(&self, id: NodeId) -> bool {
        let others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != id);
        others
            .map(|(_, node)| node)
            .any(|node| node.answered && !node.given_up)
    }

    /// Lets the node rest, longer each time in a row, and in the end gives it up.
    fn strike(
        &mut self,
        id: NodeId,
        error: &NodeError,
        pause: Option<Duration>,
        begun: Instant,
        now: Instant,
    ) {
        let node = &mut self.nodes[id];
        // All that was under way when a node fails fails with it: that is one incident.
        if node.struck.is_some_and(|struck| begun < struck) {
            return;
        }
        node.struck = Some(now);
        node.strikes += 1;
        if node.strikes > self.policy.retries {
            self.give_up(id, error.to_string(), now);
            return;
        }
        let backoff = (self.policy.backoff)(node.strikes);
        let rest = pause.map_or(backoff, |pause| pause.max(backoff));
        node.not_before = Some(now + rest.min(MAX_REST));
    }

    fn give_up(&mut self, id: NodeId, why: String, now: Instant) {
        let node = &mut self.nodes[id];
        let listing = std::mem::take(&mut node.listing);
        *node = NodeState {
            given_up: true,
            answered: node.answered,
            ..Default::default()
        };
        self.alive.remove(id);
        self.changed = true;
        self.verdicts.push(Verdict::NodeGivenUp(id, why));
        listing.into_iter().for_each(|list| self.stop_listing(list));
        let units: Vec<Unit> = self.hours.keys().copied().collect();
        for unit in units {
            for index in self.bereave(unit, id) {
                self.offer(unit, index, now);
            }
        }
    }

    /// Takes a node out of an hour; gives back the segments for which that makes a difference.
    fn bereave(&mut self, unit: Unit, id: NodeId) -> Vec<usize> {
        let Some(hour) = self.hours.get_mut(&unit) else {
            return Vec::new();
        };
        hour.queues[id].clear();
        let mut concerned = Vec::new();
        for (index, wanted) in hour.segments.values_mut().enumerate() {
            if wanted.state == State::Open && wanted.holders.contains(id) {
                wanted.holders.remove(id);
                wanted.fetchers.remove(id);
                wanted
                    .failure
                    .get_or_insert((id, "the node was given up".into()));
                concerned.push(index);
            }
        }
        concerned
    }

    fn close_settled_hours(&mut self) {
        let settled = self
            .hours
            .iter()
            .filter(|(_, hour)| hour.listings == 0 && hour.open == 0);
        let settled: Vec<Unit> = settled.map(|(unit, _)| *unit).collect();
        settled
            .into_iter()
            .for_each(|unit| self.close_if_settled(unit));
    }

    /// Closes an hour when nothing of it is in motion. While something of it is lost that a node
    /// may yet turn out to have, it stays open.
    fn close_if_settled(&mut self, unit: Unit) {
        let Some(hour) = self.hours.get(&unit) else {
            return;
        };
        let may_close_early = self.policy.lands_on_disk && hour.lost == 0;
        let all_through = || {
            self.nodes
                .iter()
                .all(|n| n.given_up || n.is_through_with(unit))
        };
        if hour.listings > 0 || hour.open > 0 || !(may_close_early || all_through()) {
            return;
        }
        let Some(hour) = self.hours.remove(&unit) else {
            return;
        };
        let lost = hour
            .segments
            .into_iter()
            .filter(|(_, wanted)| wanted.state == State::Lost);
        self.verdicts
            .extend(lost.map(|(name, wanted)| match wanted.failure {
                Some((node, why)) => Verdict::SegmentFailed(unit, name, node, why),
                None => Verdict::SegmentVanished(unit, name),
            }));
        self.changed = true;
    }
}

/// The longest that a node is let rest, however long it asks for.
const MAX_REST: Duration = Duration::from_secs(60);

/// Whether the same request to the same node would fail again.
fn is_lasting(trouble: Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Gone | Trouble::Refused | Trouble::Corrupt | Trouble::Unusable
    )
}

#[cfg(test)]
mod tests;

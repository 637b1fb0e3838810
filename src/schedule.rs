//! What a node's worker does next. The scheduler is a plain state machine: it is told what
//! happened and asked what is next. It does no I/O and has no clock of its own.
//!
//! It keeps what is in motion and forgets the rest, so its size doesn't grow with the archive: a
//! unit (an hour, or an extra directory) is open from the first listing of it until all that is
//! wanted of it is settled. A node that lists it later opens it anew, with what has landed by then
//! found on the disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use crate::extra::ExtraPath;
use crate::hour::{HOUR_MICROS, Hour};
use crate::node::{NodeError, Trouble};
use crate::progress::{Counts, Standing};
use crate::segment::{CLOCKS_DIFFER, Medium, SegmentHash, SegmentName, SegmentType};
use crate::transfer::Transfer;

/// A node, by its place in the list of nodes.
pub type NodeId = usize;

/// How many nodes a pass can have.
pub const MAX_NODES: usize = 64;

/// A node that fails this many requests in a row is given up, even if it answers each of them. It
/// is generous: with a part of its disk broken, a node still has the rest to give.
const GIVE_UP_AFTER: u32 = 100;

/// What is listed as a whole, in the order in which it's listed: the newest hours first, extra
/// directories at the end. Collections and directories go by their place in their lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// An hour of a collection.
    Hour(Reverse<Hour>, usize),
    /// An extra directory.
    Extras(usize),
}

/// A listing that a node is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// The hours of a collection.
    Hours(usize),
    /// What is in a unit.
    Unit(Unit),
}

/// A file of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// A segment of an hour.
    Segment(SegmentName),
    /// A file of an extra directory.
    Extra(ExtraPath),
}

/// A file to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The unit that it lies in on this node.
    pub unit: Unit,
    /// Its name on this node.
    pub item: Item,
    /// When its unit was last listed, and looked through for what is here.
    pub listed: Instant,
    /// Set once nobody needs it any more: another node was quicker, or this one was given up.
    pub superseded: Transfer,
    /// What it was enlisted as.
    ticket: Ticket,
    /// What the scheduler knows this fetch by.
    number: u64,
}

/// A file by its unit, and its place in that.
type Ticket = (Unit, usize);

/// The place of a file that is done with, and whose unit was closed since.
const FORGOTTEN: usize = usize::MAX;

/// A fetch that is under way.
#[derive(Debug)]
struct Fetching {
    node: NodeId,
    since: Instant,
    ticket: Ticket,
    /// The other name by which its node has the file, if it is not fetched by its own.
    alias: Option<(Unit, Item)>,
    number: u64,
    superseded: Transfer,
}

/// Something for a worker to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Ask for a listing.
    List(List),
    /// Fetch a file.
    Fetch(Fetch),
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
    /// No node could give this file; the last that failed, and how.
    FileFailed(Unit, Item, NodeId, String),
    /// Each node that listed this file says that it's gone.
    FileVanished(Unit, Item),
}

/// Why no node could give a file.
#[allow(dead_code, reason = "not all are told apart yet")]
#[derive(Clone, Debug)]
pub enum Loss {
    /// This node was the last that failed to give it, and how.
    Failed(NodeId, NodeError),
    /// The only node left that has it was given up.
    GivenUp(NodeId),
    /// This node answers 404 for it, and still lists it.
    Withheld(NodeId),
}

/// Why a node was given up.
#[allow(dead_code, reason = "not all are told apart yet")]
#[derive(Clone, Debug)]
pub enum GivenUp {
    /// A request failed that tells of the node as a whole.
    Failed(NodeError),
    /// So many requests in a row failed; the last of them.
    FailedInARow(u32, NodeError),
}

/// How failures are met.
pub struct Policy {
    /// How many further tries a request gets that failed in passing.
    pub retries: u32,
    /// How long to wait before the n-th further try, n from 1.
    pub backoff: Box<dyn FnMut(u32) -> Duration + Send>,
    /// How many files there may be in open units before no more units are opened.
    pub max_open_files: usize,
    /// Whether what landed is found on the disk by whoever looks there later. In a dry run it
    /// isn't, so each unit stays open until every node has listed it.
    pub lands_on_disk: bool,
}

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NodeSet(u64);

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

    fn is_only(self, node: NodeId) -> bool {
        self.0 == 1 << node
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

/// What is equal in two recordings of the same segment by different clocks, and then when it starts
/// (in microseconds since 1970), by which they may differ a little.
type Recording = (usize, SegmentHash, u64, SegmentType, i64);

fn recording(unit: Unit, item: &Item) -> Option<Recording> {
    match (unit, item) {
        (Unit::Hour(hour, collection), Item::Segment(name)) if name.medium() == Medium::Video => {
            let start = hour.0.micros_at(name.start_micros());
            let duration = name.duration_micros();
            Some((collection, name.hash(), duration, name.kind(), start))
        }
        _ => None,
    }
}

/// What was enlisted for a recording, perhaps by another clock.
fn same_recording(of: &BTreeMap<Recording, Ticket>, wanted: Recording) -> Option<Ticket> {
    let (collection, hash, duration, kind, start) = wanted;
    let at = |start| (collection, hash, duration, kind, start);
    let near = at(start - CLOCKS_DIFFER)..=at(start + CLOCKS_DIFFER);
    of.range(near).next().map(|(_, ticket)| *ticket)
}

/// Whether the other recording may belong to another hour.
fn is_at_an_edge((.., start): Recording) -> bool {
    let into = start.rem_euclid(HOUR_MICROS);
    into <= CLOCKS_DIFFER || into >= HOUR_MICROS - CLOCKS_DIFFER
}

/// A file that was wanted when it was listed.
#[derive(Debug)]
struct Wanted {
    state: State,
    /// The nodes that have it, as far as is known, by this name or by an alias.
    holders: NodeSet,
    /// Those that have it by this name.
    by_name: NodeSet,
    /// The names by which nodes have it whose clock gave it another start.
    aliases: Vec<(NodeId, Unit, Item)>,
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
    fn new() -> Wanted {
        Wanted {
            state: State::Open,
            holders: NodeSet::default(),
            by_name: NodeSet::default(),
            aliases: Vec::new(),
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

    /// Whether it is this that was to be fetched, by whatever name.
    fn is_called(&self, unit: Unit, item: &Item, fetch: &Fetch) -> bool {
        let alias =
            |(_, unit, item): &(NodeId, Unit, Item)| (*unit, item) == (fetch.unit, &fetch.item);
        (unit, item) == (fetch.unit, &fetch.item) || self.aliases.iter().any(alias)
    }

    /// By which other name a node has it, if it doesn't have it by its own.
    fn alias_for(&self, node: NodeId) -> Option<(Unit, Item)> {
        let mut aliases = self.aliases.iter().filter(|_| !self.by_name.contains(node));
        let (_, unit, item) = aliases.find(|alias| alias.0 == node)?;
        Some((*unit, item.clone()))
    }

    /// Notes that a node doesn't have it by this name, and that it's no holder if it has it by no
    /// other.
    fn forget_name(&mut self, node: NodeId, unit: Unit, item: &Item, is_own_name: bool) {
        match is_own_name {
            true => self.by_name.remove(node),
            false => self.aliases.retain(|(n, u, i)| (*n, *u, i) != (node, unit, item)),
        }
        if !self.by_name.contains(node) && !self.aliases.iter().any(|alias| alias.0 == node) {
            self.holders.remove(node);
        }
    }
}

/// A unit of which something is in motion.
#[derive(Debug)]
struct OpenUnit {
    files: IndexMap<Item, Wanted>,
    /// The segments that were deleted on purpose, as a node has it.
    deleted: HashSet<SegmentName>,
    /// For each node, the files that it may be asked for, in order. Some entries are stale:
    /// what was taken by another node meanwhile is passed over when its turn comes.
    queues: Vec<VecDeque<usize>>,
    /// How many nodes are listing it right now.
    listings: usize,
    /// When a listing of it was last asked for.
    listed: Instant,
    open: usize,
    lost: usize,
}

impl OpenUnit {
    fn new(nodes: usize, now: Instant) -> OpenUnit {
        OpenUnit {
            files: IndexMap::new(),
            deleted: HashSet::new(),
            queues: vec![VecDeque::new(); nodes],
            listings: 0,
            listed: now,
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
    /// The units in which something may be in the node's queue.
    ready: BTreeSet<Unit>,
    /// Files to try again, and when.
    delayed: Vec<(Instant, Ticket)>,
    in_flight: usize,
    /// Incidents in a row in which the node as a whole failed, and when the last began.
    strikes: u32,
    struck: Option<Instant>,
    not_before: Option<Instant>,
    /// How long it was let rest, less what it has earned since by doing well.
    rested: Duration,
    failures_in_a_row: u32,
    /// How long it takes to give a file: a mean in which the latest ones weigh most.
    takes: Option<Duration>,
    last_success: Option<Instant>,
}

impl NodeState {
    fn is_idle(&self) -> bool {
        self.in_flight == 0
            && self.hours_to_list.is_empty()
            && self.to_list.is_empty()
            && self.again.is_empty()
    }

    /// Whether the node has listed this unit, or has nothing of it to list.
    fn is_through_with(&self, unit: Unit) -> bool {
        let pending = |list| self.listing.contains(&list) || self.again.iter().any(|a| a.1 == list);
        let hours_pending = |collection| {
            self.hours_to_list.contains(&collection) || pending(List::Hours(collection))
        };
        let not_known = matches!(unit, Unit::Hour(_, collection) if hours_pending(collection));
        !not_known && !self.to_list.contains(&unit) && !pending(List::Unit(unit))
    }
}

/// The state of a pass, as far as it decides what is done next.
pub struct Scheduler {
    nodes: Vec<NodeState>,
    alive: NodeSet,
    units: BTreeMap<Unit, OpenUnit>,
    /// The segments of the open units, by what is recorded in them, and those that were had at the
    /// turns of hours.
    recordings: BTreeMap<Recording, Ticket>,
    /// How many files there are in the open units.
    files: usize,
    /// The fetches that somebody still needs.
    fetching: Vec<Fetching>,
    fetches: u64,
    policy: Policy,
    verdicts: Vec<Verdict>,
    changed: bool,
    progress: Counts,
}

impl Scheduler {
    /// A pass over so many nodes (at most [`MAX_NODES`]), collections and extra directories.
    pub fn new(nodes: usize, collections: usize, extras: usize, policy: Policy) -> Scheduler {
        assert!(nodes <= MAX_NODES, "a NodeSet holds {MAX_NODES}");
        let mut alive = NodeSet::default();
        (0..nodes).for_each(|node| alive.insert(node));
        let node = || NodeState {
            hours_to_list: (0..collections).collect(),
            to_list: (0..extras).map(Unit::Extras).collect(),
            ..Default::default()
        };
        Scheduler {
            nodes: (0..nodes).map(|_| node()).collect(),
            alive,
            units: BTreeMap::new(),
            recordings: BTreeMap::new(),
            files: 0,
            fetching: Vec::new(),
            fetches: 0,
            policy,
            verdicts: Vec::new(),
            changed: false,
            progress: Counts::default(),
        }
    }

    /// How far the pass has come.
    pub fn counts(&self) -> Counts {
        let to_list = |node: &NodeState| {
            let is_unit = |list: &&List| matches!(list, List::Unit(_));
            let again = node.again.iter().map(|(_, list)| list);
            node.to_list.len() + node.listing.iter().chain(again).filter(is_unit).count()
        };
        let to_list: usize = self.nodes.iter().map(to_list).sum();
        Counts { to_list: to_list as u64, ..self.progress }
    }

    /// How it goes with a node.
    pub fn standing(&self, id: NodeId, now: Instant) -> Standing {
        let node = &self.nodes[id];
        match node.not_before.filter(|at| *at > now) {
            _ if node.given_up => Standing::GivenUp,
            Some(at) => Standing::Resting(at),
            None if node.in_flight == 0 => Standing::Idle,
            None => Standing::Busy,
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
        let task = task.or_else(|| self.next_file(id, now));
        let task = task.or_else(|| self.next_unit_to_list(id, now));
        match task.or_else(|| self.next_to_help_with(id, now)) {
            Some(task) => {
                self.nodes[id].in_flight += 1;
                Next::Do(task)
            }
            None => Next::Wait(self.next_event(id)),
        }
    }

    /// When there may be something new for a node, if nothing is reported before.
    fn next_event(&self, id: NodeId) -> Option<Instant> {
        let node = &self.nodes[id];
        let delayed = node.delayed.iter().map(|delayed| delayed.0);
        let again = node.again.iter().map(|again| again.0);
        let stuck = self.fetching.iter().filter(|fetching| self.can_help(id, fetching));
        delayed.chain(again).chain(stuck.map(|fetching| self.is_stuck_from(id, fetching))).min()
    }

    /// Whether nothing is left to be done.
    pub fn is_finished(&self) -> bool {
        let idle = |node: &NodeState| node.given_up || node.is_idle();
        self.units.is_empty() && self.nodes.iter().all(idle)
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
        Some(self.start_listing(id, list, now))
    }

    fn next_unit_to_list(&mut self, id: NodeId, now: Instant) -> Option<Task> {
        let again = self.take_again(id, now, |_| true);
        let list = again.or_else(|| {
            let unit = self.next_listable(id)?;
            self.nodes[id].to_list.remove(&unit);
            Some(List::Unit(unit))
        })?;
        Some(self.start_listing(id, list, now))
    }

    /// The next unit that a node may list: while there is too much in the open ones, only those, so
    /// that they can be closed.
    fn next_listable(&self, id: NodeId) -> Option<Unit> {
        let mut units = self.nodes[id].to_list.iter();
        let has_files = |unit: &&Unit| self.units.get(unit).is_some_and(|u| !u.files.is_empty());
        match self.is_full() {
            true => units.find(has_files).copied(),
            false => units.next().copied(),
        }
    }

    fn is_full(&self) -> bool {
        self.files >= self.policy.max_open_files
    }

    fn take_again(&mut self, id: NodeId, now: Instant, which: fn(&List) -> bool) -> Option<List> {
        let again = &mut self.nodes[id].again;
        let due = again.iter().position(|(at, list)| *at <= now && which(list))?;
        Some(again.swap_remove(due).1)
    }

    fn start_listing(&mut self, id: NodeId, list: List, now: Instant) -> Task {
        self.nodes[id].listing.push(list);
        if let List::Unit(unit) = list {
            let nodes = self.nodes.len();
            let open = self.units.entry(unit);
            let open = open.or_insert_with(|| OpenUnit::new(nodes, now));
            open.listings += 1;
        }
        Task::List(list)
    }

    fn end_delays(&mut self, id: NodeId, now: Instant) {
        let due = self.nodes[id].delayed.extract_if(.., |delayed| delayed.0 <= now);
        for (_, ticket) in due.collect::<Vec<_>>() {
            self.enqueue_first(id, ticket);
        }
    }

    fn enqueue_first(&mut self, id: NodeId, (unit, index): Ticket) {
        if let Some(open) = self.units.get_mut(&unit) {
            open.queues[id].push_front(index);
            self.nodes[id].ready.insert(unit);
            self.changed = true;
        }
    }

    fn next_file(&mut self, id: NodeId, now: Instant) -> Option<Task> {
        while let Some(&unit) = self.nodes[id].ready.first() {
            if let Some(open) = self.units.get_mut(&unit) {
                while let Some(index) = open.queues[id].pop_front() {
                    let wanted = open.files.get_index(index);
                    if wanted.is_some_and(|(_, wanted)| wanted.is_free_for(id)) {
                        return self.start_fetch(id, (unit, index), now);
                    }
                }
            }
            self.nodes[id].ready.pop_first();
        }
        None
    }

    fn start_fetch(&mut self, id: NodeId, ticket: Ticket, now: Instant) -> Option<Task> {
        let (unit, index) = ticket;
        let open = self.units.get_mut(&unit)?;
        let listed = open.listed;
        let (item, wanted) = open.files.get_index_mut(index)?;
        wanted.fetchers.insert(id);
        let alias = wanted.alias_for(id);
        let (unit, item) = alias.clone().unwrap_or_else(|| (unit, item.clone()));
        self.fetches += 1;
        let (number, superseded) = (self.fetches, Transfer::default());
        let cut = superseded.clone();
        self.fetching.push(Fetching {
            node: id,
            since: now,
            ticket,
            alias,
            number,
            superseded: cut,
        });
        Some(Task::Fetch(Fetch { unit, item, listed, superseded, ticket, number }))
    }

    /// A file that a slower node is still at, when this one has nothing else to do. The first whole
    /// copy wins.
    fn next_to_help_with(&mut self, id: NodeId, now: Instant) -> Option<Task> {
        let could_help = self.fetching.iter().filter(|fetching| self.can_help(id, fetching));
        let would_gain = could_help.filter(|fetching| {
            self.is_slower_than(id, fetching, now) || self.is_stuck_from(id, fetching) <= now
        });
        // The one that was begun last has the longest way to go.
        let ticket = would_gain.max_by_key(|fetching| fetching.since)?.ticket;
        self.start_fetch(id, ticket, now)
    }

    fn can_help(&self, id: NodeId, fetching: &Fetching) -> bool {
        let (unit, index) = fetching.ticket;
        let wanted = self.units.get(&unit).and_then(|open| open.files.get_index(index));
        wanted.is_some_and(|(_, wanted)| {
            wanted.state == State::Open
                && wanted.fetchers.is_only(fetching.node)
                && wanted.holders.without(wanted.tried).contains(id)
                && fetching.node != id
        })
    }

    /// Whether a fetch is expected to last so long that this node would be through before, with
    /// something to spare: what is fetched twice costs twice.
    fn is_slower_than(&self, id: NodeId, fetching: &Fetching, now: Instant) -> bool {
        match (self.nodes[id].takes, self.nodes[fetching.node].takes) {
            (Some(ours), Some(theirs)) => {
                now + ours.mul_f32(1.5) + HELP_MARGIN < fetching.since + theirs
            }
            _ => false,
        }
    }

    /// When a fetch will have lasted far longer than both its node and this one take.
    fn is_stuck_from(&self, id: NodeId, fetching: &Fetching) -> Instant {
        let takes = self.nodes[id].takes.max(self.nodes[fetching.node].takes);
        fetching.since + takes.unwrap_or_default() * 3 + STUCK_MARGIN
    }

    /// A node has answered with the hours of a collection; those that are selected.
    pub fn hours_listed(
        &mut self,
        id: NodeId,
        collection: usize,
        hours: impl IntoIterator<Item = Hour>,
        now: Instant,
    ) {
        if !self.end_listing(id, List::Hours(collection)) {
            return;
        }
        self.succeeded(id, now);
        let units = hours.into_iter().map(|hour| Unit::Hour(Reverse(hour), collection));
        self.nodes[id].to_list.extend(units);
        self.changed = true;
        self.close_settled_units();
    }

    /// These segments of an hour were deleted on purpose, as a node lists it, or as is found on the
    /// disk. Says which of them were not known, so that they are to be created.
    pub fn deleted(
        &mut self,
        unit: Unit,
        names: Vec<SegmentName>,
        now: Instant,
    ) -> Vec<SegmentName> {
        let is_new = |name: &SegmentName| match self.units.get_mut(&unit) {
            Some(open) => open.deleted.insert(name.clone()),
            None => true,
        };
        let new: Vec<SegmentName> = names.into_iter().filter(is_new).collect();
        for name in &new {
            self.forget_deleted(unit, &Item::Segment(name.clone()), now);
        }
        new
    }

    /// What was deleted is not fetched by that name any more. By another that a node has it by, it
    /// still is: only that one name was deleted.
    fn forget_deleted(&mut self, unit: Unit, item: &Item, now: Instant) {
        let index = self.units.get(&unit).and_then(|open| open.files.get_index_of(item));
        if let Some(index) = index {
            return self.drop_deleted((unit, index), now);
        }
        let recording = recording(unit, item);
        let Some(ticket) = recording.and_then(|r| same_recording(&self.recordings, r)) else {
            return;
        };
        let name = Some((unit, item.clone()));
        let by_this_name =
            |fetching: &Fetching| fetching.ticket == ticket && fetching.alias == name;
        let cut = self.supersede(by_this_name);
        let open = self.units.get_mut(&ticket.0);
        if let Some((_, wanted)) = open.and_then(|open| open.files.get_index_mut(ticket.1)) {
            cut.into_iter().for_each(|node| wanted.fetchers.remove(node));
            (0..MAX_NODES).for_each(|node| wanted.forget_name(node, unit, item, false));
            self.offer(ticket, now);
        }
    }

    /// A wanted file was deleted by the name that it was enlisted by.
    fn drop_deleted(&mut self, (unit, index): Ticket, now: Instant) {
        // If it's done it is here by one of its names.
        if self.mark_done((unit, index)) == State::Done {
            return;
        }
        let open = self.units.get_mut(&unit);
        let Some((item, wanted)) = open.and_then(|open| open.files.get_index_mut(index)) else {
            return;
        };
        let aliases = std::mem::take(&mut wanted.aliases);
        if let Some(recording) = recording(unit, item) {
            self.recordings.remove(&recording);
        }
        for (node, unit, item) in aliases {
            let nodes = self.nodes.len();
            self.units.entry(unit).or_insert_with(|| OpenUnit::new(nodes, now));
            self.enlist(node, unit, item, &mut Vec::new());
        }
    }

    /// A file that was fetched turned out to have been deleted on purpose.
    pub fn forbidden(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        self.succeeded(id, now);
        if let Item::Segment(name) = &fetch.item {
            self.deleted(fetch.unit, vec![name.clone()], now);
        }
        self.close_settled_units();
    }

    /// A node has listed a unit, and of that these files are wanted, in this order: they were not
    /// here when that was looked up, which must have been after the task was given out. Gives back
    /// those that are the same as a wanted one but for the clock, so are not wanted too.
    pub fn listed(
        &mut self,
        id: NodeId,
        unit: Unit,
        wanted: impl IntoIterator<Item = Item>,
        now: Instant,
    ) -> Vec<Item> {
        let mut near_duplicates = Vec::new();
        if !self.end_listing(id, List::Unit(unit)) {
            return near_duplicates;
        }
        self.succeeded(id, now);
        let mut wanted = wanted.into_iter().peekable();
        let is_empty = self.units.get(&unit).is_none_or(|open| open.files.is_empty());
        if self.is_full() && is_empty && wanted.peek().is_some() {
            // Too many were listed at a time: this one again, later.
            self.nodes[id].to_list.insert(unit);
        } else {
            wanted.for_each(|item| self.enlist(id, unit, item, &mut near_duplicates));
            self.progress.listed += 1;
        }
        self.close_if_settled(unit);
        near_duplicates
    }

    fn enlist(&mut self, id: NodeId, unit: Unit, item: Item, near_duplicates: &mut Vec<Item>) {
        let Some(open) = self.units.get_mut(&unit) else {
            return;
        };
        if let Item::Segment(name) = &item
            && open.deleted.contains(name)
        {
            return;
        }
        if let Some(index) = open.files.get_index_of(&item) {
            return self.add_holder(id, (unit, index), None);
        }
        let recording = recording(unit, &item);
        if let Some(ticket) =
            recording.and_then(|recording| same_recording(&self.recordings, recording))
        {
            near_duplicates.push(item.clone());
            return self.add_holder(id, ticket, Some((id, unit, item)));
        }
        let (index, _) = open.files.insert_full(item, Wanted::new());
        open.open += 1;
        self.files += 1;
        self.progress.wanted += 1;
        if let Some(recording) = recording {
            self.recordings.insert(recording, (unit, index));
        }
        self.add_holder(id, (unit, index), None);
    }

    /// A node turns out to have a file that was enlisted before, perhaps by another name.
    fn add_holder(
        &mut self,
        id: NodeId,
        (unit, index): Ticket,
        alias: Option<(NodeId, Unit, Item)>,
    ) {
        let Some(open) = self.units.get_mut(&unit) else {
            return;
        };
        let Some((_, wanted)) = open.files.get_index_mut(index) else {
            return;
        };
        match wanted.state {
            State::Done => return,
            State::Open => {}
            State::Lost => {
                *wanted = Wanted { failure: wanted.failure.take(), ..Wanted::new() };
                open.lost -= 1;
                open.open += 1;
                self.progress.settled -= 1;
            }
        }
        match alias {
            None => wanted.by_name.insert(id),
            Some(alias) if wanted.aliases.contains(&alias) => {}
            Some(alias) => wanted.aliases.push(alias),
        }
        wanted.holders.insert(id);
        open.queues[id].push_back(index);
        self.nodes[id].ready.insert(unit);
        self.changed = true;
    }

    /// A node has done its part for this file: it is here now, or nothing more is to be done about
    /// it in this pass.
    pub fn file_done(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        if let Some(since) = self.end_fetch(fetch) {
            self.succeeded(id, now);
            let (took, takes) = (now - since, &mut self.nodes[id].takes);
            *takes = Some(takes.map_or(took, |takes| (takes * 7 + took) / 8));
        }
        let (unit, index) = fetch.ticket;
        let found = self.units.get(&unit).and_then(|open| open.files.get_index(index));
        // If nobody needed it any more, the unit may have been closed and opened anew since.
        if found.is_some_and(|(item, wanted)| wanted.is_called(unit, item, fetch)) {
            self.mark_done(fetch.ticket);
        }
        self.close_if_settled(unit);
    }

    /// Nothing more is to be done about a file, by nobody. Says how it stood before.
    fn mark_done(&mut self, ticket: Ticket) -> State {
        self.supersede(|fetching| fetching.ticket == ticket);
        let (unit, index) = ticket;
        let Some(open) = self.units.get_mut(&unit) else {
            return State::Done;
        };
        let Some((_, wanted)) = open.files.get_index_mut(index) else {
            return State::Done;
        };
        wanted.fetchers = NodeSet::default();
        let before = std::mem::replace(&mut wanted.state, State::Done);
        match before {
            State::Open => {
                open.open -= 1;
                self.progress.settled += 1;
            }
            State::Lost => open.lost -= 1,
            State::Done => {}
        }
        before
    }

    /// Forgets a fetch; says since when it was under way, if anybody still needed it.
    fn end_fetch(&mut self, fetch: &Fetch) -> Option<Instant> {
        let at = self.fetching.iter().position(|fetching| fetching.number == fetch.number)?;
        let ended = self.fetching.swap_remove(at);
        self.release(ended.node);
        Some(ended.since)
    }

    fn release(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        node.in_flight -= 1;
        self.changed |= node.in_flight == 0;
    }

    /// Tells the workers at these fetches that nobody needs them any more.
    /// Says whose workers those are.
    fn supersede(&mut self, which: impl Fn(&Fetching) -> bool) -> Vec<NodeId> {
        let ended = self.fetching.extract_if(.., |fetching| which(fetching)).collect::<Vec<_>>();
        ended.iter().for_each(|ended| {
            ended.superseded.supersede();
            self.release(ended.node);
        });
        ended.into_iter().map(|ended| ended.node).collect()
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
        match task {
            Task::List(list) if !self.end_listing(id, *list) => return,
            Task::Fetch(fetch) if self.end_fetch(fetch).is_none() => return,
            Task::Fetch(fetch) => self.fetch_failed(id, fetch, error, now),
            Task::List(_) => {}
        }
        self.nodes[id].answered |= error.answered;
        self.judge_node(id, error, begun, now);
        // That a node was given up says enough of its listings.
        if let (Task::List(list), false) = (task, self.nodes[id].given_up) {
            self.listing_failed(id, *list, error, now);
        }
        self.close_settled_units();
    }

    /// Notes that a listing is over; says whether its node still counts.
    fn end_listing(&mut self, id: NodeId, list: List) -> bool {
        let node = &mut self.nodes[id];
        if node.given_up {
            return false;
        }
        node.listing.retain(|under_way| *under_way != list);
        self.release(id);
        self.stop_listing(list);
        true
    }

    fn stop_listing(&mut self, list: List) {
        if let List::Unit(unit) = list
            && let Some(open) = self.units.get_mut(&unit)
        {
            open.listings -= 1;
        }
    }

    fn succeeded(&mut self, id: NodeId, now: Instant) {
        self.nodes[id].answered = true;
        self.did_well(id, now);
    }

    fn did_well(&mut self, id: NodeId, now: Instant) {
        let node = &mut self.nodes[id];
        node.strikes = 0;
        node.rested = node.rested.saturating_sub(REST_EARNED);
        node.failures_in_a_row = 0;
        node.last_success = Some(now);
    }

    fn listing_failed(&mut self, id: NodeId, list: List, error: &NodeError, now: Instant) {
        let tries = self.nodes[id].tries.entry(list).or_default();
        *tries += 1;
        let tries = *tries;
        if is_lasting(error.trouble) || tries > self.policy.retries {
            self.verdicts.push(Verdict::ListingFailed(id, list, error.to_string()));
            self.progress.listed += u64::from(matches!(list, List::Unit(_)));
            return;
        }
        let at = now + (self.policy.backoff)(tries);
        self.nodes[id].again.push((at, list));
    }

    fn fetch_failed(&mut self, id: NodeId, fetch: &Fetch, error: &NodeError, now: Instant) {
        let (unit, index) = fetch.ticket;
        let Some(open) = self.units.get_mut(&unit) else {
            return;
        };
        let Some((item, wanted)) = open.files.get_index_mut(index) else {
            return;
        };
        wanted.fetchers.remove(id);
        if error.trouble != Trouble::Gone {
            wanted.failure = Some((id, error.to_string()));
        }
        if is_lasting(error.trouble) {
            let is_own_name = (unit, item) == (fetch.unit, &fetch.item);
            wanted.forget_name(id, fetch.unit, &fetch.item, is_own_name);
        } else {
            wanted.tried.insert(id);
        }
        self.offer(fetch.ticket, now);
    }

    /// Offers a file that was not had to the nodes that may still give it: first to those that have
    /// not been asked in this round, then after a while to all of them again.
    fn offer(&mut self, ticket: Ticket, now: Instant) {
        let (unit, index) = ticket;
        let Some(open) = self.units.get_mut(&unit) else {
            return;
        };
        let Some((_, wanted)) = open.files.get_index_mut(index) else {
            return;
        };
        if wanted.state != State::Open || !wanted.fetchers.is_empty() {
            return;
        }
        let holders = wanted.holders.and(self.alive);
        let untried = holders.without(wanted.tried);
        if !untried.is_empty() {
            untried.iter().for_each(|node| self.enqueue_first(node, ticket));
            return;
        }
        wanted.rounds += 1;
        if holders.is_empty() || wanted.rounds > self.policy.retries {
            wanted.state = State::Lost;
            open.open -= 1;
            open.lost += 1;
            self.progress.settled += 1;
            return;
        }
        wanted.tried = NodeSet::default();
        let at = now + (self.policy.backoff)(wanted.rounds);
        holders.iter().for_each(|node| self.nodes[node].delayed.push((at, ticket)));
        self.changed = true;
    }

    /// Draws from a failure what it means for the node as a whole.
    fn judge_node(&mut self, id: NodeId, error: &NodeError, begun: Instant, now: Instant) {
        // If the node did well meanwhile, it was not the node but this request.
        let did_well = self.nodes[id].last_success.is_some_and(|success| success > begun);
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
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != id);
        others.map(|(_, node)| node).any(|node| node.answered && !node.given_up)
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
        let rest = pause.map_or(backoff, |pause| pause.max(backoff)).min(MAX_REST);
        if node.rested + rest > MAX_REST {
            self.give_up(id, error.to_string(), now);
            return;
        }
        node.rested += rest;
        node.not_before = Some(now + rest);
    }

    fn give_up(&mut self, id: NodeId, why: String, now: Instant) {
        self.supersede(|fetching| fetching.node == id);
        let node = &mut self.nodes[id];
        let listing = std::mem::take(&mut node.listing);
        *node = NodeState { given_up: true, answered: node.answered, ..Default::default() };
        self.alive.remove(id);
        self.changed = true;
        self.verdicts.push(Verdict::NodeGivenUp(id, why));
        listing.into_iter().for_each(|list| self.stop_listing(list));
        let units: Vec<Unit> = self.units.keys().copied().collect();
        for unit in units {
            for index in self.bereave(unit, id) {
                self.offer((unit, index), now);
            }
        }
    }

    /// Takes a node out of a unit; gives back the files for which that makes a difference.
    fn bereave(&mut self, unit: Unit, id: NodeId) -> Vec<usize> {
        let Some(open) = self.units.get_mut(&unit) else {
            return Vec::new();
        };
        open.queues[id].clear();
        let mut concerned = Vec::new();
        for (index, wanted) in open.files.values_mut().enumerate() {
            if wanted.state == State::Open && wanted.holders.contains(id) {
                wanted.holders.remove(id);
                wanted.fetchers.remove(id);
                wanted.failure.get_or_insert_with(|| (id, "the node was given up".into()));
                concerned.push(index);
            }
        }
        concerned
    }

    fn close_settled_units(&mut self) {
        let settled = self.units.iter().filter(|(_, open)| open.listings == 0 && open.open == 0);
        let settled: Vec<Unit> = settled.map(|(unit, _)| *unit).collect();
        settled.into_iter().for_each(|unit| self.close_if_settled(unit));
    }

    /// Closes a unit when nothing of it is in motion. While something of it is lost that a node may
    /// yet turn out to have, it stays open.
    fn close_if_settled(&mut self, unit: Unit) {
        let Some(open) = self.units.get(&unit) else {
            return;
        };
        let may_close_early = self.policy.lands_on_disk && open.lost == 0;
        let all_through = || self.nodes.iter().all(|n| n.given_up || n.is_through_with(unit));
        if open.listings > 0 || open.open > 0 || !(may_close_early || all_through()) {
            return;
        }
        let Some(open) = self.units.remove(&unit) else {
            return;
        };
        self.files -= open.files.len();
        for (item, wanted) in open.files {
            if let Some(recording) = recording(unit, &item) {
                // The hour before or after must still know: it may have looked at the disk before
                // this landed there.
                match wanted.state == State::Done && is_at_an_edge(recording) {
                    true => drop(self.recordings.insert(recording, (unit, FORGOTTEN))),
                    false => drop(self.recordings.remove(&recording)),
                }
            }
            if wanted.state == State::Lost {
                self.verdicts.push(match wanted.failure {
                    Some((node, why)) => Verdict::FileFailed(unit, item, node, why),
                    None => Verdict::FileVanished(unit, item),
                });
            }
        }
        self.changed = true;
    }
}

/// The longest that a node is let rest, however long it asks for, and however often.
const MAX_REST: Duration = Duration::from_secs(60);
/// By how much each success makes up for that, so that a long pass bears a node that is busy now
/// and then.
const REST_EARNED: Duration = Duration::from_millis(100);

/// What a node that helps out must be quicker by, besides a half of what it takes.
const HELP_MARGIN: Duration = Duration::from_millis(100);
/// What a fetch must have lasted to count as stuck, besides three times what is usual.
const STUCK_MARGIN: Duration = Duration::from_secs(1);

/// Whether the same request to the same node would fail again.
fn is_lasting(trouble: Trouble) -> bool {
    matches!(trouble, Trouble::Gone | Trouble::Refused | Trouble::Corrupt | Trouble::Unusable)
}

#[cfg(test)]
mod tests;

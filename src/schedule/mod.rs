//! What a node's worker does next. The scheduler is a plain state machine: it is told what happened
//! and asked what is next. It does no I/O and has no clock of its own.
//!
//! It keeps what is in motion and forgets the rest, so its size doesn't grow with the archive. Its
//! parts know nothing of each other: [`Files`] has the wanted files, [`Health`] how a node does,
//! [`Listings`] what it has still to list, [`InFlight`] the fetches under way. Here they are composed.

mod files;
mod health;
mod in_flight;
mod listings;
mod nodes;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod twins;
mod unit;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hour::Hour;
use crate::node::{NodeError, Trouble};
use crate::segment::SegmentName;
use crate::transfer::Transfer;

use files::{Enlisted, Failure, Fate, FileId, Files, Settled};
use health::{Health, Heard, Judgement, Rules};
use in_flight::InFlight;
use listings::Listings;

pub use files::{Look, Loss};
pub use health::GivenUp;
pub use nodes::{MAX_NODES, NodeId};
pub use unit::{Item, List, Unit};

/// A node that lists more files than this in a row and sends none of them is given up.
const MAX_WITHHELD: usize = 10_000;

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
    file: FileId,
    number: u64,
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
}

/// A name that is not wanted after all, since the look at what is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// It is wanted by another name, or was: this one, while that is known.
    NearDuplicate(Item, Option<Item>),
    /// It was deleted on purpose.
    Deleted(Item),
}

/// How a pass is run.
pub struct Policy {
    /// How often a request that failed in passing is repeated.
    pub retries: u32,
    /// How long to wait before the n-th further try, n from 1.
    pub backoff: Box<dyn FnMut(u32) -> Duration + Send>,
    /// Requests at a time to one node.
    pub jobs: usize,
    /// Listings at a time from one node.
    pub listings: usize,
    /// The longest silence of a node.
    pub timeout: Duration,
    /// How many files may be kept before no more units are opened.
    pub max_files: usize,
    /// Whether what landed is found on the disk by whoever looks there later. In a dry run it isn't,
    /// so each unit stays open until every node has listed it.
    pub lands_on_disk: bool,
    /// Whether a second node may be asked for what a first one is still sending.
    pub hedges: bool,
}

/// How far a pass has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many files were wanted so far.
    pub wanted: u64,
    /// How many of them nothing is left to be done about. Neither ever falls.
    pub settled: u64,
    /// How many listings of hours and extra directories there have been.
    pub listed: u64,
    /// How many are still to come, as far as is known.
    pub to_list: u64,
}

/// What is left undone at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Listings that could not be had.
    pub unlisted: u64,
    /// Nodes that are given up.
    pub given_up: u64,
    /// Whether any node has answered anything.
    pub any_answered: bool,
}

/// How it goes with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Requests are under way.
    Busy,
    /// There is nothing for it to do, or not yet.
    Idle,
    /// It failed, and is left alone until then.
    Resting(Instant),
    /// It is given up.
    GivenUp,
}

#[derive(Debug)]
struct NodeState {
    health: Health,
    listings: Listings,
    in_flight: usize,
    /// Files that it lists and does not send, since it last sent one.
    withheld: usize,
}

/// The state of a pass, as far as it decides what is done next.
pub struct Scheduler {
    nodes: Vec<NodeState>,
    files: Files,
    fetches: InFlight,
    policy: Policy,
    verdicts: Vec<Verdict>,
    listed: u64,
    changed: bool,
    was_full: bool,
    finished: bool,
}

impl Scheduler {
    /// A pass over so many nodes (at most [`MAX_NODES`]), collections and extra directories.
    pub fn new(nodes: usize, collections: usize, extras: usize, policy: Policy) -> Scheduler {
        let Policy { retries, jobs, timeout, lands_on_disk, .. } = policy;
        let node = || NodeState {
            health: Health::new(Rules { retries, jobs, timeout }),
            listings: Listings::new(collections, extras),
            in_flight: 0,
            withheld: 0,
        };
        Scheduler {
            nodes: (0..nodes).map(|_| node()).collect(),
            files: Files::new(nodes, retries, lands_on_disk),
            fetches: InFlight::new(nodes),
            policy,
            verdicts: Vec::new(),
            listed: 0,
            changed: false,
            was_full: false,
            finished: nodes == 0 || collections + extras == 0,
        }
    }

    /// How far the pass has come.
    pub fn counts(&self) -> Counts {
        let (wanted, settled) = self.files.progress();
        let alive = self.nodes.iter().filter(|node| !node.health.is_given_up());
        let to_list = alive.map(|node| node.listings.to_list()).sum::<usize>() as u64;
        Counts { wanted, settled, listed: self.listed, to_list }
    }

    /// What is left undone, once the pass is over, by the nodes that count.
    pub fn undone(&self, counts: impl Fn(NodeId) -> bool) -> Undone {
        let nodes = self.nodes.iter().enumerate().filter(|(id, _)| counts(*id));
        let nodes: Vec<&NodeState> = nodes.map(|(_, node)| node).collect();
        let count = |of: fn(&NodeState) -> u64| nodes.iter().map(|node| of(node)).sum();
        Undone {
            unlisted: count(|node| node.listings.failed()),
            given_up: count(|node| node.health.is_given_up().into()),
            any_answered: self.nodes.iter().any(|node| node.health.has_answered()),
        }
    }

    /// Which nodes are given up.
    pub fn given_up(&self) -> Vec<bool> {
        self.nodes.iter().map(|node| node.health.is_given_up()).collect()
    }

    /// How it goes with a node.
    pub fn standing(&self, id: NodeId, now: Instant) -> Standing {
        let node = &self.nodes[id];
        match node.health.not_before(now) {
            _ if node.health.is_given_up() => Standing::GivenUp,
            Some(at) => Standing::Resting(at),
            None if node.in_flight == 0 => Standing::Idle,
            None => Standing::Busy,
        }
    }

    /// Whether nothing is left to be done.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// What became final since this was last asked.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    /// Whether waiting workers may find something new since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        let news = self.files.take_news();
        std::mem::take(&mut self.changed) || news
    }
}

/// What is next.
impl Scheduler {
    /// What a worker of this node does next.
    pub fn next(&mut self, id: NodeId, now: Instant) -> Next {
        if self.finished {
            return Next::Finished;
        }
        let node = &self.nodes[id];
        if let Some(at) = node.health.not_before(now) {
            return Next::Wait(Some(at));
        }
        if node.in_flight >= node.health.limit() {
            return Next::Wait(None);
        }
        let task = match (node.health.is_given_up(), self.policy.lands_on_disk) {
            (false, _) => self.next_task(id, now),
            (true, true) => Some(self.probe(id)),
            // In a dry run nobody would remember what it has listed before.
            (true, false) => None,
        };
        match task {
            Some(task) => {
                self.nodes[id].in_flight += 1;
                Next::Do(task)
            }
            None => Next::Wait(self.next_event(id, now)),
        }
    }

    /// A cheap question to a node that was given up.
    fn probe(&mut self, id: NodeId) -> Task {
        self.nodes[id].listings.probe(0);
        Task::ListHours(0)
    }

    fn next_task(&mut self, id: NodeId, now: Instant) -> Option<Task> {
        if let Some(list) = self.nodes[id].listings.next_hours(now) {
            return Some(self.start_listing(id, list, now));
        }
        if let Some(file) = self.files.next(id, now) {
            return self.start_fetch(id, file, now);
        }
        let (full, files) = (self.is_full(), &self.files);
        let listings = &mut self.nodes[id].listings;
        if listings.under_way() < self.policy.listings
            && let Some(list) = listings.next_unit(now, full, |unit| files.is_wanted(unit))
        {
            return Some(self.start_listing(id, list, now));
        }
        if !self.policy.hedges {
            return None;
        }
        let could = |file| self.files.could_help(file, id);
        let file = self.fetches.to_help_with(id, now, could)?;
        self.start_fetch(id, file, now)
    }

    fn is_full(&self) -> bool {
        self.files.len() >= self.policy.max_files
    }

    fn start_listing(&mut self, id: NodeId, list: List, now: Instant) -> Task {
        match list {
            List::Hours(collection) => Task::ListHours(collection),
            List::Unit(unit) => {
                let after = self.nodes[id].listings.reached(unit);
                Task::ListUnit { unit, after, look: self.files.begin_listing(unit, now) }
            }
            List::Again(unit) => {
                Task::ListAgain { unit, names: Arc::new(self.files.to_ask_again(id, unit)) }
            }
        }
    }

    fn start_fetch(&mut self, id: NodeId, file: FileId, now: Instant) -> Option<Task> {
        let look = self.files.begin(file, id)?;
        let (unit, item) = self.files.get(file)?;
        let item = item.clone();
        let transfer = Transfer::new(now);
        let number = self.fetches.begin(id, file, transfer.clone());
        Some(Task::Fetch(Fetch { unit, item, look, transfer, file, number }))
    }

    /// When there may be something new for a node, if nothing is reported before.
    fn next_event(&self, id: NodeId, now: Instant) -> Option<Instant> {
        let could = |file| self.files.could_help(file, id);
        let hedges = self.policy.hedges && !self.nodes[id].health.is_given_up();
        let help = hedges.then(|| self.fetches.look_again(id, now, could)).flatten();
        let events = [self.files.next_event(), self.nodes[id].listings.next_event(), help];
        // What is due and can't be done yet waits for something to be reported.
        events.into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// What happened.
impl Scheduler {
    /// A node has answered with the hours of a collection; those that are selected.
    pub fn hours_listed(
        &mut self,
        id: NodeId,
        collection: usize,
        hours: impl IntoIterator<Item = Hour>,
        now: Instant,
    ) {
        if self.end_listing(id, List::Hours(collection)) {
            let units = hours.into_iter().map(|hour| Unit::Hour(Reverse(hour), collection));
            if self.nodes[id].listings.hours_listed(collection, units) {
                self.files.touch_all();
            }
            self.succeeded(id, now);
            self.changed = true;
        }
        self.settle();
    }

    /// A node has listed a unit, perhaps only up to some name. Of that these files are wanted, in
    /// this order: they were not here when that was looked up. Gives back those that are not wanted
    /// after all.
    pub fn listed(
        &mut self,
        id: NodeId,
        unit: Unit,
        wanted: Vec<Item>,
        up_to: Option<Item>,
        now: Instant,
    ) -> Vec<Unwanted> {
        let mut unwanted = Vec::new();
        if self.end_listing(id, List::Unit(unit)) {
            let (room, mut is_whole) = (!self.is_full(), true);
            for item in wanted {
                match self.files.enlist(id, unit, item.clone(), room) {
                    Enlisted::NearDuplicate(of) => {
                        unwanted.push(Unwanted::NearDuplicate(item, of));
                    }
                    Enlisted::Deleted => unwanted.push(Unwanted::Deleted(item)),
                    Enlisted::NoRoom => is_whole = false,
                    Enlisted::Wanted | Enlisted::Here => {}
                }
            }
            let listings = &mut self.nodes[id].listings;
            if !is_whole {
                listings.put_off(unit);
            } else if !listings.listed(unit, up_to.clone()) {
                let what = "it lists names without end";
                self.listing_is_lost(
                    id,
                    List::Unit(unit),
                    &NodeError::answered(Trouble::Refused, what),
                );
            } else {
                self.listed += u64::from(up_to.is_none());
            }
            self.files.end_listing(unit);
            self.succeeded(id, now);
        }
        self.settle();
        unwanted
    }

    /// A node has listed a unit again: of the names that it was asked about, these are still listed.
    pub fn listed_again(
        &mut self,
        id: NodeId,
        unit: Unit,
        names: &HashSet<Item>,
        still: &[Item],
        now: Instant,
    ) {
        if self.end_listing(id, List::Again(unit)) {
            self.files.listed_again(id, unit, names, still);
            self.succeeded(id, now);
            self.nodes[id].withheld += still.len();
            if self.nodes[id].withheld > MAX_WITHHELD {
                let what =
                    format!("it lists {} files and sends none of them", self.nodes[id].withheld);
                let error = NodeError::answered(Trouble::Refused, what);
                let judgement = self.nodes[id].health.give_up(GivenUp::Failed(error), now);
                self.give_up_if(id, judgement, now);
            }
        }
        self.settle();
    }

    /// These segments of an hour were deleted on purpose, as a node lists it or as is found on the
    /// disk, and with them every recording of them. Says which names were not known, so that they
    /// are to be created.
    pub fn deleted(&mut self, unit: Unit, names: Vec<SegmentName>) -> Vec<SegmentName> {
        let mut new = Vec::new();
        for name in names {
            if let Some(dropped) = self.files.delete(unit, &name) {
                self.nobody_needs(&dropped);
                new.push(name);
            }
        }
        self.settle();
        new
    }

    /// A file is here: this node brought it, or it was found to be here.
    pub fn landed(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        self.end_fetch(id, fetch, true, now);
        let landed = self.files.landed(fetch.file);
        self.nobody_needs(&landed);
        self.settle();
    }

    /// A file that was fetched turned out to have been deleted on purpose.
    pub fn forbidden(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        self.end_fetch(id, fetch, true, now);
        match &fetch.item {
            Item::Segment(name) => drop(self.deleted(fetch.unit, vec![name.clone()])),
            Item::Extra(_) => drop(self.files.landed(fetch.file)),
        }
        self.settle();
    }

    /// This machine can't take a file.
    pub fn abandoned(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        self.end_fetch(id, fetch, false, now);
        let (files, backoff) = (&mut self.files, &mut self.policy.backoff);
        files.abandon(fetch.file, &mut |n| now + backoff(n));
        self.settle();
    }

    /// A task of this node failed that was given out when it `begun`. `heard` says when each node was
    /// last heard.
    pub fn failed(
        &mut self,
        id: NodeId,
        task: &Task,
        error: &NodeError,
        heard: &[Option<Instant>],
        begun: Instant,
        now: Instant,
    ) {
        let counts = match task {
            Task::Fetch(fetch) => self.fetches.end(fetch.number, false),
            task => task.list().is_some_and(|list| self.nodes[id].listings.end(list)),
        };
        if !counts {
            return self.settle();
        }
        self.release(id);
        let heard = self.who_was_heard(id, heard, now);
        let (health, backoff) = (&mut self.nodes[id].health, &mut self.policy.backoff);
        let judgement = health.failed(error, heard, begun, now, backoff);
        match task {
            Task::Fetch(fetch) => self.fetch_failed(id, fetch, error, &judgement, now),
            task => {
                if let Task::ListUnit { unit, .. } = task {
                    self.files.end_listing(*unit);
                }
                if let Some(list) = task.list() {
                    self.listing_failed(id, list, error, &judgement, now);
                }
            }
        }
        self.give_up_if(id, judgement, now);
        self.settle();
    }

    fn fetch_failed(
        &mut self,
        id: NodeId,
        fetch: &Fetch,
        error: &NodeError,
        judgement: &Judgement,
        now: Instant,
    ) {
        let failure = match (error.trouble, judgement) {
            (Trouble::Gone, _) => Failure::Gone,
            (Trouble::Refused | Trouble::Corrupt | Trouble::Unusable, _) => Failure::Lasting,
            (Trouble::Busy(_), _) => Failure::NoTryYet,
            (Trouble::Cut, _) | (_, Judgement::Repeat(_)) => Failure::NoTry,
            _ => Failure::Passing,
        };
        let (files, backoff) = (&mut self.files, &mut self.policy.backoff);
        files.failed(fetch.file, id, failure, error, &mut |n| now + backoff(n));
    }

    fn listing_failed(
        &mut self,
        id: NodeId,
        list: List,
        error: &NodeError,
        judgement: &Judgement,
        now: Instant,
    ) {
        let is_given_up = self.nodes[id].health.is_given_up();
        let listings = &mut self.nodes[id].listings;
        match judgement {
            // That a node is given up says enough of its listings. It lists this if it comes back.
            Judgement::GiveUp(_) => listings.repeat(list, now),
            Judgement::Request if is_given_up => listings.repeat(list, now),
            Judgement::Repeat(at) => listings.repeat(list, *at),
            Judgement::Request => {
                let tries = listings.count_try(list);
                if is_lasting(error.trouble) || tries > self.policy.retries {
                    return self.listing_is_lost(id, list, error);
                }
                let at = now + (self.policy.backoff)(tries);
                listings.repeat(list, at);
                self.changed = true;
            }
        }
    }

    fn listing_is_lost(&mut self, id: NodeId, list: List, error: &NodeError) {
        self.nodes[id].listings.fail(list);
        self.listed += u64::from(matches!(list, List::Unit(_)));
        self.verdicts.push(Verdict::ListingFailed(id, list, error.clone()));
        match list {
            List::Hours(_) => self.files.touch_all(),
            List::Unit(unit) => self.files.touch(unit),
            List::Again(unit) => self.files.not_listed_again(id, unit, error),
        }
    }

    /// Notes that a listing is over; says whether its node still counts.
    fn end_listing(&mut self, id: NodeId, list: List) -> bool {
        let counts = self.nodes[id].listings.end(list);
        if counts {
            self.release(id);
        }
        counts
    }

    /// Notes that a fetch is over.
    fn end_fetch(&mut self, id: NodeId, fetch: &Fetch, brought_it: bool, now: Instant) {
        if self.fetches.end(fetch.number, brought_it) {
            self.release(id);
            self.succeeded(id, now);
            self.nodes[id].withheld = 0;
        }
    }

    fn succeeded(&mut self, id: NodeId, now: Instant) {
        if self.nodes[id].health.succeeded(now) {
            self.files.regain_node(id);
            self.verdicts.push(Verdict::NodeBack(id));
            self.changed = true;
        }
    }

    /// One request less is under way at a node.
    fn release(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        node.in_flight -= 1;
        // Whoever waits for the end of the pass, or for a turn at a busy node, looks again.
        self.changed |= node.in_flight == 0 || node.health.limit() < self.policy.jobs;
    }

    fn nobody_needs(&mut self, files: &[FileId]) {
        for file in files {
            for node in self.fetches.supersede_file(*file) {
                self.release(node);
            }
        }
    }

    /// Who was heard while a request of this node waited in vain. Who is at work should have been,
    /// in the second half of that time at least; who has nothing to do says nothing.
    fn who_was_heard(&self, id: NodeId, heard: &[Option<Instant>], now: Instant) -> Heard {
        let timeout = self.policy.timeout;
        let since = |ago: Duration| move |at: &Instant| now.saturating_duration_since(*at) < ago;
        let last = |node: NodeId| heard.get(node).copied().flatten();
        let mut result =
            Heard { itself: last(id).as_ref().is_some_and(since(timeout / 2)), ..Heard::default() };
        for (other, node) in self.nodes.iter().enumerate() {
            if other == id || node.health.is_given_up() {
                continue;
            }
            let is_at_work = node.in_flight > 0 || node.health.not_before(now).is_some();
            let within = if is_at_work { timeout / 2 } else { timeout };
            if last(other).as_ref().is_some_and(since(within)) {
                result.other = true;
            } else if is_at_work && node.health.has_answered() {
                result.none = true;
            }
        }
        result
    }

    fn give_up_if(&mut self, id: NodeId, judgement: Judgement, now: Instant) {
        let Judgement::GiveUp(why) = judgement else {
            return;
        };
        self.nodes[id].withheld = 0;
        for _ in 0..self.fetches.supersede_node(id) {
            self.release(id);
        }
        for list in self.nodes[id].listings.give_up() {
            self.release(id);
            if let List::Unit(unit) = list {
                self.files.end_listing(unit);
            }
        }
        let (files, backoff) = (&mut self.files, &mut self.policy.backoff);
        files.lose_node(id, &mut |n| now + backoff(n));
        self.verdicts.push(Verdict::NodeGivenUp(id, why));
        self.changed = true;
    }

    /// Settles what can be, and ends the pass when nothing is left to be done.
    fn settle(&mut self) {
        let full = self.is_full();
        let nodes = &self.nodes;
        // A node that is given up may come back and list what it has not listed yet.
        let comes_back = self.policy.lands_on_disk;
        let is_through = |node: &NodeState, unit| {
            node.health.is_given_up() && !comes_back || node.listings.is_through_with(unit)
        };
        let through = |unit| nodes.iter().all(|node| is_through(node, unit));
        let settled = self.files.settle(through, full);
        self.note(settled);
        // There is room for more units now.
        let full = self.is_full();
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
        for (node, unit) in settled.bereaved {
            self.nodes[node].listings.add(unit);
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

/// Whether the same request to the same node would fail again.
fn is_lasting(trouble: Trouble) -> bool {
    matches!(trouble, Trouble::Gone | Trouble::Refused | Trouble::Corrupt | Trouble::Unusable)
}

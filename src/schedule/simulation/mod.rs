//! Simulates whole passes over nodes that fail in every way, with a clock that jumps from event to
//! event. The simulated world has everything that the real one has: tombstones, turns of hours, two
//! clocks, corrupt files, nodes that are silent for a while or for ever, a line that is dead for
//! all nodes, requests that are superseded but land all the same, and nodes that list more later.
//!
//! Each pass is determined by a number. `BACKFILLER_SIMULATIONS` sets how many passes are run
//! (1,000 by default); `BACKFILLER_SIMULATION` runs the pass of one number alone.

mod check;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use world::{Name, Way, World, are_same};

use super::*;
use crate::node::{NodeError, Trouble};
use crate::segment::SegmentName;

const TIMEOUT: Duration = Duration::from_millis(2000);

/// The state of a task.
#[derive(Debug)]
struct Running {
    ends: u64,
    begun: u64,
    node: NodeId,
    task: Task,
    /// Its result, which is fixed when it begins, as the world doesn't change.
    fails: bool,
    /// What it will report, once a listing has looked at the disk.
    seen: Option<(Vec<Item>, Option<Item>)>,
}

struct Pass<'a> {
    world: &'a World,
    random: SmallRng,
    scheduler: Scheduler,
    epoch: Instant,
    now: u64,
    running: Vec<Running>,
    heard: Vec<Option<u64>>,
    listings: HashMap<(NodeId, Unit), u32>,
    tries: HashMap<(NodeId, usize), u8>,
    /// Recordings that a node has said are gone.
    gone: BTreeSet<(NodeId, usize)>,
    /// The segments and tombstones on the disk.
    disk: BTreeSet<Name>,
    tombstones: BTreeSet<Name>,
    /// The content of the disk in each look.
    looks: HashMap<u64, (BTreeSet<Name>, BTreeSet<Name>)>,
    corrupt: BTreeSet<usize>,
    repaired: usize,
    deleted: BTreeSet<usize>,
    listed: BTreeSet<usize>,
    /// How often each recording landed, or would have in a dry run.
    landed: BTreeMap<usize, usize>,
    /// How often each file was reported in a dry run.
    reported: BTreeMap<usize, usize>,
    /// The units that some node has listed, and in a dry run the last one of which something was
    /// reported, with those that were listed by then.
    listed_units: BTreeSet<Unit>,
    last_reported: Option<(Unit, BTreeSet<Unit>)>,
    missing: Vec<usize>,
    vanished: Vec<usize>,
    given_up: BTreeSet<NodeId>,
    was_ever_given_up: bool,
}

#[test]
fn every_pass_ends_with_all_available_files() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    if let Some(seed) = number("BACKFILLER_SIMULATION") {
        println!("{:#?}", World::random(&mut SmallRng::seed_from_u64(seed)));
        return simulate(seed);
    }
    for seed in 0..number("BACKFILLER_SIMULATIONS").unwrap_or(1000) {
        let run = std::panic::catch_unwind(|| simulate(seed));
        assert!(run.is_ok(), "to repeat this alone: BACKFILLER_SIMULATION={seed}");
    }
}

fn simulate(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let world = World::random(&mut random);
    let mut pass = Pass::new(&world, random);
    pass.run();
    pass.check();
}

impl<'a> Pass<'a> {
    fn new(world: &'a World, random: SmallRng) -> Pass<'a> {
        let jobs = world.jobs;
        let policy = Policy {
            retries: 2,
            backoff: Box::new(|n| Duration::from_millis(250 << n.min(6))),
            jobs: Box::new(move |_| jobs),
            listings: 2,
            timeout: TIMEOUT,
            max_files: world.max_files,
            lands_on_disk: !world.dry_run,
            hedges: world.hedges,
        };
        Pass {
            world,
            random,
            scheduler: Scheduler::new(world.nodes.len(), 1, 0, policy),
            epoch: Instant::now(),
            now: 0,
            running: Vec::new(),
            heard: vec![None; world.nodes.len()],
            listings: HashMap::new(),
            tries: HashMap::new(),
            gone: BTreeSet::new(),
            disk: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            looks: HashMap::new(),
            corrupt: world.corrupt.clone(),
            repaired: 0,
            deleted: BTreeSet::new(),
            listed: BTreeSet::new(),
            landed: BTreeMap::new(),
            reported: BTreeMap::new(),
            listed_units: BTreeSet::new(),
            last_reported: None,
            missing: Vec::new(),
            vanished: Vec::new(),
            given_up: BTreeSet::new(),
            was_ever_given_up: false,
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            // Reported files make room for more.
            self.note_verdicts();
            let wake = self.hand_out();
            self.note_verdicts();
            if self.scheduler.is_finished() {
                return;
            }
            let next_end = self.running.iter().map(|running| running.ends).min();
            let next = [next_end, wake].into_iter().flatten().min();
            let before = self.now;
            self.now = next.expect("a pass that waits for nothing").max(self.now);
            self.listen(before);
            let due = self.running.iter().position(|running| running.ends <= self.now);
            if let Some(running) = due.map(|due| self.running.swap_remove(due)) {
                self.end(running);
            }
        }
        panic!("the pass does not end: {:?} {:?}", self.world, self.running);
    }

    /// Gives all workers something to do. Returns when one of them wants to ask again.
    fn hand_out(&mut self) -> Option<u64> {
        let mut wake = None;
        for node in 0..self.world.nodes.len() {
            while self.running.iter().filter(|running| running.node == node).count()
                < self.world.jobs
            {
                match self.scheduler.next(node, self.at(self.now)) {
                    Next::Do(task) => self.begin(node, task),
                    Next::Wait(at) => {
                        // Rounded up, as otherwise the clock would stand still.
                        let at = at.map(|at| (at - self.epoch).as_micros().div_ceil(1000) as u64);
                        wake = [wake, at.map(|at| at.max(self.now))].into_iter().flatten().min();
                        break;
                    }
                    Next::Finished => break,
                }
            }
        }
        wake
    }

    fn begin(&mut self, node: NodeId, task: Task) {
        let of_node = &self.world.nodes[node];
        if let Task::Fetch(fetch) = &task {
            let recording = World::recording_of(&fetch.item);
            assert!(!self.deleted.contains(&recording), "{recording} was deleted");
            fetch.transfer.expect(Some(1_000_000));
            fetch.transfer.note_ranges(node.is_multiple_of(2));
        }
        let takes = match task {
            Task::Fetch(_) => of_node.takes.1,
            _ => of_node.takes.0,
        };
        let begun = self.now;
        let (mut ends, mut fails) = (begun + takes + self.random.random_range(0..30), false);
        let mut silences = of_node.silences.clone();
        silences.sort_unstable();
        for (from, to) in silences {
            if from < ends && to > begun && !fails {
                let from = from.max(begun);
                fails = to - from >= TIMEOUT.as_millis() as u64;
                ends = if fails { from + TIMEOUT.as_millis() as u64 } else { ends + to - from };
            }
        }
        self.running.push(Running { ends, begun, node, task, fails, seen: None });
    }

    fn is_silent(&self, node: NodeId, at: u64) -> Option<u64> {
        let silences = self.world.nodes[node].silences.iter();
        let now = silences.filter(|(from, to)| *from <= at && at < *to);
        now.map(|(from, _)| *from).min()
    }

    /// Delivers the bytes that arrive until now.
    fn listen(&mut self, before: u64) {
        for running in &self.running {
            let until = match self.is_silent(running.node, self.now) {
                Some(since) => since.saturating_sub(1),
                None => self.now,
            };
            if until < before.max(running.begun) {
                continue;
            }
            let heard = &mut self.heard[running.node];
            *heard = Some(heard.unwrap_or(0).max(until));
            if let Task::Fetch(fetch) = &running.task {
                let takes = (running.ends - running.begun).max(1);
                let share = (until - running.begun.min(until)) * 1_000_000 / takes;
                let more = share.saturating_sub(fetch.transfer.received());
                fetch.transfer.receive(more, self.at(until));
            }
        }
    }

    fn end(&mut self, mut running: Running) {
        let (node, now) = (running.node, self.at(self.now));
        if running.fails {
            return self.fail(&running, Trouble::Silent);
        }
        match running.task.clone() {
            Task::ListHours(collection) => {
                let has = &self.world.nodes[node];
                let all = has.has.keys().chain(&has.deleted);
                let units: BTreeSet<Unit> = all.map(|r| self.world.name(*r, node).0).collect();
                let hours = units.into_iter().map(|unit| match unit {
                    Unit::Hour(hour, _) => hour.0,
                    Unit::Extras(_) => unreachable!(),
                });
                self.scheduler.hours_listed(node, collection, hours, now);
            }
            Task::ListUnit { unit, after, look } => match running.seen.take() {
                None => {
                    running.seen = Some(self.look(node, unit, after.as_ref(), look));
                    running.ends = self.now + self.random.random_range(0..40);
                    self.running.push(running);
                }
                Some((wanted, up_to)) => {
                    let names: Vec<usize> = wanted.iter().map(World::recording_of).collect();
                    let was_given_up = self.given_up.contains(&node);
                    self.listed_units.insert(unit);
                    self.scheduler.listed(node, unit, wanted, up_to, now);
                    if !was_given_up {
                        self.listed.extend(names);
                    }
                }
            },
            Task::ListAgain { unit, names } => {
                let names_now = self.names(node, unit, true);
                let still = names.iter().filter(|item| {
                    let Item::Segment(name) = item else { unreachable!() };
                    names_now.contains(name)
                });
                let still: Vec<Item> = still.cloned().collect();
                self.scheduler.listed_again(node, unit, &names, &still, now);
            }
            Task::Fetch(fetch) => self.end_fetch(&running, &fetch),
        }
    }

    /// The segments of a unit that a node lists: those without a tombstone there.
    fn names(&self, node: NodeId, unit: Unit, again: bool) -> BTreeSet<SegmentName> {
        let of_node = &self.world.nodes[node];
        let is_listed = |recording: &&usize| {
            let is_gone = self.gone.contains(&(node, **recording))
                && of_node.has[*recording] == Way::Vanished;
            !is_gone
                && (again || !of_node.later.contains(*recording))
                && !of_node.deleted.contains(*recording)
        };
        let names = of_node.has.keys().filter(is_listed).map(|r| self.world.name(*r, node));
        names.filter(|(of, _)| *of == unit).map(|(_, name)| name).collect()
    }

    /// The response has arrived: looks at the disk, and plans.
    fn look(
        &mut self,
        node: NodeId,
        unit: Unit,
        after: Option<&Item>,
        look: Look,
    ) -> (Vec<Item>, Option<Item>) {
        let times = self.listings.entry((node, unit)).or_default();
        *times += 1;
        let again = *times > 1;
        let here = || (self.disk.clone(), self.tombstones.clone());
        let (disk, mut tombstones) = self.looks.entry(look.number).or_insert_with(here).clone();
        // The neighbouring hours are looked at only now.
        tombstones.extend(self.tombstones.iter().filter(|(of, _)| *of != unit).cloned());
        let of_node = &self.world.nodes[node];
        let listed = of_node.deleted.iter().map(|r| self.world.name(*r, node));
        let listed: Vec<Name> = listed.filter(|(of, _)| *of == unit).collect();
        let is_deleted = |name: &Name| {
            tombstones.iter().chain(&listed).any(|tombstone| are_same(tombstone, name))
        };
        let is_here = |name: &Name| {
            let beside = self.disk.iter().filter(|(of, _)| *of != unit);
            let near = disk.iter().chain(beside).any(|other| are_same(other, name));
            near && !self.corrupt.contains(&(name.1.hash().0[0] as usize)) || disk.contains(name)
        };
        let names = self.names(node, unit, again).into_iter().map(|name| (unit, name));
        let names = names.filter(|name| !is_here(name) && !is_deleted(name));
        let names = names.map(|(_, name)| Item::Segment(name));
        let mut names: Vec<Item> = names.filter(|item| after.is_none_or(|a| item > a)).collect();
        let is_more = names.len() > self.world.window;
        names.truncate(self.world.window);
        let up_to = names.last().filter(|_| is_more).cloned();
        let new = listed.iter().filter(|tombstone| !tombstones.contains(*tombstone));
        let new = new.map(|(_, name)| name.clone()).collect::<Vec<_>>();
        if !self.given_up.contains(&node) {
            for name in self.scheduler.deleted(unit, new) {
                self.deleted.insert(name.hash().0[0] as usize);
                if !self.world.dry_run {
                    self.tombstones.insert((unit, name));
                }
            }
        }
        (names, up_to)
    }

    fn end_fetch(&mut self, running: &Running, fetch: &Fetch) {
        let (node, now) = (running.node, self.at(self.now));
        let recording = World::recording_of(&fetch.item);
        // A worker mostly notices that its file is no longer needed, but sometimes finishes just
        // then.
        if fetch.transfer.is_superseded() && self.random.random_ratio(3, 4) {
            return;
        }
        if self.world.dry_run {
            *self.landed.entry(recording).or_default() += 1;
            return self.scheduler.would_land(node, fetch, None, now);
        }
        let tried = self.tries.entry((node, recording)).or_default();
        *tried += 1;
        let trouble = match self.world.nodes[node].has[&recording] {
            Way::Well => None,
            Way::Flaky(times) | Way::Cut(times) | Way::Busy(times) if *tried > times => None,
            Way::Flaky(_) => Some(Trouble::Broken),
            Way::Cut(_) => Some(Trouble::Cut),
            Way::Busy(_) => Some(Trouble::Busy(None)),
            Way::Corrupt => Some(Trouble::Corrupt),
            Way::Vanished | Way::Withheld => {
                self.gone.insert((node, recording));
                Some(Trouble::Gone)
            }
        };
        if let Some(trouble) = trouble {
            return self.fail(running, trouble);
        }
        let Item::Segment(name) = &fetch.item else { unreachable!() };
        let name = (fetch.unit, name.clone());
        if self.tombstones.contains(&name) {
            return self.scheduler.forbidden(node, fetch, now);
        }
        let is_new = self.disk.insert(name);
        self.repaired += usize::from(self.corrupt.remove(&recording));
        if is_new {
            *self.landed.entry(recording).or_default() += 1;
        }
        self.scheduler.landed(node, fetch, now);
    }

    fn fail(&mut self, running: &Running, trouble: Trouble) {
        let error = NodeError::new(trouble, format!("{trouble:?}"));
        let heard: Vec<_> = self.heard.iter().map(|at| at.map(|at| self.at(at))).collect();
        let (begun, now) = (self.at(running.begun), self.at(self.now));
        self.scheduler.failed(running.node, &running.task, &error, &heard, begun, now);
    }

    fn note_verdicts(&mut self) {
        for verdict in self.scheduler.take_verdicts() {
            match verdict {
                Verdict::NodeGivenUp(node, _) => {
                    self.was_ever_given_up = true;
                    assert!(self.given_up.insert(node), "given up twice");
                }
                Verdict::NodeBack(node) => assert!(self.given_up.remove(&node), "was not away"),
                Verdict::FileMissing(_, item, _) => self.missing.push(World::recording_of(&item)),
                Verdict::FileVanished(_, item) => self.vanished.push(World::recording_of(&item)),
                Verdict::ListingFailed(..) | Verdict::Deleted(..) => {}
                Verdict::WouldLand(unit, files) => {
                    // A dry run doesn't wait for a unit that no node has listed so far. If there is
                    // little room, units already begun come first.
                    let is_in_order = self
                        .last_reported
                        .as_ref()
                        .is_none_or(|(last, listed)| *last < unit || !listed.contains(&unit));
                    assert!(is_in_order || self.world.max_files < 1000, "out of order");
                    self.last_reported = Some((unit, self.listed_units.clone()));
                    files.iter().for_each(|file| self.note_would_land(unit, file));
                    self.scheduler.reported(files.len());
                }
            }
        }
    }
}

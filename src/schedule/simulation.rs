//! Whole passes over nodes that fail in every way, with a clock that jumps from event to event. The
//! world knows what the real one does: tombstones, turns of hours, two clocks, corrupt files that are
//! here, nodes that are silent for a while or for ever, a line that is dead for all of them, requests
//! that are superseded and land all the same, and nodes that list more later.
//!
//! Each pass follows from one number. `BACKFILLER_SIMULATIONS` says how many are run (1,000),
//! `BACKFILLER_SIMULATION` names one to be run alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::node::{NodeError, Trouble};
use crate::segment::{CLOCKS_DIFFER, Medium, SegmentHash, SegmentName};

const TIMEOUT: Duration = Duration::from_millis(2000);
const HOURS: [&str; 3] = ["2018-11-10T03", "2018-11-10T04", "2018-11-10T05"];
const HOUR: i64 = 3_600_000_000;

/// How a node gives a recording that it lists.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Well,
    Corrupt,
    /// It answers 404, and lists it no more.
    Vanished,
    /// It answers 404, and goes on to list it.
    Withheld,
    /// It fails in passing so many times, then gives it.
    Flaky(u8),
    /// It breaks off so many times after some bytes, which are kept.
    Cut(u8),
    /// It is too busy so many times.
    Busy(u8),
}

/// What one node has.
#[derive(Clone, Debug, Default)]
struct NodeWorld {
    /// By how much its clock is late, in microseconds.
    late: i64,
    has: BTreeMap<usize, Way>,
    /// The recordings whose tombstones it lists.
    deleted: BTreeSet<usize>,
    /// What it lists only when it is asked a second time.
    later: BTreeSet<usize>,
    /// When it says nothing, in milliseconds since the pass began.
    silences: Vec<(u64, u64)>,
    /// How long a listing and a file take, in milliseconds.
    takes: (u64, u64),
}

#[derive(Clone, Debug)]
struct World {
    nodes: Vec<NodeWorld>,
    /// Where each recording starts by a clock that is right, in microseconds after the first hour.
    starts: Vec<i64>,
    /// What is here but corrupt.
    corrupt: BTreeSet<usize>,
    jobs: usize,
    max_files: usize,
    window: usize,
    dry_run: bool,
    hedges: bool,
}

impl World {
    fn random(random: &mut SmallRng) -> World {
        let starts = (0..random.random_range(1..14)).map(|n| match random.random_range(0..4) {
            // At the turn of an hour, a little before it or after it.
            0 => random.random_range(1..3) * HOUR + random.random_range(-300..300) + n,
            _ => random.random_range(0..3) * HOUR + 5_000_000 + 2_000_000 * n,
        });
        let starts: Vec<i64> = starts.collect();
        let dead = random.random_ratio(1, 3).then(|| {
            let from = random.random_range(0..3000);
            (from, from + random.random_range(500..20_000))
        });
        let mut nodes = Vec::new();
        for _ in 0..random.random_range(1..5) {
            let mut node = NodeWorld {
                late: random.random_range(0..2) * random.random_range(0..900),
                takes: (random.random_range(1..900), random.random_range(5..4000)),
                silences: dead.into_iter().collect(),
                ..NodeWorld::default()
            };
            if random.random_ratio(1, 4) {
                let from = random.random_range(0..6000);
                let length = [1000, 5000, 15_000, 10_000_000][random.random_range(0..4)];
                node.silences.push((from, from + length));
            }
            let is_bad = random.random_ratio(1, 3);
            for recording in 0..starts.len() {
                let way = match random.random_range(0..if is_bad { 9 } else { 40 }) {
                    0 => Way::Corrupt,
                    1 => Way::Vanished,
                    2 => Way::Withheld,
                    3 => Way::Flaky(random.random_range(1..5)),
                    4 => Way::Cut(random.random_range(1..9)),
                    5 => Way::Busy(random.random_range(1..9)),
                    _ => Way::Well,
                };
                match random.random_range(0..10) {
                    0..6 => drop(node.has.insert(recording, way)),
                    6 if random.random_ratio(1, 4) => drop(node.deleted.insert(recording)),
                    7 => {
                        node.has.insert(recording, way);
                        node.later.insert(recording);
                    }
                    _ => {}
                }
            }
            nodes.push(node);
        }
        let corrupt = (0..starts.len()).filter(|_| random.random_ratio(1, 12)).collect();
        World {
            nodes,
            starts,
            corrupt,
            jobs: random.random_range(1..4),
            max_files: [2, 6, 1000][random.random_range(0..3)],
            window: [1, 3, 1000][random.random_range(0..3)],
            dry_run: random.random_ratio(1, 5),
            hedges: random.random_ratio(3, 4),
        }
    }

    /// A recording by the clock of a node: its unit, and its name.
    fn name(&self, recording: usize, node: NodeId) -> (Unit, SegmentName) {
        let start = self.starts[recording] + self.nodes[node].late;
        let (hour, into) = (start.div_euclid(HOUR), start.rem_euclid(HOUR));
        let (minute, micros) = (into / 60_000_000, into % 60_000_000);
        let hash = SegmentHash([recording as u8; 32]);
        let (second, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let name = format!("{minute:02}:{second:02}.{fraction:06}-2.0-full-{hash}.ts");
        let name = SegmentName::parse(&name, Medium::Video).unwrap();
        (Unit::Hour(Reverse(HOURS[hour as usize].parse().unwrap()), 0), name)
    }

    fn recording_of(item: &Item) -> usize {
        let Item::Segment(name) = item else { panic!("no segment") };
        name.hash().0[0] as usize
    }
}

type Name = (Unit, SegmentName);

/// Where a task stands.
#[derive(Debug)]
struct Running {
    ends: u64,
    begun: u64,
    node: NodeId,
    task: Task,
    /// What it comes to: settled when it begins, since the world is.
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
    /// What is on the disk: segments, and tombstones.
    disk: BTreeSet<Name>,
    tombstones: BTreeSet<Name>,
    /// What was on the disk in each look.
    looks: HashMap<u64, (BTreeSet<Name>, BTreeSet<Name>)>,
    corrupt: BTreeSet<usize>,
    repaired: usize,
    deleted: BTreeSet<usize>,
    listed: BTreeSet<usize>,
    had: BTreeMap<usize, usize>,
    missing: Vec<usize>,
    vanished: Vec<usize>,
    given_up: BTreeSet<NodeId>,
    was_ever_given_up: bool,
}

#[test]
fn every_pass_ends_with_what_can_be_had_and_says_what_is_missing() {
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
            had: BTreeMap::new(),
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

    /// Gives all workers something to do. Says when one wants to ask again.
    fn hand_out(&mut self) -> Option<u64> {
        let mut wake = None;
        for node in 0..self.world.nodes.len() {
            while self.running.iter().filter(|running| running.node == node).count()
                < self.world.jobs
            {
                match self.scheduler.next(node, self.at(self.now)) {
                    Next::Do(task) => self.begin(node, task),
                    Next::Wait(at) => {
                        // Rounded up, or the clock would stand still.
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

    /// Moves the bytes that come until now.
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

    /// What a node lists of a unit: segments that have no tombstone there.
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

    /// The answer is here: looks at the disk, and plans.
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
        // The hours beside it are looked at just now.
        tombstones.extend(self.tombstones.iter().filter(|(of, _)| *of != unit).cloned());
        let of_node = &self.world.nodes[node];
        let buried = of_node.deleted.iter().map(|r| self.world.name(*r, node));
        let buried: Vec<Name> = buried.filter(|(of, _)| *of == unit).collect();
        let is_deleted = |name: &Name| {
            tombstones.iter().chain(&buried).any(|tombstone| are_same(tombstone, name))
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
        let new = buried.iter().filter(|tombstone| !tombstones.contains(*tombstone));
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
        // A worker mostly sees that nobody needs it; sometimes it is through just then.
        if fetch.transfer.is_superseded() && self.random.random_ratio(3, 4) {
            return;
        }
        if self.world.dry_run {
            *self.had.entry(recording).or_default() += 1;
            return self.scheduler.landed(node, fetch, now);
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
            *self.had.entry(recording).or_default() += 1;
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
                Verdict::ListingFailed(..) => {}
            }
        }
    }

    fn check(&mut self) {
        self.note_verdicts();
        let Counts { wanted, settled, to_list, .. } = self.scheduler.counts();
        assert_eq!((settled, to_list), (wanted, 0));
        let is_strict = self.world.max_files == 1000;
        for recording in 0..self.world.starts.len() {
            let had = self.had.get(&recording).copied().unwrap_or_default();
            let missing = self.missing.iter().filter(|lost| **lost == recording).count();
            let vanished = self.vanished.iter().filter(|lost| **lost == recording).count();
            let was_deleted = self.deleted.contains(&recording);
            let holders = self.world.nodes.iter().enumerate();
            let holders = holders.filter_map(|(id, node)| Some((id, *node.has.get(&recording)?)));
            let holders: Vec<_> = holders.collect();
            let about = format!("{recording}: {holders:?}, had {had}, missing {missing}");
            if is_strict && !was_deleted {
                // Reported once, and truly.
                assert!(missing + vanished <= 1, "{about}");
                assert!(had == 0 || missing + vanished == 0, "{about}");
            }
            if holders.is_empty() {
                assert_eq!(had + missing + vanished, 0, "{about}");
            }
            if self.listed.contains(&recording) && had == 0 && !was_deleted {
                // What there was no room for was to be listed again, and then could not be.
                let undone = self.scheduler.undone(|_| true);
                let is_unlisted = !is_strict && undone.given_up + undone.unlisted > 0;
                assert!(missing + vanished > 0 || is_unlisted, "{about}");
            }
            let gives = |way: &Way| matches!(way, Way::Well | Way::Cut(_));
            let can_be_had = holders.iter().any(|(id, way)| {
                let is_listed = !self.world.nodes[*id].later.contains(&recording);
                let is_never_silent = self.world.nodes[*id].silences.is_empty();
                gives(way) && is_listed && is_never_silent && !self.given_up.contains(id)
            });
            let is_deleted = |node: &NodeWorld| node.deleted.contains(&recording);
            if can_be_had && !self.world.nodes.iter().any(is_deleted) && is_strict {
                assert!(had > 0, "{about}");
            }
            // Each listing of what is withheld counts as a failure, and of what vanished as none.
            if is_strict && had == 0 && !was_deleted && self.listed.contains(&recording) {
                let truly = |way: &Way| matches!(way, Way::Vanished);
                let undone = self.scheduler.undone(|_| true);
                let could_be_asked = undone.given_up + undone.unlisted == 0;
                if holders.iter().all(|(_, way)| truly(way)) && could_be_asked {
                    assert_eq!((missing, vanished), (0, 1), "{about}");
                }
                if holders.iter().any(|(_, way)| *way == Way::Withheld)
                    && !self.was_ever_given_up
                    && !holders
                        .iter()
                        .any(|(id, _)| self.world.nodes[*id].later.contains(&recording))
                {
                    assert_eq!((missing, vanished), (1, 0), "{about}");
                }
            }
            if is_strict && !self.world.hedges && !self.was_ever_given_up {
                assert!(had <= 1, "fetched twice: {about}");
            }
        }
    }
}

/// Whether two names are of one recording.
fn are_same((unit, name): &Name, (other_unit, other): &Name) -> bool {
    let start = |unit: &Unit, name: &SegmentName| match unit {
        Unit::Hour(hour, _) => hour.0.micros_at(name.start_micros()),
        Unit::Extras(_) => unreachable!(),
    };
    name.hash() == other.hash()
        && (start(unit, name) - start(other_unit, other)).abs() <= CLOCKS_DIFFER
}

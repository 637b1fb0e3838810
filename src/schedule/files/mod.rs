//! The wanted files: who has them, the order in which to fetch them, and which are final.
//!
//! A unit (an hour, or an extra directory) is open from its first listing until everything wanted
//! in it is settled. Each name is a file of its own unit. Files that are recordings of the same
//! segment are twins. While one of them is open, the others are held. When it lands, all are done;
//! when it is lost, the next one is offered.
//!
//! This module records what listings say. `offer` decides what is fetched next and records the
//! results, `settle` decides what is final.

mod file;
mod offer;
mod settle;
mod would_land;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use super::nodes::{NodeId, NodeSet};
use super::twins::{Recording, Recordings, Twins, TwinsId};
use super::unit::{Item, Unit};
use crate::segment::SegmentName;

pub use file::{Fate, FileId, Look, Loss};
use file::{File, OpenUnit, State};
use offer::End;
pub use offer::Failure;
pub use settle::Settled;
pub use would_land::WouldLand;

/// What a listed name turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enlisted {
    /// A wanted file.
    Wanted,
    /// A near duplicate of a file that is or was wanted: of this one, as [`Unit::path_of`] writes it.
    NearDuplicate(String),
    /// A file that landed meanwhile.
    Here,
    /// A file that was deleted on purpose.
    Deleted,
    /// A new file for which there is no room at the moment.
    NoRoom,
}

/// The open units and their files.
#[derive(Debug)]
pub struct Files {
    nodes: usize,
    alive: NodeSet,
    retries: u32,
    /// Whether a file that landed is found on disk from then on. In a dry run it isn't.
    lands_on_disk: bool,
    units: BTreeMap<Unit, OpenUnit>,
    files: HashMap<FileId, Box<File>>,
    twins: Twins<FileId>,
    /// The recordings that were deleted on purpose.
    deleted: Recordings<()>,
    /// For each node, the units whose queue for it may not be empty.
    ready: Vec<BTreeSet<Unit>>,
    /// Files that wait for another round of attempts, and when it begins.
    later: BTreeSet<(Instant, FileId)>,
    /// The units that have changed since they were last settled.
    touched: BTreeSet<Unit>,
    /// The files that turned out to be deleted since the last call of [`Files::take_deleted`].
    dropped: Vec<(Unit, NodeSet)>,
    numbers: u64,
    moving: usize,
    /// How many names of finished files a dry run keeps: those in open units, and those that are
    /// not reported yet.
    remembered: usize,
    wanted: u64,
    settled: u64,
    /// Whether anything has changed for waiting workers since the last call.
    news: bool,
}

impl Files {
    /// No files yet, for this many nodes.
    pub fn new(nodes: usize, retries: u32, lands_on_disk: bool) -> Files {
        Files {
            nodes,
            alive: NodeSet::first(nodes),
            retries,
            lands_on_disk,
            units: BTreeMap::new(),
            files: HashMap::new(),
            twins: Twins::default(),
            deleted: Recordings::default(),
            ready: vec![BTreeSet::new(); nodes],
            later: BTreeSet::new(),
            touched: BTreeSet::new(),
            dropped: Vec::new(),
            numbers: 0,
            moving: 0,
            remembered: 0,
            wanted: 0,
            settled: 0,
            news: false,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// How many files are kept.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// How many names of finished files a dry run keeps.
    pub fn remembered(&self) -> usize {
        self.remembered
    }

    /// How many recordings have been wanted so far, and how many of them are settled. Neither ever
    /// decreases.
    pub fn progress(&self) -> (u64, u64) {
        (self.wanted, self.settled)
    }

    /// Whether anything has changed for waiting workers.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The units of the files that turned out to be deleted since the last call, and for each the
    /// nodes that had listed it.
    pub fn take_deleted(&mut self) -> Vec<(Unit, NodeSet)> {
        std::mem::take(&mut self.dropped)
    }

    /// Whether no file is open or held.
    pub fn is_idle(&self) -> bool {
        self.moving == 0
    }

    /// Whether this unit has files that are not settled.
    pub fn is_wanted(&self, unit: Unit) -> bool {
        self.units.get(&unit).is_some_and(|open| !open.wanted.is_empty())
    }

    /// Whether a segment of this name is not settled.
    pub fn wants(&self, unit: Unit, name: &SegmentName) -> bool {
        let item = Item::Segment(name.clone());
        self.units.get(&unit).is_some_and(|open| open.wanted.contains_key(&item))
    }

    /// Whether a unit is open, or a neighbour of it waits for this unit's listings.
    pub fn is_needed(&self, unit: Unit) -> bool {
        let waits = |open: &OpenUnit| open.moving == 0 && !open.wanted.is_empty();
        let beside = || unit.neighbours().any(|unit| self.units.get(&unit).is_some_and(waits));
        self.units.contains_key(&unit) || beside()
    }

    /// The unit and name of a file.
    pub fn get(&self, id: FileId) -> Option<(Unit, &Item)> {
        self.files.get(&id).map(|file| (file.unit, &file.item))
    }

    /// Notes that a node begins to list a unit.
    pub fn begin_listing(&mut self, unit: Unit, now: Instant) -> Look {
        let (number, nodes) = (self.number(), self.nodes);
        let look = Look { number, since: now };
        let open = self.units.entry(unit).or_insert_with(|| OpenUnit {
            wanted: HashMap::new(),
            done: HashMap::new(),
            deleted: HashSet::new(),
            queues: vec![VecDeque::new(); nodes],
            listings: 0,
            look,
            moving: 0,
            confirming: NodeSet::default(),
        });
        if open.listings == 0 {
            open.look = look;
        }
        open.listings += 1;
        open.look
    }

    /// Notes that such a listing has ended, successfully or not.
    pub fn end_listing(&mut self, unit: Unit) {
        if let Some(open) = self.units.get_mut(&unit) {
            open.listings -= 1;
        }
        self.touch(unit);
    }

    /// Adds a file that a node lists and that was missing at the last look. Without `room`, only
    /// files that are already known are accepted.
    pub fn enlist(&mut self, node: NodeId, unit: Unit, item: Item, room: bool) -> Enlisted {
        let Some(open) = self.units.get_mut(&unit) else {
            return Enlisted::Here;
        };
        if let Some(done) = open.done.get_mut(&item) {
            done.holders.insert(node);
            return Enlisted::Here;
        }
        if let Some(id) = open.wanted.get(&item).copied() {
            self.add_holder(id, node);
            return Enlisted::Wanted;
        }
        let recording = Recording::of(unit, &item);
        let is_deleted = match (recording, &item) {
            (Some(recording), _) => self.deleted.same(recording).is_some(),
            (None, Item::Segment(name)) => open.deleted.contains(name),
            (None, Item::Extra(_)) => false,
        };
        if is_deleted {
            return Enlisted::Deleted;
        }
        let twins = recording.and_then(|recording| self.twins.of(recording));
        if let Some(landed) = twins.and_then(|twins| self.twins.landed(twins)) {
            return Enlisted::NearDuplicate(landed.to_owned());
        }
        if !room {
            return Enlisted::NoRoom;
        }
        let twins = recording.map(|recording| self.twins.learn(recording));
        let open_twin = twins.and_then(|twins| self.open_twin(twins));
        let id = self.number();
        let is_first = twins.is_none_or(|twins| self.twins.add(twins, id));
        self.wanted += u64::from(is_first);
        self.files.insert(id, Box::new(File::new(unit, item.clone(), twins)));
        self.set_in_motion(id);
        if let Some(open) = self.units.get_mut(&unit) {
            open.wanted.insert(item, id);
        }
        if open_twin.is_none()
            && let Some(file) = self.files.get_mut(&id)
        {
            file.state = State::Open;
        }
        self.add_holder(id, node);
        match open_twin.and_then(|twin| self.files.get(&twin)) {
            Some(twin) => Enlisted::NearDuplicate(twin.unit.path_of(&twin.item)),
            None => Enlisted::Wanted,
        }
    }

    fn open_twin(&self, twins: TwinsId) -> Option<FileId> {
        let is_open =
            |id: &FileId| self.files.get(id).is_some_and(|file| matches!(file.state, State::Open));
        self.twins.members(twins).find(is_open)
    }

    fn set_in_motion(&mut self, id: FileId) {
        self.moving += 1;
        let open = self.files.get(&id).and_then(|file| self.units.get_mut(&file.unit));
        if let Some(open) = open {
            open.moving += 1;
        }
    }

    fn set_at_rest(&mut self, unit: Unit) {
        self.moving -= 1;
        if let Some(open) = self.units.get_mut(&unit) {
            open.moving -= 1;
        }
        self.touch(unit);
    }

    /// Notes that a node has a wanted file.
    fn add_holder(&mut self, id: FileId, node: NodeId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        if file.gone.contains(node) {
            // The node said that it is gone, but lists it again.
            file.withheld_by = Some(node);
            if let State::Lost(fate @ Fate::Vanished) = &mut file.state {
                *fate = Fate::Missing(Loss::Withheld(node));
            }
            return;
        }
        file.holders.insert(node);
        match file.state {
            State::Open => self.enqueue(id, node, End::Back),
            State::Held => {}
            State::Gone | State::Lost(_) => self.reopen(id),
        }
    }

    /// Notes that this segment was deleted on purpose, according to a node or to the disk, which
    /// applies to every recording of it. Returns the files that are no longer wanted because of
    /// that, or `None` if the deletion was known.
    pub fn delete(&mut self, unit: Unit, name: &SegmentName) -> Option<Vec<FileId>> {
        let item = Item::Segment(name.clone());
        let open = self.units.get_mut(&unit)?;
        if !open.deleted.insert(name.clone()) {
            return None;
        }
        let mut dropped: BTreeSet<FileId> = open.wanted.get(&item).copied().into_iter().collect();
        if let Some(recording) = Recording::of(unit, &item) {
            self.deleted.insert(recording, ());
            if let Some(twins) = self.twins.of(recording) {
                dropped.extend(self.twins.members(twins));
            }
        }
        for id in &dropped {
            if let Some(file) = self.files.get(id) {
                self.dropped.push((file.unit, file.holders.or(file.gone)));
            }
            self.remove(*id);
        }
        Some(dropped.into_iter().collect())
    }

    /// Forgets a settled file.
    fn remove(&mut self, id: FileId) {
        let Some(file) = self.files.remove(&id) else {
            return;
        };
        if let Some(open) = self.units.get_mut(&file.unit) {
            open.wanted.remove(&file.item);
        }
        if file.is_in_motion() {
            self.set_at_rest(file.unit);
        } else {
            self.touch(file.unit);
        }
        let is_last = file.twins.is_none_or(|twins| self.twins.remove(twins, id));
        self.settled += u64::from(is_last);
        if let Some(recording) = Recording::of(file.unit, &file.item) {
            self.twins.forget(recording);
        }
    }
}

//! Which files are final. A file that nobody could give is reported when its unit is closed: until
//! then a node may turn out to have it, or come back.

use std::collections::HashSet;

use super::file::{Fate, File, FileId, Loss, OpenUnit, State};
use super::{Files, WouldLand};
use crate::node::NodeError;
use crate::schedule::nodes::NodeId;
use crate::schedule::twins::Recording;
use crate::schedule::unit::{Item, Unit};

/// A file that is final.
#[derive(Debug)]
pub struct Final {
    /// The unit that it is of.
    pub unit: Unit,
    /// Which one it is.
    pub item: Item,
    /// What became of it.
    pub fate: Fate,
}

/// What is settled when something was settled.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is final now.
    pub files: Vec<Final>,
    /// Who is to list what again.
    pub confirm: Vec<(NodeId, Unit)>,
    /// Units with files that a node had which is given up now: to be listed if it comes back.
    pub bereaved: Vec<(NodeId, Unit)>,
    /// What would have landed in units that all nodes have listed.
    pub would_land: Vec<(Unit, Vec<WouldLand>)>,
}

impl Files {
    /// Something may have changed for a unit, and so for the hours beside it.
    pub fn touch(&mut self, unit: Unit) {
        self.touched.insert(unit);
        self.touched.extend(unit.neighbours());
    }

    /// The same for all of them.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.units.keys());
    }

    /// What a node said is gone of a unit, and is to be asked about once more.
    pub fn to_ask_again(&self, node: NodeId, unit: Unit) -> HashSet<Item> {
        let files = self.units.get(&unit).into_iter().flat_map(|open| &open.wanted);
        let is_asked = |id| {
            self.files
                .get(id)
                .is_some_and(|file| matches!(file.state, State::Gone) && file.gone.contains(node))
        };
        files.filter(|(_, id)| is_asked(*id)).map(|(item, _)| item.clone()).collect()
    }

    /// A node has listed a unit again: these it said are gone, and lists all the same.
    pub fn listed_again(
        &mut self,
        node: NodeId,
        unit: Unit,
        asked: &HashSet<Item>,
        still: &[Item],
    ) {
        self.answer_again(node, unit, asked, |file| file.asked_again.insert(node));
        let still = still.iter().cloned().collect();
        self.answer_again(node, unit, &still, |file| file.withheld_by = Some(node));
    }

    /// A node could not list a unit again, after all tries.
    pub fn not_listed_again(&mut self, node: NodeId, unit: Unit, error: &NodeError) {
        let asked = self.to_ask_again(node, unit);
        let failure = |file: &mut File| file.failure = Some((node, error.clone()));
        self.answer_again(node, unit, &asked, failure);
    }

    fn answer_again(
        &mut self,
        node: NodeId,
        unit: Unit,
        asked: &HashSet<Item>,
        answer: impl Fn(&mut File),
    ) {
        self.touch(unit);
        let Some(open) = self.units.get_mut(&unit) else {
            return;
        };
        open.confirming.remove(node);
        for id in asked.iter().filter_map(|item| open.wanted.get(item)) {
            if let Some(file) = self.files.get_mut(id).filter(|file| file.gone.contains(node)) {
                answer(file);
            }
        }
    }

    /// Settles whatever can be of the units that were touched. `through` says whether all nodes have
    /// listed a unit to its end; `full` that there is no room to wait for that.
    pub fn settle(&mut self, through: impl Fn(Unit) -> bool, full: bool) -> Settled {
        let mut settled = Settled::default();
        while let Some(unit) = self.touched.pop_first() {
            self.settle_unit(unit, &through, full, &mut settled);
        }
        settled
    }

    /// Settles everything: nobody is left to be asked.
    pub fn settle_all(&mut self) -> Settled {
        self.touch_all();
        self.settle(|_| true, true)
    }

    fn settle_unit(
        &mut self,
        unit: Unit,
        through: &impl Fn(Unit) -> bool,
        full: bool,
        settled: &mut Settled,
    ) {
        let Some(open) = self.units.get_mut(&unit) else {
            return;
        };
        if open.listings > 0 {
            return;
        }
        if self.lands_on_disk {
            let done = std::mem::take(&mut open.done);
            self.forget_names(unit, done.into_keys());
        }
        let Some(open) = self.units.get_mut(&unit).filter(|open| open.moving == 0) else {
            return;
        };
        if !open.confirming.is_empty() {
            return;
        }
        let files: Vec<FileId> = open.wanted.values().copied().collect();
        if self.confirm(unit, &files, settled) {
            return;
        }
        let is_through = through(unit);
        if full || is_through && !self.may_come_yet(&files, through) {
            self.report(unit, files, settled);
        }
        let is_first = self.units.first_key_value().is_some_and(|(first, _)| *first == unit);
        let Some(open) = self.units.get(&unit).filter(|open| open.wanted.is_empty()) else {
            return;
        };
        // In a dry run nothing but this unit remembers what is done and deleted, and what is done is
        // reported in the order of units.
        if self.lands_on_disk || is_through && (is_first || open.done.is_empty()) {
            self.close(unit, settled);
        }
    }

    /// Asks the nodes that say a file is gone whether they still list it. Says whether any is asked.
    fn confirm(&mut self, unit: Unit, files: &[FileId], settled: &mut Settled) -> bool {
        let Some(open) = self.units.get_mut(&unit) else {
            return false;
        };
        for id in files {
            let Some(file) = self.files.get_mut(id) else {
                continue;
            };
            if !matches!(file.state, State::Gone) {
                continue;
            }
            let to_ask = file.gone.without(file.asked_again);
            let to_ask_now = to_ask.and(self.alive);
            let fate = match (&file.failure, file.withheld_by, to_ask.iter().next()) {
                (Some((node, error)), ..) => Fate::Missing(Loss::Failed(*node, error.clone())),
                (None, Some(node), _) => Fate::Missing(Loss::Withheld(node)),
                (None, None, Some(node)) if to_ask_now.is_empty() => {
                    Fate::Missing(Loss::GivenUp(node))
                }
                (None, None, Some(_)) => {
                    open.confirming = open.confirming.or(to_ask_now);
                    continue;
                }
                (None, None, None) => Fate::Vanished,
            };
            file.state = State::Lost(fate);
        }
        settled.confirm.extend(open.confirming.iter().map(|node| (node, unit)));
        !open.confirming.is_empty()
    }

    /// Whether a node may come back, or list by another name in the hour beside it, what is lost.
    fn may_come_yet(&self, files: &[FileId], through: &impl Fn(Unit) -> bool) -> bool {
        files.iter().filter_map(|id| self.files.get(id)).any(|file| {
            let is_at_an_edge =
                Recording::of(file.unit, &file.item).is_some_and(Recording::is_at_an_edge);
            let unheard = file.holders.or(file.gone.without(file.asked_again));
            // In a dry run no node comes back.
            self.lands_on_disk && !unheard.without(self.alive).is_empty()
                || is_at_an_edge && !file.unit.neighbours().into_iter().all(through)
        })
    }

    /// Reports what is lost of a unit.
    fn report(&mut self, unit: Unit, mut files: Vec<FileId>, settled: &mut Settled) {
        files.sort_unstable();
        for id in files {
            let Some(file) = self.files.get(&id) else {
                continue;
            };
            for node in file.holders.without(self.alive).iter() {
                if settled.bereaved.last() != Some(&(node, unit)) {
                    settled.bereaved.push((node, unit));
                }
            }
            let State::Lost(fate) = &file.state else {
                continue;
            };
            let fate = match (fate, &file.inherited) {
                (Fate::Vanished, Some(loss)) => Fate::Missing(loss.clone()),
                _ => fate.clone(),
            };
            let item = file.item.clone();
            let twin = file.twins.and_then(|twins| self.twins.members(twins).find(|t| *t != id));
            self.remove(id);
            match (twin.and_then(|twin| self.files.get_mut(&twin)), fate) {
                // Of several names of one recording the last speaks for all.
                (None, fate) => {
                    settled.files.push(Final { unit, item, fate });
                }
                (Some(twin), Fate::Missing(loss)) => twin.inherited = Some(loss),
                (Some(_), Fate::Vanished) => {}
            }
        }
    }

    /// Forgets a unit of which nothing is wanted.
    fn close(&mut self, unit: Unit, settled: &mut Settled) {
        if !self.lands_on_disk {
            settled.would_land.extend(self.take_would_land(unit));
            self.touched.extend(self.units.keys().find(|other| **other != unit));
        }
        let Some(OpenUnit { done, deleted, .. }) = self.units.remove(&unit) else {
            return;
        };
        self.forget_names(unit, done.into_keys());
        for name in deleted {
            let recording = Recording::of(unit, &Item::Segment(name));
            if let Some(recording) = recording.filter(|recording| !recording.is_at_an_edge()) {
                self.deleted.remove(recording);
            }
        }
        self.touched.remove(&unit);
    }

    pub(super) fn forget_names(&mut self, unit: Unit, names: impl IntoIterator<Item = Item>) {
        for item in names {
            if let Some(recording) = Recording::of(unit, &item) {
                self.twins.forget(recording);
            }
        }
    }
}

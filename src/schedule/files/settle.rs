//! Decides which files are final. A file that no node could deliver is reported when its unit
//! closes: until then another node may list it, or a node may come back.

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
    /// Its unit.
    pub unit: Unit,
    /// Its name.
    pub item: Item,
    /// Its outcome.
    pub fate: Fate,
}

/// The results of settling.
#[derive(Debug, Default)]
pub struct Settled {
    /// The files that are now final.
    pub files: Vec<Final>,
    /// Units that nodes must list again.
    pub confirm: Vec<(NodeId, Unit)>,
    /// Units with files whose node is given up now. They must be listed if it comes back.
    pub to_relist: Vec<(NodeId, Unit)>,
    /// In a dry run: what would have landed in units that all nodes have listed.
    pub would_land: Vec<(Unit, Vec<WouldLand>)>,
}

impl Files {
    /// Notes that something changed in a unit, which may affect the hours next to it.
    pub fn touch(&mut self, unit: Unit) {
        self.touched.insert(unit);
        self.touched.extend(unit.neighbours());
    }

    /// Notes that something changed in all units.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.units.keys());
    }

    /// The files of a unit that a node said are gone and must confirm.
    pub fn to_ask_again(&self, node: NodeId, unit: Unit) -> HashSet<Item> {
        let files = self.units.get(&unit).into_iter().flat_map(|open| &open.wanted);
        let is_asked = |id| {
            self.files
                .get(id)
                .is_some_and(|file| matches!(file.state, State::Gone) && file.gone.contains(node))
        };
        files.filter(|(_, id)| is_asked(*id)).map(|(item, _)| item.clone()).collect()
    }

    /// Notes that a node listed a unit again. It was asked about the files in `asked` and still
    /// lists those in `still`.
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

    /// Notes that a node could not list a unit again, after all retries.
    pub fn not_listed_again(&mut self, node: NodeId, unit: Unit, error: &NodeError) {
        let asked = self.to_ask_again(node, unit);
        let failure = |file: &mut File| file.failure = Some(Box::new((node, error.clone())));
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

    /// Settles what can be settled in the units that changed. `through` tells whether all nodes
    /// have completely listed a unit; `full` means that there is no room to wait for that.
    pub fn settle(&mut self, through: impl Fn(Unit) -> bool, full: bool) -> Settled {
        let mut settled = Settled::default();
        while let Some(unit) = self.touched.pop_first() {
            self.settle_unit(unit, &through, full, &mut settled);
        }
        settled
    }

    /// Settles everything: no node is left to ask.
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
        if full || is_through && !self.may_still_come(&files, through) {
            self.report(unit, files, settled);
        }
        let is_first = self.units.first_key_value().is_some_and(|(first, _)| *first == unit);
        let Some(open) = self.units.get(&unit).filter(|open| open.wanted.is_empty()) else {
            return;
        };
        // In a dry run, only this unit remembers what is done and deleted, and what is done is
        // reported in the order of units.
        if self.lands_on_disk || is_through && (is_first || open.done.is_empty()) {
            self.close(unit, settled);
        }
    }

    /// Has the nodes that say a file is gone list its unit again. Returns whether any must.
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
            let fate = match (file.failure.as_deref(), file.withheld_by, to_ask.iter().next()) {
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

    /// Whether a lost file may still turn up: a node may come back, or list it by another name in a
    /// neighbouring hour.
    fn may_still_come(&self, files: &[FileId], through: &impl Fn(Unit) -> bool) -> bool {
        files.iter().filter_map(|id| self.files.get(id)).any(|file| {
            let is_at_an_edge =
                Recording::of(file.unit, &file.item).is_some_and(Recording::is_at_an_edge);
            let unheard = file.holders.or(file.gone.without(file.asked_again));
            // In a dry run no node comes back.
            self.lands_on_disk && !unheard.without(self.alive).is_empty()
                || is_at_an_edge && !file.unit.neighbours().all(through)
        })
    }

    /// Reports the lost files of a unit.
    fn report(&mut self, unit: Unit, mut files: Vec<FileId>, settled: &mut Settled) {
        files.sort_unstable();
        for id in files {
            let Some(file) = self.files.get(&id) else {
                continue;
            };
            for node in file.holders.without(self.alive).iter() {
                if settled.to_relist.last() != Some(&(node, unit)) {
                    settled.to_relist.push((node, unit));
                }
            }
            let State::Lost(fate) = &file.state else {
                continue;
            };
            let fate = match (fate, file.inherited.as_deref()) {
                (Fate::Vanished, Some(loss)) => Fate::Missing(loss.clone()),
                _ => fate.clone(),
            };
            let item = file.item.clone();
            let twin = file.twins.and_then(|twins| self.twins.members(twins).find(|t| *t != id));
            self.remove(id);
            match (twin.and_then(|twin| self.files.get_mut(&twin)), fate) {
                // Several names of one recording are reported as one file, by the last of them.
                (None, fate) => {
                    settled.files.push(Final { unit, item, fate });
                }
                (Some(twin), Fate::Missing(loss)) => twin.inherited = Some(Box::new(loss)),
                (Some(_), Fate::Vanished) => {}
            }
        }
    }

    /// Forgets a unit in which nothing is wanted.
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

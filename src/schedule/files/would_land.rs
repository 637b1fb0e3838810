//! Collects what a dry run would fetch. It is reported once all nodes have listed a unit: only then
//! is it known which nodes have a file, and whether it was deleted on purpose.

use super::Files;
use super::file::Done;
use crate::schedule::nodes::NodeSet;
use crate::schedule::twins::Recording;
use crate::schedule::unit::{Item, Unit};

/// A file that a dry run would have fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldLand {
    /// Its name.
    pub item: Item,
    /// The nodes that have it.
    pub holders: NodeSet,
    /// Its size in bytes, if a node has given it.
    pub bytes: Option<u64>,
}

impl Files {
    /// Takes what would have landed in all open units, even if not all nodes have listed them.
    /// Returns nothing unless this is a dry run: in another pass, it has landed and was reported.
    pub fn take_all_that_would_land(&mut self) -> Vec<(Unit, Vec<WouldLand>)> {
        if self.lands_on_disk {
            return Vec::new();
        }
        let units: Vec<Unit> = self.units.keys().copied().collect();
        units.into_iter().filter_map(|unit| self.take_would_land(unit)).collect()
    }

    /// Takes what would have landed in a unit, except what turned out to be deleted on purpose.
    pub(super) fn take_would_land(&mut self, unit: Unit) -> Option<(Unit, Vec<WouldLand>)> {
        let open = self.units.get_mut(&unit)?;
        let done = std::mem::take(&mut open.done);
        let before = done.len();
        let is_deleted = |item: &Item| match (Recording::of(unit, item), item) {
            (Some(recording), _) => self.deleted.same(recording).is_some(),
            (None, Item::Segment(name)) => open.deleted.contains(name),
            (None, Item::Extra(_)) => false,
        };
        let mut files = Vec::new();
        for (item, Done { holders, bytes, by_twin }) in &done {
            if is_deleted(item) {
                self.dropped.push((unit, *holders));
            } else if !by_twin {
                files.push(WouldLand { item: item.clone(), holders: *holders, bytes: *bytes });
            }
        }
        self.remembered -= before - files.len();
        self.forget_names(unit, done.into_keys());
        (!files.is_empty()).then_some((unit, files))
    }

    /// Notes that this many of the files that would have landed were reported.
    pub fn reported(&mut self, files: usize) {
        self.remembered -= files;
    }
}

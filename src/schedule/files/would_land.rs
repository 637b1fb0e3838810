//! What a dry run would fetch: it is reported when all nodes have listed a unit, since only then is it
//! known who has it, and whether it was deleted on purpose.

use super::Files;
use super::file::Done;
use crate::schedule::nodes::NodeSet;
use crate::schedule::twins::Recording;
use crate::schedule::unit::{Item, Unit};

/// A file that would have landed, had this been no dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldLand {
    /// Which one it is.
    pub item: Item,
    /// The nodes that have it.
    pub holders: NodeSet,
    /// Its size, where a node has told it.
    pub bytes: Option<u64>,
}

impl Files {
    /// What would have landed in all units that are open, though nodes have still to list them.
    pub fn take_all_that_would_land(&mut self) -> Vec<(Unit, Vec<WouldLand>)> {
        let units: Vec<Unit> = self.units.keys().copied().collect();
        units.into_iter().filter_map(|unit| self.take_would_land(unit)).collect()
    }

    /// What would have landed in a unit, and was not deleted on purpose as was found out later.
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
            if !by_twin && !is_deleted(item) {
                files.push(WouldLand { item: item.clone(), holders: *holders, bytes: *bytes });
            }
        }
        self.remembered -= before - files.len();
        self.forget_names(unit, done.into_keys());
        (!files.is_empty()).then_some((unit, files))
    }

    /// So many of the files that would have landed were reported.
    pub fn reported(&mut self, files: usize) {
        self.remembered -= files;
    }
}

//! What nodes list as deleted on purpose. Its tombstones are created, and of what they hide this pass
//! removes again what it has fetched itself. What was here before stays, and is reported.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::sync::Mutex;

use super::Pass;
use crate::archive::HourFiles;
use crate::fetch::{FetchError, Fetched};
use crate::hour::Hour;
use crate::lock::lock;
use crate::plan::Recordings;
use crate::report::Event;
use crate::schedule::{Fetch, Item, NodeId, Unit};
use crate::segment::{Medium, SegmentName};
use crate::target::{Place, Target};

/// The segments that this pass has brought, by hashes of their names: eight bytes each.
#[derive(Debug, Default)]
pub struct Brought {
    hasher: RandomState,
    units: Mutex<HashMap<Unit, Vec<u64>>>,
}

impl Brought {
    /// This pass has brought a segment that was not here before.
    fn add(&self, unit: Unit, name: &str) {
        let name = self.hasher.hash_one(name);
        let mut units = lock(&self.units);
        units.entry(unit).or_default().push(name);
    }

    fn has_any(&self, unit: Unit) -> bool {
        lock(&self.units).contains_key(&unit)
    }

    fn has(&self, unit: Unit, name: &str) -> bool {
        let name = self.hasher.hash_one(name);
        let units = lock(&self.units);
        units.get(&unit).is_some_and(|names| names.contains(&name))
    }
}

impl Pass {
    /// Creates the tombstones that a node lists, before anything of the listing is fetched.
    pub(super) fn bury(
        &self,
        id: NodeId,
        unit: Unit,
        place: &Place,
        names: Vec<SegmentName>,
    ) -> Result<(), FetchError> {
        if names.is_empty() {
            return Ok(());
        }
        let new = self.settle(|scheduler| scheduler.deleted(unit, names));
        for name in &new {
            self.settle_listed(&Target::Segment(place.clone(), name.clone()));
            let target = &Target::Tombstone(place.clone(), name.clone());
            if !self.is_target(target) {
                continue;
            }
            if self.config.dry_run {
                let bytes = None;
                self.tell(Event::WouldLand { target, bytes, repairs: false, nodes: None });
            } else if let Fetched::Landed(..) = self.fetcher(id, &|_| ()).bury(target)? {
                self.tell(Event::Buried { node: id, target });
            }
        }
        if new.is_empty() { Ok(()) } else { self.hide(id, unit, place, &new) }
    }

    /// Looks for what these tombstones of an hour, which are new, hide.
    fn hide(
        &self,
        id: NodeId,
        unit: Unit,
        place: &Place,
        deleted: &[SegmentName],
    ) -> Result<(), FetchError> {
        let medium = place.collection.variant.medium();
        let hours = deleted.iter().map(|name| (place.hour, name));
        let recordings = Recordings::of(iter::empty(), hours, medium);
        // What another clock put into the hour beside it is the same recording.
        for unit in iter::once(unit).chain(unit.neighbours()) {
            let Unit::Hour(hour, _) = unit else { continue };
            let beside = Place { collection: place.collection.clone(), hour: hour.0 };
            if beside != *place && !self.brought.has_any(unit) {
                continue;
            }
            let files = self.here.look_at(self.archive, &beside)?;
            for name in segments(&files, medium) {
                if self.brought.has(unit, name.as_str()) && recordings.is_deleted(hour.0, &name) {
                    self.remove_again(id, Target::Segment(beside.clone(), name))?;
                }
            }
            let is_here = |name: &&SegmentName| {
                let text = name.as_str();
                !self.brought.has(unit, text) && (files.has(text) || files.is_corrupt(text))
            };
            for name in deleted.iter().filter(is_here).filter(|_| beside == *place) {
                let target = &Target::Segment(beside.clone(), name.clone());
                self.tell(Event::Hidden { node: id, target });
            }
        }
        Ok(())
    }

    /// A segment that was not here before has landed by us. If another worker has found its tombstone
    /// at the same time, one of the two removes it again: this one looks after it has noted what it
    /// brought, the other one after the tombstone is there.
    pub(super) fn brought(&self, id: NodeId, fetch: &Fetch) -> Result<(), FetchError> {
        // A node doesn't list what it has a tombstone of.
        let (Unit::Hour(hour, _), Item::Segment(name)) = (fetch.unit, &fetch.item) else {
            return Ok(());
        };
        self.brought.add(fetch.unit, name.as_str());
        if !fetch.transfer.is_superseded() {
            return Ok(());
        }
        let Target::Segment(place, _) = self.target(fetch.unit, &fetch.item) else {
            return Ok(());
        };
        let hours: Vec<Hour> = iter::once(fetch.unit)
            .chain(fetch.unit.neighbours())
            .filter_map(|unit| match unit {
                Unit::Hour(hour, _) => Some(hour.0),
                Unit::Extras(_) => None,
            })
            .collect();
        let files = hours.into_iter().map(|hour| {
            let beside = Place { collection: place.collection.clone(), hour };
            Ok((hour, self.here.look_at(self.archive, &beside)?))
        });
        let files: Vec<(Hour, HourFiles)> = files.collect::<Result<_, FetchError>>()?;
        let here = files.iter().map(|(hour, files)| (*hour, files));
        let known = Recordings::of(here, iter::empty(), place.collection.variant.medium());
        match known.is_deleted(hour.0, name) {
            true => self.remove_again(id, Target::Segment(place.clone(), name.clone())),
            false => Ok(()),
        }
    }

    fn remove_again(&self, id: NodeId, target: Target) -> Result<(), FetchError> {
        if self.archive.remove(&target)? {
            self.tell(Event::Removed { node: id, target: &target });
        }
        Ok(())
    }
}

/// The segments in an hour, by their names.
fn segments(files: &HourFiles, medium: Medium) -> impl Iterator<Item = SegmentName> {
    files.iter().filter_map(move |name| SegmentName::parse(name, medium).ok())
}

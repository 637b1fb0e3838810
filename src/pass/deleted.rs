//! Segments that nodes list as deleted on purpose. The pass creates their tombstones, and removes
//! the segments that it has fetched itself and that they hide. Segments that were here before stay,
//! and are reported.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::sync::Mutex;

use super::Pass;
use crate::archive::HourFiles;
use crate::fetch::{FetchError, Fetched};
use crate::hour::Hour;
use crate::lock::lock;
use crate::plan::KnownRecordings;
use crate::report::Event;
use crate::schedule::{Fetch, Item, NodeId, Unit};
use crate::segment::{Medium, SegmentName};
use crate::target::{Place, Target};

/// The segments that this pass has added to the archive. Only hashes of their names are kept, which
/// is eight bytes for each. They are searched one by one: a set would need twice the memory, and a
/// search takes less than a microsecond in a usual hour, and 70 in one with 200,000 segments. Only
/// segments that were deleted or added by others meanwhile are searched for.
#[derive(Debug, Default)]
pub struct Landed {
    hasher: RandomState,
    units: Mutex<HashMap<Unit, Vec<u64>>>,
}

impl Landed {
    /// Adds a segment that was not here before this pass.
    fn add(&self, unit: Unit, name: &str) {
        let name = self.hasher.hash_one(name);
        let mut units = lock(&self.units);
        units.entry(unit).or_default().push(name);
    }

    fn has_any(&self, unit: Unit) -> bool {
        lock(&self.units).contains_key(&unit)
    }

    /// Whether this pass has added a segment.
    pub fn has(&self, unit: Unit, name: &str) -> bool {
        let name = self.hasher.hash_one(name);
        let units = lock(&self.units);
        units.get(&unit).is_some_and(|names| names.contains(&name))
    }
}

impl Pass {
    /// Creates the tombstones in a node's listing, before anything in that listing is fetched.
    pub(super) fn create_tombstones(
        &self,
        id: NodeId,
        unit: Unit,
        place: &Place,
        names: Vec<SegmentName>,
    ) -> Result<(), FetchError> {
        if names.is_empty() {
            return Ok(());
        }
        let target = |name: &SegmentName| Target::Segment(place.clone(), name.clone());
        let not_here: HashSet<SegmentName> =
            names.iter().filter(|name| !self.here.is_corrupt(&target(name))).cloned().collect();
        let (wanted, new) = self.settle(|scheduler| {
            let mut wanted = not_here;
            wanted.retain(|name| scheduler.wants(unit, name));
            (wanted, scheduler.deleted(unit, names))
        });
        for name in &new {
            self.settle_listed(&target(name));
            let target = &Target::Tombstone(place.clone(), name.clone());
            if !self.is_listed_target(target) {
                continue;
            }
            if self.config.dry_run {
                let bytes = None;
                self.emit(Event::WouldLand { target, bytes, repairs: false, nodes: None });
            } else if let Fetched::Landed(..) =
                self.fetcher(id, &|_| ()).create_tombstone(target)?
            {
                self.emit(Event::TombstoneCreated { node: id, target });
            }
        }
        if new.is_empty() { Ok(()) } else { self.hide(id, unit, place, &new, &wanted) }
    }

    /// Removes or reports the segments that these new tombstones of an hour hide. Those that were
    /// wanted until now are taken for ours, though another program may have added one meanwhile.
    fn hide(
        &self,
        id: NodeId,
        unit: Unit,
        place: &Place,
        deleted: &[SegmentName],
        wanted: &HashSet<SegmentName>,
    ) -> Result<(), FetchError> {
        let medium = place.collection.variant.medium();
        let hours = deleted.iter().map(|name| (place.hour, name));
        let recordings = KnownRecordings::of(iter::empty(), |_| true, hours, medium);
        // A recorder with another clock may have put the same recording into a neighbouring hour.
        for unit in iter::once(unit).chain(unit.neighbours()) {
            let Unit::Hour(hour, _) = unit else { continue };
            let beside = Place { collection: place.collection.clone(), hour: hour.0 };
            if beside != *place && !self.landed.has_any(unit) {
                continue;
            }
            let files = self.here.look_at(self.archive, &beside)?;
            for name in segments(&files, medium) {
                // In this order, as few are deleted, and the other is a search.
                if recordings.is_deleted(hour.0, &name) && self.landed.has(unit, name.as_str()) {
                    self.remove_again(id, Target::Segment(beside.clone(), name))?;
                }
            }
            let is_here = |name: &&SegmentName| {
                let text = name.as_str();
                // What has just landed may not be noted yet.
                let is_ours = wanted.contains(*name) || self.landed.has(unit, text);
                (files.has(text) || files.is_corrupt(text)) && !is_ours
            };
            for name in deleted.iter().filter(is_here).filter(|_| beside == *place) {
                let target = &Target::Segment(beside.clone(), name.clone());
                self.emit(Event::Hidden { node: id, target });
            }
        }
        Ok(())
    }

    /// Notes a segment that this pass has added to the archive, and removes it again if it was
    /// deleted on purpose. Another worker may find its tombstone at the same time. One of the two
    /// always removes the segment: this one asks whether it is forbidden, and looks for the tombstone,
    /// after noting the segment; and the other one looks for noted segments after that.
    pub(super) fn note_landed(&self, id: NodeId, fetch: &Fetch) -> Result<(), FetchError> {
        let (Unit::Hour(hour, _), Item::Segment(name)) = (fetch.unit, &fetch.item) else {
            // Extra files have no tombstones.
            return Ok(());
        };
        self.landed.add(fetch.unit, name.as_str());
        if !fetch.transfer.is_superseded() {
            // A tombstone found meanwhile would have superseded the fetch.
            return Ok(());
        }
        let Target::Segment(place, _) = self.target(fetch.unit, &fetch.item) else {
            return Ok(());
        };
        if fetch.transfer.is_forbidden() {
            return self.remove_again(id, Target::Segment(place, name.clone()));
        }
        // As in `hide`, a neighbouring hour may have the tombstone.
        let hours = BTreeSet::from([hour.0.back(1), hour.0, hour.0.next()]);
        let files = hours.into_iter().map(|hour| {
            let beside = Place { collection: place.collection.clone(), hour };
            Ok((hour, self.here.look_at(self.archive, &beside)?))
        });
        let files: Vec<(Hour, HourFiles)> = files.collect::<Result<_, FetchError>>()?;
        let here = files.iter().map(|(hour, files)| (*hour, files));
        let is_same = |hash: &str| hash == name.written_hash();
        let medium = place.collection.variant.medium();
        let known = KnownRecordings::of(here, is_same, iter::empty(), medium);
        if !known.is_deleted(hour.0, name) {
            return Ok(());
        }
        self.remove_again(id, Target::Segment(place.clone(), name.clone()))
    }

    fn remove_again(&self, id: NodeId, target: Target) -> Result<(), FetchError> {
        if self.archive.remove(&target)? {
            self.emit(Event::Removed { node: id, target: &target });
        }
        Ok(())
    }
}

/// The names in an hour that are segments.
fn segments(files: &HourFiles, medium: Medium) -> impl Iterator<Item = SegmentName> {
    files.iter().filter_map(move |name| SegmentName::parse(name, medium).ok())
}

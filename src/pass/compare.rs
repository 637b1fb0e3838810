//! Notes which node has what (`--compare`), from what the pass finds out anyway.

use std::cmp::Reverse;

use super::{Pass, lock};
use crate::archive::HourFiles;
use crate::compare::{Comparison, Row, segments};
use crate::hour::Hour;
use crate::plan::Skip;
use crate::report::Event;
use crate::schedule::{List, NodeId, NodeSet, Unit};
use crate::segment::{Collection, SegmentName};
use crate::target::{Directory, Place, Target};

impl Pass {
    /// Whether the comparison is requested.
    pub(super) fn compares(&self) -> bool {
        self.config.compare
    }

    fn compared(&self, note: impl FnOnce(&mut Comparison)) {
        if self.compares() {
            note(&mut lock(&self.comparison));
        }
    }

    /// Notes that a node lists `has` segments in an hour; `files` were here at that time.
    pub(super) fn note_compared(&self, id: NodeId, place: &Place, has: u64, files: &HourFiles) {
        let medium = place.collection.variant.medium();
        self.compared(|comparison| {
            if !comparison.is_known(place) {
                comparison.here(place, segments(files, medium));
            }
            comparison.listed(id, place, has);
        });
    }

    /// Notes that a node has these selected hours of a collection.
    pub(super) fn note_hours(&self, id: NodeId, collection: &Collection, hours: &[Hour]) {
        self.compared(|comparison| comparison.hours_listed(id, collection, hours));
    }

    /// Notes what an event tells about who has a segment of an hour.
    pub(super) fn note_for_comparison(&self, event: &Event<'_>) {
        if let Event::Landed { target: Target::Segment(place, _), .. }
        | Event::WouldLand { target: Target::Segment(place, _), .. }
        | Event::FileFailed { target: Target::Segment(place, _), .. }
        | Event::FileVanished { target: Target::Segment(place, _) } = event
        {
            self.compared(|comparison| comparison.elsewhere(place));
        }
        match event {
            Event::Landed { target: Target::Segment(place, name), repaired: true, .. } => {
                self.compared(|comparison| comparison.repaired(place, name));
            }
            Event::Dropped { target: Target::Segment(place, name), why: Skip::Here } => {
                self.compared(|comparison| comparison.found(place, name));
            }
            Event::Removed { target: Target::Segment(place, _), .. } => {
                self.compared(|comparison| comparison.removed(place));
            }
            _ => {}
        }
    }

    /// Notes that a segment of an hour, which these nodes list, was deleted on purpose.
    pub(super) fn note_deleted(&self, unit: Unit, nodes: NodeSet) {
        if let Directory::Hour(place) = self.directory(List::Unit(unit)) {
            self.compared(|comparison| {
                nodes.iter().for_each(|node| comparison.deleted(node, &place));
            });
        }
    }

    /// Builds the comparison. Returns nothing if the pass ended early.
    pub(super) fn compare(&self) -> Vec<(Collection, Vec<Row>)> {
        if !self.compares() || self.stop.cause().is_some() {
            return Vec::new();
        }
        let is_ours = |place: &Place, name: &SegmentName| {
            let collection = self.collections().iter().position(|it| *it == place.collection);
            collection.is_some_and(|collection| {
                self.landed.has(Unit::Hour(Reverse(place.hour), collection), name.as_str())
            })
        };
        lock(&self.comparison).count_found(is_ours);
        let mut compared = Vec::new();
        for collection in self.collections() {
            self.count_here(collection);
            compared.push((collection.clone(), lock(&self.comparison).rows(collection)));
        }
        compared
    }

    /// Counts the segments here in hours that no node has listed.
    fn count_here(&self, collection: &Collection) {
        let hours = match self.archive.hours(collection, &self.config.hours) {
            Ok(hours) => hours,
            Err(error) => return self.failed_here(&error),
        };
        for hour in hours {
            let place = Place { collection: collection.clone(), hour };
            if lock(&self.comparison).is_known(&place) {
                continue;
            }
            match self.here.look_at(self.archive, &place) {
                Ok(files) => {
                    let here = segments(&files, collection.variant.medium());
                    self.compared(|comparison| comparison.here(&place, here));
                }
                Err(error) => self.failed_here(&error),
            }
        }
    }
}

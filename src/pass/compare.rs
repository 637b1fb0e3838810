//! Noting who has what (`--compare`), as far as the pass finds that out anyway.

use super::{Pass, lock};
use crate::archive::HourFiles;
use crate::compare::{Comparison, Row, segments};
use crate::hour::Hour;
use crate::plan::Skip;
use crate::report::Event;
use crate::schedule::NodeId;
use crate::segment::Collection;
use crate::target::{Place, Target};

impl Pass {
    /// Whether anybody wants to know.
    pub(super) fn compares(&self) -> bool {
        self.config.compare
    }

    fn compared(&self, note: impl FnOnce(&mut Comparison)) {
        if self.compares() {
            note(&mut lock(&self.comparison));
        }
    }

    /// A node has listed an hour, with so many segments; `files` were here then.
    pub(super) fn note_compared(&self, id: NodeId, place: &Place, has: u64, files: &HourFiles) {
        let medium = place.collection.variant.medium();
        self.compared(|comparison| {
            if !comparison.is_known(place) {
                comparison.here(place, segments(files, medium));
            }
            comparison.listed(id, place, has);
        });
    }

    /// A node has listed the hours of a collection, of which these are selected.
    pub(super) fn note_hours(&self, id: NodeId, collection: &Collection, hours: &[Hour]) {
        self.compared(|comparison| comparison.hours_listed(id, collection, hours));
    }

    /// Notes what nodes have that was not here.
    pub(super) fn note_elsewhere(&self, event: &Event<'_>) {
        if let Event::Landed { target: Target::Segment(place, _), .. }
        | Event::WouldLand { target: Target::Segment(place, _), .. }
        | Event::FileFailed { target: Target::Segment(place, _), .. }
        | Event::FileVanished { target: Target::Segment(place, _) }
        | Event::Dropped { target: Target::Segment(place, _), why: Skip::Here } = event
        {
            self.compared(|comparison| comparison.elsewhere(place));
        }
    }

    /// Who has what, unless the pass ended early.
    pub(super) fn compare(&self) -> Vec<(Collection, Vec<Row>)> {
        if !self.compares() || self.stop.cause().is_some() {
            return Vec::new();
        }
        let mut compared = Vec::new();
        for collection in self.collections() {
            self.count_here(collection);
            compared.push((collection.clone(), lock(&self.comparison).rows(collection)));
        }
        compared
    }

    /// Counts what is here of hours that no node has listed.
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

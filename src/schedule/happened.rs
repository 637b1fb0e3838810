//! Records what happened, and what follows from it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Instant;

use indicatif::HumanCount;

use super::Scheduler;
use super::files::{Enlisted, FileId};
use super::health::GivenUp;
use super::in_flight::InFlight;
use super::nodes::{NodeId, NodeSet};
use super::task::{Fetch, Unwanted, Verdict};
use super::unit::{Item, List, Unit};
use crate::hour::Hour;
use crate::node::{NodeError, Trouble};
use crate::segment::SegmentName;

/// A node that lists this many files without sending one of them is given up. It is more than an
/// hour has, so a node that lost a directory is not given up.
const MAX_WITHHELD: usize = 10_000;

impl Scheduler {
    /// Reports the selected hours of a collection that a node has.
    pub fn hours_listed(
        &mut self,
        id: NodeId,
        collection: usize,
        hours: impl IntoIterator<Item = Hour>,
        now: Instant,
    ) {
        if self.end_listing(id, List::Hours(collection)) {
            let units = hours.into_iter().map(|hour| Unit::Hour(Reverse(hour), collection));
            if self.nodes[id].listings.hours_listed(collection, units) {
                self.files.touch_all();
            }
            self.succeeded(id, now);
            self.changed = true;
        }
        self.settle();
    }

    /// Reports that a node has listed a unit, completely or up to a name. `wanted` holds the listed
    /// files that were missing at the last look, in the order in which to fetch them. Returns those
    /// that turn out not to be wanted.
    pub fn listed(
        &mut self,
        id: NodeId,
        unit: Unit,
        wanted: Vec<Item>,
        up_to: Option<Item>,
        now: Instant,
    ) -> Vec<Unwanted> {
        let mut unwanted = Vec::new();
        if self.end_listing(id, List::Unit(unit)) {
            let (room, mut is_whole) = (!self.is_full(), true);
            for item in wanted {
                match self.files.enlist(id, unit, item.clone(), room) {
                    Enlisted::NearDuplicate(of) => {
                        unwanted.push(Unwanted::NearDuplicate(item, of));
                    }
                    Enlisted::Deleted => {
                        self.verdicts.push(Verdict::Deleted(unit, NodeSet::of(id)));
                        unwanted.push(Unwanted::Deleted(item));
                    }
                    Enlisted::NoRoom => is_whole = false,
                    Enlisted::Wanted | Enlisted::Here => {}
                }
            }
            let listings = &mut self.nodes[id].listings;
            if !is_whole {
                listings.put_off(unit);
            } else if !listings.listed(unit, up_to.clone()) {
                let what = "its listing never ends";
                self.listing_is_lost(
                    id,
                    List::Unit(unit),
                    &NodeError::answered(Trouble::Refused, what),
                );
            } else {
                self.listed += u64::from(up_to.is_none());
            }
            self.files.end_listing(unit);
            self.succeeded(id, now);
        }
        self.settle();
        unwanted
    }

    /// Reports that a node has listed a unit again. Of the names that it was asked about, it still
    /// lists those in `still`.
    pub fn listed_again(
        &mut self,
        id: NodeId,
        unit: Unit,
        names: &HashSet<Item>,
        still: &[Item],
        now: Instant,
    ) {
        if self.end_listing(id, List::Again(unit)) {
            self.files.listed_again(id, unit, names, still);
            self.succeeded(id, now);
            self.nodes[id].withheld += still.len();
            if self.nodes[id].withheld > MAX_WITHHELD {
                let what = format!(
                    "it lists {} files and sends none of them",
                    HumanCount(self.nodes[id].withheld as u64)
                );
                let error = NodeError::answered(Trouble::Refused, what);
                let judgement = self.nodes[id].health.give_up(GivenUp::Failed(error), now);
                self.give_up_if(id, judgement, now);
            }
        }
        self.settle();
    }

    /// Whether a segment of this name is listed, and neither here nor given up.
    pub fn wants(&self, unit: Unit, name: &SegmentName) -> bool {
        self.files.wants(unit, name)
    }

    /// Reports that these segments of an hour were deleted on purpose, according to a node or to
    /// the disk, which applies to every recording of them. Returns the names that were not known as
    /// deleted, so that their tombstones can be created.
    pub fn deleted(&mut self, unit: Unit, names: Vec<SegmentName>) -> Vec<SegmentName> {
        let mut new = Vec::new();
        for name in names {
            if let Some(dropped) = self.files.delete(unit, &name) {
                self.cancel_fetches_of(&dropped, InFlight::forbid_file);
                new.push(name);
            }
        }
        self.settle();
        new
    }

    /// Reports that a file is here: this node sent it, or it was found here.
    pub fn landed(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        self.end_fetch(id, fetch, true, now);
        self.files_landed(fetch, None);
    }

    /// Reports, in a dry run, that a file would be here. Some nodes give its size.
    pub fn would_land(&mut self, id: NodeId, fetch: &Fetch, bytes: Option<u64>, now: Instant) {
        self.end_fetch(id, fetch, true, now);
        self.files_landed(fetch, bytes);
    }

    fn files_landed(&mut self, fetch: &Fetch, bytes: Option<u64>) {
        let landed = self.files.landed(fetch.file, bytes);
        self.cancel_fetches_of(&landed, InFlight::supersede_file);
        self.settle();
    }

    /// Notes that this many files that would have landed were reported, which makes room for
    /// others.
    pub fn reported(&mut self, files: usize) {
        self.files.reported(files);
        self.settle();
    }

    /// Reports that a tombstone forbids a fetched file.
    pub fn forbidden(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        self.end_fetch(id, fetch, true, now);
        match &fetch.item {
            Item::Segment(name) => drop(self.deleted(fetch.unit, vec![name.clone()])),
            Item::Extra(_) => drop(self.files.landed(fetch.file, None)),
        }
        self.settle();
    }

    /// Reports that this machine can't store a file.
    pub fn abandoned(&mut self, id: NodeId, fetch: &Fetch, now: Instant) {
        self.end_fetch(id, fetch, false, now);
        let (files, backoff) = (&mut self.files, &mut self.policy.backoff);
        files.abandon(fetch.file, &mut |n| now + backoff(n));
        self.settle();
    }

    /// Notes that a listing has ended. Returns whether it still counts.
    fn end_listing(&mut self, id: NodeId, list: List) -> bool {
        let counts = self.nodes[id].listings.end(list);
        if counts {
            self.release(id);
        }
        counts
    }

    /// Notes that a fetch has ended.
    fn end_fetch(&mut self, id: NodeId, fetch: &Fetch, delivered: bool, now: Instant) {
        if self.fetches.end(fetch.number, delivered) {
            self.release(id);
            self.succeeded(id, now);
            self.nodes[id].withheld = 0;
        }
    }

    fn succeeded(&mut self, id: NodeId, now: Instant) {
        if self.nodes[id].health.succeeded(now) {
            self.files.regain_node(id);
            self.verdicts.push(Verdict::NodeBack(id));
            self.changed = true;
        }
    }

    fn cancel_fetches_of(
        &mut self,
        files: &[FileId],
        cancel: fn(&mut InFlight, FileId) -> Vec<NodeId>,
    ) {
        for file in files {
            for node in cancel(&mut self.fetches, *file) {
                self.release(node);
            }
        }
    }
}

//! Reports events and verdicts, and decides whether a local failure ends the pass.

use std::cmp::Reverse;
use std::io;
use std::sync::atomic::Ordering;

use super::Pass;
use crate::error::LocalError;
use crate::node::NodeError;
use crate::plan::Skip;
use crate::report::Event;
use crate::schedule::{Item, List, Loss, NodeId, Unit, Verdict, WouldLand};
use crate::stop::Cause;
use crate::target::{Directory, Place, Target};
use crate::verify::{Damage, Observer};

/// After this many local failures in a row, the machine is at fault and not single paths.
const MAX_LOCAL_FAILURES: u32 = 10;

impl Pass {
    /// Reports an event, after noting what later phases need to know of it.
    pub(super) fn emit(&self, event: Event<'_>) {
        self.note_listed(&event);
        self.note_refused(&event);
        self.note_for_comparison(&event);
        self.report.emit(event, &self.stop);
    }

    /// Reports that a listed name is not fetched.
    pub(super) fn skip(&self, node: NodeId, directory: &Directory, name: Option<&str>, why: Skip) {
        self.emit(Event::Skipped { node, directory, name, why: &why });
    }

    /// Reports a local failure, and ends the pass unless other files may still succeed.
    pub(super) fn failed_here(&self, error: &LocalError) {
        // If the disk is gone, every worker gets here, but only the first reports it.
        if error.is_gone() && self.stop.is_stopped() {
            return;
        }
        if self.report.emit(Event::LocalFailed { error }, &self.stop) {
            self.failed_here.store(true, Ordering::Relaxed);
        }
        // Errors about single paths say nothing about the machine, however many there are.
        let counted = u32::from(!self.archive.concerns_one_place(error));
        let failures = self.local_failures.fetch_add(counted, Ordering::Relaxed) + counted;
        if failures >= MAX_LOCAL_FAILURES || !self.archive.can_continue_after(error) {
            self.end(Cause::LocalFailure);
        }
    }

    /// Reports that this machine lacks what a request to a node needs (`Trouble::Local`).
    pub(super) fn cannot_ask(&self, id: NodeId, error: &NodeError) {
        let node = self.config.nodes[id].name.as_ref();
        let why = io::Error::other(error.to_string());
        self.failed_here(&LocalError::new("sending a request to node", node, why));
    }

    /// Reports a file that no node can provide, and counts it as missing.
    pub(super) fn lost(&self, target: &Target, loss: &Loss) {
        let optional = self.optional_loser(target, loss);
        let count = optional.map_or(&self.missing, |node| &self.lost_with[node]);
        count.fetch_add(1, Ordering::Relaxed);
        self.emit(Event::FileFailed { target, loss, excused: optional.is_some() });
    }

    pub(super) fn report_verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::NodeGivenUp(node, why) => {
                self.emit(Event::NodeGivenUp { node: *node, why });
                self.nodes[*node].cut();
            }
            Verdict::NodeBack(node) => self.emit(Event::NodeBack { node: *node }),
            Verdict::ListingFailed(node, list, error) => {
                let (node, directory) = (*node, &self.directory(*list));
                self.emit(Event::ListingFailed { node, directory, error });
            }
            Verdict::FileMissing(unit, item, loss) => {
                let target = &self.target(*unit, item);
                self.partials.settle(target);
                // A worker may have delivered it just before its node was given up.
                if self.archive.has(target) && !self.here.is_corrupt(target) {
                    return self.emit(Event::Dropped { target, why: &Skip::Here });
                }
                self.lost(target, loss);
            }
            Verdict::FileVanished(unit, item) => {
                let target = &self.target(*unit, item);
                self.partials.settle(target);
                self.emit(Event::FileVanished { target });
            }
            Verdict::WouldLand(unit, files) => self.report_would_land(*unit, files),
            Verdict::Deleted(unit, nodes) => self.note_deleted(*unit, *nodes),
        }
    }

    /// Reports the files of a unit that would be fetched, in the order in which a pass fetches
    /// them.
    fn report_would_land(&self, unit: Unit, files: &[WouldLand]) {
        let mut files: Vec<&WouldLand> = files.iter().collect();
        files.sort_by(|one, other| match (&one.item, &other.item) {
            (Item::Segment(one), Item::Segment(other)) => self.config.order.of(one, other),
            (one, other) => one.cmp(other),
        });
        for WouldLand { item, holders, bytes } in &files {
            let target = &self.target(unit, item);
            let repairs = self.here.repaired_by(target).is_some();
            let nodes = Some(*holders);
            self.emit(Event::WouldLand { target, bytes: *bytes, repairs, nodes });
        }
        self.settle(|scheduler| scheduler.reported(files.len()));
    }

    pub(super) fn directory(&self, list: List) -> Directory {
        match list {
            List::Hours(collection) => {
                Directory::Collection(self.collections()[collection].clone())
            }
            List::Unit(Unit::Hour(Reverse(hour), collection))
            | List::Again(Unit::Hour(Reverse(hour), collection)) => {
                let collection = self.collections()[collection].clone();
                Directory::Hour(Place { collection, hour })
            }
            List::Unit(Unit::Extras(dir)) | List::Again(Unit::Extras(dir)) => {
                Directory::Extras(self.config.extras[dir].clone())
            }
        }
    }

    pub(super) fn target(&self, unit: Unit, item: &Item) -> Target {
        match (unit, item) {
            (Unit::Hour(Reverse(hour), collection), Item::Segment(name)) => {
                Target::segment(&self.collections()[collection], hour, name)
            }
            (Unit::Extras(dir), Item::Extra(path)) => {
                Target::Extra(self.config.extras[dir].clone(), path.clone())
            }
            _ => unreachable!("hours hold segments, and extra directories hold extra files"),
        }
    }
}

impl Observer for Pass {
    fn wanted(&self, segments: u64) {
        self.progress.want(segments);
    }

    fn read(&self, bytes: u64) {
        self.progress.add_bytes(None, bytes);
    }

    fn checked(&self) {
        self.progress.settle();
    }

    fn corrupt(&self, target: &Target, damage: &Damage) {
        self.emit(Event::Corrupt { target, damage });
    }

    fn failed(&self, error: &LocalError) {
        self.failed_here(error);
    }

    fn is_selected(&self, target: &Target) -> bool {
        self.is_listed_target(target)
    }
}

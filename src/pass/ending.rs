//! The last phases: judge the result, delete what is old, measure the coverage, report.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{Level, log};

use super::{Pass, lock};
use crate::clock;
use crate::config::{Collections, FileList};
use crate::coverage::{self, Question};
use crate::error::LocalError;
use crate::hour::{Hour, HourSelection};
use crate::node::Node;
use crate::report::{Event, Figures, Left, Measured, Status};
use crate::retention::{Deletion, Refusal, confirm_clock, delete_hour};
use crate::target::Place;

/// How long the end of a pass waits for workers to finish or remove their staged files. What is
/// still staged after that belongs to a worker that waits for a node, and is removed for it.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

impl Pass {
    /// Reports what is left undone, and nodes that did not deliver.
    pub(super) fn judge(&self) {
        if self.stop.is_stopped() {
            return;
        }
        if let Err(gone) = self.archive.check() {
            return self.failed_here(&gone);
        }
        let are_given = matches!(self.config.collections, Collections::Given(_));
        for (collection, known) in self.collections().iter().zip(&*lock(&self.known)) {
            // If no node has listed its hours, that was reported already.
            if are_given && known.as_ref().is_some_and(BTreeSet::is_empty) {
                // It may be a stream that starts later, so cron should not mail this in each pass.
                let level = if io::stderr().is_terminal() { Level::Warn } else { Level::Info };
                log!(level, "no node that answered has {collection}; check the name");
            }
        }
        if !self.config.dry_run {
            for target in &self.here.corrupt() {
                self.emit(Event::NotRepaired { target });
            }
        }
        self.judge_list();
        self.report.judge_nodes(&self.stop);
        self.look_beside();
    }

    /// Deletes the hours that are too old (`--delete-older-than`).
    pub(super) fn delete(&self) {
        // No hour is before the first one.
        let bound = self.config.delete_before(clock::now());
        let Some(bound) = bound.filter(|bound| *bound > Hour::MIN) else {
            return;
        };
        if let Err(why) = self.may_delete() {
            self.undeleted.fetch_add(1, Ordering::Relaxed);
            return self.emit(Event::NotDeleted { place: None, why: &why });
        }
        let old = HourSelection::union(vec![Hour::MIN..=bound.back(1)]);
        for collection in self.collections() {
            let hours = match self.archive.hours(collection, &old) {
                Ok(hours) => hours,
                Err(error) => return self.failed_here(&error),
            };
            for hour in hours.into_iter().rev() {
                if self.stop.is_stopped() {
                    return;
                }
                self.delete_hour(&Place { collection: collection.clone(), hour });
            }
        }
    }

    fn may_delete(&self) -> Result<(), Refusal> {
        if self.stop.cause().is_some() {
            return Err(Refusal::Interrupted);
        }
        forbids_deletion(self.left(0).status()).map_or(Ok(()), Err)?;
        confirm_clock(self.nodes.iter().map(|node| node.clock_ahead()))
    }

    fn delete_hour(&self, place: &Place) {
        let dry_run = self.config.dry_run;
        match delete_hour(self.archive, &place.collection, place.hour, dry_run, &self.stop) {
            Ok(Deletion::Done { segments, left, error }) => {
                // An hour with nothing but files that stay was reported when its segments were
                // deleted.
                if segments > 0 || left == 0 {
                    self.emit(Event::Deleted { place, segments, left, dry_run });
                }
                if let Some(error) = error {
                    self.failed_here(&error);
                }
            }
            Ok(Deletion::Refused(why)) => {
                self.undeleted.fetch_add(1, Ordering::Relaxed);
                self.emit(Event::NotDeleted { place: Some(place), why: &why });
            }
            Err(error) => self.failed_here(&error),
        }
    }

    /// Stops everything that is still under way, and leaves no staged file behind.
    pub(super) fn close(&self) {
        // Some workers may still be fetching what another one has already delivered.
        self.stop.end();
        self.nodes.iter().for_each(|node| node.cut());
        self.partials.close();
        self.archive.close(CLOSE_WITHIN);
    }

    /// Looks at nodes' segments next to the selected hours, as far as the coverage depends on them.
    pub(super) fn look_beside(&self) {
        let given_up = self.scheduler().given_up();
        let nodes = self.nodes.iter().zip(given_up).filter(|(_, given_up)| !given_up);
        let nodes: Vec<&dyn Node> = nodes.map(|(node, _)| &**node).collect();
        let known = lock(&self.known).clone();
        for (collection, _) in self.report.findings() {
            let index = self.collections().iter().position(|c| *c == collection);
            let known = index.and_then(|index| known[index].as_ref());
            let Some(known) = known.filter(|_| !self.stop.is_stopped()) else {
                continue;
            };
            let hours = &self.config.hours;
            match coverage::look_beside(self.archive, &nodes, &collection, hours, known) {
                Ok(found) => self.report.found_beside(&collection, &found),
                Err(error) => self.failed_here(&error),
            }
        }
    }

    /// Measures and counts what is known only now, and ends the report. `checked` is what
    /// `--verify` read.
    pub(super) fn conclude(&self, checked: Option<(u64, u64)>) -> Status {
        let measured = self.measure();
        let compared = self.compare();
        self.report.close();
        let figures = Figures {
            started: self.started(),
            took: self.begun.elapsed(),
            collections: self.stop.cause().is_none().then(|| self.collections().len()),
            checked,
            measured,
            compared,
        };
        let holes = if self.config.fail_on_holes { figures.holes() } else { 0 };
        self.report.finish(self.left(holes), figures, &self.stop)
    }

    /// Measures what the segments here cover. Returns nothing if the pass ended early.
    fn measure(&self) -> Vec<Measured> {
        self.measured(|error| self.failed_here(&error))
    }

    /// Measures the coverage so far, during the pass. Read errors are reported at the end.
    pub(super) fn measure_so_far(&self) -> Vec<Measured> {
        self.measured(|_| {})
    }

    fn measured(&self, failed: impl Fn(LocalError)) -> Vec<Measured> {
        let mut measured = Vec::new();
        let Some(started) = self.started.get() else {
            return measured;
        };
        let cutoff = i64::try_from(self.config.recent_cutoff.as_micros()).unwrap_or(i64::MAX);
        for (collection, findings) in self.report.findings() {
            let question = Question {
                selection: &self.config.hours,
                findings: &findings,
                until: started.timestamp_micros().saturating_sub(cutoff),
            };
            match coverage::measure(self.archive, &collection, question, &self.stop) {
                _ if self.stop.cause().is_some() => return Vec::new(),
                Ok(coverage) => measured.push(Measured { collection, coverage }),
                Err(error) => failed(error),
            }
        }
        measured
    }

    /// Collects what is left undone, which decides the exit status.
    pub(super) fn left(&self, holes: u64) -> Left {
        let given_up = self.scheduler().given_up();
        let excused = self.excused(&given_up);
        let undone = self.scheduler().undone(|id| !excused[id]);
        let not_excused = |counts: &[AtomicU64]| -> u64 {
            let counts = counts.iter().zip(&excused).filter(|(_, excused)| !**excused);
            counts.map(|(count, _)| count.load(Ordering::Relaxed)).sum()
        };
        Left {
            cause: self.stop.cause(),
            failed_here: self.failed_here.load(Ordering::Relaxed),
            any_answered: undone.any_answered
                || self.any_named.load(Ordering::Relaxed)
                || self.nodes.is_empty()
                // The list of files is empty, so no node was asked.
                || self.config.files.as_ref().is_some_and(FileList::is_empty),
            missing: self.missing.load(Ordering::Relaxed) + not_excused(&self.lost_with),
            unlisted: undone.unlisted + not_excused(&self.unnamed),
            corrupt: self.here.corrupt().len() as u64,
            given_up: undone.given_up,
            undeleted: self.undeleted.load(Ordering::Relaxed),
            holes,
        }
    }
}

/// Why nothing is deleted after a pass with this status, if so.
fn forbids_deletion(status: Status) -> Option<Refusal> {
    match status {
        Status::Signal(_) | Status::OutputClosed => Some(Refusal::Interrupted),
        Status::LocalFailure => Some(Refusal::LocalFailure),
        Status::NoNode => Some(Refusal::NoNode),
        Status::Complete | Status::Incomplete | Status::Usage | Status::Locked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_deleted_after_a_bad_pass() {
        for (status, why) in [
            (Status::Complete, None),
            (Status::Incomplete, None),
            (Status::LocalFailure, Some(Refusal::LocalFailure)),
            (Status::NoNode, Some(Refusal::NoNode)),
            (Status::Signal(15), Some(Refusal::Interrupted)),
            (Status::OutputClosed, Some(Refusal::Interrupted)),
        ] {
            assert_eq!(forbids_deletion(status), why, "{status:?}");
        }
    }
}

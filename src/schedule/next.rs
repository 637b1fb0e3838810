//! Decides what a worker does next.

use std::sync::Arc;
use std::time::Instant;

use super::Scheduler;
use super::files::FileId;
use super::in_flight::Reason;
use super::nodes::NodeId;
use super::task::{Fetch, Next, Task};
use super::unit::List;
use crate::transfer::Transfer;

impl Scheduler {
    /// What a worker of this node should do next.
    pub fn next(&mut self, id: NodeId, now: Instant) -> Next {
        if self.finished {
            return Next::Finished;
        }
        self.fetches.asked(now);
        let node = &self.nodes[id];
        if let Some(at) = node.health.not_before(now) {
            return Next::Wait(Some(at));
        }
        if node.in_flight >= node.health.limit() {
            return Next::Wait(None);
        }
        let task = match (node.health.is_given_up(), self.policy.lands_on_disk) {
            (false, _) => self.next_task(id, now),
            (true, true) => Some(self.probe(id, now)),
            // In a dry run, nothing remembers what it has listed before.
            (true, false) => None,
        };
        match task {
            Some(task) => {
                self.nodes[id].in_flight += 1;
                Next::Do(task)
            }
            None => Next::Wait(self.next_event(id, now)),
        }
    }

    /// A cheap request to a node that was given up.
    fn probe(&mut self, id: NodeId, now: Instant) -> Task {
        let list = self.probe;
        self.nodes[id].listings.probe(list);
        self.start_listing(id, list, now)
    }

    fn next_task(&mut self, id: NodeId, now: Instant) -> Option<Task> {
        if let Some(list) = self.nodes[id].listings.next_hours(now) {
            return Some(self.start_listing(id, list, now));
        }
        if let Some(file) = self.files.next(id, now) {
            return self.start_fetch(id, file, now);
        }
        let (full, crowded, files) = (self.is_full(), self.is_crowded(), &self.files);
        let may_list = |unit| match (full, crowded) {
            (true, _) => files.is_wanted(unit),
            (false, true) => files.is_needed(unit),
            (false, false) => true,
        };
        let listings = &mut self.nodes[id].listings;
        if listings.in_flight() < self.policy.listings
            && let Some(list) = listings.next_unit(now, full, may_list)
        {
            return Some(self.start_listing(id, list, now));
        }
        if !self.policy.hedges {
            return None;
        }
        let could = |file| self.files.could_help(file, id);
        match self.fetches.to_help_with(id, now, could)? {
            (file, Reason::Slow) if self.files.is_segment(file) => self.take_over(id, file, now),
            (file, _) => self.start_fetch(id, file, now),
        }
    }

    /// This node continues a file in place of the one that is sending it.
    fn take_over(&mut self, id: NodeId, file: FileId, now: Instant) -> Option<Task> {
        let (other, before) = self.fetches.hand_over(file)?;
        self.files.leave(file, other);
        self.release(other);
        self.start(id, file, Transfer::after(before, now))
    }

    fn start_listing(&mut self, id: NodeId, list: List, now: Instant) -> Task {
        match list {
            List::Hours(collection) => Task::ListHours(collection),
            List::Unit(unit) => {
                let after = self.nodes[id].listings.reached(unit);
                Task::ListUnit { unit, after, look: self.files.begin_listing(unit, now) }
            }
            List::Again(unit) => {
                Task::ListAgain { unit, names: Arc::new(self.files.to_ask_again(id, unit)) }
            }
        }
    }

    fn start_fetch(&mut self, id: NodeId, file: FileId, now: Instant) -> Option<Task> {
        self.start(id, file, Transfer::new(now))
    }

    fn start(&mut self, id: NodeId, file: FileId, transfer: Transfer) -> Option<Task> {
        let look = self.files.begin(file, id)?;
        let (unit, item) = self.files.get(file)?;
        let item = item.clone();
        let can_continue = self.files.is_segment(file);
        let number = self.fetches.begin(id, file, can_continue, transfer.clone());
        Some(Task::Fetch(Fetch { unit, item, look, transfer, file, number }))
    }

    /// When there may be something to do for a node, even if nothing is reported before.
    fn next_event(&self, id: NodeId, now: Instant) -> Option<Instant> {
        let could = |file| self.files.could_help(file, id);
        let hedges = self.policy.hedges && !self.nodes[id].health.is_given_up();
        let help = hedges.then(|| self.fetches.look_again(id, now, could)).flatten();
        let events = [self.files.next_event(), self.nodes[id].listings.next_event(), help];
        // Work that is due but can't be done yet waits for a report.
        events.into_iter().flatten().filter(|at| *at > now).min()
    }
}

//! Handles failed tasks: what follows for the file or listing, and for the node.

use std::time::Instant;

use super::Scheduler;
use super::files::Failure;
use super::health::{HeardFrom, Judgement};
use super::nodes::NodeId;
use super::task::{Fetch, Task, Verdict};
use super::unit::List;
use crate::node::{NodeError, Trouble};

impl Scheduler {
    /// Reports that a task of this node failed. It was handed out at `begun`. `heard` tells when
    /// each node was last heard from.
    pub fn failed(
        &mut self,
        id: NodeId,
        task: &Task,
        error: &NodeError,
        heard: &[Option<Instant>],
        begun: Instant,
        now: Instant,
    ) {
        let counts = match task {
            Task::Fetch(fetch) => self.fetches.end(fetch.number, false),
            task => task.list().is_some_and(|list| self.nodes[id].listings.end(list)),
        };
        if !counts {
            return self.settle();
        }
        self.release(id);
        let heard = self.who_was_heard(id, heard, self.silent_since(task, error, begun, now), now);
        let (health, backoff) = (&mut self.nodes[id].health, &mut self.policy.backoff);
        let judgement = health.failed(error, heard, begun, now, backoff);
        match task {
            Task::Fetch(fetch) => self.fetch_failed(id, fetch, error, &judgement, now),
            task => {
                if let Task::ListUnit { unit, .. } = task {
                    self.files.end_listing(*unit);
                }
                if let Some(list) = task.list() {
                    self.listing_failed(id, list, error, &judgement, now);
                }
            }
        }
        self.give_up_if(id, judgement, now);
        self.settle();
    }

    fn fetch_failed(
        &mut self,
        id: NodeId,
        fetch: &Fetch,
        error: &NodeError,
        judgement: &Judgement,
        now: Instant,
    ) {
        let failure = match (error.trouble, judgement) {
            (Trouble::Gone, _) => Failure::Gone,
            (Trouble::Refused | Trouble::Corrupt | Trouble::Unusable, _) => Failure::Lasting,
            (Trouble::Busy(_), _) => Failure::NoTryYet,
            (Trouble::Cut, _) | (_, Judgement::Repeat(_)) => Failure::NoTry,
            _ => Failure::Passing,
        };
        let (files, backoff) = (&mut self.files, &mut self.policy.backoff);
        files.failed(fetch.file, id, failure, error, &mut |n| now + backoff(n));
    }

    fn listing_failed(
        &mut self,
        id: NodeId,
        list: List,
        error: &NodeError,
        judgement: &Judgement,
        now: Instant,
    ) {
        let is_given_up = self.nodes[id].health.is_given_up();
        let listings = &mut self.nodes[id].listings;
        match judgement {
            // The node's failure is reported, so its listings need no report. If it comes back, it
            // lists this.
            Judgement::GiveUp(_) => listings.repeat(list, now),
            Judgement::Request if is_given_up => listings.keep(list),
            Judgement::Repeat(at) => listings.repeat(list, *at),
            Judgement::Request => {
                let tries = listings.count_try(list);
                if is_lasting(error.trouble) || tries > self.policy.retries {
                    return self.listing_is_lost(id, list, error);
                }
                let at = now + (self.policy.backoff)(tries);
                listings.repeat(list, at);
                self.changed = true;
            }
        }
    }

    pub(super) fn listing_is_lost(&mut self, id: NodeId, list: List, error: &NodeError) {
        self.nodes[id].listings.fail(list);
        self.listed += u64::from(matches!(list, List::Unit(_)));
        self.verdicts.push(Verdict::ListingFailed(id, list, error.clone()));
        match list {
            List::Hours(_) => self.files.touch_all(),
            List::Unit(unit) => self.files.touch(unit),
            List::Again(unit) => self.files.not_listed_again(id, unit, error),
        }
    }

    /// When a failed request last made progress. That a node is unreachable is noticed at once, so
    /// there it is a timeout ago: others may be silent for as long.
    fn silent_since(
        &self,
        task: &Task,
        error: &NodeError,
        begun: Instant,
        now: Instant,
    ) -> Instant {
        match (error.trouble, task) {
            (Trouble::Unreachable, _) => {
                begun.min(now.checked_sub(self.policy.timeout).unwrap_or(begun))
            }
            (_, Task::Fetch(fetch)) => fetch.transfer.moved_at().unwrap_or(begun),
            _ => begun,
        }
    }

    /// Who was heard from after `since`, when a request to this node last made progress. A node at
    /// work counts only if it was heard from in the second half of that time. An idle node is silent
    /// anyway, so any sign of it counts.
    fn who_was_heard(
        &self,
        id: NodeId,
        heard: &[Option<Instant>],
        since: Instant,
        now: Instant,
    ) -> HeardFrom {
        let lately = since + now.saturating_duration_since(since) / 2;
        let after = |node: NodeId, then: Instant| {
            heard.get(node).copied().flatten().is_some_and(|at| at > then)
        };
        // Its own last byte may belong to the very request that failed.
        let itself = |then: Instant| {
            self.nodes[id].health.has_succeeded_since(then) || self.fetches.moved_since(id, then)
        };
        let mut result = HeardFrom { itself: itself(lately), ..HeardFrom::default() };
        for (other, node) in self.nodes.iter().enumerate() {
            if other == id || node.health.is_given_up() {
                continue;
            }
            result.other_before |= node.health.has_answered();
            let is_at_work = node.in_flight > 0 || node.health.not_before(now).is_some();
            if after(other, if is_at_work { lately } else { since }) {
                result.other = true;
            } else if is_at_work && node.health.has_answered() {
                result.silent_other = true;
            }
        }
        result
    }

    pub(super) fn give_up_if(&mut self, id: NodeId, judgement: Judgement, now: Instant) {
        let Judgement::GiveUp(why) = judgement else {
            return;
        };
        self.nodes[id].withheld = 0;
        for _ in 0..self.fetches.supersede_node(id) {
            self.release(id);
        }
        for list in self.nodes[id].listings.give_up() {
            self.release(id);
            if let List::Unit(unit) = list {
                self.files.end_listing(unit);
            }
        }
        let (files, backoff) = (&mut self.files, &mut self.policy.backoff);
        files.lose_node(id, &mut |n| now + backoff(n));
        self.verdicts.push(Verdict::NodeGivenUp(id, why));
        self.changed = true;
    }
}

/// Whether the same request to the same node would fail again.
fn is_lasting(trouble: Trouble) -> bool {
    matches!(trouble, Trouble::Gone | Trouble::Refused | Trouble::Corrupt | Trouble::Unusable)
}

//! Decides what is fetched next, and records the results.

use std::time::Instant;

use super::Files;
use super::file::{Done, Fate, FileId, Look, Loss, State};
use crate::node::NodeError;
use crate::schedule::nodes::{NodeId, NodeSet};
use crate::schedule::twins::{Recording, TwinsId};
use crate::schedule::unit::{Item, Unit};

/// What a failed request means for its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The node no longer has it.
    Gone,
    /// The node won't deliver it.
    Lasting,
    /// Another attempt may succeed.
    Passing,
    /// The failure had other causes: it doesn't count as an attempt.
    NoTry,
    /// The same, and other files go first.
    NoTryYet,
}

/// An end of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Where files are taken from.
    Front,
    /// Where new files go.
    Back,
}

impl Files {
    /// The next file to fetch from a node.
    pub fn next(&mut self, node: NodeId, now: Instant) -> Option<FileId> {
        self.begin_rounds(now);
        while let Some(&unit) = self.ready[node].first() {
            let next = self.next_in(unit, node);
            if next.is_some() {
                return next;
            }
            self.ready[node].pop_first();
        }
        None
    }

    fn next_in(&mut self, unit: Unit, node: NodeId) -> Option<FileId> {
        let open = self.units.get_mut(&unit)?;
        while let Some(id) = open.queues[node].pop_front() {
            let Some(file) = self.files.get_mut(&id) else {
                continue;
            };
            file.queued.remove(node);
            if file.is_free_for(node) {
                return Some(id);
            }
        }
        None
    }

    /// When the next round of attempts begins.
    pub fn next_event(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    fn begin_rounds(&mut self, now: Instant) {
        while let Some((at, id)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, id));
            if let Some(file) = self.files.get_mut(&id) {
                file.tried = NodeSet::default();
                self.offer(id, &mut |_| now);
            }
        }
    }

    /// Whether a node could fetch a file that exactly one other node is sending.
    pub fn could_help(&self, id: FileId, node: NodeId) -> bool {
        self.files.get(&id).is_some_and(|file| {
            matches!(file.state, State::Open)
                && file.fetchers.len() == 1
                && !file.fetchers.contains(node)
                && file.holders.without(file.tried).contains(node)
        })
    }

    /// Notes that a fetch begins. Returns the look that found the file missing.
    pub fn begin(&mut self, id: FileId, node: NodeId) -> Option<Look> {
        let file = self.files.get_mut(&id)?;
        file.fetchers.insert(node);
        self.units.get(&file.unit).map(|open| open.look)
    }

    /// Notes that a node stops sending a file, which may be requested from it again.
    pub fn leave(&mut self, id: FileId, node: NodeId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.fetchers.remove(node);
        }
    }

    /// Whether the file is a segment. Its name has its hash, so parts of it can be joined.
    pub fn is_segment(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|file| matches!(file.item, Item::Segment(_)))
    }

    /// Notes that a file is here, or would be in a dry run; some nodes give its size before they
    /// send it. Returns it and its twins, which are no longer needed.
    pub fn landed(&mut self, id: FileId, bytes: Option<u64>) -> Vec<FileId> {
        let Some(file) = self.files.get(&id) else {
            return Vec::new();
        };
        let all = match file.twins {
            Some(twins) => {
                self.twins.land(twins, &file.unit.path_of(&file.item));
                self.twins.members(twins).collect()
            }
            None => vec![id],
        };
        for other in &all {
            if let Some(file) = self.files.get(other)
                && let Some(open) = self.units.get_mut(&file.unit)
            {
                // Its name stays known while it is in `done`.
                if let Some(recording) = Recording::of(file.unit, &file.item) {
                    self.twins.learn(recording);
                }
                let done = Done { holders: file.holders, bytes, by_twin: *other != id };
                let is_new = open.done.insert(file.item.clone(), done).is_none();
                self.remembered += usize::from(is_new && !self.lands_on_disk);
            }
            self.remove(*other);
        }
        all
    }

    /// Drops a file that this machine can't store.
    pub fn abandon(&mut self, id: FileId, again: &mut dyn FnMut(u32) -> Instant) {
        let twins = self.files.get(&id).and_then(|file| file.twins);
        self.remove(id);
        if let Some(twin) = twins.and_then(|twins| self.promote(twins)) {
            self.offer(twin, again);
        }
    }

    /// Notes that a request for a file failed. `again` returns when the n-th further round of
    /// attempts may begin.
    pub fn failed(
        &mut self,
        id: FileId,
        node: NodeId,
        failure: Failure,
        error: &NodeError,
        again: &mut dyn FnMut(u32) -> Instant,
    ) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        file.fetchers.remove(node);
        match failure {
            Failure::Gone => {
                file.holders.remove(node);
                file.gone.insert(node);
                // This supersedes earlier failures of this node.
                file.failure.take_if(|failure| failure.0 == node);
            }
            Failure::Lasting => {
                file.holders.remove(node);
                file.failure = Some(Box::new((node, error.clone())));
            }
            Failure::Passing => {
                file.tried.insert(node);
                file.failure = Some(Box::new((node, error.clone())));
            }
            Failure::NoTry | Failure::NoTryYet => {}
        }
        let end = if failure == Failure::NoTryYet { End::Back } else { End::Front };
        self.offer_at(id, end, again);
    }

    /// Notes that a node is given up.
    pub fn lose_node(&mut self, node: NodeId, again: &mut dyn FnMut(u32) -> Instant) {
        self.alive.remove(node);
        self.ready[node].clear();
        self.units.values_mut().for_each(|open| {
            open.queues[node].clear();
            open.confirming.remove(node);
        });
        let mut concerned = Vec::new();
        for (id, file) in &mut self.files {
            file.queued.remove(node);
            file.fetchers.remove(node);
            if file.holders.contains(node) {
                concerned.push(*id);
            }
        }
        // Sorted, so that a simulated pass can be repeated exactly.
        concerned.sort_unstable();
        concerned.into_iter().for_each(|id| self.offer(id, again));
        self.touch_all();
    }

    /// Notes that a node which was given up is back.
    pub fn regain_node(&mut self, node: NodeId) {
        self.alive.insert(node);
        let mut held = Vec::new();
        for (id, file) in &mut self.files {
            if file.holders.contains(node) {
                held.push(*id);
            } else if let State::Lost(Fate::Missing(Loss::GivenUp(by))) = file.state
                && by == node
            {
                // The node can now confirm what it said is gone.
                file.state = State::Gone;
            }
        }
        held.sort_unstable();
        for id in held {
            match self.files.get(&id).map(|file| &file.state) {
                Some(State::Open) => self.enqueue(id, node, End::Back),
                Some(State::Lost(_)) => self.reopen(id),
                _ => {}
            }
        }
        self.touch_all();
    }

    /// Offers a file to the nodes that may still deliver it: first to those that have not failed in
    /// this round; then, after a pause, to all of them again.
    fn offer(&mut self, id: FileId, again: &mut dyn FnMut(u32) -> Instant) {
        self.offer_at(id, End::Front, again);
    }

    /// As [`Files::offer`], before or after the other files of its unit.
    fn offer_at(&mut self, id: FileId, end: End, again: &mut dyn FnMut(u32) -> Instant) {
        let mut next = Some(id);
        while let Some(id) = next.take() {
            let Some(file) = self.files.get_mut(&id) else {
                return;
            };
            if !matches!(file.state, State::Open) || !file.fetchers.is_empty() {
                return;
            }
            let holders = file.holders.and(self.alive);
            let untried = holders.without(file.tried);
            if !untried.is_empty() {
                untried.iter().for_each(|node| self.enqueue(id, node, end));
                return;
            }
            if !holders.is_empty() && file.rounds < self.retries {
                file.rounds += 1;
                let at = again(file.rounds);
                self.later.insert((at, id));
                self.news = true;
                return;
            }
            // Try a twin instead.
            next = self.lose(id);
        }
    }

    pub(super) fn enqueue(&mut self, id: FileId, node: NodeId, end: End) {
        let Some(file) = self.files.get_mut(&id).filter(|file| !file.queued.contains(node)) else {
            return;
        };
        if let Some(open) = self.units.get_mut(&file.unit) {
            file.queued.insert(node);
            match end {
                End::Front => open.queues[node].push_front(id),
                End::Back => open.queues[node].push_back(id),
            }
            self.ready[node].insert(file.unit);
            self.news = true;
        }
    }

    /// Notes that no node can deliver a file at the moment. Returns the twin to offer instead.
    fn lose(&mut self, id: FileId) -> Option<FileId> {
        let file = self.files.get_mut(&id)?;
        let absent = file.holders.without(self.alive).iter().next();
        file.state = match (absent, file.failure.as_deref()) {
            (_, Some((node, error))) => {
                State::Lost(Fate::Missing(Loss::Failed(*node, error.clone())))
            }
            (Some(node), None) => State::Lost(Fate::Missing(Loss::GivenUp(node))),
            (None, None) => State::Gone,
        };
        let (unit, twins) = (file.unit, file.twins);
        self.set_at_rest(unit);
        twins.and_then(|twins| self.promote(twins))
    }

    /// Opens the next held twin, unless one is open.
    fn promote(&mut self, twins: TwinsId) -> Option<FileId> {
        if self.open_twin(twins).is_some() {
            return None;
        }
        let is_held =
            |id: &FileId| self.files.get(id).is_some_and(|file| matches!(file.state, State::Held));
        let held = self.twins.members(twins).find(is_held)?;
        self.files.get_mut(&held)?.state = State::Open;
        Some(held)
    }

    /// Reopens a lost file that may be available after all.
    pub(super) fn reopen(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        (file.state, file.rounds, file.tried) = (State::Held, 0, NodeSet::default());
        let twins = file.twins;
        self.set_in_motion(id);
        if twins.is_some_and(|twins| self.open_twin(twins).is_some()) {
            return;
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.state = State::Open;
            let holders = file.holders.and(self.alive);
            holders.iter().for_each(|node| self.enqueue(id, node, End::Back));
        }
    }
}

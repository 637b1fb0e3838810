//! A worker's main loop, how it fetches a file, and what it does when a task fails.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Pass;
use super::setup::read_size;
use crate::archive::Commit;
use crate::error::LocalError;
use crate::fetch::{FetchError, Fetched, Fetcher, FileRequest};
use crate::lock::{lock, unpoisoned};
use crate::node::{NodeError, Trouble};
use crate::plan::Skip;
use crate::report::{Event, Request};
use crate::schedule::{Fetch, Loss, Next, NodeId, Scheduler, Task};
use crate::target::Target;

impl Pass {
    /// Runs tasks of one node until there are none left, or the pass ends.
    pub(super) fn work(self: &Arc<Self>, id: NodeId) {
        let mut buffer = Vec::new();
        while let Some(task) = self.next_task(id) {
            let begun = Instant::now();
            let failed = match &task {
                Task::ListHours(collection) => self.list_hours(id, *collection, begun),
                Task::ListUnit { unit, after, look } => {
                    self.list_unit(id, *unit, after.as_ref(), *look, begun)
                }
                Task::ListAgain { unit, names } => self.list_again(id, *unit, names),
                Task::Fetch(fetch) => self.fetch(id, fetch, &mut buffer, begun),
            };
            match failed {
                Err(FetchError::Node(error)) => self.failed(id, &task, &error, begun),
                Err(FetchError::Local(error)) => {
                    self.failed_locally(id, &task, &error);
                    self.abandoned(id, &task);
                }
                Ok(()) | Err(FetchError::Stopped | FetchError::Superseded) => {}
            }
            if let Some(cause) = self.stop.cause() {
                return self.end(cause);
            }
            lock(&self.crews[id]).end();
        }
    }

    /// Waits for a task of a node. If no worker is left to wait for the next one, starts another.
    fn next_task(self: &Arc<Self>, id: NodeId) -> Option<Task> {
        let task = self.await_task(id)?;
        let is_short = lock(&self.crews[id]).begin();
        (!is_short || self.start_worker(id)).then_some(task)
    }

    fn await_task(&self, id: NodeId) -> Option<Task> {
        let mut scheduler = self.scheduler();
        loop {
            if self.stop.is_stopped() {
                return None;
            }
            let now = Instant::now();
            scheduler = match scheduler.next(id, now) {
                Next::Do(task) => {
                    self.show(&scheduler);
                    return Some(task);
                }
                Next::Finished => return None,
                Next::Wait(None) => unpoisoned(self.changed.wait(scheduler)),
                Next::Wait(Some(at)) => {
                    let pause = at.saturating_duration_since(now);
                    unpoisoned(self.changed.wait_timeout(scheduler, pause)).0
                }
            };
        }
    }

    /// Reports to the scheduler what happened, and wakes the threads that wait for a change.
    pub(super) fn settle<R>(&self, happened: impl FnOnce(&mut Scheduler) -> R) -> R {
        let mut scheduler = self.scheduler();
        let result = happened(&mut scheduler);
        self.show(&scheduler);
        if scheduler.take_changed() {
            self.changed.notify_all();
        }
        result
    }

    fn show(&self, scheduler: &Scheduler) {
        if self.progress.is_shown() {
            let now = Instant::now();
            let standings = (0..self.nodes.len()).map(|id| scheduler.standing(id, now));
            self.progress.update(scheduler.counts(), standings);
        }
    }

    /// Handles a task that failed on the node's side.
    fn failed(&self, id: NodeId, task: &Task, error: &NodeError, begun: Instant) {
        // The end of a pass cuts every request, so these errors mean nothing.
        if self.stop.is_stopped() {
            return;
        }
        if error.trouble == Trouble::Local {
            self.cannot_ask(id, error);
            return self.abandoned(id, task);
        }
        let (directory, target);
        let request = match (task, task.list()) {
            (Task::Fetch(fetch), _) => {
                target = self.target(fetch.unit, &fetch.item);
                Request::Fetch(&target)
            }
            (_, Some(list)) => {
                directory = self.directory(list);
                Request::List(&directory)
            }
            (_, None) => unreachable!("a task that is not a fetch is a listing"),
        };
        self.emit(Event::TryFailed { node: id, request, error, took: begun.elapsed() });
        let heard: Vec<_> = self.nodes.iter().map(|node| node.last_heard()).collect();
        let now = Instant::now();
        self.settle(|scheduler| scheduler.failed(id, task, error, &heard, begun, now));
    }

    /// Handles a task that failed on our side. Two failures are nevertheless the node's: an extra
    /// file whose path conflicts with another one, since the nodes list both; and a name that the
    /// file system does not accept.
    fn failed_locally(&self, id: NodeId, task: &Task, error: &LocalError) {
        if let Task::Fetch(fetch) = task
            && let target = &self.target(fetch.unit, &fetch.item)
            && (error.kind() == ErrorKind::InvalidFilename
                || matches!(target, Target::Extra(..)) && error.concerns_one_place())
        {
            let error = NodeError::answered(Trouble::Refused, error.reason());
            return self.lost(target, &Loss::Failed(id, error));
        }
        self.failed_here(error);
    }

    /// Ends a task that failed on our side, as if it had found nothing.
    fn abandoned(&self, id: NodeId, task: &Task) {
        let now = Instant::now();
        self.settle(|scheduler| match task {
            Task::ListHours(collection) => scheduler.hours_listed(id, *collection, [], now),
            Task::ListUnit { unit, .. } => {
                scheduler.listed(id, *unit, Vec::new(), None, now);
            }
            Task::ListAgain { unit, names } => scheduler.listed_again(id, *unit, names, &[], now),
            Task::Fetch(fetch) => scheduler.abandoned(id, fetch, now),
        });
    }

    /// Creates a fetcher for a node. It calls `arrived` with the number of bytes as they arrive.
    pub(super) fn fetcher<'p>(
        &'p self,
        id: NodeId,
        arrived: &'p dyn Fn(u64),
    ) -> Fetcher<'p, 'static> {
        Fetcher {
            node: id,
            archive: self.archive,
            partials: &self.partials,
            throttles: [self.throttle.as_ref(), self.throttles[id].as_ref()],
            max_size: self.config.max_segment_size,
            arrived,
            stop: &self.stop,
        }
    }

    fn fetch(
        &self,
        id: NodeId,
        fetch: &Fetch,
        buffer: &mut Vec<u8>,
        begun: Instant,
    ) -> Result<(), FetchError> {
        let source = &self.target(fetch.unit, &fetch.item);
        if self.config.dry_run {
            let bytes = self.nodes[id].size(source);
            self.settle(|scheduler| scheduler.would_land(id, fetch, bytes, Instant::now()));
            return Ok(());
        }
        buffer.resize(read_size(&self.config, &self.config.nodes[id]), 0);
        let repairs = self.here.repaired_by(source);
        let how = if repairs.is_some() { Commit::Repair } else { Commit::New };
        let target = repairs.as_ref().unwrap_or(source);
        let (looked, transfer) = (fetch.look.since, &fetch.transfer);
        let request = FileRequest { target, source, how, looked, transfer };
        let arrived = |bytes| self.progress.add_bytes(Some(id), bytes);
        match self.fetcher(id, &arrived).fetch(&*self.nodes[id], &request, buffer)? {
            // Until it is reported, the landing keeps the archive from closing.
            Fetched::Landed(bytes, _landing) => {
                self.local_failures.store(0, Ordering::Relaxed);
                self.report_landed(id, target, bytes, repairs.is_some(), begun);
                if how == Commit::New {
                    self.note_landed(id, fetch)?;
                }
                if target != source {
                    self.drop_near_duplicate(source, target);
                }
            }
            Fetched::WasHere => self.emit(Event::Dropped { target, why: &Skip::Here }),
            Fetched::Forbidden => {
                self.emit(Event::Dropped { target, why: &Skip::Tombstoned });
                self.settle(|scheduler| scheduler.forbidden(id, fetch, Instant::now()));
                return Ok(());
            }
        }
        self.settle(|scheduler| scheduler.landed(id, fetch, Instant::now()));
        Ok(())
    }

    /// Reports that a segment was fetched under the name that another clock gave it.
    fn drop_near_duplicate(&self, target: &Target, of: &Target) {
        if let Target::Segment(place, name) = of {
            let is_beside = target.place() != Some(place);
            let of = if is_beside { format!("{}/{name}", place.hour) } else { name.to_string() };
            self.emit(Event::Dropped { target, why: &Skip::NearDuplicate(of) });
        }
    }

    /// Reports a file that has landed. A repair counts once: if two workers fetch the same one, the
    /// second replaces a file that is already good.
    fn report_landed(
        &self,
        id: NodeId,
        target: &Target,
        bytes: u64,
        was_corrupt: bool,
        begun: Instant,
    ) {
        let repaired = self.here.repaired(target);
        if was_corrupt && !repaired {
            return self.emit(Event::Dropped { target, why: &Skip::Here });
        }
        self.emit(Event::Landed { node: id, target, bytes, took: begun.elapsed(), repaired });
    }
}

//! A worker's main loop, and fetching.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Pass;
use super::setup::read_size;
use crate::archive::Commit;
use crate::error::LocalError;
use crate::fetch::{FetchError, Fetched, Fetcher, Request};
use crate::lock::unpoisoned;
use crate::node::{NodeError, Trouble};
use crate::plan::Skip;
use crate::report::{Event, Request as Asked};
use crate::schedule::{Fetch, Loss, Next, NodeId, Scheduler, Task};
use crate::target::Target;

impl Pass {
    /// A worker's main loop.
    pub(super) fn work(&self, id: NodeId) {
        let mut buffer = vec![0; read_size(&self.config, &self.config.nodes[id])];
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
        }
    }

    fn next_task(&self, id: NodeId) -> Option<Task> {
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

    /// Tells the scheduler what happened, and wakes up whoever waits for that.
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

    /// A task failed on the node's side.
    fn failed(&self, id: NodeId, task: &Task, error: &NodeError, begun: Instant) {
        // Shutting down makes every request fail.
        if self.stop.is_stopped() {
            return;
        }
        if error.trouble == Trouble::Local {
            let node = self.config.nodes[id].name.as_ref();
            let why = std::io::Error::other(error.to_string());
            self.failed_here(&LocalError::new("sending a request to node", node, why));
            return self.abandoned(id, task);
        }
        let (directory, target);
        let request = match (task, task.list()) {
            (Task::Fetch(fetch), _) => {
                target = self.target(fetch.unit, &fetch.item);
                Asked::Fetch(&target)
            }
            (_, Some(list)) => {
                directory = self.directory(list);
                Asked::List(&directory)
            }
            (_, None) => unreachable!("what is no fetch is a listing"),
        };
        self.tell(Event::TryFailed { node: id, request, error, took: begun.elapsed() });
        let heard: Vec<_> = self.nodes.iter().map(|node| node.last_heard()).collect();
        let now = Instant::now();
        self.settle(|scheduler| scheduler.failed(id, task, error, &heard, begun, now));
    }

    /// A task failed on our side. That an extra file has no place beside another one is the word of
    /// nodes, whose lists name both; and so is a name that the file system doesn't take.
    fn failed_locally(&self, id: NodeId, task: &Task, error: &LocalError) {
        if let Task::Fetch(fetch) = task
            && let target = &self.target(fetch.unit, &fetch.item)
            && (error.kind() == ErrorKind::InvalidFilename
                || matches!(target, Target::Extra(..)) && error.is_of_one_place())
        {
            let error = NodeError::answered(Trouble::Refused, error.reason());
            return self.lost(target, &Loss::Failed(id, error));
        }
        self.failed_here(error);
    }

    /// A task failed on our side: it is over, with nothing to show for it.
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

    /// What fetches files; `arrived` is called with the bytes as they come.
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
        buffer: &mut [u8],
        begun: Instant,
    ) -> Result<(), FetchError> {
        let target = &self.target(fetch.unit, &fetch.item);
        let is_corrupt = self.here.is_corrupt(target);
        if self.config.dry_run {
            let bytes = self.nodes[id].size(target);
            self.settle(|scheduler| scheduler.would_land(id, fetch, bytes, Instant::now()));
            return Ok(());
        }
        let how = if is_corrupt { Commit::Repair } else { Commit::New };
        let (looked, transfer) = (fetch.look.since, &fetch.transfer);
        let request = Request { target, how, looked, transfer };
        let arrived = |bytes| self.progress.add_bytes(Some(id), bytes);
        match self.fetcher(id, &arrived).fetch(&*self.nodes[id], &request, buffer)? {
            Fetched::Landed(bytes, _until_it_is_told) => {
                self.local_failures.store(0, Ordering::Relaxed);
                self.tell_landed(id, target, bytes, is_corrupt, begun);
                if how == Commit::New {
                    self.brought(id, fetch)?;
                }
            }
            Fetched::WasHere => self.tell(Event::Dropped { target, why: &Skip::Here }),
            Fetched::Forbidden => {
                self.tell(Event::Dropped { target, why: &Skip::Tombstoned });
                self.settle(|scheduler| scheduler.forbidden(id, fetch, Instant::now()));
                return Ok(());
            }
        }
        self.settle(|scheduler| scheduler.landed(id, fetch, Instant::now()));
        Ok(())
    }

    /// A repair counts once: of two that bring the same, the second replaces what is good already.
    fn tell_landed(
        &self,
        id: NodeId,
        target: &Target,
        bytes: u64,
        was_corrupt: bool,
        begun: Instant,
    ) {
        let repaired = self.here.repaired(target);
        if was_corrupt && !repaired {
            return self.tell(Event::Dropped { target, why: &Skip::Here });
        }
        self.tell(Event::Landed { node: id, target, bytes, took: begun.elapsed(), repaired });
    }
}

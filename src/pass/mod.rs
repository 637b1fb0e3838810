//! One pass, phase by phase: check what is here, fetch what is missing, judge the result, delete
//! what is old, measure the coverage, report.

mod collections;
mod compare;
mod crew;
mod deleted;
mod ending;
mod files_from;
mod here;
mod list_hour;
mod listings;
mod optional;
mod readers;
mod reporting;
mod setup;
mod signals;
mod watch;
mod worker;

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Instant;

use chrono::{DateTime, Utc};
use log::warn;

use crate::archive::{Archive, Lock};
use crate::clock;
use crate::compare::Comparison;
use crate::config::Config;
use crate::error::LocalError;
use crate::hour::Hour;
use crate::lock::{lock, unpoisoned};
use crate::node::Node;
use crate::partials::Partials;
use crate::progress::{Phase, Progress};
use crate::report::{Event, Figures, Report, Stats, Status};
use crate::schedule::{NodeId, Scheduler};
use crate::segment::Collection;
use crate::stop::{Cause, Stop};
use crate::target::Target;
use crate::throttle::Throttle;
use crate::verify::verify;

pub use signals::prepare as prepare_for_signals;

use crew::Crew;
use deleted::Landed;
use here::Here;
use readers::Readers;

/// Runs one pass.
pub fn run(config: Config, report: Report, progress: Progress) -> Status {
    let pass = match Pass::set_up(config, report, progress) {
        Ok(pass) => pass,
        Err(status) => return status,
    };
    signals::watch(&pass).unwrap_or_else(|error| pass.cannot_run(&error));
    pass.pause();
    // Taken after the pause, so that a pass that only waits keeps no other one out.
    let _lock = match pass.lock() {
        Ok(lock) => lock,
        Err(status) => return status,
    };
    pass.keep_watch().unwrap_or_else(|error| pass.cannot_run(&error));
    pass.find_collections();
    let checked = pass.check();
    pass.fill();
    pass.judge();
    pass.delete();
    pass.close();
    pass.conclude(checked)
}

/// The state that the threads of a pass share.
struct Pass {
    config: Config,
    /// When the pass begins or began, after the pause.
    begun: Instant,
    /// The same, once it has begun.
    started: OnceLock<DateTime<Utc>>,
    stats: Mutex<Stats>,
    comparison: Mutex<Comparison>,
    /// The selected streams and variants; unset until they are found.
    collections: OnceLock<Vec<Collection>>,
    nodes: Vec<Box<dyn Node>>,
    archive: &'static Archive,
    partials: Partials<'static>,
    /// The rate limit for all nodes together.
    throttle: Option<Throttle>,
    /// The rate limit of each node.
    throttles: Vec<Option<Throttle>>,
    report: Report,
    progress: Progress,
    stop: Stop,
    scheduler: Mutex<Scheduler>,
    /// Notified when there may be new work, new verdicts, or an end: for workers and the main
    /// thread.
    changed: Condvar,
    /// For each collection, the hours that nodes have, selected or not; `None` until a node lists
    /// them.
    known: Mutex<Vec<Option<BTreeSet<Hour>>>>,
    here: Here,
    landed: Landed,
    /// Held by the one listing that may use the large window.
    large_window: Mutex<()>,
    readers: Readers,
    /// The workers of each node.
    crews: Vec<Mutex<Crew>>,
    /// Local failures since a file last landed.
    local_failures: AtomicU32,
    failed_here: AtomicBool,
    /// Failed listings of streams, variants or hours while looking for collections, by node.
    unnamed: Vec<AtomicU64>,
    /// Files that a node failed to provide, if that node is not optional.
    refused: Mutex<HashSet<Target>>,
    /// By optional node: files that are missing only because that node is dead.
    lost_with: Vec<AtomicU64>,
    /// Whether a node has answered while the pass looked for collections.
    any_named: AtomicBool,
    /// Files that no node could provide, and that are not here.
    missing: AtomicU64,
    /// Old hours that were not deleted.
    undeleted: AtomicU64,
}

/// The phases.
impl Pass {
    /// Waits until the pass begins (`--jitter`).
    fn pause(&self) {
        let pause = self.config.pause;
        if !pause.is_zero() {
            self.progress.begin(Phase::Waiting { until: self.begun });
            self.emit(Event::Waiting { pause });
            self.stop.sleep_until(self.begun);
            self.progress.begin(Phase::Fetching);
        }
        self.started();
    }

    /// Locks the archive until the result is dropped (`--lock`).
    ///
    /// # Errors
    ///
    /// If another pass has it locked, this one is over, with this status.
    fn lock(&self) -> Result<Option<File>, Status> {
        if !self.config.lock || self.stop.is_stopped() {
            return Ok(None);
        }
        let base = &self.config.base_dir;
        match self.archive.lock() {
            Ok(Lock::Ours(lock)) => return Ok(Some(lock)),
            Ok(Lock::Theirs) => {
                let figures = Figures::none(self.started(), self.begun.elapsed());
                return Err(self.report.finish_locked(base, &figures, &self.stop));
            }
            Ok(Lock::Foreign) => warn!(
                "a shared lock on {} is held, but not by a pass: continuing without --lock",
                base.display()
            ),
            Err(error) => self.cannot_run(&error),
        }
        Ok(None)
    }

    /// Checks the segments that are here (`--verify`), so that corrupt ones are fetched as if they
    /// were missing. Returns how many segments and bytes were checked.
    fn check(&self) -> Option<(u64, u64)> {
        let Config { hours, verify: wanted, .. } = &self.config;
        wanted.then(|| {
            self.progress.begin(Phase::Checking);
            let verified = verify(self.archive, self.collections(), hours, self, &self.stop);
            self.progress.begin(Phase::Fetching);
            self.here.found_corrupt(verified.corrupt);
            (verified.files, verified.bytes)
        })
    }

    /// Starts the workers, and reports verdicts until all work is done. The workers are not joined:
    /// the pass ends when its work is done, even if a worker still waits for a node.
    fn fill(self: &Arc<Self>) {
        if self.stop.is_stopped() || !self.start_workers() {
            return;
        }
        loop {
            let mut scheduler = self.scheduler();
            let (verdicts, over) = loop {
                let verdicts = scheduler.take_verdicts();
                let over = scheduler.is_finished() || self.stop.is_stopped();
                if over || !verdicts.is_empty() {
                    break (verdicts, over);
                }
                scheduler = unpoisoned(self.changed.wait(scheduler));
            };
            drop(scheduler);
            verdicts.iter().for_each(|verdict| self.report_verdict(verdict));
            if over {
                break;
            }
        }
        // A dry run that ends early still reports what it has found.
        let last = self.scheduler().take_last_verdicts();
        last.iter().for_each(|verdict| self.report_verdict(verdict));
    }

    /// Starts the first worker of each node. Further ones are started as they are needed.
    fn start_workers(self: &Arc<Self>) -> bool {
        (0..self.nodes.len()).all(|id| self.start_worker(id))
    }

    /// Starts a worker of a node. If that fails, the pass ends.
    fn start_worker(self: &Arc<Self>, id: NodeId) -> bool {
        let (worker, name) = (self.clone(), &self.config.nodes[id].name);
        let started = thread::Builder::new().name(name.clone()).spawn(move || worker.work(id));
        started.map_err(|e| self.no_thread_for(id, e)).is_ok()
    }

    /// Reports that no thread can be started for a node, and ends the pass.
    fn no_thread_for(&self, id: NodeId, e: io::Error) {
        let what = "starting a thread (try fewer --jobs) for node";
        let node = self.config.nodes[id].name.as_ref();
        self.cannot_run(&LocalError::new(what, node, e));
    }
}

/// Shared by all phases.
impl Pass {
    /// When the pass began. If it has not, it begins now.
    fn started(&self) -> DateTime<Utc> {
        *self.started.get_or_init(clock::now)
    }

    /// The selected streams and variants; empty until they are found.
    fn collections(&self) -> &[Collection] {
        self.collections.get().map_or(&[], Vec::as_slice)
    }

    /// Reports why the pass can't run, and ends it.
    fn cannot_run(&self, error: &LocalError) {
        self.failed_here(error);
        self.end(Cause::LocalFailure);
    }

    /// Ends the pass early: starts nothing new and cuts the current requests.
    fn end(&self, cause: Cause) {
        self.stop.stop(cause);
        self.nodes.iter().for_each(|node| node.cut());
        // The lock is held so that no thread is between its check and its wait, and misses this.
        let _scheduler = self.scheduler();
        self.changed.notify_all();
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        lock(&self.scheduler)
    }
}

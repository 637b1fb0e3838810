//! One pass, phase by phase: check what is here, fetch what is missing, judge the result, delete
//! what is old, measure the coverage, report.

mod compare;
mod crew;
mod deleted;
mod ending;
mod here;
mod listed;
mod lists;
mod names;
mod optional;
mod readers;
mod reporting;
mod setup;
mod signals;
mod watch;
mod worker;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use log::{error, warn};

use crate::archive::{Archive, Lock};
use crate::clock;
use crate::compare::Comparison;
use crate::config::Config;
use crate::error::LocalError;
use crate::fetch::Throttle;
use crate::hour::Hour;
use crate::lock::{lock, unpoisoned};
use crate::node::Node;
use crate::partials::Partials;
use crate::progress::{Phase, Progress};
use crate::report::{Event, Figures, Left, Report, Stats, Status};
use crate::schedule::{NodeId, Scheduler};
use crate::segment::Collection;
use crate::stop::{Cause, Stop};
use crate::target::Target;
use crate::verify::verify;

pub use signals::survive_sigusr1;

use crew::Crew;
use deleted::Landed;
use here::Here;
use readers::Readers;
use setup::{connect, policy, raise_file_limit};

/// How many listings are looked through at the same time. Each takes up to a megabyte, and more at
/// the same time would not be faster: nothing of it waits for a node.
const MAX_READERS: usize = 4;
/// How long the end of a pass waits for workers to finish or remove their staged files. What is
/// still staged after that belongs to a worker that waits for a node, and is removed for it.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Runs one pass.
pub fn run(config: Config, report: Report, progress: Progress) -> Status {
    let (begun, started) = (Instant::now() + config.pause, clock::now());
    let nothing = |started| Figures {
        started,
        took: begun.elapsed(),
        collections: None,
        checked: None,
        measured: Vec::new(),
        compared: Vec::new(),
    };
    // A pass that cannot start still gets its JSON summary and its metrics.
    let fail = |error: &LocalError| {
        let stop = Stop::default();
        report.emit(Event::LocalFailed { error }, &stop);
        let left = Left { cause: stop.cause(), failed_here: true, ..Left::default() };
        report.finish(left, nothing(started), &stop)
    };
    if !report.can_print() {
        let cause = Some(Cause::LocalFailure);
        return report.finish(
            Left { cause, ..Left::default() },
            nothing(started),
            &Stop::default(),
        );
    }
    let nodes = config.nodes.iter().map(|node| connect(node, &config));
    let nodes = match nodes.collect::<Result<Vec<_>, String>>() {
        Ok(nodes) => nodes,
        Err(why) => {
            progress.finish();
            error!("{why}");
            return Status::Usage;
        }
    };
    let archive = match Archive::open(&config.base_dir, config.fsync && !config.dry_run) {
        Ok(archive) => archive.keep_free(config.min_free),
        Err(error) => return fail(&error),
    };
    raise_file_limit();
    // Leaked, because workers that still wait for a node outlive this function. A process runs one
    // pass only.
    let archive = Box::leak(Box::new(archive));
    let pass = Arc::new(Pass::new(config, nodes, archive, report, progress, begun));
    let cannot_run = |error: &LocalError| {
        pass.failed_here(error);
        pass.end(Cause::LocalFailure);
    };
    signals::watch(&pass).unwrap_or_else(|error| cannot_run(&error));
    let started = if pass.pause() { clock::now() } else { started };
    pass.started.get_or_init(|| started);
    // Taken after the pause, so that a pass that only waits keeps no other one out.
    let locks = pass.config.lock && !pass.stop.is_stopped();
    let _lock = match locks.then(|| pass.archive.lock()) {
        None => None,
        Some(Ok(Lock::Ours(lock))) => Some(lock),
        Some(Ok(Lock::Foreign)) => {
            let archive = pass.config.base_dir.display();
            warn!(
                "a shared lock on {archive} is held, but not by a pass: continuing without --lock"
            );
            None
        }
        Some(Ok(Lock::Theirs)) => {
            let base = &pass.config.base_dir;
            return pass.report.finish_locked(base, &nothing(started), &pass.stop);
        }
        Some(Err(error)) => {
            cannot_run(&error);
            None
        }
    };
    pass.keep_watch().unwrap_or_else(|error| cannot_run(&error));
    pass.find_collections();
    let checked = pass.check();
    pass.fill();
    pass.judge();
    pass.delete();
    // Some workers may still be fetching what another one has already delivered.
    pass.stop.end();
    pass.nodes.iter().for_each(|node| node.cut());
    pass.partials.close();
    pass.archive.close(CLOSE_WITHIN);
    let measured = pass.measure();
    let compared = pass.compare();
    pass.report.close();
    let collections = pass.stop.cause().is_none().then(|| pass.collections().len());
    let took = begun.elapsed();
    let figures = Figures { started, took, collections, checked, measured, compared };
    let holes = if pass.config.fail_on_holes { figures.holes() } else { 0 };
    pass.report.finish(pass.left(holes), figures, &pass.stop)
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
    fn new(
        config: Config,
        nodes: Vec<Box<dyn Node>>,
        archive: &'static Archive,
        report: Report,
        progress: Progress,
        begun: Instant,
    ) -> Pass {
        // Until the streams are found there is nothing to do, but each node has a standing to show.
        let scheduler = Scheduler::new(nodes.len(), 0, 0, policy(&config));
        Pass {
            begun,
            started: OnceLock::new(),
            stats: Mutex::new(Stats::new(begun)),
            comparison: Mutex::new(Comparison::new(nodes.len())),
            collections: OnceLock::new(),
            unnamed: nodes.iter().map(|_| AtomicU64::new(0)).collect(),
            refused: Mutex::default(),
            lost_with: nodes.iter().map(|_| AtomicU64::new(0)).collect(),
            any_named: AtomicBool::new(false),
            throttle: config.limit_rate.map(Throttle::new),
            throttles: config
                .nodes
                .iter()
                .map(|node| node.settings.limit_rate.map(Throttle::new))
                .collect(),
            known: Mutex::default(),
            here: Here::new(config.dry_run),
            landed: Landed::default(),
            large_window: Mutex::default(),
            readers: Readers::new(MAX_READERS),
            crews: config
                .nodes
                .iter()
                .map(|node| Mutex::new(Crew::new(config.jobs_of(node))))
                .collect(),
            local_failures: AtomicU32::new(0),
            failed_here: AtomicBool::new(false),
            missing: AtomicU64::new(0),
            undeleted: AtomicU64::new(0),
            scheduler: Mutex::new(scheduler),
            changed: Condvar::new(),
            stop: Stop::default(),
            partials: Partials::default(),
            config,
            nodes,
            archive,
            report,
            progress,
        }
    }

    /// Waits until the pass begins (`--jitter`). Returns whether there was a pause.
    fn pause(&self) -> bool {
        let pause = self.config.pause;
        if pause.is_zero() {
            return false;
        }
        self.progress.begin(Phase::Waiting { until: self.begun });
        self.emit(Event::Waiting { pause });
        self.stop.sleep_until(self.begun);
        self.progress.begin(Phase::Fetching);
        true
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
        self.failed_here(&LocalError::new(what, node, e));
        self.end(Cause::LocalFailure);
    }
}

/// Shared by all phases.
impl Pass {
    /// The selected streams and variants; empty until they are found.
    fn collections(&self) -> &[Collection] {
        self.collections.get().map_or(&[], Vec::as_slice)
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

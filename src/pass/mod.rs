//! One pass, phase after phase: check what is here, fill the gaps, judge what is left, delete what is
//! old, measure what is covered, report.

mod compare;
mod here;
mod listed;
mod lists;
mod names;
mod optional;
mod signals;
mod watch;
mod worker;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use log::{Level, debug, error, log};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::archive::Archive;
use crate::compare::Comparison;
use crate::config::{Collections, Config, FileList, NodeConfig, NodePlace};
use crate::coverage::{self, Question};
use crate::error::LocalError;
use crate::fetch::Throttle;
use crate::hour::{Hour, HourSelection};
use crate::node::Node;
use crate::node::directory::DirectoryNode;
use crate::node::http::{HttpNode, HttpSettings};
use crate::partials::Partials;
use crate::plan::Skip;
use crate::progress::{Phase, Progress};
use crate::report::{Event, Figures, Left, Measured, Report, Stats, Status};
use crate::retention::{Deletion, delete_hour};
use crate::schedule::{Item, List, Loss, NodeId, Policy, Scheduler, Unit, Verdict};
use crate::segment::Collection;
use crate::stop::{Cause, Stop};
use crate::target::{Directory, Place, Target};
use crate::verify::{Damage, Watch, verify};

use here::Here;

/// How long a pass that ends waits for its staged files to be gone.
const PATIENCE: Duration = Duration::from_millis(500);
/// The first pause before a further try; each one after it is twice as long, up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// What a worker reads at a time, in bytes.
const BUFFER: u64 = 128 << 10;
const MIN_BUFFER: u64 = 8 << 10;
/// How many files may be wanted at a time: eight hours, and some.
const MAX_FILES: usize = 20_000;
/// How many listings may be under way at a time, from all nodes together: each may hold a quarter of
/// a mebibyte of the answer.
const MAX_LISTINGS: usize = 128;
/// After this many local failures in a row the machine is at fault, not single paths.
const MAX_LOCAL_FAILURES: u32 = 10;

/// Runs a pass to its end.
pub fn run(config: Config, report: Report, progress: Progress) -> Status {
    let (begun, started) = (Instant::now(), Utc::now());
    let nothing = || Figures {
        started,
        took: begun.elapsed(),
        checked: None,
        measured: Vec::new(),
        compared: Vec::new(),
    };
    // A pass that can't begin is reported too, to programs and in metrics.
    let fail = |error: &LocalError| {
        let stop = Stop::default();
        report.tell(Event::LocalFailed { error }, &stop);
        let left = Left { cause: stop.cause(), failed_here: true, ..Left::default() };
        report.finish(left, nothing(), &stop)
    };
    let nodes = config.nodes.iter().map(|node| connect(node, &config));
    let nodes = match nodes.collect::<Result<Vec<_>, String>>() {
        Ok(nodes) => nodes,
        Err(why) => {
            error!("{why}");
            return Status::Usage;
        }
    };
    let archive = match Archive::open(&config.base_dir, config.fsync && !config.dry_run) {
        Ok(archive) => archive.keep_free(config.min_free),
        Err(error) => return fail(&error),
    };
    let _lock = match config.lock.then(|| archive.lock()) {
        None => None,
        Some(Ok(Some(lock))) => Some(lock),
        Some(Ok(None)) => {
            return report.finish_locked(&config.base_dir, &nothing(), &Stop::default());
        }
        Some(Err(error)) => return fail(&error),
    };
    raise_file_limit();
    // It lives as long as the process, whose one pass this is.
    let archive = Box::leak(Box::new(archive));
    let pass = Arc::new(Pass::new(config, nodes, archive, report, progress, (begun, started)));
    signals::watch(&pass);
    pass.keep_watch();
    pass.find_collections();
    let checked = pass.check();
    pass.fill();
    pass.judge();
    pass.delete();
    // A worker may still be at something that another one was quicker with.
    pass.stop.end();
    pass.nodes.iter().for_each(|node| node.cut());
    pass.partials.close();
    pass.archive.close(PATIENCE);
    let measured = pass.measure(started);
    let compared = pass.compare();
    pass.report.close();
    let figures = Figures { started, took: begun.elapsed(), checked, measured, compared };
    pass.report.finish(pass.left(&figures), figures, &pass.stop)
}

fn connect(node: &NodeConfig, config: &Config) -> Result<Box<dyn Node>, String> {
    let url = match &node.place {
        NodePlace::Http(url) => url.clone(),
        NodePlace::Directory(dir) => return Ok(Box::new(DirectoryNode::new(dir.clone()))),
    };
    let settings = HttpSettings {
        timeout: config.timeout,
        connections: config.jobs_of(node),
        max_size: config.max_segment_size,
        read_size: read_size(config, node),
    };
    Ok(Box::new(HttpNode::new(url, settings)?))
}

/// How much a worker reads at a time, in bytes: with a limit on the rate so little that each of them
/// has its turn several times a second, and no node thinks that it has gone.
fn read_size(config: &Config, node: &NodeConfig) -> usize {
    let workers: usize = config.nodes.iter().map(|node| config.jobs_of(node)).sum();
    let share = |rate: Option<u64>, workers: usize| {
        rate.map_or(u64::MAX, |rate| rate / (4 * workers.max(1) as u64))
    };
    let of_node = share(node.settings.limit_rate, config.jobs_of(node));
    let share = share(config.limit_rate, workers).min(of_node);
    share.clamp(MIN_BUFFER, BUFFER) as usize
}

/// How the scheduler is to run the pass.
fn policy(config: &Config) -> Policy {
    Policy {
        retries: config.retries,
        backoff: Box::new(backoff),
        jobs: config.jobs,
        listings: (MAX_LISTINGS / config.nodes.len().max(1)).max(1),
        timeout: config.timeout,
        max_files: MAX_FILES,
        lands_on_disk: !config.dry_run,
        hedges: config.limit_rate.is_none()
            && config.nodes.iter().all(|node| node.settings.limit_rate.is_none()),
    }
}

/// The pause before the n-th further try: twice as long each time, and a half less or more by
/// chance, so that machines which failed together don't come back together.
fn backoff(n: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(16)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.5))
}

/// As many files and connections at a time as this user may have: a pass with many nodes needs more
/// than the usual limit.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        debug!("the limit of open files can't be raised: {e}");
    }
}

/// What the threads of a pass share.
struct Pass {
    config: Config,
    begun: Instant,
    started: DateTime<Utc>,
    stats: Mutex<Stats>,
    comparison: Mutex<Comparison>,
    /// The streams and variants that the pass is about; none until they are found.
    collections: OnceLock<Vec<Collection>>,
    nodes: Vec<Box<dyn Node>>,
    archive: &'static Archive,
    partials: Partials<'static>,
    throttle: Option<Throttle>,
    /// The same for single nodes.
    throttles: Vec<Option<Throttle>>,
    report: Report,
    progress: Progress,
    stop: Stop,
    scheduler: Mutex<Scheduler>,
    /// Notified when waiting workers may find something new, and whoever waits for the end.
    changed: Condvar,
    /// The hours that nodes have of each collection, selected or not, once any has listed them.
    known: Mutex<Vec<Option<BTreeSet<Hour>>>>,
    here: Here,
    /// Held by the one listing that may be large.
    large_window: Mutex<()>,
    /// Failures of this machine since something landed.
    local_failures: AtomicU32,
    failed_here: AtomicBool,
    /// Listings of streams and variants that failed, by node.
    unnamed: Vec<AtomicU64>,
    /// Files that a node which is not optional failed to give.
    refused: Mutex<HashSet<Target>>,
    /// Files that only a node could have given that was given up.
    lost_with: Vec<AtomicU64>,
    /// Whether a node has listed its streams or variants.
    any_named: AtomicBool,
    /// Files that nobody could give, and that are not here.
    missing: AtomicU64,
    /// Old hours that were not deleted.
    undeleted: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The phases.
impl Pass {
    fn new(
        config: Config,
        nodes: Vec<Box<dyn Node>>,
        archive: &'static Archive,
        report: Report,
        progress: Progress,
        (begun, started): (Instant, DateTime<Utc>),
    ) -> Pass {
        let scheduler = Scheduler::new(0, 0, 0, policy(&config));
        Pass {
            begun,
            started,
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
            large_window: Mutex::default(),
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

    /// Looks for corrupt segments, so that they are fetched as if they were not here. Says how many
    /// segments and bytes were checked.
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

    /// Starts the workers, and reports what becomes final until all work is done. Nobody joins them:
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
                let woken = self.changed.wait(scheduler);
                scheduler = woken.unwrap_or_else(PoisonError::into_inner);
            };
            drop(scheduler);
            verdicts.iter().for_each(|verdict| self.tell_verdict(verdict));
            if over {
                return;
            }
        }
    }

    fn start_workers(self: &Arc<Self>) -> bool {
        for id in 0..self.nodes.len() {
            for _ in 0..self.config.jobs_of(&self.config.nodes[id]) {
                let worker = self.clone();
                let thread = thread::Builder::new().name(self.config.nodes[id].name.clone());
                if let Err(e) = thread.spawn(move || worker.work(id)) {
                    let what = "starting a thread (fewer --jobs need fewer) for node";
                    let error = LocalError::new(what, self.config.nodes[id].name.as_ref(), e);
                    self.failed_here(&error);
                    self.end(Cause::LocalFailure);
                    return false;
                }
            }
        }
        true
    }

    /// Reports what follows from what is left.
    fn judge(&self) {
        if self.stop.is_stopped() {
            return;
        }
        if let Err(gone) = self.archive.check() {
            return self.failed_here(&gone);
        }
        let are_given = matches!(self.config.collections, Collections::Given(_));
        for (collection, known) in self.collections().iter().zip(&*lock(&self.known)) {
            // If nobody has listed its hours, that was reported.
            if are_given && known.as_ref().is_some_and(BTreeSet::is_empty) {
                // It may be one that nobody records yet, of which cron need not write each time.
                let level = if io::stderr().is_terminal() { Level::Warn } else { Level::Info };
                log!(level, "no node that answered knows {collection}: is its name right?");
            }
        }
        if !self.config.dry_run {
            for target in &self.here.corrupt() {
                self.tell(Event::NotRepaired { target });
            }
        }
        self.judge_list();
        self.report.judge_nodes(&self.stop);
        self.look_beside();
    }

    /// Deletes the hours that are older than they are kept.
    fn delete(&self) {
        let Some(bound) = self.config.delete_before else {
            return;
        };
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

    fn delete_hour(&self, place: &Place) {
        let dry_run = self.config.dry_run;
        match delete_hour(self.archive, &place.collection, place.hour, dry_run, &self.stop) {
            Ok(Deletion::Done { segments, left, error }) => {
                // An hour that only keeps what stays was reported when it was emptied.
                if segments > 0 || left == 0 {
                    self.tell(Event::Deleted { place, segments, left, dry_run });
                }
                if let Some(error) = error {
                    self.failed_here(&error);
                }
            }
            Ok(Deletion::Refused(why)) => {
                self.undeleted.fetch_add(1, Ordering::Relaxed);
                self.tell(Event::NotDeleted { place, why: &why });
            }
            Err(error) => self.failed_here(&error),
        }
    }

    /// Asks nodes what they have beside the selected hours, as far as the coverage depends on it.
    fn look_beside(&self) {
        let given_up = self.scheduler().given_up();
        let nodes = self.nodes.iter().zip(given_up).filter(|(_, given_up)| !given_up);
        let nodes: Vec<&dyn Node> = nodes.map(|(node, _)| &**node).collect();
        let known = lock(&self.known).clone();
        for (collection, _) in self.report.fetched() {
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

    /// What is covered by what is here now, unless the pass ended early.
    fn measure(&self, started: DateTime<Utc>) -> Vec<Measured> {
        let mut measured = Vec::new();
        let cutoff = i64::try_from(self.config.recent_cutoff.as_micros()).unwrap_or(i64::MAX);
        for (collection, findings) in self.report.fetched() {
            let question = Question {
                selection: &self.config.hours,
                findings: &findings,
                until: started.timestamp_micros().saturating_sub(cutoff),
            };
            match coverage::measure(self.archive, &collection, question, &self.stop) {
                _ if self.stop.cause().is_some() => return Vec::new(),
                Ok(coverage) => measured.push(Measured { collection, coverage }),
                Err(error) => self.failed_here(&error),
            }
        }
        measured
    }

    /// What is left undone.
    fn left(&self, figures: &Figures) -> Left {
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
                // Nothing was listed, so there was nobody to ask.
                || self.config.files.as_ref().is_some_and(FileList::is_empty),
            missing: self.missing.load(Ordering::Relaxed) + not_excused(&self.lost_with),
            unlisted: undone.unlisted + not_excused(&self.unnamed),
            corrupt: self.here.corrupt().len() as u64,
            given_up: undone.given_up,
            undeleted: self.undeleted.load(Ordering::Relaxed),
            holes: if self.config.fail_on_holes { figures.holes() } else { 0 },
        }
    }
}

/// What all phases need.
impl Pass {
    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        lock(&self.scheduler)
    }

    /// Ends the pass early: nothing new is begun, requests under way are cut.
    fn end(&self, cause: Cause) {
        self.stop.stop(cause);
        self.nodes.iter().for_each(|node| node.cut());
        // With the lock held, so that nobody is between looking and waiting.
        let _scheduler = self.scheduler();
        self.changed.notify_all();
    }

    /// The streams and variants that the pass is about.
    fn collections(&self) -> &[Collection] {
        self.collections.get().map_or(&[], Vec::as_slice)
    }

    fn tell(&self, event: Event<'_>) {
        self.note_listed(&event);
        self.note_refused(&event);
        self.note_elsewhere(&event);
        self.report.tell(event, &self.stop);
    }

    /// Reports that a listed name is not fetched.
    fn skip(&self, node: NodeId, directory: &Directory, name: Option<&str>, why: Skip) {
        self.tell(Event::Skipped { node, directory, name, why: &why });
    }

    /// Reports a failure of this machine, and ends the pass unless it can go on elsewhere.
    fn failed_here(&self, error: &LocalError) {
        // Every worker sees it; the first has reported it.
        if error.is_gone() && self.stop.is_stopped() {
            return;
        }
        if self.report.tell(Event::LocalFailed { error }, &self.stop) {
            self.failed_here.store(true, Ordering::Relaxed);
        }
        // What is in the way in single places says nothing of the machine, however many there are.
        let counted = u32::from(!error.is_of_one_place());
        let failures = self.local_failures.fetch_add(counted, Ordering::Relaxed) + counted;
        if failures >= MAX_LOCAL_FAILURES || !self.archive.can_go_on_after(error) {
            self.end(Cause::LocalFailure);
        }
    }

    /// Nobody can give a file.
    fn lost(&self, target: &Target, loss: &Loss) {
        let optional = self.optional_loser(target, loss);
        let count = optional.map_or(&self.missing, |node| &self.lost_with[node]);
        count.fetch_add(1, Ordering::Relaxed);
        self.tell(Event::FileFailed { target, loss, excused: optional.is_some() });
    }

    fn tell_verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::NodeGivenUp(node, why) => {
                self.tell(Event::NodeGivenUp { node: *node, why });
                self.nodes[*node].cut();
            }
            Verdict::NodeBack(node) => self.tell(Event::NodeBack { node: *node }),
            Verdict::ListingFailed(node, list, error) => {
                let (node, directory) = (*node, &self.directory(*list));
                self.tell(Event::ListingFailed { node, directory, error });
            }
            Verdict::FileMissing(unit, item, loss) => {
                let target = &self.target(*unit, item);
                self.partials.settle(target);
                // A worker of a node that was given up may have been quicker than that.
                if self.archive.has(target) && !self.here.is_corrupt(target) {
                    return self.tell(Event::Dropped { target, why: &Skip::Here });
                }
                self.lost(target, loss);
            }
            Verdict::FileVanished(unit, item) => {
                let target = &self.target(*unit, item);
                self.partials.settle(target);
                self.tell(Event::FileVanished { target });
            }
        }
    }

    fn directory(&self, list: List) -> Directory {
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

    fn target(&self, unit: Unit, item: &Item) -> Target {
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

impl Watch for Pass {
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
        self.tell(Event::Corrupt { target, damage });
    }

    fn failed(&self, error: &LocalError) {
        self.failed_here(error);
    }

    fn is_selected(&self, target: &Target) -> bool {
        self.is_target(target)
    }
}

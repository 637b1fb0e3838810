//! One pass: a thread for each request that may be under way, what each of them does, the signals
//! that end them early, and the end.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use log::{debug, error, info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::archive::{Archive, Commit, HourFiles};
use crate::config::{Config, NodeConfig, NodePlace};
use crate::coverage::{self, Question};
use crate::error::{LocalError, plain};
use crate::extra::ExtraPath;
use crate::fetch::{FetchError, Fetched, Fetcher, Request, Throttle};
use crate::hour::{Hour, HourSelection};
use crate::node::directory::DirectoryNode;
use crate::node::http::{HttpNode, HttpSettings};
use crate::node::{Node, NodeError, Trouble};
use crate::plan::{MAX_MISSING, Planner, Rules, Skip};
use crate::progress::{Phase, Progress, Standing};
use crate::report::{Event, Figures, Left, Measured, Report, Request as Asked, Status};
use crate::retention::{Deletion, delete_hour};
use crate::schedule::{
    Fetch, GivenUp, Item, List, Loss, Next, NodeId, Policy, Scheduler, Task, Unit, Verdict,
};
use crate::segment::{Collection, NameError, SegmentName};
use crate::stop::{Cause, Stop};
use crate::target::{Directory, Place, Target};
use crate::verify::{Corrupt, Damage, Verified, verify};

/// How long a pass that was told to end waits for its staged files to be gone.
const PATIENCE: Duration = Duration::from_millis(800);
/// How long it then has to remove what is left of them.
const LAST_GRACE: Duration = Duration::from_millis(100);
/// The first pause before a further try; each one after it is twice as long, up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// What a worker reads at a time, in bytes.
const BUFFER: u64 = 128 << 10;
const MIN_BUFFER: u64 = 8 << 10;
/// How many files may be wanted at a time: eight hours, and some.
const MAX_OPEN_FILES: usize = 20_000;
/// So many failures of this machine in a row are not of single places.
const MAX_LOCAL_FAILURES: u32 = 10;

/// Runs a pass to its end.
pub fn run(config: Config, report: Report, progress: Progress) -> Status {
    let (begun, started) = (Instant::now(), Utc::now());
    let nothing =
        || Figures { started, took: begun.elapsed(), checked: None, measured: Vec::new() };
    // A pass that can't begin is reported too, to programs and in metrics.
    let fail = |error: &LocalError| {
        let stop = Stop::default();
        report.tell(Event::LocalFailed { error }, &stop);
        report.finish(Left { cause: stop.cause(), ..report.left() }, nothing(), &stop)
    };
    let archive = match Archive::open(&config.base_dir, config.fsync) {
        Ok(archive) => archive,
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
    let nodes = config.nodes.iter().map(|node| connect(node, &config));
    let nodes = match nodes.collect::<Result<Vec<_>, String>>() {
        Ok(nodes) => nodes,
        Err(why) => {
            error!("{why}");
            return Status::Usage;
        }
    };
    let policy = Policy {
        retries: config.retries,
        backoff: Box::new(backoff),
        max_open_files: MAX_OPEN_FILES,
        lands_on_disk: !config.dry_run,
    };
    let (collections, extras) = (config.collections.len(), config.extras.len());
    let scheduler = Scheduler::new(config.nodes.len(), collections, extras, policy);
    let pass = Arc::new(Pass {
        throttle: config.limit_rate.map(Throttle::new),
        known: Mutex::new(vec![None; collections]),
        corrupt: Mutex::default(),
        checked: Mutex::default(),
        local_failures: AtomicU32::new(0),
        config,
        nodes,
        archive,
        report,
        progress,
        stop: Stop::default(),
        scheduler: Mutex::new(scheduler),
        changed: Condvar::new(),
    });
    watch_signals(&pass);
    let any_answered = pass.run();
    // A worker may still be at something that another one was quicker with.
    pass.stop.end();
    pass.nodes.iter().for_each(|node| node.shut_down());
    pass.archive.close(PATIENCE);
    let measured = pass.measure(started);
    pass.report.close();
    let (took, checked) = (begun.elapsed(), *lock(&pass.checked));
    let figures = Figures { started, took, checked, measured };
    let holes = if pass.config.fail_on_holes { figures.holes() } else { 0 };
    let left = Left { cause: pass.stop.cause(), any_answered, holes, ..pass.report.left() };
    pass.report.finish(left, figures, &pass.stop)
}

fn connect(node: &NodeConfig, config: &Config) -> Result<Box<dyn Node>, String> {
    let url = match &node.place {
        NodePlace::Http(url) => url.clone(),
        NodePlace::Directory(dir) => return Ok(Box::new(DirectoryNode::new(dir.clone()))),
    };
    let settings = HttpSettings {
        timeout: config.timeout,
        connections: config.jobs,
        max_size: config.max_segment_size,
        read_size: read_size(config),
    };
    Ok(Box::new(HttpNode::new(url, settings)?))
}

/// How much a worker reads at a time, in bytes: with a limit on the rate so little that each of them
/// has its turn several times a second, and no node thinks that it has gone.
fn read_size(config: &Config) -> usize {
    let workers = (config.nodes.len() * config.jobs) as u64;
    let share = config.limit_rate.map_or(u64::MAX, |rate| rate / (4 * workers));
    share.clamp(MIN_BUFFER, BUFFER) as usize
}

/// The pause before the n-th further try: twice as long each time, and a half less or more by
/// chance, so that machines which failed together don't come back together.
fn backoff(n: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(16)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.5))
}

/// The first signal ends the pass in order, a second one at once.
fn watch_signals(pass: &Arc<Pass>) {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = match Signals::new(wanted) {
        Ok(signals) => signals,
        Err(e) => return warn!("signals can't be caught, and will leave staged files: {e}"),
    };
    // A file that is larger than this user may write is an error like others.
    if let Err(e) = flag::register(SIGXFSZ, Arc::default()) {
        debug!("SIGXFSZ can't be caught: {e}");
    }
    let pass = pass.clone();
    thread::spawn(move || {
        for signal in &mut signals {
            let code = Status::Signal(signal).code().into();
            if matches!(pass.stop.cause(), Some(Cause::Signal(_))) {
                exit_now(&pass, code);
            }
            // In threads of their own: whoever holds a lock that this takes may be writing to a
            // terminal that is held up.
            let (ends, watches) = (pass.clone(), pass.clone());
            thread::spawn(move || ends.end(Cause::Signal(signal)));
            thread::spawn(move || {
                thread::sleep(PATIENCE);
                exit_now(&watches, code);
            });
        }
    });
}

/// Ends the process whatever its threads are at, with no staged file left if that can be had.
fn exit_now(pass: &Arc<Pass>, code: i32) -> ! {
    let closes = pass.clone();
    thread::spawn(move || closes.archive.close(Duration::ZERO));
    thread::sleep(LAST_GRACE);
    std::process::exit(code)
}

/// Whether whoever started us wants a signal to be ignored, as nohup does. Where the system has no
/// such file nothing is known, and signals are obeyed.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Starts the workers. Nobody joins them: the pass ends when its work is done, even if a worker
/// still waits for a node that was given up.
fn start_workers(pass: &Arc<Pass>) {
    for id in 0..pass.nodes.len() {
        for _ in 0..pass.config.jobs {
            let worker = pass.clone();
            let thread = thread::Builder::new().name(pass.config.nodes[id].name.clone());
            if let Err(e) = thread.spawn(move || worker.work(id)) {
                error!("starting a thread: {} (fewer --jobs need fewer)", plain(&e));
                return pass.end(Cause::LocalFailure);
            }
        }
    }
}

/// What the threads of a pass share.
struct Pass {
    config: Config,
    nodes: Vec<Box<dyn Node>>,
    archive: Archive,
    throttle: Option<Throttle>,
    report: Report,
    progress: Progress,
    stop: Stop,
    scheduler: Mutex<Scheduler>,
    /// Told when waiting workers may find something new.
    changed: Condvar,
    /// The hours that nodes have of each collection, selected or not, once any has listed them.
    known: Mutex<Vec<Option<BTreeSet<Hour>>>>,
    /// What is corrupt here, and not yet repaired.
    corrupt: Mutex<Corrupt>,
    /// How many segments that are here were checked, and how many bytes they have.
    checked: Mutex<Option<(u64, u64)>>,
    /// Failures of this machine since something landed.
    local_failures: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pass {
    /// The parts of a pass, one after the other. Says whether any node answered.
    fn run(self: &Arc<Self>) -> bool {
        if self.config.hours.is_empty() && self.config.extras.is_empty() {
            return true;
        }
        if self.config.verify {
            self.verify();
        }
        if !self.stop.is_stopped() {
            start_workers(self);
            self.wait();
        }
        if !self.stop.is_stopped() {
            self.warn_of_unknown_collections();
            if !self.config.dry_run {
                self.tell_of_what_is_not_repaired();
            }
            self.report.judge_nodes(&self.stop);
            self.look_beside();
        }
        if let (Some(bound), false) = (self.config.delete_before, self.stop.is_stopped()) {
            self.delete_hours_before(bound);
        }
        self.scheduler().any_answered()
    }

    /// Looks for corrupt segments, so that they are fetched as if they were not here.
    fn verify(&self) {
        let Config { collections, hours, .. } = &self.config;
        let found = |target: &Target, damage: &Damage| self.tell(Event::Corrupt { target, damage });
        self.progress.begin(Phase::Checking);
        let verified = verify(&self.archive, collections, hours, &self.progress, &self.stop, found);
        self.progress.begin(Phase::Fetching);
        match verified {
            Ok(Verified { corrupt, files, bytes }) => {
                *lock(&self.corrupt) = corrupt;
                *lock(&self.checked) = Some((files, bytes));
            }
            Err(error) => self.failed_here(&error),
        }
    }

    fn tell_of_what_is_not_repaired(&self) {
        for ((collection, hour), names) in &*lock(&self.corrupt) {
            for name in names {
                let target = &Target::segment(collection, *hour, name);
                self.tell(Event::NotRepaired { target });
            }
        }
    }

    /// Asks nodes what they have beside the selected hours, as far as the coverage depends on it.
    fn look_beside(&self) {
        let given_up: Vec<bool> = {
            let scheduler = self.scheduler();
            let now = Instant::now();
            let standings = (0..self.nodes.len()).map(|id| scheduler.standing(id, now));
            standings.map(|standing| standing == Standing::GivenUp).collect()
        };
        let nodes = self.nodes.iter().zip(given_up).filter(|(_, given_up)| !given_up);
        let nodes: Vec<&dyn Node> = nodes.map(|(node, _)| &**node).collect();
        let known = lock(&self.known).clone();
        for (collection, _) in self.report.fetched() {
            let index = self.config.collections.iter().position(|c| *c == collection);
            let known = index.and_then(|index| known[index].as_ref());
            let Some(known) = known.filter(|_| !self.stop.is_stopped()) else {
                continue;
            };
            let hours = &self.config.hours;
            match coverage::look_beside(&self.archive, &nodes, &collection, hours, known) {
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
            match coverage::measure(&self.archive, &collection, question, &self.stop) {
                _ if self.stop.cause().is_some() => return Vec::new(),
                Ok(coverage) => measured.push(Measured { collection, coverage }),
                Err(error) => self.failed_here(&error),
            }
        }
        measured
    }

    /// Deletes the hours that ended before this.
    fn delete_hours_before(&self, bound: Hour) {
        let old = HourSelection::union(vec![Hour::MIN..=bound.back(1)]);
        for collection in &self.config.collections {
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
        match delete_hour(&self.archive, &place.collection, place.hour, dry_run) {
            Ok(Deletion::Done { segments, left }) => {
                // An hour that only keeps what stays was told when it was emptied.
                if segments > 0 || left == 0 {
                    self.tell(Event::Deleted { place, segments, left, dry_run });
                }
            }
            Ok(Deletion::Refused(why)) => self.tell(Event::NotDeleted { place, why: &why }),
            Err(error) => self.failed_here(&error),
        }
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        lock(&self.scheduler)
    }

    /// Waits until all work is done, or the pass is to end early.
    fn wait(&self) {
        let mut scheduler = self.scheduler();
        while !scheduler.is_finished() && !self.stop.is_stopped() {
            let woken = self.changed.wait(scheduler);
            scheduler = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the pass early: nothing new is begun, requests under way are cut.
    fn end(&self, cause: Cause) {
        self.stop.stop(cause);
        self.nodes.iter().for_each(|node| node.shut_down());
        // With the lock held, so that nobody is between looking and waiting.
        let _scheduler = self.scheduler();
        self.changed.notify_all();
    }

    fn tell(&self, event: Event<'_>) {
        self.report.tell(event, &self.stop);
    }

    /// Tells that a listed name is not fetched.
    fn skip(&self, node: NodeId, directory: &Directory, name: Option<&str>, why: Skip) {
        self.tell(Event::Skipped { node, directory, name, why: &why });
    }

    /// Tells of a failure of this machine, and ends the pass unless it can go on elsewhere.
    fn failed_here(&self, error: &LocalError) {
        self.tell(Event::LocalFailed { error });
        let failures = self.local_failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= MAX_LOCAL_FAILURES || !self.archive.can_go_on_after(error) {
            self.end(Cause::LocalFailure);
        }
    }

    fn directory(&self, list: List) -> Directory {
        match list {
            List::Hours(collection) => {
                Directory::Collection(self.config.collections[collection].clone())
            }
            List::Unit(Unit::Hour(Reverse(hour), collection)) => {
                let collection = self.config.collections[collection].clone();
                Directory::Hour(Place { collection, hour })
            }
            List::Unit(Unit::Extras(dir)) => Directory::Extras(self.config.extras[dir].clone()),
        }
    }

    fn target(&self, unit: Unit, item: &Item) -> Target {
        match (unit, item) {
            (Unit::Hour(Reverse(hour), collection), Item::Segment(name)) => {
                Target::segment(&self.config.collections[collection], hour, name)
            }
            (Unit::Extras(dir), Item::Extra(path)) => {
                Target::Extra(self.config.extras[dir].clone(), path.clone())
            }
            _ => unreachable!("hours hold segments, and extra directories hold extra files"),
        }
    }

    /// The life of a worker of one node.
    fn work(&self, id: NodeId) {
        let mut buffer = vec![0; read_size(&self.config)];
        while let Some(task) = self.next_task(id) {
            let begun = Instant::now();
            match &task {
                Task::List(List::Hours(collection)) => self.list_hours(id, *collection, begun),
                Task::List(List::Unit(unit)) => self.list_unit(id, *unit, begun),
                Task::Fetch(fetch) => self.fetch(id, fetch, &mut buffer, begun),
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
                Next::Wait(None) => {
                    let woken = self.changed.wait(scheduler);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Next::Wait(Some(at)) => {
                    let woken = self.changed.wait_timeout(scheduler, at - now);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Tells the scheduler what happened, and everybody what follows.
    fn settle(&self, happened: impl FnOnce(&mut Scheduler)) {
        let mut scheduler = self.scheduler();
        happened(&mut scheduler);
        self.show(&scheduler);
        // Told with the lock held, so that the pass doesn't end before they are.
        scheduler.take_verdicts().iter().for_each(|verdict| self.tell_verdict(verdict));
        if scheduler.take_changed() {
            self.changed.notify_all();
        }
    }

    fn show(&self, scheduler: &Scheduler) {
        if self.progress.is_shown() {
            let now = Instant::now();
            let standings = (0..self.nodes.len()).map(|id| scheduler.standing(id, now));
            self.progress.update(scheduler.counts(), standings);
        }
    }

    fn tell_verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::NodeGivenUp(node, why) => {
                let why = &GivenUp::Failed(NodeError::new(Trouble::Broken, why));
                self.tell(Event::NodeGivenUp { node: *node, why });
                self.nodes[*node].shut_down();
            }
            Verdict::ListingFailed(node, list, why) => {
                let (node, directory) = (*node, &self.directory(*list));
                let error = &NodeError::new(Trouble::Broken, why);
                self.tell(Event::ListingFailed { node, directory, error });
            }
            Verdict::FileFailed(unit, item, node, why) => {
                let target = &self.target(*unit, item);
                // A worker of a node that was given up may have been quicker than that.
                if self.archive.has(target) && !self.is_corrupt(*unit, item) {
                    return self.tell(Event::Dropped { target, why: &Skip::Here });
                }
                let loss = &Loss::Failed(*node, NodeError::new(Trouble::Broken, why));
                self.tell(Event::FileFailed { target, loss });
            }
            Verdict::FileVanished(unit, item) => {
                self.tell(Event::FileVanished { target: &self.target(*unit, item) });
            }
        }
    }

    fn failed(&self, id: NodeId, task: Task, error: &NodeError, begun: Instant) {
        // Shutting down makes every request fail.
        if self.stop.is_stopped() {
            return;
        }
        let (directory, target);
        let request = match &task {
            Task::List(list) => {
                directory = self.directory(*list);
                Asked::List(&directory)
            }
            Task::Fetch(fetch) => {
                target = self.target(fetch.unit, &fetch.item);
                Asked::Fetch(&target)
            }
        };
        self.tell(Event::TryFailed { node: id, request, error, took: begun.elapsed() });
        self.settle(|scheduler| scheduler.failed(id, &task, error, begun, Instant::now()));
    }

    fn list_hours(&self, id: NodeId, index: usize, begun: Instant) {
        let collection = &self.config.collections[index];
        let (mut known, mut selected) = (BTreeSet::new(), Vec::new());
        let within = self.directory(List::Hours(index));
        let skipped = |name: Option<&str>, why: Skip| self.skip(id, &within, name, why);
        let listed = self.nodes[id].list_hours(collection).and_then(|listing| {
            listing.for_each(|name| match name.map(str::parse::<Hour>) {
                Some(Ok(hour)) => {
                    known.insert(hour);
                    if self.config.hours.contains(hour) {
                        selected.push(hour);
                    }
                }
                _ if name.is_some_and(|name| name.starts_with('.')) => {}
                Some(Err(_)) => skipped(name, Skip::NoName(NameError::NO_HOUR)),
                None => skipped(None, Skip::NoName(NameError::NOT_UNICODE)),
            })
        });
        if let Err(e) = listed {
            return self.failed(id, Task::List(List::Hours(index)), &e, begun);
        }
        let (hours, chosen, took) = (known.len(), selected.len(), begun.elapsed());
        lock(&self.known)[index].get_or_insert_default().append(&mut known);
        let node = id;
        self.tell(Event::HoursListed { node, collection, hours, selected: chosen, took });
        let now = Instant::now();
        self.settle(|scheduler| scheduler.hours_listed(id, index, selected, now));
    }

    fn list_unit(&self, id: NodeId, unit: Unit, begun: Instant) {
        let enlisted = match unit {
            Unit::Hour(Reverse(hour), collection) => {
                self.list_segments(id, unit, hour, collection, begun)
            }
            Unit::Extras(dir) => self.list_extras(id, dir, begun),
        };
        let wanted = match enlisted {
            Ok(wanted) => wanted,
            Err(FetchError::Node(e)) => {
                return self.failed(id, Task::List(List::Unit(unit)), &e, begun);
            }
            Err(FetchError::Local(error)) => {
                self.failed_here(&error);
                Vec::new()
            }
            Err(FetchError::Stopped | FetchError::Superseded) => return,
        };
        self.settle(|scheduler| {
            let near_duplicates = scheduler.listed(id, unit, wanted, Instant::now());
            let within = self.directory(List::Unit(unit));
            for item in near_duplicates {
                if let Item::Segment(name) = item {
                    let (name, why) = (Some(name.as_str()), Skip::NearDuplicate(None));
                    self.skip(id, &within, name, why);
                }
            }
        });
    }

    /// What is to be fetched of an hour. The local directory is read after the node's answer is
    /// here, so that what other writers brought meanwhile is seen.
    fn list_segments(
        &self,
        id: NodeId,
        unit: Unit,
        hour: Hour,
        collection: usize,
        begun: Instant,
    ) -> Result<Vec<Item>, FetchError> {
        let collection = &self.config.collections[collection];
        let listing = self.nodes[id].list_segments(collection, hour)?;
        let took = begun.elapsed();
        let files = self.hour_files(collection, hour)?;
        let rules = Rules {
            now: Utc::now(),
            recent_cutoff: self.config.recent_cutoff,
            order: self.config.order,
        };
        let mut planner = Planner::new(hour, collection.variant.medium(), &files, rules);
        let place = &Place { collection: collection.clone(), hour };
        let within = Directory::Hour(place.clone());
        self.remove_stale(&within.to_string(), files.staged());
        let skipped = |name: Option<&str>, why: Skip| self.skip(id, &within, name, why);
        let (mut names, mut here) = (0, 0);
        listing.for_each(|name| {
            names += 1;
            match name {
                None => skipped(None, Skip::NoName(NameError::NOT_UNICODE)),
                Some(text) => match planner.listed(text) {
                    Some(Skip::Here) => here += 1,
                    Some(why) => skipped(name, why),
                    None => {}
                },
            }
        })?;
        if planner.is_overfull() {
            let what = format!("it lists more than {MAX_MISSING} files that are not here");
            return Err(NodeError::answered(Trouble::Refused, what).into());
        }
        if planner.is_clock_wrong() {
            self.tell(Event::FromTheFuture { node: id, place });
        }
        let neighbours = planner.neighbours().into_iter();
        let neighbours = neighbours.map(|hour| Ok((hour, self.hour_files(collection, hour)?)));
        let neighbours = neighbours.collect::<Result<Vec<_>, LocalError>>()?;
        let plan = planner.plan(&neighbours, |name, why| skipped(Some(name.as_str()), why));
        let (directory, wanted) = (&within, plan.wanted.len());
        self.tell(Event::Listed { node: id, directory, names, here, wanted, took });
        self.bury(id, unit, collection, hour, plan.tombstones)?;
        Ok(plan.wanted.into_iter().map(Item::Segment).collect())
    }

    fn hour_files(&self, collection: &Collection, hour: Hour) -> Result<HourFiles, LocalError> {
        let mut files = self.archive.hour(collection, hour)?;
        if self.config.verify
            && let Some(names) = lock(&self.corrupt).get(&(collection.clone(), hour))
        {
            names.iter().for_each(|name| files.mark_corrupt(name.as_str()));
        }
        Ok(files)
    }

    fn remove_stale(&self, dir: &str, names: &[Box<str>]) {
        if !self.config.dry_run {
            for name in self.archive.remove_stale(dir, names) {
                info!("removed {dir}/{name}, which a pass that died had left");
            }
        }
    }

    /// Creates the tombstones that a node lists, before anything of the listing is fetched.
    fn bury(
        &self,
        id: NodeId,
        unit: Unit,
        collection: &Collection,
        hour: Hour,
        names: Vec<SegmentName>,
    ) -> Result<(), FetchError> {
        if names.is_empty() {
            return Ok(());
        }
        let new = self.scheduler().deleted(unit, names, Instant::now());
        for name in new {
            let place = Place { collection: collection.clone(), hour };
            let target = &Target::Tombstone(place, name);
            if self.config.dry_run {
                self.tell(Event::WouldLand { target, repairs: false });
            } else if let Fetched::Landed(..) = self.fetcher(id).bury(target)? {
                self.tell(Event::Buried { node: id, target });
            }
        }
        Ok(())
    }

    /// What is to be fetched of an extra directory.
    fn list_extras(
        &self,
        id: NodeId,
        index: usize,
        begun: Instant,
    ) -> Result<Vec<Item>, FetchError> {
        let dir = &self.config.extras[index];
        let listing = match self.nodes[id].list_extras(dir) {
            Err(e) if e.trouble == Trouble::Gone => {
                self.tell(Event::NoExtras { node: id });
                return Ok(Vec::new());
            }
            listing => listing?,
        };
        let took = begun.elapsed();
        let here = self.archive.extras(dir)?;
        for path in here.iter().filter(|path| path.ends_with(".temp")) {
            let path = format!("{dir}/{path}");
            if let Some((dir, name)) = path.rsplit_once('/') {
                self.remove_stale(dir, &[name.into()]);
            }
        }
        let within = &Directory::Extras(dir.clone());
        let (mut names, mut known, mut wanted) = (0, 0, Vec::new());
        listing.for_each(|name| {
            names += 1;
            let parsed = name.map_or(Err(NameError::NOT_UNICODE), str::parse::<ExtraPath>);
            match (name, parsed) {
                (Some(name), Ok(_)) if here.contains(name) => known += 1,
                (_, Ok(path)) if !path.is_temp() => wanted.push(Item::Extra(path)),
                (_, parsed) => {
                    let why = parsed.map_or_else(Skip::NoName, |_| Skip::Temp);
                    self.skip(id, within, name, why);
                }
            }
        })?;
        let (here, directory, count) = (known, within, wanted.len());
        self.tell(Event::Listed { node: id, directory, names, here, wanted: count, took });
        Ok(wanted)
    }

    fn fetcher(&self, id: NodeId) -> Fetcher<'_> {
        Fetcher {
            node: id,
            archive: &self.archive,
            throttle: self.throttle.as_ref(),
            max_size: self.config.max_segment_size,
            progress: &self.progress,
            stop: &self.stop,
        }
    }

    fn fetch(&self, id: NodeId, fetch: &Fetch, buffer: &mut [u8], begun: Instant) {
        let target = &self.target(fetch.unit, &fetch.item);
        let repaired = self.is_corrupt(fetch.unit, &fetch.item);
        if self.config.dry_run {
            self.tell(Event::WouldLand { target, repairs: repaired });
            return self.settle(|s| s.file_done(id, fetch, Instant::now()));
        }
        let how = if repaired { Commit::Repair } else { Commit::New };
        let (looked, superseded) = (fetch.listed, &fetch.superseded);
        let request = Request { target, how, looked, superseded };
        match self.fetcher(id).fetch(&*self.nodes[id], &request, buffer) {
            Ok(Fetched::Landed(bytes, _until_it_is_told)) => {
                let took = begun.elapsed();
                self.local_failures.store(0, Ordering::Relaxed);
                self.tell(Event::Landed { node: id, target, bytes, took, repaired });
                if repaired {
                    self.note_repaired(fetch);
                }
            }
            Ok(Fetched::WasHere) => self.tell(Event::Dropped { target, why: &Skip::Here }),
            Ok(Fetched::Forbidden) => {
                self.tell(Event::Dropped { target, why: &Skip::Tombstoned });
                return self.settle(|s| s.forbidden(id, fetch, Instant::now()));
            }
            Err(FetchError::Node(e)) => {
                return self.failed(id, Task::Fetch(fetch.clone()), &e, begun);
            }
            Err(FetchError::Local(error)) => self.failed_here(&error),
            Err(FetchError::Stopped | FetchError::Superseded) => return,
        }
        self.settle(|scheduler| scheduler.file_done(id, fetch, Instant::now()));
    }

    fn is_corrupt(&self, unit: Unit, item: &Item) -> bool {
        let mut is_corrupt = false;
        self.with_corrupt(unit, item, |names, name| is_corrupt = names.contains(name));
        is_corrupt
    }

    fn note_repaired(&self, fetch: &Fetch) {
        self.with_corrupt(fetch.unit, &fetch.item, |names, name| {
            names.remove(name);
        });
    }

    fn with_corrupt(
        &self,
        unit: Unit,
        item: &Item,
        then: impl FnOnce(&mut HashSet<SegmentName>, &SegmentName),
    ) {
        if let (Unit::Hour(Reverse(hour), collection), Item::Segment(name), true) =
            (unit, item, self.config.verify)
        {
            let collection = self.config.collections[collection].clone();
            if let Some(names) = lock(&self.corrupt).get_mut(&(collection, hour)) {
                then(names, name);
            }
        }
    }

    fn warn_of_unknown_collections(&self) {
        if self.config.hours.is_empty() {
            return;
        }
        for (collection, known) in self.config.collections.iter().zip(&*lock(&self.known)) {
            // If nobody has listed its hours, that was told.
            if known.as_ref().is_some_and(BTreeSet::is_empty) {
                warn!("no node that answered knows {collection}: is its name right?");
            }
        }
    }
}

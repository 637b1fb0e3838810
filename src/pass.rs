//! One pass: a thread for each request that may be under way, what each of them does, the signals
//! that end them early, and the end.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;
use log::{debug, error, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::archive::Archive;
use crate::config::{Config, NodeConfig, NodePlace};
use crate::fetch::{FetchError, Fetched, Fetcher, Throttle};
use crate::hour::Hour;
use crate::node::directory::DirectoryNode;
use crate::node::http::HttpNode;
use crate::node::{Listing, Node, NodeError};
use crate::plan::{Planner, Skip};
use crate::progress::Progress;
use crate::report::{Event, Place, Report, Status};
use crate::schedule::{List, Next, NodeId, Policy, Scheduler, Task, Unit, Verdict};
use crate::segment::SegmentName;
use crate::stop::{Cause, Stop};

/// How long a pass that was told to end waits for its staged files to be gone.
const PATIENCE: Duration = Duration::from_millis(800);
/// The first pause before a further try; each one after it is twice as long, up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// What a worker reads at a time, in bytes.
const BUFFER: usize = 128 << 10;

/// Runs a pass to its end.
pub fn run(config: Config, report: Report, progress: Progress) -> Status {
    let begun = Instant::now();
    let archive = match Archive::open(&config.base_dir, config.fsync) {
        Ok(archive) => archive,
        Err(e) => {
            error!("{e}");
            return Status::LocalFailure;
        }
    };
    let nodes = config
        .nodes
        .iter()
        .map(|node| connect(node, &config))
        .collect();
    let policy = Policy {
        retries: config.retries,
        backoff: Box::new(backoff),
        lands_on_disk: !config.dry_run,
    };
    let scheduler = Scheduler::new(config.nodes.len(), config.collections.len(), policy);
    let pass = Arc::new(Pass {
        throttle: config.limit_rate.map(Throttle::new),
        known: Mutex::new(vec![false; config.collections.len()]),
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
    if !pass.config.hours.is_empty() {
        start_workers(&pass);
        pass.wait();
    }
    pass.archive.close(PATIENCE);
    pass.warn_of_unknown_collections();
    let any_answered = pass.config.hours.is_empty() || pass.scheduler().any_answered();
    pass.report
        .finish(any_answered, &pass.stop, begun.elapsed())
}

fn connect(node: &NodeConfig, config: &Config) -> Box<dyn Node> {
    match &node.place {
        NodePlace::Http(url) => Box::new(HttpNode::new(url.clone(), config.timeout, config.jobs)),
        NodePlace::Directory(dir) => Box::new(DirectoryNode::new(dir.clone())),
    }
}

/// The pause before the n-th further try: twice as long each time, and a half less or more by
/// chance, so that machines which failed together don't come back together.
fn backoff(n: u32) -> Duration {
    let full = FIRST_BACKOFF
        .saturating_mul(1 << (n - 1).min(16))
        .min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.5))
}

/// The first signal ends the pass in order, a second one at once.
fn watch_signals(pass: &Arc<Pass>) {
    let mut signals = match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(signals) => signals,
        Err(e) => return warn!("signals can't be caught, and will leave staged files: {e}"),
    };
    let pass = pass.clone();
    thread::spawn(move || {
        for signal in &mut signals {
            if pass.stop.is_stopped() {
                std::process::exit(Status::Signal(signal).code().into());
            }
            pass.end(Cause::Signal(signal));
        }
    });
}

/// Starts the workers. Nobody joins them: the pass ends when its work is done, even if a worker
/// still waits for a node that was given up.
fn start_workers(pass: &Arc<Pass>) {
    for id in 0..pass.nodes.len() {
        for _ in 0..pass.config.jobs {
            let worker = pass.clone();
            let thread = thread::Builder::new().name(pass.config.nodes[id].name.clone());
            if let Err(e) = thread.spawn(move || worker.work(id)) {
                error!("starting a thread: {e} (fewer --jobs need fewer)");
                pass.end(Cause::LocalFailure);
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
    /// Which collections some node knows.
    known: Mutex<Vec<bool>>,
}

impl Pass {
    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    fn place(&self, unit: Unit) -> Place<'_> {
        Place {
            collection: &self.config.collections[unit.collection],
            hour: unit.hour(),
        }
    }

    /// The life of a worker of one node.
    fn work(&self, id: NodeId) {
        let mut buffer = vec![0; BUFFER];
        while let Some(task) = self.next_task(id) {
            let begun = Instant::now();
            match &task {
                Task::List(List::Hours(collection)) => self.list_hours(id, *collection, begun),
                Task::List(List::Segments(unit)) => self.list_segments(id, *unit, begun),
                Task::Fetch(unit, name) => self.fetch(id, *unit, name, &mut buffer, begun),
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
                Next::Do(task) => return Some(task),
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
        // Told with the lock held, so that the pass doesn't end before they are.
        scheduler
            .take_verdicts()
            .iter()
            .for_each(|verdict| self.tell_verdict(verdict));
        if scheduler.take_changed() {
            self.changed.notify_all();
        }
    }

    fn tell_verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::NodeGivenUp(node, why) => {
                self.tell(Event::NodeGivenUp { node: *node, why });
                self.nodes[*node].shut_down();
            }
            Verdict::ListingFailed(node, list, why) => {
                let (collection, hour) = match list {
                    List::Hours(collection) => (*collection, None),
                    List::Segments(unit) => (unit.collection, Some(unit.hour())),
                };
                let collection = &self.config.collections[collection];
                self.tell(Event::ListingFailed {
                    node: *node,
                    collection,
                    hour,
                    why,
                });
            }
            Verdict::SegmentFailed(unit, name, node, why) => {
                let place = self.place(*unit);
                self.tell(Event::SegmentFailed {
                    node: *node,
                    place,
                    name,
                    why,
                });
            }
            Verdict::SegmentVanished(unit, name) => {
                let place = self.place(*unit);
                self.tell(Event::SegmentVanished { place, name });
            }
        }
    }

    fn failed(&self, id: NodeId, task: Task, error: &NodeError, begun: Instant) {
        // Shutting down makes every request fail.
        if self.stop.is_stopped() {
            return;
        }
        let what = match &task {
            Task::List(List::Hours(collection)) => {
                format!(
                    "listing the hours of {}",
                    self.config.collections[*collection]
                )
            }
            Task::List(List::Segments(unit)) => format!("listing {}", self.place(*unit)),
            Task::Fetch(unit, name) => format!("fetching {}/{name}", self.place(*unit)),
        };
        let why = error.to_string();
        self.tell(Event::TryFailed {
            node: id,
            what: &what,
            why: &why,
        });
        self.settle(|scheduler| scheduler.failed(id, &task, error, begun, Instant::now()));
    }

    fn list_hours(&self, id: NodeId, index: usize, begun: Instant) {
        let collection = &self.config.collections[index];
        let (mut count, mut selected) = (0, Vec::new());
        let listed = self.nodes[id].list_hours(collection).and_then(|listing| {
            listing.for_each(|name| match name.map(str::parse::<Hour>) {
                Some(Ok(hour)) => {
                    count += 1;
                    if self.config.hours.contains(hour) {
                        selected.push(hour);
                    }
                }
                _ if name.is_some_and(|name| name.starts_with('.')) => {}
                _ => self.tell(Event::NoHour {
                    node: id,
                    collection,
                    name,
                }),
            })
        });
        if let Err(e) = listed {
            return self.failed(id, Task::List(List::Hours(index)), &e, begun);
        }
        if count > 0 {
            self.known.lock().unwrap_or_else(PoisonError::into_inner)[index] = true;
        }
        let chosen = selected.len();
        self.tell(Event::HoursListed {
            node: id,
            collection,
            hours: count,
            selected: chosen,
        });
        let now = Instant::now();
        self.settle(|scheduler| scheduler.hours_listed(id, index, selected, now));
    }

    fn list_segments(&self, id: NodeId, unit: Unit, begun: Instant) {
        let place = self.place(unit);
        let listing = match self.nodes[id].list_segments(place.collection, place.hour) {
            Ok(listing) => listing,
            Err(e) => return self.failed(id, Task::List(List::Segments(unit)), &e, begun),
        };
        match self.plan(id, place, &listing) {
            Err(FetchError::Node(e)) => {
                self.failed(id, Task::List(List::Segments(unit)), &e, begun);
            }
            Err(FetchError::Local(error)) => {
                self.tell(Event::LocalFailed { error: &error });
                self.end_unless(error.is_of_one_place());
                self.settle(|scheduler| {
                    scheduler.segments_listed(id, unit, Vec::new(), Instant::now());
                });
            }
            Err(FetchError::Stopped) => {}
            Ok(wanted) => {
                let now = Instant::now();
                self.settle(|scheduler| {
                    let new = scheduler.segments_listed(id, unit, wanted, now);
                    self.progress.want(new as u64);
                });
            }
        }
    }

    /// What of a listing is to be fetched. The local directory is read after the node's answer is
    /// here, so that what other writers brought meanwhile is seen.
    fn plan(
        &self,
        id: NodeId,
        place: Place<'_>,
        listing: &Listing,
    ) -> Result<Vec<SegmentName>, FetchError> {
        let Place { collection, hour } = place;
        let files = self.archive.hour(collection, hour)?;
        let medium = collection.variant.medium();
        let mut planner = Planner::new(hour, medium, &files, Utc::now(), self.config.recent_cutoff);
        let (mut names, mut here) = (0, 0);
        let skipped = |name: Option<&str>, why: Skip| {
            self.tell(Event::Skipped {
                node: id,
                place,
                name,
                why,
            });
        };
        listing.for_each(|name| {
            names += 1;
            match name {
                None => skipped(None, Skip::NOT_UNICODE),
                Some(text) => match planner.listed(text) {
                    Some(Skip::Here) => here += 1,
                    Some(why) => skipped(name, why),
                    None => {}
                },
            }
        })?;
        let wanted = planner.wanted(self.config.order, |name, why| skipped(Some(name), why));
        self.tell(Event::Listed {
            node: id,
            place,
            names,
            here,
            wanted: wanted.len(),
        });
        Ok(wanted)
    }

    fn fetch(&self, id: NodeId, unit: Unit, name: &SegmentName, buffer: &mut [u8], begun: Instant) {
        let place = self.place(unit);
        if self.config.dry_run {
            self.tell(Event::WouldFetch { place, name });
            return self.settle(|s| s.segment_done(id, unit, name, Instant::now()));
        }
        let fetcher = Fetcher {
            archive: &self.archive,
            throttle: self.throttle.as_ref(),
            max_size: self.config.max_segment_size,
            progress: &self.progress,
            stop: &self.stop,
        };
        let node = &*self.nodes[id];
        match fetcher.fetch(node, place.collection, place.hour, name, buffer) {
            Ok(Fetched::Landed(bytes)) => {
                let took = begun.elapsed();
                self.tell(Event::Landed {
                    node: id,
                    place,
                    name,
                    bytes,
                    took,
                });
            }
            Ok(Fetched::WasHere) => self.tell(Event::WasHere { place, name }),
            Err(FetchError::Node(e)) => {
                return self.failed(id, Task::Fetch(unit, name.clone()), &e, begun);
            }
            Err(FetchError::Local(error)) => {
                self.tell(Event::LocalFailed { error: &error });
                self.end_unless(error.is_of_one_place());
            }
            Err(FetchError::Stopped) => return,
        }
        self.settle(|scheduler| scheduler.segment_done(id, unit, name, Instant::now()));
    }

    fn end_unless(&self, can_go_on: bool) {
        if !can_go_on {
            self.end(Cause::LocalFailure);
        }
    }

    fn warn_of_unknown_collections(&self) {
        if self.stop.is_stopped() || self.config.hours.is_empty() {
            return;
        }
        if !self.scheduler().any_answered() {
            return debug!("no node answered, so nothing is known of what there is");
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (collection, known) in self.config.collections.iter().zip(known.iter()) {
            if !known {
                warn!("no node that answered knows {collection}: is its name right?");
            }
        }
    }
}

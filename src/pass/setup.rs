//! Sets up a pass: its archive and nodes, the scheduler's policy, buffer sizes and the limit on open
//! files.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use log::{debug, error};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Pass;
use super::crew::Crew;
use super::deleted::Landed;
use super::here::Here;
use super::readers::Readers;
use crate::archive::Archive;
use crate::clock;
use crate::compare::Comparison;
use crate::config::{Config, NodeConfig, NodePlace};
use crate::node::Node;
use crate::node::directory::DirectoryNode;
use crate::node::http::{HttpNode, HttpSettings};
use crate::partials::Partials;
use crate::progress::Progress;
use crate::report::{Event, Figures, Left, Report, Stats, Status};
use crate::schedule::{Policy, Scheduler};
use crate::stop::{Cause, Stop};
use crate::throttle::Throttle;

/// The pause before the first retry. It doubles with each retry, up to [`LAST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// The most that a worker reads at a time, in bytes: enough to need few system calls.
const BUFFER: u64 = 128 << 10;
/// The same for all workers together, so that hundreds of them don't fill the memory. Each has two
/// buffers of that size, one for its connection and one for its file; that of the connection also
/// has room for the head of a response.
const ALL_BUFFERS: u64 = 4 << 20;
/// A rate limit shrinks the buffer, but not below this, for the sake of system calls.
const MIN_BUFFER: u64 = 8 << 10;
/// The scheduler's window: how many files may be open at a time. Nearly nine hours of 1,800 segments
/// are enough for every node to find something to do, and few enough to bound the memory.
const MAX_FILES: usize = 16_000;
/// The most concurrent listings over all nodes, except that each node may have one. Each may hold a
/// quarter of a mebibyte of its answer, so with the most nodes, 64, they take 16 MiB.
const MAX_LISTINGS: usize = 32;

/// How many listings are looked through at the same time. Each takes up to a megabyte, and more at
/// the same time would not be faster: nothing of it waits for a node.
const MAX_READERS: usize = 4;

impl Pass {
    /// Opens the archive, and creates what else a pass needs.
    ///
    /// # Errors
    ///
    /// If this fails, the pass is over, with this status. It still gets its JSON summary and its
    /// metrics, unless the command line was wrong.
    pub(super) fn set_up(
        config: Config,
        report: Report,
        progress: Progress,
    ) -> Result<Arc<Pass>, Status> {
        let (begun, now) = (Instant::now() + config.pause, clock::now());
        let nothing = || Figures::none(now, begun.elapsed());
        if !report.can_print() {
            let left = Left { cause: Some(Cause::LocalFailure), ..Left::default() };
            return Err(report.finish(left, nothing(), &Stop::default()));
        }
        let nodes = config.nodes.iter().map(|node| connect(node, &config));
        let nodes = nodes.collect::<Result<Vec<_>, String>>().map_err(|why| {
            progress.finish();
            error!("{why}");
            Status::Usage
        })?;
        let archive = Archive::open(&config.base_dir, config.fsync && !config.dry_run);
        let archive = archive.map_err(|error| {
            let stop = Stop::default();
            report.emit(Event::LocalFailed { error: &error }, &stop);
            let left = Left { cause: stop.cause(), failed_here: true, ..Left::default() };
            report.finish(left, nothing(), &stop)
        })?;
        raise_file_limit();
        // Leaked, because workers that still wait for a node outlive the pass. A process runs one
        // pass only.
        let archive = Box::leak(Box::new(archive.keep_free(config.min_free)));
        let pass = Pass::new(config, nodes, archive, report, progress, begun);
        if pass.config.pause.is_zero() {
            pass.started.get_or_init(|| now);
        }
        Ok(Arc::new(pass))
    }

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
}

/// Creates the client of a node. It connects with its first request.
///
/// # Errors
///
/// Fails if a proxy variable in the environment is invalid.
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

/// How many bytes a worker reads at a time. With a rate limit this is little enough for each worker
/// to have its turn several times a second. Otherwise nodes might consider it dead.
pub fn read_size(config: &Config, node: &NodeConfig) -> usize {
    let workers: usize = config.nodes.iter().map(|node| config.jobs_of(node)).sum();
    let share = |rate: Option<u64>, workers: usize| {
        rate.map_or(u64::MAX, |rate| rate / (4 * workers.max(1) as u64))
    };
    let of_node = share(node.settings.limit_rate, config.jobs_of(node));
    let share = share(config.limit_rate, workers).min(of_node);
    share.min(ALL_BUFFERS / workers.max(1) as u64).clamp(MIN_BUFFER, BUFFER) as usize
}

/// The scheduler's policy, from the configuration.
pub fn policy(config: &Config) -> Policy {
    let jobs: Vec<usize> = config.nodes.iter().map(|node| config.jobs_of(node)).collect();
    Policy {
        retries: config.retries,
        backoff: Box::new(backoff),
        jobs: Box::new(move |id| jobs[id]),
        listings: (MAX_LISTINGS / config.nodes.len().max(1)).max(1),
        timeout: config.timeout,
        max_files: MAX_FILES,
        lands_on_disk: !config.dry_run,
        hedges: config.limit_rate.is_none()
            && config.nodes.iter().all(|node| node.settings.limit_rate.is_none()),
    }
}

/// The pause before the n-th retry. It is random within 50% of the nominal pause, so that machines
/// which failed at the same time do not return at the same time.
pub fn backoff(n: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(16)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.5))
}

/// Raises the limit on open files to the maximum for this user. A pass with many nodes needs more
/// files and connections than the usual limit.
fn raise_file_limit() {
    let files = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(files).and_then(|(_, most)| setrlimit(files, most, most));
    if let Err(e) = raised {
        debug!("cannot raise the limit on open files: {e}");
    }
}

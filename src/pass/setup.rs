//! Sets up a pass: its nodes, the scheduler's policy, buffer sizes and the limit on open files.

use std::time::Duration;

use log::debug;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, NodeConfig, NodePlace};
use crate::node::Node;
use crate::node::directory::DirectoryNode;
use crate::node::http::{HttpNode, HttpSettings};
use crate::schedule::Policy;

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

/// Creates the client of a node. It connects with its first request.
///
/// # Errors
///
/// Fails if a proxy variable in the environment is invalid.
pub fn connect(node: &NodeConfig, config: &Config) -> Result<Box<dyn Node>, String> {
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
pub fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        debug!("cannot raise the limit on open files: {e}");
    }
}

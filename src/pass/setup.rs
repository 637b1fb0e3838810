//! What a pass is set up with: its nodes, its pauses, and the files that it may open.

use std::time::Duration;

use log::debug;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, NodeConfig, NodePlace};
use crate::node::Node;
use crate::node::directory::DirectoryNode;
use crate::node::http::{HttpNode, HttpSettings};
use crate::schedule::Policy;

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

/// How much a worker reads at a time, in bytes: with a limit on the rate so little that each of them
/// has its turn several times a second, and no node thinks that it has gone.
pub fn read_size(config: &Config, node: &NodeConfig) -> usize {
    let workers: usize = config.nodes.iter().map(|node| config.jobs_of(node)).sum();
    let share = |rate: Option<u64>, workers: usize| {
        rate.map_or(u64::MAX, |rate| rate / (4 * workers.max(1) as u64))
    };
    let of_node = share(node.settings.limit_rate, config.jobs_of(node));
    let share = share(config.limit_rate, workers).min(of_node);
    share.clamp(MIN_BUFFER, BUFFER) as usize
}

/// How the scheduler is to run the pass.
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

/// The pause before the n-th further try: twice as long each time, and a half less or more by
/// chance, so that machines which failed together don't come back together.
pub fn backoff(n: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(16)).min(LAST_BACKOFF);
    full.mul_f64(rand::random_range(0.5..1.5))
}

/// As many files and connections at a time as this user may have: a pass with many nodes needs more
/// than the usual limit.
pub fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        debug!("the limit of open files can't be raised: {e}");
    }
}

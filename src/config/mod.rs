//! The checked configuration: nodes, collections, hours and settings. Nothing past this point sees
//! the raw command line.

mod files;
mod hours;
mod list;
mod nodes;
mod secrets;
mod selection;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};

use crate::archive::MinFree;
use crate::cli::{Args, OrderArg};
use crate::error::plain;
use crate::extra::ExtraDir;
use crate::hour::{Hour, HourSelection};
use crate::plan::Order;
use crate::report::{Output, Paths};

use hours::{first_kept, retention_bound};
use list::ensure_one_reader;
use nodes::{read_nodes, select_nodes};
use selection::Selection;

pub use files::{FileList, split};
#[cfg(test)]
pub use nodes::parse_node;
pub use nodes::{NodeConfig, NodePlace};
pub use selection::Collections;

/// How many workers a pass may have, for all nodes together. Each is a thread with its own buffers.
const MAX_THREADS: usize = 512;

/// Everything that a pass needs to know.
#[derive(Debug)]
pub struct Config {
    /// The archive to fill.
    pub base_dir: PathBuf,
    /// The nodes to fetch from, with unique names; empty for `none`.
    pub nodes: Vec<NodeConfig>,
    /// What to fetch.
    pub collections: Collections,
    /// The exact files to fetch, if `--files-from` is given.
    pub files: Option<FileList>,
    /// The hours to fetch.
    pub hours: HourSelection,
    /// The HOUR arguments as typed.
    pub hours_typed: String,
    /// The extra directories to fill, too.
    pub extras: Vec<ExtraDir>,
    /// Whether to verify the selected segments that are here.
    pub verify: bool,
    /// Hours that ended longer ago than this are deleted after the pass.
    pub delete_older_than: Option<Duration>,
    /// The first hour that is too young for that, by the clock at the start. No earlier one is
    /// selected.
    pub first_kept: Option<Hour>,
    /// Concurrent requests per node.
    pub jobs: usize,
    /// Whether to only show what would be fetched.
    pub dry_run: bool,
    /// The order in which to fetch segments.
    pub order: Order,
    /// Segments younger than this are left to the downloader.
    pub recent_cutoff: Duration,
    /// How long a node may stay silent.
    pub timeout: Duration,
    /// How often to retry a request.
    pub retries: u32,
    /// How long to wait before the pass, drawn from what `--jitter` allows.
    pub pause: Duration,
    /// The time limit of the pass, which begins after the pause.
    pub max_duration: Option<Duration>,
    /// How often to print a line of progress.
    pub stats: Option<Duration>,
    /// The limit for all nodes together, in bytes per second.
    pub limit_rate: Option<u64>,
    /// The largest segment, in bytes.
    pub max_segment_size: u64,
    /// Whether to lock the archive, and give way to a pass that has it locked.
    pub lock: bool,
    /// Whether to flush files to disk.
    pub fsync: bool,
    /// How much space to keep free on the archive's disk.
    pub min_free: Option<MinFree>,
    /// What to print on standard output.
    pub output: Output,
    /// Whether to compare what each node has.
    pub compare: bool,
    /// Whether remaining holes are a failure.
    pub fail_on_holes: bool,
    /// The file to write metrics to.
    pub metrics_file: Option<PathBuf>,
    /// The file to write the HTML report to.
    pub report: Option<PathBuf>,
}

impl Config {
    /// How many concurrent requests a node gets.
    pub fn jobs_of(&self, node: &NodeConfig) -> usize {
        node.settings.jobs.unwrap_or(self.jobs)
    }

    /// Hours before this one are deleted now. The clock may have been set since the start, as it is
    /// on a machine that learns the time only after it has booted, so what counts is the earlier of
    /// the two bounds.
    pub fn delete_before(&self, now: DateTime<Utc>) -> Option<Hour> {
        let (age, at_the_start) = self.delete_older_than.zip(self.first_kept)?;
        Some(first_kept(age, now).min(at_the_start))
    }

    /// Whether to measure the coverage.
    pub fn measures(&self) -> bool {
        let shown = match self.output {
            Output::Json => true,
            Output::Text { map, .. } => map,
        };
        shown || self.fail_on_holes || self.metrics_file.is_some() || self.report.is_some()
    }

    /// Checks the arguments. Reads files and standard input where an argument says so.
    ///
    /// # Errors
    ///
    /// Fails if an argument is invalid; the error says which one, and why.
    pub fn new(args: &Args, now: DateTime<Utc>, pause: Duration) -> Result<Config> {
        // Lists on standard input can be read only once, so hours are resolved before the pause, for
        // the time at which the pass will begin.
        let now = now + pause;
        ensure_one_reader(lists(args))?;
        let nodes = nodes(args)?;
        let Selection { collections, hours, extras, files } = Selection::read(args, now)?;
        let bound = |age| retention_bound(age, &hours, now);
        Ok(Config {
            base_dir: args.base_dir.clone(),
            nodes,
            delete_older_than: args.delete_older_than,
            first_kept: args.delete_older_than.map(bound).transpose()?,
            collections,
            files,
            hours,
            hours_typed: hours_typed(args),
            extras,
            verify: args.verify,
            jobs: args.jobs.into(),
            dry_run: args.dry_run,
            order: match args.order {
                OrderArg::Random => Order::Random,
                OrderArg::Forward => Order::Forward,
                OrderArg::Reverse => Order::Reverse,
            },
            recent_cutoff: args.recent_cutoff,
            timeout: args.timeout,
            retries: args.retries.into(),
            pause,
            max_duration: args.max_duration,
            stats: args.stats,
            limit_rate: args.limit_rate,
            max_segment_size: args.max_segment_size,
            lock: args.lock,
            fsync: !args.no_fsync,
            min_free: args.min_free,
            output: output(args),
            // With a list of files, whole hours are not listed, so there is nothing to compare.
            compare: args.compare || args.report.is_some() && args.files_from.is_none(),
            fail_on_holes: args.fail_on_holes,
            metrics_file: args.metrics_file.clone(),
            report: args.report.clone(),
        })
    }
}

/// The arguments that are lists, each with its name in messages.
fn lists(args: &Args) -> impl Iterator<Item = (&'static str, &str)> {
    args.nodes
        .iter()
        .map(|list| ("NODE", list))
        .chain(args.streams.iter().map(|list| ("STREAM", list)))
        .chain(args.variants.iter().map(|list| ("VARIANT", list)))
        .chain(args.hours.iter().map(|list| ("HOUR", list)))
        .chain(args.files_from.iter().map(|file| ("--files-from", file)))
        .map(|(name, list)| (name, list.as_str()))
}

/// The nodes to use. None of them is the archive itself.
fn nodes(args: &Args) -> Result<Vec<NodeConfig>> {
    let localhost = args.localhost.clone().unwrap_or_else(host_name);
    let nodes = read_nodes(args.nodes.as_deref().unwrap_or_default())?;
    let nodes = select_nodes(nodes, &localhost)?;
    check_threads(&nodes, args.jobs.into())?;
    let base = &args.base_dir;
    ensure_directory(base)?;
    if let Some(itself) = nodes.iter().find(|node| is_same_directory(node, base)) {
        bail!("NODE: {} is the archive to fill itself (choose another with -d)", itself.name);
    }
    Ok(nodes)
}

/// The HOUR arguments, as reports name them.
fn hours_typed(args: &Args) -> String {
    match (&args.files_from, args.hours.is_empty()) {
        (Some(_), _) => "files-from".into(),
        (None, true) => "all".into(),
        (None, false) => args.hours.join(","),
    }
}

/// What to print on standard output.
fn output(args: &Args) -> Output {
    if args.json {
        return Output::Json;
    }
    // A dry run prints the paths unless something else is asked for.
    let prints = args.print || args.dry_run && !args.coverage && !args.compare;
    let paths = match (args.print0, prints) {
        (true, _) => Some(Paths::NulTerminated),
        (false, true) => Some(Paths::Lines),
        (false, false) => None,
    };
    Output::Text { paths, map: args.coverage, table: args.compare }
}

/// Checks the number of threads: each concurrent request has its own.
fn check_threads(nodes: &[NodeConfig], jobs: usize) -> Result<()> {
    let own: Vec<usize> = nodes.iter().filter_map(|node| node.settings.jobs).collect();
    let others = nodes.len() - own.len();
    let own: usize = own.into_iter().sum();
    let threads = others * jobs + own;
    if threads <= MAX_THREADS {
        return Ok(());
    }
    let most = MAX_THREADS.saturating_sub(own) / others.max(1);
    match (own, most) {
        (_, 0) => {
            bail!("the jobs= settings of the nodes add up to more than {MAX_THREADS} threads")
        }
        (0, _) => bail!(
            "--jobs: {jobs} for each of {others} nodes makes {threads} threads, more than \
             {MAX_THREADS}: use --jobs {most} or less, or fewer nodes"
        ),
        _ => bail!(
            "--jobs: {jobs} for each of {others} nodes, and the nodes with their own jobs=, make \
             {threads} threads, more than {MAX_THREADS}: use --jobs {most} or less, or fewer nodes"
        ),
    }
}

fn host_name() -> String {
    let system = nix::sys::utsname::uname();
    system.map_or_else(|_| String::new(), |it| it.nodename().to_string_lossy().into_owned())
}

fn is_same_directory(node: &NodeConfig, base: &Path) -> bool {
    let NodePlace::Directory(dir) = &node.place else {
        return false;
    };
    matches!((fs::canonicalize(dir), fs::canonicalize(base)), (Ok(a), Ok(b)) if a == b)
}

/// Checks that the archive is a directory. Whatever else may be wrong with it is not a usage error.
fn ensure_directory(base: &Path) -> Result<()> {
    let error = match fs::metadata(base) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => io::Error::from(io::ErrorKind::NotADirectory),
        Err(e) => e,
    };
    match error.kind() {
        io::ErrorKind::NotFound => bail!(
            "--base-dir {}: {} (is its disk mounted? for a new archive, create an empty directory)",
            base.display(),
            plain(&error)
        ),
        io::ErrorKind::NotADirectory => bail!("--base-dir {}: {}", base.display(), plain(&error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn hours_are_those_of_the_time_at_which_the_pass_begins() {
        let typed =
            ["backfiller", "-d/", "--delete-older-than=2h", "none", "a", "source", "last:1"];
        let args = Args::try_parse_from(typed).unwrap();
        let now = "2018-11-10T05:59:59Z".parse().unwrap();
        for (pause, hour, first_kept) in
            [(0, "2018-11-10T05", "2018-11-10T03"), (5, "2018-11-10T06", "2018-11-10T04")]
        {
            let config = Config::new(&args, now, Duration::from_secs(pause)).unwrap();
            assert_eq!(config.hours.first(), Some(hour.parse().unwrap()));
            assert_eq!(config.first_kept, Some(first_kept.parse().unwrap()));
        }
    }

    #[test]
    fn a_clock_set_during_the_pass_deletes_nothing_too_young() {
        let typed =
            ["backfiller", "-d/", "--delete-older-than=2h", "none", "a", "source", "last:1"];
        let args = Args::try_parse_from(typed).unwrap();
        let at = |hour: &str| format!("{hour}:59:59Z").parse().unwrap();
        let config = Config::new(&args, at("2018-11-10T05"), Duration::ZERO).unwrap();
        for (now, first_kept) in [
            ("2018-11-10T05", "2018-11-10T03"),
            ("2018-10-10T05", "2018-10-10T03"),
            ("2018-11-10T06", "2018-11-10T03"),
            ("2028-11-10T06", "2018-11-10T03"),
        ] {
            assert_eq!(config.delete_before(at(now)), Some(first_kept.parse().unwrap()), "{now}");
        }
    }

    #[test]
    fn the_total_number_of_threads_is_bounded() {
        for (nodes, jobs, fits) in
            [(0, 256, true), (1, 256, true), (2, 256, true), (3, 256, false), (64, 9, false)]
        {
            assert_eq!(
                check_threads(&some_nodes(nodes, None), jobs).is_ok(),
                fits,
                "{nodes} {jobs}"
            );
        }
        let said = |nodes: &[NodeConfig], jobs| check_threads(nodes, jobs).unwrap_err().to_string();
        let five = said(&some_nodes(5, None), 256);
        assert!(five.contains("makes 1280 threads") && five.contains("use --jobs 102"), "{five}");
        let mut mixed = some_nodes(2, Some(206));
        mixed.extend(some_nodes(4, None));
        let mixed = said(&mixed, 100);
        assert!(mixed.contains("make 812 threads") && mixed.contains("use --jobs 25"), "{mixed}");
        let own = said(&some_nodes(3, Some(256)), 1);
        assert!(own.contains("the jobs= settings of the nodes add up to more than 512"), "{own}");
    }

    fn some_nodes(count: usize, jobs: Option<usize>) -> Vec<NodeConfig> {
        let node = |n| {
            let mut node = nodes::parse_node(&format!("http://n{n}")).unwrap();
            node.settings.jobs = jobs;
            node
        };
        (0..count).map(node).collect()
    }
}

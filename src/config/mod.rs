//! The checked configuration: nodes, collections, hours and settings. Nothing past this point sees
//! the raw command line.

mod files;
mod hours;
mod list;
mod nodes;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use chrono::{DateTime, Utc};

use crate::archive::MinFree;
use crate::cli::{Args, OrderArg};
use crate::error::plain;
use crate::extra::ExtraDir;
use crate::hour::{Hour, HourSelection, parse_hours};
use crate::plan::Order;
use crate::report::{Output, Paths};
use crate::segment::{Collection, Stream, Variant};
use crate::target::{Place, Target};

use hours::{first_kept, read_hours, retention_bound};
use list::{ensure_one_reader, entries, read_list};
use nodes::{read_nodes, select_nodes};

pub use files::{FileList, split};
#[cfg(test)]
pub use nodes::parse_node;
pub use nodes::{NodeConfig, NodePlace};

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

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collections {
    /// These collections, each once. Empty only if `--files-from` lists extra files alone.
    Given(Vec<Collection>),
    /// All existing collections of these streams and variants; `None` stands for `all`.
    Found { streams: Option<Vec<Stream>>, variants: Option<Vec<Variant>> },
}

impl Collections {
    /// Whether a collection is selected, provided that it exists.
    fn has(&self, collection: &Collection) -> bool {
        match self {
            Collections::Given(collections) => collections.contains(collection),
            Collections::Found { streams, variants } => {
                let is_stream = streams.as_ref().is_none_or(|s| s.contains(&collection.stream));
                is_stream && variants.as_ref().is_none_or(|v| v.contains(&collection.variant))
            }
        }
    }
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
        let given = |argument: &Option<String>| argument.clone().unwrap_or_default();
        let (nodes, streams, variants) =
            (given(&args.nodes), given(&args.streams), given(&args.variants));
        let lists = [("NODE", &*nodes), ("STREAM", &*streams), ("VARIANT", &*variants)];
        let hours = args.hours.iter().map(|list| ("HOUR", &**list));
        let files = args.files_from.iter().map(|file| ("--files-from", &**file));
        ensure_one_reader(lists.into_iter().chain(hours).chain(files))?;
        let localhost = args.localhost.clone().unwrap_or_else(host_name);
        let nodes = select_nodes(read_nodes(&nodes)?, &localhost)?;
        check_threads(&nodes, args.jobs.into())?;
        let base = &args.base_dir;
        ensure_directory(base)?;
        if let Some(itself) = nodes.iter().find(|node| is_same_directory(node, base)) {
            bail!("NODE: {} is the archive to fill itself (choose another with -d)", itself.name);
        }
        // A dry run prints the paths unless something else is asked for.
        let paths =
            match (args.print0, args.print || args.dry_run && !args.coverage && !args.compare) {
                (true, _) => Some(Paths::NulTerminated),
                (false, true) => Some(Paths::Lines),
                (false, false) => None,
            };
        let output = if args.json {
            Output::Json
        } else {
            Output::Text { paths, map: args.coverage, table: args.compare }
        };
        let mut hours = read_hours(&args.hours, now)?;
        let mut collections = parse_collections(
            args.streams.as_deref().unwrap_or("all"),
            args.variants.as_deref().unwrap_or("all"),
            now,
        )?;
        let extras = parse_extras(&args.extras, &collections)?;
        let mut files = None;
        if let Some(file) = &args.files_from {
            let is_meant = |target: &Target| {
                let is_selected = |place: &Place| {
                    collections.has(&place.collection) && hours.contains(place.hour)
                };
                target.place().is_none_or(is_selected)
            };
            let list = FileList::read(file, args.from0, &extras, is_meant)?;
            collections = Collections::Given(list.collections());
            let listed = list.hours().into_iter().map(|hour| hour..=hour);
            hours = HourSelection::union(listed.collect());
            files = Some(list);
        }
        Ok(Config {
            base_dir: base.clone(),
            nodes,
            extras,
            files,
            verify: args.verify,
            delete_older_than: args.delete_older_than,
            first_kept: match args.delete_older_than {
                Some(age) => Some(retention_bound(age, &hours, now)?),
                None => None,
            },
            collections,
            hours,
            hours_typed: match (&args.files_from, args.hours.is_empty()) {
                (Some(_), _) => "files-from".into(),
                (None, true) => "all".into(),
                (None, false) => args.hours.join(","),
            },
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
            output,
            // With a list of files, whole hours are not listed, so there is nothing to compare.
            compare: args.compare || args.report.is_some() && args.files_from.is_none(),
            fail_on_holes: args.fail_on_holes,
            metrics_file: args.metrics_file.clone(),
            report: args.report.clone(),
        })
    }
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
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
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

fn parse_collections(streams: &str, variants: &str, now: DateTime<Utc>) -> Result<Collections> {
    let streams = names::<Stream>("STREAM", streams)?;
    let variants = names::<Variant>("VARIANT", variants)?;
    // No node has such a variant, so the pass would be complete.
    let is_hour = |variant: &&Variant| parse_hours(variant.as_str(), now).is_ok();
    if let Some(hour) = variants.iter().flatten().find(is_hour) {
        let hour = shown(hour.as_str());
        bail!("VARIANT: {hour} is an HOUR; before it, give the variant, or all for every variant");
    }
    let (streams, variants) = match (streams, variants) {
        (Some(streams), Some(variants)) => (streams, variants),
        (streams, variants) => return Ok(Collections::Found { streams, variants }),
    };
    let mut collections = Vec::new();
    for stream in &streams {
        for variant in &variants {
            let collection = Collection { stream: stream.clone(), variant: variant.clone() };
            if !collections.contains(&collection) {
                collections.push(collection);
            }
        }
    }
    Ok(Collections::Given(collections))
}

/// The names in a list, or `None` for `all`. A trailing slash, which shells add when they complete
/// paths, is ignored.
fn names<T: FromStr<Err: Display>>(argument: &'static str, list: &str) -> Result<Option<Vec<T>>> {
    let items = read_list(argument, list)?;
    if items.iter().any(|item| item.text == "all") {
        return Ok(None);
    }
    let names = items.iter().map(|item| {
        let name = item.text.trim_end_matches('/');
        let wrong = |why| anyhow!("{}: the name {} {why}", item.place(argument), shown(&item.text));
        name.parse().map_err(wrong)
    });
    names.collect::<Result<_>>().map(Some)
}

fn parse_extras(lists: &[String], collections: &Collections) -> Result<Vec<ExtraDir>> {
    let mut names = Vec::new();
    for list in lists {
        names.extend(entries("--extras", list)?.map(|name| name.trim_end_matches('/')));
    }
    let mut dirs = Vec::new();
    for name in names {
        let dir = name.parse::<ExtraDir>();
        let dir = dir.map_err(|why| anyhow!("--extras: the name {name:?} {why}"))?;
        // Fetching a stream as extra files would bypass the stricter checks for segments.
        let is_dir = |stream: &Stream| stream.as_str() == dir.as_str();
        let is_stream = match collections {
            Collections::Given(collections) => collections.iter().any(|c| is_dir(&c.stream)),
            Collections::Found { streams, .. } => streams.iter().flatten().any(is_dir),
        };
        ensure!(
            !is_stream,
            "--extras: {name:?} is a selected STREAM, whose segments are fetched anyway"
        );
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

/// Whether a text may contain a password: it is a URL, or part of one.
fn is_secretive(text: &str) -> bool {
    let rest = text.split_once("://").map(|(_, rest)| rest);
    // If a comma or slash in a password cuts the URL short, the rest looks like a port that is not
    // a number.
    let authority =
        rest.and_then(|rest| rest.split(['/', '?', '#', ' ']).next()).unwrap_or_default();
    let port = match authority.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => port,
        _ => "",
    };
    text.contains('@') || port.len() > 5 || port.bytes().any(|b| !b.is_ascii_digit())
}

/// A text as typed, for messages, without anything that may be a password.
fn shown(text: &str) -> String {
    match (is_secretive(text), text.split_once("://")) {
        (false, _) => format!("{text:?}"),
        (true, Some((scheme, _))) => format!("\"{scheme}://...\""),
        (true, None) => match text.rsplit_once('@') {
            Some((_, host)) => format!("\"...@{host}\""),
            None => "the given text".into(),
        },
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

    fn parse(streams: &str, variants: &str) -> Result<Vec<String>> {
        let pairs = match parse_collections(streams, variants, DateTime::UNIX_EPOCH)? {
            Collections::Given(pairs) => pairs,
            found @ Collections::Found { .. } => panic!("{found:?}"),
        };
        Ok(pairs.iter().map(Collection::to_string).collect())
    }

    #[test]
    fn collections_are_all_pairs_without_duplicates() {
        let pairs = parse("a,b", "source,chat,source").unwrap();
        assert_eq!(pairs, ["a/source", "a/chat", "b/source", "b/chat"]);
        assert_eq!(parse("a , b/", "source/").unwrap(), ["a/source", "b/source"]);
        assert!(parse("a,", "source").is_err());
        assert!(parse("a", "../x").is_err());
        assert!(parse("a", "/").is_err());
        let streams = Some(vec!["a".parse().unwrap()]);
        let all_variants = Collections::Found { streams, variants: None };
        assert_eq!(parse_collections("a", "all", DateTime::UNIX_EPOCH).unwrap(), all_variants);
    }

    #[test]
    fn extra_directories_may_end_with_a_slash() {
        let none = Collections::Given(Vec::new());
        let dirs = parse_extras(&["emotes/, emotes".into(), "media".into()], &none).unwrap();
        assert_eq!(dirs.iter().map(ExtraDir::as_str).collect::<Vec<_>>(), ["emotes", "media"]);
        for (list, said) in [
            (" emotes", r#"--extras: " emotes" begins with a blank (remove it)"#),
            ("emotes, media ", r#"--extras: " media " ends with a blank (remove it)"#),
            ("emotes,", "--extras: the list has an empty entry"),
            ("/", r#"--extras: the name "" is empty"#),
        ] {
            assert_eq!(parse_extras(&[list.into()], &none).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn a_port_is_shown_but_a_possible_password_is_not() {
        for text in ["http://h:1337/x", "ftp://h:21", "h:80", "http://[::1]:80/", "http://[::1]"] {
            assert_eq!(shown(text), format!("{text:?}"));
        }
        for text in ["http://me:secret", "http://me:se/cret@h", "me:secret@h", "http://me:123456"] {
            let said = shown(text);
            assert!(
                !said.contains("se") && !said.contains("me") && !said.contains("123"),
                "{said}"
            );
        }
    }
}

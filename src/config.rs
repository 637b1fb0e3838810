//! What was meant by the command line: checked nodes, collections, hours and settings. Past this
//! point nothing sees what was typed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use log::{info, warn};

use crate::archive::MinFree;
use crate::bounded::{MAX_LIST, read_text};
use crate::cli::{Args, OrderArg};
use crate::error::plain;
use crate::extra::ExtraDir;
use crate::hour::{Hour, HourSelection, parse_hours};
use crate::node::url::NodeUrl;
use crate::plan::Order;
use crate::report::{Output, Paths};
use crate::schedule::MAX_NODES;
use crate::segment::{Collection, Stream, Variant, is_unprintable};

/// How many nodes may be given: some may be this machine, or the same by another place.
const MAX_GIVEN: usize = 4 * MAX_NODES;

/// All that a pass needs to know.
#[derive(Debug)]
pub struct Config {
    /// The archive to fill.
    pub base_dir: PathBuf,
    /// Where to fetch from; never empty, no name twice.
    pub nodes: Vec<NodeConfig>,
    /// What to fetch; never empty, nothing twice.
    pub collections: Vec<Collection>,
    /// Of which hours.
    pub hours: HourSelection,
    /// The same as it was typed.
    pub hours_typed: String,
    /// The extra directories to fill too.
    pub extras: Vec<ExtraDir>,
    /// Whether the selected segments that are here are checked, too.
    pub verify: bool,
    /// The hours before this one are deleted after the pass; none of them is selected.
    pub delete_before: Option<Hour>,
    /// Requests at a time to one node.
    pub jobs: usize,
    /// Whether nothing is fetched.
    pub dry_run: bool,
    /// In which order segments are fetched.
    pub order: Order,
    /// How young a segment is left to the downloader.
    pub recent_cutoff: Duration,
    /// The longest silence of a node.
    pub timeout: Duration,
    /// Further tries of a request.
    pub retries: u32,
    /// Bytes per second.
    pub limit_rate: Option<u64>,
    /// The largest segment, in bytes.
    pub max_segment_size: u64,
    /// Whether to give way to another pass that locks the archive.
    pub lock: bool,
    /// Whether what lands is flushed to disk.
    pub fsync: bool,
    /// How much is to stay free on the archive's disk.
    pub min_free: Option<MinFree>,
    /// What is printed on standard output.
    pub output: Output,
    /// Whether it's a failure if holes remain.
    pub fail_on_holes: bool,
    /// Where metrics are written.
    pub metrics_file: Option<PathBuf>,
}

/// A node, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// What it is called in messages.
    pub name: String,
    /// Where it is.
    pub place: NodePlace,
    /// Whether the tombstones that it lists count.
    pub tombstones: bool,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePlace {
    /// Behind HTTP or HTTPS.
    Http(NodeUrl),
    /// In a directory.
    Directory(PathBuf),
}

impl Config {
    /// Whether it's to be found out what is covered.
    pub fn measures(&self) -> bool {
        let shown = match self.output {
            Output::Json => true,
            Output::Text { map, .. } => map,
        };
        shown || self.fail_on_holes || self.metrics_file.is_some()
    }

    /// Checks what was typed. Files and standard input are read where an argument names them; the
    /// errors say which argument is wrong, and how.
    pub fn new(args: &Args, now: DateTime<Utc>) -> Result<Config> {
        let given = |argument: &Option<String>| argument.clone().unwrap_or_default();
        let (nodes, streams, variants) =
            (given(&args.nodes), given(&args.streams), given(&args.variants));
        let from_stdin = |list: &str| list.split(',').filter(|item| *item == "@-").count();
        let hours_from_stdin =
            args.hours.iter().flat_map(|list| list.split(',')).filter(|h| *h == "-");
        if from_stdin(&nodes) + hours_from_stdin.count() > 1 {
            bail!("standard input can be read only once: for the nodes (@-) or for the hours (-)");
        }
        let localhost = args.localhost.clone().unwrap_or_else(host_name);
        let nodes = select_nodes(read_nodes(&nodes)?, &localhost)?;
        let base = &args.base_dir;
        if let Some(itself) = nodes.iter().find(|node| is_same_directory(node, base)) {
            bail!("NODE: {} is the archive to fill itself (-d names another)", itself.name);
        }
        // A dry run prints the paths unless something else is asked for.
        let paths = match (args.print0, args.print || args.dry_run && !args.coverage) {
            (true, _) => Some(Paths::NulTerminated),
            (false, true) => Some(Paths::Lines),
            (false, false) => None,
        };
        let output = match args.json {
            true => Output::Json,
            false => Output::Text { paths, map: args.coverage },
        };
        let collections = parse_collections(&streams, &variants)?;
        let hours = read_hours(&args.hours, now)?;
        Ok(Config {
            base_dir: base.clone(),
            nodes,
            extras: parse_extras(&args.extras, &collections)?,
            verify: args.verify,
            delete_before: match args.delete_older_than {
                Some(age) => Some(retention_bound(age, &hours, now)?),
                None => None,
            },
            collections,
            hours,
            hours_typed: match args.hours.is_empty() {
                true => "all".into(),
                false => args.hours.join(","),
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
            limit_rate: args.limit_rate,
            max_segment_size: args.max_segment_size,
            lock: args.lock,
            fsync: !args.no_fsync,
            min_free: args.min_free,
            output,
            fail_on_holes: args.fail_on_holes,
            metrics_file: args.metrics_file.clone(),
        })
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

fn parse_collections(streams: &str, variants: &str) -> Result<Vec<Collection>> {
    let mut collections = Vec::new();
    for stream in streams.split(',') {
        let name = stream.parse::<Stream>();
        let name = name.map_err(|why| anyhow!("STREAM: the name {} {why}", shown(stream)))?;
        for variant in variants.split(',') {
            let variant = variant
                .parse::<Variant>()
                .map_err(|why| anyhow!("VARIANT: the name {} {why}", shown(variant)))?;
            let collection = Collection { stream: name.clone(), variant };
            if !collections.contains(&collection) {
                collections.push(collection);
            }
        }
    }
    Ok(collections)
}

fn parse_extras(list: &[String], collections: &[Collection]) -> Result<Vec<ExtraDir>> {
    let mut dirs = Vec::new();
    for name in list {
        let dir = name.parse::<ExtraDir>();
        let dir = dir.map_err(|why| anyhow!("--extras: the name {name:?} {why}"))?;
        // Segments are checked more strictly than extra files can be.
        let is_stream = |collection: &Collection| collection.stream.as_str() == dir.as_str();
        ensure!(
            !collections.iter().any(is_stream),
            "--extras: {name:?} is STREAM, which is fetched anyway"
        );
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

/// The first hour that is too young to be deleted. To fetch what is deleted right after would go
/// on for ever.
fn retention_bound(age: Duration, hours: &HourSelection, now: DateTime<Utc>) -> Result<Hour> {
    let age = TimeDelta::from_std(age).ok();
    let bound = age.and_then(|age| now.checked_sub_signed(age));
    let bound = bound.map_or(Hour::MIN, Hour::containing);
    if let Some(first) = hours.first().filter(|first| *first < bound) {
        let first = match first == Hour::MIN {
            true => "all hours".into(),
            false => first.to_string(),
        };
        bail!(
            "--delete-older-than deletes the hours before {bound}, but HOUR selects {first}: \
             select from {bound}.. on, or last:N"
        );
    }
    Ok(bound)
}

fn read_hours(arguments: &[String], now: DateTime<Utc>) -> Result<HourSelection> {
    if arguments.is_empty() {
        return Ok(HourSelection::all());
    }
    let mut ranges = Vec::new();
    let mut add = |text: &str| match parse_hours(text, now) {
        Ok(range) => {
            ranges.push(range);
            Ok(())
        }
        Err(why) => Err(anyhow!("HOUR: {} {why}", shown(text))),
    };
    for text in arguments.iter().flat_map(|list| list.split(',')) {
        if text != "-" {
            add(text)?;
            continue;
        }
        let mut count = 0;
        let text = read_text(io::stdin(), MAX_LIST);
        let text = text.map_err(|e| unread("HOUR", "standard input", &e))?;
        for (number, line) in text.lines().enumerate() {
            let place = || format!("standard input, line {}", number + 1);
            let form = line.trim();
            if !form.is_empty() && !form.starts_with('#') {
                add(form).with_context(place)?;
                count += 1;
            }
        }
        // Whatever was to name them has failed, as likely as not.
        ensure!(count > 0, "HOUR: standard input has no hours in it");
    }
    Ok(HourSelection::union(ranges))
}

fn read_nodes(list: &str) -> Result<Vec<NodeConfig>> {
    let mut nodes = Vec::new();
    for item in list.split(',') {
        match item.strip_prefix('@') {
            Some(file) => read_node_file(file, &mut nodes)?,
            None => nodes.push(parse_node(item).context("NODE")?),
        }
        ensure!(nodes.len() <= MAX_GIVEN, "NODE: more than {MAX_GIVEN} nodes");
    }
    Ok(nodes)
}

/// That an argument names something to read which can't be read.
fn unread(argument: &str, what: &str, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        io::ErrorKind::InvalidData => "it is no text in UTF-8".into(),
        _ => plain(error),
    };
    anyhow!("{argument}: reading {what}: {why}")
}

/// What a line of a list ends with if the tombstones of its node don't count.
const NO_TOMBSTONES: &str = "no-tombstones";

/// Reads a list of nodes, one a line: `[NAME] URL [no-tombstones]`.
fn read_node_file(file: &str, nodes: &mut Vec<NodeConfig>) -> Result<()> {
    let (name, text) = match file {
        "-" => ("standard input".to_owned(), read_text(io::stdin(), MAX_LIST)),
        file => (format!("{file:?}"), File::open(file).and_then(|file| read_text(file, MAX_LIST))),
    };
    let (text, file) = (text.map_err(|e| unread("NODE", &name, &e))?, name);
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        let is_comment = |word: &&str| word.starts_with('#');
        let mut words: Vec<&str> =
            line.split_whitespace().take_while(|word| !is_comment(word)).collect();
        if words.is_empty() {
            continue;
        }
        let tombstones = words.len() == 1 || words.pop_if(|w| *w == NO_TOMBSTONES).is_none();
        let parse = || match words[..] {
            [url] => parse_node(url),
            [name, url] => named_node(name, url),
            _ => bail!("expected a URL, or a name and a URL"),
        };
        let node = parse().with_context(|| format!("NODE: {file}, line {}", number + 1))?;
        nodes.push(NodeConfig { tombstones, ..node });
        count += 1;
        ensure!(nodes.len() <= MAX_GIVEN, "NODE: more than {MAX_GIVEN} nodes");
    }
    ensure!(count > 0, "NODE: {file} has no nodes in it");
    Ok(())
}

/// Reads `URL`, `DIRECTORY`, or either with `NAME=` before it.
pub fn parse_node(text: &str) -> Result<NodeConfig> {
    if let Some((name, place)) = text.split_once('=')
        && !name.contains(['/', ':'])
    {
        return named_node(name, place);
    }
    let place = parse_place(text)?;
    let name = match &place {
        NodePlace::Http(url) => url.host().to_owned(),
        NodePlace::Directory(dir) => dir.display().to_string(),
    };
    Ok(NodeConfig { name, place, tombstones: true })
}

fn named_node(name: &str, place: &str) -> Result<NodeConfig> {
    ensure!(!name.is_empty(), "the name before = is empty");
    ensure!(!name.contains(is_unprintable), "the name {name:?} contains an unprintable character");
    let place = parse_place(place)?;
    Ok(NodeConfig { name: name.to_owned(), place, tombstones: true })
}

fn parse_place(text: &str) -> Result<NodePlace> {
    let is_directory = |t: &str| ["/", "./", "../"].iter().any(|start| t.starts_with(start));
    ensure!(!text.contains('\0'), "{} contains a NUL", shown(text));
    if (is_directory(text) && !text.starts_with("//")) || text == "." || text == ".." {
        return Ok(NodePlace::Directory(text.into()));
    }
    if !text.contains("://") {
        ensure!(!text.is_empty(), "a node is missing: the list has an empty place");
        let meant = match is_secretive(text) || text.starts_with('/') {
            true => String::new(),
            false => format!(": did you mean {}, or ./{text}?", suggested_url(text)),
        };
        bail!("{} is neither a URL nor a directory{meant}", shown(text));
    }
    NodeUrl::parse(text).map(NodePlace::Http).map_err(|why| anyhow!("{} {why}", shown(text)))
}

/// Whether a text may have a password in it, being a URL or a part of one.
fn is_secretive(text: &str) -> bool {
    text.contains('@') || text.split_once("://").is_some_and(|(_, rest)| rest.contains(':'))
}

/// What was typed, for a message, without what may be a password.
fn shown(text: &str) -> String {
    match (is_secretive(text), text.split_once("://")) {
        (false, _) => format!("{text:?}"),
        (true, Some((scheme, _))) => format!("\"{scheme}://...\""),
        (true, None) => match text.rsplit_once('@') {
            Some((_, host)) => format!("\"...@{host}\""),
            None => "what was given".into(),
        },
    }
}

/// 1337 is the port that nodes serve on unless they are told otherwise.
fn suggested_url(word: &str) -> String {
    let (host, path) = word.split_at(word.find('/').unwrap_or(word.len()));
    match host.contains(':') {
        true => format!("http://{word}"),
        false => format!("http://{host}:1337{path}"),
    }
}

/// Leaves out this machine, and of nodes with one name all but the last.
fn select_nodes(given: Vec<NodeConfig>, localhost: &str) -> Result<Vec<NodeConfig>> {
    let mut nodes: Vec<NodeConfig> = Vec::new();
    for node in given {
        if node.name.eq_ignore_ascii_case(localhost) {
            info!("node {} is this machine: skipped", node.name);
            continue;
        }
        match nodes.iter_mut().find(|known| known.name == node.name) {
            Some(known) if *known != node => {
                let name = &node.name;
                warn!(
                    "node {name} is given twice: the last one counts (NAME=URL tells them apart)"
                );
                *known = node;
            }
            Some(_) => {}
            None => nodes.push(node),
        }
    }
    ensure!(
        !nodes.is_empty(),
        "NODE: every node is this machine ({localhost}; --localhost names another), so there is \
         nobody to fetch from"
    );
    ensure!(nodes.len() <= MAX_NODES, "NODE: more than {MAX_NODES} nodes");
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        read_nodes(list).unwrap().into_iter().map(|node| node.name).collect()
    }

    fn wrong(list: &str) -> String {
        format!("{:#}", read_nodes(list).expect_err(list))
    }

    #[test]
    fn a_node_is_named_by_its_host_unless_it_is_given_a_name() {
        assert_eq!(names("http://toodles:1337,https://a.example/x"), ["toodles", "a.example"]);
        assert_eq!(names("a=http://127.0.0.1:1,b=/mnt/disk"), ["a", "b"]);
        assert_eq!(names("/mnt/disk,./copy,.,.."), ["/mnt/disk", "./copy", ".", ".."]);
        assert_eq!(names("http://a/b=c"), ["a"]);
    }

    #[test]
    fn what_is_no_node_is_an_error_that_helps() {
        assert!(wrong("toodles").contains("did you mean http://toodles:1337, or ./toodles?"));
        assert!(wrong("toodles/a").contains("did you mean http://toodles:1337/a, or ./toodles/a?"));
        assert!(wrong("toodles:80").contains("did you mean http://toodles:80, "));
        assert!(wrong("").contains("missing"));
        assert!(wrong("http://a,").contains("missing"));
        assert!(wrong("=http://a").contains("empty"));
        assert!(wrong("ftp://a").contains("\"ftp://a\" is not an http or https URL"));
        assert!(wrong("@/does/not/exist").contains("/does/not/exist"));
        let said = wrong("ftp://me:secret@a");
        assert!(!said.contains("secret"), "{said}");
        for list in [
            "http://me:se,cret@h",
            "me:secret@h:1337",
            "//me:secret@h",
            "http://me:secret",
            "a=ftp://me:secret@h",
        ] {
            let said = wrong(list);
            assert!(
                !said.contains("se,") && !said.contains("secret") && !said.contains("me:"),
                "{said}"
            );
        }
    }

    #[test]
    fn of_two_nodes_with_one_name_the_last_counts_and_this_machine_is_skipped() {
        let given = read_nodes("http://a:1,http://b,http://a:2,here=http://c").unwrap();
        let nodes = select_nodes(given, "here").unwrap();
        let shown: Vec<String> = nodes
            .iter()
            .map(|node| match &node.place {
                NodePlace::Http(url) => format!("{} {url}", node.name),
                NodePlace::Directory(_) => unreachable!(),
            })
            .collect();
        assert_eq!(shown, ["a http://a:2", "b http://b"]);
        let only_here = read_nodes("here=http://c").unwrap();
        assert!(select_nodes(only_here, "here").is_err());
    }

    #[test]
    fn collections_are_all_pairs_once() {
        let pairs = parse_collections("a,b", "source,chat,source").unwrap();
        let pairs: Vec<String> = pairs.iter().map(Collection::to_string).collect();
        assert_eq!(pairs, ["a/source", "a/chat", "b/source", "b/chat"]);
        assert!(parse_collections("a,", "source").is_err());
        assert!(parse_collections("a", "../x").is_err());
    }
}

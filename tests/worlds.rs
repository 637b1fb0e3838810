//! The promise as a whole: random passes against random nodes. They list different parts of a
//! stream, by two clocks, with tombstones, and with faults of all kinds; some are slow, so that others
//! take over what they send, and say wrongly that they can send parts; some of it is here already,
//! and some of that is corrupt. `BACKFILLER_WORLDS` sets how many are tried (32).

mod node;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::time::Duration;

use node::{Fault, Node, On, Ranges, hash_of, segment_name};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use support::{Archive, HOUR, Outcome, each_case, number_from_env};

const HOURS: [&str; 2] = [HOUR, "2018-11-10T06"];
const HOUR_MICROS: i64 = 3_600_000_000;

/// A recording with its names, by one or two clocks.
#[derive(Debug)]
struct Recording {
    content: Vec<u8>,
    /// Paths below the stream and variant.
    paths: Vec<String>,
}

struct World {
    recordings: Vec<Recording>,
    nodes: Vec<Node>,
    archive: Archive,
    /// The files here before the pass.
    before: BTreeMap<String, Vec<u8>>,
    /// What some node lists.
    listed: BTreeSet<String>,
    /// No node has a fault.
    is_calm: bool,
}

#[test]
fn a_pass_keeps_its_promise_in_any_world() {
    let only = std::env::var("BACKFILLER_WORLD").ok().map(|seed| seed.parse().unwrap());
    let count = number_from_env("BACKFILLER_WORLDS", 32) as u64;
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    each_case(seeds, |seed| {
        let kept = catch_unwind(|| {
            let random = &mut SmallRng::seed_from_u64(seed);
            World::new(random).try_out(random);
        });
        assert!(kept.is_ok(), "to repeat this alone: BACKFILLER_WORLD={seed}");
    });
}

fn path(path: &str) -> String {
    format!("desertbus/source/{path}")
}

fn tombstone(path: &str) -> String {
    path.replace(".ts", ".tombstone")
}

/// Whether a file has the content that its name promises.
fn is_good(path: &str, content: &[u8]) -> bool {
    path.ends_with(&format!("-{}.ts", hash_of(content)))
}

impl Recording {
    fn new(sizes: &[usize], random: &mut SmallRng) -> Recording {
        let size = sizes[random.random_range(0..sizes.len())];
        let mut content = vec![0; size];
        random.fill(&mut content[..]);
        let ends = [0, HOUR_MICROS - 500, HOUR_MICROS, 2 * HOUR_MICROS - 1];
        let start = if random.random_bool(0.1) {
            ends[random.random_range(0..4)]
        } else {
            random.random_range(0..2 * HOUR_MICROS)
        };
        let kind = ["full", "full", "full", "suspect", "partial"][random.random_range(0..5)];
        let mut starts = BTreeSet::from([start]);
        if random.random_bool(0.4) {
            starts.insert(start + random.random_range(-1000..=1000));
        }
        let paths = starts.into_iter().filter(|start| (0..2 * HOUR_MICROS).contains(start));
        let paths = paths.map(|start| {
            let (hour, micros) = (start / HOUR_MICROS, start % HOUR_MICROS);
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let stem = format!("{:02}:{:02}.{micros:06}-2.0-{kind}", seconds / 60, seconds % 60);
            format!("{}/{}", HOURS[hour as usize], segment_name(&stem, &content))
        });
        Recording { paths: paths.collect(), content }
    }
}

impl World {
    fn new(random: &mut SmallRng) -> World {
        let is_uneven = random.random_bool(0.25);
        let count = random.random_range(if is_uneven { 4..10 } else { 1..40 });
        let sizes = if is_uneven { &[200_000][..] } else { &[8, 1000, 20_000, 200_000] };
        let recordings: Vec<Recording> =
            (0..count).map(|_| Recording::new(sizes, random)).collect();
        let nodes = 1..=random.random_range(if is_uneven { 2..=4 } else { 1..=4 });
        let nodes: Vec<Node> = nodes.map(|n| Node::start_at(&format!("127.0.0.{n}"))).collect();
        let (archive, is_calm) = (Archive::new(), random.random_bool(0.4));
        nodes.iter().for_each(|node| node.treat_ranges(ranges(is_calm, random)));
        if is_uneven {
            nodes[1..].iter().for_each(|node| node.limit_rate(150_000));
        }
        // The quick one takes over what the others send, after some that it alone has.
        let share = |node| match (is_uneven, node) {
            (false, _) => 0.6,
            (true, 0) => 1.0,
            (true, _) => 0.4,
        };
        // What is corrupt for good would hide all other reasons for a status of 3.
        let (deleted, corrupt) = ([0.02, 0.1][random.random_range(0..2)], random.random_bool(0.5));
        if random.random_bool(0.3) {
            // By the time that it lists its tombstones, others have sent what they cover.
            nodes[0].fault(On::Listing, Fault::Delay(Duration::from_millis(100)));
        }
        let mut listed = BTreeSet::new();
        for Recording { content, paths } in &recordings {
            for file in paths {
                let (hour, name) = file.split_once('/').unwrap();
                for (n, node) in nodes.iter().enumerate() {
                    if random.random_bool(share(n)) {
                        node.add_named("desertbus", "source", hour, name, content);
                        listed.insert(file.clone());
                    }
                    if random.random_bool(deleted) {
                        node.add_tombstone("desertbus", "source", hour, &tombstone(name));
                    }
                }
                match random.random_range(0..30) {
                    0..4 => archive.write(&path(file), content),
                    4..9 if corrupt => archive.write(&path(file), b"corrupt"),
                    9 => archive.write(&path(&tombstone(file)), b""),
                    _ => {}
                }
            }
        }
        if !is_calm && random.random_bool(0.5) {
            one_trouble(&nodes, &listed, random);
        } else if !is_calm {
            nodes.iter().for_each(|node| trouble(node, &listed, random));
        }
        let before = archive.files();
        World { recordings, nodes, archive, before, listed, is_calm }
    }

    /// Runs a pass, and another one once the nodes have no more faults.
    fn try_out(&self, random: &mut SmallRng) {
        let nodes: Vec<String> = self.nodes.iter().map(Node::url).collect();
        let (nodes, timeout) = (nodes.join(","), if self.is_calm { "20s" } else { "500ms" });
        let jobs = ["1", "2", "8"][random.random_range(0..3)];
        let mut args = vec![&*nodes, "desertbus", "source", "--json", "--timeout", timeout];
        args.extend(["--max-segment-size", "1M"]);
        args.extend(["--jobs", jobs, "--retries", ["0", "3"][random.random_range(0..2)]]);
        let verifies = random.random_bool(0.7);
        args.extend(verifies.then_some("--verify"));
        let is_dry = random.random_bool(0.15);
        args.extend(is_dry.then_some("--dry-run"));
        let outcome = self.archive.backfill(args).run();
        let status = outcome.code().unwrap();
        assert_eq!(outcome.summary()["status"], status, "{outcome:#?}");
        assert!([0, 3, 4].contains(&status), "{outcome:#?}");
        let after = self.archive.files();
        if is_dry {
            assert_eq!(after, self.before);
            return;
        }
        self.check_files(&after, &outcome);
        if status == 0 || self.is_calm {
            self.check_completeness(&after, verifies, &outcome);
        }
        // A segment with a tombstone is not checked.
        let is_corrupt = |(path, content): &(&String, &Vec<u8>)| {
            path.ends_with(".ts") && !is_good(path, content)
        };
        let mut corrupt = after.iter().filter(is_corrupt);
        if status == 0 {
            let are_deleted = corrupt.all(|(path, _)| self.is_deleted(path, &after));
            assert!(!verifies || are_deleted, "{outcome:#?}");
        } else if self.is_calm {
            assert!(verifies && corrupt.next().is_some(), "{outcome:#?}");
        }
        if verifies && self.is_calm {
            self.check_repairs(&after, &outcome);
        }
        for node in &self.nodes {
            node.clear_faults();
            node.treat_ranges(Ranges::Honour);
        }
        let outcome = self.archive.backfill([&*nodes, "desertbus", "source", "--json"]).run();
        outcome.assert_code(0);
        self.check_completeness(&self.archive.files(), false, &outcome);
    }

    /// Whether there is a tombstone of this recording here.
    fn is_deleted(&self, of: &str, after: &BTreeMap<String, Vec<u8>>) -> bool {
        let is_meant = |recording: &&Recording| recording.paths.iter().any(|file| path(file) == of);
        let recording = self.recordings.iter().find(is_meant);
        recording.is_some_and(|recording| {
            recording.paths.iter().any(|file| after.contains_key(&path(&tombstone(file))))
        })
    }

    /// Checks that each change is one that a pass may make.
    fn check_files(&self, after: &BTreeMap<String, Vec<u8>>, outcome: &Outcome) {
        for path in self.before.keys() {
            assert!(after.contains_key(path), "{path} is gone: {outcome:#?}");
        }
        let is_changed =
            |(path, content): &(&String, &Vec<u8>)| self.before.get(*path) != Some(content);
        let changed: BTreeMap<_, _> = after.iter().filter(is_changed).collect();
        for (path, content) in &changed {
            let is_tombstone = path.ends_with(".tombstone") && content.is_empty();
            assert!(is_tombstone || is_good(path, content), "{path}: {outcome:#?}");
            assert!(
                !self.before.get(*path).is_some_and(|before| is_good(path, before)),
                "{path} was good: {outcome:#?}"
            );
        }
        let segments = changed.keys().filter(|path| path.ends_with(".ts")).count();
        // What turned out to be deleted on purpose was removed again.
        let count = |what: &str| outcome.summary()[what].as_u64().unwrap();
        assert_eq!(count("files") - count("removed"), segments as u64, "{outcome:#?}");
        for recording in &self.recordings {
            let paths = || recording.paths.iter().map(|file| path(file));
            let added: Vec<String> = paths().filter(|path| changed.contains_key(path)).collect();
            if added.is_empty() {
                continue;
            }
            assert!(recording.paths.iter().any(|path| self.listed.contains(path)));
            let new = added.iter().filter(|path| !self.before.contains_key(*path)).count();
            let here = paths()
                .any(|path| self.before.get(&path).is_some_and(|content| is_good(&path, content)));
            assert!(new + usize::from(here) <= 1, "{added:?} is here twice: {outcome:#?}");
            let is_deleted = self.is_deleted(&added[0], after);
            assert!(new == 0 || !is_deleted, "{added:?} was deleted: {outcome:#?}");
        }
    }

    /// Checks that each corrupt segment was repaired, if a node lists its recording by any name.
    fn check_repairs(&self, after: &BTreeMap<String, Vec<u8>>, outcome: &Outcome) {
        for Recording { paths, .. } in &self.recordings {
            let here: Vec<String> = paths
                .iter()
                .map(|file| path(file))
                .filter(|p| self.before.contains_key(p))
                .collect();
            // Another name of it that is here may be intact, and then only its own name repairs it.
            let [only] = &here[..] else {
                continue;
            };
            let is_repaired = is_good(only, &after[only]);
            let is_listed = paths.iter().any(|file| self.listed.contains(file));
            assert!(
                is_repaired || !is_listed || self.is_deleted(only, after),
                "{only} is still corrupt: {outcome:#?}"
            );
        }
    }

    /// Checks that everything is here that any node lists, and that was not deleted on purpose.
    fn check_completeness(
        &self,
        after: &BTreeMap<String, Vec<u8>>,
        verified: bool,
        outcome: &Outcome,
    ) {
        for Recording { paths, .. } in &self.recordings {
            if self.is_deleted(&path(&paths[0]), after)
                || !paths.iter().any(|path| self.listed.contains(path))
            {
                continue;
            }
            let is_here = |file: &String| {
                let path = path(file);
                after.get(&path).is_some_and(|content| !verified || is_good(&path, content))
            };
            assert!(paths.iter().any(is_here), "{paths:?} is missing: {outcome:#?}");
        }
    }
}

/// Makes one thing go wrong, on which alone the status depends: a node is dead, or no node sends a
/// certain file.
fn one_trouble(nodes: &[Node], listed: &BTreeSet<String>, random: &mut SmallRng) {
    match (random.random_range(0..5), listed.iter().next()) {
        (0, _) | (_, None) => nodes[0].fault(On::Any, Fault::Reset),
        (1 | 2, _) => nodes[0].fault(On::Any, Fault::Hang),
        (n, Some(file)) => {
            let (resource, status) = (format!("/segments/{}", path(file)), [404, 500][n - 3]);
            nodes.iter().for_each(|node| node.fault_path(&resource, Fault::Status(status)));
        }
    }
}

/// Gives a node faults in some of its responses, for some time or for good. Half of the troubled
/// nodes have only one kind of fault, so that the status of some passes depends on that alone.
fn trouble(node: &Node, listed: &BTreeSet<String>, random: &mut SmallRng) {
    if random.random_bool(0.05) {
        return node.fault(On::Any, Fault::Reset);
    }
    let share = [0.0, 0.05, 0.4][random.random_range(0..3)];
    let lasting = [0.1, 0.9][random.random_range(0..2)];
    let only = random.random_bool(0.5).then(|| fault(random));
    let segments = listed.iter().map(|file| format!("/segments/{}", path(file)));
    let listings = HOURS.iter().map(|hour| format!("/files/{}", path(hour)));
    for resource in segments.chain(listings) {
        if random.random_bool(share) {
            let fault = only.clone().unwrap_or_else(|| fault(random));
            // A pass tolerates a busy node for a minute.
            let is_busy = matches!(fault, Fault::StatusWithHeader(503, ..));
            if !is_busy && random.random_bool(lasting) {
                node.fault_path(&resource, fault);
            } else {
                node.fault_path_times(&resource, fault, random.random_range(1..=3));
            }
        }
    }
}

/// How a node responds to a request for a part. That of a node without faults takes no time.
fn ranges(is_calm: bool, random: &mut SmallRng) -> Ranges {
    match random.random_range(0..if is_calm { 14 } else { 16 }) {
        0 => Ranges::Ignore,
        1 => Ranges::Refuse,
        2 => Ranges::Mistake,
        3 | 4 => Ranges::Lie,
        5 => Ranges::Fail([403, 404, 500][random.random_range(0..3)]),
        14 => Ranges::Hang,
        15 => Ranges::Fail(503),
        _ => Ranges::Honour,
    }
}

fn fault(random: &mut SmallRng) -> Fault {
    let bytes = random.random_range(0..30_000);
    let pause = Duration::from_millis(20);
    match random.random_range(0..25) {
        0 => Fault::CutOff(bytes),
        1 => Fault::CutOffChunked(bytes),
        2 => Fault::CutOffUnannounced(bytes),
        3 => Fault::Reset,
        4 => Fault::ResetInBody(bytes),
        5 => Fault::Corrupt,
        6 => Fault::Longer,
        7 | 20..24 => Fault::Status(404),
        8 => Fault::Status(500),
        9 => Fault::StatusWithHeader(503, "Retry-After", "0".into()),
        10 => Fault::Body(b"<html>sorry</html>".to_vec()),
        11 => Fault::HangInBody(bytes),
        12 => Fault::Hang,
        13 => Fault::Gzip,
        14 => Fault::Chunked,
        15 => Fault::Http10,
        16 => Fault::CloseAfter,
        17 => Fault::Trickle(bytes.max(2000), pause),
        18 => Fault::Delay(pause),
        24 => Fault::Excess,
        _ => Fault::Endless,
    }
}

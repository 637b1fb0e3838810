//! What README says about reports is true: its map is drawn as shown, its jq lines work, and its
//! tables have exactly the existing events, fields and metrics.

mod node;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use chrono::{NaiveDate, Utc};
use node::{Fault, Node, On, segment_name};
use serde_json::Value;
use support::terminal::Stdout;
use support::{Archive, HOUR, Outcome, Run, has_tool, node_with, wait_until};

type Names = BTreeSet<String>;

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The indented code blocks of README.
fn blocks(readme: &str) -> Vec<String> {
    let paragraphs = readme.split("\n\n").filter(|text| text.starts_with("    "));
    let block = |text: &str| text.lines().map(|line| line[4..].to_owned() + "\n").collect();
    paragraphs.map(block).collect()
}

/// The rows of the table with this heading, as cells.
fn table(readme: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, rest) = readme.split_once(&format!("\n| {heading} | ")).unwrap();
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|c| c.trim().into()).collect();
    rows.map(cells).collect()
}

/// The text between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn keys(value: &Value) -> Names {
    value.as_object().unwrap().keys().cloned().collect()
}

// ---- Links ------------------------------------------------------------------------------------

#[test]
fn every_link_has_a_target() {
    let readme = readme();
    let fenced = readme.split("\n```").step_by(2);
    let headings: Names = fenced
        .flat_map(str::lines)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
        })
        .collect();
    let after = |start: &str, end: char| -> Vec<String> {
        readme.split(start).skip(1).map(|rest| rest.split(end).next().unwrap().into()).collect()
    };
    let links = [after("](", ')'), after("src=\"", '"'), after("srcset=\"", '"')].concat();
    assert!(links.len() > 10, "{links:?}");
    for link in links.iter().filter(|link| !link.starts_with("https://")) {
        match link.strip_prefix('#') {
            Some(heading) => assert!(headings.contains(heading), "{link}: {headings:?}"),
            None => {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(), "{link}");
            }
        }
    }
}

// ---- The tasks --------------------------------------------------------------------------------

/// An archive with gaps, three nodes, and their list.
struct World {
    archive: Archive,
    nodes: [(&'static str, Node); 3],
    list: tempfile::NamedTempFile,
}

impl World {
    /// Two hours of segments of 2 s. The archive lacks seven minutes that the nodes have, and one
    /// of its segments is corrupt; no node has two and a half minutes; one node has half of all
    /// segments.
    fn new() -> World {
        let nodes = ["toodles", "gargamel", "snowball"].map(|name| (name, Node::start()));
        let archive = Archive::in_memory();
        let segments = (0..3600).step_by(2).map(|second| (HOUR, second));
        for (hour, second) in segments.chain((0..2460).step_by(2).map(|s| ("2018-11-10T06", s))) {
            let (minute, first) = (second / 60, hour == HOUR);
            if first && (2100..2250).contains(&second) {
                continue;
            }
            let stem = format!("{minute:02}:{:02}.0-2.0-full", second % 60);
            let content = format!("{hour}{stem}");
            let [toodles, gargamel, snowball] = &nodes;
            toodles.1.add("desertbus", "source", hour, &stem, content.as_bytes());
            gargamel.1.add("desertbus", "source", hour, &stem, content.as_bytes());
            if minute % 2 == 0 {
                snowball.1.add("desertbus", "source", hour, &stem, content.as_bytes());
            }
            if !(first && (12..19).contains(&minute)) {
                let path =
                    format!("desertbus/source/{hour}/{}", segment_name(&stem, content.as_bytes()));
                let corrupt = !first && second == 1200;
                archive.write(&path, if corrupt { b"rotten" } else { content.as_bytes() });
            }
        }
        let mut list = tempfile::NamedTempFile::new().unwrap();
        for (name, node) in &nodes {
            writeln!(list, "{name} {}", node.url()).unwrap();
        }
        World { archive, nodes, list }
    }

    /// Runs a command of README on a terminal. Returns the screen.
    fn run(&self, command: &str) -> Vec<String> {
        let (archive, list) = (self.archive.path().to_str().unwrap(), self.list.path());
        let command = command.replace("/srv/wubloader", archive);
        let command = command.replace("/etc/backfiller/nodes", list.to_str().unwrap());
        let command = command.replace("http://toodles.example:1337", &self.nodes[0].1.url());
        let run =
            Run::new(command.split(' ').skip(1)).env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
        run.on_terminal_with(250, Stdout::Terminal, |_| {}).screen
    }
}

/// A line without the parts that differ between runs: sizes, times, and how many nodes provided
/// files.
fn without_figures(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let varies = |n: usize| {
        let unit = words.get(n + 1).map_or("", |unit| unit.trim_end_matches([';', ')']));
        let number = words[n].trim_start_matches('(').parse::<f64>().is_ok();
        number && ["B", "KiB", "MiB", "GiB", "s", "node", "nodes"].contains(&unit)
    };
    let kept = (0..words.len()).filter(|&n| !varies(n) && (n == 0 || !varies(n - 1)));
    kept.map(|n| words[n]).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tasks_print_what_readme_shows() {
    let readme = readme();
    let blocks = readme.split("\n```console\n$ ").skip(1);
    let blocks: Vec<&str> = blocks.map(|text| text.split_once("\n```").unwrap().0).collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    for block in blocks {
        let (command, shown) = block.split_once('\n').unwrap();
        let seen = World::new().run(command);
        let seen: Vec<String> = seen.iter().map(|line| without_figures(line)).collect();
        let shown: Vec<String> = shown.lines().map(without_figures).collect();
        assert_eq!(seen, shown, "{command}");
    }
}

// ---- The map ----------------------------------------------------------------------------------

#[test]
fn the_map_in_readme_is_the_one_that_is_drawn() {
    let (archive, node) = (Archive::new(), Node::start());
    let later = "2018-11-10T06";
    let put = |hour: &str, stem: &str| {
        let name = segment_name(stem, stem.as_bytes());
        archive.write(&format!("desertbus/source/{hour}/{name}"), stem.as_bytes());
    };
    let minute = |n: u32, kind: &str| format!("{n:02}:00.0-60.0-{kind}");
    for n in 3..60 {
        match n {
            20..25 => {
                let stem = minute(n, "full");
                drop(node.add("desertbus", "source", HOUR, &stem, stem.as_bytes()));
            }
            35 | 36 => {}
            37 => put(HOUR, "37:30.0-30.0-full"),
            46 | 47 => {
                let name = segment_name(&minute(n, "full"), b"").replace(".ts", ".tombstone");
                archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"");
            }
            55 => put(HOUR, &minute(n, "suspect")),
            _ => put(HOUR, &minute(n, "full")),
        }
    }
    (0..41).for_each(|n| put(later, &minute(n, "full")));
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--coverage"]).run();
    outcome.assert_code(0);
    let map = blocks(&readme()).into_iter().find(|block| block.contains("2018-11-10T05  "));
    assert_eq!(map.as_deref(), Some(&*outcome.stdout), "{}", outcome.stdout);
}

// ---- JSON Lines and metrics -------------------------------------------------------------------

/// A pass in which nearly everything happens, and a complete one after it: their JSON Lines, and
/// the metrics file after each.
fn passes() -> (Outcome, Outcome, String) {
    let (node, other) = (Node::start(), Node::start());
    let archive = Archive::new();
    let add = |stem: &str| node.add("desertbus", "source", HOUR, stem, stem.as_bytes());
    add("00:00.0-2.0-full");
    // Gaps longer and shorter than ten seconds.
    let failing = [add("00:02.0-2.0-full"), add("00:06.0-20.0-full")];
    add("00:04.0-2.0-full");
    add("00:26.0-2.0-full");
    let path = |name: &str| format!("/segments/desertbus/source/{HOUR}/{name}");
    node.fault_path(&path(&failing[0]), Fault::Corrupt);
    node.fault_path(&path(&failing[1]), Fault::Status(500));
    let deleted = segment_name("00:30.0-2.0-full", b"").replace(".ts", ".tombstone");
    node.add_tombstone("desertbus", "source", HOUR, &deleted);
    node.list_also("desertbus", "source", HOUR, "junk");
    node.add_extra("emotes", "an/emote", b"an emote");
    other.fault(On::Extras, Fault::Status(404));
    // A node has tombstones for a segment that was here before, and for one that is fetched before
    // the tombstone is listed.
    let late = Node::start();
    let here = archive.put("00:32.0-2.0-full", b"here");
    let removed = other.add("desertbus", "source", HOUR, "00:34.0-2.0-full", b"removed");
    let fetched = archive.path().join("desertbus/source").join(HOUR).join(&removed);
    for name in [here, removed] {
        late.add_tombstone("desertbus", "source", HOUR, &name.replace(".ts", ".tombstone"));
    }
    let rotten = segment_name("00:28.0-2.0-full", b"right");
    archive.write(&format!("desertbus/source/{HOUR}/{rotten}"), b"wrong");
    let old = segment_name("00:00.0-2.0-full", b"old");
    archive.write(&format!("desertbus/source/2018-11-01T00/{old}"), b"old");
    let day = NaiveDate::from_ymd_opt(2018, 11, 9).unwrap();
    let age = format!("{}d", (Utc::now().date_naive() - day).num_days());

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backfiller.prom");
    let nodes = format!("a={},b={},c={}", node.url(), other.url(), late.url());
    let pass = || {
        let mut run = archive.backfill([&*nodes, "desertbus", "source", HOUR, "--json"]);
        run.command.args(["--verify", "--extras=emotes", "--retries=0"]);
        run.command.args(["--delete-older-than", &age]).arg("--metrics-file").arg(&file);
        run
    };
    let under_way = metrics_under_way(&file);
    let first = pass().run_with_late(&late, || wait_until(|| fetched.exists()));
    first.assert_code(3);
    let after_first = under_way + &fs::read_to_string(&file).unwrap();
    node.clear_faults();
    other.clear_faults();
    node.add_named("desertbus", "source", HOUR, &rotten, b"right");
    let second = pass().run();
    second.assert_code(0);
    // A pass without enough room, which therefore deletes nothing.
    node.add("desertbus", "source", HOUR, "40:00.0-2.0-full", b"too much");
    let mut run = archive.backfill([&*nodes, "desertbus", "source", HOUR, "--min-free=1000000G"]);
    run.command.args(["--delete-older-than", &age]).arg("--metrics-file").arg(&file);
    run.run().assert_code(1);
    // A pass that finds the lock taken.
    let held = fs::File::open(archive.path()).unwrap();
    held.lock().unwrap();
    let mut run = archive.backfill([&*nodes, "desertbus", "source", HOUR, "--lock"]);
    run.command.arg("--metrics-file").arg(&file);
    run.run().assert_code(75);
    (first, second, after_first + &fs::read_to_string(&file).unwrap())
}

/// The metrics file of a running pass, which then ends early.
fn metrics_under_way(file: &Path) -> String {
    let (node, _) = node_with(1);
    node.fault(On::Segment, Fault::Hang);
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "--stats=20ms", "--timeout=20s"];
    let mut run = archive.backfill(args);
    run.command.arg("--metrics-file").arg(file);
    let running = run.start();
    let written = || fs::read_to_string(file).unwrap_or_default();
    wait_until(|| written().contains("\nbackfiller_pass_"));
    let text = written();
    running.signal("TERM");
    running.outcome().assert_code(143);
    let _ = fs::remove_file(file);
    text
}

fn values(outcome: &Outcome) -> Vec<Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_tables_have_every_printed_event_and_field() {
    let readme = readme();
    let mut told: BTreeMap<String, Names> = BTreeMap::new();
    for row in table(&readme, "event") {
        for name in quoted(&row[0]) {
            told.insert(name, quoted(&row[2]).into_iter().collect());
        }
    }
    let (first, second, _) = passes();
    let mut printed: BTreeMap<String, Names> = BTreeMap::new();
    for value in values(&first).iter().chain(&values(&second)) {
        let mut fields = keys(value);
        assert!(fields.remove("schema") && fields.remove("event"), "{value}");
        let name = value["event"].as_str().unwrap().to_owned();
        assert_eq!(printed.entry(name).or_insert(fields.clone()), &fields);
    }
    assert_eq!(told, printed);

    // Each field has a description, and so do the fields of nested objects.
    let meanings = table(&readme, "field");
    let mut meant: Names = meanings.iter().flat_map(|row| quoted(&row[0])).collect();
    assert!(meant.remove("schema"));
    assert_eq!(meant, printed.into_values().flatten().collect::<Names>());
    let named_for = |field: &str| -> Names {
        let row = meanings.iter().find(|row| quoted(&row[0]) == [field]).unwrap();
        quoted(&row[1]).into_iter().collect()
    };
    let summary = &values(&first).pop().unwrap();
    assert_eq!(named_for("nodes"), keys(&summary["nodes"][0]));
    let coverage = &summary["coverage"][0];
    let in_coverage = keys(coverage).into_iter().chain(keys(&coverage["holes"][0]));
    assert_eq!(named_for("coverage"), in_coverage.collect());

    // The possible values of some fields.
    for value in values(&first).iter().chain(&values(&second)) {
        for (event, field) in [("skipped", "reason"), ("failed", "what"), ("node", "state")] {
            if value["event"] == event {
                let word = value[field].as_str().unwrap();
                assert!(named_for(field).contains(word), "{word}");
            }
        }
    }
}

#[test]
fn the_table_has_every_written_metric() {
    let told = table(&readme(), "metric").into_iter().map(|row| {
        let labels: Names = quoted(&row[1]).into_iter().collect();
        (quoted(&row[0]).remove(0), labels)
    });
    let (_, _, text) = passes();
    let written = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, labels) = line.split_once('{').unwrap();
        let labels = labels.split_once('}').unwrap().0.split("\",");
        let labels = labels.map(|label| label.split_once('=').unwrap().0.to_owned());
        let mut labels: Names = labels.collect();
        // Each metric has this label, so the table omits it.
        assert!(labels.remove("file"), "{line}");
        (name.to_owned(), labels)
    });
    assert_eq!(told.collect::<BTreeSet<_>>(), written.collect::<BTreeSet<_>>());
}

#[test]
fn the_jq_lines_print_what_they_promise() {
    if !has_tool("jq") {
        return;
    }
    let blocks = blocks(&readme());
    let block = blocks.iter().find(|block| block.contains("jq ")).unwrap();
    let (first, second, _) = passes();
    let dir = tempfile::tempdir().unwrap();
    let run = |outcome: &Outcome| -> Vec<Vec<String>> {
        fs::write(dir.path().join("pass.jsonl"), &outcome.stdout).unwrap();
        let lines = block.lines().filter(|line| line.starts_with("jq "));
        let said = lines.map(|line| {
            let mut shell = Command::new("sh");
            let said = shell.args(["-c", line]).current_dir(&dir).output().unwrap();
            assert!(said.status.success() && said.stderr.is_empty(), "{line}: {said:?}");
            let mut said: Vec<String> =
                String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect();
            said.sort();
            said
        });
        said.collect()
    };
    let of = |outcome: &Outcome, event: &str| -> Vec<Value> {
        values(outcome).into_iter().filter(|value| value["event"] == event).collect()
    };
    let paths = |outcome: &Outcome| {
        let segments = of(outcome, "segment");
        let mut paths: Vec<String> =
            segments.iter().map(|value| value["path"].as_str().unwrap().into()).collect();
        paths.sort();
        paths
    };
    let told = run(&first);
    assert_eq!(told.len(), 3);
    assert_eq!((told[0].len(), &told[0]), (4, &paths(&first)));
    let hole = "desertbus/source 2018-11-10T05:00:06.000Z 20";
    assert_eq!(told[1], [hole]);
    assert_eq!(told[2].len(), 2, "{told:?}");
    assert!(told[2].iter().all(|line| line.starts_with("1 a: ")), "{told:?}");
    let told = run(&second);
    assert_eq!((told[0].len(), &told[0]), (3, &paths(&second)));
    assert_eq!((told[1].len(), told[2].len()), (0, 0), "{told:?}");
}

//! Long passes: how to watch them, and how they end in time.

mod node;
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;

use node::{Fault, Node, On, Request};
use rustix::fs::{FileType, Mode};
use support::{Archive, Running, fill, node_with, wait_until};

/// A node with three segments that falls silent after sending one.
fn stuck() -> (Node, Vec<String>) {
    let (node, names) = node_with(3);
    for name in &names[1..] {
        let path = format!("/segments/desertbus/source/{}/{name}", support::HOUR);
        node.fault_path(&path, Fault::Hang);
    }
    (node, names)
}

fn wait_until_landed(archive: &Archive) {
    wait_until(|| archive.names().iter().any(|name| !name.contains("-temp-")));
}

fn start(archive: &Archive, node: &Node, options: &[&str]) -> Running {
    let mut run = archive.backfill([&*node.url(), "desertbus", "source", "--timeout=20s"]);
    run.command.args(options);
    run.start()
}

#[test]
fn a_pass_ends_in_order_at_its_time_limit() {
    // Enough to list and to fetch one, however slow the machine is.
    let whole = start(&Archive::new(), &node_with(3).0, &[]).outcome().took;
    let longest = format!("--max-duration={}ms", 200 + 4 * whole.as_millis());
    let (node, names) = stuck();
    let archive = Archive::new();
    let outcome = start(&archive, &node, &[&longest, "-v", "--json"]).outcome();
    outcome.assert_code(3).assert_says("incomplete: ended by --max-duration; fetched 1 segment");
    assert_eq!(archive.names(), names[..1]);
    let last: serde_json::Value =
        serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["ended_by"], &last["status"]), (&"max_duration".into(), &3.into()));
    // It is as silent as any pass without failures.
    start(&archive, &node, &[&longest]).outcome().assert_code(3).assert_says_not(":");
}

#[test]
fn a_pass_within_its_time_limit_is_complete() {
    let (node, names) = node_with(3);
    let archive = Archive::new();
    let outcome = start(&archive, &node, &["--max-duration=1h", "--stats=1h"]).outcome();
    outcome.assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn no_node_answering_within_the_time_limit_is_status_4() {
    let (node, _) = node_with(1);
    node.fault(On::Any, Fault::Hang);
    let archive = Archive::new();
    start(&archive, &node, &["--max-duration=200ms"]).outcome().assert_code(4);
}

#[test]
fn a_progress_line_is_printed_at_each_interval() {
    let (node, names) = stuck();
    let archive = Archive::new();
    let running = start(&archive, &node, &["--stats=100ms", "-q"]);
    running.wait_until_said_often(3, "backfiller: 1 of 3 files done, 1000 B at ");
    running.signal("TERM");
    let outcome = running.outcome();
    outcome.assert_code(143);
    let lines = outcome.stderr.lines().filter(|line| line.contains(" files done, ")).count();
    let most = outcome.took.as_millis() / 100;
    assert!(lines as u128 <= most, "{lines} in {:?}:\n{}", outcome.took, outcome.stderr);
    assert_eq!(archive.names(), names[..1]);
}

#[test]
fn sigusr1_prints_a_progress_line() {
    let (node, names) = stuck();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.prom");
    let archive = Archive::new();
    let running = start(&archive, &node, &["--metrics-file", file.to_str().unwrap()]);
    wait_until_landed(&archive);
    node.wait_for_requests(3, Request::is_segment);
    running.signal("USR1");
    wait_until(|| gauge(&file, "backfiller_pass_files_wanted") == Some(3.0));
    node.release();
    let outcome = running.outcome();
    outcome.assert_code(0).assert_says("backfiller: ");
    outcome.assert_says("of 3 files done, ");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert_eq!(archive.names(), names);
}

/// The sum of the series with this name.
fn gauge(file: &Path, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let series = text.lines().filter(|line| line.split('{').next() == Some(name));
    let values = series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[test]
fn metrics_of_a_running_pass_are_removed_at_its_end() {
    let (node, _) = stuck();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.prom");
    let options = ["--metrics-file", file.to_str().unwrap(), "--stats=20ms"];
    let archive = Archive::new();
    let running = start(&archive, &node, &options);
    wait_until(|| gauge(&file, "segments_backfilled_total") == Some(1.0));
    for (name, value) in [("done", 1.0), ("wanted", 3.0)] {
        wait_until(|| gauge(&file, &format!("backfiller_pass_files_{name}")) == Some(value));
    }
    assert!(gauge(&file, "backfiller_pass_bytes") > Some(0.0));
    assert!(gauge(&file, "backfiller_pass_start_timestamp_seconds") > Some(1e9));
    assert_eq!(gauge(&file, "backfiller_last_pass_status"), None);
    node.wait_for_requests(3, Request::is_segment);
    node.release();
    running.outcome().assert_code(0);
    assert_eq!(gauge(&file, "segments_backfilled_total"), Some(3.0));
    assert_eq!(gauge(&file, "backfiller_last_pass_segments"), Some(3.0));
    assert_eq!(gauge(&file, "backfiller_pass_start_timestamp_seconds"), None);
    // The metrics of the last pass stay while the next one is running.
    let later = fill(&node, 4).pop().unwrap();
    let path = format!("/segments/desertbus/source/{}/{later}", support::HOUR);
    node.fault_path(&path, Fault::Hang);
    let running = start(&archive, &node, &options);
    wait_until(|| gauge(&file, "backfiller_pass_files_wanted") == Some(1.0));
    assert_eq!(gauge(&file, "backfiller_last_pass_segments"), Some(3.0));
    node.wait_for_requests(4, Request::is_segment);
    node.release();
    running.outcome().assert_code(0);
    assert_eq!(gauge(&file, "segments_backfilled_total"), Some(4.0));
}

#[test]
fn a_verbose_pass_ends_with_its_summary_off_a_terminal() {
    let (node, _) = node_with(2);
    let archive = Archive::new();
    let outcome = start(&archive, &node, &["-v"]).outcome();
    outcome.assert_code(0);
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.starts_with("backfiller: complete: fetched 2 segments"), "{last}");
}

#[test]
fn progress_is_printed_while_the_streams_are_looked_for() {
    let (node, _) = node_with(1);
    node.fault(On::Any, Fault::Hang);
    let archive = Archive::new();
    for option in ["--stats=10ms", "--stats=1h"] {
        let args = [&*node.url(), "all", "all", "--timeout=20s", option];
        let asked = node.requests().len() + 1;
        let running = archive.backfill(args).start();
        node.wait_for_requests(asked, |_| true);
        running.signal("USR1");
        running.wait_until_said("backfiller: 0 of 0 files done, ");
        running.signal("TERM");
        running.outcome().assert_code(143).assert_says_not("panicked");
    }
}

#[test]
fn sigusr1_before_the_pass_is_harmless() {
    let (node, names) = node_with(1);
    let archive = Archive::new();
    // It reads the list of nodes from a pipe, so the pass can't begin before the list is written.
    let list = archive.path().join("nodes");
    rustix::fs::mknodat(rustix::fs::CWD, &list, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let nodes = format!("@{}", list.display());
    let running = archive.backfill([&*nodes, "desertbus", "source"]).start();
    // Opening waits until the other end is open.
    let mut pipe = fs::File::options().write(true).open(&list).unwrap();
    running.signal("USR1");
    writeln!(pipe, "{}", node.url()).unwrap();
    drop(pipe);
    running.outcome().assert_silent_success();
    fs::remove_file(&list).unwrap();
    assert_eq!(archive.names(), names);
}

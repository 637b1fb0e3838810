//! The pause before a pass (`--jitter`). A test that must see a pass wait uses a range of a whole
//! day, so that the pause is never short.

mod node;
mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};

use support::{Archive, Run, node_with};

const DAY: &str = "--jitter=1d";

fn with(archive: &Archive, node: &node::Node, options: &[&str]) -> Run {
    let mut run = archive.backfill([&*node.url(), "desertbus", "source"]);
    run.command.args(options);
    run
}

#[test]
fn a_signal_ends_the_pause_at_once_and_the_pass_with_it() {
    let (node, _) = node_with(1);
    let archive = Archive::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.prom");
    let begun = Utc::now();
    // The time limit of the pass begins after the pause.
    let options = [DAY, "-v", "--json", "--lock", "--stats=1ms", "--max-duration=1ms"];
    let mut run = with(&archive, &node, &options);
    run.command.arg("--metrics-file").arg(&file).arg("--report").arg(dir.path().join("x.html"));
    let running = run.start();
    running.wait_until_said("before the pass begins (--jitter)\n");
    thread::sleep(Duration::from_millis(10));
    running.signal("USR1");
    running.wait_until_said("backfiller: waiting: the pass begins in ");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no metrics before the pause ends");
    running.signal("TERM");
    let outcome = running.outcome();
    outcome.assert_code(143).assert_says("backfiller: interrupted: fetched 0 segments in 0.0 s\n");
    assert_eq!(outcome.stderr.matches("waiting: ").count(), 1, "{}", outcome.stderr);
    let summary = outcome.summary();
    assert_eq!((&summary["ended_by"], &summary["status"]), (&"signal".into(), &143.into()));
    assert_eq!(summary["ms"], 0);
    let started: DateTime<Utc> = summary["started"].as_str().unwrap().parse().unwrap();
    assert!((begun - Duration::from_secs(1)..=Utc::now()).contains(&started), "{started}");
    let metrics = fs::read_to_string(&file).unwrap();
    let status = r#"backfiller_last_pass_status{hours="all",file="x.prom"} 143"#;
    assert!(metrics.lines().any(|line| line == status), "{metrics}");
    assert_eq!(node.requests().len(), 0);
    assert!(archive.files().is_empty());
}

#[test]
fn a_pass_in_its_pause_does_not_hold_the_lock() {
    let (node, names) = node_with(1);
    let archive = Archive::new();
    let waiting = with(&archive, &node, &[DAY, "--lock", "-v"]).start();
    waiting.wait_until_said("before the pass begins");
    with(&archive, &node, &["--lock"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    waiting.signal("INT");
    waiting.outcome().assert_code(130);
    // After the pause, a held lock ends it like any other pass.
    let holder = fs::File::open(archive.path()).unwrap();
    holder.lock().unwrap();
    let late = with(&archive, &node, &["--jitter=1ms", "--lock", "-v"]).run();
    late.assert_code(75).assert_says("another pass with --lock is running");
}

#[test]
fn the_command_line_is_checked_before_the_pause() {
    let (node, _) = node_with(1);
    let archive = Archive::new();
    let wrong = |options: &[&str], why| {
        with(&archive, &node, options).run().assert_code(2).assert_says(why);
    };
    wrong(&[DAY, "last3"], "is not a valid HOUR");
    wrong(&[DAY, "--metrics-file=/proc/version"], "--metrics-file");
    wrong(&["--jitter=2d"], "it must be at most a day");
    wrong(&["--jitter=soon"], "expected a duration");
}

#[test]
fn the_pause_is_followed_by_a_normal_pass() {
    let (node, names) = node_with(2);
    for jitter in ["--jitter=0", "--jitter=1ms"] {
        let archive = Archive::new();
        with(&archive, &node, &[jitter]).run().assert_silent_success();
        assert_eq!(archive.names(), names);
    }
    let outcome = with(&Archive::new(), &node, &["--jitter=0", "-v"]).run();
    outcome.assert_code(0).assert_says_not("jitter");
}

//! Nodes with their own settings in a list: fewer requests, a rate limit, and optional nodes.

mod node;
mod support;

use std::time::Duration;

use node::{Fault, Node, On};
use support::{Archive, HOUR, Outcome, fill, node_with};

fn run(archive: &Archive, list: &str, options: &[&str]) -> Outcome {
    let mut run = archive.backfill(["@-", "desertbus", "source", "--retries=0"]);
    run.command.args(options);
    run.stdin(list).run()
}

const DEAD: &str = "dead http://127.0.0.9:1";

#[test]
fn a_dead_optional_node_causes_no_failure_and_no_mail() {
    let (node, names) = node_with(3);
    let list = format!("{DEAD} optional\na {}\n", node.url());
    let archive = Archive::new();
    run(&archive, &list, &[]).assert_silent_success();
    assert_eq!(archive.names(), names);
    let outcome = run(&archive, &list, &["-v", "--json"]);
    outcome.assert_code(0).assert_says("node dead is given up: connection refused");
    outcome.assert_says_not("warning").assert_says("optional node dead was given up");
    assert!(outcome.stdout.contains("\"state\":\"given_up\""), "{}", outcome.stdout);
    // Also with `all` as STREAM.
    let mut run = archive.backfill(["@-", "all", "all", "--retries=0"]).stdin(&list);
    run.command.arg("-q");
    run.run().assert_silent_success();
    let mut run = archive.backfill(["@-", "all", "all", "--retries=0"]).stdin(&list);
    run.command.arg("-v");
    run.run().assert_says("complete: nothing was missing").assert_says_not("listing failed");
}

#[test]
fn the_summary_begins_with_the_holes_and_not_with_a_dead_optional_node() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"before the hole");
    node.add("desertbus", "source", HOUR, "00:04.0-2.0-full", b"after the hole");
    let list = format!("{DEAD} optional\na {}\n", node.url());
    let outcome = run(&Archive::new(), &list, &["-v", "--fail-on-holes"]);
    outcome
        .assert_code(3)
        .assert_says("incomplete: desertbus/source has 1 hole, 2.000 s in all; fetched 2 segments");
    outcome.assert_says("; optional node dead was given up: connection refused");
}

#[test]
fn a_dead_node_counts_if_required_or_the_only_one() {
    let (node, _) = node_with(1);
    let archive = Archive::new();
    let list = format!("{DEAD}\na {} optional\n", node.url());
    run(&archive, &list, &[]).assert_code(3).assert_says("warning: node dead is given up");
    run(&archive, &format!("{DEAD} optional\n"), &[]).assert_code(4);
    let both = format!("{DEAD} optional\nother http://127.0.0.9:2\n");
    run(&archive, &both, &[]).assert_code(4);
}

#[test]
fn an_optional_node_that_answers_counts() {
    let (node, names) = node_with(2);
    let other = Node::start();
    fill(&other, 1);
    node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{}", names[1]), Fault::Status(500));
    let list = format!("a {} optional\nb {}\n", node.url(), other.url());
    let archive = Archive::new();
    run(&archive, &list, &[]).assert_code(3).assert_says("could not be fetched: node a");
}

#[test]
fn segments_of_a_dead_optional_node_are_not_missing() {
    let (node, names) = node_with(3);
    let other = Node::start();
    fill(&other, 1);
    node.fault(On::Segment, Fault::Hang);
    let list = format!("a {} optional jobs=1\nb {}\n", node.url(), other.url());
    let archive = Archive::new();
    let outcome = run(&archive, &list, &["--timeout=300ms"]);
    assert_eq!(archive.names(), names[..1]);
    outcome.assert_silent_success();
    let outcome = run(&archive, &list, &["--timeout=300ms", "-v"]);
    outcome.assert_code(0).assert_says("complete: fetched 0 segments in ");
    outcome.assert_says("; 2 segments missing that only dead optional nodes have; optional node a");
}

#[test]
fn a_failure_counts_beside_a_dead_optional_node() {
    let (node, names) = node_with(1);
    let other = Node::start();
    fill(&other, 1);
    other.fault(On::Segment, Fault::Status(403));
    node.fault(On::Segment, Fault::Hang);
    let list = format!("a {} optional\nb {}\n", node.url(), other.url());
    let archive = Archive::new();
    let outcome = run(&archive, &list, &["--timeout=300ms"]);
    outcome.assert_code(3).assert_says(&format!("{} could not be fetched", names[0]));
}

#[test]
fn a_node_s_own_request_limit_is_kept() {
    let (node, names) = node_with(8);
    node.delay(Duration::from_millis(20));
    let archive = Archive::new();
    run(&archive, &format!("a {} jobs=1\n", node.url()), &[]).assert_silent_success();
    assert_eq!((archive.names(), node.connections()), (names, 1));
}

#[test]
fn a_node_s_own_rate_limit_is_kept() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", &[7; 60_000]);
    let archive = Archive::new();
    let list = format!("a {} limit-rate=100k\n", node.url());
    let outcome = run(&archive, &list, &[]);
    outcome.assert_silent_success();
    assert!(outcome.took >= Duration::from_millis(450), "{:?}", outcome.took);
}

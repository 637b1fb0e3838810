//! The table of `--compare`, and the same comparison in JSON.

mod node;
mod support;

use std::time::Duration;

use node::{Fault, Node, On, Request};
use serde_json::Value;
use support::{Archive, HOUR, Outcome, fill, node_with, segment_content};

/// Two nodes and an archive with different parts of the same four segments. The archive has a
/// second hour.
fn three() -> (Node, Node, Archive) {
    let (first, _) = node_with(3);
    let second = Node::start();
    fill(&second, 1);
    second.add("desertbus", "source", HOUR, "30:00.0-2.0-full", b"only there");
    second.list_also("desertbus", "source", HOUR, "junk");
    let archive = Archive::new();
    archive.put("00:00.0-2.0-full", segment_content(0).as_bytes());
    let name = node::segment_name("00:00.0-2.0-full", b"later");
    archive.write(&format!("desertbus/source/2018-11-10T06/{name}"), b"later");
    (first, second, archive)
}

fn nodes(first: &Node, second: &Node) -> String {
    format!("a={},b={}", first.url(), second.url())
}

const TABLE: &str = "\
desertbus/source
                all      here         a         b
2018-11-10T05     4      1 -3      3 -1      2 -2
2018-11-10T06     1         1      0 -1      0 -1
total             5      2 -3      3 -2      2 -3
";

#[test]
fn a_dry_run_shows_which_node_lacks_what() {
    let (first, second, archive) = three();
    let before = archive.files();
    let args = [&*nodes(&first, &second), "desertbus", "source", "-n"];
    archive.backfill(args).run().assert_code(0);
    let asked = first.requests().len() + second.requests().len();
    let mut run = archive.backfill(args);
    run.command.arg("--compare");
    let outcome = run.run();
    outcome.assert_code(0);
    assert_eq!(outcome.stdout, TABLE);
    assert_eq!(first.requests().len() + second.requests().len(), 2 * asked);
    assert_eq!(archive.files(), before);
}

#[test]
fn the_comparison_shows_the_state_before_the_pass() {
    let (first, second, archive) = three();
    let args = [&*nodes(&first, &second), "desertbus", "source", "--compare"];
    assert_eq!(archive.backfill(args).run().stdout, TABLE);
    assert_eq!(archive.names().len(), 5);
    let after = archive.backfill(args).run().stdout;
    assert!(after.contains("2018-11-10T05     4         4      3 -1      2 -2\n"), "{after}");
}

fn summary(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn the_comparison_in_json_has_null_for_unknown() {
    let (first, second, archive) = three();
    let listing = format!("/files/desertbus/source/{HOUR}");
    second.fault_path(&listing, Fault::Status(403));
    let args = [&*nodes(&first, &second), "desertbus", "source", "-n", "--compare", "--json"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(3);
    let comparison = &summary(&outcome)["comparison"];
    let expected = serde_json::json!([
        {"stream": "desertbus", "variant": "source", "hour": HOUR, "all": 3, "here": 1,
         "here_lacks": 2, "nodes": [{"node": "a", "has": 3, "lacks": 0},
                                    {"node": "b", "has": null, "lacks": null}]},
        {"stream": "desertbus", "variant": "source", "hour": "2018-11-10T06", "all": 1, "here": 1,
         "here_lacks": 0, "nodes": [{"node": "a", "has": 0, "lacks": 1},
                                    {"node": "b", "has": 0, "lacks": 1}]},
    ]);
    assert_eq!(*comparison, expected);
    let table = archive.backfill(&args[..5]).run().stdout;
    assert!(table.contains("2018-11-10T05     3      1 -2         3         ?\n"), "{table}");
}

#[test]
fn each_segment_of_a_dry_run_names_its_nodes_in_order() {
    let (first, second, archive) = three();
    second.add("desertbus", "source", HOUR, "00:02.0-2.0-full", segment_content(1).as_bytes());
    second.add("desertbus", "source", "2018-11-10T07", "00:00.0-2.0-full", b"newest");
    // A deleted segment is not fetched, no matter which node answers first.
    let name = first.add("desertbus", "source", HOUR, "40:00.0-2.0-full", b"deleted");
    let tombstone = name.replace(".ts", ".tombstone");
    second.add_tombstone("desertbus", "source", HOUR, &tombstone);
    let nodes = nodes(&first, &second);
    let dry = ["-n", "--json", "--order=forward"];
    let args = [&[&*nodes, "desertbus", "source"], &dry[..]].concat();
    let found = |outcome: &Outcome| -> Vec<(String, Value)> {
        let events = outcome.events();
        let segments = events.iter().filter(|event| event["event"] == "segment");
        segments
            .map(|event| (event["path"].as_str().unwrap()[17..36].into(), event["nodes"].clone()))
            .collect()
    };
    let expected = [
        ("2018-11-10T07/00:00", serde_json::json!(["b"])),
        ("2018-11-10T05/00:02", serde_json::json!(["a", "b"])),
        ("2018-11-10T05/00:04", serde_json::json!(["a"])),
        ("2018-11-10T05/30:00", serde_json::json!(["b"])),
    ];
    let expected = expected.map(|(path, nodes)| (path.to_owned(), nodes));
    // The node that knows all segments and tombstones may answer last.
    for slow in [&first, &second] {
        slow.fault_times(On::Listing, Fault::Delay(Duration::from_millis(200)), 2);
        assert_eq!(found(&archive.backfill(&args).run()), expected);
    }
    let args = [&*nodes, "desertbus", "source", "--json"];
    let fetched = found(&archive.backfill(args).run());
    assert!(fetched.len() >= 4 && fetched.iter().all(|(_, nodes)| nodes.is_null()), "{fetched:?}");
}

#[test]
fn what_was_deleted_on_purpose_counts_for_nobody() {
    let (first, second, disk) = (Node::start(), Node::start(), Archive::new());
    let names = fill(&first, 3);
    fill(&second, 1);
    second.add_tombstone("desertbus", "source", HOUR, &names[1].replace(".ts", ".tombstone"));
    // A directory shows a segment and its tombstone.
    let path = |name: &str| format!("desertbus/source/{HOUR}/{name}");
    disk.write(&path(&names[0]), segment_content(0).as_bytes());
    disk.write(&path(&names[2]), segment_content(2).as_bytes());
    disk.write(&path(&names[2].replace(".ts", ".tombstone")), b"");
    let nodes = format!("{},c={}", nodes(&first, &second), disk.path().display());
    let archive = Archive::new();
    // The tombstone may be listed before or after its segment.
    for slow in [&first, &second] {
        slow.fault_times(On::Listing, Fault::Delay(Duration::from_millis(200)), 2);
        let table = archive.backfill([&*nodes, "desertbus", "source", "-n", "--compare"]).run();
        let row = "2018-11-10T05     1      0 -1         1         1         1\n";
        assert!(table.stdout.contains(row), "{}", table.stdout);
    }
}

#[test]
fn deleted_and_duplicate_recordings_are_not_lacking() {
    let (first, second) = (Node::start(), Node::start());
    let names = fill(&first, 3);
    second.add("desertbus", "source", HOUR, "00:00.0005-2.0-full", segment_content(0).as_bytes());
    let archive = Archive::new();
    let path = |name: &str| format!("desertbus/source/{HOUR}/{name}");
    archive.write(&path(&names[0]), segment_content(0).as_bytes());
    archive.write(&path(&names[1]), segment_content(1).as_bytes());
    archive.write(&path(&names[1].replace(".ts", ".tombstone")), b"");
    let args = [&*nodes(&first, &second), "desertbus", "source", "-n", "--compare"];
    let table = archive.backfill(args).run().stdout;
    assert!(table.contains("2018-11-10T05     2      1 -1         2      1 -1\n"), "{table}");
}

#[test]
fn a_segment_that_two_nodes_send_at_once_counts_once() {
    let nodes = ["127.0.0.1", "127.0.0.2"].map(Node::start_at);
    for node in &nodes {
        fill(node, 8);
        node.fault(On::Segment, Fault::HangInBody(100));
    }
    let archive = Archive::new();
    let urls = format!("{},{}", nodes[0].url(), nodes[1].url());
    let args = [&*urls, "desertbus", "source", "--compare", "--json", "--timeout=20s"];
    let running = archive.backfill(args).start();
    // Each is also asked for what the other one has stopped sending.
    nodes.iter().for_each(|node| node.wait_for_requests(8, Request::is_segment));
    nodes.iter().for_each(Node::release);
    let outcome = running.outcome();
    outcome.assert_code(0);
    let hour = &outcome.summary()["comparison"][0];
    assert_eq!((&hour["all"], &hour["here_lacks"]), (&8.into(), &8.into()));
    assert_eq!(hour["nodes"][0]["lacks"], 0);
}

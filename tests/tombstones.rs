//! Tombstones that nodes list: in any order of arrival, deleted segments don't stay, files that
//! were here before are kept, and invented tombstones are rejected and reported.

mod node;
mod support;

use node::{Node, Request, segment_name};
use serde_json::Value;
use support::{Archive, HOUR, Outcome, fill, has_tool, wait_until};

fn tombstone(name: &str) -> String {
    name.rsplit_once('.').unwrap().0.to_owned() + ".tombstone"
}

/// A node with segments, and a node that lists this tombstone in this hour.
fn with_tombstone(variant: &str, hour: &str, tombstone: &str) -> (Node, Node) {
    let nodes = (Node::start_at("127.0.0.2"), Node::start_at("127.0.0.3"));
    nodes.1.add_tombstone("desertbus", variant, hour, tombstone);
    nodes
}

fn pair(nodes: &(Node, Node)) -> String {
    format!("a={},t={}", nodes.0.url(), nodes.1.url())
}

fn events(outcome: &Outcome, kind: &str) -> Vec<Value> {
    let lines = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == kind).collect()
}

#[test]
fn a_segment_is_removed_if_its_tombstone_arrives_later() {
    let other = "2018-11-10T06";
    for (variant, stem, spelling, hour) in [
        ("source", "00:10.1-2.0-full", "00:10.1-2.0-full", HOUR),
        // The name by another clock, in the same hour and in the next one.
        ("source", "00:10.1-2.0-full", "00:10.1007-2.0-full", HOUR),
        ("source", "59:59.9998-2.0-full", "00:00.0004-2.0-full", other),
    ] {
        let name = segment_name(stem, b"deleted");
        let tombstone = tombstone(&segment_name(spelling, b"deleted"));
        let nodes = with_tombstone(variant, hour, &tombstone);
        nodes.0.add_named("desertbus", variant, HOUR, &name, b"deleted");
        let kept = nodes.0.add("desertbus", variant, HOUR, "59:59.9999-2.0-full", b"kept");
        let archive = Archive::new();
        let args =
            [&*pair(&nodes), "desertbus", variant, "--json", "--compare", "-j1", "--order=forward"];
        // Its only worker has finished the first request when it makes the second.
        let first_has_landed = || nodes.0.wait_for_requests(2, Request::is_segment);
        let outcome = archive.backfill(args).run_with_late(&nodes.1, first_has_landed);
        outcome.assert_code(0);
        let expected = [
            format!("desertbus/source/{HOUR}/{kept}"),
            format!("desertbus/source/{hour}/{tombstone}"),
        ];
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(archive.files().into_keys().collect::<Vec<_>>(), expected, "{outcome:#?}");
        let removed = events(&outcome, "removed");
        assert_eq!(removed.len(), 1, "{outcome:#?}");
        assert_eq!(removed[0]["path"], format!("desertbus/source/{HOUR}/{name}"));
        assert_eq!((&removed[0]["node"], events(&outcome, "hidden").len()), (&"t".into(), 0));
        let summary = &events(&outcome, "summary")[0];
        assert_eq!((&summary["files"], &summary["removed"]), (&2.into(), &1.into()));
        assert_eq!(summary["comparison"][0]["all"], 1, "{summary:#}");
        // It isn't fetched again.
        let again = archive.backfill([&*pair(&nodes), "desertbus", variant, "--print"]).run();
        again.assert_silent_success();
    }
}

#[test]
fn chat_is_removed_if_its_tombstone_arrives_later() {
    let name = format!("00:10-{}.json", node::hash_of(b"[]"));
    let nodes = with_tombstone("chat", HOUR, &tombstone(&name));
    nodes.0.add_named("desertbus", "chat", HOUR, &name, b"[]");
    let archive = Archive::new();
    let run = archive.backfill([&*pair(&nodes), "desertbus", "chat"]);
    let has_landed = || archive.names().contains(&name);
    run.run_with_late(&nodes.1, || wait_until(has_landed)).assert_silent_success();
    assert_eq!(archive.names(), [tombstone(&name)]);
}

#[test]
fn a_tombstone_that_arrives_while_its_segment_lands_is_no_warning() {
    if !has_tool("strace") {
        return;
    }
    let name = segment_name("00:10.1-2.0-full", b"deleted");
    let nodes = with_tombstone("source", HOUR, &tombstone(&name));
    nodes.0.add_named("desertbus", "source", HOUR, &name, b"deleted");
    let archive = Archive::new();
    std::fs::create_dir_all(archive.path().join("desertbus/source").join(HOUR)).unwrap();
    // The segment has its name, but is not noted yet, as the call returns late. The tombstone is not
    // in the list, so it is not created.
    let slow = ["-f", "-qq", "-o/dev/null", "-erenameat2", "--inject=renameat2:delay_exit=300000"];
    let run = archive.backfill([&*pair(&nodes), "--files-from=-"]).below("strace", slow);
    let run = run.stdin(&format!("desertbus/source/{HOUR}/{name}\n"));
    let has_landed = || archive.names().contains(&name);
    run.run_with_late(&nodes.1, || wait_until(has_landed)).assert_silent_success();
    assert_eq!(archive.names(), [""; 0]);
}

#[test]
fn a_new_tombstone_for_an_older_file_is_a_warning() {
    let archive = Archive::new();
    let names = [0, 2, 4].map(|n| archive.put(&format!("00:0{n}.0-2.0-full"), b"was here"));
    let node = Node::start();
    names.iter().for_each(|name| node.add_tombstone("desertbus", "source", HOUR, &tombstone(name)));
    let nodes = format!("liar={}", node.url());
    let run = |options: &[&str]| {
        let args = [&*nodes, "desertbus", "source"];
        archive.backfill(args.iter().chain(options)).run()
    };
    for (options, hides) in [(&["-n", "--json"][..], "would hide"), (&["--json"], "hides")] {
        let outcome = run(options);
        outcome
            .assert_code(0)
            .assert_says("warning: node liar: lists a tombstone for desertbus/source/");
        outcome.assert_says(&format!("which {hides} the segment here"));
        outcome.assert_says("node liar: 2 more segments here that its tombstones");
        assert_eq!(outcome.stderr.lines().count(), 2, "{outcome:#?}");
        assert_eq!(events(&outcome, "hidden").len(), 3);
        assert!(events(&outcome, "hidden").iter().all(|line| line["node"] == "liar"));
        assert_eq!(events(&outcome, "summary")[0]["hidden"], 3);
    }
    names.iter().for_each(|name| assert!(archive.names().contains(name)));
    // Only new tombstones are reported.
    run(&["--print"]).assert_silent_success();
}

#[test]
fn more_tombstones_than_segments_are_rejected() {
    let invented =
        |n: usize| tombstone(&segment_name(&format!("10:{:02}.{n:06}-2.0-full", n % 60), b""));
    for (here, listed, tombstones, is_believed) in [
        (0, 0, 100, true),
        (10, 0, 101, false),
        (10, 5, 2000, false),
        (60, 90, 150, true),
        (60, 90, 152, false),
    ] {
        let (liar, good) = (Node::start_at("127.0.0.2"), Node::start_at("127.0.0.3"));
        let archive = Archive::new();
        let stem = |n: usize| format!("{:02}:{:02}.0-2.0-full", n / 30, n % 30 * 2);
        (0..here).for_each(|n| drop(archive.put(&stem(n), &n.to_be_bytes())));
        for n in here..here + listed {
            liar.add("desertbus", "source", HOUR, &stem(n), &n.to_be_bytes());
        }
        let names: Vec<String> = (0..tombstones).map(invented).collect();
        names.iter().for_each(|name| liar.list_also("desertbus", "source", HOUR, name));
        // Listing one twice makes no difference.
        liar.list_also("desertbus", "source", HOUR, &names[0]);
        let right = good.add("desertbus", "source", HOUR, "59:00.0-2.0-full", b"right");
        let nodes = format!("liar={},good={}", liar.url(), good.url());
        let outcome = archive.backfill([&*nodes, "desertbus", "source", "--no-fsync"]).run();
        let created = archive.names().iter().filter(|name| name.ends_with(".tombstone")).count();
        assert_eq!(created, if is_believed { tombstones } else { 0 }, "{outcome:#?}");
        assert!(archive.names().contains(&right));
        if is_believed {
            outcome.assert_silent_success();
        } else {
            outcome.assert_code(3).assert_says(&format!(
                "node liar: listing desertbus/source/{HOUR}: it lists more new tombstones than"
            ));
        }
    }
}

#[test]
fn a_tombstone_does_not_count_as_a_recording() {
    let node = Node::start();
    fill(&node, 30);
    // A tombstone that would cover the hour, in which the stream ran for a minute, and one in
    // another hour.
    let long = tombstone(&segment_name("01:00.0-3540.0-full", b"invented"));
    node.add_tombstone("desertbus", "source", HOUR, &long);
    node.add_tombstone("desertbus", "source", "2018-11-10T20", &long);
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--json"]).run();
    outcome.assert_code(0);
    let coverage = &events(&outcome, "summary")[0]["coverage"][0];
    assert_eq!(coverage["expected_seconds"], 60.0, "{coverage}");
    assert_eq!(coverage["missing_seconds"], 0.0, "{coverage}");
    assert_eq!(node.segment_requests().len(), 30);
}

#[test]
fn the_tombstones_of_a_node_can_be_ignored() {
    let archive = Archive::new();
    let here = archive.put("00:00.0-2.0-full", b"here");
    let node = Node::start();
    let there = node.add("desertbus", "source", HOUR, "00:02.0-2.0-full", b"there");
    node.list_also("desertbus", "source", HOUR, &tombstone(&here));
    for line in [
        format!("liar {} no-tombstones # as it lies", node.url()),
        format!("{} no-tombstones", node.url()),
    ] {
        let run = archive.backfill(["@-", "desertbus", "source"]).stdin(&line);
        run.run().assert_silent_success();
        assert_eq!(archive.names(), [&*here, &*there]);
    }
    let wrong = archive.backfill(["@-", "desertbus", "source"]).stdin("no-tombstones").run();
    wrong.assert_code(2).assert_says("\"no-tombstones\" is neither a URL nor a directory");
}

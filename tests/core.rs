//! The core reports the truth: the status follows from what is left, nothing is counted twice,
//! deleted segments stay deleted, and every pass ends.

mod node;
mod support;

use std::fs;
use std::time::Duration;

use node::{Fault, Node, On, Request, hash_of, segment_name};
use serde_json::{Value, json};
use support::{Archive, HOUR, Outcome, fill, node_with};

const NEXT: &str = "2018-11-10T06";

fn pair() -> (Node, Node) {
    (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"))
}

fn run(archive: &Archive, nodes: &[&Node], options: &[&str]) -> Outcome {
    start(archive, nodes, options).outcome()
}

fn start(archive: &Archive, nodes: &[&Node], options: &[&str]) -> support::Running {
    let urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    let urls = urls.join(",");
    let args = [&*urls, "desertbus", "source"].into_iter().chain(options.iter().copied());
    archive.backfill(args).start()
}

fn is_for(part: &str) -> impl Fn(&Request) -> bool {
    move |request| request.resource.contains(part)
}

fn is_segment(request: &Request) -> bool {
    request.resource.starts_with("/segments/")
}

/// The values of these fields.
fn figures(summary: &Value, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| summary[name].as_u64().unwrap()).collect()
}

fn events<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

fn tombstone(name: &str) -> String {
    name.replace(".ts", ".tombstone")
}

// ---- Requests ----------------------------------------------------------------------------------

#[test]
fn an_idle_pass_makes_one_request_for_each_listing() {
    let (a, b) = pair();
    let archive = Archive::new();
    for hour in 3..8 {
        for variant in ["source", "480p"] {
            let hour = format!("2018-11-10T{hour:02}");
            let name = a.add("desertbus", variant, &hour, "00:00.0-2.0-full", b"x");
            b.add("desertbus", variant, &hour, "00:00.0-2.0-full", b"x");
            archive.write(&format!("desertbus/{variant}/{hour}/{name}"), b"x");
        }
    }
    let metrics = tempfile::tempdir().unwrap();
    let metrics = format!("--metrics-file={}", metrics.path().join("m.prom").display());
    let nodes = format!("{},{}", a.url(), b.url());
    let hours = "2018-11-10T05..2018-11-10T07";
    let args = [&*nodes, "desertbus", "source,480p", hours, &metrics];
    archive.backfill(args).run().assert_silent_success();
    // The hours of both variants, and three hours.
    assert_eq!([a.requests().len(), b.requests().len()], [8, 8]);
}

// ---- Repairs ----------------------------------------------------------------------------------

/// Two nodes that finish sending the good copy of a corrupt segment at the same moment. If
/// `another`, there is a second corrupt segment that no node has a good copy of.
fn repaired_by_two(another: bool) -> Outcome {
    let (a, b) = pair();
    let archive = Archive::new();
    let content = b"good ".repeat(1000);
    let name = archive.put("00:00.0-2.0-full", &content);
    archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"bad");
    if another {
        let name = archive.put("00:02.0-2.0-full", b"lost");
        archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"bad");
        a.add_named("desertbus", "source", HOUR, &name, b"also bad");
    }
    for node in [&a, &b] {
        node.add_named("desertbus", "source", HOUR, &name, &content);
        let path = format!("/segments/desertbus/source/{HOUR}/{name}");
        node.fault_path(&path, Fault::HangInBody(4999));
    }
    let running = start(&archive, &[&a, &b], &["--verify", "--json"]);
    a.wait_for_requests(1, is_for(&name));
    b.wait_for_requests(1, is_for(&name));
    a.release();
    b.release();
    let outcome = running.outcome();
    archive.files().values().for_each(|file| assert!(another || *file == content));
    outcome
}

const CORRUPT: [&str; 4] = ["corrupt", "repaired", "still_corrupt", "files"];

#[test]
fn a_repair_from_two_nodes_counts_once() {
    let outcome = repaired_by_two(false);
    outcome.assert_code(0);
    assert_eq!(figures(&outcome.summary(), &CORRUPT), [1, 1, 0, 1]);
    let lines = outcome.events();
    assert_eq!(events(&lines, "segment").len(), 1);
    assert!(events(&lines, "corrupt").iter().all(|event| event["repaired"] != json!(false)));
}

#[test]
fn two_repairs_of_one_segment_do_not_hide_a_corrupt_one() {
    let outcome = repaired_by_two(true);
    outcome.assert_code(3);
    assert_eq!(figures(&outcome.summary(), &CORRUPT), [2, 1, 1, 1]);
}

#[test]
fn hours_beside_an_unreadable_one_are_repaired() {
    let hours = [HOUR, NEXT, "2018-11-10T07"];
    for blocked in 0..3 {
        let (node, archive) = (Node::start(), Archive::new());
        for (n, hour) in hours.iter().enumerate() {
            let name = node.add("desertbus", "source", hour, "00:00.0-2.0-full", hour.as_bytes());
            if n == blocked {
                archive.write(&format!("desertbus/source/{hour}"), b"in the way");
            } else {
                archive.write(&format!("desertbus/source/{hour}/{name}"), b"corrupt");
            }
        }
        let outcome = run(&archive, &[&node], &["--verify", "--json"]);
        outcome.assert_code(1);
        assert_eq!(figures(&outcome.summary(), &CORRUPT), [2, 2, 0, 2], "{blocked}");
        assert!(archive.files().values().all(|content| content != b"corrupt"));
    }
}

#[test]
fn a_dry_run_with_verify_reports_what_would_happen() {
    let (node, archive) = (Node::start(), Archive::new());
    let (had, lost) =
        (archive.put("00:00.0-2.0-full", b"good"), archive.put("00:02.0-2.0-full", b"lost"));
    for name in [&had, &lost] {
        archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"corrupt");
    }
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"good");
    let options = ["--verify", "--dry-run", "-v"];
    let outcome = run(&archive, &[&node], &options);
    outcome.assert_code(3).assert_says("would be fetched, replacing a corrupt one");
    outcome
        .assert_says("1 corrupt segment would be repaired")
        .assert_says("2 corrupt segments here");
    for untrue in ["no node could", "not repaired", "segment repaired"] {
        outcome.assert_says_not(untrue);
    }
    assert_eq!(outcome.stdout, format!("desertbus/source/{HOUR}/{had}\n"));
    let outcome = run(&archive, &[&node], &["--verify", "--dry-run", "--json"]);
    let lines = outcome.events();
    let verdicts: Vec<&Value> = events(&lines, "corrupt").iter().map(|e| &e["repaired"]).collect();
    assert_eq!(verdicts, [&Value::Null, &Value::Null]);
    let names = ["corrupt", "repaired", "still_corrupt", "would_fetch", "checked_files"];
    assert_eq!(figures(&outcome.summary(), &names), [2, 0, 2, 1, 2]);
    assert_eq!(node.segment_requests().len(), 0);
}

// ---- Missing and vanished files -----------------------------------------------------------------

#[test]
fn a_path_in_json_is_a_path_or_null() {
    let (a, b) = pair();
    let wrong = a.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"good");
    let withheld = segment_name("00:02.0-2.0-full", b"withheld");
    for node in [&a, &b] {
        node.add_named("desertbus", "source", HOUR, &wrong, b"evil");
        node.list_also("desertbus", "source", HOUR, &withheld);
        node.list_also("desertbus", "source", HOUR, "no name");
        node.list_also("desertbus", "source", NEXT, "x");
    }
    let path = format!("/files/desertbus/source/{NEXT}");
    b.fault_path(&path, Fault::Body(b"no list".to_vec()));
    let archive = Archive::new();
    archive.write(&format!("desertbus/source/{HOUR}/{wrong}"), b"corrupt");
    let outcome = run(&archive, &[&a, &b], &["--json", "--verify", "--retries=0"]);
    outcome.assert_code(3);
    let lines = outcome.events();
    for event in &lines {
        let path = event.get("path").and_then(Value::as_str).unwrap_or("desertbus/");
        assert!(path.starts_with("desertbus/") && !path.contains(": "), "{event}");
    }
    let failed = events(&lines, "failed").into_iter();
    let mut failed: Vec<_> = failed.map(|event| (&event["what"], &event["path"])).collect();
    failed.sort_by_key(|(what, path)| (what.to_string(), path.to_string()));
    let file = |name: &str| (json!("file"), json!(format!("desertbus/source/{HOUR}/{name}")));
    let listing = (json!("listing"), json!(format!("desertbus/source/{NEXT}")));
    let expected = [file(&wrong), file(&withheld), listing];
    let expected: Vec<_> = expected.iter().map(|(what, path)| (what, path)).collect();
    assert_eq!(failed, expected);
    assert_eq!(figures(&lines[lines.len() - 1], &["failed", "listings_failed"]), [2, 1]);
}

#[test]
fn a_listed_segment_that_is_not_found_is_missing() {
    let (node, mut names) = node_with(500);
    node.fault(On::Segment, Fault::Status(404));
    node.fault_times(On::Segment, Fault::Delay(Duration::ZERO), 1);
    let archive = Archive::new();
    let outcome = run(&archive, &[&node], &["--json"]);
    outcome.assert_code(3);
    assert_eq!(figures(&outcome.summary(), &["files", "failed", "vanished"]), [1, 499, 0]);
    let had = archive.names().remove(0);
    names.retain(|name| *name != had);
    let lines = outcome.events();
    let failed = events(&lines, "failed").into_iter();
    let mut failed: Vec<&str> =
        failed.map(|e| e["path"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    failed.sort_unstable();
    assert_eq!(failed, names);
}

/// The first listing of a node, which may list something else later.
fn lists_first(node: &Node, names: &[&str]) {
    node.fault_times(On::Listing, Fault::Body(serde_json::to_vec(names).unwrap()), 1);
}

#[test]
fn a_segment_no_longer_listed_has_vanished() {
    for is_withheld in [false, true] {
        let (a, b) = pair();
        let gone = segment_name("00:00.0-2.0-full", b"gone");
        for node in [&a, &b] {
            fill(node, 1);
            lists_first(node, &[&gone]);
        }
        if is_withheld {
            b.list_also("desertbus", "source", HOUR, &gone);
        }
        let archive = Archive::new();
        let outcome = run(&archive, &[&a, &b], &["--json"]);
        outcome.assert_code(if is_withheld { 3 } else { 0 });
        let (failed, vanished) = (u64::from(is_withheld), u64::from(!is_withheld));
        let summary = outcome.summary();
        assert_eq!(figures(&summary, &["files", "failed", "vanished"]), [0, failed, vanished]);
        // Each node is asked for the segment once and for the listing once more: the second node
        // only if the first no longer lists the segment.
        for node in [&a, &b] {
            let listings = node.requests().iter().filter(|r| r.resource.ends_with(HOUR)).count();
            assert_eq!(node.segment_requests().len(), 1);
            assert!(listings == 2 || is_withheld && listings == 1, "{listings}");
        }
    }
}

#[test]
fn nothing_has_vanished_if_listing_again_fails() {
    let (node, archive) = (Node::start(), Archive::new());
    let gone = segment_name("00:00.0-2.0-full", b"gone");
    node.fault(On::Listing, Fault::Status(500));
    lists_first(&node, &[&gone]);
    node.list_also("desertbus", "source", HOUR, "x");
    let outcome = run(&archive, &[&node], &["--json", "--retries=0"]);
    outcome.assert_code(3);
    assert_eq!(figures(&outcome.summary(), &["failed", "vanished"]), [1, 0]);
}

#[test]
fn chat_renamed_after_its_listing_is_not_a_failure() {
    let (node, archive) = (Node::start(), Archive::new());
    let old = format!("00:30-{}.json", hash_of(b"half of it"));
    let new = node.add_chat("desertbus", HOUR, "00:30.000000", b"all of it");
    lists_first(&node, &[&old]);
    let url = node.url();
    let chat = || archive.backfill([&*url, "desertbus", "chat", "--json"]).run();
    let first = chat();
    first.assert_code(0);
    assert_eq!(first.stderr, "");
    assert_eq!(figures(&first.summary(), &["files", "failed", "vanished"]), [0, 0, 1]);
    chat().assert_code(0);
    assert_eq!(archive.names(), [new]);
}

// ---- Deleted on purpose -------------------------------------------------------------------------

/// A recording at the turn of an hour, by two clocks. The first node lists it in one hour but
/// doesn't have it, the second has it in the other hour, and the third lists a tombstone there. The
/// nodes answer in the given order. Returns the files that are here at the end.
fn at_the_turn_of_an_hour(order: &[usize]) -> (Outcome, Vec<String>) {
    let nodes = [1, 2, 3].map(|n| Node::start_at(&format!("127.0.0.{n}")));
    let [gone, has, deleted] = &nodes;
    let early = segment_name("59:59.999800-2.0-full", b"recording");
    gone.list_also("desertbus", "source", HOUR, &early);
    let late = has.add("desertbus", "source", NEXT, "00:00.000200-2.0-full", b"recording");
    deleted.add_tombstone("desertbus", "source", NEXT, &tombstone(&late));
    gone.fault(On::Segment, Fault::Hang);
    has.fault(On::Segment, Fault::Hang);
    // The tombstone comes last.
    deleted.fault(On::Listing, Fault::Hang);
    let archive = Archive::new();
    let running = start(&archive, &[gone, has, deleted], &["--json"]);
    deleted.wait_for_requests(1, is_for(NEXT));
    for node in order {
        let awaited: &dyn Fn(&Request) -> bool = match node {
            2 => &is_for(NEXT),
            _ => &is_segment,
        };
        // One of two names is requested; the other only if the first fails.
        if nodes[*node].wait_for_request(awaited, Duration::from_millis(200)) {
            nodes[*node].clear_faults();
            nodes[*node].release();
        }
    }
    nodes.iter().for_each(|node| {
        node.clear_faults();
        node.release();
    });
    let outcome = running.outcome();
    (outcome, archive.names())
}

#[test]
fn a_pass_ends_despite_a_deleted_recording_with_two_names() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    std::thread::scope(|scope| {
        for order in orders {
            scope.spawn(move || {
                let (outcome, names) = at_the_turn_of_an_hour(&order);
                outcome.assert_code(0);
                let summary = outcome.summary();
                assert_eq!(figures(&summary, &["failed", "vanished"]), [0, 0], "{order:?}");
                assert_eq!(names.iter().filter(|n| n.ends_with(".tombstone")).count(), 1);
            });
        }
    });
}

#[test]
fn a_local_tombstone_covers_every_name_of_a_recording() {
    for (deleted, listed, is_covered) in [
        ((HOUR, "10:00.123000"), (HOUR, "10:00.124000"), true),
        ((HOUR, "10:00.123000"), (HOUR, "10:00.122000"), true),
        ((HOUR, "10:00.123000"), (HOUR, "10:00.125000"), false),
        ((HOUR, "59:59.999500"), (NEXT, "00:00.000000"), true),
        ((NEXT, "00:00.000400"), (HOUR, "59:59.999800"), true),
        ((NEXT, "00:00.000400"), (HOUR, "59:59.999000"), false),
    ] {
        let (node, archive) = (Node::start(), Archive::new());
        let name = |start: &str| segment_name(&format!("{start}-2.0-full"), b"private");
        let here = tombstone(&name(deleted.1));
        archive.write(&format!("desertbus/source/{}/{here}", deleted.0), b"");
        node.add_named("desertbus", "source", listed.0, &name(listed.1), b"private");
        let outcome = run(&archive, &[&node], &["--json"]);
        outcome.assert_code(0);
        let lines = outcome.events();
        let skipped = events(&lines, "skipped");
        let is_skipped = skipped.iter().any(|event| event["reason"] == "tombstoned");
        assert_eq!(is_skipped, is_covered, "{deleted:?} {listed:?}");
        assert_eq!(archive.names().len(), if is_covered { 1 } else { 2 });
    }
}

#[test]
fn a_listed_tombstone_covers_a_name_in_the_next_hour() {
    let (a, b) = pair();
    let archive = Archive::new();
    let early = b.add("desertbus", "source", HOUR, "59:59.999800-2.0-full", b"private");
    let deleted = tombstone(&segment_name("00:00.000400-2.0-full", b"private"));
    a.add_tombstone("desertbus", "source", NEXT, &deleted);
    a.list_also("desertbus", "source", "2018-11-10T04", "x");
    b.fault(On::Listing, Fault::Hang);
    let running = start(&archive, &[&a, &b], &["--json", "-j1"]);
    // With one worker, the tombstone is known by then.
    a.wait_for_requests(1, is_for("T04"));
    b.wait_for_requests(1, is_for(HOUR));
    b.clear_faults();
    b.release();
    let outcome = running.outcome();
    outcome.assert_code(0);
    let lines = outcome.events();
    let skipped: Vec<_> =
        events(&lines, "skipped").iter().map(|e| (&e["name"], &e["reason"])).collect();
    assert!(skipped.contains(&(&json!(early), &json!("tombstoned"))), "{skipped:?}");
    assert_eq!(archive.names(), [deleted]);
    assert_eq!(b.segment_requests().len(), 0);
    assert!(fs::read_dir(archive.path().join(format!("desertbus/source/{HOUR}"))).is_err());
}

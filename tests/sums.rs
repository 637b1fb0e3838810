//! The reports of a pass are consistent: the JSON lines, the summary, each node's share, the
//! metrics, and the exit status as a shell sees it.

mod node;
mod support;

use std::os::unix::fs::symlink;
use std::time::Duration;

use chrono::{NaiveDate, Utc};
use node::{Fault, Node, On, Request, segment_name};
use serde_json::Value;
use support::metrics::Machine;
use support::{HOUR, Mount, Outcome, Run, each_case, is_root, node_with};

fn backfill(machine: &Machine, nodes: &str, options: &[&str]) -> Run {
    let mut run = machine.backfill(nodes, "2018-11-01..", options);
    run.command.args(["--json", "--retries=0"]);
    run
}

/// Checks the reports of the first pass on this machine. Returns its summary.
#[track_caller]
fn check(machine: &Machine, outcome: &Outcome, status: i32) -> Value {
    assert_eq!(outcome.code(), Some(status), "{outcome:#?}");
    let lines = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut events: Vec<Value> = lines.collect();
    let summary = events.pop().unwrap();
    assert_eq!(summary["event"], "summary", "{summary}");
    assert_eq!(summary["status"], status, "{summary}");
    let count = |event: &str, field: &str, value: Value| {
        let of = |line: &&Value| line["event"] == event && line[field] == value;
        events.iter().filter(of).count() as u64
    };
    let files: Vec<&Value> = events
        .iter()
        .filter(|line| line["event"] == "segment" || line["event"] == "extra")
        .collect();
    let sum = |lines: &[&Value], field: &str| -> u64 {
        lines.iter().filter_map(|line| line[field].as_u64()).sum()
    };
    let is_dry = summary["dry_run"] == true;
    let deleted: Vec<&Value> = events.iter().filter(|l| l["event"] == "deleted").collect();
    let landed = if is_dry { 0 } else { files.len() as u64 };
    let repaired = count("segment", "repaired", true.into());
    let still_corrupt = count("corrupt", "repaired", false.into());
    for (field, n) in [
        ("files", landed),
        ("bytes", sum(&files, "bytes")),
        ("would_fetch", files.len() as u64 - landed),
        ("tombstones", count("tombstone", "dry_run", is_dry.into())),
        ("hidden", count("hidden", "dry_run", is_dry.into())),
        ("removed", events.iter().filter(|line| line["event"] == "removed").count() as u64),
        ("near_duplicates", count("skipped", "reason", "near_duplicate".into())),
        ("failed", count("failed", "what", "file".into())),
        ("vanished", count("failed", "what", "vanished".into())),
        ("listings_failed", count("failed", "what", "listing".into())),
        ("not_deleted", count("failed", "what", "deletion".into())),
        ("local_failures", count("failed", "what", "this machine".into())),
        ("corrupt", count("corrupt", "repaired", Value::Null)),
        ("repaired", if is_dry { 0 } else { repaired }),
        ("deleted", sum(&deleted, "segments")),
    ] {
        assert_eq!(summary[field], n, "{field}: {summary} {events:#?}");
    }
    if !is_dry && status < 128 {
        assert_eq!(summary["still_corrupt"], still_corrupt);
    }

    // Each node's share, in the summary and in the metrics.
    let samples = machine.samples();
    let by_node = samples.sums_by("remote");
    let metric = |name: &str, of: &str| {
        by_node.get(&(name.to_owned(), of.to_owned())).copied().unwrap_or(0.0) as u64
    };
    let (mut all_files, mut all_bytes) = (0, 0);
    for node in summary["nodes"].as_array().unwrap() {
        let name = node["node"].as_str().unwrap();
        let of_node: Vec<&Value> =
            files.iter().copied().filter(|line| line["node"] == name).collect();
        assert_eq!(node["files"], of_node.len() as u64, "{node} {events:#?}");
        assert_eq!(node["bytes"], sum(&of_node, "bytes"), "{node} {events:#?}");
        let segments = of_node.iter().filter(|line| line["event"] == "segment").count() as u64;
        assert_eq!(metric("segments_backfilled_total", name), segments);
        assert_eq!(metric("backfiller_node_segments", name), of_node.len() as u64);
        assert_eq!(node["errors"], metric("backfill_errors_total", name));
        let given_up = metric("backfiller_node_given_up", name) == 1;
        assert_eq!(node["given_up"], given_up);
        let is_of_node = |line: &&Value| line["node"] == name && line["state"] == "given_up";
        assert_eq!(events.iter().any(|line| is_of_node(&line)), given_up);
        all_files += of_node.len() as u64;
        all_bytes += sum(&of_node, "bytes");
    }
    if !is_dry {
        assert_eq!((all_files, all_bytes), (landed, sum(&files, "bytes")));
    }
    let of_pass = samples.sums_by("hours");
    for (name, n) in [
        ("backfiller_last_pass_status", status as u64),
        ("backfiller_last_pass_segments", landed),
        ("backfiller_last_pass_bytes", sum(&files, "bytes")),
    ] {
        let key = (name.to_owned(), "2018-11-01..".to_owned());
        assert_eq!(of_pass.get(&key).copied(), Some(n as f64), "{name}");
    }
    let deletions = if is_dry { 0 } else { sum(&deleted, "segments") };
    assert_eq!(metric("segments_deleted_total", ""), deletions);
    summary
}

/// An age that keeps November 2018.
fn age() -> String {
    let day = NaiveDate::from_ymd_opt(2018, 10, 20).unwrap();
    format!("--delete-older-than={}d", (Utc::now().date_naive() - day).num_days())
}

#[test]
fn a_good_pass_adds_up() {
    let (node, _) = node_with(20);
    let machine = Machine::new();
    node.add_extra("emotes", "an/emote", b"an emote");
    let deleted = segment_name("50:00.0-2.0-full", b"").replace(".ts", ".tombstone");
    node.add_tombstone("desertbus", "source", HOUR, &deleted);
    machine.archive.put("40:00.0-2.0-full", b"by two clocks");
    node.add("desertbus", "source", HOUR, "40:00.0005-2.0-full", b"by two clocks");
    let rotten = machine.archive.put("41:00.0-2.0-full", b"right");
    machine.archive.write(&format!("desertbus/source/{HOUR}/{rotten}"), b"wrong");
    node.add_named("desertbus", "source", HOUR, &rotten, b"right");
    let options = ["--verify", "--extras=emotes", "-n"];
    let dry = check(&machine, &backfill(&machine, &node.url(), &options).run(), 3);
    assert_eq!((&dry["would_fetch"], &dry["still_corrupt"]), (&22.into(), &1.into()));
    let machine = Machine { dir: tempfile::tempdir().unwrap(), ..machine };
    let summary = check(&machine, &backfill(&machine, &node.url(), &options[..2]).run(), 0);
    for (field, n) in [("files", 22), ("tombstones", 1), ("near_duplicates", 1), ("repaired", 1)] {
        assert_eq!(summary[field], n, "{field}: {summary}");
    }
    assert_eq!((&summary["checked_files"], &summary["checked_bytes"]), (&2.into(), &18.into()));
}

#[test]
fn a_pass_with_every_kind_of_failure_adds_up() {
    let (a, b, c) = (Node::start(), Node::start_at("127.0.0.2"), Node::start_at("127.0.0.3"));
    let machine = Machine::new();
    let add =
        |node: &Node, stem: &str| node.add("desertbus", "source", HOUR, stem, stem.as_bytes());
    let fault = |node: &Node, name: &str, fault: Fault| {
        node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{name}"), fault);
    };
    for n in 0..20 {
        let stem = format!("{n:02}:00.0-2.0-full");
        let name = add(&a, &stem);
        match n {
            0 => fault(&a, &name, Fault::Status(500)),
            1 => fault(&a, &name, Fault::Corrupt),
            2 => fault(&a, &name, Fault::Status(404)),
            // Both nodes have it, but one sends wrong content.
            3..9 => {
                add(&b, &stem);
                fault(&b, &name, Fault::Corrupt);
            }
            // Both send wrong content.
            9 => {
                add(&b, &stem);
                fault(&a, &name, Fault::Corrupt);
                fault(&b, &name, Fault::Corrupt);
            }
            _ => {}
        }
    }
    b.fault(On::Extras, Fault::Status(500));
    b.list_also("desertbus", "source", HOUR, "../junk");
    c.fault(On::Any, Fault::Status(401));
    machine.archive.put("55:00.0-2.0-full", b"right");
    let rotten = segment_name("55:00.0-2.0-full", b"right");
    machine.archive.write(&format!("desertbus/source/{HOUR}/{rotten}"), b"wrong");
    let old = segment_name("00:00.0-2.0-full", b"old");
    machine.archive.write(&format!("desertbus/source/2018-10-01T00/{old}"), b"old");
    // A link to an hour is not deleted.
    symlink(HOUR, machine.archive.path().join("desertbus/source/2018-10-01T01")).unwrap();
    let nodes = format!("{},{},{},dead=http://127.0.0.9:1", a.url(), b.url(), c.url());
    let options = ["--verify", "--extras=emotes", &age()];
    let outcome = backfill(&machine, &nodes, &options).run();
    let summary = check(&machine, &outcome, 3);
    for (field, n) in [("still_corrupt", 1), ("deleted", 1), ("not_deleted", 1), ("failed", 4)] {
        assert_eq!(summary[field], n, "{field}: {summary}");
    }
    assert!(summary["listings_failed"].as_u64().unwrap() > 0);
}

#[test]
fn a_pass_without_an_answering_node_adds_up() {
    let machine = Machine::new();
    check(&machine, &backfill(&machine, "http://127.0.0.9:1,http://127.0.0.8:1", &[]).run(), 4);
}

#[test]
fn a_pass_interrupted_during_long_listings_adds_up() {
    each_case(0..3, |_| {
        let (node, names) = node_with(200);
        (0..5000).for_each(|n| node.list_also("desertbus", "source", HOUR, &format!("junk{n}")));
        for hour in ["2018-11-10T03", "2018-11-10T04"] {
            (0..5000)
                .for_each(|n| node.list_also("desertbus", "source", hour, &format!("junk{n}")));
        }
        let machine = Machine::new();
        let options = ["--order=forward", "-q"];
        let running = backfill(&machine, &node.url(), &options).start();
        let asked = |request: &Request| request.path.contains(&names[20]);
        assert!(node.wait_for_request(asked, Duration::from_secs(20)));
        running.signal("TERM");
        check(&machine, &running.outcome(), 143);
    });
}

#[test]
fn a_pass_with_local_failures_adds_up() {
    if !is_root() {
        return;
    }
    let (node, _) = node_with(200);
    (0..5000).for_each(|n| node.list_also("desertbus", "source", HOUR, &format!("junk{n}")));
    let machine = Machine::new();
    let _mount = Mount::tmpfs(machine.archive.path(), "size=64k");
    let summary = check(&machine, &backfill(&machine, &node.url(), &["-q"]).run(), 1);
    assert!(summary["local_failures"].as_u64().unwrap() > 0);
}

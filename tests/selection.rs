//! What a pass is about when it is not named one by one: `none` as NODE, `all` as STREAM and VARIANT.

mod node;
mod support;

use std::fs;

use node::{Fault, Node, On, segment_name};
use support::{Archive, HOUR, Outcome, data, fill, node_with};

// ---- none -------------------------------------------------------------------------------------

#[test]
fn with_no_node_what_is_here_is_checked_and_counted() {
    let archive = Archive::new();
    archive.put("00:00.0-2.0-full", b"one");
    archive.put("00:02.0-2.0-full", b"other");
    let args = ["none", "desertbus", "source", "--verify", "-v"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(0).assert_says("complete: checked 2 segments (8 B); all good");
    let name = segment_name("00:04.0-2.0-full", b"right");
    archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"wrong");
    let outcome = archive.backfill(args).run();
    outcome.assert_code(3).assert_says("incomplete: checked 3 segments (13 B); no node was asked");
    outcome.assert_says("1 corrupt segment not repaired").assert_says_not("no node could give");
}

#[test]
fn with_no_node_a_pass_is_silent_and_maps_what_is_here() {
    let archive = Archive::new();
    for stem in ["00:00.0-60.0-full", "02:00.0-60.0-full"] {
        archive.put(stem, stem.as_bytes());
    }
    archive.backfill(["none", "desertbus", "source"]).run().assert_silent_success();
    let outcome = archive.backfill(["none", "desertbus", "source", "--coverage"]).run();
    outcome.assert_code(0);
    assert!(outcome.stdout.contains("1 hole, 1 min 00.000 s missing"), "{}", outcome.stdout);
    let args = ["none", "desertbus", "source", "--json", "--fail-on-holes"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(3);
    assert!(outcome.stdout.contains("\"nodes\":[],"), "{}", outcome.stdout);
}

// ---- all --------------------------------------------------------------------------------------

/// A node with two streams, chat, and what is neither.
fn node_with_everything() -> Node {
    let node = Node::start();
    fill(&node, 2);
    node.add("desertbus", "480p", "2018-11-10T06", "00:00.0-2.0-full", b"small");
    node.add("other", "source", HOUR, "00:00.0-2.0-full", b"other");
    node.add_chat("other", HOUR, "00:00", b"chat");
    node.list_also("emotes", "an", "emote", "emote.png");
    node
}

fn collections(archive: &Archive) -> Vec<String> {
    let paths = archive.files().into_keys();
    let collections = paths.map(|path| path.splitn(3, '/').take(2).collect::<Vec<_>>().join("/"));
    let mut collections: Vec<String> = collections.collect();
    collections.dedup();
    collections
}

#[test]
fn all_is_every_stream_and_variant_that_has_an_hour() {
    let node = node_with_everything();
    for (stream, variant, expected) in [
        ("all", "all", &["desertbus/480p", "desertbus/source", "other/chat", "other/source"][..]),
        ("all", "source", &["desertbus/source", "other/source"]),
        ("desertbus", "all", &["desertbus/480p", "desertbus/source"]),
        ("other,all", "chat", &["other/chat"]),
    ] {
        let archive = Archive::new();
        archive.backfill([&*node.url(), stream, variant]).run().assert_silent_success();
        assert_eq!(collections(&archive), expected);
        archive.assert_whole();
    }
}

#[test]
fn all_of_a_directory_is_copied_and_what_is_here_counts_too() {
    let (from, to) = (Archive::new(), Archive::new());
    copy(&data(), from.path());
    from.write("emotes/an/emote", b"an emote");
    from.write("notes.txt", b"not an archive's");
    fs::create_dir_all(from.path().join("lost+found/x/y")).unwrap();
    let dir = from.path().to_str().unwrap();
    to.backfill([dir, "all", "all"]).run().assert_silent_success();
    assert_eq!(to.names().len(), 30);
    let outcome = to.backfill(["none", "all", "all", "--verify", "-v"]).run();
    outcome.assert_code(0).assert_says("checked 30 segments (").assert_says("all good");
    let outcome = to.backfill(["none", "all", "all", "--coverage"]).run();
    outcome.assert_code(0);
    for collection in ["testcard/160p\n", "testcard/source\n"] {
        assert!(outcome.stdout.contains(collection), "{}", outcome.stdout);
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn events(outcome: &Outcome) -> Vec<serde_json::Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_node_that_can_t_list_its_streams_makes_the_pass_incomplete() {
    let (node, _) = node_with(2);
    let dead = "dead=http://127.0.0.9:1";
    let nodes = format!("{dead},{}", node.url());
    let archive = Archive::new();
    let outcome = archive.backfill([&*nodes, "all", "all", "--json", "--retries=0"]).run();
    outcome.assert_code(3).assert_says("node dead: listing the streams: connection refused");
    assert_eq!(archive.names().len(), 2);
    let failed = events(&outcome).into_iter().find(|event| event["event"] == "failed").unwrap();
    assert_eq!((&failed["what"], &failed["path"]), (&"listing".into(), &".".into()));
    let args = [dead, "all", "all", "--retries=0"];
    Archive::new().backfill(args).run().assert_code(4).assert_says("no node answered");
}

#[test]
fn a_failing_variant_leaves_the_others_alone_and_is_retried() {
    let node = node_with_everything();
    node.fault_path("/files/other", Fault::Status(403));
    node.fault_times(On::Hours, Fault::Reset, 1);
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "all", "all"]).run();
    outcome.assert_code(3).assert_says("listing the variants of other");
    assert_eq!(collections(&archive), ["desertbus/480p", "desertbus/source"]);
}

#[test]
fn nothing_anywhere_is_complete() {
    let (node, archive) = (Node::start(), Archive::new());
    archive.backfill([&*node.url(), "all", "all"]).run().assert_silent_success();
}

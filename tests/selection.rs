//! The selection of a pass: `none` as NODE, `all` as STREAM and VARIANT, and lists of files.

mod node;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use node::{Fault, Node, On, hash_of, segment_name};
use support::{Archive, HOUR, Outcome, data, fill, node_with};

// ---- none -------------------------------------------------------------------------------------

#[test]
fn without_a_node_the_archive_is_checked_and_counted() {
    let archive = Archive::new();
    archive.put("00:00.0-2.0-full", b"one");
    archive.put("00:02.0-2.0-full", b"other");
    let args = ["none", "desertbus", "source", "--verify", "-v"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(0).assert_says("complete: checked 2 segments (8 B); all good");
    let name = segment_name("00:04.0-2.0-full", b"right");
    archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"wrong");
    let outcome = archive.backfill(args).run();
    outcome.assert_code(3).assert_says(
        "incomplete: 1 corrupt segment not repaired; checked 3 segments (13 B); no node was asked",
    );
    outcome.assert_says_not("no node could provide");
}

#[test]
fn without_a_node_a_pass_is_silent_and_draws_the_map() {
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

/// A node with two streams, chat, and names that are neither.
fn node_with_everything() -> Node {
    let node = Node::start();
    fill(&node, 2);
    node.add("desertbus", "480p", "2018-11-10T06", "00:00.0-2.0-full", b"small");
    node.add("other", "source", HOUR, "00:00.0-2.0-full", b"other");
    node.add_chat("other", HOUR, "00:00", b"chat");
    node.list_also("emotes", "an", "emote", "emote.png");
    // What a file system keeps there can't be read.
    node.list_also("lost+found", "source", HOUR, "x");
    node.list_also("desertbus", "lost+found", HOUR, "x");
    // Other services of the node keep files of their own in its archive.
    node.add_beside_streams("desertbus_source_day_0.mkv", b"a cut");
    node.add_extra("coverage-maps", "desertbus_source_coverage.png", b"a map");
    let url = hash_of(b"http://x");
    node.add_extra("media", &format!("{url}/{}.png", hash_of(b"image")), b"image");
    let media = format!("media/{url}");
    let foreign = ["lost+found", "lost+found/source", "lost+found/chat", "desertbus/lost+found"];
    for path in foreign.into_iter().chain([&*media]) {
        node.fault_path(&format!("/files/{path}"), Fault::Status(500));
    }
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
    // A cut may be long: nothing of it is sent.
    let requests = node.requests().into_iter();
    let cut = requests.filter(|request| request.resource.ends_with(".mkv") && request.is_segment());
    let from: Vec<_> = cut.map(|request| request.first_byte()).collect();
    assert!(!from.is_empty() && from.iter().all(|from| *from > Some(1 << 60)), "{from:?}");
}

#[test]
fn all_looks_at_no_emotes_one_by_one() {
    let (node, names) = node_with(2);
    for emote in 0..10_500 {
        node.list_also("emotes", &emote.to_string(), "light-1.0", "x");
    }
    let archive = Archive::new();
    archive.backfill([&*node.url(), "all", "all"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    assert!(node.requests().iter().all(|request| !request.resource.starts_with("/files/emotes/")));
    let outcome = archive.backfill([&*node.url(), "all", "all", "-v"]).run();
    outcome.assert_code(0).assert_says("emotes has more than 1,000 entries");
}

#[test]
fn a_stream_that_a_node_fails_to_list_is_not_taken_for_a_file() {
    let (node, _) = node_with(2);
    node.add("other", "source", HOUR, "00:00.0-2.0-full", b"other");
    node.fault_path("/files/other", Fault::Status(500));
    // As a server that shows directories does.
    let to = ("Location", "/segments/other/".to_owned());
    node.fault_path("/segments/other", Fault::StatusWithHeader(301, to.0, to.1));
    node.fault_path("/segments/other/", Fault::Body(b"<a href=source>".to_vec()));
    let fails = || {
        let outcome = Archive::new().backfill([&*node.url(), "all", "all", "--retries=0"]).run();
        outcome.assert_code(3).assert_says("listing the variants of other: HTTP 500");
    };
    fails();
    // As servers do that have a page for every path.
    let page = || Fault::Body(b"<html>".to_vec());
    node.fault_path("/segments/other", page());
    fails();
    node.fault_path("/segments/other", Fault::StatusWithHeader(302, to.0, "/segments/page".into()));
    node.fault_path("/segments/page", Fault::Status(416));
    fails();
    node.fault_path("/segments/other", Fault::Status(416));
    node.fault_path("/segments/other/-", Fault::Status(416));
    fails();
}

#[test]
fn a_stream_given_by_name_may_have_any_number_of_entries() {
    let (node, names) = node_with(2);
    for n in 0..1001 {
        node.list_also("desertbus", &format!("v{n}"), "x", "x");
    }
    let archive = Archive::new();
    archive.backfill([&*node.url(), "desertbus", "all"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn all_copies_a_whole_directory_node() {
    let Some(data) = data() else { return };
    let (from, to) = (Archive::new(), Archive::new());
    copy(&data, from.path());
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

fn copy(from: &Path, to: &Path) {
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
fn a_failed_listing_of_streams_makes_the_pass_incomplete() {
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
fn all_of_nothing_is_complete() {
    let (node, archive) = (Node::start(), Archive::new());
    archive.backfill([&*node.url(), "all", "all"]).run().assert_silent_success();
}

// ---- Lists of files ---------------------------------------------------------------------------

fn path(name: &str) -> String {
    format!("desertbus/source/{HOUR}/{name}")
}

#[test]
fn an_edited_list_of_a_dry_run_is_fetched_exactly() {
    let (node, names) = node_with(6);
    node.add_chat("desertbus", HOUR, "00:00", b"chat");
    let archive = Archive::new();
    let printed = archive.backfill([&*node.url(), "desertbus", "source,chat", "-n"]).run().stdout;
    assert_eq!(printed.lines().count(), 7);
    let kept: Vec<&str> = printed.lines().filter(|line| !line.contains("/00:0")).collect();
    assert!((1..7).contains(&kept.len()));
    let list = format!("\u{feff}# by hand\n\n  {}  \n", kept.join("\r\n"));
    let run = archive.backfill([&*node.url(), "--files-from=-", "--print"]);
    let outcome = run.stdin(&list).run();
    outcome.assert_code(0);
    let mut fetched: Vec<&str> = outcome.stdout.lines().collect();
    fetched.sort_unstable();
    let mut expected = kept.clone();
    expected.sort_unstable();
    assert_eq!((fetched, &*outcome.stderr), (expected, ""));
    assert_eq!(archive.files().len(), kept.len());
    archive.assert_whole();
    assert_eq!(names.len(), 6);
    // In a second pass everything is here, and nothing is fetched again.
    let run = archive.backfill([&*node.url(), "--files-from=-", "--print"]);
    run.stdin(&list).run().assert_silent_success();
}

#[test]
fn the_pipeline_in_readme_works_in_a_shell() {
    let (node, names) = node_with(3);
    let partial = node.add("desertbus", "source", HOUR, "30:00.0-2.0-partial", b"partial");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let line = readme.lines().find(|line| line.contains("--files-from - ")).unwrap();
    let archive = Archive::new();
    let program = env!("CARGO_BIN_EXE_backfiller");
    let line = line.replace("backfiller ", &format!("{program} ")).replace("last:3", "all");
    let line = line.replace("http://a.example:1337", &node.url());
    let line = line.replace("/srv/wubloader", archive.path().to_str().unwrap());
    let shell = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(shell.status.success() && shell.stderr.is_empty(), "{line}: {shell:?}");
    assert_eq!(archive.names(), names);
    assert!(!names.contains(&partial));
}

#[test]
fn paths_that_end_with_nul_are_exact() {
    let (node, names) = node_with(2);
    let archive = Archive::new();
    let printed = archive.backfill([&*node.url(), "desertbus", "source", "-n0"]).run().stdout;
    let run = archive.backfill([&*node.url(), "--files-from=-", "--from0"]);
    run.stdin(&printed).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    archive.backfill([&*node.url(), "--from0", "a", "b"]).run().assert_code(2);
}

#[test]
fn an_unknown_or_invalid_path_in_a_list_is_reported() {
    let (node, names) = node_with(2);
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    let absent = segment_name("59:00.0-2.0-full", b"no node has it");
    let text = format!("junk\n{}\n{}\n../../etc/passwd\n", path(&names[0]), path(&absent));
    fs::write(&list, text).unwrap();
    let file = list.to_str().unwrap();
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "--files-from", file, "-v"]).run();
    outcome
        .assert_code(3)
        .assert_says(&format!("{list:?}, line 1: junk was not fetched: it should"));
    outcome.assert_says(&format!("{list:?}, line 3: {} was not fetched: no node", path(&absent)));
    outcome.assert_says("line 4: ../../etc/passwd was not fetched");
    outcome.assert_says("incomplete: 3 segments could not be fetched (no node that answered has it); fetched 1 segment");
    assert_eq!(archive.names(), names[..1]);
    let outcome = archive.backfill([&*node.url(), "--files-from", file, "--json"]).run();
    outcome.assert_code(3);
    let failed: Vec<_> =
        events(&outcome).into_iter().filter(|event| event["event"] == "failed").collect();
    let paths: Vec<_> = failed.iter().map(|event| event["path"].as_str()).collect();
    assert_eq!(paths, [None, None, Some(&*path(&absent))]);
    assert_eq!(events(&outcome).last().unwrap()["failed"], 3);
    // Without an answering node the status is 4, with an unreadable list it is 2.
    archive
        .backfill(["http://127.0.0.9:1", "--files-from", file, "--retries=0"])
        .run()
        .assert_code(4);
    let outcome = archive.backfill([&*node.url(), "--files-from", "/does/not/exist"]).run();
    outcome.assert_code(2).assert_says("--files-from: reading \"/does/not/exist\": no such file");
}

#[test]
fn a_deleted_segment_in_a_list_stays_deleted() {
    let (node, names) = node_with(3);
    let tombstone = |name: &str| name.replace(".ts", ".tombstone");
    node.add_tombstone("desertbus", "source", HOUR, &tombstone(&names[0]));
    let other = Node::start();
    other.add(
        "desertbus",
        "source",
        HOUR,
        "00:00.0-2.0-full",
        support::segment_content(0).as_bytes(),
    );
    let archive = Archive::new();
    archive.write(&path(&tombstone(&names[1])), b"");
    let list: String = names.iter().map(|name| path(name) + "\n").collect();
    let nodes = format!("{},{}", node.url(), other.url());
    let run = archive.backfill([&*nodes, "--files-from=-"]).stdin(&list);
    // A request for the missing segment follows the listing that has the tombstone.
    let has_listed = || node.wait_for_requests(1, node::Request::is_segment);
    run.run_with_late(&other, has_listed).assert_silent_success();
    // The node's tombstone is not in the list.
    assert_eq!(archive.names(), [tombstone(&names[1]), names[2].clone()]);
    let list = list + &path(&tombstone(&names[0])) + "\n";
    archive.backfill([&*nodes, "--files-from=-"]).stdin(&list).run().assert_silent_success();
    assert_eq!(archive.names().len(), 3);
}

#[test]
fn a_list_is_narrowed_by_arguments_and_may_be_empty() {
    let (node, names) = node_with(2);
    let other = node.add("other", "source", HOUR, "00:00.0-2.0-full", b"other");
    let list = format!("{}\nother/source/{HOUR}/{other}\n", path(&names[1]));
    for (args, expected) in [
        (&["other"][..], vec![&other]),
        (&["all", "source", HOUR], vec![&other, &names[1]]),
        (&["desertbus", "source", "yesterday"], vec![]),
    ] {
        let archive = Archive::new();
        let mut run = archive.backfill([&*node.url(), "--files-from=-"]).stdin(&list);
        run.command.args(args);
        run.run().assert_silent_success();
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(archive.names(), expected);
    }
    Archive::new().backfill([&*node.url(), "--files-from=-"]).run().assert_silent_success();
}

#[test]
fn a_list_selects_extra_files_and_repairs_too() {
    let (node, names) = node_with(2);
    node.add_extra("emotes", "an/emote", b"an emote");
    node.add_extra("emotes", "another", b"another");
    let archive = Archive::new();
    for name in &names {
        archive.write(&path(name), b"corrupt");
    }
    let list = format!("emotes/an/emote\n{}\n", path(&names[0]));
    let args = [&*node.url(), "--files-from=-", "--extras=emotes", "--verify"];
    let outcome = archive.backfill(args).stdin(&list).run();
    outcome.assert_code(0);
    let files = archive.files();
    assert_eq!(files[&path(&names[0])], support::segment_content(0).as_bytes());
    assert_eq!(files[&path(&names[1])], b"corrupt");
    assert!(files.contains_key("emotes/an/emote") && files.len() == 3);
}

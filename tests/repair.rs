//! What a pass does besides fetching missing segments: tombstones, near duplicates, extra files,
//! repair and retention, each with nodes of both kinds.

mod node;
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use chrono::{TimeDelta, Utc};
use node::{Fault, Node, On, Request, hash_of, segment_name};
use support::{Archive, HOUR, Outcome, has_tool, is_root, wait_until};

/// A node of either kind with the same content.
enum Source {
    Http(Node),
    Directory(Archive),
}

impl Source {
    fn both() -> [Source; 2] {
        [Source::Http(Node::start()), Source::Directory(Archive::new())]
    }

    fn address(&self) -> String {
        match self {
            Source::Http(node) => node.url(),
            Source::Directory(archive) => archive.path().to_str().unwrap().into(),
        }
    }

    fn add(&self, hour: &str, stem: &str, content: &[u8]) -> String {
        let name = segment_name(stem, content);
        self.add_named(hour, &name, content);
        name
    }

    fn add_named(&self, hour: &str, name: &str, content: &[u8]) {
        match self {
            Source::Http(node) if name.ends_with(".tombstone") => {
                node.add_tombstone("desertbus", "source", hour, name);
            }
            Source::Http(node) => node.add_named("desertbus", "source", hour, name, content),
            Source::Directory(archive) => {
                archive.write(&format!("desertbus/source/{hour}/{name}"), content);
            }
        }
    }

    fn add_extra(&self, dir: &str, path: &str, content: &[u8]) {
        match self {
            Source::Http(node) => node.add_extra(dir, path, content),
            Source::Directory(archive) => archive.write(&format!("{dir}/{path}"), content),
        }
    }

    fn fill(&self, archive: &Archive, options: &[&str]) -> Outcome {
        let address = self.address();
        let args = [&*address, "desertbus", "source"];
        archive.backfill(args.iter().chain(options)).run()
    }
}

fn tombstone(name: &str) -> String {
    name.replace(".ts", ".tombstone")
}

fn paths(archive: &Archive) -> Vec<String> {
    archive.files().into_keys().collect()
}

#[test]
fn a_tombstone_is_copied_and_its_segment_is_not() {
    for source in Source::both() {
        let deleted = source.add(HOUR, "00:00.0-2.0-full", b"deleted");
        source.add_named(HOUR, &tombstone(&deleted), b"");
        let kept = source.add(HOUR, "00:02.0-2.0-full", b"kept");
        let archive = Archive::new();

        let dry = source.fill(&archive, &["--dry-run", "-v"]);
        // Directory nodes know sizes.
        let size = if matches!(source, Source::Directory(_)) { " (4 B)" } else { "" };
        let said = format!("1 segment would be fetched{size}; 1 tombstone would be created");
        dry.assert_code(0).assert_says(&said);
        let place = format!("desertbus/source/{HOUR}");
        let mut printed: Vec<&str> = dry.stdout.lines().collect();
        printed.sort();
        assert_eq!(
            printed,
            [format!("{place}/{}", tombstone(&deleted)), format!("{place}/{kept}")]
        );
        assert!(archive.files().is_empty());

        let outcome = source.fill(&archive, &["--print", "-v"]);
        outcome.assert_code(0).assert_says("fetched 1 segment").assert_says("1 tombstone created");
        assert!(outcome.stdout.contains(&tombstone(&deleted)));
        assert_eq!(archive.names(), [tombstone(&deleted), kept]);
        archive.assert_whole();
        source.fill(&archive, &["--print"]).assert_silent_success();
    }
}

#[test]
fn a_tombstone_on_one_node_blocks_the_segment_of_another() {
    for source in Source::both() {
        let other = Node::start_at("127.0.0.2");
        let content = b"deleted";
        let name = other.add("desertbus", "source", HOUR, "00:00.0-2.0-full", content);
        source.add_named(HOUR, &tombstone(&name), b"");
        let archive = Archive::new();
        let nodes = format!("{},{}", source.address(), other.url());
        let path = archive.path().join("desertbus/source").join(HOUR).join(tombstone(&name));
        let run = archive.backfill([&*nodes, "desertbus", "source"]);
        let outcome = run.run_with_late(&other, || wait_until(|| path.exists()));
        outcome.assert_silent_success();
        assert_eq!(archive.names(), [tombstone(&name)]);
        assert_eq!(other.segment_requests().len(), 0);
    }
}

#[test]
fn a_segment_deleted_during_its_transfer_is_dropped() {
    let node = Node::start();
    let name = node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", &[1; 5000]);
    node.fault(On::Segment, Fault::HangInBody(100));
    let archive = Archive::new();
    let running =
        archive.backfill([&*node.url(), "desertbus", "source", "-v", "--timeout=20s"]).start();
    assert!(
        node.wait_for_request(
            |r| r.path.contains("/segments/"),
            std::time::Duration::from_secs(20)
        )
    );
    archive.write(&format!("desertbus/source/{HOUR}/{}", tombstone(&name)), b"");
    // The listing is less than a second old, so the node isn't asked again; a tombstone hides a
    // file beside it.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    node.release();
    running.outcome().assert_code(0).assert_says("it was deleted on purpose");
    assert_eq!(archive.names(), [tombstone(&name)]);
}

#[test]
fn a_local_file_with_a_tombstone_is_left_alone() {
    for source in Source::both() {
        let archive = Archive::new();
        let name = archive.put("00:00.0-2.0-full", b"still here");
        source.add_named(HOUR, &tombstone(&name), b"");
        source.fill(&archive, &[]).assert_code(0).assert_says("lists a tombstone for");
        assert_eq!(archive.names(), [tombstone(&name), name.clone()]);

        // Not even a repair touches it.
        let path = format!("desertbus/source/{HOUR}/{name}");
        archive.write(&path, b"corrupt");
        source.add_named(HOUR, &name, b"still here");
        source.fill(&archive, &["--verify"]).assert_silent_success();
        assert_eq!(archive.files()[&path], b"corrupt");
    }
}

#[test]
fn a_chat_tombstone_is_copied_too() {
    let node = Node::start();
    let name = node.add_chat("desertbus", HOUR, "00:00", b"[]");
    let tombstone = name.replace(".json", ".tombstone");
    node.add_tombstone("desertbus", "chat", HOUR, &tombstone);
    let archive = Archive::new();
    archive.backfill([&*node.url(), "desertbus", "chat"]).run().assert_silent_success();
    assert_eq!(archive.names(), [tombstone]);
}

#[test]
fn a_recording_here_by_another_clock_is_not_fetched() {
    for source in Source::both() {
        let archive = Archive::new();
        archive.put("00:00.0-2.0-full", b"first");
        source.add(HOUR, "00:00.0009-2.0-full", b"first");
        let same_time = source.add(HOUR, "00:00.0009-2.0-full", b"other");
        // At the turn of the hour, on both sides.
        let last = segment_name("59:59.9995-2.0-full", b"last");
        archive.write(&format!("desertbus/source/2018-11-10T04/{last}"), b"last");
        source.add(HOUR, "00:00.0-2.0-full", b"last");
        let next = segment_name("00:00.0-2.0-full", b"next");
        archive.write(&format!("desertbus/source/2018-11-10T06/{next}"), b"next");
        source.add(HOUR, "59:59.9995-2.0-full", b"next");
        let before = archive.files().len();
        let outcome = source.fill(&archive, &["--print", "-v"]);
        outcome.assert_code(0).assert_says("is a near duplicate of 00:00.0-2.0-full-");
        // A recording in the neighbouring hour is named with that hour.
        outcome.assert_says("is a near duplicate of 2018-11-10T04/59:59.9995-2.0-full-");
        outcome.assert_says("is a near duplicate of 2018-11-10T06/00:00.0-2.0-full-");
        outcome.assert_says("3 near duplicates skipped");
        assert_eq!(outcome.stdout, format!("desertbus/source/{HOUR}/{same_time}\n"));
        assert_eq!(archive.files().len(), before + 1);
    }
}

#[test]
fn of_two_recordings_on_two_nodes_one_is_fetched() {
    let (a, b) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    for n in 0..50 {
        let content = format!("segment {n}");
        a.add("desertbus", "source", HOUR, &format!("{n:02}:00.0000-2.0-full"), content.as_bytes());
        b.add("desertbus", "source", HOUR, &format!("{n:02}:00.0007-2.0-full"), content.as_bytes());
    }
    // The first recording is at the end of an hour by one clock, and in the next hour by the other.
    a.add("desertbus", "source", HOUR, "59:59.9998-2.0-full", b"turn");
    b.add("desertbus", "source", "2018-11-10T06", "00:00.0004-2.0-full", b"turn");
    let archive = Archive::new();
    let nodes = format!("{},{}", a.url(), b.url());
    for dry in ["--dry-run", "--print"] {
        let outcome = archive.backfill([&*nodes, "desertbus", "source", dry]).run();
        outcome.assert_code(0);
        assert_eq!(outcome.stdout.lines().count(), 51, "{}", outcome.stdout);
    }
    assert_eq!(a.segment_requests().len() + b.segment_requests().len(), 51);
    archive.backfill([&*nodes, "desertbus", "source", "--print"]).run().assert_silent_success();
}

#[test]
fn a_recording_that_fails_by_one_name_is_fetched_by_another() {
    let (a, b) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    a.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"content");
    a.fault(On::Segment, Fault::Corrupt);
    let good = b.add("desertbus", "source", HOUR, "00:00.0007-2.0-full", b"content");
    let archive = Archive::new();
    let nodes = format!("{},{}", a.url(), b.url());
    let run = archive.backfill([&*nodes, "desertbus", "source"]);
    run.run_with_late(&b, || a.wait_for_requests(1, Request::is_segment)).assert_code(0);
    assert_eq!(archive.names(), [good]);
}

#[test]
fn a_recording_deleted_by_one_name_is_deleted_by_all() {
    for source in Source::both() {
        let (a, b) = (Node::start_at("127.0.0.3"), Node::start_at("127.0.0.2"));
        a.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"content");
        let other = b.add("desertbus", "source", HOUR, "00:00.0007-2.0-full", b"content");
        a.fault(On::Segment, Fault::HangInBody(3));
        source.add_named(HOUR, &tombstone(&other), b"");
        let archive = Archive::new();
        let nodes = format!("{},{},{}", a.url(), b.url(), source.address());
        let run = archive.backfill([&*nodes, "desertbus", "source"]);
        let outcome = match &source {
            Source::Http(node) => {
                // The first name is being fetched, and both names are known, before the tombstone
                // is listed.
                b.hold();
                run.run_with_late(node, || {
                    a.wait_for_requests(1, Request::is_segment);
                    b.release();
                    b.wait_for_requests(1, |request| request.resource.ends_with(HOUR));
                })
            }
            Source::Directory(_) => run.run(),
        };
        outcome.assert_code(0);
        assert_eq!(archive.names(), [tombstone(&other)]);
        // It isn't fetched in the next pass either, from a node that lists only the first name.
        archive.backfill([&*a.url(), "desertbus", "source"]).run().assert_silent_success();
        assert_eq!(archive.names(), [tombstone(&other)]);
    }
}

#[test]
fn a_recording_deleted_at_the_turn_of_an_hour_stays_deleted() {
    let node = Node::start();
    let before = segment_name("59:59.9998-2.0-full", b"turn");
    node.add("desertbus", "source", "2018-11-10T06", "00:00.0004-2.0-full", b"turn");
    let archive = Archive::new();
    let path = format!("desertbus/source/{HOUR}/{}", tombstone(&before));
    archive.write(&path, b"");
    for hours in ["all", "2018-11-10T06"] {
        let outcome = archive.backfill([&node.url(), "desertbus", "source", hours, "-v"]).run();
        outcome.assert_code(0).assert_says("has a tombstone");
        assert_eq!(archive.names(), [tombstone(&before)]);
    }
}

#[test]
fn partial_segments_are_kept_beside_the_full_one() {
    for source in Source::both() {
        let mut names = vec![
            source.add(HOUR, "00:00.0-2.0-full", b"all of it"),
            source.add(HOUR, "00:00.0-2.0-suspect", b"all of it, perhaps"),
            source.add(HOUR, "00:00.0-2.0-partial", b"a part"),
        ];
        names.sort();
        let archive = Archive::new();
        source.fill(&archive, &[]).assert_silent_success();
        assert_eq!(archive.names(), names);
    }
}

#[test]
fn extra_files_are_filled_and_checked() {
    for source in Source::both() {
        source.add(HOUR, "00:00.0-2.0-full", b"segment");
        let (url, image) = (hash_of(b"http://x"), hash_of(b"image"));
        source.add_extra("emotes", "a/deep/é 1.png", b"emote");
        source.add_extra("emotes", "b.png", b"theirs");
        source.add_extra("emotes", "empty.txt", b"");
        source.add_extra("media", &format!("{url}/{image}.png"), b"image");
        source.add_extra("media", &format!("{url}/{image}.metadata.json"), b"{}");
        source.add_extra("media", &format!("{url}/{}.gif", hash_of(b"lost")), b"spoilt");
        source.add_extra("other", "not asked for", b"");
        let archive = Archive::new();
        archive.write("emotes/b.png", b"ours");
        let outcome = source.fill(&archive, &["--extras", "emotes,media", "-p"]);
        outcome.assert_code(3).assert_says("content does not match its hash");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        let files: BTreeMap<String, Vec<u8>> =
            archive.files().into_iter().filter(|(path, _)| !path.ends_with(".ts")).collect();
        let expected = [
            ("emotes/a/deep/é 1.png".to_owned(), &b"emote"[..]),
            ("emotes/b.png".to_owned(), b"ours"),
            ("emotes/empty.txt".to_owned(), b""),
            (format!("media/{url}/{image}.metadata.json"), b"{}"),
            (format!("media/{url}/{image}.png"), b"image"),
        ];
        assert_eq!(files, expected.map(|(path, content)| (path, content.to_vec())).into());
        assert_eq!(outcome.stdout.lines().count(), 5);
    }
}

#[test]
fn extra_files_stay_in_their_directory() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"segment");
    let hostile = [
        "../escaped",
        "/etc/escaped",
        "a/../../escaped",
        "a//b",
        "",
        ".hidden",
        "a/.hidden/b",
        "nul\0",
        "line\nbreak",
        "x/2018-11-10T05/00:00.0-2.0-full-junk.ts",
        ".",
        "..",
        "a/",
    ];
    for path in hostile {
        node.add_extra("emotes", path, b"hostile");
    }
    node.add_extra("emotes", "being written.png.0000.temp", b"half");
    node.add_extra("emotes", "good.png", b"good");
    let archive = Archive::new();
    let outcome = Source::Http(node).fill(&archive, &["--extras=emotes", "-v"]);
    outcome
        .assert_code(0)
        .assert_says("emotes/../escaped is not a valid name: it begins with a dot");
    outcome
        .assert_says("emotes/line\\nbreak is not a valid name")
        .assert_says("being written.png.0000.temp is being written");
    let refused = outcome.stderr.matches("is not a valid name").count();
    assert_eq!(refused, hostile.len());
    assert_eq!(paths(&archive)[1..], ["emotes/good.png"]);
    assert!(!archive.path().parent().unwrap().join("escaped").exists());
}

#[test]
fn extra_files_without_hash_or_length_are_not_trusted() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"segment");
    node.add_extra("emotes", "whole.png", b"in chunks");
    node.add_extra("emotes", "cut.png", b"who knows whether this is all");
    node.fault_path("/segments/emotes/whole.png", Fault::Chunked);
    node.fault_path("/segments/emotes/cut.png", Fault::CutOffUnannounced(10));
    let archive = Archive::new();
    let outcome = Source::Http(node).fill(&archive, &["--extras=emotes"]);
    outcome.assert_code(3).assert_says("it may be incomplete");
    assert_eq!(paths(&archive)[1..], ["emotes/whole.png"]);
}

#[test]
fn a_node_too_old_for_extra_files_is_a_warning_once() {
    let (old, new) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    old.fault(On::Extras, Fault::Status(404));
    let name = old.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"segment");
    new.add_extra("emotes", "a.png", b"emote");
    new.add_extra("media", "a.png", b"no media by name");
    let archive = Archive::new();
    let nodes = format!("{},{}", old.url(), new.url());
    let args = [&*nodes, "desertbus", "source", "--extras=emotes,media"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(0);
    assert_eq!(
        outcome.stderr,
        "backfiller: warning: node 127.0.0.1 is too old to list extra files\n"
    );
    let segment = format!("desertbus/source/{HOUR}/{name}");
    assert_eq!(paths(&archive), [&segment, "emotes/a.png", "media/a.png"]);
}

#[test]
fn an_extra_directory_can_t_be_a_stream() {
    let archive = Archive::new();
    for (extras, why) in [
        ("desertbus", "is a selected STREAM, whose segments are fetched anyway"),
        ("../x", "begins with a dot"),
        ("", "the list has an empty entry"),
        (" emotes", "\" emotes\" begins with a blank (remove it)"),
    ] {
        let args = ["http://127.0.0.9:1", "desertbus", "source", "--extras", extras];
        archive.backfill(args).run().assert_code(2).assert_says("--extras: ").assert_says(why);
    }
}

#[test]
fn a_corrupt_segment_is_replaced_by_a_good_one() {
    for source in Source::both() {
        let archive = Archive::new();
        let name = archive.put("00:00.0-2.0-full", b"good");
        archive.put("00:02.0-2.0-full", b"untouched");
        let path = format!("desertbus/source/{HOUR}/{name}");
        for corrupt in [&b"spoilt"[..], b"", b"goo", b"good and more"] {
            archive.write(&path, corrupt);
            source.add(HOUR, "00:00.0-2.0-full", b"good");
            // Without --verify, content is not checked.
            source.fill(&archive, &[]).assert_silent_success();
            assert_eq!(archive.files()[&path], corrupt);

            let dry = source.fill(&archive, &["--verify", "--dry-run"]);
            dry.assert_code(3)
                .assert_says(&format!("{path} is corrupt: content does not match its hash"));
            assert_eq!(dry.stdout, format!("{path}\n"));
            assert_eq!(archive.files()[&path], corrupt);

            let outcome = source.fill(&archive, &["--verify", "-v"]);
            outcome.assert_code(0).assert_says(&format!("{path} is corrupt"));
            outcome.assert_says("1 corrupt segment repaired");
            assert_eq!(archive.files()[&path], b"good");
            archive.assert_whole();
        }
    }
}

#[test]
fn any_recording_of_a_corrupt_segment_repairs_it() {
    let next = "2018-11-10T06";
    let (in_hour, other) = ((HOUR, "10:00.0000-2.0-full"), (HOUR, "10:00.0007-2.0-full"));
    let (last, first) = ((HOUR, "59:59.9998-2.0-full"), (next, "00:00.0004-2.0-full"));
    for (here, lists) in [
        (in_hour, vec![vec![other]]),
        (in_hour, vec![vec![other, in_hour]]),
        (in_hour, vec![vec![other], vec![in_hour]]),
        (last, vec![vec![first]]),
        (first, vec![vec![last, first], vec![last]]),
    ] {
        let archive = Archive::new();
        let path = format!("desertbus/source/{}/{}", here.0, segment_name(here.1, b"content"));
        archive.write(&path, b"spoilt");
        let nodes: Vec<Node> =
            (1..=lists.len()).map(|n| Node::start_at(&format!("127.0.0.{n}"))).collect();
        for (node, segments) in nodes.iter().zip(&lists) {
            for (hour, stem) in segments {
                node.add("desertbus", "source", hour, stem, b"content");
            }
        }
        let nodes: Vec<String> = nodes.iter().map(Node::url).collect();
        let args = [&*nodes.join(","), "desertbus", "source", "--verify", "--print"];
        let dry = archive.backfill(args.iter().chain(&["--dry-run", "-v"])).run();
        dry.assert_code(3);
        assert_eq!(dry.stdout.lines().count(), 1, "{lists:?}: {}", dry.stdout);
        let outcome = archive.backfill(args.iter().chain(&["-v"])).run();
        outcome.assert_code(0).assert_says("1 corrupt segment repaired");
        assert_eq!(outcome.stdout, format!("{path}\n"));
        assert_eq!(archive.files(), [(path, b"content".to_vec())].into());
        archive.backfill(args).run().assert_silent_success();
    }
}

#[test]
fn a_corrupt_segment_without_a_source_stays_and_is_reported() {
    for source in Source::both() {
        let archive = Archive::new();
        let (lost, spoilt) =
            (archive.put("00:00.0-2.0-full", b"good"), archive.put("00:02.0-2.0-full", b"too"));
        let path = |name: &str| format!("desertbus/source/{HOUR}/{name}");
        archive.write(&path(&lost), b"corrupt here");
        archive.write(&path(&spoilt), b"corrupt here");
        source.add_named(HOUR, &spoilt, b"corrupt there");
        let outcome = source.fill(&archive, &["--verify", "-v"]);
        outcome.assert_code(3).assert_says("2 corrupt segments not repaired");
        for name in [lost, spoilt] {
            let told = format!(
                "warning: {} is corrupt, and no node could provide a good copy",
                path(&name)
            );
            outcome.assert_says(&told);
            assert_eq!(archive.files()[&path(&name)], b"corrupt here");
        }
    }
}

#[test]
fn only_the_selected_segments_are_checked() {
    let source = Source::Directory(Archive::new());
    source.add(HOUR, "30:00.0-2.0-full", b"x");
    let archive = Archive::new();
    let name = segment_name("00:00.0-2.0-full", b"good");
    for path in [
        "desertbus/source/2018-11-10T06",
        "desertbus/480p/2018-11-10T05",
        "other/source/2018-11-10T05",
    ] {
        archive.write(&format!("{path}/{name}"), b"corrupt");
    }
    source.fill(&archive, &[HOUR, "--verify"]).assert_silent_success();
    // Directory nodes are not checked.
    let Source::Directory(disk) = &source else { unreachable!() };
    disk.write(&format!("desertbus/source/{HOUR}/{name}"), b"corrupt");
    source.fill(&archive, &[HOUR, "--verify"]).assert_code(3);
    assert_eq!(disk.files()[&format!("desertbus/source/{HOUR}/{name}")], b"corrupt");
}

#[test]
fn verify_checks_the_whole_archive() {
    let source = Source::Directory(Archive::new());
    let archive = Archive::new();
    let mut corrupted = Vec::new();
    for hour in 0..5 {
        for minute in 0..40 {
            let content = format!("{hour} {minute}").repeat(1000);
            let hour = format!("2018-11-10T{hour:02}");
            let name = source.add(&hour, &format!("{minute:02}:00.0-2.0-full"), content.as_bytes());
            let is_corrupt = minute % 10 == 3;
            let content = if is_corrupt { content.replace('1', "2") } else { content };
            let path = format!("desertbus/source/{hour}/{name}");
            archive.write(&path, content.as_bytes());
            if is_corrupt && content.contains('2') {
                corrupted.push(path);
            }
        }
    }
    let outcome = source.fill(&archive, &["--verify", "--print"]);
    outcome.assert_code(0);
    let mut printed: Vec<&str> = outcome.stdout.lines().collect();
    printed.sort();
    assert!(printed.len() > 4);
    assert!(printed.iter().all(|path| outcome.stderr.contains(path)));
    archive.assert_whole();
}

fn hours_ago(hours: i64) -> String {
    (Utc::now() - TimeDelta::hours(hours)).format("%Y-%m-%dT%H").to_string()
}

#[test]
fn old_hours_are_deleted_except_for_foreign_files() {
    for source in Source::both() {
        source.add(&hours_ago(1), "00:00.0-2.0-full", b"new");
        let archive = Archive::new();
        let name = segment_name("00:00.0-2.0-full", b"old");
        let chat = format!("00:00-{}.json", hash_of(b"[]"));
        let (old, older, kept) = (hours_ago(26), hours_ago(100), hours_ago(23));
        for path in [
            format!("desertbus/source/{old}/{name}"),
            format!("desertbus/source/{older}/{name}"),
            format!(
                "desertbus/source/{older}/{}",
                tombstone(&segment_name("00:02.0-2.0-full", b""))
            ),
            format!(
                "desertbus/source/{older}/00:04.0-2.0-temp-6f0f9d1e-0000-4000-8000-000000000000.ts"
            ),
            format!("desertbus/source/{older}/notes.txt"),
            format!("desertbus/source/{kept}/{name}"),
            format!("desertbus/480p/{older}/{name}"),
            format!("desertbus/chat/{older}/{chat}"),
            format!("other/source/{older}/{name}"),
            format!("desertbus/source/not an hour/{name}"),
        ] {
            archive.write(&path, b"");
        }
        let before = paths(&archive);
        let options = ["last:3", "--delete-older-than=24h", "-v"];

        let dry = source.fill(&archive, &[&options[..], &["--dry-run"]].concat());
        dry.assert_code(0).assert_says("2 old segments would be deleted");
        for hour in [&old, &older] {
            assert!(dry.stdout.contains(&format!("desertbus/source/{hour}/\n")), "{}", dry.stdout);
        }
        assert_eq!(paths(&archive), before);

        let outcome = source.fill(&archive, &options);
        outcome.assert_code(0).assert_says("2 old segments deleted");
        outcome.assert_says(&format!(
            "desertbus/source/{older} stays, with 3 files other than segments"
        ));
        assert!(!archive.path().join("desertbus/source").join(&old).exists());
        let left: Vec<String> = before
            .into_iter()
            .filter(|path| {
                !(path.contains(&format!("source/{old}/"))
                    || *path == format!("desertbus/source/{older}/{name}"))
            })
            .collect();
        let now: Vec<String> =
            paths(&archive).into_iter().filter(|p| !p.contains(&hours_ago(1))).collect();
        assert_eq!(now, left);
    }
}

#[test]
fn hours_to_delete_cannot_be_selected() {
    let node = Node::start();
    let archive = Archive::new();
    for hours in ["all", "last:27", "2018-11-10T05", &format!("{}..", hours_ago(25)), ".."] {
        let args = [&*node.url(), "desertbus", "source", hours, "--delete-older-than=24h"];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(2).assert_says("--delete-older-than deletes the hours before");
    }
    assert_eq!(node.requests().len(), 0);
    for hours in ["last:25", &format!("{}..", hours_ago(23))] {
        let args = [&*node.url(), "desertbus", "source", hours, "--delete-older-than=24h"];
        archive.backfill(args).run().assert_code(0);
    }
}

#[test]
fn an_age_before_the_first_hour_deletes_nothing() {
    let archive = Archive::new();
    let name = segment_name("00:00.0-2.0-full", b"odd");
    archive.write(&format!("desertbus/source/0000-01-01T00/{name}"), b"odd");
    let args = ["none", "desertbus", "source", "--delete-older-than=3000y"];
    archive.backfill(args).run().assert_silent_success();
    assert_eq!(archive.names(), [name]);
}

#[test]
fn deletion_follows_no_foreign_links() {
    if !is_root() {
        return;
    }
    let source = Source::Http(Node::start());
    source.add(&hours_ago(1), "00:00.0-2.0-full", b"new");
    let (archive, elsewhere, other_disk) = (Archive::new(), Archive::new(), Archive::new());
    let name = segment_name("00:00.0-2.0-full", b"old");
    let (old, older) = (hours_ago(50), hours_ago(60));
    elsewhere.write(&format!("{old}/{name}"), b"old");
    elsewhere.write("precious.ts", b"old");
    archive.write(&format!("desertbus/source/{older}/x"), b"");
    let dir = archive.path().join("desertbus/source");
    symlink(elsewhere.path().join(&old), dir.join(&old)).unwrap();
    symlink(elsewhere.path().join("precious.ts"), dir.join(&older).join(&name)).unwrap();
    // A whole variant on another disk: by a link of ours, and by a link of another user.
    other_disk.write(&format!("{old}/{name}"), b"old");
    symlink(other_disk.path(), archive.path().join("desertbus/160p")).unwrap();
    let planted = archive.path().join("desertbus/480p");
    symlink(elsewhere.path(), &planted).unwrap();
    std::os::unix::fs::lchown(&planted, Some(65534), Some(65534)).unwrap();
    let before = elsewhere.files();
    let address = source.address();
    let args = [&*address, "desertbus", "source,160p", "last:3", "--delete-older-than=24h"];
    let outcome = archive.backfill(args).run();
    outcome.assert_says(&format!("desertbus/source/{old} was not deleted: it is not a directory"));
    assert!(other_disk.files().is_empty());
    let args = [&*address, "desertbus", "480p", "last:3", "--delete-older-than=24h"];
    archive.backfill(args).run().assert_code(1).assert_says("a symbolic link");
    assert_eq!(elsewhere.files(), before);
    assert!(dir.join(&older).join(&name).exists());
}

/// A bare 14 once meant seconds, and deleted everything.
#[test]
fn an_age_without_a_unit_or_below_an_hour_is_refused() {
    let archive = Archive::new();
    let name = segment_name("00:00.0-2.0-full", b"old");
    archive.write(&format!("desertbus/source/{}/{name}", hours_ago(50)), b"old");
    let node = Node::start();
    for age in ["14", "0", "59m", "1s", "14days ago"] {
        let option = format!("--delete-older-than={age}");
        let outcome = archive.backfill([&*node.url(), "desertbus", "source", "last:3", &option]);
        outcome.run().assert_code(2).assert_says("--delete-older-than");
    }
    assert_eq!(archive.names(), [name]);
    assert!(node.requests().is_empty());
}

/// A pass with an old hour to delete, over nodes with these clocks (in hours relative to ours).
fn deletion(hours_apart: &[Option<i64>], fault: Option<Fault>) -> (Archive, Outcome, String) {
    let nodes: Vec<Node> =
        (1..=hours_apart.len()).map(|n| Node::start_at(&format!("127.0.0.{n}"))).collect();
    for (node, apart) in nodes.iter().zip(hours_apart) {
        node.add("desertbus", "source", &hours_ago(1), "00:00.0-2.0-full", b"new");
        if let Some(apart) = apart {
            let at = chrono::Utc::now() + chrono::TimeDelta::hours(*apart);
            node.tell_time(&at.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
        if let Some(fault) = &fault {
            node.fault(On::Any, fault.clone());
        }
    }
    let archive = Archive::new();
    let old = segment_name("00:00.0-2.0-full", b"old");
    archive.write(&format!("desertbus/source/{}/{old}", hours_ago(50)), b"old");
    let urls = nodes.iter().map(Node::url).collect::<Vec<_>>().join(",");
    let args = ["desertbus", "source", "last:3", "--delete-older-than=24h", "-v", "--retries=0"];
    let metrics = tempfile::tempdir().unwrap();
    let file = metrics.path().join("m.prom");
    let mut run = archive.backfill([&*urls].into_iter().chain(args));
    run.command.arg("--metrics-file").arg(&file);
    let outcome = run.run();
    (archive, outcome, std::fs::read_to_string(file).unwrap())
}

#[test]
fn old_hours_are_deleted_if_the_clock_is_confirmed_or_unknown() {
    for hours_apart in [&[None][..], &[Some(0)], &[Some(-600), Some(0)], &[None, Some(0)]] {
        let (archive, outcome, _) = deletion(hours_apart, None);
        outcome.assert_code(0).assert_says("1 old segment deleted");
        assert_eq!(archive.names().len(), 1, "{hours_apart:?}");
    }
}

#[test]
fn a_wrong_clock_prevents_deletion() {
    for hours_apart in [&[Some(-600)][..], &[Some(2)], &[Some(-600), None]] {
        let (archive, outcome, metrics) = deletion(hours_apart, None);
        outcome.assert_code(3).assert_says("no old hours were deleted: this machine's clock is ");
        let refused = "backfiller_last_pass_not_deleted{hours=\"last:3\",reason=\"clock\",";
        assert!(metrics.contains(refused), "{metrics}");
        assert_eq!(archive.names().len(), 2, "{hours_apart:?}");
    }
}

#[test]
fn a_clock_that_is_set_back_during_the_pass_deletes_nothing_too_young() {
    if !has_tool("faketime") {
        return;
    }
    let mut faketime = Command::new("faketime");
    let library = faketime.args(["-m", "now", "printenv", "LD_PRELOAD"]).output().unwrap().stdout;
    let node = Node::start();
    node.add("desertbus", "source", &hours_ago(1), "00:00.0-2.0-full", b"new");
    node.tell_time(&chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string());
    let archive = Archive::new();
    let young = segment_name("00:00.0-2.0-full", b"young");
    archive.write(&format!("desertbus/source/{}/{young}", hours_ago(50)), b"young");
    let clock = tempfile::tempdir().unwrap();
    // Replaced as a whole, since it may be read at any time.
    let set_clock = |offset: &str| {
        std::fs::write(clock.path().join("new"), offset).unwrap();
        std::fs::rename(clock.path().join("new"), clock.path().join("clock")).unwrap();
    };
    set_clock("+30d");
    let args = [&*node.url(), "desertbus", "source", "last:3", "--delete-older-than=72h"];
    let run = archive
        .backfill(args)
        .env("LD_PRELOAD", String::from_utf8(library).unwrap().trim())
        .env("FAKETIME_TIMESTAMP_FILE", clock.path().join("clock"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    node.hold();
    let running = run.start();
    assert!(node.wait_for_request(|_| true, std::time::Duration::from_secs(20)));
    set_clock("+0");
    node.release();
    running.outcome().assert_code(0);
    assert_eq!(archive.names(), [young]);
}

#[test]
fn a_pass_without_an_answering_node_deletes_nothing() {
    let (archive, outcome, _) = deletion(&[None], Some(Fault::Reset));
    outcome.assert_code(4).assert_says("no old hours were deleted: no node answered");
    assert_eq!(archive.names().len(), 1);
}

#[test]
fn an_interrupted_pass_deletes_nothing() {
    let node = Node::start();
    node.add("desertbus", "source", &hours_ago(1), "00:00.0-2.0-full", b"new");
    node.fault(On::Segment, Fault::Hang);
    let archive = Archive::new();
    let name = segment_name("00:00.0-2.0-full", b"old");
    archive.write(&format!("desertbus/source/{}/{name}", hours_ago(50)), b"old");
    let args = [&*node.url(), "desertbus", "source", "last:3", "--delete-older-than=24h"];
    let running = archive.backfill(args).start();
    assert!(
        node.wait_for_request(
            |r| r.path.contains("/segments/"),
            std::time::Duration::from_secs(20)
        )
    );
    running.signal("TERM");
    running.outcome().assert_code(143);
    assert_eq!(archive.names(), [name]);
}

#[test]
fn a_signal_ends_a_deletion_in_order() {
    if !has_tool("strace") {
        return;
    }
    let node = Node::start();
    let archive = Archive::new();
    let hour = hours_ago(50);
    for n in 0..60 {
        let name = segment_name(&format!("{n:02}:00.0-2.0-full"), b"old");
        archive.write(&format!("desertbus/source/{hour}/{name}"), b"old");
    }
    let left = || archive.names().len();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.prom");
    // strace makes the disk slow.
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=unlinkat"]);
    strace.args(["-e", "inject=unlinkat:delay_enter=20000", env!("CARGO_BIN_EXE_backfiller")]);
    strace.args([&*node.url(), "desertbus", "source", "last:3", "--delete-older-than=24h"]);
    strace.args(["--json", "--metrics-file"]).arg(&file);
    strace.env("BACKFILLER_BASE_DIR", archive.path());
    let mut strace = strace.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    while left() == 60 && strace.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let id = strace.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let killed = Command::new("kill").args(["-s", "TERM", children.trim()]).status().unwrap();
    assert!(killed.success());
    let output = strace.wait_with_output().unwrap();
    assert_eq!(support::shell_status(output.status), Some(143));
    assert!((1..60).contains(&left()), "{}", left());
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let deleted = lines.iter().find(|line| line["event"] == "deleted").unwrap();
    assert_eq!((&deleted["left"], lines.len()), (&left().into(), 2));
    let summary = lines.last().unwrap();
    assert_eq!((&summary["status"], &summary["deleted"]), (&143.into(), &(60 - left()).into()));
    let metrics = std::fs::read_to_string(file).unwrap();
    assert!(
        metrics.contains("backfiller_last_pass_status{hours=\"last:3\",file=\"m.prom\"} 143\n")
    );
}

//! The coverage map, the remaining holes, and the JSON output of a pass.

mod node;
mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use node::{Fault, Node, On};
use serde_json::Value;
use support::terminal::Stdout;
use support::{Archive, HOUR, Outcome, node_with};

/// Adds a segment to an hour of an archive, from one second to another.
fn cover(archive: &Archive, hour: &str, from: u32, to: u32, kind: &str) -> String {
    let content = format!("{hour} {from} {to} {kind}");
    let name = node::segment_name(&stem(from, to, kind), content.as_bytes());
    archive.write(&format!("desertbus/source/{hour}/{name}"), content.as_bytes());
    name
}

fn stem(from: u32, to: u32, kind: &str) -> String {
    format!("{:02}:{:02}.0-{}.0-{kind}", from / 60, from % 60, to - from)
}

fn lines(outcome: &Outcome) -> Vec<&str> {
    outcome.stdout.lines().collect()
}

/// The line of an hour in a map.
fn row(hour: &str, cells: &str, percent: u8) -> String {
    format!("{hour}  {cells} {percent:>3}%")
}

fn repeated(cells: &[(&str, usize)]) -> String {
    cells.iter().map(|(cell, times)| cell.repeat(*times)).collect()
}

#[test]
fn the_map_shows_each_minute_and_then_the_holes() {
    let node = Node::start();
    for (from, to) in [(1200, 1500), (1500, 1530)] {
        node.add("desertbus", "source", HOUR, &stem(from, to, "full"), &from.to_be_bytes());
    }
    let archive = Archive::new();
    cover(&archive, "2018-11-10T04", 0, 3600, "full");
    for (from, to, kind) in [
        (0, 600, "full"),
        (600, 660, "suspect"),
        (660, 720, "partial"),
        (720, 1002, "full"),
        (1004, 1200, "full"),
        (2400, 3600, "full"),
    ] {
        cover(&archive, HOUR, from, to, kind);
    }
    let deleted = cover(&archive, HOUR, 1800, 1860, "full");
    archive
        .write(&format!("desertbus/source/{HOUR}/{}", deleted.replace(".ts", ".tombstone")), b"");
    cover(&archive, "2018-11-10T06", 0, 600, "full");
    let before = archive.files();

    // A dry run prints only the map.
    let dry = archive.backfill([&*node.url(), "desertbus", "source", "-n", "--coverage"]).run();
    dry.assert_code(0);
    let begin = [("#", 10), ("~", 2), ("#", 4), ("!", 1), ("#", 3)];
    let end = [(".", 4), ("x", 1), (".", 9), ("#", 20)];
    let cells = repeated(&begin) + "+++++!" + &repeated(&end);
    assert_eq!(lines(&dry)[3], row(HOUR, &cells, 77));
    dry.assert_code(0);
    assert!(dry.stdout.contains("+ would be fetched"), "{}", dry.stdout);
    assert!(!dry.stdout.contains(".ts"), "{}", dry.stdout);
    assert_eq!(archive.files(), before);

    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--coverage"]).run();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr, "");
    let cells = repeated(&begin) + "+++++!" + &repeated(&end);
    let expected = [
        "desertbus/source".to_owned(),
        "               0         10        20        30        40        50".into(),
        row("2018-11-10T04", &"#".repeat(60), 100),
        row(HOUR, &cells, 77),
        row("2018-11-10T06", &format!("{:60}", "#".repeat(10)), 100),
        "               # here   + fetched now   ~ only suspect or partial".into(),
        "               x deleted on purpose   ! partly missing   . missing".into(),
        "hole: 2018-11-10T05:16:42.000 to 2018-11-10T05:16:44.000, 2.000 s".into(),
        "hole: 2018-11-10T05:25:30.000 to 2018-11-10T05:30:00.000, 4 min 30.000 s".into(),
        "hole: 2018-11-10T05:31:00.000 to 2018-11-10T05:40:00.000, 9 min 00.000 s".into(),
        "covered: 89.509% of 2 h 09 min 00.000 s; 3 holes, 13 min 32.000 s missing".into(),
    ];
    assert_eq!(lines(&outcome), expected);
    assert!(lines(&outcome).iter().all(|line| line.len() <= 80));

    // JSON has the same holes.
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--json"]).run();
    let events = events(&outcome);
    let coverage = &events.last().unwrap()["coverage"][0];
    assert_eq!(
        (&coverage["stream"], &coverage["variant"]),
        (&"desertbus".into(), &"source".into())
    );
    assert_eq!(coverage["expected_seconds"], 7740.0);
    assert_eq!(coverage["missing_seconds"], 812.0);
    assert_eq!(coverage["holes"].as_array().unwrap().len(), 3);
    let first = &coverage["holes"][0];
    assert_eq!(first["start"], "2018-11-10T05:16:42.000Z");
    assert_eq!(first["end"], "2018-11-10T05:16:44.000Z");
    assert_eq!(first["seconds"], 2.0);
}

#[test]
fn paths_are_printed_before_the_map() {
    let (node, names) = node_with(1);
    for option in ["--print", "--dry-run"] {
        let archive = Archive::new();
        let args = [&*node.url(), "desertbus", "source", "--print", option, "--coverage"];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(0);
        assert_eq!(lines(&outcome)[0], format!("desertbus/source/{HOUR}/{}", names[0]));
        assert_eq!(lines(&outcome)[1], "desertbus/source");
    }
}

#[test]
fn fail_on_holes_fails_the_pass_and_names_the_longest_hole() {
    let node = Node::start();
    let archive = Archive::new();
    for (from, to) in [(0, 10), (12, 20), (80, 90)] {
        node.add("desertbus", "source", HOUR, &stem(from, to, "full"), &from.to_be_bytes());
    }
    let args = [&*node.url(), "desertbus", "source"];
    archive.backfill(args).run().assert_silent_success();
    let outcome = archive.backfill(args.iter().chain(&["--fail-on-holes"])).run();
    outcome.assert_code(3);
    assert_eq!(outcome.stdout, "");
    let said = "backfiller: warning: desertbus/source has 2 holes, 1 min 02.000 s in all; the longest \
                is 1 min 00.000 s from 2018-11-10T05:00:20.000 (--coverage shows them)\n";
    assert_eq!(outcome.stderr, said);
    // Chat has no durations, and an unknown stream has no hours.
    let args = [&*node.url(), "desertbus,other", "chat", "--fail-on-holes"];
    archive.backfill(args).run().assert_code(0);
    for second in [10, 20, 50] {
        let to = if second == 10 { 12 } else { second + 30 };
        node.add("desertbus", "source", HOUR, &stem(second, to, "partial"), b"what was found");
    }
    let args = [&*node.url(), "desertbus", "source", "--fail-on-holes"];
    archive.backfill(args).run().assert_silent_success();
}

#[test]
fn an_unfetched_segment_is_a_hole_at_the_ends_too() {
    let node = Node::start();
    for from in [0, 2, 4] {
        node.add("desertbus", "source", HOUR, &stem(from, from + 2, "full"), &from.to_be_bytes());
    }
    node.fault_path(
        &format!(
            "/segments/desertbus/source/{HOUR}/{}",
            node::segment_name(&stem(4, 6, "full"), &4_u32.to_be_bytes())
        ),
        Fault::Corrupt,
    );
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--coverage"]).run();
    outcome.assert_code(3);
    assert!(outcome.stdout.contains("hole: 2018-11-10T05:00:04.000 to 2018-11-10T05:00:06.000"));
    // An earlier hour shows that the stream did not begin here.
    cover(&archive, "2018-11-10T03", 0, 2, "full");
    let outcome =
        archive.backfill([&*node.url(), "desertbus", "source", HOUR, "--fail-on-holes"]).run();
    outcome.assert_code(3);
    let early =
        archive.backfill([&*node.url(), "desertbus", "source", "--coverage", "..2018-11-10T04"]);
    let outcome = early.run();
    outcome.assert_code(0);
    assert!(
        outcome.stdout.contains("hole: 2018-11-10T03:00:02.000 to 2018-11-10T05:00:00.000"),
        "{}",
        outcome.stdout
    );
}

/// The reported coverage of `desertbus/source`: expected and missing seconds, and the holes.
fn coverage_of(archive: &Archive, node: &Node, hours: &str, code: i32) -> (f64, f64, usize) {
    let args = [&*node.url(), "desertbus", "source", hours, "--json", "--fail-on-holes"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(code);
    let coverage = &events(&outcome).pop().unwrap()["coverage"][0];
    let seconds = |field: &str| coverage[field].as_f64().unwrap();
    let holes = coverage["holes"].as_array().unwrap().len();
    (seconds("expected_seconds"), seconds("missing_seconds"), holes)
}

#[test]
fn an_hour_without_segments_does_not_prove_a_stream() {
    let node = Node::start();
    for minute in 0..60 {
        let stem = format!("{minute:02}:00.0-60.0-full");
        node.add("desertbus", "source", HOUR, &stem, stem.as_bytes());
    }
    let tombstone = node::segment_name("00:00.0-2.0-full", b"").replace(".ts", ".tombstone");
    for hour in ["2000-01-01T00", "2018-11-10T04", "2018-11-10T07", "2099-01-01T00"] {
        node.list_also("desertbus", "source", hour, "junk");
        node.add_tombstone("desertbus", "source", hour, &tombstone);
    }
    for hours in ["2018-11-10", "all", HOUR, "2000-01-01..2018-11-10T05"] {
        assert_eq!(coverage_of(&Archive::new(), &node, hours, 0), (3600.0, 0.0, 0), "{hours}");
    }
}

#[test]
fn segments_of_the_neighbouring_hours_count() {
    let node = Node::start();
    let add = |minute: u32| {
        let hour = format!("2018-11-10T{:02}", 4 + minute / 60);
        let stem = format!("{:02}:30.0-60.0-full", minute % 60);
        node.add("desertbus", "source", &hour, &stem, minute.to_string().as_bytes());
    };
    // Each hour ends in the middle of a segment.
    [57, 58, 59].into_iter().for_each(add);
    (62..122).for_each(add);
    // The previous hour shows that the stream was running, so the first minutes are a hole.
    let archive = Archive::new();
    assert_eq!(coverage_of(&archive, &node, HOUR, 3), (3570.0, 120.0, 1));
    [60, 61].into_iter().for_each(add);
    for archive in [&archive, &Archive::new()] {
        assert_eq!(coverage_of(archive, &node, HOUR, 0), (3570.0, 0.0, 0));
    }
    // All three hours are selected; after that, the local files are enough to tell.
    assert_eq!(coverage_of(&archive, &node, "all", 0), (3900.0, 0.0, 0));
    let before = node.count_of("/files/desertbus/source/2018-11-10T04");
    assert_eq!(coverage_of(&archive, &node, HOUR, 0), (3600.0, 0.0, 0));
    assert_eq!(node.count_of("/files/desertbus/source/2018-11-10T04"), before);
}

#[test]
fn a_dry_run_shows_the_holes_that_would_remain() {
    let node = Node::start();
    for (from, to) in [(0, 10), (12, 20), (20, 30)] {
        node.add("desertbus", "source", HOUR, &stem(from, to, "full"), &from.to_be_bytes());
    }
    let archive = Archive::new();
    for (hours, code) in [("all", 3), ("2018-11-11..", 0)] {
        let args = [&*node.url(), "desertbus", "source", hours, "-n", "--fail-on-holes"];
        archive.backfill(args).run().assert_code(code);
    }
    node.add("desertbus", "source", HOUR, &stem(10, 12, "partial"), b"found");
    let args = [&*node.url(), "desertbus", "source", "-n", "--fail-on-holes"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_signal_ends_the_measurement_in_order() {
    if !support::has_tool("strace") {
        return;
    }
    let (node, _) = node_with(1);
    let archive = Archive::new();
    for n in 0..200 {
        cover(&archive, &format!("2018-10-{:02}T{:02}", 1 + n / 24, n % 24), 0, 2, "full");
    }
    let dir = tempfile::tempdir().unwrap();
    let metrics = dir.path().join("backfiller.prom");
    let log = dir.path().join("pid");
    // strace makes reading a directory slow.
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64"]);
    strace.args(["-e", "inject=getdents64:delay_enter=20000", "sh", "-c"]);
    strace.args(["echo $$ > \"$1\"; shift; exec \"$@\"", "sh"]).arg(&log);
    strace.arg(env!("CARGO_BIN_EXE_backfiller")).arg("--base-dir").arg(archive.path());
    strace.args([&*node.url(), "desertbus", "source", "--json", "--metrics-file"]).arg(&metrics);
    let mut child = strace
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("\"event\":\"segment\""));
    let pid = std::fs::read_to_string(log).unwrap();
    let fds = format!("/proc/{}/fd", pid.trim());
    let is_measuring = || {
        let fds = std::fs::read_dir(&fds).unwrap().flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|path| path.to_string_lossy().contains("/2018-10-"))
    };
    while !is_measuring() {
        std::thread::yield_now();
    }
    let kill = std::process::Command::new("kill").args(["-s", "TERM", pid.trim()]).status();
    assert!(kill.unwrap().success());
    let summary: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&summary["event"], &summary["status"]), (&"summary".into(), &143.into()));
    assert_eq!(summary["coverage"], Value::Array(vec![]));
    assert_eq!(lines.next(), None);
    child.wait().unwrap();
    let metrics = std::fs::read_to_string(metrics).unwrap();
    assert!(
        metrics
            .contains("backfiller_last_pass_status{hours=\"all\",file=\"backfiller.prom\"} 143\n")
    );
}

#[test]
fn the_current_hour_is_judged_up_to_the_cutoff() {
    // Just after the turn of an hour, the hour is too short for this test.
    let now = loop {
        let now = Utc::now();
        if (20..3590).contains(&(now.minute() * 60 + now.second())) {
            break now;
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    };
    let hour = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H").to_string();
    let into = now.minute() * 60 + now.second();
    let node = Node::start();
    let archive = Archive::new();
    cover(&archive, &hour(now - TimeDelta::hours(1)), 0, 3600, "full");
    cover(&archive, &hour(now), 0, into - 10, "full");
    let run = |cutoff: &str| {
        let args = [&*node.url(), "desertbus", "source", "last:2", "--json", cutoff];
        let events = events(archive.backfill(args).run().assert_code(0));
        events.last().unwrap()["coverage"][0]["missing_seconds"].as_f64().unwrap()
    };
    assert_eq!(run("--recent-cutoff=60s"), 0.0);
    // This segment shows that the stream continues.
    cover(&archive, &hour(now + TimeDelta::hours(1)), 0, 2, "full");
    assert_eq!(run("--recent-cutoff=20s"), 0.0);
    let missing = run("--recent-cutoff=1s");
    assert!((9.0..20.0).contains(&missing), "{missing}");
}

#[test]
fn the_map_uses_blocks_and_colours_if_the_terminal_can() {
    let node = Node::start();
    let archive = Archive::new();
    cover(&archive, HOUR, 0, 120, "full");
    let map = |options: &[&str], locale: &str, stdout| {
        let args = [&*node.url(), "desertbus", "source", "--coverage"];
        let run = archive.backfill(args.iter().chain(options)).env("LC_ALL", locale);
        let shown = run.on_terminal_with(80, stdout, |_| {});
        shown.stdout + &shown.written
    };
    let on_terminal = map(&[], "C.UTF-8", Stdout::Terminal);
    assert!(on_terminal.contains("T05  \x1b[32m██\x1b[m"), "{on_terminal:?}");
    let plain_letters = map(&[], "C", Stdout::Terminal);
    assert!(plain_letters.contains("T05  \x1b[32m##\x1b[m"), "{plain_letters:?}");
    for (options, stdout) in [(&["--color=never"][..], Stdout::Terminal), (&[], Stdout::Pipe)] {
        let plain = map(options, "C.UTF-8", stdout);
        assert!(plain.contains("T05  ##   "), "{plain:?}");
        assert!(!plain.contains("\x1b[3"), "{plain:?}");
    }
    let forced = map(&["--color=always"], "en_GB.utf8", Stdout::Pipe);
    assert!(forced.contains("T05  \x1b[32m██\x1b[m"), "{forced:?}");
}

/// The output as JSON Lines.
fn events(outcome: &Outcome) -> Vec<Value> {
    let events: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["schema"] == 1));
    assert_eq!(events.last().unwrap()["event"], "summary", "{}", outcome.stdout);
    assert_eq!(events.iter().filter(|event| event["event"] == "summary").count(), 1);
    events
}

fn find<'a>(events: &'a [Value], event: &str) -> &'a Value {
    events.iter().find(|e| e["event"] == event).unwrap_or_else(|| panic!("{event}: {events:#?}"))
}

#[test]
fn json_has_a_line_for_each_event() {
    let (a, b) = (Node::start(), Node::start_at("127.0.0.2"));
    let content = b"ten bytes.";
    let name = a.add("desertbus", "source", HOUR, "00:00.0-2.0-full", content);
    let deleted = node::segment_name("00:02.0-2.0-full", b"deleted");
    a.add_tombstone("desertbus", "source", HOUR, &deleted.replace(".ts", ".tombstone"));
    let spoilt = a.add("desertbus", "source", HOUR, "00:04.0-2.0-full", b"spoilt");
    let place = format!("desertbus/source/{HOUR}");
    a.fault_path(&format!("/segments/{place}/{spoilt}"), Fault::Corrupt);
    a.list_also("desertbus", "source", HOUR, "junk");
    a.add_extra("emotes", "x.png", b"emote");
    b.fault(On::Hours, Fault::Hang);
    let archive = Archive::new();
    let corrupt = archive.put("00:06.0-2.0-full", b"corrupt");
    archive.write(&format!("{place}/{corrupt}"), b"xorrupt");
    cover(&archive, "2018-10-01T00", 0, 2, "full");

    let nodes = format!("a={},b={}", a.url(), b.url());
    let kept_since: DateTime<Utc> = "2018-10-15T00:00:00Z".parse().unwrap();
    let age = format!("--delete-older-than={}h", (Utc::now() - kept_since).num_hours());
    let args = [&*nodes, "desertbus", "source", "2018-11-01T00..", "--json", "--verify"];
    let args = args.iter().copied().chain(["--extras=emotes", "--timeout=500ms", &age]);
    let outcome = archive.backfill(args).run();
    outcome.assert_code(3);
    let events = events(&outcome);

    let segment = find(&events, "segment");
    assert_eq!(segment["path"], format!("{place}/{name}"));
    assert_eq!((&segment["node"], &segment["bytes"]), (&"a".into(), &10.into()));
    assert!(segment["ms"].as_u64().unwrap() < 20_000);
    let expected = format!("{place}/{}", deleted.replace(".ts", ".tombstone"));
    assert_eq!(find(&events, "tombstone")["path"], expected);
    assert_eq!(find(&events, "extra")["path"], "emotes/x.png");
    let skipped = find(&events, "skipped");
    assert_eq!(skipped["path"], format!("{place}/junk"));
    assert_eq!((&skipped["node"], &skipped["reason"]), (&"a".into(), &"no_name".into()));
    let failed = |event: &&Value| event["event"] == "failed" && event["what"] == "file";
    let failed = events.iter().find(failed).unwrap();
    assert_eq!(failed["node"], "a");
    assert_eq!(failed["path"], format!("{place}/{spoilt}"));
    assert!(failed["reason"].as_str().unwrap().contains("does not match its hash"));
    let node = find(&events, "node");
    assert_eq!((&node["node"], &node["state"]), (&"b".into(), &"given_up".into()));
    assert_eq!(find(&events, "corrupt")["path"], format!("{place}/{corrupt}"));
    let deleted = find(&events, "deleted");
    assert_eq!(deleted["path"], "desertbus/source/2018-10-01T00/");
    assert_eq!(deleted["segments"], 1);

    let summary = find(&events, "summary");
    assert_eq!(summary["status"], 3);
    assert_eq!(summary["complete"], false);
    for (field, count) in [
        ("files", 2),
        ("bytes", 15),
        ("tombstones", 1),
        ("failed", 1),
        ("corrupt", 1),
        ("deleted", 1),
    ] {
        assert_eq!(summary[field], count, "{field}: {summary:#}");
    }
    assert_eq!(summary["nodes"][0]["files"], 2);
    assert_eq!(summary["nodes"][1]["given_up"], true);
    let started: DateTime<Utc> = summary["started"].as_str().unwrap().parse().unwrap();
    assert!((Utc::now() - started).num_seconds() < 60);
}

#[test]
fn json_of_a_dry_run_shows_what_would_be_fetched() {
    let (node, names) = node_with(2);
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "-n", "--json"]).run();
    outcome.assert_code(0);
    let events = events(&outcome);
    let mut paths: Vec<&str> = events[..2].iter().map(|e| e["path"].as_str().unwrap()).collect();
    paths.sort();
    let expected: Vec<String> =
        names.iter().map(|name| format!("desertbus/source/{HOUR}/{name}")).collect();
    assert_eq!(paths, expected);
    assert!(events.iter().all(|event| event["dry_run"] == true));
    assert_eq!(events[2]["would_fetch"], 2);
}

#[test]
fn json_lines_are_written_at_once() {
    let (node, names) = node_with(2);
    node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{}", names[1]), Fault::Hang);
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "--json", "--order=forward", "--timeout=20s"];
    let mut run = archive.backfill(args);
    let mut child = run.command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains(&names[0]));
    let second = |r: &node::Request| r.path.contains(&names[1]);
    assert!(node.wait_for_request(second, std::time::Duration::from_secs(20)));
    node.release();
    assert!(lines.next().unwrap().contains(&names[1]));
    assert!(lines.next().unwrap().contains("\"event\":\"summary\""));
    assert_eq!(lines.next(), None);
    assert!(child.wait().unwrap().success());
}

#[test]
fn json_always_ends_with_the_status() {
    let (node, _) = node_with(2);
    let archive = Archive::new();
    let dead = ["http://127.0.0.9:1", "desertbus", "source", "--json", "--retries=0"];
    let outcome = archive.backfill(dead).run();
    outcome.assert_code(4);
    assert_eq!(events(&outcome).last().unwrap()["status"], 4);

    let scratch = tempfile::tempdir().unwrap();
    let unreachable = scratch.path().join("a link to itself");
    std::os::unix::fs::symlink(&unreachable, &unreachable).unwrap();
    let outcome = archive.backfill(dead).env("BACKFILLER_BASE_DIR", &unreachable).run();
    outcome.assert_code(1);
    assert_eq!(find(&events(&outcome), "failed")["what"], "this machine");

    node.fault(On::Segment, Fault::Hang);
    let args = [&*node.url(), "desertbus", "source", "--json", "--lock", "--timeout=20s"];
    let running = archive.backfill(args).start();
    let asked = |r: &node::Request| r.path.contains("/segments/");
    assert!(node.wait_for_request(asked, std::time::Duration::from_secs(20)));
    let outcome = archive.backfill(args).run();
    outcome.assert_code(75);
    assert_eq!(events(&outcome)[0]["status"], 75);
    running.signal("TERM");
    let outcome = running.outcome();
    outcome.assert_code(143);
    let summary = &events(&outcome)[0];
    assert_eq!((&summary["status"], &summary["coverage"]), (&143.into(), &Value::Array(vec![])));
}

#[test]
fn options_that_would_mix_their_output_are_refused() {
    let archive = Archive::new();
    for options in [&["--json", "--print"][..], &["--json", "-0"], &["--coverage", "--print0"]] {
        let args = ["http://127.0.0.9:1", "desertbus", "source"];
        let outcome = archive.backfill(args.iter().chain(options)).run();
        outcome.assert_code(2).assert_says("cannot be used with");
    }
}

#[test]
fn ten_holes_are_shown_by_default_and_all_with_v() {
    let (archive, node) = (Archive::new(), Node::start());
    // Twelve holes, each one second longer than the previous one.
    for n in 0..13 {
        archive.put(&format!("{n:02}:00.0-{}.0-full", 59 - n), format!("{n}").as_bytes());
    }
    let args = [&*node.url(), "desertbus", "source", "--coverage", "-v"];
    let few = archive.backfill(&args[..4]).run();
    few.assert_code(0);
    let holes: Vec<&str> =
        few.stdout.lines().filter_map(|line| line.strip_prefix("hole: ")).collect();
    assert_eq!(holes.len(), 10);
    assert!(holes[0].starts_with("2018-11-10T05:02:57.000 to ") && holes.is_sorted(), "{holes:?}");
    assert!(few.stdout.contains("and 2 more holes, none of them longer (-v shows them)\n"));
    assert!(few.stdout.contains("; 12 holes, "), "{}", few.stdout);
    let all = archive.backfill(args).run().stdout;
    assert_eq!(all.lines().filter(|line| line.starts_with("hole: ")).count(), 12);
    assert!(!all.contains("more hole"), "{all}");
}

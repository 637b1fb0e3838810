//! What is printed on standard output and standard error, and when nothing is.

mod node;
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use node::{Fault, Node, On, Request, segment_name};
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::Value;
use support::terminal::Stdout;
use support::{Archive, HOUR, Run, each_case, node_with, segment_content};

fn paths(names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("desertbus/source/{HOUR}/{name}")).collect()
}

#[test]
fn print_shows_each_path_as_it_lands() {
    let (node, names) = node_with(5);
    for (option, end) in [("--print", '\n'), ("-p", '\n'), ("--print0", '\0'), ("-0", '\0')] {
        let archive = Archive::new();
        let args = [&*node.url(), "desertbus", "source", option, "--order=forward", "-j1"];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(0);
        assert_eq!(outcome.stderr, "");
        let expected: String = paths(&names).iter().map(|path| format!("{path}{end}")).collect();
        assert_eq!(outcome.stdout, expected);
        for path in paths(&names) {
            assert!(archive.path().join(path).is_file());
        }
    }
}

#[test]
fn print_does_not_wait_for_the_end_of_the_pass() {
    let (node, names) = node_with(2);
    node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{}", names[1]), Fault::Hang);
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "--print", "--order=forward", "--timeout=20s"];
    let mut run = archive.backfill(args);
    let mut child = run.command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), paths(&names)[0]);
    node.wait_for_requests(2, Request::is_segment);
    node.release();
    assert_eq!(lines.next().unwrap().unwrap(), paths(&names)[1]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_pass_interrupted_during_a_listing_prints_paths_once() {
    let (node, names) = node_with(2);
    let lists = Node::start_at("127.0.0.2");
    lists.list_also("desertbus", "source", HOUR, &names[0]);
    lists.fault(On::Listing, Fault::Hang);
    let nodes = format!("{},{}", node.url(), lists.url());
    for (option, lines) in [("--print", 2), ("--json", 3)] {
        let archive = Archive::new();
        let args = [&*nodes, "desertbus", "source", "-v", "--timeout=20s", option];
        let running = archive.backfill(args).start();
        names.iter().for_each(|name| running.wait_until_said(&format!("/{name} (")));
        running.signal("INT");
        let outcome = running.outcome();
        outcome.assert_code(130).assert_says_not("panicked");
        assert_eq!(outcome.stdout.lines().count(), lines, "{}", outcome.stdout);
    }
}

#[test]
fn a_dry_run_prints_what_it_would_fetch_and_fetches_nothing() {
    let (node, names) = node_with(5);
    let other = Node::start_at("127.0.0.2");
    let only = other.add("desertbus", "source", HOUR, "59:00.0-2.0-full", b"only here");
    other.add("desertbus", "source", HOUR, "00:00.0-2.0-full", segment_content(0).as_bytes());
    let archive = Archive::new();
    archive.put("00:02.0-2.0-full", segment_content(1).as_bytes());
    let before = archive.files();
    let nodes = format!("{},{}", node.url(), other.url());
    for (option, end) in [("-n", '\n'), ("--dry-run", '\n'), ("-n0", '\0')] {
        let outcome = archive.backfill([&*nodes, "desertbus", "source", option]).run();
        outcome.assert_code(0);
        assert_eq!(outcome.stderr, "");
        let mut printed: Vec<&str> = outcome.stdout.split_terminator(end).collect();
        printed.sort();
        let mut expected = names.clone();
        expected.remove(1);
        expected.push(only.clone());
        assert_eq!(printed, paths(&expected));
        assert_eq!(archive.files(), before);
    }
    assert_eq!(node.segment_requests().len() + other.segment_requests().len(), 0);
}

#[test]
fn a_dry_run_exits_with_the_statuses_of_a_pass() {
    let (node, _) = node_with(1);
    node.fault(On::Listing, Fault::Status(404));
    let archive = Archive::new();
    for (url, code) in [(&*node.url(), 3), ("http://127.0.0.9:1", 4)] {
        archive.backfill([url, "desertbus", "source", "-n", "--retries=0"]).run().assert_code(code);
    }
}

#[test]
fn v_reports_each_file_and_a_summary() {
    let (node, names) = node_with(2);
    let archive = Archive::new();
    archive.put("00:00.0-2.0-full", segment_content(0).as_bytes());
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "-v"]).run();
    outcome.assert_code(0).assert_says(&format!("fetched {}", paths(&names)[1]));
    outcome.assert_says("2 names, 1 already here, 1 to fetch");
    outcome.assert_says("backfiller: complete: fetched 1 segment (1000 B) from 1 node in ");
    assert_eq!(outcome.stdout, "");
    outcome.assert_says_not("debug");
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "-vv"]).run();
    outcome.assert_code(0).assert_says("debug: ");
}

#[test]
fn q_prints_only_errors() {
    let (node, _) = node_with(1);
    node.list_also("desertbus", "source", HOUR, "junk");
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "-q"];
    archive.backfill(args).run().assert_silent_success();
    let outcome =
        archive.backfill(["http://127.0.0.9:1", "desertbus", "source", "-q", "--retries=0"]).run();
    outcome.assert_code(4);
    assert_eq!(outcome.stderr, "backfiller: error: no node answered: nothing could be listed\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_pass_quietly() {
    let (node, _) = node_with(300);
    let archive = Archive::new();
    let mut run = archive.backfill([&*node.url(), "desertbus", "source", "--print", "-v", "-j1"]);
    let mut child = run.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let outcome = child.wait_with_output().unwrap();
    assert_eq!(outcome.status.code(), Some(141));
    let stderr = String::from_utf8(outcome.stderr).unwrap();
    assert!(!stderr.contains("error") && !stderr.contains("warning"), "{stderr}");
    assert!(archive.names().len() < 300);
    archive.assert_whole();
}

#[test]
fn unwritable_standard_output_is_an_error() {
    let (node, _) = node_with(3);
    for option in ["--print", "--json", "--coverage"] {
        let archive = Archive::new();
        let mut run = archive.backfill([&*node.url(), "desertbus", "source", option]);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let outcome = run.command.stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(outcome.status.code(), Some(1));
        let stderr = String::from_utf8(outcome.stderr).unwrap();
        let said = "backfiller: error: writing to standard output: no space left on device\n";
        assert_eq!(stderr, said, "{option}");
    }
}

#[test]
fn foreign_text_is_escaped_for_terminals() {
    let node = Node::start();
    for junk in ["\x1b[2Jcleared", "two\nlines", "\u{202e}reversed", "bell\u{7}", "\u{9b}31mred"] {
        node.list_also("desertbus", "source", HOUR, junk);
        node.list_also("desertbus", "source", junk, "x");
    }
    let archive = Archive::new();
    for color in ["--color=never", "--color=auto"] {
        let args = [&*node.url(), "desertbus", "source", "-vv", color];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(0).assert_says("\\u{1b}[2Jcleared");
        let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!outcome.stderr.contains(hostile), "{}", outcome.stderr);
        assert!(outcome.stderr.lines().all(|line| line.starts_with("backfiller: ")));
    }
}

#[test]
fn messages_are_coloured_only_on_request() {
    let (node, _) = node_with(1);
    node.list_also("desertbus", "source", HOUR, "a/junk");
    let archive = Archive::new();
    let run = |color| archive.backfill([&*node.url(), "desertbus", "source", color]).run().stderr;
    // An impossible file name is a warning even without a terminal.
    assert!(run("--color=always").starts_with("backfiller: \x1b[1;33mwarning: \x1b[0mnode"));
    assert!(run("--color=auto").starts_with("backfiller: warning: node"));
}

#[test]
fn a_terminal_shows_a_bar_and_then_one_summary_line() {
    let (node, _) = node_with(6);
    node.fault(On::Segment, Fault::Delay(Duration::from_millis(300)));
    each_case([20, 80, 200], |columns| {
        let archive = Archive::new();
        let run = archive.backfill([&*node.url(), "desertbus", "source", "-j2"]);
        let shown = run.on_terminal(columns);
        assert_eq!(shown.stdout, "");
        assert!(shown.written.contains("/6 fetched"), "{shown:?}");
        assert_eq!(shown.written.contains(" left  ["), columns >= 80, "{shown:?}");
        let summary = shown.screen.concat();
        let said = "backfiller: complete: fetched 6 segments (5.86 KiB) from 1 node in ";
        assert!(summary.starts_with(said), "{shown:?}");
        assert!(!summary.contains("/6 fetched"), "{shown:?}");
        // At most ten draws per second, plus the first and the last.
        let draws = shown.written.matches("/6 fetched").count();
        let most = shown.took.as_secs_f64() * 10.0 + 2.0;
        assert!(draws >= 2 && draws as f64 <= most, "{draws}: {shown:?}");
    });
}

#[test]
fn an_error_before_the_pass_leaves_no_bar() {
    let archive = Archive::new();
    let run = archive.backfill(["http://127.0.0.1:1", "desertbus", "source"]);
    let shown = run.env("http_proxy", "not a proxy").on_terminal(100);
    assert_eq!(shown.code, Some(2));
    let said = "backfiller: error: http_proxy in the environment is not a valid proxy URL";
    assert_eq!(shown.screen, [said]);
}

#[test]
fn the_bar_uses_blocks_and_colours_if_the_terminal_can() {
    let cases = [
        ("C.UTF-8", "", "[\x1b[32m█"),
        ("C.UTF-8", "1", "[█"),
        ("C", "", "[\x1b[32m="),
        ("C", "1", "[="),
    ];
    each_case(cases, |(locale, no_colour, start)| {
        let (node, _) = node_with(6);
        node.fault(On::Segment, Fault::Delay(Duration::from_millis(150)));
        let archive = Archive::new();
        let run = archive.backfill([&*node.url(), "desertbus", "source", "-j2"]);
        let shown = run.env("LC_ALL", locale).env("NO_COLOR", no_colour).on_terminal(120);
        assert!(shown.written.contains(start), "{start} {shown:?}");
        assert_eq!(shown.screen.len(), 1, "{shown:?}");
    });
}

#[test]
fn the_environment_decides_about_colour() {
    let archive = Archive::new();
    let name = segment_name("00:00.0-2.0-full", b"what it was");
    archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"corrupt");
    let run = |color: &str, environment: &[(&str, &str)]| {
        let args = ["none", "desertbus", "source", "--verify", "--coverage", "--color", color];
        let run = archive.backfill(args);
        environment.iter().fold(run, |run, (name, value)| run.env(name, value))
    };
    let forced = ("CLICOLOR_FORCE", "1");
    for (color, environment, is_coloured) in [
        ("auto", &[][..], false),
        ("auto", &[forced], true),
        ("auto", &[("CLICOLOR", "1")], false),
        ("auto", &[forced, ("NO_COLOR", "1")], false),
        ("never", &[forced], false),
        ("always", &[("NO_COLOR", "1")], true),
    ] {
        let outcome = run(color, environment).run();
        outcome.assert_code(3).assert_says("is corrupt");
        for written in [&outcome.stdout, &outcome.stderr] {
            assert_eq!(written.contains("\x1b["), is_coloured, "{environment:?}: {written}");
        }
    }
    // Usage errors are coloured, too.
    for (color, is_coloured) in [("auto", true), ("never", false)] {
        let outcome = Run::new(["--color", color, "--nonsense"]).env(forced.0, forced.1).run();
        outcome.assert_code(2).assert_says("--nonsense");
        assert_eq!(outcome.stderr.contains("\x1b[1;31merror: "), is_coloured, "{outcome:?}");
    }
    for (environment, is_coloured) in [
        (&[][..], true),
        (&[("TERM", "dumb")], false),
        (&[("CLICOLOR", "0")], false),
        (&[("TERM", "dumb"), forced], true),
    ] {
        let shown = run("auto", environment).on_terminal_with(120, Stdout::Terminal, |_| {});
        for coloured in ["\x1b[1;33mwarning: ", "\x1b[32m#"] {
            assert_eq!(shown.written.contains(coloured), is_coloured, "{environment:?} {shown:?}");
        }
    }
}

#[test]
fn the_summary_counts_what_was_checked() {
    let (node, _) = node_with(3);
    let archive = Archive::new();
    for n in 0..2 {
        archive.put(&format!("00:{:02}.0-2.0-full", n * 2), segment_content(n).as_bytes());
    }
    let args = [&*node.url(), "desertbus", "source", "-v", "--verify"];
    let outcome = archive.backfill(args).run();
    let said = "complete: checked 2 segments (1.95 KiB); fetched 1 segment (1000 B) from 1 node";
    outcome.assert_code(0).assert_says(said);
    let outcome = archive.backfill(args).run();
    outcome.assert_says("complete: checked 3 segments (2.93 KiB); nothing was missing (");
}

#[test]
fn another_node_is_credited_only_if_it_provided_the_file() {
    let nodes = [Node::start(), Node::start_at("127.0.0.2"), Node::start_at("127.0.0.3")];
    for node in &nodes[..2] {
        let name = node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"one");
        node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{name}"), Fault::Corrupt);
    }
    let archive = Archive::new();
    let list = |nodes: &[Node]| nodes.iter().map(Node::url).collect::<Vec<_>>().join(",");
    let outcome = archive.backfill([&*list(&nodes[..2]), "desertbus", "source"]).run();
    outcome.assert_code(3).assert_says_not("another node provided");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    nodes[2].add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"one");
    let asked = nodes[0].segment_requests().len() + 1;
    let run = archive.backfill([&*list(&nodes), "desertbus", "source"]);
    let both_asked = || nodes[0].wait_for_requests(asked, Request::is_segment);
    let outcome = run.run_with_late(&nodes[2], both_asked);
    outcome.assert_code(0).assert_says("sent wrong content for 1 file that another node provided");
}

#[test]
fn a_path_out_of_the_archive_is_shown_as_a_name() {
    let node = Node::start();
    for name in ["../../../x", "/etc/passwd", "junk"] {
        node.list_also("desertbus", "source", HOUR, name);
    }
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--json"]).run();
    let lines = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    for name in ["../../../x", "/etc/passwd"] {
        let line = lines.iter().find(|line| line["name"] == name).unwrap();
        assert_eq!(line["path"], serde_json::Value::Null);
    }
    let line = lines.iter().find(|line| line["name"] == "junk").unwrap();
    assert_eq!(line["path"], format!("desertbus/source/{HOUR}/junk"));
    // A listing that failed has its path.
    node.fault(On::Hours, Fault::Status(403));
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--json"]).run();
    assert!(outcome.stdout.contains("\"what\":\"listing\",\"path\":\"desertbus/source\""));
}

#[test]
fn messages_and_paths_are_written_above_the_bar() {
    let (node, names) = node_with(20);
    node.fault(On::Segment, Fault::Delay(Duration::from_millis(100)));
    // Each name has a different reason.
    let junk = [
        ("junk", "does not end in .ts"),
        ("00:00.0.ts", "has fewer than four parts"),
        ("x-2.0-full-x.ts", "has a time that is not MM:SS or MM:SS.ffffff"),
    ];
    junk.iter().for_each(|(name, _)| node.list_also("desertbus", "source", HOUR, name));
    let other = Node::start_at("127.0.0.2");
    let archive = Archive::new();
    let nodes = format!("{},{}", node.url(), other.url());
    let run = archive.backfill([&*nodes, "desertbus", "source", "-j2", "--print"]);
    let shown = run.on_terminal_with(120, Stdout::Terminal, |_| {});
    let mut expected = paths(&names);
    let warning = |(name, why)| {
        format!(
            "backfiller: warning: node 127.0.0.1: desertbus/source/{HOUR}/{name} is not a valid \
             name: it {why}"
        )
    };
    expected.extend(junk.into_iter().map(warning));
    let mut seen = shown.screen.concat();
    // The terminal wraps the longest lines.
    for line in expected {
        assert_eq!(seen.matches(&line).count(), 1, "{line} {shown:?}");
        seen = seen.replacen(&line, "", 1);
    }
    assert!(seen.starts_with("backfiller: complete: fetched 20 segments"), "{seen}");
    assert_eq!(seen.matches("fetched").count(), 1, "{seen}");
}

#[test]
fn each_of_several_nodes_has_a_line() {
    let nodes = [1, 2, 3].map(|n| Node::start_at(&format!("127.0.0.{n}")));
    for node in &nodes {
        support::fill(node, 40);
    }
    nodes[0].fault(On::Segment, Fault::Delay(Duration::from_millis(100)));
    nodes[1].fault(On::Segment, Fault::Delay(Duration::from_millis(400)));
    nodes[2].fault(On::Listing, Fault::Hang);
    let list = format!("quick={},b={},c={}", nodes[0].url(), nodes[1].url(), nodes[2].url());
    let archive = Archive::new();
    let run = archive.backfill([&*list, "desertbus", "source", "-j2", "--timeout=1s"]);
    let shown = run.on_terminal(80);
    let draws: Vec<&str> = shown.written.split("/40 fetched").collect();
    let seen = |text: &str| draws.iter().any(|draw| draw.contains(text));
    for text in ["  quick ", "  b     ", "  c            0 files         0 B  given up", " slow, "]
    {
        assert!(seen(text), "{text}: {shown:?}");
    }
    assert_eq!(shown.code, Some(3));
    assert_eq!(shown.screen.len(), 4, "a warning and a summary of two lines each: {shown:?}");
    let summary = shown.screen[2..].concat();
    let why =
        "node c was given up: timed out after 1 s waiting for a response; fetched 40 segments";
    assert!(summary.contains(&format!("incomplete: {why}")), "{summary}");
}

#[test]
fn an_interrupted_bar_leaves_nothing_behind() {
    let (node, names) = node_with(5);
    // The last one never comes, so that the pass can't end before it is interrupted.
    node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{}", names[4]), Fault::Hang);
    let other = Node::start_at("127.0.0.2");
    let archive = Archive::new();
    let nodes = format!("{},{}", node.url(), other.url());
    let args = [&*nodes, "desertbus", "source", "-j1", "--order=forward", "--timeout=20s"];
    let shown = archive.backfill(args).on_terminal_with(80, Stdout::Terminal, |seat| {
        seat.wait_until_shown("4/5 fetched");
        seat.interrupt();
    });
    assert!(shown.written.contains("^C"), "{shown:?}");
    assert_eq!(shown.code, Some(130));
    assert_eq!(shown.screen.len(), 1, "{shown:?}");
    assert!(shown.screen[0].starts_with("backfiller: interrupted: fetched "), "{shown:?}");
}

#[test]
fn quiet_prints_nothing_on_a_terminal() {
    let (node, _) = node_with(3);
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "-q"]);
    assert_eq!(run.on_terminal(80).written, "");
}

#[test]
fn no_bar_is_shown_with_no_progress() {
    let (node, _) = node_with(3);
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "--progress=never"]);
    let written = run.on_terminal(80).written;
    assert!(written.starts_with("backfiller: complete: fetched 3 segments"), "{written:?}");
    assert_eq!(written.lines().count(), 1);
}

#[test]
fn long_names_are_shortened_in_messages() {
    let node = Node::start();
    node.list_also("desertbus", "source", HOUR, &"\x01".repeat(1 << 18));
    node.list_also("desertbus", "source", &"x".repeat(1 << 20), "x");
    node.list_also("desertbus", "source", HOUR, &"é".repeat(1 << 20));
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "-v"]).run();
    outcome.assert_code(0).assert_says("it is not a valid hour");
    assert!(outcome.stderr.len() < 20_000, "{} bytes", outcome.stderr.len());
}

#[test]
fn a_signal_ends_a_pass_whose_output_is_not_read() {
    let (node, _) = node_with(300);
    let archive = Archive::new();
    let mut run = archive.backfill([&*node.url(), "desertbus", "source", "--print", "-v"]);
    // Both are pipes that are never read.
    let mut child = run.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let arrived = |r: &node::Request| r.path.contains("/segments/");
    assert!(node.wait_for_request(arrived, Duration::from_secs(20)));
    let pid = child.id().to_string();
    let begun = std::time::Instant::now();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    let status = child.wait().unwrap();
    assert!(begun.elapsed() < support::AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(support::shell_status(status), Some(143));
    archive.assert_whole();
}

#[test]
fn closed_standard_output_is_an_error_if_it_is_needed() {
    let (node, names) = node_with(1);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backfiller.prom");
    let bin = env!("CARGO_BIN_EXE_backfiller");
    let run = |archive: &Archive, line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env("BIN", bin).env("NODE", node.url()).env("FILE", &file);
        shell.env("BACKFILLER_BASE_DIR", archive.path()).output().unwrap()
    };
    for option in ["--print", "--print0", "--json", "--coverage", "-n"] {
        let archive = Archive::new();
        let line = format!("\"$BIN\" {option} --metrics-file $FILE $NODE desertbus source >&-");
        let outcome = run(&archive, &line);
        assert_eq!(outcome.status.code(), Some(1), "{option} {outcome:?}");
        let said = "backfiller: error: writing to standard output: it is closed\n";
        assert_eq!(String::from_utf8_lossy(&outcome.stderr), said, "{option}");
        let metrics = fs::read_to_string(&file).unwrap();
        assert!(
            metrics.contains(
                "backfiller_last_pass_status{hours=\"all\",file=\"backfiller.prom\"} 1\n"
            )
        );
        // Nothing landed whose path could not be printed.
        assert!(archive.names().is_empty() && node.requests().is_empty());
    }
    for line in [
        "\"$BIN\" --help >&-",
        "unset BACKFILLER_BASE_DIR; \"$BIN\" --generate man >&-",
        "\"$BIN\" --version >&-",
    ] {
        assert_eq!(run(&Archive::new(), line).status.code(), Some(1), "{line}");
    }
    // Nothing needs to be printed, or the output is open.
    for redirected in [">&-", "--print >/dev/null", "--print 1<>/dev/null"] {
        let archive = Archive::new();
        let outcome = run(&archive, &format!("\"$BIN\" $NODE desertbus source {redirected}"));
        assert_eq!((outcome.status.code(), &*outcome.stderr), (Some(0), &b""[..]), "{redirected}");
        assert_eq!(archive.names(), names);
    }
}

#[test]
fn non_blocking_outputs_are_waited_for() {
    let (node, _) = node_with(50);
    (0..200).for_each(|n| node.list_also("desertbus", "source", HOUR, &format!("junk {n}")));
    let archive = Archive::new();
    for stream in [1, 2] {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        // The pipe is full.
        let mut filled = 0;
        while let Ok(written) = writer.write(&[b'\n'; 4096]) {
            filled += written;
        }
        let mut run = archive.backfill([&*node.url(), "desertbus", "source", "--json", "-v"]);
        match stream {
            1 => run.command.stdout(writer).stderr(Stdio::null()),
            _ => run.command.stderr(writer).stdout(Stdio::null()),
        };
        let mut child = run.command.stdin(Stdio::null()).spawn().unwrap();
        drop(run);
        assert!(node.wait_for_request(|r| r.path.contains("tombstones"), Duration::from_secs(20)));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let lines: Vec<&str> = text[filled..].lines().collect();
        assert!(lines.len() > 200, "{}", lines.len());
        match stream {
            1 => lines.iter().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap())),
            _ => assert!(lines.iter().all(|line| line.starts_with("backfiller: "))),
        }
    }
}

#[test]
fn a_dry_run_reports_the_known_size() {
    let disk = Archive::new();
    let there = [("00:00.0-2.0-full", 1 << 20), ("00:02.0-2.0-full", 512 << 10)];
    there.iter().for_each(|(stem, size)| drop(disk.put(stem, &vec![1; *size])));
    disk.write("emotes/a", &[1; 100]);
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "30:00.0-2.0-full", b"only by HTTP");
    let disk = disk.path().to_str().unwrap();
    for (nodes, said, bytes) in [
        (disk.to_owned(), "3 files would be fetched (1.50 MiB)", Some((3 << 19) + 100)),
        (node.url(), "1 file would be fetched;", None),
        (format!("{disk},{}", node.url()), "4 files would be fetched (at least 1.50 MiB)", None),
    ] {
        let archive = Archive::new();
        let args = [&*nodes, "desertbus", "source", "--extras=emotes", "-n", "-v"];
        let outcome = archive.backfill(args).run();
        assert!(format!("{};", outcome.stderr.trim_end()).contains(said), "{}", outcome.stderr);
        let outcome = archive.backfill(args.into_iter().chain(["--json"])).run();
        let lines = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let summary = lines.last().unwrap();
        assert_eq!(summary["would_fetch_bytes"].as_u64(), bytes, "{summary}");
        assert_eq!(summary["bytes"], 0);
        if let Some(bytes) = bytes {
            let sizes = lines[..lines.len() - 1].iter().filter_map(|line| line["bytes"].as_u64());
            assert_eq!(sizes.sum::<u64>(), bytes);
        }
    }
}

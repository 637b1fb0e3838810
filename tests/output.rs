//! What is on which stream, and when nothing is.

mod node;
mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use node::{Fault, Node, On};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use support::{Archive, HOUR, Run, node_with, segment_content};

fn paths(names: &[String]) -> Vec<String> {
    names.iter().map(|name| format!("desertbus/source/{HOUR}/{name}")).collect()
}

#[test]
fn print_tells_each_path_as_it_lands() {
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
fn print_doesn_t_wait_for_the_end() {
    let (node, names) = node_with(2);
    node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{}", names[1]), Fault::Hang);
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "--print", "--order=forward", "--timeout=20s"];
    let mut run = archive.backfill(args);
    let mut child = run.command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), paths(&names)[0]);
    node.release();
    assert_eq!(lines.next().unwrap().unwrap(), paths(&names)[1]);
    assert!(child.wait().unwrap().success());
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
fn a_dry_run_has_the_statuses_of_a_pass() {
    let (node, _) = node_with(1);
    node.fault(On::Listing, Fault::Status(404));
    let archive = Archive::new();
    archive.backfill([&*node.url(), "desertbus", "source", "-n"]).run().assert_code(3);
    archive.backfill(["http://127.0.0.9:1", "desertbus", "source", "-n"]).run().assert_code(4);
}

#[test]
fn v_tells_what_is_fetched_and_sums_up() {
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
fn q_leaves_only_errors() {
    let (node, _) = node_with(1);
    node.list_also("desertbus", "source", HOUR, "junk");
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "-q"];
    archive.backfill(args).run().assert_silent_success();
    let outcome =
        archive.backfill(["http://127.0.0.9:1", "desertbus", "source", "-q", "--retries=0"]).run();
    outcome.assert_code(4);
    assert_eq!(
        outcome.stderr,
        "backfiller: error: no node answered as it should: nothing could be listed\n"
    );
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
fn an_output_that_can_t_be_written_is_an_error() {
    let (node, _) = node_with(3);
    let archive = Archive::new();
    let mut run = archive.backfill([&*node.url(), "desertbus", "source", "--print"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let outcome = run.command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(outcome.status.code(), Some(1));
    let stderr = String::from_utf8(outcome.stderr).unwrap();
    assert!(stderr.contains("error: writing to standard output: No space left"), "{stderr}");
}

#[test]
fn foreign_text_reaches_no_terminal_unescaped() {
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
fn messages_are_coloured_only_where_wanted() {
    let (node, _) = node_with(1);
    node.list_also("desertbus", "source", HOUR, "junk");
    let archive = Archive::new();
    let run = |color| archive.backfill([&*node.url(), "desertbus", "source", color]).run().stderr;
    assert!(run("--color=always").starts_with("backfiller: \x1b[1;33mwarning: \x1b[0mnode"));
    assert!(run("--color=auto").starts_with("backfiller: warning: node"));
}

/// Runs with a terminal for standard error, and gives back all that is written there.
fn on_terminal(mut run: Run, columns: u16) -> (String, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    let fd: OwnedFd = terminal.into();
    let mut child =
        run.command.env("TERM", "xterm").stderr(fd).stdout(Stdio::piped()).spawn().unwrap();
    drop(run); // It holds the terminal open, too.
    let screen = thread::spawn(move || {
        let (mut screen, mut master) = (Vec::new(), File::from(master));
        // On Linux, reading fails when the last writer is gone.
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = master.read(&mut buffer) {
            screen.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8(screen).unwrap()
    });
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.wait().unwrap();
    (screen.join().unwrap(), stdout)
}

#[test]
fn on_a_terminal_there_is_a_bar_and_then_one_summary_line() {
    let (node, _) = node_with(6);
    node.fault(On::Segment, Fault::Delay(Duration::from_millis(300)));
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "-j2"]);
    let (screen, stdout) = on_terminal(run, 100);
    assert_eq!(stdout, "");
    assert!(screen.contains("/6 fetched"), "{screen:?}");
    let last = screen.rsplit("\x1b[2K").next().unwrap();
    assert!(
        last.contains("backfiller: complete: fetched 6 segments (5.86 KiB) from 1 node in "),
        "{screen:?}"
    );
    assert!(!last.contains("/6 fetched"));
}

#[test]
fn quiet_leaves_a_terminal_blank() {
    let (node, _) = node_with(3);
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "-q"]);
    assert_eq!(on_terminal(run, 80).0, "");
}

#[test]
fn a_dumb_terminal_gets_no_bar() {
    let (node, _) = node_with(3);
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "--progress=never"]);
    let (screen, _) = on_terminal(run, 80);
    assert!(screen.starts_with("backfiller: complete: fetched 3 segments"), "{screen:?}");
    assert_eq!(screen.lines().count(), 1);
}

#[test]
fn no_name_makes_a_message_long() {
    let node = Node::start();
    node.list_also("desertbus", "source", HOUR, &"\x01".repeat(1 << 18));
    node.list_also("desertbus", "source", &"x".repeat(1 << 20), "x");
    node.list_also("desertbus", "source", HOUR, &"é".repeat(1 << 20));
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "-v"]).run();
    outcome.assert_code(0).assert_says("it is no hour");
    assert!(outcome.stderr.len() < 20_000, "{} bytes", outcome.stderr.len());
}

#[test]
fn a_signal_ends_a_pass_that_nobody_reads() {
    let (node, _) = node_with(300);
    let archive = Archive::new();
    let mut run = archive.backfill([&*node.url(), "desertbus", "source", "--print", "-v"]);
    // Both are pipes that nobody empties.
    let mut child = run.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let arrived = |r: &node::Request| r.path.contains("/segments/");
    assert!(node.wait_for_request(arrived, Duration::from_secs(20)));
    let pid = child.id().to_string();
    let begun = std::time::Instant::now();
    assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    let status = child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(143));
    archive.assert_whole();
}

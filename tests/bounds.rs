//! The limits that this machine sets a pass: memory, threads and open files. Also signals: the
//! process dies of the signal, so that its parent sees it. `BACKFILLER_HOUR_NAMES` sets how many
//! names an hour of many recorders has (10,500).

mod node;
mod support;

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use node::{Fault, Node, On, segment_name};
use support::{
    Archive, HOUR, Run, fill, has_tool, is_root, node_with, number_from_env, segment_content,
    wait_until,
};

// ---- Memory -----------------------------------------------------------------------------------

/// An hour on disk with the segments of many recorders. The segments are empty if they will only be
/// listed.
fn many_recorders(names: usize, only_listed: bool) -> Archive {
    let disk = Archive::in_memory();
    let hour = disk.path().join(format!("desertbus/source/{HOUR}"));
    fs::create_dir_all(&hour).unwrap();
    for n in 0..names {
        let (recorder, n) = (n / 1800, n % 1800);
        let content = format!("{recorder} {n}");
        let stem = format!("{:02}:{:02}.{recorder:03}000-2.0-suspect", n / 30, n % 30 * 2);
        let name = hour.join(segment_name(&stem, content.as_bytes()));
        fs::write(name, if only_listed { "" } else { &content }).unwrap();
    }
    disk
}

#[test]
fn an_hour_of_many_recorders_is_listed_in_bounded_memory() {
    let disk = many_recorders(25_000, true);
    let archive = Archive::new();
    let node = disk.path().to_str().unwrap();
    let run = archive.backfill([node, "desertbus", "source", "--dry-run"]);
    let outcome = run.run_bounded();
    outcome.assert_code(0);
    assert_eq!(outcome.stdout.lines().count(), 25_000);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn an_hour_of_many_recorders_is_fetched_entirely() {
    let disk = many_recorders(number_from_env("BACKFILLER_HOUR_NAMES", 10_500), false);
    let archive = Archive::in_memory();
    let node = disk.path().to_str().unwrap();
    let run = archive.backfill([node, "desertbus", "source", "--no-fsync"]);
    run.run_bounded().assert_silent_success();
    assert_eq!(archive.names(), disk.names());
}

// ---- Threads ----------------------------------------------------------------------------------

#[test]
fn more_than_512_threads_are_refused() {
    let node = Node::start();
    let archive = Archive::new();
    for (nodes, jobs, said) in [
        (3, "256", "256 for each of 3 nodes makes 768 threads, more than 512: use --jobs 170 or"),
        (64, "9", "9 for each of 64 nodes makes 576 threads, more than 512: use --jobs 8 or less"),
    ] {
        let list: Vec<String> = (0..nodes).map(|n| format!("n{n}={}", node.url())).collect();
        let args = [&*list.join(","), "desertbus", "source", "--jobs", jobs];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(2).assert_says(said);
        assert_eq!(outcome.stderr.lines().count(), 1);
    }
    assert_eq!(node.connections(), 0);
    // Exactly the limit is allowed.
    let list: Vec<String> = (0..64).map(|n| format!("n{n}={}", node.url())).collect();
    archive.backfill([&*list.join(","), "desertbus", "source"]).run().assert_code(0);
}

/// A run with a limit, as a user who has no other process and owns the archive.
fn limited(archive: &Archive, limit: &str, args: &[&str]) -> Run {
    let user = 100_000 + std::process::id();
    std::os::unix::fs::chown(archive.path(), Some(user), None).unwrap();
    archive.backfill(args).with_user(user).below("prlimit", [limit])
}

#[test]
fn a_failure_to_start_a_thread_is_a_local_failure() {
    if !is_root() || !has_tool("setpriv") || !has_tool("prlimit") {
        return;
    }
    let (node, _) = node_with(1);
    // `all` is looked for with a thread per node.
    for (stream, variant) in [("desertbus", "source"), ("all", "all")] {
        let mut codes = Vec::new();
        // With so few threads, no worker starts or only the first one does.
        for threads in [1, 2, 3, 40] {
            let archive = Archive::new();
            let limit = format!("--nproc={threads}");
            let url = node.url();
            let args = [&*url, stream, variant, "--progress=never"];
            let outcome = limited(&archive, &limit, &args).run();
            assert!(!outcome.stderr.contains("panicked"), "{outcome:#?}");
            let code = outcome.code().unwrap();
            if code == 1 {
                outcome.assert_says("error: starting a thread");
                assert_eq!(outcome.stderr.lines().count(), 1, "{threads}: {outcome:#?}");
                assert_eq!(archive.names(), [""; 0]);
            }
            codes.push(code);
        }
        assert_eq!(codes, [1, 1, 1, 0], "{stream}");
    }
    // Nor can the progress bar have its thread.
    let args = [&*node.url(), "desertbus", "source", "--progress=always"];
    let outcome = limited(&Archive::new(), "--nproc=1", &args).run();
    outcome.assert_code(1).assert_says("error: starting a thread").assert_says_not("panicked");
}

// ---- Open files -------------------------------------------------------------------------------

/// Fills an archive from two nodes with at most this many open files. Returns whether that was
/// enough.
fn with_open_files(limit: usize, nodes: &str, names: &[String]) -> bool {
    let archive = Archive::new();
    let run = archive.backfill([nodes, "desertbus", "source", "-v"]);
    let outcome = run.below("prlimit", [format!("--nofile={limit}:{limit}")]).run();
    outcome.assert_says_not("given up").assert_says_not("panicked");
    archive.assert_whole();
    if outcome.code() == Some(0) {
        assert_eq!(archive.names(), names);
        return true;
    }
    outcome.assert_code(1).assert_says("too many open files");
    false
}

#[test]
fn too_few_file_descriptors_are_a_local_failure() {
    if !has_tool("prlimit") {
        return;
    }
    let (a, b) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    let names = fill(&a, 200);
    fill(&b, 200);
    let disk = Archive::new();
    (0..200).for_each(|n| {
        let stem = format!("{:02}:{:02}.0-2.0-full", n / 30, n % 30 * 2);
        disk.put(&stem, segment_content(n).as_bytes());
    });
    let disk = disk.path().display();
    for nodes in [format!("{},{}", a.url(), b.url()), format!("a={disk},b={disk}/.")] {
        let enough = [8, 12, 16, 24, 1024].map(|limit| with_open_files(limit, &nodes, &names));
        assert_eq!(enough, [false, false, false, false, true], "{nodes}");
    }
    // `all` is looked for at all nodes at once.
    a.hold();
    let nodes: Vec<String> = (0..20).map(|n| format!("n{n}={}", a.url())).collect();
    let archive = Archive::new();
    let run = archive.backfill([&*nodes.join(","), "all", "all"]);
    run.below("prlimit", ["--nofile=12:12"])
        .run()
        .assert_code(1)
        .assert_says("too many open files");
}

// ---- Signals ----------------------------------------------------------------------------------

#[test]
fn a_sandbox_that_hides_limits_and_names_is_no_obstacle() {
    if !has_tool("strace") {
        return;
    }
    let (node, names) = node_with(1);
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source"]);
    let calls =
        ["trace=prlimit64,uname", "inject=prlimit64:error=EPERM", "inject=uname:error=EPERM"];
    let calls = calls.iter().flat_map(|calls| ["-e", calls]);
    let outcome = run.below("strace", ["-f", "-o", "/dev/null"].into_iter().chain(calls)).run();
    outcome.assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn an_interrupted_process_dies_of_the_signal() {
    let (node, _) = node_with(1);
    node.fault(On::Segment, Fault::Hang);
    for (name, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let archive = Archive::new();
        let asked = node.segment_requests().len();
        let running = archive.backfill([&*node.url(), "desertbus", "source", "--json"]).start();
        node.wait_for_requests(asked + 1, |request| request.path.starts_with("/segments/"));
        running.signal(name);
        let outcome = running.outcome();
        assert_eq!(outcome.signal(), Some(number), "{outcome:#?}");
        // JSON has the same status as a shell sees.
        let summary = outcome.summary();
        assert_eq!(
            (&summary["status"], &summary["complete"]),
            (&(128 + number).into(), &false.into())
        );
    }
}

#[test]
fn the_first_process_of_a_container_exits_with_the_status_of_the_signal() {
    if !is_root() || !has_tool("unshare") {
        return;
    }
    let (node, _) = node_with(1);
    node.fault(On::Segment, Fault::Hang);
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let archive = Archive::new();
        let asked = node.segment_requests().len();
        let args = [&*node.url(), "desertbus", "source", "--json", "--progress=always"];
        let running = archive.backfill(args).below("unshare", ["--pid", "--fork"]).start();
        node.wait_for_requests(asked + 1, |request| request.path.starts_with("/segments/"));
        // To the process itself: unshare would not pass it on.
        let kill = Command::new("kill").args(["-s", name, &node_client(archive.path())]).status();
        assert!(kill.unwrap().success());
        let outcome = running.outcome();
        outcome.assert_code(code);
        assert_eq!(outcome.summary()["status"], code);
        archive.assert_whole();
    }
}

#[test]
fn the_first_process_of_a_container_can_be_ended_before_the_pass() {
    if !is_root() || !has_tool("unshare") {
        return;
    }
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let archive = Archive::new();
        let run = archive.backfill(["@-", "desertbus", "source"]);
        let mut run = run.below("unshare", ["--pid", "--fork"]);
        // The list of nodes never comes.
        let unshare = run.command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        let unshare = RefCell::new(unshare.unwrap());
        wait_until(|| {
            // It may not be prepared yet.
            if let Some(pid) = find_client(archive.path()) {
                let mut kill = Command::new("kill");
                kill.args(["-s", name, &pid]).stderr(Stdio::null()).status().unwrap();
            }
            unshare.borrow_mut().try_wait().unwrap().is_some()
        });
        assert_eq!(unshare.borrow_mut().wait().unwrap().code(), Some(code), "{name}");
    }
}

#[test]
fn a_shell_loop_stops_with_an_interrupted_pass() {
    if !has_tool("bash") || !has_tool("setsid") {
        return;
    }
    let (node, _) = node_with(1);
    node.fault(On::Segment, Fault::Hang);
    let archive = Archive::new();
    let said = archive.path().join("said");
    let mut shell = Command::new("setsid");
    let script = "while :; do \"$0\" \"$1\" desertbus source; echo again >> \"$2\"; done";
    shell.args(["--wait", "bash", "-c", script, env!("CARGO_BIN_EXE_backfiller"), &node.url()]);
    shell.arg(&said).env("BACKFILLER_BASE_DIR", archive.path());
    let mut shell = shell.spawn().unwrap();
    node.wait_for_requests(1, |request| request.path.starts_with("/segments/"));
    // As a terminal does at ^C: the signal goes to the shell and its children.
    let session = leader_of(&node_client(archive.path()));
    let group = format!("-{session}");
    let kill = Command::new("kill").args(["-s", "INT", "--", &group]).status().unwrap();
    assert!(kill.success());
    shell.wait().unwrap();
    assert!(!said.exists());
    assert_eq!(node.segment_requests().len(), 1);
}

/// The process ID of the pass on this archive.
fn node_client(archive: &Path) -> String {
    find_client(archive).expect("it runs")
}

fn find_client(archive: &Path) -> Option<String> {
    let wanted = format!("BACKFILLER_BASE_DIR={}", archive.display());
    let is_it = |pid: &str| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let environment = read("environ");
        let mut variables = environment.split(|byte| *byte == 0);
        read("comm").starts_with(b"backfiller") && variables.any(|text| text == wanted.as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|pid| is_it(pid))
}

/// The process group of a process.
fn leader_of(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.split(' ').nth(2).unwrap().to_owned()
}

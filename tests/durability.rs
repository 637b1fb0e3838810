//! The promise under attack from this machine: crashes, power cuts, full disks, neighbours, signals
//! and clocks. `BACKFILLER_CRASHES` sets how often a pass is killed (200).

mod node;
mod support;

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::{TimeDelta, Utc};
use node::{Fault, Node, On, hash_of, segment_name};
use rand::RngExt;
use support::{
    AT_ONCE, Archive, HOUR, Mount, Run, has_tool, is_root, node_with, number_from_env, wait_until,
};

/// Segments of all sizes, from empty to several writes.
fn fill(node: &Node, count: usize) -> Vec<String> {
    let add = |n: usize| {
        let size = [0, 10, 3000, 100_000, 300_000][n % 5];
        let content = format!("{n:05}").repeat(size / 5);
        let hour = format!("2018-11-10T{:02}", n % 3);
        node.add(
            "desertbus",
            "source",
            &hour,
            &format!("{:02}:{:02}.0-2.0-full", n / 60, n % 60),
            content.as_bytes(),
        )
    };
    let mut names: Vec<String> = (0..count).map(add).collect();
    names.sort();
    names
}

/// Checks the files that a dead pass may leave: files under final names are whole, and all others
/// have names of staged files. Returns the paths of both.
fn assert_promise(archive: &Archive) -> (Vec<String>, Vec<String>) {
    let (mut whole, mut staged) = (Vec::new(), Vec::new());
    for (path, content) in archive.files() {
        if path.contains("-temp-626b666c-") {
            staged.push(path);
            continue;
        }
        let stem = path.strip_suffix(".ts").unwrap_or_else(|| panic!("{path} is not a final name"));
        assert_eq!(&stem[stem.len() - 43..], hash_of(&content), "{path}");
        whole.push(path);
    }
    (whole, staged)
}

fn set_age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_pass_after_a_killed_one_completes_the_archive() {
    let nodes = [Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2")];
    let names = nodes.each_ref().map(|node| fill(node, 60))[0].clone();
    let urls = nodes.each_ref().map(Node::url).join(",");
    // In memory, because it is read again and again. A killed process leaves the same files there.
    let archive = Archive::in_memory();
    let before = archive.put("59:59.0-2.0-full", b"was here before");
    let run = || archive.backfill([&*urls, "desertbus", "source", "--order=random", "-j3"]);
    let untouched = format!("desertbus/source/{HOUR}/{before}");
    let whole_run = {
        let scratch = Archive::in_memory();
        let outcome = scratch.backfill([&*urls, "desertbus", "source", "-j3"]).run();
        outcome.assert_silent_success();
        outcome.took
    };
    let mut random = support::random();
    let (mut left, mut ended) = (0, 0);
    for _crash in 0..number_from_env("BACKFILLER_CRASHES", 200) {
        let running = run().start();
        let patience = whole_run.mul_f64(random.random_range(0.0..1.0));
        // The moment is random, so there is no event to wait for.
        thread::sleep(patience);
        ended += usize::from(running.kill());
        let (whole, staged) = assert_promise(&archive);
        assert_eq!(fs::read(archive.path().join(&untouched)).unwrap(), b"was here before");
        left += staged.len();
        // Files of a dead pass are removed when they are a day old, and not before.
        for (n, path) in staged.iter().enumerate() {
            let age = if n % 2 == 0 {
                DAY + Duration::from_secs(60)
            } else {
                DAY - Duration::from_secs(60)
            };
            set_age(&archive.path().join(path), age);
        }
        // Some files are removed again, so that there is always something to fetch.
        for path in whole.iter().filter(|path| **path != untouched) {
            if random.random_range(0..3) == 0 {
                fs::remove_file(archive.path().join(path)).unwrap();
            }
        }
    }
    assert!(left > 0, "no pass was killed during a write");
    assert!(ended > 0, "no pass was killed before its end");
    run().run().assert_silent_success();
    let (_, staged) = assert_promise(&archive);
    for path in &staged {
        let age = fs::metadata(archive.path().join(path)).unwrap().modified().unwrap().elapsed();
        assert!(age.unwrap() < DAY, "{path}");
        fs::remove_file(archive.path().join(path)).unwrap();
    }
    let mut expected = names;
    expected.push(before);
    expected.sort();
    assert_eq!(archive.names(), expected);
}

#[test]
fn only_our_old_staged_files_are_removed() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"x");
    node.add_chat("desertbus", HOUR, "00:00", b"[]");
    node.add_extra("emotes", "a/b.png", b"x");
    let (ours, theirs) =
        ("626b666c-8c1c-8b5c-9d3f-0123456789ab", "6f0f9d1e-8c1c-4b5c-9d3f-0123456789ab");
    let chat = format!("00:02-{}.json", hash_of(b"[1]"));
    let old_ones = [
        (format!("desertbus/source/{HOUR}/00:02.0-2.0-temp-{ours}.ts"), true),
        (format!("desertbus/source/{HOUR}/00:02.0-2.0-temp-{theirs}.ts"), false),
        (format!("desertbus/chat/{HOUR}/{chat}.{ours}.temp"), true),
        (format!("desertbus/chat/{HOUR}/{chat}.{theirs}.temp"), false),
        (format!("emotes/a/.{ours}.temp"), true),
        (format!("emotes/a/.{theirs}.temp"), false),
        (format!("emotes/a/b.png.{ours}.temp"), false),
        (format!("other/source/{HOUR}/00:02.0-2.0-temp-{ours}.ts"), false),
    ];
    for (age, is_old) in
        [(DAY - Duration::from_secs(60), false), (DAY + Duration::from_secs(60), true)]
    {
        let archive = Archive::new();
        for (path, _) in &old_ones {
            archive.write(path, b"half");
            set_age(&archive.path().join(path), age);
        }
        let args = [&*node.url(), "desertbus", "source,chat", "--extras=emotes"];
        archive.backfill(args.into_iter().chain(["--dry-run"])).run().assert_code(0);
        assert_eq!(archive.files().len(), old_ones.len());
        archive.backfill(args).run().assert_silent_success();
        let files = archive.files();
        for (path, is_ours) in &old_ones {
            assert_eq!(files.contains_key(path), !(is_old && *is_ours), "{path}");
        }
    }
}

/// The system calls of a pass that decide what survives a power cut, in order.
fn trace(archive: &Archive, node: &Node, options: &[&str]) -> Vec<String> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let args = [&*node.url(), "desertbus", "source", "-j1", "--print", "--order=forward"];
    let run = archive.backfill(args.iter().chain(options));
    let calls = "trace=write,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,\
                 mkdir,mkdirat";
    let to = log.path().to_str().unwrap();
    run.below("strace", ["-f", "-y", "-s", "200", "-qq", "-o", to, "-e", calls])
        .run()
        .assert_code(0);
    let log = fs::read_to_string(log.path()).unwrap();
    log.lines().map(String::from).collect()
}

#[test]
fn each_commit_is_flushed_before_and_after_its_rename() {
    if !has_tool("strace") {
        return;
    }
    let node = Node::start();
    let mut names = Vec::new();
    for (hour, second) in [("2018-11-10T05", 0), ("2018-11-10T05", 2), ("2018-11-10T04", 4)] {
        let content = format!("{second}").repeat(200_000);
        names.push((
            hour,
            node.add(
                "desertbus",
                "source",
                hour,
                &format!("00:{second:02}.0-2.0-full"),
                content.as_bytes(),
            ),
        ));
    }
    node.add_extra("emotes", "a/b.png", b"an extra file");
    for fsync in [true, false] {
        let archive = Archive::new();
        let options: &[&str] =
            if fsync { &["--extras=emotes"] } else { &["--extras=emotes", "--no-fsync"] };
        let calls = trace(&archive, &node, options);
        let base = archive.path().to_str().unwrap();
        let mut files: Vec<(String, String, String)> = names
            .iter()
            .map(|(hour, name)| {
                let staged = format!("{}-temp-626b666c", name.split("-full-").next().unwrap());
                (format!("desertbus/source/{hour}"), staged, name.clone())
            })
            .collect();
        files.push(("emotes/a".into(), ".626b666c".into(), "b.png".into()));
        let mut after = 0;
        for (dir, staged, name) in &files {
            // The position of the next call of this kind with all these parts, after the previous
            // match.
            let mut find = |kinds: &[&str], parts: &[&str]| {
                let matches = |call: &String| {
                    kinds.iter().any(|kind| call.contains(&format!(" {kind}(")))
                        && parts.iter().all(|part| call.contains(part))
                };
                let at = calls.iter().enumerate().position(|(n, call)| n >= after && matches(call));
                let at = at.unwrap_or_else(|| {
                    panic!("no {kinds:?} {parts:?} after {after}:\n{}", calls.join("\n"))
                });
                after = at + 1;
                at
            };
            let written = find(&["write"], &[base, staged]);
            if fsync {
                let last_write = calls
                    .iter()
                    .rposition(|call| call.contains(" write(") && call.contains(staged))
                    .unwrap();
                let flushed = find(&["fsync", "fdatasync"], &[base, staged]);
                assert!(written <= last_write && last_write < flushed);
            }
            find(&["rename", "renameat", "renameat2", "linkat"], &[staged, name]);
            if fsync {
                find(&["fsync"], &[&format!("<{base}/{dir}>")]);
                // The first file in a directory makes the whole path durable.
                if !files.iter().take_while(|other| other.2 != *name).any(|other| other.0 == *dir) {
                    let mut parent = Path::new(dir).parent();
                    while let Some(path) = parent.filter(|path| !path.as_os_str().is_empty()) {
                        find(&["fsync"], &[&format!("<{base}/{}>", path.display())]);
                        parent = path.parent();
                    }
                    find(&["fsync"], &[&format!("<{base}>")]);
                }
            }
            // It is printed only then.
            find(&["write"], &["write(1", &format!("{dir}/{name}")]);
        }
        let flushes = calls.iter().filter(|call| call.contains("sync")).count();
        assert_eq!(flushes > 0, fsync);
        assert_eq!(archive.files().len(), 4);
    }
}

#[test]
fn a_full_disk_ends_the_pass_at_once() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    for n in 0..100 {
        let stem = format!("{:02}:{:02}.0-2.0-full", n / 30, n % 30 * 2);
        node.add("desertbus", "source", HOUR, &stem, &vec![n; 100_000]);
    }
    let archive = Archive::new();
    let mount = Mount::tmpfs(archive.path(), "size=1m");
    let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
    outcome.assert_code(1).assert_says("error: writing ").assert_says("no space left on device");
    // Of the workers that failed at the same moment, one is reported and the others are counted.
    assert!(outcome.stderr.lines().count() <= 2, "{}", outcome.stderr);
    assert!(node.segment_requests().len() < 30, "{}", node.segment_requests().len());
    archive.assert_whole();
    drop(mount);
}

#[test]
fn a_read_only_archive_fails_only_if_segments_are_missing() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let archive = Archive::new();
    let mount = Mount::tmpfs(archive.path(), "size=1m");
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"here");
    archive.put("00:00.0-2.0-full", b"here");
    mount.remount("ro");
    archive.backfill([&*node.url(), "desertbus", "source"]).run().assert_silent_success();
    node.add("desertbus", "source", HOUR, "00:02.0-2.0-full", b"missing");
    node.add("desertbus", "source", "2018-11-10T06", "00:02.0-2.0-full", b"missing");
    let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
    outcome.assert_code(1).assert_says("error: creating ").assert_says("read-only file system");
}

#[test]
fn an_archive_of_another_user_is_a_local_failure() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:02.0-2.0-full", b"missing");
    let archive = Archive::new();
    archive.put("00:00.0-2.0-full", b"here");
    Command::new("chmod").args(["-R", "go+rX"]).arg(archive.path()).status().unwrap();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).with_user(65534).run();
    outcome.assert_code(1).assert_says("error: creating ").assert_says("permission denied");
}

#[test]
fn a_file_size_limit_ends_the_pass() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", &[1; 2_000_000]);
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source"]);
    let outcome = run.below("sh", ["-c", "ulimit -f 500; exec \"$0\" \"$@\""]).run();
    outcome.assert_code(1).assert_says("error: writing ").assert_says("file too large");
    assert!(archive.files().is_empty());
}

#[test]
fn two_concurrent_passes_both_succeed() {
    let nodes = [Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2")];
    let names = nodes.each_ref().map(|node| fill(node, 60))[0].clone();
    let urls = nodes.each_ref().map(Node::url).join(",");
    for order in ["random", "forward"].into_iter().cycle().take(6) {
        let archive = Archive::in_memory();
        let run = || archive.backfill([&*urls, "desertbus", "source", "--order", order]).start();
        let (first, second) = (run(), run());
        first.outcome().assert_silent_success();
        second.outcome().assert_silent_success();
        assert_eq!(archive.names(), names);
        archive.assert_whole();
    }
}

#[test]
fn a_downloader_in_the_same_hour_is_not_disturbed() {
    let node = Node::start();
    let content = |n: usize| format!("{n:05}").repeat(2000);
    let stem = |n: usize| format!("{:02}:{:02}.0-2.0", n / 60, n % 60);
    for n in 0..600 {
        node.add("desertbus", "source", HOUR, &format!("{}-full", stem(n)), content(n).as_bytes());
    }
    let archive = Archive::new();
    let dir = archive.path().join("desertbus/source").join(HOUR);
    fs::create_dir_all(&dir).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Like the real downloader, it stages and renames: the same segments, and segments of its
        // own.
        let downloader = scope.spawn(|| {
            let mut written = 0;
            for n in (0..2000).rev() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let staged =
                    dir.join(format!("{}-temp-6f0f9d1e-8c1c-4b5c-9d3f-{n:012}.ts", stem(n)));
                let name = segment_name(&format!("{}-full", stem(n)), content(n).as_bytes());
                fs::write(&staged, content(n)).unwrap();
                assert_eq!(fs::read_to_string(&staged).unwrap(), content(n));
                fs::rename(&staged, dir.join(&name)).unwrap();
                assert_eq!(fs::read_to_string(dir.join(&name)).unwrap(), content(n));
                written += 1;
            }
            written
        });
        let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
        over.store(true, Ordering::Relaxed);
        assert!(downloader.join().unwrap() > 0);
        outcome.assert_silent_success();
    });
    archive.assert_whole();
    assert!(archive.files().len() >= 600);
}

#[test]
fn a_foreign_shared_lock_does_not_block_a_pass() {
    let (node, names) = node_with(1);
    let archive = Archive::new();
    let held = fs::File::open(archive.path()).unwrap();
    held.lock_shared().unwrap();
    let run = || archive.backfill([&*node.url(), "desertbus", "source", "--lock"]).run();
    let outcome = run();
    outcome.assert_code(0).assert_says("a shared lock on ");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:#?}");
    assert_eq!(archive.names(), names);
    drop(held);
    run().assert_silent_success();
}

#[test]
fn a_file_system_without_locks_is_reported_only_with_lock() {
    if !has_tool("strace") {
        return;
    }
    let (node, names) = node_with(1);
    let metrics = tempfile::tempdir().unwrap();
    let file = metrics.path().join("m.prom");
    let archive = Archive::new();
    for option in ["-j1", "-j2", "--lock"] {
        let metrics = ["--metrics-file", file.to_str().unwrap()];
        let args = [&*node.url(), "desertbus", "source", option];
        let run = archive.backfill(args.iter().chain(&metrics));
        let (locks, modes) = ("inject=flock:error=EBADF", "inject=fchmod:error=EPERM");
        let strace =
            ["-f", "-o", "/dev/null", "-e", "trace=flock,fchmod", "-e", locks, "-e", modes];
        let outcome = run.below("strace", strace).run();
        if option == "--lock" {
            outcome.assert_code(1).assert_says("its file system has no locks for directories");
        } else {
            outcome.assert_silent_success();
        }
    }
    let metrics = fs::read_to_string(file).unwrap();
    assert!(metrics.contains("backfiller_last_pass_status{hours=\"all\",file=\"m.prom\"} 1"));
    assert_eq!(archive.names(), names);
}

#[test]
fn a_lock_blocks_only_passes_that_ask_for_it() {
    let node = Node::start();
    let name = node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"x");
    node.fault(On::Segment, Fault::Hang);
    let archive = Archive::new();
    let run = |options: &[&str]| {
        let url = node.url();
        let args = [&*url, "desertbus", "source", "--timeout=30s"];
        archive.backfill(args.iter().chain(options))
    };
    let holder = run(&["--lock"]).start();
    node.wait_for_requests(1, node::Request::is_segment);
    let asked = node.requests().len();
    let outcome = run(&["--lock"]).run();
    outcome.assert_code(75);
    assert_eq!(outcome.stderr, "");
    assert!(outcome.took < AT_ONCE, "{:?}", outcome.took);
    assert_eq!(node.requests().len(), asked);
    run(&["--lock", "-v"]).run().assert_code(75).assert_says("another pass with --lock is running");
    run(&["--dry-run"]).run().assert_code(0);
    // A killed holder leaves no lock behind, and no file.
    assert!(holder.kill());
    node.clear_faults();
    run(&["--lock"]).run().assert_silent_success();
    assert_eq!(archive.names().last(), Some(&name));
    let hidden = fs::read_dir(archive.path()).unwrap().count();
    assert_eq!(hidden, 1);
}

/// Starts a pass, waits until it has reached a phase, and checks that a signal ends it at once.
fn assert_ends_at_once(run: Run, archive: &Archive, in_phase: impl FnOnce()) {
    let running = run.start();
    in_phase();
    let begun = Instant::now();
    running.signal("TERM");
    let outcome = running.outcome();
    let took = begun.elapsed();
    outcome.assert_code(143).assert_says("backfiller: interrupted: ");
    assert!(took < AT_ONCE, "{took:?}");
    assert_promise(archive);
    assert!(archive.files().keys().all(|path| !path.contains("-temp-")));
}

#[test]
fn a_signal_ends_a_pass_that_connects() {
    // No connection is accepted, and the queue is full.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queue.push(connection);
        assert!(queue.len() < 10);
    }
    let archive = Archive::new();
    let url = format!("http://{address}");
    let run = archive.backfill([&*url, "desertbus", "source", "-v", "--timeout=30s"]);
    // The kernel's table has the remote address in hexadecimal, and 02 for a connection attempt.
    let connecting = format!("0100007F:{:04X} 02 ", address.port());
    let table = || fs::read_to_string("/proc/net/tcp").unwrap();
    assert_ends_at_once(run, &archive, || wait_until(|| table().contains(&connecting)));
}

#[test]
fn a_signal_ends_a_pass_that_resolves_a_name() {
    if !is_root() || !has_tool("unshare") {
        return;
    }
    // A name server that never answers.
    let Ok(silent) = UdpSocket::bind("127.0.0.77:53") else {
        return eprintln!("skipped: port 53 is taken");
    };
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), "nameserver 127.0.0.77\n").unwrap();
    let archive = Archive::new();
    let mut run =
        archive.backfill(["http://some.example", "desertbus", "source", "-v", "--timeout=30s"]);
    let args: Vec<_> = run.command.get_args().map(ToOwned::to_owned).collect();
    let script = "mount --bind \"$CONFIG\" /etc/resolv.conf && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "/bin/sh", "-c", script, env!("CARGO_BIN_EXE_backfiller")]).args(args);
    command.env("CONFIG", config.path()).env("BACKFILLER_BASE_DIR", archive.path());
    run.command = command;
    assert_ends_at_once(run, &archive, || {
        silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        silent.recv(&mut [0; 512]).expect("a query for the name server");
    });
}

#[test]
fn a_signal_ends_a_pass_that_lists() {
    for on in [On::Hours, On::Listing] {
        let node = Node::start();
        node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"x");
        node.fault(on, Fault::HangInBody(5));
        let archive = Archive::new();
        let run = archive.backfill([&*node.url(), "desertbus", "source", "-v", "--timeout=30s"]);
        let path = if on == On::Hours { "/files/desertbus/source" } else { "tombstones" };
        assert_ends_at_once(run, &archive, || {
            assert!(node.wait_for_request(|r| r.path.contains(path), Duration::from_secs(20)));
        });
    }
}

#[test]
fn a_signal_ends_a_pass_that_fetches() {
    let node = Node::start();
    for n in 0..50 {
        node.add("desertbus", "source", HOUR, &format!("{n:02}:00.0-2.0-full"), &vec![n; 200_000]);
    }
    // Fetching all would take fifty seconds.
    node.limit_rate(25_000);
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "-v"]);
    assert_ends_at_once(run, &archive, || {
        assert!(node.wait_for_request(|r| r.path.contains("/segments/"), Duration::from_secs(20)));
    });
    // Delayed by our own rate limit.
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", &[1; 2_000_000]);
    let run = archive.backfill([&*node.url(), "desertbus", "source", "-v", "--limit-rate=20k"]);
    assert_ends_at_once(run, &archive, || {
        assert!(node.wait_for_request(|r| r.path.contains("/segments/"), Duration::from_secs(20)));
    });
}

#[test]
fn a_signal_ends_a_pass_that_checks() {
    let node = Node::start();
    let archive = Archive::new();
    let name = archive.put("00:00.0-2.0-full", b"");
    let path = archive.path().join("desertbus/source").join(HOUR).join(name);
    // A sparse file that takes long to read.
    File::options().write(true).open(&path).unwrap().set_len(64 << 30).unwrap();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "-v", "--verify"]);
    let running = run.start();
    running.wait_until_open(&path);
    let begun = Instant::now();
    running.signal("INT");
    running.outcome().assert_code(130).assert_says("interrupted").assert_says_not("corrupt");
    assert!(begun.elapsed() < AT_ONCE);
    assert_eq!(node.requests().len(), 0);
}

/// A closing terminal sends its signal twice.
#[test]
fn two_signals_at_once_leave_nothing_staged() {
    for _ in 0..20 {
        let node = Node::start();
        for n in 0..8 {
            node.add("desertbus", "source", HOUR, &format!("{n:02}:00.0-2.0-full"), &[n; 50_000]);
        }
        node.fault(On::Segment, Fault::HangInBody(20_000));
        let archive = Archive::new();
        let running = archive.backfill([&*node.url(), "desertbus", "source"]).start();
        let dir = archive.path().join("desertbus/source").join(HOUR);
        while fs::read_dir(&dir).map_or(0, Iterator::count) < 8 {
            thread::yield_now();
        }
        running.signal("HUP");
        let _ = running.try_signal("HUP");
        running.outcome().assert_code(129);
        assert!(archive.files().is_empty(), "{:?}", archive.names());
    }
}

#[test]
fn a_waiting_worker_leaves_nothing_staged() {
    let (gone, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    for n in 0..8 {
        gone.add("desertbus", "source", HOUR, &format!("{n:02}:00.0-2.0-full"), &[n; 40_000]);
    }
    good.add("desertbus", "source", HOUR, "59:00.0-2.0-full", b"x");
    gone.fault(On::Segment, Fault::HangInBody(30_000));
    let archive = Archive::new();
    let both = format!("{},{}", gone.url(), good.url());
    let args = [&*both, "desertbus", "source", "--limit-rate=100k", "--timeout=500ms"];
    // Whether the hanging transfer is resumed depends on whether the other node was heard.
    let outcome = archive.backfill(args).run();
    assert!(matches!(outcome.code(), Some(0 | 3)), "{outcome:#?}");
    archive.assert_whole();
}

#[test]
fn a_second_signal_ends_the_pass_too() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"x");
    node.fault(On::Segment, Fault::Hang);
    let archive = Archive::new();
    let running = archive.backfill([&*node.url(), "desertbus", "source"]).start();
    assert!(node.wait_for_request(|r| r.path.contains("/segments/"), Duration::from_secs(20)));
    running.signal("INT");
    let _ = running.try_signal("INT");
    running.outcome().assert_code(130);
}

#[test]
fn a_clock_that_is_behind_hides_no_segment() {
    let node = Node::start();
    let mut names = Vec::new();
    for minutes in [-90, 30, 90] {
        let start = Utc::now() + TimeDelta::minutes(minutes);
        let (hour, stem) =
            (start.format("%Y-%m-%dT%H").to_string(), start.format("%M:%S.0-2.0-full").to_string());
        names.push(node.add("desertbus", "source", &hour, &stem, stem.as_bytes()));
    }
    names.sort();
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
    outcome.assert_code(0).assert_says("has segments from the future; check this machine's clock");
    assert_eq!(archive.names(), names);
}

#[test]
fn unusual_hours_are_valid() {
    let node = Node::start();
    let hours = [
        "0000-01-01T00",
        "2019-12-31T23",
        "2020-01-01T00",
        "2020-02-29T23",
        "2020-03-01T00",
        "9999-12-31T23",
    ];
    for hour in hours {
        node.add("desertbus", "source", hour, "00:00.0-2.0-full", hour.as_bytes());
        node.add("desertbus", "source", hour, "59:59.9999-2.0-full", hour.as_bytes());
    }
    node.list_also("desertbus", "source", "2019-02-29T00", "x");
    for (selected, count) in [
        ("2019-12-31..2020-01-01", 4),
        ("2020-02-29..2020-03-01", 4),
        ("all", 12),
        ("..0000-01-01", 2),
        ("9999-12-31..", 2),
    ] {
        let archive = Archive::new();
        archive.backfill([&*node.url(), "desertbus", "source", selected]).run().assert_code(0);
        assert_eq!(archive.files().len(), count, "{selected}");
    }
}

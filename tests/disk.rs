//! Trouble with disks: unmounted, full, unreadable, or reached through links.

mod node;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use node::{Fault, Node, On, segment_name};
use support::{Archive, HOUR, Mount, fill, has_tool, is_root, node_with};

const LONG: Duration = Duration::from_secs(20);

/// The paths of everything below a directory, sorted.
fn everything(dir: &Path) -> Vec<String> {
    let found = Command::new("find").arg(dir).args(["-mindepth", "1", "-printf", "%P\n"]).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    let mut found: Vec<String> = found.lines().map(String::from).collect();
    found.sort();
    found
}

#[test]
fn an_unmounted_disk_ends_the_pass_without_a_write() {
    if !is_root() {
        return;
    }
    // The disk of the archive itself, of its parent, of one stream, and of one hour.
    let hour = format!("archive/desertbus/source/{HOUR}");
    for (mounted, base) in
        [("", ""), ("", "archive"), ("archive/desertbus", "archive"), (&hour, "archive")]
    {
        let (node, names) = node_with(30);
        for hour in ["2018-11-10T03", "2018-11-10T04"] {
            node.add("desertbus", "source", hour, "00:00.0-2.0-full", hour.as_bytes());
        }
        let held = format!("/segments/desertbus/source/{HOUR}/{}", names[10]);
        node.fault_path(&held, Fault::HangInBody(100));
        let top = Archive::new();
        fs::create_dir_all(top.path().join(mounted)).unwrap();
        let mount = Mount::tmpfs(&top.path().join(mounted), "size=10m");
        let base = top.path().join(base);
        fs::create_dir_all(&base).unwrap();
        let args = [&*node.url(), "desertbus", "source", "-j1", "--order=forward", "--print"];
        let mut run = top.backfill(args);
        run.command.env("BACKFILLER_BASE_DIR", &base);
        let running = run.start();
        assert!(node.wait_for_request(|r| r.path.contains(&names[10]), LONG));
        drop(mount);
        let below = top.path().join(mounted);
        let before = everything(&below);
        node.clear_faults();
        node.release();
        let outcome = running.outcome();
        outcome.assert_code(1).assert_says("was its disk unmounted?");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert_eq!(everything(&below), before, "{mounted}");
        assert!(before.len() <= 2, "{before:?}");
    }
}

#[test]
fn an_unmounted_disk_is_noticed_by_an_idle_pass() {
    let (node, names) = node_with(3);
    let top = Archive::new();
    let (here, gone) = (top.path().join("here"), top.path().join("gone"));
    let dir = here.join("desertbus/source").join(HOUR);
    fs::create_dir_all(&dir).unwrap();
    for (n, name) in names.iter().enumerate() {
        fs::write(dir.join(name), support::segment_content(n)).unwrap();
    }
    node.fault_times(On::Listing, Fault::Hang, 1);
    let mut run = top.backfill([&*node.url(), "desertbus", "source"]);
    run.command.env("BACKFILLER_BASE_DIR", &here);
    let running = run.start();
    assert!(node.wait_for_request(|r| r.path.contains("tombstones"), LONG));
    fs::rename(&here, &gone).unwrap();
    fs::create_dir(&here).unwrap();
    node.release();
    running.outcome().assert_code(1).assert_says("was its disk unmounted?");
    assert!(everything(&here).is_empty());
}

/// A user who can create links in an archive must not lead another user's pass out of it.
#[test]
fn only_links_of_root_or_ours_are_followed() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    let name = node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"x");
    let hour = format!("desertbus/source/{HOUR}");
    for link in ["desertbus", "desertbus/source", &hour] {
        for (owner, is_followed) in [(0, true), (65534, false)] {
            let (archive, disk) = (Archive::new(), Archive::new());
            let at = archive.path().join(link);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            symlink(disk.path(), &at).unwrap();
            lchown(&at, Some(owner), Some(owner)).unwrap();
            for _pass in 0..2 {
                let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
                if is_followed {
                    outcome.assert_silent_success();
                } else {
                    outcome.assert_code(1).assert_says("a symbolic link, which is not followed");
                }
            }
            let is_there = disk.names() == [name.clone()];
            assert_eq!(is_there, is_followed, "{link} of {owner}");
            // Gone, and not created again.
            fs::remove_dir_all(disk.path()).unwrap();
            archive.backfill([&*node.url(), "desertbus", "source"]).run().assert_code(1);
            assert!(!disk.path().exists());
        }
    }
}

#[test]
fn special_files_are_neither_segments_nor_tombstones() {
    let node = Node::start();
    let name = node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"x");
    let good = segment_name("00:00.0-2.0-full", b"x");
    let tombstone = name.replace(".ts", ".tombstone");
    let elsewhere = Archive::new();
    let victim = elsewhere.path().join("victim");
    let plant = |what: &str, at: &Path| match what {
        "link to a file" => symlink(&victim, at).unwrap(),
        "dangling link" => symlink(elsewhere.path().join("nothing"), at).unwrap(),
        "pipe" => assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        _ => fs::create_dir(at).unwrap(),
    };
    for what in ["link to a file", "dangling link", "pipe", "directory"] {
        for options in [&[][..], &["--verify"], &["--no-fsync"]] {
            fs::write(&victim, b"x").unwrap();
            let archive = Archive::new();
            let dir = archive.path().join("desertbus/source").join(HOUR);
            fs::create_dir_all(&dir).unwrap();
            plant(what, &dir.join(&name));
            let url = node.url();
            let args = [&*url, "desertbus", "source"];
            let run = || archive.backfill(args.iter().chain(options)).run();
            run().assert_code(1).assert_says("in the way");
            assert_eq!(fs::read(&victim).unwrap(), b"x");
            assert_eq!(everything(elsewhere.path()), ["victim"]);
            // The same for a tombstone.
            fs::rename(dir.join(&name), dir.join(&tombstone)).unwrap();
            run().assert_silent_success();
            assert_eq!(fs::read(dir.join(&good)).unwrap(), b"x");
        }
    }
}

#[test]
fn extra_files_behind_links_are_not_fetched() {
    let node = Node::start();
    for path in ["big/0.png", "big/1.png", "link.png", "pipe.png", "good.png"] {
        node.add_extra("emotes", path, path.as_bytes());
    }
    let (archive, elsewhere) = (Archive::new(), Archive::new());
    let emotes = archive.path().join("emotes");
    fs::create_dir(&emotes).unwrap();
    symlink(elsewhere.path(), emotes.join("big")).unwrap();
    symlink(elsewhere.path().join("nothing"), emotes.join("link.png")).unwrap();
    Command::new("mkfifo").arg(emotes.join("pipe.png")).status().unwrap();
    for expected in [1, 0] {
        let before = node.segment_requests().len();
        let args = [&*node.url(), "desertbus", "source", HOUR, "--extras=emotes"];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(1).assert_says("emotes/big: a symbolic link, which is not followed");
        assert_eq!(node.segment_requests().len() - before, expected);
        assert!(everything(elsewhere.path()).is_empty());
    }
    assert_eq!(fs::read(emotes.join("good.png")).unwrap(), b"good.png");
    // The operator may put the whole directory on another disk.
    let archive = Archive::new();
    symlink(elsewhere.path(), archive.path().join("emotes")).unwrap();
    for _pass in 0..2 {
        let args = [&*node.url(), "desertbus", "source", HOUR, "--extras=emotes"];
        archive.backfill(args).run().assert_code(0);
    }
    assert_eq!(elsewhere.files().len(), 5);
}

/// A bad listing is the failure of its node, and affects no other node.
#[test]
fn contradictory_extra_files_do_not_end_the_pass() {
    let (evil, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    let names = fill(&good, 60);
    good.add_extra("emotes", "good.png", b"good");
    evil.add_extra("emotes", "a", b"x");
    for n in 0..40 {
        evil.add_extra("emotes", &format!("a/{n}"), b"x");
        let deep = format!("{}/{n}", ["b"; 1100].join("/"));
        evil.add_extra("emotes", &deep, b"x");
    }
    let archive = Archive::new();
    let both = format!("evil={},good={}", evil.url(), good.url());
    for _pass in 0..2 {
        let args = [&*both, "desertbus", "source", "--extras=emotes", "--retries=0"];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(3).assert_says("node evil: ").assert_says_not("error: ");
        let files = archive.files();
        assert!(names.iter().all(|name| files.keys().any(|path| path.ends_with(name))));
        assert_eq!(files["emotes/good.png"], b"good");
    }
}

/// The user and the group of nobody.
const NOBODY: u32 = 65534;

fn give_to_nobody(path: &Path) {
    let given = Command::new("chown")
        .args(["-R", &format!("{NOBODY}:{NOBODY}")])
        .arg(path)
        .status()
        .unwrap();
    assert!(given.success());
}

#[test]
fn an_unreadable_extra_directory_affects_only_itself() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    let node = Node::start();
    node.add_extra("emotes", "a.png", b"a");
    let archive = Archive::new();
    let closed = archive.path().join("emotes/lost+found");
    fs::create_dir_all(&closed).unwrap();
    give_to_nobody(archive.path());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    lchown(&closed, Some(0), Some(0)).unwrap();
    let args = [&*node.url(), "desertbus", "source", HOUR, "--extras=emotes"];
    let outcome = archive.backfill(args).with_user(NOBODY).run();
    outcome.assert_code(0).assert_says("warning: reading the directory ");
    outcome.assert_says("emotes/lost+found: permission denied");
    assert_eq!(archive.names(), ["a.png"]);
    // A file in that directory can't be fetched, which is reported.
    node.add_extra("emotes", "lost+found/b.png", b"b");
    let outcome = archive.backfill(args).with_user(NOBODY).run();
    outcome.assert_code(1).assert_says("emotes/lost+found: permission denied");
    assert_eq!(node.segment_requests().len(), 1);
}

#[test]
fn lost_and_found_is_not_a_stream() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    let (node, names) = node_with(1);
    let archive = Archive::new();
    let closed = ["lost+found", "desertbus/lost+found"].map(|path| archive.path().join(path));
    closed.iter().for_each(|path| fs::create_dir_all(path).unwrap());
    give_to_nobody(archive.path());
    for path in &closed {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        lchown(path, Some(0), Some(0)).unwrap();
    }
    for nodes in [&*node.url(), "none"] {
        let run = archive.backfill([nodes, "all", "all", "--verify"]).with_user(NOBODY);
        run.run().assert_silent_success();
    }
    assert_eq!(archive.names(), names);
}

#[test]
fn an_unreadable_or_unwritable_hour_affects_only_itself() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    for (mode, says) in [(0o000, "reading the directory "), (0o555, "writing to the directory ")] {
        let node = Node::start();
        for hour in 0..20 {
            let hour = format!("2018-11-10T{hour:02}");
            node.add("desertbus", "source", &hour, "00:00.0-2.0-full", hour.as_bytes());
        }
        let archive = Archive::new();
        let closed = archive.path().join("desertbus/source");
        let closed = (3..18).map(|hour| closed.join(format!("2018-11-10T{hour:02}")));
        let closed: Vec<_> = closed.collect();
        closed.iter().for_each(|hour| fs::create_dir_all(hour).unwrap());
        give_to_nobody(archive.path());
        // As of a disk's mount point.
        chown(archive.path(), Some(0), Some(0)).unwrap();
        fs::set_permissions(archive.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for hour in closed {
            fs::set_permissions(hour, fs::Permissions::from_mode(mode)).unwrap();
        }
        let run = archive.backfill([&*node.url(), "desertbus", "source"]).with_user(NOBODY);
        run.run().assert_code(1).assert_says(says).assert_says("permission denied");
        assert_eq!(archive.names().len(), 5, "{mode:o}");
        assert_eq!(node.segment_requests().len(), 5, "{mode:o}");
    }
}

#[test]
fn an_hour_of_another_user_does_not_matter_if_it_can_be_written_or_need_not_be() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    let (node, names) = node_with(2);
    let tombstone = segment_name("00:30.0-2.0-full", b"deleted").replace(".ts", ".tombstone");
    node.add_tombstone("desertbus", "source", HOUR, &tombstone);
    let archive = Archive::new();
    let hour = archive.path().join("desertbus/source").join(HOUR);
    fs::create_dir_all(&hour).unwrap();
    chown(archive.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // By a capability.
    let user = [&format!("--reuid={NOBODY}"), "--clear-groups", "--inh-caps=+dac_override"];
    let user = user.into_iter().chain(["--ambient-caps=+dac_override"]);
    let run = archive.backfill([&*node.url(), "desertbus", "source"]).below("setpriv", user);
    run.run().assert_silent_success();
    let mut expected = names.clone();
    expected.push(tombstone.clone());
    assert_eq!(archive.names(), expected);
    // A list that has no more than what is here: the tombstone is not created again.
    fs::remove_file(hour.join(tombstone)).unwrap();
    let run = archive.backfill([&*node.url(), "--files-from=-"]).with_user(NOBODY);
    let list = format!("desertbus/source/{HOUR}/{}\n", names[0]);
    run.stdin(&list).run().assert_silent_success();
}

#[test]
fn an_old_hour_that_cannot_be_deleted_affects_no_other() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    // One that nothing may be removed from, and one in which only owners may remove their files.
    for (owner, mode) in [(NOBODY, 0o555), (0, 0o1777)] {
        let archive = Archive::new();
        for hour in 0..20 {
            let name = segment_name("00:00.0-2.0-full", b"old");
            archive.write(&format!("desertbus/source/2018-11-10T{hour:02}/{name}"), b"old");
        }
        give_to_nobody(archive.path());
        chown(archive.path(), Some(0), Some(0)).unwrap();
        fs::set_permissions(archive.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for hour in 3..18 {
            let closed = archive.path().join(format!("desertbus/source/2018-11-10T{hour:02}"));
            fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
            for file in fs::read_dir(&closed).unwrap() {
                chown(file.unwrap().path(), Some(owner), None).unwrap();
            }
            chown(closed, Some(owner), None).unwrap();
        }
        let args = ["none", "desertbus", "source", "last:3", "--delete-older-than=24h"];
        let outcome = archive.backfill(args).with_user(NOBODY).run();
        outcome.assert_code(1).assert_says("error: deleting ");
        assert_eq!(archive.names().len(), 15, "{mode:o}");
    }
}

#[test]
fn a_file_that_may_not_be_repaired_affects_no_other() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    let (node, names) = node_with(15);
    let archive = Archive::new();
    let dir = archive.path().join("desertbus/source").join(HOUR);
    fs::create_dir_all(&dir).unwrap();
    give_to_nobody(archive.path());
    for name in &names[..14] {
        fs::write(dir.join(name), b"corrupt").unwrap();
    }
    chown(&dir, Some(0), None).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let args = [&*node.url(), "desertbus", "source", "--verify", "-j1", "--order=forward"];
    let outcome = archive.backfill(args).with_user(NOBODY).run();
    outcome.assert_code(1).assert_says("error: replacing ").assert_says("not permitted");
    assert_eq!(archive.names(), names);
}

#[test]
fn an_unreadable_parent_directory_is_not_flushed() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    let (node, names) = node_with(5);
    let archive = Archive::new();
    fs::create_dir_all(archive.path().join("desertbus/source")).unwrap();
    give_to_nobody(&archive.path().join("desertbus"));
    fs::set_permissions(archive.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let run = archive.backfill([&*node.url(), "desertbus", "source"]).with_user(NOBODY);
    run.run().assert_silent_success();
    assert_eq!(archive.names(), names);
}

/// A disk from someone else contains links to files that only we can read.
#[test]
fn a_directory_node_reads_nothing_outside_itself() {
    let (disk, outside) = (Archive::new(), Archive::new());
    outside.write("secret", b"secret");
    outside.write("dir/secret", b"secret");
    disk.put("00:00.0-2.0-full", b"x");
    disk.write("emotes/good.png", b"good");
    let emotes = disk.path().join("emotes");
    symlink(outside.path().join("secret"), emotes.join("a.png")).unwrap();
    symlink("/proc/self/environ", emotes.join("b.png")).unwrap();
    symlink("/dev/zero", emotes.join("c.png")).unwrap();
    symlink(outside.path().join("dir"), emotes.join("dir")).unwrap();
    symlink("../desertbus", emotes.join("within")).unwrap();
    Command::new("mkfifo").arg(emotes.join("d.png")).status().unwrap();
    symlink(outside.path(), disk.path().join("media")).unwrap();
    let hour = disk.path().join("desertbus/source").join(HOUR);
    let linked = segment_name("00:02.0-2.0-full", b"secret");
    symlink(outside.path().join("secret"), hour.join(&linked)).unwrap();
    let archive = Archive::new();
    let from = disk.path().to_str().unwrap();
    let run = |extras: &str| {
        let args = [from, "desertbus", "source", "--extras", extras];
        archive.backfill(args).env("SECRET", "secret").run()
    };
    run("emotes").assert_silent_success();
    run("media").assert_code(3).assert_says("the path has a symbolic link, which is not followed");
    assert_eq!(archive.files().len(), 2, "{:?}", archive.names());
    for (path, content) in archive.files() {
        assert!(!String::from_utf8_lossy(&content).contains("secret"), "{path}");
    }
}

#[test]
fn a_file_with_the_name_of_an_hour_is_not_an_hour() {
    let disk = Archive::new();
    let name = disk.put("00:00.0-2.0-full", b"x");
    let (file, pipe) = ("desertbus/source/2018-11-10T06", "desertbus/source/2018-11-10T07");
    disk.write(file, b"");
    assert!(Command::new("mkfifo").arg(disk.path().join(pipe)).status().unwrap().success());
    // On a node.
    let archive = Archive::new();
    archive.backfill([disk.path().to_str().unwrap(), "all", "all"]).run().assert_silent_success();
    assert_eq!(archive.names(), [name]);
    // Here.
    let options = ["--verify", "--coverage", "--compare"];
    let outcome = disk.backfill(["none", "all", "all"].into_iter().chain(options)).run();
    outcome.assert_code(0);
    assert!(outcome.stderr.is_empty(), "{}", outcome.stderr);
    let old = ["none", "all", "all", "last:3", "--delete-older-than=24h"];
    disk.backfill(old).run().assert_silent_success();
    assert!(disk.path().join(file).exists() && disk.path().join(pipe).exists());
    assert!(!disk.path().join("desertbus/source").join(HOUR).exists());
    // Where such an hour is to be filled, it is in the way.
    let node = Node::start();
    node.add("desertbus", "source", "2018-11-10T06", "00:00.0-2.0-full", b"x");
    let outcome = disk.backfill([&*node.url(), "desertbus", "source"]).run();
    outcome.assert_code(1).assert_says("in the way");
}

#[test]
fn a_growing_segment_is_read_up_to_its_first_length() {
    let disk = Archive::new();
    let name = disk.put("00:00.0-2.0-full", &[7; 1_000_000]);
    let path = disk.path().join("desertbus/source").join(HOUR).join(name);
    let archive = Archive::new();
    let from = disk.path().to_str().unwrap();
    let running = archive.backfill([from, "desertbus", "source", "--limit-rate=1M"]).start();
    running.wait_until_open(&path);
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, b"more").unwrap();
    running.outcome().assert_silent_success();
    archive.assert_whole();
}

#[test]
fn a_pass_ends_in_order_to_keep_min_free() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    for n in 0..100 {
        let stem = format!("{:02}:{:02}.0-2.0-full", n / 30, n % 30 * 2);
        node.add("desertbus", "source", HOUR, &stem, &vec![n; 100_000]);
    }
    let free = |path: &Path| {
        let found = rustix::fs::statvfs(path).unwrap();
        found.f_bavail * found.f_frsize
    };
    let metrics = tempfile::tempdir().unwrap();
    for (keep, least) in [("3M", 3 << 20), ("30%", 3 << 20), ("100M", 10 << 20)] {
        for jobs in ["-j1", "-j32"] {
            let archive = Archive::new();
            let _mount = Mount::tmpfs(archive.path(), "size=10m");
            let args = [&*node.url(), "desertbus", "source", "--min-free", keep, jobs];
            let mut run = archive.backfill(args.into_iter().chain(["--json", "--metrics-file"]));
            run.command.arg(metrics.path().join("m.prom"));
            let outcome = run.run();
            outcome.assert_code(1).assert_says("MiB free, ");
            outcome.assert_says("less than --min-free requires to continue");
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
            let left = free(archive.path());
            assert!(left >= least, "{keep} {jobs}: {left}");
            // It doesn't end much too early either.
            assert!(left < least + (1 << 20) || keep == "100M", "{keep} {jobs}: {left}");
            archive.assert_whole();
            // JSON has it, too.
            let summary = outcome.stdout.lines().next_back().unwrap();
            let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
            let (found, missing) = (&summary["free_bytes"], &summary["short_of_bytes"]);
            let (free_bytes, short) = (found.as_u64().unwrap(), missing.as_u64().unwrap());
            assert!(free_bytes <= 10 << 20 && short > 0, "{summary}");
            let metrics = fs::read_to_string(metrics.path().join("m.prom")).unwrap();
            for (name, value) in [("free", found), ("short_of", missing)] {
                let labels = "{hours=\"all\",file=\"m.prom\"}";
                let line = format!("backfiller_last_pass_{name}_bytes{labels} {value}\n");
                assert!(metrics.contains(&line), "{line} {metrics}");
            }
            // It doesn't matter if nothing is missing.
            let args = [&*node.url(), "desertbus", "source", "2018-11-10T09", "--min-free", keep];
            archive.backfill(args).run().assert_code(0);
        }
    }
}

#[test]
fn a_repair_keeps_owner_group_and_mode() {
    if !is_root() || !has_tool("setpriv") {
        return;
    }
    let node = Node::start();
    let archive = Archive::new();
    for (n, (owner, group, mode)) in
        [(1234, 4321, 0o640), (0, 4321, 0o664), (1234, 0, 0o600), (0, 0, 0o644)].iter().enumerate()
    {
        let stem = format!("00:0{n}.0-2.0-full");
        let name = node.add("desertbus", "source", HOUR, &stem, b"good");
        let path = archive.path().join("desertbus/source").join(HOUR).join(&name);
        archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"bad");
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        lchown(&path, Some(*owner), Some(*group)).unwrap();
        let run = archive.backfill([&*node.url(), "desertbus", "source", "--verify"]);
        // Containers may keep root from changing the modes of other users' files.
        run.below("setpriv", ["--bounding-set=-fowner"]).run().assert_code(0);
        let found = fs::metadata(&path).unwrap();
        let kept = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(kept, (*owner, *group, *mode));
        assert_eq!(fs::read(&path).unwrap(), b"good");
    }
}

#[test]
fn an_unused_new_directory_is_removed() {
    let node = Node::start();
    for hour in ["2018-11-10T05", "2018-11-10T06"] {
        node.add("desertbus", "source", hour, "00:00.0-2.0-full", hour.as_bytes());
        node.add("desertbus", "480p", hour, "00:00.0-2.0-full", hour.as_bytes());
    }
    node.add_extra("emotes", "a/b.png", b"x");
    node.fault(On::Segment, Fault::Corrupt);
    let archive = Archive::new();
    let hour = archive.path().join("desertbus/480p/2018-11-10T06");
    fs::create_dir_all(&hour).unwrap();
    let args = [&*node.url(), "desertbus", "source,480p", "--retries=0"];
    archive.backfill(args).run().assert_code(3);
    assert_eq!(
        everything(archive.path()),
        ["desertbus", "desertbus/480p", "desertbus/480p/2018-11-10T06"]
    );
}

#[test]
fn a_file_system_without_colons_is_reported() {
    let kinds = [("mkfs.vfat", "vfat", &["-F", "32"][..]), ("mkfs.exfat", "exfat", &[])];
    for (program, kind, options) in kinds {
        if !is_root() || !has_tool(program) {
            continue;
        }
        let scratch = Archive::new();
        let image = scratch.path().join("image");
        fs::File::create(&image).unwrap().set_len(40 << 20).unwrap();
        let made = Command::new(program).args(options).arg(&image).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let archive = Archive::new();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop", "-t", kind]).arg(&image).arg(archive.path());
        let mounted = mount.output().unwrap();
        if !mounted.status.success() {
            eprintln!("skipped: {kind} can't be mounted here: {mounted:?}");
            continue;
        }
        let _mount = Mount::at(archive.path());
        let (node, _) = node_with(2);
        let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
        outcome.assert_code(1).assert_says("the file system does not allow colons in names");
        assert!(everything(archive.path()).iter().all(|path| !path.contains("temp")));
    }
}

/// A file that another pass has just renamed may not be flushed yet.
#[test]
fn a_new_file_is_flushed_before_it_counts() {
    if !has_tool("strace") {
        return;
    }
    let node = Node::start();
    let archive = Archive::new();
    let names = fill(&node, 2);
    for (n, name) in names.iter().enumerate() {
        let path = format!("desertbus/source/{HOUR}/{name}");
        archive.write(&path, support::segment_content(n).as_bytes());
    }
    let dir = archive.path().join("desertbus/source").join(HOUR);
    let flushes = |options: &[&str]| {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut run = archive.backfill([&*node.url(), "desertbus", "source"]);
        run.command.args(options);
        let strace = ["-f", "-y", "-qq", "-e", "trace=fsync", "-o", log.path().to_str().unwrap()];
        run.below("strace", strace).run().assert_code(0);
        let log = fs::read_to_string(log.path()).unwrap();
        log.matches(&format!("<{}>", dir.display())).count()
    };
    assert_eq!(flushes(&[]), 1);
    assert_eq!(flushes(&["--no-fsync"]), 0);
    assert_eq!(flushes(&["--dry-run"]), 0);
    let file = fs::File::open(&dir).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(120)).unwrap();
    assert_eq!(flushes(&[]), 0);
}

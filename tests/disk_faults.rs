//! Every error of a full, read-only, failing, quota-limited or vanished disk, at every system call,
//! and disks that hang. A file system of our own injects them.

#![cfg(target_os = "linux")]

mod faultfs;
mod node;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use faultfs::{FaultFs, Op};
use node::Node;
use rustix::io::Errno;
use support::{AT_ONCE, Archive, HOUR, Outcome, is_root, node_with};

/// Always, from then on.
const ALWAYS: usize = usize::MAX;

/// The result of a pass onto a disk with faults.
struct Aftermath {
    outcome: Outcome,
    printed: BTreeSet<String>,
    /// The number of files under final names, all of which are whole.
    there: usize,
    /// The number of staged files left behind.
    staged: usize,
    hits: usize,
}

/// Runs a pass, and checks what must always hold: printed files exist, and all files are whole.
fn run(node: &Node, options: &[&str], prepare: impl FnOnce(&FaultFs)) -> Aftermath {
    let (disk, at) = (Archive::new(), Archive::new());
    let mounted = FaultFs::mount(disk.path(), at.path());
    prepare(&mounted);
    let url = node.url();
    let args = [&*url, "desertbus", "source", "--print", "-j2", "--retries=0"];
    let outcome = at.backfill(args.iter().chain(options)).run();
    let hits = mounted.hits();
    drop(mounted);
    let printed: BTreeSet<String> = outcome.stdout.lines().map(String::from).collect();
    let (staged, finals): (Vec<_>, Vec<_>) =
        disk.files().into_iter().partition(|(path, _)| path.contains("-temp-"));
    for (path, content) in &finals {
        assert_eq!(&path[path.len() - 46..path.len() - 3], node::hash_of(content), "{path}");
    }
    let missing = printed.iter().filter(|path| !finals.iter().any(|(there, _)| there == *path));
    assert_eq!(missing.collect::<Vec<_>>(), [""; 0], "printed but missing");
    Aftermath { outcome, printed, there: finals.len(), staged: staged.len(), hits }
}

#[test]
fn every_failing_call_leaves_a_valid_archive() {
    if !is_root() {
        return;
    }
    let (node, names) = node_with(12);
    let full = [Errno::NOSPC, Errno::DQUOT];
    let broken = [Errno::IO, Errno::ROFS, Errno::STALE];
    let everything = || full.iter().chain(&broken);
    let mut cases = Vec::new();
    for op in [Op::Create, Op::Write, Op::Fsync, Op::Close, Op::Rename] {
        cases.extend(everything().map(|errno| (op, *errno, 4, ALWAYS)));
        // The last close of a file may fail, as the file is already flushed.
        if op != Op::Close {
            cases.push((op, Errno::IO, 4, 1));
        }
    }
    cases.extend(full.map(|errno| (Op::Mkdir, errno, 0, ALWAYS)));
    cases.extend([Errno::ACCESS, Errno::ROFS].map(|errno| (Op::Mkdir, errno, 1, ALWAYS)));
    cases
        .extend([Errno::FBIG, Errno::NXIO, Errno::INTR].map(|errno| (Op::Write, errno, 4, ALWAYS)));
    // For a file, this error can't be ignored.
    cases.push((Op::Fsync, Errno::INVAL, 4, ALWAYS));
    cases.extend([0, 3].map(|skip| (Op::FsyncDir, Errno::IO, skip, 1)));
    cases.extend([Errno::NOSPC, Errno::DQUOT].map(|errno| (Op::FsyncDir, errno, 3, ALWAYS)));
    for (op, errno, skip, times) in cases {
        let case = format!("{op:?} {errno:?} after {skip}");
        let after = run(&node, &[], |disk| disk.fail(op, errno, skip, times));
        assert_eq!(after.outcome.code(), Some(1), "{case}: {:#?}", after.outcome);
        assert!(after.hits > 0, "{case}");
        assert_eq!(after.staged, 0, "{case}");
        assert!(after.there < names.len(), "{case}");
        assert!(after.outcome.stderr.contains("error: "), "{case}: {}", after.outcome.stderr);
        assert!(after.outcome.stderr.lines().count() <= 2, "{case}: {}", after.outcome.stderr);
        // The directory of the renamed file could not be flushed.
        if op == Op::FsyncDir && skip == 0 {
            assert!(after.printed.is_empty(), "{case}");
        }
    }
}

#[test]
fn a_name_that_the_file_system_refuses_is_the_node_s_failure() {
    if !is_root() {
        return;
    }
    let (node, names) = node_with(30);
    let after = run(&node, &[], |disk| disk.fail(Op::Create, Errno::NAMETOOLONG, 4, 20));
    after.outcome.assert_code(3).assert_says("could not be fetched: node 127.0.0.1: ");
    after.outcome.assert_says_not("error: ");
    assert_eq!((after.there, after.staged, after.hits), (names.len() - 20, 0, 20));
}

#[test]
fn a_failed_flush_of_a_directory_stays_failed() {
    if !is_root() {
        return;
    }
    let (node, _) = node_with(40);
    for skip in [1, 5, 9] {
        // Only the first flush fails, but the data that it should have kept may already be lost.
        let after = run(&node, &["-j32"], |disk| disk.fail(Op::FsyncDir, Errno::IO, skip, 1));
        after.outcome.assert_code(1).assert_says("flushing the directory ");
        // The first commit flushes four directories.
        assert!(after.printed.len() <= skip.saturating_sub(3) * 32, "{skip}");
        if skip < 4 {
            assert!(after.printed.is_empty(), "{skip}: {:?}", after.printed);
        }
    }
}

#[test]
fn an_unflushable_directory_is_reported_once() {
    if !is_root() {
        return;
    }
    let (node, names) = node_with(12);
    for errno in [Errno::INVAL, Errno::NOTSUP, Errno::ACCESS, Errno::BADF] {
        for times in [1, ALWAYS] {
            let after = run(&node, &[], |disk| disk.fail(Op::FsyncDir, errno, 0, times));
            after.outcome.assert_code(0).assert_says("can't be flushed (");
            after.outcome.assert_says("--no-fsync");
            assert_eq!(after.outcome.stderr.lines().count(), 1, "{}", after.outcome.stderr);
            assert_eq!(after.printed.len(), names.len());
        }
    }
    // Without flushing there is no such warning.
    let after =
        run(&node, &["--no-fsync"], |disk| disk.fail(Op::FsyncDir, Errno::INVAL, 0, ALWAYS));
    assert_eq!((after.outcome.code(), &*after.outcome.stderr), (Some(0), ""));
}

/// Network file systems report a full disk on the server only at close.
#[test]
fn an_error_of_close_prevents_the_commit() {
    if !is_root() {
        return;
    }
    let (node, names) = node_with(12);
    for options in [&[][..], &["--no-fsync"]] {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO] {
            let after = run(&node, options, |disk| disk.fail(Op::Close, errno, 4, ALWAYS));
            after.outcome.assert_code(1).assert_says("error: writing ");
            assert!(after.there < names.len() && after.printed.len() == after.there);
        }
    }
}

#[test]
fn an_unsupported_rename_has_a_fallback() {
    if !is_root() {
        return;
    }
    let (node, names) = node_with(6);
    for errno in [Errno::INVAL, Errno::NOTSUP, Errno::PERM] {
        let after = run(&node, &["-j1"], |disk| disk.fail(Op::Rename, errno, 0, 1));
        after.outcome.assert_code(0);
        assert_eq!((after.there, after.hits), (names.len(), 1));
    }
}

#[test]
fn extra_files_whose_names_differ_only_in_case_are_not_mixed_up() {
    if !is_root() {
        return;
    }
    let (node, names) = node_with(2);
    node.add_extra("emotes", "Kappa.png", b"one");
    node.add_extra("emotes", "kappa.png", b"other");
    for folds_case in [false, true] {
        let (disk, at) = (Archive::new(), Archive::new());
        let mounted = FaultFs::mount(disk.path(), at.path());
        if folds_case {
            mounted.fold_case();
        }
        let pass =
            || at.backfill([&*node.url(), "desertbus", "source", "--extras=emotes", "-j1"]).run();
        let said = ".png could not be fetched: node 127.0.0.1: a file whose name differs only in";
        for _ in 0..2 {
            if folds_case {
                pass().assert_code(3).assert_says(said);
            } else {
                pass().assert_silent_success();
            }
        }
        drop(mounted);
        assert_eq!(disk.files().len(), names.len() + 2 - usize::from(folds_case));
    }
}

#[test]
fn a_read_error_in_one_hour_affects_only_that_hour() {
    if !is_root() {
        return;
    }
    let node = Node::start();
    for hour in 0..6 {
        let hour = format!("2018-11-10T{hour:02}");
        node.add("desertbus", "source", &hour, "30:00.0-2.0-full", hour.as_bytes());
    }
    for op in [Op::OpenDir, Op::ReadDir] {
        let (disk, at) = (Archive::new(), Archive::new());
        for hour in 0..6 {
            let hour = format!("desertbus/source/2018-11-10T{hour:02}");
            fs::create_dir_all(disk.path().join(hour)).unwrap();
        }
        let mounted = FaultFs::mount(disk.path(), at.path());
        mounted.fail(op, Errno::IO, 0, 1);
        let outcome = at.backfill([&*node.url(), "desertbus", "source", "-j1"]).run();
        drop(mounted);
        outcome.assert_code(1).assert_says("reading the directory ");
        assert_eq!(disk.files().len(), 5, "{op:?}");
    }
}

/// As on NFS, where another machine has removed what this one still remembers.
#[test]
fn a_stale_directory_of_a_node_is_looked_up_again() {
    if !is_root() {
        return;
    }
    let (disk, at, archive) = (Archive::new(), Archive::new(), Archive::new());
    let name = disk.put("00:00.0-2.0-full", b"segment");
    let mounted = FaultFs::mount(disk.path(), at.path());
    // The kernel looks it up again itself, once.
    mounted.fail(Op::OpenDir, Errno::STALE, 0, 2);
    let outcome = archive.backfill([at.path().to_str().unwrap(), "desertbus", "source"]).run();
    outcome.assert_silent_success();
    assert_eq!((archive.names(), mounted.hits()), (vec![name], 2));
}

/// As NFS and FUSE hang when the server is gone.
#[test]
fn a_signal_ends_a_pass_on_a_hanging_disk() {
    if !is_root() {
        return;
    }
    for op in [Op::ReadDir, Op::Write, Op::Fsync, Op::Rename, Op::FsyncDir] {
        let (node, _) = node_with(12);
        let (disk, at) = (Archive::new(), Archive::new());
        fs::create_dir_all(disk.path().join("desertbus/source").join(HOUR)).unwrap();
        let mounted = FaultFs::mount(disk.path(), at.path());
        mounted.hang_after(op);
        let running = at.backfill([&*node.url(), "desertbus", "source", "-j2"]).start();
        mounted.wait_until_it_hangs();
        let begun = Instant::now();
        running.signal("TERM");
        let outcome = running.outcome();
        let took = begun.elapsed();
        mounted.resume();
        outcome.assert_code(143);
        assert!(took < AT_ONCE, "{op:?}: {took:?}");
    }
}

//! Power cuts on real file systems. A disk is copied block by block at moments of a pass, and each
//! copy is mounted and checked. Data that the file system still had in memory is lost, as in a
//! power cut. `BACKFILLER_POWERCUTS` sets how many copies are made in all (30).

#![cfg(target_os = "linux")]

mod node;
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use node::{Node, segment_name};
use rand::RngExt;
use rand::seq::SliceRandom;
use support::{has_tool, is_root, number_from_env, wait_until};

const HOURS: [&str; 2] = ["2018-11-10T05", "2018-11-10T06"];

fn sh(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Unmounts a disk. A test beside this one may be starting a program, and until it runs, that holds
/// open what this process does; so the disk may be busy for a moment.
fn unmount(path: &Path) {
    let unmounts = || Command::new("umount").arg("-q").arg(path).status().unwrap().success();
    wait_until(unmounts);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mounted file system that can be copied. Its disk is a file on another file system that copies
/// files in an instant (reflinks).
struct Disk {
    dir: tempfile::TempDir,
    kind: &'static str,
    /// Its loop device, until that is detached. From then on it may be another disk's.
    device: Option<String>,
    copies: Vec<Copy>,
}

/// A copy of the disk, and how many paths had been printed before it.
struct Copy {
    image: PathBuf,
    printed: usize,
}

impl Disk {
    fn new(kind: &'static str) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let (outer, below) = (dir.path().join("outer"), dir.path().join("below"));
        File::create(&outer).unwrap().set_len(8 << 30).unwrap();
        sh("mkfs.xfs", &["-q", "-m", "reflink=1", text(&outer)]);
        for name in ["below", "disk", "copy"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        sh("mount", &["-o", "loop", text(&outer), text(&below)]);
        let image = below.join("image");
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let device = sh("losetup", &["--direct-io=on", "-f", "--show", text(&image)]);
        let options = if kind == "ext4" { &["-q", "-F"][..] } else { &["-q", "-f"] };
        sh(&format!("mkfs.{kind}"), &[options, &[&device]].concat());
        sh("mount", &["-t", kind, &device, text(&dir.path().join("disk"))]);
        Disk { dir, kind, device: Some(device), copies: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn copy(&mut self, printed: usize) {
        let below = self.dir.path().join("below");
        let image = below.join(format!("copy{}", self.copies.len()));
        let (from, to) = (File::open(below.join("image")).unwrap(), File::create(&image).unwrap());
        rustix::fs::ioctl_ficlone(&to, &from).unwrap();
        self.copies.push(Copy { image, printed });
    }

    /// Unmounts it, and calls `check` with each copy, mounted.
    fn each_copy(&mut self, mut each: impl FnMut(&Path, usize)) {
        unmount(&self.path());
        if let Some(device) = self.device.take() {
            sh("losetup", &["-d", &device]);
        }
        let at = self.dir.path().join("copy");
        for Copy { image, printed } in self.copies.drain(..) {
            if self.kind == "btrfs" {
                // All copies have the same identity.
                let _ = Command::new("btrfs").args(["device", "scan", "-u"]).output();
            }
            let options = if self.kind == "xfs" { "loop,nouuid" } else { "loop" };
            sh("mount", &["-t", self.kind, "-o", options, text(&image), text(&at)]);
            each(&at.join("archive"), printed);
            unmount(&at);
            fs::remove_file(image).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for name in ["copy", "disk", "below"] {
            let path = self.dir.path().join(name);
            let _ = Command::new("umount").arg("-q").arg(path).output();
        }
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["-d", device]).output();
        }
    }
}

/// The files of the node, and those in the archive before the pass: paths and contents.
#[derive(Default)]
struct World {
    node: BTreeMap<String, Vec<u8>>,
    before: BTreeMap<String, Vec<u8>>,
    /// The corrupt files of `before`.
    corrupt: Vec<String>,
}

impl World {
    fn new(node: &Node, segments: usize) -> World {
        let mut world = World::default();
        let mut random = support::random();
        for n in 0..segments {
            let size = *[0, 10, 3000, 20_000, 60_000].get(n % 5).unwrap();
            let content: Vec<u8> = (0..size).map(|_| random.random()).collect();
            let (hour, stem) = (HOURS[n % 2], format!("{:02}:{:02}.0-2.0-full", n / 60, n % 60));
            let name = node.add("desertbus", "source", hour, &stem, &content);
            let path = format!("desertbus/source/{hour}/{name}");
            match n % 10 {
                // Corrupt here.
                7 if size > 0 => {
                    let half = content[..size / 2].to_vec();
                    world.before.insert(path.clone(), half);
                    world.corrupt.push(path.clone());
                }
                // Has a tombstone there.
                8 => {
                    let tombstone = name.replace(".ts", ".tombstone");
                    node.add_tombstone("desertbus", "source", hour, &tombstone);
                    world.node.insert(path.replace(".ts", ".tombstone"), Vec::new());
                }
                _ => {}
            }
            world.node.insert(path, content);
        }
        for n in 0..segments / 10 {
            let content = format!("extra {n}").repeat(500).into_bytes();
            node.add_extra("emotes", &format!("{}/{n}.png", n % 3), &content);
            world.node.insert(format!("emotes/{}/{n}.png", n % 3), content);
        }
        for n in 0..10 {
            let content = format!("was here {n}").into_bytes();
            let name = segment_name(&format!("59:0{n}.0-2.0-full"), &content);
            world.before.insert(format!("desertbus/source/{}/{name}", HOURS[0]), content);
        }
        world.before.insert("desertbus/source/notes.txt".into(), b"foreign".to_vec());
        world
    }

    /// The faults of an archive after these paths had been printed.
    fn violations(&self, archive: &Path, printed: &[String]) -> Vec<String> {
        let mut wrong = Vec::new();
        let read = |path: &String| fs::read(archive.join(path)).ok();
        for path in printed {
            if read(path).as_ref() != self.node.get(path) {
                wrong.push(format!("printed, and not there or bad: {path}"));
            }
        }
        for (path, content) in &self.before {
            let is_as_before = read(path).as_ref() == Some(content);
            let is_repaired =
                self.corrupt.contains(path) && read(path).as_ref() == self.node.get(path);
            if !is_as_before && !is_repaired {
                wrong.push(format!("altered or lost: {path}"));
            }
        }
        let listed = sh("find", &[text(archive), "-type", "f", "-printf", "%P\n"]);
        for path in listed.lines().map(String::from) {
            let is_staged = path.contains("-temp-") || path.ends_with(".temp");
            let content = fs::read(archive.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            if is_staged || self.before.contains_key(&path) {
                continue;
            }
            if path == "metrics/backfiller.prom" {
                let text = String::from_utf8(content).unwrap();
                // The old file or the new one, but one of them.
                if !text.contains("backfiller_last_pass_status") || !text.ends_with('\n') {
                    wrong.push(format!("a metrics file of {} bytes", text.len()));
                }
            } else if self.node.get(&path) != Some(&content) {
                wrong.push(format!("bad: {path}, {} bytes", content.len()));
            }
        }
        if !archive.join("metrics/backfiller.prom").exists() {
            wrong.push("the metrics file is lost".into());
        }
        wrong
    }
}

/// Runs a pass, and copies its disk this often meanwhile. Returns the faults of the copies.
fn cut_power(kind: &'static str, copies: usize, options: &[&str]) -> Vec<String> {
    let node = Node::start();
    let world = World::new(&node, 200);
    let mut disk = Disk::new(kind);
    let archive = disk.path().join("archive");
    for (path, content) in &world.before {
        let path = archive.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir(archive.join("metrics")).unwrap();
    let metrics = archive.join("metrics/backfiller.prom");
    let command = |hour: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backfiller"));
        command.args([&*node.url(), "desertbus", "source", hour, "--json", "-j4"]);
        command.arg("--metrics-file").arg(&metrics).env("BACKFILLER_BASE_DIR", &archive);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    assert!(command("2018-01-01T00").output().unwrap().status.success());
    sh("sync", &["-f", text(&archive)]);
    let mut moments: Vec<usize> = (0..200).collect();
    moments.shuffle(&mut support::random());
    moments.truncate(copies - 1);
    let mut pass =
        command("all").args(["--verify", "--extras=emotes"]).args(options).spawn().unwrap();
    let mut printed = Vec::new();
    for line in BufReader::new(pass.stdout.take().unwrap()).lines() {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        if ["segment", "extra", "tombstone"].contains(&event["event"].as_str().unwrap()) {
            printed.push(event["path"].as_str().unwrap().to_owned());
            if moments.contains(&printed.len()) {
                disk.copy(printed.len());
            }
        }
    }
    disk.copy(printed.len());
    assert_eq!(pass.wait().unwrap().code(), Some(0));
    assert!(printed.len() > 150, "{}", printed.len());
    let mut wrong = Vec::new();
    disk.each_copy(|archive, count| {
        let found = world.violations(archive, &printed[..count]);
        wrong.extend(found.iter().map(|what| format!("{kind}, after {count} paths: {what}")));
    });
    wrong
}

fn can_cut_power(kind: &str) -> bool {
    let tools = ["mkfs.xfs", "losetup", &format!("mkfs.{kind}")].map(has_tool);
    is_root() && tools.iter().all(|is_there| *is_there) && Path::new("/dev/loop-control").exists()
}

/// Checks that a power cut neither loses nor corrupts a printed segment.
fn assert_survives(kind: &'static str) {
    if !can_cut_power(kind) {
        return;
    }
    let mut left = number_from_env("BACKFILLER_POWERCUTS", 30).div_ceil(3);
    while left > 0 {
        // A pass can be copied only so often.
        let now = left.min(40);
        assert_eq!(cut_power(kind, now, &[]), [""; 0]);
        left -= now;
    }
}

#[test]
fn printed_segments_survive_a_power_cut_on_ext4() {
    assert_survives("ext4");
}

#[test]
fn printed_segments_survive_a_power_cut_on_xfs() {
    assert_survives("xfs");
}

#[test]
fn printed_segments_survive_a_power_cut_on_btrfs() {
    assert_survives("btrfs");
}

/// Checks that this test finds lost segments.
#[test]
fn without_flushing_a_power_cut_loses_printed_segments() {
    if can_cut_power("ext4") {
        let wrong = cut_power("ext4", 4, &["--no-fsync"]);
        assert!(wrong.iter().any(|what| what.contains("printed, and not there")), "{wrong:?}");
    }
}

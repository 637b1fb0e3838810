//! Shared by the tests: archives in temporary directories, and runs of the real binary.

// Each test crate uses only a part of this module.
#![allow(dead_code)]

pub mod metrics;
pub mod terminal;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::node::{Node, hash_of, segment_name};

/// The hour that most tests use. It is long past.
pub const HOUR: &str = "2018-11-10T05";

/// A run that takes longer hangs. On a very busy machine the longest runs take over a minute.
const LONGEST_RUN: Duration = Duration::from_secs(240);

/// The most memory that a pass may use, in bytes.
const MEMORY: u64 = 64 << 20;

/// A local archive in a temporary directory.
pub struct Archive {
    dir: tempfile::TempDir,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Archive {
        Archive { dir: tempfile::tempdir().unwrap() }
    }

    /// An empty archive for many files: in memory if possible.
    pub fn in_memory() -> Archive {
        let memory = Path::new("/dev/shm");
        match tempfile::tempdir_in(memory) {
            Ok(dir) => Archive { dir },
            Err(_) => Archive::new(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a segment to `desertbus/source/HOUR`. Returns its name.
    pub fn put(&self, stem: &str, content: &[u8]) -> String {
        let name = segment_name(stem, content);
        self.write(&format!("desertbus/source/{HOUR}/{name}"), content);
        name
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// All files by path, with their content, except those that a running pass renames or removes
    /// meanwhile.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn there<T>(found: io::Result<T>) -> Option<T> {
            match found {
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                found => Some(found.unwrap()),
            }
        }
        fn walk(base: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in there(fs::read_dir(dir)).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(base, &path, files);
                } else if let Some(content) = there(fs::read(&path)) {
                    let name = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, content);
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(self.path(), self.path(), &mut files);
        files
    }

    /// The names of all files without directories, sorted.
    pub fn names(&self) -> Vec<String> {
        let names = self.files().into_keys();
        let mut names: Vec<String> =
            names.map(|path| path.rsplit('/').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Checks the archive's invariant: every file has a final name and the content that its name
    /// promises.
    pub fn assert_whole(&self) {
        for (path, content) in self.files() {
            if path.ends_with(".tombstone") {
                assert!(content.is_empty(), "{path}");
                continue;
            }
            let stem = path.strip_suffix(".ts").or(path.strip_suffix(".json"));
            let stem = stem.unwrap_or_else(|| panic!("{path} is not a final name"));
            assert!(!path.contains("-temp-"), "{path} is still staged");
            assert_eq!(
                &stem[stem.len() - 43..],
                hash_of(&content),
                "the content of {path} does not match its hash"
            );
        }
    }

    /// A run of the binary on this archive. The first argument is NODE.
    pub fn backfill<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        let mut run = Run::new(args);
        run.command.env("BACKFILLER_BASE_DIR", self.path());
        run
    }
}

/// A run of the binary, being prepared.
pub struct Run {
    pub command: Command,
    stdin: Vec<u8>,
    /// The directory of the binary, if it is a copy.
    copy: Option<tempfile::TempDir>,
}

impl Run {
    /// A run with these arguments, without a terminal, and with almost nothing in its environment.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backfiller"));
        command.args(args).env_clear().env("RUST_BACKTRACE", "1");
        Run { command, stdin: Vec::new(), copy: None }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn current_dir(mut self, dir: &Path) -> Run {
        self.command.current_dir(dir);
        self
    }

    pub fn stdin(mut self, text: &str) -> Run {
        self.stdin = text.into();
        self
    }

    /// Lets another program start the binary: `strace`, `prlimit`, a shell.
    pub fn below<S: AsRef<OsStr>>(self, program: &str, args: impl IntoIterator<Item = S>) -> Run {
        let mut command = Command::new(program);
        command.args(args).arg(self.command.get_program());
        self.with_command(command)
    }

    /// Runs it as another user, from a copy of the binary that everybody can execute.
    pub fn with_user(mut self, user: u32) -> Run {
        let copy = tempfile::Builder::new().prefix("backfiller-").tempdir().unwrap();
        fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another process: a file that this one has open for writing, and that a child of
        // another test inherits, can't be executed.
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(self.command.get_program()).arg(copy.path());
        assert!(install.status().unwrap().success());
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command.arg(copy.path().join("backfiller"));
        self.copy = Some(copy);
        self.with_command(command)
    }

    /// Another command, with the arguments and the environment of this one.
    fn with_command(mut self, mut command: Command) -> Run {
        let environment = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.args(self.command.get_args()).env_clear().envs(environment);
        self.command = command;
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = self.command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end without reading this.
        let _ = stdin.write_all(&self.stdin);
        drop(stdin);
        let stdout = read_all(child.stdout.take().unwrap());
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let stderr = tee(child.stderr.take().unwrap(), said.clone());
        Running { child, begun, stdout, stderr, said, _copy: self.copy }
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.start().outcome()
    }

    /// Runs it to its end. One node answers only after an event, so its answer comes last on any
    /// machine.
    #[track_caller]
    pub fn run_with_late(self, late: &Node, has_happened: impl FnOnce()) -> Outcome {
        late.hold();
        let running = self.start();
        has_happened();
        late.release();
        running.outcome()
    }

    /// Runs it to its end, and checks that it never uses more memory than a pass may.
    #[track_caller]
    pub fn run_bounded(self) -> Outcome {
        let running = self.start();
        let mut peak = 0;
        while let Some(now) = running.peak_memory() {
            peak = peak.max(now);
            // There is no event for a number that grows.
            thread::sleep(Duration::from_millis(5));
        }
        let outcome = running.outcome();
        println!("at most {} MiB of memory", peak >> 20);
        assert!(peak < MEMORY, "{} MiB of memory: {outcome:#?}", peak >> 20);
        outcome
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        String::from_utf8(text).expect("the output is UTF-8")
    })
}

/// Reads to the end, and shares what has arrived so far.
fn tee(mut pipe: impl Read + Send + 'static, so_far: Arc<Mutex<Vec<u8>>>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // On Linux, reading from a terminal fails when the last writer is gone.
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            so_far.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
        let text = so_far.lock().unwrap().clone();
        String::from_utf8(text).expect("the output is UTF-8")
    })
}

/// Waits until [`tee`] has read this text this often.
#[track_caller]
fn wait_until_in(so_far: &Mutex<Vec<u8>>, text: &str, times: usize) {
    let count = || String::from_utf8_lossy(&so_far.lock().unwrap()).matches(text).count();
    wait_until(|| count() >= times);
}

/// A running pass.
pub struct Running {
    child: Child,
    begun: Instant,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    /// The standard error so far.
    said: Arc<Mutex<Vec<u8>>>,
    _copy: Option<tempfile::TempDir>,
}

impl Running {
    pub fn signal(&self, signal: &str) {
        assert!(self.try_signal(signal), "the process is gone");
    }

    /// Sends a signal to a process that may be gone. Returns whether it was still there.
    pub fn try_signal(&self, signal: &str) -> bool {
        let signal = match signal {
            "CONT" => Signal::CONT,
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "STOP" => Signal::STOP,
            "TERM" => Signal::TERM,
            "USR1" => Signal::USR1,
            _ => panic!("no test sends SIG{signal}"),
        };
        kill_process(Pid::from_child(&self.child), signal).is_ok()
    }

    /// Kills it, as a crash would. Returns whether it was still running.
    pub fn kill(mut self) -> bool {
        let running = self.child.try_wait().unwrap().is_none();
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.stdout.join().unwrap();
        self.stderr.join().unwrap();
        running
    }

    /// Waits until this text is on standard error.
    #[track_caller]
    pub fn wait_until_said(&self, text: &str) {
        wait_until_in(&self.said, text, 1);
    }

    /// Waits until this text is on standard error this often.
    #[track_caller]
    pub fn wait_until_said_often(&self, times: usize, text: &str) {
        wait_until_in(&self.said, text, times);
    }

    /// Waits until it has opened this file.
    pub fn wait_until_open(&self, path: &Path) {
        let fds = format!("/proc/{}/fd", self.child.id());
        let is_open = || {
            let entries = fs::read_dir(&fds).into_iter().flatten().flatten();
            entries.map(|entry| fs::read_link(entry.path())).any(|to| to.is_ok_and(|to| to == path))
        };
        wait_until(is_open);
    }

    /// Its peak memory so far, in bytes; `None` once it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        // A child that is just being started shares the memory of this process until exec ends,
        // which may be a moment after `spawn` returns.
        let exe = |pid: &str| fs::read_link(format!("/proc/{pid}/exe"));
        if exe(&self.child.id().to_string()).is_ok_and(|now| Some(now) == exe("self").ok()) {
            return Some(0);
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Waits for its end, and kills it if it takes too long.
    pub fn outcome(mut self) -> Outcome {
        let pid = self.child.id().to_string();
        let (ended, end) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            if end.recv_timeout(LONGEST_RUN) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
            }
        });
        let exit = self.child.wait().unwrap();
        let took = self.begun.elapsed();
        drop(ended);
        watchdog.join().unwrap();
        let stdout = self.stdout.join().unwrap();
        let stderr = self.stderr.join().unwrap();
        Outcome { exit, stdout, stderr, took }
    }
}

/// An exit status as a shell shows it: 128 plus the signal for a process that a signal ended.
pub fn shell_status(exit: ExitStatus) -> Option<i32> {
    exit.code().or(exit.signal().map(|signal| 128 + signal))
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    exit: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Outcome {
    /// The exit status as a shell shows it.
    pub fn code(&self) -> Option<i32> {
        shell_status(self.exit)
    }

    /// The signal that it died of, if any.
    pub fn signal(&self) -> Option<i32> {
        self.exit.signal()
    }

    /// The lines of `--json`; the last one is the summary.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The summary of `--json`.
    pub fn summary(&self) -> Value {
        self.events().pop().expect("a summary")
    }

    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Outcome {
        assert_eq!(self.code(), Some(code), "{self:#?}");
        self
    }

    /// The pass was complete and printed nothing.
    #[track_caller]
    pub fn assert_silent_success(&self) -> &Outcome {
        self.assert_code(0);
        assert_eq!((&*self.stdout, &*self.stderr), ("", ""));
        self
    }

    #[track_caller]
    pub fn assert_says(&self, text: &str) -> &Outcome {
        assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn assert_says_not(&self, text: &str) -> &Outcome {
        assert!(!self.stderr.contains(text), "{text:?} is in:\n{}", self.stderr);
        self
    }
}

/// Adds this many segments of about a kilobyte to `desertbus/source/HOUR` of a node. Returns their
/// names, sorted.
pub fn fill(node: &Node, count: usize) -> Vec<String> {
    let add = |n: usize| {
        let stem = format!("{:02}:{:02}.0-2.0-full", n / 30, n % 30 * 2);
        node.add("desertbus", "source", HOUR, &stem, segment_content(n).as_bytes())
    };
    (0..count).map(add).collect()
}

/// The content of the n-th segment of [`fill`].
pub fn segment_content(n: usize) -> String {
    format!("segment {n} ").repeat(100)
}

/// A node with this many segments, and their names.
pub fn node_with(count: usize) -> (Node, Vec<String>) {
    let node = Node::start();
    let names = fill(&node, count);
    (node, names)
}

/// Tests these cases, a few at a time, because they mostly wait.
pub fn each_case<C: Send>(cases: impl IntoIterator<Item = C>, test: impl Fn(C) + Sync) {
    let cases: Vec<C> = cases.into_iter().collect();
    let left = Mutex::new(cases.into_iter());
    let next = || left.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = next() {
                    test(case);
                }
            });
        }
    });
}

/// How long "at once" may take on a busy machine. Where this is used, anything that a pass might
/// wait for must take much longer.
pub const AT_ONCE: Duration = Duration::from_secs(5);

/// How long a test waits for an event.
pub const LONG: Duration = Duration::from_secs(20);

/// Waits until a condition holds, where there is no event to wait for.
#[track_caller]
pub fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "it has not happened in time");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this test runs as root. In CI, it must.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root || std::env::var_os("CI").is_none(), "this test needs root");
    if !is_root {
        eprintln!("skipped: this test needs root");
    }
    is_root
}

/// Whether a program that this test needs is installed. In CI, it must be.
pub fn has_tool(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&paths).any(|dir| dir.join(name).is_file());
    assert!(is_there || std::env::var_os("CI").is_none(), "this test needs {name}");
    if !is_there {
        eprintln!("skipped: this test needs {name}");
    }
    is_there
}

/// A number that the environment may set, for example to run a test longer.
pub fn number_from_env(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// Randomness for a test. It prints how to repeat a failure.
pub fn random() -> SmallRng {
    let seed = number_from_env("BACKFILLER_SEED", rand::random::<u32>() as usize);
    println!("to repeat this: BACKFILLER_SEED={seed}");
    SmallRng::seed_from_u64(seed as u64)
}

/// A file system that is mounted for a test.
pub struct Mount {
    path: PathBuf,
}

impl Mount {
    /// A file system that is already mounted there, to be unmounted.
    pub fn at(path: &Path) -> Mount {
        Mount { path: path.to_owned() }
    }

    pub fn tmpfs(path: &Path, options: &str) -> Mount {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status();
        assert!(mount.unwrap().success());
        Mount { path: path.to_owned() }
    }

    pub fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let mount = Command::new("mount").args(["-o", &option]).arg(&self.path).status();
        assert!(mount.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.path).status();
    }
}

/// The small archive of real segments in the repository. A package doesn't have it.
pub fn data() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if root.join(".cargo_vcs_info.json").exists() {
        eprintln!("skipped: a package has no tests/data");
        return None;
    }
    Some(root.join("tests/data/archive"))
}

/// Waits until a server accepts connections on this port of 127.0.0.1.
pub fn wait_for_port(port: u16) {
    wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
}

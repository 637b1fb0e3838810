//! What the bar leaves on a real terminal: after the window changes, and after Ctrl-Z. The terminal
//! is tmux, which rewraps all lines when its window changes, as most terminals do.

mod node;
mod support;

use std::fs;
use std::process::Command;
use std::time::Instant;

use node::Node;
use support::{Archive, LONG, has_tool, node_with};

/// The last line of a command that fills the screen. When tmux wraps lines, it moves as many rows
/// off the screen at its top, from where nothing can remove them.
const SEQ: &str = "20";

/// A shell in a window of tmux.
struct Window {
    /// Holds the socket of its server.
    dir: tempfile::TempDir,
}

impl Window {
    /// Opens a window whose shell has the program as `$B` and its arguments as `$ARGS`. It is in
    /// the archive's directory.
    fn open(columns: u16, rows: u16, args: &str, archive: &Archive) -> Window {
        let window = Window { dir: tempfile::tempdir().unwrap() };
        // Root would have another prompt.
        let init = window.dir.path().join("init");
        fs::write(&init, "PS1='$ '\n").unwrap();
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let init = format!("ENV={}", init.display());
        let program = format!("B={}", env!("CARGO_BIN_EXE_backfiller"));
        let args = format!("ARGS={args}");
        let mut new = vec!["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows];
        new.extend(["-c", archive.path().to_str().unwrap()]);
        new.extend(["-e", &init, "-e", &program, "-e", &args, "sh"]);
        window.tmux(&new);
        window.wait_until_shows(&["$"]);
        window
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        command.arg("-S").arg(self.dir.path().join("tmux")).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types a line.
    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press("Enter");
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// The lines on the screen, and those that have left it at the top.
    fn lines(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p", "-S", "-"]);
        text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until there are exactly lines that begin so, after those of `seq`.
    #[track_caller]
    fn wait_until_shows(&self, beginnings: &[&str]) {
        let begun = Instant::now();
        loop {
            let mut lines = self.lines();
            lines.drain(..lines.iter().rposition(|line| line == SEQ).map_or(0, |last| last + 1));
            let begins = |(line, beginning): (&String, &&str)| line.starts_with(beginning);
            if lines.len() == beginnings.len() && lines.iter().zip(beginnings).all(begins) {
                return;
            }
            assert!(begun.elapsed() < LONG, "{lines:#?} instead of {beginnings:#?}");
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Two nodes, of which the second answers nothing until it is released, and the arguments for both.
fn nodes() -> ([Node; 2], String) {
    let (node, _) = node_with(3);
    let slow = Node::start_at("127.0.0.2");
    slow.hold();
    let nodes = format!("a={},b={}", node.url(), slow.url());
    ([node, slow], format!("{nodes} desertbus source --timeout 60s"))
}

#[test]
fn a_changed_window_keeps_no_piece_of_the_bar() {
    if !has_tool("tmux") {
        return;
    }
    let (nodes, args) = nodes();
    let archive = Archive::new();
    let window = Window::open(100, 10, &args, &archive);
    window.enter("seq 20; $B $ARGS; echo ended");
    let bar = ["", "  a  ", "  b  "];
    window.wait_until_shows(&bar);
    for (columns, rows) in [(60, 10), (30, 10), (23, 5), (100, 20), (40, 20), (24, 10), (120, 4)] {
        window.resize(columns, rows);
        window.wait_until_shows(&bar);
    }
    nodes[1].release();
    window.wait_until_shows(&["backfiller: complete: ", "ended", "$"]);
}

#[test]
fn a_stopped_pass_leaves_the_terminal_to_the_shell() {
    if !has_tool("tmux") {
        return;
    }
    let (nodes, args) = nodes();
    let archive = Archive::new();
    let window = Window::open(80, 20, &args, &archive);
    window.enter("$B $ARGS");
    window.wait_until_shows(&["$ $B $ARGS", "", "  a  ", "  b  "]);
    window.press("C-z");
    let stopped = ["$ $B $ARGS", "[1] + Stopped", "$ echo typed", "typed"];
    window.wait_until_shows(&[&stopped[..2], &["$"]].concat());
    window.enter("echo typed");
    window.wait_until_shows(&[&stopped[..], &["$"]].concat());
    window.enter("fg");
    window.wait_until_shows(
        &[&stopped[..], &["$ fg", "${B} ${ARGS}", "", "  a  ", "  b  "]].concat(),
    );
    nodes[1].release();
    window.wait_until_shows(
        &[&stopped[..], &["$ fg", "${B} ${ARGS}", "backfiller: complete: ", "$"]].concat(),
    );
}

//! A terminal that a run writes to, and the resulting screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Run;

/// Where standard output goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    Terminal,
    Pipe,
}

/// The result of a run on a terminal.
#[derive(Debug)]
pub struct Shown {
    /// Everything that was written to the terminal.
    pub written: String,
    /// The final screen, line by line.
    pub screen: Vec<String>,
    /// The output through the pipe.
    pub stdout: String,
    pub code: Option<i32>,
    pub took: Duration,
}

impl Run {
    /// Runs it with a terminal for standard error.
    pub fn on_terminal(self, columns: u16) -> Shown {
        self.on_terminal_with(columns, Stdout::Pipe, |_| {})
    }

    /// The same with this standard output. `meanwhile` uses the terminal as a person would.
    pub fn on_terminal_with(
        self,
        columns: u16,
        stdout: Stdout,
        meanwhile: impl FnOnce(&mut Seat),
    ) -> Shown {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        // In a session of its own, so that keys send signals.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(self.command.get_program());
        command.args(self.command.get_args()).env_clear().env("TERM", "xterm");
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let fd = || -> OwnedFd { terminal.try_clone().unwrap().into() };
        command.stdin(fd()).stderr(fd());
        match stdout {
            Stdout::Terminal => command.stdout(fd()),
            Stdout::Pipe => command.stdout(Stdio::piped()),
        };
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        // Both keep the terminal open.
        drop(command);
        drop(terminal);
        let master = File::from(master);
        let mut seat = Seat { keys: master.try_clone().unwrap(), shown: Arc::default() };
        let written = super::tee(master, seat.shown.clone());
        meanwhile(&mut seat);
        let mut text = String::new();
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_string(&mut text).unwrap();
        }
        let code = super::shell_status(child.wait().unwrap());
        let took = begun.elapsed();
        let written = written.join().unwrap();
        let screen = screen(&written, columns.into());
        Shown { written, screen, stdout: text, code, took }
    }
}

/// What a person at the terminal has.
pub struct Seat {
    keys: File,
    /// What was written to the terminal so far.
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Seat {
    /// Waits until this was written to the terminal.
    #[track_caller]
    pub fn wait_until_shown(&self, text: &str) {
        super::wait_until_in(&self.shown, text, 1);
    }

    /// Presses Control-C.
    pub fn interrupt(&mut self) {
        self.keys.write_all(b"\x03").unwrap();
    }
}

/// The screen after this output, without colours. It knows only the control sequences that the
/// program uses, and panics at any other.
fn screen(written: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut wraps = true;
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "{written:?}");
                let mut number = String::new();
                let order = loop {
                    match chars.next().unwrap() {
                        c if c.is_ascii_digit() || c == ';' || c == '?' => number.push(c),
                        c => break c,
                    }
                };
                let n: usize = number.parse().unwrap_or(1);
                match order {
                    'A' => row = row.checked_sub(n).expect("above the first line"),
                    'J' if number.is_empty() => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    'K' if number == "2" => lines[row].clear(),
                    'h' | 'l' if number == "?7" => wraps = order == 'h',
                    'm' => {}
                    order => panic!("unknown control sequence: {number}{order}"),
                }
            }
            c => {
                // Only a character after the last column begins a new line.
                if column == columns {
                    (row, column) = if wraps { (row + 1, 0) } else { (row, column - 1) };
                }
                lines.resize_with(lines.len().max(row + 1), Vec::new);
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize_with(lines.len().max(row + 1), Vec::new);
    }
    let text = |line: Vec<char>| line.into_iter().collect::<String>().trim_end().to_owned();
    let mut lines: Vec<String> = lines.into_iter().map(text).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

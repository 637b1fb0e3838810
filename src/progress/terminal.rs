//! The terminal that the bar is drawn on, and that other messages on standard error share.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use console::Term;
use indicatif::TermLike;

/// Columns left free at the right edge. When the user presses Ctrl-C, the terminal prints `^C` at
/// the cursor. If that wrapped to a new line, the bar could not be removed completely.
const MARGIN: u16 = 3;

/// Standard error, reported narrower than it is by [`MARGIN`], with the cursor left where the text
/// ends. indicatif pads each line with blanks; this takes the blanks as the end of the line, and
/// clears the rest of the line instead of printing them.
#[derive(Debug)]
pub struct Terminal {
    term: Term,
    line_ended: AtomicBool,
}

impl Terminal {
    /// A terminal with nothing drawn on it.
    pub fn new() -> Terminal {
        Terminal { term: Term::buffered_stderr(), line_ended: AtomicBool::new(false) }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.term.size().1.saturating_sub(MARGIN).max(1)
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.line_ended.store(false, Ordering::Relaxed);
        self.term.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.term.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        if text.bytes().all(|byte| byte == b' ') {
            self.line_ended.store(true, Ordering::Relaxed);
            return self.term.write_str("\x1b[K");
        }
        if self.line_ended.swap(false, Ordering::Relaxed) {
            self.term.write_line("")?;
        }
        self.term.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.line_ended.store(false, Ordering::Relaxed);
        self.term.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.term.flush()
    }
}

//! The terminal that the bar is drawn on, and that other messages on standard error share.

use std::io;
use std::sync::Mutex;

use console::Term;
use indicatif::TermLike;

use crate::lock::lock;

/// Clears the line of the cursor and all below. A single command to clear the rest of the screen
/// would do, but at the top of the screen tmux takes that for a new page, and keeps the old one. It
/// also makes terminals forget which of these rows were one line that they had wrapped, so that they
/// don't join them when the window changes again.
const CLEAR: &str = "\r\x1b[2K\n\x1b[J\x1b[A";
/// Between these two, text that is too long for a window is cut, not wrapped. The window may have
/// become narrower since its size was read.
const DO_NOT_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Standard error, on which the bar is drawn from the cursor on. The cursor returns to where the
/// bar begins, so each draw begins there, and needs no moves.
///
/// It is left there, and not where the bar ends, because most terminals rewrap all lines when their
/// window changes, and move the cursor with the text under it. So however many rows the bar takes
/// by then, all of them follow the cursor.
#[derive(Debug)]
pub struct Terminal {
    term: Term,
    drawing: Mutex<Drawing>,
}

/// The state of the drawing.
#[derive(Debug, Default)]
struct Drawing {
    /// The lines of the next draw.
    lines: Vec<String>,
    /// Whether there is a bar on the screen.
    is_shown: bool,
}

impl Terminal {
    /// A terminal with nothing drawn on it.
    pub fn new() -> Terminal {
        Terminal { term: Term::buffered_stderr(), drawing: Mutex::default() }
    }
}

impl Drawing {
    /// What to print to replace the bar with the lines of the next draw.
    fn finish(&mut self) -> String {
        let lines = std::mem::take(&mut self.lines);
        let was_shown = std::mem::replace(&mut self.is_shown, !lines.is_empty());
        match lines.len() {
            0 if was_shown => CLEAR.to_owned(),
            0 => String::new(),
            1 => format!("{CLEAR}{DO_NOT_WRAP}{}{WRAP}\r", lines[0]),
            n => format!("{CLEAR}{DO_NOT_WRAP}{}{WRAP}\x1b[{}A\r", lines.join("\n"), n - 1),
        }
    }
}

/// indicatif moves to the start of the bar, clears all of its lines, writes the new ones, each
/// followed by blanks up to the edge, and then flushes. Of that, only the lines matter here.
impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.term.size().1.max(1)
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        if !text.trim_matches(' ').is_empty() {
            lock(&self.drawing).lines.push(text.to_owned());
        }
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let text = lock(&self.drawing).finish();
        self.term.write_str(&text)?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_returns_to_where_the_bar_begins() {
        let mut drawing = Drawing::default();
        let mut draw = |lines: &[&str]| {
            drawing.lines = lines.iter().map(|line| line.to_string()).collect();
            drawing.finish()
        };
        assert_eq!(draw(&[]), "");
        assert_eq!(draw(&["a"]), "\r\x1b[2K\n\x1b[J\x1b[A\x1b[?7la\x1b[?7h\r");
        assert_eq!(
            draw(&["a", "b", "c"]),
            "\r\x1b[2K\n\x1b[J\x1b[A\x1b[?7la\nb\nc\x1b[?7h\x1b[2A\r"
        );
        assert_eq!(draw(&[]), "\r\x1b[2K\n\x1b[J\x1b[A");
        assert_eq!(draw(&[]), "");
    }
}

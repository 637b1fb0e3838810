//! Messages on standard error: one line each, with foreign text escaped, and without tearing the
//! bar.

use std::borrow::Cow;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::out::Patient;
use crate::progress::Progress;
use crate::segment::is_unprintable;

/// Replaces characters that could control a terminal with visible escapes.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| {
        if is_unprintable(c) { c.escape_default().to_string() } else { c.to_string() }
    };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// Longer messages are shortened to this many characters. Text from nodes may be of any length.
const MAX_MESSAGE: usize = 1000;

/// Escapes a message, and cuts out its middle if it is too long. The start says which node or file
/// it is about, and the end says why.
fn presentable(message: &str) -> Cow<'_, str> {
    if message.char_indices().nth(MAX_MESSAGE).is_none() {
        return escape(message);
    }
    let middle = |(at, _)| at;
    let start = message.char_indices().nth(MAX_MESSAGE / 2).map_or(message.len(), middle);
    let end = message.char_indices().nth_back(MAX_MESSAGE / 2 - 1).map_or(0, middle);
    Cow::Owned(format!("{} ... {}", escape(&message[..start]), escape(&message[end..])))
}

/// Starts logging to standard error, in colour or not.
pub fn init(level: LevelFilter, colour: bool) {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| Logger::new(colour));
    // An error means that a logger is set already, which is this one.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
    let _ = THE_LOGGER.set(logger);
}

/// From now on, writes messages above this bar.
pub fn share_with(progress: &Progress) {
    if let Some(logger) = THE_LOGGER.get() {
        let _ = logger.progress.set(progress.clone());
    }
}

/// Writes a line to standard error, whatever the level.
pub fn print(line: &str) {
    if let Some(logger) = THE_LOGGER.get() {
        logger.write(&format!("backfiller: {}\n", presentable(line)));
    }
}

/// From now on, drops all messages.
pub fn close() {
    if let Some(logger) = THE_LOGGER.get() {
        let _stderr = std::io::stderr().lock();
        logger.closed.store(true, Ordering::Relaxed);
    }
}

/// How many messages of each level were written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([u64; LEVELS.len()]);

/// The names of the levels in metrics, in the order of [`Level`].
const LEVELS: [&str; 4] = ["error", "warning", "info", "debug"];

impl Counts {
    /// The name of each level, with its count now and before.
    pub fn since(self, before: &Counts) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let pairs = self.0.into_iter().zip(before.0);
        LEVELS.into_iter().zip(pairs).map(|(level, (now, before))| (level, now, before))
    }
}

/// How many messages were written so far.
pub fn counts() -> Counts {
    match THE_LOGGER.get() {
        Some(logger) => Counts(logger.counts.each_ref().map(|n| n.load(Ordering::Relaxed))),
        None => Counts::default(),
    }
}

static THE_LOGGER: OnceLock<&'static Logger> = OnceLock::new();

/// Writes messages to standard error.
struct Logger {
    colour: bool,
    progress: OnceLock<Progress>,
    /// The pass is over.
    closed: AtomicBool,
    counts: [AtomicU64; LEVELS.len()],
}

impl Logger {
    fn new(colour: bool) -> Logger {
        let (progress, closed) = (OnceLock::new(), AtomicBool::new(false));
        Logger { colour, progress, closed, counts: Default::default() }
    }

    fn write(&self, line: &str) {
        // If this fails, there is nowhere to report it.
        let write = || {
            let mut stderr = Patient(std::io::stderr().lock());
            // Checked while the stream is locked, so that nothing follows the summary line.
            if !self.closed.load(Ordering::Relaxed) {
                let _ = stderr.write_all(line.as_bytes());
            }
        };
        match self.progress.get() {
            Some(progress) => progress.suspend(write),
            None => write(),
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Messages of libraries are of use to their authors only.
        if !record.target().starts_with("backfiller") {
            return;
        }
        let level = record.level();
        let (kind, number) = match level {
            Level::Error => ("error: ", 0),
            Level::Warn => ("warning: ", 1),
            Level::Info => ("", 2),
            Level::Debug | Level::Trace => ("debug: ", 3),
        };
        self.counts[number].fetch_add(1, Ordering::Relaxed);
        let (on, off) = match (self.colour, level) {
            (true, Level::Error) => ("\x1b[1;31m", "\x1b[0m"),
            (true, Level::Warn) => ("\x1b[1;33m", "\x1b[0m"),
            _ => ("", ""),
        };
        let message = record.args().to_string();
        self.write(&format!("backfiller: {on}{kind}{off}{}\n", presentable(&message)));
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        for (text, escaped) in [
            ("plain – é 字", "plain – é 字"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\r\t", "a\\nb\\r\\t"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2028}", "a\\u{202e}b\\u{2028}"),
        ] {
            assert_eq!(escape(text), escaped);
        }
    }

    #[test]
    fn a_long_message_keeps_its_start_and_its_end() {
        let usual = "é".repeat(MAX_MESSAGE);
        assert_eq!(presentable(&usual), usual);
        let (half, too_much) = (MAX_MESSAGE / 2, MAX_MESSAGE);
        let long = format!("{}{}", "a".repeat(too_much), "é".repeat(too_much));
        let shown = format!("{} ... {}", "a".repeat(half), "é".repeat(half));
        assert_eq!(presentable(&long), shown);
    }
}

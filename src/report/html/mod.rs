//! The HTML report (`--report`): one file that needs neither network nor script.

mod chart;
mod compare;
mod failures;
mod history;
mod holes;
mod map;
mod page;
mod text;

use std::path::Path;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::event::Event;
use super::file::{FileError, OutputFile};
use super::tally::Tally;
use super::{End, Measured, RunningPass};
use crate::clock;
use crate::stop::Stop;

use failures::Failures;
use history::History;
use page::{BEGINNING, GAVE_WAY, Page, Stage, gave_way};

/// What is known about a pass before it begins.
#[derive(Clone, Debug)]
pub struct About {
    /// The command line without passwords.
    pub command: String,
    /// The path of the archive.
    pub archive: String,
    /// The names of the nodes.
    pub names: Vec<String>,
    /// Which of the nodes are optional.
    pub optional: Vec<bool>,
    /// Whether nothing is fetched.
    pub dry_run: bool,
    /// Whether the pass counts who has what.
    pub compares: bool,
}

/// The file of the report, and what only the report needs to know about the pass.
#[derive(Debug)]
pub struct Html {
    file: OutputFile,
    about: About,
    failures: Failures,
    history: History,
    /// The coverage as it was last measured during the pass, and when that was.
    measured: Option<(DateTime<Utc>, Vec<Measured>)>,
}

impl Html {
    /// A report in the file at this path, on a pass that begins at this time.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be written, as far as that is known before the pass, or contains
    /// something else.
    pub fn new(path: &Path, about: About, begun: Instant) -> Result<Html, FileError> {
        let file = OutputFile::at(path)?;
        check(&file.read()?)?;
        Ok(Html {
            file,
            about,
            failures: Failures::default(),
            history: History::new(begun),
            measured: None,
        })
    }

    /// The file.
    pub fn file(&self) -> &OutputFile {
        &self.file
    }

    /// Counts an event.
    pub fn count(&mut self, event: &Event<'_>) {
        self.failures.count(event);
        if let Event::Landed { bytes, .. } = event {
            self.history.add(Instant::now(), *bytes);
        }
    }

    /// The page at the end of the pass.
    pub fn page(&self, end: End<'_>) -> String {
        let End { tally, status, figures, summary, .. } = end;
        let is_known = !figures.measured.is_empty() || figures.collections == Some(0);
        let last = self.measured.as_ref().filter(|_| !is_known);
        Page {
            about: &self.about,
            stage: Stage::Over(status),
            summary,
            written: clock::now(),
            started: figures.started,
            took: figures.took,
            tally,
            failures: &self.failures,
            history: &self.history,
            measured: last.map_or(&figures.measured, |(_, measured)| measured),
            measured_at: last.map(|(at, _)| *at),
            collections: figures.collections,
            compared: &figures.compared,
        }
        .text()
    }

    /// The page during the pass; `measured` is the coverage so far, and `summary` a status line.
    pub fn page_so_far(
        &mut self,
        RunningPass { started, now }: RunningPass,
        measured: Vec<Measured>,
        summary: &str,
        tally: &Tally,
    ) -> String {
        let written = clock::now();
        let (at, measured) = self.measured.insert((written, measured));
        Page {
            about: &self.about,
            stage: Stage::Running(now),
            summary,
            written,
            started,
            took: (written - started).to_std().unwrap_or_default(),
            tally,
            failures: &self.failures,
            history: &self.history,
            measured,
            measured_at: Some(*at),
            collections: None,
            compared: &[],
        }
        .text()
    }

    /// Adds a note to the page that is there: this pass gave way to another one.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be written.
    pub fn write_locked_out(&self, end: End<'_>, stop: &Stop) -> Result<(), FileError> {
        replace(&self.file, stop, |found| {
            let note = gave_way(clock::now());
            match found.split_once(GAVE_WAY[0]) {
                Some((before, after)) => {
                    let after = after.split_once(GAVE_WAY[1]).map_or(after, |(_, after)| after);
                    format!("{before}{note}{after}")
                }
                None => self.page(end).replacen(&GAVE_WAY.concat(), &note, 1),
            }
        })
    }
}

/// Replaces the page in this file.
///
/// # Errors
///
/// Fails if the file can't be written, or contains something else by now.
pub fn write(file: &OutputFile, page: &str, stop: &Stop) -> Result<(), FileError> {
    replace(file, stop, |_| page.to_owned())
}

fn replace(file: &OutputFile, stop: &Stop, page: impl Fn(&str) -> String) -> Result<(), FileError> {
    loop {
        let held = file.lock(stop)?;
        check(&held.text)?;
        if file.replace(&held, &page(&held.text))? {
            return Ok(());
        }
    }
}

/// Checks that this text may be replaced: it is a report, or empty.
fn check(text: &str) -> Result<(), FileError> {
    if text.is_empty() || text.starts_with(BEGINNING) {
        return Ok(());
    }
    Err(FileError::Foreign("it is not a report of this program".into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::extra::ExtraDir;
    use crate::target::Target;

    #[test]
    fn bytes_are_counted_from_the_beginning_of_the_pass() {
        let dir = tempfile::tempdir().unwrap();
        let about = About {
            command: String::new(),
            archive: String::new(),
            names: vec!["a".into()],
            optional: vec![false],
            dry_run: false,
            compares: false,
        };
        let begun = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let mut page = Html::new(&dir.path().join("x.html"), about, begun).unwrap();
        let target = &Target::Extra("emotes".parse::<ExtraDir>().unwrap(), "a".parse().unwrap());
        let took = Duration::ZERO;
        page.count(&Event::Landed { node: 0, target, bytes: 5, took, repaired: false });
        assert!(page.history.bytes().len() > 10, "{:?}", page.history);
    }
}

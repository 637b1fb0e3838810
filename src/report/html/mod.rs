//! The report as a page for a browser: one file that needs neither network nor script.

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
use super::{End, Measured, UnderWay};
use crate::stop::Stop;

use failures::Failures;
use history::History;
use page::{BEGINNING, GAVE_WAY, Page, Stage, gave_way};

/// What is known of a pass before it begins.
#[derive(Clone, Debug)]
pub struct About {
    /// The command line, without passwords.
    pub command: String,
    /// The archive.
    pub archive: String,
    /// The nodes, and which of them are optional.
    pub names: Vec<String>,
    /// Which of the nodes are optional.
    pub optional: Vec<bool>,
    /// Whether nothing is fetched.
    pub dry_run: bool,
    /// Whether it's to be found out who has what.
    pub compares: bool,
}

/// The page, and what it is made of that nothing else keeps.
#[derive(Debug)]
pub struct Html {
    file: OutputFile,
    about: About,
    failures: Failures,
    history: History,
    /// What was covered when that was last measured in mid-pass.
    measured: Option<(DateTime<Utc>, Vec<Measured>)>,
}

impl Html {
    /// The page at this path. Fails if it can't be written in the end, as far as that can be known
    /// now.
    pub fn new(path: &Path, about: About) -> Result<Html, FileError> {
        let file = OutputFile::at(path)?;
        check(&file.read()?)?;
        Ok(Html {
            file,
            about,
            failures: Failures::default(),
            history: History::new(Instant::now()),
            measured: None,
        })
    }

    /// The file.
    pub fn file(&self) -> &OutputFile {
        &self.file
    }

    /// Notes an event.
    pub fn count(&mut self, event: &Event<'_>) {
        self.failures.count(event);
        if let Event::Landed { bytes, .. } = event {
            self.history.add(Instant::now(), *bytes);
        }
    }

    /// The page of a pass that is over.
    pub fn page(&self, end: End<'_>) -> String {
        let End { tally, status, figures, summary, .. } = end;
        let last = self.measured.as_ref().filter(|_| figures.measured.is_empty());
        Page {
            about: &self.about,
            stage: Stage::Over(status),
            summary,
            written: Utc::now(),
            started: figures.started,
            took: figures.took,
            tally,
            failures: &self.failures,
            history: &self.history,
            measured: last.map_or(&figures.measured, |(_, measured)| measured),
            measured_at: last.map(|(at, _)| *at),
            compared: &figures.compared,
        }
        .text()
    }

    /// The page of a pass under way, in which this is covered by now.
    pub fn page_under_way(
        &mut self,
        UnderWay { started, now }: UnderWay,
        measured: Vec<Measured>,
        summary: &str,
        tally: &Tally,
    ) -> String {
        let written = Utc::now();
        let (at, measured) = self.measured.insert((written, measured));
        Page {
            about: &self.about,
            stage: Stage::UnderWay(now),
            summary,
            written,
            started,
            took: (written - started).to_std().unwrap_or_default(),
            tally,
            failures: &self.failures,
            history: &self.history,
            measured,
            measured_at: Some(*at),
            compared: &[],
        }
        .text()
    }

    /// Says in the page, or in that of the pass before, that this one gave way to another.
    pub fn write_locked_out(&self, end: End<'_>, stop: &Stop) -> Result<(), FileError> {
        replace(&self.file, stop, |found| {
            let note = gave_way(Utc::now());
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

/// Puts this page in the place of the one that is there.
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

/// Whether a page may take the place of this text: it is one itself, or nothing.
fn check(text: &str) -> Result<(), FileError> {
    match text.is_empty() || text.starts_with(BEGINNING) {
        true => Ok(()),
        false => Err(FileError::Foreign("it is not a report of this program".into())),
    }
}

//! What is known of a pass besides its events.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::stats::Now;
use super::status::Status;
use super::tally::Tally;
use crate::compare::Row;
use crate::coverage::Coverage;
use crate::segment::Collection;

/// What was found out about a collection at the end.
#[derive(Debug)]
pub struct Measured {
    /// Which one.
    pub collection: Collection,
    /// What is covered of it; nothing can be said of chat.
    pub coverage: Option<Coverage>,
}

/// What is known of a pass only at its end.
#[derive(Debug)]
pub struct Figures {
    /// When it began.
    pub started: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// How many segments that are here were checked, and how many bytes they have, if that was
    /// asked for (`--verify`).
    pub checked: Option<(u64, u64)>,
    /// Who has what, if that was to be found out and the pass did not end before.
    pub compared: Vec<(Collection, Vec<Row>)>,
    /// What is covered, if that was to be found out and the pass did not end before.
    pub measured: Vec<Measured>,
}

impl Figures {
    /// How many holes remain in all that was measured.
    pub fn holes(&self) -> u64 {
        let coverages = self.measured.iter().filter_map(|measured| measured.coverage.as_ref());
        coverages.map(|coverage| coverage.holes.len() as u64).sum()
    }
}

/// What is known of a pass under way.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay {
    /// When it began.
    pub started: DateTime<Utc>,
    /// How far it has come.
    pub now: Now,
}

/// What the files about a pass contain at its end.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The counts.
    pub tally: &'a Tally,
    /// The exit status.
    pub status: Status,
    /// How the pass went, in one line for people.
    pub summary: &'a str,
    /// The other figures.
    pub figures: &'a Figures,
    /// Whether it was a dry run.
    pub dry_run: bool,
}

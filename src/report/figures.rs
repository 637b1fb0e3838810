//! Results of a pass that are not events: times, coverage, and the comparison of nodes.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::stats::Now;
use super::status::Status;
use super::tally::Tally;
use crate::compare::Row;
use crate::coverage::Coverage;
use crate::segment::Collection;

/// The coverage of a collection at the end of a pass.
#[derive(Debug)]
pub struct Measured {
    /// The collection.
    pub collection: Collection,
    /// Its coverage; `None` for chat, which has no durations.
    pub coverage: Option<Coverage>,
}

/// What is known only at the end of a pass.
#[derive(Debug)]
pub struct Figures {
    /// When the pass began.
    pub started: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// How many streams and variants the pass covers; `None` if it ended early.
    pub collections: Option<usize>,
    /// With `--verify`: how many segments were checked, and their size in bytes.
    pub checked: Option<(u64, u64)>,
    /// With `--compare`: which node has what; empty if the pass ended early.
    pub compared: Vec<(Collection, Vec<Row>)>,
    /// The coverage, if it was requested; empty if the pass ended early.
    pub measured: Vec<Measured>,
}

impl Figures {
    /// The figures of a pass that did nothing.
    pub fn none(started: DateTime<Utc>, took: Duration) -> Figures {
        let (measured, compared) = (Vec::new(), Vec::new());
        Figures { started, took, collections: None, checked: None, measured, compared }
    }

    /// How many holes remain in all collections together.
    pub fn holes(&self) -> u64 {
        let coverages = self.measured.iter().filter_map(|measured| measured.coverage.as_ref());
        coverages.map(|coverage| coverage.holes.len() as u64).sum()
    }
}

/// What is known of a running pass.
#[derive(Clone, Copy, Debug)]
pub struct RunningPass {
    /// When the pass began.
    pub started: DateTime<Utc>,
    /// Its present state.
    pub now: Now,
}

/// The results at the end of a pass, for the files that it writes.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The counts.
    pub tally: &'a Tally,
    /// The outcome.
    pub status: Status,
    /// The summary line.
    pub summary: &'a str,
    /// The other results.
    pub figures: &'a Figures,
    /// Whether this was a dry run.
    pub dry_run: bool,
}

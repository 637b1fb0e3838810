//! The summary, which is the last of the JSON Lines: the counts of the pass, and the results for
//! each node and each collection.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::compare::Row;
use crate::coverage::Hole;
use crate::report::figures::{Figures, Measured};
use crate::report::status::{Left, Status};
use crate::report::tally::{NodeTally, Tally};
use crate::segment::Collection;
use crate::stop::Cause;

/// The results at the end of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The outcome.
    pub status: Status,
    /// What is left undone.
    pub left: &'a Left,
    /// The other results.
    pub figures: &'a Figures,
}

/// The fields of the summary, in the order in which they are written.
#[derive(Serialize)]
pub struct Summary<'a> {
    status: u8,
    complete: bool,
    dry_run: bool,
    ended_by: Option<&'static str>,
    started: String,
    ms: u64,
    files: u64,
    bytes: u64,
    would_fetch: u64,
    would_fetch_bytes: Option<u64>,
    tombstones: u64,
    hidden: u64,
    removed: u64,
    near_duplicates: u64,
    failed: u64,
    vanished: u64,
    listings_failed: u64,
    checked_files: Option<u64>,
    checked_bytes: Option<u64>,
    corrupt: u64,
    repaired: u64,
    still_corrupt: u64,
    deleted: u64,
    not_deleted: u64,
    local_failures: u64,
    free_bytes: Option<u64>,
    short_of_bytes: Option<u64>,
    nodes: Vec<NodeFigures<'a>>,
    coverage: Vec<Coverage<'a>>,
    comparison: Vec<Compared<'a>>,
}

/// An hour, and who has what of it.
#[derive(Serialize)]
struct Compared<'a> {
    stream: &'a str,
    variant: &'a str,
    hour: String,
    all: u64,
    here: u64,
    here_lacks: u64,
    nodes: Vec<ComparedNode<'a>>,
}

/// What one node has of an hour.
#[derive(Serialize)]
struct ComparedNode<'a> {
    node: &'a str,
    has: Option<u64>,
    lacks: Option<u64>,
}

fn compared<'a>(collection: &'a Collection, row: &Row, names: &'a [String]) -> Compared<'a> {
    let nodes = names.iter().zip(&row.nodes).map(|(node, has)| ComparedNode {
        node,
        has: *has,
        lacks: has.map(|has| row.lacks(has)),
    });
    Compared {
        stream: collection.stream.as_str(),
        variant: collection.variant.as_str(),
        hour: row.hour.to_string(),
        all: row.all,
        here: row.here,
        here_lacks: row.lacks(row.here),
        nodes: nodes.collect(),
    }
}

/// The results for a node.
#[derive(Serialize)]
struct NodeFigures<'a> {
    node: &'a str,
    files: u64,
    bytes: u64,
    errors: u64,
    listing_ms: u64,
    fetch_ms: u64,
    given_up: bool,
}

/// The coverage of a collection.
#[derive(Serialize)]
struct Coverage<'a> {
    stream: &'a str,
    variant: &'a str,
    expected_seconds: f64,
    missing_seconds: f64,
    share: f64,
    holes: Vec<HoleFigures>,
}

/// A hole that remains.
#[derive(Serialize)]
struct HoleFigures {
    start: String,
    end: String,
    seconds: f64,
}

fn of_node<'a>(name: &'a str, node: &NodeTally) -> NodeFigures<'a> {
    NodeFigures {
        node: name,
        files: node.landed,
        bytes: node.bytes,
        errors: node.errors,
        listing_ms: millis(node.listing),
        fetch_ms: millis(node.fetching),
        given_up: node.given_up,
    }
}

fn covered(Measured { collection, coverage }: &Measured) -> Option<Coverage<'_>> {
    let coverage = coverage.as_ref()?;
    Some(Coverage {
        stream: collection.stream.as_str(),
        variant: collection.variant.as_str(),
        expected_seconds: seconds(coverage.expected),
        missing_seconds: seconds(coverage.missing),
        share: coverage.share(),
        holes: coverage.holes.iter().map(hole).collect(),
    })
}

fn hole(hole: &Hole) -> HoleFigures {
    HoleFigures {
        start: rfc3339(hole.start),
        end: rfc3339(hole.end),
        seconds: seconds(hole.micros()),
    }
}

/// Builds the summary.
pub fn of<'a>(
    tally: &Tally,
    names: &'a [String],
    outcome: Outcome<'a>,
    dry_run: bool,
) -> Summary<'a> {
    let Outcome { status, left, figures } = outcome;
    let nodes = names.iter().zip(&tally.nodes).map(|(name, node)| of_node(name, node));
    let coverage = figures.measured.iter().filter_map(covered);
    let comparison = figures.compared.iter().flat_map(|(collection, rows)| {
        rows.iter().map(move |row| compared(collection, row, names))
    });
    Summary {
        status: status.code(),
        complete: status == Status::Complete,
        dry_run,
        ended_by: left.cause.map(|cause| match cause {
            Cause::Signal(_) => "signal",
            Cause::OutputClosed => "output_closed",
            Cause::LocalFailure => "local_failure",
            Cause::MaxDuration => "max_duration",
        }),
        started: figures.started.to_rfc3339_opts(SecondsFormat::Millis, true),
        ms: millis(figures.took),
        files: tally.landed,
        bytes: tally.bytes,
        would_fetch: tally.would_fetch,
        would_fetch_bytes: (tally.sizes_known == tally.would_fetch)
            .then_some(tally.would_fetch_bytes),
        tombstones: tally.tombstones,
        hidden: tally.hidden,
        removed: tally.removed,
        near_duplicates: tally.near_duplicates,
        failed: tally.failed,
        vanished: tally.vanished,
        listings_failed: tally.listings_failed,
        checked_files: figures.checked.map(|(files, _)| files),
        checked_bytes: figures.checked.map(|(_, bytes)| bytes),
        corrupt: tally.corrupt,
        repaired: tally.repaired,
        still_corrupt: left.corrupt,
        deleted: tally.deleted,
        not_deleted: tally.not_deleted,
        local_failures: tally.local_failures,
        free_bytes: tally.out_of_room.map(|room| room.free),
        short_of_bytes: tally.out_of_room.map(|room| room.missing),
        nodes: nodes.collect(),
        coverage: coverage.collect(),
        comparison: comparison.collect(),
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// A point in time, to the millisecond.
fn rfc3339(micros: i64) -> String {
    let at = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

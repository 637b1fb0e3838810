//! The report for programs: JSON Lines on standard output, one event a line as it happens, and a
//! summary at the end. What each field means is told in the README.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::{Event, Figures, Measured, Status, Tally};
use crate::coverage::Hole;
use crate::plan::Skip;
use crate::segment::is_unprintable;
use crate::target::Target;

/// What the lines look like. It changes when a field is taken away or gets another meaning, not
/// when there are more of them.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    #[serde(flatten)]
    event: Content<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Content<'a> {
    Segment(File<'a>),
    Extra(File<'a>),
    Tombstone(File<'a>),
    Skipped { path: Option<&'a str>, node: Option<&'a str>, reason: &'static str, detail: &'a str },
    Failed { what: &'static str, path: Option<&'a str>, node: Option<&'a str>, reason: &'a str },
    Node { node: &'a str, state: &'static str, reason: &'a str },
    Corrupt { path: &'a str, repaired: Option<bool>, reason: &'a str },
    Deleted { path: &'a str, segments: u64, left: u64, dry_run: bool },
    Summary(Box<Summary<'a>>),
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    node: Option<&'a str>,
    bytes: Option<u64>,
    ms: Option<u64>,
    repaired: bool,
    dry_run: bool,
}

#[derive(Serialize)]
struct Summary<'a> {
    status: u8,
    complete: bool,
    dry_run: bool,
    started: String,
    ms: u64,
    files: u64,
    bytes: u64,
    would_fetch: u64,
    tombstones: u64,
    near_duplicates: u64,
    failed: u64,
    vanished: u64,
    listings_failed: u64,
    corrupt: u64,
    repaired: u64,
    deleted: u64,
    nodes: Vec<NodeFigures<'a>>,
    coverage: Vec<Coverage<'a>>,
}

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

#[derive(Serialize)]
struct Coverage<'a> {
    stream: &'a str,
    variant: &'a str,
    expected_seconds: f64,
    missing_seconds: f64,
    share: f64,
    holes: Vec<HoleFigures>,
}

#[derive(Serialize)]
struct HoleFigures {
    start: String,
    end: String,
    seconds: f64,
}

impl From<&Hole> for HoleFigures {
    fn from(hole: &Hole) -> Self {
        HoleFigures {
            start: instant(hole.start),
            end: instant(hole.end),
            seconds: seconds(hole.micros()),
        }
    }
}

/// An event as a line without its end, if programs are told of it. `names` are those of the nodes.
pub fn line(event: &Event<'_>, names: &[String], dry_run: bool) -> Option<String> {
    let node = |id: &usize| names.get(*id).map(String::as_str);
    let name = |id: &usize| node(id).unwrap_or_default();
    let (path, text, of);
    let content = match event {
        Event::Landed { node: id, target, bytes, took, repaired } => {
            of = target.path();
            let file = File {
                path: &of,
                node: node(id),
                bytes: Some(*bytes),
                ms: Some(millis(*took)),
                repaired: *repaired,
                dry_run,
            };
            segment_or_extra(target, file)
        }
        Event::WouldLand { target, is_tombstone } => {
            of = target.path();
            let file = bare(&of, None, dry_run);
            match is_tombstone {
                true => Content::Tombstone(file),
                false => segment_or_extra(target, file),
            }
        }
        Event::Buried { node: id, target } => {
            of = target.path();
            Content::Tombstone(bare(&of, node(id), dry_run))
        }
        Event::Skipped { node: id, within, name, why } => {
            path = name.map(|name| format!("{within}/{name}"));
            text = why.to_string();
            Content::Skipped {
                path: path.as_deref(),
                node: node(id),
                reason: reason(why),
                detail: &text,
            }
        }
        Event::Dropped { target, why } => {
            text = why.to_string();
            of = target.path();
            let path = Some(of.as_str());
            Content::Skipped { path, node: None, reason: reason(why), detail: &text }
        }
        Event::FileFailed { node: id, target, why } => {
            of = target.path();
            let path = Some(of.as_str());
            Content::Failed { what: "file", path, node: node(id), reason: why }
        }
        Event::FileVanished { target, .. } => {
            of = target.path();
            let path = Some(of.as_str());
            let reason = "it is gone from every node that listed it";
            Content::Failed { what: "vanished", path, node: None, reason }
        }
        Event::ListingFailed { node: id, what, why } => {
            let path = what.strip_prefix("listing ");
            Content::Failed { what: "listing", path, node: node(id), reason: why }
        }
        Event::NotDeleted { place, why } => {
            path = Some(place.to_string());
            Content::Failed { what: "deletion", path: path.as_deref(), node: None, reason: why }
        }
        Event::LocalFailed { error } => {
            text = error.to_string();
            Content::Failed { what: "this machine", path: None, node: None, reason: &text }
        }
        Event::NodeGivenUp { node: id, why } => {
            Content::Node { node: name(id), state: "given_up", reason: why }
        }
        Event::NoExtras { node: id } => {
            let reason = "it is too old to list extra files";
            Content::Node { node: name(id), state: "no_extras", reason }
        }
        Event::GivesNothing { node: id, gone } => {
            text = format!("it has none of the {gone} segments that it lists");
            Content::Node { node: name(id), state: "gives_nothing", reason: &text }
        }
        Event::SendsWrong { node: id, files } => {
            text = format!("it sent wrong content for {files} that another node gave");
            Content::Node { node: name(id), state: "sends_wrong", reason: &text }
        }
        Event::FromTheFuture { node: id, place } => {
            text = format!("{place} has segments from the future");
            Content::Node { node: name(id), state: "from_the_future", reason: &text }
        }
        Event::Corrupt { target, why } => {
            of = target.path();
            Content::Corrupt { path: &of, repaired: None, reason: why }
        }
        Event::NotRepaired { path } => {
            let reason = "no node could give a good copy";
            Content::Corrupt { path, repaired: Some(false), reason }
        }
        Event::Deleted { place, segments, left, dry_run } => {
            path = Some(format!("{place}/"));
            let (segments, left, dry_run) = (*segments, *left, *dry_run);
            let path = path.as_deref().unwrap_or_default();
            Content::Deleted { path, segments, left, dry_run }
        }
        Event::HoursListed { .. }
        | Event::Listed { .. }
        | Event::TryFailed { .. }
        | Event::SegmentGone { .. } => return None,
    };
    Some(encode(content))
}

fn bare<'a>(path: &'a str, node: Option<&'a str>, dry_run: bool) -> File<'a> {
    File { path, node, bytes: None, ms: None, repaired: false, dry_run }
}

fn segment_or_extra<'a>(target: &Target, file: File<'a>) -> Content<'a> {
    match target.place() {
        Some(_) => Content::Segment(file),
        None => Content::Extra(file),
    }
}

fn reason(why: &Skip) -> &'static str {
    match why {
        Skip::Here => "here",
        Skip::Temp => "temp",
        Skip::Recent => "recent",
        Skip::Tombstoned => "tombstoned",
        Skip::NearDuplicate(_) => "near_duplicate",
        Skip::Hidden => "hidden",
        Skip::NoName(_) => "no_name",
    }
}

/// The last line.
pub fn summary(
    tally: &Tally,
    names: &[String],
    status: Status,
    figures: &Figures,
    dry_run: bool,
) -> String {
    let nodes = names.iter().zip(&tally.nodes).map(|(name, node)| NodeFigures {
        node: name,
        files: node.landed,
        bytes: node.bytes,
        errors: node.errors,
        listing_ms: millis(node.listing),
        fetch_ms: millis(node.fetching),
        given_up: node.given_up,
    });
    let coverage = figures.measured.iter().filter_map(|Measured { collection, coverage }| {
        let coverage = coverage.as_ref()?;
        Some(Coverage {
            stream: collection.stream.as_str(),
            variant: collection.variant.as_str(),
            expected_seconds: seconds(coverage.expected),
            missing_seconds: seconds(coverage.missing),
            share: coverage.share(),
            holes: coverage.holes.iter().map(HoleFigures::from).collect(),
        })
    });
    encode(Content::Summary(Box::new(Summary {
        status: status.code(),
        complete: status == Status::Complete,
        dry_run,
        started: figures.started.to_rfc3339_opts(SecondsFormat::Millis, true),
        ms: millis(figures.took),
        files: tally.landed,
        bytes: tally.bytes,
        would_fetch: tally.would_fetch,
        tombstones: tally.tombstones,
        near_duplicates: tally.near_duplicates,
        failed: tally.failed,
        vanished: tally.vanished,
        listings_failed: tally.listings_failed,
        corrupt: tally.corrupt,
        repaired: tally.repaired,
        deleted: tally.deleted,
        nodes: nodes.collect(),
        coverage: coverage.collect(),
    })))
}

/// What might steer a terminal is escaped in the way that JSON has for all characters. Such
/// characters occur in strings only.
fn encode(event: Content<'_>) -> String {
    let line = Line { schema: SCHEMA, event };
    let text = serde_json::to_string(&line).expect("plain structures with names for keys");
    if !text.contains(is_unprintable) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_unprintable(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }),
            false => escaped.push(c),
        }
    }
    escaped
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// A point in time, to the millisecond.
fn instant(micros: i64) -> String {
    let at = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_reads_back_the_same() {
        let name = "\u{9b}2J\u{7f}\u{202e}\n\u{1b}é😀";
        let event = Event::Skipped { node: 0, within: "a/b", name: Some(name), why: Skip::Hidden };
        let line = line(&event, &["n".into()], false).unwrap();
        assert!(!line.contains(is_unprintable), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], format!("a/b/{name}"));
        assert_eq!((&value["schema"], &value["event"]), (&1.into(), &"skipped".into()));
    }
}
